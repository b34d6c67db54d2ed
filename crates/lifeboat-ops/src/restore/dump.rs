//! Dumps that `pg_dump` made: read to their end (LG-08), restored into a staging database, which gets its name last.
//!
//! Nothing is made on the server before the whole dump was read: what is cut off is known by then. The first error ends a restore, and the staging
//! database goes with it.

mod import;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::artefact::{self, Contents};
use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::dump::roles::Roles;
use lifeboat_engine::postgres::dump::script::{self, Taker};
use lifeboat_engine::postgres::dump::{self, About, CONTENTS, Format, MAGIC};
use lifeboat_engine::postgres::logical::destination::{Destination, Inside, Wanted};
use lifeboat_engine::postgres::logical::facts::Properties;
use lifeboat_engine::postgres::logical::programs::{self, Program};
use lifeboat_engine::postgres::logical::session::Worker;
use lifeboat_engine::postgres::logical::{Database, quoted_name};
use lifeboat_io::{compute, durable};
use lifeboat_model::{Env, Error, ErrorKind, Result};

use super::artefact::{Old, moment_of};
use super::draw_id;
use super::logical::{beside_name, place, staging_name};
use crate::backup::logical::binaries;
use crate::protected::Protected;

pub use import::{Taking, import};

/// How long a program may take: building an index of a large table takes hours.
const LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Since this version a dump begins with a setting that older servers refuse (`transaction_timeout`).
const NEW_SETTING: u32 = 17;

/// A dump that was read to its end.
#[derive(Debug)]
pub struct Dump {
    /// What the file holds.
    pub contents: Contents,
    /// The path of the dump in it.
    pub member: String,
    /// How `pg_dump` wrote it.
    pub format: Format,
    /// What it says of itself.
    pub about: About,
    /// Its bytes, without what was around it.
    pub size_bytes: u64,
    /// When it was made, as well as that is known, microseconds since 1970; and from where.
    pub moment: (i64, &'static str),
    /// What to know.
    pub notes: Vec<String>,
    /// The roles that it names; known when it was read to its end.
    pub roles: BTreeSet<String>,
    /// Where what is unpacked goes.
    folder: PathBuf,
    /// What the programs read.
    path: PathBuf,
    /// Reads it, where it is an archive.
    pg_restore: Option<Program>,
}

/// What a person may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server; its database is one that is there already.
    pub server: ConnInfo,
    /// The new database; none: the original's name with the moment of the dump behind it.
    pub name: Option<String>,
    /// Of which database it is; none: what the dump says, or the only one that is configured.
    pub original: Option<String>,
    /// Who owns what, and who may do what, as it was.
    pub keep_owners: bool,
}

/// What a restore would do.
#[derive(Debug)]
pub struct Plan {
    /// From which dump.
    pub dump: Dump,
    /// The new database.
    pub name: String,
    /// Of which database it is, where that is known.
    pub original: Option<String>,
    /// Where it is made, for people.
    pub server: String,
    /// What will be done, in order.
    pub steps: Vec<String>,
    /// What to know before saying yes.
    pub notes: Vec<String>,
    destination: Destination,
    like: Properties,
    keep_owners: bool,
}

/// What came of a restore.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Names it.
    pub id: String,
    /// From which dump.
    pub dump: Dump,
    /// The new database.
    pub name: String,
    /// Of which database it is, where that is known.
    pub original: Option<String>,
    /// Where it is, for people.
    pub server: String,
    /// `restore promote` knows it.
    pub is_remembered: bool,
    /// How long it took until it had its name.
    pub took: Duration,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Finds the dump in a file and says what it is. What is packed is unpacked into `folder`, which is the caller's to remove.
///
/// # Errors
/// `Corrupt` where what is around it is damaged or cut off, `WrongKey` where no passphrase fits.
pub async fn open(env: &Env, old: &Old, folder: PathBuf) -> Result<Dump> {
    env.progress.step("read the dump", None);
    let reading = old.clone();
    compute::run("read an old backup", move || find(&reading, folder)).await
}

/// Reads a dump to its end and says what it is, for whoever wants to know whether it is whole. Otherwise as [`open`] and [`plan`].
pub async fn verify(env: &Env, old: &Old, binaries: &[PathBuf], folder: PathBuf) -> Result<Dump> {
    let mut dump = open(env, old, folder).await?;
    read_through(&mut dump, old, binaries).await?;
    env.progress.finish();
    Ok(dump)
}

/// Reads it to its end; `binaries` are looked into for programs before the usual folders.
///
/// # Errors
/// `Corrupt` where it is damaged or cut off, `Refused` where it holds more than SQL, `NotFound` where there is no program that reads it.
async fn read_through(dump: &mut Dump, old: &Old, binaries: &[PathBuf]) -> Result<()> {
    let name = old.file.display().to_string();
    if dump.format == Format::Plain {
        dump.roles = roles_in(dump.path.clone(), name).await?;
        return Ok(());
    }
    let least = dump.about.pg_dump_major().unwrap_or(1);
    let pg_restore = Program::find("pg_restore", least, binaries).await?;
    let read = programs::read_through(&pg_restore, &dump.path, LIMIT).await;
    read.map_err(|error| named(error, old))?;
    durable::create_folder(&dump.folder)?;
    let text = dump.folder.join("definitions.sql");
    programs::definitions_as_text(&pg_restore, &dump.path, &text, LIMIT).await?;
    match roles_in(text, name).await {
        Ok(roles) => dump.roles = roles,
        // The server may still understand it.
        Err(error) => dump
            .notes
            .push(format!("which roles it names could not be read: {}", error.detail())),
    }
    dump.pg_restore = Some(pg_restore);
    Ok(())
}

/// Reads SQL text to its end; returns the roles that it names.
async fn roles_in(path: PathBuf, name: String) -> Result<BTreeSet<String>> {
    compute::run("read SQL text", move || {
        let mut roles = Roles::default();
        script::read(reader(&path)?, &name, &mut roles)?;
        Ok(roles.names)
    })
    .await
}

/// The same error about the file that a person gave, and not about what was unpacked.
fn named(error: Error, old: &Old) -> Error {
    let hint = "the dump is damaged or cut off: take another; nothing of it was restored";
    let named = Error::new(error.kind(), "read", old.file.display(), error.detail().to_owned());
    let named = if error.kind() == ErrorKind::Corrupt {
        named.with_hint(hint)
    } else {
        named
    };
    named.with_source(error)
}

fn reader(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|error| Error::io("read", path.display(), error))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// Finds the dump in a file, and takes it out where it is packed.
fn find(old: &Old, folder: PathBuf) -> Result<Dump> {
    let mut contents = artefact::unpack(&old.file, &old.options, None)?;
    let item = contents.dump(old.member.as_deref(), &old.file)?.clone();
    if contents.has_no_end {
        let detail = "the archive has no end mark: what came last is missing";
        return Err(Error::new(ErrorKind::Corrupt, "read", old.file.display(), detail)
            .with_hint("the dump is cut off: take another; nothing of it was restored"));
    }
    let moment = moment_of(old, &item.path, item.modified_s)?;
    let is_folder = item.path == CONTENTS || item.path.ends_with(&format!("/{CONTENTS}"));
    let layers: Vec<&str> = contents.layers.iter().map(String::as_str).collect();
    let in_place = match layers.as_slice() {
        [] => true,
        ["tar"] => contents.is_tar_of_dump(&item),
        _ => false,
    };
    let path = if in_place {
        old.file.clone()
    } else {
        durable::create_folder(&folder)?;
        artefact::unpack_dump(&old.file, &old.options, &contents, &item, &folder)?
    };
    let start = if path.is_dir() {
        dump::check_folder(&path).map_err(|error| named(error, old))?;
        artefact::beginning(&path.join(CONTENTS))?
    } else {
        artefact::beginning(&path)?
    };
    let (format, about) = if is_folder && path.is_file() {
        // Behind the header of the first member.
        let header = start.get(512..).and_then(About::of_archive);
        (Format::Tar, header.unwrap_or_default())
    } else if start.starts_with(MAGIC) {
        let format = if path.is_dir() { Format::Directory } else { Format::Custom };
        let about = About::of_archive(&start);
        (format, about.unwrap_or_default())
    } else {
        (Format::Plain, About::of_text(&start))
    };
    Ok(Dump {
        size_bytes: contents
            .items
            .iter()
            .map(|item| item.size_bytes)
            .sum::<u64>()
            .max(item.size_bytes),
        notes: std::mem::take(&mut contents.notes),
        contents,
        member: item.path,
        format,
        about,
        moment,
        roles: BTreeSet::new(),
        folder,
        path,
        pg_restore: None,
    })
}

/// Of which database it is, and what the new one is called.
fn names(protected: &Protected, dump: &Dump, options: &Options) -> Result<(Option<String>, String)> {
    let configured = protected.source.cluster().map(|cluster| cluster.logical.databases.as_slice());
    let only = match configured {
        Some([only]) => Some(only.clone()),
        _ => None,
    };
    let original = options.original.clone().or_else(|| dump.about.database.clone()).or(only);
    let name = match (&options.name, &original) {
        (Some(name), _) => name.clone(),
        (None, Some(original)) => beside_name(original, dump.moment.0),
        (None, None) => {
            let detail = "it does not say of which database it is";
            return Err(Error::new(ErrorKind::Usage, "restore the dump", &dump.member, detail)
                .with_hint("name the new one with --to, and with --database the one that it is of"));
        }
    };
    Ok((original, name))
}

/// Looks at everything that can be known before anything is made, and reads the dump to its end.
///
/// # Errors
/// `Refused` where the name is taken or where the dump holds more than SQL, `Incompatible` where the server cannot take it, `Corrupt` where it is damaged
/// or cut off.
pub async fn plan(env: &Env, protected: &Protected, old: &Old, mut dump: Dump, options: &Options) -> Result<Plan> {
    let refused = |kind, detail: String| Error::new(kind, "restore the dump", old.file.display(), detail);
    if dump.format == Format::Plain && !options.keep_owners {
        return Err(
            refused(ErrorKind::Usage, "it is SQL text, which says itself who owns what".to_owned())
                .with_hint("leave out --no-owner; `pg_dump --no-owner` writes text without owners"),
        );
    }
    let (original, name) = names(protected, &dump, options)?;
    let destination = Destination::connect(&options.server).await?;
    let like = destination.made_like(original.as_deref().unwrap_or("template1")).await?;
    let wanted = Wanted {
        name: name.clone(),
        keep_owners: false,
    };
    let mut notes = destination.examine(&nothing_of(&name, &like), &wanted).await?;
    notes.extend(dump.notes.iter().cloned());
    if let Some(wrote) = dump.about.major().filter(|wrote| *wrote > destination.major) {
        let newer = format!(
            "it was written by PostgreSQL {wrote}, and the server is the older {}",
            destination.major
        );
        if wrote >= NEW_SETTING && destination.major < NEW_SETTING {
            return Err(
                refused(ErrorKind::Incompatible, format!("{newer}, which does not know its settings")).with_hint(format!(
                    "restore it to a server of PostgreSQL {wrote} or newer: --to postgresql://USER@HOST/{name}"
                )),
            );
        }
        notes.push(format!("{newer}: definitions that only the newer one knows stop the restore"));
    }
    env.progress.step("read the dump", None);
    read_through(&mut dump, old, binaries(protected)).await?;
    let missing = destination.missing_roles(dump.roles.iter()).await?;
    if options.keep_owners && !missing.is_empty() {
        let made: Vec<String> = missing
            .iter()
            .map(|name| format!("CREATE ROLE {}", quoted_name(name)))
            .collect();
        let otherwise = match dump.format {
            Format::Plain => "",
            Format::Custom | Format::Tar | Format::Directory => ", or restore with --no-owner: then everything belongs to you",
        };
        let detail = format!("it names roles that the server does not have: {}", missing.join(", "));
        return Err(
            refused(ErrorKind::ConfigInvalid, detail).with_hint(format!("make them first ({}){otherwise}", made.join("; ")))
        );
    }
    Ok(Plan {
        steps: steps(&dump, &name),
        server: options.server.to_string(),
        name,
        original,
        notes,
        destination,
        like,
        keep_owners: options.keep_owners,
        dump,
    })
}

/// A database of which nothing has to be looked for on the server.
fn nothing_of(name: &str, like: &Properties) -> Database {
    Database {
        name: name.to_owned(),
        folder: String::new(),
        moment_us: 0,
        properties: like.clone(),
        roles: Vec::new(),
        extensions: Vec::new(),
        tables: Vec::new(),
        sequences: Vec::new(),
        large_objects: None,
        materialized: Vec::new(),
        foreign: Vec::new(),
    }
}

fn steps(dump: &Dump, name: &str) -> Vec<String> {
    let by = match &dump.pg_restore {
        Some(program) => format!("by pg_restore {}", program.version),
        None => "statement by statement".to_owned(),
    };
    vec![
        "create: an empty database, under a name of its own until the end".to_owned(),
        format!("restore: definitions and rows, {by}, up to the first error"),
        format!("publish: the database gets its name, {name}, last"),
    ]
}

/// Restores what `plan` says. On an error the staging database is gone again, unless the server is.
pub async fn run(env: &Env, protected: &Protected, plan: Plan) -> Result<Report> {
    let began = env.clock.monotonic();
    let id = draw_id(env)?;
    let staging = staging_name(&id);
    let mut notes = plan.notes.clone();
    for leftover in plan.destination.leftovers().await? {
        plan.destination.drop_staging(&leftover).await?;
        notes.push(format!("removed {leftover}, which an interrupted restore had left"));
    }
    if let Err(error) = restore(env, &plan, &staging).await {
        let hint = match plan.destination.drop_staging(&staging).await {
            Ok(()) => "nothing is left of it on the server; roles and extensions that the dump names must be there first (for archives, --no-owner leaves out owners and rights)".to_owned(),
            Err(left) => format!("the database {staging} could not be removed ({left}); the next restore to this server does"),
        };
        return Err(error.with_hint(hint));
    }
    let took = env.clock.monotonic().saturating_sub(began);
    let is_remembered = match remember(env, protected, &plan, &id).await {
        Ok(is_remembered) => is_remembered,
        Err(error) => {
            notes.push(format!("it could not be recorded where the database is: {error}"));
            false
        }
    };
    Ok(Report {
        id,
        name: plan.name,
        original: plan.original,
        server: plan.server,
        dump: plan.dump,
        is_remembered,
        took,
        notes,
    })
}

/// Writes down what `restore promote` needs; `false` where it is not known whose place it could take.
async fn remember(env: &Env, protected: &Protected, plan: &Plan, id: &str) -> Result<bool> {
    let Some(original) = &plan.original else {
        return Ok(false);
    };
    let put = place::RestoredDatabase {
        id: id.to_owned(),
        component: protected.component.to_string(),
        backup: format!("the file {}", plan.dump.member),
        at_us: env.clock.wall_us(),
        server: plan.destination.identity.clone(),
        oid: plan.destination.oid(&plan.name).await?,
        name: plan.name.clone(),
        original: original.clone(),
        lacks: None,
        replaced: None,
    };
    place::remember(&protected.state_dir, &put)?;
    Ok(true)
}

async fn restore(env: &Env, plan: &Plan, staging: &str) -> Result<()> {
    env.progress.step("create", None);
    plan.destination.create(staging, &plan.like).await?;
    let info = plan.destination.info(staging);
    let inside = Inside::enter(&info).await?;
    env.progress.step("restore", None);
    fill(&plan.dump, &info, plan.keep_owners).await?;
    env.progress.step("analyze", None);
    inside.analyze().await?;
    env.progress.step("publish", None);
    plan.destination.dress(staging, &plan.like, false).await?;
    drop(inside);
    plan.destination.rename(staging, &plan.name).await?;
    env.progress.finish();
    Ok(())
}

/// Brings all that is in a dump into an empty database.
async fn fill(dump: &Dump, info: &ConnInfo, keep_owners: bool) -> Result<()> {
    if let Some(pg_restore) = &dump.pg_restore {
        return programs::restore(pg_restore, info, &dump.path, keep_owners, LIMIT).await;
    }
    let (path, name, info) = (dump.path.clone(), dump.member.clone(), info.clone());
    compute::run("send SQL text", move || {
        let mut worker = Worker::connect(&info)?;
        worker.run("prepare", "SET synchronous_commit = off")?;
        script::read(reader(&path)?, &name, &mut Sending(worker))
    })
    .await
}

/// Sends what a script holds.
struct Sending(Worker);

impl Taker for Sending {
    fn statement(&mut self, sql: &str) -> Result<()> {
        self.0.run("restore", sql)
    }

    fn begin_rows(&mut self, sql: &str) -> Result<()> {
        self.0.begin_copy_in(sql)
    }

    fn rows(&mut self, text: &[u8]) -> Result<()> {
        self.0.copy_in(text)
    }

    fn end_rows(&mut self) -> Result<()> {
        self.0.end_copy_in().map(drop)
    }
}
