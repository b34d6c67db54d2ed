//! Tablespaces that the log makes: the server makes them again where they were made first, whatever a restore does with those of the base.
//!
//! A replay on the host of the origin would so write into the origin's own folder: the server takes one that is there for its own. So the log is
//! looked through for them before any of it is replayed, and a place where tablespaces lie already is refused.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::records::{PAGE_BYTES, Record};
use lifeboat_model::wal::SegmentSize;
use lifeboat_model::{Error, ErrorKind, Lsn, Result};
use lifeboat_repo::block_end;

use crate::wal::Archive;

/// Resource manager and number of the record that makes a tablespace (`RM_TBLSPC_ID`, `XLOG_TBLSPC_CREATE`).
const MAKES: (u8, u8) = (5, 0x00);
/// Bytes of the header of a record.
const RECORD_HEADER: usize = 24;
/// The longest record of that kind: a path and some numbers.
const LONGEST_BYTES: u64 = 4096;
/// How the folders of servers in a location begin.
const SERVERS: &[u8] = b"PG_";

/// A tablespace that the log makes.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    oid: u32,
    place: PathBuf,
}

/// Where the log makes them: the records that do.
#[derive(Debug)]
pub(super) struct Seen {
    from: Lsn,
    until: Lsn,
    found: Vec<(Lsn, Lsn)>,
}

impl Seen {
    /// Of log from `from` until `until`.
    pub(super) const fn new(from: Lsn, until: Lsn) -> Self {
        Self {
            from,
            until,
            found: Vec::new(),
        }
    }

    /// Looks at the next record.
    pub(super) fn see(&mut self, record: &Record) {
        let makes = (record.kind.0, record.kind.1 & 0xf0) == MAKES;
        if makes && record.start >= self.from && record.end <= self.until {
            self.found.push((record.start, record.end));
        }
    }

    /// Refuses those that cannot be made here without harm. Returns what to know about the others.
    pub(super) async fn judge(self, archive: &Archive) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for (start, end) in self.found {
            let made = read(archive, start, end).await?;
            notes.extend(judge(&made, start)?);
        }
        Ok(notes)
    }
}

async fn read(archive: &Archive, start: Lsn, end: Lsn) -> Result<Made> {
    let (mut bytes, mut at) = (Vec::new(), start);
    while at < end.min(start.plus(LONGEST_BYTES)) {
        let stop = block_end(at).min(end);
        bytes.extend_from_slice(&archive.along_way(at, stop).await?);
        at = stop;
    }
    made(&without_headers(start, &bytes, archive.segment_size())).ok_or_else(|| {
        let detail = "it makes a tablespace, and where cannot be read";
        Error::new(ErrorKind::Corrupt, "read the record at", start, detail)
    })
}

/// A record that begins at `start`, without the headers of the pages that it goes over.
fn without_headers(start: Lsn, bytes: &[u8], size: SegmentSize) -> Vec<u8> {
    let mut record = Vec::new();
    let mut rest = bytes;
    let mut at = start;
    while !rest.is_empty() {
        let header = match (at.0 % PAGE_BYTES, size.offset_of(at)) {
            (0, 0) => 40,
            (0, _) => 24,
            _ => 0,
        };
        let page = usize::try_from(PAGE_BYTES - at.0 % PAGE_BYTES).unwrap_or(usize::MAX);
        let (here, behind) = rest.split_at(page.min(rest.len()));
        record.extend_from_slice(here.get(header..).unwrap_or_default());
        at = at.plus(here.len() as u64);
        rest = behind;
    }
    record
}

/// What the record says: behind the header of its main data a number and a path, ended by a zero.
fn made(record: &[u8]) -> Option<Made> {
    let mut from = RECORD_HEADER;
    loop {
        from += match record.get(from)? {
            253 => 3,
            252 => 5,
            255 => {
                from += 2;
                break;
            }
            254 => {
                from += 5;
                break;
            }
            _ => return None,
        };
    }
    let oid = u32::from_le_bytes(record.get(from..from + 4)?.try_into().ok()?);
    let path = record.get(from + 4..)?;
    let path = path.get(..path.iter().position(|byte| *byte == 0)?)?;
    Some(Made {
        oid,
        place: PathBuf::from(OsString::from_vec(path.to_vec())),
    })
}

fn judge(made: &Made, at: Lsn) -> Result<Option<String>> {
    let Made { oid, place } = made;
    // One inside of the data directory.
    if !place.is_absolute() {
        return Ok(None);
    }
    let refuse = |detail: String, hint: String| {
        Err(Error::new(ErrorKind::Refused, "replay the log of", format!("tablespace {oid}"), detail).with_hint(hint))
    };
    let elsewhere = format!(
        "or restore on another host, or to a moment in front of {at}; a base made after the tablespace does not need that folder"
    );
    match holds_servers(place) {
        Ok(false) => Ok(Some(format!(
            "tablespace {oid} is younger than the base: the log makes it in {}, where it was",
            place.display()
        ))),
        Ok(true) => refuse(
            format!(
                "it is younger than the base, and the log makes it in {}, where it was: a server would write into what lies there, which may be the original's",
                place.display()
            ),
            format!("if nothing there is in use, move what is in that folder away, {elsewhere}"),
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => refuse(
            format!(
                "it is younger than the base, and the log makes it in {}, where it was; the server needs that folder, and it is not there",
                place.display()
            ),
            format!("make it, empty and owned by the user of the server, {elsewhere}"),
        ),
        Err(error) => Err(error),
    }
}

fn holds_servers(place: &Path) -> Result<bool> {
    let failed = |error| Error::io("look at", place.display(), error);
    for entry in place.read_dir().map_err(failed)? {
        if entry.map_err(failed)?.file_name().as_encoded_bytes().starts_with(SERVERS) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_over_the_end_of_a_page() {
        let mut record = vec![0; RECORD_HEADER];
        record.extend_from_slice(&[255, 15]);
        record.extend_from_slice(&16_400_u32.to_le_bytes());
        record.extend_from_slice(b"/mnt/space\0");
        let wanted = Made {
            oid: 16_400,
            place: "/mnt/space".into(),
        };
        assert_eq!(made(&record).as_ref(), Some(&wanted));
        for length in 0..record.len() {
            assert_eq!(made(&record[..length]), None);
        }
        let size = SegmentSize::new(1 << 20).unwrap();
        for (page, header) in [(3 * PAGE_BYTES, 24), (2 << 20, 40)] {
            let start = Lsn(page - 32);
            let mut bytes = record[..32].to_vec();
            bytes.resize(32 + header, 7);
            bytes.extend_from_slice(&record[32..]);
            assert_eq!(made(&without_headers(start, &bytes, size)).as_ref(), Some(&wanted));
        }
    }

    #[test]
    fn a_folder_with_a_server_of_somebody_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let made = |place: &Path| Made {
            oid: 1,
            place: place.to_path_buf(),
        };
        let told = judge(&made(folder.path()), Lsn(1)).unwrap();
        assert!(told.is_some());
        assert_eq!(judge(&made(Path::new("")), Lsn(1)).unwrap(), None);
        std::fs::create_dir(folder.path().join("PG_15_202209061")).unwrap();
        let missing = folder.path().join("missing");
        for place in [folder.path(), &missing] {
            assert_eq!(judge(&made(place), Lsn(1)).unwrap_err().kind(), ErrorKind::Refused);
        }
    }
}
