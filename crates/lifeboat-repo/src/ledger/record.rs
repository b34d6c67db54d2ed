//! One record: signed JSON (`docs/format.md` 12).

use std::collections::BTreeMap;

use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::chain_of;
use super::name::{LedgerHead, LedgerName};
use crate::bytes::hex_array;
use crate::id::{ChainId, ComponentName, RepositoryId};
use crate::key::instance::{Instance, PublicKey, Trust};
use crate::prune::records::About;
use crate::signed::{self, Kind};
use crate::time::{format_utc, parse_utc};

/// No record is longer.
pub const LEDGER_LIMIT_BYTES: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Json {
    #[serde(flatten)]
    about: About,
    seq: u64,
    previous: Option<String>,
    at: String,
    heads: BTreeMap<String, String>,
    verb: String,
    outcome: String,
    facts: Map<String, Value>,
}

/// What is to be recorded, with its place in the chain.
#[derive(Debug, Clone)]
pub struct NewLedgerRecord<'a> {
    /// The record before it; none for the first.
    pub previous: Option<LedgerHead>,
    /// Wall time, microseconds since 1970. It is told and decides nothing.
    pub at_us: i64,
    /// The newest records of other chains of the component, as far as they are known.
    pub heads: &'a BTreeMap<ChainId, LedgerHead>,
    /// What was done.
    pub verb: &'a str,
    /// What came of it.
    pub outcome: &'a str,
    /// Everything else.
    pub facts: &'a Map<String, Value>,
}

/// A record that is what its name says, and that a known instance signed.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerRecord {
    /// Its name.
    pub name: LedgerName,
    /// The name of the instance, as it called itself.
    pub instance: String,
    /// The key that signed it.
    pub signer: PublicKey,
    /// The hash of the record before it; none for the first.
    pub previous: Option<[u8; 32]>,
    /// Wall time of that machine, microseconds since 1970.
    pub at_us: i64,
    /// The newest records of other chains that it knew.
    pub heads: BTreeMap<ChainId, LedgerHead>,
    /// What was done.
    pub verb: String,
    /// What came of it.
    pub outcome: String,
    /// Everything else.
    pub facts: Map<String, Value>,
}

/// Signs a record; its name is its place and the hash of the bytes.
///
/// # Errors
/// Kind `Refused` where it would be longer than any reader accepts.
pub fn seal_record(
    repository: RepositoryId,
    component: &ComponentName,
    instance: &Instance,
    new: &NewLedgerRecord<'_>,
) -> Result<(LedgerName, Bytes)> {
    let seq = new.previous.map_or(0, |head| head.seq).saturating_add(1);
    let json = Json {
        about: About::new(repository, component, instance),
        seq,
        previous: new.previous.map(|head| hex::encode(head.hash)),
        at: format_utc(new.at_us),
        heads: new
            .heads
            .iter()
            .map(|(chain, head)| (chain.to_string(), head.to_string()))
            .collect(),
        verb: new.verb.to_owned(),
        outcome: new.outcome.to_owned(),
        facts: new.facts.clone(),
    };
    let body = serde_json::to_vec(&json).map_err(|error| Error::new(ErrorKind::Bug, "encode", "a record", error.to_string()))?;
    let stored = signed::sign(Kind::Ledger, body, instance);
    if stored.len() as u64 > LEDGER_LIMIT_BYTES {
        let detail = "it holds more than a record may (1 MiB)";
        return Err(Error::new(ErrorKind::Refused, "record", new.verb, detail));
    }
    let name = LedgerName {
        chain: chain_of(&instance.public_key()),
        at: LedgerHead {
            seq,
            hash: *blake3::hash(&stored).as_bytes(),
        },
    };
    Ok((name, Bytes::from(stored)))
}

/// Judges the stored bytes of the record `name` (INV-18): its hash, its signature, its place. How it fits the others is judged by
/// [`super::flaws`].
///
/// # Errors
/// Kind `Corrupt` where it is not what its name says, or nobody known signed it; `Incompatible` for another format version.
pub fn open_record(
    repository: RepositoryId,
    component: &ComponentName,
    trust: &Trust,
    name: &LedgerName,
    stored: &[u8],
) -> Result<LedgerRecord> {
    let short = name.short();
    let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept record", &short, detail);
    if blake3::hash(stored).as_bytes() != &name.at.hash {
        return Err(wrong("its bytes do not hash to its name: it is damaged or was overwritten"));
    }
    let (body, signer) = signed::open(Kind::Ledger, &short, stored, trust)?;
    let json: Json = serde_json::from_slice(body).map_err(|error| wrong("its JSON does not parse").with_source(error))?;
    json.about.check(&short, repository, component)?;
    if chain_of(&signer) != name.chain {
        return Err(wrong("it lies in the chain of another instance than the one that signed it"));
    }
    if json.seq != name.at.seq {
        return Err(wrong("it lies at another place than the one it was written for"));
    }
    let mut heads = BTreeMap::new();
    for (chain, head) in &json.heads {
        heads.insert(chain.parse()?, head.parse()?);
    }
    let previous = json.previous.as_deref();
    Ok(LedgerRecord {
        name: *name,
        instance: json.about.instance,
        signer,
        previous: previous
            .map(|text| hex_array(text, "the hash of the record before it"))
            .transpose()?,
        at_us: parse_utc(&json.at)?,
        heads,
        verb: json.verb,
        outcome: json.outcome,
        facts: json.facts,
    })
}
