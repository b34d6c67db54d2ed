//! Takes layer after layer off and sorts what is inside.
//!
//! If we die, what lies in the folder is the caller's to remove, as after an error.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};

use super::kind::{Kind, LOOK_BYTES};
use super::layer::{Budget, Charged, EndMark, Gunzip, Notes, OverBudget};
use super::openssl::{Decrypting, HEADER_BYTES, OpensslKdf, beginning};
use super::{Contents, Item, Options};
use crate::postgres::dump::CONTENTS;

const OP: &str = "read";

/// Layers inside layers that are taken off.
const DEPTH: usize = 6;

/// Members of an archive that are listed; one with more is no backup of a database.
const ITEM_LIMIT: usize = 100_000;

/// Compressed to this fraction by nothing but a bomb: deflate reaches 1,032.
const RATIO_LIMIT: u64 = 1100;

/// Where small files may reach the ratio.
const SMALL_BYTES: u64 = 64 << 20;

/// What is written into a folder.
#[derive(Clone, Copy)]
pub(super) enum Taking<'a> {
    /// Nothing: it is only read.
    Nothing,
    /// Databases and SQL text.
    Databases(&'a Path),
    /// The dump of PostgreSQL that is called so.
    Dump(&'a Path, &'a str),
    /// The first tar archive, as it is.
    Tar(&'a Path),
    /// What lies in this folder of an archive, as it is.
    Members(&'a Path, &'a str),
}

pub(super) fn unpack(path: &Path, options: &Options, taking: Taking<'_>) -> Result<Contents> {
    let failed = |error| Error::io(OP, path.display(), error);
    let file = File::open(path).map_err(|error| {
        failed(error)
            .with_kind(ErrorKind::Unreachable)
            .with_hint("check the path and who may read it")
    })?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_dir() && path.join(CONTENTS).is_file() {
        return folder_of_dump(path);
    }
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::Usage, OP, path.display(), "it is not a file"));
    }
    let limit = options
        .limit_bytes
        .unwrap_or_else(|| meta.len().saturating_mul(RATIO_LIMIT).saturating_add(SMALL_BYTES));
    let mut walk = Walk {
        path,
        options,
        taking,
        budget: Budget::new(limit),
        limit,
        notes: Notes::default(),
        contents: Contents::default(),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    walk.layer(&mut BufReader::new(file), &name, None, 0)?;
    walk.contents.notes.extend(walk.notes.take());
    Ok(walk.contents)
}

/// The name of a member that lies right in the folder `below`, where it is one that `pg_dump` gives: nothing else becomes a path here.
fn member_of<'a>(path: &'a str, below: &str) -> Option<&'a str> {
    let path = path.trim_start_matches("./");
    let name = match below {
        "" => path,
        below => path.strip_prefix(below)?.strip_prefix('/')?,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    (name.bytes().all(plain) && !name.starts_with('.')).then_some(name)
}

/// The folder that a member lies in; nothing where it lies in none.
pub(super) fn folder_of(path: &str) -> &str {
    path.trim_start_matches("./")
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder)
}

/// A folder that `pg_dump` wrote.
fn folder_of_dump(path: &Path) -> Result<Contents> {
    let failed = |error| Error::io("list", path.display(), error);
    let mut size_bytes = 0;
    for entry in std::fs::read_dir(path).map_err(failed)? {
        size_bytes += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
    }
    let item = Item {
        path: CONTENTS.to_owned(),
        kind: Kind::Postgres,
        size_bytes,
        modified_s: None,
        file: None,
    };
    Ok(Contents {
        items: vec![item],
        ..Contents::default()
    })
}

struct Walk<'a> {
    path: &'a Path,
    options: &'a Options,
    taking: Taking<'a>,
    budget: Budget,
    limit: u64,
    notes: Notes,
    contents: Contents,
}

impl Walk<'_> {
    /// Looks at what `inner` begins with and goes on with that.
    fn layer(&mut self, inner: &mut dyn Read, name: &str, modified_s: Option<i64>, depth: usize) -> Result<()> {
        let mut look = Vec::with_capacity(LOOK_BYTES);
        (&mut *inner)
            .take(LOOK_BYTES as u64)
            .read_to_end(&mut look)
            .map_err(|error| self.damaged(name, error))?;
        let kind = Kind::of(&look, look.len() < LOOK_BYTES);
        let layer = matches!(
            kind,
            Kind::Openssl | Kind::OpensslBase64 | Kind::Gzip | Kind::Zstd | Kind::Tar
        );
        if layer && depth >= DEPTH {
            let detail = format!("{name} holds more than {DEPTH} layers inside each other");
            return Err(Error::new(ErrorKind::Refused, OP, self.path.display(), detail)
                .with_hint("unpack it by hand, and give the file that holds the database"));
        }
        let (budget, notes) = (self.budget.clone(), self.notes.clone());
        let mut whole = io::Cursor::new(look.clone()).chain(inner);
        match kind {
            Kind::Openssl => self.encrypted(&mut whole, &look, name, modified_s, depth),
            Kind::OpensslBase64 => Err(Error::new(
                ErrorKind::Incompatible,
                OP,
                self.path.display(),
                "it is written as base64 text (`openssl enc -a`)",
            )
            .with_hint("`openssl base64 -d -in FILE -out FILE.bin` gives the file that can be read here")),
            Kind::Gzip => {
                self.took_off(depth, "gzip");
                let mut unzipped = Charged::new(Gunzip::new(whole, &notes), &budget);
                self.layer(&mut unzipped, name, modified_s, depth + 1)?;
                self.drain(&mut unzipped, name)
            }
            Kind::Zstd => {
                self.took_off(depth, "zstd");
                let decoder = zstd::Decoder::new(whole).map_err(|error| self.damaged(name, error))?;
                let mut unpacked = Charged::new(decoder, &budget);
                self.layer(&mut unpacked, name, modified_s, depth + 1)?;
                self.drain(&mut unpacked, name)
            }
            Kind::Tar if matches!(self.taking, Taking::Tar(_)) => self.leaf(&mut whole, kind, name, modified_s),
            Kind::Tar => {
                self.took_off(depth, "tar");
                self.archive(&mut whole, name, depth)
            }
            kind => self.leaf(&mut whole, kind, name, modified_s),
        }
    }

    /// Only what is around everything: what a member of an archive is packed with is its own affair.
    fn took_off(&mut self, depth: usize, what: &str) {
        if self.contents.layers.len() == depth {
            self.contents.layers.push(what.to_owned());
        }
    }

    /// Checksums stand at the end.
    fn drain(&self, inner: &mut dyn Read, name: &str) -> Result<()> {
        io::copy(inner, &mut io::sink())
            .map(drop)
            .map_err(|error| self.damaged(name, error))
    }

    fn encrypted(&mut self, whole: &mut dyn Read, look: &[u8], name: &str, modified_s: Option<i64>, depth: usize) -> Result<()> {
        let salt = look.get(8..HEADER_BYTES).unwrap_or_default();
        let sealed = look.get(HEADER_BYTES..).unwrap_or_default();
        for passphrase in &self.options.passphrases {
            for kdf in passphrase.ways() {
                let key = passphrase.key(kdf, salt);
                let mut clear = beginning(&key, sealed);
                let short = look.len() < LOOK_BYTES;
                if short {
                    clear.truncate(unpadded(&clear));
                }
                if !Kind::of(&clear, short).is_known() {
                    continue;
                }
                self.took_off(depth, &words(kdf, passphrase.iterations));
                io::copy(&mut (&mut *whole).take(HEADER_BYTES as u64), &mut io::sink())
                    .map_err(|error| self.damaged(name, error))?;
                let mut clear = Decrypting::new(whole, &key);
                self.layer(&mut clear, name, modified_s, depth + 1)?;
                return self.drain(&mut clear, name);
            }
        }
        let (detail, hint) = if self.options.passphrases.is_empty() {
            (
                "it is encrypted by `openssl enc`, and there is no passphrase to try".to_owned(),
                "write the passphrase's place into lifeboat.yaml: `keys: { old: { openssl: { passphrase: { env: BACKUP_ENCRYPTION_KEY } } } }`",
            )
        } else {
            let names: Vec<&str> = self
                .options
                .passphrases
                .iter()
                .map(|passphrase| passphrase.name.as_str())
                .collect();
            (
                format!(
                    "it is encrypted by `openssl enc`, and no passphrase at hand gives anything known (tried: {})",
                    names.join(", ")
                ),
                "check the passphrase, and `iterations` where `-iter` was given; the same is said when the first bytes of the file are damaged",
            )
        };
        Err(Error::new(ErrorKind::WrongKey, "decrypt", self.path.display(), detail).with_hint(hint))
    }

    fn archive(&mut self, whole: &mut dyn Read, name: &str, depth: usize) -> Result<()> {
        let (marked, zeros) = EndMark::new(whole);
        let mut archive = tar::Archive::new(marked);
        let entries = archive.entries().map_err(|error| self.damaged(name, error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.damaged(name, error))?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let modified_s = entry.header().mtime().ok().and_then(|time| i64::try_from(time).ok());
            if let Taking::Members(folder, below) = self.taking
                && depth == self.contents.layers.len().saturating_sub(1)
            {
                if let Some(name) = member_of(&path, below)
                    && entry.header().entry_type().is_file()
                {
                    self.write(&mut entry, &folder.join(name), &path)?;
                }
            } else if entry.header().entry_type().is_file() {
                self.layer(&mut entry, &path, modified_s, depth + 1)?;
                self.drain(&mut entry, &path)?;
            }
            if self.contents.items.len() > ITEM_LIMIT {
                let detail = format!("it holds more than {ITEM_LIMIT} files");
                return Err(Error::new(ErrorKind::Refused, OP, self.path.display(), detail));
            }
        }
        let mut rest = archive.into_inner();
        self.drain(&mut rest, name)?;
        if zeros.get() < 512 {
            self.contents.has_no_end = true;
            self.contents.notes.push(
                "the archive has no end mark: what came last may be missing; see what is in it with `lifeboat list --from`"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn leaf(&mut self, whole: &mut dyn Read, kind: Kind, name: &str, modified_s: Option<i64>) -> Result<()> {
        let folder = match self.taking {
            Taking::Databases(folder) if matches!(kind, Kind::Database | Kind::Sql | Kind::Wal | Kind::Journal) => Some(folder),
            Taking::Tar(folder) if kind == Kind::Tar => Some(folder),
            Taking::Dump(folder, wanted) if kind == Kind::Postgres && name == wanted => Some(folder),
            _ => None,
        };
        let mut file = None;
        let size_bytes = match folder {
            Some(folder) => {
                let to = folder.join(format!("item-{}", self.contents.items.len()));
                let size = self.write(whole, &to, name)?;
                file = Some(to);
                size
            }
            None => io::copy(whole, &mut io::sink()).map_err(|error| self.damaged(name, error))?,
        };
        self.contents.items.push(Item {
            path: name.to_owned(),
            kind,
            size_bytes,
            modified_s,
            file,
        });
        Ok(())
    }

    fn write(&self, whole: &mut dyn Read, to: &Path, name: &str) -> Result<u64> {
        let failed = |error| Error::io("write", to.display(), error);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .map_err(failed)?;
        let mut buffer = vec![0; 256 << 10];
        let mut size_bytes = 0;
        // Not `io::copy`: whether reading or writing failed makes a difference.
        loop {
            let count = match whole.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.damaged(name, error)),
            };
            file.write_all(buffer.get(..count).unwrap_or_default()).map_err(failed)?;
            size_bytes += count as u64;
        }
        Ok(size_bytes)
    }

    fn corrupt(&self, name: &str, detail: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, OP, self.path.display(), format!("{name}: {detail}"))
            .with_hint("this file cannot be relied on: take another backup")
    }

    /// What reading a layer failed with.
    fn damaged(&self, name: &str, error: io::Error) -> Error {
        if error.get_ref().is_some_and(|inner| inner.is::<OverBudget>()) || error.to_string().contains(&OverBudget.to_string()) {
            let detail = format!(
                "{name} unpacks to more than {}",
                lifeboat_model::time::human_bytes(self.limit)
            );
            return Error::new(ErrorKind::Refused, OP, self.path.display(), detail)
                .with_hint("if the file is what you think it is, unpack it by hand and give the file that is in it");
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.corrupt(name, format!("it is cut off ({error})")),
            io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull => Error::io(OP, self.path.display(), error),
            _ if error.raw_os_error().is_some() => Error::io(OP, self.path.display(), error).with_kind(ErrorKind::Unreachable),
            _ => self.corrupt(name, format!("it is damaged ({error})")),
        }
    }
}

/// Where the padding of a file that is looked at whole begins; its end where there is none.
fn unpadded(clear: &[u8]) -> usize {
    let padding = usize::from(clear.last().copied().unwrap_or(0));
    match clear.len().checked_sub(padding) {
        Some(length) if (1..=16).contains(&padding) => length,
        _ => clear.len(),
    }
}

fn words(kdf: OpensslKdf, iterations: u32) -> String {
    match kdf {
        OpensslKdf::Pbkdf2 => format!("openssl enc (aes-256-cbc, pbkdf2, {iterations} rounds)"),
        OpensslKdf::Sha256 | OpensslKdf::Md5 => format!("openssl enc (aes-256-cbc, one round of {})", kdf.word()),
    }
}
