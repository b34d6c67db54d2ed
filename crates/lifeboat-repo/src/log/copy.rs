//! Copying log from one store of a repository to another, without a private key: names and bytes stay the same.
//!
//! Announce there → key files → records → histories, pieces and frames that the destination lacks, the oldest first. If we die, what was copied stands
//! and counts. Only files whose beginning fits are copied (INV-16), and none of a session whose key could not be: it would count as held, and nobody
//! could open it. Frames that a file replaces which stands there by then are left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::Key;

use super::file::{LOG_FILE_LIMIT_BYTES, LogHeader};
use super::listing::list_log;
use super::name::{LogFileKind, LogName};
use super::reader::LogReader;
use crate::id::{ComponentName, SessionId};
use crate::key::file::{KEY_FILE_LIMIT_BYTES, KeyFileName};
use crate::key::identity::Identities;
use crate::key::instance::{Instance, Trust};
use crate::prune::records::RECORD_LIMIT_BYTES;
use crate::replicas::{NotCopied, copy_file};
use crate::repository::{Repository, another};
use crate::session::{OpenSession, announce};

/// What came of it.
#[derive(Debug, Default)]
#[must_use]
pub struct LogCopied {
    /// Files put.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be copied, with the reason.
    pub failed: Vec<(String, Error)>,
}

/// Brings the log of a component to `to`, as far as it is not there.
pub async fn copy_log(
    env: &Env,
    from: &Repository,
    to: &Repository,
    component: &ComponentName,
    instance: &Arc<Instance>,
    trust: &Trust,
) -> Result<LogCopied> {
    if to.id() != from.id() {
        return Err(another(to.store().name(), to.id(), from.id()));
    }
    let folder = component.folder()?;
    let source = list_log(from, component, trust).await?;
    let mut report = LogCopied::default();
    if source.lineages.is_empty() {
        return Ok(report);
    }
    let open = announce(env, to, component, instance, "copy", None).await?;
    let there: BTreeSet<Key> = listed(to, &folder).await?;
    let (mut records, mut sessions, mut files) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut replaced: BTreeSet<[u8; 32]> = BTreeSet::new();
    for entry in from.store().list(&folder.join("log")?).await? {
        let name = entry.key.file_name();
        if name.starts_with("lineage-") || entry.key.as_str().contains("/gaps/") {
            records.push(entry.key);
        }
    }
    for record in &source.lineages {
        let reader = LogReader::of(from, component, trust, Identities::none(), record.lineage, &source);
        let lacks = |name: &LogName| name.key(component, record.lineage).is_ok_and(|key| !there.contains(&key));
        let frames: Vec<LogName> = reader
            .files()
            .iter()
            .filter(|name| name.kind == LogFileKind::Frame && lacks(name))
            .copied()
            .collect();
        // What is there already may replace a frame that is not.
        let contains = |name: &LogName| frames.iter().any(|frame| frame != name && name.range.contains(&frame.range));
        let judged = reader.headers(|name| lacks(name) || contains(name)).await?;
        for (name, header) in &judged.fit {
            if lacks(name) {
                sessions.insert(header.session);
                files.push(File::new(name.key(component, record.lineage)?, name, header));
            } else {
                replaced.extend(header.replaces.iter().copied());
            }
        }
        let failed = judged
            .rejected
            .into_iter()
            .filter(|(_, error)| error.kind() != ErrorKind::NotFound);
        report.failed.extend(failed.map(|(name, error)| (name.to_string(), error)));
    }
    let mut copying = Copying {
        from,
        to,
        component,
        instance,
        open,
        there,
        report,
    };
    let (mut known, mut confirmed) = (BTreeSet::new(), BTreeSet::new());
    for (key, session) in key_files(from, &folder, &sessions).await? {
        known.insert(session);
        if copying.file(&key, KEY_FILE_LIMIT_BYTES).await? {
            confirmed.insert(session);
        }
    }
    for key in records {
        copying.file(&key, RECORD_LIMIT_BYTES).await?;
    }
    let is_open = |session: &SessionId| !known.contains(session) || confirmed.contains(session);
    copying.log(files, replaced, is_open).await?;
    Ok(copying.report)
}

/// A file of log that the destination lacks.
struct File {
    key: Key,
    hash: [u8; 32],
    session: SessionId,
    /// Hashes of the frames whose bytes it holds.
    replaces: Vec<[u8; 32]>,
}

impl File {
    fn new(key: Key, name: &LogName, header: &LogHeader) -> Self {
        Self {
            key,
            hash: name.hash,
            session: header.session,
            replaces: header.replaces.clone(),
        }
    }
}

/// A copy under way.
struct Copying<'a> {
    from: &'a Repository,
    to: &'a Repository,
    component: &'a ComponentName,
    instance: &'a Arc<Instance>,
    open: OpenSession,
    there: BTreeSet<Key>,
    report: LogCopied,
}

impl Copying<'_> {
    /// Copies pieces, frames and histories. `replaced` are hashes of frames that files replace which stand there already; `is_open` says whether
    /// the keys of a session do.
    async fn log(
        &mut self,
        mut files: Vec<File>,
        mut replaced: BTreeSet<[u8; 32]>,
        is_open: impl Fn(&SessionId) -> bool,
    ) -> Result<()> {
        // Files that replace others before those: what cannot be copied replaces nothing.
        files.sort_by_key(|file| file.replaces.is_empty());
        for file in files {
            if replaced.contains(&file.hash) {
                continue;
            }
            if !is_open(&file.session) {
                let detail = "the key of its session could not be copied";
                let error = Error::new(ErrorKind::Unreachable, "copy", &file.key, detail).with_hint("run the copy again");
                self.report.failed.push((file.key.to_string(), error));
            } else if self.file(&file.key, LOG_FILE_LIMIT_BYTES).await? {
                replaced.extend(file.replaces);
            }
        }
        Ok(())
    }

    /// Whether it stands at the destination now. What the source does not give is written down.
    async fn file(&mut self, key: &Key, limit: u64) -> Result<bool> {
        if self.there.contains(key) {
            return Ok(true);
        }
        self.open.keep_open(&**self.to.store(), self.instance).await?;
        let stands = match copy_file(&[Arc::clone(self.from.store())], self.to.store(), key, limit).await {
            Ok(_) => {
                self.report.files += 1;
                self.report.bytes += self.to.store().head(key).await?.size_bytes;
                true
            }
            Err(NotCopied::Unreadable(error)) => {
                self.report.failed.push((key.to_string(), error));
                false
            }
            Err(NotCopied::Unwritable(error)) => return Err(error),
        };
        self.open.check_deadline("copy the log of", self.component)?;
        Ok(stands)
    }
}

async fn listed(repository: &Repository, folder: &Key) -> Result<BTreeSet<Key>> {
    let entries = repository.store().list(folder).await?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

async fn key_files(from: &Repository, folder: &Key, sessions: &BTreeSet<SessionId>) -> Result<Vec<(Key, SessionId)>> {
    let entries = from.store().list(&folder.join("keys")?).await?;
    let session = |key: &Key| KeyFileName::parse(key.file_name()).map(|name| name.session);
    let keys = entries
        .into_iter()
        .filter_map(|entry| session(&entry.key).map(|session| (entry.key, session)));
    Ok(keys.filter(|(_, session)| sessions.contains(session)).collect())
}
