//! Whether a PostgreSQL server can be backed up and followed, in plain sentences, each with the statement that mends it.

use std::path::Path;

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::examine::{Examined, SlotState, examine};
use lifeboat_engine::postgres::logical::leader;
use lifeboat_engine::postgres::logical::programs::Program;
use lifeboat_engine::postgres::role::{self, Right};
use lifeboat_engine::postgres::sql::Sql;
use lifeboat_engine::postgres::wire::{self, Mode as Connecting};
use lifeboat_model::Result;
use lifeboat_model::time::human_bytes;

use super::Check;
use crate::protected::{Cluster, Method, Mode};

/// The versions that are known.
const KNOWN: std::ops::RangeInclusive<u32> = 14..=18;

/// What the server keeps for a slot that nobody reads, before it is called much.
const MUCH_KEPT_BYTES: i64 = 4 << 30;

/// Asks the server, and tries whether it lets us replicate.
pub(super) async fn server(cluster: &Cluster) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Err(error) = ask(cluster, &mut checks).await {
        checks.push(Check::failed(&error));
    }
    checks
}

/// What a logical backup needs: programs, and the right to read everything.
async fn ask_logical(cluster: &Cluster, info: &ConnInfo, sql: &Sql, checks: &mut Vec<Check>) -> Result<()> {
    let server = leader::ask(sql).await?;
    checks.push(Check::good(format!("PostgreSQL {} answers at {info}", server.version)));
    for name in ["pg_dump", "pg_dumpall", "pg_restore"] {
        match Program::find(name, server.major, &cluster.binaries).await {
            Ok(program) => checks.push(Check::good(format!("{} is {}", program.path().display(), program.version))),
            Err(error) => checks.push(Check::failed(&error)),
        }
    }
    let wanted = match cluster.logical.databases.as_slice() {
        [] => &server.databases,
        named => named,
    };
    for database in wanted {
        match leader::readable(info, database).await {
            Ok(tables) => checks.push(Check::good(format!(
                "every one of {tables} tables of {database} can be read whole"
            ))),
            Err(error) => checks.push(Check::failed(&error)),
        }
    }
    Ok(())
}

async fn ask(cluster: &Cluster, checks: &mut Vec<Check>) -> Result<()> {
    let info = cluster.login.conninfo().await?;
    let sql = Sql::connect(&info).await?;
    // Before anything is asked that an older server does not know.
    let numbers = sql.text(
        "ask for the version of",
        "select current_setting('server_version_num'), current_setting('server_version')",
    );
    let numbers: Vec<String> = numbers.await?.into_iter().flatten().flatten().collect();
    if let [number, version] = numbers.as_slice()
        && number.parse::<u32>().is_ok_and(|number| number / 10_000 < *KNOWN.start())
    {
        checks.push(too_old(version, &info.to_string()));
        return Ok(());
    }
    if cluster.method == Method::Logical {
        return ask_logical(cluster, &info, &sql, checks).await;
    }
    let found = examine(&sql, &cluster.slot).await?;
    checks.push(version(&found, &info.to_string()));
    let missing = role::missing(&sql, found.major, &found.role).await?;
    rights(&found, cluster, info.database(), &missing, checks);
    // Without the right, its lack has been told.
    match wire::connect(&info, Connecting::Replication).await {
        _ if !found.replication => {}
        Ok(_) => checks.push(Check::good(format!("the server lets the role {} replicate", found.role))),
        Err(error) => checks.push(Check::bad(
            error.to_string(),
            format!(
                "allow it in pg_hba.conf: `host replication {} ADDRESS scram-sha-256`, then `SELECT pg_reload_conf()`",
                found.role
            ),
        )),
    }
    settings(&found, checks);
    place(&found, cluster, checks);
    checks.extend(found.slot.as_ref().map(|state| slot(&cluster.slot, state)));
    Ok(())
}

fn version(found: &Examined, place: &str) -> Check {
    let says = format!(
        "PostgreSQL {} answers at {place}{}",
        found.version,
        if found.standby { ", a standby" } else { "" }
    );
    match found.major {
        major if KNOWN.contains(&major) => Check::good(says),
        major if major > *KNOWN.end() => Check::warning(
            format!(
                "{says}, which is newer than this Lifeboat: its backups are streamed, and nobody has proven that they come back"
            ),
            "look for a newer Lifeboat; until then prove every backup: `lifeboat verify --level app`",
        ),
        _ => too_old(&found.version, place),
    }
}

fn too_old(version: &str, place: &str) -> Check {
    Check::bad(
        format!("PostgreSQL {version} answers at {place}: 14 is the oldest version that is supported"),
        "upgrade the server; until then its own pg_dump can be kept as files",
    )
}

/// What the role may, and what works without the rest.
fn rights(found: &Examined, cluster: &Cluster, database: &str, missing: &[Right], checks: &mut Vec<Check>) {
    let role = role::quoted(&found.role);
    if !found.replication {
        checks.push(Check::bad(
            format!("the role {} may not replicate: its log cannot be followed", found.role),
            format!("ALTER ROLE {role} REPLICATION"),
        ));
    }
    for right in missing {
        let needed = match right.what_for {
            role::SETTINGS => true,
            role::LOCAL => cluster.mode == Mode::Local,
            _ => false,
        };
        let wanted = match right.what_for {
            role::LOCAL => cluster.mode != Mode::Stream,
            role::ROWS => !cluster.care.count_rows.is_zero(),
            _ => true,
        };
        let says = format!("the role {} lacks a right that is for this: {}", found.role, right.what_for);
        // Rights on functions are those of one database.
        let fix = match right.sql.contains(" FUNCTION ") {
            true => format!("in the database {database}: {}", right.sql),
            false => right.sql.clone(),
        };
        if needed {
            checks.push(Check::bad(says, fix));
        } else if wanted {
            checks.push(Check::warning(says, fix));
        }
    }
}

fn settings(found: &Examined, checks: &mut Vec<Check>) {
    if found.wal_level == "minimal" {
        checks.push(Check::bad(
            "wal_level is minimal: neither a backup nor its log can be taken",
            "ALTER SYSTEM SET wal_level = 'replica', then restart the server",
        ));
    }
    let needed = [
        ("max_wal_senders", found.max_wal_senders, 2),
        ("max_replication_slots", found.max_replication_slots, 2),
    ];
    for (name, value, least) in needed {
        if value < least {
            checks.push(Check::bad(
                format!("{name} is {value}: a backup and the follower need {least}"),
                format!("ALTER SYSTEM SET {name} = 10, then restart the server"),
            ));
        }
    }
    if !found.full_page_writes {
        checks.push(Check::bad(
            "full_page_writes is off: a page that is written while it is copied cannot be mended by the log",
            "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()",
        ));
    }
    if !found.fsync {
        checks.push(Check::warning(
            "fsync is off: a crash of the server's host may damage the cluster itself",
            "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()",
        ));
    }
    if !found.checksums {
        checks.push(Check::warning(
            "pages have no checksums: damage on the server's disk cannot be noticed",
            "stop the server once and run `pg_checksums --enable`",
        ));
    }
    if found.slot_keep_mib < 0 && found.slot.is_some() {
        checks.push(Check::warning(
            "max_slot_wal_keep_size has no limit: while nobody follows, the slot keeps log until the server's disk is full (with a limit log is \
             lost instead, which is told, and the next backup repairs it)",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()",
        ));
    }
    if found.summarizes == Some(false) && !found.standby {
        checks.push(Check::warning(
            "summarize_wal is off: a backup has to read all of the cluster to find what changed",
            "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf()",
        ));
    }
}

/// Whether the data directory can be read here.
fn place(found: &Examined, cluster: &Cluster, checks: &mut Vec<Check>) {
    let configured = cluster.data_dir.as_deref();
    let Some(folder) = configured.or(found.data_dir.as_deref().map(Path::new)) else {
        return;
    };
    let readable = std::fs::File::open(folder.join("global/pg_control"));
    match (readable, cluster.mode) {
        (_, Mode::Stream) => {}
        (Ok(_), _) => checks.push(Check::good(format!(
            "the data directory {} can be read here",
            folder.display()
        ))),
        (Err(error), Mode::Local) => checks.push(Check::bad(
            format!("the data directory {} cannot be read here: {error}", folder.display()),
            "run as its owner or as root, or write `mode: auto`",
        )),
        (Err(error), Mode::Auto) => checks.push(Check::warning(
            format!(
                "the data directory {} cannot be read here ({error}): backups are streamed",
                folder.display()
            ),
            "on the server's own host, run as the data directory's owner or as root",
        )),
    }
}

fn slot(name: &str, state: &SlotState) -> Check {
    let kept = state.kept_bytes.unwrap_or_default();
    let size = human_bytes(u64::try_from(kept).unwrap_or_default());
    if state.wal_status == "lost" {
        Check::bad(
            format!("the server gave up the log that the slot {name} needs"),
            "run `lifeboat follow`: it records the gap and goes on; then `lifeboat backup`",
        )
    } else if !state.active && kept > MUCH_KEPT_BYTES {
        Check::warning(
            format!("the server keeps {size} of log for the slot {name}, and nobody reads it: its disk may fill up"),
            format!("run `lifeboat follow`; or give it up: SELECT pg_drop_replication_slot('{name}')"),
        )
    } else {
        Check::good(format!("the server keeps {size} of log for the slot {name}"))
    }
}
