//! The archive that a server streams, split into its entries while it arrives.
//!
//! Pushed piece by piece, because it comes in pieces of whatever length; nothing is held but one header of 512 bytes. What a server writes
//! is plain `ustar` (`port/tar.c`), with sizes from 8 GiB on in base 256; longer names of other writers are refused rather than guessed.

use lifeboat_model::{Error, ErrorKind, Result};

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file; its bytes follow.
    File,
    /// A folder.
    Folder,
    /// A link to this target.
    Link(String),
}

/// One entry, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative path without `./` in front and `/` behind.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, seconds since 1970.
    pub modified_s: i64,
}

/// What a piece of the archive held. Borrowed from the piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An entry begins.
    Begin(Entry),
    /// The next bytes of the entry.
    Data(&'a [u8]),
    /// The file's bytes are complete; follows every [`Event::Begin`] of a file.
    End,
}

/// The splitter.
#[derive(Debug, Default)]
pub struct Splitter {
    header: Vec<u8>,
    /// Bytes of the entry that are still to come.
    remaining: u64,
    /// Zeros behind the entry.
    padding: usize,
    in_file: bool,
    /// A block of zeros was seen: the archive is over, and nothing else may follow.
    ended: bool,
}

impl Splitter {
    /// Splits `piece` and gives every event to `take`. Kind `Corrupt` where the archive makes no sense.
    pub fn push(&mut self, mut piece: &[u8], mut take: impl FnMut(Event<'_>) -> Result<()>) -> Result<()> {
        loop {
            if self.remaining > 0 {
                if piece.is_empty() {
                    return Ok(());
                }
                let count = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(piece.len());
                let (data, rest) = piece.split_at(count);
                take(Event::Data(data))?;
                self.remaining -= count as u64;
                piece = rest;
                continue;
            }
            if self.in_file {
                self.in_file = false;
                take(Event::End)?;
            }
            let skipped = self.padding.min(piece.len());
            self.padding -= skipped;
            piece = piece.get(skipped..).unwrap_or_default();
            let wanted = (BLOCK - self.header.len()).min(piece.len());
            let (header, rest) = piece.split_at(wanted);
            self.header.extend_from_slice(header);
            piece = rest;
            if self.header.len() < BLOCK {
                return Ok(());
            }
            if let Some(entry) = self.entry()? {
                self.in_file = entry.kind == Kind::File;
                self.remaining = entry.size_bytes;
                self.padding = padding(entry.size_bytes);
                take(Event::Begin(entry))?;
            }
            self.header.clear();
        }
    }

    /// The archive is over. Kind `Corrupt` if it stops inside an entry.
    pub fn finish(self) -> Result<()> {
        if self.remaining > 0 || self.in_file || !self.header.is_empty() || self.padding > 0 {
            return Err(broken("it stops inside an entry"));
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<Option<Entry>> {
        let header = self.header.as_slice();
        if header.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        if self.ended {
            return Err(broken("something follows its end"));
        }
        let field = |from: usize, to: usize| header.get(from..to).unwrap_or_default();
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    u64::from(b' ')
                } else {
                    u64::from(*byte)
                }
            })
            .sum();
        if number(field(148, 156))? != sum {
            return Err(broken("the sum of a header does not fit"));
        }
        if field(257, 262) != b"ustar" {
            return Err(broken("a header is not of the format ustar"));
        }
        let mut path = text(field(0, 100))?;
        let prefix = text(field(345, 500))?;
        if !prefix.is_empty() {
            path = format!("{prefix}/{path}");
        }
        let kind = match header.get(156) {
            Some(b'0' | 0) => Kind::File,
            Some(b'5') => Kind::Folder,
            Some(b'2') => Kind::Link(text(field(157, 257))?),
            other => return Err(broken(&format!("an entry of the unknown type {other:?}"))),
        };
        let size_bytes = number(field(124, 136))?;
        if kind != Kind::File && size_bytes != 0 {
            return Err(broken("a folder or a link has bytes"));
        }
        let small = |from, to| number(field(from, to)).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
        Ok(Some(Entry {
            path: clean(&path)?,
            kind,
            size_bytes,
            mode: small(100, 108)? & 0o7777,
            uid: small(108, 116)?,
            gid: small(116, 124)?,
            modified_s: i64::try_from(number(field(136, 148))?).unwrap_or(i64::MAX),
        }))
    }
}

/// A path that stays below where it is unpacked.
fn clean(path: &str) -> Result<String> {
    let mut parts = Vec::new();
    if path.starts_with('/') {
        return Err(broken("a path in it is absolute"));
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(broken("a path in it leads out")),
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

fn padding(size_bytes: u64) -> usize {
    let over = usize::try_from(size_bytes % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

/// Octal digits, or base 256 where the first bit is set.
fn number(field: &[u8]) -> Result<u64> {
    let failed = || broken("a number in a header makes no sense");
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        let start = u64::from(first & 0x7f);
        let add = |all: u64, byte: &u8| all.checked_mul(256).map(|all| all | u64::from(*byte));
        let value = rest.iter().try_fold(start, add).ok_or_else(failed)?;
        return if value <= i64::MAX.unsigned_abs() {
            Ok(value)
        } else {
            Err(failed())
        };
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let digits = digits.take_while(|byte| !matches!(byte, b' ' | 0));
    digits.into_iter().try_fold(0_u64, |all, byte| match byte {
        b'0'..=b'7' => Ok(all << 3 | u64::from(byte - b'0')),
        _ => Err(failed()),
    })
}

fn text(field: &[u8]) -> Result<String> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let bytes = field.get(..end).unwrap_or_default();
    let text = std::str::from_utf8(bytes).map_err(|error| broken("a name in it is not UTF-8").with_source(error))?;
    Ok(text.to_owned())
}

fn broken(detail: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "read", "the archive that the server sends", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries with their bytes.
    fn split(archive: &[u8], step: usize) -> Result<Vec<(Entry, Vec<u8>)>> {
        let mut splitter = Splitter::default();
        let mut found: Vec<(Entry, Vec<u8>)> = Vec::new();
        let mut open = false;
        for piece in archive.chunks(step) {
            splitter.push(piece, |event| {
                match event {
                    Event::Begin(entry) => {
                        assert!(!open, "the one before has ended");
                        open = entry.kind == Kind::File;
                        found.push((entry, Vec::new()));
                    }
                    Event::Data(bytes) => found.last_mut().unwrap().1.extend_from_slice(bytes),
                    Event::End => {
                        assert!(open);
                        open = false;
                    }
                }
                Ok(())
            })?;
        }
        splitter.finish()?;
        Ok(found)
    }

    fn archive() -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: ::tar::EntryType, bytes: &[u8]| {
            let mut header = ::tar::Header::new_ustar();
            header.set_path(path).unwrap();
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_uid(101);
            header.set_gid(104);
            header.set_mtime(1_700_000_000);
            if kind == ::tar::EntryType::Symlink {
                header.set_link_name("/mnt/space").unwrap();
            }
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        };
        add("backup_label", ::tar::EntryType::Regular, b"START\n");
        add("base/", ::tar::EntryType::Directory, b"");
        add("pg_tblspc/16384", ::tar::EntryType::Symlink, b"");
        add("base/5/16384", ::tar::EntryType::Regular, &[7; 8192]);
        add("empty", ::tar::EntryType::Regular, b"");
        add("global/pg_control", ::tar::EntryType::Regular, &[1; 1000]);
        builder.into_inner().unwrap()
    }

    #[test]
    fn pieces_of_any_length_give_the_same_entries() {
        let archive = archive();
        let whole = split(&archive, archive.len()).unwrap();
        assert_eq!(whole.len(), 6);
        assert_eq!(whole[1].0.path, "base");
        assert_eq!(whole[2].0.kind, Kind::Link("/mnt/space".into()));
        assert_eq!(whole[3].1, [7; 8192]);
        assert_eq!((whole[5].0.mode, whole[5].0.uid, whole[5].0.gid), (0o600, 101, 104));
        for step in [1, 7, 511, 512, 513, 4096] {
            assert_eq!(split(&archive, step).unwrap(), whole, "pieces of {step}");
        }
    }

    #[test]
    fn a_cut_archive_is_damaged() {
        let archive = archive();
        // Behind the last entry there are only zeros.
        let last = archive.len() - 1024 - 1024;
        for length in (1..last).step_by(97).filter(|length| length % 512 != 0) {
            let error = split(&archive[..length], 512);
            assert!(error.is_err_and(|error| error.kind() == ErrorKind::Corrupt), "{length} bytes");
        }
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_found() {
        let archive = archive();
        for at in 0..512 * 8 {
            let mut damaged = archive.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            // A sum has digits and what surrounds them; between those, some bits say nothing.
            if (148..156).contains(&(at / 8)) {
                continue;
            }
            assert!(split(&damaged, 512).is_err(), "bit {at}");
        }
    }

    #[test]
    fn sizes_beyond_eight_gigabytes_are_read() {
        let mut field = [0_u8; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&(20_u64 << 30).to_be_bytes());
        assert_eq!(number(&field).unwrap(), 20 << 30);
        assert_eq!(number(b"77777777777\0").unwrap(), (8 << 30) - 1);
        assert!(number(&[0xff; 12]).is_err());
        assert!(number(b"00000000009\0").is_err());
    }

    #[test]
    fn paths_stay_below() {
        assert_eq!(clean("./base//5/").unwrap(), "base/5");
        assert!(clean("../x").is_err());
        assert!(clean("/etc/passwd").is_err());
    }
}
