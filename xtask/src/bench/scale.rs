//! `bench scale`: what 200 GiB and 100,000 small files cost, and what follows from that for 1 and 10 TB.
//!
//! The database is made up as it is read (`scale_bench` of the repository's crate), so that neither 200 GiB of source nor of store are
//! needed: its extents all differ and compress to almost nothing. What such a store lacks is packs; their number, and what they add to a
//! backup file, is calculated from the format (48 bytes for each pack of 16 MiB or more, `docs/format.md` 8.3). What a prune costs depends on
//! how many packs there are: it gets as many small ones as 200 GiB would have, and all of them go.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::measure::{Measured, measured};
use super::{Figures, Options, data};
use crate::sh;

/// Bytes that a pack adds to the closure of a backup.
const CLOSURE_BYTES_PER_PACK: f64 = 48.0;

/// Bytes of a pack.
const PACK_BYTES: f64 = 16.0 * 1024.0 * 1024.0;

/// Small files that are made.
const FILES: usize = 100_000;

/// Everything the issue asks for, in one run.
pub(super) fn run(options: &Options) -> Result<Figures> {
    let gib: u32 = if options.quick { 1 } else { 200 };
    let room = Room {
        options,
        folder: options.folder.join("scale-run"),
    };
    if room.folder.try_exists()? {
        std::fs::remove_dir_all(&room.folder)?;
    }
    std::fs::create_dir_all(&room.folder)?;
    let first = room.database(gib, 1)?;
    let maps = data::size_of(&room.folder.join("store/c/bench~2Fscale/maps"))?;
    let headers = data::size_of(&room.folder.join("store/c/bench~2Fscale/backups"))?;
    let state = data::size_of(&room.folder.join("state"))?;
    let unchanged = room.database(gib, 1)?;
    let changed = room.database(gib, 2)?;
    let number = |run: &Run, name: &str| run.report.get(name).and_then(Value::as_f64);
    let gib = f64::from(gib);
    let peak_kib = [&first, &unchanged, &changed].map(|run| run.peak_rss_kib).into_iter().max();
    let packs = f64_to_count(gib * 1024.0 * 1024.0 * 1024.0 / PACK_BYTES);
    let (census, sweep) = room.prune(packs)?;
    let files = room.files()?;
    extrapolate(gib, as_float(maps), as_float(headers), unchanged.seconds, &[census, sweep]);
    let mut figures = vec![
        ("scale_gib", Some(gib)),
        ("first_seconds", Some(first.seconds)),
        ("unchanged_seconds", Some(unchanged.seconds)),
        (
            "unchanged_stored_kib",
            number(&unchanged, "stored_bytes").map(|bytes| bytes / 1024.0),
        ),
        ("unchanged_list_calls", number(&unchanged, "list_calls")),
        ("unchanged_put_calls", number(&unchanged, "put_calls")),
        (
            "changed_stored_kib",
            number(&changed, "stored_bytes").map(|bytes| bytes / 1024.0),
        ),
        ("list_seconds", number(&changed, "list_seconds")),
        ("prune_packs", Some(as_float(packs))),
        ("prune_census_seconds", Some(census)),
        ("prune_sweep_seconds", Some(sweep)),
        ("maps_mib", Some(as_float(maps) / 1024.0 / 1024.0)),
        ("header_kib", Some(as_float(headers) / 1024.0)),
        ("state_mib", Some(as_float(state) / 1024.0 / 1024.0)),
        ("peak_rss_mib", peak_kib.map(|kib| as_float(kib) / 1024.0)),
    ];
    figures.extend(files);
    std::fs::remove_dir_all(&room.folder)?;
    Ok(figures)
}

/// What grows with the size, for one and ten terabytes of which nothing compresses.
fn extrapolate(gib: f64, maps: f64, header: f64, unchanged_seconds: f64, prune_seconds: &[f64]) {
    println!("  extrapolated for data that does not compress (calculated from the format where this run has no figure):");
    for terabytes in [1.0, 10.0] {
        let factor = terabytes * 1e12 / (gib * 1024.0 * 1024.0 * 1024.0);
        let packs = terabytes * 1e12 / PACK_BYTES;
        println!(
            "  {terabytes:>3} TB: maps {:.0} MiB, {packs:.0} packs, backup file {:.1} MiB, {:.0} pages of a list of 1000 names, unchanged {:.0} min, prune {:.0} s",
            maps * factor / 1024.0 / 1024.0,
            (header + packs * CLOSURE_BYTES_PER_PACK) / 1024.0 / 1024.0,
            packs / 1000.0,
            unchanged_seconds * factor / 60.0,
            prune_seconds.iter().sum::<f64>() * factor,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures need four digits")]
const fn as_float(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of packs")]
const fn f64_to_count(number: f64) -> u64 {
    number as u64
}

/// One run of a driver.
struct Run {
    seconds: f64,
    peak_rss_kib: u64,
    report: Value,
}

/// Where it happens.
struct Room<'bench> {
    options: &'bench Options,
    folder: PathBuf,
}

impl Room<'_> {
    /// A backup of the made-up database.
    fn database(&self, gib: u32, round: u32) -> Result<Run> {
        let run = self.drive(&["--gib", &gib.to_string(), "--round", &round.to_string()])?;
        println!("  {gib} GiB, round {round}: {:.1} s, {}", run.seconds, run.report);
        Ok(run)
    }

    /// The seconds of the two runs of a prune that takes all backups but one, and `packs` packs.
    fn prune(&self, packs: u64) -> Result<(f64, f64)> {
        let run = self.drive(&["--prune", &packs.to_string()])?;
        println!("  prune of {packs} packs: {}", run.report);
        let seconds = |step: usize| run.report.get(step)?.get("seconds")?.as_f64();
        let swept = run.report.pointer("/1/swept").and_then(Value::as_u64);
        anyhow::ensure!(swept >= Some(packs), "the prune did not delete the packs");
        seconds(0).zip(seconds(1)).context("the driver printed no seconds")
    }

    /// Runs the driver on the one store there is.
    fn drive(&self, words: &[&str]) -> Result<Run> {
        let driver = self.options.repo_bench.with_file_name("scale_bench");
        let mut command = Command::new(driver);
        command.args(words);
        command.arg("--store").arg(self.folder.join("store"));
        command.arg("--state").arg(self.folder.join("state"));
        let Measured {
            seconds,
            peak_rss_kib,
            stdout,
        } = measured(&mut command)?;
        let line = stdout.lines().last().context("the driver printed no figures")?;
        Ok(Run {
            seconds,
            peak_rss_kib,
            report: serde_json::from_str(line)?,
        })
    }

    /// Two backups of many small files, through the product itself.
    fn files(&self) -> Result<Figures> {
        let root = self.folder.join("files");
        let count = if self.options.quick { FILES / 100 } else { FILES };
        make_files(&root.join("tree"), count)?;
        sh::output(self.lifeboat(&root, ["key", "new", "key.txt"]).current_dir(&root))?;
        let public = public_key(&root.join("key.txt"))?;
        let configuration = |instance: &str| {
            format!(
                "version: 1\ninstance: {{ name: bench, state_dir: state }}\ninstances: {{ bench: \"{instance}\" }}\n\
                 keys: {{ main: {{ age: {{ recipients: [{public}], identity: {{ file: key.txt }} }} }} }}\n\
                 stores: {{ disk: {{ fs: {{ path: store }} }} }}\n\
                 systems: {{ bench: {{ components: {{ tree: {{ files: {{ include: [tree] }}, backup: {{ to: [disk] }} }} }} }} }}\n"
            )
        };
        let file = root.join("lifeboat.yaml");
        // Any valid key will do until `init` has made the real one and named it.
        std::fs::write(
            &file,
            configuration("ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
        )?;
        let said = self.lifeboat(&root, ["init"]).output()?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let instance = said
            .split(['"', ' ', '\n'])
            .find(|word| word.starts_with("ed25519:"))
            .context("init named no public key")?;
        std::fs::write(&file, configuration(instance))?;
        let first = measured(&mut self.lifeboat(&root, ["backup"]))?;
        let before = data::size_of(&root.join("store"))?;
        let again = measured(&mut self.lifeboat(&root, ["backup"]))?;
        let stored = data::size_of(&root.join("store"))?.saturating_sub(before);
        Ok(vec![
            ("files_first_seconds", Some(first.seconds)),
            ("files_unchanged_seconds", Some(again.seconds)),
            ("files_unchanged_stored_kib", Some(as_float(stored) / 1024.0)),
            (
                "files_peak_rss_mib",
                Some(as_float(first.peak_rss_kib.max(again.peak_rss_kib)) / 1024.0),
            ),
        ])
    }

    fn lifeboat<const N: usize>(&self, folder: &Path, words: [&str; N]) -> Command {
        let mut command = Command::new(&self.options.lifeboat);
        command.args(words).arg("--config").arg(folder.join("lifeboat.yaml"));
        command
    }
}

/// `count` files of about a kilobyte, a thousand to a folder, all different.
fn make_files(tree: &Path, count: usize) -> Result<()> {
    for folder in 0..count.div_ceil(1000) {
        let path = tree.join(format!("{folder:04}"));
        std::fs::create_dir_all(&path)?;
        for file in 0..1000.min(count - folder * 1000) {
            let line = format!("setting of file {file} in folder {folder}\n");
            std::fs::write(path.join(format!("{file:04}.conf")), line.repeat(26))?;
        }
    }
    Ok(())
}

fn public_key(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.split_once("public key: "));
    Ok(line
        .context("the key file does not name its public half")?
        .1
        .trim()
        .to_owned())
}
