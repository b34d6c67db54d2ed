//! Drills that are killed at each of their steps: the next command says so, and nothing is left of the sandbox (DR-03).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lifeboat_testkit::postgres::majors;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster_checks::{INIT, cluster, set_up};
use crate::world::World;

/// Begins a drill and kills it when it says that this step begins. Returns where it staged a cluster.
fn killed_at(world: &World, step: &str) -> Vec<PathBuf> {
    let mut command = world.command();
    let mut child = command
        .args(["--progress", "json", "drill"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said = |line: &String| serde_json::from_str::<Value>(line).is_ok_and(|line| line["step"] == step);
    let began = lines.into_iter().any(|line| said(&line));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(began, "it never came to {step}");
    let restores = std::fs::read_dir(world.state_dir().join("restores"));
    let names = restores.into_iter().flatten().map(|entry| entry.unwrap().path());
    let staged = names.filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".underway").map(str::to_owned));
    staged
        .map(|id| Path::new("/var/tmp").join(format!("lifeboat-{id}")))
        .collect()
}

/// A server that still runs on this folder.
fn runs_on(folder: &Path) -> bool {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(&folder))
}

/// Each drill that began has its report, and the scratch folder is empty.
fn all_is_settled(world: &World, drills: usize) {
    let table = world.run(&["drill", "report", "--table", "--json"]).ends(0).json("drills");
    assert_eq!(table["drills"].as_array().unwrap().len(), drills, "{table:#}");
    let scratch = world.state_dir().join("scratch");
    let left = std::fs::read_dir(&scratch).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{} holds something", scratch.display());
}

#[test]
fn a_drill_of_a_database_that_is_killed_leaves_nothing_but_evidence() {
    let world = World::protected();
    world.add_rows("shop.db", 100_000);
    world.run(&["backup"]).ends(0);
    let steps = ["choose the point", "fetch", "check", "clean up", "negative control"];
    for (done, step) in steps.iter().enumerate() {
        killed_at(&world, step);
        all_is_settled(&world, done + 1);
    }
    world.run(&["drill"]).ends(0);
    all_is_settled(&world, steps.len() + 1);
}

#[test]
fn a_drill_of_a_cluster_that_is_killed_leaves_neither_files_nor_a_server() {
    let cluster = cluster(majors()[0]);
    let world = set_up(&cluster);
    world
        .run(&[&INIT[..], &["--postgres", &cluster.url("postgres", "postgres")]].concat())
        .ends(0);
    cluster.query("insert into heartbeat values (clock_timestamp())");
    world.run(&["follow", "--once"]);
    let is_soak = std::env::var_os("LIFEBOAT_SOAK").is_some_and(|value| value == "1");
    let steps: &[&str] = match is_soak {
        true => &[
            "choose the point",
            "find the target",
            "look through the log",
            "fetch",
            "replay",
            "check tables and indexes",
            "count rows",
            "ask what is wanted",
            "check pages",
            "clean up",
            "negative control",
        ],
        false => &["fetch", "replay", "check pages"],
    };
    let mut staged = Vec::new();
    for (done, step) in steps.iter().enumerate() {
        staged.extend(killed_at(&world, step));
        all_is_settled(&world, done + 1);
    }
    assert!(!staged.is_empty());
    // Whoever restores next stops the servers that were left.
    world.run(&["drill"]).ends(0);
    for folder in &staged {
        assert!(!folder.exists() && !runs_on(folder), "{} is still there", folder.display());
    }
    all_is_settled(&world, steps.len() + 1);
}
