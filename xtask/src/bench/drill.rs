//! `bench drill`: a cluster of 2.5 GB restored into a sandbox and checked, against the restore alone; and whether the times and the recovery point of the
//! report are what another process saw.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::alternate::{Side, alternate};
use super::cluster::Home;
use super::measure::measured;
use super::postgres::Server;
use super::{Figures, Options, data, ratio};

/// The step with which the clock of a drill stops.
const CLEAN_UP: &str = "clean up";
/// The check that is left out: not every server has its extension.
const AMCHECK: &str = "check tables and indexes";

/// The figures of one run.
pub(super) fn run(options: &Options) -> Result<Figures> {
    let server = Server::start("-c fsync=on -c checkpoint_timeout=1h")?;
    let (scale, rows) = if options.quick { ("5", "50000") } else { ("110", "2200000") };
    server.fill(scale, rows)?;
    server.sql("create table heartbeat (at timestamptz primary key)")?;
    let heartbeat = "auto, heartbeat: 'select max(at) from heartbeat'";
    let home = Home::make(options, &server, "disk", "fs: { path: store }", heartbeat)?;
    home.empty()?;
    // The slot is there before the backup: what is written meanwhile is held.
    follow(&home)?;
    measured(&mut home.lifeboat(&["backup"]))?;
    println!("  the cluster has {} MiB", data::size_of(&server.data())? >> 20);
    let newest = load(&server, if options.quick { 2 } else { 20 })?;
    follow(&home)?;
    let seen = std::cell::RefCell::new(Vec::new());
    let times = alternate(
        "recovery",
        options.rounds,
        vec![
            Side::new("drill", |_| {
                // Both begin when the disk has nothing left to do.
                data::sync(&server.folder)?;
                let drill = drill(&home)?;
                let seconds = drill.recovery_s - drill.amcheck_s;
                seen.borrow_mut().push(drill);
                Ok(seconds)
            }),
            Side::new("restore", |round| restore(&server, &home, round)),
        ],
    )?;
    let [drilled, restored] = times.as_slice() else {
        bail!("two sides make two medians");
    };
    let seen = seen.into_inner();
    let errors: Option<Vec<f64>> = seen.iter().map(Drill::rto_error).collect();
    let rto_error = errors.map(|errors| errors.into_iter().fold(0.0, f64::max));
    let mut rpo_error = 0.0_f64;
    for drill in &seen {
        let sql = format!(
            "select abs(extract(epoch from timestamptz '{newest}' - timestamptz '{}'))",
            drill.point
        );
        rpo_error = rpo_error.max(server.ask(&sql)?.trim().parse()?);
    }
    server.stop()?;
    server.remove()?;
    let amcheck = seen.iter().map(|drill| drill.amcheck_s).fold(0.0, f64::max);
    Ok(vec![
        ("drill_time_over_restore", ratio(*drilled, *restored)),
        ("rto_error", rto_error),
        ("rpo_error_s", Some(rpo_error)),
        ("drill_seconds", *drilled),
        ("restore_seconds", *restored),
        ("amcheck_seconds", Some(amcheck)),
    ])
}

/// Everything that the server has now, into the store. The first one, which makes the slot, ends with 3 or 0.
fn follow(home: &Home) -> Result<()> {
    let status = home.lifeboat(&["follow", "--once"]).stdout(Stdio::null()).status()?;
    match status.code() {
        Some(0 | 3) => Ok(()),
        other => bail!("follow ended with {other:?}"),
    }
}

/// A busy server, and a writer who notes when each of his heartbeats was committed. Returns the newest.
fn load(server: &Server, seconds: u64) -> Result<String> {
    let time = seconds.to_string();
    let mut busy = server.program("pgbench");
    let mut busy = busy
        .args(["-T", &time, "-c", "4", "-j", "2", "-n", "bench"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut newest = String::new();
    while Instant::now() < end {
        newest = server.ask("insert into heartbeat values (clock_timestamp()) returning at")?;
    }
    busy.wait()?;
    Ok(newest.trim().to_owned())
}

/// A drill, as its report and another process saw it.
struct Drill {
    /// By the report.
    recovery_s: f64,
    /// From its start to the first sign of its cleaning up, where there was one.
    outside_s: Option<f64>,
    amcheck_s: f64,
    point: String,
}

impl Drill {
    fn rto_error(&self) -> Option<f64> {
        self.outside_s.map(|outside| (self.recovery_s - outside).abs() / outside)
    }
}

/// What a command said, and after how many seconds each of its steps began, as an outside process sees it.
struct Watched {
    stdout: Vec<u8>,
    steps: Vec<(String, f64)>,
    seconds: f64,
}

fn watched(mut command: Command) -> Result<Watched> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().context("a pipe")?;
    let watching = std::thread::spawn(move || {
        let mut steps = Vec::new();
        for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
            let line = serde_json::from_str::<Value>(&line).unwrap_or_default();
            let Some(step) = line["step"].as_str() else { continue };
            if steps.last().is_none_or(|(last, _)| last != step) {
                steps.push((step.to_owned(), began.elapsed().as_secs_f64()));
            }
        }
        steps
    });
    let output = child.wait_with_output()?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(
        output.status.code().is_some_and(|code| code == 0 || code == 3),
        "it ended with {}",
        output.status
    );
    let steps = watching.join().unwrap_or_default();
    let shown: Vec<String> = steps.iter().map(|(step, at)| format!("{at:.2} {step}")).collect();
    println!("  steps: {}; {seconds:.2} end", shown.join(", "));
    Ok(Watched {
        stdout: output.stdout,
        steps,
        seconds,
    })
}

fn drill(home: &Home) -> Result<Drill> {
    let watched = watched(home.loud(&["--progress", "json", "--json", "drill"]))?;
    let outside_s = watched.steps.iter().find(|(step, _)| step == CLEAN_UP).map(|(_, at)| *at);
    let said: Value = serde_json::from_slice(&watched.stdout)?;
    let report = &said["components"][0]["report"];
    let number = |value: &Value| value.as_f64().with_context(|| format!("no figure in {report:#}"));
    let steps = report["steps"].as_array().context("no steps")?;
    let amcheck = steps.iter().filter(|step| step["name"] == AMCHECK);
    Ok(Drill {
        recovery_s: number(&report["measures"]["recovery_s"])?,
        outside_s,
        amcheck_s: amcheck.filter_map(|step| step["took_s"].as_f64()).sum(),
        point: report["measures"]["recovery_point"]
            .as_str()
            .context("no recovery point")?
            .to_owned(),
    })
}

/// The restore alone: files, log, and a server that stood at the end.
fn restore(server: &Server, home: &Home, round: usize) -> Result<f64> {
    let to = server.folder.join(format!("restored-{round}"));
    data::sync(&server.folder)?;
    let mut command = home.loud(&["--progress", "json", "restore", "bench/db", "--yes", "--to"]);
    command.arg(&to);
    let seconds = watched(command)?.seconds;
    std::fs::remove_dir_all(&to)?;
    Ok(seconds)
}
