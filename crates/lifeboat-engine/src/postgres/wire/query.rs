//! Simple queries: the only ones that the replication mode knows, and all values as text.

use bytes::Bytes;
use lifeboat_model::{Error, Result};

use super::Connection;
use super::error::broken;
use super::frame::{Body, Reader};

/// No answer to a simple query is larger, all rows together.
const LARGEST_ANSWER: usize = 64 << 20;

/// The rows of one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Values, absent where NULL.
    pub rows: Vec<Vec<Option<Bytes>>>,
}

impl ResultSet {
    /// A value of the first row, as text.
    #[must_use]
    pub fn first(&self, column: usize) -> Option<&str> {
        self.text(0, column)
    }

    /// A value as text; absent where it is NULL, not there or not UTF-8.
    #[must_use]
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        let value = self.rows.get(row)?.get(column)?.as_ref()?;
        std::str::from_utf8(value).ok()
    }

    /// Begins with a `RowDescription`.
    pub(in crate::postgres) fn described(body: Bytes) -> Result<Self> {
        let mut body = Body::new(body);
        let count = body.i16()?;
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(body.text()?);
            // Table, column, type, its size, its modifier, format.
            body.bytes(4 + 2 + 4 + 2 + 4 + 2)?;
        }
        Ok(Self {
            columns,
            rows: Vec::new(),
        })
    }

    /// Adds a `DataRow`.
    pub(in crate::postgres) fn add(&mut self, body: Bytes) -> Result<()> {
        let mut body = Body::new(body);
        let count = body.i16()?;
        let mut row = Vec::new();
        for _ in 0..count {
            let length = body.i32()?;
            row.push(match usize::try_from(length) {
                Ok(length) => Some(body.bytes(length)?),
                Err(_negative) => None,
            });
        }
        self.rows.push(row);
        Ok(())
    }
}

/// What ends a result set or a command.
pub(in crate::postgres) enum Answer {
    /// Rows, complete.
    Rows(ResultSet),
    /// A statement is done; without rows.
    Complete,
    /// `CopyInResponse`.
    CopyIn,
    /// `CopyOutResponse`.
    CopyOut,
    /// `CopyBothResponse`, which exists for physical and logical replication alone.
    CopyBoth,
    /// `ReadyForQuery`.
    Ready,
}

impl Reader {
    /// The next part of the answer to a command. An error of the server is returned at once: what follows it is `ReadyForQuery`, or the end of
    /// the connection.
    pub(in crate::postgres) async fn answer(&mut self, op: &'static str) -> Result<Answer> {
        let mut rows: Option<ResultSet> = None;
        let mut size = 0_usize;
        loop {
            let frame = self.frame().await?;
            size = size.saturating_add(frame.body.len());
            if size > LARGEST_ANSWER {
                return Err(broken(self.subject(), "an answer is larger than anything that was asked for"));
            }
            match (frame.tag, &mut rows) {
                (b'T', None) => rows = Some(ResultSet::described(frame.body).map_err(|error| self.in_place(error))?),
                (b'D', Some(rows)) => rows.add(frame.body).map_err(|error| self.in_place(error))?,
                (b'C', _) => return Ok(rows.map_or(Answer::Complete, Answer::Rows)),
                (b'I', None) => return Ok(Answer::Complete),
                (b'Z', None) => return Ok(Answer::Ready),
                (b'G', None) => return Ok(Answer::CopyIn),
                (b'H', None) => return Ok(Answer::CopyOut),
                (b'W', None) => return Ok(Answer::CopyBoth),
                _ => return Err(self.unexpected(op, frame)),
            }
        }
    }

    /// Reads until the server is ready for the next command; an error on the way is returned after that.
    pub(in crate::postgres) async fn ready(&mut self, op: &'static str) -> Result<()> {
        let mut failure: Option<Error> = None;
        loop {
            let frame = self.frame().await;
            let frame = match (frame, failure.take()) {
                (Ok(frame), before) => {
                    failure = before;
                    frame
                }
                // After a fatal error the connection ends; the error says more than its end.
                (Err(_end), Some(error)) => return Err(error),
                (Err(error), None) => return Err(error),
            };
            match frame.tag {
                b'Z' => return failure.map_or(Ok(()), Err),
                b'C' | b'D' | b'T' | b'c' | b'I' => {}
                _ if failure.is_none() => failure = Some(self.unexpected(op, frame)),
                _ => {}
            }
        }
    }
}

impl Connection {
    /// Runs a simple query and returns what has rows. After an error of the server the connection is ready again, unless the error ended it.
    pub async fn query(&mut self, op: &'static str, sql: &str) -> Result<Vec<ResultSet>> {
        self.writer.query(sql).await?;
        let mut all = Vec::new();
        loop {
            match self.reader.answer(op).await {
                Ok(Answer::Ready) => return Ok(all),
                Ok(Answer::Rows(rows)) => all.push(rows),
                Ok(Answer::Complete) => {}
                Ok(Answer::CopyIn | Answer::CopyOut | Answer::CopyBoth) => {
                    return Err(broken(
                        self.reader.subject(),
                        "the server began to copy although nothing of the kind was asked for",
                    ));
                }
                Err(error) => return Err(self.reader.settle(op, error).await),
            }
        }
    }
}

impl Reader {
    /// After an error that the server sent: reads on until it is ready, so that the next command finds it so, and returns the error.
    pub(in crate::postgres) async fn settle(&mut self, op: &'static str, error: Error) -> Error {
        let Some(said) = super::error::server_error(&error) else {
            return error;
        };
        if said.severity == "ERROR" {
            // If the connection ends meanwhile, the next command says so; this error is the one that matters.
            drop(self.ready(op).await);
        }
        error
    }
}
