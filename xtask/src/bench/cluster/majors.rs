//! PostgreSQL 16 and 18, which Debian's pgBackRest refuses: against `pg_basebackup`, and on 18 increments that read only what changed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::alternate::{Side, alternate};
use super::super::measure::measured;
use super::super::postgres::Server;
use super::super::{Figures, Options, data, ratio};
use super::{Home, float};
use crate::{postgres, setup, sh};

/// Both versions, one after the other.
pub(super) fn run(options: &Options) -> Result<Figures> {
    let python = setup::python()?;
    let mut figures = Vec::new();
    for (major, names) in [
        (
            16,
            [
                "pg16_backup_vs_pg_basebackup",
                "pg16_restore_vs_tar",
                "pg16_stored_vs_pg_basebackup",
            ],
        ),
        (
            18,
            [
                "pg18_backup_vs_pg_basebackup",
                "pg18_restore_vs_tar",
                "pg18_stored_vs_pg_basebackup",
            ],
        ),
    ] {
        let side = Pair::new(options, &postgres::programs(&python, major)?, major)?;
        figures.extend(names.into_iter().zip(side.whole()?));
        if major == 18 {
            figures.extend(side.increment()?);
        }
        side.server.stop()?;
        side.server.remove()?;
    }
    Ok(figures)
}

/// A cluster of one version, and what is made of it.
struct Pair<'bench> {
    options: &'bench Options,
    server: Server,
    local: Home,
    stream: Home,
    major: u32,
}

impl<'bench> Pair<'bench> {
    fn new(options: &'bench Options, programs: &Path, major: u32) -> Result<Self> {
        let summaries = if major >= 17 { "-c summarize_wal=on" } else { "" };
        let server = Server::start_of(programs, &format!("-c fsync=on -c wal_level=replica {summaries}"))?;
        let (scale, rows) = if options.quick { ("5", "50000") } else { ("60", "1100000") };
        server.fill(scale, rows)?;
        let home = |name: &str, mode: &str| Home::make(options, &server, name, "fs: { path: store }", mode);
        let (local, stream) = (home("disk", "local")?, home("streamed", "stream")?);
        println!(
            "  PostgreSQL {major}: the cluster has {} MiB",
            data::size_of(&server.data())? >> 20
        );
        Ok(Self {
            options,
            server,
            local,
            stream,
            major,
        })
    }

    /// A first backup and a restore of it: times, and bytes stored.
    fn whole(&self) -> Result<[Option<f64>; 3]> {
        let backups = alternate(
            &format!("PostgreSQL {}, first backup", self.major),
            self.options.rounds,
            vec![
                Side::new("lifeboat", |_| {
                    self.local.empty()?;
                    self.timed(&mut self.local.lifeboat(&["backup"]))
                }),
                Side::new("basebackup", |_| {
                    self.timed(&mut self.basebackup("-Ft -X fetch -c fast -D - | zstd -q -1 -T2 -f -o base.tar.zst"))
                }),
            ],
        )?;
        let (ours, theirs) = (
            self.local.stored()?,
            self.server.folder.join("base.tar.zst").metadata()?.len(),
        );
        println!("  stored: lifeboat {} MiB, pg_basebackup {} MiB", ours >> 20, theirs >> 20);
        let restores = alternate(
            &format!("PostgreSQL {}, restore", self.major),
            self.options.rounds,
            vec![
                Side::new("lifeboat", |round| {
                    let mut restore = self.local.lifeboat(&["restore", "bench/db", "--no-replay", "--to"]);
                    self.timed(restore.arg(self.server.folder.join(format!("restored-{round}"))))
                }),
                Side::new("tar", |round| {
                    let script =
                        format!("mkdir -m 700 untarred-{round} && zstd -q -d -c base.tar.zst | tar -x -C untarred-{round}");
                    self.timed(self.server.command(Path::new("bash")).args(["-c", &script]))
                }),
            ],
        )?;
        let ([our_backup, their_backup], [our_restore, their_restore]) = (backups.as_slice(), restores.as_slice()) else {
            bail!("two sides make two medians");
        };
        Ok([
            ratio(*their_backup, *our_backup),
            ratio(*their_restore, *our_restore),
            ratio(Some(float(ours)), Some(float(theirs))),
        ])
    }

    /// After pgbench: an increment over the network protocol, against `pg_basebackup --incremental`. Ours is a whole backup afterwards, theirs has to be
    /// combined with its parents.
    fn increment(&self) -> Result<Figures> {
        sh::run(&mut self.basebackup("-Fp -X none -c fast -D full"))?;
        self.stream.empty()?;
        sh::output(&mut self.stream.lifeboat(&["backup"]))?;
        let seconds = if self.options.quick { "2" } else { "20" };
        self.server
            .run("pgbench", &["-T", seconds, "-c", "4", "-j", "2", "-n", "bench"])?;
        let before = self.stream.stored()?;
        let mut backup = self.stream.lifeboat(&["--json", "backup"]);
        let began = std::time::Instant::now();
        let said = sh::output(&mut backup)?;
        data::sync(&self.server.folder)?;
        let ours = began.elapsed().as_secs_f64();
        let stored = self.stream.stored()? - before;
        let theirs = self
            .timed(&mut self.basebackup(
                "-Ft -X fetch -c fast --incremental=full/backup_manifest -D - | zstd -q -1 -T2 -f -o incr.tar.zst",
            ))?;
        let their_stored = self.server.folder.join("incr.tar.zst").metadata()?.len();
        let answer: Value = serde_json::from_str(&said)?;
        let read = number(&answer, "read_bytes").context("the backup does not say how much it read")?;
        let cluster = data::size_of(&self.server.data().join("base"))?;
        println!(
            "  PostgreSQL 18, increment: lifeboat {ours:.1} s, {} KiB stored, {} MiB of {} MiB read; pg_basebackup {theirs:.1} s, {} KiB",
            stored >> 10,
            read >> 20,
            cluster >> 20,
            their_stored >> 10
        );
        Ok(vec![
            ("pg18_incremental_vs_pg_basebackup", ratio(Some(theirs), Some(ours))),
            (
                "pg18_incremental_stored_vs_pg_basebackup",
                ratio(Some(float(stored)), Some(float(their_stored))),
            ),
            ("pg18_incremental_read_share", ratio(Some(float(read)), Some(float(cluster)))),
        ])
    }

    /// `pg_basebackup` with these words, through the shell.
    fn basebackup(&self, words: &str) -> Command {
        let program = self.server.program("pg_basebackup");
        let path = program.get_args().last().map_or(program.get_program(), |last| last);
        let script = format!("set -o pipefail; {} {words}", path.display());
        let mut command = self.server.command(Path::new("bash"));
        command.args(["-c", &script]);
        command
    }

    /// Ends with everything on the disk.
    fn timed(&self, command: &mut Command) -> Result<f64> {
        data::sync(&self.server.folder)?;
        let run = measured(command)?;
        let began = std::time::Instant::now();
        data::sync(&self.server.folder)?;
        Ok(run.seconds + began.elapsed().as_secs_f64())
    }
}

/// The first number of that name anywhere in the answer.
fn number(answer: &Value, name: &str) -> Option<u64> {
    match answer {
        Value::Object(map) => map
            .get(name)
            .and_then(Value::as_u64)
            .or_else(|| map.values().find_map(|value| number(value, name))),
        Value::Array(list) => list.iter().find_map(|value| number(value, name)),
        _ => None,
    }
}
