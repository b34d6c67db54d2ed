//! What a host remembers of the log that it writes: which lineage, and the key for content ids. A cache, but for the lineage that it began and that is
//! not listed yet.

use std::collections::BTreeMap;

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::bytes::hex_array;
use crate::id::Lineage;
use crate::key::{Secret, draw_secret};
use crate::state::StateFolder;

const FILE: &str = "log.json";

/// What is remembered.
#[derive(Debug)]
pub(super) struct State {
    pub(super) system: u64,
    pub(super) lineage: Lineage,
    pub(super) id_key: Secret,
    pub(super) last: Option<[u8; 32]>,
    /// The keys for content ids of other lineages that this host writes or wrote.
    pub(super) others: BTreeMap<Lineage, Secret>,
}

#[derive(Serialize, Deserialize)]
struct StateJson {
    version: u32,
    system: String,
    lineage: String,
    id_key: String,
    last: Option<String>,
    #[serde(default)]
    others: BTreeMap<String, String>,
}

impl State {
    /// None where it is missing or does not read.
    pub(super) fn read(folder: &StateFolder) -> Result<Option<Self>> {
        let path = folder.path.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path.display(), error)),
        };
        let parsed = || -> Option<Self> {
            let json: StateJson = serde_json::from_slice(&text).ok()?;
            let last = json.last.map(|last| hex_array(&last, "a log file")).transpose().ok()?;
            (json.version == 1).then_some(())?;
            let mut others = BTreeMap::new();
            for (lineage, key) in json.others {
                others.insert(lineage.parse().ok()?, Zeroizing::new(hex_array(&key, "an id key").ok()?));
            }
            Some(Self {
                system: json.system.parse().ok()?,
                lineage: json.lineage.parse().ok()?,
                id_key: Zeroizing::new(hex_array(&json.id_key, "an id key").ok()?),
                last,
                others,
            })
        };
        Ok(parsed())
    }

    /// The same for another lineage: its key where it is known, else a new one.
    pub(super) fn of(mut self, env: &Env, lineage: Lineage) -> Result<Self> {
        if self.lineage == lineage {
            return Ok(self);
        }
        let known = self.others.remove(&lineage);
        self.others.insert(self.lineage, self.id_key);
        Ok(Self {
            system: self.system,
            lineage,
            id_key: known.map_or_else(|| draw_secret(env), Ok)?,
            last: None,
            others: self.others,
        })
    }

    /// Writes it down.
    pub(super) fn save(&self, folder: &StateFolder) -> Result<()> {
        let json = StateJson {
            version: 1,
            system: self.system.to_string(),
            lineage: self.lineage.to_string(),
            id_key: hex::encode(self.id_key.as_slice()),
            last: self.last.map(hex::encode),
            others: self
                .others
                .iter()
                .map(|(lineage, key)| (lineage.to_string(), hex::encode(key.as_slice())))
                .collect(),
        };
        let text = serde_json::to_vec(&json).map_err(|error| Error::new(ErrorKind::Bug, "encode", FILE, error.to_string()))?;
        durable::replace_file(&folder.path.join(FILE), &Zeroizing::new(text), durable::FILE_MODE)
    }
}
