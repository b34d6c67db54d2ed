//! `lifeboat restore export` as SQL text, as CSV, as an archive for `pg_restore`, or of an extract.

use std::path::Path;

use lifeboat_model::time::human_bytes;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_ops::export;
use lifeboat_ops::protected::{Choice, Protected, choose, is_logical};
use lifeboat_repo::{Backup, Identities, Repository};
use serde_json::json;

use super::Cx;
use super::args::ExportFormat;
use super::context::Context;
use super::scratch::Scratch;
use crate::exit::Exit;
use crate::render::{self, json as document};

pub(super) async fn run(
    cx: &Cx,
    what: &str,
    to: &Path,
    backup: &str,
    (format, extract, database): (Option<ExportFormat>, Option<&str>, Option<&str>),
) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(&[what.to_owned()])?;
    let [component] = components.as_slice() else {
        let detail = "this system has several components";
        return Err(Error::new(ErrorKind::Usage, "export", what, detail).with_hint("name the component: SYSTEM/COMPONENT"));
    };
    let protected = context.protected(component, &[]).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    let choice = match backup {
        "latest" => Choice::Latest,
        name => Choice::Named(name.to_owned()),
    };
    let backup = choose(&listing, &choice, &protected.component)?;
    let identities = context.identities(component).await?;
    let wanted = Wanted {
        what,
        format,
        extract,
        database,
        to,
    };
    let (size_bytes, notes) = write(&cx.env, &protected, &repository, backup, &identities, &wanted).await?;
    let what = extract.unwrap_or_else(|| match (component.source.files(), format) {
        (Some(_), _) => "the files",
        (None, Some(ExportFormat::Csv)) => "CSV",
        (None, Some(ExportFormat::Json)) => "JSON",
        (None, Some(ExportFormat::PgDump)) => "an archive for pg_restore",
        (None, _) => "SQL text",
    });
    for note in &notes {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    let body = json!({ "component": component.name, "backup": document::backup(backup), "what": what, "path": to, "size_bytes": size_bytes });
    if cx.out.json {
        render::print(&document::document("export", body))?;
    } else {
        render::print(&format!(
            "{}: wrote {what} of backup {} to {} ({})\n",
            component.name,
            backup.id.short(),
            to.display(),
            human_bytes(size_bytes)
        ))?;
    }
    Ok(Exit::OK)
}

/// What is written, and where to.
struct Wanted<'a> {
    what: &'a str,
    format: Option<ExportFormat>,
    extract: Option<&'a str>,
    database: Option<&'a str>,
    to: &'a Path,
}

/// Writes it. Returns its bytes, and what to know.
async fn write(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    wanted: &Wanted<'_>,
) -> Result<(u64, Vec<String>)> {
    let (database, to) = (wanted.database, wanted.to);
    let is_logical = is_logical(&backup.header);
    if let Some(format) = wanted.format.filter(|_| !is_logical) {
        let detail = format!(
            "--format is for logical backups, and this one is of the method {}",
            backup.header.method
        );
        return Err(
            Error::new(ErrorKind::Usage, "export", wanted.what, detail).with_hint(match format {
                ExportFormat::Sql => "SQL text of a SQLite database: --to X.sql, without --format",
                ExportFormat::PgDump | ExportFormat::Csv | ExportFormat::Json => {
                    "choose another with --backup: `lifeboat list` shows the methods"
                }
            }),
        );
    }
    let mut notes = Vec::new();
    let size_bytes = match (wanted.extract, wanted.format) {
        (None, Some(ExportFormat::Csv)) => {
            let written = export::database_csv(env, repository, backup, identities, database, to).await?;
            notes = written.1;
            written.0
        }
        (None, Some(ExportFormat::Json)) => export::database_json(env, repository, backup, identities, database, to).await?,
        (None, Some(ExportFormat::PgDump)) => {
            let scratch = Scratch::create(env, protected)?;
            let folder = scratch.path();
            export::database_archive(env, protected, repository, backup, identities, database, &folder, to).await?
        }
        (None, _) if is_logical => export::database_sql(env, protected, repository, backup, identities, database, to).await?,
        (Some(name), _) => export::stream(env, repository, backup, identities, name, to).await?,
        (None, _) if to.extension().is_some_and(|ending| ending == "tar") => {
            let scratch = Scratch::create(env, protected)?;
            export::tar(env, repository, backup, identities, scratch.path(), to).await?
        }
        (None, _) => {
            let scratch = Scratch::create(env, protected)?;
            export::sql(env, repository, backup, identities, scratch.path(), to).await?
        }
    };
    Ok((size_bytes, notes))
}
