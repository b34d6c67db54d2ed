//! `bench s3`: backup and restore of a folder through an S3 service on loopback, by the product and by restic, plain and with a delay of
//! 50 ms for each request.
//!
//! Both sides talk to the same server program, which keeps files in memory and counts requests; each run gets a fresh one, so that nothing
//! of another run is in it. Warm caches, encryption on, file systems synced, and what comes back is compared with what went in. The server
//! takes its part of the same processors: what is measured is a client and its service on one machine.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::alternate::{Side, alternate};
use super::data::{self, Source};
use super::measure::{Measured, measured};
use super::{Figures, Options, ratio};
use crate::setup::{self, Need};
use crate::sh;

/// What the rival needs.
const NEEDS: &[Need] = &[Need {
    program: "restic",
    package: "restic",
}];
/// Delays of the two series, in milliseconds.
const DELAYS_MS: [u32; 2] = [0, 50];
/// The bucket that everything goes to; the server takes any.
pub(super) const BUCKET: &str = "bench";

/// Times of one series.
#[derive(Debug)]
struct Series {
    backup: [Option<f64>; 2],
    restore: [Option<f64>; 2],
}

impl Series {
    fn backup_ratio(&self) -> Option<f64> {
        ratio(self.backup[1], self.backup[0])
    }

    fn restore_ratio(&self) -> Option<f64> {
        ratio(self.restore[1], self.restore[0])
    }
}

/// Everything the issue asks for, in one run.
pub(super) fn run(options: &Options) -> Result<Figures> {
    setup::packages(NEEDS)?;
    let source = data::prepare(options)?;
    let bench = Bench {
        options,
        source: &source,
        folder: options.folder.join("s3-run"),
        peak_kib: std::cell::Cell::new(0),
        puts: RefCell::new(Vec::new()),
    };
    empty(&bench.folder)?;
    std::fs::write(bench.folder.join("password"), "benchmark")?;
    data::warm(&source.folder)?;
    let plain = bench.series(DELAYS_MS[0])?;
    let slow = bench.series(DELAYS_MS[1])?;
    let worst = |a: Option<f64>, b: Option<f64>| Some(a?.min(b?));
    let gib = float(source.size_bytes) / float(1 << 30);
    let most_puts = bench.puts.borrow().iter().copied().max();
    let rate = |seconds: Option<f64>| seconds.map(|seconds| float(source.size_bytes) / 1e6 / seconds);
    Ok(vec![
        ("s3_backup_vs_restic", worst(plain.backup_ratio(), slow.backup_ratio())),
        ("s3_restore_vs_restic", worst(plain.restore_ratio(), slow.restore_ratio())),
        ("puts_per_gib", most_puts.map(|puts| float(puts) / gib)),
        ("peak_rss_mib", Some(float(bench.peak_kib.get()) / 1024.0)),
        ("s3_backup_vs_restic_plain", plain.backup_ratio()),
        ("s3_backup_vs_restic_50ms", slow.backup_ratio()),
        ("s3_restore_vs_restic_plain", plain.restore_ratio()),
        ("s3_restore_vs_restic_50ms", slow.restore_ratio()),
        ("s3_backup_mb_per_s_plain", rate(plain.backup[0])),
        ("s3_backup_mb_per_s_50ms", rate(slow.backup[0])),
        ("s3_restore_mb_per_s_plain", rate(plain.restore[0])),
        ("s3_restore_mb_per_s_50ms", rate(slow.restore[0])),
    ])
}

#[derive(Debug)]
struct Bench<'bench> {
    options: &'bench Options,
    source: &'bench Source,
    folder: PathBuf,
    /// Largest peak memory of our runs.
    peak_kib: std::cell::Cell<u64>,
    /// Puts of each of our backups, as the server counted them.
    puts: RefCell<Vec<u64>>,
}

impl Bench<'_> {
    /// Backups in turn, each into a fresh server; then restores from the last two.
    fn series(&self, delay_ms: u32) -> Result<Series> {
        let what = |verb: &str| format!("{verb}, {delay_ms} ms");
        let (ours, theirs) = (RefCell::new(None), RefCell::new(None));
        let backup = alternate(
            &what("backup"),
            self.options.rounds,
            vec![
                Side::new("lifeboat", |_| {
                    // The old server and its memory go first.
                    drop(ours.take());
                    let (seconds, server) = self.our_backup(delay_ms)?;
                    ours.replace(Some(server));
                    Ok(seconds)
                }),
                Side::new("restic", |_| {
                    drop(theirs.take());
                    let (seconds, server) = self.restic_backup(delay_ms)?;
                    theirs.replace(Some(server));
                    Ok(seconds)
                }),
            ],
        )?;
        let restore = alternate(
            &what("restore"),
            self.options.rounds,
            vec![
                Side::new("lifeboat", |_| self.our_restore()),
                Side::new("restic", |_| {
                    let server = theirs.borrow();
                    self.restic_restore(server.as_ref().context("there is no backup by restic")?)
                }),
            ],
        )?;
        let of = |times: &[Option<f64>]| [times.first().copied().flatten(), times.get(1).copied().flatten()];
        Ok(Series {
            backup: of(&backup),
            restore: of(&restore),
        })
    }

    fn our_backup(&self, delay_ms: u32) -> Result<(f64, Server)> {
        let mut server = Server::start(self.options, delay_ms)?;
        let home = self.home();
        empty(&home)?;
        self.configure(&server)?;
        server.counts()?;
        let run = self.timed(self.lifeboat().arg("backup"))?;
        self.peak_kib.set(self.peak_kib.get().max(run.peak_rss_kib));
        let counts = server.counts()?;
        println!("    requests: {counts}");
        let puts = counts
            .get("PUT")
            .and_then(Value::as_u64)
            .context("the server counted no puts")?;
        self.puts.borrow_mut().push(puts);
        Ok((run.seconds, server))
    }

    fn our_restore(&self) -> Result<f64> {
        let to = self.folder.join("restored");
        remove(&to)?;
        data::sync(&self.options.folder)?;
        let run = self.timed(self.lifeboat().args(["restore", "bench", "--yes", "--to"]).arg(&to))?;
        self.peak_kib.set(self.peak_kib.get().max(run.peak_rss_kib));
        data::compare(&self.source.folder, &to)?;
        std::fs::remove_dir_all(&to)?;
        Ok(run.seconds)
    }

    fn restic_backup(&self, delay_ms: u32) -> Result<(f64, Server)> {
        let server = Server::start(self.options, delay_ms)?;
        empty(&self.folder.join("restic-cache"))?;
        sh::output(self.restic(&server).arg("init"))?;
        data::sync(&self.options.folder)?;
        let run = self.timed(self.restic(&server).arg("backup").arg(&self.source.folder))?;
        Ok((run.seconds, server))
    }

    fn restic_restore(&self, server: &Server) -> Result<f64> {
        let to = self.folder.join("restored");
        empty(&to)?;
        data::sync(&self.options.folder)?;
        let run = self.timed(self.restic(server).args(["restore", "latest", "--target"]).arg(&to))?;
        data::compare(&self.source.folder, &to)?;
        std::fs::remove_dir_all(&to)?;
        Ok(run.seconds)
    }

    fn home(&self) -> PathBuf {
        self.folder.join("lifeboat")
    }

    fn lifeboat(&self) -> Command {
        let mut command = Command::new(&self.options.lifeboat);
        command
            .current_dir(self.home())
            .args(["--quiet", "--config", "lifeboat.yaml"]);
        command
    }

    /// A configuration with a key of its own, whose only store is the server's bucket; what `init` wrote, with another store and component.
    fn configure(&self, server: &Server) -> Result<()> {
        let home = self.home();
        let small = home.join("small.db");
        let make = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('create table t(x)'); c.commit()";
        sh::output(sh::program("python3", ["-c", make]).arg(&small))?;
        let mut init = self.lifeboat();
        init.args([
            "init",
            "--yes",
            "--no-backup",
            "--system",
            "bench",
            "--store",
            "seed",
            "--key",
            "key.txt",
        ]);
        sh::output(init.args(["--state-dir", "state", "--path"]).arg(&small))?;
        let config = home.join("lifeboat.yaml");
        let written = std::fs::read_to_string(&config)?;
        let (head, _) = written.split_once("\nstores:").context("init wrote no stores")?;
        let store = format!(
            "\nstores:\n  s3:\n    s3:\n      bucket: {BUCKET}\n      prefix: lifeboat\n      region: us-east-1\n      endpoint: {:?}\n      \
             access_key: {{ env: AWS_ACCESS_KEY_ID }}\n      secret_key: {{ env: AWS_SECRET_ACCESS_KEY }}\n",
            server.endpoint
        );
        let system = format!(
            "\nsystems:\n  bench:\n    components:\n      data:\n        files: {{ root: {0:?}, include: [{0:?}] }}\n        \
             backup: {{ to: [s3], encrypt: main }}\n",
            self.source.folder.to_string_lossy()
        );
        std::fs::write(&config, format!("{head}{store}{system}"))?;
        sh::output(credentials(&mut self.lifeboat()).args(["store", "setup", "s3"]))?;
        data::sync(&home)
    }

    fn restic(&self, server: &Server) -> Command {
        let mut command = Command::new("restic");
        command
            .args(["--quiet", "--repo"])
            .arg(format!("s3:{}/{BUCKET}/restic", server.endpoint))
            .arg("--password-file")
            .arg(self.folder.join("password"));
        command.arg("--cache-dir").arg(self.folder.join("restic-cache"));
        command
    }

    /// Runs and syncs; both count.
    fn timed(&self, command: &mut Command) -> Result<Measured> {
        let mut run = measured(credentials(command))?;
        let began = std::time::Instant::now();
        data::sync(&self.folder)?;
        run.seconds += began.elapsed().as_secs_f64();
        Ok(run)
    }
}

/// The server takes any, but clients want some.
pub(super) fn credentials(command: &mut Command) -> &mut Command {
    command
        .env("AWS_ACCESS_KEY_ID", Server::KEY)
        .env("AWS_SECRET_ACCESS_KEY", Server::SECRET)
        .env("AWS_DEFAULT_REGION", "us-east-1")
}

/// The S3 service, in a process of its own.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// Its URL.
    pub(super) endpoint: String,
}

impl Server {
    const KEY: &'static str = "bench";
    const SECRET: &'static str = "benchmark";

    /// Starts one that takes `delay_ms` for each request.
    pub(super) fn start(options: &Options, delay_ms: u32) -> Result<Self> {
        let mut command = Command::new(&options.s3_server);
        command.args(["--latency-ms", &delay_ms.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let endpoint = lines.next().context("the server did not start")??;
        Ok(Self {
            child,
            input,
            lines,
            endpoint,
        })
    }

    /// Requests by method since the last call.
    fn counts(&mut self) -> Result<Value> {
        self.input.as_mut().context("no standard input")?.write_all(b"counts\n")?;
        let line = self.lines.next().context("the server ended")??;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            println!("the server did not end: {error}");
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.try_exists()? {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn empty(folder: &Path) -> Result<()> {
    remove(folder)?;
    std::fs::create_dir_all(folder)?;
    if !folder.is_dir() {
        bail!("{} is no folder", folder.display());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "sizes of benchmarks are far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}
