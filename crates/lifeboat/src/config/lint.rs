//! From the configuration to a plan that can be judged (`lifeboat_model::plan`).
//!
//! Only what is written: how long runs take, and whether clocks change, is asked of the caller.

use std::path::Path;
use std::time::Duration;

use lifeboat_model::plan::{Component, Drill, Kind, Plan, Point, Scenario, Schedule, Store, System, Times};
use lifeboat_ops::Source;
use lifeboat_ops::protected::Method;

use super::plan::{DrillPoint, DrillSettings, Fact, Item, ScenarioSettings, ScheduleSettings, SystemPlan, When, interval};
use super::settings::{ComponentSettings, Encrypt, Priority, Settings};
use super::store::{StorePlace, StoreSettings};

/// How much later the next run is in the night in which clocks go back.
const CLOCKS_BACK: Duration = Duration::from_secs(3600);

/// The plan that `settings` describes. `measured` knows how long the runs of a component take, and `clocks_change` whether days of 25 hours exist
/// in the zone of the instance.
pub(crate) fn plan_of(settings: &Settings, measured: &dyn Fn(&ComponentSettings) -> Times, clocks_change: bool) -> Plan {
    let components = settings
        .components
        .iter()
        .map(|component| self::component(settings, component, measured(component), clocks_change));
    let systems = settings.plans.iter().map(|(name, plan)| system(settings, name, plan));
    Plan {
        components: components.collect(),
        stores: settings.stores.values().map(store).collect(),
        systems: systems.collect(),
        names_time_zone: settings.names_timezone,
    }
}

fn component(settings: &Settings, component: &ComponentSettings, times: Times, clocks_change: bool) -> Component {
    let interval = interval(&component.schedules);
    let by_calendar = component
        .schedules
        .iter()
        .any(|schedule| matches!(schedule.when, When::At(_)));
    let goes_back = by_calendar && clocks_change && interval.is_some_and(|interval| interval > CLOCKS_BACK);
    let retention = component.retention.as_ref().and_then(|name| settings.retention.get(name));
    Component {
        name: component.name.clone(),
        kind: match component.source {
            Source::Sqlite { .. } => Kind::Sqlite,
            Source::Postgres(_) => Kind::Postgres,
            Source::Files { .. } => Kind::Files,
            Source::Pki { .. } => Kind::Pki,
        },
        has_log: component.follows,
        writers: component.writers,
        encrypted: component.encrypt != Encrypt::None,
        rpo: component.rpo,
        rto: component.rto,
        priority: (
            match component.priority {
                Priority::Critical => 0,
                Priority::High => 1,
                Priority::Normal => 2,
                Priority::Low => 3,
            },
            component.priority.word(),
        ),
        depends_on: component.depends_on.clone(),
        stores: component.stores.clone(),
        schedules: component
            .schedules
            .iter()
            .map(|schedule| self::schedule(component, schedule))
            .collect(),
        alert_after: component.alert_after,
        keep: retention.map(|rules| rules.policy.keep.clone()),
        times: Times {
            interval,
            clocks_back: if goes_back { CLOCKS_BACK } else { Duration::ZERO },
            ..times
        },
        holds_record: holds(&component.source, &settings.state_dir),
    }
}

fn schedule(component: &ComponentSettings, schedule: &ScheduleSettings) -> Schedule {
    let usual = component.source.cluster().map(|cluster| cluster.method);
    let method = match schedule.method.or(usual) {
        Some(Method::Physical) => "physical",
        Some(Method::Logical) => "logical",
        None => "",
    };
    Schedule {
        name: schedule.name.clone(),
        says: schedule.when.says(),
        gaps: schedule.when.gaps(),
        has_times: matches!(schedule.when, When::At(_)),
        method: method.to_owned(),
        tag: schedule.tag.clone(),
        stores: schedule.stores.clone(),
        alert_after: schedule.alert_after,
    }
}

/// Whether `folder` lies in what is backed up.
fn holds(source: &Source, folder: &Path) -> bool {
    match source {
        Source::Postgres(cluster) => cluster.data_dir.as_ref().is_some_and(|data| folder.starts_with(data)),
        Source::Files { files, .. } => files
            .include
            .iter()
            .any(|pattern| folder.starts_with(files.root.join(pattern.trim_end_matches("**")))),
        Source::Sqlite { .. } | Source::Pki { .. } => false,
    }
}

fn store(store: &StoreSettings) -> Store {
    let cold = match &store.place {
        StorePlace::S3(s3) => s3.care.cold.as_ref(),
        StorePlace::Fs(_) | StorePlace::Gcs(_) | StorePlace::Azure(_) => None,
    };
    Store {
        name: store.name.clone(),
        off_site: store.off_site,
        cold: cold.map(|cold| (cold.unreached_for, cold.storage_class.clone())),
    }
}

fn system(settings: &Settings, name: &str, plan: &SystemPlan) -> System {
    let left_out = settings.not_backed_up.iter().filter(|(system, ..)| system == name);
    let proven_within = plan.checklists.iter().flat_map(|(list, items)| {
        items.iter().filter_map(|item| match item {
            Item::Fact(Fact::Proven(within)) => Some((list.clone(), *within)),
            Item::Fact(_) | Item::Attest { .. } => None,
        })
    });
    System {
        name: name.to_owned(),
        not_backed_up: left_out.map(|(_, name, _)| name.clone()).collect(),
        drills: plan.drills.iter().map(|(name, settings)| drill(name, settings)).collect(),
        scenarios: plan
            .scenarios
            .iter()
            .map(|(name, settings)| scenario(name, settings))
            .collect(),
        proven_within: proven_within.collect(),
    }
}

fn drill(name: &str, drill: &DrillSettings) -> Drill {
    let gaps = drill.when.as_ref().and_then(When::gaps);
    Drill {
        name: name.to_owned(),
        says: drill.when.as_ref().map(When::says).unwrap_or_default(),
        gaps,
        never_fires: drill.when.is_some() && gaps.is_none(),
        components: drill.components.clone(),
        point: match drill.point {
            DrillPoint::Latest => Point::Latest,
            DrillPoint::Random => Point::Random,
        },
        from: drill.from.clone(),
        phases: drill.phases.clone(),
        manual: drill.manual.clone(),
        rpo: drill.rpo,
        rto: drill.rto,
    }
}

fn scenario(name: &str, scenario: &ScenarioSettings) -> Scenario {
    Scenario {
        name: name.to_owned(),
        rpo: scenario.rpo,
        rto: scenario.rto,
        restore: scenario.restore.clone(),
        point: if scenario.any_moment { Point::Any } else { Point::Backup },
        from: scenario.from.clone(),
    }
}
