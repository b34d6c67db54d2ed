//! The stores that log is read from: one after the other, until one gives what is asked for.
//!
//! What one store lacks, has damaged or does not give now may stand in the next. That something does not exist is only said when every store
//! whose answer counts has answered (PG-07). Bytes that are held twice and differ stop the reader, whatever the next store has (PG-06).

use std::sync::{Arc, Mutex};

use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{Error, ErrorKind, Result, Timeline};
use lifeboat_repo::{
    ComponentName, Identities, Lineage, LineageRecord, LogFileKind, LogReader, Repository, Trust, holds_two_versions, list_log,
};
use lifeboat_store::BlobStore;
use tokio::sync::OnceCell;

use super::archive::lock;

/// A store that log is read from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    store: Arc<dyn BlobStore>,
    repository: OnceCell<Repository>,
    counts: bool,
}

impl Source {
    /// A repository that has answered; its answer counts.
    #[must_use]
    pub fn opened(name: String, repository: Repository) -> Self {
        Self {
            name,
            store: Arc::clone(repository.store()),
            repository: OnceCell::new_with(Some(repository)),
            counts: true,
        }
    }

    /// A store that is opened when something is asked of it, and again later where it did not answer. `counts`: nothing is said to be absent
    /// before it has answered.
    #[must_use]
    pub fn at(name: String, store: Arc<dyn BlobStore>, counts: bool) -> Self {
        Self {
            name,
            store,
            repository: OnceCell::new(),
            counts,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where the log is, and what opens it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The stores, the preferred one first.
    pub sources: Vec<Source>,
    /// Whose log.
    pub component: ComponentName,
    /// Whose files count.
    pub trust: Trust,
    /// What opens them.
    pub identities: Identities,
}

/// The log of one lineage in all of them.
#[derive(Debug)]
pub(super) struct Sources {
    place: Place,
    lineage: Lineage,
    listed: Vec<Mutex<Option<LogReader>>>,
}

/// What stands of the history of a timeline.
#[derive(Debug)]
pub(super) enum Stored {
    /// Its text, verified.
    Text(Vec<u8>),
    /// There is one, or log that had one, and it cannot be had: why.
    Unreadable(Error),
    /// Every store that counts said that it has nothing of that timeline.
    Nothing,
}

impl Sources {
    pub(super) fn new(place: Place, lineage: Lineage) -> Self {
        let listed = place.sources.iter().map(|_| Mutex::default()).collect();
        Self { place, lineage, listed }
    }

    /// The same with what is listed already.
    pub(super) fn again(&self) -> Self {
        Self {
            place: self.place.clone(),
            lineage: self.lineage,
            listed: self.listed.iter().map(|listed| Mutex::new(lock(listed).clone())).collect(),
        }
    }

    /// What the lineage's record says, from the first store that has it.
    pub(super) async fn record(&self) -> Result<LineageRecord> {
        let mut trouble = Trouble::default();
        for (source, listed) in self.each() {
            match self.list(source, listed).await {
                Ok((record, _)) => return Ok(record),
                Err(error) => trouble.add(source, error),
            }
        }
        Err(trouble.told(&self.place.component))
    }

    /// The verified bytes of a range of one timeline within one block.
    pub(super) async fn read(&self, range: Range) -> Result<Vec<u8>> {
        let mut trouble = Trouble::default();
        for (source, listed) in self.each() {
            match self.read_in(source, listed, range).await {
                Err(error) if holds_two_versions(&error) => return Err(error),
                Err(error) => trouble.add(source, error),
                read => return read,
            }
        }
        Err(trouble.told(&self.place.component))
    }

    async fn read_in(&self, source: &Source, listed: &Mutex<Option<LogReader>>, range: Range) -> Result<Vec<u8>> {
        if let Some(reader) = known(listed) {
            match reader.read(range).await {
                // Frames are replaced while somebody follows: what is listed grows old.
                Err(error) if is_verdict(&error) && !holds_two_versions(&error) => {}
                read => return read,
            }
        }
        let (_, reader) = self.list(source, listed).await?;
        reader.read(range).await
    }

    /// The history of a timeline.
    pub(super) async fn history(&self, timeline: Timeline) -> Result<Stored> {
        let (mut unread, mut silent) = (Trouble::default(), Trouble::default());
        for (source, listed) in self.each() {
            match self.history_in(source, listed, timeline).await {
                Ok(Some(text)) => return Ok(Stored::Text(text)),
                Ok(None) => {}
                Err(error) if is_verdict(&error) => unread.add(source, error),
                Err(error) if source.counts => silent.add(source, error),
                // Whoever decided on this restore did not count on it.
                Err(_not_asked) => {}
            }
        }
        if silent.is_any() {
            return Err(silent.told(&self.place.component));
        }
        Ok(match unread.is_any() {
            true => Stored::Unreadable(unread.told(&self.place.component)),
            false => Stored::Nothing,
        })
    }

    /// Its text in one store; none where there is nothing of the timeline.
    async fn history_in(
        &self,
        source: &Source,
        listed: &Mutex<Option<LogReader>>,
        timeline: Timeline,
    ) -> Result<Option<Vec<u8>>> {
        if let Some(reader) = known(listed)
            && let Ok(text) = reader.history(timeline).await
        {
            return Ok(Some(text));
        }
        // Listed before it was written, perhaps.
        let reader = match self.list(source, listed).await {
            Ok((_, reader)) => reader,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match reader.history(timeline).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => return read.map(Some),
        }
        if reader.files().iter().any(|name| name.range.timeline == timeline) {
            let detail = "log of this timeline is stored, so there was a history file of it, and it is missing";
            let subject = format!("timeline {timeline}");
            return Err(Error::new(ErrorKind::NotFound, "fetch the history of", subject, detail)
                .with_hint("`lifeboat wal push` stores it from pg_wal of a server that still has it"));
        }
        Ok(None)
    }

    /// What is held by the names that are listed: where to look, not what is there.
    pub(super) fn candidates(&self) -> Coverage {
        let mut coverage = Coverage::new();
        for listed in &self.listed {
            let files = lock(listed).as_ref().map(|reader| reader.files().to_vec());
            let log = files.into_iter().flatten().filter(|name| name.kind != LogFileKind::History);
            log.for_each(|name| coverage.add(name.range));
        }
        coverage
    }

    fn each(&self) -> impl Iterator<Item = (&Source, &Mutex<Option<LogReader>>)> {
        self.place.sources.iter().zip(&self.listed)
    }

    /// Opens the store where that has not been done, and lists the lineage. Kind `NotFound` where it has none of it.
    async fn list(&self, source: &Source, listed: &Mutex<Option<LogReader>>) -> Result<(LineageRecord, LogReader)> {
        let Place {
            component,
            trust,
            identities,
            ..
        } = &self.place;
        let open = || Repository::open(Arc::clone(&source.store));
        let repository = source.repository.get_or_try_init(open).await?;
        let listing = list_log(repository, component, trust).await?;
        let record = listing.lineages.iter().find(|record| record.lineage == self.lineage);
        let record = record.cloned().ok_or_else(|| {
            let detail = format!("there is no log of the lineage {}", self.lineage);
            Error::new(ErrorKind::NotFound, "read the log of", component, detail)
        })?;
        let reader = LogReader::of(repository, component, trust, identities.clone(), self.lineage, &listing);
        *lock(listed) = Some(reader.clone());
        Ok((record, reader))
    }
}

fn known(listed: &Mutex<Option<LogReader>>) -> Option<LogReader> {
    lock(listed).clone()
}

/// What the stores said that did not give it.
#[derive(Debug, Default)]
struct Trouble(Vec<(String, Error)>);

impl Trouble {
    fn add(&mut self, source: &Source, error: Error) {
        self.0.push((source.name.clone(), error));
    }

    fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// One error for all. Where a store did not answer, it is that one's: it may pass.
    fn told(mut self, component: &ComponentName) -> Error {
        self.0.sort_by_key(|(_, error)| is_verdict(error));
        let mut all = self.0.into_iter();
        let Some((_, first)) = all.next() else {
            return Error::new(
                ErrorKind::ConfigInvalid,
                "read the log of",
                component,
                "there is no store to read from",
            );
        };
        let others: Vec<String> = all.map(|(name, error)| format!("in the store {name}: {error}")).collect();
        if others.is_empty() {
            return first;
        }
        let (kind, hint) = (first.kind(), first.hint().map(str::to_owned));
        let error = Error::new(kind, "read the log of", component, format!("{first}; {}", others.join("; ")));
        match hint {
            Some(hint) => error.with_hint(hint).with_source(first),
            None => error.with_source(first),
        }
    }
}

/// Whether an error says something about a file, and not about the store.
pub(super) fn is_verdict(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound
    )
}
