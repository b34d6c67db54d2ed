//! What two trees have not in common, read side by side: memory holds one line of each and the samples (INV-08).
//!
//! Content is compared by its hash, which each line keeps: nothing is restored for it.

use std::io::BufRead;

use lifeboat_model::Result;

use super::entry::{Entry, Kind, order};
use super::glob::Chosen;
use super::tree::TreeReader;

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Only the first tree has it.
    Missing,
    /// Both have it, and it is not the same.
    Changed,
    /// Only the second tree has it.
    Extra,
}

/// What is not the same about a name that both trees have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// It is something else: a folder now, or a link.
    Kind,
    /// What stands in it, or where its holes are.
    Content,
    /// Where it leads, or which device it is.
    Target,
    /// Its mode.
    Mode,
    /// Its owner or group.
    Owner,
    /// When it was changed last.
    Time,
    /// Extended attributes.
    Attributes,
}

impl Aspect {
    /// The word people see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Target => "target",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Time => "time",
            Self::Attributes => "attributes",
        }
    }
}

/// One name that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub fate: Fate,
    /// Its path below the root.
    pub path: Vec<u8>,
    /// What it was, and what it is: `file`, `folder`, `link`, ….
    pub kinds: (Option<&'static str>, Option<&'static str>),
    /// Of files: bytes before and after.
    pub sizes: (Option<u64>, Option<u64>),
    /// What has changed; of names that both trees have.
    pub aspects: Vec<Aspect>,
}

/// What one tree holds, of what is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Files by name.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of all content.
    pub size_bytes: u64,
}

/// The whole comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeDifference {
    /// What the first tree holds.
    pub before: Count,
    /// What the second one holds.
    pub after: Count,
    /// Names only in the first.
    pub missing: u64,
    /// Names in both that are not the same.
    pub changed: u64,
    /// Names only in the second.
    pub extra: u64,
    /// The first of each, as many as were asked for.
    pub samples: Vec<Change>,
}

impl TreeDifference {
    /// Whether both trees are the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.missing == 0 && self.changed == 0 && self.extra == 0
    }

    fn add(&mut self, change: Change, samples: usize) {
        let total = match change.fate {
            Fate::Missing => &mut self.missing,
            Fate::Changed => &mut self.changed,
            Fate::Extra => &mut self.extra,
        };
        *total += 1;
        if *total <= samples as u64 {
            self.samples.push(change);
        }
    }
}

/// Compares two trees: only what `paths` names below the root, everything where that is empty. `samples` names of each fate are kept.
///
/// # Errors
/// `Corrupt` for a tree that does not read, `ConfigInvalid` for a pattern that does not.
pub fn diff<A: BufRead, B: BufRead>(
    before: &mut TreeReader<A>,
    after: &mut TreeReader<B>,
    paths: &[String],
    samples: usize,
) -> Result<TreeDifference> {
    let chosen = Chosen::new(paths)?;
    let mut found = TreeDifference::default();
    let (mut old, mut new) = (next(before, &chosen)?, next(after, &chosen)?);
    loop {
        let which = match (&old, &new) {
            (None, None) => return Ok(found),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => order(&old.path, &new.path),
        };
        let (mut left, mut right) = (None, None);
        if which.is_le() {
            left = old.take();
            old = next(before, &chosen)?;
        }
        if which.is_ge() {
            right = new.take();
            new = next(after, &chosen)?;
        }
        left.iter().for_each(|entry| count(&mut found.before, entry));
        right.iter().for_each(|entry| count(&mut found.after, entry));
        if let Some(change) = change(left, right) {
            found.add(change, samples);
        }
    }
}

fn next<R: BufRead>(tree: &mut TreeReader<R>, chosen: &Chosen) -> Result<Option<Entry>> {
    while let Some(entry) = tree.next_entry()? {
        if chosen.has(&entry.path) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn count(count: &mut Count, entry: &Entry) {
    match &entry.kind {
        Kind::Folder => count.folders += 1,
        Kind::File(content) => {
            count.files += 1;
            count.size_bytes += content.stored();
        }
        Kind::Hardlink { .. } => count.files += 1,
        Kind::Symlink { .. } => count.links += 1,
        Kind::Fifo | Kind::Socket | Kind::Char { .. } | Kind::Block { .. } => {}
    }
}

fn word(entry: &Entry) -> &'static str {
    match &entry.kind {
        Kind::Folder => "folder",
        Kind::File(_) => "file",
        Kind::Symlink { .. } => "link",
        Kind::Hardlink { .. } => "hard link",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
        Kind::Char { .. } | Kind::Block { .. } => "device",
    }
}

fn size(entry: &Entry) -> Option<u64> {
    match &entry.kind {
        Kind::File(content) => Some(content.size),
        _ => None,
    }
}

fn change(before: Option<Entry>, after: Option<Entry>) -> Option<Change> {
    let kinds = (before.as_ref().map(word), after.as_ref().map(word));
    let sizes = (before.as_ref().and_then(size), after.as_ref().and_then(size));
    let (fate, path, aspects) = match (before, after) {
        (Some(before), Some(after)) => {
            let aspects = aspects(&before, &after);
            if aspects.is_empty() {
                return None;
            }
            (Fate::Changed, after.path, aspects)
        }
        (Some(before), None) => (Fate::Missing, before.path, Vec::new()),
        (None, Some(after)) => (Fate::Extra, after.path, Vec::new()),
        (None, None) => return None,
    };
    Some(Change {
        fate,
        path,
        kinds,
        sizes,
        aspects,
    })
}

fn aspects(before: &Entry, after: &Entry) -> Vec<Aspect> {
    let mut found = Vec::new();
    let mut differs = |aspect, differs| {
        if differs {
            found.push(aspect);
        }
    };
    match (&before.kind, &after.kind) {
        (Kind::File(old), Kind::File(new)) => {
            differs(
                Aspect::Content,
                (old.size, old.hash, &old.data, &old.env) != (new.size, new.hash, &new.data, &new.env),
            );
        }
        (old, new) if std::mem::discriminant(old) == std::mem::discriminant(new) => differs(Aspect::Target, old != new),
        _ => differs(Aspect::Kind, true),
    }
    let (old, new) = (&before.meta, &after.meta);
    differs(Aspect::Mode, old.mode != new.mode);
    differs(Aspect::Owner, (old.uid, old.gid) != (new.uid, new.gid));
    // The time of a folder tells that names came and went, and they have lines of their own.
    let timed = !matches!(after.kind, Kind::Folder | Kind::Socket);
    differs(Aspect::Time, timed && old.mtime != new.mtime);
    differs(Aspect::Attributes, before.xattrs != after.xattrs);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = r#"{"tree":1,"root":"/x","mode":493,"uid":0,"gid":0,"mtime":[0,0]}"#;

    fn tree(lines: &[(&str, &str)]) -> String {
        let mut text = format!("{ROOT}\n");
        for (path, rest) in lines {
            text.push_str(&format!(r#"{{"path":"{path}","uid":0,"gid":0,{rest}}}"#));
            text.push('\n');
        }
        text
    }

    fn file(hash: &str, mode: u32, second: u32) -> String {
        let hash = hash.repeat(32);
        format!(r#""type":"file","size":3,"at":["segment-00000001",0],"hash":"{hash}","mode":{mode},"mtime":[{second},0]"#)
    }

    fn compare(before: &str, after: &str, paths: &[&str], samples: usize) -> TreeDifference {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut before = TreeReader::open(before.as_bytes()).unwrap();
        let mut after = TreeReader::open(after.as_bytes()).unwrap();
        diff(&mut before, &mut after, &paths, samples).unwrap()
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let folder = |second: u32| format!(r#""type":"dir","mode":493,"mtime":[{second},0]"#);
        let link = |target: &str| format!(r#""type":"symlink","target":"{target}","mode":511,"mtime":[1,0]"#);
        let before = tree(&[
            ("a", &folder(1)),
            ("a/content", &file("00", 420, 1)),
            ("a/gone", &file("00", 420, 1)),
            ("a/same", &file("00", 420, 1)),
            ("a/touched", &file("00", 420, 1)),
            ("link", &link("a")),
            ("turned", &link("a")),
        ]);
        let after = tree(&[
            ("a", &folder(9)),
            ("a/content", &file("01", 384, 1)),
            ("a/new", &file("00", 420, 1)),
            ("a/same", &file("00", 420, 1)),
            ("a/touched", &file("00", 420, 2)),
            ("link", &link("b")),
            ("turned", &folder(1)),
        ]);
        let found = compare(&before, &after, &[], 10);
        assert_eq!((found.missing, found.changed, found.extra), (1, 4, 1));
        assert_eq!((found.before.files, found.after.files, found.after.folders), (4, 4, 2));
        let told: Vec<(String, Vec<Aspect>)> = found
            .samples
            .iter()
            .map(|change| (String::from_utf8(change.path.clone()).unwrap(), change.aspects.clone()))
            .collect();
        let expected: [(&str, &[Aspect]); 6] = [
            ("a/content", &[Aspect::Content, Aspect::Mode]),
            ("a/gone", &[]),
            ("a/new", &[]),
            ("a/touched", &[Aspect::Time]),
            ("link", &[Aspect::Target]),
            ("turned", &[Aspect::Kind, Aspect::Mode]),
        ];
        assert_eq!(told, expected.map(|(path, aspects)| (path.to_owned(), aspects.to_vec())));
        assert!(compare(&before, &before, &[], 10).is_same());
        // The first of each kind are shown, and all are counted; only what is named is looked at.
        let one = compare(&before, &after, &[], 1);
        assert_eq!((one.changed, one.samples.len()), (4, 3));
        let chosen = compare(&before, &after, &["a/t*"], 10);
        assert_eq!((chosen.missing, chosen.changed, chosen.before.files), (0, 1, 1));
    }
}
