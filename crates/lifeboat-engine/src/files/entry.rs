//! A line of a tree (format 8.5): one folder, file or link, and the JSON that stands for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Seconds since 1970 and nanoseconds.
pub type Time = (i64, u32);

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, `/`-separated, byte for byte.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Owner, mode, time.
    pub meta: Meta,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Owner, mode and time of anything in a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The lower 12 bits of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
}

/// What stands behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File(Content),
    /// A symbolic link.
    Symlink {
        /// Where it leads, byte for byte.
        target: Vec<u8>,
    },
    /// Another name of an earlier file.
    Hardlink {
        /// The path of that file.
        to: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket; never restored.
    Socket,
    /// A character device.
    Char {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    Block {
        /// Major and minor number.
        device: (u32, u32),
    },
}

/// The content of a file and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Bytes of the file, holes included.
    pub size: u64,
    /// What is not a hole: offset and length of each range; `None` when there are no holes.
    pub data: Option<Vec<(u64, u64)>>,
    /// Segment, and where in it the stored bytes begin; `None` where none are stored.
    pub at: Option<(String, u64)>,
    /// BLAKE3 over the stored bytes.
    pub hash: [u8; 32],
    /// The keys of a file of which only the structure was captured.
    pub env: Option<EnvKeys>,
}

/// What is told of a file that was captured as structure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvKeys {
    /// The keys whose values are missing, in order.
    pub keys: Vec<String>,
    /// Lines that were left out.
    pub dropped: u64,
}

impl Content {
    /// Bytes that are stored: all but holes.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.data
            .as_ref()
            .map_or(self.size, |data| data.iter().map(|(_, length)| length).sum())
    }

    /// The ranges of the file that the stored bytes fill, one after the other.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        match &self.data {
            Some(data) => data.clone(),
            None if self.size == 0 => Vec::new(),
            None => vec![(0, self.size)],
        }
    }
}

/// The first line of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Version of the tree's lines: 1.
    pub tree: u32,
    /// The folder that all paths are relative to, for people.
    pub root: String,
    /// Its own mode, owner and time.
    #[serde(flatten)]
    pub meta: Meta,
}

#[derive(Serialize, Deserialize)]
struct LineJson {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_path: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    meta: Meta,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Vec<(u64, u64)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<(String, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<EnvKeys>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
}

/// Bytes as text, and exactly where the text is not enough.
fn split(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(BASE64.encode(bytes))),
    }
}

fn damaged(detail: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "read", "the tree", detail)
}

fn join(text: &str, raw: Option<&String>) -> Result<Vec<u8>> {
    match raw {
        None => Ok(text.as_bytes().to_vec()),
        Some(raw) => BASE64
            .decode(raw)
            .map_err(|error| damaged("a name is not base64").with_source(error)),
    }
}

/// A path as it is compared: `/` is less than every other byte.
pub(super) fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// A path for people.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Relative, without empty, `.` and `..` parts, without NUL.
fn is_sound(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .all(|part| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0))
}

impl Entry {
    /// The line, without its line feed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (path, raw_path) = split(&self.path);
        let mut json = LineJson {
            path,
            raw_path,
            kind: String::new(),
            meta: self.meta,
            xattrs: self
                .xattrs
                .iter()
                .map(|(name, value)| (name.clone(), BASE64.encode(value)))
                .collect(),
            size: None,
            data: None,
            at: None,
            hash: None,
            env: None,
            target: None,
            raw_target: None,
            to: None,
            raw_to: None,
            device: None,
        };
        json.kind = match &self.kind {
            Kind::Folder => "dir",
            Kind::File(content) => {
                json.size = Some(content.size);
                json.data.clone_from(&content.data);
                json.at.clone_from(&content.at);
                json.hash = Some(hex::encode(content.hash));
                json.env.clone_from(&content.env);
                "file"
            }
            Kind::Symlink { target } => {
                let (text, raw) = split(target);
                (json.target, json.raw_target) = (Some(text), raw);
                "symlink"
            }
            Kind::Hardlink { to } => {
                let (text, raw) = split(to);
                (json.to, json.raw_to) = (Some(text), raw);
                "hardlink"
            }
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::Char { device } => {
                json.device = Some(*device);
                "char"
            }
            Kind::Block { device } => {
                json.device = Some(*device);
                "block"
            }
        }
        .to_owned();
        serde_json::to_vec(&json)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", shown(&self.path), "it has no line").with_source(error))
    }

    /// Reads a line; whatever could lead outside of the root is refused.
    pub fn decode(line: &[u8]) -> Result<Self> {
        let json: LineJson = serde_json::from_slice(line).map_err(|error| damaged("a line does not parse").with_source(error))?;
        let path = join(&json.path, json.raw_path.as_ref())?;
        if !is_sound(&path) {
            return Err(damaged(format!("{:?} is not a plain relative path", shown(&path))));
        }
        let lacking = |what: &str| damaged(format!("{:?} has no {what}", shown(&path)));
        let device = json.device.ok_or_else(|| lacking("device"));
        let kind = match json.kind.as_str() {
            "dir" => Kind::Folder,
            "file" => Kind::File(content(&json).ok_or_else(|| lacking("sound content"))?),
            "symlink" => {
                let target = json.target.as_ref().ok_or_else(|| lacking("target"))?;
                let target = join(target, json.raw_target.as_ref())?;
                if target.is_empty() || target.contains(&0) {
                    return Err(lacking("target"));
                }
                Kind::Symlink { target }
            }
            "hardlink" => {
                let to = join(json.to.as_ref().ok_or_else(|| lacking("target"))?, json.raw_to.as_ref())?;
                if !is_sound(&to) || order(&to, &path).is_ge() {
                    return Err(damaged(format!(
                        "{:?} is a hard link to what does not stand before it",
                        shown(&path)
                    )));
                }
                Kind::Hardlink { to }
            }
            "fifo" => Kind::Fifo,
            "socket" => Kind::Socket,
            "char" => Kind::Char { device: device? },
            "block" => Kind::Block { device: device? },
            other => return Err(damaged(format!("{:?} has the unknown type {other:?}", shown(&path)))),
        };
        if json.meta.mode > 0o7777 || json.meta.mtime.1 >= 1_000_000_000 {
            return Err(damaged(format!("{:?} has an impossible mode or time", shown(&path))));
        }
        let xattrs = json.xattrs.into_iter().map(|(name, value)| {
            let value = BASE64.decode(value);
            value
                .map(|value| (name, value))
                .map_err(|error| damaged("an attribute is not base64").with_source(error))
        });
        Ok(Self {
            kind,
            meta: json.meta,
            xattrs: xattrs.collect::<Result<_>>()?,
            path,
        })
    }

    /// The path for people.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// The content of a `file` line; `None` where its numbers do not fit each other.
fn content(json: &LineJson) -> Option<Content> {
    const LIMIT: u64 = 1 << 62;
    let size = json.size.filter(|size| *size < LIMIT)?;
    if let Some(data) = &json.data {
        let mut end = 0;
        for (index, (offset, length)) in data.iter().enumerate() {
            // Ranges that touch would be one.
            if *length == 0 || *offset >= LIMIT || *length >= LIMIT || (index > 0 && *offset <= end) {
                return None;
            }
            end = offset + length;
        }
        if end > size {
            return None;
        }
    }
    let content = Content {
        size,
        data: json.data.clone(),
        at: json.at.clone(),
        hash: hex::decode(json.hash.as_ref()?).ok()?.try_into().ok()?,
        env: json.env.clone(),
    };
    let stored = content.stored();
    let placed = content.at.as_ref().map(|(_, offset)| offset.checked_add(stored));
    match placed {
        None => stored == 0,
        Some(end) => stored > 0 && end.is_some_and(|end| end < LIMIT),
    }
    .then_some(content)
}

impl Root {
    /// The line, without its line feed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", &self.root, "it has no line").with_source(error))
    }

    /// Reads the first line of a tree.
    pub fn decode(line: &[u8]) -> Result<Self> {
        let root: Self =
            serde_json::from_slice(line).map_err(|error| damaged("its first line does not parse").with_source(error))?;
        if root.tree == 1 {
            Ok(root)
        } else {
            Err(damaged("it has another version").with_kind(ErrorKind::Incompatible))
        }
    }
}
