//! `bench postgres`: a running cluster of 2.5 GB, backed up and restored, against pgBackRest and `pg_basebackup`.
//!
//! PostgreSQL 15 of Debian on this host; pgBackRest of Debian with two processes and zstd 1, its repository unencrypted, ours encrypted. Caches are warm,
//! every side ends with its file system synced. A restored cluster is not started: both sides leave the replay to the server.

mod log;
mod majors;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::alternate::{Side, alternate};
use super::measure::{Measured, measured};
use super::postgres::{Server, USER};
use super::s3::credentials;
use super::{Figures, Options, data, ratio};
use crate::setup::{self, Need};
use crate::sh;

const NEEDS: &[Need] = &[
    Need {
        program: "pgbackrest",
        package: "pgbackrest",
    },
    Need {
        program: "zstd",
        package: "zstd",
    },
];

/// How pgBackRest knows the cluster.
const STANZA: &str = "bench";

/// Everything that exists so far, in one run. What does not is `null`.
pub(super) fn run(options: &Options) -> Result<Figures> {
    setup::packages(NEEDS)?;
    let room = Room::new(options)?;
    if let Some(part) = &options.only {
        let figures = log::part(&room, part)?;
        room.remove()?;
        return Ok(figures);
    }
    let first = alternate(
        "first backup",
        options.rounds,
        vec![
            Side::new("lifeboat", |_| room.first_backup()),
            Side::new("pgbackrest", |_| room.pgbackrest_first()),
            Side::new("basebackup", |_| room.basebackup()),
        ],
    )?;
    let [ours, theirs, base] = first.as_slice() else {
        bail!("three sides make three medians");
    };
    let sizes = room.stored()?;
    println!("  stored: lifeboat {} MiB, pgBackRest {} MiB", sizes.0 >> 20, sizes.1 >> 20);
    let restored = alternate(
        "restore",
        options.rounds,
        vec![
            Side::new("lifeboat", |round| room.restore(round)),
            Side::new("pgbackrest", |round| room.pgbackrest_restore(round, &[])),
        ],
    )?;
    let [our_restore, their_restore] = restored.as_slice() else {
        bail!("two sides make two medians");
    };
    // Both directories of the last round are as they were stored.
    let last = options.rounds - 1;
    let same = room.restored("lifeboat", last);
    let delta = alternate(
        "delta restore of an unchanged directory",
        options.rounds,
        vec![
            Side::new("lifeboat", |_| room.delta_restore(&same)),
            Side::new("pgbackrest", |_| room.pgbackrest_restore(last, &["--delta"])),
        ],
    )?;
    let [our_delta, their_delta] = delta.as_slice() else {
        bail!("two sides make two medians");
    };
    for (round, name) in (0..options.rounds).flat_map(|round| [(round, "lifeboat"), (round, "pgbackrest")]) {
        std::fs::remove_dir_all(room.restored(name, round))?;
    }
    let incremental = room.incremental(options)?;
    let log = log::run(&room)?;
    let peak = room.peak_kib.get();
    room.remove()?;
    let majors = majors::run(options)?;
    let mut figures = vec![
        ("backup_vs_pgbackrest", ratio(*theirs, *ours)),
        ("backup_vs_pg_basebackup", ratio(*base, *ours)),
        ("stored_vs_pgbackrest", ratio(Some(float(sizes.0)), Some(float(sizes.1)))),
        ("incremental_stored_vs_pgbackrest", incremental.0),
        ("incremental_vs_pgbackrest", incremental.1),
        ("restore_vs_pgbackrest", ratio(*their_restore, *our_restore)),
        ("delta_restore_vs_pgbackrest", ratio(*their_delta, *our_delta)),
        ("peak_rss_mib", Some(float(peak) / 1024.0)),
        ("backup_seconds", *ours),
        ("restore_seconds", *our_restore),
    ];
    figures.extend(log);
    figures.extend(majors);
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "figures need four digits")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}

/// The cluster, and where the sides put what they make.
struct Room<'bench> {
    options: &'bench Options,
    server: Server,
    folder: PathBuf,
    home: Home,
    peak_kib: std::cell::Cell<u64>,
}

/// A configuration of ours with its key, state and store, where the server's user can get to.
pub(super) struct Home {
    pub(super) folder: PathBuf,
    lifeboat: PathBuf,
}

impl Home {
    /// `store` is named like the folder. Each has a slot of its own.
    fn new(room: &Room<'_>, name: &str, store: &str) -> Result<Self> {
        Self::make(room.options, &room.server, name, store, "auto")
    }

    pub(super) fn make(options: &Options, server: &Server, name: &str, store: &str, mode: &str) -> Result<Self> {
        let lifeboat = server.folder.join("lifeboat-program");
        if !lifeboat.try_exists()? {
            std::fs::copy(&options.lifeboat, &lifeboat)?;
        }
        let home = Self {
            folder: server.folder.join(name),
            lifeboat,
        };
        std::fs::create_dir(&home.folder)?;
        sh::output(home.program(&["key", "new", "key.txt"]).current_dir(&home.folder))?;
        let text = std::fs::read_to_string(home.folder.join("key.txt"))?;
        let public = text.lines().find_map(|line| line.split_once("public key: "));
        let public = public.context("the key file does not name its public half")?.1.trim();
        let write = |instance: &str| {
            let text = format!(
                "version: 1\ninstance: {{ name: bench, state_dir: state }}\ninstances: {{ bench: \"{instance}\" }}\n\
                 keys: {{ main: {{ age: {{ recipients: [{public}], identity: {{ file: key.txt }} }} }} }}\n\
                 stores: {{ {name}: {{ {store} }} }}\n\
                 systems: {{ bench: {{ components: {{ db: {{ objectives: {{ rpo: 1h, rto: 1h }}, postgres: {{ host: {socket}, user: {USER}, \
                 database: bench, slot: bench_{name}, mode: {mode} }}, backup: {{ to: [{name}] }} }} }} }} }}\n",
                socket = server.folder.display()
            );
            std::fs::write(home.folder.join("lifeboat.yaml"), text)
        };
        // Any valid key will do until `init` has made the real one and named it.
        write("ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")?;
        let mut init = home.program(&["--config"]);
        let said = init.arg(home.folder.join("lifeboat.yaml")).arg("init").output()?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let instance = said.split(['"', ' ', '\n']).find(|word| word.starts_with("ed25519:"));
        write(instance.context("init named no public key")?)?;
        Ok(home)
    }

    fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.lifeboat);
        // For a store that asks for any.
        credentials(&mut command).args(words);
        command
    }

    /// Begins anew, with a store of which this host remembers nothing.
    pub(super) fn empty(&self) -> Result<()> {
        let (store, state) = (self.folder.join("store"), self.folder.join("state"));
        if store.try_exists()? {
            std::fs::remove_dir_all(&store)?;
        }
        for entry in std::fs::read_dir(&state)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        sh::output(&mut self.lifeboat(&["init", "--no-backup"]))?;
        Ok(())
    }

    /// Bytes that backups take in the store, without the log.
    pub(super) fn stored(&self) -> Result<u64> {
        let packs = self.folder.join("store/c/bench~2Fdb");
        let log = packs.join("log");
        let log = if log.try_exists()? { data::size_of(&log)? } else { 0 };
        Ok(data::size_of(&packs)? - log)
    }

    pub(super) fn lifeboat(&self, words: &[&str]) -> Command {
        let mut command = self.loud(&["--quiet"]);
        command.args(words);
        command
    }

    /// The same, which says what it does.
    pub(super) fn loud(&self, words: &[&str]) -> Command {
        let mut command = self.program(&["--config"]);
        command.arg(self.folder.join("lifeboat.yaml")).args(words);
        command
    }
}

impl<'bench> Room<'bench> {
    fn new(options: &'bench Options) -> Result<Self> {
        let folder = options.folder.join("postgres-run");
        if folder.try_exists()? {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        // Durable, as a server that matters is.
        let server = Server::start("-c fsync=on -c wal_level=replica -c archive_mode=on -c archive_timeout=0")?;
        let (scale, rows) = if options.quick { ("5", "50000") } else { ("110", "2200000") };
        server.fill(scale, rows)?;
        let home = Home::make(options, &server, "disk", "fs: { path: store }", "auto")?;
        let room = Self {
            options,
            server,
            folder,
            home,
            peak_kib: std::cell::Cell::new(0),
        };
        room.configure_pgbackrest()?;
        println!("  the cluster has {} MiB", data::size_of(&room.server.data())? >> 20);
        Ok(room)
    }

    fn remove(self) -> Result<()> {
        self.server.stop()?;
        std::fs::remove_dir_all(&self.folder)?;
        self.server.remove()
    }

    fn pgbackrest_folder(&self) -> PathBuf {
        self.server.folder.join("pgbackrest")
    }

    fn configure_pgbackrest(&self) -> Result<()> {
        let folder = self.pgbackrest_folder();
        let text = format!(
            "[global]\nrepo1-path={folder}/repo\nlog-path={folder}/log\nlock-path={folder}/lock\nspool-path={folder}/spool\nprocess-max=2\n\
             compress-type=zst\ncompress-level=1\nstart-fast=y\nlog-level-console=warn\nlog-level-file=off\nrepo1-retention-full=9\n\
             [{STANZA}]\npg1-path={data}\npg1-socket-path={socket}\npg1-user=postgres\npg1-database=bench\n",
            folder = folder.display(),
            data = self.server.data().display(),
            socket = self.server.folder.display(),
        );
        sh::run(
            self.server
                .command(Path::new("mkdir"))
                .arg("-p")
                .args(["log", "lock", "spool", "repo"].map(|name| folder.join(name))),
        )?;
        let file = self.folder.join("pgbackrest.conf");
        std::fs::write(&file, text)?;
        sh::run(sh::program("chmod", ["a+r"]).arg(&file))?;
        sh::run(self.server.command(Path::new("cp")).arg(&file).arg(self.configuration()))?;
        let command = format!(
            "alter system set archive_command = 'pgbackrest --config={} --stanza={STANZA} archive-push %p'",
            self.configuration().display()
        );
        self.server.sql(&command)?;
        self.server.sql("select pg_reload_conf()")
    }

    fn configuration(&self) -> PathBuf {
        self.pgbackrest_folder().join("pgbackrest.conf")
    }

    fn pgbackrest(&self, words: &[&str]) -> Command {
        let mut command = self.server.command(Path::new("pgbackrest"));
        command
            .arg(format!("--config={}", self.configuration().display()))
            .arg(format!("--stanza={STANZA}"))
            .args(words);
        command
    }

    /// A new repository each time.
    fn pgbackrest_first(&self) -> Result<f64> {
        let repo = self.pgbackrest_folder().join("repo");
        sh::run(self.server.command(Path::new("rm")).arg("-rf").arg(&repo))?;
        sh::run(self.server.command(Path::new("mkdir")).arg(&repo))?;
        sh::run(&mut self.pgbackrest(&["stanza-create"]))?;
        data::sync(&self.folder)?;
        self.timed(&mut self.pgbackrest(&["--type=full", "backup"]))
            .map(|run| run.seconds)
    }

    fn basebackup(&self) -> Result<f64> {
        let to = self.server.folder.join("basebackup.tar.zst");
        let script = format!(
            "set -o pipefail; /usr/lib/postgresql/15/bin/pg_basebackup -Ft -X fetch -c fast -D - | zstd -q -1 -T2 -f -o {} && sync -f {}",
            to.display(),
            self.server.folder.display()
        );
        let mut command = self.server.command(Path::new("bash"));
        let run = self.timed(command.args(["-c", &script]))?;
        std::fs::remove_file(&to)?;
        Ok(run.seconds)
    }

    /// A new store each time, of which this host remembers nothing.
    fn first_backup(&self) -> Result<f64> {
        self.home.empty()?;
        data::sync(&self.folder)?;
        let run = self.timed(&mut self.home.lifeboat(&["backup"]))?;
        self.saw(&run);
        Ok(run.seconds)
    }

    /// Where a restore goes: each to a directory of its own, and none is removed before all have run. The kernel looks at every inode that was deleted a
    /// moment ago before it takes a free one, which made restores after a removal slower by up to a second, by chance the one or the other.
    fn restored(&self, name: &str, round: usize) -> PathBuf {
        self.server.folder.join(format!("restored-{name}-{round}"))
    }

    fn restore(&self, round: usize) -> Result<f64> {
        let to = self.restored("lifeboat", round);
        data::sync(&self.folder)?;
        let mut command = self.home.lifeboat(&["restore", "bench/db", "--no-replay", "--to"]);
        let run = self.timed(command.arg(&to))?;
        self.saw(&run);
        Ok(run.seconds)
    }

    /// Onto a directory that is right.
    fn delta_restore(&self, to: &Path) -> Result<f64> {
        data::sync(&self.folder)?;
        let mut command = self
            .home
            .lifeboat(&["restore", "bench/db", "--no-replay", "--overwrite", "--yes", "--to"]);
        let run = self.timed(command.arg(to))?;
        self.saw(&run);
        Ok(run.seconds)
    }

    /// Into a new directory, unless it is a delta restore.
    fn pgbackrest_restore(&self, round: usize, words: &[&str]) -> Result<f64> {
        let to = self.restored("pgbackrest", round);
        if words.is_empty() {
            sh::run(self.server.command(Path::new("mkdir")).args(["-m", "700"]).arg(&to))?;
        }
        data::sync(&self.folder)?;
        let place = format!("--pg1-path={}", to.display());
        let mut command = self.pgbackrest(&[place.as_str()]);
        self.timed(command.args(words).arg("restore")).map(|run| run.seconds)
    }

    /// What both repositories hold.
    fn stored(&self) -> Result<(u64, u64)> {
        let theirs = self.pgbackrest_folder().join("repo/backup");
        Ok((self.home.stored()?, data::size_of(&theirs)?))
    }

    /// After twenty seconds of pgbench: stored bytes, and seconds, against an incremental backup of pgBackRest.
    fn incremental(&self, options: &Options) -> Result<(Option<f64>, Option<f64>)> {
        let seconds = if options.quick { "2" } else { "20" };
        self.server
            .run("pgbench", &["-T", seconds, "-c", "4", "-j", "2", "-n", "bench"])?;
        let before = self.stored()?;
        let ours = self.timed(&mut self.home.lifeboat(&["backup"]))?;
        let theirs = self.timed(&mut self.pgbackrest(&["--type=incr", "backup"]))?;
        let after = self.stored()?;
        let (ours_stored, theirs_stored) = (after.0 - before.0, after.1 - before.1);
        println!(
            "  incremental: lifeboat {:.1} s, {} KiB; pgBackRest {:.1} s, {} KiB",
            ours.seconds,
            ours_stored >> 10,
            theirs.seconds,
            theirs_stored >> 10
        );
        Ok((
            ratio(Some(float(ours_stored)), Some(float(theirs_stored))),
            ratio(Some(theirs.seconds), Some(ours.seconds)),
        ))
    }

    /// Lets the server's user read and write all of it.
    fn give(&self, folder: &Path) -> Result<()> {
        sh::run(sh::program("chown", ["-R", USER]).arg(folder))
    }

    /// Makes it ours again.
    fn take_back(&self, folder: &Path) -> Result<()> {
        let user = sh::output(&mut sh::program("id", ["-un"]))?;
        sh::run(sh::program("chown", ["-R", user.trim()]).arg(folder))
    }

    /// Remembers the largest peak of our runs.
    fn saw(&self, run: &Measured) {
        self.peak_kib.set(self.peak_kib.get().max(run.peak_rss_kib));
    }

    /// Ends with everything on the disk.
    fn timed(&self, command: &mut Command) -> Result<Measured> {
        let mut run = measured(command)?;
        let began = std::time::Instant::now();
        data::sync(&self.server.folder)?;
        data::sync(&self.folder)?;
        run.seconds += began.elapsed().as_secs_f64();
        Ok(run)
    }
}
