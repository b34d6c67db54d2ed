//! A small world for the deletion protocol: one store, two writers, two pruners, and every atomic thing that can happen next.
//!
//! It holds no rule of its own: each decision is made by `lifeboat_model::protocol` (remembered per distinct input), each
//! order comes from there, and [`Flaw`] names the single rules that a mutation switches off.
//! A death needs no transition: it is a freeze without end, and every prefix of every run is looked at.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use lifeboat_model::protocol::{Backup, Marks, PRUNER_STEPS, PrunerStep, Session, Standing, WRITER_STEPS, WriterStep, counts};

/// Ticks that a session protects; the grace period has as many.
pub const DEADLINE: u8 = 2;
pub const NONE: u8 = 255;
pub const END: u8 = 100;
pub const DONE: u8 = 101;

/// What lies in the store, one bit each: pack X of the old backup, pack Y of the old and the kept one, an own pack of each
/// writer; the old backup (which retention wants gone), the kept one, and one of each writer.
pub const X: u8 = 1;
pub const Y: u8 = 2;
pub const OWN: [u8; 2] = [4, 8];
pub const OLD: u8 = 16;
pub const KEPT: u8 = 32;
pub const MADE: [u8; 2] = [64, 128];
pub const PACKS: u8 = 0x0f;
pub const BACKUPS: u8 = 0xf0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    pub pc: u8,
    /// Ticks since the announcement (or its extension) landed, as the store shows it.
    pub age: u8,
    /// The same as the writer itself counts it: a repeated put does not renew it.
    pub own_age: u8,
    pub parent: u8,
    pub census_ok: bool,
    pub listed_ok: bool,
    pub extended: bool,
    pub in_flight: bool,
    pub repeat: bool,
    pub pack_repeat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pruner {
    pub pc: u8,
    pub files: u8,
    pub open: u8,
    pub backups: u8,
    pub seen: u8,
    pub condemned: u8,
    pub sweep: u8,
    /// Ticks since the census landed; [`NONE`] where none stands.
    pub census: u8,
    pub sweep_stands: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub store: u8,
    pub w: [Writer; 2],
    pub p: [Pruner; 2],
    pub faults: u8,
}

/// One rule switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    CensusBeforeAnnounce,
    ListParentBeforeCensus,
    OnlyOneCensusRead,
    DeadlineIgnored,
    LateExtensionTaken,
    ConfirmSkipsSweepLists,
    SessionsSkipped,
    SessionsListedLast,
    NoGrace,
    BackupsNotReadAgain,
    NoSweepList,
    UnspentRemoved,
    PacksBeforeBackups,
    ErrorTakenForEmpty,
    SeenNotCompared,
}

#[derive(Clone, Copy, Debug)]
pub enum Label {
    Tick,
    Writer(u8, WriterStep),
    Extend(u8),
    BackupLands(u8),
    AnnouncementLandsAgain(u8),
    PackLandsAgain(u8),
    Pruner(u8, PrunerStep),
    Delete(u8, u8),
    Remove(u8),
    ListingFails(u8),
    ListingHides(u8, u8),
}

pub fn name(bit: u8) -> &'static str {
    match bit {
        X => "pack X",
        Y => "pack Y",
        4 => "own pack of writer 1",
        8 => "own pack of writer 2",
        OLD => "backup OLD",
        KEPT => "backup KEPT",
        64 => "backup of writer 1",
        _ => "backup of writer 2",
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Tick => write!(f, "a tick passes"),
            Self::Writer(i, step) => write!(f, "writer {}: {step:?}", i + 1),
            Self::Extend(i) => write!(f, "writer {}: extension lands", i + 1),
            Self::BackupLands(i) => write!(f, "backup of writer {} lands", i + 1),
            Self::AnnouncementLandsAgain(i) => write!(f, "announcement of writer {} lands again", i + 1),
            Self::PackLandsAgain(i) => write!(f, "pack of writer {} lands again", i + 1),
            Self::Pruner(i, step) => write!(f, "pruner {}: {step:?}", i + 1),
            Self::Delete(i, bit) => write!(f, "pruner {}: deletes {}", i + 1, name(bit)),
            Self::Remove(i) => write!(f, "pruner {}: removes the other's census", i + 1),
            Self::ListingFails(i) => write!(f, "pruner {}: the backup listing fails", i + 1),
            Self::ListingHides(i, bit) => write!(f, "pruner {}: the listing hides {}", i + 1, name(bit)),
        }
    }
}

pub struct World {
    pub flaws: Vec<Flaw>,
    /// Sessions may be extended once.
    pub extensions: bool,
    /// Writers may choose no parent, or each other's backup, also where the old one is there.
    pub any_parent: bool,
    /// Whether a put fails where the name is taken.
    pub conditional_put: bool,
    /// Announcements may land a second time, later.
    pub repeats: bool,
    /// Listings of backups that may fail or hide one name.
    pub faults: u8,
    pub writers: usize,
    pub pruners: usize,
    pub writer_order: Vec<WriterStep>,
    pub pruner_order: Vec<PrunerStep>,
    pub memo: RefCell<HashMap<[u8; 9], Option<u8>>>,
}

pub fn bits(mask: u8) -> impl Iterator<Item = u8> {
    (0..8).map(|bit| 1 << bit).filter(move |bit| mask & bit != 0)
}

pub fn set(mask: u8) -> BTreeSet<u8> {
    bits(mask).collect()
}

pub fn mask(names: &BTreeSet<u8>) -> u8 {
    names.iter().fold(0, |mask, bit| mask | bit)
}

pub fn marks(mask: u8) -> Marks<u8> {
    Marks {
        backups: set(mask & BACKUPS),
        files: set(mask & PACKS),
    }
}

pub fn ticks(count: u8) -> Duration {
    Duration::from_secs(u64::from(count))
}

/// The announcement of writer `i`, `age` ticks old at tick 100.
pub fn session(i: usize, parent: u8, age: u8) -> Session<u8> {
    Session {
        id: OWN[i],
        parent: (parent != 0).then_some(parent),
        announced_at: ticks(100 - age.min(50)),
        deadline: ticks(DEADLINE),
    }
}

pub const NOW: Duration = Duration::from_secs(100);

impl World {
    pub fn new(flaws: &[Flaw]) -> Self {
        let mut writer_order = WRITER_STEPS.to_vec();
        let mut pruner_order: Vec<_> = PRUNER_STEPS
            .into_iter()
            .filter(|step| *step != PrunerStep::ConfirmBackups)
            .collect();
        let at = |order: &[PrunerStep], step| order.iter().position(|other| *other == step).unwrap();
        for flaw in flaws {
            match flaw {
                Flaw::CensusBeforeAnnounce => writer_order.swap(0, 1),
                Flaw::ListParentBeforeCensus => writer_order.swap(1, 2),
                Flaw::SessionsListedLast => {
                    let second = at(&pruner_order, PrunerStep::Wait) + 1;
                    pruner_order.swap(second, second + 1);
                }
                Flaw::PacksBeforeBackups => {
                    let (a, b) = (
                        at(&pruner_order, PrunerStep::DeleteBackups),
                        at(&pruner_order, PrunerStep::DeleteFiles),
                    );
                    pruner_order.swap(a, b);
                }
                _ => {}
            }
        }
        Self {
            flaws: flaws.to_vec(),
            extensions: true,
            any_parent: true,
            conditional_put: true,
            repeats: false,
            faults: 0,
            writers: 2,
            pruners: 2,
            writer_order,
            pruner_order,
            memo: RefCell::default(),
        }
    }

    pub fn start(&self) -> State {
        let writer = |i: usize| Writer {
            pc: if i < self.writers { 0 } else { END },
            age: NONE,
            own_age: NONE,
            parent: 0,
            census_ok: false,
            listed_ok: false,
            extended: false,
            in_flight: false,
            repeat: false,
            pack_repeat: false,
        };
        let pruner = |i: usize| Pruner {
            pc: if i < self.pruners { 0 } else { END },
            files: 0,
            open: 0,
            backups: 0,
            seen: 0,
            condemned: 0,
            sweep: 0,
            census: NONE,
            sweep_stands: false,
        };
        State {
            store: X | Y | OLD | KEPT,
            w: [writer(0), writer(1)],
            p: [pruner(0), pruner(1)],
            faults: self.faults,
        }
    }

    pub fn has(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    /// The files that a backup reaches.
    pub fn closure(s: &State, backup: u8) -> u8 {
        match backup {
            OLD => X | Y,
            KEPT => Y,
            _ => {
                let i = usize::from(backup == MADE[1]);
                let w = &s.w[i];
                OWN[i]
                    | if w.census_ok && w.listed_ok && w.parent != 0 {
                        Self::closure(s, w.parent)
                    } else {
                        0
                    }
            }
        }
    }

    pub fn backup(s: &State, bit: u8) -> Backup<u8> {
        Backup {
            name: bit,
            files: set(Self::closure(s, bit)),
        }
    }

    /// All that is being swept now, as any reader sees it.
    pub fn swept(s: &State) -> u8 {
        s.p.iter().filter(|p| p.sweep_stands).fold(0, |mask, p| mask | p.sweep)
    }

    pub fn remembered(&self, key: [u8; 9], decide: impl FnOnce() -> Option<u8>) -> Option<u8> {
        if let Some(known) = self.memo.borrow().get(&key) {
            return *known;
        }
        let decided = decide();
        self.memo.borrow_mut().insert(key, decided);
        decided
    }

    pub fn standing(&self, s: &State, bit: u8) -> bool {
        let (present, swept, closure) = (s.store, Self::swept(s), Self::closure(s, bit));
        self.remembered([1, bit, closure, present & PACKS, swept, 0, 0, 0, 0], || {
            let standing = counts(&Self::backup(s, bit), &set(present), &[marks(swept)]);
            Some(u8::from(standing == Standing::Counts))
        }) == Some(1)
    }

    /// Whether a backup file is there and counts.
    pub fn counting(&self, s: &State, i: usize) -> bool {
        s.store & MADE[i] != 0 && self.standing(s, MADE[i])
    }

    /// What an honest writer relies on right now: its own files, and the parent's once both checks are behind it.
    pub fn relied_on(s: &State, i: usize) -> u8 {
        let w = &s.w[i];
        if w.pc >= END || w.own_age >= DEADLINE {
            return 0;
        }
        Self::closure(s, MADE[i])
    }

    /// INV-14 for one deletion; says what is hurt.
    pub fn hurt(&self, s: &State, actor: usize, bit: u8) -> Option<String> {
        for backup in bits(s.store & BACKUPS) {
            // A backup that retention wants gone may go where a mutation took away the list that says so.
            let meant = s.p[actor].sweep & backup != 0 && (self.has(Flaw::NoSweepList) || self.has(Flaw::UnspentRemoved));
            if !meant && (backup == bit || Self::closure(s, backup) & bit != 0) && self.standing(s, backup) {
                return Some(format!(
                    "{} is deleted, which {} reaches, and that counts",
                    name(bit),
                    name(backup)
                ));
            }
            let late = (0..2).any(|i| MADE[i] == backup && s.w[i].pc != DONE);
            if backup != bit && Self::closure(s, backup) & bit != 0 && !late {
                return Some(format!("{} is deleted before {}", name(bit), name(backup)));
            }
        }
        (0..2)
            .find(|i| Self::relied_on(s, *i) & bit != 0)
            .map(|i| format!("{} is deleted under open session {}", name(bit), i + 1))
    }

    /// What must hold in every state.
    pub fn broken(&self, s: &State) -> Option<String> {
        if s.store & (KEPT | Y) != KEPT | Y || !self.standing(s, KEPT) {
            return Some("the kept backup does not restore".into());
        }
        (0..2)
            .find(|i| s.w[*i].pc == DONE && !self.counting(s, *i))
            .map(|i| format!("the finished backup of writer {} does not count", i + 1))
    }

    /// The state without what can no longer matter. Where no trace is wanted (`alike`), actors that differ by number
    /// only are one: whoever swaps the writers swaps their bits everywhere.
    pub fn canonical(&self, mut s: State, alike: bool) -> State {
        for (i, made) in MADE.into_iter().enumerate() {
            let gone = s.store & made == 0 && !s.w[i].in_flight;
            let w = &mut s.w[i];
            if w.pc >= END {
                (w.own_age, w.extended) = (NONE, false);
                if gone {
                    (w.census_ok, w.listed_ok) = (false, false);
                }
            }
        }
        if alike && s.p[1] < s.p[0] {
            s.p.swap(0, 1);
        }
        if alike && s.w[1] < s.w[0] {
            let swap = |mask: u8| (mask & 0x33) | ((mask & 0x44) << 1) | ((mask & 0x88) >> 1);
            s.w.swap(0, 1);
            s.store = swap(s.store);
            for w in &mut s.w {
                w.parent = swap(w.parent);
            }
            for p in &mut s.p {
                for mask in [
                    &mut p.files,
                    &mut p.open,
                    &mut p.backups,
                    &mut p.seen,
                    &mut p.condemned,
                    &mut p.sweep,
                ] {
                    *mask = swap(*mask);
                }
            }
        }
        s
    }

    /// A backup landed after a sweep list named what it needs, and does not count.
    pub fn late_and_swept(&self, s: &State) -> bool {
        (0..2).any(|i| s.store & MADE[i] != 0 && !self.counting(s, i) && s.w[i].pc == END)
    }

    /// Both backups are finished and the old backup is swept.
    pub fn both_made_and_swept(&self, s: &State) -> bool {
        s.w.iter().all(|w| w.pc == DONE) && s.store & (OLD | X) == 0
    }

    /// A finished backup shares a pack of the old one, whose backup file is gone.
    pub fn pack_outlives_its_backup(&self, s: &State) -> bool {
        s.store & OLD == 0 && (0..2).any(|i| s.w[i].pc == DONE && Self::closure(s, MADE[i]) & X != 0)
    }

    /// Whether every actor has come to an end.
    pub fn over(s: &State) -> bool {
        s.w.iter().all(|w| w.pc >= END) && s.p.iter().all(|p| p.pc >= END)
    }

    /// Everything that can happen next. An error is a violation, with the step that caused it.
    pub fn next(&self, s: &State, out: &mut Vec<(Label, State)>) -> Result<(), (Label, String)> {
        let aged = |age: u8| if age < DEADLINE { age + 1 } else { age };
        let mut later = *s;
        for w in &mut later.w {
            (w.age, w.own_age) = (aged(w.age), aged(w.own_age));
        }
        for p in &mut later.p {
            p.census = aged(p.census);
        }
        if later != *s {
            out.push((Label::Tick, later));
        }
        for i in 0..2_u8 {
            self.writer(s, i, out)?;
            self.pruner(s, i, out)?;
        }
        Ok(())
    }
}
