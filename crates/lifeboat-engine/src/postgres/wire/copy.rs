//! Rows of COPY, out of a server and into one.
//!
//! A row is one message from the server, and may have up to a GiB: messages are handed on in pieces as they come, never gathered. Into the
//! server, messages may end anywhere in a row (PostgreSQL documentation, 55.2.6 "COPY Operations").

use bytes::{Buf, BufMut};
use lifeboat_model::Result;

use super::Connection;
use super::error::broken;
use super::frame::{Body, Reader};
use super::query::Answer;

/// Bytes that are gathered before they are sent.
const SENT_AT_ONCE: usize = 128 << 10;

/// What stands at the front of what has come.
enum Front {
    /// Enough was taken.
    Enough,
    /// Only the server knows.
    Nothing,
    /// Another message than rows.
    Other,
}

impl Reader {
    /// Moves rows that have come to the end of `out`, until there are `wanted` bytes in it.
    fn take_rows(&mut self, out: &mut Vec<u8>, wanted: usize) -> Result<Front> {
        let (mut at, mut left) = (0, self.copy_left);
        let front = loop {
            let here = self.buffer.get(at..).unwrap_or_default();
            if left > 0 {
                let count = left.min(here.len());
                out.extend_from_slice(here.get(..count).unwrap_or_default());
                (at, left) = (at + count, left - count);
                if left > 0 {
                    break Front::Nothing;
                }
            }
            if out.len() >= wanted {
                break Front::Enough;
            }
            let here = self.buffer.get(at..).unwrap_or_default();
            let Some((header, _)) = here.split_first_chunk::<5>() else {
                break Front::Nothing;
            };
            let [tag, length @ ..] = *header;
            if tag != b'd' {
                break Front::Other;
            }
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            let Some(body) = length.checked_sub(4) else {
                return Err(broken(
                    self.subject(),
                    "a message of rows says that it is shorter than its head",
                ));
            };
            (at, left) = (at + 5, body);
        };
        self.buffer.advance(at);
        self.copy_left = left;
        Ok(front)
    }

    /// Rows, as they come; `false` behind the last.
    async fn rows(&mut self, op: &'static str, out: &mut Vec<u8>, wanted: usize) -> Result<bool> {
        loop {
            match self.take_rows(out, wanted)? {
                Front::Enough => return Ok(true),
                Front::Nothing if !out.is_empty() => return Ok(true),
                Front::Nothing => self.fill().await?,
                Front::Other => {
                    let frame = self.any().await?;
                    match self.note(frame)? {
                        None => {}
                        Some(frame) if frame.tag == b'c' => return Ok(false),
                        Some(frame) => return Err(self.unexpected(op, frame)),
                    }
                }
            }
        }
    }

    /// What a COPY into the server ended with: how many rows it took.
    async fn taken(&mut self, op: &'static str) -> Result<u64> {
        let frame = self.frame().await?;
        if frame.tag != b'C' {
            return Err(self.unexpected(op, frame));
        }
        let said = Body::new(frame.body).text().map_err(|error| self.in_place(error))?;
        let rows = said.strip_prefix("COPY ").and_then(|rows| rows.parse().ok());
        rows.ok_or_else(|| broken(self.subject(), format_args!("a COPY ends with {said:?}")))
    }
}

impl Connection {
    /// Begins `COPY … TO STDOUT`. After an error of the server, here and below, the connection is ready again, unless the error ended it.
    pub async fn begin_copy_out(&mut self, op: &'static str, sql: &str) -> Result<()> {
        self.writer.query(sql).await?;
        match self.reader.answer(op).await {
            Ok(Answer::CopyOut) => Ok(()),
            Ok(_) => Err(broken(self.reader.subject(), "it does not answer a COPY with rows")),
            Err(error) => Err(self.reader.settle(op, error).await),
        }
    }

    /// Adds the next rows to `out`, which has at least one byte more then and about `wanted`; `false` behind the last, when the connection is ready for
    /// the next command. A row may come in several pieces.
    pub async fn copy_out(&mut self, op: &'static str, out: &mut Vec<u8>, wanted: usize) -> Result<bool> {
        match self.reader.rows(op, out, wanted).await {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.reader.ready(op).await?;
                Ok(false)
            }
            Err(error) => Err(self.reader.settle(op, error).await),
        }
    }

    /// Begins `COPY … FROM STDIN`.
    pub async fn begin_copy_in(&mut self, op: &'static str, sql: &str) -> Result<()> {
        self.writer.query(sql).await?;
        match self.reader.answer(op).await {
            Ok(Answer::CopyIn) => Ok(()),
            Ok(_) => Err(broken(self.reader.subject(), "it does not take rows for a COPY")),
            Err(error) => Err(self.reader.settle(op, error).await),
        }
    }

    /// Sends rows, which may end anywhere.
    pub async fn copy_in(&mut self, op: &'static str, bytes: &[u8]) -> Result<()> {
        // Far below what the length of a message can say.
        for piece in bytes.chunks(SENT_AT_ONCE) {
            self.writer.put(|buffer| {
                buffer.reserve(piece.len() + 5);
                buffer.put_u8(b'd');
                buffer.put_i32(i32::try_from(piece.len() + 4).unwrap_or(i32::MAX));
                buffer.put_slice(piece);
                Ok(())
            })?;
            if self.writer.buffer.len() >= SENT_AT_ONCE {
                self.send(op).await?;
            }
        }
        Ok(())
    }

    /// The last row was sent; returns how many the server took.
    pub async fn end_copy_in(&mut self, op: &'static str) -> Result<u64> {
        self.writer.put(|buffer| {
            postgres_protocol::message::frontend::copy_done(buffer);
            Ok(())
        })?;
        self.send(op).await?;
        match self.reader.taken(op).await {
            Ok(rows) => {
                self.reader.ready(op).await?;
                Ok(rows)
            }
            Err(error) => Err(self.reader.settle(op, error).await),
        }
    }

    /// Sends what waits, and listens: a server that refuses a row says so at once, and then takes what we still send for nothing.
    async fn send(&mut self, op: &'static str) -> Result<()> {
        let Self { reader, writer, .. } = self;
        let frame = tokio::select! {
            biased;
            frame = reader.frame() => frame?,
            sent = writer.flush() => return sent,
        };
        let error = reader.unexpected(op, frame);
        Err(reader.settle(op, error).await)
    }
}
