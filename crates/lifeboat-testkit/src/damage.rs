//! Damage for the files of a store folder, as disks, people and attackers do it.
//!
//! Works on the folder from outside, never through a store. For tests and the demonstration only.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::Key;

/// What to do to a stored file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Turns one bit over: bit `bit` (0 to 7) of byte `byte`, counted from the start.
    FlipBit {
        /// Which byte.
        byte: u64,
        /// Which bit of it.
        bit: u8,
    },
    /// Cuts the file to this many bytes; it has to be longer.
    Truncate {
        /// The new length in bytes.
        to: u64,
    },
    /// Adds bytes at the end.
    Append(Vec<u8>),
    /// Overwrites a stretch with zeros, as a lost sector does; it has to lie inside the file.
    Zero {
        /// First byte.
        from: u64,
        /// How many bytes.
        length: usize,
    },
    /// Removes the file.
    Delete,
    /// Exchanges the content with that of another stored file.
    SwapWith(Key),
    /// Puts other bytes in its place, such as an older version of it.
    ReplaceBy(Vec<u8>),
}

/// Damages the file `key` of the store in the folder `root`. Damage that would change nothing is an error of kind `Usage`: a test that
/// damages nothing proves nothing.
pub fn corrupt(root: &Path, key: &Key, how: &Damage) -> Result<()> {
    let path = root.join(key.as_str());
    let size = path
        .symlink_metadata()
        .map_err(|error| Error::io("damage", path.display(), error))?
        .len();
    match how {
        Damage::FlipBit { byte, bit } => {
            let file = inside(&path, *byte, 1, size)?;
            let mut found = [0];
            file.read_exact_at(&mut found, *byte)
                .and_then(|()| file.write_all_at(&[found[0] ^ 1_u8.rotate_left(u32::from(*bit))], *byte))
                .map_err(|error| Error::io("damage", path.display(), error))
        }
        Damage::Truncate { to } if *to >= size => Err(pointless(&path)),
        Damage::Truncate { to } => writable(&path)?
            .set_len(*to)
            .map_err(|error| Error::io("damage", path.display(), error)),
        Damage::Append(bytes) if bytes.is_empty() => Err(pointless(&path)),
        Damage::Append(bytes) => writable(&path)?
            .write_all_at(bytes, size)
            .map_err(|error| Error::io("damage", path.display(), error)),
        Damage::Zero { from, length } => {
            let file = inside(&path, *from, *length as u64, size)?;
            let mut found = vec![0; *length];
            file.read_exact_at(&mut found, *from)
                .map_err(|error| Error::io("damage", path.display(), error))?;
            if found.iter().all(|byte| *byte == 0) {
                return Err(pointless(&path));
            }
            file.write_all_at(&vec![0; *length], *from)
                .map_err(|error| Error::io("damage", path.display(), error))
        }
        Damage::Delete => durable::remove_file(&path),
        Damage::SwapWith(other) => swap(&path, &root.join(other.as_str())),
        Damage::ReplaceBy(bytes) => {
            if *bytes == read(&path)? {
                return Err(pointless(&path));
            }
            durable::replace_file(&path, bytes, durable::FILE_MODE)
        }
    }
}

/// The names of all files in the store folder `root`, ascending; for sweeps that damage each of them.
pub fn files(root: &Path) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    let mut folders = vec![(root.to_path_buf(), None::<Key>)];
    while let Some((folder, above)) = folders.pop() {
        let failed = |error| Error::io("list", folder.display(), error);
        for found in folder.read_dir().map_err(failed)? {
            let found = found.map_err(failed)?;
            let name = found.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let key = match &above {
                Some(above) => above.join(&name)?,
                None => Key::new(name)?,
            };
            if found.file_type().map_err(failed)?.is_dir() {
                folders.push((found.path(), Some(key)));
            } else {
                keys.push(key);
            }
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// The bytes of the file `key` in the store folder `root`; kept, they are the older version for [`Damage::ReplaceBy`].
pub fn bytes_of(root: &Path, key: &Key) -> Result<Vec<u8>> {
    read(&root.join(key.as_str()))
}

fn swap(one: &Path, other: &Path) -> Result<()> {
    if read(one)? == read(other)? {
        return Err(pointless(one));
    }
    let aside: PathBuf = durable::temporary_beside(one)?;
    durable::rename(one, &aside)?;
    durable::rename(other, one)?;
    durable::rename(&aside, other)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io("read", path.display(), error))
}

fn inside(path: &Path, from: u64, length: u64, size: u64) -> Result<File> {
    if length == 0 || from.checked_add(length).is_none_or(|end| end > size) {
        return Err(pointless(path));
    }
    writable(path)
}

fn writable(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| Error::io("damage", path.display(), error))
}

fn pointless(path: &Path) -> Error {
    Error::new(
        ErrorKind::Usage,
        "damage",
        path.display(),
        "this damage would leave the file as it is",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_does_what_it_says_and_refuses_to_do_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (a, b) = (Key::new("c/a").unwrap(), Key::new("c/d/b").unwrap());
        let fresh = || {
            durable::create_folder(&root.join("c/d")).unwrap();
            durable::replace_file(&root.join("c/a"), b"abcd", 0o600).unwrap();
            durable::replace_file(&root.join("c/d/b"), b"other", 0o600).unwrap();
        };
        let after = |how: &Damage| {
            fresh();
            corrupt(root, &a, how).map(|()| bytes_of(root, &a))
        };
        let flip = |byte| Damage::FlipBit { byte, bit: 1 };
        assert_eq!(after(&flip(3)).unwrap().unwrap(), b"abcf");
        assert_eq!(after(&Damage::Truncate { to: 1 }).unwrap().unwrap(), b"a");
        assert_eq!(after(&Damage::Append(b"e".to_vec())).unwrap().unwrap(), b"abcde");
        assert_eq!(after(&Damage::Zero { from: 1, length: 2 }).unwrap().unwrap(), b"a\0\0d");
        assert_eq!(after(&Damage::ReplaceBy(b"old".to_vec())).unwrap().unwrap(), b"old");
        assert_eq!(after(&Damage::SwapWith(b.clone())).unwrap().unwrap(), b"other");
        assert_eq!(bytes_of(root, &b).unwrap(), b"abcd");
        assert_eq!(after(&Damage::Delete).unwrap().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(files(root).unwrap(), [b]);
        let nothing = [
            flip(4),
            Damage::Truncate { to: 4 },
            Damage::Append(Vec::new()),
            Damage::Zero { from: 3, length: 2 },
            Damage::ReplaceBy(b"abcd".to_vec()),
            Damage::SwapWith(a.clone()),
        ];
        for how in nothing {
            assert_eq!(after(&how).unwrap_err().kind(), ErrorKind::Usage, "{how:?}");
        }
    }
}
