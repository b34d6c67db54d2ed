//! Local state: what a host with public keys only needs to stay incremental.
//!
//! On disk, in one folder per repository, component and method (0700/0600):
//! ```text
//! lock                 held while a writer runs
//! state.json           which generation is current, for which backup, with checksums
//! pending.json         the same, written before the backup file is put
//! gen-N/rows           the row space          gen-N/hashes    page hashes of all page files
//! gen-N/slots          the overlay space      gen-N/row-hashes, slot-hashes    page hashes of the two spaces
//! gen-N/engine         what the engine wants to know about its source next time
//! ```
//! INV-07: `state.json` is replaced as a whole, after its backup stands in the store. If we die between the two, `pending.json`
//! names the backup; the next run looks whether it stands and takes the state then. Anything that does not fit — a missing file, a
//! wrong checksum, another format — is "no state": the next backup is full, never an error.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::bytes::hex_array;
use crate::closure::Closure;
use crate::id::{BackupId, ComponentName, Lineage, RepositoryId};
use crate::key::Secret;
use crate::key::recipient::Fingerprint;
use crate::manifest::{FileRecord, Inline, InlineJson, decode_table, encode_table};

/// How often a lock is tried that somebody holds.
const LOCK_LOOKS: u32 = 20;
/// Time between two tries.
const LOCK_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// Files of a generation, in the order of their checksums.
pub(crate) const GENERATION_FILES: [&str; 6] = ["rows", "hashes", "slots", "row-hashes", "slot-hashes", "engine"];

/// The state folder of one component and method, locked.
#[derive(Debug)]
pub(crate) struct StateFolder {
    pub(crate) path: PathBuf,
    _lock: File,
}

/// What the last committed backup left.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) backup: BackupId,
    pub(crate) lineage: Lineage,
    pub(crate) id_key: Secret,
    pub(crate) source: String,
    /// To whom the keys of this lineage were ever encrypted.
    pub(crate) readers: BTreeSet<Fingerprint>,
    pub(crate) generation: u64,
    /// The highest pack number ever given out in this lineage.
    pub(crate) last_pack: u32,
    pub(crate) closure: Closure,
    pub(crate) files: Vec<FileState>,
    pub(crate) row_space: Inline,
    pub(crate) overlay_space: Inline,
    pub(crate) file_table: Inline,
}

/// A file of the last backup, and where its page hashes begin in `hashes`.
#[derive(Debug, Clone)]
pub(crate) struct FileState {
    pub(crate) record: FileRecord,
    pub(crate) hashes_at: u64,
}

#[derive(Serialize, Deserialize)]
struct StateJson {
    version: u32,
    backup: String,
    lineage: String,
    id_key: String,
    source: String,
    readers: Vec<String>,
    generation: u64,
    last_pack: u32,
    closure: String,
    file_table: String,
    hashes_at: Vec<u64>,
    row_space: InlineJson,
    overlay_space: InlineJson,
    table_rows: InlineJson,
    /// BLAKE3 of each of [`GENERATION_FILES`].
    checksums: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Checked {
    /// BLAKE3 of `state`, which stands as text so that not a byte of it goes unchecked.
    checksum: String,
    state: String,
}

impl StateFolder {
    /// Takes the folder for this process; kind `Locked` while another holds it.
    pub(crate) fn lock(state_dir: &Path, repository: RepositoryId, component: &ComponentName, method: &str) -> Result<Self> {
        let path = Self::place(state_dir, repository, component).join(method);
        Self::lock_at(path, component, "a backup", "another backup of it")
    }

    /// The lock of another verb that only one process at a time may do.
    pub(crate) fn lock_for(
        state_dir: &Path,
        repository: RepositoryId,
        component: &ComponentName,
        verb: &str,
        words: &str,
    ) -> Result<Self> {
        let path = Self::place(state_dir, repository, component).join(verb);
        Self::lock_at(path, component, words, &format!("{words} of it"))
    }

    /// Where the state of a component is.
    pub(crate) fn place(state_dir: &Path, repository: RepositoryId, component: &ComponentName) -> PathBuf {
        state_dir.join(repository.to_string()).join(component.segment())
    }

    fn lock_at(path: PathBuf, component: &ComponentName, what: &str, other: &str) -> Result<Self> {
        durable::create_folder(&path)?;
        let name = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&name)
            .map_err(|error| Error::io("open", name.display(), error))?;
        let mut locked = lock.try_lock();
        for _ in 0..LOCK_LOOKS {
            if !matches!(locked, Err(std::fs::TryLockError::WouldBlock)) {
                break;
            }
            // A program that this process is just starting holds all our files open until it has begun: that is no other run.
            std::thread::sleep(LOCK_LOOK);
            locked = lock.try_lock();
        }
        match locked {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Locked,
                "begin",
                format!("{what} of {component}"),
                format!("{other} is running on this machine"),
            )
            .with_hint("wait until it has finished; the lock goes with its process, also after a crash")),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", name.display(), error)),
        }
    }

    pub(crate) fn generation(&self, number: u64) -> PathBuf {
        self.path.join(format!("gen-{number}"))
    }

    /// The current state; `stands` says whether a backup is in the store. `Err` holds the reason why there is none, in words.
    pub(crate) fn load(&self, stands: impl Fn(&BackupId) -> bool) -> std::result::Result<State, String> {
        let pending = self.read("pending.json").ok().filter(|state| stands(&state.backup));
        if let Some(state) = pending {
            // The run before died between the put of its backup file and the publishing of its state: this is published now, before
            // another run writes its own pending state in this one's place.
            return self
                .promote()
                .map(|()| state)
                .map_err(|error| format!("the local state of the newest backup cannot be published ({error})"));
        }
        self.read("state.json")
    }

    fn read(&self, name: &str) -> std::result::Result<State, String> {
        let path = self.path.join(name);
        let text = match std::fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err("there is no local state".into()),
            Err(error) => return Err(format!("the local state cannot be read ({error})")),
        };
        let edited = || "the local state is damaged or was edited".to_owned();
        let checked: Checked = serde_json::from_slice(&text).map_err(|_unparsable| edited())?;
        if blake3::hash(checked.state.as_bytes()).to_string() != checked.checksum {
            return Err(edited());
        }
        let json: StateJson = serde_json::from_str(&checked.state).map_err(|_unparsable| edited())?;
        if json.version != 1 {
            return Err("the local state has another format version".into());
        }
        for (file, expected) in GENERATION_FILES.iter().zip(&json.checksums) {
            let actual = hash_file(&self.generation(json.generation).join(file))
                .map_err(|error| format!("the local state is not whole ({error})"))?;
            if actual != *expected {
                return Err(edited());
            }
        }
        from_json(&json).map_err(|error| format!("the local state does not decode ({error})"))
    }

    /// Writes `pending.json` for the generation that was just written and fsynced.
    pub(crate) fn prepare(&self, state: &State) -> Result<()> {
        let generation = self.generation(state.generation);
        let mut checksums = Vec::new();
        for file in GENERATION_FILES {
            let path = generation.join(file);
            checksums.push(hash_file(&path).map_err(|error| Error::io("read back", path.display(), error))?);
        }
        let json = to_json(state, checksums)?;
        let text = serde_json::to_string(&json)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the local state", error.to_string()))?;
        let checked = Checked {
            checksum: blake3::hash(text.as_bytes()).to_string(),
            state: text,
        };
        let bytes = serde_json::to_vec(&checked)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the local state", error.to_string()))?;
        durable::replace_file(&self.path.join("pending.json"), &bytes, durable::FILE_MODE)
    }

    /// Makes the pending state current and removes every other generation.
    pub(crate) fn publish(&self, generation: u64) -> Result<()> {
        self.promote()?;
        self.sweep(Some(generation))
    }

    fn promote(&self) -> Result<()> {
        durable::rename(&self.path.join("pending.json"), &self.path.join("state.json"))
    }

    /// Which generation `state.json` names, without looking whether it is whole; `None` where it does not say.
    pub(crate) fn current_generation(&self) -> Option<u64> {
        let text = Zeroizing::new(std::fs::read(self.path.join("state.json")).ok()?);
        let checked: Checked = serde_json::from_slice(&text).ok()?;
        let state: StateJson = serde_json::from_str(&checked.state).ok()?;
        Some(state.generation)
    }

    /// Removes generations other than `keep`, and temporary files of runs that died.
    pub(crate) fn sweep(&self, keep: Option<u64>) -> Result<()> {
        let kept = keep.map(|number| format!("gen-{number}"));
        let failed = |error| Error::io("list", self.path.display(), error);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("gen-") && Some(&name) != kept.as_ref() {
                durable::remove_folder(&entry.path())?;
            } else if name.starts_with(durable::TEMPORARY_PREFIX) {
                durable::remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finalize().to_string());
        }
        hasher.update(&buffer[..count]);
    }
}

fn to_json(state: &State, checksums: Vec<String>) -> Result<StateJson> {
    let records: Vec<FileRecord> = state.files.iter().map(|file| file.record.clone()).collect();
    let table = String::from_utf8(encode_table(&records)?)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the local state", error.to_string()))?;
    Ok(StateJson {
        version: 1,
        backup: state.backup.to_string(),
        lineage: state.lineage.to_string(),
        id_key: hex::encode(state.id_key.as_slice()),
        source: state.source.clone(),
        readers: state.readers.iter().map(ToString::to_string).collect(),
        generation: state.generation,
        last_pack: state.last_pack,
        closure: hex::encode(state.closure.encode()?),
        file_table: table,
        hashes_at: state.files.iter().map(|file| file.hashes_at).collect(),
        row_space: InlineJson::of(&state.row_space),
        overlay_space: InlineJson::of(&state.overlay_space),
        table_rows: InlineJson::of(&state.file_table),
        checksums,
    })
}

fn from_json(json: &StateJson) -> Result<State> {
    let closure = hex::decode(&json.closure)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "decode", "the local state", error.to_string()))?;
    let records = decode_table(json.file_table.as_bytes())?;
    if records.len() != json.hashes_at.len() || json.checksums.len() != GENERATION_FILES.len() {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "decode",
            "the local state",
            "its parts do not fit together",
        ));
    }
    let files = records
        .into_iter()
        .zip(&json.hashes_at)
        .map(|(record, at)| FileState { record, hashes_at: *at })
        .collect();
    Ok(State {
        backup: json.backup.parse()?,
        lineage: json.lineage.parse()?,
        id_key: Zeroizing::new(hex_array(&json.id_key, "an id key")?),
        source: json.source.clone(),
        readers: json.readers.iter().map(|text| text.parse()).collect::<Result<_>>()?,
        generation: json.generation,
        last_pack: json.last_pack,
        closure: Closure::decode(&closure)?,
        files,
        row_space: json.row_space.read()?,
        overlay_space: json.overlay_space.read()?,
        file_table: json.table_rows.read()?,
    })
}
