//! The log of the cluster: how fast it is brought away, how soon a commit can be restored from a distant store, how fast it is replayed, and
//! what a synchronous follower costs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::alternate::{Side, alternate, median};
use super::super::s3::{BUCKET, Server as S3};
use super::super::{Figures, data, ratio};
use super::{Home, Room, float};
use crate::sh;

/// Milliseconds that the store takes for each request.
const DELAY_MS: u32 = 50;
/// Processes that look for what can be restored, one after the other each.
const LOOKERS: usize = 3;
/// Whoever takes the log has stored what it missed when it has been there for so long.
const CATCH_UP: Duration = Duration::from_secs(5);
/// A thing that does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(600);

/// All figures of the log.
pub(super) fn run(room: &Room<'_>) -> Result<Figures> {
    let drained = drain(room)?;
    let replay = replay(room)?;
    let sync = synchronous(room)?;
    let offsite = offsite(room)?;
    Ok([drained, replay, sync, offsite].concat())
}

/// Some of them: `drain`, `sync`, `offsite`.
pub(super) fn part(room: &Room<'_>, part: &str) -> Result<Figures> {
    match part {
        "drain" => drain(room),
        "sync" | "offsite" => {
            // Begins to follow.
            room.home.empty()?;
            room.home.lifeboat(&["follow", "bench/db", "--once"]).output()?;
            sh::output(&mut room.home.lifeboat(&["backup"]))?;
            if part == "sync" { synchronous(room) } else { offsite(room) }
        }
        _ => bail!("there are the parts drain, sync and offsite"),
    }
}

/// Several gigabytes that the slot held back, brought into spool and store.
fn drain(room: &Room<'_>) -> Result<Figures> {
    let archive = room.server.folder.join("archive");
    sh::run(room.server.command(Path::new("mkdir")).arg(&archive))?;
    // The log that is replayed later, as a plain directory.
    let command = format!("alter system set archive_command = 'cp %p {}/%f'", archive.display());
    room.server.sql(&command)?;
    room.server.sql("select pg_reload_conf()")?;
    room.server.sql("select pg_switch_wal()")?;
    // Makes the slot. What was written since the last backup may be gone, which is told as a gap (exit 3); the next backup ends it.
    room.home.lifeboat(&["follow", "bench/db", "--once"]).output()?;
    sh::output(&mut room.home.lifeboat(&["backup"]))?;
    sh::output(&mut room.home.lifeboat(&["follow", "bench/db", "--once"]))?;
    let (begin, wanted) = (position(room)?, if room.options.quick { 100 << 20 } else { 4_u64 << 30 });
    while position(room)? - begin < wanted {
        room.server
            .sql("update pgbench_accounts set abalance = abalance + 1 where aid % 7 = (random() * 6)::int")?;
    }
    let bytes = position(room)? - begin;
    data::sync(&room.server.folder)?;
    let run = room.timed(&mut room.home.lifeboat(&["follow", "bench/db", "--once"]))?;
    room.saw(&run);
    let rate = float(bytes) / 1e6 / run.seconds;
    println!("  drained {} MiB of log in {:.1} s: {rate:.0} MB/s", bytes >> 20, run.seconds);
    Ok(vec![("wal_mb_per_s", Some(rate))])
}

/// The same stretch of log, replayed by the same server, out of the store and out of a local directory.
fn replay(room: &Room<'_>) -> Result<Figures> {
    let until = room.server.ask("select pg_current_wal_flush_lsn()")?;
    let until = until.trim();
    // Both sides hold everything up to there: the plain directory gets whole files only.
    room.server.sql("select pg_switch_wal()")?;
    let archived = format!("select last_archived_wal >= pg_walfile_name('{until}') from pg_stat_archiver");
    room.wait_for(&archived, "t")?;
    sh::output(&mut room.home.lifeboat(&["follow", "bench/db", "--once"]))?;
    let archive = room.server.folder.join("archive");
    let to = room.server.folder.join("replayed");
    // The server's user fetches, so he reads configuration, key and store.
    room.give(&room.home.folder)?;
    let once = |command: Option<String>| -> Result<f64> {
        let mut restore = room
            .home
            .lifeboat(&["restore", "bench/db", "--no-replay", "--lsn", until, "--to"]);
        sh::output(restore.arg(&to))?;
        if let Some(command) = command {
            let file = to.join("postgresql.auto.conf");
            let text = std::fs::read_to_string(&file)?;
            std::fs::write(&file, format!("{text}\nrestore_command = '{command}'\n"))?;
        }
        data::sync(&room.server.folder)?;
        let seconds = room.replayed(&to)?;
        std::fs::remove_dir_all(&to)?;
        Ok(seconds)
    };
    let rounds = if room.options.quick { 1 } else { 2 };
    let times = alternate(
        "replay",
        rounds,
        vec![
            Side::new("lifeboat", |_| once(None)),
            Side::new("cp", |_| once(Some(format!("cp {}/%f %p", archive.display())))),
        ],
    )?;
    room.take_back(&room.home.folder)?;
    std::fs::remove_dir_all(&archive)?;
    let [ours, theirs] = times.as_slice() else {
        bail!("two sides make two medians");
    };
    Ok(vec![("replay_vs_local_cp", ratio(*theirs, *ours))])
}

/// What pgbench does when every commit waits for the follower, or for `pg_receivewal`.
fn synchronous(room: &Room<'_>) -> Result<Figures> {
    room.server.sql("alter system set synchronous_standby_names = '*'")?;
    // Nothing else works on the log meanwhile.
    room.server.sql("alter system set archive_command = '/bin/true'")?;
    let slots = room.server.folder.join("received");
    sh::run(room.server.command(Path::new("mkdir")).arg(&slots))?;
    let receive = |words: &[&str]| {
        let mut command = room.server.program("pg_receivewal");
        command.arg("-D").arg(&slots).args(["-S", "bench_receive"]).args(words);
        command
    };
    sh::run(&mut receive(&["--create-slot"]))?;
    let latencies = RefCell::new(BTreeMap::<&str, Vec<f64>>::new());
    let measure = |name: &'static str, command: &mut Command| -> Result<f64> {
        let mut child = Running::start(command)?;
        room.server.sql("select pg_reload_conf()")?;
        room.wait_for("select count(*) from pg_stat_replication where sync_state = 'sync'", "1")?;
        // What the other side's round has left for it is through by then.
        std::thread::sleep(CATCH_UP);
        // Both begin behind a checkpoint, when every page that is touched is logged whole, and with a quiet disk.
        room.server.sql("set synchronous_commit = local; checkpoint")?;
        data::sync(&room.server.folder)?;
        let seconds = if room.options.quick { "2" } else { "15" };
        // With `-l` each transaction and its microseconds stand in a file.
        let logs = room.server.folder.join("pgbench");
        sh::run(room.server.command(Path::new("mkdir")).arg(&logs))?;
        let mut bench = room.server.program("pgbench");
        bench
            .current_dir(&logs)
            .args(["-n", "-c", "8", "-j", "2", "-T", seconds, "-l", "bench"]);
        let said = sh::output(&mut bench)?;
        child.end()?;
        let mut waits = Vec::new();
        for file in data::files(&logs)? {
            let text = std::fs::read_to_string(file)?;
            waits.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
        }
        std::fs::remove_dir_all(&logs)?;
        let p99 = percentile(&mut waits, 99).context("pgbench did nothing")? / 1000.0;
        latencies.borrow_mut().entry(name).or_default().push(p99);
        let rate = said
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok())
            .context("pgbench named no rate")?;
        println!("    {name}: {rate:.0} transactions a second, 99 % within {p99:.1} ms");
        // Milliseconds for each.
        Ok(1000.0 / rate)
    };
    let rounds = room.options.rounds;
    let times = alternate(
        "synchronous",
        rounds,
        vec![
            Side::new("lifeboat", |_| {
                measure("lifeboat", &mut room.home.lifeboat(&["follow", "bench/db"]))
            }),
            Side::new("receivewal", |_| {
                measure("receivewal", &mut receive(&["--synchronous", "--no-loop"]))
            }),
        ],
    )?;
    room.server.sql("alter system reset synchronous_standby_names")?;
    room.server.sql("select pg_reload_conf()")?;
    room.server.sql("select pg_drop_replication_slot('bench_receive')")?;
    let [ours, theirs] = times.as_slice() else {
        bail!("two sides make two medians");
    };
    let p99 = latencies.borrow_mut().remove("lifeboat").and_then(median);
    Ok(vec![
        ("sync_vs_pg_receivewal", ratio(*theirs, *ours)),
        ("sync_commit_p99_ms", p99),
    ])
}

/// From the moment before a commit until another process finds it in what can be restored from a store far away. The database is idle for a
/// while, then busy, and so on.
fn offsite(room: &Room<'_>) -> Result<Figures> {
    let server = S3::start(room.options, DELAY_MS)?;
    let store = format!(
        "s3: {{ bucket: {BUCKET}, prefix: lifeboat, region: us-east-1, endpoint: {:?}, access_key: {{ env: AWS_ACCESS_KEY_ID }}, \
         secret_key: {{ env: AWS_SECRET_ACCESS_KEY }} }}",
        server.endpoint
    );
    let home = Home::new(room, "far", &store)?;
    let lifeboat = |words: &[&str]| home.lifeboat(words);
    sh::output(&mut lifeboat(&["store", "setup", "far"]))?;
    sh::output(&mut lifeboat(&["backup"]))?;
    room.server.sql("create table canary (at timestamptz)")?;
    let mut follower = Running::start(&mut lifeboat(&["follow", "bench/db"]))?;
    room.wait_for("select count(*) from pg_stat_replication", "1")?;
    let (over, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let began = Instant::now();
    let commits = std::thread::scope(|scope| -> Result<Vec<(Duration, u64)>> {
        let mut lookers = Vec::new();
        for _ in 0..LOOKERS {
            lookers.push(scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Acquire) {
                    let answer = sh::output(&mut lifeboat(&["points", "bench/db", "--json"]))?;
                    let end = reached(&serde_json::from_str(&answer)?);
                    let now = began.elapsed();
                    if let Ok(mut seen) = seen.lock() {
                        seen.push((now, end));
                    }
                }
                Ok(())
            }));
        }
        let made = commit_for_a_while(room, began);
        // Until the last one is seen, or too late.
        let last = made.as_ref().ok().and_then(|made| made.last().map(|(_, end)| *end));
        let until = Instant::now() + Duration::from_secs(20);
        let found = |end: u64| seen.lock().is_ok_and(|seen| seen.iter().any(|(_, reached)| *reached >= end));
        while last.is_some_and(|last| !found(last)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Release);
        for looker in lookers {
            looker.join().ok().context("a looking thread panicked")??;
        }
        made
    })?;
    follower.end()?;
    let seen = seen.into_inner().ok().context("a looking thread panicked")?;
    let mut waits = Vec::new();
    for (at, end) in commits {
        let first = seen
            .iter()
            .filter(|(_, reached)| *reached >= end)
            .map(|(when, _)| *when)
            .min();
        let first = first.context("a commit never became restorable")?;
        waits.push(first.saturating_sub(at).as_secs_f64());
    }
    let count = waits.len();
    let mut at = |percent| percentile(&mut waits, percent);
    let (p50, p90, p99, most) = (at(50), at(90), at(99), at(100));
    println!("  off-site: {count} commits; restorable after (s): 50 % {p50:.2?}, 90 % {p90:.2?}, 99 % {p99:.2?}, all {most:.2?}");
    Ok(vec![
        ("offsite_rpo_p99_s", p99),
        ("offsite_rpo_p50_s", p50),
        ("offsite_rpo_max_s", most),
    ])
}

/// Commits, alone and in bursts; when each began, and behind which position it is.
fn commit_for_a_while(room: &Room<'_>, began: Instant) -> Result<Vec<(Duration, u64)>> {
    let length = Duration::from_secs(if room.options.quick { 6 } else { 60 });
    let mut made = Vec::new();
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    while began.elapsed() < length {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        std::thread::sleep(Duration::from_millis(100 + dice % 2900));
        let burst = if dice.is_multiple_of(3) { 20 } else { 1 };
        for _ in 0..burst {
            let at = began.elapsed();
            room.server.sql("insert into canary values (now())")?;
            made.push((at, position(room)?));
        }
    }
    Ok(made)
}

/// The farthest position that anything in the answer reaches.
fn reached(answer: &Value) -> u64 {
    match answer {
        Value::Object(map) => {
            let own = map.get("to_lsn").and_then(Value::as_str).and_then(lsn);
            map.values().map(reached).chain(own).max().unwrap_or(0)
        }
        Value::Array(list) => list.iter().map(reached).max().unwrap_or(0),
        _ => 0,
    }
}

fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.trim().split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// What the server has flushed.
fn position(room: &Room<'_>) -> Result<u64> {
    let text = room.server.ask("select pg_current_wal_flush_lsn()")?;
    lsn(&text).with_context(|| format!("{text:?} is no position"))
}

fn percentile(values: &mut [f64], percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((values.len() * percent / 100).min(last)).copied()
}

/// A program that runs until it is told to end.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let name = sh::shown(command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {name}"))?))
    }

    fn end(&mut self) -> Result<()> {
        // `runuser` hands the signal on.
        sh::run(&mut sh::program("kill", ["-TERM", &self.0.id().to_string()]))?;
        let until = Instant::now() + PATIENCE;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > until {
                bail!("a program did not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) && self.0.kill().is_err() {
            println!("process {} may still run", self.0.id());
        }
    }
}

impl Room<'_> {
    /// Starts a server on a restored directory, and says how long it replayed, by its own account.
    fn replayed(&self, data: &Path) -> Result<f64> {
        let log = self.server.folder.join("replayed.log");
        let settings = format!(
            "-c listen_addresses= -c port=5499 -c unix_socket_directories={} -c fsync=off -c max_wal_size=8GB -c shared_buffers=256MB",
            self.server.folder.display()
        );
        let mut start = self.server.program("pg_ctl");
        start
            .arg("-D")
            .arg(data)
            .arg("-l")
            .arg(&log)
            .args(["-W", "-o", &settings, "start"]);
        sh::output(&mut start)?;
        let until = Instant::now() + PATIENCE;
        let seconds = loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let done = text.lines().find(|line| line.contains("redo done at"));
            let elapsed = done.and_then(|line| line.rsplit_once("elapsed: ")?.1.split(' ').next()?.parse::<f64>().ok());
            if let Some(seconds) = elapsed {
                break seconds;
            }
            if text.contains("FATAL") || Instant::now() > until {
                bail!("the restored server did not replay its log:\n{text}");
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let mut stop = self.server.program("pg_ctl");
        sh::output(stop.arg("-D").arg(data).args(["-w", "-m", "immediate", "stop"]))?;
        std::fs::remove_file(&log)?;
        Ok(seconds)
    }

    fn wait_for(&self, question: &str, answer: &str) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.server.ask(question)?.trim() != answer {
            if Instant::now() > until {
                bail!("{question}: never {answer}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
