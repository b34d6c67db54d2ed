//! Old backup files made by other programs: read, never written. What a file is, its content says, not its name.
//!
//! Layers are taken off one by one and streamed (openssl → gzip → tar → gzip → database, six deep at most); memory is bounded, and so is
//! what all layers give together ([`Options::limit_bytes`]). Only databases and SQL text are written anywhere, into a folder of the
//! caller's and under names of our own: no path of an archive is ever used.
//!
//! Who encrypted with `openssl enc` left nothing in the file that proves a passphrase: it fits when what comes out begins like something
//! known. Padding alone fits one wrong passphrase in 256.

mod kind;
mod layer;
mod load;
mod openssl;
mod statements;
mod unpack;

use std::fs::File;
use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};

pub use kind::Kind;
pub use load::{load, settle};
pub use openssl::{OpensslKdf, Passphrase};
use unpack::Taking;

use crate::postgres::dump::CONTENTS;

/// What a tar archive of `pg_dump` holds besides: statements for people.
const TAR_SCRIPT: &str = "restore.sql";

/// How to read a file.
#[derive(Debug, Clone)]
pub struct Options {
    /// Passphrases to try on what openssl encrypted.
    pub passphrases: Vec<Passphrase>,
    /// Bytes that all layers may give together; more is refused. `None`: 1,100 times the file and 64 MiB, which no single layer of gzip reaches.
    pub limit_bytes: Option<u64>,
}

/// Something that was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path in the archive; the name of the file itself where there is no archive.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Its bytes, unpacked.
    pub size_bytes: u64,
    /// When it was last changed, as an archive says; seconds since 1970.
    pub modified_s: Option<i64>,
    /// Where it was unpacked to.
    pub file: Option<PathBuf>,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// What was taken off, from outside to inside: `openssl enc (aes-256-cbc, pbkdf2)`, `gzip`, `tar`.
    pub layers: Vec<String>,
    /// What is in it, in its order.
    pub items: Vec<Item>,
    /// What to know, one sentence each.
    pub notes: Vec<String>,
    /// An archive in it has no end mark: what came last may be missing.
    pub has_no_end: bool,
}

impl Contents {
    /// The database that a person means: the one named `wanted`, else the only one; SQL text where there is no database.
    pub fn database(&self, wanted: Option<&str>, file: &Path) -> Result<&Item> {
        let of = |kind: Kind| self.items.iter().filter(move |item| item.kind == kind);
        if let Some(wanted) = wanted {
            let found = of(Kind::Database).chain(of(Kind::Sql)).find(|item| item.path == wanted);
            return found.ok_or_else(|| {
                let detail = format!("there is no database {wanted:?} in it");
                Error::new(ErrorKind::Usage, "read", file.display(), detail).with_hint(self.names())
            });
        }
        for kind in [Kind::Database, Kind::Sql] {
            let found: Vec<&Item> = of(kind).collect();
            match found.as_slice() {
                [] => {}
                [one] => return Ok(one),
                _ => {
                    let detail = format!("it holds {} of the kind {}", found.len(), kind.word());
                    return Err(Error::new(ErrorKind::Usage, "read", file.display(), detail)
                        .with_hint(format!("choose one with --member; {}", self.names())));
                }
            }
        }
        if self.items.iter().any(|item| item.kind == Kind::Postgres) {
            return Err(Error::new(
                ErrorKind::Incompatible,
                "read",
                file.display(),
                "it is a dump of PostgreSQL, and not of a SQLite database",
            )
            .with_hint(
                "restore it as a component of the kind postgres: lifeboat restore SYSTEM/COMPONENT --from FILE --to NEW_DATABASE",
            ));
        }
        let detail = "neither a SQLite database nor SQL text is in it";
        Err(Error::new(ErrorKind::Corrupt, "read", file.display(), detail)
            .with_hint(format!("check that this is the right file; {}", self.names())))
    }

    /// The dump of PostgreSQL that a person means: the one named `wanted`, else the only one. That of a folder or a tar archive of `pg_dump` is its `toc.dat`.
    ///
    /// # Errors
    /// `Usage` where there are several or none of that name, `Corrupt` where there is none at all.
    pub fn dump(&self, wanted: Option<&str>, file: &Path) -> Result<&Item> {
        let name = |item: &Item| Path::new(&item.path).file_name().is_some_and(|name| name == CONTENTS);
        let folders: Vec<&str> = (self.items.iter().filter(|item| name(item)))
            .map(|item| unpack::folder_of(&item.path))
            .collect();
        // Rows and scripts beside a table of contents belong to it.
        let dumps = || {
            let of_postgres = self.items.iter().filter(|item| item.kind == Kind::Postgres);
            of_postgres.filter(|item| name(item) || !folders.contains(&unpack::folder_of(&item.path)))
        };
        if let Some(wanted) = wanted {
            let found = dumps().find(|item| item.path == wanted);
            return found.ok_or_else(|| {
                let detail = format!("there is no dump {wanted:?} in it");
                Error::new(ErrorKind::Usage, "read", file.display(), detail).with_hint(self.names())
            });
        }
        let found: Vec<&Item> = dumps().collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => {
                let detail = "it holds no dump of PostgreSQL";
                Err(Error::new(ErrorKind::Corrupt, "read", file.display(), detail)
                    .with_hint(format!("check that this is the right file; {}", self.names())))
            }
            several => {
                let detail = format!("it holds {} dumps of PostgreSQL", several.len());
                Err(Error::new(ErrorKind::Usage, "read", file.display(), detail)
                    .with_hint(format!("choose one with --member; {}", self.names())))
            }
        }
    }

    /// Whether the table of contents `item` is that of a tar archive that `pg_dump` itself wrote: only there is a script beside it. Since version 17 such an
    /// archive is no packed folder any more.
    #[must_use]
    pub fn is_tar_of_dump(&self, item: &Item) -> bool {
        item.path == CONTENTS && self.items.iter().any(|other| other.path == TAR_SCRIPT)
    }

    fn names(&self) -> String {
        const SHOWN: usize = 20;
        let names: Vec<String> = self
            .items
            .iter()
            .take(SHOWN)
            .map(|item| format!("{} ({})", item.path, item.kind.word()))
            .collect();
        let more = self.items.len().saturating_sub(SHOWN);
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("it holds: {}{rest}", names.join(", "))
    }
}

/// Whether a file is something that is read here. Reads its beginning only; false also for what is encrypted with an unknown passphrase
/// and holds something else.
pub fn is_artefact(path: &Path) -> Result<bool> {
    let beginning = beginning(path)?;
    Ok(Kind::of(&beginning, beginning.len() < kind::LOOK_BYTES).is_known())
}

/// Reads a file to its end, so that every checksum in it is compared; databases and SQL text are written into `folder` where one is
/// given, which must exist and be empty.
///
/// # Errors
/// `WrongKey` where no passphrase gives anything known, `Corrupt` where it is damaged or cut off, `Refused` where it unpacks to more than
/// the limit.
pub fn unpack(path: &Path, options: &Options, folder: Option<&Path>) -> Result<Contents> {
    unpack::unpack(path, options, folder.map_or(Taking::Nothing, Taking::Databases))
}

/// Writes the dump `item` of a file, which holds `contents`, into `folder`, which must exist and be empty: as one file, or that of a folder of `pg_dump` as
/// its members. Returns what is to be given to the programs.
///
/// # Errors
/// As [`unpack()`].
pub fn unpack_dump(path: &Path, options: &Options, contents: &Contents, item: &Item, folder: &Path) -> Result<PathBuf> {
    if contents.is_tar_of_dump(item) {
        let contents = unpack::unpack(path, options, Taking::Tar(folder))?;
        return contents
            .items
            .into_iter()
            .find_map(|item| item.file)
            .ok_or_else(|| not_there(path));
    }
    if Path::new(&item.path).file_name().is_some_and(|name| name == CONTENTS) {
        unpack::unpack(path, options, Taking::Members(folder, unpack::folder_of(&item.path)))?;
        return Ok(folder.to_path_buf());
    }
    let contents = unpack::unpack(path, options, Taking::Dump(folder, &item.path))?;
    contents
        .items
        .into_iter()
        .find_map(|item| item.file)
        .ok_or_else(|| not_there(path))
}

fn not_there(path: &Path) -> Error {
    Error::new(ErrorKind::Bug, "read", path.display(), "its dump was not unpacked")
}

/// The beginning of a file, enough for what a dump says of itself.
pub fn beginning(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut beginning = Vec::new();
    let read = |file: File| file.take(kind::LOOK_BYTES as u64).read_to_end(&mut beginning);
    File::open(path)
        .and_then(read)
        .map_err(|error| Error::io("read", path.display(), error))?;
    Ok(beginning)
}
