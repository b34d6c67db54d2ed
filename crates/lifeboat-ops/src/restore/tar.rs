//! Restored files as a plain tar archive: the same tree gives the same bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lifeboat_engine::files::{Beneath, Entry, Kind, TreeReader};
use lifeboat_model::{Error, ErrorKind, Result};
use tar::{Builder, EntryType, Header};

/// Writes the checked tree at `folder`, whose lines are in `list`, to `out`. Holes become zeros; attributes become PAX records; sockets
/// have no place in an archive.
pub(super) fn write(list: &Path, folder: &Path, out: File) -> Result<()> {
    let lines = File::open(list).map_err(|error| Error::io("open", list.display(), error))?;
    let mut tree = TreeReader::open(BufReader::new(lines))?;
    let beneath = Beneath::open(folder)?;
    let mut archive = Builder::new(BufWriter::with_capacity(1 << 18, out));
    while let Some(entry) = tree.next_entry()? {
        add(&mut archive, &beneath, &entry)?;
    }
    let failed = |error| Error::io("write", "the archive", error);
    archive.into_inner().and_then(|mut out| out.flush()).map_err(failed)
}

fn add(archive: &mut Builder<BufWriter<File>>, beneath: &Beneath, entry: &Entry) -> Result<()> {
    let failed = |error| Error::io("write to the archive", entry.shown(), error);
    let mut header = Header::new_gnu();
    header.set_mode(entry.meta.mode);
    header.set_uid(entry.meta.uid.into());
    header.set_gid(entry.meta.gid.into());
    header.set_mtime(u64::try_from(entry.meta.mtime.0).unwrap_or(0));
    header.set_size(0);
    let path = Path::new(OsStr::from_bytes(&entry.path));
    let time = mtime(entry.meta.mtime);
    let mut names: Vec<(String, &[u8])> = entry
        .xattrs
        .iter()
        .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice()))
        .collect();
    names.extend(time.iter().map(|time| ("mtime".to_owned(), time.as_bytes())));
    if !names.is_empty() {
        archive
            .append_pax_extensions(names.iter().map(|(name, value)| (name.as_str(), *value)))
            .map_err(failed)?;
    }
    let device = |header: &mut Header, (major, minor): (u32, u32)| {
        header.set_device_major(major)?;
        header.set_device_minor(minor)
    };
    match &entry.kind {
        Kind::Socket => return Ok(()),
        Kind::File(content) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.size);
            let file = beneath.file(&entry.path)?.take(content.size);
            return archive.append_data(&mut header, path, file).map_err(failed);
        }
        Kind::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            return archive
                .append_link(&mut header, path, Path::new(OsStr::from_bytes(target)))
                .map_err(failed);
        }
        Kind::Hardlink { to } => {
            header.set_entry_type(EntryType::Link);
            return archive
                .append_link(&mut header, path, Path::new(OsStr::from_bytes(to)))
                .map_err(failed);
        }
        Kind::Folder => header.set_entry_type(EntryType::Directory),
        Kind::Fifo => header.set_entry_type(EntryType::Fifo),
        Kind::Char { device: numbers } => {
            header.set_entry_type(EntryType::Char);
            device(&mut header, *numbers).map_err(failed)?;
        }
        Kind::Block { device: numbers } => {
            header.set_entry_type(EntryType::Block);
            device(&mut header, *numbers).map_err(failed)?;
        }
    }
    archive.append_data(&mut header, path, std::io::empty()).map_err(failed)
}

/// A time that the header has no place for: fractions of a second, and what was before 1970.
fn mtime((seconds, nanoseconds): (i64, u32)) -> Option<String> {
    if seconds >= 0 {
        return (nanoseconds > 0).then(|| format!("{seconds}.{nanoseconds:09}"));
    }
    // Seconds go down, nanoseconds up: -1 s and 0.25 s are -0.75.
    let whole = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    Some(format!("-{}.{:09}", whole.abs() / 1_000_000_000, whole.abs() % 1_000_000_000))
}

/// What an archive cannot be made of.
pub(super) fn refuse(backup: &str) -> Error {
    Error::new(
        ErrorKind::Usage,
        "export as an archive",
        backup,
        "it is the backup of a database, not of files",
    )
    .with_hint("export it to a file that ends in .db or .sql")
}

#[cfg(test)]
mod tests {
    use super::mtime;

    #[test]
    fn times_are_kept_to_the_nanosecond() {
        assert_eq!(mtime((5, 0)), None);
        assert_eq!(mtime((5, 7)).as_deref(), Some("5.000000007"));
        assert_eq!(mtime((-1, 250_000_000)).as_deref(), Some("-0.750000000"));
        assert_eq!(mtime((-2, 0)).as_deref(), Some("-2.000000000"));
    }
}
