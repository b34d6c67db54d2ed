//! What is looked for: one rule for each way in which plans fail.
//!
//! The words here are what `lifeboat config check --explain` and `docs/plan-lint.md` say. The numbers are those of the contradictions that
//! were found in the five guides (`docs/plan-lint.md` lists them by guide).

use super::Severity;

/// A rule, for programs: its word never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// More can be lost than was promised, although every run succeeds.
    RpoMissed,
    /// A restore takes longer than was promised.
    RtoMissed,
    /// The drill is planned to take longer than the recovery that it is to prove.
    DrillOverRto,
    /// When the alarm rings, more is lost already than was promised.
    AlarmAfterObjective,
    /// The alarm rings although everything goes as planned.
    AlarmTooEarly,
    /// Nobody is told when backups stop.
    NoAlarm,
    /// One schedule can be dead for months without an alarm.
    AlarmHidesSchedule,
    /// Nobody can tell how much is lost at worst.
    NoSchedule,
    /// The schedule never runs.
    NeverFires,
    /// The next run begins before the last one has ended.
    RunsOverlap,
    /// Nobody knows when "2 o'clock" is.
    NoTimeZone,
    /// Two schedules make the same backup.
    SameScheduleTwice,
    /// A rule keeps what nothing makes.
    TierWithoutProducer,
    /// Whoever can read the store can read the data.
    ClearBackups,
    /// What takes the place takes the backups.
    NoOffSite,
    /// After the loss of the place, more is lost than was promised.
    OffSiteBehind,
    /// The store stays empty.
    StoreNeverFilled,
    /// The restore looks where nothing is.
    RestoresFromNowhere,
    /// The plan restores what nobody backs up.
    NoSource,
    /// The moment that is promised cannot be reached.
    MomentWithoutLog,
    /// Copies of the application on several machines damage an SQLite database, and each of them must stop for a restore.
    SeveralWriters,
    /// When the data is lost, what knows about its backups is lost, too.
    RecordInside,
    /// Two rehearsals of the same thing, at different times.
    DrillsDisagree,
    /// The checklist asks for a proof that the drills do not give in time.
    ChecklistOutpacesDrills,
    /// Nobody knows whether the objective can be kept.
    NeverDrilled,
    /// A backup that is no longer recent comes back only after hours in an archive.
    ColdBreaksRto,
    /// Backups are deleted from the archive before the time is over that is paid for anyway.
    ColdTooShort,
    /// The plan restores something before what it needs.
    OrderAgainstDependency,
    /// Something urgent waits for something that is not.
    PriorityAgainstDependency,
}

/// What a rule is about.
#[derive(Debug)]
pub struct Rule {
    /// Which it is.
    pub code: Code,
    /// Its word.
    pub word: &'static str,
    /// The contradictions of the guides that it finds.
    pub items: &'static [u8],
    /// How bad it is.
    pub severity: Severity,
    /// What goes wrong.
    pub wrong: &'static str,
    /// Why.
    pub why: &'static str,
    /// How it is mended.
    pub mend: &'static str,
}

impl Code {
    /// What there is to say about it.
    #[must_use]
    pub fn rule(self) -> &'static Rule {
        RULES.iter().find(|rule| rule.code == self).unwrap_or(&RULES[0])
    }

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.rule().word
    }

    /// The rule of this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        RULES.iter().find(|rule| rule.word == word).map(|rule| rule.code)
    }
}

/// All of them.
pub const RULES: &[Rule] = &[
    Rule {
        code: Code::RpoMissed,
        word: "rpo-missed",
        items: &[25, 35, 42, 48],
        severity: Severity::Missed,
        wrong: "More can be lost than was promised, although every run succeeds.",
        why: "A backup counts once it is stored and verified. Just before that moment the newest one is as old as the time between two runs, plus the run, plus upload and verification. A daily backup therefore never keeps an objective of 24 hours, and \"every hour\" none of one hour. One missed run adds a whole interval; that sum is shown beside it, and is not a finding.",
        mend: "Make backups more often, keep the log of a PostgreSQL cluster (`method: physical` and `lifeboat follow`), or promise what the plan can keep.",
    },
    Rule {
        code: Code::RtoMissed,
        word: "rto-missed",
        items: &[48, 52],
        severity: Severity::Missed,
        wrong: "A restore takes longer than was promised.",
        why: "Restores of this component were measured on this host, and the usual one took longer than the objective allows.",
        mend: "Restore from a store that is nearer or faster, make the component smaller, or promise what was measured.",
    },
    Rule {
        code: Code::DrillOverRto,
        word: "drill-longer-than-rto",
        items: &[48],
        severity: Severity::Missed,
        wrong: "The drill is planned to take longer than the recovery that it is to prove.",
        why: "The phases of the drill add up to more than the objective. Even a drill that goes as planned proves that the objective is missed.",
        mend: "Shorten the phases, leave what is no recovery (a review) out of them, or promise what the drill can prove.",
    },
    Rule {
        code: Code::AlarmAfterObjective,
        word: "alarm-after-objective",
        items: &[25, 42],
        severity: Severity::Warning,
        wrong: "When the alarm rings, more is lost already than was promised.",
        why: "`alert_after` is longer than the objective: a run that fails is told about when nothing can be mended in time any more.",
        mend: "Write an `alert_after` between the time that a backup may take to appear (interval, run and grace) and the objective; where there is no room between them, make backups more often.",
    },
    Rule {
        code: Code::AlarmTooEarly,
        word: "alarm-too-early",
        items: &[34],
        severity: Severity::Warning,
        wrong: "The alarm rings although everything goes as planned.",
        why: "`alert_after` is shorter than the time that the plan itself leaves between two finished backups. An alarm that rings without a reason is switched off.",
        mend: "Write an `alert_after` of at least interval, run, upload, verification and some grace.",
    },
    Rule {
        code: Code::NoAlarm,
        word: "no-alarm",
        items: &[34],
        severity: Severity::Warning,
        wrong: "Nobody is told when backups stop.",
        why: "A schedule without `alert_after` fails in silence: the last success stays the last thing that anybody heard. A rule over all of them (`max(…)`) hides one that is dead behind another that is alive, so each component has its own.",
        mend: "Write `alert_after` beside the schedule.",
    },
    Rule {
        code: Code::AlarmHidesSchedule,
        word: "alarm-hides-schedule",
        items: &[34],
        severity: Severity::Warning,
        wrong: "One schedule can be dead for months without an alarm.",
        why: "The alarm of a component looks at its newest backup. Where several schedules make backups, the frequent one keeps the alarm quiet while a rarer one no longer runs.",
        mend: "Write an `alert_after` in each entry of `schedules`.",
    },
    Rule {
        code: Code::NoSchedule,
        word: "no-schedule",
        items: &[],
        severity: Severity::Warning,
        wrong: "Nobody can tell how much is lost at worst.",
        why: "An objective was promised, and nothing says when backups are made. The newest backup may be an hour old or a year.",
        mend: "Write when backups are made: `backup.every`, `backup.at` or `backup.schedules`. Until Lifeboat runs them itself, cron or a timer does; `status` says when one is missing.",
    },
    Rule {
        code: Code::NeverFires,
        word: "never-fires",
        items: &[],
        severity: Severity::Refused,
        wrong: "The schedule never runs.",
        why: "The date does not exist in any year, such as the 30th of February.",
        mend: "Correct day and month.",
    },
    Rule {
        code: Code::RunsOverlap,
        word: "runs-overlap",
        items: &[57],
        severity: Severity::Refused,
        wrong: "The next run begins before the last one has ended.",
        why: "The time between two runs is shorter than a run takes. Runs pile up or are passed over, and no interval is what it seems to be.",
        mend: "Make backups less often; keep the log of a PostgreSQL cluster instead, where less may be lost.",
    },
    Rule {
        code: Code::NoTimeZone,
        word: "no-time-zone",
        items: &[57],
        severity: Severity::Warning,
        wrong: "Nobody knows when \"2 o'clock\" is.",
        why: "Schedules name times of the day, and no time zone is written. Whoever runs them takes that of the machine, Lifeboat takes UTC, and on two nights of a year they disagree in another way.",
        mend: "Write `instance.timezone`, also where it is `UTC`.",
    },
    Rule {
        code: Code::SameScheduleTwice,
        word: "same-schedule-twice",
        items: &[35, 48],
        severity: Severity::Warning,
        wrong: "Two schedules make the same backup.",
        why: "They have the same method and the same stores, and no rule of retention tells their backups apart: the second one only costs time. Weeks and months are kept by `retention` (`weekly`, `monthly`) from the backups that are there.",
        mend: "Remove one, or give it a method, a store or a `tag` of its own that a rule keeps.",
    },
    Rule {
        code: Code::TierWithoutProducer,
        word: "tier-without-producer",
        items: &[29],
        severity: Severity::Warning,
        wrong: "A rule keeps what nothing makes.",
        why: "A rule of retention asks for backups with a tag that no schedule gives them, or for one of each hour (day, week) where backups are made less often. The tier stays empty, or thinner than it says, and nobody notices.",
        mend: "Add a schedule with that tag or that interval, or remove the rule.",
    },
    Rule {
        code: Code::ClearBackups,
        word: "clear-backups",
        items: &[46],
        severity: Severity::Warning,
        wrong: "Whoever can read the store can read the data.",
        why: "The backups are not encrypted. Copies leave the machine, are forgotten, and outlive the people who looked after them.",
        mend: "Write `encrypt: KEY`. `lifeboat key new` makes a key.",
    },
    Rule {
        code: Code::NoOffSite,
        word: "no-off-site",
        items: &[18, 46],
        severity: Severity::Warning,
        wrong: "What takes the place takes the backups.",
        why: "No store of the component is off-site. Fire, theft, a deleted cluster or a broken array take data and backups together. Disks in the same machine, mirrored or not, are one place.",
        mend: "Add a store elsewhere to `to`. A folder that is mounted from elsewhere says so with `off_site: true`.",
    },
    Rule {
        code: Code::OffSiteBehind,
        word: "off-site-behind",
        items: &[18, 28],
        severity: Severity::Warning,
        wrong: "After the loss of the place, more is lost than was promised.",
        why: "The schedules that reach an off-site store run less often than the objective needs. The objective holds only while the near store survives.",
        mend: "Let the frequent schedule write to an off-site store, too.",
    },
    Rule {
        code: Code::StoreNeverFilled,
        word: "store-never-filled",
        items: &[18, 28],
        severity: Severity::Warning,
        wrong: "The store stays empty.",
        why: "It is described, and no component names it under `to`. A copy that somebody makes by hand is made on quiet days only.",
        mend: "Add it to `to` of the components that are meant, or remove it.",
    },
    Rule {
        code: Code::RestoresFromNowhere,
        word: "restores-from-nowhere",
        items: &[28, 49],
        severity: Severity::Refused,
        wrong: "The restore looks where nothing is.",
        why: "A drill or a scenario restores from a store into which the component's backups never go.",
        mend: "Add the store to `to` of the component, or restore from one that is there.",
    },
    Rule {
        code: Code::NoSource,
        word: "no-source",
        items: &[43],
        severity: Severity::Refused,
        wrong: "The plan restores what nobody backs up.",
        why: "A drill or a scenario names a component that does not exist, or one that is deliberately not backed up.",
        mend: "Add it under `components` with what it is and where it lies, or take it out of the plan and say under `not_backed_up` why it can be done without.",
    },
    Rule {
        code: Code::MomentWithoutLog,
        word: "any-moment-without-log",
        items: &[26, 47, 50],
        severity: Severity::Refused,
        wrong: "The moment that is promised cannot be reached.",
        why: "A drill or a scenario goes to any moment, and the component keeps no log: only the moments of its backups come back. A dump is one moment; log cannot be replayed on it.",
        mend: "Write `method: physical` and run `lifeboat follow`, or write `point: backup`.",
    },
    Rule {
        code: Code::SeveralWriters,
        word: "several-writers",
        items: &[38],
        severity: Severity::Warning,
        wrong: "Copies of the application on several machines damage an SQLite database, and each of them must stop for a restore.",
        why: "SQLite locks files. Over network file systems such locks fail, and two copies with a copy of the file each are two databases, of which one is backed up.",
        mend: "Run one copy, or use PostgreSQL. If all of them really run on one machine with one file, stop all of them before a restore.",
    },
    Rule {
        code: Code::RecordInside,
        word: "record-in-what-it-protects",
        items: &[33],
        severity: Severity::Warning,
        wrong: "When the data is lost, what knows about its backups is lost, too.",
        why: "The folder of Lifeboat's state (what was proven, how the log stands, the signing key) lies inside the data that it protects. Views about backups inside the database share the same fate.",
        mend: "Move `instance.state_dir` to another disk.",
    },
    Rule {
        code: Code::DrillsDisagree,
        word: "drills-disagree",
        items: &[47, 48],
        severity: Severity::Warning,
        wrong: "Two rehearsals of the same thing, at different times.",
        why: "They restore the same components from the same place with the same parts; only their schedules differ. Nobody can say which of them is owed.",
        mend: "Keep one of them, or make the rarer one prove more (another store, another moment, further phases).",
    },
    Rule {
        code: Code::ChecklistOutpacesDrills,
        word: "checklist-outpaces-drills",
        items: &[47],
        severity: Severity::Warning,
        wrong: "The checklist asks for a proof that the drills do not give in time.",
        why: "A checklist wants a restore that was proven within some days, and no drill of the system is held that often. The calendar decides: a monthly drill leaves 31 days between two.",
        mend: "Hold the drill more often (`every: 4w`), or ask for what the schedule can give.",
    },
    Rule {
        code: Code::NeverDrilled,
        word: "never-drilled",
        items: &[],
        severity: Severity::Warning,
        wrong: "Nobody knows whether the objective can be kept.",
        why: "A time for recovery was promised, and no drill ever restores this component. What was never rehearsed takes longer, or does not work.",
        mend: "Name the component in a drill of its system.",
    },
    Rule {
        code: Code::ColdBreaksRto,
        word: "cold-breaks-rto",
        items: &[52],
        severity: Severity::Warning,
        wrong: "A backup that is no longer recent comes back only after hours in an archive.",
        why: "All stores of the component move what recent backups do not reach to an archive class. The newest backup stays at hand; whoever needs an older one, because damage was found late, waits for the archive longer than the objective allows.",
        mend: "Keep one store without `cold`, choose a class that can be read at once (`GLACIER_IR`), or move later.",
    },
    Rule {
        code: Code::ColdTooShort,
        word: "cold-too-short",
        items: &[52],
        severity: Severity::Warning,
        wrong: "Backups are deleted from the archive before the time is over that is paid for anyway.",
        why: "Archive classes bill a least time (90 days, in `DEEP_ARCHIVE` 180), and the rules delete earlier. \"30 days at hand and 90 in the archive\" are 120 days together; an expiry after 90 days leaves 60.",
        mend: "Keep for as long as `unreached_for` and the least time together, or do without the archive.",
    },
    Rule {
        code: Code::OrderAgainstDependency,
        word: "order-against-dependency",
        items: &[37],
        severity: Severity::Refused,
        wrong: "The plan restores something before what it needs.",
        why: "The order in `restore` contradicts `depends_on`.",
        mend: "Write what others depend on first.",
    },
    Rule {
        code: Code::PriorityAgainstDependency,
        word: "priority-against-dependency",
        items: &[],
        severity: Severity::Warning,
        wrong: "Something urgent waits for something that is not.",
        why: "A component depends on one with a lower priority. Dependencies win: the less urgent one is recovered first, whatever its priority says.",
        mend: "Give what others depend on the same priority, or a higher one.",
    },
];
