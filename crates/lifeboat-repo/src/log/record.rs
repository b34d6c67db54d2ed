//! What is said about a log beside its bytes: why a lineage began, and what nobody can give us any more (PG-08).

use lifeboat_model::wal::{Range, SegmentSize};
use lifeboat_model::{Error, ErrorKind, Result, Timeline};
use lifeboat_store::Key;
use serde::{Deserialize, Serialize};

use crate::id::Lineage;
use crate::key::instance::Instance;
use crate::prune::records::{About, Place};
use crate::signed::Kind;
use crate::time::{format_utc, parse_utc};

/// One cluster between two restorations of it to an earlier moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineageRecord {
    /// Its id.
    pub lineage: Lineage,
    /// When it began, by its writer: microseconds since 1970.
    pub opened_us: i64,
    /// The cluster's system identifier.
    pub system: u64,
    /// The cluster's segments.
    pub segment: SegmentSize,
    /// The one before, where it began because of that.
    pub previous: Option<Lineage>,
    /// Why it began.
    pub why: String,
}

/// Log that is missing, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRecord {
    /// The lineage.
    pub lineage: Lineage,
    /// What is missing.
    pub range: Range,
    /// When that was found: microseconds since 1970.
    pub found_us: i64,
    /// Why.
    pub why: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct LineageJson {
    #[serde(flatten)]
    about: About,
    lineage: String,
    opened_at: String,
    system: String,
    segment_bytes: u64,
    previous: Option<String>,
    why: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct GapJson {
    #[serde(flatten)]
    about: About,
    lineage: String,
    timeline: u32,
    start: String,
    end: String,
    found_at: String,
    why: String,
}

fn wrong(key: &Key, detail: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "accept", key, detail)
}

/// Puts the record of a lineage.
pub(super) async fn put_lineage(place: &Place<'_>, instance: &Instance, record: &LineageRecord) -> Result<Key> {
    let json = LineageJson {
        about: About::new(place.repository.id(), place.component, instance),
        lineage: record.lineage.to_string(),
        opened_at: format_utc(record.opened_us),
        system: record.system.to_string(),
        segment_bytes: record.segment.bytes(),
        previous: record.previous.map(|previous| previous.to_string()),
        why: record.why.clone(),
    };
    let name = |hash: &str| format!("log/{}/lineage-{hash}", record.lineage);
    place.put(Kind::Lineage, instance, &json, name).await
}

/// Reads the record of a lineage.
pub(crate) async fn read_lineage(place: &Place<'_>, key: &Key, lineage: Lineage) -> Result<LineageRecord> {
    let (json, _) = place.read(Kind::Lineage, key, true, |json: &LineageJson| &json.about).await?;
    if json.lineage != lineage.to_string() {
        return Err(wrong(key, "it speaks of another lineage than its place does"));
    }
    let system = json
        .system
        .parse()
        .map_err(|error| wrong(key, "its system identifier is no number").with_source(error))?;
    Ok(LineageRecord {
        lineage,
        opened_us: parse_utc(&json.opened_at)?,
        system,
        segment: SegmentSize::new(json.segment_bytes)?,
        previous: json.previous.map(|previous| previous.parse()).transpose()?,
        why: json.why,
    })
}

/// Puts the record of a gap.
pub(super) async fn put_gap(place: &Place<'_>, instance: &Instance, record: &GapRecord) -> Result<Key> {
    let Range { timeline, start, end } = record.range;
    let json = GapJson {
        about: About::new(place.repository.id(), place.component, instance),
        lineage: record.lineage.to_string(),
        timeline: timeline.number(),
        start: start.to_string(),
        end: end.to_string(),
        found_at: format_utc(record.found_us),
        why: record.why.clone(),
    };
    let (folder, number) = (format!("log/{}/gaps", record.lineage), timeline.number());
    let name = |hash: &str| format!("{folder}/{number:08x}-{:016x}-{:016x}-{hash}", start.0, end.0);
    place.put(Kind::Gap, instance, &json, name).await
}

/// Reads the record of a gap.
pub(super) async fn read_gap(place: &Place<'_>, key: &Key, lineage: Lineage) -> Result<GapRecord> {
    let (json, _) = place.read(Kind::Gap, key, true, |json: &GapJson| &json.about).await?;
    let position = |text: &str| {
        text.parse()
            .map_err(|error| wrong(key, "a position in it does not read").with_source(error))
    };
    let range = Range::new(Timeline::new(json.timeline)?, position(&json.start)?, position(&json.end)?);
    let beginning = format!("{:08x}-{:016x}-{:016x}-", json.timeline, range.start.0, range.end.0);
    if json.lineage != lineage.to_string() || !key.file_name().starts_with(&beginning) {
        return Err(wrong(key, "it speaks of another place than its name does"));
    }
    Ok(GapRecord {
        lineage,
        range,
        found_us: parse_utc(&json.found_at)?,
        why: json.why,
    })
}
