//! The walk through the tree: which names belong to it, and what each of them is.
//!
//! In the order of the tree's lines, folder by folder. Memory holds the names of the folders on the way, and one path for each file
//! that has several names.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use lifeboat_model::{Clock, Error, ErrorKind, Result};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::capture::Bytes;
use super::entry::{Content, Entry, Kind, Root, Time, shown};
use super::facts::Facts;
use super::glob::{Excluded, Patterns, Reach};
use super::memory::{Recalled, Recorder, Stamp};
use super::options::Options;
use super::read::{How, take};
use super::segments::Segments;
use super::system::{Stat, link_target, look, look_at, names, open_folder, unreadable, xattrs};

/// What Lifeboat itself leaves in folders for a while; never part of a tree.
const OWN: [&str; 3] = [
    ".lifeboat-restore-",
    ".lifeboat-undo-",
    lifeboat_io::durable::TEMPORARY_PREFIX,
];

/// What a walk begins with.
#[derive(Debug)]
pub(super) struct WalkParts {
    pub(super) options: Options,
    pub(super) keep_bytes: bool,
    pub(super) just_looking: bool,
    pub(super) skip: Vec<(u64, u64)>,
    pub(super) recalled: Recalled,
    /// Segments that can be kept: their size, and how many bytes of them are needed.
    pub(super) usable: BTreeMap<String, (u64, u64)>,
    pub(super) segments: Segments,
    pub(super) clock: Arc<dyn Clock>,
}

/// What a walk found.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) facts: Facts,
    pub(super) usable: BTreeMap<String, (u64, u64)>,
    /// Bytes of new segments that are needed.
    pub(super) fresh: BTreeMap<String, u64>,
    pub(super) segments: Segments,
    pub(super) bytes: Vec<Bytes>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Walk {
    parts: WalkParts,
    root: OwnedFd,
    patterns: Patterns,
    excluded: Excluded,
    /// How often each pattern named something.
    hits: Vec<u64>,
    /// Files with several names, by device and inode: the first of them.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    facts: Facts,
    fresh: BTreeMap<String, u64>,
    bytes: Vec<Bytes>,
    warnings: Vec<String>,
    outside: Option<String>,
}

/// A folder that the walk is in.
struct Here<'a> {
    folder: &'a OwnedFd,
    path: Vec<u8>,
    reach: Reach,
    out: Reach,
    /// Everything in it belongs to the tree.
    whole: bool,
    above: Option<&'a Here<'a>>,
    stat: Stat,
    /// Whether its own line was written.
    told: std::cell::Cell<bool>,
}

/// One name in a folder.
struct Name<'a> {
    name: &'a OsStr,
    path: Vec<u8>,
    /// Patterns that name it.
    ended: Vec<usize>,
    /// What patterns can find below it.
    below: Reach,
    out: Reach,
    stat: Stat,
}

impl Walk {
    pub(super) fn open(parts: WalkParts) -> Result<(Self, Root)> {
        let root = &parts.options.root;
        let path = root.as_os_str().as_bytes();
        let failed = |error: Errno| {
            let result = unreadable("open the folder", path, error);
            if error == Errno::NOENT {
                result.with_hint("check the path in lifeboat.yaml, and that its disk is mounted")
            } else {
                result
            }
        };
        let folder = open_folder(rustix::fs::CWD, root.as_os_str(), true).map_err(failed)?;
        let stat = look_at(&folder).map_err(failed)?;
        let options = &parts.options;
        let all: Vec<String> = [&options.include, &options.optional, &options.env_structure]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let line = Root {
            tree: 1,
            root: root.to_string_lossy().into_owned(),
            meta: stat.meta,
        };
        let walk = Self {
            root: folder,
            patterns: Patterns::new(&all)?,
            excluded: Excluded::new(&options.exclude)?,
            hits: vec![0; all.len()],
            first_names: HashMap::new(),
            facts: Facts {
                root: line.root.clone(),
                ..Facts::default()
            },
            fresh: BTreeMap::new(),
            bytes: Vec::new(),
            warnings: Vec::new(),
            outside: None,
            parts,
        };
        Ok((walk, line))
    }

    /// Goes through everything.
    pub(super) fn run(&mut self, recorder: &mut Recorder) -> Result<()> {
        let folder = self
            .root
            .try_clone()
            .map_err(|error| Error::io("open", self.parts.options.root.display(), error))?;
        let here = Here {
            stat: look_at(&folder).map_err(|error| unreadable("look at", b"the root", error))?,
            folder: &folder,
            path: Vec::new(),
            reach: self.patterns.start(),
            out: self.excluded.start(),
            whole: false,
            above: None,
            told: std::cell::Cell::new(true),
        };
        self.folder(&here, recorder)
    }

    /// Says what was found; fails when a pattern that must match did not.
    pub(super) fn finish(mut self) -> Result<Walked> {
        let options = &self.parts.options;
        let all = [&options.include, &options.optional, &options.env_structure];
        let must = [true, false, true];
        let named = all
            .iter()
            .zip(must)
            .flat_map(|(patterns, must)| patterns.iter().map(move |pattern| (pattern, must)));
        for ((pattern, must), hits) in named.zip(&self.hits) {
            self.facts.patterns.insert(pattern.clone(), *hits);
            if must && *hits == 0 && !self.parts.just_looking {
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    "back up",
                    options.root.join(pattern).display(),
                    "nothing is there that fits it",
                )
                .with_hint("correct it in lifeboat.yaml; what may be missing stands under `optional`"));
            }
        }
        if let Some(first) = &self.outside {
            self.warnings.push(match self.facts.outside_links {
                1 => format!("{first} leads out of {}: the link is kept, what it leads to is not part of this backup", self.facts.root),
                many => format!(
                    "{many} links lead out of {}, for example {first}: the links are kept, what they lead to is not part of this backup",
                    self.facts.root
                ),
            });
        }
        Ok(Walked {
            facts: self.facts,
            usable: self.parts.usable,
            fresh: self.fresh,
            segments: self.parts.segments,
            bytes: self.bytes,
            warnings: self.warnings,
        })
    }

    fn folder(&mut self, here: &Here<'_>, recorder: &mut Recorder) -> Result<()> {
        let known = if here.whole { None } else { self.patterns.names(&here.reach) };
        let sure = known.is_none();
        let names = match known {
            Some(names) => names,
            None => names(here.folder).map_err(|error| unreadable("list", &here.path, error))?,
        };
        for name in &names {
            if OWN.iter().any(|own| name.as_bytes().starts_with(own.as_bytes())) {
                continue;
            }
            let (left_out, out) = self.excluded.step(&here.out, name);
            let (ended, below) = self.patterns.step(&here.reach, name);
            let wanted = here.whole || !ended.is_empty();
            if left_out || (!wanted && below.is_empty()) {
                continue;
            }
            let mut path = here.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let Some(stat) = self.stat(here, name, &path, wanted, sure)? else {
                continue;
            };
            let name = Name {
                name,
                path,
                ended,
                below,
                out,
                stat,
            };
            for pattern in &name.ended {
                if let Some(hits) = self.hits.get_mut(*pattern) {
                    *hits += 1;
                }
            }
            self.name(here, &name, wanted, sure, recorder)?;
        }
        Ok(())
    }

    /// Looks at a name. `None`: it is not there, and nobody said that it was.
    fn stat(&self, here: &Here<'_>, name: &OsStr, path: &[u8], wanted: bool, listed: bool) -> Result<Option<Stat>> {
        let failed = |error| unreadable("look at", path, error);
        let follow = self.parts.options.follow_links;
        if let Some(stat) = look(here.folder, name, follow).map_err(failed)? {
            return Ok(Some(stat));
        }
        let link = follow && look(here.folder, name, false).map_err(failed)?.is_some();
        let error = |detail: &str| Error::new(ErrorKind::Unreachable, "back up", shown(path), detail);
        if link {
            return Err(error("it is a link that leads nowhere").with_hint("mend or exclude it, or leave out `follow_symlinks`"));
        }
        if listed && wanted {
            return Err(
                error("it was there when the folder was listed, and went away before it could be read")
                    .with_hint("run the backup again; name files that come and go under `exclude`"),
            );
        }
        Ok(None)
    }

    fn name(&mut self, here: &Here<'_>, name: &Name<'_>, wanted: bool, listed: bool, recorder: &mut Recorder) -> Result<()> {
        if name.stat.kind == FileType::Directory {
            return self.subfolder(here, name, wanted, recorder);
        }
        if !wanted {
            if name.stat.kind == FileType::Symlink && !listed {
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    "back up",
                    shown(&name.path),
                    "it is a link on the way to what is included, and links are not followed",
                )
                .with_hint("write the path that it leads to, or `follow_symlinks: true`"));
            }
            return Ok(());
        }
        let env_from = self.parts.options.include.len() + self.parts.options.optional.len();
        let env = name.ended.iter().any(|pattern| *pattern >= env_from);
        if env && name.stat.kind != FileType::RegularFile {
            return Err(self.refuse(name, "only the structure of a file can be taken, and this is none"));
        }
        self.tell_above(here, recorder)?;
        match name.stat.kind {
            FileType::RegularFile => self.file(here, name, env, recorder),
            FileType::Symlink => self.symlink(here, name, recorder),
            _ => self.special(name, recorder),
        }
    }

    fn refuse(&self, name: &Name<'_>, detail: &str) -> Error {
        Error::new(ErrorKind::Unreachable, "back up", shown(&name.path), detail)
            .with_hint("correct the pattern, or name it under `exclude`")
    }

    fn special(&mut self, name: &Name<'_>, recorder: &mut Recorder) -> Result<()> {
        let kind = match name.stat.kind {
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::Char {
                device: name.stat.special,
            },
            FileType::BlockDevice => Kind::Block {
                device: name.stat.special,
            },
            _ => return Err(self.refuse(name, "it is of a kind that is not known")),
        };
        if name.ended.iter().any(|pattern| !self.patterns.takes_all(*pattern)) {
            return Err(self.refuse(name, "it is a pipe, a socket or a device: there is nothing in it to back up"));
        }
        self.facts.others += 1;
        recorder.add(None, &entry(name, kind, Vec::new()))
    }

    fn symlink(&mut self, here: &Here<'_>, name: &Name<'_>, recorder: &mut Recorder) -> Result<()> {
        let target = link_target(here.folder, name.name).map_err(|error| unreadable("read the link", &name.path, error))?;
        if super::leads_out(&name.path, &target) {
            self.facts.outside_links += 1;
            self.outside.get_or_insert_with(|| shown(&name.path));
        }
        self.facts.links += 1;
        recorder.add(None, &entry(name, Kind::Symlink { target }, Vec::new()))
    }

    fn subfolder(&mut self, here: &Here<'_>, name: &Name<'_>, wanted: bool, recorder: &mut Recorder) -> Result<()> {
        let identity = (name.stat.device, name.stat.inode);
        if self.parts.skip.contains(&identity) {
            self.warnings.push(format!(
                "{} is a folder of Lifeboat itself, and is left out",
                shown(&name.path)
            ));
            return Ok(());
        }
        let mut above = Some(here);
        while let Some(folder) = above.filter(|_| self.parts.options.follow_links) {
            if (folder.stat.device, folder.stat.inode) == identity {
                return Err(self.refuse(name, "it is a link to a folder that it lies in"));
            }
            above = folder.above;
        }
        let folder = match open_folder(here.folder, name.name, self.parts.options.follow_links) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Err(self
                    .refuse(name, "it was a folder when it was listed, and is something else now")
                    .with_hint("run the backup again; name what comes and goes under `exclude`"));
            }
            Err(error) => return Err(unreadable("open the folder", &name.path, error)),
        };
        let inside = Here {
            folder: &folder,
            path: name.path.clone(),
            reach: name.below.clone(),
            out: name.out.clone(),
            whole: wanted,
            above: Some(here),
            stat: look_at(&folder).map_err(|error| unreadable("look at", &name.path, error))?,
            told: std::cell::Cell::new(false),
        };
        if wanted {
            self.tell_above(&inside, recorder)?;
        }
        self.folder(&inside, recorder)
    }

    /// Writes the lines of the folders that something lies in, where that was not done yet.
    fn tell_above(&mut self, here: &Here<'_>, recorder: &mut Recorder) -> Result<()> {
        if here.told.get() {
            return Ok(());
        }
        if let Some(above) = here.above {
            self.tell_above(above, recorder)?;
        }
        here.told.set(true);
        self.facts.folders += 1;
        let entry = Entry {
            path: here.path.clone(),
            kind: Kind::Folder,
            meta: here.stat.meta,
            xattrs: xattrs(here.folder, &here.path)?,
        };
        recorder.add(None, &entry)
    }

    fn file(&mut self, here: &Here<'_>, name: &Name<'_>, env: bool, recorder: &mut Recorder) -> Result<()> {
        let identity = (name.stat.device, name.stat.inode);
        self.facts.files += 1;
        if name.stat.links > 1 && !env {
            if let Some(first) = self.first_names.get(&identity) {
                let to = first.clone();
                return recorder.add(None, &entry(name, Kind::Hardlink { to }, Vec::new()));
            }
            self.first_names.insert(identity, name.path.clone());
        }
        let known = self.parts.recalled.file(&name.path).filter(|(_, _, content)| {
            let kept = |at: &(String, u64)| self.parts.usable.contains_key(&at.0);
            content.at.as_ref().is_none_or(kept) && content.env.is_some() == env
        });
        if let Some((stamp, old, content)) = &known
            && !self.parts.keep_bytes
            && is_unchanged(stamp, old, content, &name.stat)
        {
            let content = content.clone();
            self.count(&content);
            let entry = entry(name, Kind::File(content), old.xattrs.clone());
            return recorder.add(Some(*stamp), &entry);
        }
        let how = How {
            follow: self.parts.options.follow_links,
            retries: self.parts.options.max_change_retries,
            env,
            keep: self.parts.keep_bytes,
        };
        let known = known.as_ref().map(|(_, _, content)| content);
        let taken = take(
            here.folder.as_fd(),
            name.name,
            &name.path,
            how,
            known,
            &mut self.parts.segments,
        )?;
        self.count(&taken.content);
        if let Some(about) = taken
            .content
            .env
            .as_ref()
            .filter(|about| about.keys.is_empty() && about.dropped > 0)
        {
            self.warnings.push(format!(
                "{} holds no line KEY=value, so nothing of it is kept ({} lines were left out): is it the right file for `env_structure`?",
                shown(&name.path),
                about.dropped
            ));
        }
        if let Some(bytes) = taken.bytes {
            self.bytes.push(Bytes {
                path: name.path.clone(),
                patterns: name.ended.clone(),
                bytes,
            });
        }
        let stamp = Stamp {
            ctime: taken.stat.ctime,
            inode: taken.stat.inode,
            settled: is_settled(&taken.stat, self.parts.clock.wall_us()),
        };
        let entry = Entry {
            path: name.path.clone(),
            kind: Kind::File(taken.content),
            meta: taken.stat.meta,
            xattrs: taken.xattrs,
        };
        recorder.add(Some(stamp), &entry)
    }

    fn count(&mut self, content: &Content) {
        let stored = content.stored();
        self.facts.size_bytes += stored;
        if let Some((segment, _)) = &content.at {
            match self.parts.usable.get_mut(segment) {
                Some((_, needed)) => *needed += stored,
                None => *self.fresh.entry(segment.clone()).or_default() += stored,
            }
        }
    }
}

fn entry(name: &Name<'_>, kind: Kind, xattrs: Vec<(String, Vec<u8>)>) -> Entry {
    Entry {
        path: name.path.clone(),
        kind,
        meta: name.stat.meta,
        xattrs,
    }
}

fn is_unchanged(stamp: &Stamp, old: &Entry, content: &Content, stat: &Stat) -> bool {
    // The size of a file of which only the structure was kept is not the size that is on the disk.
    let size = content.env.is_some() || content.size == stat.size;
    stamp.settled && size && (stamp.ctime, stamp.inode, old.meta.mtime) == (stat.ctime, stat.inode, stat.meta.mtime)
}

/// Whether a later write would show in the times: they advance in steps, in steps of two seconds on the coarsest file systems.
fn is_settled(stat: &Stat, now_us: i64) -> bool {
    let coarse = stat.ctime.1 == 0 && stat.meta.mtime.1 == 0;
    let gap_us = if coarse { 2_000_000 } else { 50_000 };
    let us = |time: Time| time.0.saturating_mul(1_000_000).saturating_add(i64::from(time.1 / 1000));
    us(stat.ctime).max(us(stat.meta.mtime)) < now_us.saturating_sub(gap_us)
}
