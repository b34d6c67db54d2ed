//! The signed files of deletion (format 4, 9): announcements, censuses, sweep lists, holds and marks of damage.
//!
//! Bytes in and out, nothing else: what follows from them is decided in `lifeboat_model::protocol`.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_model::protocol::{self, Marks};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Entry, Key, Put};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{BackupId, ComponentName, RepositoryId, SessionId};
use crate::key::instance::{Instance, PublicKey, Trust};
use crate::log::{LogFileKind, LogPlace};
use crate::repository::Repository;
use crate::signed::{self, Kind};
use crate::time::{format_utc, parse_utc};

/// No signed file of this page is longer.
pub(crate) const RECORD_LIMIT_BYTES: u64 = 1 << 28;

/// What every one of these files begins with.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct About {
    version: u32,
    repository: String,
    component: String,
    /// Name of the instance that signed it, for people.
    pub(crate) instance: String,
}

impl About {
    pub(crate) fn new(repository: RepositoryId, component: &ComponentName, instance: &Instance) -> Self {
        Self {
            version: 1,
            repository: repository.to_string(),
            component: component.to_string(),
            instance: instance.name().to_owned(),
        }
    }

    pub(crate) fn check(&self, name: &str, repository: RepositoryId, component: &ComponentName) -> Result<()> {
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept", name, detail);
        if self.version != 1 {
            return Err(wrong("it has another format version").with_kind(ErrorKind::Incompatible));
        }
        if self.repository != repository.to_string() || self.component != component.as_str() {
            return Err(wrong("it was copied here from another repository or component"));
        }
        Ok(())
    }
}

/// An announcement, or the extension of one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionJson {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) session: String,
    pub(crate) verb: String,
    pub(crate) announced_at: String,
    pub(crate) deadline_s: u64,
    pub(crate) parent: Option<String>,
}

/// A census (`census` is none) or a sweep list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MarksJson {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) pruner: String,
    pub(crate) published_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grace_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) census: Option<String>,
    pub(crate) backups: Vec<String>,
    pub(crate) files: Vec<String>,
}

/// A hold.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HoldJson {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) hold: String,
    pub(crate) held_at: String,
    pub(crate) backup: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) reason: String,
}

/// A mark of damage.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BadJson {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) file: String,
    pub(crate) found_at: String,
    pub(crate) found: String,
}

/// Something of `prune/`, judged.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) key: Key,
    /// Whose it is.
    pub(crate) signer: PublicKey,
    /// When it landed, by the store's time.
    pub(crate) stored_at_us: i64,
    /// What it marks.
    pub(crate) marks: Marks<Key>,
    /// What a census saw, and its grace period; none for a sweep list.
    pub(crate) census: Option<(BTreeSet<Key>, Duration)>,
    /// The census that a sweep list belongs to.
    pub(crate) of_census: Option<Key>,
}

impl Listed {
    /// The marks as backups see them: a key file stands for its session, because key files come and go.
    pub(crate) fn as_backups_see_it(&self, folder: &Key) -> Result<Marks<Key>> {
        let keys_folder = folder.join("keys")?;
        let mut marks = self.marks.clone();
        for key in self.marks.files.iter().filter(|key| key.is_under(&keys_folder)) {
            if let Some(session) = owner_of(below(folder, key)) {
                marks.files.insert(keys_of(folder, session)?);
            }
        }
        Ok(marks)
    }
}

/// The one name under which the protocol knows all key files of a session.
pub(crate) fn keys_of(folder: &Key, session: SessionId) -> Result<Key> {
    folder.join(&format!("keys/{session}"))
}

/// A hold, judged.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Its id, 32 hex digits.
    pub id: String,
    /// The backup; none holds all.
    pub backup: Option<BackupId>,
    /// Until when, microseconds since 1970; none has no end.
    pub until_us: Option<i64>,
    /// Since when, as the instance says.
    pub held_at_us: i64,
    /// Why.
    pub reason: String,
    /// Who.
    pub instance: String,
    pub(crate) key: Key,
}

/// A place in one repository: what every one of these functions works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) component: &'a ComponentName,
    pub(crate) trust: &'a Trust,
}

impl Place<'_> {
    pub(crate) fn store(&self) -> &dyn BlobStore {
        self.repository.store().as_ref()
    }

    pub(crate) fn folder(&self) -> Result<Key> {
        self.component.folder()
    }

    /// Name hash, signature and place of a signed JSON file.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        kind: Kind,
        key: &Key,
        hashed: bool,
        about: impl Fn(&T) -> &About,
    ) -> Result<(T, PublicKey)> {
        let name = key.as_str();
        let stored = self.store().get(key, RECORD_LIMIT_BYTES).await?;
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept", name, detail);
        if hashed && !name.ends_with(&format!("-{}", blake3::hash(&stored))) {
            return Err(wrong("its bytes do not hash to its name: it is damaged or was overwritten"));
        }
        let (body, signer) = signed::open(kind, name, &stored, self.trust)?;
        let json: T = serde_json::from_slice(body).map_err(|error| wrong("its JSON does not parse").with_source(error))?;
        about(&json).check(name, self.repository.id(), self.component)?;
        Ok((json, signer))
    }

    /// An announcement or an extension, with the time by the store.
    pub(crate) async fn session(&self, entry: &Entry) -> Result<protocol::Session<Key>> {
        let (json, _) = self
            .read(Kind::Session, &entry.key, false, |json: &SessionJson| &json.about)
            .await?;
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept", &entry.key, detail);
        let session: SessionId = json.session.parse()?;
        let name = entry.key.file_name();
        if session_of(name) != Some(session) {
            return Err(wrong("it speaks for another session than its name does"));
        }
        let folder = self.folder()?;
        let parent = match json.parent {
            None => None,
            Some(parent) => Some(backup_key(&folder, &parent)?),
        };
        Ok(protocol::Session {
            id: folder.join(&format!("sessions/{session}"))?,
            parent,
            announced_at: since_1970(entry.stored_at_us),
            deadline: Duration::from_secs(json.deadline_s),
        })
    }

    /// A census or a sweep list.
    pub(crate) async fn marks(&self, entry: &Entry) -> Result<Listed> {
        let folder = self.folder()?;
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept", &entry.key, detail);
        let kind = match entry.key.file_name().split('-').next() {
            Some("census") => Kind::Census,
            Some("sweep") => Kind::Sweep,
            _ => return Err(wrong("it is neither a census nor a sweep list")),
        };
        let (json, signer) = self.read(kind, &entry.key, true, |json: &MarksJson| &json.about).await?;
        let named = marks_name(kind, &json.pruner);
        if json.pruner != pruner_id(&signer) || !entry.key.file_name().starts_with(&named) {
            return Err(wrong("its name is not that of the pruner who signed it"));
        }
        let backups = json
            .backups
            .iter()
            .map(|name| backup_key(&folder, name))
            .collect::<Result<_>>()?;
        let files = json.files.iter().map(|name| data_key(&folder, name)).collect::<Result<_>>()?;
        let (census, of_census) = match kind {
            Kind::Census => {
                let (Some(seen), Some(grace_s)) = (json.seen, json.grace_s) else {
                    return Err(wrong("it does not say what it saw"));
                };
                let seen = seen.iter().map(|name| backup_key(&folder, name)).collect::<Result<_>>()?;
                (Some((seen, Duration::from_secs(grace_s))), None)
            }
            _ => {
                let Some(census) = json.census.filter(|name| name.starts_with("census-")) else {
                    return Err(wrong("it does not say to which census it belongs"));
                };
                (None, Some(folder.join(&format!("prune/{census}"))?))
            }
        };
        Ok(Listed {
            key: entry.key.clone(),
            signer,
            stored_at_us: entry.stored_at_us,
            marks: Marks { backups, files },
            census,
            of_census,
        })
    }

    /// A hold.
    pub(crate) async fn hold(&self, key: &Key) -> Result<Hold> {
        let (json, _) = self.read(Kind::Hold, key, true, |json: &HoldJson| &json.about).await?;
        if !key.file_name().starts_with(&format!("{}-", json.hold)) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "accept",
                key,
                "its name is that of another hold",
            ));
        }
        Ok(Hold {
            id: json.hold,
            backup: json.backup.map(|name| name.parse()).transpose()?,
            until_us: json.until.map(|until| parse_utc(&until)).transpose()?,
            held_at_us: parse_utc(&json.held_at)?,
            reason: json.reason,
            instance: json.about.instance,
            key: key.clone(),
        })
    }

    /// Signs `json` and stores it; `name` gets the hash of the bytes.
    pub(crate) async fn put<T: Serialize>(
        &self,
        kind: Kind,
        instance: &Instance,
        json: &T,
        name: impl FnOnce(&str) -> String,
    ) -> Result<Key> {
        let body =
            serde_json::to_vec(json).map_err(|error| Error::new(ErrorKind::Bug, "encode", "a signed file", error.to_string()))?;
        let bytes = signed::sign(kind, body, instance);
        if bytes.len() as u64 > RECORD_LIMIT_BYTES {
            let detail = "more files are to go than one list can name";
            return Err(Error::new(ErrorKind::Failed, "prune", self.component, detail));
        }
        let key = self.folder()?.join(&name(&blake3::hash(&bytes).to_string()))?;
        match self.store().put(&key, Bytes::from(bytes)).await? {
            Put::Created | Put::AlreadyThere => Ok(key),
        }
    }

    /// Announces a session that builds on nothing.
    pub(crate) async fn announce(&self, env: &Env, instance: &Instance, verb: &str, deadline: Duration) -> Result<Key> {
        let session = SessionId::draw(env)?;
        let json = SessionJson {
            about: About::new(self.repository.id(), self.component, instance),
            session: session.to_string(),
            verb: verb.to_owned(),
            announced_at: format_utc(env.clock.wall_us()),
            deadline_s: deadline.as_secs(),
            parent: None,
        };
        self.put(Kind::Session, instance, &json, |_| format!("sessions/{session}"))
            .await
    }
}

/// The beginning of a census' or sweep list's name.
pub(crate) fn marks_name(kind: Kind, pruner: &str) -> String {
    let word = if kind == Kind::Census { "census" } else { "sweep" };
    format!("{word}-{pruner}-")
}

/// How a pruner is called: by its instance's key, so that a run that died is taken up by the next one of the same instance.
pub(crate) fn pruner_id(key: &PublicKey) -> String {
    hex::encode(blake3::hash(&key.0).as_bytes().get(..16).unwrap_or_default())
}

/// The session that an announcement's name speaks for.
pub(crate) fn session_of(name: &str) -> Option<SessionId> {
    let (session, extension) = match name.split_once('-') {
        None => (name, None),
        Some((session, extension)) => (session, Some(extension)),
    };
    let numbered = extension.is_none_or(|number| number.len() == 2 && number != "00" && is_hex(number));
    if session.len() == 32 && is_hex(session) && numbered {
        session.parse().ok()
    } else {
        None
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The session that owns a key, pack or map; none if `below` (the name without the component's folder) is no such name.
pub(crate) fn owner_of(below: &str) -> Option<SessionId> {
    let hash = |text: &str| text.len() == 64 && is_hex(text);
    let mut parts = below.split('/');
    let session = match (parts.next()?, parts.next()?, parts.next()) {
        ("packs" | "maps", session, Some(name)) if hash(name) => session,
        ("keys", name, None) => {
            let name = name.strip_suffix(".age").or_else(|| name.strip_suffix(".clear"))?;
            let (session, name) = name.split_once('-')?;
            if !hash(name) {
                return None;
            }
            session
        }
        _ => return None,
    };
    let whole = parts.next().is_none() && session.len() == 32 && is_hex(session);
    if whole { session.parse().ok() } else { None }
}

/// `name` without the component's folder.
pub(crate) fn below<'a>(folder: &Key, name: &'a Key) -> &'a str {
    let rest = name.as_str().strip_prefix(folder.as_str());
    rest.map_or("", |rest| rest.trim_start_matches('/'))
}

fn backup_key(folder: &Key, name: &str) -> Result<Key> {
    let id: BackupId = name.parse()?;
    folder.join(&format!("backups/{id}"))
}

/// A key, pack, map, piece or frame. Nothing else can be marked: a list that names an announcement or a hold is damaged or forged.
fn data_key(folder: &Key, name: &str) -> Result<Key> {
    let is_log = || matches!(LogPlace::parse(name), Some(LogPlace::File(_, log)) if log.kind != LogFileKind::History);
    if owner_of(name).is_none() && !is_log() {
        let detail = "it marks what is neither key, pack, map nor log";
        return Err(Error::new(ErrorKind::Corrupt, "accept a list of", name, detail));
    }
    folder.join(name)
}

/// Microseconds since 1970 as the protocol counts them.
pub(crate) fn since_1970(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}
