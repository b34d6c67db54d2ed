//! PostgreSQL's own programs, for what only they know: definitions.
//!
//! `pg_dump` must be of the server's major version or newer, `pg_restore` of that of the `pg_dump` that wrote or newer. Passwords are given to them in
//! the environment, never in arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::process::{Output, Process};
use lifeboat_model::{Error, ErrorKind, Result};

use crate::postgres::binaries::places;
use crate::postgres::conninfo::{ChannelBinding, ConnInfo, Endpoint, Password, SslMode};

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to write definitions as text.
const PATIENCE_FOR_TEXT: Duration = Duration::from_secs(3600);
/// The newest major version that is looked for.
const NEWEST: u32 = 20;
/// Lines of what a program said that are told when it failed.
const LAST_LINES: usize = 4;
/// Definitions are not larger: a hundred thousand tables have 200 MB.
const DEFINITIONS_BYTES: u64 = 1 << 30;

/// A program, and of which version it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    /// Its major version.
    pub major: u32,
    /// As it says it.
    pub version: String,
}

impl Program {
    /// Finds `name` of the major version `least`, or else the oldest newer one: in the `configured` folders, where Debian, Red Hat and the project's
    /// own build put them, and in `PATH`. Kind `NotFound` where there is none.
    pub async fn find(name: &str, least: u32, configured: &[PathBuf]) -> Result<Self> {
        let mut looked = Vec::new();
        let mut best: Option<Self> = None;
        for major in least..=NEWEST.max(least) {
            for folder in places(major, configured).await {
                let path = folder.join(name);
                if !path.is_file() || looked.iter().any(|(known, _)| *known == path) {
                    continue;
                }
                let version = version(&path).await;
                let says = version
                    .as_ref()
                    .map_or_else(ToString::to_string, |(_, version)| version.clone());
                looked.push((path.clone(), says));
                if let Ok((found, version)) = version
                    && found >= least
                    && best.as_ref().is_none_or(|best| found < best.major)
                {
                    best = Some(Self {
                        path,
                        major: found,
                        version,
                    });
                }
            }
            if best.as_ref().is_some_and(|best| best.major <= major) {
                break;
            }
        }
        best.ok_or_else(|| {
            let seen: Vec<String> = looked.iter().map(|(path, says)| format!("{} ({says})", path.display())).collect();
            let seen = if seen.is_empty() { "none is on this host".to_owned() } else { format!("there are only {}", seen.join(", ")) };
            Error::new(ErrorKind::NotFound, "find", format!("{name} of PostgreSQL {least} or newer"), seen).with_hint(format!(
                "install it (on Debian: apt install postgresql-client-{least}), or name its folder under `postgres: {{ binaries: … }}`"
            ))
        })
    }

    /// What it is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn process(&self, info: &ConnInfo, limit: Duration) -> Process {
        let mut process = Process::new(self.path.clone(), limit).arg("--no-password");
        for (name, value) in variables(info) {
            process = process.variable(name, value);
        }
        process
    }
}

/// The major and the whole version of a program.
async fn version(path: &Path) -> Result<(u32, String)> {
    let output = Process::new(path, PATIENCE).arg("--version").run().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let parsed = text.split_once(") ").and_then(|(_, rest)| {
        let version = rest.split_whitespace().next()?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        Some((digits.parse().ok()?, version.to_owned()))
    });
    parsed.ok_or_else(|| Error::new(ErrorKind::Incompatible, "read the version of", path.display(), text.trim()))
}

/// A connection in the words of libpq, without its password: for arguments, which everybody on the host can read.
fn words(info: &ConnInfo) -> String {
    let mut words = Vec::new();
    let mut add = |word: &str, value: &str| {
        words.push(format!("{word}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")));
    };
    let all = |of: &dyn Fn(&crate::postgres::conninfo::Host) -> String| {
        let list: Vec<String> = info.hosts().iter().map(of).collect();
        list.join(",")
    };
    add(
        "host",
        &all(&|host| match &host.endpoint {
            Endpoint::Socket(folder) => folder.display().to_string(),
            Endpoint::Tcp { name, .. } => name.clone(),
        }),
    );
    let address = |host: &crate::postgres::conninfo::Host| match &host.endpoint {
        Endpoint::Tcp {
            address: Some(address), ..
        } => address.clone(),
        _ => String::new(),
    };
    if info.hosts().iter().any(|host| !address(host).is_empty()) {
        add("hostaddr", &all(&address));
    }
    add("port", &all(&|host| host.port.to_string()));
    add("user", info.user());
    add("dbname", info.database());
    add("application_name", &info.application_name);
    add("connect_timeout", &info.connect_limit.as_secs().max(2).to_string());
    add(
        "sslmode",
        match info.ssl_mode {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        },
    );
    add(
        "channel_binding",
        match info.channel_binding {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Prefer => "prefer",
            ChannelBinding::Require => "require",
        },
    );
    for (word, file) in [
        ("sslrootcert", &info.tls.root),
        ("sslcert", &info.tls.cert),
        ("sslkey", &info.tls.key),
    ] {
        if let Some(file) = file {
            add(word, &file.display().to_string());
        }
    }
    if info.tls.system_roots {
        add("sslrootcert", "system");
    }
    if let Some(options) = &info.options {
        add("options", options);
    }
    words.join(" ")
}

/// What must not stand in arguments.
fn variables(info: &ConnInfo) -> Vec<(String, String)> {
    let first = info.hosts().first();
    match first.map(|host| info.password(host, info.database())) {
        Some(Password::Known(password)) => vec![("PGPASSWORD".to_owned(), password.to_string())],
        _ => Vec::new(),
    }
}

/// Everything of a database but rows, as `pg_dump` writes it in its custom form, out of the snapshot that somebody holds.
pub async fn definitions(
    pg_dump: &Program,
    info: &ConnInfo,
    snapshot: Option<&str>,
    lock_wait_ms: u64,
    limit: Duration,
) -> Result<Vec<u8>> {
    let mut process = pg_dump
        .process(info, limit)
        .arg(format!("--dbname={}", words(info)))
        .arg("--format=custom")
        .arg("--schema-only")
        // Their existence and their rights; what they hold is copied like rows.
        .arg("--blobs")
        .arg("--encoding=UTF8")
        .arg("--quote-all-identifiers")
        .arg(format!("--lock-wait-timeout={lock_wait_ms}"))
        .output_limit_bytes(DEFINITIONS_BYTES);
    if let Some(snapshot) = snapshot {
        process = process.arg(format!("--snapshot={snapshot}"));
    }
    let output = run(process, "read the definitions of", info).await?;
    if !output.stdout.starts_with(b"PGDMP") {
        let detail = format!("{} did not write an archive", pg_dump.path.display());
        return Err(Error::new(ErrorKind::Failed, "read the definitions of", info, detail));
    }
    Ok(output.stdout)
}

/// The definitions of one schema, which nobody owns, as `pg_dump` writes them in its custom form.
pub async fn schema(pg_dump: &Program, info: &ConnInfo, schema: &str, limit: Duration) -> Result<Vec<u8>> {
    let process = pg_dump
        .process(info, limit)
        .arg(format!("--dbname={}", words(info)))
        .arg("--format=custom")
        .arg("--schema-only")
        .arg("--no-owner")
        .arg("--no-acl")
        .arg("--encoding=UTF8")
        .arg("--quote-all-identifiers")
        .arg(format!("--schema={schema}"))
        .output_limit_bytes(DEFINITIONS_BYTES);
    Ok(run(process, "read the definitions of", info).await?.stdout)
}

/// Roles, memberships, settings of roles and tablespaces, as SQL.
pub async fn globals(pg_dumpall: &Program, info: &ConnInfo, with_passwords: bool, limit: Duration) -> Result<Vec<u8>> {
    let mut process = pg_dumpall
        .process(info, limit)
        .arg(format!("--dbname={}", words(info)))
        .arg("--globals-only")
        .arg("--quote-all-identifiers")
        .output_limit_bytes(DEFINITIONS_BYTES);
    if !with_passwords {
        process = process.arg("--no-role-passwords");
    }
    Ok(run(process, "read the roles of", info).await?.stdout)
}

/// Which of the definitions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Everything that rows need to have a place.
    PreData,
    /// Everything that wants rows to be there.
    PostData,
}

impl Section {
    fn word(self) -> &'static str {
        match self {
            Self::PreData => "--section=pre-data",
            Self::PostData => "--section=post-data",
        }
    }
}

/// How definitions are made.
#[derive(Debug, Clone)]
pub struct Making {
    /// Statements that are made at the same time.
    pub at_once: usize,
    /// Who owns what, and who may do what, as it was. Otherwise everything belongs to whoever restores.
    pub keep_owners: bool,
    /// Publications and subscriptions, too. A subscription ties a database to a slot on another server, and keeps it from being dropped.
    pub replication: bool,
    /// What the building of one index has of the server's memory, in KiB; none: what the server's settings say.
    pub index_memory_kib: Option<u64>,
    /// How long it may take.
    pub limit: Duration,
}

/// Settings of a session that makes definitions: nobody else works in this database.
const MAKING: &str = "-c synchronous_commit=off -c statement_timeout=0 -c lock_timeout=0";

/// Makes what `archive` holds in the database of `info`, up to the first error.
pub async fn make(pg_restore: &Program, info: &ConnInfo, archive: &Path, section: Section, making: &Making) -> Result<()> {
    let memory = making.index_memory_kib;
    let memory = memory
        .map(|kib| format!(" -c maintenance_work_mem={kib}kB"))
        .unwrap_or_default();
    let mut process = pg_restore
        .process(info, making.limit)
        .variable("PGOPTIONS", format!("{MAKING}{memory}"))
        .arg(format!("--dbname={}", words(info)))
        .arg("--exit-on-error")
        .arg(section.word());
    if !making.keep_owners {
        process = process.arg("--no-owner").arg("--no-acl");
    }
    if !making.replication {
        process = process.arg("--no-publications").arg("--no-subscriptions");
    }
    if section == Section::PostData && making.at_once > 1 {
        process = process.arg(format!("--jobs={}", making.at_once));
    }
    run(process.arg(archive.as_os_str().to_owned()), "make the definitions in", info)
        .await
        .map(drop)
}

/// Makes everything that `archive` holds, definitions and rows, in the database of `info`, up to the first error.
pub async fn restore(pg_restore: &Program, info: &ConnInfo, archive: &Path, keep_owners: bool, limit: Duration) -> Result<()> {
    let mut process = pg_restore
        .process(info, limit)
        .variable("PGOPTIONS", MAKING)
        .arg(format!("--dbname={}", words(info)))
        .arg("--exit-on-error");
    if !keep_owners {
        process = process.arg("--no-owner").arg("--no-acl");
    }
    run(process.arg(archive.as_os_str().to_owned()), "restore the dump to", info)
        .await
        .map(drop)
}

/// Has `pg_restore` read all of an archive, and writes nothing anywhere.
///
/// # Errors
/// `Corrupt` where it is damaged or cut off.
pub async fn read_through(pg_restore: &Program, archive: &Path, limit: Duration) -> Result<()> {
    let process = Process::new(pg_restore.path.clone(), limit)
        .variable("LC_ALL", "C")
        .arg("--file=/dev/null")
        .arg(archive.as_os_str().to_owned());
    run(process, "read", archive.display()).await.map(drop).map_err(|error| {
        if error.kind() != ErrorKind::Failed {
            return error;
        }
        Error::new(ErrorKind::Corrupt, "read", archive.display(), error.detail().to_owned())
            .with_source(error)
            .with_hint("the dump is damaged or cut off: take another; nothing of it was restored")
    })
}

/// Writes a whole database, definitions and rows, to the new file `to`, in the form that `pg_restore` reads.
pub async fn dump(pg_dump: &Program, info: &ConnInfo, to: &Path, limit: Duration) -> Result<()> {
    let mut file = std::ffi::OsString::from("--file=");
    file.push(to);
    let process = pg_dump
        .process(info, limit)
        .arg(format!("--dbname={}", words(info)))
        .arg("--format=custom")
        .arg("--encoding=UTF8")
        .arg(file);
    run(process, "dump", info).await.map(drop)
}

/// What `archive` holds, as SQL text.
pub async fn as_text(pg_restore: &Program, archive: &Path, section: Section) -> Result<String> {
    let process = Process::new(pg_restore.path.clone(), PATIENCE_FOR_TEXT)
        .arg("--file=-")
        .arg(section.word())
        .output_limit_bytes(DEFINITIONS_BYTES)
        .arg(archive.as_os_str().to_owned());
    let output = run(process, "read the definitions in", archive.display()).await?;
    String::from_utf8(output.stdout).map_err(|error| {
        Error::new(
            ErrorKind::Corrupt,
            "read the definitions in",
            archive.display(),
            "they are not UTF-8",
        )
        .with_source(error)
    })
}

/// All definitions of `archive` as SQL text, written to the new file `to`.
pub async fn definitions_as_text(pg_restore: &Program, archive: &Path, to: &Path, limit: Duration) -> Result<()> {
    let mut file = std::ffi::OsString::from("--file=");
    file.push(to);
    let process = Process::new(pg_restore.path.clone(), limit)
        .variable("LC_ALL", "C")
        .arg("--schema-only")
        .arg(file)
        .arg(archive.as_os_str().to_owned());
    run(process, "read the definitions in", archive.display()).await.map(drop)
}

/// Runs a program to its end. What it said last is the error: PostgreSQL's programs tell the reason some lines before the end.
async fn run(process: Process, op: &'static str, subject: impl std::fmt::Display) -> Result<Output> {
    let output = process.finish().await?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines
        .get(lines.len().saturating_sub(LAST_LINES)..)
        .unwrap_or_default()
        .join("; ");
    Err(Error::new(
        ErrorKind::Failed,
        op,
        subject,
        format!("{process}: {}: {last}", output.status),
    ))
}
