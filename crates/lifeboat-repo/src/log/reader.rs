//! Reading log: what is held, and its verified bytes (INV-10, INV-16).
//!
//! A file that does not fit counts as not there; where another one holds the same range, that is taken. Two files that fit and hold other
//! bytes for one position stop the reader (PG-06): it does not choose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lifeboat_io::compute;
use lifeboat_model::wal::{Coverage, Mark, Range};
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_store::BlobStore;
use tokio::task::JoinSet;

use super::file::{HEADER_LIMIT_BYTES, LOG_FILE_LIMIT_BYTES, LogHeader};
use super::listing::{LogListing, list_log};
use super::name::{LogFileKind, LogName};
use super::{BLOCK_BYTES, block_end};
use crate::id::{ComponentName, Lineage, RepositoryId, SessionId};
use crate::key::Scope;
use crate::key::age::SessionKeys;
use crate::key::file::{KEY_FILE_LIMIT_BYTES, KeyFileName};
use crate::key::identity::Identities;
use crate::key::instance::Trust;
use crate::repository::Repository;
use crate::sync::lock;

/// As much of a file as is read to judge it; more only where it replaces many frames.
const FRONT_BYTES: u64 = 4096;
/// Headers that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// Reads the log of one lineage.
#[derive(Debug, Clone)]
pub struct LogReader {
    inner: Arc<Inner>,
    files: Vec<LogName>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn BlobStore>,
    repository: RepositoryId,
    component: ComponentName,
    trust: Trust,
    identities: Identities,
    lineage: Lineage,
    scope: Scope,
    keys: Mutex<BTreeMap<SessionId, Arc<SessionKeys>>>,
}

impl LogReader {
    /// Lists the log and takes one lineage of it. `identities` may be none where only headers are looked at.
    pub async fn open(
        repository: &Repository,
        component: &ComponentName,
        trust: &Trust,
        identities: Identities,
        lineage: Lineage,
    ) -> Result<Self> {
        let listing = list_log(repository, component, trust).await?;
        Ok(Self::of(repository, component, trust, identities, lineage, &listing))
    }

    /// The same from a listing that was made before.
    #[must_use]
    pub fn of(
        repository: &Repository,
        component: &ComponentName,
        trust: &Trust,
        identities: Identities,
        lineage: Lineage,
        listing: &LogListing,
    ) -> Self {
        let inner = Inner {
            store: Arc::clone(repository.store()),
            repository: repository.id(),
            component: component.clone(),
            trust: trust.clone(),
            identities,
            lineage,
            scope: Scope::new(repository.id(), component),
            keys: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
            files: listing.files(lineage).to_vec(),
        }
    }

    /// The files that are listed.
    #[must_use]
    pub fn files(&self) -> &[LogName] {
        &self.files
    }

    /// Judges a file by its beginning: its signature, its name, its place. What is sealed in it is not looked at.
    pub async fn header(&self, name: &LogName) -> Result<LogHeader> {
        self.inner.header(name).await
    }

    /// Judges all files that `wanted` accepts, several at a time. Those that do not fit come second.
    ///
    /// # Errors
    /// When the store does not answer. A file that has gone since it was listed is among those that do not fit.
    pub async fn headers(&self, wanted: impl Fn(&LogName) -> bool) -> Result<Judged> {
        let mut pending = self.files.iter().filter(|name| wanted(name)).copied();
        let mut judged = Judged::default();
        let mut reads = JoinSet::new();
        loop {
            while reads.len() < READS_AT_ONCE {
                let Some(name) = pending.next() else { break };
                let inner = Arc::clone(&self.inner);
                reads.spawn(async move { (name, inner.header(&name).await) });
            }
            let Some(joined) = reads.join_next().await else { break };
            let (name, header) =
                joined.map_err(|error| Error::new(ErrorKind::Bug, "read", "a log file", "a task panicked").with_source(error))?;
            match header {
                Ok(header) => judged.fit.push((name, header)),
                Err(error) if is_verdict(&error) => judged.rejected.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        judged.fit.sort_by_key(|(name, _)| *name);
        Ok(judged)
    }

    /// A file's content, verified whole.
    pub async fn fetch(&self, name: &LogName) -> Result<(LogHeader, Vec<u8>)> {
        self.inner.fetch(name).await
    }

    /// The bytes of `range`, which lies within one block, from whatever files hold them. Kind `NotFound` where a byte of it is not held, kind
    /// `Corrupt` where it is held twice with other bytes, or only by files that do not fit.
    pub async fn read(&self, range: Range) -> Result<Vec<u8>> {
        if range.is_empty() || range.end > block_end(range.start) {
            let detail = "what is asked for does not lie within one block";
            return Err(Error::new(ErrorKind::Bug, "read log", range, detail));
        }
        let mut bytes = Assembled::new(range);
        let mut unfit = None;
        let overlapping = |name: &&LogName| name.kind != LogFileKind::History && name.range.overlaps(&range);
        for name in self.files.iter().filter(overlapping) {
            match self.inner.fetch(name).await {
                Ok((_, raw)) => bytes.add(name, &raw)?,
                // Replaced since it was listed, or damaged: another file may hold the same.
                Err(error) if is_verdict(&error) => drop(unfit.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        match (bytes.missing(), unfit) {
            (None, _) => Ok(bytes.bytes),
            (Some(_), Some(error)) if error.kind() == ErrorKind::Corrupt => Err(error),
            (Some(missing), _) => Err(Error::new(
                ErrorKind::NotFound,
                "read log",
                missing,
                "nothing that is stored holds it",
            )),
        }
    }

    /// The history file of a timeline, verified. Kind `NotFound` where none is held, `Corrupt` where two differ.
    pub async fn history(&self, timeline: Timeline) -> Result<Vec<u8>> {
        let (mut found, mut unfit): (Option<Vec<u8>>, _) = (None, None);
        let of_timeline = |name: &&LogName| name.kind == LogFileKind::History && name.range.timeline == timeline;
        for name in self.files.iter().filter(of_timeline) {
            match self.inner.fetch(name).await {
                Ok((_, text)) if found.as_ref().is_some_and(|known| *known != text) => {
                    let detail = "two history files of this timeline are stored, and they differ";
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        "read the history of",
                        format!("timeline {timeline}"),
                        detail,
                    ));
                }
                Ok((_, text)) => found = Some(text),
                Err(error) if is_verdict(&error) => drop(unfit.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        let absent = || {
            let detail = "no history file of it is stored";
            Error::new(
                ErrorKind::NotFound,
                "read the history of",
                format!("timeline {timeline}"),
                detail,
            )
        };
        found.ok_or_else(|| unfit.unwrap_or_else(absent))
    }
}

/// Whether an error says something about the file, and not about the store.
fn is_verdict(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound
    )
}

/// Files that were looked at.
#[derive(Debug, Default)]
pub struct Judged {
    /// Those whose beginning fits, by name.
    pub fit: Vec<(LogName, LogHeader)>,
    /// Those that do not, with the reason.
    pub rejected: Vec<(LogName, Error)>,
}

impl Judged {
    /// What is held by those that fit, as far as that can be told without opening them: from the first position on for which two say other
    /// bytes, nothing of the block is (INV-16).
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::new();
        self.log().for_each(|(name, _)| coverage.add(name.range));
        for range in self.conflicts() {
            coverage.remove(Range::new(range.timeline, range.start, block_end(range.start)));
        }
        coverage
    }

    /// Ranges for which two files that fit say other bytes.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Range> {
        let mut said = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (name, header) in self.log() {
            let known = said.entry((name.range, header.id_check)).or_insert(header.content);
            if *known != header.content && conflicts.last() != Some(&name.range) {
                conflicts.push(name.range);
            }
        }
        conflicts
    }

    /// What the source said about times.
    pub fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.log().filter_map(|(name, header)| {
            let position = Position::new(name.range.timeline, name.range.end);
            header.as_of_us.map(|at_us| Mark { position, at_us })
        })
    }

    fn log(&self) -> impl Iterator<Item = &(LogName, LogHeader)> {
        self.fit.iter().filter(|(name, _)| name.kind != LogFileKind::History)
    }
}

impl Inner {
    async fn header(&self, name: &LogName) -> Result<LogHeader> {
        let key = name.key(&self.component, self.lineage)?;
        let size = u64::from(name.size_bytes);
        let mut error = None;
        for front in [FRONT_BYTES.min(size), HEADER_LIMIT_BYTES.min(size)] {
            let read = self.store.get_range(&key, 0..front).await?;
            match LogHeader::read(&read, name, self.lineage, &self.trust) {
                Ok((header, _)) => return Ok(header),
                Err(wrong) => error = Some(wrong),
            }
        }
        // A store among several may have a damaged copy: whole files are taken from one whose bytes hash to the name.
        match self.whole(name).await {
            Ok(stored) => LogHeader::read(&stored, name, self.lineage, &self.trust).map(|(header, _)| header),
            Err(_damaged_everywhere) => {
                Err(error.unwrap_or_else(|| Error::new(ErrorKind::Bug, "judge", name, "nothing was read")))
            }
        }
    }

    async fn whole(&self, name: &LogName) -> Result<Bytes> {
        let stored = self
            .store
            .get(&name.key(&self.component, self.lineage)?, LOG_FILE_LIMIT_BYTES)
            .await?;
        if blake3::hash(&stored).as_bytes() == &name.hash {
            return Ok(stored);
        }
        let detail = "its bytes do not hash to its name: it is damaged or was overwritten";
        Err(Error::new(ErrorKind::Corrupt, "read log", name, detail)
            .with_hint("`lifeboat copy` brings a good copy from another store; without one, run a new backup"))
    }

    async fn fetch(&self, name: &LogName) -> Result<(LogHeader, Vec<u8>)> {
        let stored = self.whole(name).await?;
        let (header, at) = LogHeader::read(&stored, name, self.lineage, &self.trust)?;
        let keys = self.keys_of(&header).await?;
        let (name, scope) = (*name, self.scope);
        compute::run("open log", move || {
            let raw = header.open(stored.to_vec(), at, &name, &keys, &scope)?;
            Ok((header, raw))
        })
        .await
    }

    /// The keys of a session: of any key file that opens here and holds what the file's header checks.
    async fn keys_of(&self, header: &LogHeader) -> Result<Arc<SessionKeys>> {
        let session = header.session;
        let fits = |keys: &SessionKeys| keys.check(&self.scope) == header.key_check && keys.lineage == self.lineage;
        if let Some(keys) = lock(&self.keys).get(&session).filter(|keys| fits(keys)) {
            return Ok(Arc::clone(keys));
        }
        // INV-11: damage is told before a key that does not fit, content of somebody else's last.
        let (mut damaged, mut foreign, mut forged) = (None, None, None);
        for entry in self.store.list(&self.component.folder()?.join("keys")?).await? {
            let Some(name) = KeyFileName::parse(entry.key.file_name()).filter(|name| name.session == session) else {
                continue;
            };
            let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "open the session key", &entry.key, detail);
            let stored = match self.store.get(&entry.key, KEY_FILE_LIMIT_BYTES).await {
                Ok(stored) if blake3::hash(&stored).as_bytes() == &name.hash => stored,
                Ok(_) => {
                    damaged = Some(wrong("its bytes do not hash to its name: it is damaged or was overwritten"));
                    continue;
                }
                Err(error) if is_verdict(&error) => {
                    damaged = Some(error.with_kind(ErrorKind::Corrupt));
                    continue;
                }
                Err(error) => return Err(error),
            };
            match SessionKeys::unwrap(
                &stored,
                name.clear,
                &self.identities,
                self.repository,
                &self.component,
                session,
            ) {
                Ok(keys) if fits(&keys) => {
                    let keys = Arc::new(keys);
                    lock(&self.keys).insert(session, Arc::clone(&keys));
                    return Ok(keys);
                }
                Ok(_) => forged = Some(wrong("it opens, but holds other keys than the log was sealed with")),
                Err(error) if error.kind() == ErrorKind::WrongKey => foreign = Some(error),
                Err(error) => forged = Some(error),
            }
        }
        let missing = || {
            let detail = "no key file of this session is in the store";
            Error::new(ErrorKind::Corrupt, "open the session key", session, detail)
        };
        Err(damaged.or(foreign).or(forged).unwrap_or_else(missing))
    }
}

/// Bytes that are put together from several files.
struct Assembled {
    range: Range,
    bytes: Vec<u8>,
    held: Coverage,
}

impl Assembled {
    fn new(range: Range) -> Self {
        // At most a block.
        let length = usize::try_from(range.bytes().min(BLOCK_BYTES)).unwrap_or_default();
        Self {
            range,
            bytes: vec![0; length],
            held: Coverage::new(),
        }
    }

    /// Takes what a file says. PG-06: what was there before has to be the same.
    fn add(&mut self, name: &LogName, raw: &[u8]) -> Result<()> {
        let common = Range::new(
            self.range.timeline,
            self.range.start.max(name.range.start),
            self.range.end.min(name.range.end),
        );
        let offset = |from: Lsn, at: Lsn| usize::try_from(at.since(from)).unwrap_or(usize::MAX);
        let given = raw.get(offset(name.range.start, common.start)..offset(name.range.start, common.end));
        let ours = self
            .bytes
            .get_mut(offset(self.range.start, common.start)..offset(self.range.start, common.end));
        let (Some(given), Some(ours)) = (given, ours) else {
            return Err(Error::new(ErrorKind::Bug, "read log", name, "it is shorter than its range"));
        };
        for gap in self.held.gaps(common) {
            let part = offset(common.start, gap.start)..offset(common.start, gap.end);
            if let (Some(our), Some(their)) = (ours.get_mut(part.clone()), given.get(part)) {
                our.copy_from_slice(their);
            }
        }
        if let Some(at) = ours.iter().zip(given).position(|(our, their)| our != their) {
            return Err(differs(self.range.timeline, common.start.plus(at as u64)));
        }
        self.held.add(common);
        Ok(())
    }

    fn missing(&self) -> Option<Range> {
        self.held.gaps(self.range).first().copied()
    }
}

/// What is said where two files hold other bytes for one position.
const OTHER_BYTES: &str =
    "two stored files hold other bytes for this position: the source was set back, or two clusters wrote under one name";

/// Whether an error says that two stored files hold other bytes for one position: then no other store is asked (INV-16).
#[must_use]
pub fn is_log_conflict(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt && error.detail() == OTHER_BYTES
}

/// INV-16: two files that fit hold other bytes for one position.
fn differs(timeline: Timeline, at: Lsn) -> Error {
    Error::new(ErrorKind::Corrupt, "read log", Position::new(timeline, at), OTHER_BYTES)
        .with_hint("recover to a moment before it, or from a newer backup; `lifeboat status` names the hosts that wrote them")
}
