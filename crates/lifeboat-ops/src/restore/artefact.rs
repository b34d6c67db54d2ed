//! Old files of other programs: looked at, restored, and taken over as backups.
//!
//! As every restore: unpacked into a folder beside the destination, checked there, and given the name last (INV-12). An imported backup
//! has the method `imported`: rows and state of its own, and never "latest" while the component has a backup of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::artefact::{self, Contents, Kind, Options};
use lifeboat_engine::sqlite;
use lifeboat_io::flow::FilePages;
use lifeboat_io::{compute, durable};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, BackupPlan, FileMeta, Instance, Stats, Writer, parse_utc};

use super::staging::{self, Staging};
use super::{Destination, Findings, draw_id, preflight, publish, quarantine};
use crate::protected::{Protected, Source};

/// An old file.
#[derive(Debug, Clone)]
pub struct Old {
    /// Where it is.
    pub file: PathBuf,
    /// How to read it.
    pub options: Options,
    /// Which of several databases in it.
    pub member: Option<String>,
}

/// A database that was taken out of an old file and checked.
#[derive(Debug)]
pub struct Opened {
    /// What the file holds.
    pub contents: Contents,
    /// The path of the database in it.
    pub member: String,
    /// When it was last changed, as an archive says; seconds since 1970.
    pub modified_s: Option<i64>,
    /// The database, in the folder that was given.
    pub database: PathBuf,
    /// What SQLite finds.
    pub inspection: sqlite::Inspection,
    /// What to know.
    pub notes: Vec<String>,
}

/// What came of a restore from an old file.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Names it for `restore undo`.
    pub id: String,
    /// What the file holds.
    pub contents: Contents,
    /// The path of the database in it.
    pub member: String,
    /// Where the database is now.
    pub path: PathBuf,
    /// What the checks found.
    pub findings: Findings,
    /// Where the old files are kept; only in place.
    pub undo_folder: Option<PathBuf>,
    /// How long it took.
    pub took: Duration,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What came of an import.
#[derive(Debug)]
#[must_use]
pub struct Imported {
    /// The new backup.
    pub backup: Backup,
    /// Bytes read and stored.
    pub stats: Stats,
    /// From where its moment is known, in words.
    pub moment_from: &'static str,
    /// Tables and rows.
    pub counts: (u64, u64),
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Reads the file to its end and says what is in it; nothing is written anywhere.
pub async fn look(old: &Old) -> Result<Contents> {
    let old = old.clone();
    compute::run("read an old backup", move || artefact::unpack(&old.file, &old.options, None)).await
}

/// Takes the database out into `folder`, which is made and is the caller's to remove, and checks it.
pub async fn open(old: &Old, folder: PathBuf) -> Result<Opened> {
    let old = old.clone();
    compute::run("read an old backup", move || {
        durable::create_folder(&folder)?;
        take_out(&old, &folder)
    })
    .await
}

fn take_out(old: &Old, folder: &Path) -> Result<Opened> {
    let mut contents = artefact::unpack(&old.file, &old.options, Some(folder))?;
    let item = contents.database(old.member.as_deref(), &old.file)?.clone();
    let missing = || Error::new(ErrorKind::Bug, "read", old.file.display(), "its database was not unpacked");
    let unpacked = item.file.clone().ok_or_else(missing)?;
    let mut notes = std::mem::take(&mut contents.notes);
    let database = folder.join("database");
    if item.kind == Kind::Sql {
        artefact::load(&unpacked, &database)?;
    } else {
        durable::rename(&unpacked, &database)?;
        // A copied folder has its newest changes in the companions: SQLite reads them in, as the application's next start would.
        for (ending, kind) in [("-wal", Kind::Wal), ("-journal", Kind::Journal)] {
            let name = format!("{}{ending}", item.path);
            let companion = contents.items.iter().find(|other| other.path == name && other.kind == kind);
            if let Some(file) = companion.and_then(|other| other.file.as_ref()) {
                durable::rename(file, &folder.join(format!("database{ending}")))?;
                notes.push(format!("{name} lay beside the database and was read into it"));
            }
        }
        if artefact::settle(&database)? && notes.is_empty() {
            notes.push(
                "the database is in WAL mode: if it was made by copying the file while it was in use, and not by .backup, its newest changes are missing; compare the row counts".to_owned(),
            );
        }
    }
    // Nothing else of the file is needed, and it is data in the clear.
    for other in contents.items.iter().filter_map(|item| item.file.as_ref()) {
        durable::remove_file(other)?;
    }
    for item in &mut contents.items {
        item.file = None;
    }
    let inspection = sqlite::inspect(&database, None)?;
    if item.kind == Kind::Database && contents.items.iter().any(|other| other.kind == Kind::Sql) {
        notes.push("SQL text is in it, too; the database was taken (`--member` chooses another)".to_owned());
    }
    Ok(Opened {
        contents,
        member: item.path,
        modified_s: item.modified_s,
        database,
        inspection,
        notes,
    })
}

/// What the checks found; an error where SQLite finds damage and that is not accepted.
pub fn judge(opened: &Opened, file: &Path, accept_findings: bool) -> Result<Findings> {
    let findings = Findings::from(opened.inspection.clone());
    match findings.integrity.first() {
        Some(first) if !accept_findings => Err(Error::new(
            ErrorKind::Corrupt,
            "accept",
            format!("{} of {}", opened.member, file.display()),
            format!("SQLite's integrity check finds it damaged, for example: {first}"),
        )
        .with_hint("take another backup, or take this one as it is with --accept-findings")),
        _ => Ok(findings),
    }
}

/// Restores the database of an old file to `destination`.
pub async fn run(env: &Env, component: &str, old: &Old, destination: Destination, accept_findings: bool) -> Result<Report> {
    let began = env.clock.monotonic();
    let id = draw_id(env)?;
    if let Destination::InPlace { path } = &destination {
        quarantine::settle_interrupted(path)?;
    }
    let (destination, mut notes) = super::settle_destination(destination)?;
    preflight(&destination, 0)?;
    let path = destination.path().to_path_buf();
    let staging = Staging::create(&path, &id)?;
    env.progress.step("unpack", None);
    let opened = open(old, staging.folder().join("old")).await?;
    let findings = judge(&opened, &old.file, accept_findings)?;
    let intent = matches!(destination, Destination::InPlace { .. }).then(|| quarantine::Intent {
        id: id.clone(),
        component: component.to_owned(),
        backup: format!("the file {}", old.file.display()),
        at_us: env.clock.wall_us(),
    });
    let (database, target) = (opened.database.clone(), path.clone());
    let published = compute::run("publish", move || {
        let dressed = staging::dress_plain(&database, &destination)?;
        let undo_folder = publish(intent.as_ref(), &database, &target)?;
        let litter = staging.remove().err();
        Ok((undo_folder, litter, dressed))
    });
    let (undo_folder, litter, dressed) = published.await?;
    env.progress.finish();
    notes.extend(opened.notes);
    notes.extend(dressed);
    notes.extend(litter.map(|error| error.to_string()));
    Ok(Report {
        id,
        contents: opened.contents,
        member: opened.member,
        path,
        findings,
        undo_folder,
        took: env.clock.monotonic().saturating_sub(began),
        notes,
    })
}

/// The moment that an old file is of: as its name says, else when its database, else the file itself was last changed. With how it is known.
pub fn moment(old: &Old, opened: &Opened) -> Result<(i64, &'static str)> {
    moment_of(old, &opened.member, opened.modified_s)
}

/// The same of a member of it.
pub(super) fn moment_of(old: &Old, member: &str, modified_s: Option<i64>) -> Result<(i64, &'static str)> {
    let name = old.file.file_name().unwrap_or_default().to_string_lossy();
    if let Some(moment_us) = moment_in(&name).or_else(|| moment_in(member)) {
        return Ok((moment_us, "its name, taken as UTC"));
    }
    if let Some(modified_s) = modified_s.filter(|seconds| *seconds > 0) {
        return Ok((
            modified_s.saturating_mul(1_000_000),
            "the archive, which says when the database was last changed",
        ));
    }
    use std::os::unix::fs::MetadataExt;
    let meta = old
        .file
        .metadata()
        .map_err(|error| Error::io("look at", old.file.display(), error))?;
    Ok((meta.mtime().saturating_mul(1_000_000), "when the file was last changed"))
}

/// `…20260112_120000…`, `…20260112-120000…` or `…20260112…`: as the scripts name their files.
fn moment_in(name: &str) -> Option<i64> {
    let bytes = name.as_bytes();
    let digits = |at: usize, count: usize| {
        let part = bytes.get(at..at + count)?;
        let whole = part.iter().all(u8::is_ascii_digit) && !bytes.get(at + count).is_some_and(u8::is_ascii_digit);
        whole.then(|| String::from_utf8_lossy(part).into_owned())
    };
    (0..bytes.len()).find_map(|at| {
        if at > 0 && bytes.get(at - 1).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let date = digits(at, 8)?;
        let joined = matches!(bytes.get(at + 8), Some(b'_' | b'-' | b'T'));
        let time = joined
            .then(|| digits(at + 9, 6))
            .flatten()
            .unwrap_or_else(|| "000000".to_owned());
        let part = |text: &str, from: usize, to: usize| text.get(from..to).map(str::to_owned);
        parse_utc(&format!(
            "{}-{}-{}T{}:{}:{}Z",
            part(&date, 0, 4)?,
            part(&date, 4, 6)?,
            part(&date, 6, 8)?,
            part(&time, 0, 2)?,
            part(&time, 2, 4)?,
            part(&time, 4, 6)?
        ))
        .ok()
    })
}

pub(super) fn not_in_the_future(env: &Env, old: &Old, moment_us: i64) -> Result<()> {
    if moment_us <= env.clock.wall_us() {
        return Ok(());
    }
    let detail = format!(
        "it would be of {}, which is in the future",
        lifeboat_repo::format_utc(moment_us)
    );
    Err(Error::new(ErrorKind::Usage, "import", old.file.display(), detail).with_hint("give the right moment with --moment"))
}

/// A backup that is made of an old file.
pub(super) fn imported(protected: &Protected, instance: Arc<Instance>) -> BackupPlan {
    BackupPlan {
        extract: false,
        component: protected.component.clone(),
        kind: protected.source.kind().to_owned(),
        method: lifeboat_repo::IMPORTED.to_owned(),
        source: "imported".to_owned(),
        instance,
        encryption: protected.encryption.clone(),
        trust: protected.trust.clone(),
        state_dir: protected.state_dir.clone(),
        tags: vec!["imported".to_owned()],
        reason: None,
        keep_for: None,
        full: false,
        patient: false,
    }
}

/// Stores a database that was taken out of an old file as a backup of `protected`, with the tag `imported`.
pub async fn import(
    env: &Env,
    protected: &Protected,
    instance: Arc<Instance>,
    old: &Old,
    opened: &Opened,
    moment: (i64, &'static str),
    reason: Option<String>,
) -> Result<Imported> {
    let Source::Sqlite { path, .. } = &protected.source else {
        let detail = "its component is no SQLite database, and other old files are not imported in this version";
        return Err(Error::new(ErrorKind::Usage, "import", old.file.display(), detail));
    };
    let (moment_us, moment_from) = moment;
    not_in_the_future(env, old, moment_us)?;
    let repository = protected.repository().await?;
    let name = old.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let plan = BackupPlan {
        reason: Some(reason.unwrap_or_else(|| format!("imported from {name}"))),
        ..imported(protected, instance)
    };
    let mut writer = Writer::begin(env, &repository, plan).await?;
    let facts = &opened.inspection.facts;
    let file = std::fs::File::open(&opened.database).map_err(|error| Error::io("read", opened.database.display(), error))?;
    let pages = FilePages::new(file, opened.member.clone(), facts.page_size)?;
    let meta = FileMeta {
        path: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        mode: 0o600,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        modified_us: moment_us,
    };
    env.progress.step("import", None);
    writer.put_pages(meta, Arc::new(pages)).await?;
    let facts = serde_json::to_value(facts)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the facts of a database", error.to_string()))?;
    let committed = writer.commit(moment_us, facts).await?;
    env.progress.finish();
    Ok(Imported {
        backup: committed.backup,
        stats: committed.stats,
        moment_from,
        counts: (
            opened.inspection.facts.tables.len() as u64,
            opened.inspection.facts.tables.values().sum(),
        ),
        notes: committed.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::moment_in;

    #[test]
    fn names_of_the_scripts_say_their_moment() {
        let at = |text: &str| lifeboat_repo::parse_utc(text).ok();
        for (name, moment) in [
            ("devops_hub_backup_20260112_120000.tar.gz", at("2026-01-12T12:00:00Z")),
            ("sortie-20260101-020304.db", at("2026-01-01T02:03:04Z")),
            ("architect_20260218_120000.db.gz", at("2026-02-18T12:00:00Z")),
            ("sortie-20260101.db", at("2026-01-01T00:00:00Z")),
            ("backup_20240101_120000.sql.gz.enc", at("2024-01-01T12:00:00Z")),
            ("backup_20241399.db", None),
            ("v123456789.db", None),
            ("app.db", None),
        ] {
            assert_eq!(moment_in(name), moment, "{name}");
        }
    }
}
