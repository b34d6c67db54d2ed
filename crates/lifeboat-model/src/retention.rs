//! Which backups stay and which may go: a pure decision that gives a reason for every backup.
//!
//! Nothing here deletes: what may go is condemned by a census and swept after its grace period (`docs/deletion.md`). Time is an argument,
//! and so is the calendar: [`Local`] comes from whoever knows time zones. A backup is placed by its moment as far as the order of
//! backups bears it out: a clock that was wrong, or a forged date, takes no slot of an earlier time (see [`places`]).

mod compliance;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::time::human_duration;
use crate::wal::Needed;
pub use compliance::{Compliance, Tier, comply};

/// How many of what are kept. Zero of everything keeps nothing by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The newest ones, whenever they were made.
    pub last: u32,
    /// One of each of the newest hours that have one.
    pub hourly: u32,
    /// The same with days.
    pub daily: u32,
    /// The same with weeks, which begin on Monday.
    pub weekly: u32,
    /// The same with months.
    pub monthly: u32,
    /// The same with years.
    pub yearly: u32,
    /// Everything this young, and the one that the window begins with.
    pub within: Option<Duration>,
    /// Every moment this young that can be reached stays so: the backups that this takes, and their log.
    pub window: Option<Duration>,
    /// Everything with one of these words.
    pub tags: BTreeSet<String>,
}

impl Rules {
    /// Whether they keep nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The rules of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For whole backups.
    pub keep: Rules,
    /// For extracts, which count by themselves.
    pub extracts: Rules,
    /// However strict the rules are, so many good ones stay, and so many proven ones.
    pub never_below: u32,
}

/// How much is known about a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// A check found damage.
    Damaged,
    /// Nobody looked.
    Unproven,
    /// Its stored files are intact.
    Intact,
    /// It opens and is what it claims to be.
    Opened,
    /// It was restored and checked.
    Restored,
}

/// What a recovery window has to do with a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InWindow {
    /// It has no log behind it: it is one moment.
    Moment,
    /// It has log, and the moments of the window are reached without it.
    Free,
    /// The window needs it.
    Needed(Needed),
}

/// One backup that stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How people name it.
    pub name: String,
    /// Its place in the order.
    pub seq: u64,
    /// Its moment, microseconds since 1970, as it says itself.
    pub moment_us: i64,
    /// Backups of different methods count by themselves.
    pub method: String,
    /// A partial capture: these count by themselves, too.
    pub extract: bool,
    /// Whether it counts; else why it does not ("incomplete", "2 files are missing").
    pub wanting: Option<String>,
    /// What is known about it.
    pub known: Known,
    /// Its words.
    pub tags: Vec<String>,
    /// What was asked for when it was made.
    pub keep_for: Option<Duration>,
    /// Why somebody holds it.
    pub held: Option<String>,
    /// Whether the recovery window needs it, where there is one.
    pub window: InWindow,
    /// How many of its pages were bad in the source already.
    pub bad_pages: u64,
}

impl Candidate {
    /// Whether it counts, and no damage is known.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wanting.is_none() && self.known > Known::Damaged
    }
}

/// A moment in a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Year.
    pub year: i16,
    /// 1 to 12.
    pub month: i8,
    /// 1 to 31.
    pub day: i8,
    /// 0 to 23.
    pub hour: i8,
    /// Seconds east of Greenwich: tells the two hours apart that a clock shows twice.
    pub offset_s: i32,
    /// Year of the week (ISO 8601).
    pub week_year: i16,
    /// Week of that year, 1 to 53.
    pub week: i8,
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Somebody holds it.
    Held(String),
    /// It is the newest good one.
    Newest,
    /// It is the newest one that was restored and checked.
    NewestProven,
    /// It is among the newest so many.
    Last(u32),
    /// It is the best of its slot: "daily 2026-11-20".
    Slot(&'static str, String),
    /// It is young enough.
    Within(Duration),
    /// The window begins with it.
    BeginsWindow(Duration),
    /// The moments behind it that lie in the window are reached from it: log is missing in front of it, or there is no earlier one.
    ContinuesWindow(Duration),
    /// It is the newest without bad pages.
    LastClean,
    /// It has this word.
    Tag(String),
    /// It was made to be kept this long.
    KeepFor(Duration),
    /// There are never fewer good ones.
    Floor(u32),
    /// There are never fewer proven ones.
    ProvenFloor(u32),
    /// It does not count, but something older stays, and it may be mended.
    Lingers(String),
    /// There is no good backup: nothing goes.
    NothingGood,
    /// Nobody has written rules.
    NoRules,
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(why) => write!(f, "held: {why}"),
            Self::Newest => f.write_str("newest good backup"),
            Self::NewestProven => f.write_str("newest one proven by a restore"),
            Self::Last(count) => write!(f, "one of the last {count}"),
            Self::Slot(rule, slot) => write!(f, "{rule} {slot}"),
            Self::Within(window) => write!(f, "within {}", human_duration(*window)),
            Self::BeginsWindow(window) => write!(f, "the window of {} begins with it", human_duration(*window)),
            Self::ContinuesWindow(window) => write!(
                f,
                "moments of the window of {} are reached from no earlier one",
                human_duration(*window)
            ),
            Self::LastClean => f.write_str("newest one without damaged pages"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::KeepFor(duration) => write!(f, "made to be kept for {}", human_duration(*duration)),
            Self::Floor(count) => write!(f, "never fewer than {count} good ones"),
            Self::ProvenFloor(count) => write!(f, "never fewer than {count} proven ones"),
            Self::Lingers(why) => write!(f, "does not count ({why}), and goes when all that are older have gone"),
            Self::NoRules => f.write_str("no retention is configured"),
            Self::NothingGood => f.write_str("there is no good backup, so nothing goes"),
        }
    }
}

/// What becomes of one backup, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Every reason to keep it; empty if it may go.
    pub stays: Vec<Stays>,
    /// Why it may go, in words; empty if it stays.
    pub goes: String,
}

impl Verdict {
    /// Whether it stays.
    #[must_use]
    pub fn keeps(&self) -> bool {
        !self.stays.is_empty()
    }

    /// The reasons in one line.
    #[must_use]
    pub fn why(&self) -> String {
        if self.stays.is_empty() {
            return self.goes.clone();
        }
        let reasons: Vec<String> = self.stays.iter().map(ToString::to_string).collect();
        reasons.join(", ")
    }
}

/// Where each backup stands in time: its own moment, but never before that of one with a lower number, and never after `now_us`. So a
/// back-dated backup is as young as the ones before it, and one from the future spoils no later one.
#[must_use]
pub fn places(now_us: i64, candidates: &[Candidate]) -> Vec<i64> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|index| candidates.get(*index).map(|candidate| candidate.seq));
    let mut placed = vec![now_us; candidates.len()];
    let mut latest = i64::MIN;
    for index in order {
        let (Some(candidate), Some(place)) = (candidates.get(index), placed.get_mut(index)) else {
            continue;
        };
        if candidate.moment_us <= now_us {
            latest = latest.max(candidate.moment_us);
            *place = latest;
        }
    }
    placed
}

/// What `policy` says about every backup, in the order of `candidates`. `local` puts a moment into the calendar.
pub fn decide(policy: &Policy, now_us: i64, local: &dyn Fn(i64) -> Local, candidates: &[Candidate]) -> Vec<Verdict> {
    let placed = places(now_us, candidates);
    let mut groups: BTreeMap<(&str, bool), Vec<Member<'_>>> = BTreeMap::new();
    for (index, (candidate, at_us)) in candidates.iter().zip(placed).enumerate() {
        let member = Member {
            index,
            candidate,
            at_us,
            stays: Vec::new(),
            goes: "no rule keeps it".to_owned(),
        };
        groups
            .entry((candidate.method.as_str(), candidate.extract))
            .or_default()
            .push(member);
    }
    let mut verdicts: Vec<(usize, Verdict)> = Vec::new();
    for ((_, extract), members) in groups {
        let rules = if extract { &policy.extracts } else { &policy.keep };
        let mut group = Group { members, now_us };
        group.decide(rules, policy.never_below, local);
        verdicts.extend(group.members.into_iter().map(|member| {
            let goes = if member.stays.is_empty() { member.goes } else { String::new() };
            (
                member.index,
                Verdict {
                    stays: member.stays,
                    goes,
                },
            )
        }));
    }
    verdicts.sort_by_key(|(index, _)| *index);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

struct Member<'a> {
    index: usize,
    candidate: &'a Candidate,
    at_us: i64,
    stays: Vec<Stays>,
    goes: String,
}

/// Backups that count against each other.
struct Group<'a> {
    members: Vec<Member<'a>>,
    now_us: i64,
}

/// A rule that keeps one of each slot of time: its name, how many slots, and the slot of a moment.
type Slot = (&'static str, u32, fn(&Local) -> String);

impl Group<'_> {
    fn decide(&mut self, rules: &Rules, never_below: u32, local: &dyn Fn(i64) -> Local) {
        // Newest first, by number: the wall clock decides no order.
        self.members.sort_by_key(|member| std::cmp::Reverse(member.candidate.seq));
        if !self.members.iter().any(|member| member.candidate.is_good()) {
            for member in &mut self.members {
                member.stays.push(Stays::NothingGood);
            }
            return;
        }
        self.asked_for(rules);
        self.newest(1, |_| true, |_| Stays::Newest);
        self.newest(1, |known| known == Known::Restored, |_| Stays::NewestProven);
        self.last_clean();
        self.newest(rules.last, |_| true, Stays::Last);
        self.window(rules.within, |_| true);
        self.window(rules.window, |candidate| candidate.window == InWindow::Moment);
        self.log_window(rules.window);
        let slots: [Slot; 5] = [
            ("hourly", rules.hourly, hour),
            ("daily", rules.daily, day),
            ("weekly", rules.weekly, week),
            ("monthly", rules.monthly, month),
            ("yearly", rules.yearly, year),
        ];
        for (rule, count, slot) in slots.into_iter().rev() {
            self.slots(rule, count, &|at_us| slot(&local(at_us)));
        }
        self.newest(never_below, |_| true, Stays::Floor);
        self.newest(never_below, |known| known == Known::Restored, Stays::ProvenFloor);
        self.linger();
    }

    /// What people asked for: holds, `--keep-for`, tags.
    fn asked_for(&mut self, rules: &Rules) {
        let now_us = self.now_us;
        for member in &mut self.members {
            let candidate = member.candidate;
            if let Some(why) = &candidate.held {
                member.stays.push(Stays::Held(why.clone()));
            }
            if let Some(keep_for) = candidate.keep_for
                && now_us < later(member.at_us, keep_for)
            {
                member.stays.push(Stays::KeepFor(keep_for));
            }
            if let Some(tag) = candidate.tags.iter().find(|tag| rules.tags.contains(*tag)) {
                member.stays.push(Stays::Tag(tag.clone()));
            }
        }
    }

    /// The newest `count` good ones of which enough is known.
    fn newest(&mut self, count: u32, enough: impl Fn(Known) -> bool, stays: impl Fn(u32) -> Stays) {
        let mut left = count;
        for member in &mut self.members {
            if left > 0 && member.candidate.is_good() && enough(member.candidate.known) {
                left -= 1;
                let reason = stays(count);
                // A floor is told only where nothing else keeps it.
                let told = !matches!(reason, Stays::Floor(_) | Stays::ProvenFloor(_)) || member.stays.is_empty();
                if told {
                    member.stays.push(reason);
                }
            }
        }
    }

    /// PG-11: one without damaged pages stays for as long as newer ones have some.
    fn last_clean(&mut self) {
        let mut good = self.members.iter_mut().filter(|member| member.candidate.is_good());
        let is_clean = |member: &&mut Member<'_>| member.candidate.bad_pages == 0;
        if let Some(newest) = good.next()
            && newest.candidate.bad_pages > 0
            && let Some(clean) = good.find(is_clean)
        {
            clean.stays.push(Stays::LastClean);
        }
    }

    /// Backups without which moments of the window could not be reached any more.
    fn log_window(&mut self, window: Option<Duration>) {
        let Some(window) = window else { return };
        for member in self.members.iter_mut().filter(|member| member.candidate.is_good()) {
            match member.candidate.window {
                InWindow::Moment => {}
                InWindow::Free => {
                    member.goes = format!(
                        "no rule keeps it, and no moment of the window of {} needs it",
                        human_duration(window)
                    )
                }
                InWindow::Needed(Needed::Begins) => member.stays.push(Stays::BeginsWindow(window)),
                InWindow::Needed(Needed::Continues) => member.stays.push(Stays::ContinuesWindow(window)),
            }
        }
    }

    /// Everything this young among those that count by their own moments, and the one that the time begins with.
    fn window(&mut self, within: Option<Duration>, counts: impl Fn(&Candidate) -> bool) {
        let Some(within) = within else { return };
        let mut begins = false;
        let good = |member: &&mut Member<'_>| member.candidate.is_good() && counts(member.candidate);
        for member in self.members.iter_mut().filter(good) {
            if self.now_us <= later(member.at_us, within) {
                member.stays.push(Stays::Within(within));
            } else {
                member.goes = format!("older than {}", human_duration(within));
                // Any moment of the window needs what stood when it began.
                if !begins {
                    begins = true;
                    member.stays.push(Stays::BeginsWindow(within));
                }
            }
        }
    }

    /// One of each of the newest `count` slots: the best known one, and of those the newest.
    fn slots(&mut self, rule: &'static str, count: u32, slot: &dyn Fn(i64) -> String) {
        if count == 0 {
            return;
        }
        let mut best: Vec<(String, usize)> = Vec::new();
        let mut beaten: Vec<(usize, String)> = Vec::new();
        let good = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.candidate.is_good());
        for (at, member) in good {
            let name = slot(member.at_us);
            let full = best.len() as u64 == u64::from(count);
            match best.iter_mut().find(|(known, _)| *known == name) {
                Some((_, first)) => {
                    let known = |at: usize| self.members.get(at).map(|member| member.candidate.known);
                    if known(at) > known(*first) {
                        beaten.push((*first, name));
                        *first = at;
                    } else {
                        beaten.push((at, name));
                    }
                }
                None if full => beaten.push((at, String::new())),
                None => best.push((name, at)),
            }
        }
        for (at, name) in beaten {
            let by = best.iter().find(|(known, _)| *known == name);
            let by = by
                .and_then(|(_, at)| self.members.get(*at))
                .map(|member| &member.candidate.name);
            let goes = match by {
                Some(by) => format!("{rule} {name} is kept by {by}"),
                None => format!("older than the {count} kept by {rule}"),
            };
            if let Some(member) = self.members.get_mut(at) {
                member.goes = goes;
            }
        }
        for (name, at) in best {
            if let Some(member) = self.members.get_mut(at) {
                member.stays.push(Stays::Slot(rule, name));
            }
        }
    }

    /// What does not count goes only after everything that is older: it may be mended, and is in nobody's way.
    fn linger(&mut self) {
        let kept = self
            .members
            .iter()
            .filter(|member| member.candidate.is_good() && !member.stays.is_empty());
        let oldest = kept.map(|member| member.candidate.seq).min().unwrap_or(0);
        for member in self.members.iter_mut().filter(|member| !member.candidate.is_good()) {
            let why = member.candidate.wanting.clone().unwrap_or_else(|| "it is damaged".to_owned());
            if member.candidate.seq > oldest {
                member.stays.push(Stays::Lingers(why));
            } else {
                member.goes = format!("does not count ({why}), and nothing older is kept");
            }
        }
    }
}

/// A moment so much later; the end of time where there is none.
fn later(at_us: i64, duration: Duration) -> i64 {
    at_us.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

fn hour(at: &Local) -> String {
    let (hours, minutes) = (at.offset_s / 3600, at.offset_s.abs() / 60 % 60);
    let sign = if at.offset_s < 0 { "-" } else { "+" };
    format!("{} {:02}h {sign}{:02}:{minutes:02}", day(at), at.hour, hours.abs())
}

fn day(at: &Local) -> String {
    format!("{:04}-{:02}-{:02}", at.year, at.month, at.day)
}

fn week(at: &Local) -> String {
    format!("{:04}-W{:02}", at.week_year, at.week)
}

fn month(at: &Local) -> String {
    format!("{:04}-{:02}", at.year, at.month)
}

fn year(at: &Local) -> String {
    format!("{:04}", at.year)
}
