//! Old files of other programs on the command line: `list --from FILE`, `verify --from FILE`, `restore --from FILE`, `import FILE`.

use std::path::{Path, PathBuf};

use lifeboat_engine::artefact::{Contents, Options, Passphrase};
use lifeboat_engine::postgres::dump::CONTENTS;
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Source;
use lifeboat_ops::restore::artefact::{self, Old, Opened};
use lifeboat_ops::restore::dump::Taking;
use lifeboat_ops::restore::{Destination, Findings};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::{Import, Restore};
use super::context::Context;
use super::restore::dump;
use super::scratch::Scratch;
use super::{Cx, ask, time};
use crate::exit::Exit;
use crate::render::{self, json as document, text};

/// The environment variable of the guides' scripts.
const PASSPHRASE_VARIABLE: &str = "BACKUP_ENCRYPTION_KEY";

/// The file that `--from` means, where it means a file and not a store.
pub(super) fn file_of(context: &Context, from: Option<&str>) -> Option<PathBuf> {
    let from = from?;
    let path = Path::new(from);
    // A folder that pg_dump wrote is such a file, too.
    let is_file = path.metadata().is_ok_and(|meta| meta.is_file()) || path.join(CONTENTS).is_file();
    (!context.settings.stores.contains_key(from) && is_file).then(|| path.to_path_buf())
}

/// How to read it: every passphrase that is at hand is tried.
async fn old(cx: &Cx, context: &Context, file: PathBuf, member: Option<String>) -> Result<Old> {
    let mut passphrases = Vec::new();
    for (name, key) in &context.settings.openssl_keys {
        match key.passphrase.read().await {
            Ok(secret) => passphrases.push(Passphrase {
                name: name.clone(),
                kdf: key.kdf,
                iterations: key.iterations,
                secret,
            }),
            // Whether it is needed shows with the file.
            Err(error) => cx
                .out
                .note(&format!("note: the passphrase of the key {name} cannot be read: {error}")),
        }
    }
    if let Ok(secret) = std::env::var(PASSPHRASE_VARIABLE)
        && !secret.is_empty()
        && !passphrases.iter().any(|passphrase| *passphrase.secret == secret)
    {
        passphrases.push(Passphrase {
            name: PASSPHRASE_VARIABLE.to_owned(),
            kdf: None,
            iterations: 10_000,
            secret: Zeroizing::new(secret),
        });
    }
    Ok(Old {
        file,
        options: Options {
            passphrases,
            limit_bytes: None,
        },
        member,
    })
}

/// `list --from FILE`: what is in it.
pub(super) async fn list(cx: &Cx, context: &Context, file: PathBuf) -> Result<Exit> {
    let old = old(cx, context, file, None).await?;
    let contents = artefact::look(&old).await?;
    if cx.out.json {
        let body = contents_json(&old.file, &contents);
        render::print(&document::document("artefact-list", body))?;
        return Ok(Exit::OK);
    }
    let mut table = text::Table::new(&["PATH", "KIND", "SIZE", "CHANGED"], &[2]);
    for item in &contents.items {
        table.row([
            item.path.clone(),
            item.kind.word().to_owned(),
            human_bytes(item.size_bytes),
            item.modified_s
                .map(|seconds| text::time(seconds.saturating_mul(1_000_000)))
                .unwrap_or_default(),
        ]);
    }
    let mut shown = heading(&old.file, &contents);
    shown.push_str(&table.render());
    for note in &contents.notes {
        shown.push_str(&format!("note: {note}\n"));
    }
    render::print(&shown)?;
    Ok(Exit::OK)
}

fn heading(file: &Path, contents: &Contents) -> String {
    if contents.layers.is_empty() {
        format!("{}: not packed\n", file.display())
    } else {
        format!("{}: {}\n", file.display(), contents.layers.join(" → "))
    }
}

/// `verify --from FILE`: unpacked into a scratch folder and checked.
pub(super) async fn verify(cx: &Cx, context: &Context, file: PathBuf) -> Result<Exit> {
    let old = old(cx, context, file, None).await?;
    let scratch = Scratch::below(&cx.env, &context.settings.state_dir)?;
    let opened = match artefact::open(&old, scratch.path()).await {
        // A dump of PostgreSQL.
        Err(error) if error.kind() == ErrorKind::Incompatible && artefact::look(&old).await?.dump(None, &old.file).is_ok() => {
            return Box::pin(dump::verify(cx, context, &old)).await;
        }
        opened => opened?,
    };
    let findings = artefact::judge(&opened, &old.file, false)?;
    let body = json!({
        "file": contents_json(&old.file, &opened.contents),
        "member": opened.member,
        "findings": document::findings(&findings),
        "tables": opened.inspection.facts.tables,
        "notes": opened.notes,
    });
    if cx.out.json {
        render::print(&document::document("artefact-verify", body))?;
    } else {
        let mut shown = heading(&old.file, &opened.contents);
        shown.push_str(&format!("{}: checked: {}\n", opened.member, counts(&findings)));
        for (table, rows) in &opened.inspection.facts.tables {
            shown.push_str(&format!("  {table}: {}\n", text::counted(*rows, "row")));
        }
        add_notes(&mut shown, &findings, &opened.notes);
        render::print(&shown)?;
    }
    Ok(Exit::OK)
}

fn counts(findings: &Findings) -> String {
    format!(
        "{}, {}",
        text::counted(findings.tables, "table"),
        text::counted(findings.rows, "row")
    )
}

fn add_notes(shown: &mut String, findings: &Findings, notes: &[String]) {
    let of_findings = findings
        .integrity
        .iter()
        .chain(&findings.foreign_keys)
        .chain(&findings.unchecked);
    for note in of_findings.chain(notes) {
        shown.push_str(&format!("  note: {note}\n"));
    }
}

pub(super) fn contents_json(file: &Path, contents: &Contents) -> Value {
    let items: Vec<Value> = contents
        .items
        .iter()
        .map(|item| {
            json!({
                "path": item.path,
                "kind": item.kind.word(),
                "size_bytes": item.size_bytes,
                "modified_at": item.modified_s.map(|seconds| lifeboat_repo::format_utc(seconds.saturating_mul(1_000_000))),
            })
        })
        .collect();
    json!({ "path": file, "layers": contents.layers, "items": items, "notes": contents.notes })
}

/// `restore WHAT --from FILE`.
pub(super) async fn restore(cx: &Cx, context: &Context, file: PathBuf, args: &Restore) -> Result<Exit> {
    let what = args.what.clone().unwrap_or_default();
    let refuse = |detail: &str, hint: &str| Err(Error::new(ErrorKind::Usage, "restore", &what, detail).with_hint(hint));
    let components = context.select(std::slice::from_ref(&what))?;
    let [component] = components.as_slice() else {
        return refuse(
            "an old file holds one database, and this system has several components",
            "name the component: SYSTEM/COMPONENT",
        );
    };
    if args.point.backup.is_some() || args.point.at.is_some() || args.point.before.is_some() {
        return refuse("an old file holds one moment only", "leave --backup, --at and --before out");
    }
    if component.source.cluster().is_some() {
        let old = old(cx, context, file, args.member.clone()).await?;
        return Box::pin(dump::run(cx, context, component, &old, args)).await;
    }
    let Source::Sqlite { path, .. } = &component.source else {
        return refuse("its component is no SQLite database", "unpack other old files by hand");
    };
    let old = old(cx, context, file, args.member.clone()).await?;
    let destination = destination(&what, args, path)?;
    if args.dry_run {
        let scratch = Scratch::below(&cx.env, &context.settings.state_dir)?;
        let opened = artefact::open(&old, scratch.path()).await?;
        let findings = artefact::judge(&opened, &old.file, args.accept_findings)?;
        return finish(cx, "artefact-restore-plan", plan(&old, &opened, &destination, &findings));
    }
    if args.in_place && !args.yes {
        let question = format!("Replace {} with the database of {}?", path.display(), old.file.display());
        ask::confirm(cx, &question, "restore", &what, &ask::this_command_with(&["--yes"]))?;
    }
    let report = artefact::run(&cx.env, &component.name, &old, destination, args.accept_findings).await?;
    let mut shown = format!(
        "{}: restored {} of {} to {} in {}, checked: {}\n",
        component.name,
        report.member,
        old.file.display(),
        report.path.display(),
        human_duration(report.took),
        counts(&report.findings)
    );
    add_notes(&mut shown, &report.findings, &report.notes);
    if let Some(folder) = &report.undo_folder {
        shown.push_str(&format!(
            "  the old files are kept in {}\n  to take this back: lifeboat restore undo {}\n  now run `lifeboat backup {}`: what was restored is not in a backup yet\n",
            folder.display(),
            report.id,
            component.name
        ));
    }
    let body = json!({
        "component": component.name,
        "id": report.id,
        "file": contents_json(&old.file, &report.contents),
        "member": report.member,
        "path": report.path,
        "took_s": report.took.as_secs_f64(),
        "findings": document::findings(&report.findings),
        "undo_folder": report.undo_folder,
        "notes": report.notes,
    });
    finish(cx, "artefact-restore", (body, shown))
}

fn destination(what: &str, args: &Restore, original: &Path) -> Result<Destination> {
    match (&args.to, args.in_place) {
        (Some(to), _) => Ok(Destination::Beside {
            path: to.clone(),
            keep_owner: false,
        }),
        (None, true) => Ok(Destination::InPlace {
            path: original.to_path_buf(),
        }),
        (None, false) => Err(Error::new(ErrorKind::Usage, "restore", what, "where should it go?")
            .with_hint("name a new file with --to, or replace the original with --in-place")),
    }
}

fn plan(old: &Old, opened: &Opened, destination: &Destination, findings: &Findings) -> (Value, String) {
    let path = destination.path();
    let mut shown = heading(&old.file, &opened.contents);
    shown.push_str(&format!(
        "{} ({}) would be restored to {}; nothing was touched\n",
        opened.member,
        counts(findings),
        path.display()
    ));
    add_notes(&mut shown, findings, &opened.notes);
    let body = json!({
        "file": contents_json(&old.file, &opened.contents),
        "member": opened.member,
        "to": path,
        "in_place": matches!(destination, Destination::InPlace { .. }),
        "findings": document::findings(findings),
        "notes": opened.notes,
    });
    (body, shown)
}

fn finish(cx: &Cx, kind: &str, (body, shown): (Value, String)) -> Result<Exit> {
    if cx.out.json {
        render::print(&document::document(kind, body))?;
    } else {
        render::print(&shown)?;
    }
    Ok(Exit::OK)
}

/// `import FILE --as SYSTEM/COMPONENT`.
pub(super) async fn import(cx: &Cx, args: Import) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(std::slice::from_ref(&args.what))?;
    let [component] = components.as_slice() else {
        let detail = "this system has several components";
        return Err(
            Error::new(ErrorKind::Usage, "import as", args.what, detail).with_hint("name the component: SYSTEM/COMPONENT")
        );
    };
    let protected = context.protected(component, &[]).await?;
    let instance = protected.instance(&context.settings.instance_name)?;
    let old = old(cx, &context, args.file.clone(), args.member.clone()).await?;
    let moment = match &args.moment {
        Some(text) => Some((time::parse(text)?, "--moment")),
        None => None,
    };
    if protected.source.cluster().is_some() {
        let taking = Taking {
            moment,
            database: args.database,
            reason: args.reason,
        };
        return Box::pin(dump::import(cx, &protected, instance, &old, taking)).await;
    }
    let scratch = Scratch::create(&cx.env, &protected)?;
    let opened = artefact::open(&old, scratch.path()).await?;
    let findings = artefact::judge(&opened, &old.file, args.accept_findings)?;
    let moment = match moment {
        Some(said) => said,
        None => artefact::moment(&old, &opened)?,
    };
    let imported = artefact::import(&cx.env, &protected, instance, &old, &opened, moment, args.reason).await?;
    let mut shown = format!(
        "{}: imported {} of {} as backup {} of {} (known from: {}), checked: {}\n",
        component.name,
        opened.member,
        old.file.display(),
        imported.backup.id.short(),
        text::time(imported.backup.header.moment_us),
        imported.moment_from,
        counts(&findings)
    );
    let notes: Vec<String> = opened.notes.iter().chain(&imported.notes).cloned().collect();
    add_notes(&mut shown, &findings, &notes);
    let body = json!({
        "component": component.name,
        "file": contents_json(&old.file, &opened.contents),
        "member": opened.member,
        "backup": document::backup(&imported.backup),
        "moment_from": imported.moment_from,
        "findings": document::findings(&findings),
        "notes": notes,
    });
    finish(cx, "import", (body, shown))
}
