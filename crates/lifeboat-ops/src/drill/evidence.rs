//! Where evidence lies: `drills/ID/` in the state folder, one folder for each drill that began (DR-03, DR-07).
//!
//! `begun.json` is written first and goes when `report.json` and its signature stand. A folder with `begun.json` alone, which nobody has locked, is that
//! of a drill that was killed: [`settle`] says so in a report. Ticks are files of their own, which are only added.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::drill::{Standing, Tick};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Instance, PublicKey, Trust, format_utc};
use serde::{Deserialize, Serialize};

use super::remarks::{self, Remark};
use super::report::{Failure, Phase, Report, underscored};

const BEGUN: &str = "begun.json";
const REPORT: &str = "report.json";
const SIGNATURE: &str = "report.json.sig";
const PUBLIC_KEY: &str = "instance.pem";
const LOCK: &str = "lock";
/// What stands in front of the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo` (RFC 8410, section 10.1).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a person said of an item of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Which item.
    pub item: String,
    /// Whether it was as it should be.
    pub good: bool,
    /// Who said so.
    pub who: String,
    /// When, RFC 3339.
    pub at: String,
    /// What else he said.
    pub note: Option<String>,
    /// How long it took, where he says so.
    #[serde(default)]
    pub took_s: Option<u64>,
}

/// A drill as it is written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The report.
    pub report: Report,
    /// What people said of its items, oldest first.
    pub said: Vec<Said>,
    /// What people said of the whole, oldest first.
    pub remarks: Vec<Remark>,
    /// Where all of it is.
    pub folder: PathBuf,
}

impl Written {
    /// What was said last of each item.
    #[must_use]
    pub fn ticks(&self) -> Vec<Tick> {
        let last = |item: &String| self.said.iter().rev().find(|said| said.item == *item).map(|said| said.good);
        self.report.manual.iter().map(last).collect()
    }

    /// What the plan gives each phase, and how long it took, by what people said too.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        let mut phases = self.report.phases.clone();
        for phase in phases.iter_mut().filter(|phase| !Phase::is_measured(&phase.name)) {
            let said = self.said.iter().rev().filter(|said| said.item == phase.name);
            let took = said.filter_map(|said| said.took_s).next();
            phase.took_s = took.map(|seconds| Duration::from_secs(seconds).as_secs_f64());
        }
        phases
    }

    /// What came of it, with what people said.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.report.standing(&self.ticks())
    }
}

/// A drill that has begun; whoever holds this is at work.
#[derive(Debug)]
pub(super) struct Begun {
    folder: PathBuf,
    _lock: File,
}

fn drills(state_dir: &Path) -> PathBuf {
    state_dir.join("drills")
}

/// Writes down that a drill began.
pub(super) fn begin(state_dir: &Path, report: &Report) -> Result<Begun> {
    let folder = drills(state_dir).join(&report.id);
    durable::create_folder(&folder)?;
    let lock = lock(&folder)?.ok_or_else(|| Error::new(ErrorKind::Locked, "begin", "a drill", "another run took its folder"))?;
    durable::replace_file(&folder.join(BEGUN), &bytes(report)?, durable::FILE_MODE)?;
    Ok(Begun { folder, _lock: lock })
}

impl Begun {
    /// Writes down what came of it, signed where the instance is here.
    pub(super) fn finish(self, report: &Report, instance: Option<&Instance>) -> Result<PathBuf> {
        conclude(&self.folder, report, instance)?;
        Ok(self.folder)
    }
}

fn conclude(folder: &Path, report: &Report, instance: Option<&Instance>) -> Result<()> {
    let bytes = bytes(report)?;
    if let Some(instance) = instance {
        let signature = instance.sign_document(&bytes)?;
        let pem = pem(instance.public_key().as_bytes());
        durable::replace_file(&folder.join(PUBLIC_KEY), pem.as_bytes(), durable::FILE_MODE)?;
        durable::replace_file(&folder.join(SIGNATURE), &signature, durable::FILE_MODE)?;
    } else {
        // That of a run which died behind it is not this one's.
        durable::remove_file(&folder.join(SIGNATURE))?;
    }
    durable::replace_file(&folder.join(REPORT), &bytes, durable::FILE_MODE)?;
    durable::remove_file(&folder.join(BEGUN))?;
    durable::remove_file(&folder.join(LOCK))
}

/// An Ed25519 public key as a PEM block.
fn pem(key: &[u8; 32]) -> String {
    use base64::Engine as _;
    let der: Vec<u8> = SPKI.iter().chain(key).copied().collect();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

fn bytes(report: &Report) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(report)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the report of a drill", error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Locks the folder of a drill; `None` when somebody is at work.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|error| Error::io("open", path.display(), error))?;
    Ok(file.try_lock().is_ok().then_some(file))
}

/// Gives every drill that was killed its report. Returns their ids, and why others cannot be settled: what is damaged keeps nobody from a new drill.
pub fn settle(env: &Env, state_dir: &Path, instance: Option<&Instance>) -> Result<(Vec<String>, Vec<Error>)> {
    let (mut settled, mut unread) = (Vec::new(), Vec::new());
    for folder in folders(state_dir)? {
        let begun = folder.join(BEGUN);
        if !begun.is_file() {
            continue;
        }
        let Some(_lock) = lock(&folder)? else { continue };
        let mut report = match read::<Report>(&begun) {
            Ok(Some(report)) => report,
            Ok(None) => continue,
            Err(error) => {
                unread.push(error);
                continue;
            }
        };
        if !folder.join(REPORT).is_file() {
            report.ended_at = Some(format_utc(env.clock.wall_us()));
            report.error = Some(Failure {
                says: "it was interrupted: the command was killed, the host went down, or its report could not be written"
                    .to_owned(),
                hint: Some("run it again; its sandbox is removed by the next command".to_owned()),
            });
            report.verdict = underscored(Standing::Failed.words());
            report.reasons = report.why();
            conclude(&folder, &report, instance)?;
            settled.push(report.id);
        } else {
            durable::remove_file(&begun)?;
        }
    }
    Ok((settled, unread))
}

/// The folders of all drills, by their ids, which begin with the time.
fn folders(state_dir: &Path) -> Result<Vec<PathBuf>> {
    let parent = drills(state_dir);
    let failed = |error| Error::io("list", parent.display(), error);
    let entries = match std::fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a document; `None` where there is none.
pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path.display(), error)),
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "read", path.display(), "it is no evidence of a drill").with_source(error)
    })
}

/// All drills that ended, the oldest first, and why others cannot be read: damaged evidence hides none of the rest.
pub fn all(state_dir: &Path) -> Result<(Vec<Written>, Vec<Error>)> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for folder in folders(state_dir)? {
        match one(folder) {
            Ok(written) => found.extend(written),
            Err(error) => unread.push(error),
        }
    }
    // An id says only the second.
    found.sort_by(|a, b| (&a.report.began_at, &a.report.id).cmp(&(&b.report.began_at, &b.report.id)));
    Ok((found, unread))
}

fn one(folder: PathBuf) -> Result<Option<Written>> {
    let Some(report) = read::<Report>(&folder.join(REPORT))? else {
        return Ok(None);
    };
    let (said, remarks) = (said(&folder)?, remarks::of(&folder)?);
    Ok(Some(Written {
        report,
        said,
        remarks,
        folder,
    }))
}

/// The drill of that id, or whose id ends so; without one, the newest.
///
/// # Errors
/// `NoSuchPoint` where there is none, or several.
pub fn find(state_dir: &Path, id: Option<&str>) -> Result<Written> {
    let (mut all, unread) = all(state_dir)?;
    let none = |detail: String| {
        Error::new(ErrorKind::NoSuchPoint, "find", "the drill", detail)
            .with_hint("`lifeboat drill report --table` lists them; `lifeboat drill WHAT` does one")
    };
    let Some(id) = id else {
        return all.pop().ok_or_else(|| none("there was none yet".to_owned()));
    };
    all.retain(|written| written.report.id == id || written.report.id.ends_with(id));
    match all.len() {
        1 => all.pop().ok_or_else(|| none("it vanished".to_owned())),
        0 if !unread.is_empty() => Err(unread.into_iter().next().unwrap_or_else(|| none(String::new()))),
        count => Err(none(format!("{count} drills have an id that is {id} or ends so"))),
    }
}

fn tick_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("tick-{number:04}.json"))
}

fn said(folder: &Path) -> Result<Vec<Said>> {
    let mut found = Vec::new();
    while let Some(said) = read::<Said>(&tick_path(folder, found.len()))? {
        found.push(said);
    }
    Ok(found)
}

/// Writes down what a person says of an item. What was said before stays.
///
/// # Errors
/// `Usage` where the drill has no such item.
pub fn tick(state_dir: &Path, written: &Written, said: Said) -> Result<Written> {
    if !written.report.manual.contains(&said.item) {
        let items = written.report.manual.join("; ");
        let detail = match items.as_str() {
            "" => "it has no items for people".to_owned(),
            items => format!("{:?} is none of its items: {items}", said.item),
        };
        return Err(Error::new(ErrorKind::Usage, "tick", &written.report.id, detail)
            .with_hint("name an item as the report does, or by its number"));
    }
    let bytes = serde_json::to_vec_pretty(&said)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what was said", error.to_string()))?;
    let mut number = written.said.len();
    while durable::create_file(&tick_path(&written.folder, number), &bytes, durable::FILE_MODE)? == durable::Created::AlreadyThere
    {
        number += 1;
    }
    find(state_dir, Some(&written.report.id))
}

/// What is to be thought of the signature of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// Of an instance that the configuration names.
    Good(String),
    /// Right, of a key that the configuration does not name.
    Unknown(PublicKey),
    /// It does not fit the report: one of them was changed.
    Wrong,
    /// There is none: the instance's key was not on this host.
    Missing,
}

impl Signature {
    /// One sentence.
    #[must_use]
    pub fn says(&self) -> String {
        match self {
            Self::Good(name) => format!("signed by the instance {name}, which the configuration trusts"),
            Self::Unknown(key) => format!("signed by {key}, which the configuration does not name"),
            Self::Wrong => "its signature does not fit: the report or the signature was changed".to_owned(),
            Self::Missing => "not signed".to_owned(),
        }
    }
}

/// Looks at the signature of a report, and that the report is what stands in the file.
pub fn signature(written: &Written, trust: &Trust) -> Result<Signature> {
    let read = |name: &str| {
        let path = written.folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path.display(), error)),
        }
    };
    let (Some(document), Some(signature), Some(pem)) = (read(REPORT)?, read(SIGNATURE)?, read(PUBLIC_KEY)?) else {
        return Ok(Signature::Missing);
    };
    let Some(key) = key_of(&pem).filter(|key| key.has_signed(&document, &signature)) else {
        return Ok(Signature::Wrong);
    };
    Ok(match trust.name_of(&key) {
        Some(name) => Signature::Good(name.to_owned()),
        None => Signature::Unknown(key),
    })
}

/// The key in a PEM block that [`pem`] wrote.
fn key_of(text: &[u8]) -> Option<PublicKey> {
    use base64::Engine as _;
    let text = std::str::from_utf8(text).ok()?;
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body.trim()).ok()?;
    let key = der.strip_prefix(&SPKI)?;
    format!("ed25519:{}", hex::encode(key)).parse().ok()
}
