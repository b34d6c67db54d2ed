//! `bench repo`: first backup, unchanged second backup, restore and a change of one per cent, against the raw pipeline and restic.
//!
//! Warm caches, encryption on, every side ends with its file system synced, and what comes back is compared with what went in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::alternate::{Side, alternate};
use super::data::{self, Source};
use super::measure::{Measured, measured};
use super::{Figures, Options, ratio};
use crate::setup::{self, Need};
use crate::sh;

/// What the rivals need.
const NEEDS: &[Need] = &[Need {
    program: "restic",
    package: "restic",
}];

/// Where one run puts its results.
#[derive(Debug)]
struct Room<'bench> {
    options: &'bench Options,
    source: &'bench Source,
    folder: PathBuf,
    /// Largest peak memory of our runs.
    peak_kib: std::cell::Cell<u64>,
}

/// Everything the issue asks for, in one run.
pub(super) fn run(options: &Options) -> Result<Figures> {
    setup::packages(NEEDS)?;
    let source = data::prepare(options)?;
    let room = Room {
        options,
        source: &source,
        folder: options.folder.join("repo-run"),
        peak_kib: std::cell::Cell::new(0),
    };
    room.empty(&room.folder)?;
    std::fs::write(room.folder.join("password"), "benchmark")?;
    data::warm(&source.folder)?;

    let first = alternate(
        "first backup",
        options.rounds,
        vec![
            Side::new("limit", |_| room.limit()),
            Side::new("lifeboat", |_| room.first_backup()),
            Side::new("restic", |_| room.restic_backup()),
        ],
    )?;
    let [limit, ours, restic] = first.as_slice() else {
        bail!("three sides make three medians");
    };
    let sizes = (data::size_of(&room.store())?, data::size_of(&room.restic())?);
    println!("  stored: lifeboat {} MiB, restic {} MiB", sizes.0 >> 20, sizes.1 >> 20);

    let again = alternate(
        "unchanged",
        options.rounds,
        vec![Side::new("lifeboat", |_| room.next_backup())],
    )?;
    data::warm(&room.store())?;
    data::warm(&room.restic())?;
    let restore = alternate(
        "restore",
        options.rounds,
        vec![
            Side::new("lifeboat", |_| room.restore()),
            Side::new("restic", |_| room.restic_restore()),
        ],
    )?;
    let delta = room.delta()?;

    let bytes = float(source.size_bytes);
    let rate = |seconds: Option<f64>| seconds.map(|seconds| bytes / 1e6 / seconds);
    Ok(vec![
        ("backup_vs_limit", ratio(*limit, *ours)),
        ("backup_vs_restic", ratio(*restic, *ours)),
        ("rescan_mb_per_s", rate(again.first().copied().flatten())),
        ("delta_stored_vs_changed", delta),
        (
            "restore_vs_restic",
            ratio(restore.get(1).copied().flatten(), restore.first().copied().flatten()),
        ),
        ("peak_rss_mib", Some(float(room.peak_kib.get()) / 1024.0)),
        ("stored_vs_restic", ratio(Some(float(sizes.0)), Some(float(sizes.1)))),
        ("limit_mb_per_s", rate(*limit)),
        ("backup_mb_per_s", rate(*ours)),
    ])
}

impl Room<'_> {
    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn restic(&self) -> PathBuf {
        self.folder.join("restic")
    }

    /// An empty folder of that name.
    fn empty(&self, folder: &Path) -> Result<()> {
        if folder.try_exists()? {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        // What earlier runs left to be written must not be on this one's bill.
        data::sync(&self.options.folder)
    }

    fn limit(&self) -> Result<f64> {
        let to = self.folder.join("limit");
        self.empty(&to)?;
        let mut command = Command::new(&self.options.xtask);
        let run = self.timed(command.arg("raw-pipeline").arg(&self.source.folder).arg(&to), &to)?;
        self.empty(&to)?;
        Ok(run.seconds)
    }

    fn first_backup(&self) -> Result<f64> {
        self.empty(&self.state())?;
        self.empty(&self.store())?;
        self.next_backup()
    }

    fn next_backup(&self) -> Result<f64> {
        let mut command = Command::new(&self.options.repo_bench);
        command
            .args(["backup", "--page-size", "8192", "--source"])
            .arg(&self.source.folder);
        command.arg("--store").arg(self.store()).arg("--state").arg(self.state());
        let run = self.ours(&mut command, &self.store())?;
        let report = last_json(&run.stdout)?;
        let read = report
            .get("read_bytes")
            .and_then(Value::as_u64)
            .context("no read_bytes in what the driver printed")?;
        if read != self.source.size_bytes {
            bail!("{read} bytes were read of {}", self.source.size_bytes);
        }
        Ok(run.seconds)
    }

    fn restore(&self) -> Result<f64> {
        let to = self.folder.join("restored");
        self.empty(&to)?;
        let to = to.join("files");
        let mut command = Command::new(&self.options.repo_bench);
        command.args(["restore", "--to"]).arg(&to);
        command.arg("--store").arg(self.store()).arg("--state").arg(self.state());
        let run = self.ours(&mut command, &self.folder)?;
        data::compare(&self.source.folder, &to)?;
        std::fs::remove_dir_all(&to)?;
        Ok(run.seconds)
    }

    fn restic_command(&self) -> Command {
        let mut command = Command::new("restic");
        command
            .arg("--quiet")
            .arg("--repo")
            .arg(self.restic())
            .arg("--password-file")
            .arg(self.folder.join("password"));
        command.arg("--cache-dir").arg(self.folder.join("restic-cache"));
        command
    }

    fn restic_backup(&self) -> Result<f64> {
        self.empty(&self.folder.join("restic-cache"))?;
        self.empty(&self.restic())?;
        sh::output(self.restic_command().arg("init"))?;
        Ok(self
            .timed(self.restic_command().arg("backup").arg(&self.source.folder), &self.restic())?
            .seconds)
    }

    fn restic_restore(&self) -> Result<f64> {
        let to = self.folder.join("restored");
        self.empty(&to)?;
        let run = self.timed(self.restic_command().args(["restore", "latest", "--target"]).arg(&to), &to)?;
        data::compare(&self.source.folder, &to)?;
        std::fs::remove_dir_all(&to)?;
        Ok(run.seconds)
    }

    /// What a backup after a change of one per cent of the pages stores, against those pages compressed alone.
    fn delta(&self) -> Result<Option<f64>> {
        let before = data::size_of(&self.store())?;
        let changed = data::change_one_per_cent(self.source)?;
        let compressed = zstd::bulk::compress(&changed.pages, 1)?.len();
        let seconds = self.next_backup()?;
        let stored = data::size_of(&self.store())? - before;
        self.restore()?;
        println!(
            "  one per cent changed: {seconds:.3} s, {} pages, {compressed} bytes compressed alone, {stored} bytes stored",
            changed.pages.len() / data::PAGE
        );
        Ok(ratio(Some(float(stored)), Some(float(u64::try_from(compressed)?))))
    }

    /// Runs ours and remembers its memory.
    fn ours(&self, command: &mut Command, written: &Path) -> Result<Measured> {
        let run = self.timed(command, written)?;
        self.peak_kib.set(self.peak_kib.get().max(run.peak_rss_kib));
        Ok(run)
    }

    /// Runs and syncs what was written; both count.
    fn timed(&self, command: &mut Command, written: &Path) -> Result<Measured> {
        let mut run = measured(command.current_dir(&self.folder))?;
        let began = std::time::Instant::now();
        data::sync(written)?;
        run.seconds += began.elapsed().as_secs_f64();
        Ok(run)
    }
}

/// The last line that a program printed, as JSON.
fn last_json(printed: &str) -> Result<Value> {
    let line = printed
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .context("nothing was printed")?;
    serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of benchmarks are far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        assert_eq!(last_json("text\n{\"read_bytes\": 3}\n\n").unwrap()["read_bytes"], 3);
        assert!(last_json("").is_err() && last_json("text").is_err());
    }
}
