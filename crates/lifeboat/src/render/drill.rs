//! What came of a drill, for a terminal and for documents.

use lifeboat_model::check::Outcome;
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_ops::drill::Written;
use lifeboat_ops::drill::evidence::Signature;
use lifeboat_ops::drill::remarks::Action;
use lifeboat_ops::drill::report::{Check, Phase, Report};

use super::text::{self, Table, counted};

/// What `drill` prints: the verdict, what was measured, the checks, and what is open.
#[must_use]
pub(crate) fn text(written: &Written) -> String {
    let report = &written.report;
    let mut text = format!("{}: drill {}: {}\n", report.component, report.id, written.standing().words());
    for (name, says) in facts(report) {
        text.push_str(&format!("  {name:<15} {says}\n"));
    }
    let outcomes: Vec<Outcome> = report.checks.iter().map(shown).collect();
    text.push_str(&text::outcomes(&outcomes));
    for (place, (item, said)) in items(written).into_iter().enumerate() {
        text.push_str(&format!("  {:<13}  {}. {item}\n", said, place + 1));
    }
    for phase in written.phases() {
        text.push_str(&format!(
            "  {:<15} {}\n",
            format!("phase {}", phase.name),
            beside_plan(&phase)
        ));
    }
    for reason in report.why() {
        text.push_str(&format!("  because: {reason}\n"));
    }
    for action in written.actions() {
        text.push_str(&format!("  action {}: {} ({})\n", action.action, action.text, whose(&action)));
    }
    if let Some(said) = approved(written) {
        text.push_str(&format!("  {said}\n"));
    }
    if let Some(hint) = report.error.as_ref().and_then(|error| error.hint.as_deref()) {
        text.push_str(&format!("  next: {hint}\n"));
    }
    text
}

/// Evidence of what passed is for the report.
fn shown(check: &Check) -> Outcome {
    let outcome = check.outcome();
    match check.verdict.as_str() {
        "passed" => outcome,
        _ => outcome.with_evidence(check.evidence.clone()),
    }
}

/// The same with everything that is known.
#[must_use]
pub(crate) fn full(written: &Written, signature: &Signature) -> String {
    let report = &written.report;
    let mut text = text(written);
    text.push_str("  steps\n");
    for step in &report.steps {
        text.push_str(&format!(
            "    {:>9.3} s  {} ({:.3} s)\n",
            step.offset_s, step.name, step.took_s
        ));
    }
    for note in &report.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    text.push_str(&format!("  evidence: {}, {}\n", written.folder.display(), signature.says()));
    text
}

/// What people are to look at, and what they said.
fn items(written: &Written) -> Vec<(String, String)> {
    let one = |item: &String| {
        let said = written.said.iter().rev().find(|said| said.item == *item);
        let word = match said {
            Some(said) if said.good => format!("ticked by {}", said.who),
            Some(said) => format!("failed, says {}", said.who),
            None => "open".to_owned(),
        };
        (item.clone(), word)
    };
    written.report.manual.iter().map(one).collect()
}

/// What a phase took beside what the plan gives it.
pub(super) fn beside_plan(phase: &Phase) -> String {
    let planned = seconds(phase.planned_s);
    match phase.took_s {
        Some(took) if took > phase.planned_s => format!("{}, longer than the {planned} that are planned", seconds(took)),
        Some(took) => format!("{} of {planned}", seconds(took)),
        None => format!("nobody said how long it took, planned {planned}"),
    }
}

/// Who is to do it until when, or who did.
pub(super) fn whose(action: &Action) -> String {
    match (&action.done, &action.due) {
        (Some((who, at)), _) => format!("{}; done, says {who} at {}", action.owner, moment(at)),
        (None, Some(due)) => format!("{}, until {due}", action.owner),
        (None, None) => format!("{}, open", action.owner),
    }
}

/// What was said last of the whole report.
pub(super) fn approved(written: &Written) -> Option<String> {
    let (remark, accepted) = written.approval()?;
    let word = if accepted { "accepted by" } else { "not accepted, says" };
    let note = remark.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
    // Times are written alike, so that their order is that of their letters.
    let later = written.said.iter().any(|said| said.at > remark.at);
    let since = if later { "; items were ticked anew since" } else { "" };
    Some(format!("{word} {} at {}{note}{since}", remark.who, moment(&remark.at)))
}

/// The list of what has to be done.
#[must_use]
pub(crate) fn action_table() -> Table {
    Table::new(&["DUE", "OWNER", "DRILL", "ACTION", "WHAT"], &[3])
}

/// A line of it. `today` is a date.
#[must_use]
pub(crate) fn action_row(written: &Written, action: &Action, today: &str) -> Vec<String> {
    let due = action.due.as_deref().unwrap_or("no date");
    let due = match (&action.done, action.overdue(today)) {
        (Some(_), _) => "done".to_owned(),
        (None, true) => format!("{due}, overdue"),
        (None, false) => due.to_owned(),
    };
    vec![
        due,
        action.owner.clone(),
        format!("{} {}", written.report.component, written.report.id),
        action.action.to_string(),
        action.text.clone(),
    ]
}

/// A time to the second, as everywhere else; what cannot be read stays.
fn moment(text: &str) -> String {
    text.split_once('.')
        .map_or_else(|| text.to_owned(), |(second, _)| format!("{second}Z"))
}

pub(super) fn seconds(seconds: f64) -> String {
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(duration) => human_duration(duration),
        Err(_) => format!("{seconds:.1} s"),
    }
}

fn promised(seconds_promised: Option<f64>) -> String {
    seconds_promised.map_or_else(
        || ", nothing was promised".to_owned(),
        |promise| format!(", promised {}", seconds(promise)),
    )
}

/// Names and values, in the order in which they are read.
pub(super) fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let measures = &report.measures;
    let mut facts = Vec::new();
    let point = match (report.point.rule.as_str(), &report.point.asked, &report.point.seed) {
        ("random", Some(asked), Some(seed)) => format!("{asked}, drawn by the seed {seed}"),
        ("random", None, Some(seed)) => format!("a backup drawn by the seed {seed}"),
        (_, Some(asked), _) => asked.clone(),
        _ => "the newest".to_owned(),
    };
    facts.push(("point", point));
    if let Some(used) = &report.backup {
        let log = used
            .log_bytes
            .map_or_else(String::new, |bytes| format!(" and {} of log", human_bytes(bytes)));
        let size = human_bytes(used.size_bytes);
        let stores = used.stores.join(", ");
        facts.push((
            "backup",
            format!("{} of {} ({size}{log}), from {stores}", used.id, moment(&used.moment)),
        ));
    }
    match measures.recovery_s {
        Some(recovery) => facts.push((
            "recovery time",
            format!("{}{}", seconds(recovery), promised(report.objectives.rto_s)),
        )),
        None => facts.push((
            "recovery time",
            format!("none: it did not come to its end{}", promised(report.objectives.rto_s)),
        )),
    }
    if let Some(point) = &measures.recovery_point {
        let by = measures.recovery_point_by.as_deref().unwrap_or("?");
        facts.push(("recovery point", format!("{}, by the {by}", moment(point))));
    }
    if let Some(loss) = measures.loss_s {
        facts.push(("loss", format!("{}{}", seconds(loss), promised(report.objectives.rpo_s))));
    }
    if let Some(commit) = &measures.last_commit {
        facts.push(("last commit", commit.clone()));
    }
    facts
}

/// The list that the guides ask for.
#[must_use]
pub(crate) fn table(all: &[Written]) -> String {
    let mut table = Table::new(
        &["DATE", "DRILL", "BACKUP USED", "RESTORE TIME", "ISSUES FOUND", "TESTER"],
        &[3],
    );
    for written in all {
        table.row(row(written));
    }
    table.render()
}

pub(super) fn row(written: &Written) -> Vec<String> {
    let report = &written.report;
    let issues = match (written.standing().words(), report.why().len()) {
        ("passed", _) => "none".to_owned(),
        (words, 0) => words.to_owned(),
        (words, count) => format!("{words}: {}", counted(count, "issue")),
    };
    let backup = report.backup.as_ref().map_or("none", |used| used.id.as_str());
    vec![
        report.began_at.chars().take(10).collect(),
        format!("{} {}", report.component, report.id),
        backup.to_owned(),
        report.measures.recovery_s.map_or_else(|| "none".to_owned(), seconds),
        issues,
        report.who.tester.clone(),
    ]
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The parts that only some drills have.
fn phases_and_actions(written: &Written) -> String {
    let mut text = String::new();
    let phases = written.phases();
    if !phases.is_empty() {
        text.push_str("\n## Phases\n\n| phase | planned | took |\n|---|---:|---:|\n");
        for phase in &phases {
            let took = phase.took_s.map_or_else(|| "not said".to_owned(), seconds);
            text.push_str(&format!(
                "| {} | {} | {took} |\n",
                cell(&phase.name),
                seconds(phase.planned_s)
            ));
        }
    }
    let actions = written.actions();
    if !actions.is_empty() {
        text.push_str("\n## What has to be done\n\n");
        for action in &actions {
            let mark = if action.done.is_some() { "x" } else { " " };
            let (what, whose) = (cell(&action.text), cell(&whose(action)));
            text.push_str(&format!("- [{mark}] {}. {what} ({whose})\n", action.action));
        }
    }
    text
}

/// For a document: everything, in tables, with the guide's own table last.
#[must_use]
pub(crate) fn markdown(written: &Written, signature: &Signature, earlier: &[Written]) -> String {
    let report = &written.report;
    let mut text = format!("# Drill of {}: {}\n\n", report.component, written.standing().words());
    for reason in report.why() {
        text.push_str(&format!("- {}\n", cell(&reason)));
    }
    text.push_str("\n| | |\n|---|---|\n");
    for (name, says) in facts(report).into_iter().chain(about(written, signature)) {
        text.push_str(&format!("| {name} | {} |\n", cell(&says)));
    }
    text.push_str("\n## Checks\n\n| check | verdict | what was seen |\n|---|---|---|\n");
    for check in &report.checks {
        let evidence = check
            .evidence
            .iter()
            .map(|line| format!("<br>`{}`", cell(line)))
            .collect::<String>();
        text.push_str(&format!(
            "| {} | {} | {}{evidence} |\n",
            cell(&check.name),
            check.verdict,
            cell(&check.says)
        ));
    }
    if !report.manual.is_empty() {
        text.push_str("\n## For people\n\n");
        for (item, said) in items(written) {
            let mark = if said.starts_with("ticked") { "x" } else { " " };
            text.push_str(&format!("- [{mark}] {} ({})\n", cell(&item), cell(&said)));
        }
    }
    text.push_str(&phases_and_actions(written));
    text.push_str("\n## Timeline\n\n| at | after | step | took |\n|---|---:|---|---:|\n");
    for step in &report.steps {
        let (at, name) = (&step.at, cell(&step.name));
        text.push_str(&format!(
            "| {at} | {:.3} s | {name} | {:.3} s |\n",
            step.offset_s, step.took_s
        ));
    }
    if !report.notes.is_empty() {
        text.push_str("\n## Notes\n\n");
        for note in &report.notes {
            text.push_str(&format!("- {}\n", cell(note)));
        }
    }
    text.push_str(
        "\n## Drills of this component\n\n| Date | Backup used | Restore time | Issues found | Tester |\n|---|---|---|---|---|\n",
    );
    for written in earlier {
        let row = row(written);
        let cells: Vec<String> = [0, 2, 3, 4, 5]
            .iter()
            .filter_map(|column| row.get(*column))
            .map(|text| cell(text))
            .collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// Who did it with what, where, and how it can be proven.
pub(super) fn about(written: &Written, signature: &Signature) -> Vec<(&'static str, String)> {
    let report = &written.report;
    let mut about = vec![
        ("drill", report.id.clone()),
        ("began", report.began_at.clone()),
        ("ended", report.ended_at.clone().unwrap_or_else(|| "never".to_owned())),
        ("why", report.trigger.clone()),
        ("tester", format!("{}, on {}", report.who.tester, report.who.host)),
        (
            "approval",
            approved(written).unwrap_or_else(|| "nobody has accepted it yet".to_owned()),
        ),
        ("instance", report.who.instance.clone()),
        (
            "program",
            format!("lifeboat {}, SHA-256 {}", report.program.version, report.program.sha256),
        ),
        ("configuration", format!("SHA-256 {}", report.program.configuration_sha256)),
    ];
    if let Some(used) = &report.backup {
        let word = if used.encrypted {
            "encrypted; the key at hand opened it"
        } else {
            "in the clear"
        };
        about.push(("stored", format!("{word}, {} old when the drill began", seconds(used.age_s))));
    }
    let drawn: Vec<String> = report
        .point
        .drawn_from
        .iter()
        .map(|(from, to)| match from == to {
            true => from.clone(),
            false => format!("{from} to {to}"),
        })
        .collect();
    if !drawn.is_empty() {
        about.push(("drawn from", drawn.join("; ")));
    }
    if let Some(cleanup) = &report.cleanup {
        about.push(("sandbox", cleanup.says.clone()));
    }
    about.push((
        "evidence",
        format!("{}, {}", written.folder.join("report.json").display(), signature.says()),
    ));
    about
}
