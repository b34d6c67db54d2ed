//! Messages: one byte that says what it is, four for the length, then the body. Reading is safe to cancel: what has come stays in the buffer.

use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use lifeboat_model::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::{Notice, ServerError, broken, lost};
use super::{BoxIo, SILENCE};

/// No message that is taken whole is larger: log comes in 128 KiB, files in 32 KiB, history files are tiny. Rows of COPY may be, and come in pieces.
const LARGEST: usize = 16 << 20;
/// How much is read at once.
const CHUNK: usize = 256 << 10;
/// With room for so much there is no new buffer yet.
const ROOM: usize = 128 << 10;
/// How many notices wait to be taken.
const NOTICES: usize = 100;

/// A message of the server.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it is.
    pub tag: u8,
    /// What it says.
    pub body: Bytes,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Reader {
    io: ReadHalf<BoxIo>,
    pub(super) buffer: BytesMut,
    /// Bytes of a COPY message that have not come; see the module `copy`.
    pub(super) copy_left: usize,
    pub(in crate::postgres) silence: Duration,
    timer: Timer,
    pub(super) subject: String,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) notices: VecDeque<Notice>,
}

/// The sending half.
#[derive(Debug)]
pub struct Writer {
    io: WriteHalf<BoxIo>,
    /// What is not yet sent.
    pub(in crate::postgres) buffer: BytesMut,
    subject: String,
}

/// Both halves of a stream.
pub(super) fn halves(io: BoxIo, subject: &str) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(io);
    let reader = Reader {
        io: read,
        buffer: BytesMut::new(),
        copy_left: 0,
        silence: SILENCE,
        timer: Timer::default(),
        subject: subject.to_owned(),
        parameters: BTreeMap::new(),
        notices: VecDeque::new(),
    };
    let writer = Writer {
        io: write,
        buffer: BytesMut::new(),
        subject: subject.to_owned(),
    };
    (reader, writer)
}

/// One timer for all the waiting of a reader: it is set again when it has run down, and not for each wait. Thousands of those come in a second where each
/// commit waits for a follower.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

/// Silence is measured as timers are.
#[expect(
    clippy::disallowed_methods,
    reason = "a timeout is the runtime's business, and so is its clock"
)]
fn now() -> Instant {
    Instant::now()
}

impl Timer {
    /// Ready once it is that late.
    fn poll(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if now() >= until {
                return Poll::Ready(());
            }
            // It was set for an earlier wait.
            sleep.as_mut().reset(until);
        }
    }
}

impl Reader {
    /// Who is spoken to, for messages.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The next message but notices, notifications and reported settings, which may come at any time, inside COPY too.
    ///
    /// # Errors
    /// `Unreachable` where the connection is gone, `TimedOut` where the server is silent for too long, `Failed` where it is not the protocol.
    pub async fn frame(&mut self) -> Result<Frame> {
        loop {
            let frame = self.any().await?;
            if let Some(frame) = self.note(frame)? {
                return Ok(frame);
            }
        }
    }

    /// Takes what may come at any time, and gives the rest back.
    pub(super) fn note(&mut self, frame: Frame) -> Result<Option<Frame>> {
        match frame.tag {
            b'N' => {
                let notice = ServerError::parse(frame.body).map_err(|error| self.in_place(error))?;
                if self.notices.len() == NOTICES {
                    self.notices.pop_front();
                }
                self.notices.push_back(notice);
            }
            b'S' => {
                let mut body = Body::new(frame.body);
                let pair = body.text().and_then(|name| Ok((name, body.text()?)));
                let (name, value) = pair.map_err(|error| self.in_place(error))?;
                if self.parameters.len() < 1000 || self.parameters.contains_key(&name) {
                    self.parameters.insert(name, value);
                }
            }
            b'A' => {}
            _ => return Ok(Some(frame)),
        }
        Ok(None)
    }

    /// The next message, whatever it is.
    pub(super) async fn any(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.complete()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Waits until more has come.
    pub(super) async fn fill(&mut self) -> Result<()> {
        if self.buffer.capacity() - self.buffer.len() < ROOM {
            self.buffer.reserve(CHUNK);
        }
        let (timer, until) = (&mut self.timer, now() + self.silence);
        let mut read = pin!(self.io.read_buf(&mut self.buffer));
        let read = std::future::poll_fn(|context| match read.as_mut().poll(context) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => timer.poll(until, context).map(|()| None),
        });
        match read.await {
            Some(Ok(0)) => Err(lost(&self.subject, "the server closed the connection")),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(lost(&self.subject, &error).with_source(error)),
            None => Err(silent(&self.subject, self.silence)),
        }
    }

    /// Takes a message out of the buffer, if a whole one is there.
    fn complete(&mut self) -> Result<Option<Frame>> {
        let Some((header, _)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [tag, length @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(4..=LARGEST).contains(&length) || !tag.is_ascii_alphanumeric() {
            return Err(broken(
                &self.subject,
                format_args!("a message of the kind {tag:#04x} and {length} bytes came"),
            ));
        }
        if self.buffer.len() <= length {
            return Ok(None);
        }
        let mut whole = self.buffer.split_to(length + 1).freeze();
        whole.advance(5);
        Ok(Some(Frame { tag, body: whole }))
    }

    /// An error of reading a body, with who sent it.
    pub(in crate::postgres) fn in_place(&self, error: Error) -> Error {
        broken(&self.subject, error.detail())
    }

    /// The error for a message that has no place here; an error of the server says what it says.
    pub(in crate::postgres) fn unexpected(&self, op: &'static str, frame: Frame) -> Error {
        if frame.tag != b'E' {
            return broken(
                &self.subject,
                format_args!("a message of the kind {:?} came where none belongs", char::from(frame.tag)),
            );
        }
        match ServerError::parse(frame.body) {
            Ok(error) => error.into_error(op, &self.subject),
            Err(error) => self.in_place(error),
        }
    }
}

impl Writer {
    /// Sends what is in the buffer.
    ///
    /// # Errors
    /// `Unreachable` where the connection is gone, `TimedOut` where the server does not take it.
    pub async fn flush(&mut self) -> Result<()> {
        let sent = async {
            self.io.write_all_buf(&mut self.buffer).await?;
            self.io.flush().await
        };
        match tokio::time::timeout(SILENCE, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(&self.subject, &error).with_source(error)),
            Err(elapsed) => Err(silent(&self.subject, SILENCE).with_source(elapsed)),
        }
    }

    /// Sends what is in the buffer as far as that goes without waiting, and says whether all of it went. What is left is sent by the next flush.
    ///
    /// # Errors
    /// `Unreachable` where the connection is gone.
    pub(in crate::postgres) async fn flush_now(&mut self) -> Result<bool> {
        let subject = &self.subject;
        let mut sent = std::pin::pin!(async {
            self.io.write_all_buf(&mut self.buffer).await?;
            self.io.flush().await
        });
        let sent = std::future::poll_fn(|context| Poll::Ready(sent.as_mut().poll(context))).await;
        match sent {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(lost(subject, &error).with_source(error)),
            Poll::Pending => Ok(false),
        }
    }

    /// Sends a command.
    pub(in crate::postgres) async fn query(&mut self, sql: &str) -> Result<()> {
        self.put(|buffer| postgres_protocol::message::frontend::query(sql, buffer))?;
        self.flush().await
    }

    /// Puts a message into the buffer.
    pub(in crate::postgres) fn put(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        write(&mut self.buffer)
            .map_err(|error| Error::new(ErrorKind::Bug, "write a message to", &self.subject, &error).with_source(error))
    }

    pub(super) async fn terminate(&mut self) -> Result<()> {
        postgres_protocol::message::frontend::terminate(&mut self.buffer);
        self.flush().await
    }
}

fn silent(subject: &str, limit: Duration) -> Error {
    let seconds = limit.as_secs();
    Error::new(
        ErrorKind::TimedOut,
        "talk to PostgreSQL at",
        subject,
        format_args!("nothing went through the connection for {seconds} s"),
    )
    .with_hint("look whether the server and the network are alive; the same command can simply be run again")
}

/// Reads the parts of a body; every one is an error where it is not there.
#[derive(Debug)]
pub struct Body(Bytes);

impl Body {
    /// From the beginning.
    #[must_use]
    pub fn new(body: Bytes) -> Self {
        Self(body)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next two, as a number.
    pub fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// The next four.
    pub fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// The next eight.
    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// The next eight, without a sign.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A text up to a zero byte; what is not UTF-8 in it is replaced (messages before the encoding is agreed on).
    pub fn text(&mut self) -> Result<String> {
        let Some(end) = self.0.iter().position(|byte| *byte == 0) else {
            return Err(cut());
        };
        let text = self.0.split_to(end);
        self.0.advance(1);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<Bytes> {
        if self.0.len() < length {
            return Err(cut());
        }
        Ok(self.0.split_to(length))
    }

    /// Everything that is left.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.0
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(array) = self.0.first_chunk::<N>().copied() else {
            return Err(cut());
        };
        self.0.advance(N);
        Ok(array)
    }
}

fn cut() -> Error {
    Error::new(
        ErrorKind::Failed,
        "read a message of",
        "the server",
        "a message ends too early",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each wait has the whole time, however long ago the timer was set and whatever the caller did in between.
    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_beginning_of_each_wait() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut reader, _writer) = halves(Box::new(near), "a server");
        reader.silence = Duration::from_secs(10);
        for busy in [0, 1, 9, 10, 11, 300] {
            tokio::time::sleep(Duration::from_secs(busy)).await;
            let late = async {
                tokio::time::sleep(Duration::from_secs(9)).await;
                far.write_all(&[b'Z', 0, 0, 0, 5, b'I']).await.unwrap();
            };
            let (frame, ()) = tokio::join!(reader.frame(), late);
            assert_eq!(frame.unwrap().body, "I");
        }
        for limit in [10, 3, 20] {
            reader.silence = Duration::from_secs(limit);
            let began = now();
            let error = reader.frame().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let waited = began.elapsed().as_millis();
            assert!(
                (0..10).contains(&(waited - u128::from(limit) * 1000)),
                "{waited} ms instead of {limit} s"
            );
        }
    }
}
