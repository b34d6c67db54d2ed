//! The plans of the five guides as they stand there, and what is found in each; the configurations in `examples/`, in which nothing is.
//!
//! `docs/plan-lint.md` is made from the rules and from these lists (`UPDATE_GOLDEN=1`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lifeboat_model::plan::{Code, RULES, Rule};
use serde_json::Value;

use crate::world::World;

/// Guide, rule, and about what.
type Expected = (&'static str, &'static str, &'static str);

/// Everything that is found, in order.
const EXPECTED: &[Expected] = &[
    ("sortie", "restores-from-nowhere", "sortie: scenario cluster-lost"),
    ("sortie", "restores-from-nowhere", "sortie: scenario namespace-deleted"),
    ("sortie", "rpo-missed", "sortie/db"),
    ("sortie", "no-alarm", "sortie/db"),
    ("sortie", "clear-backups", "sortie/db"),
    ("sortie", "no-off-site", "sortie/db"),
    ("sortie", "store-never-filled", "off-cluster"),
    ("sortie", "no-time-zone", "instance"),
    ("tartware", "any-moment-without-log", "tartware: scenario deleted"),
    ("tartware", "rpo-missed", "tartware/db"),
    ("tartware", "rpo-missed", "tartware: scenario infrastructure-lost"),
    ("tartware", "off-site-behind", "tartware/db"),
    ("tartware", "alarm-after-objective", "tartware/db"),
    ("tartware", "alarm-hides-schedule", "tartware/db"),
    ("tartware", "tier-without-producer", "tartware/db"),
    ("tartware", "record-in-what-it-protects", "tartware/db"),
    ("tartware", "no-time-zone", "instance"),
    ("devops-hub", "rpo-missed", "devops-hub/db"),
    ("devops-hub", "rpo-missed", "devops-hub/config"),
    ("devops-hub", "alarm-after-objective", "devops-hub/db"),
    ("devops-hub", "alarm-hides-schedule", "devops-hub/db"),
    ("devops-hub", "same-schedule-twice", "devops-hub/db"),
    ("devops-hub", "clear-backups", "devops-hub/db"),
    ("devops-hub", "several-writers", "devops-hub/db"),
    ("devops-hub", "alarm-after-objective", "devops-hub/config"),
    ("devops-hub", "alarm-hides-schedule", "devops-hub/config"),
    ("devops-hub", "same-schedule-twice", "devops-hub/config"),
    ("devops-hub", "clear-backups", "devops-hub/config"),
    ("devops-hub", "no-time-zone", "instance"),
    ("devops-hub", "checklist-outpaces-drills", "devops-hub: checklist before"),
    ("devops-hub", "never-drilled", "devops-hub/config"),
    ("n-kudo", "any-moment-without-log", "n-kudo: scenario deleted"),
    ("n-kudo", "no-source", "n-kudo: scenario server-lost"),
    ("n-kudo", "no-source", "n-kudo: scenario server-lost"),
    ("n-kudo", "no-source", "n-kudo: scenario server-lost"),
    ("n-kudo", "rpo-missed", "n-kudo/db"),
    ("n-kudo", "alarm-after-objective", "n-kudo/db"),
    ("n-kudo", "clear-backups", "n-kudo/db"),
    ("n-kudo", "drills-disagree", "n-kudo: drills monthly and quarterly"),
    ("architect-go", "restores-from-nowhere", "architect-go: scenario corruption"),
    ("architect-go", "restores-from-nowhere", "architect-go: scenario pitr"),
    ("architect-go", "any-moment-without-log", "architect-go: scenario pitr"),
    ("architect-go", "rpo-missed", "architect-go/pg"),
    ("architect-go", "rpo-missed", "architect-go/sqlite"),
    ("architect-go", "rpo-missed", "architect-go: drill monthly"),
    ("architect-go", "rpo-missed", "architect-go: drill monthly"),
    ("architect-go", "drill-longer-than-rto", "architect-go: drill monthly"),
    ("architect-go", "no-alarm", "architect-go/pg"),
    ("architect-go", "same-schedule-twice", "architect-go/pg"),
    ("architect-go", "clear-backups", "architect-go/pg"),
    ("architect-go", "cold-breaks-rto", "architect-go/pg"),
    ("architect-go", "cold-too-short", "architect-go/pg in backups"),
    ("architect-go", "no-alarm", "architect-go/sqlite"),
    ("architect-go", "same-schedule-twice", "architect-go/sqlite"),
    ("architect-go", "clear-backups", "architect-go/sqlite"),
    ("architect-go", "several-writers", "architect-go/sqlite"),
    ("architect-go", "cold-breaks-rto", "architect-go/sqlite"),
    ("architect-go", "cold-too-short", "architect-go/sqlite in backups"),
    ("architect-go", "store-never-filled", "bucket"),
    ("architect-go", "no-time-zone", "instance"),
    ("architect-go", "drills-disagree", "architect-go: drills daily and weekly"),
];

/// The guides, and how the check of their plans ends: 7 where a plan contradicts itself, 4 where it only cannot keep what it promises.
const GUIDES: [(&str, i32); 5] = [
    ("sortie", 7),
    ("tartware", 7),
    ("devops-hub", 4),
    ("n-kudo", 7),
    ("architect-go", 7),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `config check` finds in a file: exit code, and code and subject of each finding.
fn findings(world: &World, file: &Path, code: i32) -> Vec<(String, String)> {
    let checked = world
        .run(&["--config", &file.display().to_string(), "config", "check", "--json"])
        .ends(code)
        .json("config-check");
    let word = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let all = checked["findings"].as_array().unwrap();
    all.iter()
        .map(|finding| (word(finding, "code"), word(finding, "subject")))
        .collect()
}

#[test]
fn the_plans_of_the_guides_are_judged_as_they_stand() {
    let world = World::empty();
    let mut found = Vec::new();
    for (guide, exit) in GUIDES {
        let file = root().join("crates/lifeboat/tests/it/plans").join(format!("{guide}.yaml"));
        for (code, subject) in findings(&world, &file, exit) {
            found.push((guide, code, subject));
        }
    }
    let found: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|(guide, code, subject)| (*guide, code.as_str(), subject.as_str()))
        .collect();
    let listed: String = found.iter().fold(String::new(), |mut out, row| {
        writeln!(out, "    {row:?},").unwrap();
        out
    });
    assert_eq!(found, EXPECTED, "found:\n{listed}");
}

/// What the research about the guides says a linter has to find, guide by guide.
#[test]
fn every_contradiction_of_a_guide_is_found_in_its_own_plan() {
    let wanted: [(&str, &[u8]); 5] = [
        ("sortie", &[18, 57]),
        ("tartware", &[25, 26, 28, 29, 33, 34, 57]),
        ("devops-hub", &[35, 38, 57]),
        ("n-kudo", &[42, 43, 47]),
        ("architect-go", &[38, 48, 49, 50, 52, 57]),
    ];
    for (guide, items) in wanted {
        for item in items {
            let found = EXPECTED
                .iter()
                .any(|(of, code, _)| *of == guide && rule(code).items.contains(item));
            assert!(found, "X-{item} is not found in the plan of {guide}");
        }
    }
}

#[test]
fn nothing_is_found_in_the_examples() {
    let world = World::empty();
    for (guide, _) in GUIDES {
        let file = root().join("examples").join(guide).join("lifeboat.yaml");
        assert_eq!(findings(&world, &file, 0), [], "{guide}");
    }
}

fn rule(word: &str) -> &'static Rule {
    Code::named(word).unwrap().rule()
}

const HEAD: &str = "\
# What is wrong with a plan

This page is made from the rules (`crates/lifeboat-model/src/plan`); a test keeps it up to date.

`lifeboat config check` looks at the plan in the configuration: objectives, schedules, stores, retention, drills, scenarios, checklists. It looks at
what was written, not at what is there; how things stand is what `lifeboat status` says. Only `config check` judges by it: no other command fails
because of a finding.

| severity | means | exit code |
|---|---|---|
| refused | the plan contradicts itself: it cannot be carried out as it is written | 7 |
| missed | the plan cannot keep what it promises | 4 |
| warning | it works, and deserves a second look | 0 |

## What is lost at worst

The longest time between two backups, plus the run, plus the upload, plus the verification: only then a backup counts, and until then the one
before it is all there is. Where schedules name times of the day in a zone whose clocks change, the night that is an hour longer counts too. One missed
run adds another interval; that is shown beside it. Where the log of a PostgreSQL cluster is kept (`method: physical`; `follow: false` says that it is
not), it is the time until log is stored.

How long a verification and a restore take is taken from what was proven on this host. How long a run takes, the upload included, is that of the slowest of
the newest ten backups that were made here as each schedule says (its method, its stores); a backup that failed, was killed or did not come into all its stores
is none of them. Where nothing was measured, five minutes are assumed for each of run, upload and verification, and one minute until log is stored; the
output says which is which.

## Schedules

`backup.every`, `backup.at` and `backup.schedules` say when backups are expected. **Lifeboat does not start them yet**: cron or a timer runs
`lifeboat backup` (with `--tag`, `--method` or `--to`, where a schedule names them). `lifeboat status` says \"at risk\" when the newest backup is
older than the interval, the run and some grace (a tenth of the interval, from five minutes to an hour).

## The findings

";

#[test]
fn the_page_about_plans_is_up_to_date() {
    let mut out = HEAD.to_owned();
    for rule in RULES {
        writeln!(out, "### {}\n", rule.word).unwrap();
        writeln!(out, "{} ({})\n", rule.wrong, rule.severity.word()).unwrap();
        writeln!(out, "{}\n", rule.why).unwrap();
        writeln!(out, "**Write instead:** {}\n", rule.mend).unwrap();
    }
    out.push_str(
        "## What is found in the five guides\n\nTheir plans as they stand there are in `crates/lifeboat/tests/it/plans`; the numbers are those of the \
         contradictions that were\nfound by reading and trying them. In the configurations of `examples` nothing is found.\n\n\
         | guide | X | finding | about |\n|---|---|---|---|\n",
    );
    for (guide, code, subject) in EXPECTED {
        let items: Vec<String> = rule(code).items.iter().map(|item| format!("X-{item}")).collect();
        writeln!(out, "| {guide} | {} | [{code}](#{code}) | {subject} |", items.join(", ")).unwrap();
    }
    let path = root().join("docs/plan-lint.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &out).unwrap();
    }
    let then = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(out, then, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
}

#[test]
fn a_code_is_explained_and_an_unknown_one_names_the_others() {
    let world = World::empty();
    let said = world
        .run(&["config", "check", "--explain", "rpo-missed", "--json"])
        .ends(0)
        .json("plan-rule");
    assert_eq!(said["severity"], "missed");
    assert_eq!(said["items"][0], "X-25");
    let unknown = world.run(&["config", "check", "--explain", "nonsense"]).ends(2);
    assert!(unknown.stderr.contains("rpo-missed"), "{}", unknown.stderr);
}

/// A plan that misses its objective is a configuration that every other command takes.
#[test]
fn only_the_check_judges_a_plan() {
    let world = World::protected();
    world.edit_config("backup: { to: [disk]", "backup: { every: 24h, to: [disk]");
    // What the backup of `init` took is known here, and without that it is assumed.
    std::fs::remove_dir_all(world.state_dir().join("durations")).unwrap();
    let checked = world.run(&["config", "check"]).ends(4);
    assert!(checked.stdout.contains("at worst 24h 1"), "{}", checked.stdout);
    assert!(checked.stdout.contains("(assumed)") && checked.stdout.contains("[rpo-missed]"));
    world.run(&["backup"]).ends(0);
    world.run(&["list"]).ends(0);
    world.run(&["verify", "--level", "restore"]).ends(0);
    world.run(&["status"]).ends(0);
    world.run(&["config", "show"]).ends(0);
    // What was measured here is no longer assumed.
    let measured = world.run(&["config", "check", "--json"]).ends(4).json("config-check");
    assert_ne!(measured["plan"][0]["verify"]["basis"], "assumed");
    assert_eq!(measured["plan"][0]["run"]["basis"], "1 measured backup");
    assert_eq!(measured["plan"][0]["upload"]["basis"], "part of the backup");
}

/// How long the run of the only component takes, and why that is believed.
fn run_of(world: &World) -> (f64, String) {
    let checked = world.run(&["config", "check", "--json"]).ends(4).json("config-check");
    let run = &checked["plan"][0]["run"];
    (run["s"].as_f64().unwrap(), run["basis"].as_str().unwrap().to_owned())
}

#[test]
fn how_long_a_run_takes_is_measured_by_backups_that_succeeded_here() {
    let world = World::protected();
    world.edit_config("backup: { to: [disk]", "backup: { every: 24h, to: [disk]");
    let (took, basis) = run_of(&world);
    assert!(took > 0.0 && took < 300.0 && basis == "1 measured backup", "{took} {basis}");
    // One that fails says nothing, and the store is not asked.
    std::fs::rename(world.path("lifeboat-backups"), world.path("away")).unwrap();
    assert_ne!(world.run(&["backup"]).code, 0);
    assert_eq!(run_of(&world), (took, "1 measured backup".to_owned()));
    std::fs::rename(world.path("away"), world.path("lifeboat-backups")).unwrap();
    world.run(&["backup"]).ends(0);
    let (slowest, basis) = run_of(&world);
    assert!(
        slowest >= took && basis == "the slowest of 2 measured backups",
        "{slowest} {basis}"
    );
    // An old slow one counts until ten newer ones were made.
    let files: Vec<PathBuf> = std::fs::read_dir(world.state_dir().join("durations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let mut known: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    known["backups"][0]["took_s"] = 7200.into();
    std::fs::write(file, known.to_string()).unwrap();
    assert_eq!(run_of(&world), (7200.0, "the slowest of 2 measured backups".to_owned()));
    // What went into other stores than a schedule says is better than nothing.
    known["backups"][0]["stores"] = serde_json::json!(["disk", "other"]);
    std::fs::write(file, known.to_string()).unwrap();
    assert_eq!(run_of(&world).1, "1 measured backup");
    known["backups"][1]["stores"] = serde_json::json!([]);
    std::fs::write(file, known.to_string()).unwrap();
    let otherwise = "the slowest of 2 measured backups, made otherwise than planned";
    assert_eq!(run_of(&world), (7200.0, otherwise.to_owned()));
    // Damaged or lost: assumed, and the next backup is measured again.
    std::fs::write(file, "{").unwrap();
    assert_eq!(run_of(&world), (300.0, "assumed".to_owned()));
    world.run(&["backup"]).ends(0);
    assert_eq!(run_of(&world).1, "1 measured backup");
    // Where it cannot be kept, the backup is made all the same.
    std::fs::remove_dir_all(world.state_dir().join("durations")).unwrap();
    std::fs::write(world.state_dir().join("durations"), "").unwrap();
    let made = world.run(&["backup"]).ends(0);
    assert!(made.stderr.contains("could not be remembered"), "{}", made.stderr);
    assert_eq!(run_of(&world).1, "assumed");
}

#[test]
fn the_report_names_what_retention_lacks() {
    let world = World::protected();
    world.run(&["backup"]).ends(0);
    let plain = world.run(&["prune", "--report"]).ends(0);
    assert!(plain.stdout.contains("no rules, everything is kept"), "{}", plain.stdout);
    world.edit_config(
        "systems:",
        "retention: { guide: { keep: { last: 3, daily: 7, monthly: 12 } } }\nsystems:",
    );
    world.edit_config("backup: { to: [disk]", "backup: { retention: guide, to: [disk]");
    let told = world.run(&["prune", "--report"]).ends(0);
    assert!(told.stdout.contains("daily        wants 7     has"), "{}", told.stdout);
    assert!(told.stdout.contains("the rest lies before the first backup"));
    let report = world.run(&["prune", "--report", "--json"]).ends(0).json("retention");
    let method = &report["components"][0]["methods"][0];
    assert_eq!((&method["held"], &method["good"]), (&Value::from(true), &Value::from(2)));
    let daily = &method["tiers"][1];
    let held = daily["held"].as_array().unwrap().len() as u64;
    assert_eq!(held + daily["before"].as_u64().unwrap(), 7);
    // It touches nothing: a prune after it still begins with a census.
    let dry = world.run(&["prune", "--dry-run", "--json"]).ends(0).json("prune");
    assert_eq!(dry["components"][0]["swept"]["files"], 0);
}
