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

use super::alternate::{Side, alternate};
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

/// Stalls in WAL and rollback mode, and the time of a capture.
pub(super) fn run(options: &Options) -> Result<Figures> {
    setup::packages(NEEDS)?;
    let wal = Stand::new(options, "wal")?;
    let quiet = alternate(
        "capture",
        options.rounds,
        vec![
            Side::new("lifeboat", |_| Ok(wal.capture()?.seconds)),
            Side::new("sqlite3", |_| wal.sqlite_backup()),
        ],
    )?;
    let (stall, baseline) = wal.stall(options.rounds)?;
    let rollback = Stand::new(options, "delete")?;
    let (rollback_stall, rollback_baseline) = rollback.stall(options.rounds)?;
    println!("  longest transaction without a capture: WAL {baseline:.1} ms, rollback {rollback_baseline:.1} ms");
    Ok(vec![
        ("writer_stall_ms", Some(stall)),
        ("writer_stall_rollback_ms", Some(rollback_stall)),
        ("writer_baseline_ms", Some(baseline)),
        ("writer_baseline_rollback_ms", Some(rollback_baseline)),
        (
            "capture_vs_sqlite_backup",
            ratio(quiet.get(1).copied().flatten(), quiet.first().copied().flatten()),
        ),
        ("capture_s", quiet.first().copied().flatten()),
        ("sqlite_backup_s", quiet.get(1).copied().flatten()),
    ])
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

    /// What people do without us: the shell's backup command, made durable.
    fn sqlite_backup(&self) -> Result<f64> {
        let to = self.folder.join("copy.db");
        if to.try_exists()? {
            std::fs::remove_file(&to)?;
        }
        data::sync(&self.folder)?;
        let mut command = Command::new("sqlite3");
        let run = measured(command.arg(&self.database).arg(format!(".backup '{}'", to.display())))?;
        let began = std::time::Instant::now();
        data::sync(&self.folder)?;
        let seconds = run.seconds + began.elapsed().as_secs_f64();
        std::fs::remove_file(&to)?;
        Ok(seconds)
    }

    /// The longest transaction during our captures and without them, in milliseconds.
    fn stall(&self, rounds: usize) -> Result<(f64, f64)> {
        let writer = Writer::start(&self.database)?;
        let mut windows = Vec::new();
        let quiet_from = now()?;
        std::thread::sleep(BASELINE);
        let quiet = (quiet_from, now()?);
        for _ in 0..rounds {
            let capture = self.capture()?;
            windows.push(capture.window);
            println!("  capture under a writer: {:.3} s", capture.seconds);
        }
        let samples = writer.stop()?;
        let longest = |windows: &[(f64, f64)]| {
            let during = samples
                .iter()
                .filter(|(began, ended)| windows.iter().any(|(from, to)| began < to && ended > from));
            during.map(|(began, ended)| (ended - began) * 1000.0).max_by(f64::total_cmp)
        };
        println!("  {} transactions were timed", samples.len());
        let stall = longest(&windows).context("no transaction overlapped a capture")?;
        Ok((stall, longest(&[quiet]).context("no transaction without a capture")?))
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
