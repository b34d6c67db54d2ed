//! The server of log that the first call in a restored directory starts.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_testkit::postgres::{Cluster, Options, majors};
use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};

use crate::world::World;

/// A restored directory that nobody has started, and the name of the first segment that it needs.
fn restored(world: &World, cluster: &Cluster) -> (PathBuf, String) {
    let entry = format!(
        "systems:\n  bank:\n    components:\n      db:\n        postgres: {{ url: \"{}\", binaries: [{}] }}\n        objectives: {{ rpo: 1h, rto: 1h }}\n        backup: {{ to: [disk] }}\n",
        cluster.url("postgres", "postgres"),
        cluster.bindir().display(),
    );
    world.edit_config("systems:\n", &entry);
    world.run(&["backup", "bank"]).ends(0);
    let to = cluster.folder().join("restored");
    world
        .run(&["restore", "bank", "--to", to.to_str().unwrap(), "--no-replay"])
        .ends(0);
    let label = std::fs::read_to_string(to.join("backup_label")).unwrap();
    let name = label.split("(file ").nth(1).unwrap().split(')').next().unwrap().to_owned();
    let file = to.join("lifeboat/restore.json");
    refuse_root(world, &file, &name);
    (file, name)
}

/// As root the server of log does not write where the user of the database server could put links in the way; then we make the folder our own.
fn refuse_root(world: &World, file: &Path, name: &str) {
    let folder = file.parent().unwrap();
    if !geteuid().is_root() {
        return;
    }
    assert_ne!(folder.metadata().unwrap().uid(), 0);
    let (shown, dest) = (file.display().to_string(), world.shown("dest"));
    let fetch = ["wal", "fetch", "--patience", "20", "--restore", &shown, name, &dest];
    for words in [&fetch[..], &["wal", "serve", "--restore", &shown]] {
        let ran = world.run(words);
        assert!(
            ran.code != 0 && ran.stderr.contains("as that user"),
            "{} {}",
            ran.code,
            ran.stderr
        );
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    for place in [folder, file] {
        std::os::unix::fs::chown(place, Some(0), None).unwrap();
    }
}

fn pid(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file.parent().unwrap().join("lock")).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Waits until a process is gone, with a deadline.
fn wait_until_gone(pid: Pid) {
    for _ in 0..600 {
        // A child of ours that nobody waited for would stay; it is a child of init.
        if test_kill_process(pid).is_err() {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    panic!("process {pid:?} is still there");
}

#[test]
fn the_first_call_starts_a_server_of_log_and_a_killed_one_is_started_again() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let world = World::protected();
    let (file, name) = restored(&world, &cluster);
    let shown = file.display().to_string();
    let fetch = |dest: &str, code: i32| {
        let dest = world.shown(dest);
        world
            .run(&["wal", "fetch", "--patience", "20", "--restore", &shown, &name, &dest])
            .ends(code)
    };
    // Two at once: one server, two answers.
    std::thread::scope(|scope| {
        scope.spawn(|| fetch("first", 0));
        scope.spawn(|| fetch("second", 0));
    });
    let first = std::fs::read(world.path("first")).unwrap();
    assert_eq!(first.len(), 16 << 20);
    assert!(first == std::fs::read(world.path("second")).unwrap());
    let server = pid(&file).unwrap();
    kill_process(server, Signal::KILL).unwrap();
    wait_until_gone(server);
    fetch("third", 0);
    let again = pid(&file).unwrap();
    assert_ne!(server, again);
    fetch("fourth", 0);
    assert_eq!(pid(&file), Some(again), "one server serves them all");
    // It goes when the directory does.
    std::fs::remove_file(&file).unwrap();
    wait_until_gone(again);
    let gone = fetch("fifth", 255);
    assert!(!world.path("fifth").try_exists().unwrap());
    assert!(gone.stderr.contains("restore.json"), "{}", gone.stderr);
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn a_server_of_log_that_cannot_read_its_configuration_or_key_says_so() {
    let cluster = Cluster::start(majors()[1], &Options::new());
    let world = World::protected();
    let (file, name) = restored(&world, &cluster);
    let text = std::fs::read_to_string(&file).unwrap();
    let fetch = || {
        let dest = world.shown("dest");
        let words = [
            "wal",
            "fetch",
            "--patience",
            "20",
            "--restore",
            file.to_str().unwrap(),
            &name,
            &dest,
        ];
        let ran = world.run(&words).ends(255);
        assert!(!world.path("dest").try_exists().unwrap());
        assert!(ran.stderr.contains("as the user of the database server"), "{}", ran.stderr);
        ran.stderr
    };
    std::fs::write(&file, text.replace("lifeboat.yaml", "nothing.yaml")).unwrap();
    assert!(fetch().contains("nothing.yaml"));
    std::fs::write(&file, "{ half").unwrap();
    assert!(fetch().contains("restore.json"));
    std::fs::write(&file, text).unwrap();
    std::fs::rename(world.key(), world.path("away")).unwrap();
    assert!(fetch().contains("private key"));
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}
