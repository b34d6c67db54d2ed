//! `backup_manifest`: the server's list of what a base holds, which `UPLOAD_MANIFEST` wants back.
//!
//! Its bytes are kept as they came. Servers write it line by line, one file in each, and the last line holds a SHA-256 over everything in
//! front of it; so it is read line by line, too, whatever its length. Trimming takes lines out and sums anew: a file that the server does
//! not find in the manifest it sends whole.

use std::io::{BufRead, Read, Write};

use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// No line of a manifest is longer.
const LINE_BYTES: u64 = 64 << 10;
const CHECKSUM: &[u8] = b"\"Manifest-Checksum\"";

/// A file of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Relative to the data directory, `/`-separated.
    pub path: Vec<u8>,
    /// Its length.
    pub size_bytes: u64,
    /// The algorithm (`CRC32C`, `SHA256`, …) and the sum in hexadecimal digits; `None` where the server took none.
    pub checksum: Option<(String, String)>,
}

/// A range of log that the base needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// From here, on which timeline.
    pub start: Position,
    /// Up to here.
    pub end: Lsn,
}

/// What is known when all lines were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// 1 (PostgreSQL 13 to 16) or 2.
    pub version: u32,
    /// Which cluster; `None` in version 1.
    pub system_identifier: Option<u64>,
    /// The log that the base needs, timeline by timeline.
    pub wal: Vec<WalRange>,
    /// How many files it lists.
    pub files: u64,
}

#[derive(Deserialize)]
struct FileLine {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RangeLine {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Part {
    Head,
    Files,
    Between,
    Ranges,
    Tail,
}

/// Reads a manifest and gives every file to `take`. Kind `Corrupt` where it makes no sense or its own sum does not fit: nothing that was
/// given out may be used then.
pub fn read(from: impl BufRead, mut take: impl FnMut(ManifestFile) -> Result<()>) -> Result<Summary> {
    walk(from, |file, _line| take(file), |_line| Ok(()))
}

/// Copies a manifest without the files that `keep` does not want, with its sum taken anew, and says how many lines were left out.
/// Errors as [`read`]; what was written is worthless then.
pub fn trim(from: impl BufRead, to: &mut impl Write, mut keep: impl FnMut(&ManifestFile) -> bool) -> Result<u64> {
    let failed = |error| Error::io("write", "a trimmed manifest", error);
    let sink = std::cell::RefCell::new(Trimmed {
        to,
        hasher: Sha256::new(),
        held: None,
        left_out: 0,
    });
    walk(
        from,
        |file, line| {
            let mut sink = sink.borrow_mut();
            if keep(&file) {
                sink.file(line).map_err(failed)
            } else {
                sink.left_out += 1;
                Ok(())
            }
        },
        |line| sink.borrow_mut().other(line).map_err(failed),
    )?;
    let Trimmed {
        to, hasher, left_out, ..
    } = sink.into_inner();
    let last = format!("\"Manifest-Checksum\": \"{}\"}}\n", hex::encode(hasher.finalize()));
    to.write_all(last.as_bytes()).map_err(failed)?;
    Ok(left_out)
}

/// What has been written of a trimmed manifest.
struct Trimmed<'a, W> {
    to: &'a mut W,
    hasher: Sha256,
    /// The newest file, without the comma that it gets when another follows.
    held: Option<Vec<u8>>,
    left_out: u64,
}

impl<W: Write> Trimmed<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.to.write_all(bytes)
    }

    fn release(&mut self, ending: &[u8]) -> std::io::Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        self.put(&held)?;
        self.put(ending)
    }

    fn file(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.release(b",\n")?;
        let line = line.trim_ascii_end();
        self.held = Some(line.strip_suffix(b",").unwrap_or(line).to_vec());
        Ok(())
    }

    fn other(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.release(b"\n")?;
        self.put(line)
    }
}

/// Every line but the last, files apart from others.
fn walk(
    mut from: impl BufRead,
    mut file: impl FnMut(ManifestFile, &[u8]) -> Result<()>,
    mut other: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Summary> {
    let mut hasher = Sha256::new();
    let mut summary = Summary {
        version: 0,
        system_identifier: None,
        wal: Vec::new(),
        files: 0,
    };
    let (mut part, mut line) = (Part::Head, Vec::new());
    loop {
        line.clear();
        let count = (&mut from).take(LINE_BYTES).read_until(b'\n', &mut line);
        count.map_err(|error| Error::io("read", "backup_manifest", error))?;
        if line.starts_with(CHECKSUM) {
            if part != Part::Tail {
                return Err(broken("it ends too early"));
            }
            let wanted = format!("\"Manifest-Checksum\": \"{}\"}}", hex::encode(hasher.finalize()));
            if line.trim_ascii_end() != wanted.as_bytes() {
                return Err(broken("its own sum does not fit"));
            }
            return Ok(summary);
        }
        if line.last() != Some(&b'\n') {
            return Err(broken("it stops in the middle, or a line is too long"));
        }
        hasher.update(&line);
        let listed = line.starts_with(b"{") && part != Part::Head;
        part = next_part(part, &line, &mut summary)?;
        match (part, listed) {
            (Part::Files, true) => {
                summary.files += 1;
                file(file_line(&line)?, &line)?;
            }
            (Part::Ranges, true) => {
                summary.wal.push(range_line(&line)?);
                other(&line)?;
            }
            (_, true) => return Err(broken("an entry belongs to no list")),
            (_, false) => other(&line)?,
        }
    }
}

fn next_part(part: Part, line: &[u8], summary: &mut Summary) -> Result<Part> {
    let line = line.trim_ascii();
    if let Some(rest) = line.strip_prefix(b"{ \"PostgreSQL-Backup-Manifest-Version\":")
        && part == Part::Head
    {
        summary.version = number(rest)?;
        if !(1..=2).contains(&summary.version) {
            return Err(broken("its version is not known").with_kind(ErrorKind::Incompatible));
        }
        return Ok(Part::Between);
    }
    if let Some(rest) = line.strip_prefix(b"\"System-Identifier\":") {
        summary.system_identifier = Some(number(rest)?);
        return Ok(part);
    }
    match (part, line) {
        (Part::Between, b"\"Files\": [") => Ok(Part::Files),
        (Part::Between | Part::Files, b"\"WAL-Ranges\": [") => Ok(Part::Ranges),
        (Part::Files, b"],") => Ok(Part::Between),
        (Part::Ranges, b"],") => Ok(Part::Tail),
        (Part::Files | Part::Ranges, entry) if entry.starts_with(b"{") => Ok(part),
        _ => Err(broken("a line in it is not known")),
    }
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let text = text.trim().trim_end_matches(',');
    text.parse().ok().ok_or_else(|| broken("a number in it makes no sense"))
}

fn entry<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T> {
    let line = line.trim_ascii_end();
    let line = line.strip_suffix(b",").unwrap_or(line);
    serde_json::from_slice(line).map_err(|error| broken("an entry in it makes no sense").with_source(error))
}

fn file_line(line: &[u8]) -> Result<ManifestFile> {
    let entry: FileLine = entry(line)?;
    let path = match (entry.path, entry.encoded) {
        (Some(path), None) => path.into_bytes(),
        (None, Some(encoded)) => {
            hex::decode(encoded).map_err(|error| broken("a name in it makes no sense").with_source(error))?
        }
        _ => return Err(broken("a file in it has no name, or two")),
    };
    Ok(ManifestFile {
        path,
        size_bytes: entry.size,
        checksum: entry.algorithm.zip(entry.checksum),
    })
}

fn range_line(line: &[u8]) -> Result<WalRange> {
    let entry: RangeLine = entry(line)?;
    let lsn = |text: &str| {
        text.parse::<Lsn>()
            .map_err(|error| broken("a position in it makes no sense").with_source(error))
    };
    Ok(WalRange {
        start: Position::new(Timeline::new(entry.timeline)?, lsn(&entry.start)?),
        end: lsn(&entry.end)?,
    })
}

fn broken(detail: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "read", "backup_manifest", detail)
}

/// Writes a manifest of our own, for a base that we copied ourselves: the same lines, without sums of files.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    to: W,
    hasher: Sha256,
    files: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins a manifest; version 2 where there is a system identifier.
    pub fn new(to: W, system_identifier: Option<u64>) -> Result<Self> {
        let mut writer = Self {
            to,
            hasher: Sha256::new(),
            files: 0,
        };
        let head = match system_identifier {
            Some(number) => {
                format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {number},\n\"Files\": [")
            }
            None => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [".to_owned(),
        };
        writer.put(&head)?;
        Ok(writer)
    }

    /// Adds a file of `size_bytes`, last changed at `modified` (as `2026-11-21 19:57:50 GMT`).
    pub fn file(&mut self, path: &[u8], size_bytes: u64, modified: &str) -> Result<()> {
        let name = match std::str::from_utf8(path) {
            Ok(path) => {
                let quoted = serde_json::to_string(path).map_err(|error| {
                    Error::new(ErrorKind::Bug, "write", "a manifest", "a name cannot be quoted").with_source(error)
                })?;
                format!("\"Path\": {quoted}")
            }
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex::encode(path)),
        };
        let comma = if self.files == 0 { "\n" } else { ",\n" };
        self.files += 1;
        self.put(&format!(
            "{comma}{{ {name}, \"Size\": {size_bytes}, \"Last-Modified\": \"{modified}\" }}"
        ))
    }

    /// Ends the manifest with the log that the base needs.
    pub fn finish(mut self, wal: &[WalRange]) -> Result<W> {
        let ranges: Vec<String> = wal
            .iter()
            .map(|range| {
                format!(
                    "{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                    range.start.timeline, range.start.lsn, range.end
                )
            })
            .collect();
        let end = if self.files == 0 { "" } else { "\n" };
        self.put(&format!("{end}],\n\"WAL-Ranges\": [\n{}\n],\n", ranges.join(",\n")))?;
        let sum = hex::encode(self.hasher.finalize_reset());
        self.put(&format!("\"Manifest-Checksum\": \"{sum}\"}}\n"))?;
        Ok(self.to)
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.hasher.update(text.as_bytes());
        self.to
            .write_all(text.as_bytes())
            .map_err(|error| Error::io("write", "a manifest", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(version: u32) -> Vec<u8> {
        let wal = [WalRange {
            start: Position::new(Timeline::FIRST, Lsn(0x600_0028)),
            end: Lsn(0x600_0100),
        }];
        let mut writer = ManifestWriter::new(Vec::new(), (version == 2).then_some(7_300_000_000_000_000_001)).unwrap();
        for path in [
            &b"backup_label"[..],
            b"base/5/16384",
            b"base/5/a \"quoted\" one",
            b"base/5/\xff",
            b"global/pg_control",
        ] {
            writer.file(path, 8192, "2026-11-21 19:57:50 GMT").unwrap();
        }
        writer.finish(&wal).unwrap()
    }

    fn names(bytes: &[u8]) -> Result<(Summary, Vec<Vec<u8>>)> {
        let mut names = Vec::new();
        let summary = read(bytes, |file| {
            names.push(file.path);
            Ok(())
        })?;
        Ok((summary, names))
    }

    #[test]
    fn what_is_written_is_read() {
        for version in [1, 2] {
            let bytes = manifest(version);
            let (summary, names) = names(&bytes).unwrap();
            assert_eq!(summary.version, version);
            assert_eq!(summary.system_identifier.is_some(), version == 2);
            assert_eq!((summary.files, summary.wal.len()), (5, 1));
            assert_eq!(names[3], b"base/5/\xff");
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        }
    }

    #[test]
    fn trimming_takes_out_what_is_not_kept_and_sums_anew() {
        let bytes = manifest(2);
        for dropped in 0..32_u32 {
            let (mut trimmed, mut at) = (Vec::new(), 0);
            let left_out = trim(bytes.as_slice(), &mut trimmed, |_file| {
                at += 1;
                dropped >> (at - 1) & 1 == 0
            });
            assert_eq!(left_out.unwrap(), u64::from(dropped.count_ones()));
            serde_json::from_slice::<serde_json::Value>(&trimmed).unwrap();
            assert_eq!(names(&trimmed).unwrap().1.len(), 5 - dropped.count_ones() as usize);
        }
        let mut same = Vec::new();
        trim(bytes.as_slice(), &mut same, |_file| true).unwrap();
        assert_eq!(same, bytes, "nothing left out, nothing changed");
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found() {
        let bytes = manifest(2);
        for at in 0..bytes.len() - 2 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(names(&damaged).is_err(), "byte {at}");
            assert!(names(&bytes[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let error = names(&vec![b'{'; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
