//! The backup file: cleartext header, closure, sealed manifest, signature (format 8).

use lifeboat_model::wal::Range;
use lifeboat_model::{Error, ErrorKind, Result, Timeline};
use serde::{Deserialize, Serialize};

use crate::bytes::{Fields, size};
use crate::closure::Closure;
use crate::id::{ComponentName, Lineage, RepositoryId, SessionId};
use crate::key::recipient::Fingerprint;
use crate::time::{format_utc, parse_utc};

const MAGIC: &[u8; 8] = b"LBBACK01";
const PREFIX_BYTES: usize = 48;
/// Bytes of the part that lists need.
pub(crate) const HEADER_BYTES: usize = 4096;

/// What a backup says of itself in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// What it is a backup of.
    pub component: ComponentName,
    /// Kind of the component: `sqlite`.
    pub kind: String,
    /// `physical` or `logical`.
    pub method: String,
    /// The run of backups that share pack numbers.
    pub lineage: Lineage,
    /// Its place in the order of backups.
    pub seq: u64,
    /// The session that wrote it.
    pub session: SessionId,
    /// Name of the instance that wrote it.
    pub instance: String,
    /// Identity of the source.
    pub source: String,
    /// Moment of consistency, microseconds since 1970.
    pub moment_us: i64,
    /// When the backup began, microseconds since 1970.
    pub began_us: i64,
    /// Bytes it restores to.
    pub size_bytes: u64,
    /// Bytes that this backup added to the store.
    pub stored_bytes: u64,
    /// Files it restores to.
    pub files: u64,
    /// The backup that unchanged data was compared with.
    pub parent: Option<String>,
    /// A partial capture.
    pub extract: bool,
    /// Something could not be read; never chosen by itself.
    pub incomplete: bool,
    /// Free words of the operator.
    pub tags: Vec<String>,
    /// Why it was made.
    pub reason: Option<String>,
    /// To whom its session's keys were encrypted when it was written; empty in the clear.
    pub recipients: Vec<Fingerprint>,
    /// Retention does not give it up before it is this old, in seconds after its moment.
    pub keep_for_s: Option<u64>,
    /// The log that it needs, where it needs any.
    pub log: Option<LogNeed>,
    /// Pages that were bad in the source already (PG-11).
    pub bad_pages: u64,
}

/// The log without which a backup is nothing (format 11.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogNeed {
    /// Of which lineage of log.
    pub lineage: Lineage,
    /// From where replaying begins to where the backup is consistent.
    pub range: Range,
}

#[derive(Serialize, Deserialize)]
struct LogJson {
    lineage: String,
    timeline: u32,
    start: String,
    end: String,
}

impl LogNeed {
    fn to_json(self) -> LogJson {
        LogJson {
            lineage: self.lineage.to_string(),
            timeline: self.range.timeline.number(),
            start: self.range.start.to_string(),
            end: self.range.end.to_string(),
        }
    }

    fn from_json(json: &LogJson) -> Result<Self> {
        let position = |text: &str| text.parse().map_err(|error: Error| error.with_kind(ErrorKind::Corrupt));
        Ok(Self {
            lineage: json.lineage.parse()?,
            range: Range::new(Timeline::new(json.timeline)?, position(&json.start)?, position(&json.end)?),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct HeaderJson {
    version: u32,
    repository: String,
    component: String,
    kind: String,
    method: String,
    lineage: String,
    seq: u64,
    session: String,
    instance: String,
    source: String,
    moment: String,
    began_at: String,
    size_bytes: u64,
    stored_bytes: u64,
    files: u64,
    parent: Option<String>,
    extract: bool,
    incomplete: bool,
    features: Vec<String>,
    tags: Vec<String>,
    reason: Option<String>,
    recipients: Vec<String>,
    keep_for_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<LogJson>,
    #[serde(default, skip_serializing_if = "is_zero")]
    bad_pages: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Header {
    fn to_json(&self) -> Result<Vec<u8>> {
        let json = HeaderJson {
            version: 1,
            repository: self.repository.to_string(),
            component: self.component.to_string(),
            kind: self.kind.clone(),
            method: self.method.clone(),
            lineage: self.lineage.to_string(),
            seq: self.seq,
            session: self.session.to_string(),
            instance: self.instance.clone(),
            source: self.source.clone(),
            moment: format_utc(self.moment_us),
            began_at: format_utc(self.began_us),
            size_bytes: self.size_bytes,
            stored_bytes: self.stored_bytes,
            files: self.files,
            parent: self.parent.clone(),
            extract: self.extract,
            incomplete: self.incomplete,
            features: Vec::new(),
            tags: self.tags.clone(),
            reason: self.reason.clone(),
            recipients: self.recipients.iter().map(ToString::to_string).collect(),
            keep_for_s: self.keep_for_s,
            log: self.log.map(LogNeed::to_json),
            bad_pages: self.bad_pages,
        };
        serde_json::to_vec(&json).map_err(|error| Error::new(ErrorKind::Bug, "encode", "a header", error.to_string()))
    }

    fn from_json(bytes: &[u8]) -> Result<Self> {
        let damaged = |detail: String| Error::new(ErrorKind::Corrupt, "read", "a backup header", detail);
        let json: HeaderJson =
            serde_json::from_slice(bytes).map_err(|error| damaged("its JSON does not parse".into()).with_source(error))?;
        if json.version != 1 || !json.features.is_empty() {
            let needs = if json.features.is_empty() {
                format!("format version {}", json.version)
            } else {
                json.features.join(", ")
            };
            return Err(damaged(format!("it needs {needs}, which this Lifeboat does not know"))
                .with_kind(ErrorKind::Incompatible)
                .with_hint("use the Lifeboat version that wrote it, or a newer one"));
        }
        Ok(Self {
            repository: json.repository.parse()?,
            component: ComponentName::new(json.component).map_err(|error| error.with_kind(ErrorKind::Corrupt))?,
            kind: json.kind,
            method: json.method,
            lineage: json.lineage.parse()?,
            seq: json.seq,
            session: json.session.parse()?,
            instance: json.instance,
            source: json.source,
            moment_us: parse_utc(&json.moment)?,
            began_us: parse_utc(&json.began_at)?,
            size_bytes: json.size_bytes,
            stored_bytes: json.stored_bytes,
            files: json.files,
            parent: json.parent,
            extract: json.extract,
            incomplete: json.incomplete,
            tags: json.tags,
            reason: json.reason,
            recipients: json.recipients.iter().map(|text| text.parse()).collect::<Result<_>>()?,
            keep_for_s: json.keep_for_s,
            log: json.log.as_ref().map(LogNeed::from_json).transpose()?,
            bad_pages: json.bad_pages,
        })
    }
}

/// The parts of a backup file's body.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) header: Header,
    pub(crate) closure: Closure,
    /// Everything before the sealed manifest: its associated data.
    pub(crate) clear: &'a [u8],
    pub(crate) manifest: &'a [u8],
}

/// Header and closure as bytes; the manifest of `manifest_bytes` follows.
pub(crate) fn encode(header: &Header, closure: &Closure, manifest_bytes: usize) -> Result<Vec<u8>> {
    let json = header.to_json()?;
    if json.len() > HEADER_BYTES - PREFIX_BYTES {
        return Err(Error::new(
            ErrorKind::Usage,
            "write",
            "the backup header",
            "source path, tags and reason together are too long (about 3,000 bytes)",
        ));
    }
    let closure = closure.encode()?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + closure.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&crate::bytes::len_u32(json.len(), "a header")?.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(closure.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(manifest_bytes as u64).to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&json);
    bytes.resize(HEADER_BYTES, b' ');
    bytes.extend_from_slice(&closure);
    Ok(bytes)
}

/// Takes a backup file's body apart.
pub(crate) fn decode(body: &[u8]) -> Result<Parts<'_>> {
    let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "read", "a backup header", detail);
    let mut fields = Fields::new(body, "a backup header");
    if fields.take(8)? != MAGIC {
        return Err(damaged("it does not begin like a backup of this format"));
    }
    let json_bytes = fields.u32()? as usize;
    fields.take(4)?;
    let closure_bytes = size(fields.u64()?, "a backup header")?;
    let manifest_bytes = size(fields.u64()?, "a backup header")?;
    fields.take(16)?;
    let json = fields.take(HEADER_BYTES - PREFIX_BYTES)?;
    let json = json
        .get(..json_bytes)
        .ok_or_else(|| damaged("its JSON is longer than its place"))?;
    let closure = Closure::decode(fields.take(closure_bytes)?)?;
    let manifest = fields.take(manifest_bytes)?;
    if !fields.is_empty() {
        return Err(damaged("it is longer than its own fields say"));
    }
    let clear = body
        .get(..HEADER_BYTES + closure_bytes)
        .ok_or_else(|| damaged("it is too short"))?;
    Ok(Parts {
        header: Header::from_json(json)?,
        closure,
        clear,
        manifest,
    })
}
