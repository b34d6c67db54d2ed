//! PostgreSQL servers of the majors that are installed here, each in a folder, with a socket and a loopback port of its own.
//!
//! A server ends with its [`Cluster`], and with the test binary however that ends: a shell beside it reads the pipe that only the binary holds
//! open, kills the server by the number in its own `postmaster.pid`, and removes the folder. The data directory is a copy of one that was made
//! once, so clusters of a major share their system identifier unless [`Options::fresh`] says otherwise. PostgreSQL refuses to run as root: as
//! root everything runs as the user [`USER`], which `cargo xtask test` makes together with what it installs.
//!
//! What servers are there, how they are prepared and started stands in the modules below; here is what a test does with them.

mod install;
mod run;
mod tls;

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Output};

pub use install::{USER, bindir, majors, run_as_test_user};
pub use run::failed;
pub use tls::Certificates;

/// How a cluster is made and configured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    segment_mib: Option<u32>,
    fresh: Vec<String>,
    is_fresh: bool,
    tls: bool,
}

impl Options {
    /// A loopback port, trust for everybody, page checksums, no autovacuum, no fsync.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A line for `postgresql.conf`; the last of a name counts.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lines of `pg_hba.conf` for everybody but `postgres` on the socket, instead of trust.
    #[must_use]
    pub fn hba(mut self, lines: &[&str]) -> Self {
        self.hba.extend(lines.iter().map(|line| (*line).to_owned()));
        self
    }

    /// Log in segments of so many MiB.
    #[must_use]
    pub fn segments(mut self, mib: u32) -> Self {
        self.segment_mib = Some(mib);
        self
    }

    /// A cluster with a system identifier of its own; words for `initdb` such as `--no-data-checksums`.
    #[must_use]
    pub fn fresh(mut self, words: &[&str]) -> Self {
        self.is_fresh = true;
        self.fresh.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// TLS on the port, with the certificate of [`Certificates`]. Only the server of Debian was built with it.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// With a shutdown checkpoint; sessions are ended.
    Fast,
    /// Without one: the next start is a crash recovery.
    Immediate,
}

/// One data directory, and the server on it while it runs.
#[derive(Debug)]
pub struct Cluster {
    major: u32,
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
    keeper: Child,
    /// Closes when the process ends.
    keeper_stdin: Option<ChildStdin>,
}

impl Cluster {
    /// A new, running cluster of this major.
    ///
    /// # Panics
    /// Here and below: where a server or a program is missing, or does not do what the test needs; the message says what and shows the log.
    #[must_use]
    pub fn start(major: u32, options: &Options) -> Self {
        let mut cluster = Self::empty(major);
        install::fill(&cluster, options);
        cluster.configure(options);
        cluster.begin();
        cluster
    }

    /// A running standby of this one, streaming from it.
    #[must_use]
    pub fn standby(&self, options: &Options) -> Self {
        let mut cluster = Self::empty(self.major);
        let data = cluster.data_dir().display().to_string();
        self.run("pg_basebackup", &["-D", &data, "-X", "stream", "-R", "-c", "fast"]);
        cluster.configure(options);
        cluster.begin();
        cluster
    }

    /// A cluster on the data directory that `fill` makes in the folder it is given, not yet started.
    #[must_use]
    pub fn around(major: u32, options: &Options, fill: impl FnOnce(&Path)) -> Self {
        let cluster = Self::empty(major);
        fill(&cluster.data_dir());
        cluster.configure(options);
        cluster
    }

    /// Its major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Where its programs are.
    #[must_use]
    pub fn bindir(&self) -> PathBuf {
        bindir(self.major)
    }

    /// The folder that holds everything of it: `data`, `socket`, `log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of its socket.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Its port, on 127.0.0.1 and in the name of the socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A keyword DSN over the socket.
    #[must_use]
    pub fn dsn(&self, user: &str, database: &str) -> String {
        format!(
            "host={} port={} user={user} dbname={database}",
            self.socket_dir().display(),
            self.port
        )
    }

    /// A URL over the loopback port; `user` may hold a password after a colon.
    #[must_use]
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.folder.join("log"))
            .map_or_else(|error| error.to_string(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// Runs SQL through psql in the database `postgres` as the superuser; columns are parted by `|`, rows by line ends.
    pub fn query(&self, sql: &str) -> String {
        self.query_in("postgres", sql)
    }

    /// The same in another database.
    pub fn query_in(&self, database: &str, sql: &str) -> String {
        let output = self.run("psql", &["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Makes the tables of pgbench in the database `postgres`.
    pub fn pgbench_init(&self, scale: u32) {
        self.run("pgbench", &["-i", "-q", "-s", &scale.to_string(), "postgres"]);
    }

    /// Runs pgbench to its end, for example with `["-t", "100", "-c", "2"]`.
    pub fn pgbench(&self, words: &[&str]) -> Output {
        let words: Vec<&str> = words.iter().copied().chain(["postgres"]).collect();
        self.run("pgbench", &words)
    }

    /// Starts a program of this major against this server and leaves it running; standard output and error are pipes.
    #[must_use]
    pub fn spawn(&self, program: &str, words: &[&str]) -> Child {
        let mut command = self.command(program, words);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command
            .spawn()
            .unwrap_or_else(|error| failed(&format!("cannot start {program}: {error}")))
    }

    /// Runs a program of this major against this server, by the environment that libpq reads.
    pub fn run(&self, program: &str, words: &[&str]) -> Output {
        let output = self.try_run(program, words);
        if !output.status.success() {
            failed(&format!(
                "{program} {words:?} ended with {}\n{}{}\nlog of the server:\n{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
                self.log()
            ));
        }
        output
    }

    /// The same, whatever it ends with.
    #[must_use]
    pub fn try_run(&self, program: &str, words: &[&str]) -> Output {
        let output = self.command(program, words).output();
        output.unwrap_or_else(|error| failed(&format!("cannot run {program}: {error}")))
    }

    /// The identifier of the cluster, as `IDENTIFY_SYSTEM` says it.
    #[must_use]
    pub fn system_identifier(&self) -> u64 {
        let text = self.query("select system_identifier from pg_control_system()");
        text.parse()
            .unwrap_or_else(|error| failed(&format!("system identifier {text}: {error}")))
    }

    /// Makes a folder beside the data directory that the server may write into, for example for a tablespace.
    #[must_use]
    pub fn make_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        install::make_folder(&folder);
        folder
    }
}
