//! What this machine keeps of its own chain: where it ends, which store has how much of it, and the records that still have to go somewhere.
//!
//! ```text
//! <state>/ledger/<component>/repository                        the repository that was seen last
//! <state>/ledger/<component>.lock                              held while a number is given out, never while a store is spoken to
//! <state>/ledger/<component>/waiting/<n>                       what was recorded before any store said where the chain ends
//! <state>/ledger/<component>/<repository>-<chain>/head.json    where the chain ends
//! <state>/ledger/<component>/<repository>-<chain>/<seq>-<hash> a record that some store may lack
//! ```
//! A record is written by making its file; `head.json` follows, and is never further on than the files. So two runs of one machine never give
//! out a number twice (INV-18), and a crash between any two steps loses nothing that was written.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{ChainId, Instance, LedgerHead, LedgerName, NewLedgerRecord, RepositoryId, chain_of, seal_record};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Entry;
use crate::protected::Protected;

/// What was recorded before its number was known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Waiting {
    at_us: i64,
    verb: String,
    outcome: String,
    pub(super) facts: Map<String, Value>,
}

impl Waiting {
    pub(super) fn new(entry: Entry, at_us: i64) -> Self {
        Self {
            at_us,
            verb: entry.verb,
            outcome: entry.outcome.word().to_owned(),
            facts: entry.facts,
        }
    }
}

/// Which records a store holds of what this machine gave it: from the one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Where the chain ends, as this machine remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    #[serde(default)]
    version: u32,
    /// `SEQ-HASH` of the last record; none before the first.
    head: Option<String>,
    /// By name of the store.
    stores: BTreeMap<String, Span>,
    /// The newest records of other chains.
    pub(super) heads: BTreeMap<String, String>,
    /// When the stores were last looked at, microseconds since 1970.
    pub(super) looked_at_us: i64,
    /// Digests of the parts of the configuration, as they were recorded last.
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
}

impl Standing {
    /// The last record that is known to stand in a store.
    pub(super) fn shipped_to(&self, store: &str) -> u64 {
        self.stores.get(store).map_or(0, |span| span.to)
    }

    /// The last record that is known to stand in any store.
    pub(super) fn shipped_most(&self) -> u64 {
        self.stores.values().map(|span| span.to).max().unwrap_or(0)
    }

    /// What this machine put into a store, or found there.
    pub(super) fn span(&self, store: &str) -> Option<Span> {
        self.stores.get(store).copied()
    }

    pub(super) fn head(&self) -> Result<Option<LedgerHead>> {
        self.head.as_deref().map(str::parse).transpose()
    }

    fn known_heads(&self) -> Result<BTreeMap<ChainId, LedgerHead>> {
        let pairs = self.heads.iter();
        pairs.map(|(chain, head)| Ok((chain.parse()?, head.parse()?))).collect()
    }
}

/// The place in the state folder for the records about one component by one instance.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    component: lifeboat_repo::ComponentName,
    pub(super) chain: ChainId,
}

impl Home {
    pub(super) fn of(protected: &Protected, instance: &Instance) -> Self {
        Self::of_chain(protected, chain_of(&instance.public_key()))
    }

    pub(super) fn of_chain(protected: &Protected, chain: ChainId) -> Self {
        Self {
            folder: Self::root(protected),
            component: protected.component.clone(),
            chain,
        }
    }

    fn root(protected: &Protected) -> PathBuf {
        protected.state_dir.join("ledger").join(protected.component.segment())
    }

    /// The chains that this state folder knows: usually one.
    pub(super) fn chains(protected: &Protected, repository: RepositoryId) -> Result<Vec<ChainId>> {
        let root = Self::root(protected);
        let entries = match std::fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", root.display(), error)),
        };
        let mut chains = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("list", root.display(), error))?;
            let name = entry.file_name();
            let chain = name.to_str().and_then(|name| name.strip_prefix(&format!("{repository}-")));
            chains.extend(chain.and_then(|chain| chain.parse::<ChainId>().ok()));
        }
        Ok(chains)
    }

    fn chain_folder(&self, repository: RepositoryId) -> PathBuf {
        self.folder.join(format!("{repository}-{}", self.chain))
    }

    fn lock(&self) -> Result<File> {
        durable::create_folder(&self.folder)?;
        let path = self.folder.with_file_name(format!("{}.lock", self.component.segment()));
        let failed = |error| Error::io("lock", path.display(), error);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        // Held for a few small file operations: waiting is short. The kernel gives it back however a run ends.
        lock.lock().map_err(failed)?;
        Ok(lock)
    }

    /// The repository that was seen last. A file that does not read is as good as none: the stores say it.
    pub(super) fn repository(&self) -> Result<Option<RepositoryId>> {
        let path = self.folder.join("repository");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path.display(), error)),
        }
    }

    pub(super) fn remember_repository(&self, repository: RepositoryId) -> Result<()> {
        durable::create_folder(&self.folder)?;
        let path = self.folder.join("repository");
        durable::replace_file(&path, repository.to_string().as_bytes(), durable::FILE_MODE)
    }

    /// Where the chain ends; none where this machine does not know, or what it wrote down does not read: then the stores say it.
    pub(super) fn standing(&self, repository: RepositoryId) -> Result<Option<Standing>> {
        let path = self.chain_folder(repository).join("head.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path.display(), error)),
        };
        let Ok(mut standing) = serde_json::from_slice::<Standing>(&bytes) else {
            return Ok(None);
        };
        if standing.version != 1 || standing.head().is_err() || standing.known_heads().is_err() {
            return Ok(None);
        }
        // A run that died between the two leaves records behind the head that it wrote down.
        for (name, _) in self.pending(repository)? {
            if standing.head()?.is_none_or(|head| head.seq < name.at.seq) {
                standing.head = Some(name.at.to_string());
            }
        }
        Ok(Some(standing))
    }

    fn save(&self, repository: RepositoryId, standing: &Standing) -> Result<()> {
        let folder = self.chain_folder(repository);
        durable::create_folder(&folder)?;
        let standing = Standing {
            version: 1,
            ..standing.clone()
        };
        let bytes = serde_json::to_vec_pretty(&standing)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the end of the ledger", error.to_string()))?;
        durable::replace_file(&folder.join("head.json"), &bytes, durable::FILE_MODE)
    }

    /// Changes what is known of the chain, while no other run does.
    pub(super) fn update(&self, repository: RepositoryId, change: impl FnOnce(&mut Standing)) -> Result<()> {
        let _lock = self.lock()?;
        let mut standing = self.standing(repository)?.unwrap_or_default();
        let before = standing.clone();
        change(&mut standing);
        if standing == before && before.version == 1 {
            return Ok(());
        }
        self.save(repository, &standing)
    }

    /// Gives the entries their numbers and writes them here, in order. Where another run has just set aside what was known of the chain
    /// ([`Home::set_aside`]), they wait for their numbers: beginning anew would give one out twice.
    pub(super) fn write(&self, repository: RepositoryId, instance: &Instance, entries: &[Waiting]) -> Result<Vec<LedgerName>> {
        let lock = self.lock()?;
        let Some(mut standing) = self.standing(repository)? else {
            drop(lock);
            self.keep_waiting(entries)?;
            return Ok(Vec::new());
        };
        let names = self.write_locked(repository, instance, entries, &mut standing)?;
        self.save(repository, &standing)?;
        Ok(names)
    }

    fn write_locked(
        &self,
        repository: RepositoryId,
        instance: &Instance,
        entries: &[Waiting],
        standing: &mut Standing,
    ) -> Result<Vec<LedgerName>> {
        let folder = self.chain_folder(repository);
        durable::create_folder(&folder)?;
        let heads = standing.known_heads()?;
        let mut names = Vec::new();
        for entry in entries {
            let new = NewLedgerRecord {
                previous: standing.head()?,
                at_us: entry.at_us,
                heads: &heads,
                verb: &entry.verb,
                outcome: &entry.outcome,
                facts: &entry.facts,
            };
            let (name, stored) = seal_record(repository, &self.component, instance, &new)?;
            match durable::create_file(&folder.join(name.at.to_string()), &stored, durable::FILE_MODE)? {
                durable::Created::New | durable::Created::AlreadyThere => {}
            }
            standing.head = Some(name.at.to_string());
            names.push(name);
        }
        Ok(names)
    }

    /// Records that some store may lack, in order. One whose bytes do not hash to its name is left out.
    pub(super) fn pending(&self, repository: RepositoryId) -> Result<Vec<(LedgerName, Bytes)>> {
        let folder = self.chain_folder(repository);
        let mut pending = Vec::new();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(pending),
            Err(error) => return Err(Error::io("list", folder.display(), error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("list", folder.display(), error))?;
            let Some(Ok(at)) = entry.file_name().to_str().map(str::parse::<LedgerHead>) else {
                continue;
            };
            let path = entry.path();
            let stored = match std::fs::read(&path) {
                Ok(stored) => stored,
                // Another run of this machine has shipped and removed it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", path.display(), error)),
            };
            if blake3::hash(&stored).as_bytes() == &at.hash {
                let name = LedgerName { chain: self.chain, at };
                pending.push((name, Bytes::from(stored)));
            }
        }
        pending.sort_by_key(|(name, _)| name.at);
        Ok(pending)
    }

    /// Forgets where the chain ends, because it went on without this machine's knowing. What no store has seen (`is_there` knows the names that
    /// one has) waits for a new number: dying in between repeats an entry, and loses none.
    pub(super) fn set_aside(&self, repository: RepositoryId, is_there: impl Fn(&LedgerName) -> bool) -> Result<()> {
        let pending = self.pending(repository)?;
        let unseen = pending.iter().filter(|(name, _)| !is_there(name));
        let again: Vec<Waiting> = unseen.filter_map(|(_, stored)| reopen(stored)).collect();
        self.keep_waiting(&again)?;
        let _lock = self.lock()?;
        let folder = self.chain_folder(repository);
        let aside = folder.with_extension("aside");
        durable::remove_folder(&aside)?;
        // From here on nothing is known, and the stores say where the chain ends.
        durable::rename(&folder, &aside)?;
        durable::remove_folder(&aside)
    }

    /// Begins with what the stores say: where the chain ends, and which of them has how much of it.
    pub(super) fn adopt(&self, repository: RepositoryId, head: Option<LedgerHead>, stores: BTreeMap<String, Span>) -> Result<()> {
        self.update(repository, |standing| {
            standing.head = head.map(|head| head.to_string());
            standing.stores = stores;
        })
    }

    /// Remembers the parts of the configuration that were recorded.
    pub(super) fn remember_config(&self, parts: &BTreeMap<String, String>) -> Result<()> {
        match self.repository()? {
            Some(repository) if self.standing(repository)?.is_some() => {
                self.update(repository, |standing| standing.config.clone_from(parts))
            }
            _ => Ok(()),
        }
    }

    fn waiting_folder(&self) -> PathBuf {
        self.folder.join("waiting")
    }

    /// Keeps entries whose place in the chain is not known.
    pub(super) fn keep_waiting(&self, entries: &[Waiting]) -> Result<()> {
        let _lock = self.lock()?;
        let folder = self.waiting_folder();
        durable::create_folder(&folder)?;
        let mut number = self
            .waiting()?
            .last()
            .map_or(0, |(path, _)| number_of(path))
            .saturating_add(1);
        for entry in entries {
            let bytes =
                serde_json::to_vec(entry).map_err(|error| Error::new(ErrorKind::Bug, "encode", "a record", error.to_string()))?;
            match durable::create_file(&folder.join(format!("{number:016x}")), &bytes, durable::FILE_MODE)? {
                durable::Created::New | durable::Created::AlreadyThere => number = number.saturating_add(1),
            }
        }
        Ok(())
    }

    /// What waits for its number, in order.
    pub(super) fn waiting(&self) -> Result<Vec<(PathBuf, Waiting)>> {
        let folder = self.waiting_folder();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", folder.display(), error)),
        };
        let mut waiting = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| Error::io("list", folder.display(), error))?.path();
            if number_of(&path) == 0 {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|error| Error::io("read", path.display(), error))?;
            if let Ok(entry) = serde_json::from_slice(&bytes) {
                waiting.push((path, entry));
            }
        }
        waiting.sort_by(|a: &(PathBuf, Waiting), b| a.0.cmp(&b.0));
        Ok(waiting)
    }

    pub(super) fn forget_waiting(&self, files: &[PathBuf]) -> Result<()> {
        files.iter().try_for_each(|file| durable::remove_file(file))
    }

    /// Every store of the component is to get what is written from now on.
    pub(super) fn expect_stores(&self, repository: RepositoryId, stores: &[&str]) -> Result<()> {
        let first = self.pending(repository)?.first().map(|(name, _)| name.at.seq);
        self.update(repository, |standing| {
            let next = first.unwrap_or_else(|| standing.head().ok().flatten().map_or(0, |head| head.seq).saturating_add(1));
            for store in stores {
                standing.stores.entry((*store).to_owned()).or_insert(Span {
                    from: next,
                    to: next.saturating_sub(1),
                });
            }
        })
    }

    /// A store holds everything up to `last`.
    pub(super) fn shipped(&self, repository: RepositoryId, store: &str, last: u64) -> Result<()> {
        self.update(repository, |standing| {
            let span = standing.stores.entry(store.to_owned()).or_insert(Span { from: 1, to: 0 });
            span.to = span.to.max(last);
        })
    }

    /// A store was found to hold the chain from the beginning to `last`; stores that are not among `stores` are forgotten.
    pub(super) fn complete(&self, repository: RepositoryId, stores: &[(&str, Option<u64>)]) -> Result<()> {
        self.update(repository, |standing| {
            standing
                .stores
                .retain(|name, _| stores.iter().any(|(store, _)| store == name));
            for (store, last) in stores {
                let Some(last) = last else { continue };
                let span = standing.stores.entry((*store).to_owned()).or_insert(Span { from: 1, to: 0 });
                span.from = 1;
                span.to = span.to.max(*last);
            }
        })
    }

    /// Removes records that every store holds. Returns how many wait.
    pub(super) fn tidy(&self, repository: RepositoryId) -> Result<u64> {
        let _lock = self.lock()?;
        let standing = self.standing(repository)?.unwrap_or_default();
        let everywhere = standing.stores.values().map(|span| span.to).min().unwrap_or(0);
        // The head that is written down has to be as far on before the file that says so goes.
        self.save(repository, &standing)?;
        let mut left = 0;
        for (name, _) in self.pending(repository)? {
            if name.at.seq <= everywhere {
                durable::remove_file(&self.chain_folder(repository).join(name.at.to_string()))?;
            } else {
                left += 1;
            }
        }
        Ok(left)
    }
}

fn number_of(path: &std::path::Path) -> u64 {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    let whole = name.len() == 16;
    u64::from_str_radix(name, 16).ok().filter(|_| whole).unwrap_or(0)
}

/// What a record of our own says, to be said again elsewhere. The bytes are those that this machine wrote.
fn reopen(stored: &[u8]) -> Option<Waiting> {
    #[derive(Deserialize)]
    struct Said {
        at: String,
        verb: String,
        outcome: String,
        facts: Map<String, Value>,
    }
    let mut documents = serde_json::Deserializer::from_slice(stored).into_iter::<Said>();
    let said = documents.next()?.ok()?;
    Some(Waiting {
        at_us: lifeboat_repo::parse_utc(&said.at).ok()?,
        verb: said.verb,
        outcome: said.outcome,
        facts: said.facts,
    })
}
