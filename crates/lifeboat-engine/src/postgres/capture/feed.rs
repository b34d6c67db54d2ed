//! One stream of archives, split into files while it arrives.
//!
//! A thread of its own reads the connection and hands pieces over a bounded queue: what nobody takes is not asked for, and memory does not
//! grow with the cluster (INV-08). Files are taken one after the other, the pieces of one by several threads.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifeboat_io::flow::{PageChanges, PageSource, SEGMENT_BYTES};
use lifeboat_model::{Error, ErrorKind, Position, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::pages::{Checking, check_once};
use super::plan::FileInfo;
use crate::postgres::increment::{Begun, Header};
use crate::postgres::layout::Relation;
use crate::postgres::page::PAGE_BYTES;
use crate::postgres::replication::backup::{BaseBackup, Event};
use crate::postgres::tar::{self, Entry, Kind, Splitter};
use crate::postgres::wire::Notice;

const OP: &str = "back up from a stream";
/// Pieces of at most [`SEGMENT_BYTES`] that wait for whoever stores them.
const WAITING: usize = 8;
/// No manifest is longer: 64 million files.
const MANIFEST_BYTES: usize = 8 << 30;
/// Where tablespaces are in the data directory.
pub(super) const TABLESPACES: &str = "pg_tblspc";

/// What arrives.
pub(super) enum Message {
    Folder(FileInfo),
    Link(String, String),
    File(FileInfo, u64),
    /// The next bytes of the file; of pages [`SEGMENT_BYTES`] except at the end.
    Piece(Vec<u8>),
    End(Box<Ended>),
}

/// What the server said when all had been sent.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: Position,
    pub(super) manifest: Vec<u8>,
    pub(super) notices: Vec<Notice>,
}

/// The side that takes.
#[derive(Debug)]
pub(super) struct Feed {
    inner: Mutex<Inner>,
    /// Dropped with us: the thread stops wherever it waits.
    _stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    receiver: Receiver<Result<Message>>,
    /// The file that is being taken; others have had their turn.
    number: u64,
    offset: u64,
    remaining: u64,
    failed: Option<Error>,
}

impl Feed {
    /// Begins to read `backup`. `block_bytes` is the size of the server's pages: pieces are cut for it.
    pub(super) fn begin(backup: BaseBackup) -> Arc<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let (stop, stopped) = oneshot::channel();
        let runtime = Handle::current();
        let sending = sender.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "a thread that lives as long as the stream, and nobody awaits"
        )]
        drop(tokio::task::spawn_blocking(move || {
            let mut pump = Pump {
                sender,
                splitter: Splitter::default(),
                prefix: String::new(),
                piece: Vec::new(),
                is_ending: false,
            };
            let received = runtime.block_on(async {
                tokio::select! {
                    received = pump.run(backup) => received,
                    _ = stopped => Err(gone()),
                }
            });
            if let Err(error) = received {
                // Nobody listens any more where this fails.
                drop(sending.send(Err(error)));
            }
        }));
        Arc::new(Self {
            inner: Mutex::new(Inner {
                receiver,
                number: 0,
                offset: 0,
                remaining: 0,
                failed: None,
            }),
            _stop: stop,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message that is none of a file's pieces. Blocks.
    pub(super) fn next(&self) -> Result<Message> {
        let mut inner = self.lock();
        if inner.remaining > 0 {
            return Err(Error::new(ErrorKind::Bug, OP, "a file", "it was not read to its end"));
        }
        let message = inner.receive()?;
        if let Message::File(_, size_bytes) = &message {
            inner.number += 1;
            (inner.offset, inner.remaining) = (0, *size_bytes);
        }
        Ok(message)
    }

    /// The number of the file that [`Feed::next`] gave last.
    pub(super) fn number(&self) -> u64 {
        self.lock().number
    }

    /// The next piece of the file `number` and where it begins; `None` behind the last.
    fn piece(&self, number: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let mut inner = self.lock();
        if inner.number != number {
            let detail = "another one was begun before it was read to its end";
            return Err(Error::new(ErrorKind::Bug, OP, "a file", detail));
        }
        if inner.remaining == 0 {
            return Ok(None);
        }
        let Message::Piece(piece) = inner.receive()? else {
            return Err(Error::new(ErrorKind::Bug, OP, "a file", "something else came in the middle"));
        };
        let offset = inner.offset;
        inner.offset += piece.len() as u64;
        inner.remaining = inner.remaining.saturating_sub(piece.len() as u64);
        Ok(Some((offset, piece)))
    }

    /// All of the file that [`Feed::next`] gave last, where it is known to be short.
    pub(super) fn whole(&self, number: u64) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some((_, piece)) = self.piece(number)? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Reads past the file that [`Feed::next`] gave last.
    pub(super) fn skip(&self, number: u64) -> Result<()> {
        while self.piece(number)?.is_some() {}
        Ok(())
    }

    /// Why the stream ended early; whoever stored its files saw only that it did.
    pub(super) fn failure(&self) -> Option<Error> {
        self.lock().failed.as_ref().map(Error::duplicate)
    }
}

impl Inner {
    fn receive(&mut self) -> Result<Message> {
        if let Some(error) = &self.failed {
            return Err(error.duplicate());
        }
        let received = self.receiver.recv();
        let received = received.unwrap_or_else(|_| Err(Error::new(ErrorKind::Bug, OP, "the server", "nobody reads it")));
        received.inspect_err(|error| self.failed = Some(error.duplicate()))
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Interrupted, OP, "the server", "nobody wants the rest")
}

/// The side that reads the connection.
struct Pump {
    sender: SyncSender<Result<Message>>,
    splitter: Splitter,
    /// In front of the paths of the archive: nothing, or `pg_tblspc/OID/`.
    prefix: String,
    piece: Vec<u8>,
    is_ending: bool,
}

impl Pump {
    async fn run(&mut self, mut backup: BaseBackup) -> Result<()> {
        let mut manifest = Vec::new();
        loop {
            match backup.next().await? {
                Event::Archive { name, location } => self.archive(&name, location.is_some())?,
                Event::Manifest => self.manifest()?,
                Event::Data(data) if self.is_ending => {
                    if manifest.len() + data.len() > MANIFEST_BYTES {
                        return Err(broken("its manifest does not end"));
                    }
                    manifest.extend_from_slice(&data);
                }
                Event::Data(data) => self.data(&data)?,
                Event::Progress(_) => {}
                Event::End => break,
            }
        }
        self.end_archive()?;
        let (end, mut connection) = backup.finish().await?;
        let notices = connection.take_notices();
        // All has come: whether the server hears us say so changes nothing.
        drop(connection.close().await);
        self.send(Message::End(Box::new(Ended { end, manifest, notices })))
    }

    fn send(&self, message: Message) -> Result<()> {
        self.sender.send(Ok(message)).map_err(|_unsent| gone())
    }

    fn archive(&mut self, name: &str, is_tablespace: bool) -> Result<()> {
        self.end_archive()?;
        self.prefix = match name.strip_suffix(".tar") {
            Some("base") if !is_tablespace => String::new(),
            Some(oid) if is_tablespace && oid.parse::<u32>().is_ok() => format!("{TABLESPACES}/{oid}/"),
            _ => return Err(broken(format!("it sends an archive {name:?}"))),
        };
        Ok(())
    }

    fn end_archive(&mut self) -> Result<()> {
        std::mem::take(&mut self.splitter).finish()
    }

    fn manifest(&mut self) -> Result<()> {
        self.is_ending = true;
        self.end_archive()
    }

    fn data(&mut self, data: &[u8]) -> Result<()> {
        let Self {
            sender,
            splitter,
            prefix,
            piece,
            ..
        } = self;
        let send = |message| sender.send(Ok(message)).map_err(|_unsent| gone());
        splitter.push(data, |event| match event {
            tar::Event::Begin(entry) => send(message(prefix, entry)),
            tar::Event::Data(mut bytes) => {
                while !bytes.is_empty() {
                    if piece.capacity() == 0 {
                        piece.reserve_exact(SEGMENT_BYTES.min(bytes.len().next_power_of_two().max(1 << 15)));
                    }
                    let (now, later) = bytes.split_at(bytes.len().min(SEGMENT_BYTES - piece.len()));
                    piece.extend_from_slice(now);
                    bytes = later;
                    if piece.len() == SEGMENT_BYTES {
                        send(Message::Piece(std::mem::take(piece)))?;
                    }
                }
                Ok(())
            }
            tar::Event::End if piece.is_empty() => Ok(()),
            tar::Event::End => send(Message::Piece(std::mem::take(piece))),
        })
    }
}

fn message(prefix: &str, entry: Entry) -> Message {
    let path = format!("{prefix}{}", entry.path);
    let info = FileInfo {
        path: path.trim_end_matches('/').to_owned(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified_us: entry.modified_s.saturating_mul(1_000_000),
    };
    match entry.kind {
        Kind::File => Message::File(info, entry.size_bytes),
        Kind::Folder => Message::Folder(info),
        Kind::Link(target) => Message::Link(info.path, target),
    }
}

fn broken(detail: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Failed, OP, "the server", detail)
}

/// A file of pages, checked while they pass.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) feed: Arc<Feed>,
    pub(super) number: u64,
    pub(super) path: String,
    pub(super) size_bytes: u64,
    /// How, and the number of the file's first page in its relation.
    pub(super) checking: Option<(Checking, u32)>,
}

impl PageSource for Pages {
    fn page_size(&self) -> u32 {
        // 8,192.
        u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX)
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn next_segment(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>> {
        let Some((offset, piece)) = self.feed.piece(self.number)? else {
            return Ok(None);
        };
        *buffer = piece;
        if let Some((checking, first_block)) = &self.checking {
            check_once(checking, &self.path, *first_block, offset, buffer);
        }
        Ok(Some(offset))
    }
}

/// A file that came as an increment.
#[derive(Debug)]
pub(super) struct Changes {
    blocks: Stream,
    header: Header,
    taken: usize,
    path: String,
    checking: Option<(Checking, u32)>,
}

impl Changes {
    /// Reads the header of the increment `blocks`, which has `size_bytes`, of the file `path`.
    pub(super) fn begin(mut blocks: Stream, size_bytes: u64, path: &str, checking: Option<(Checking, u32)>) -> Result<Self> {
        let mut head = Vec::new();
        let header = loop {
            match Header::parse(path, &head)? {
                Begun::Header(header, _) => break header,
                Begun::Needs(length) => {
                    let before = head.len();
                    head.resize(length, 0);
                    let read = blocks.read_exact(head.get_mut(before..).unwrap_or_default());
                    read.map_err(|error| blocks.cause(path, error))?;
                }
            }
        };
        if header.increment_bytes() != size_bytes {
            let detail = format!(
                "it has {size_bytes} bytes, and its header speaks of {}",
                header.increment_bytes()
            );
            return Err(Error::new(ErrorKind::Corrupt, "read the increment", path, detail));
        }
        Ok(Self {
            blocks,
            header,
            taken: 0,
            path: path.to_owned(),
            checking,
        })
    }

    /// Whether the block, counted from the beginning of the file, is still the parent's.
    pub(super) fn is_old(&self, block: u32) -> bool {
        self.header.from_parent(block) && self.header.blocks().binary_search(&block).is_err()
    }
}

impl PageChanges for Changes {
    fn page_size(&self) -> u32 {
        // 8,192.
        u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX)
    }

    fn size_bytes(&self) -> u64 {
        u64::from(self.header.file_blocks()) * PAGE_BYTES as u64
    }

    fn kept_pages(&self) -> u64 {
        u64::from(self.header.kept_blocks())
    }

    fn next_page(&mut self, page: &mut Vec<u8>) -> Result<Option<u64>> {
        let Some(block) = self.header.blocks().get(self.taken).copied() else {
            return Ok(None);
        };
        page.resize(PAGE_BYTES, 0);
        let read = self.blocks.read_exact(page);
        read.map_err(|error| self.blocks.cause(&self.path, error))?;
        self.taken += 1;
        if let Some((checking, first_block)) = &self.checking {
            check_once(checking, &self.path, *first_block, u64::from(block) * PAGE_BYTES as u64, page);
        }
        Ok(Some(u64::from(block)))
    }
}

impl Stream {
    /// The server's own words about why reading `path` failed.
    fn cause(&self, path: &str, error: std::io::Error) -> Error {
        self.feed
            .failure()
            .unwrap_or_else(|| Error::io("read the increment", path, error))
    }
}

/// A file that is not made of pages.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) feed: Arc<Feed>,
    pub(super) number: u64,
    pub(super) piece: Vec<u8>,
    pub(super) at: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.piece.len() {
            let piece = self.feed.piece(self.number);
            // Its words are kept for the end.
            match piece.map_err(|error| std::io::Error::other(error.to_string()))? {
                Some((_, piece)) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.at += count;
        Ok(count)
    }
}

/// The number of the first page of `path` in its relation; `None` where it is not made of pages.
pub(super) fn first_block(path: &str) -> Option<u32> {
    Relation::parse(path).map(|relation| relation.first_block())
}
