//! Writing log: a lineage, a session at least every day, files one after the other.
//!
//! Announcement → key file → files, each answered before the session's deadline. If we die: files that stand count; one that was put and not
//! answered may stand too, and the next writer finds it. Giving the same log again is no error and stores nothing twice; other bytes for a
//! position that is held are refused (PG-06). What the host keeps is in `log.json` of its state folder: which lineage, and the key for content ids.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_io::compute;
use lifeboat_model::wal::{Range, SegmentSize};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_store::Put;

use super::cleaner::LogCleaner;
use super::file::{Draft, LogHeader, MOST_REPLACED, Sealed, seal};
use super::listing::{LogListing, list_log};
use super::name::{LogFileKind, LogName};
use super::prepared::{PreparedLog, sound};
use super::record::{GapRecord, LineageRecord, put_gap, put_lineage};
use super::state::State;
use crate::id::{ComponentName, Lineage};
use crate::key::age::{Encryption, SessionKeys};
use crate::key::file::put_key_file;
use crate::key::instance::{Instance, Trust};
use crate::key::{Id, IdKeys, Scope, draw_secret};
use crate::prune::records::Place;
use crate::replicas::CopyOutcome;
use crate::repository::Repository;
use crate::session::{OpenSession, announce};
use crate::state::StateFolder;

/// A session is used so long, and then another one begins: half of what it is announced for.
const SESSION_AGE: Duration = Duration::from_secs(24 * 3600);

/// Why a lineage begins, and why it has a second record.
const FIRST: &str = "the first one";
const BEGUN_BEFORE: &str = "this host began it before, and its record was not found";

const UNCOMPARED: &str = "compare log with what is stored of";

/// What is written, and by whom.
#[derive(Debug)]
pub struct LogPlan {
    /// Of which component.
    pub component: ComponentName,
    /// Who signs.
    pub instance: Arc<Instance>,
    /// To whom the keys are encrypted.
    pub encryption: Encryption,
    /// Whose files count.
    pub trust: Trust,
    /// Where the host remembers things.
    pub state_dir: PathBuf,
    /// The cluster's system identifier.
    pub system: u64,
    /// The cluster's segments.
    pub segment: SegmentSize,
}

/// Into which lineage to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewLog {
    /// The newest of this cluster; a first one where there is none.
    Continue,
    /// The one that is written already, whatever else began meanwhile.
    Of(Lineage),
    /// A new one, because the source was restored to an earlier moment. Whoever decides that draws its id first, so that trying again begins
    /// no other.
    Begin {
        /// Its id.
        lineage: Lineage,
        /// Why, in words.
        why: String,
    },
}

/// A file that stands.
#[derive(Debug)]
pub struct Appended {
    /// Its name.
    pub name: LogName,
    /// Others of its kind and range that hold the same: of several stores each may have another one.
    pub others: Vec<LogName>,
    /// The frames that it replaces and names.
    pub replaces: Vec<LogName>,
    /// The same bytes stood there before; nothing was put.
    pub there: bool,
    /// In which stores it stands. Only where all that are required are among them may the source's bytes be given up (PG-03).
    pub stores: Vec<CopyOutcome>,
}

/// Writes log into one lineage. One for each component and host at a time.
#[derive(Debug)]
pub struct LogWriter {
    env: Env,
    repository: Repository,
    plan: LogPlan,
    lineage: Lineage,
    state: State,
    pub(super) ids: IdKeys,
    pub(super) id_check: Id,
    session: Option<Session>,
    /// Every file of the lineage that is known to stand.
    files: BTreeMap<LogName, Option<Known>>,
    folder: StateFolder,
}

#[derive(Debug)]
struct Session {
    open: OpenSession,
    keys: SessionKeys,
    number: u64,
}

/// What a file's header says of its content.
#[derive(Debug, Clone, Copy)]
struct Known {
    content: Id,
    id_check: Id,
}

impl From<&LogHeader> for Known {
    fn from(header: &LogHeader) -> Self {
        Self {
            content: header.content,
            id_check: header.id_check,
        }
    }
}

impl LogWriter {
    /// Takes the host's lock for this component's log, and finds or begins its lineage. Kind `Locked` while another process follows;
    /// `Refused` where the newest lineage is of another cluster (PG-05) or has segments of another size.
    pub async fn begin(env: &Env, repository: &Repository, plan: LogPlan, new: NewLog) -> Result<Self> {
        let words = "following the log";
        let folder = StateFolder::lock_for(&plan.state_dir, repository.id(), &plan.component, "log", words)?;
        let listing = list_log(repository, &plan.component, &plan.trust).await?;
        let state = State::read(&folder)?;
        let previous = listing.newest(plan.system).cloned();
        refuse_foreign(&plan, listing.lineages.last(), previous.as_ref())?;
        let (lineage, why) = choose(env, &new, &listing, state.as_ref(), plan.system)?;
        // A lost state costs that content can no longer be compared with what the lost one wrote; nothing else.
        let state = match state.filter(|state| state.system == plan.system) {
            Some(state) => state.of(env, lineage)?,
            None => State {
                system: plan.system,
                lineage,
                id_key: draw_secret(env)?,
                last: None,
                others: BTreeMap::new(),
            },
        };
        let ids = IdKeys::derive(&state.id_key);
        let files = listing.files(lineage).iter().map(|name| (*name, None)).collect();
        let writer = Self {
            env: env.clone(),
            repository: repository.clone(),
            id_check: ids.chunk(&[]),
            plan,
            lineage,
            state,
            ids,
            session: None,
            files,
            folder,
        };
        writer.state.save(&writer.folder)?;
        if let Some(why) = why {
            let record = LineageRecord {
                lineage,
                opened_us: after(&listing, env.clock.wall_us()),
                system: writer.plan.system,
                segment: writer.plan.segment,
                previous: previous.map(|record| record.lineage).filter(|previous| *previous != lineage),
                why,
            };
            put_lineage(&writer.place(), &writer.plan.instance, &record).await?;
        }
        Ok(writer)
    }

    /// Where it writes.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Appends log: `raw` are the bytes of `range`, which lies within one block. Frames inside it are replaced. `as_of_us`: everything that
    /// was committed before this time of the source lies before the range's end.
    ///
    /// # Errors
    /// `Refused` where other bytes are held for one of its positions (PG-06), and where a file that stands overlaps it without lying inside: that
    /// cannot be compared ([`LogWriter::fitting`]). After any other error it may stand all the same, and can be appended again.
    pub async fn append(&mut self, kind: LogFileKind, range: Range, raw: Vec<u8>, as_of_us: Option<i64>) -> Result<Appended> {
        let log = self.prepare(raw).await?;
        self.append_prepared(kind, range, log, as_of_us).await
    }

    /// The same with log that [`LogWriter::preparer`] has prepared.
    pub async fn append_prepared(
        &mut self,
        kind: LogFileKind,
        range: Range,
        log: PreparedLog,
        as_of_us: Option<i64>,
    ) -> Result<Appended> {
        sound(kind, range, &log.raw)?;
        // The lineage was opened anew meanwhile, and its content has other ids now.
        let log = if log.id_check == self.id_check {
            log
        } else {
            self.prepare(log.raw).await?
        };
        if let Some(name) = self.uncontained(range).await? {
            let detail = format!("{name} overlaps {range} and does not lie inside");
            return Err(
                Error::new(ErrorKind::Refused, UNCOMPARED, &self.plan.component, detail).with_hint(
                    "run the command again; if it stays, `lifeboat follow` begins a new lineage, and a new backup follows",
                ),
            );
        }
        if let Some(there) = self.compare(kind, range, &log.raw).await? {
            return Ok(there);
        }
        self.put_log(kind, range, log, as_of_us).await
    }

    /// Puts log once more although it stands: for a store that was away, or with a newer time. What lies inside is compared; of what it lies inside
    /// of itself, the caller has seen that it is the same.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub async fn append_again(
        &mut self,
        kind: LogFileKind,
        range: Range,
        raw: Vec<u8>,
        as_of_us: Option<i64>,
    ) -> Result<Appended> {
        sound(kind, range, &raw)?;
        self.compare(kind, range, &raw).await?;
        let log = self.prepare(raw).await?;
        self.put_log(kind, range, log, as_of_us).await
    }

    /// The parts of `range` that can be appended. What is left out is held by files that reach over an end of it: no one can compare them without
    /// the private key, and other bytes for what they hold are not to be stored (PG-06).
    pub async fn fitting(&mut self, range: Range) -> Result<Vec<Range>> {
        let mut fitting = Vec::new();
        let mut parts = vec![range];
        while let Some(part) = parts.pop() {
            match self.uncontained(part).await? {
                None => fitting.push(part),
                Some(name) => {
                    let (before, behind) = (name.range.start.min(part.end), name.range.end.max(part.start));
                    parts.push(Range::new(part.timeline, behind, part.end));
                    parts.push(Range::new(part.timeline, part.start, before));
                    parts.retain(|part| !part.is_empty());
                }
            }
        }
        Ok(fitting)
    }

    /// A file that fits and overlaps `range`, but does not lie inside.
    async fn uncontained(&mut self, range: Range) -> Result<Option<LogName>> {
        let concerned =
            |name: &&LogName| name.kind != LogFileKind::History && name.range.overlaps(&range) && !range.contains(&name.range);
        let names: Vec<LogName> = self.files.keys().filter(concerned).copied().collect();
        for name in names {
            if self.known(&name).await?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    async fn put_log(&mut self, kind: LogFileKind, range: Range, log: PreparedLog, as_of_us: Option<i64>) -> Result<Appended> {
        let replaces = self.replaced_by(range);
        let hashes = replaces.iter().map(|name| name.hash).collect();
        let name = self.put(kind, range, log, as_of_us, hashes).await?;
        Ok(self.appended(name, replaces, false))
    }

    /// Stores the history file of a timeline, as the server gave it.
    ///
    /// # Errors
    /// `Refused` where another one is stored for that timeline (PG-06).
    pub async fn append_history(&mut self, timeline: Timeline, text: Vec<u8>) -> Result<Appended> {
        lifeboat_model::wal::History::parse(timeline, &String::from_utf8_lossy(&text))?;
        let range = Range::new(timeline, Lsn::INVALID, Lsn::INVALID);
        if let Some(there) = self.compare(LogFileKind::History, range, &text).await? {
            return Ok(there);
        }
        let log = self.prepare(text).await?;
        let name = self.put(LogFileKind::History, range, log, None, Vec::new()).await?;
        Ok(self.appended(name, Vec::new(), false))
    }

    /// Stores a history file once more although it stands: for a store that was away.
    pub async fn append_history_again(&mut self, timeline: Timeline, text: Vec<u8>) -> Result<Appended> {
        let range = Range::new(timeline, Lsn::INVALID, Lsn::INVALID);
        let log = self.prepare(text).await?;
        let name = self.put(LogFileKind::History, range, log, None, Vec::new()).await?;
        Ok(self.appended(name, Vec::new(), false))
    }

    /// Writes down that log is gone for good, before any log behind it is appended (PG-08).
    pub async fn record_gap(&self, range: Range, why: &str) -> Result<GapRecord> {
        let record = GapRecord {
            lineage: self.lineage,
            range,
            found_us: self.env.clock.wall_us(),
            why: why.to_owned(),
        };
        put_gap(&self.place(), &self.plan.instance, &record).await?;
        Ok(record)
    }

    /// Deletes the frames that `by` replaces: [`LogCleaner::drop_replaced`], while nothing is written. Returns how many went.
    pub async fn drop_replaced(&mut self, by: &Appended) -> Result<u64> {
        let gone = self.cleaner().drop_replaced(by).await?;
        self.forget(&gone);
        Ok(gone.len() as u64)
    }

    /// Whoever deletes frames beside this writer; what went has to be told with [`LogWriter::forget`].
    #[must_use]
    pub fn cleaner(&self) -> LogCleaner {
        LogCleaner {
            repository: self.repository.clone(),
            component: self.plan.component.clone(),
            trust: self.plan.trust.clone(),
            lineage: self.lineage,
        }
    }

    /// Files that do not stand any more.
    pub fn forget(&mut self, gone: &[LogName]) {
        for name in gone {
            self.files.remove(name);
        }
    }

    fn appended(&self, name: LogName, replaces: Vec<LogName>, there: bool) -> Appended {
        Appended {
            name,
            others: Vec::new(),
            replaces,
            there,
            stores: self.repository.copies(),
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            repository: &self.repository,
            component: &self.plan.component,
            trust: &self.plan.trust,
        }
    }

    /// Compares what is to be appended with everything that stands of it. Returns those of the same kind and range that hold the same.
    async fn compare(&mut self, kind: LogFileKind, range: Range, raw: &[u8]) -> Result<Option<Appended>> {
        let is_history = kind == LogFileKind::History;
        let concerned = |name: &LogName| match name.kind {
            LogFileKind::History => is_history && name.range == range,
            LogFileKind::Piece | LogFileKind::Frame => !is_history && name.range.overlaps(&range),
        };
        let names: Vec<LogName> = self.files.keys().filter(|name| concerned(name)).copied().collect();
        let mut same = Vec::new();
        for name in names {
            let Some(known) = self.known(&name).await? else { continue };
            if known.id_check != self.id_check || !(is_history || range.contains(&name.range)) {
                continue;
            }
            let at = usize::try_from(name.range.start.since(range.start)).unwrap_or(usize::MAX);
            let length = if is_history {
                raw.len()
            } else {
                usize::try_from(name.range.bytes()).unwrap_or(usize::MAX)
            };
            let part = raw.get(at..at.saturating_add(length)).unwrap_or_default();
            if self.ids.chunk(part) != known.content {
                return Err(self.other_bytes(&name));
            }
            if name.kind == kind && name.range == range {
                same.push(name);
            }
        }
        Ok(same.pop().map(|name| Appended {
            others: same,
            ..self.appended(name, Vec::new(), true)
        }))
    }

    /// What a file's header says of its content; none for one that does not fit or has gone: it counts for nothing.
    async fn known(&mut self, name: &LogName) -> Result<Option<Known>> {
        if let Some(Some(known)) = self.files.get(name) {
            return Ok(Some(*known));
        }
        match self.cleaner().reader().header(name).await {
            Ok(header) => {
                let known = Known::from(&header);
                self.files.insert(*name, Some(known));
                Ok(Some(known))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound
                ) =>
            {
                self.files.remove(name);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn other_bytes(&self, name: &LogName) -> Error {
        let detail = format!("other bytes are held for it already, in {name}");
        Error::new(ErrorKind::Refused, "append log of", &self.plan.component, detail)
            .with_hint("the source was set back to an earlier moment, or another cluster writes under this name; `lifeboat follow` begins a new lineage, and a new backup follows")
    }

    /// The frames inside `range` that were compared and hold the same, as many as one file may name.
    fn replaced_by(&self, range: Range) -> Vec<LogName> {
        let inside = |name: &LogName| name.kind == LogFileKind::Frame && range.contains(&name.range);
        let compared = self
            .files
            .iter()
            .filter(|(name, known)| inside(name) && known.is_some_and(|known| known.id_check == self.id_check));
        compared.map(|(name, _)| *name).take(MOST_REPLACED).collect()
    }

    /// Seals and puts a file in an open session; once more in a new session where the deadline passed meanwhile.
    async fn put(
        &mut self,
        kind: LogFileKind,
        range: Range,
        log: PreparedLog,
        as_of_us: Option<i64>,
        replaces: Vec<[u8; 32]>,
    ) -> Result<LogName> {
        let log = Arc::new(log);
        let mut late = None;
        for _ in 0..2 {
            self.ensure_session().await?;
            let sealed = self.seal(kind, range, Arc::clone(&log), as_of_us, replaces.clone()).await?;
            let key = sealed.name.key(&self.plan.component, self.lineage)?;
            let known = Known {
                content: sealed.content,
                id_check: self.id_check,
            };
            // It may stand although the answer is an error: it is compared with from then on, and counts only once it is answered.
            match self.repository.store().put(&key, Bytes::from(sealed.bytes)).await? {
                Put::Created | Put::AlreadyThere => {}
            }
            let Some(session) = &mut self.session else { continue };
            session.number += 1;
            self.state.last = Some(sealed.name.hash);
            match session.open.check_deadline("append the log of", &self.plan.component) {
                Ok(()) => {
                    self.files.insert(sealed.name, Some(known));
                    return Ok(sealed.name);
                }
                // Its key may be on its way out: what was put does not count for us.
                Err(error) => {
                    self.session = None;
                    late = Some(error);
                }
            }
        }
        Err(late.unwrap_or_else(|| Error::new(ErrorKind::Bug, "append log of", &self.plan.component, "it was not tried")))
    }

    async fn seal(
        &self,
        kind: LogFileKind,
        range: Range,
        log: Arc<PreparedLog>,
        as_of_us: Option<i64>,
        replaces: Vec<[u8; 32]>,
    ) -> Result<Sealed> {
        let Some(session) = &self.session else {
            return Err(Error::new(
                ErrorKind::Bug,
                "seal log of",
                &self.plan.component,
                "no session is open",
            ));
        };
        let (env, keys, instance) = (self.env.clone(), session.keys.clone(), Arc::clone(&self.plan.instance));
        let scope = Scope::new(self.repository.id(), &self.plan.component);
        let (system, segment, number) = (self.plan.system, self.plan.segment, session.number);
        let previous = self.state.last;
        compute::run("seal log", move || {
            let draft = Draft {
                kind,
                range,
                system,
                segment,
                as_of_us,
                number,
                previous,
                replaces,
                log: &log,
            };
            seal(&env, draft, &keys, &scope, &instance)
        })
        .await
    }

    /// A session that is young enough: announced, and its key file put, before anything of it (INV-02).
    async fn ensure_session(&mut self) -> Result<()> {
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.open.elapsed() < SESSION_AGE)
        {
            return Ok(());
        }
        let plan = &self.plan;
        let open = announce(&self.env, &self.repository, &plan.component, &plan.instance, "follow", None).await?;
        let keys = SessionKeys {
            session: open.id,
            lineage: self.lineage,
            data_key: draw_secret(&self.env)?,
            id_key: self.state.id_key.clone(),
        };
        let file = keys.wrap(self.repository.id(), &plan.component, &plan.encryption, false)?;
        put_key_file(
            &self.repository,
            &plan.component,
            open.id,
            plan.encryption == Encryption::Clear,
            file,
        )
        .await?;
        self.session = Some(Session { open, keys, number: 0 });
        self.state.save(&self.folder)
    }
}

/// Into which lineage, and why it begins where its record is to be put.
fn choose(
    env: &Env,
    new: &NewLog,
    listing: &LogListing,
    state: Option<&State>,
    system: u64,
) -> Result<(Lineage, Option<String>)> {
    let is_listed = |lineage: Lineage| listing.lineages.iter().any(|record| record.lineage == lineage);
    let begun_before = |lineage: Lineage| (!is_listed(lineage)).then(|| BEGUN_BEFORE.to_owned());
    Ok(match new {
        NewLog::Of(lineage) => (*lineage, begun_before(*lineage)),
        NewLog::Begin { lineage, why } => (*lineage, (!is_listed(*lineage)).then(|| why.clone())),
        NewLog::Continue => {
            // One whose record was put and never answered is begun again under its name: it may land yet, or stand in a store that is away.
            let begun = state.filter(|state| state.system == system && !is_listed(state.lineage));
            match (begun, listing.newest(system)) {
                (Some(state), None) => (state.lineage, Some(FIRST.to_owned())),
                (Some(state), Some(_)) => (state.lineage, begun_before(state.lineage)),
                (None, Some(record)) => (record.lineage, None),
                (None, None) => (Lineage::draw(env)?, Some(FIRST.to_owned())),
            }
        }
    })
}

/// Now, but behind every lineage that is known: a clock that was set back makes none older than the one before it.
fn after(listing: &LogListing, now_us: i64) -> i64 {
    let newest_us = listing.lineages.iter().map(|record| record.opened_us).max();
    newest_us.map_or(now_us, |newest_us| now_us.max(newest_us.saturating_add(1)))
}

/// PG-05: log of another cluster is not written beside this one's.
fn refuse_foreign(plan: &LogPlan, newest: Option<&LineageRecord>, own: Option<&LineageRecord>) -> Result<()> {
    if let Some(other) = newest.filter(|record| record.system != plan.system) {
        let detail = format!(
            "the log stored for it is of the cluster {}, and this one is {}",
            other.system, plan.system
        );
        return Err(Error::new(ErrorKind::Refused, "append the log of", &plan.component, detail)
            .with_hint("look at the connection in lifeboat.yaml; a new cluster gets a component of its own"));
    }
    if let Some(own) = own.filter(|record| record.segment != plan.segment) {
        let detail = format!("its segments had {}, and now they have {}", own.segment, plan.segment);
        return Err(Error::new(ErrorKind::Refused, "append the log of", &plan.component, detail)
            .with_hint("a cluster that was made anew gets a component of its own"));
    }
    Ok(())
}
