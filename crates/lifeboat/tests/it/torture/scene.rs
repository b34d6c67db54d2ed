//! A cluster behind a bad network, its configuration, whoever follows it, and what is restored of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use lifeboat_model::{Entropy, Lsn};
use lifeboat_repo::{format_utc, parse_utc};
use lifeboat_testkit::env::SeededEntropy;
use lifeboat_testkit::postgres::{Cluster, Options};
use lifeboat_testkit::proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};

use super::ledger::{Entry, Goal, Ledger, Load, Row};
use crate::world::World;

const LONG: Duration = Duration::from_secs(60);
/// How backups are read, one after another; on 18 the third is an increment.
const MODES: [&str; 3] = ["local", "stream", "stream"];

pub fn is_soak() -> bool {
    std::env::var_os("LIFEBOAT_SOAK").is_some_and(|value| value == "1")
}

fn seed() -> u64 {
    std::env::var("LIFEBOAT_TEST_SEED").map_or(1, |text| text.parse().unwrap())
}

pub struct Scene {
    pub major: u32,
    pub cluster: Cluster,
    pub proxy: Proxy,
    pub world: World,
    /// Whether the server keeps log that was acknowledged: then even a spool that is gone loses nothing.
    pub keeps_log: bool,
    random: SeededEntropy,
    seed: u64,
    backups: usize,
    beside: Option<Child>,
    bench: Option<Child>,
}

/// What can be reached without a gap.
#[derive(Debug)]
pub struct Window {
    pub from: Lsn,
    pub to: Lsn,
    pub from_us: i64,
    pub to_us: i64,
}

impl Scene {
    pub fn new(major: u32) -> Self {
        Self::keeping(major, (u64::from(major / 2) + seed()).is_multiple_of(2))
    }

    pub fn keeping(major: u32, keeps_log: bool) -> Self {
        let seed = seed();
        let mut options = Options::new()
            .segments(1)
            .set("track_commit_timestamp", "on")
            .set("min_wal_size", "2MB")
            .set("max_wal_size", "32MB")
            .set("wal_keep_size", if keeps_log { "2GB" } else { "0" })
            .set("wal_sender_timeout", "3s");
        if major >= 17 {
            options = options.set("summarize_wal", "on");
        }
        let cluster = Cluster::start(major, &options);
        cluster.pgbench_init(1);
        let proxy = Proxy::start(cluster.port());
        let world = World::with_database();
        world
            .run(&["init", "--path", "shop.db", "--system", "shop", "--yes", "--no-backup"])
            .ends(0);
        let component = format!(
            "    components:\n      pg:\n        postgres:\n          url: postgresql://postgres@127.0.0.1:{}/postgres\n          \
             binaries: [{}]\n          mode: {}\n        backup: {{ to: [disk], encrypt: main }}\n",
            proxy.port(),
            cluster.bindir().display(),
            MODES[0],
        );
        world.edit_config("    components:\n", &component);
        Self {
            major,
            cluster,
            proxy,
            world,
            keeps_log,
            random: SeededEntropy::new(seed ^ (u64::from(major) << 32)),
            seed,
            backups: 0,
            beside: None,
            bench: None,
        }
    }

    pub fn seed(&self) -> String {
        format!("LIFEBOAT_TEST_SEED={}", self.seed)
    }

    fn draw(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub fn below(&self, limit: usize) -> usize {
        usize::try_from(self.draw() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// For a random time.
    pub fn pause(&self, longest_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.draw() % longest_ms.max(1)));
    }

    /// Starts the server again, wherever it listens now.
    pub fn begin_server(&mut self) {
        self.cluster.begin();
        self.proxy.set_target(self.cluster.port());
    }

    /// Clients, and pgbench.
    pub fn begin_load(&mut self, clients: u32) -> Load {
        let load = Load::begin(&self.cluster, clients);
        self.keep_benching();
        load
    }

    /// A server that was killed has ended it.
    fn keep_benching(&mut self) {
        let ended = self.bench.as_mut().is_none_or(|bench| bench.try_wait().unwrap().is_some());
        if ended {
            let words = ["-n", "-c", "1", "-T", "600", "-R", "100", "postgres"];
            let mut command = self.cluster.command("pgbench", &words);
            self.bench = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
    }

    pub fn follow(&mut self) -> Follower {
        self.keep_benching();
        let mut command = self.world.command();
        command
            .args(["follow", "shop/pg"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = sync_channel(10_000);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                tell!("follow: {line}");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Follower { child, lines }
    }

    /// Brings everything to the store that the server has now. On a busy machine the server may give the connection up, after three seconds here.
    pub fn follow_once(&self) {
        for _ in 0..5 {
            let ran = self.world.run(&["follow", "--once", "shop/pg"]);
            if !ran.stderr.contains("the server closed the connection") {
                ran.ends(0);
                return;
            }
        }
        panic!("the server closes every connection");
    }

    /// The next backup is read in the next way.
    fn next_mode(&mut self) {
        let (was, now) = (MODES[self.backups % MODES.len()], MODES[(self.backups + 1) % MODES.len()]);
        self.world.edit_config(&format!("mode: {was}"), &format!("mode: {now}"));
        self.backups += 1;
    }

    pub fn back_up(&mut self) {
        self.settle();
        self.world.run(&["backup", "shop/pg"]).ends(0);
        self.next_mode();
    }

    /// Begins a backup, which may fail with what is done to the server.
    pub fn back_up_beside(&mut self) {
        self.settle();
        let mut command = self.world.command();
        command
            .args(["backup", "shop/pg"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        self.beside = Some(command.spawn().unwrap());
    }

    /// Waits for it, or kills it.
    pub fn settle(&mut self) {
        if let Some(mut beside) = self.beside.take() {
            if self.below(3) == 0 {
                beside.kill().unwrap();
            }
            let ended = beside.wait().unwrap();
            tell!("the backup beside ended with {ended}");
            self.next_mode();
        }
    }

    fn spool(&self) -> PathBuf {
        self.world.state_dir().join("spool")
    }

    /// Cuts the newest file of the spool, or takes all of it.
    pub fn damage_spool(&mut self) {
        self.settle();
        let spool = self.spool();
        if self.below(2) == 0 || !spool.is_dir() {
            if spool.is_dir() {
                std::fs::remove_dir_all(&spool).unwrap();
            }
            tell!("the spool is gone");
            return;
        }
        let mut files = Vec::new();
        let mut folders = vec![spool];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files.sort();
        let Some(newest) = files.last() else { return };
        let length = newest.metadata().unwrap().len();
        let cut = self.draw() % (length + 1);
        let file = std::fs::File::options().write(true).open(newest).unwrap();
        file.set_len(cut).unwrap();
        tell!("{} is cut from {length} to {cut}", newest.display());
    }

    /// Until a moment behind everything that was answered can be asked for by its time.
    pub fn wait_for_a_later_mark(&self, follower: &mut Follower) {
        let now = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let wanted: i64 = self.cluster.query(now).parse().unwrap();
        for _ in 0..200 {
            self.cluster.query("select pg_logical_emit_message(true, 'test', 'alive')");
            follower.still_runs();
            if self.windows().last().is_some_and(|window| window.to_us >= wanted) {
                return;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        panic!("{wanted} is never reached: {:?}", self.windows());
    }

    /// Everything ends: what is committed is known.
    pub fn judge(&mut self, entries: Vec<Entry>) -> Ledger {
        if let Some(mut bench) = self.bench.take() {
            // It may have ended with the server.
            drop(bench.kill());
            bench.wait().unwrap();
        }
        Ledger::new(entries, &self.cluster)
    }

    fn windows(&self) -> Vec<Window> {
        let points = self.world.run(&["points", "shop/pg", "--json"]).ends(0).json("points");
        let windows = points["components"][0]["windows"].as_array().unwrap().clone();
        windows
            .iter()
            .map(|window| {
                let text = |name: &str| window[name].as_str().unwrap_or_else(|| panic!("{window:#}"));
                Window {
                    from: text("from_lsn").parse().unwrap(),
                    to: text("to_lsn").parse().unwrap(),
                    from_us: parse_utc(text("from")).unwrap(),
                    // Nobody has said anything about times yet.
                    to_us: window["to"].as_str().map_or(i64::MIN, |to| parse_utc(to).unwrap()),
                }
            })
            .collect()
    }

    /// Everything since the first backup can be reached.
    pub fn only_window(&self) -> Window {
        let mut windows = self.windows();
        assert_eq!(windows.len(), 1, "there is a hole ({}): {windows:?}", self.seed());
        windows.remove(0)
    }

    pub fn between(&self, from: i64, to: i64) -> i64 {
        assert!(from < to, "{from} to {to}");
        from + i64::try_from(self.draw() % u64::try_from(to - from).unwrap()).unwrap()
    }

    pub fn between_lsn(&self, from: Lsn, to: Lsn) -> Lsn {
        Lsn(from.0 + self.draw() % to.since(from))
    }

    pub fn time_of_a_commit(&self, ledger: &Ledger, window: &Window) -> Goal {
        let all = ledger.committed.values().copied();
        let inside: Vec<i64> = all.filter(|at| (window.from_us + 2..=window.to_us).contains(at)).collect();
        let at = inside[self.below(inside.len())];
        Goal::Time(at - i64::try_from(self.draw() % 2).unwrap())
    }

    /// Behind a commit, or anywhere.
    pub fn position(&self, ledger: &Ledger, window: &Window) -> Lsn {
        let all = ledger.positions();
        let inside: Vec<Lsn> = all
            .into_iter()
            .filter(|lsn| (window.from..=window.to).contains(lsn))
            .collect();
        match self.below(2) {
            0 => inside[self.below(inside.len())],
            _ => self.between_lsn(window.from, window.to),
        }
    }

    /// Restores through the binary, and starts what came of it.
    pub fn restore(&self, goal: Goal) -> Restored {
        let options = Options::new().set("track_commit_timestamp", "on");
        let mut cluster = Cluster::around(self.major, &options, |data| {
            let to = data.display().to_string();
            let mut words = vec!["restore", "shop/pg", "--to", &to];
            let moment = match goal {
                Goal::Latest => String::new(),
                Goal::Lsn(lsn) => lsn.to_string(),
                Goal::Time(at_us) => format_utc(at_us),
            };
            match goal {
                Goal::Latest => {}
                Goal::Lsn(_) => words.extend(["--lsn", &moment]),
                Goal::Time(_) => words.extend(["--at", &moment]),
            }
            let restored = self.world.run(&words);
            assert_eq!(restored.code, 0, "{goal:?} {}: {}", self.seed(), restored.stderr);
        });
        cluster.begin();
        Restored(cluster)
    }
}

/// A cluster that came back.
pub struct Restored(Cluster);

impl Restored {
    pub fn rows(&self) -> BTreeSet<Row> {
        // It may be from before the table.
        if self.0.query("select to_regclass('ledger') is null") == "t" {
            return BTreeSet::new();
        }
        let lines = self.0.query("select client, number from ledger");
        let row = |line: &str| {
            let (client, number) = line.split_once('|').unwrap();
            (client.parse().unwrap(), number.parse().unwrap())
        };
        lines.lines().map(row).collect()
    }

    /// Indexes and tables, and the books of pgbench.
    pub fn agrees_with_itself(&self) {
        let sums = "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history) \
                    and (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)";
        assert_eq!(self.0.query(sums), "t");
        if self.0.query("select to_regclass('ledger') is null") == "f" {
            let by_index = "set enable_seqscan = off; select count(*) from ledger where client >= 0 and number >= 0";
            assert_eq!(
                self.0.query(by_index),
                self.0.query("select count(payload is null) from ledger")
            );
        }
    }
}

/// How a follower ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this code, after it was told to.
    Told(i32),
}

/// A follower that runs.
pub struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    /// Waits until it says this.
    pub fn says(&mut self, words: &str) {
        loop {
            match self.lines.recv_timeout(LONG) {
                Ok(line) if line.contains(words) => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("it did not say {words:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without saying {words:?}"),
            }
        }
    }

    pub fn still_runs(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None);
    }

    pub fn kill(mut self) {
        self.still_runs();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to end.
    pub fn end(mut self) -> Ending {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        Ending::Told(self.child.wait().unwrap().code().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for mut child in self.beside.take().into_iter().chain(self.bench.take()) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
