//! Tenants of a database: `lifeboat tenant-map`, and what other verbs need to know of the map.

use lifeboat_engine::postgres::logical::tenant::{self, Class, TenantMap};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::backup::OneTenant;
use lifeboat_ops::protected::Tenants;
use lifeboat_ops::restore::logical::tenant::relations;
use serde_json::json;

use super::Cx;
use super::args;
use super::context::Context;
use crate::config::{self, ComponentSettings};
use crate::exit::Exit;

/// `lifeboat tenant-map`: what the file says, and a proposal for what it does not.
pub(super) async fn run(cx: &Cx, args: &args::TenantMap) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = having(&context.select(std::slice::from_ref(&args.what))?)?;
    let [component] = components.as_slice() else {
        let detail = "several of its components have tenants";
        return Err(
            Error::new(ErrorKind::Usage, "show the tenant map of", &args.what, detail).with_hint("name one: SYSTEM/COMPONENT")
        );
    };
    let tenants = tenants_of(component)?;
    let protected = context.protected(component, &[]).await?;
    let found = relations(&protected, &tenants.database).await?;
    let is_there = tenants
        .map
        .try_exists()
        .map_err(|error| Error::io("look for", tenants.map.display(), error))?;
    let written = if is_there { Some(read(tenants)?) } else { None };
    let mut map = tenant::propose(&found, &tenants.root, &tenants.id, &tenants.key)?;
    let mut problems = Vec::new();
    if let Some(written) = &written {
        problems = tenant::problems(&found, written);
        for (name, class) in &mut map.tables {
            if let Some(known) = written.tables.get(name) {
                class.clone_from(known);
            }
        }
    } else if args.check {
        problems.push(format!("{} is not there", tenants.map.display()));
    }
    for problem in &problems {
        cx.out.note(&format!("note: {}: {problem}", component.name));
    }
    let open = map.tables.values().filter(|class| **class == Class::Unclassified).count();
    let text = if args.check {
        let says = if problems.is_empty() {
            "says of every table whose its rows are"
        } else {
            "does not fit"
        };
        format!("{}: {} {says}\n", component.name, tenants.map.display())
    } else {
        file_of(&map, tenants, open)
    };
    let body = json!({
        "component": component.name,
        "database": tenants.database,
        "root": format!("{}.{}", map.root, map.id),
        "file": tenants.map,
        "tables": map.tables,
        "unclassified": open,
        "problems": problems,
    });
    cx.out.result("tenant-map", body, &text)?;
    Ok(if args.check && !problems.is_empty() {
        Exit::of(ErrorKind::ConfigInvalid)
    } else {
        Exit::OK
    })
}

/// The map as a file. Names are quoted as JSON does, which YAML reads alike.
fn file_of(map: &TenantMap, tenants: &Tenants, open: usize) -> String {
    let mut text = format!(
        "# Whose the rows of the tables of {} are: the root's, by a column (direct), by a foreign key (through), everybody's (shared),\n\
         # or left out (ignored). Proposed by `lifeboat tenant-map`: look at every line before you rely on it.\n",
        tenants.database
    );
    if open > 0 {
        text.push_str("# Nothing can be done with a tenant while a table is unclassified: write shared or ignored, or how to find its tenant.\n");
    }
    text.push_str("tables:\n");
    for (name, class) in &map.tables {
        let class = match class {
            Class::Direct(column) => format!("{{ direct: {} }}", json!(column)),
            Class::Through(link) => format!("{{ through: {} }}", json!(link)),
            Class::Root => "root".to_owned(),
            Class::Shared => "shared".to_owned(),
            Class::Ignored => "ignored".to_owned(),
            Class::Unclassified => "unclassified".to_owned(),
        };
        text.push_str(&format!("  {}: {class}\n", json!(name)));
    }
    text
}

fn read(tenants: &Tenants) -> Result<TenantMap> {
    let path = tenants.map.display();
    let text = std::fs::read_to_string(&tenants.map).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::ConfigInvalid,
            _ => ErrorKind::Failed,
        };
        Error::new(kind, "read the tenant map", path.to_string(), error.to_string())
            .with_source(error)
            .with_hint("`lifeboat tenant-map WHAT` proposes one; look at it, and write it into that file")
    })?;
    let tables = config::tenant_map(&text).map_err(|error| {
        Error::new(ErrorKind::ConfigInvalid, "read the tenant map", path.to_string(), error)
            .with_hint("a table is root, { direct: COLUMN }, { through: FOREIGN_KEY }, shared or ignored")
    })?;
    Ok(TenantMap {
        root: tenants.root.clone(),
        id: tenants.id.clone(),
        tables,
    })
}

fn tenants_of(component: &ComponentSettings) -> Result<&Tenants> {
    let found = component
        .source
        .cluster()
        .and_then(|cluster| cluster.logical.tenants.as_deref());
    found.ok_or_else(|| {
        let detail = "it has no `tenants` in the configuration";
        Error::new(ErrorKind::Usage, "find the tenants of", &component.name, detail)
            .with_hint("write `tenants: { root: public.tenants.id, map: tenant-map.yaml }` under `postgres`")
    })
}

/// Those of the components that have tenants.
///
/// # Errors
/// `Usage` where none has.
pub(super) fn having<'a>(components: &[&'a ComponentSettings]) -> Result<Vec<&'a ComponentSettings>> {
    let found: Vec<&ComponentSettings> = (components.iter().copied())
        .filter(|component| tenants_of(component).is_ok())
        .collect();
    match components.first() {
        Some(first) if found.is_empty() => tenants_of(first).map(|_| found),
        _ => Ok(found),
    }
}

/// One tenant of a component, by its map.
pub(super) fn one(component: &ComponentSettings, id: &str, as_is: bool) -> Result<OneTenant> {
    let tenants = tenants_of(component)?;
    Ok(OneTenant {
        id: id.to_owned(),
        database: tenants.database.clone(),
        map: read(tenants)?,
        as_is,
    })
}
