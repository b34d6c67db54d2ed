//! SQL text that `pg_dump` wrote, taken apart: statements, and rows of COPY.
//!
//! `psql` would run programs, open files and change servers on lines that begin with a backslash. None of that is needed, and none is known here: such a
//! line is an error, apart from the end of rows and from the pair by which newer programs switch the others off.

use std::io::{BufRead, Read};

use lifeboat_model::{Error, ErrorKind, Result};

const OP: &str = "read the SQL text";
/// No statement, and no row, is larger: PostgreSQL takes values of 1 GiB.
const LARGEST: u64 = (1 << 30) + (64 << 20);
/// Rows are handed on in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;
/// What `pg_dump` writes last.
const COMPLETE: &[u8] = b"-- PostgreSQL database dump complete";
/// How `pg_dumpall` begins.
const ALL: &[u8] = b"-- PostgreSQL database cluster dump";
/// Words at the beginning of a statement that decide what it is.
const FIRST_WORDS: usize = 4;

/// Who takes what is in a script.
pub trait Taker {
    /// A statement.
    fn statement(&mut self, sql: &str) -> Result<()>;
    /// A COPY, whose rows follow.
    fn begin_rows(&mut self, sql: &str) -> Result<()>;
    /// Some of them, whole lines.
    fn rows(&mut self, text: &[u8]) -> Result<()>;
    /// There are no more.
    fn end_rows(&mut self) -> Result<()>;
}

/// Takes nothing: for whoever wants to know whether a script is whole.
#[derive(Debug)]
pub struct Nobody;

impl Taker for Nobody {
    fn statement(&mut self, _: &str) -> Result<()> {
        Ok(())
    }

    fn begin_rows(&mut self, _: &str) -> Result<()> {
        Ok(())
    }

    fn rows(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn end_rows(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Reads a script to its end; `subject` is what it is called in messages.
///
/// # Errors
/// `Corrupt` where it is cut off, `Refused` where it holds commands for `psql`, `Incompatible` for what is not read here; whatever `taker` says.
pub fn read(from: impl BufRead, subject: &str, taker: &mut dyn Taker) -> Result<()> {
    let mut script = Script {
        from,
        subject,
        line: Vec::new(),
        number: 0,
        inside: Inside::Nothing,
        text: Vec::new(),
        words: Vec::new(),
        last_word: Vec::new(),
        takes_rows: false,
        brackets: 0,
        bodies: 0,
        standard_strings: true,
        is_complete: false,
    };
    while script.next_line()? {
        script.walk(taker)?;
    }
    script.end()
}

/// In what a line begins.
enum Inside {
    Nothing,
    /// `'…'`, and whether a backslash means something in it.
    Text {
        escapes: bool,
    },
    /// `"…"`
    Name,
    /// `$tag$…$tag$`
    Dollars(Vec<u8>),
    /// A comment, and how deep.
    Comment(u32),
}

struct Script<'a, R> {
    from: R,
    subject: &'a str,
    line: Vec<u8>,
    number: u64,
    inside: Inside,
    /// The statement so far.
    text: Vec<u8>,
    /// Its first words, in small letters.
    words: Vec<Vec<u8>>,
    last_word: Vec<u8>,
    /// `FROM STDIN` was seen.
    takes_rows: bool,
    brackets: u32,
    /// Bodies of functions (`BEGIN ATOMIC … END`), and what else ends with END in them.
    bodies: u32,
    standard_strings: bool,
    is_complete: bool,
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_of_word(byte: u8) -> bool {
    is_letter(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Where `needle` is found at or behind `from`.
fn find(hay: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = hay.get(from..)?;
    let at = rest.windows(needle.len().max(1)).position(|window| window == needle)?;
    Some(from + at)
}

impl<R: BufRead> Script<'_, R> {
    fn error(&self, kind: ErrorKind, detail: impl std::fmt::Display) -> Error {
        Error::new(kind, OP, self.subject, format!("line {}: {detail}", self.number))
    }

    fn cut(&self, detail: &str) -> Error {
        self.error(ErrorKind::Corrupt, detail)
            .with_hint("the dump is cut off: take another; nothing of it was restored")
    }

    /// Reads a line, with its end; `false` behind the last.
    fn next_line(&mut self) -> Result<bool> {
        self.line.clear();
        self.number += 1;
        let read = (&mut self.from).take(LARGEST).read_until(b'\n', &mut self.line);
        let count = read.map_err(|error| Error::io(OP, self.subject, error))?;
        if count as u64 == LARGEST {
            return Err(self.error(ErrorKind::Incompatible, "it is larger than anything that PostgreSQL takes"));
        }
        Ok(count > 0)
    }

    fn at(&self, index: usize) -> Option<u8> {
        self.line.get(index).copied()
    }

    /// Goes through a line; where a COPY ends in it, through its rows.
    fn walk(&mut self, taker: &mut dyn Taker) -> Result<()> {
        let mut at = 0;
        while let Some(byte) = self.at(at) {
            at = match &self.inside {
                Inside::Nothing => {
                    if byte == b';' && self.brackets == 0 && self.bodies == 0 {
                        self.finish(at + 1, taker)?;
                        at + 1
                    } else {
                        self.plain(byte, at)?
                    }
                }
                Inside::Text { escapes } => self.in_text(byte, at, *escapes),
                Inside::Name => {
                    if byte == b'"' {
                        self.inside = Inside::Nothing;
                    }
                    self.take(at, at + 1)
                }
                Inside::Dollars(tag) => match find(&self.line, tag, at) {
                    Some(found) => {
                        let end = found + tag.len();
                        self.inside = Inside::Nothing;
                        self.take(at, end)
                    }
                    None => self.take(at, self.line.len()),
                },
                Inside::Comment(depth) => self.in_comment(byte, at, *depth),
            };
        }
        if self.text.len() as u64 > LARGEST {
            return Err(self.error(
                ErrorKind::Incompatible,
                "a statement is larger than anything that PostgreSQL takes",
            ));
        }
        Ok(())
    }

    /// Adds bytes of the line to the statement.
    fn take(&mut self, from: usize, to: usize) -> usize {
        let bytes = self.line.get(from..to).unwrap_or_default();
        if !self.text.is_empty() || !bytes.trim_ascii().is_empty() {
            self.text.extend_from_slice(bytes);
            self.is_complete = false;
        }
        to
    }

    fn in_text(&mut self, byte: u8, at: usize, escapes: bool) -> usize {
        if escapes && byte == b'\\' {
            return self.take(at, (at + 2).min(self.line.len()));
        }
        // A doubled one ends the text and begins it again.
        if byte == b'\'' {
            if self.at(at + 1) == Some(b'\'') {
                return self.take(at, at + 2);
            }
            self.inside = Inside::Nothing;
        }
        self.take(at, at + 1)
    }

    fn in_comment(&mut self, byte: u8, at: usize, depth: u32) -> usize {
        match (byte, self.at(at + 1)) {
            (b'/', Some(b'*')) => {
                self.inside = Inside::Comment(depth + 1);
                at + 2
            }
            (b'*', Some(b'/')) => {
                self.inside = if depth > 1 {
                    Inside::Comment(depth - 1)
                } else {
                    Inside::Nothing
                };
                // Words on both sides stay apart.
                if depth == 1 && !self.text.is_empty() {
                    self.text.push(b' ');
                }
                at + 2
            }
            _ => at + 1,
        }
    }

    /// Outside of everything.
    fn plain(&mut self, byte: u8, at: usize) -> Result<usize> {
        match (byte, self.at(at + 1)) {
            (b'-', Some(b'-')) => return self.line_comment(at),
            (b'/', Some(b'*')) => {
                self.inside = Inside::Comment(1);
                return Ok(at + 2);
            }
            (b'\\', _) => return self.command(at),
            (b'\'', _) => {
                let escapes = !self.standard_strings;
                self.inside = Inside::Text { escapes };
            }
            (b'"', _) => self.inside = Inside::Name,
            (b'(', _) => self.brackets += 1,
            (b')', _) => self.brackets = self.brackets.saturating_sub(1),
            (b'$', _) => {
                if let Some(tag) = self.tag(at) {
                    let end = at + tag.len();
                    self.inside = Inside::Dollars(tag);
                    return Ok(self.take(at, end));
                }
            }
            (byte, _) if is_letter(byte) => return Ok(self.word(at)),
            (byte, _) if byte.is_ascii_digit() => {
                // A number: what follows it at once is no beginning of a tag.
                let mut end = at + 1;
                while self.at(end).is_some_and(is_of_word) {
                    end += 1;
                }
                return Ok(self.take(at, end));
            }
            _ => {}
        }
        Ok(self.take(at, at + 1))
    }

    /// `$tag$`, where that begins here.
    fn tag(&self, at: usize) -> Option<Vec<u8>> {
        let mut end = at + 1;
        while self
            .at(end)
            .is_some_and(|byte| is_letter(byte) || (end > at + 1 && byte.is_ascii_digit()))
        {
            end += 1;
        }
        (self.at(end) == Some(b'$')).then(|| self.line.get(at..=end).unwrap_or_default().to_vec())
    }

    fn word(&mut self, at: usize) -> usize {
        let mut end = at + 1;
        while self.at(end).is_some_and(is_of_word) {
            end += 1;
        }
        let word = self.line.get(at..end).unwrap_or_default().to_ascii_lowercase();
        if word == b"e" && self.at(end) == Some(b'\'') {
            self.inside = Inside::Text { escapes: true };
            return self.take(at, end + 1);
        }
        if self.brackets == 0 {
            self.takes_rows |= word == b"stdin" && self.last_word == b"from";
            if self.words.len() < FIRST_WORDS {
                self.words.push(word.clone());
            }
            if self.makes_function() {
                match word.as_slice() {
                    b"begin" => self.bodies += 1,
                    b"case" if self.bodies > 0 => self.bodies += 1,
                    b"end" => self.bodies = self.bodies.saturating_sub(1),
                    _ => {}
                }
            }
            self.last_word = word;
        }
        self.take(at, end)
    }

    fn makes_function(&self) -> bool {
        let words: Vec<&[u8]> = self.words.iter().map(Vec::as_slice).collect();
        matches!(
            words.as_slice(),
            [b"create", b"function" | b"procedure", ..] | [b"create", b"or", b"replace", b"function" | b"procedure"]
        )
    }

    fn line_comment(&mut self, at: usize) -> Result<usize> {
        let comment = self.line.get(at..).unwrap_or_default().trim_ascii_end();
        if self.text.is_empty() {
            if comment == COMPLETE {
                self.is_complete = true;
            } else if comment == ALL {
                return Err(self
                    .error(
                        ErrorKind::Incompatible,
                        "it is of a whole cluster (pg_dumpall), which goes into several databases",
                    )
                    .with_hint("load it with psql into a new server; or take the part of one database out of it"));
            }
        }
        // As the server would: it ends a word.
        self.text.extend(if self.text.is_empty() { &b""[..] } else { &b"\n"[..] });
        Ok(self.line.len())
    }

    /// A backslash outside of texts: for `psql`, not for the server.
    fn command(&self, at: usize) -> Result<usize> {
        let rest = String::from_utf8_lossy(self.line.get(at..).unwrap_or_default()).into_owned();
        let command: String = rest.split_whitespace().next().unwrap_or_default().chars().take(20).collect();
        let alone = self.text.is_empty() && self.line.get(..at).unwrap_or_default().trim_ascii().is_empty();
        match command.as_str() {
            "\\restrict" | "\\unrestrict" if alone && rest.split_whitespace().count() == 2 => Ok(self.line.len()),
            "\\connect" | "\\c" => Err(self
                .error(ErrorKind::Refused, "it goes to another database with \\connect, and a restore is of one alone")
                .with_hint("it was made with `pg_dump --create` or by pg_dumpall: take a dump without that, or load it with psql into a new server")),
            _ => Err(self
                .error(ErrorKind::Refused, format!("it holds the command {command} for psql, which pg_dump does not write and which can do anything"))
                .with_hint("look at that line; where you trust the file, load it with psql into an empty database")),
        }
    }

    /// A statement ends before `end`.
    fn finish(&mut self, end: usize, taker: &mut dyn Taker) -> Result<()> {
        let mut text = std::mem::take(&mut self.text);
        let words = std::mem::take(&mut self.words);
        let takes_rows = std::mem::take(&mut self.takes_rows);
        self.last_word.clear();
        self.is_complete = false;
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        text.truncate(text.trim_ascii_end().len());
        let sql = String::from_utf8(text).map_err(|error| {
            self.error(ErrorKind::Incompatible, "a statement is not UTF-8")
                .with_source(error)
                .with_hint("the dump is in another encoding: load it with psql into a database of that encoding")
        })?;
        if words.first().is_some_and(|word| word == b"copy") && takes_rows {
            let rest = self.line.get(end..).unwrap_or_default();
            if !rest.trim_ascii().is_empty() {
                return Err(self.error(ErrorKind::Incompatible, "something follows COPY on its line"));
            }
            taker.begin_rows(&sql).map_err(|error| self.placed(error))?;
            self.rows(taker)?;
            self.line.clear();
            return Ok(());
        }
        if words.first().is_some_and(|word| word == b"set")
            && words.get(1).is_some_and(|word| word == b"standard_conforming_strings")
        {
            let value = sql.to_ascii_lowercase();
            self.standard_strings = !value.contains("off") && !value.contains("false");
        }
        taker.statement(&sql).map_err(|error| self.placed(error))
    }

    /// Where in the script something failed.
    fn placed(&self, error: Error) -> Error {
        let detail = format!("line {}: {}", self.number, error.detail());
        let placed = Error::new(error.kind(), "restore", self.subject, detail);
        placed.with_source(error)
    }

    /// Everything up to `\.`.
    fn rows(&mut self, taker: &mut dyn Taker) -> Result<()> {
        let mut piece = Vec::new();
        loop {
            if !self.next_line()? {
                return Err(self.cut("it ends in the middle of rows"));
            }
            if matches!(self.line.as_slice(), b"\\.\n" | b"\\.\r\n" | b"\\.") {
                break;
            }
            piece.extend_from_slice(&self.line);
            if piece.len() >= PIECE_BYTES {
                taker.rows(&piece).map_err(|error| self.placed(error))?;
                piece.clear();
            }
        }
        if !piece.is_empty() {
            taker.rows(&piece).map_err(|error| self.placed(error))?;
        }
        taker.end_rows().map_err(|error| self.placed(error))
    }

    fn end(self) -> Result<()> {
        let is_open = !matches!(self.inside, Inside::Nothing) || !self.text.trim_ascii().is_empty();
        if is_open {
            return Err(self.cut("it ends in the middle of a statement"));
        }
        if !self.is_complete {
            return Err(self.cut("its last line is missing, with which pg_dump says that the dump is complete"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
