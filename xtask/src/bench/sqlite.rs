//! `bench sqlite`: a live SQLite database captured by the product, against `sqlite3 .backup`, and what its writers notice of it.
//!
//! Both sides are timed without a writer: `.backup` starts over at every commit of another process and may never end. The stall is
//! the longest transaction of a running writer that overlaps one of our captures; the longest without a capture is printed beside it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::alternate::{Side, alternate, median};
use super::measure::measured;
use super::{Figures, Options, data, ratio};
use crate::setup::{self, Need};
use crate::sh;

/// What the rival needs.
const NEEDS: &[Need] = &[
    Need {
        program: "sqlite3",
        package: "sqlite3",
    },
    Need {
        program: "python3",
        package: "python3",
    },
];
const MAKE: &str = include_str!("../../python/sqlite_make.py");
const WRITE: &str = include_str!("../../python/sqlite_writer.py");
/// How long a writer is watched alone.
const BASELINE: Duration = Duration::from_secs(5);

/// How long `sqlite3 .backup` may try while somebody writes. It begins anew after every commit of another process.
const PATIENCE_S: u64 = 15;

/// Stalls in WAL and rollback mode, and the time of a capture with and without a writer.
pub(super) fn run(options: &Options) -> Result<Figures> {
    setup::packages(NEEDS)?;
    let wal = Stand::new(options, "wal")?;
    let quiet = alternate(
        "capture without a writer",
        options.rounds,
        vec![
            Side::new("lifeboat", |_| Ok(wal.capture()?.seconds)),
            Side::new("sqlite3", |_| Ok(wal.sqlite_backup()?.0)),
        ],
    )?;
    let busy = wal.under_a_writer(options.rounds, true)?;
    let rollback = Stand::new(options, "delete")?.under_a_writer(options.rounds, false)?;
    println!(
        "  longest transaction without a capture: WAL {:.1} ms, rollback {:.1} ms",
        busy.baseline_ms, rollback.baseline_ms
    );
    let side = |index: usize| quiet.get(index).copied().flatten();
    Ok(vec![
        ("writer_stall_ms", Some(busy.stall_ms)),
        ("writer_stall_rollback_ms", Some(rollback.stall_ms)),
        ("writer_baseline_ms", Some(busy.baseline_ms)),
        ("writer_baseline_rollback_ms", Some(rollback.baseline_ms)),
        // A lower bound where the peer did not end: see `sqlite_backup_ended`.
        ("capture_vs_sqlite_backup", ratio(busy.sqlite_backup_s, busy.capture_s)),
        ("sqlite_backup_ended", busy.sqlite_backup_ended),
        ("capture_s", busy.capture_s),
        ("capture_vs_sqlite_backup_quiet", ratio(side(1), side(0))),
        ("capture_quiet_s", side(0)),
        ("sqlite_backup_quiet_s", side(1)),
    ])
}

/// What was seen while a writer ran.
#[derive(Debug)]
struct Busy {
    stall_ms: f64,
    baseline_ms: f64,
    capture_s: Option<f64>,
    /// Until it ended or was ended.
    sqlite_backup_s: Option<f64>,
    /// Share of the rounds in which it ended by itself.
    sqlite_backup_ended: Option<f64>,
}

/// One capture: how long it took, and from when to when.
#[derive(Debug)]
struct Capture {
    seconds: f64,
    window: Sample,
}

/// A database in one journal mode, and a place for what is made of it.
#[derive(Debug)]
struct Stand<'bench> {
    options: &'bench Options,
    folder: PathBuf,
    database: PathBuf,
}

impl<'bench> Stand<'bench> {
    fn new(options: &'bench Options, mode: &str) -> Result<Self> {
        let (kind, bytes) = if options.quick {
            ("quick", "40000000")
        } else {
            ("full", "1000000000")
        };
        let made = options.folder.join(format!("sqlite-{mode}-{kind}.db"));
        if !made.try_exists()? {
            println!("making a database of {bytes} bytes (once)");
            let unfinished = options.folder.join("sqlite-unfinished.db");
            if unfinished.try_exists()? {
                std::fs::remove_file(&unfinished)?;
            }
            sh::output(sh::program("python3", ["-c", MAKE]).arg(&unfinished).args([bytes, mode]))?;
            std::fs::rename(&unfinished, &made)?;
        }
        let folder = options.folder.join(format!("sqlite-run-{mode}"));
        if folder.try_exists()? {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let database = folder.join("app.db");
        std::fs::copy(&made, &database)?;
        data::sync(&folder)?;
        data::warm(&folder)?;
        Ok(Self {
            options,
            folder,
            database,
        })
    }

    /// One backup into a fresh store. Making the configuration and the key does not count.
    fn capture(&self) -> Result<Capture> {
        let home = self.folder.join("lifeboat");
        if home.try_exists()? {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(&home)?;
        let config = self.configure(&home)?;
        data::sync(&home)?;
        let mut command = Command::new(&self.options.lifeboat);
        let from = now()?;
        let run = measured(command.current_dir(&home).arg("--config").arg(config).arg("backup"))?;
        Ok(Capture {
            seconds: run.seconds,
            window: (from, now()?),
        })
    }

    /// A configuration with one system, an encrypted store and a key of its own.
    fn configure(&self, home: &Path) -> Result<PathBuf> {
        let config = home.join("lifeboat.yaml");
        let mut command = Command::new(&self.options.lifeboat);
        command
            .args(["init", "--yes", "--no-backup", "--system", "bench", "--path"])
            .arg(&self.database);
        command
            .arg("--store")
            .arg(home.join("store"))
            .arg("--key")
            .arg(home.join("key.txt"));
        command
            .arg("--state-dir")
            .arg(home.join("state"))
            .arg("--config")
            .arg(&config);
        sh::output(command.current_dir(home))?;
        Ok(config)
    }

    /// What people do without us: the shell's backup command, made durable. Returns how long it took, and whether it ended by itself
    /// within [`PATIENCE_S`].
    fn sqlite_backup(&self) -> Result<(f64, bool)> {
        let to = self.folder.join("copy.db");
        if to.try_exists()? {
            std::fs::remove_file(&to)?;
        }
        data::sync(&self.folder)?;
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "timeout \"$1\" sqlite3 \"$2\" \".backup '$3'\" || echo \"did not end: $?\"",
            "sh",
        ]);
        command.arg(PATIENCE_S.to_string()).arg(&self.database).arg(&to);
        let run = measured(&mut command)?;
        let ended = match run.stdout.trim() {
            "" => true,
            "did not end: 124" => false,
            other => bail!("sqlite3 .backup failed: {other}"),
        };
        let began = std::time::Instant::now();
        data::sync(&self.folder)?;
        let seconds = run.seconds + began.elapsed().as_secs_f64();
        for leftover in ["copy.db", "copy.db-journal"] {
            let leftover = self.folder.join(leftover);
            if leftover.try_exists()? {
                std::fs::remove_file(leftover)?;
            }
        }
        Ok((seconds, ended))
    }

    /// Captures, and where asked for the peer's backups, in turn under one writer.
    fn under_a_writer(&self, rounds: usize, with_peer: bool) -> Result<Busy> {
        let writer = Writer::start(&self.database)?;
        let (mut windows, mut ours, mut theirs, mut ended) = (Vec::new(), Vec::new(), Vec::new(), 0_u32);
        let quiet_from = now()?;
        std::thread::sleep(BASELINE);
        let quiet = (quiet_from, now()?);
        for _ in 0..rounds {
            let capture = self.capture()?;
            windows.push(capture.window);
            println!("  capture under a writer: {:.3} s", capture.seconds);
            ours.push(capture.seconds);
            if with_peer {
                let (seconds, done) = self.sqlite_backup()?;
                let word = if done { "" } else { ", not ended" };
                println!("  sqlite3 .backup under the same writer: {seconds:.3} s{word}");
                theirs.push(seconds);
                ended += u32::from(done);
            }
        }
        let samples = writer.stop()?;
        let longest = |windows: &[(f64, f64)]| {
            let during = samples
                .iter()
                .filter(|(began, ended)| windows.iter().any(|(from, to)| began < to && ended > from));
            during.map(|(began, ended)| (ended - began) * 1000.0).max_by(f64::total_cmp)
        };
        println!("  {} transactions were timed", samples.len());
        let share = f64::from(ended) / f64::from(u32::try_from(rounds)?);
        Ok(Busy {
            stall_ms: longest(&windows).context("no transaction overlapped a capture")?,
            baseline_ms: longest(&[quiet]).context("no transaction without a capture")?,
            capture_s: median(ours),
            sqlite_backup_s: median(theirs),
            sqlite_backup_ended: with_peer.then_some(share),
        })
    }
}

/// Seconds since 1970, on the clock that the writer uses too.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// When something began and ended.
type Sample = (f64, f64);

/// Another process that writes small transactions.
struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    samples: Arc<Mutex<Vec<Sample>>>,
    reader: JoinHandle<()>,
}

impl Writer {
    /// Starts it and waits for its first commit.
    fn start(database: &Path) -> Result<Self> {
        let mut command = sh::program("python3", ["-c", WRITE]);
        let mut child = command.arg(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        match lines.next() {
            Some(Ok(line)) if line == "ready" => {}
            other => bail!("the writer did not get ready: {other:?}"),
        }
        let samples = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&samples);
        let reader = std::thread::spawn(move || {
            for sample in lines.map_while(Result::ok).filter_map(|line| parse(&line)) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
            }
        });
        Ok(Self {
            child,
            input,
            samples,
            reader,
        })
    }

    /// Ends it and returns what it timed.
    fn stop(mut self) -> Result<Vec<Sample>> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the writer ended with {status}");
        }
        self.reader
            .join()
            .map_err(|_panic| anyhow::anyhow!("the thread that reads the writer panicked"))?;
        Ok(std::mem::take(
            &mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

fn parse(line: &str) -> Option<Sample> {
    let (began, ended) = line.split_once(' ')?;
    Some((began.parse().ok()?, ended.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_times_its_transactions_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        sh::output(sh::program("python3", ["-c", MAKE]).arg(&database).args(["100000", "wal"])).unwrap();
        let writer = Writer::start(&database).unwrap();
        let samples = writer.stop().unwrap();
        assert!(!samples.is_empty());
        assert!(samples.iter().all(|(began, ended)| ended >= began));
        assert_eq!(parse("1.5 2.5"), Some((1.5, 2.5)));
    }
}
