//! Copying a running cluster from wherever it is, in one stream (mode *stream* of `docs/postgres.md`).
//!
//! The server lists, reads and orders the files (`BASE_BACKUP`); here they are split apart, checked and handed on in the shapes of
//! [`Local`](super::Local). What a stream cannot hold is said: links other than those of tablespaces, configuration that lies elsewhere and may
//! not be read through SQL.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Cursor;
use std::sync::Arc;

use lifeboat_io::flow::PageChanges;
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result};
use tokio_postgres::Client;

use super::facts::Parts;
use super::feed::{Changes, Ended, Feed, Message, Pages, Stream as Bytes, TABLESPACES, first_block};
use super::outside::through_sql as outside;
use super::pages::{BadPage, Checking, Findings};
use super::plan::{FileInfo, Tree};
use super::{Captured, Content, Facts, Item, Parent, Server, damage_of};
use crate::postgres::control::Control;
use crate::postgres::increment;
use crate::postgres::label::{Label, Tablespace};
use crate::postgres::layout::{self, Class};
use crate::postgres::manifest::{self, WalRange};
use crate::postgres::page::{PAGE_BYTES, SEGMENT_PAGES, Verdict, judge, position};
use crate::postgres::replication::backup::{ManifestChecksums, Request};
use crate::postgres::wire::Connection;

const LABEL: &str = "backup_label";
const MAP: &str = "tablespace_map";
/// A label or a map is not longer; `pg_control` has 8 KiB.
const SMALL_BYTES: u64 = 16 << 20;
/// Every cluster has files in these; where one has none, the folder is a link on the server.
const NEEDED: [&str; 5] = [
    "base/",
    "global/",
    "pg_multixact/members/",
    "pg_multixact/offsets/",
    "pg_xact/",
];
/// Every cluster has these folders.
const FOLDERS: [&str; 8] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_logical",
    "pg_multixact",
    "pg_stat",
    "pg_twophase",
    "pg_xact",
];
/// Bytes of a whole segment of a relation.
const SEGMENT_BYTES: u64 = SEGMENT_PAGES as u64 * PAGE_BYTES as u64;
/// Bad pages that are looked at once more, each with a query.
const SECOND_LOOKS: usize = 1000;

/// How to copy.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// What the backup is called in `backup_label`.
    pub label: String,
    /// Do not wait for the next checkpoint but make one now.
    pub fast: bool,
    /// Kibibytes a second at most, 32 to 1,048,576.
    pub max_rate_kib: Option<u32>,
}

/// A capture under way.
#[derive(Debug)]
pub struct Stream {
    server: Server,
    start: Position,
    /// Where the log of the parent began, where this is an increment.
    parents: Vec<Lsn>,
    /// Pages that are damaged in the parent, and those of them that this backup takes over.
    bad_in_parent: Vec<BadPage>,
    bad_taken_over: Vec<BadPage>,
    feed: Arc<Feed>,
    outside: VecDeque<(FileInfo, Vec<u8>)>,
    outside_names: Vec<String>,
    tree: Tree,
    control: Option<Control>,
    label: Option<Vec<u8>>,
    map: Vec<u8>,
    ended: Option<Box<Ended>>,
    total_bytes: u64,
    findings: Arc<Findings>,
    /// Path and length of every file that came.
    came: BTreeMap<String, u64>,
    /// Files that came as increments and are shorter than a whole segment.
    short: Vec<String>,
    /// The folders of the databases that there were when it began.
    databases: BTreeSet<String>,
    warnings: Vec<String>,
}

impl Stream {
    /// Asks for the stream. `client` is only asked questions, now and in [`Stream::finish`]; it must be connected to the same server.
    ///
    /// Kind `Incompatible` for a version before 14; `Refused` where the two connections lead to different clusters.
    pub async fn begin(client: &Client, connection: Connection, options: &StreamOptions) -> Result<Self> {
        Self::begin_on(client, connection, options, None).await
    }

    /// Asks for what changed since `parent`; of its files only the `takers` come as changes. Errors as [`Stream::begin`], and whatever the server
    /// has against it: then ask for everything, on another connection.
    pub async fn begin_increment(
        client: &Client,
        connection: Connection,
        options: &StreamOptions,
        parent: &Parent,
        takers: &BTreeSet<String>,
    ) -> Result<Self> {
        Self::begin_on(client, connection, options, Some((parent, takers))).await
    }

    async fn begin_on(
        client: &Client,
        mut connection: Connection,
        options: &StreamOptions,
        parent: Option<(&Parent, &BTreeSet<String>)>,
    ) -> Result<Self> {
        let server = Server::ask(client).await?;
        server.must_stream()?;
        let identity = connection.identify_system().await?;
        if identity.system != server.system_identifier {
            let detail = format!(
                "one connection leads to the cluster {}, another to {}",
                server.system_identifier, identity.system
            );
            return Err(Error::new(ErrorKind::Refused, "back up", connection.subject(), detail)
                .with_hint("name one host in the connection string"));
        }
        let mut request = Request::new(&options.label);
        request.fast_checkpoint = options.fast;
        request.max_rate_kib = options.max_rate_kib;
        request.manifest = Some(ManifestChecksums::None);
        request.progress = true;
        let (mut parents, mut bad_in_parent) = (Vec::new(), Vec::new());
        if let Some((parent, takers)) = parent {
            request.incremental = true;
            parents = parent.starts()?;
            bad_in_parent = parent.bad_pages();
            connection.upload_manifest(&mut parent.trimmed(takers)?.as_slice()).await?;
        }
        let (outside, warnings) = outside(client, &server).await;
        let databases = databases(client).await?;
        let backup = connection.base_backup(&request).await?;
        let mut tree = Tree::default();
        for tablespace in backup.tablespaces() {
            if let (Some(oid), Some(location)) = (tablespace.oid, &tablespace.location) {
                let location = location.clone().into_bytes();
                tree.tablespaces.push(Tablespace { oid, location });
            }
        }
        Ok(Self {
            start: backup.start(),
            total_bytes: backup.tablespaces().iter().filter_map(|one| one.size).sum(),
            feed: Feed::begin(backup),
            outside_names: outside.iter().map(|(file, _)| file.path.clone()).collect(),
            outside: outside.into(),
            server,
            parents,
            bad_in_parent,
            bad_taken_over: Vec::new(),
            tree,
            control: None,
            label: None,
            map: Vec::new(),
            ended: None,
            findings: Arc::default(),
            came: BTreeMap::new(),
            short: Vec::new(),
            databases,
            warnings,
        })
    }

    /// What the server says of itself.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The log has to be held from here on.
    #[must_use]
    pub fn position(&self) -> Position {
        self.start
    }

    /// Bytes that there were about, when the backup began.
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
        if let Some((file, bytes)) = self.outside.pop_front() {
            let content = Content::Stream(Box::new(Cursor::new(bytes)));
            return Ok(Some(Item { file, content }));
        }
        while self.ended.is_none() {
            match self.feed.next()? {
                Message::Folder(folder) => self.folder(folder),
                Message::Link(path, target) => {
                    if !path.starts_with(TABLESPACES) {
                        self.tree.links.push((path, target));
                    }
                }
                Message::File(file, size_bytes) => {
                    if let Some(item) = self.file(file, size_bytes)? {
                        return Ok(Some(item));
                    }
                }
                Message::Piece(_) => {
                    return Err(Error::new(
                        ErrorKind::Bug,
                        "back up",
                        "a file",
                        "its bytes came before its name",
                    ));
                }
                Message::End(ended) => self.ended = Some(ended),
            }
        }
        Ok(None)
    }

    fn folder(&mut self, folder: FileInfo) {
        // Of a tablespace the stream names only the folder of the version.
        let above = folder.path.rsplit_once('/').map(|(above, _)| above);
        if let Some(above) = above.filter(|above| above.strip_prefix("pg_tblspc/").is_some_and(|oid| !oid.contains('/'))) {
            let known = self.tree.folders.iter().any(|known| known.path == above);
            if !known {
                let above = above.to_owned();
                self.tree.folders.push(FileInfo {
                    path: above,
                    ..folder.clone()
                });
            }
        }
        if !folder.path.is_empty() && layout::classify(&folder.path) != Class::LeftOut {
            self.tree.folders.push(folder);
        }
    }

    /// A file of the stream as an item; `None` where it is not for the backup, or kept apart.
    fn file(&mut self, file: FileInfo, size_bytes: u64) -> Result<Option<Item>> {
        let number = self.feed.number();
        let path = file.path.as_str();
        if self.came.insert(path.to_owned(), size_bytes).is_some() {
            return Err(Error::new(ErrorKind::Failed, "back up", path, "the server sent it twice"));
        }
        if [LABEL, MAP, layout::CONTROL].contains(&path) {
            if size_bytes > SMALL_BYTES {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "back up",
                    path,
                    format!("it has {size_bytes} bytes"),
                ));
            }
            let bytes = self.feed.whole(number)?;
            match path {
                LABEL => self.label = Some(bytes),
                MAP => self.map = bytes,
                _ => {
                    self.control = Some(Control::parse(&bytes)?);
                    let content = Content::Stream(Box::new(Cursor::new(bytes)));
                    return Ok(Some(Item { file, content }));
                }
            }
            return Ok(None);
        }
        if layout::classify(path) != Class::Taken {
            self.feed.skip(number)?;
            return Ok(None);
        }
        let bytes = || Bytes {
            feed: Arc::clone(&self.feed),
            number,
            piece: Vec::new(),
            at: 0,
        };
        if let Some(target) = increment::target(path).filter(|target| first_block(target).is_some()) {
            if self.parents.is_empty() {
                return Err(Error::new(
                    ErrorKind::Failed,
                    "back up",
                    path,
                    "the server sent an increment, and none was asked for",
                ));
            }
            let changes = Changes::begin(bytes(), size_bytes, &target, self.checking(&target))?;
            let first = first_block(&target).unwrap_or(0);
            let bad = self.bad_in_parent.iter().filter(|page| page.path == target);
            let old = bad.filter(|page| changes.is_old(page.block.saturating_sub(first)));
            self.bad_taken_over.extend(old.cloned());
            if changes.size_bytes() < SEGMENT_BYTES {
                self.short.push(target.clone());
            }
            let file = FileInfo { path: target, ..file };
            let content = Content::Changes(Box::new(changes));
            return Ok(Some(Item { file, content }));
        }
        let is_pages = first_block(path).is_some() && self.server.block_bytes as usize == PAGE_BYTES;
        let content = if is_pages {
            Content::Pages(Arc::new(Pages {
                feed: Arc::clone(&self.feed),
                number,
                path: path.to_owned(),
                size_bytes,
                checking: self.checking(path),
            }))
        } else {
            Content::Stream(Box::new(bytes()))
        };
        Ok(Some(Item { file, content }))
    }

    /// How the pages of `path` are checked, and the number of its first one.
    fn checking(&self, path: &str) -> Option<(Checking, u32)> {
        let first_block = first_block(path).filter(|_block| self.server.checkable())?;
        let checking = Checking {
            start: self.start.lsn,
            findings: Arc::clone(&self.findings),
        };
        Some((checking, first_block))
    }

    /// Why the stream broke off, where it did.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.feed.failure()
    }

    /// Looks at what came. Any error means that what was read is not a backup; call it also after an error while storing, for its reason.
    pub async fn finish(mut self, client: &Client) -> Result<Captured> {
        if let Some(failure) = self.feed.failure() {
            return Err(failure);
        }
        let incomplete = || {
            Error::new(
                ErrorKind::Bug,
                "finish",
                "the capture of a cluster",
                "not every file was read to its end",
            )
        };
        let ended = self.ended.take().ok_or_else(incomplete)?;
        let label_bytes = self.label.take().ok_or_else(|| lacks(LABEL))?;
        let label = Label::parse(&label_bytes)?;
        let control = self.control.take().ok_or_else(|| lacks(layout::CONTROL))?;
        self.check_ends(&ended, &label, &control)?;
        self.check_list(&ended)?;
        self.check_folders(client).await?;
        let again = self.too_short();
        let (bad, count) = self.findings.judge(ended.end.lsn);
        let (mut bad_pages, mut bad_count) = self.second_look(client, bad, count).await;
        bad_count += self.bad_taken_over.len() as u64;
        bad_pages.append(&mut self.bad_taken_over);
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(said(&ended));
        warnings.extend(damage_of(&bad_pages, bad_count, control.checkable()));
        let range = WalRange {
            start: label.start,
            end: ended.end.lsn,
        };
        let facts = Facts::new(&Parts {
            mode: if self.parents.is_empty() { "stream" } else { "increment" },
            server: &self.server,
            control: &control,
            tree: &self.tree,
            outside: &self.outside_names,
            range: &range,
            from_standby: label.from_standby,
            bad_pages: &bad_pages,
            bad_page_count: bad_count,
        });
        Ok(Captured {
            facts,
            // Laid on its parent it is whole.
            label: Label::without_increment(&label_bytes),
            tablespace_map: self.map,
            manifest: ended.manifest,
            warnings,
            again,
        })
    }

    /// Every cluster has these folders and one for each of its databases; the server leaves out those that are links.
    async fn check_folders(&self, client: &Client) -> Result<()> {
        let came: BTreeSet<&str> = self.tree.folders.iter().map(|folder| folder.path.as_str()).collect();
        // One that was dropped meanwhile need not have come.
        let now = databases(client).await?;
        let databases = self.databases.intersection(&now).map(String::as_str);
        match FOLDERS.into_iter().chain(databases).find(|folder| !came.contains(folder)) {
            None => Ok(()),
            Some(folder) => Err(is_link(folder)),
        }
    }

    /// Files that came as increments, ended inside their segment, and have a segment behind them: the server would never look behind such an
    /// end. It says nothing of pages that were added and not written yet, the last of which may lie there; so such a file has to come whole.
    fn too_short(&mut self) -> Vec<String> {
        let mut short = std::mem::take(&mut self.short);
        short.retain(|path| {
            let Some((next, increment)) = next_segment(path) else {
                return false;
            };
            let came = self.came.get(&next).or_else(|| self.came.get(&increment));
            came.is_some_and(|size_bytes| *size_bytes > 0)
        });
        short
    }

    /// What the server said at the beginning and at the end is of one backup of one cluster on one timeline.
    fn check_ends(&self, ended: &Ended, label: &Label, control: &Control) -> Result<()> {
        if ended.end.timeline != self.start.timeline || label.start != self.start {
            let detail = format!(
                "it began at {} and ended at {}, and its label says {}",
                self.start, ended.end, label.start
            );
            return Err(Error::new(ErrorKind::Failed, "back up", "the cluster", detail)
                .with_hint("run the backup again: what was read cannot be restored"));
        }
        let from = label.incremental_from.map(|from| from.lsn);
        if from.is_none() != self.parents.is_empty() || from.is_some_and(|from| !self.parents.contains(&from)) {
            let detail = format!(
                "its label says that it continues {from:?}, and its parent began at {:?}",
                self.parents
            );
            return Err(Error::new(ErrorKind::Failed, "back up", "the cluster", detail));
        }
        if control.system_identifier != self.server.system_identifier {
            return Err(Error::new(
                ErrorKind::Refused,
                "back up",
                "the cluster",
                "its pg_control is that of another",
            ));
        }
        Ok(())
    }

    /// Compares what came with the server's own list, and with what every cluster has.
    fn check_list(&self, ended: &Ended) -> Result<()> {
        let differs = |path: &str, detail: String| {
            let path = if path.is_empty() { "the cluster" } else { path };
            Error::new(ErrorKind::Failed, "back up", path, detail).with_hint("run the backup again")
        };
        let mut listed = BTreeSet::new();
        manifest::read(ended.manifest.as_slice(), |file| {
            let path = String::from_utf8_lossy(&file.path).into_owned();
            match self.came.get(&path) {
                Some(size_bytes) if *size_bytes == file.size_bytes => drop(listed.insert(path)),
                came => {
                    let detail = format!("the server lists {} bytes of it, and sent {came:?}", file.size_bytes);
                    return Err(differs(&path, detail));
                }
            }
            Ok(())
        })?;
        if let Some(path) = self.came.keys().find(|path| !listed.contains(*path)) {
            return Err(differs(path, "the server sent it and does not list it".into()));
        }
        for folder in NEEDED {
            let there = self
                .came
                .range(folder.to_owned()..)
                .next()
                .is_some_and(|(path, _)| path.starts_with(folder));
            if !there {
                return Err(is_link(folder.trim_end_matches('/')));
            }
        }
        Ok(())
    }

    /// A page that was torn on its way was being written, and the log has it whole from the start on: it is fine if the server's copy fits by
    /// now and was written since. A copy that is older says that the page did not come as it was; then, and where the role may not look, doubt
    /// stands.
    async fn second_look(&self, client: &Client, bad: Vec<BadPage>, count: u64) -> (Vec<BadPage>, u64) {
        let (mut still, mut fine) = (Vec::new(), 0);
        let mut may_look = true;
        for (index, page) in bad.into_iter().enumerate() {
            if may_look && index < SECOND_LOOKS {
                match again(client, &page).await {
                    Ok(Some(lsn)) if lsn >= self.start.lsn => {
                        fine += 1;
                        continue;
                    }
                    Ok(_) => {}
                    Err(_) => may_look = false,
                }
            }
            still.push(page);
        }
        (still, count - fine)
    }
}

/// The position of a page that fits by now; none where it does not, or is gone.
async fn again(client: &Client, page: &BadPage) -> std::result::Result<Option<Lsn>, tokio_postgres::Error> {
    let in_file = i64::from(page.block - first_block(&page.path).unwrap_or(0).min(page.block));
    let length = i64::try_from(PAGE_BYTES).unwrap_or(8192);
    let sql = "select pg_read_binary_file($1, $2, $3, true)";
    let row = client.query_one(sql, &[&page.path, &(in_file * length), &length]).await?;
    let bytes: Option<Vec<u8>> = row.try_get(0)?;
    let whole = bytes.filter(|bytes| judge(bytes, page.block, Lsn(u64::MAX)) == Verdict::Fine);
    let page = whole.and_then(|bytes| <[u8; PAGE_BYTES]>::try_from(bytes).ok());
    Ok(page.map(|page| position(&page)))
}

/// The folders of the databases that lie in the data directory itself.
async fn databases(client: &Client) -> Result<BTreeSet<String>> {
    // 1663 is pg_default.
    let sql = "select oid::bigint from pg_database where dattablespace = 1663";
    let rows = client.query(sql, &[]).await.map_err(|error| {
        Error::new(
            ErrorKind::Unreachable,
            "ask for the databases of",
            "PostgreSQL",
            error.to_string(),
        )
    })?;
    Ok(rows.iter().map(|row| format!("base/{}", row.get::<_, i64>(0))).collect())
}

/// The names under which the segment behind the file `path` comes: whole, and as an increment.
fn next_segment(path: &str) -> Option<(String, String)> {
    let (folder, name) = path.rsplit_once('/')?;
    let (number, segment) = match name.split_once('.') {
        Some((number, segment)) => (number, segment.parse::<u32>().ok()?),
        None => (name, 0),
    };
    let next = format!("{number}.{}", segment + 1);
    Some((format!("{folder}/{next}"), format!("{folder}/{}{next}", increment::PREFIX)))
}

fn is_link(folder: &str) -> Error {
    let detail = "it did not come in the stream; on the server it is a link, which a stream leaves out";
    Error::new(ErrorKind::Refused, "back up", folder, detail)
        .with_hint("run the backup on the server's host, as a user who may read the data directory")
}

/// What the server warned of: links that it left out, for example.
fn said(ended: &Ended) -> Vec<String> {
    let warnings = ended.notices.iter().filter(|notice| notice.severity == "WARNING");
    warnings
        .map(|notice| format!("the server says: {}", notice.message))
        .collect()
}

fn lacks(path: &'static str) -> Error {
    Error::new(ErrorKind::Failed, "back up", path, "the server did not send it").with_hint("run the backup again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_behind_a_file_has_two_names() {
        let names = |path| next_segment(path).unwrap();
        let two = |whole: &str, increment: &str| (whole.to_owned(), increment.to_owned());
        assert_eq!(names("base/5/16384"), two("base/5/16384.1", "base/5/INCREMENTAL.16384.1"));
        assert_eq!(
            names("pg_tblspc/7/PG_18_2/5/1.9"),
            two("pg_tblspc/7/PG_18_2/5/1.10", "pg_tblspc/7/PG_18_2/5/INCREMENTAL.1.10")
        );
        assert_eq!(next_segment("base/5/1.x"), None);
    }
}
