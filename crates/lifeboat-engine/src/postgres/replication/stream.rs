//! `START_REPLICATION … PHYSICAL`: the log as it is written.
//!
//! Two halves, so that status updates leave in time however slowly the received bytes are dealt with. What is reported is the caller's to
//! decide (PG-02); this module only says it. Bytes arrive without a hole or they are an error.

use bytes::{BufMut, Bytes};
use lifeboat_model::lsn::{Lsn, Position, Timeline};
use lifeboat_model::{Error, ErrorKind, Result};

use super::{check_slot_name, position};
use crate::postgres::wire::error::broken;
use crate::postgres::wire::{Body, Connection, Frame, Reader, Writer};

/// Microseconds between 1970 and 2000, where PostgreSQL's time begins.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

const OP: &str = "stream the log from";

/// Where a timeline ended and which is the next that this server knows; its number need not be the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTimeline {
    /// The next timeline, and the position at which it left the old one.
    pub switch: Position,
}

/// What the server did with the request.
#[derive(Debug)]
pub enum Started {
    /// Log comes. (The log itself may still be gone: the server then says so as the first thing that is received, SQLSTATE 58P01.)
    Streaming(Stream),
    /// The timeline ended exactly at the requested position: there is nothing to copy.
    Ended(NextTimeline, Connection),
}

/// Something received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Log.
    Log {
        /// The position of the first byte.
        start: Lsn,
        /// The bytes.
        data: Bytes,
        /// How far the server has written.
        server_end: Lsn,
        /// When it was sent, by the server's clock, in microseconds since 1970.
        sent_at_us: i64,
    },
    /// A sign of life.
    Alive {
        /// How far the server has written.
        server_end: Lsn,
        /// When it was sent, as above.
        sent_at_us: i64,
        /// Whether the server wants a status at once, and may end the connection without one.
        reply: bool,
    },
    /// Nothing further comes on this timeline: call [`LogReader::end`].
    EndOfTimeline,
}

/// What the server is told: behind `flushed` its slot lets log go, and commits that wait for a synchronous standby go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Received and written.
    pub written: Lsn,
    /// On stable storage.
    pub flushed: Lsn,
    /// Our clock, in microseconds since 1970.
    pub now_us: i64,
    /// Whether the server is to answer at once.
    pub reply: bool,
}

/// A stream with both its halves.
#[derive(Debug)]
pub struct Stream {
    /// What comes.
    pub reader: LogReader,
    /// What goes.
    pub writer: StatusWriter,
}

/// The receiving half.
#[derive(Debug)]
pub struct LogReader {
    reader: Reader,
    about: crate::postgres::wire::About,
    /// Where the next byte belongs.
    next: Lsn,
    ended: bool,
}

/// The reporting half.
#[derive(Debug)]
pub struct StatusWriter(Writer);

impl Connection {
    /// Begins to stream from a position on a timeline, through a slot where one is named.
    ///
    /// Begin at the start of a segment: the server takes any position, but whoever checks segments needs them whole.
    ///
    /// # Errors
    /// `NotFound` where there is no such slot (42704), `Locked` where somebody else streams through it (55006), `Failed` with SQLSTATE XX000 where the
    /// position lies behind the end of that timeline in this server's history.
    pub async fn start_replication(mut self, slot: Option<&str>, from: Position) -> Result<Started> {
        let slot = match slot {
            Some(name) => {
                check_slot_name(name)?;
                format!("SLOT {name} ")
            }
            None => String::new(),
        };
        let command = format!("START_REPLICATION {slot}PHYSICAL {} TIMELINE {}", from.lsn, from.timeline);
        self.writer.query(&command).await?;
        use crate::postgres::wire::Answer;
        match self.reader.answer(OP).await? {
            Answer::CopyBoth => {
                let (reader, writer, about) = self.into_parts();
                Ok(Started::Streaming(Stream {
                    reader: LogReader {
                        reader,
                        about,
                        next: from.lsn,
                        ended: false,
                    },
                    writer: StatusWriter(writer),
                }))
            }
            Answer::Rows(rows) => {
                let Some(switch) = position(&rows, 1, 0) else {
                    return Err(broken(self.subject(), "the end of a timeline came without the next"));
                };
                self.reader.ready(OP).await?;
                Ok(Started::Ended(NextTimeline { switch }, self))
            }
            Answer::Complete | Answer::CopyIn | Answer::CopyOut | Answer::Ready => {
                Err(broken(self.subject(), "the answer to START_REPLICATION is no stream"))
            }
        }
    }
}

impl LogReader {
    /// The next thing that comes. Safe to cancel.
    ///
    /// # Errors
    /// What the server says (`NotFound` with SQLSTATE 58P01: it no longer has that log), `Unreachable` and `TimedOut` where the connection is lost,
    /// `Corrupt` where bytes are missing in between.
    pub async fn next(&mut self) -> Result<Received> {
        if self.ended {
            return Ok(Received::EndOfTimeline);
        }
        let frame = self.reader.frame().await?;
        match frame {
            Frame { tag: b'd', body } => self.received(body),
            Frame { tag: b'c', .. } => {
                self.ended = true;
                Ok(Received::EndOfTimeline)
            }
            // A server that shuts down says so when everything is sent (WalSndDone in walsender.c), and nothing behind it.
            Frame { tag: b'C', .. } => Err(Error::new(
                ErrorKind::Unreachable,
                OP,
                self.reader.subject(),
                "the server shut down",
            )),
            frame => Err(self.reader.unexpected(OP, frame)),
        }
    }

    /// Where the next byte belongs.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.next
    }

    fn received(&mut self, body: Bytes) -> Result<Received> {
        let parsed = parse(body).map_err(|error| self.reader.in_place(error))?;
        if let Received::Log { start, data, .. } = &parsed {
            if *start != self.next {
                let detail = format!("log from {start} came where {} follows", self.next);
                return Err(Error::new(ErrorKind::Corrupt, OP, self.reader.subject(), detail)
                    .with_hint("nothing of it was taken; the same command can simply be run again"));
            }
            self.next = start.plus(u64::try_from(data.len()).unwrap_or(u64::MAX));
        }
        Ok(parsed)
    }

    /// Ends the stream, from our side or after [`Received::EndOfTimeline`]; what still comes is dropped. Returns the next timeline, where this one
    /// ended, and the connection, ready for a command.
    pub async fn end(mut self, mut writer: StatusWriter) -> Result<(Option<NextTimeline>, Connection)> {
        postgres_protocol::message::frontend::copy_done(&mut writer.0.buffer);
        writer.0.flush().await?;
        while !self.ended {
            match self.next().await? {
                Received::Log { .. } | Received::Alive { .. } | Received::EndOfTimeline => {}
            }
        }
        use crate::postgres::wire::Answer;
        let mut next = None;
        loop {
            match self.reader.answer(OP).await? {
                Answer::Rows(rows) => match position(&rows, 1, 0) {
                    Some(switch) => next = Some(NextTimeline { switch }),
                    None => return Err(broken(self.reader.subject(), "the end of a timeline came without the next")),
                },
                Answer::Complete => {}
                Answer::Ready => return Ok((next, Connection::from_parts(self.reader, writer.0, self.about))),
                Answer::CopyIn | Answer::CopyOut | Answer::CopyBoth => {
                    return Err(broken(self.reader.subject(), "a copy began where the stream ends"));
                }
            }
        }
    }
}

impl StatusWriter {
    /// Sends a status. At least every ten seconds, and at once where [`Received::Alive`] asks for it. What was applied is never reported: it
    /// would have commits with `synchronous_commit = remote_apply` believe what nobody here does.
    pub async fn send(&mut self, status: Status) -> Result<()> {
        self.put(status)?;
        self.0.flush().await
    }

    /// Sends a status as far as that goes without waiting, and says whether all of it went. What is left goes with the next one.
    ///
    /// # Errors
    /// `Unreachable` where the connection is gone.
    pub async fn send_now(&mut self, status: Status) -> Result<bool> {
        self.put(status)?;
        self.0.flush_now().await
    }

    fn put(&mut self, status: Status) -> Result<()> {
        let mut body = [0_u8; 34];
        {
            let mut body = &mut body[..];
            body.put_u8(b'r');
            body.put_u64(status.written.0);
            body.put_u64(status.flushed.0);
            body.put_u64(0);
            body.put_i64(status.now_us.saturating_sub(POSTGRES_EPOCH_US));
            body.put_u8(u8::from(status.reply));
        }
        self.0.put(|buffer| {
            postgres_protocol::message::frontend::CopyData::new(&body[..])?.write(buffer);
            Ok(())
        })
    }
}

/// `XLogData` and the primary's keepalive.
fn parse(body: Bytes) -> Result<Received> {
    let mut body = Body::new(body);
    let unix = |us: i64| us.saturating_add(POSTGRES_EPOCH_US);
    match body.u8()? {
        b'w' => {
            let (start, server_end, sent) = (Lsn(body.u64()?), Lsn(body.u64()?), body.i64()?);
            Ok(Received::Log {
                start,
                server_end,
                sent_at_us: unix(sent),
                data: body.rest(),
            })
        }
        b'k' => {
            let (server_end, sent) = (Lsn(body.u64()?), body.i64()?);
            Ok(Received::Alive {
                server_end,
                sent_at_us: unix(sent),
                reply: body.u8()? != 0,
            })
        }
        other => {
            let detail = format!("a message of the kind {other:#04x} came inside the log");
            Err(Error::new(ErrorKind::Failed, OP, "the server", detail))
        }
    }
}

/// The timeline a stream goes on with.
impl NextTimeline {
    /// Its number.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.switch.timeline
    }
}
