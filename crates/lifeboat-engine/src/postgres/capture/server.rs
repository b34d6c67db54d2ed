//! The session that a backup holds open: what the server says of itself, `pg_backup_start` and `pg_backup_stop`.

use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};
use tokio_postgres::Client;

use crate::postgres::control::Control;
use crate::postgres::layout;
use crate::postgres::page::SEGMENT_PAGES;

/// The oldest and the newest version whose data directory we know.
const KNOWN: std::ops::RangeInclusive<u32> = 14..=18;
/// Bytes of a usual page.
const PAGE: i32 = 8192;

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// 15, for example.
    pub major: u32,
    /// 18 of 15.18, for example.
    pub minor: u32,
    /// As it writes it: `15.18 (Debian …)`.
    pub version: String,
    /// Which cluster.
    pub system_identifier: u64,
    /// Where it says that its data is.
    pub data_dir: PathBuf,
    /// Its configuration files, wherever they are.
    pub configuration: Vec<PathBuf>,
    /// It replays another server's log.
    pub standby: bool,
    /// The superuser that the cluster was made with.
    pub superuser: String,
    /// What it loads at its start.
    pub preload: String,
    /// Bytes of its pages.
    pub block_bytes: u32,
    /// Whether pages and segments have the usual sizes.
    usual_sizes: bool,
    /// Whether pages carry numbers.
    checksums: bool,
    port: String,
    started_s: i64,
}

/// What the server gave at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) end: Lsn,
    pub(super) label: Vec<u8>,
    pub(super) tablespace_map: Vec<u8>,
    /// The timeline that the server is on now.
    pub(super) timeline: Timeline,
}

impl Server {
    /// Asks the server. Kind `Unreachable` where it lets us not know what is needed.
    pub async fn ask(client: &Client) -> Result<Self> {
        let sql = "select current_setting('server_version_num')::int, current_setting('server_version'), \
                   (select system_identifier from pg_control_system())::text, current_setting('data_directory'), \
                   array[current_setting('config_file'), current_setting('hba_file'), current_setting('ident_file')], \
                   pg_is_in_recovery(), (select rolname::text from pg_roles where oid = 10), \
                   current_setting('shared_preload_libraries'), current_setting('port'), \
                   floor(extract(epoch from pg_postmaster_start_time()))::bigint, current_setting('block_size')::int, \
                   current_setting('data_checksums') = 'on', (select setting::bigint = $1 from pg_settings where name = 'segment_size')";
        let segment_pages = i64::from(SEGMENT_PAGES);
        let row = client.query_one(sql, &[&segment_pages]).await.map_err(|error| {
            failed("ask the server about itself", &error)
                .with_hint("the role needs pg_read_all_settings: GRANT pg_read_all_settings TO the role")
        })?;
        let number = u32::try_from(row.get::<_, i32>(0)).unwrap_or(0);
        let identifier: String = row.get(2);
        Ok(Self {
            major: number / 10_000,
            minor: number % 10_000,
            version: row.get(1),
            system_identifier: identifier.parse().map_err(|error| {
                Error::new(ErrorKind::Corrupt, "read", "the system identifier", &identifier).with_source(error)
            })?,
            data_dir: PathBuf::from(row.get::<_, String>(3)),
            configuration: row.get::<_, Vec<String>>(4).into_iter().map(PathBuf::from).collect(),
            standby: row.get(5),
            superuser: row.get(6),
            preload: row.get(7),
            port: row.get(8),
            started_s: row.get(9),
            block_bytes: u32::try_from(row.get::<_, i32>(10)).unwrap_or(0),
            checksums: row.get::<_, Option<bool>>(11).unwrap_or(false),
            usual_sizes: row.get::<_, Option<bool>>(12).unwrap_or(false) && row.get::<_, i32>(10) == PAGE,
        })
    }

    /// What must be the same for a later backup to be compared with one of this cluster.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("postgres:{}", self.system_identifier)
    }

    /// Whether pages carry numbers that can be checked here.
    #[must_use]
    pub fn checkable(&self) -> bool {
        self.checksums && self.usual_sizes
    }

    /// Whether pages and segments have the usual sizes.
    #[must_use]
    pub fn usual_sizes(&self) -> bool {
        self.usual_sizes
    }

    /// Kind `Incompatible` where the version is not one whose data directory we know.
    pub fn must_be_known(&self) -> Result<()> {
        self.within(
            KNOWN.contains(&self.major),
            "upgrade an older server; a newer one is backed up by streaming",
        )
    }

    /// Kind `Incompatible` where the version is too old for any backup.
    pub fn must_stream(&self) -> Result<()> {
        self.within(self.major >= *KNOWN.start(), "upgrade the server")
    }

    fn within(&self, is_fine: bool, hint: &str) -> Result<()> {
        if is_fine {
            return Ok(());
        }
        let subject = format!("PostgreSQL {}", self.version);
        let detail = "versions 14 to 18 are supported";
        Err(Error::new(ErrorKind::Incompatible, "back up", subject, detail).with_hint(hint))
    }

    /// Proves that the data directory on this host is the one that the server runs on: the same cluster, and its `postmaster.pid` names the
    /// port and the second of the server's start. Says what its control file says.
    ///
    /// Kind `Incompatible` where the version is not known, `Unreachable` otherwise.
    pub fn prove_local(&self, data_dir: &Path) -> Result<Control> {
        self.must_be_known()?;
        let refuse = |detail: String| {
            Error::new(ErrorKind::Unreachable, "read the data directory", data_dir.display(), detail)
                .with_hint("run on the server's host as a user who may read it, or let the backup be streamed")
        };
        let read = |name: &str| {
            std::fs::read(data_dir.join(name)).map_err(|error| refuse(format!("{name}: {error}")).with_source(error))
        };
        let control = super::read_control(data_dir)?;
        if control.system_identifier != self.system_identifier {
            return Err(refuse(format!(
                "it belongs to the cluster {}, the server is {}",
                control.system_identifier, self.system_identifier
            )));
        }
        let pid = String::from_utf8_lossy(&read("postmaster.pid")?).into_owned();
        let lines: Vec<&str> = pid.lines().map(str::trim).collect();
        let near = |text: &str| text.parse::<i64>().is_ok_and(|started| (started - self.started_s).abs() <= 2);
        if lines.get(3) != Some(&self.port.as_str()) || !lines.get(2).is_some_and(|text| near(text)) {
            return Err(refuse("another server than the one that answered runs on it".into()));
        }
        // For the error that names the file.
        drop(read(layout::CONTROL)?);
        Ok(control)
    }

    /// Begins a backup; the session must stay open until [`Server::stop`].
    pub(super) async fn start(&self, client: &Client, label: &str, fast: bool) -> Result<Lsn> {
        let sql = if self.major >= 15 {
            "select pg_backup_start($1, $2)::text"
        } else {
            "select pg_start_backup($1, $2, false)::text"
        };
        let row = client.query_one(sql, &[&label, &fast]).await;
        let row = row.map_err(|error| {
            failed("begin a backup", &error).with_hint(
                "the role needs the right: GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO the role \
                 (14: pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean))",
            )
        })?;
        row.get::<_, String>(0).parse()
    }

    /// Ends the backup. The log is not waited for: whether it is held is ours to prove.
    pub(super) async fn stop(&self, client: &Client) -> Result<Stopped> {
        let sql = if self.major >= 15 {
            "select lsn::text, labelfile, spcmapfile from pg_backup_stop(false)"
        } else {
            "select lsn::text, labelfile, spcmapfile from pg_stop_backup(false, false)"
        };
        let row = client
            .query_one(sql, &[])
            .await
            .map_err(|error| failed("end the backup", &error))?;
        let end: Lsn = row.get::<_, String>(0).parse()?;
        let sql = "select case when pg_is_in_recovery() then (select min_recovery_end_timeline from pg_control_recovery())::bigint \
                   else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint end";
        let timeline = client
            .query_one(sql, &[])
            .await
            .map_err(|error| failed("ask for the timeline", &error))?;
        Ok(Stopped {
            end,
            label: row.get::<_, String>(1).into_bytes(),
            tablespace_map: row.get::<_, String>(2).into_bytes(),
            timeline: Timeline::new(u32::try_from(timeline.get::<_, i64>(0)).unwrap_or(0))?,
        })
    }
}

fn failed(op: &'static str, error: &tokio_postgres::Error) -> Error {
    let detail = error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned());
    Error::new(ErrorKind::Unreachable, op, "PostgreSQL", detail)
}
