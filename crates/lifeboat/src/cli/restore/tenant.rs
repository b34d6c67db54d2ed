//! `lifeboat restore --tenant` and `--tables … --in-place`: rows into the live database, shown before, and kept before they are replaced.

use lifeboat_engine::postgres::logical::tenant::merge::Change;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::backup::{OneTenant, Part, Report, Request};
use lifeboat_ops::protected::Protected;
use lifeboat_ops::restore::logical::tenant::{self, Plan, Ready, Wanted};
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::{Cx, ask, backup, tenants};
use super::{Done, Restore, cluster};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

/// Which rows are to go into the live database, where they are.
pub(super) fn wanted(component: &ComponentSettings, args: &Restore) -> Result<Option<Wanted>> {
    if args.tenant.is_some() || !args.tables.is_empty() {
        cluster::refuse_two_places(&component.name, args)?;
    }
    if args.delete && (args.tables.is_empty() || !args.in_place) {
        let detail = "--delete is for rows that go back into the live tables: --tables with --in-place";
        return Err(Error::new(ErrorKind::Usage, "restore", &component.name, detail).with_hint("leave it out"));
    }
    if let Some(id) = &args.tenant {
        if !args.in_place && !args.dry_run {
            let detail = "a tenant's rows go into the live database, and nobody said so";
            return Err(Error::new(ErrorKind::Usage, "restore the tenant", id, detail).with_hint(
                "add --dry-run to see what would change, or --in-place; a backup of the tenant alone (`lifeboat backup --tenant`) also restores beside, with --backup and --to",
            ));
        }
        let tenant = tenants::one(component, id, false)?;
        return Ok(Some(match &args.as_tenant {
            Some(new_id) => Wanted::TenantAs {
                tenant,
                new_id: new_id.clone(),
            },
            None => Wanted::Tenant(tenant),
        }));
    }
    let tables = (args.in_place && !args.tables.is_empty()).then(|| Wanted::Tables {
        database: args.database.clone(),
        tables: args.tables.clone(),
        deletes: args.delete,
    });
    Ok(tables)
}

pub(super) async fn one(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    args: &Restore,
    protected: &Protected,
    plan: Plan,
) -> Result<Done> {
    let mut shown = plan_for_people(&component.name, &plan);
    cx.out.note(&shown);
    let (from, wanted, database) = (plan.backup.clone(), plan.wanted.clone(), plan.database.clone());
    let ready = tenant::stage(&cx.env, protected, plan).await?;
    cx.env.progress.finish();
    for note in &ready.notes {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    shown = changes_for_people(&component.name, (&wanted.subject(), &database), &ready.changes);
    let mut json = json!({
        "component": component.name,
        "id": ready.id,
        "backup": document::backup(&from),
        "tenant": wanted.receiver().map(|tenant| tenant.id),
        "database": database,
        "changes": changes_as_json(&ready.changes),
        "notes": ready.notes,
    });
    let nothing = ready.changes.iter().all(Change::is_none);
    if args.dry_run || nothing {
        ready.give_up().await?;
        return Ok(Done {
            exit: Exit::OK,
            json,
            text: shown,
        });
    }
    cx.out.note(&shown);
    let kept = match agree_and_keep(cx, context, component, args, (&wanted, &database), &from).await {
        Ok(kept) => kept,
        Err(error) => {
            // Why it ends matters more; the next one removes what is left.
            drop(ready.give_up().await);
            return Err(error);
        }
    };
    backup::tell_missing(cx, component, &kept);
    cx.out.note(&format!(
        "{}: what is there now is kept as backup {}",
        component.name,
        kept.backup.id.short()
    ));
    let (changes, id) = (ready.changes.clone(), ready.id.clone());
    let (others, notes) = Ready::apply(ready, &cx.env).await?;
    cx.env.progress.finish();
    for note in &notes {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    if let Value::Object(fields) = &mut json {
        fields.insert("kept".to_owned(), document::backup(&kept.backup));
        fields.insert("rows_of_others".to_owned(), json!(others));
    }
    Ok(Done {
        exit: backup::exit_of(component, &kept),
        json,
        text: done_for_people(component, (&wanted, args), (&changes, others), &kept, &id),
    })
}

/// A yes, and a backup of what the tenant has now.
async fn agree_and_keep(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    args: &Restore,
    (wanted, database): (&Wanted, &str),
    from: &lifeboat_repo::Backup,
) -> Result<Report> {
    let subject = wanted.subject();
    if !args.yes {
        let question = format!("Change the rows of {subject} in {database} so?");
        ask::confirm(
            cx,
            &question,
            "restore the rows of",
            &subject,
            &ask::this_command_with(&["--yes"]),
        )?;
    }
    let reason = args.reason.clone();
    let request = Request {
        reason: Some(reason.unwrap_or_else(|| format!("before the restore of {subject} from backup {}", from.id.short()))),
        tags: vec!["before-restore".to_owned()],
        part: match wanted {
            Wanted::Tables { tables, .. } => Part::Tables {
                database: Some(database.to_owned()),
                tables: tables.clone(),
            },
            Wanted::Tenant(tenant) => as_it_is(tenant.clone()),
            Wanted::TenantAs { tenant, new_id } => as_it_is(OneTenant {
                id: new_id.clone(),
                ..tenant.clone()
            }),
        },
        ..Request::default()
    };
    let kept = backup::one(cx, context, component, request).await;
    cx.env.progress.finish();
    kept
}

/// What a tenant has now, also where it is nothing.
fn as_it_is(tenant: OneTenant) -> Part {
    Part::Tenant(Box::new(OneTenant { as_is: true, ..tenant }))
}

fn plan_for_people(component: &str, plan: &Plan) -> String {
    let mut text = format!(
        "{component}: the rows of {} of {} (backup {}) into {} on {}\n",
        plan.wanted.subject(),
        text::time(plan.moment_us),
        plan.backup.id.short(),
        plan.database,
        plan.server,
    );
    for (index, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", index + 1));
    }
    text
}

fn changes_for_people(component: &str, (subject, database): (&str, &str), changes: &[Change]) -> String {
    let mut text = format!("{component}: the rows of {subject} in {database}:\n");
    for change in changes.iter().filter(|change| !change.is_none()) {
        text.push_str(&format!(
            "  {}: insert {}, update {}, delete {}\n",
            change.table, change.inserts, change.updates, change.deletes
        ));
        for sample in &change.samples {
            text.push_str(&format!("    {sample}\n"));
        }
    }
    match changes.iter().filter(|change| change.is_none()).count() {
        same if same == changes.len() => text.push_str("  they are as they were: there is nothing to do\n"),
        0 => {}
        same => text.push_str(&format!("  {} as they were\n", text::counted(same as u64, "table"))),
    }
    text
}

fn done_for_people(
    component: &ComponentSettings,
    (wanted, args): (&Wanted, &Restore),
    (changes, others): (&[Change], u64),
    kept: &Report,
    id: &str,
) -> String {
    let sum = |of: fn(&Change) -> u64| changes.iter().map(of).sum::<u64>();
    let (name, kept) = (&component.name, kept.backup.id.short());
    let mut text = format!(
        "{name}: {} as they were: {} rows inserted, {} updated, {} deleted, in one transaction (restore {id})\n",
        match wanted {
            Wanted::Tenant(_) | Wanted::TenantAs { .. } => format!("the rows of {} are", wanted.subject()),
            Wanted::Tables {
                deletes: true, tables, ..
            } => format!("the rows of {} are", tables.join(", ")),
            Wanted::Tables { tables, .. } => format!("the rows that {} had are", tables.join(", ")),
        },
        sum(|change| change.inserts),
        sum(|change| change.updates),
        sum(|change| change.deletes),
    );
    let which = match wanted.receiver() {
        Some(tenant) => {
            text.push_str(&format!(
                "  {others} rows of everybody else in these tables are what they were\n"
            ));
            vec!["--tenant".to_owned(), tenant.id]
        }
        None => vec!["--tables".to_owned(), args.tables.join(","), "--delete".to_owned()],
    };
    let mut words = vec!["restore".to_owned(), name.to_string()];
    words.extend(which);
    words.extend(["--backup".to_owned(), kept.to_string(), "--in-place".to_owned()]);
    text.push_str(&format!(
        "  what was there before is backup {kept}; to go back: {}\n",
        ask::command_line(words)
    ));
    text
}

fn changes_as_json(changes: &[Change]) -> Value {
    let tables = changes.iter().map(|change| {
        json!({
            "table": change.table.to_string(),
            "inserts": change.inserts,
            "updates": change.updates,
            "deletes": change.deletes,
            "samples": change.samples,
        })
    });
    Value::Array(tables.collect())
}
