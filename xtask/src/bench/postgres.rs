//! Real PostgreSQL heap and index files: a short-lived server of our own fills tables, stops, and its files are taken.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::data::{self, PAGE};
use crate::{setup, sh};

/// Where Debian puts the programs that are not on the path.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// The user of the Debian package; the server refuses to run as root.
pub(super) const USER: &str = "postgres";

/// A table as applications have them: identifiers, times, words and documents. The seed is set in the same session.
const TABLE: &str = "
create table events (id uuid, tenant uuid, at timestamptz, kind text, body jsonb);
select setseed(0.42);
insert into events select md5('e' || i)::uuid, md5('t' || (random() * 500)::int)::uuid,
  timestamptz '2026-01-01 00:00:00+00' + i * interval '1.7 seconds',
  (array['created', 'updated', 'viewed', 'deleted', 'exported'])[1 + (random() * 4)::int],
  jsonb_build_object('user', md5('u' || (random() * 20000)::int), 'amount', round((random() * 10000)::numeric, 2),
    'path', '/api/v1/items/' || (random() * 1000000)::int, 'ok', random() > 0.1,
    'note', substr(md5(random()::text) || ' ' || md5(random()::text), 1, (random() * 64)::int))
from generate_series(1, ROWS) i;
alter table events add primary key (id);
create index on events (tenant, at);
";

/// Copies `bytes` of heap and index files into `folder`, without zero and repeated pages.
pub(super) fn make_files(folder: &Path, bytes: u64, quick: bool) -> Result<()> {
    let server = Server::start("-c autovacuum=off")?;
    let (scale, rows) = if quick { ("3", "150000") } else { ("45", "2200000") };
    server.fill(scale, rows)?;
    let base = server.stop()?;
    // Only relations of some size: catalogues, free space maps and visibility maps are neither heap nor index.
    let relation = |path: &PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().contains('_'));
    let mut found = Vec::new();
    let mut total = 0;
    for path in data::files(&base)? {
        let size = path.metadata()?.len();
        if relation(&path) && size >= 1 << 20 {
            total += size;
            found.push((path, size));
        }
    }
    let mut seen = HashSet::new();
    let mut written = 0;
    // Every relation gives its share; what zero and repeated pages leave open, the last ones fill.
    for (number, (path, size)) in found.iter().enumerate() {
        let share = if number + 1 == found.len() {
            bytes - written
        } else {
            size * bytes / total.max(1) + PAGE as u64
        };
        let share = share.min(bytes - written);
        written += data::copy_distinct(path, &folder.join(format!("pg-{number:03}")), share, &mut seen)?;
    }
    println!(
        "{} relations, {} MiB of {} MiB wanted",
        found.len(),
        written >> 20,
        bytes >> 20
    );
    server.remove()
}

/// A server in a temporary folder that only its socket reaches.
pub(super) struct Server {
    /// Holds the data directory, the socket and the log; belongs to the server's user.
    pub(super) folder: PathBuf,
    programs: PathBuf,
    as_user: bool,
}

impl Server {
    /// Starts a new one with these settings besides ours.
    pub(super) fn start(settings: &str) -> Result<Self> {
        if !Path::new(PROGRAMS).join("initdb").try_exists()? {
            setup::install(&["postgresql-15"])?;
        }
        Self::start_of(Path::new(PROGRAMS), settings)
    }

    /// The same with the programs of another version.
    pub(super) fn start_of(programs: &Path, settings: &str) -> Result<Self> {
        let folder = PathBuf::from(sh::output(&mut sh::program("mktemp", ["-d"]))?.trim());
        let as_user = setup::is_root()?;
        if as_user {
            sh::run(sh::program("chown", [USER]).arg(&folder))?;
        }
        let server = Self {
            folder,
            programs: programs.to_path_buf(),
            as_user,
        };
        let data = server.data();
        let data = data.to_str().context("a folder name that is not text")?;
        server.run(
            "initdb",
            &["-D", data, "-U", USER, "-A", "trust", "--data-checksums", "--no-sync"],
        )?;
        let settings = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c fsync=off -c max_wal_size=8GB -c shared_buffers=256MB {settings}",
            server.folder.display()
        );
        let log = server.folder.join("log");
        let log = log.to_str().context("a folder name that is not text")?;
        server.run("pg_ctl", &["-D", data, "-w", "-l", log, "-o", &settings, "start"])?;
        server.run("createdb", &["bench"])?;
        Ok(server)
    }

    /// Two kinds of tables: those of pgbench in this scale, and so many rows as applications have them.
    pub(super) fn fill(&self, scale: &str, rows: &str) -> Result<()> {
        self.run("pgbench", &["-i", "-q", "-s", scale, "bench"])?;
        self.sql(&TABLE.replace("ROWS", rows))?;
        self.sql("checkpoint")
    }

    /// Runs statements in the database of the benchmark.
    pub(super) fn sql(&self, text: &str) -> Result<()> {
        self.run("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-d", "bench", "-c", text])
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The first value that a statement returns.
    pub(super) fn ask(&self, text: &str) -> Result<String> {
        let mut psql = self.program("psql");
        sh::output(psql.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-d", "bench", "-c", text]))
    }

    /// One of its programs, as its user.
    pub(super) fn program(&self, name: &str) -> Command {
        self.command(&self.programs.join(name))
    }

    /// Runs one of its programs.
    pub(super) fn run(&self, program: &str, words: &[&str]) -> Result<()> {
        sh::run(self.program(program).args(words))
    }

    /// A program, as the server's user.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = if self.as_user {
            let mut command = Command::new("runuser");
            command.args(["-u", USER, "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .current_dir(&self.folder)
            .env("PGHOST", &self.folder)
            .env("PGUSER", USER);
        command
    }

    /// Stops it and names the folder with its relations.
    pub(super) fn stop(&self) -> Result<PathBuf> {
        let data = self.data();
        self.run(
            "pg_ctl",
            &[
                "-D",
                data.to_str().context("a folder name that is not text")?,
                "-w",
                "-m",
                "fast",
                "stop",
            ],
        )?;
        Ok(data.join("base"))
    }

    /// Removes it, stopped.
    pub(super) fn remove(self) -> Result<()> {
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After an error the server may still run; nothing of it is worth keeping.
        if self.folder.join("data/postmaster.pid").exists() && self.stop().is_err() {
            println!("a PostgreSQL server may still run in {}", self.folder.display());
        }
    }
}
