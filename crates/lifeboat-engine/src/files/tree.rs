//! Reading a tree line by line: memory holds one line and the folders above it, however many files there are (INV-08).
//!
//! The order of the lines makes the checks cheap: a name cannot come twice, and its folder must be one that stands above it.

use std::io::{BufRead, Read};

use lifeboat_model::{Error, ErrorKind, Result};

use super::entry::{Entry, Kind, Root, order, shown};

/// Reads the one entry whose line begins at `at`, as [`TreeReader::line_at`] told.
pub fn entry_at(tree: &std::fs::File, at: u64) -> Result<Entry> {
    use std::os::unix::fs::FileExt;
    let mut line = Vec::new();
    let mut block = vec![0; 1 << 12];
    loop {
        let count = tree
            .read_at(&mut block, at + line.len() as u64)
            .map_err(|error| Error::io("read", "the tree", error))?;
        let found = block.get(..count).unwrap_or_default();
        if let Some(end) = found.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&found[..end]);
            return Entry::decode(&line);
        }
        if count == 0 || line.len() as u64 > LINE_LIMIT_BYTES {
            return Err(damaged("a line does not end"));
        }
        line.extend_from_slice(found);
    }
}

/// No honest line is longer.
const LINE_LIMIT_BYTES: u64 = 64 << 20;

/// A tree that is being read.
#[derive(Debug)]
pub struct TreeReader<R> {
    lines: R,
    root: Root,
    last: Vec<u8>,
    /// Where the next line begins, and the last one did.
    next_at: u64,
    line_at: u64,
    /// The folders that the last path lies in.
    folders: Vec<Vec<u8>>,
}

fn damaged(detail: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "read", "the tree", detail)
}

fn read_line(lines: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines
        .take(LINE_LIMIT_BYTES)
        .read_until(b'\n', &mut line)
        .map_err(|error| Error::io("read", "the tree", error))?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(damaged("a line does not end")),
    }
}

impl<R: BufRead> TreeReader<R> {
    /// Reads the first line.
    pub fn open(mut lines: R) -> Result<Self> {
        let first = read_line(&mut lines)?.ok_or_else(|| damaged("it is empty"))?;
        Ok(Self {
            lines,
            root: Root::decode(&first)?,
            last: Vec::new(),
            next_at: first.len() as u64 + 1,
            line_at: 0,
            folders: Vec::new(),
        })
    }

    /// The folder that all paths are relative to.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where the line of the last entry begins in the tree.
    #[must_use]
    pub fn line_at(&self) -> u64 {
        self.line_at
    }

    /// The next line; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let Some(line) = read_line(&mut self.lines)? else {
            return Ok(None);
        };
        self.line_at = self.next_at;
        self.next_at += line.len() as u64 + 1;
        let entry = Entry::decode(&line)?;
        if order(&self.last, &entry.path).is_ge() {
            return Err(damaged(format!("{:?} does not stand in order", entry.shown())));
        }
        let folder: &[u8] = match entry.path.iter().rposition(|byte| *byte == b'/') {
            Some(end) => &entry.path[..end],
            None => &[],
        };
        while self.folders.last().is_some_and(|known| known.as_slice() != folder) {
            self.folders.pop();
        }
        if !folder.is_empty() && self.folders.is_empty() {
            return Err(damaged(format!(
                "{:?} is not in a folder that stands before it",
                shown(&entry.path)
            )));
        }
        if matches!(entry.kind, Kind::Folder) {
            self.folders.push(entry.path.clone());
        }
        self.last.clone_from(&entry.path);
        Ok(Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = r#"{"tree":1,"root":"/x","mode":493,"uid":0,"gid":0,"mtime":[0,0]}"#;

    fn line(path: &str, rest: &str) -> String {
        format!(r#"{{"path":{path},"mode":420,"uid":0,"gid":0,"mtime":[1,2],{rest}}}"#)
    }

    fn read(lines: &[String]) -> Result<Vec<Entry>> {
        let text = format!("{ROOT}\n{}", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        let mut tree = TreeReader::open(text.as_bytes())?;
        let mut found = Vec::new();
        while let Some(entry) = tree.next_entry()? {
            found.push(entry);
        }
        Ok(found)
    }

    fn dir(path: &str) -> String {
        line(&format!("{path:?}"), r#""type":"dir""#)
    }

    #[test]
    fn an_honest_tree_is_read_in_order() {
        let empty = format!(r#""type":"file","size":0,"hash":"{}""#, "00".repeat(32));
        let lines = [
            dir("a"),
            line("\"a/x\"", &empty),
            dir("a/y"),
            line("\"a/y/z\"", r#""type":"symlink","target":"../x""#),
            line("\"a-b\"", r#""type":"hardlink","to":"a/x""#),
        ];
        let entries = read(&lines).unwrap();
        assert_eq!(entries.len(), 5);
        for entry in entries {
            assert_eq!(Entry::decode(&entry.encode().unwrap()).unwrap(), entry);
        }
    }

    #[test]
    fn a_forged_tree_is_refused() {
        let hash = "00".repeat(32);
        let file = |rest: &str| format!(r#""type":"file","hash":"{hash}",{rest}"#);
        let bad: Vec<Vec<String>> = vec![
            vec![dir("../up")],
            vec![dir("/root")],
            vec![dir("a"), dir("a//b")],
            vec![dir("a/./b")],
            vec![dir("")],
            vec![line(r#""a\u0000b""#, r#""type":"dir""#)],
            vec![dir("b"), dir("a")],
            vec![dir("a"), dir("a")],
            vec![dir("a/b")],
            // What stands above is a link, not a folder.
            vec![
                line("\"a\"", r#""type":"symlink","target":"/etc""#),
                line("\"a/b\"", r#""type":"fifo""#),
            ],
            vec![dir("a"), dir("b"), dir("b/c"), line("\"a/c\"", r#""type":"fifo""#)],
            vec![line("\"a\"", r#""type":"hardlink","to":"z""#)],
            vec![line("\"b\"", r#""type":"hardlink","to":"../a""#)],
            vec![line("\"a\"", r#""type":"symlink","target":"""#)],
            vec![line("\"a\"", r#""type":"door""#)],
            vec![line("\"a\"", r#""type":"char""#)],
            vec![line("\"a\"", &file(r#""size":5"#))],
            vec![line("\"a\"", &file(r#""size":0,"at":["s",0]"#))],
            vec![line("\"a\"", &file(r#""size":5,"at":["s",18446744073709551615]"#))],
            vec![line("\"a\"", &file(r#""size":5,"at":["s",0],"data":[[4,2]]"#))],
            vec![line("\"a\"", &file(r#""size":9,"at":["s",0],"data":[[4,2],[5,1]]"#))],
            vec![line(
                "\"a\"",
                &file(r#""size":9,"at":["s",0],"data":[[4,2],[18446744073709551615,2]]"#),
            )],
            vec![line("\"a\"", &file(r#""size":-1"#))],
            vec![line("\"a\",\"raw_path\":\"Li4veA==\"", r#""type":"dir""#)],
        ];
        for lines in bad {
            let refused = read(&lines).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{lines:?}");
        }
        assert!(TreeReader::open(&b""[..]).is_err());
        assert!(TreeReader::open(&b"{\"tree\":2,\"root\":\"\",\"mode\":0,\"uid\":0,\"gid\":0,\"mtime\":[0,0]}\n"[..]).is_err());
    }
}
