//! Copying a running cluster: from the host that it runs on ([`Local`], mode *local* of `docs/postgres.md`), or in one stream ([`Stream`]).
//!
//! Between `pg_backup_start` and `pg_backup_stop` every file is read as it is; the log makes a consistent cluster of it. Files of pages go to
//! several readers each, the rest one after the other, `pg_control` last and whole. Nothing is written into the data directory. If we die, the
//! server notices that the session ended, and nothing is left behind.

pub mod counts;
mod either;
mod facts;
mod feed;
mod outside;
mod pace;
mod pages;
mod parent;
mod plan;
mod server;
mod stream;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_io::compute;
use lifeboat_io::flow::{PageChanges, PageSource};
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result};
use tokio_postgres::Client;

use super::control::{Control, FILE_BYTES};
use super::label::Label;
use super::layout;
use super::manifest::{ManifestWriter, WalRange};
pub use counts::Counts;
pub use either::Capture;
pub use facts::Facts;
use facts::Parts;
pub use pace::Pace;
pub use pages::BadPage;
use pages::{Checking, Findings, PageFile};
pub use parent::Parent;
pub use plan::FileInfo;
use plan::{Planned, Tree};
pub use server::Server;
pub use stream::{Stream, StreamOptions};

/// How often `pg_control` is read before its sum has to fit: the server writes it in one go, but not at once for everybody.
const CONTROL_LOOKS: u32 = 20;
/// Under this name configuration lies in the backup that is outside the data directory, followed by its path.
const OUTSIDE: &str = "outside";

/// What to copy, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory as this host sees it; `None`: where the server says.
    pub data_dir: Option<PathBuf>,
    /// What the backup is called in `backup_label`.
    pub label: String,
    /// Do not wait for the next checkpoint but make one now.
    pub fast: bool,
    /// How fast the data directory may be read.
    pub pace: Option<Arc<Pace>>,
}

/// A file of the backup.
#[derive(Debug)]
pub struct Item {
    /// How it is described.
    pub file: FileInfo,
    /// Its bytes.
    pub content: Content,
}

/// The bytes of an [`Item`].
pub enum Content {
    /// Pages, for several readers.
    Pages(Arc<dyn PageSource>),
    /// A stream.
    Stream(Box<dyn Read + Send>),
    /// What became of the pages of the backup before.
    Changes(Box<dyn PageChanges>),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pages(_) => "pages",
            Self::Stream(_) => "a stream",
            Self::Changes(_) => "changes",
        })
    }
}

/// What a finished capture knows.
#[derive(Debug)]
pub struct Captured {
    /// What is kept with the backup.
    pub facts: Facts,
    /// `backup_label` as the server gave it, to be stored as a file of the backup.
    pub label: Vec<u8>,
    /// `tablespace_map`, the same; empty where there are no tablespaces.
    pub tablespace_map: Vec<u8>,
    /// A manifest of what was read, which a later increment can be built on.
    pub manifest: Vec<u8>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Files that did not come as they have to: they are to be sent whole, in another backup. While there are any, this one must not count.
    pub again: Vec<String>,
}

/// A capture under way.
#[derive(Debug)]
pub struct Local {
    server: Server,
    control: Control,
    data_dir: PathBuf,
    start: Lsn,
    files: VecDeque<Planned>,
    tree: Tree,
    outside: Vec<String>,
    pace: Option<Arc<Pace>>,
    total_bytes: u64,
    findings: Arc<Findings>,
    /// Path and length of everything that was handed out; streams enter when they have been read.
    read: Arc<Mutex<Vec<(FileInfo, u64)>>>,
    handed_out: usize,
}

impl Local {
    /// Tells the server that a backup begins, and looks at everything there is. `client` has to stay connected until [`Local::finish`].
    ///
    /// Kind `Unreachable` where the data directory is not the server's own or cannot be read here: then stream.
    pub async fn begin(client: &Client, options: &Options) -> Result<Self> {
        let server = Server::ask(client).await?;
        let data_dir = options.data_dir.clone().unwrap_or_else(|| server.data_dir.clone());
        let (asked, place) = (server.clone(), data_dir.clone());
        let control = compute::run("look at a data directory", move || asked.prove_local(&place)).await?;
        let start = server.start(client, &options.label, options.fast).await?;
        // Once more: a server that was promoted a moment ago writes its new timeline with the checkpoint that the backup asked for.
        let looked = data_dir.clone();
        let control = compute::run("look at a data directory", move || {
            let again = read_control(&looked)?;
            if again.system_identifier == control.system_identifier {
                return Ok(again);
            }
            let detail = "another cluster took its place";
            Err(Error::new(
                ErrorKind::Unreachable,
                "read the data directory",
                looked.display(),
                detail,
            ))
        })
        .await?;
        let (place, configuration) = (data_dir.clone(), server.configuration.clone());
        let version_folder = format!("PG_{}_{}", server.major, control.catalog_version);
        let (mut tree, outside) = compute::run("list a data directory", move || {
            Ok((plan::look(&place, &version_folder)?, outside(&place, &configuration)?))
        })
        .await?;
        let mut files: VecDeque<Planned> = std::mem::take(&mut tree.files).into();
        let last = files.pop_back();
        let names = outside.iter().map(|planned| planned.file.path.clone()).collect();
        files.extend(outside);
        files.extend(last);
        Ok(Self {
            total_bytes: files.iter().map(|planned| planned.size_bytes).sum(),
            server,
            control,
            data_dir,
            start,
            files,
            tree,
            outside: names,
            pace: options.pace.clone(),
            findings: Arc::default(),
            read: Arc::default(),
            handed_out: 0,
        })
    }

    /// What the server says of itself.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The log has to be held from here on.
    #[must_use]
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// Bytes that were there when the backup began.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What must be the same for a later backup to be compared with this one.
    #[must_use]
    pub fn identity(&self) -> String {
        self.server.identity()
    }

    /// The next file; its bytes are to be read to their end. `None` after `pg_control`, the last. Blocks.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        while let Some(planned) = self.files.pop_front() {
            if planned.file.path == layout::CONTROL {
                return self.last_item(planned).map(Some);
            }
            if let Some(item) = self.item(&planned)? {
                self.handed_out += 1;
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Opens a file; `None` where it is gone.
    fn item(&self, planned: &Planned) -> Result<Option<Item>> {
        let place = &planned.place;
        let failed = |error| {
            Error::io("read", place.display(), error)
                .with_kind(ErrorKind::Unreachable)
                .with_hint("run as a user who may read the data directory: its owner, or root")
        };
        let file = match File::open(place) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let size_bytes = file.metadata().map_err(failed)?.len();
        let info = planned.file.clone();
        // Pages of another size than ours go as they are, unchecked.
        let usual = self.control.block_bytes as usize == super::page::PAGE_BYTES;
        let Some(first_block) = planned.first_block.filter(|_| usual) else {
            let stream = Counted {
                inner: file.take(size_bytes),
                file: info.clone(),
                count: 0,
                read: Arc::clone(&self.read),
                pace: self.pace.clone(),
            };
            return Ok(Some(Item {
                file: info,
                content: Content::Stream(Box::new(stream)),
            }));
        };
        self.note(&info, size_bytes);
        let checking = self.control.checkable().then(|| Checking {
            start: self.start,
            findings: Arc::clone(&self.findings),
        });
        let pages = PageFile::new(file, place, &info.path, first_block, size_bytes, checking).at(self.pace.clone());
        Ok(Some(Item {
            file: info,
            content: Content::Pages(Arc::new(pages)),
        }))
    }

    /// `pg_control`, whole and with a sum that fits.
    fn last_item(&mut self, planned: Planned) -> Result<Item> {
        let bytes = whole_control(&self.data_dir)?;
        self.note(&planned.file, bytes.len() as u64);
        self.handed_out += 1;
        Ok(Item {
            file: planned.file,
            content: Content::Stream(Box::new(std::io::Cursor::new(bytes))),
        })
    }

    fn note(&self, file: &FileInfo, size_bytes: u64) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.push((file.clone(), size_bytes));
    }

    /// Tells the server that everything was read. Any error means that what was read is not a backup.
    pub async fn finish(self, client: &Client) -> Result<Captured> {
        let read = std::mem::take(&mut *self.read.lock().unwrap_or_else(PoisonError::into_inner));
        if !self.files.is_empty() || read.len() != self.handed_out {
            return Err(Error::new(
                ErrorKind::Bug,
                "finish",
                "the capture of a cluster",
                "not every file was read to its end",
            ));
        }
        let stopped = self.server.stop(client).await?;
        let label = Label::parse(&stopped.label)?;
        if stopped.timeline != label.start.timeline || label.from_standby != self.server.standby {
            let detail = format!(
                "the server was promoted meanwhile: the backup began on timeline {} and ended on {}",
                label.start.timeline, stopped.timeline
            );
            return Err(Error::new(ErrorKind::Failed, "back up", "the cluster", detail)
                .with_hint("run the backup again: what was read cannot be restored"));
        }
        if label.start != self.position() {
            let detail = format!("it began at {}, and its label says {}", self.position(), label.start);
            return Err(Error::new(ErrorKind::Failed, "back up", "the cluster", detail)
                .with_hint("run the backup again: what was read cannot be restored"));
        }
        let (bad_pages, bad_count) = self.findings.judge(stopped.end);
        let warnings = damage_of(&bad_pages, bad_count, self.control.checkable());
        let range = WalRange {
            start: label.start,
            end: stopped.end,
        };
        let manifest = manifest(&self.server, &read, &range)?;
        let facts = Facts::new(&Parts {
            mode: "local",
            server: &self.server,
            control: &self.control,
            tree: &self.tree,
            outside: &self.outside,
            range: &range,
            from_standby: label.from_standby,
            bad_pages: &bad_pages,
            bad_page_count: bad_count,
        });
        Ok(Captured {
            facts,
            label: stopped.label,
            tablespace_map: stopped.tablespace_map,
            manifest,
            warnings,
            again: Vec::new(),
        })
    }

    /// The beginning, with its timeline.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.control.timeline, self.start)
    }
}

/// What there is to say about damaged pages.
fn damage_of(bad_pages: &[BadPage], bad_count: u64, checkable: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if bad_count > 0 {
        let first = bad_pages.first().map(|page| format!("block {} of {}", page.block, page.path));
        warnings.push(format!(
            "{bad_count} pages of the source are damaged, the first is {}; they are in this backup as they are, and the last backup \
             without them is kept",
            first.unwrap_or_default()
        ));
    }
    if !checkable {
        warnings.push("the cluster has no page checksums: damage on its disk cannot be noticed (pg_checksums --enable)".into());
    }
    warnings
}

/// A stream that writes down how long it was, when it has been read to its end.
struct Counted {
    inner: std::io::Take<File>,
    file: FileInfo,
    count: u64,
    read: Arc<Mutex<Vec<(FileInfo, u64)>>>,
    pace: Option<Arc<Pace>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        if let Some(pace) = &self.pace {
            pace.wait(count as u64);
        }
        if count == 0 && !buffer.is_empty() && !self.file.path.is_empty() {
            let file = std::mem::replace(
                &mut self.file,
                FileInfo {
                    path: String::new(),
                    mode: 0,
                    uid: 0,
                    gid: 0,
                    modified_us: 0,
                },
            );
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.push((file, self.count));
        }
        Ok(count)
    }
}

/// Reads `pg_control` until its own sum fits.
fn whole_control(data_dir: &Path) -> Result<Vec<u8>> {
    let place = data_dir.join(layout::CONTROL);
    let mut look = 0;
    loop {
        let bytes = std::fs::read(&place).map_err(|error| {
            Error::io("read", place.display(), error)
                .with_kind(ErrorKind::Unreachable)
                .with_hint("run as a user who may read the data directory: its owner, or root")
        })?;
        match Control::parse(&bytes) {
            Ok(_) if bytes.len() == FILE_BYTES => return Ok(bytes),
            Err(error) if look == CONTROL_LOOKS => return Err(error),
            _ if look == CONTROL_LOOKS => {
                let detail = format!("it has {} bytes instead of {FILE_BYTES}", bytes.len());
                return Err(Error::new(ErrorKind::Corrupt, "read", place.display(), detail));
            }
            _ => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
        look += 1;
    }
}

/// Files of pages below a data directory whose server is stopped.
#[derive(Debug)]
pub struct PagesOf {
    /// Path in the data directory, where it is, and the number of its first page in its relation; the longest first.
    pub files: Vec<(String, PathBuf, u32)>,
    /// Whether pages carry numbers that can be checked.
    pub checkable: bool,
}

/// Lists the files of pages below `data_dir`. Blocks.
pub fn pages_of(data_dir: &Path) -> Result<PagesOf> {
    let control = read_control(data_dir)?;
    let place = data_dir.join("PG_VERSION");
    let major = std::fs::read_to_string(&place).map_err(|error| Error::io("read", place.display(), error))?;
    let tree = plan::look(data_dir, &format!("PG_{}_{}", major.trim(), control.catalog_version))?;
    let files = tree.files.into_iter();
    Ok(PagesOf {
        files: files
            .filter_map(|planned| Some((planned.file.path, planned.place, planned.first_block?)))
            .collect(),
        checkable: control.checkable(),
    })
}

/// What the control file of `data_dir` says.
fn read_control(data_dir: &Path) -> Result<Control> {
    Control::parse(&whole_control(data_dir)?)
}

/// Configuration that lies outside the data directory: the files that the server names, and `conf.d` beside the first.
fn outside(data_dir: &Path, configuration: &[PathBuf]) -> Result<Vec<Planned>> {
    let mut places: Vec<PathBuf> = configuration
        .iter()
        .filter(|place| !place.starts_with(data_dir))
        .cloned()
        .collect();
    let conf_d = configuration
        .first()
        .and_then(|file| file.parent())
        .map(|folder| folder.join("conf.d"));
    if let Some(folder) = conf_d.filter(|folder| !folder.starts_with(data_dir) && folder.is_dir()) {
        let failed = |error| Error::io("read", folder.display(), error).with_kind(ErrorKind::Unreachable);
        for entry in folder.read_dir().map_err(failed)? {
            let place = entry.map_err(failed)?.path();
            if place.extension().is_some_and(|ending| ending == "conf") {
                places.push(place);
            }
        }
    }
    places.sort();
    places.dedup();
    let mut planned = Vec::new();
    for place in places {
        let meta = place
            .metadata()
            .map_err(|error| Error::io("back up", place.display(), error).with_kind(ErrorKind::Unreachable))?;
        let Some(path) = place.to_str() else { continue };
        planned.push(Planned {
            file: plan::info(&format!("{OUTSIDE}{path}"), &meta),
            size_bytes: meta.len(),
            place,
            first_block: None,
        });
    }
    Ok(planned)
}

fn manifest(server: &Server, read: &[(FileInfo, u64)], range: &WalRange) -> Result<Vec<u8>> {
    let mut writer = ManifestWriter::new(Vec::new(), (server.major >= 17).then_some(server.system_identifier))?;
    for (file, size_bytes) in read.iter().filter(|(file, _)| !file.path.starts_with(OUTSIDE)) {
        writer.file(file.path.as_bytes(), *size_bytes, &facts::gmt(file.modified_us))?;
    }
    writer.finish(std::slice::from_ref(range))
}
