//! Configuring, starting, stopping and killing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Certificates, Cluster, Options, Stop, install, run_as_test_user};

/// How long a server may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until standard input closes, then kills the server in this folder and removes the folder.
const KEEPER: &str = r#"
cd / && echo started
read -r _
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -QUIT "$pid" 2>/dev/null
    n=0
    while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$0"
"#;

/// Ends the test: nothing can be said without the server.
#[expect(clippy::panic, reason = "without the server the tests cannot say anything")]
pub fn failed(why: &str) -> ! {
    panic!("{why}")
}

/// Calls it until it returns something or patience is at an end.
#[expect(clippy::disallowed_methods, reason = "a deadline for a real program")]
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        if began.elapsed() > PATIENCE {
            failed(&format!("waited {PATIENCE:?} for {what}"));
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A new folder in the place for temporary files, with a short name: the name of a socket has at most 107 bytes.
pub(super) fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0_u8; 4];
    if let Err(error) = getrandom::fill(&mut random) {
        failed(&format!("no random bytes: {error}"));
    }
    let name = format!("lbpg-{}-{number}-{:08x}", std::process::id(), u32::from_le_bytes(random));
    let folder = std::env::temp_dir().join(name);
    install::make_folder(&folder);
    folder
}

fn free_port() -> u16 {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()) {
        Ok(address) => address.port(),
        Err(error) => failed(&format!("there is no free port: {error}")),
    }
}

impl Cluster {
    pub(super) fn empty(major: u32) -> Self {
        let folder = new_folder();
        install::make_folder(&folder.join("socket"));
        #[expect(clippy::disallowed_methods, reason = "outlives the binary, to clean up behind it")]
        let mut command = Command::new("/bin/sh");
        run_as_test_user(command.args(["-c", KEEPER]).arg(&folder));
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut keeper = started.unwrap_or_else(|error| failed(&format!("cannot start a shell: {error}")));
        let keeper_stdin = keeper.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            let read = BufReader::new(stdout).read_line(&mut line);
            if read.is_err() || line.trim() != "started" {
                failed(&format!("the keeper did not start: {read:?} {line}"));
            }
        }
        Self {
            major,
            folder,
            port: free_port(),
            server: None,
            keeper,
            keeper_stdin,
        }
    }

    /// Writes what is needed to run here behind what the data directory brought.
    pub(super) fn configure(&self, options: &Options) {
        let mut text = String::from(
            "\n# for a test\nlisten_addresses = '127.0.0.1'\nfsync = off\nautovacuum = off\nshared_buffers = '16MB'\n\
             max_connections = 40\nmax_wal_senders = 10\nmax_replication_slots = 10\nlog_line_prefix = '%m [%p] '\nlog_timezone = 'UTC'\n\
             timezone = 'UTC'\nlogging_collector = off\n",
        );
        let mut set = |name: &str, value: &str| {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        };
        set("unix_socket_directories", &self.socket_dir().display().to_string());
        if options.tls {
            let certificates = Certificates::shared();
            let folder = self.make_folder("tls");
            for (name, from) in [("server.crt", &certificates.server), ("server.key", &certificates.server_key)] {
                self.write(&folder.join(name), &read(from));
            }
            self.write(&folder.join("root.crt"), &read(&certificates.root));
            set("ssl", "on");
            set("ssl_cert_file", &folder.join("server.crt").display().to_string());
            set("ssl_key_file", &folder.join("server.key").display().to_string());
            set("ssl_ca_file", &folder.join("root.crt").display().to_string());
        } else {
            set("ssl", "off");
        }
        for (name, value) in &options.settings {
            set(name, value);
        }
        let place = self.data_dir().join("postgresql.conf");
        let mut all = read(&place);
        all.extend_from_slice(text.as_bytes());
        self.write(&place, &all);
        let mut hba = String::from("local all postgres trust\nlocal replication postgres trust\n");
        if options.hba.is_empty() {
            for place in [
                "local all all",
                "local replication all",
                "host all all all",
                "host replication all all",
            ] {
                hba.push_str(&format!("{place} trust\n"));
            }
        }
        for line in &options.hba {
            hba.push_str(&format!("{line}\n"));
        }
        self.write(&self.data_dir().join("pg_hba.conf"), hba.as_bytes());
    }

    /// Writes a file that belongs to the user of the servers, in its folder.
    pub fn write(&self, place: &Path, bytes: &[u8]) {
        #[expect(clippy::disallowed_methods, reason = "a test runs another program")]
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "umask 077; cat > \"$0\""])
            .arg(place)
            .stdin(Stdio::piped());
        run_as_test_user(&mut command);
        let written = command.spawn().and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(bytes)?;
            }
            child.wait()
        });
        if !written.as_ref().is_ok_and(ExitStatus::success) {
            failed(&format!("cannot write {}: {written:?}", place.display()));
        }
    }

    /// A program of this major that finds this server by its environment.
    #[must_use]
    pub fn command(&self, program: &str, words: &[&str]) -> Command {
        #[expect(clippy::disallowed_methods, reason = "a test runs another program")]
        let mut command = Command::new(self.bindir().join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(name);
            }
        }
        command.args(words).current_dir(&self.folder).stdin(Stdio::null());
        command.env("PGHOST", self.socket_dir()).env("PGPORT", self.port.to_string());
        command
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("LC_ALL", "C");
        run_as_test_user(&mut command);
        command
    }

    /// Starts the server and waits until it takes connections (a standby: as soon as it is consistent).
    pub fn begin(&mut self) {
        for _ in 0..5 {
            match self.try_begin() {
                Ok(()) => return,
                // Somebody else took the port in between, or killed processes of the last server are not yet gone.
                Err(log) if log.contains("Address already in use") => self.port = free_port(),
                Err(log) if log.contains("shared memory block") || log.contains("lock file") => {
                    std::thread::park_timeout(Duration::from_millis(200));
                }
                Err(log) => failed(&format!("PostgreSQL {} does not start:\n{log}", self.major)),
            }
        }
        failed(&format!(
            "PostgreSQL {} does not start, tried five times:\n{}",
            self.major,
            self.log()
        ));
    }

    /// Starts the server; where it ends instead of taking connections, what it logged meanwhile.
    pub fn try_begin(&mut self) -> Result<(), String> {
        if self.server.is_some() {
            failed("the server runs already");
        }
        let before = self.log_len();
        let data = self.data_dir();
        let mut command = self.command("postgres", &["-p", &self.port.to_string(), "-D"]);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .and_then(|log| Ok((log.try_clone()?, log)));
        let (out, log) = log.unwrap_or_else(|error| failed(&format!("no log: {error}")));
        let child = command.arg(&data).stdout(out).stderr(log).spawn();
        let mut child = child.unwrap_or_else(|error| failed(&format!("cannot start postgres: {error}")));
        let own = child.id().to_string();
        let ended = wait_for("the server to take connections", || {
            if child.try_wait().ok().flatten().is_some() {
                return Some(true);
            }
            // Its first line is the process, the eighth how far it is (pg_ctl reads the same).
            let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let ready = lines.first() == Some(&own.as_str()) && matches!(lines.get(7), Some(&("ready" | "standby")));
            ready.then_some(false)
        });
        if ended {
            let log = self.log();
            return Err(log.get(before..).unwrap_or(&log).to_owned());
        }
        self.server = Some(child);
        Ok(())
    }

    fn log_len(&self) -> usize {
        self.log().len()
    }

    /// Whether the server process is there.
    pub fn is_running(&mut self) -> bool {
        self.server
            .as_mut()
            .is_some_and(|server| server.try_wait().is_ok_and(|ended| ended.is_none()))
    }

    /// Stops it and waits until it is gone.
    pub fn stop(&mut self, how: Stop) {
        if self.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        }) {
            self.wait_for_end();
        }
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self, how: Stop) {
        self.stop(how);
        self.begin();
    }

    /// Kills the server with all of its processes, none of which may say goodbye, as a power failure would (but nothing that was written is
    /// lost).
    pub fn kill_9(&mut self) {
        let Some(pid) = self.server.as_ref().map(Child::id) else {
            return;
        };
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        if self.signal(Signal::KILL) {
            for child in children.split_whitespace().filter_map(|text| text.parse::<i32>().ok()) {
                if let Some(child) = Pid::from_raw(child) {
                    kill_if_there(child, Signal::KILL);
                }
            }
            self.wait_for_end();
        }
    }

    /// Has the configuration read again.
    pub fn reload(&mut self) {
        self.query("select pg_reload_conf()");
    }

    /// Makes a standby a primary on a new timeline, and waits until it is one.
    pub fn promote(&self) {
        if self.query("select pg_promote(true, 60)") != "t" {
            failed(&format!("was not promoted:\n{}", self.log()));
        }
    }

    /// Waits until the SQL returns `t`.
    pub fn wait_until(&self, sql: &str) {
        wait_for(sql, || (self.query(sql) == "t").then_some(()));
    }

    /// Waits until this standby has replayed what the other has written until now.
    pub fn wait_for_replay(&self, primary: &Self) {
        let lsn = primary.query("select pg_current_wal_flush_lsn()");
        self.wait_until(&format!(
            "select coalesce(pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn, false)"
        ));
    }

    /// The process number of the server.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    fn signal(&mut self, signal: Signal) -> bool {
        let pid = self.server.as_ref().map(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return false;
        };
        if let Err(error) = kill_process(pid, signal) {
            failed(&format!("cannot signal the server: {error}"));
        }
        true
    }

    fn wait_for_end(&mut self) {
        if let Some(mut server) = self.server.take() {
            wait_for("the server to end", || server.try_wait().ok().flatten());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper_stdin.take();
        // As a child of ours it stays a zombie, which the keeper takes for alive, until somebody asks for how it ended.
        if let Some(mut server) = self.server.take()
            && let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw)
        {
            kill_if_there(pid, Signal::QUIT);
            drop(server.wait());
        }
        drop(self.keeper.wait());
    }
}

/// Gone already is fine.
fn kill_if_there(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        failed(&format!("cannot kill a process of the server: {error}"));
    }
}

fn read(place: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let result = std::fs::File::open(place).and_then(|mut file| file.read_to_end(&mut bytes));
    match result {
        Ok(_) => bytes,
        Err(error) => failed(&format!("cannot read {}: {error}", place.display())),
    }
}
