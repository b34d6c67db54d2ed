//! Putting restored files in the place of others, and taking that back: every name journalled in an undo folder inside the root.
//!
//! `<root>/.lifeboat-undo-<id>/` holds `record.json`, the list of names that are replaced (`plan`), the folders whose mode or owner changes
//! (`folders`), the restored tree (`new/`) and what was replaced (`old/`). Files that are not part of the backup stay where they are, and
//! what is the same already is not touched. Of a file that was kept as structure the values are only in the file that is there: it stays.
//! Order of [`replace`]: record → the restored tree moves in → lists → name by name: the old one away, the new one in its place → modes and
//! owners of folders → phase `published`. If we die on the way, [`settle_interrupted`] takes it back name by name; doing that twice
//! changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lifeboat_engine::files::{Beneath, Content, Entry, Kind, Meta, TreeReader, is_skeleton, keys_of};
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::quarantine::Intent;
use crate::words::counted;

const PREFIX: &str = ".lifeboat-undo-";
const RECORD: &str = "record.json";
const PLAN: &str = "plan";
const FOLDERS: &str = "folders";

/// What came of putting files in their place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// The undo folder.
    pub folder: PathBuf,
    /// Names that were replaced or added, and folders whose mode or owner was set.
    pub count: u64,
    /// Files that were kept as structure and are there with their values: they stayed. With each, the keys that it lacks.
    pub kept: Vec<(String, Vec<String>)>,
    /// Folders whose owner could not be set.
    pub owners: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Placing,
    Published,
    Undoing,
    Undone,
}

/// The journal of one replacement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The restore's id.
    pub id: String,
    /// Of which component.
    pub component: String,
    /// From which backup.
    pub backup: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
    phase: Phase,
}

impl Record {
    /// Whether the old files can be brought back.
    #[must_use]
    pub fn can_undo(&self) -> bool {
        matches!(self.phase, Phase::Published | Phase::Undoing)
    }

    /// Whether a run died in the middle of it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self.phase, Phase::Placing | Phase::Undoing)
    }
}

fn write(folder: &Path, record: &Record) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "an undo record", error.to_string()))?;
    durable::replace_file(&folder.join(RECORD), &bytes, durable::FILE_MODE)
}

fn look(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io("look at", path.display(), error)),
    }
}

/// A locked folder, unlocked by hand: a child that is being started has a copy of the descriptor.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file unlocks it as well, only later.
        drop(self.0.unlock());
    }
}

fn lock(root: &Path) -> Result<Option<Lock>> {
    let folder = File::open(root).map_err(|error| Error::io("open", root.display(), error))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(Lock(folder))),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Locked,
            "replace files in",
            root.display(),
            "another restore is putting files in their place there",
        )
        .with_hint("wait for it, then run the same command again")),
        // A file system without locks on folders: there, nothing but care keeps two restores apart.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Puts the tree at `staged`, whose lines are in `list`, in the place of what is in `root`. `skeletons` are files of it that have no values
/// yet, besides those whose lines say so: where a file of that name is, it stays.
///
/// # Errors
/// After any error everything is back where it was; where even that fails, the hint says where it is.
pub fn replace(intent: &Intent, root: &Path, staged: &Path, list: &Path, skeletons: &BTreeSet<Vec<u8>>) -> Result<Placed> {
    let _lock = lock(root)?;
    let folder = root.join(format!("{PREFIX}{}", intent.id));
    durable::create_folder(&folder)?;
    let mut record = Record {
        version: 1,
        id: intent.id.clone(),
        component: intent.component.clone(),
        backup: intent.backup.clone(),
        at_us: intent.at_us,
        phase: Phase::Placing,
    };
    let placed = write(&folder, &record)
        .and_then(|()| durable::rename(staged, &folder.join("new")))
        .and_then(|()| make_plan(root, &folder, list, skeletons))
        .and_then(|mut placed| {
            swap_all(root, &folder)?;
            placed.owners = dress_folders(root, &folder, true)?;
            Ok(placed)
        });
    let placed = match placed {
        Ok(placed) => placed,
        Err(error) => {
            let back = take_back(root, &folder).and_then(|()| durable::remove_folder(&folder));
            return Err(match back {
                Ok(()) => error,
                Err(_) => error.with_hint(format!(
                    "the old files are in {}; run the same command again: it brings them back first",
                    folder.display()
                )),
            });
        }
    };
    record.phase = Phase::Published;
    write(&folder, &record)?;
    // What is left of it is the same as what is there. One that cannot be removed is in nobody's way.
    drop(durable::remove_folder(&folder.join("new")));
    Ok(placed)
}

impl Placed {
    /// What the operator should know, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "{} replaced or added; what was the same was left as it was, and so was what the backup does not hold",
            counted(self.count, "name")
        )];
        for (path, lacking) in &self.kept {
            let lacks = if lacking.is_empty() {
                "it has all keys that were captured".to_owned()
            } else {
                format!("of the keys that were captured it lacks {}", lacking.join(", "))
            };
            notes.push(format!(
                "{path} is there with its values, which no backup holds, and was left as it was; {lacks}"
            ));
        }
        if self.owners > 0 {
            notes.push(format!("the owner of {} could not be set", counted(self.owners, "folder")));
        }
        notes
    }
}

/// Names of one file: all of them are as they should be, or all are replaced.
fn torn_links(root: &Path, list: &Path) -> Result<BTreeSet<Vec<u8>>> {
    let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    let mut tree = open(list)?;
    while let Some(entry) = tree.next_entry()? {
        if let Kind::Hardlink { to } = entry.kind {
            groups.entry(to).or_default().push(entry.path);
        }
    }
    let mut torn = BTreeSet::new();
    if groups.is_empty() {
        return Ok(torn);
    }
    let mut tree = open(list)?;
    while let Some(entry) = tree.next_entry()? {
        let Some(others) = groups.get(&entry.path) else { continue };
        let path = root.join(OsStr::from_bytes(&entry.path));
        let inode = |path: &Path| look(path).map(|meta| meta.map(|meta| (meta.dev(), meta.ino())));
        let first = inode(&path)?;
        let mut same = is_same(&path, &entry)?;
        for other in others {
            same = same && inode(&root.join(OsStr::from_bytes(other)))? == first;
        }
        if !same {
            torn.extend(others.iter().cloned());
            torn.insert(entry.path);
        }
    }
    Ok(torn)
}

fn open(list: &Path) -> Result<TreeReader<BufReader<File>>> {
    let lines = File::open(list).map_err(|error| Error::io("open", list.display(), error))?;
    TreeReader::open(BufReader::new(lines))
}

/// Writes down which names are replaced, the topmost that differ, and which folders get another mode or owner.
fn make_plan(root: &Path, folder: &Path, list: &Path, skeletons: &BTreeSet<Vec<u8>>) -> Result<Placed> {
    let torn = torn_links(root, list)?;
    let mut tree = open(list)?;
    let (mut plan, mut dressed) = (Vec::new(), Vec::new());
    let mut placed = Placed {
        folder: folder.to_path_buf(),
        ..Placed::default()
    };
    let whole = Entry {
        path: Vec::new(),
        kind: Kind::Folder,
        meta: tree.root().meta,
        xattrs: Vec::new(),
    };
    note_folder(root, &folder.join("new"), &whole, &mut dressed, &mut placed)?;
    let mut done: Option<Vec<u8>> = None;
    while let Some(entry) = tree.next_entry()? {
        let inside = done.as_ref().is_some_and(|done| {
            entry
                .path
                .strip_prefix(done.as_slice())
                .is_some_and(|rest| rest.first() == Some(&b'/'))
        });
        let name = OsStr::from_bytes(&entry.path);
        let (there, new) = (root.join(name), folder.join("new").join(name));
        if inside || look(&new)?.is_none() {
            continue;
        }
        if let Some(lacking) = stays(&there, &new, &entry, skeletons)? {
            placed.kept.push((entry.shown(), lacking));
            continue;
        }
        let linked = matches!(entry.kind, Kind::Hardlink { .. });
        if !torn.contains(&entry.path) && (linked || is_same(&there, &entry)?) {
            note_folder(&there, &new, &entry, &mut dressed, &mut placed)?;
            continue;
        }
        // Names may hold line feeds.
        plan.extend_from_slice(hex::encode(&entry.path).as_bytes());
        plan.push(b'\n');
        placed.count += 1;
        done = Some(entry.path);
    }
    durable::replace_file(&folder.join(FOLDERS), &dressed, durable::FILE_MODE)?;
    durable::replace_file(&folder.join(PLAN), &plan, durable::FILE_MODE)?;
    Ok(placed)
}

/// A file without values never takes the place of one that has them: the keys that the one that is there lacks, where it stays.
fn stays(there: &Path, new: &Path, entry: &Entry, skeletons: &BTreeSet<Vec<u8>>) -> Result<Option<Vec<String>>> {
    let Kind::File(content) = &entry.kind else { return Ok(None) };
    if content.env.is_none() && !skeletons.contains(&entry.path) {
        return Ok(None);
    }
    if !look(there)?.is_some_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let read = |path: &Path| std::fs::read(path).map_err(|error| Error::io("read", path.display(), error));
    let values = read(there)?;
    if is_skeleton(&values) {
        return Ok(None);
    }
    let has = keys_of(&values);
    let lacking = keys_of(&read(new)?).into_iter().filter(|key| !has.contains(key)).collect();
    Ok(Some(lacking))
}

/// A folder that stays gets the mode and owner that it had.
fn note_folder(there: &Path, new: &Path, entry: &Entry, lines: &mut Vec<u8>, placed: &mut Placed) -> Result<()> {
    if !matches!(entry.kind, Kind::Folder) {
        return Ok(());
    }
    let (Some(old), Some(_)) = (look(there)?, look(new)?) else {
        return Ok(());
    };
    let (is, wanted) = ((old.mode() & 0o7777, old.uid(), old.gid()), &entry.meta);
    let line = Worn {
        path: hex::encode(&entry.path),
        old: is,
        new: (wanted.mode, wanted.uid, wanted.gid),
    };
    // Whoever is not the superuser can give nothing away.
    let own = rustix::process::geteuid();
    if !old.is_dir() || line.old == line.new || !(own.is_root() || (is.1, wanted.uid) == (own.as_raw(), own.as_raw())) {
        return Ok(());
    }
    serde_json::to_writer(&mut *lines, &line)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", entry.shown(), error.to_string()))?;
    lines.push(b'\n');
    placed.count += 1;
    Ok(())
}

/// Mode, owner and group of a folder that stays: before and after.
#[derive(Serialize, Deserialize)]
struct Worn {
    path: String,
    old: (u32, u32, u32),
    new: (u32, u32, u32),
}

/// Gives the folders that stay their new mode and owner, or their old ones. Returns how many owners could not be set.
fn dress_folders(root: &Path, folder: &Path, new: bool) -> Result<u64> {
    let path = folder.join(FOLDERS);
    let lines = match std::fs::read_to_string(&path) {
        Ok(lines) => lines,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::io("read", path.display(), error)),
    };
    let damaged = || Error::new(ErrorKind::Corrupt, "read", path.display(), "it is not a list of folders");
    let beneath = Beneath::open(&real(root)?)?;
    let mut owners = 0;
    for line in lines.lines() {
        let worn: Worn = serde_json::from_str(line).map_err(|error| damaged().with_source(error))?;
        let below = hex::decode(&worn.path).map_err(|error| damaged().with_source(error))?;
        let (mode, uid, gid) = if new { worn.new } else { worn.old };
        let opened = match beneath.open_folder(&below) {
            Ok(opened) => opened,
            // Something else took its place since: it is not ours.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Refused) => continue,
            Err(error) => return Err(error),
        };
        let meta = Meta {
            mode,
            uid,
            gid,
            ..Meta::default()
        };
        owners += u64::from(!lifeboat_engine::files::dress_folder(&opened, &below, &meta)?);
    }
    Ok(owners)
}

/// The folder behind a root that may be a link.
fn real(root: &Path) -> Result<PathBuf> {
    root.canonicalize()
        .map_err(|error| Error::io("resolve", root.display(), error))
}

/// Whether what is there need not be replaced. A folder that is there is kept, with what else is in it.
fn is_same(path: &Path, entry: &Entry) -> Result<bool> {
    let Some(meta) = look(path)? else { return Ok(false) };
    let wanted = &entry.meta;
    match &entry.kind {
        Kind::Folder => Ok(meta.is_dir()),
        Kind::File(content) if meta.is_file() => {
            let same = (
                meta.len(),
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
            ) == (
                content.size,
                wanted.mode,
                wanted.uid,
                wanted.gid,
                wanted.mtime.0,
                i64::from(wanted.mtime.1),
            );
            Ok(same && entry.xattrs.is_empty() && has_content(path, content)?)
        }
        Kind::Symlink { target } if meta.is_symlink() => {
            let there = std::fs::read_link(path).map_err(|error| Error::io("read the link", path.display(), error))?;
            Ok(there.as_os_str().as_bytes() == target)
        }
        _ => Ok(false),
    }
}

fn has_content(path: &Path, content: &Content) -> Result<bool> {
    let failed = |error| Error::io("read", path.display(), error);
    let file = File::options()
        .read(true)
        .custom_flags(
            (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW)
                .bits()
                .cast_signed(),
        )
        .open(path)
        .map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    for (offset, length) in content.ranges() {
        let mut done = 0;
        while done < length {
            let wanted = usize::try_from(length - done).unwrap_or(buffer.len()).min(buffer.len());
            match file.read_at(&mut buffer[..wanted], offset + done).map_err(failed)? {
                0 => return Ok(false),
                count => {
                    hasher.update(&buffer[..count]);
                    done += count as u64;
                }
            }
        }
    }
    Ok(hasher.finalize().as_bytes() == &content.hash)
}

/// The names of a plan; none when it was not written yet, for then nothing was moved.
fn plan(folder: &Path) -> Result<Vec<PathBuf>> {
    let path = folder.join(PLAN);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("open", path.display(), error)),
    };
    BufReader::new(file)
        .lines()
        .map(|line| {
            let line = line.map_err(|error| Error::io("read", path.display(), error))?;
            let name = hex::decode(&line).map_err(|error| {
                Error::new(ErrorKind::Corrupt, "read", path.display(), "it is not a list of names").with_source(error)
            })?;
            Ok(PathBuf::from(std::ffi::OsString::from_vec(name)))
        })
        .collect()
}

/// Moves `from/name` to `to/name`; the folders on the way are made.
fn move_name(from: &Path, to: &Path, name: &Path) -> Result<()> {
    let parent = name.parent().unwrap_or_else(|| Path::new(""));
    durable::create_folder(&to.join(parent))?;
    durable::rename_new(&from.join(name), &to.join(name))
}

fn swap_all(root: &Path, folder: &Path) -> Result<()> {
    for name in plan(folder)? {
        if look(&root.join(&name))?.is_some() {
            move_name(root, &folder.join("old"), &name)?;
        }
        // Its folder is there: either it was, or it came as a whole.
        durable::rename_new(&folder.join("new").join(&name), &root.join(&name))?;
    }
    Ok(())
}

/// Brings back whatever was replaced. What is in its place moves into `new/`.
fn take_back(root: &Path, folder: &Path) -> Result<()> {
    dress_folders(root, folder, false)?;
    for name in plan(folder)?.into_iter().rev() {
        let (there, new, old) = (
            root.join(&name),
            folder.join("new").join(&name),
            folder.join("old").join(&name),
        );
        if look(&new)?.is_none() && look(&there)?.is_some() {
            move_name(root, &folder.join("new"), &name)?;
        }
        if look(&old)?.is_some() {
            durable::rename_new(&old, &there)?;
        }
    }
    Ok(())
}

/// Undo folders in a root, oldest first. Changes nothing.
pub fn records(root: &Path) -> Result<Vec<(PathBuf, Record)>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(Error::io("list", root.display(), error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", root.display(), error))?;
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let file = entry.path().join(RECORD);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            // Died before anything was moved.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read", file.display(), error)),
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "read", file.display(), "it is not an undo record")
                .with_hint(format!(
                    "{} may hold old files: look into it, then move it elsewhere",
                    entry.path().display()
                ))
                .with_source(error)
        })?;
        if record.version != 1 {
            return Err(Error::new(
                ErrorKind::Incompatible,
                "read",
                file.display(),
                "another version of Lifeboat wrote it",
            ));
        }
        found.push((entry.path(), record));
    }
    found.sort_by(|a, b| (a.1.at_us, &a.1.id).cmp(&(b.1.at_us, &b.1.id)));
    Ok(found)
}

/// Takes back what a killed run left in the middle. Safe to repeat, and safe to be killed in.
pub fn settle_interrupted(root: &Path) -> Result<()> {
    if look(root)?.is_none() {
        return Ok(());
    }
    let _lock = lock(root)?;
    for (folder, mut record) in records(root)? {
        match record.phase {
            Phase::Published | Phase::Undone => {}
            Phase::Placing => {
                take_back(root, &folder)?;
                durable::remove_folder(&folder)?;
            }
            Phase::Undoing => {
                take_back(root, &folder)?;
                record.phase = Phase::Undone;
                write(&folder, &record)?;
            }
        }
    }
    Ok(())
}

/// Brings the old files of restore `id` back; the restored ones stay in the undo folder, under `new`.
///
/// # Errors
/// `NoSuchPoint` when nothing of that id is there, `Refused` when it was undone, or when a later restore has to be undone first.
pub fn undo(root: &Path, id: &str) -> Result<PathBuf> {
    let _lock = lock(root)?;
    let found = records(root)?;
    let (folder, mut record) = found.iter().find(|(_, record)| record.id == id).cloned().ok_or_else(|| {
        Error::new(
            ErrorKind::NoSuchPoint,
            "undo restore",
            id,
            format!("there is no undo folder of that id in {}", root.display()),
        )
    })?;
    if record.phase == Phase::Undone {
        return Err(Error::new(ErrorKind::Refused, "undo restore", id, "it was undone already"));
    }
    let later = found
        .iter()
        .map(|(_, record)| record)
        .find(|other| (other.at_us, &other.id) > (record.at_us, &record.id) && other.can_undo());
    if let Some(later) = later {
        return Err(Error::new(
            ErrorKind::Refused,
            "undo restore",
            id,
            "another restore has put files there since",
        )
        .with_hint(format!("undo that one first: `lifeboat restore undo {}`", later.id)));
    }
    record.phase = Phase::Undoing;
    write(&folder, &record)?;
    take_back(root, &folder)?;
    record.phase = Phase::Undone;
    write(&folder, &record)?;
    Ok(folder)
}
