//! `BASE_BACKUP` and `UPLOAD_MANIFEST`: all files of a cluster as tar archives in one stream (PostgreSQL documentation, 55.4).
//!
//! The two wire forms (up to 14: a COPY for each archive; from 15 on: one COPY with typed messages) come out as the same events. What is inside
//! the archives is not looked at here.

use std::time::Duration;

use bytes::Bytes;
use lifeboat_model::lsn::Position;
use lifeboat_model::{Error, ErrorKind, Result};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::commands::PARENTHESES;
use super::{position, quoted};
use crate::postgres::wire::error::broken;
use crate::postgres::wire::{Answer, Body, Connection, Frame, ResultSet, SILENCE};

const OP: &str = "take a base backup from";

/// The first major that can send increments.
const INCREMENTS: u32 = 17;

/// How the server hashes files for its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestChecksums {
    /// Not at all: only names and sizes.
    None,
    /// CRC-32C, which hardly slows the server.
    Crc32c,
    /// SHA-256, which does.
    Sha256,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Stands in `backup_label`.
    pub label: String,
    /// Whether the checkpoint is made at once instead of spread over minutes.
    pub fast_checkpoint: bool,
    /// Kibibytes a second, 32 to 1,048,576.
    pub max_rate_kib: Option<u32>,
    /// Whether a manifest comes, and with which checksums.
    pub manifest: Option<ManifestChecksums>,
    /// Whether the server checks page checksums; on a bad page it then fails at the end. We check them ourselves.
    pub verify_checksums: bool,
    /// Whether the server waits at the end until its own archive has the log.
    pub wait_for_archive: bool,
    /// Only what changed since the manifest that [`Connection::upload_manifest`] sent, on the same connection.
    pub incremental: bool,
    /// Nothing is sent but the progress; with `verify_checksums` a check of the whole cluster. From 15 on.
    pub blackhole: bool,
    /// Whether [`Event::Progress`] comes between the data.
    pub progress: bool,
    /// How long the checkpoint may take before the first answer.
    pub checkpoint_limit: Duration,
}

impl Request {
    /// A quick checkpoint, a manifest with CRC-32C, no checks by the server, no waiting.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            fast_checkpoint: true,
            max_rate_kib: None,
            manifest: Some(ManifestChecksums::Crc32c),
            verify_checksums: false,
            wait_for_archive: false,
            incremental: false,
            blackhole: false,
            progress: false,
            checkpoint_limit: Duration::from_secs(3600),
        }
    }

    /// The command as this major takes it.
    fn command(&self, major: u32) -> Result<String> {
        let refuse = |what: &str, since: u32| {
            let detail = format!("PostgreSQL {major} cannot {what}, which came with {since}");
            Err(Error::new(ErrorKind::Incompatible, OP, "this server", detail))
        };
        if self.blackhole && major < PARENTHESES {
            return refuse("check itself without sending", PARENTHESES);
        }
        if self.incremental && major < INCREMENTS {
            return refuse("send increments", INCREMENTS);
        }
        if self.max_rate_kib.is_some_and(|rate| !(32..=1_048_576).contains(&rate)) {
            let detail = "the rate must lie between 32 KiB/s and 1 GiB/s";
            return Err(Error::new(ErrorKind::ConfigInvalid, OP, "this server", detail));
        }
        if self.label.is_empty() || self.label.len() > 1024 || self.label.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorKind::Bug,
                OP,
                "this server",
                "the label must be one short line",
            ));
        }
        Ok(if major >= PARENTHESES {
            self.with_parentheses()
        } else {
            self.without()
        })
    }

    fn with_parentheses(&self) -> String {
        let mut words = vec![
            format!("LABEL {}", quoted(&self.label)),
            format!("CHECKPOINT '{}'", if self.fast_checkpoint { "fast" } else { "spread" }),
            format!("WAIT {}", self.wait_for_archive),
            format!("VERIFY_CHECKSUMS {}", self.verify_checksums),
            "TABLESPACE_MAP".to_owned(),
        ];
        if self.progress {
            words.push("PROGRESS".to_owned());
        }
        if let Some(rate) = self.max_rate_kib {
            words.push(format!("MAX_RATE {rate}"));
        }
        match self.manifest {
            None => words.push("MANIFEST 'no'".to_owned()),
            Some(checksums) => {
                words.push("MANIFEST 'yes'".to_owned());
                words.push(format!("MANIFEST_CHECKSUMS '{}'", checksums.word()));
            }
        }
        if self.incremental {
            words.push("INCREMENTAL".to_owned());
        }
        if self.blackhole {
            words.push("TARGET 'blackhole'".to_owned());
        }
        format!("BASE_BACKUP ({})", words.join(", "))
    }

    fn without(&self) -> String {
        let mut words = vec!["BASE_BACKUP".to_owned(), format!("LABEL {}", quoted(&self.label))];
        let mut flag = |on: bool, word: &str| {
            if on {
                words.push(word.to_owned());
            }
        };
        flag(self.progress, "PROGRESS");
        flag(self.fast_checkpoint, "FAST");
        flag(!self.wait_for_archive, "NOWAIT");
        if let Some(rate) = self.max_rate_kib {
            flag(true, &format!("MAX_RATE {rate}"));
        }
        flag(true, "TABLESPACE_MAP");
        flag(!self.verify_checksums, "NOVERIFY_CHECKSUMS");
        if let Some(checksums) = self.manifest {
            flag(true, &format!("MANIFEST 'yes' MANIFEST_CHECKSUMS '{}'", checksums.word()));
        }
        words.join(" ")
    }
}

impl ManifestChecksums {
    fn word(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha256 => "SHA256",
        }
    }
}

/// An archive that will come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The object identifier, none for the data directory itself, which comes last.
    pub oid: Option<u32>,
    /// Where it is on the server.
    pub location: Option<String>,
    /// How large it may be, in bytes, where progress was asked for.
    pub size: Option<u64>,
}

/// Something of the stream, in this order: an archive, its data, the next; the manifest, its data; the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An archive begins.
    Archive {
        /// `base.tar` or `16384.tar`.
        name: String,
        /// The place of the tablespace on the server; none for the data directory.
        location: Option<String>,
    },
    /// The manifest begins.
    Manifest,
    /// Bytes of what began last.
    Data(Bytes),
    /// So many bytes are done in all (with [`Request::progress`]).
    Progress(u64),
    /// All data has come: call [`BaseBackup::finish`].
    End,
}

/// A backup that runs.
#[derive(Debug)]
pub struct BaseBackup {
    connection: Connection,
    start: Position,
    tablespaces: Vec<Tablespace>,
    form: Form,
    has_manifest: bool,
    ended: bool,
}

/// How the archives come.
#[derive(Debug)]
enum Form {
    /// Up to 14: a COPY each; how many of them have begun, and whether one is open.
    Each { begun: usize, open: bool },
    /// From 15 on.
    Typed,
}

impl Connection {
    /// Sends the manifest of the parent, before a backup with [`Request::incremental`] on this connection. From 17 on.
    pub async fn upload_manifest(&mut self, manifest: &mut (impl AsyncRead + Unpin + Send)) -> Result<()> {
        const OP: &str = "send the parent's manifest to";
        if self.major() < INCREMENTS {
            let detail = format!(
                "PostgreSQL {} does not take increments, which came with {INCREMENTS}",
                self.major()
            );
            return Err(Error::new(ErrorKind::Incompatible, OP, self.subject(), detail));
        }
        self.writer.query("UPLOAD_MANIFEST").await?;
        match self.reader.answer(OP).await {
            Ok(Answer::CopyIn) => {}
            Ok(_) => return Err(broken(self.subject(), "the answer to UPLOAD_MANIFEST is not CopyInResponse")),
            Err(error) => return Err(self.reader.settle(OP, error).await),
        }
        let mut chunk = vec![0_u8; 64 << 10];
        loop {
            let read = manifest.read(&mut chunk).await;
            let read = read.map_err(|error| Error::io("read", "the parent's manifest", error))?;
            let Some(data) = chunk.get(..read).filter(|data| !data.is_empty()) else {
                break;
            };
            self.writer.put(|buffer| {
                frontend::CopyData::new(data)?.write(buffer);
                Ok(())
            })?;
            self.writer.flush().await?;
        }
        frontend::copy_done(&mut self.writer.buffer);
        self.writer.flush().await?;
        self.reader.ready(OP).await
    }

    /// Begins a backup. The server makes a checkpoint first, which takes as long as it takes.
    pub async fn base_backup(mut self, request: &Request) -> Result<BaseBackup> {
        let major = self.major();
        let command = request.command(major)?;
        self.writer.query(&command).await?;
        self.reader.silence = request.checkpoint_limit;
        let start = self.rows(OP).await?;
        let Some(start) = position(&start, 0, 1) else {
            return Err(broken(self.subject(), "the backup did not say where it starts"));
        };
        let rows = self.rows(OP).await?;
        let Some(tablespaces) = (0..rows.rows.len())
            .map(|row| tablespace(&rows, row))
            .collect::<Option<Vec<_>>>()
        else {
            return Err(broken(self.subject(), "the list of tablespaces cannot be read"));
        };
        self.reader.silence = SILENCE;
        let form = if major >= PARENTHESES {
            match self.reader.answer(OP).await? {
                Answer::CopyOut => Form::Typed,
                _ => return Err(broken(self.subject(), "the backup did not begin to copy")),
            }
        } else {
            Form::Each { begun: 0, open: false }
        };
        Ok(BaseBackup {
            connection: self,
            start,
            tablespaces,
            form,
            has_manifest: request.manifest.is_some(),
            ended: false,
        })
    }

    async fn rows(&mut self, op: &'static str) -> Result<ResultSet> {
        match self.reader.answer(op).await? {
            Answer::Rows(rows) => Ok(rows),
            _ => Err(broken(self.subject(), "a row was to come, and something else did")),
        }
    }
}

/// A row of the list; a number that is none makes it unreadable.
fn tablespace(rows: &ResultSet, row: usize) -> Option<Tablespace> {
    let number = |column: usize| rows.text(row, column).map(str::parse::<u64>).transpose().ok();
    Some(Tablespace {
        oid: number(0)?.map(u32::try_from).transpose().ok()?,
        location: rows.text(row, 1).map(str::to_owned),
        size: number(2)?.map(|kib| kib.saturating_mul(1024)),
    })
}

impl BaseBackup {
    /// Where recovery has to begin.
    #[must_use]
    pub fn start(&self) -> Position {
        self.start
    }

    /// What comes, the data directory last.
    #[must_use]
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// The next event. Safe to cancel.
    ///
    /// # Errors
    /// What the server says, at any time; what came until then is no backup.
    pub async fn next(&mut self) -> Result<Event> {
        if self.ended {
            return Ok(Event::End);
        }
        match self.form {
            Form::Typed => self.next_typed().await,
            Form::Each { begun, open } => self.next_of_each(begun, open).await,
        }
    }

    async fn next_typed(&mut self) -> Result<Event> {
        let frame = self.connection.reader.frame().await?;
        match frame {
            Frame { tag: b'd', body } => typed(body).map_err(|error| self.connection.reader.in_place(error)),
            Frame { tag: b'c', .. } => {
                self.ended = true;
                Ok(Event::End)
            }
            frame => Err(self.connection.reader.unexpected(OP, frame)),
        }
    }

    async fn next_of_each(&mut self, begun: usize, open: bool) -> Result<Event> {
        let reader = &mut self.connection.reader;
        if open {
            match reader.frame().await? {
                Frame { tag: b'd', body } => return Ok(Event::Data(body)),
                Frame { tag: b'c', .. } => self.form = Form::Each { begun, open: false },
                frame => return Err(reader.unexpected(OP, frame)),
            }
        }
        let archives = self.tablespaces.len();
        if begun == archives + usize::from(self.has_manifest) {
            self.ended = true;
            return Ok(Event::End);
        }
        match reader.answer(OP).await? {
            Answer::CopyOut => {
                self.form = Form::Each {
                    begun: begun + 1,
                    open: true,
                }
            }
            _ => return Err(broken(reader.subject(), "an archive was to come, and something else did")),
        }
        Ok(match self.tablespaces.get(begun) {
            None => Event::Manifest,
            Some(tablespace) => Event::Archive {
                name: tablespace
                    .oid
                    .map_or_else(|| "base.tar".to_owned(), |oid| format!("{oid}.tar")),
                location: tablespace.location.clone(),
            },
        })
    }

    /// After [`Event::End`]: where the backup is consistent from, and the connection, ready for a command.
    pub async fn finish(mut self) -> Result<(Position, Connection)> {
        while !self.ended {
            self.next().await?;
        }
        let rows = self.connection.rows(OP).await?;
        let Some(end) = position(&rows, 0, 1) else {
            return Err(broken(self.connection.subject(), "the backup did not say where it ends"));
        };
        self.connection.reader.ready(OP).await?;
        Ok((end, self.connection))
    }
}

/// A message inside the one COPY of 15 and newer.
fn typed(body: Bytes) -> Result<Event> {
    let mut body = Body::new(body);
    Ok(match body.u8()? {
        b'd' => Event::Data(body.rest()),
        b'p' => Event::Progress(body.u64()?),
        b'm' => Event::Manifest,
        b'n' => Event::Archive {
            name: body.text()?,
            location: Some(body.text()?).filter(|location| !location.is_empty()),
        },
        other => {
            let detail = format!("a message of the kind {other:#04x} came inside the backup");
            return Err(Error::new(ErrorKind::Failed, OP, "the server", detail));
        }
    })
}
