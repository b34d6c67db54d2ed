//! Cuts SQL text into statements, one at a time: a dump may be larger than memory, a statement may not.
//!
//! Knows as much of SQL as that takes: quotes, comments, and that a trigger has statements of its own inside.

use std::io::{self, BufRead};

/// SQLite takes no longer statement.
const STATEMENT_LIMIT_BYTES: usize = 1_000_000_000;

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    Quote(u8),
    LineComment,
    BlockComment,
}

/// Where a CREATE TRIGGER stands, which ends with `END;` and not with its first semicolon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// Nothing was said yet.
    Start,
    /// `EXPLAIN`, `CREATE` and `TEMP` were.
    Create,
    /// It is no trigger.
    No,
    /// It is one.
    Yes,
    /// Its last word was `END`, after a semicolon.
    End,
}

/// Statements of a text.
pub(super) struct Statements<R> {
    inner: R,
    inside: Inside,
    trigger: Trigger,
    /// The last byte that was no blank and no comment was a semicolon (inside a trigger).
    after_semicolon: bool,
    word: Vec<u8>,
    previous: u8,
    statement: Vec<u8>,
    /// Whether anything but blanks and comments stands in it.
    anything: bool,
}

impl<R: BufRead> Statements<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            inside: Inside::Nothing,
            trigger: Trigger::Start,
            after_semicolon: false,
            word: Vec::new(),
            previous: 0,
            statement: Vec::new(),
            anything: false,
        }
    }

    /// The next statement with its semicolon, and whether it has one; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(Vec<u8>, bool)>> {
        loop {
            let chunk = self.inner.fill_buf()?;
            if chunk.is_empty() {
                let rest = std::mem::take(&mut self.statement);
                let anything = std::mem::take(&mut self.anything);
                return Ok(anything.then_some((rest, false)));
            }
            let chunk = chunk.to_vec();
            let mut used = 0;
            let mut ended = false;
            for byte in &chunk {
                used += 1;
                self.statement.push(*byte);
                if self.step(*byte) {
                    ended = true;
                    break;
                }
            }
            self.inner.consume(used);
            if self.statement.len() > STATEMENT_LIMIT_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a statement is longer than SQLite takes",
                ));
            }
            if ended {
                self.trigger = Trigger::Start;
                let statement = std::mem::take(&mut self.statement);
                if std::mem::take(&mut self.anything) {
                    return Ok(Some((statement, true)));
                }
            }
        }
    }

    /// Takes one byte; true where a statement ends with it.
    fn step(&mut self, byte: u8) -> bool {
        let previous = std::mem::replace(&mut self.previous, byte);
        match self.inside {
            Inside::Quote(end) => {
                // A doubled quote leaves and enters again.
                if byte == end {
                    self.inside = Inside::Nothing;
                }
                return false;
            }
            Inside::LineComment => {
                if byte == b'\n' {
                    self.inside = Inside::Nothing;
                }
                return false;
            }
            Inside::BlockComment => {
                if previous == b'*' && byte == b'/' {
                    self.inside = Inside::Nothing;
                    self.previous = 0;
                }
                return false;
            }
            Inside::Nothing => {}
        }
        match (previous, byte) {
            (b'-', b'-') => {
                self.inside = Inside::LineComment;
                return false;
            }
            (b'/', b'*') => {
                self.inside = Inside::BlockComment;
                self.previous = 0;
                return false;
            }
            _ => {}
        }
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
            self.anything = true;
            self.word.push(byte);
            return false;
        }
        self.end_word();
        match byte {
            b'\'' | b'"' | b'`' => self.open(byte),
            b'[' => self.open(b']'),
            b';' => return self.semicolon(),
            // A sign of a comment or an operator: what it is shows with the next byte.
            b'-' | b'/' => {}
            _ if byte.is_ascii_whitespace() => {}
            _ => self.other(),
        }
        false
    }

    fn open(&mut self, end: u8) {
        self.other();
        self.inside = Inside::Quote(end);
    }

    fn other(&mut self) {
        self.anything = true;
        self.after_semicolon = false;
        self.trigger = match self.trigger {
            Trigger::Start | Trigger::Create => Trigger::No,
            Trigger::End => Trigger::Yes,
            same => same,
        };
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word);
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        self.trigger = match self.trigger {
            Trigger::Start if is("explain") => Trigger::Start,
            Trigger::Start if is("create") => Trigger::Create,
            Trigger::Create if is("temp") || is("temporary") => Trigger::Create,
            Trigger::Create if is("trigger") => Trigger::Yes,
            Trigger::Start | Trigger::Create => Trigger::No,
            Trigger::Yes if self.after_semicolon && is("end") => Trigger::End,
            Trigger::End => Trigger::Yes,
            same => same,
        };
        self.after_semicolon = false;
    }

    fn semicolon(&mut self) -> bool {
        match self.trigger {
            Trigger::Yes => {
                self.after_semicolon = true;
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<String> {
        let mut statements = Statements::new(io::BufReader::with_capacity(3, text.as_bytes()));
        let mut found = Vec::new();
        while let Some((statement, whole)) = statements.next().unwrap() {
            let text = String::from_utf8(statement).unwrap();
            found.push(format!("{}{}", text.trim(), if whole { "" } else { "…" }));
        }
        found
    }

    #[test]
    fn statements_end_where_sqlite_ends_them() {
        assert_eq!(cut("a;b;\n-- c;d\n ;;e"), ["a;", "b;", "e…"]);
        assert_eq!(
            cut("x ';' \";\" `;` [;] /* ; */ - 1; y"),
            ["x ';' \";\" `;` [;] /* ; */ - 1;", "y…"]
        );
        assert_eq!(cut("'it''s; one';2;"), ["'it''s; one';", "2;"]);
        let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON x BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; UPDATE y SET end=1; END;";
        assert_eq!(cut(&format!("{trigger}z;")), [trigger, "z;"]);
        assert_eq!(
            cut("CREATE TABLE trigger(x); BEGIN; END;"),
            ["CREATE TABLE trigger(x);", "BEGIN;", "END;"]
        );
        assert_eq!(cut(" \n-- nothing\n/* at all; */"), Vec::<String>::new());
    }
}
