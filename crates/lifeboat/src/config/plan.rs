//! When things are expected to happen and what was promised, as the rest of the program sees it. Nothing of it runs by itself yet.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::cron::{Cron, gaps};
use lifeboat_ops::probe::Probe;
use lifeboat_ops::protected::Method;
use serde_json::{Value as Json, json};

use super::exact_duration;

/// How often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum When {
    /// At times of the calendar, in the zone of the instance.
    At(Cron),
    /// At least so often.
    Every(Duration),
}

impl When {
    /// As it was written.
    pub(crate) fn says(&self) -> String {
        match self {
            Self::At(cron) => format!("at {cron}"),
            Self::Every(every) => format!("every {}", exact_duration(*every)),
        }
    }

    /// Shortest and longest time between two of them; `None`: never.
    pub(crate) fn gaps(&self) -> Option<(Duration, Duration)> {
        match self {
            Self::At(cron) => gaps(std::slice::from_ref(cron)),
            Self::Every(every) => Some((*every, *every)),
        }
    }

    fn show(&self) -> Json {
        match self {
            Self::At(cron) => json!({ "at": cron.to_string() }),
            Self::Every(every) => json!({ "every": exact_duration(*every) }),
        }
    }
}

/// When backups of one sort are expected to be made.
#[derive(Debug, Clone)]
pub(crate) struct ScheduleSettings {
    /// Its name; empty where a component has just one.
    pub(crate) name: String,
    /// How often.
    pub(crate) when: When,
    /// By which method, where it is not the component's own.
    pub(crate) method: Option<Method>,
    /// The word that its backups carry.
    pub(crate) tag: Option<String>,
    /// The stores that it writes to, at least one.
    pub(crate) stores: Vec<String>,
    /// When somebody is to be told that none came.
    pub(crate) alert_after: Option<Duration>,
}

/// The longest time between two backups that any of `schedules` makes; `None`: none is ever made.
pub(crate) fn interval(schedules: &[ScheduleSettings]) -> Option<Duration> {
    let crons: Vec<Cron> = schedules
        .iter()
        .filter_map(|schedule| match &schedule.when {
            When::At(cron) => Some(cron.clone()),
            When::Every(_) => None,
        })
        .collect();
    let every = schedules.iter().filter_map(|schedule| match schedule.when {
        When::Every(every) => Some(every),
        When::At(_) => None,
    });
    every.chain(gaps(&crons).map(|(_, longest)| longest)).min()
}

/// What is rehearsed and promised for a system.
#[derive(Debug, Clone, Default)]
pub(crate) struct SystemPlan {
    /// Whom to call, by role, in the order in which they were written.
    pub(crate) contacts: Vec<(String, String)>,
    /// Rehearsals, by name.
    pub(crate) drills: BTreeMap<String, DrillSettings>,
    /// Disasters that were thought of, by name.
    pub(crate) scenarios: BTreeMap<String, ScenarioSettings>,
    /// Checklists, by name.
    pub(crate) checklists: BTreeMap<String, Vec<Item>>,
    /// What is asked of the live application.
    pub(crate) probes: Vec<Probe>,
}

/// Which moment a drill restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrillPoint {
    /// The newest one.
    Latest,
    /// One within reach, by chance.
    Random,
}

impl DrillPoint {
    /// The word in the configuration.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Random => "random",
        }
    }
}

/// A rehearsal.
#[derive(Debug, Clone)]
pub(crate) struct DrillSettings {
    /// How often; without it only when somebody asks for it.
    pub(crate) when: Option<When>,
    /// What it restores, in this order: `system/component`. That they are there is not checked here: the plan's findings say it.
    pub(crate) components: Vec<String>,
    /// Which moment.
    pub(crate) point: DrillPoint,
    /// From which store, where it matters.
    pub(crate) from: Option<String>,
    /// Its parts in the order in which they were written, and how long each is planned to take.
    pub(crate) phases: Vec<(String, Duration)>,
    /// What people do and look at.
    pub(crate) manual: Vec<String>,
    /// The checklist that goes with it.
    pub(crate) checklist: Option<String>,
    /// How much may be lost, where it says so.
    pub(crate) rpo: Option<Duration>,
    /// How long it may take, where it says so.
    pub(crate) rto: Option<Duration>,
}

/// A disaster that was thought of.
#[derive(Debug, Clone)]
pub(crate) struct ScenarioSettings {
    /// How much may be lost, where it says so.
    pub(crate) rpo: Option<Duration>,
    /// How long it may take, where it says so.
    pub(crate) rto: Option<Duration>,
    /// What is restored, in this order: `system/component`. That they are there is not checked here: the plan's findings say it.
    pub(crate) restore: Vec<String>,
    /// Whether a moment between two backups is needed.
    pub(crate) any_moment: bool,
    /// From which store, where it matters.
    pub(crate) from: Option<String>,
    /// What people do.
    pub(crate) manual: Vec<String>,
}

/// One line of a checklist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Something that is known without asking anybody.
    Fact(Fact),
    /// Something that a person says, and for how long that holds.
    Attest {
        /// What.
        text: String,
        /// For how long; for ever where it is not said.
        valid: Option<Duration>,
    },
}

/// What is known without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// No scheduled backup is missing.
    BackupFresh,
    /// The newest backup stands in an off-site store.
    OffSiteCopy,
    /// Backups are encrypted.
    Encrypted,
    /// A restore was proven, so long ago at most.
    Proven(Duration),
    /// The private key opens the newest backup.
    KeyProven,
    /// Every tier of retention has what it promises.
    RetentionHeld,
    /// Every schedule has an alarm.
    Alerts,
}

impl Fact {
    /// The words of those that need nothing else, and of `proven`.
    pub(crate) const WORDS: [&'static str; 7] = [
        "backup_fresh",
        "off_site_copy",
        "encrypted",
        "proven",
        "key_proven",
        "retention_held",
        "alerts",
    ];

    /// The word in the configuration.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::BackupFresh => "backup_fresh",
            Self::OffSiteCopy => "off_site_copy",
            Self::Encrypted => "encrypted",
            Self::Proven(_) => "proven",
            Self::KeyProven => "key_proven",
            Self::RetentionHeld => "retention_held",
            Self::Alerts => "alerts",
        }
    }
}

/// Schedules as they take effect.
pub(super) fn show_schedules(schedules: &[ScheduleSettings]) -> Json {
    let all = schedules.iter().map(|schedule| {
        let mut shown = schedule.when.show();
        shown["name"] = json!(schedule.name);
        shown["method"] = json!(schedule.method.map(|method| match method {
            Method::Physical => "physical",
            Method::Logical => "logical",
        }));
        shown["tag"] = json!(schedule.tag);
        shown["to"] = json!(schedule.stores);
        shown["alert_after"] = json!(schedule.alert_after.map(exact_duration));
        shown
    });
    all.collect()
}

/// The plans of the systems as they take effect.
pub(super) fn show(plans: &BTreeMap<String, SystemPlan>) -> Json {
    let all = plans.iter().map(|(name, plan)| {
        let drills: serde_json::Map<String, Json> = plan
            .drills
            .iter()
            .map(|(name, drill)| (name.clone(), show_drill(drill)))
            .collect();
        let scenarios: serde_json::Map<String, Json> = plan
            .scenarios
            .iter()
            .map(|(name, scenario)| {
                let shown = json!({
                    "rpo": scenario.rpo.map(exact_duration),
                    "rto": scenario.rto.map(exact_duration),
                    "restore": scenario.restore,
                    "point": if scenario.any_moment { "any" } else { "backup" },
                    "from": scenario.from,
                    "manual": scenario.manual,
                });
                (name.clone(), shown)
            })
            .collect();
        let checklists: serde_json::Map<String, Json> = plan
            .checklists
            .iter()
            .map(|(name, items)| (name.clone(), items.iter().map(show_item).collect()))
            .collect();
        (
            name.clone(),
            json!({
                "probes": plan.probes.iter().map(super::show_checks::probe).collect::<Vec<_>>(),
                "contacts": show_contacts(&plan.contacts),
                "drills": drills, "scenarios": scenarios, "checklists": checklists }),
        )
    });
    Json::Object(all.collect())
}

fn show_contacts(contacts: &[(String, String)]) -> Json {
    let all = contacts.iter().map(|(role, contact)| (role.clone(), json!(contact)));
    Json::Object(all.collect())
}

fn show_drill(drill: &DrillSettings) -> Json {
    let phases: Vec<Json> = drill
        .phases
        .iter()
        .map(|(name, length)| json!({ "name": name, "length": exact_duration(*length) }))
        .collect();
    json!({
        "when": drill.when.as_ref().map(When::show),
        "components": drill.components,
        "point": drill.point.word(),
        "from": drill.from,
        "phases": phases,
        "manual": drill.manual,
        "checklist": drill.checklist,
        "rpo": drill.rpo.map(exact_duration),
        "rto": drill.rto.map(exact_duration),
    })
}

fn show_item(item: &Item) -> Json {
    match item {
        Item::Fact(Fact::Proven(within)) => json!({ "fact": "proven", "within": exact_duration(*within) }),
        Item::Fact(fact) => json!({ "fact": fact.word() }),
        Item::Attest { text, valid } => json!({ "attest": text, "valid": valid.map(exact_duration) }),
    }
}
