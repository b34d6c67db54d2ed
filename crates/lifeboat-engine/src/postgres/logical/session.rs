//! A session of one worker: it takes the leader's snapshot and copies rows, on a thread that blocks.
//!
//! Whoever digests and stores rows computes on the thread that receives them. Between two threads each piece would wake somebody.

use std::io::{self, Read};

use lifeboat_io::compute::Lane;
use lifeboat_model::{Error, ErrorKind, Result};

use super::digest::{Digest, Rows};
use super::{SETTINGS, SILENCE, quoted_text};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::sqlstate;
use crate::postgres::wire::{Connection, Mode, connect};

const OP: &str = "copy rows from";
const OP_IN: &str = "copy rows into";
/// Bytes that are taken from the connection at once.
const TAKEN_AT_ONCE: usize = 256 << 10;

/// One connection, and the thread that waits for it. To be made, used and dropped on a thread that may block.
#[derive(Debug)]
pub struct Worker {
    /// Above the lane: it is dropped first.
    connection: Connection,
    lane: Lane,
}

impl Worker {
    /// Connects, and sets everything under which text means the same everywhere.
    pub fn connect(info: &ConnInfo) -> Result<Self> {
        let lane = Lane::new()?;
        let connection = lane.wait(async {
            let mut connection = connect(info, Mode::Sql).await?;
            connection.set_silence(SILENCE);
            connection.query(OP, SETTINGS).await?;
            Ok::<_, Error>(connection)
        })?;
        Ok(Self { connection, lane })
    }

    /// Takes the snapshot that another session exported.
    pub fn take_snapshot(&mut self, snapshot: &str) -> Result<()> {
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            quoted_text(snapshot)
        );
        self.run(OP, &sql).map_err(|error| {
            // `invalid_parameter_value`: the server has no such snapshot any more.
            if sqlstate(&error) == Some("22023") {
                error.with_hint(
                    "the session that held the snapshot ended: look into the server's log for why, then run the backup again",
                )
            } else {
                error
            }
        })
    }

    /// Runs statements whose answers are of no interest.
    pub fn run(&mut self, op: &'static str, sql: &str) -> Result<()> {
        self.lane.wait(self.connection.query(op, sql)).map(drop)
    }

    /// The first value of the first row, as text.
    pub fn value(&mut self, op: &'static str, sql: &str) -> Result<Option<String>> {
        let answers = self.lane.wait(self.connection.query(op, sql))?;
        Ok(answers.first().and_then(|rows| rows.first(0)).map(str::to_owned))
    }

    /// Begins `COPY … TO STDOUT` in text format.
    pub fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        self.lane.wait(self.connection.begin_copy_out(OP, sql))?;
        Ok(CopyOut {
            worker: self,
            piece: Vec::with_capacity(TAKEN_AT_ONCE * 2),
            taken: 0,
            rows: Rows::default(),
            bytes: 0,
            is_over: false,
            failed: None,
        })
    }

    /// Reads all rows of `COPY … TO STDOUT` for their digest alone.
    pub fn digest(&mut self, sql: &str) -> Result<Digest> {
        let mut copy = self.copy_out(sql)?;
        while copy.next_piece()? {}
        copy.end().map(|(digest, _)| digest)
    }

    /// Begins `COPY … FROM STDIN`.
    pub fn begin_copy_in(&mut self, sql: &str) -> Result<()> {
        self.lane.wait(self.connection.begin_copy_in(OP_IN, sql))
    }

    /// Sends rows.
    pub fn copy_in(&mut self, bytes: &[u8]) -> Result<()> {
        self.lane.wait(self.connection.copy_in(OP_IN, bytes))
    }

    /// Ends it; returns how many rows the server took.
    pub fn end_copy_in(&mut self) -> Result<u64> {
        self.lane.wait(self.connection.end_copy_in(OP_IN))
    }
}

/// Rows of one COPY on their way, and their digest.
#[derive(Debug)]
pub struct CopyOut<'a> {
    worker: &'a mut Worker,
    piece: Vec<u8>,
    taken: usize,
    rows: Rows,
    bytes: u64,
    is_over: bool,
    /// What [`Read`] can only say as text.
    failed: Option<Error>,
}

impl CopyOut<'_> {
    /// Waits for the next piece; `false` behind the last.
    fn next_piece(&mut self) -> Result<bool> {
        self.piece.clear();
        self.taken = 0;
        if self.is_over {
            return Ok(false);
        }
        let Worker { connection, lane } = &mut *self.worker;
        self.is_over = !lane.wait(connection.copy_out(OP, &mut self.piece, TAKEN_AT_ONCE))?;
        self.rows.feed(&self.piece);
        self.bytes += self.piece.len() as u64;
        Ok(!self.piece.is_empty() || !self.is_over)
    }

    /// Why reading failed, where it did.
    pub fn failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    /// After the last piece: the digest of the rows and how many bytes they had.
    ///
    /// # Errors
    /// `Bug` where there is more to read, `Corrupt` where the last row does not end.
    pub fn end(self) -> Result<(Digest, u64)> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !self.is_over || self.taken < self.piece.len() {
            return Err(Error::new(ErrorKind::Bug, OP, "a table", "they were not read to their end"));
        }
        Ok((self.rows.end()?, self.bytes))
    }
}

impl Read for CopyOut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            match self.next_piece() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    let text = io::Error::other(error.to_string());
                    self.is_over = true;
                    self.failed = Some(error);
                    return Err(text);
                }
            }
        }
        let here = self.piece.get(self.taken..).unwrap_or_default();
        let count = here.len().min(buffer.len());
        let (Some(from), Some(to)) = (here.get(..count), buffer.get_mut(..count)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.taken += count;
        Ok(count)
    }
}
