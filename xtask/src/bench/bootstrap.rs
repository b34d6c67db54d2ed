//! `bench bootstrap`: from an empty home directory with nothing but the program, the private key and the store to a server that answers, against the same
//! restore where Lifeboat is set up.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::alternate::{Side, alternate};
use super::cluster::Home;
use super::measure::measured;
use super::postgres::Server;
use super::{Figures, Options, data, ratio};

/// Where the restored server listens; the one it is a copy of still runs.
const PORT: &str = "5433";
/// What the restored server is asked.
const QUESTION: &str = "select count(*), sum(abalance) from pgbench_accounts";

/// The figures of one run.
pub(super) fn run(options: &Options) -> Result<Figures> {
    let server = Server::start("-c fsync=on")?;
    let (scale, rows) = if options.quick { ("5", "50000") } else { ("110", "2200000") };
    server.fill(scale, rows)?;
    let home = Home::make(options, &server, "disk", "fs: { path: store }", "auto")?;
    home.empty()?;
    measured(&mut home.lifeboat(&["backup"]))?;
    println!("  the cluster has {} MiB", data::size_of(&server.data())? >> 20);
    let wanted = server.ask(QUESTION)?;
    let (began, mut listed) = (server.folder.join("bare"), Vec::new());
    let times = alternate(
        "a server that answers",
        options.rounds,
        vec![
            Side::new("from nothing", |_| {
                let bare = Bare::make(&began, &home, &server)?;
                let start = Instant::now();
                listed.push(bare.bootstrap(&home)?);
                bare.restore()?;
                bare.answers(&wanted)?;
                let seconds = start.elapsed().as_secs_f64();
                bare.remove()?;
                Ok(seconds)
            }),
            Side::new("set up", |_| {
                let bare = Bare::make(&began, &home, &server)?;
                let start = Instant::now();
                bare.restored_by(&mut home.lifeboat(&["restore", "bench/db", "--yes", "--to"]))?;
                bare.answers(&wanted)?;
                let seconds = start.elapsed().as_secs_f64();
                bare.remove()?;
                Ok(seconds)
            }),
        ],
    )?;
    let [from_nothing, set_up] = times.as_slice() else {
        bail!("two sides make two medians");
    };
    server.stop()?;
    server.remove()?;
    Ok(vec![
        ("from_nothing_over_restore", ratio(*from_nothing, *set_up)),
        ("from_nothing_seconds", *from_nothing),
        ("restore_seconds", *set_up),
        ("bootstrap_seconds", super::alternate::median(listed)),
    ])
}

/// A home directory with nothing in it but the private key.
struct Bare<'bench> {
    server: &'bench Server,
    folder: &'bench Path,
    program: std::path::PathBuf,
}

impl<'bench> Bare<'bench> {
    fn make(folder: &'bench Path, home: &Home, server: &'bench Server) -> Result<Self> {
        std::fs::create_dir(folder)?;
        std::fs::copy(home.folder.join("key.txt"), folder.join("key.txt"))?;
        // The disk has nothing left to do.
        data::sync(&server.folder)?;
        Ok(Self {
            server,
            folder,
            program: server.folder.join("lifeboat-program"),
        })
    }

    /// The program as it is on a machine that knows nothing.
    fn lifeboat(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder)
            .current_dir(self.folder)
            .arg("--quiet")
            .args(words);
        command
    }

    /// Returns how long it took until everything that can be restored was listed.
    fn bootstrap(&self, home: &Home) -> Result<f64> {
        let store = home.folder.join("store");
        let store = store.to_str().context("a folder name that is not text")?;
        let words = ["bootstrap", store, "--key", "key.txt", "--to", "rescue", "--yes", "--json"];
        let done = measured(&mut self.lifeboat(&words))?;
        let said: Value = serde_json::from_str(&done.stdout)?;
        ensure!(
            said["components"][0]["component"] == "bench/db",
            "the component is not listed: {said:#}"
        );
        Ok(done.seconds)
    }

    fn restore(&self) -> Result<()> {
        self.restored_by(&mut self.lifeboat(&["--config", "rescue/lifeboat.yaml", "restore", "bench/db", "--yes", "--to"]))
    }

    fn restored_by(&self, command: &mut Command) -> Result<()> {
        measured(command.arg(self.restored())).map(drop)
    }

    fn restored(&self) -> std::path::PathBuf {
        self.server.folder.join("restored")
    }

    /// Starts a server on what was restored, and compares its answer.
    fn answers(&self, wanted: &str) -> Result<()> {
        let data = self.restored();
        let data = data.to_str().context("a folder name that is not text")?;
        let socket = self.server.folder.display();
        let settings = format!("-c listen_addresses= -c unix_socket_directories={socket} -c port={PORT}");
        let log = self.server.folder.join("restored.log");
        let log = log.to_str().context("a folder name that is not text")?;
        self.server
            .run("pg_ctl", &["-D", data, "-w", "-l", log, "-o", &settings, "start"])?;
        let mut psql = self.server.program("psql");
        psql.args(["-p", PORT, "-qAt", "-v", "ON_ERROR_STOP=1", "-d", "bench", "-c", QUESTION]);
        let answer = crate::sh::output(&mut psql)?;
        ensure!(
            answer == wanted,
            "the restored server answers {answer:?}, the original {wanted:?}"
        );
        Ok(())
    }

    /// Stops the server and removes everything.
    fn remove(&self) -> Result<()> {
        let data = self.restored();
        let text = data.to_str().context("a folder name that is not text")?;
        self.server.run("pg_ctl", &["-D", text, "-w", "-m", "fast", "stop"])?;
        std::fs::remove_dir_all(&data)?;
        std::fs::remove_dir_all(self.folder)?;
        Ok(())
    }
}
