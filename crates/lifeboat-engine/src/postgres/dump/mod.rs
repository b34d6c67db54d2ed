//! What `pg_dump` wrote: which of its formats, of which version, and whether all of it is there.
//!
//! Archives are for `pg_restore`. SQL text is taken apart here and sent statement by statement ([`script`]): a server knows no commands that begin with
//! a backslash, so none of a file can start a program, whatever it holds.

pub mod header;
pub mod roles;
pub mod script;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};

pub use header::{About, MAGIC};

/// How `pg_dump` wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One file of its own form (`-Fc`).
    Custom,
    /// A tar archive (`-Ft`).
    Tar,
    /// A folder (`-Fd`).
    Directory,
    /// SQL text (`-Fp`).
    Plain,
}

impl Format {
    /// As `pg_dump` calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Tar => "tar",
            Self::Directory => "directory",
            Self::Plain => "plain",
        }
    }
}

/// The table of contents of a folder or a tar archive.
pub const CONTENTS: &str = "toc.dat";

/// How the rows of a table end, in a file of its own: the end of COPY, or the last INSERT, and blank lines.
const ENDS: [&[u8]; 2] = [b"\\.\n\n\n", b";\n\n\n"];
/// What stands in the file of a table without rows, written as INSERT.
const NO_ROWS: u64 = 2;
/// Bytes at the end of a file that are looked at.
const END_BYTES: usize = 5;

/// Looks at the end of every file with rows in a folder that `pg_dump` wrote: `pg_restore` takes rows that are cut off.
///
/// # Errors
/// `Corrupt` where one is cut off or damaged.
pub fn check_folder(folder: &Path) -> Result<()> {
    let failed = |error| Error::io("list", folder.display(), error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((number, packed)) = name.split_once(".dat") else {
            continue;
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let file = File::open(&path).map_err(|error| Error::io("read", path.display(), error))?;
        let read = match packed {
            "" => end_of(file),
            ".gz" => end_of(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))),
            ".zst" => zstd::Decoder::new(file).and_then(end_of),
            // `lz4`, which pg_restore itself reads.
            _ => continue,
        };
        let cut = |detail: String| {
            Error::new(ErrorKind::Corrupt, "read", path.display(), detail)
                .with_hint("this dump cannot be relied on: take another")
        };
        let (bytes, end) = read.map_err(|error| match error.raw_os_error() {
            Some(_) => Error::io("read", path.display(), error),
            None => cut(format!("it is damaged or cut off ({error})")),
        })?;
        if bytes > NO_ROWS && !ENDS.iter().any(|known| end.ends_with(known)) {
            return Err(cut("it is cut off: the rows of a table do not end".to_owned()));
        }
    }
    Ok(())
}

/// How many bytes there are, and the last of them.
fn end_of(mut from: impl Read) -> std::io::Result<(u64, Vec<u8>)> {
    let mut buffer = vec![0; 64 << 10];
    let mut end: Vec<u8> = Vec::new();
    let mut bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, end)),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes += count as u64;
        end.extend_from_slice(buffer.get(..count).unwrap_or_default());
        end.drain(..end.len().saturating_sub(END_BYTES));
    }
}
