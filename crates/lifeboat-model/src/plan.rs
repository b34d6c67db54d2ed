//! A plan of recovery, as somebody wrote it down, and whether it can keep what it promises.
//!
//! Pure: objectives, schedules, stores, retention, drills and scenarios in, findings out. It knows what was written, never what is there: how
//! things stand is what `status` says. What a plan rests on without anybody having measured it is an assumption, and is shown as one.

mod objectives;
mod recovery;
mod rules;
mod safety;
mod schedules;

use std::time::Duration;

use crate::retention::Rules;
use crate::time::human_duration;

pub use rules::{Code, RULES, Rule};

/// How long a run is taken to need where nobody measured one: capturing, bringing it to the stores, verifying it there.
pub const ASSUMED_STEP: Duration = Duration::from_secs(5 * 60);

/// How far the log in the stores is taken to lie behind what a server committed, while it is followed.
pub const ASSUMED_LAG: Duration = Duration::from_secs(60);

/// Everything that was planned.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What is backed up, in the order of recovery.
    pub components: Vec<Component>,
    /// Where backups rest.
    pub stores: Vec<Store>,
    /// What is rehearsed and promised for whole systems.
    pub systems: Vec<System>,
    /// Whether the time zone of schedules is written down.
    pub names_time_zone: bool,
}

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PostgreSQL cluster.
    Postgres,
    /// An SQLite database.
    Sqlite,
    /// Files and folders.
    Files,
    /// Keys and certificates.
    Pki,
}

/// One protected thing.
#[derive(Clone, Debug)]
pub struct Component {
    /// `system/component`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether its log is kept, so that moments between backups come back.
    pub has_log: bool,
    /// Copies of the application that write into it.
    pub writers: u32,
    /// Whether its backups are encrypted.
    pub encrypted: bool,
    /// How much work may be lost.
    pub rpo: Option<Duration>,
    /// How long a recovery may take.
    pub rto: Option<Duration>,
    /// Its place in the order of recovery, the lower the sooner, and the word for it.
    pub priority: (u8, &'static str),
    /// What must be recovered before it.
    pub depends_on: Vec<String>,
    /// Where its backups go.
    pub stores: Vec<String>,
    /// When backups are made.
    pub schedules: Vec<Schedule>,
    /// When somebody is told that no backup came.
    pub alert_after: Option<Duration>,
    /// What is kept.
    pub keep: Option<Rules>,
    /// How long its runs take.
    pub times: Times,
    /// Whether the state of this installation, which says how backups stand, lies in what is protected here.
    pub holds_record: bool,
}

/// When backups of one sort are made.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Its name; empty where a component has just one.
    pub name: String,
    /// As it was written.
    pub says: String,
    /// Shortest and longest time between two runs; `None`: it never fires.
    pub gaps: Option<(Duration, Duration)>,
    /// Whether it names times of the day, which have a zone.
    pub has_times: bool,
    /// By which method; empty for the usual one.
    pub method: String,
    /// The word that its backups carry.
    pub tag: Option<String>,
    /// Where its backups go.
    pub stores: Vec<String>,
    /// When somebody is told that none of its own came.
    pub alert_after: Option<Duration>,
}

/// A duration, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    /// How long.
    pub takes: Duration,
    /// Where that comes from: "assumed", "measured here", …
    pub basis: String,
}

impl Time {
    /// Nobody measured it.
    #[must_use]
    pub fn assumed(takes: Duration) -> Self {
        Self {
            takes,
            basis: "assumed".to_owned(),
        }
    }
}

/// How long the runs of a component take.
#[derive(Clone, Debug)]
pub struct Times {
    /// The longest time between two backups of any schedule; `None` where none is ever made.
    pub interval: Option<Duration>,
    /// How much longer that is in the night in which clocks go back; zero where they never do.
    pub clocks_back: Duration,
    /// Capturing.
    pub run: Time,
    /// Bringing it to the stores.
    pub upload: Time,
    /// Verifying it there.
    pub verify: Time,
    /// How far the log lies behind.
    pub lag: Time,
    /// A restore, where one was measured.
    pub restore: Option<Time>,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            interval: None,
            clocks_back: Duration::ZERO,
            run: Time::assumed(ASSUMED_STEP),
            upload: Time::assumed(ASSUMED_STEP),
            verify: Time::assumed(ASSUMED_STEP),
            lag: Time::assumed(ASSUMED_LAG),
            restore: None,
        }
    }
}

/// A place that holds backups.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// Whether it survives the loss of the place where the data is.
    pub off_site: bool,
    /// What recent backups do not reach goes to an archive: after how long, and its storage class.
    pub cold: Option<(Duration, String)>,
}

/// What is rehearsed and promised for a system.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Its name.
    pub name: String,
    /// Names that are deliberately not backed up.
    pub not_backed_up: Vec<String>,
    /// Rehearsals.
    pub drills: Vec<Drill>,
    /// Disasters that were thought of.
    pub scenarios: Vec<Scenario>,
    /// How recent a proven restore has to be, by the name of the checklist that says so.
    pub proven_within: Vec<(String, Duration)>,
}

/// Which moment is brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The newest one.
    Latest,
    /// One of them, by chance.
    Random,
    /// That of a backup.
    Backup,
    /// Any, also between backups.
    Any,
}

/// A rehearsal.
#[derive(Clone, Debug)]
pub struct Drill {
    /// Its name.
    pub name: String,
    /// As its schedule was written; empty where there is none.
    pub says: String,
    /// Shortest and longest time between two of them; `None`: never by itself.
    pub gaps: Option<(Duration, Duration)>,
    /// Whether its schedule can never fire.
    pub never_fires: bool,
    /// What it restores: full names.
    pub components: Vec<String>,
    /// Which moment.
    pub point: Point,
    /// From which store.
    pub from: Option<String>,
    /// Its parts, and how long each is planned to take.
    pub phases: Vec<(String, Duration)>,
    /// What people do.
    pub manual: Vec<String>,
    /// What may be lost in it, where it says so.
    pub rpo: Option<Duration>,
    /// What it may take, where it says so.
    pub rto: Option<Duration>,
}

/// A disaster that was thought of.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What may be lost.
    pub rpo: Option<Duration>,
    /// How long it may take.
    pub rto: Option<Duration>,
    /// What is restored, in this order: full names.
    pub restore: Vec<String>,
    /// Which moment.
    pub point: Point,
    /// From which store.
    pub from: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, and deserves a second look.
    Warning,
    /// The plan cannot keep what it promises.
    Missed,
    /// The plan contradicts itself: it cannot be carried out as it is written.
    Refused,
}

impl Severity {
    /// The word people see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Missed => "missed",
            Self::Refused => "refused",
        }
    }
}

/// Something about a plan that will not go as it was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub code: Code,
    /// About what: a component, a store, `system: drill NAME`.
    pub subject: String,
    /// What will happen.
    pub says: String,
    /// What to write instead.
    pub mend: String,
}

impl Finding {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.rule().severity
    }
}

/// What is lost at worst, and of what that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worst {
    /// How much, while every run succeeds.
    pub loss: Duration,
    /// How much, when one run is missed; the same where the log is kept.
    pub after_miss: Duration,
    /// The sum in words.
    pub sum: String,
}

impl Component {
    /// What is lost at worst when everything goes as planned; `None` where no backup is ever made and no log kept.
    #[must_use]
    pub fn worst(&self) -> Option<Worst> {
        self.worst_of(self.times.interval)
    }

    /// The same for what reaches one store; `None` where nothing does.
    #[must_use]
    pub fn worst_in(&self, store: &str) -> Option<Worst> {
        if !self.stores.iter().any(|name| name == store) {
            return None;
        }
        let reaches = |schedule: &&Schedule| schedule.stores.iter().any(|name| name == store);
        let reaching: Vec<&Schedule> = self.schedules.iter().filter(reaches).collect();
        if self.has_log || reaching.len() == self.schedules.len() {
            return self.worst();
        }
        let longest = reaching
            .iter()
            .filter_map(|schedule| schedule.gaps)
            .map(|(_, longest)| longest);
        self.worst_of(Some(longest.min()?))
    }

    fn worst_of(&self, interval: Option<Duration>) -> Option<Worst> {
        let times = &self.times;
        let part = |time: &Time, what: &str| format!("{} {what} ({})", span(time.takes), time.basis);
        if self.has_log {
            return Some(Worst {
                loss: times.lag.takes,
                after_miss: times.lag.takes,
                sum: part(&times.lag, "until log is stored"),
            });
        }
        let interval = interval?;
        let parts = [(&times.run, "run"), (&times.upload, "upload"), (&times.verify, "verify")];
        let run = times.whole_run();
        let mut sum = format!("{} between backups", span(interval));
        if !times.clocks_back.is_zero() {
            sum.push_str(&format!(" + {} when clocks go back", span(times.clocks_back)));
        }
        for (time, what) in parts {
            sum.push_str(&format!(" + {}", part(time, what)));
        }
        let loss = interval.saturating_add(times.clocks_back).saturating_add(run);
        Some(Worst {
            loss,
            after_miss: loss.saturating_add(interval),
            sum,
        })
    }

    /// How long a run takes, from its start until what it made is verified.
    #[must_use]
    pub fn whole_run(&self) -> Duration {
        self.times.whole_run()
    }
}

impl Times {
    /// How long a run takes, from its start until what it made is verified.
    #[must_use]
    pub fn whole_run(&self) -> Duration {
        [&self.run, &self.upload, &self.verify].iter().map(|time| time.takes).sum()
    }
}

/// How old the newest backup may be before one was missed: the time between two runs, that of a run, and some grace, because no timer is exact.
#[must_use]
pub fn allowed_age(interval: Duration, whole_run: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(5 * 60);
    const MOST: Duration = Duration::from_secs(3600);
    let grace = (interval / 10).clamp(LEAST, MOST);
    interval.saturating_add(whole_run).saturating_add(grace)
}

/// Everything about `plan` that will not go as it was meant, the worst first, and in the order of the plan.
#[must_use]
pub fn judge(plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    for component in &plan.components {
        objectives::component(plan, component, &mut findings);
        schedules::component(plan, component, &mut findings);
        safety::component(plan, component, &mut findings);
    }
    safety::stores(plan, &mut findings);
    schedules::zone(plan, &mut findings);
    for system in &plan.systems {
        recovery::system(plan, system, &mut findings);
    }
    recovery::undrilled(plan, &mut findings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    findings
}

impl Plan {
    /// The component of this name.
    fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    /// The store of this name.
    fn store(&self, name: &str) -> Option<&Store> {
        self.stores.iter().find(|store| store.name == name)
    }
}

/// A duration to the minute, rounded up: "24h 15m" is not "1d" where a day was promised.
#[must_use]
pub fn span(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        return human_duration(duration);
    }
    let minutes = duration.as_millis().div_ceil(60_000);
    let days = if minutes < 2 * 24 * 60 { 0 } else { minutes / (24 * 60) };
    let rest = minutes - days * 24 * 60;
    let parts = [(days, "d"), (rest / 60, "h"), (rest % 60, "m")];
    let told: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    told.join(" ")
}

/// Adds a finding.
fn find(findings: &mut Vec<Finding>, code: Code, subject: impl Into<String>, says: String, mend: impl Into<String>) {
    findings.push(Finding {
        code,
        subject: subject.into(),
        says,
        mend: mend.into(),
    });
}
