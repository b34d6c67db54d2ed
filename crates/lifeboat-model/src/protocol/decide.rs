//! The decisions themselves. Each says what it needs to have been listed, and in which order; none lists anything.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// A backup file as read from the store, its signature known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup<N> {
    /// Its name.
    pub name: N,
    /// Every file of its closure: keys, packs, maps.
    pub files: BTreeSet<N>,
}

/// A key, pack or map in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile<N> {
    /// Its name.
    pub name: N,
    /// The session that its name carries.
    pub session: N,
}

/// An announcement, or the extension of one, its signature known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session<N> {
    /// The session it speaks for; an extension speaks for the same.
    pub id: N,
    /// The backup it would like to build on.
    pub parent: Option<N>,
    /// When it landed, by the store's time.
    pub announced_at: Duration,
    /// How long it protects what it names.
    pub deadline: Duration,
}

impl<N> Session<N> {
    /// Whether it protects what it names at `now`.
    #[must_use]
    pub fn is_open(&self, now: Duration) -> bool {
        now < self.announced_at.saturating_add(self.deadline)
    }
}

/// Names that are to go: in a census, after the grace period; in a sweep list, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks<N> {
    /// Backup files.
    pub backups: BTreeSet<N>,
    /// Keys, packs and maps.
    pub files: BTreeSet<N>,
}

impl<N: Ord> Marks<N> {
    /// Whether the backup or any file of its closure is marked.
    #[must_use]
    pub fn touches(&self, backup: &Backup<N>) -> bool {
        self.backups.contains(&backup.name) || !self.files.is_disjoint(&backup.files)
    }

    /// Whether nothing is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.files.is_empty()
    }
}

/// A census: what one pruner saw, and what it would like to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census<N> {
    /// Its name.
    pub name: N,
    /// When it landed, by the store's time.
    pub published_at: Duration,
    /// Every backup file it saw.
    pub seen: BTreeSet<N>,
    /// What it condemns.
    pub condemned: Marks<N>,
}

/// What a pruner has listed: files first, then sessions and holds, then backup files.
#[derive(Clone, Debug)]
pub struct View<N> {
    /// Keys, packs and maps.
    pub files: Vec<StoredFile<N>>,
    /// All announcements and extensions.
    pub sessions: Vec<Session<N>>,
    /// The store's time **before** the sessions were listed: judges which are open.
    pub asked_at: Duration,
    /// Backups that somebody holds.
    pub held: BTreeSet<N>,
    /// All backup files.
    pub backups: Vec<Backup<N>>,
}

/// Why a pruner does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop<N> {
    /// The census is younger than the grace period.
    TooEarly,
    /// A backup that the census saw is not listed now: hidden, or swept by somebody else. Begin again with a new census.
    BackupMissing(N),
    /// An open session or a hold names a backup that is not listed, so what it needs is unknown.
    UnknownParent(N),
}

impl<N: fmt::Display> fmt::Display for Stop<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly => f.write_str("the census is younger than the grace period"),
            Self::BackupMissing(name) => write!(f, "backup {name} was there when the census was taken and is not listed now"),
            Self::UnknownParent(name) => write!(f, "an open session or a hold names backup {name}, which is not listed"),
        }
    }
}

/// Whether a backup counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<N> {
    /// All its files are there and none is being swept.
    Counts,
    /// A file of its closure is not there.
    Missing(N),
    /// A sweep list names it or a file of its closure.
    Swept,
}

/// Whether rows of a parent may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParentUse<N> {
    /// Yes, all of them.
    Use,
    /// No: it is on its way out. The backup is full.
    Condemned,
    /// No, or only rows whose files are there: this one is not.
    Missing(N),
}

/// Whether `parent` may be built on. `marks` are those of **every** census and sweep list in the store, listed after the
/// announcement was put; `present` was listed after those, and holds the parent's own name too.
#[must_use]
pub fn may_use_parent<N: Ord + Clone>(parent: &Backup<N>, marks: &[Marks<N>], present: &BTreeSet<N>) -> ParentUse<N> {
    if marks.iter().any(|marks| marks.touches(parent)) {
        return ParentUse::Condemned;
    }
    match std::iter::once(&parent.name)
        .chain(&parent.files)
        .find(|name| !present.contains(*name))
    {
        None => ParentUse::Use,
        Some(name) => ParentUse::Missing(name.clone()),
    }
}

/// Whether an extension that landed keeps the session's protection without a gap. If not, the session is over: what it
/// named may be on its way out, and no backup file follows.
#[must_use]
pub fn may_extend<N: Ord>(before: &Session<N>, extension: &Session<N>) -> bool {
    before.id == extension.id && before.parent == extension.parent && before.is_open(extension.announced_at)
}

/// Whether the backup file may still be put at `now`, with `session` the announcement or its last extension.
#[must_use]
pub fn may_publish<N>(session: &Session<N>, now: Duration) -> bool {
    session.is_open(now)
}

/// Whether the writer may report its backup as made and let its local state become current: `now`, taken after the
/// backup file was seen in the store, is before the deadline, and the backup counts.
#[must_use]
pub fn is_done<N>(session: &Session<N>, now: Duration, standing: &Standing<N>) -> bool {
    session.is_open(now) && matches!(standing, Standing::Counts)
}

/// Whether a backup counts, for any reader. `sweeping` are all sweep lists in the store; `present` what is listed.
/// Backups that land late need no clock to be told: where a sweep did not see them, its list names what they lack.
#[must_use]
pub fn counts<N: Ord + Clone>(backup: &Backup<N>, present: &BTreeSet<N>, sweeping: &[Marks<N>]) -> Standing<N> {
    // INV-15
    if let Some(name) = backup.files.iter().find(|name| !present.contains(*name)) {
        return Standing::Missing(name.clone());
    }
    if sweeping.iter().any(|marks| marks.touches(backup)) {
        return Standing::Swept;
    }
    Standing::Counts
}

/// What is to go: the backups of `retire` that nobody needs, and every file that no remaining backup reaches and no open
/// session owns. Every backup file that stands protects what it reaches, also one that does not count.
pub fn condemn<N: Ord + Clone>(view: &View<N>, retire: &BTreeSet<N>) -> Result<Marks<N>, Stop<N>> {
    // INV-14
    let open: Vec<&Session<N>> = view
        .sessions
        .iter()
        .filter(|session| session.is_open(view.asked_at))
        .collect();
    let listed: BTreeSet<&N> = view.backups.iter().map(|backup| &backup.name).collect();
    let needed: BTreeSet<&N> = open
        .iter()
        .filter_map(|session| session.parent.as_ref())
        .chain(&view.held)
        .collect();
    if let Some(unknown) = needed.difference(&listed).next() {
        return Err(Stop::UnknownParent((*unknown).clone()));
    }
    let goes = |name: &N| retire.contains(name) && !needed.contains(name);
    let reached: BTreeSet<&N> = view
        .backups
        .iter()
        .filter(|backup| !goes(&backup.name))
        .flat_map(|backup| &backup.files)
        .collect();
    let owned: BTreeSet<&N> = open.iter().map(|session| &session.id).collect();
    Ok(Marks {
        backups: listed.into_iter().filter(|name| goes(name)).cloned().collect(),
        files: view
            .files
            .iter()
            .filter(|file| !reached.contains(&file.name) && !owned.contains(&file.session))
            .map(|file| file.name.clone())
            .collect(),
    })
}

/// What of a census may be swept: what it condemned and a fresh view, begun after the grace period, condemns again.
/// `view.files` are the files that the census condemned. Before the first deletion the result is put as a sweep list.
pub fn may_sweep<N: Ord + Clone>(census: &Census<N>, grace: Duration, view: &View<N>) -> Result<Marks<N>, Stop<N>> {
    if view.asked_at < census.published_at.saturating_add(grace) {
        return Err(Stop::TooEarly);
    }
    let listed: BTreeSet<&N> = view.backups.iter().map(|backup| &backup.name).collect();
    // Also the condemned ones: one that is hidden would lose its files before it is gone itself.
    if let Some(missing) = census.seen.iter().find(|name| !listed.contains(name)) {
        return Err(Stop::BackupMissing(missing.clone()));
    }
    let mut marks = condemn(view, &census.condemned.backups)?;
    marks.files.retain(|name| census.condemned.files.contains(name));
    Ok(marks)
}

/// Whether a census that another pruner left behind may be removed: nothing that it condemns is `present`. Any earlier, a
/// writer could build on what its frozen owner still deletes. A sweep list is removed by its owner alone.
#[must_use]
pub fn is_spent<N: Ord>(marks: &Marks<N>, present: &BTreeSet<N>) -> bool {
    marks.backups.is_disjoint(present) && marks.files.is_disjoint(present)
}
