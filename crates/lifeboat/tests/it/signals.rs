//! Ctrl-C and SIGTERM. The command under test waits in a pipe that nobody writes to, so that it is surely under way.

use std::fs::File;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

/// A `verify` that waits for its private key. It has come that far when somebody reads from the pipe.
fn waiting(world: &World, args: &[&str]) -> (Child, File) {
    let pipe = world.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let file = format!("identity: {{ file: {} }}", world.key().display());
    world.edit_config(&file, &format!("identity: {{ command: [cat, {}] }}", pipe.display()));
    let child = world
        .command()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Opening for writing waits for the reader.
    let writer = File::options().write(true).open(&pipe).unwrap();
    (child, writer)
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn ctrl_c_ends_with_130_and_says_what_holds() {
    let world = World::protected();
    let stored = || {
        let files = world.files("lifeboat-backups").into_iter();
        files
            .filter(|(path, _)| !path.to_string_lossy().contains("/ledger/"))
            .collect::<Vec<_>>()
    };
    let before = stored();
    let (child, _writer) = waiting(&world, &["verify"]);
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("interrupted: nothing was published; run the same command again"),
        "{said}"
    );
    assert!(stored() == before, "the store changed");
    let list = world
        .run(&["audit", "list", "--verb", "verify", "--json"])
        .ends(0)
        .json("audit-list");
    let records = list["components"][0]["records"].as_array().unwrap();
    assert_eq!(records.len(), 1, "{list:#}");
    assert_eq!(records[0]["outcome"], "interrupted");
    assert_eq!(records[0]["facts"]["exit_code"], 130);
}

#[test]
fn sigterm_ends_with_143() {
    let world = World::protected();
    let (child, _writer) = waiting(&world, &["verify", "--json"]);
    send(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&error["schema"], &error["kind"]),
        (&"lifeboat/v1/error".into(), &"terminated".into())
    );
}
