//! Schedules, drills, scenarios and checklists.
//!
//! Whether a plan can keep what it promises is not decided here: what is written rightly is accepted, and `lifeboat config check` judges it.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::cron::Cron;
use lifeboat_ops::Source;
use lifeboat_ops::protected::Method;
use serde_saphyr::Location;

use super::{Lowering, names, qualified};
use crate::config::check::list;
use crate::config::file::{At, ComponentFile, ConfigFile, DrillFile, ItemFile, ScenarioFile, ScheduleFile, SystemFile};
use crate::config::plan::{DrillPoint, DrillSettings, Fact, Item, ScenarioSettings, ScheduleSettings, SystemPlan, When};
use crate::config::problem::Problem;
use crate::config::settings::ComponentSettings;

impl Lowering<'_> {
    /// The schedules of a component, and when somebody is told that no backup came.
    pub(super) fn schedules(
        &mut self,
        full: &str,
        component: &ComponentFile,
        source: &Source,
        stores: &[String],
    ) -> Vec<ScheduleSettings> {
        let backup = &component.backup;
        let mut schedules = Vec::new();
        let single = backup.at.as_ref().or(backup.every.as_ref());
        if let (Some(single), Some(named)) = (single, &backup.schedules) {
            let first = named.keys().next().map_or(single.place, |name| name.place);
            self.problems.push(
                Problem::at(first, format!("{full} has both `schedules` and a schedule beside them"))
                    .help("move the one that stands alone under `schedules`, with a name"),
            );
        }
        if let Some(when) = self.when(full, single.map(|at| at.place), backup.at.as_ref(), backup.every.as_ref()) {
            schedules.push(ScheduleSettings {
                name: String::new(),
                when,
                method: None,
                tag: None,
                stores: stores.to_vec(),
                alert_after: None,
            });
        }
        for (name, file) in backup.schedules.iter().flatten() {
            self.name(name, "a schedule");
            schedules.extend(self.schedule(full, name, file, source, stores));
        }
        schedules
    }

    /// Copies of the application that write into the database.
    pub(super) fn writers(&mut self, component: &ComponentFile) -> u32 {
        let Some(writers) = component.sqlite.as_ref().and_then(|sqlite| sqlite.writers.as_ref()) else {
            return 1;
        };
        if writers.value == 0 {
            self.problems.push(
                Problem::at(writers.place, "`writers` is zero: then nothing would ever change")
                    .help("write how many copies of the application write into the database"),
            );
        }
        writers.value
    }

    fn schedule(
        &mut self,
        full: &str,
        name: &At<String>,
        file: &ScheduleFile,
        source: &Source,
        stores: &[String],
    ) -> Option<ScheduleSettings> {
        let what = format!("the schedule `{}` of {full}", name.value);
        let method = file.method.as_ref().and_then(|method| self.method(&what, method, source));
        let mut to = Vec::new();
        for store in file.to.iter().flatten() {
            if !stores.contains(&store.value) {
                let own: Vec<&str> = stores.iter().map(String::as_str).collect();
                self.problems.push(
                    Problem::at(
                        store.place,
                        format!(
                            "{what} names the store `{}`, which is not under `to` of the component",
                            store.value
                        ),
                    )
                    .label("not under `to`")
                    .help(format!("its stores are: {}", list(&own))),
                );
            }
            to.push(store.value.clone());
        }
        let alert_after = file
            .alert_after
            .as_ref()
            .map(|text| self.some_duration(text, "alert_after", "26h"));
        let when = self.when(&what, Some(name.place), file.at.as_ref(), file.every.as_ref())?;
        Some(ScheduleSettings {
            name: name.value.clone(),
            when,
            method,
            tag: file.tag.as_ref().map(|tag| tag.value.clone()),
            stores: if to.is_empty() { stores.to_vec() } else { to },
            alert_after,
        })
    }

    fn method(&mut self, what: &str, method: &At<String>, source: &Source) -> Option<Method> {
        if source.cluster().is_none() {
            self.problems.push(
                Problem::at(
                    method.place,
                    format!("{what} has a `method`, which only PostgreSQL clusters have"),
                )
                .help("remove it"),
            );
            return None;
        }
        match method.value.as_str() {
            "physical" => Some(Method::Physical),
            "logical" => Some(Method::Logical),
            _ => {
                self.unknown(method, "method", "method", &["physical", "logical"]);
                None
            }
        }
    }

    /// One of `at` and `every`. `needed`: where it is missed, if one of them must be there.
    fn when(
        &mut self,
        what: &str,
        needed: Option<Location>,
        at: Option<&At<String>>,
        every: Option<&At<String>>,
    ) -> Option<When> {
        match (at, every) {
            (Some(_), Some(every)) => {
                self.problems.push(
                    Problem::at(every.place, format!("{what} has both `at` and `every`"))
                        .label("the second one")
                        .help("write `at` for times of the calendar, or `every` for an interval"),
                );
                None
            }
            (Some(at), None) => match Cron::parse(&at.value) {
                Ok(cron) => Some(When::At(cron)),
                Err(error) => {
                    self.problems.push(
                        Problem::at(at.place, "`at` is not a schedule")
                            .label(error.detail())
                            .help("write minute, hour, day, month and day of the week: `at: \"0 2 * * *\"` is every day at two"),
                    );
                    None
                }
            },
            (None, Some(every)) => Some(When::Every(self.some_duration(every, "every", "6h"))),
            (None, None) => {
                if let Some(place) = needed {
                    self.problems.push(
                        Problem::at(place, format!("{what} has neither `at` nor `every`"))
                            .label("never")
                            .help("for example `at: \"0 2 * * *\"` or `every: 6h`"),
                    );
                }
                None
            }
        }
    }

    /// What is rehearsed and promised, by system.
    pub(super) fn plans(&mut self, file: &ConfigFile, components: &[ComponentSettings]) -> BTreeMap<String, SystemPlan> {
        let mut plans = BTreeMap::new();
        for (system, content) in file.systems.iter().flatten() {
            let plan = SystemPlan {
                contacts: self.contacts(content),
                drills: self.drills(file, &system.value, content, components),
                scenarios: self.scenarios(file, &system.value, content),
                checklists: self.checklists(content),
                probes: self.probes(&system.value, content),
            };
            plans.insert(system.value.clone(), plan);
        }
        plans
    }

    /// Whom to call, in the order in which they were written.
    fn contacts(&mut self, content: &SystemFile) -> Vec<(String, String)> {
        let mut contacts: Vec<(&At<String>, &At<String>)> = content.contacts.iter().flatten().collect();
        contacts.sort_by_key(|(role, _)| (role.place.line(), role.place.column()));
        for (role, contact) in &contacts {
            if contact.value.trim().is_empty() {
                self.problems.push(
                    Problem::at(contact.place, format!("nobody is called for `{}`", role.value))
                        .label("empty")
                        .help("write a name and how to reach it, or leave the line out"),
                );
            }
        }
        contacts
            .into_iter()
            .map(|(role, contact)| (role.value.clone(), contact.value.trim().to_owned()))
            .collect()
    }

    fn drills(
        &mut self,
        file: &ConfigFile,
        system: &str,
        content: &SystemFile,
        components: &[ComponentSettings],
    ) -> BTreeMap<String, DrillSettings> {
        let mut drills = BTreeMap::new();
        for (name, drill) in content.drills.iter().flatten() {
            self.name(name, "a drill");
            let what = format!("the drill `{}` of {system}", name.value);
            if let Some(checklist) = &drill.checklist {
                let known = names(content.checklists.as_ref());
                if !known.contains(&checklist.value.as_str()) {
                    self.unknown(checklist, "checklist", "checklists", &known);
                }
            }
            let of_system = format!("{system}/");
            let all = || {
                let own = components.iter().filter(|component| component.name.starts_with(&of_system));
                own.map(|component| component.name.clone()).collect()
            };
            let settings = DrillSettings {
                when: self.when(&what, None, drill.at.as_ref(), drill.every.as_ref()),
                components: drill.components.as_ref().map_or_else(all, |names| in_system(system, names)),
                point: self.drill_point(drill),
                from: self.store_of(file, drill.from.as_ref()),
                phases: self.phases(drill),
                manual: texts(drill.manual.as_ref()),
                checklist: drill.checklist.as_ref().map(|name| name.value.clone()),
                rpo: drill.rpo.as_ref().map(|text| self.duration(text, "rpo", "1h")),
                rto: drill.rto.as_ref().map(|text| self.some_duration(text, "rto", "30m")),
            };
            drills.insert(name.value.clone(), settings);
        }
        drills
    }

    fn drill_point(&mut self, drill: &DrillFile) -> DrillPoint {
        match drill.point.as_ref().map(|point| (point, point.value.as_str())) {
            None | Some((_, "latest")) => DrillPoint::Latest,
            Some((_, "random")) => DrillPoint::Random,
            Some((point, _)) => {
                self.unknown(point, "point", "point", &["latest", "random"]);
                DrillPoint::Latest
            }
        }
    }

    /// In the order in which they are written.
    fn phases(&mut self, drill: &DrillFile) -> Vec<(String, Duration)> {
        let mut phases: Vec<(&At<String>, Duration)> = Vec::new();
        for (name, length) in drill.phases.iter().flatten() {
            phases.push((name, self.some_duration(length, &name.value, "30m")));
        }
        phases.sort_by_key(|(name, _)| (name.place.line(), name.place.column()));
        phases
            .into_iter()
            .map(|(name, length)| (name.value.clone(), length))
            .collect()
    }

    fn scenarios(&mut self, file: &ConfigFile, system: &str, content: &SystemFile) -> BTreeMap<String, ScenarioSettings> {
        let mut scenarios = BTreeMap::new();
        for (name, scenario) in content.scenarios.iter().flatten() {
            self.name(name, "a scenario");
            let settings = ScenarioSettings {
                rpo: scenario.rpo.as_ref().map(|text| self.duration(text, "rpo", "24h")),
                rto: scenario.rto.as_ref().map(|text| self.some_duration(text, "rto", "4h")),
                restore: scenario
                    .restore
                    .as_ref()
                    .map_or_else(Vec::new, |names| in_system(system, names)),
                any_moment: self.any_moment(scenario),
                from: self.store_of(file, scenario.from.as_ref()),
                manual: texts(scenario.manual.as_ref()),
            };
            scenarios.insert(name.value.clone(), settings);
        }
        scenarios
    }

    fn any_moment(&mut self, scenario: &ScenarioFile) -> bool {
        match scenario.point.as_ref().map(|point| (point, point.value.as_str())) {
            None | Some((_, "backup")) => false,
            Some((_, "any")) => true,
            Some((point, _)) => {
                self.unknown(point, "point", "point", &["any", "backup"]);
                false
            }
        }
    }

    fn store_of(&mut self, file: &ConfigFile, store: Option<&At<String>>) -> Option<String> {
        let store = store?;
        let known = names(file.stores.as_ref());
        if !known.contains(&store.value.as_str()) {
            self.unknown(store, "store", "stores", &known);
        }
        Some(store.value.clone())
    }

    fn checklists(&mut self, content: &SystemFile) -> BTreeMap<String, Vec<Item>> {
        let mut checklists = BTreeMap::new();
        for (name, items) in content.checklists.iter().flatten() {
            self.name(name, "a checklist");
            let items = items.iter().filter_map(|item| self.item(item)).collect();
            checklists.insert(name.value.clone(), items);
        }
        checklists
    }

    fn item(&mut self, item: &At<ItemFile>) -> Option<Item> {
        let ItemFile {
            fact,
            within,
            attest,
            valid,
        } = &item.value;
        match (fact, attest) {
            (Some(fact), None) => {
                if let Some(valid) = valid {
                    let problem = Problem::at(valid.place, "`valid` belongs to `attest`: a fact is looked at anew each time");
                    self.problems.push(problem.help("remove it"));
                }
                self.fact(fact, within.as_ref()).map(Item::Fact)
            }
            (None, Some(attest)) => {
                if let Some(within) = within {
                    let problem = Problem::at(within.place, "`within` belongs to `fact: proven`");
                    self.problems
                        .push(problem.help("write `valid`: for how long what somebody said holds"));
                }
                if attest.value.trim().is_empty() {
                    self.problems.push(Problem::at(attest.place, "`attest` says nothing"));
                }
                Some(Item::Attest {
                    text: attest.value.clone(),
                    valid: valid.as_ref().map(|text| self.some_duration(text, "valid", "90d")),
                })
            }
            _ => {
                self.problems.push(
                    Problem::at(item.place, "a line of a checklist needs exactly one of `fact` and `attest`")
                        .help("write `{ fact: off_site_copy }` or `{ attest: the team is trained, valid: 90d }`"),
                );
                None
            }
        }
    }

    fn fact(&mut self, fact: &At<String>, within: Option<&At<String>>) -> Option<Fact> {
        if let (Some(within), true) = (within, fact.value != "proven") {
            let problem = Problem::at(within.place, format!("`{}` has no time", fact.value));
            self.problems.push(problem.help("`within` belongs to `fact: proven`"));
        }
        match fact.value.as_str() {
            "backup_fresh" => Some(Fact::BackupFresh),
            "off_site_copy" => Some(Fact::OffSiteCopy),
            "encrypted" => Some(Fact::Encrypted),
            "key_proven" => Some(Fact::KeyProven),
            "retention_held" => Some(Fact::RetentionHeld),
            "alerts" => Some(Fact::Alerts),
            "proven" => {
                let Some(within) = within else {
                    self.problems.push(
                        Problem::at(fact.place, "`proven` needs to know since when")
                            .help("write `{ fact: proven, within: 30d }`"),
                    );
                    return None;
                };
                Some(Fact::Proven(self.some_duration(within, "within", "30d")))
            }
            _ => {
                self.unknown(fact, "fact", "facts", &Fact::WORDS);
                None
            }
        }
    }
}

fn in_system(system: &str, names: &[At<String>]) -> Vec<String> {
    names.iter().map(|name| qualified(system, &name.value)).collect()
}

fn texts(lines: Option<&Vec<At<String>>>) -> Vec<String> {
    lines.into_iter().flatten().map(|line| line.value.clone()).collect()
}
