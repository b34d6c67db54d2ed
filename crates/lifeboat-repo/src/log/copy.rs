//! Copying log from one store of a repository to another, without a private key: names and bytes stay the same.
//!
//! Announce there → key files → histories and records → pieces and frames that the destination lacks, the oldest first. If we die, what was copied
//! stands and counts. Only files whose beginning fits are copied (INV-16); frames that a copied file replaces are left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::Key;

use super::file::LOG_FILE_LIMIT_BYTES;
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
use crate::session::announce;

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
    for entry in from.store().list(&folder.join("log")?).await? {
        let name = entry.key.file_name();
        if name.starts_with("lineage-") || entry.key.as_str().contains("/gaps/") {
            records.push((entry.key, RECORD_LIMIT_BYTES));
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
        let replaced: BTreeSet<[u8; 32]> = judged
            .fit
            .iter()
            .flat_map(|(_, header)| header.replaces.iter().copied())
            .collect();
        for (name, header) in judged
            .fit
            .iter()
            .filter(|(name, _)| lacks(name) && !replaced.contains(&name.hash))
        {
            sessions.insert(header.session);
            files.push((name.key(component, record.lineage)?, LOG_FILE_LIMIT_BYTES));
        }
        let failed = judged
            .rejected
            .into_iter()
            .filter(|(_, error)| error.kind() != ErrorKind::NotFound);
        report.failed.extend(failed.map(|(name, error)| (name.to_string(), error)));
    }
    let keys = key_files(from, &folder, &sessions).await?;
    let wanted = keys
        .into_iter()
        .chain(records)
        .chain(files)
        .filter(|(key, _)| !there.contains(key));
    for (key, limit) in wanted {
        open.keep_open(&**to.store(), instance).await?;
        match copy_file(&[Arc::clone(from.store())], to.store(), &key, limit).await {
            Ok(_) => {
                report.files += 1;
                report.bytes += to.store().head(&key).await?.size_bytes;
            }
            Err(NotCopied::Unreadable(error)) => report.failed.push((key.to_string(), error)),
            Err(NotCopied::Unwritable(error)) => return Err(error),
        }
        open.check_deadline("copy the log of", component)?;
    }
    Ok(report)
}

async fn listed(repository: &Repository, folder: &Key) -> Result<BTreeSet<Key>> {
    let entries = repository.store().list(folder).await?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

async fn key_files(from: &Repository, folder: &Key, sessions: &BTreeSet<SessionId>) -> Result<Vec<(Key, u64)>> {
    let entries = from.store().list(&folder.join("keys")?).await?;
    let wanted = |key: &Key| KeyFileName::parse(key.file_name()).is_some_and(|name| sessions.contains(&name.session));
    let keys = entries.into_iter().map(|entry| entry.key).filter(wanted);
    Ok(keys.map(|key| (key, KEY_FILE_LIMIT_BYTES)).collect())
}
