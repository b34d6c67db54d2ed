//! The stored text of COPY, taken apart: rows, and their values.

use std::io::{Error as IoError, Write};

use lifeboat_model::{Env, Error, ErrorKind, Result};
use tokio::sync::mpsc;

/// Writes rows in some form.
pub(super) trait Form {
    /// A row begins.
    fn begin_row(&mut self, out: &mut dyn Write) -> Result<(), IoError>;
    /// Its next value; none is NULL.
    fn value(&mut self, column: usize, value: Option<&[u8]>, out: &mut dyn Write) -> Result<(), IoError>;
    /// A row ends.
    fn end_row(&mut self, out: &mut dyn Write) -> Result<(), IoError>;
}

/// What ends a conversion.
pub(super) enum Wrong {
    /// The text is not what it should be.
    Rows(Error),
    /// The form could not be written.
    Writing(IoError),
}

/// Takes rows apart as they come.
pub(super) struct Rows<'a, F> {
    /// The table, for messages.
    subject: &'a str,
    columns: usize,
    /// How many there were.
    count: u64,
    /// The beginning of a row whose end has not come yet.
    rest: Vec<u8>,
    value: Vec<u8>,
    form: F,
}

impl<'a, F: Form> Rows<'a, F> {
    pub(super) fn new(subject: &'a str, columns: usize, form: F) -> Self {
        Self {
            subject,
            columns,
            count: 0,
            rest: Vec::new(),
            value: Vec::new(),
            form,
        }
    }

    /// Takes all pieces.
    pub(super) fn take_all(&mut self, env: &Env, mut pieces: mpsc::Receiver<Vec<u8>>, out: &mut dyn Write) -> Result<(), Wrong> {
        while let Some(piece) = pieces.blocking_recv() {
            self.feed(&piece, out)?;
            env.progress.advance(piece.len() as u64);
        }
        Ok(())
    }

    /// Takes the next piece of the text.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut dyn Write) -> Result<(), Wrong> {
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            let Some(whole) = line.strip_suffix(b"\n") else {
                self.rest.extend_from_slice(line);
                continue;
            };
            if self.rest.is_empty() {
                self.row(whole, out)?;
            } else {
                let mut begun = std::mem::take(&mut self.rest);
                begun.extend_from_slice(whole);
                self.row(&begun, out)?;
            }
        }
        Ok(())
    }

    /// After the last piece.
    ///
    /// # Errors
    /// `Corrupt` where these are not all the rows that were captured.
    pub(super) fn end(&self, captured: u64) -> Result<()> {
        if self.count == captured && self.rest.is_empty() {
            return Ok(());
        }
        let detail = format!("it holds {} rows, and {captured} were captured", self.count);
        Err(Error::new(ErrorKind::Corrupt, "export", self.subject, detail))
    }

    fn row(&mut self, line: &[u8], out: &mut dyn Write) -> Result<(), Wrong> {
        self.count += 1;
        self.form.begin_row(out).map_err(Wrong::Writing)?;
        let mut columns = 0;
        if self.columns > 0 || !line.is_empty() {
            for field in line.split(|byte| *byte == b'\t') {
                if columns < self.columns {
                    self.field(columns, field, out).map_err(Wrong::Writing)?;
                }
                columns += 1;
            }
        }
        if columns != self.columns {
            let detail = format!(
                "row {} has {columns} values, and there are {} columns",
                self.count, self.columns
            );
            return Err(Wrong::Rows(Error::new(ErrorKind::Corrupt, "export", self.subject, detail)));
        }
        self.form.end_row(out).map_err(Wrong::Writing)
    }

    fn field(&mut self, column: usize, field: &[u8], out: &mut dyn Write) -> Result<(), IoError> {
        if field == b"\\N" {
            return self.form.value(column, None, out);
        }
        if !field.contains(&b'\\') {
            return self.form.value(column, Some(field), out);
        }
        let mut value = std::mem::take(&mut self.value);
        value.clear();
        let mut bytes = field.iter().copied();
        while let Some(byte) = bytes.next() {
            value.push(match (byte, byte == b'\\') {
                (byte, false) => byte,
                (_, true) => match bytes.next() {
                    Some(b'b') => 8,
                    Some(b't') => b'\t',
                    Some(b'n') => b'\n',
                    Some(b'v') => 11,
                    Some(b'f') => 12,
                    Some(b'r') => b'\r',
                    Some(other) => other,
                    None => b'\\',
                },
            });
        }
        let written = self.form.value(column, Some(&value), out);
        self.value = value;
        written
    }
}
