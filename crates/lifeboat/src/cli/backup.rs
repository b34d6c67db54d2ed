//! `lifeboat backup`: every component by itself; one that fails does not stop the others.

use std::sync::Arc;

use lifeboat_model::time::{human_bytes, human_duration, parse_duration};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::backup::{self, Part, Report, Request};
use lifeboat_ops::protected::{Method, Protected};
use lifeboat_store::away::AwayStore;
use lifeboat_store::fs::FsStore;
use serde_json::{Value, json};

use super::Cx;
use super::args::{Backup, BackupMethod};
use super::context::Context;
use super::outcomes::Outcomes;
use super::{kit, prune, tenants};
use crate::config::{ComponentSettings, MinFree, StorePlace, StoreSettings};
use crate::exit::Exit;
use crate::render::{self, json as document, text};

pub(super) async fn run(cx: &Cx, args: Backup) -> Result<Exit> {
    let context = Context::load_to_write(cx).await?;
    let mut components = context.select(&args.what)?;
    if args.tenant.is_some() {
        components = tenants::having(&components)?;
    }
    let request = Request {
        tags: args.tag,
        reason: args.reason,
        keep_for: args.keep_for.as_deref().map(parse_duration).transpose()?,
        full: args.full,
        method: args.method.map(|method| match method {
            BackupMethod::Physical => Method::Physical,
            BackupMethod::Logical => Method::Logical,
        }),
        part: match args.tables {
            _ if args.schema_only => Part::Definitions,
            tables if tables.is_empty() => Part::Whole,
            tables => Part::Tables {
                database: args.database,
                tables,
            },
        },
        elsewhere: false,
    };
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let mut request = request.clone();
        if let Some(tenant) = &args.tenant {
            request.part = Part::Tenant(Box::new(tenants::one(component, tenant, false)?));
        }
        match one_to(cx, &context, component, request, &args.to).await {
            Ok(report) => {
                cx.env.progress.finish();
                for note in &report.notes {
                    cx.out.note(&format!("note: {}: {note}", component.name));
                }
                tell_missing(cx, component, &report);
                outcomes.but(exit_of(component, &report));
                outcomes.good(cx, as_json(&component.name, &report), &sentence(&component.name, &report));
                // Only after a success: a backup that failed must not cost an older one.
                if !prune::after_backup(cx, &context, component).await {
                    outcomes.but_then(cx, Exit::INCOMPLETE);
                }
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "backup")
}

/// Backs one component up: leftovers of killed runs are removed first, because a full disk is what killed them.
pub(super) async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, request: Request) -> Result<Report> {
    one_to(cx, context, component, request, &[]).await
}

/// The same into the stores that `to` names, or those of the component where it names none.
async fn one_to(cx: &Cx, context: &Context, component: &ComponentSettings, request: Request, to: &[String]) -> Result<Report> {
    let request = Request {
        elsewhere: to.iter().any(|store| !component.stores.contains(store)),
        ..request
    };
    let mut protected = context.protected(component, to).await?;
    let several = protected.stores.len() > 1;
    let names: Vec<String> = protected.stores.iter().map(|place| place.name.clone()).collect();
    for (index, name) in names.iter().enumerate() {
        let Ok(settings) = context.store(name) else { continue };
        match make_room(cx, settings, &protected).await {
            Ok(()) => {}
            // The others have room: this one is told as a copy that is missing.
            Err(error) if several => protected.stores[index].store = Arc::new(AwayStore::new(name.as_str(), error)),
            Err(error) => return Err(error),
        }
    }
    let instance = protected.instance(&context.settings.instance_name)?;
    let report = backup::run(&cx.env, &protected, Arc::clone(&instance), request).await?;
    // The backup stands: whatever comes of the kit is told, and changes nothing.
    kit::after_backup(cx, context, &protected, &instance, &report).await;
    Ok(report)
}

/// The backup of what was put in its place, told behind what was done. That stands, whatever comes of the backup.
pub(super) async fn fresh(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    reason: String,
    (text, json): (&mut String, &mut Value),
) -> Exit {
    let request = Request {
        reason: Some(reason),
        ..Request::default()
    };
    let made = Box::pin(one(cx, context, component, request)).await;
    cx.env.progress.finish();
    let (exit, key, value) = match made {
        Ok(fresh) => {
            tell_missing(cx, component, &fresh);
            text.push_str(&format!("{}\n", sentence(&component.name, &fresh)));
            (exit_of(component, &fresh), "fresh_backup", as_json(&component.name, &fresh))
        }
        Err(error) => {
            text.push_str(&format!(
                "{}: THE RESTORED STATE IS NOT BACKED UP YET: it is in its place, the backup after that failed\n",
                component.name
            ));
            if !cx.out.json {
                render::tell(&render::error::for_people(&error));
            }
            (Exit::INCOMPLETE, "fresh_backup_error", document::error(&error))
        }
    };
    if let Value::Object(fields) = json {
        fields.insert(key.to_owned(), value);
    }
    exit
}

/// A missing copy is bad news, also where the run is to be quiet.
pub(super) fn tell_missing(cx: &Cx, component: &ComponentSettings, report: &Report) {
    for (store, error) in report.missing() {
        if !cx.out.json {
            let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
            render::tell(&format!(
                "warning: {}: THE STORE {store} HAS NO COPY of backup {}: {error}{hint}; the next backup or `lifeboat copy {} --to {store}` mends it",
                component.name,
                report.backup.id.short(),
                component.name
            ));
        }
    }
}

/// 0 with all copies, 1 without one that is required, 3 without another.
pub(super) fn exit_of(component: &ComponentSettings, report: &Report) -> Exit {
    let mut exit = Exit::OK;
    for (store, _) in report.missing() {
        let required = component.required.iter().any(|name| name == store);
        exit = exit.worse(if required {
            Exit::of(ErrorKind::Failed)
        } else {
            Exit::INCOMPLETE
        });
    }
    exit
}

/// Removes what killed runs left in a store and looks whether there is room for more.
async fn make_room(cx: &Cx, store: &StoreSettings, protected: &Protected) -> Result<()> {
    let freed = match store.folder() {
        Some(path) => FsStore::open(path).await?.remove_leftovers().await?,
        None => 0,
    };
    if freed > 0 {
        cx.out.note(&format!(
            "note: removed {} that an interrupted run had left in the store {}",
            human_bytes(freed),
            store.name
        ));
    }
    leave_room(store, protected)
}

/// Keeps the promise of `min_free` before anything is written.
fn leave_room(store: &StoreSettings, protected: &Protected) -> Result<()> {
    let StorePlace::Fs(fs) = &store.place else {
        return Ok(());
    };
    let Some(min_free) = fs.min_free else { return Ok(()) };
    let stat =
        rustix::fs::statvfs(&fs.path).map_err(|error| Error::io("ask for the free space of", fs.path.display(), error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    let wanted = match min_free {
        MinFree::Bytes(bytes) => bytes,
        MinFree::Percent(percent) => total / 100 * u64::from(percent),
    };
    if free >= wanted {
        return Ok(());
    }
    let detail = format!(
        "{} are free there, and `min_free` keeps {}",
        human_bytes(free),
        human_bytes(wanted)
    );
    Err(Error::new(
        ErrorKind::NoSpace,
        "back up",
        &protected.component,
        format!("the store {} is too full: {detail}", store.name),
    )
    .with_hint("free space there, or lower `min_free`"))
}

/// One line for people.
pub(super) fn sentence(component: &str, report: &Report) -> String {
    let stats = &report.stats;
    format!(
        "{component}: backup {} of {}: read {}, changed {}, stored {}, in {} ({})",
        report.backup.id.short(),
        text::time(report.backup.header.moment_us),
        human_bytes(stats.read_bytes),
        human_bytes(stats.changed_bytes),
        human_bytes(stats.stored_bytes),
        human_duration(report.took),
        text::rate(stats.read_bytes, report.took),
    )
}

/// The same for programs.
pub(super) fn as_json(component: &str, report: &Report) -> Value {
    json!({
        "component": component,
        "backup": document::backup(&report.backup),
        "read_bytes": report.stats.read_bytes,
        "changed_bytes": report.stats.changed_bytes,
        "stored_bytes": report.stats.stored_bytes,
        "took_s": report.took.as_secs_f64(),
        "stall_s": report.stall.as_secs_f64(),
        "tables": report.facts.sqlite().map(|facts| &facts.tables),
        "files": report.facts.files(),
        "notes": report.notes,
        "copies": report.copies.iter().map(|copy| json!({
            "store": copy.store,
            "stored": copy.missing.is_none(),
            "own": copy.own.map(|backup| backup.short()),
            "error": copy.missing.as_ref().map(document::error),
        })).collect::<Vec<_>>(),
    })
}
