//! A machine set back to a snapshot, and a machine and its clone: state folder, clock and source of randomness all repeat.
//! INV-05: no key and nonce seal two plaintexts all the same, and every backup restores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_model::Env;
use lifeboat_testkit::env::sim_env;
use lifeboat_testkit::pages::{change_pages, random_bytes, table_pages};

use super::sealed;
use super::world::{Content, Files, World, copy_folder, pages, seed, write};
use crate::{Backup, Committed, Encryption};

struct Machine {
    env: Env,
    state_dir: PathBuf,
    files: Files,
    /// Decides what its users do.
    seed: u64,
}

impl Machine {
    fn use_it(&mut self, round: u64) {
        for content in self.files.values_mut() {
            match content {
                Content::Pages(bytes, page_size) => drop(change_pages(bytes, *page_size, self.seed * 1000 + round, 4)),
                Content::Stream(bytes) => *bytes = random_bytes(self.seed * 1000 + round, 150_000),
            }
        }
    }

    async fn backup(&mut self, world: &World, clear: bool) -> Committed {
        let mut plan = world.plan();
        plan.state_dir.clone_from(&self.state_dir);
        if clear {
            plan.encryption = Encryption::Clear;
        }
        write(&self.env, &world.repository, plan, &self.files).await.unwrap()
    }
}

fn source() -> Files {
    let mut files = pages("db", table_pages(1, 4096, 5 * 32 + 3), 4096);
    files.insert("log".into(), Content::Stream(random_bytes(2, 150_000)));
    files
}

fn machine(env_seed: u64, state_dir: &Path, files: &Files, seed: u64) -> Machine {
    Machine {
        env: Env {
            threads: 1,
            ..sim_env(env_seed).0
        },
        state_dir: state_dir.to_owned(),
        files: files.clone(),
        seed,
    }
}

async fn assert_all(world: &World, history: &[(Backup, Files)]) {
    let listing = world.listing().await;
    assert!(listing.rejected.is_empty(), "{:?}", listing.rejected);
    assert_eq!(listing.backups.len(), history.len());
    for (backup, files) in history {
        world.assert_holds(backup, files).await;
    }
    let judged = sealed::judge();
    assert_eq!(judged.repeated, 0, "{judged:?}");
    assert!(judged.seals > 0);
    eprintln!(
        "rewound_machine: {} backups restored, {} seals, no nonce twice",
        history.len(),
        judged.seals
    );
}

/// Cloned, and both run on with the same randomness for a while.
async fn cloned(clear: bool, with_state: bool) {
    let world = World::new(seed()).await;
    let first = world.folder.path().join("first");
    let mut history = Vec::new();
    let mut original = machine(77, &first, &source(), 1);
    if with_state {
        for round in 0..2 {
            original.use_it(round);
            history.push((original.backup(&world, clear).await.backup, original.files.clone()));
        }
    }
    let second = world.folder.path().join("second");
    if with_state {
        copy_folder(&first, &second);
    }
    let mut one = machine(99, &first, &original.files, 2);
    let mut other = machine(99, &second, &original.files, 3);
    let mut shared_sessions = 0;
    for round in 0..4 {
        for machine in [&mut one, &mut other] {
            machine.use_it(round);
            let committed = machine.backup(&world, clear).await;
            shared_sessions += usize::from(
                history
                    .iter()
                    .any(|(backup, _)| backup.header.session == committed.backup.header.session),
            );
            history.push((committed.backup, machine.files.clone()));
        }
    }
    assert!(shared_sessions > 0, "the clones really drew the same");
    assert_all(&world, &history).await;
    let judged = sealed::judge();
    assert!(
        judged.same_offset > 0,
        "a nonce without the id would have repeated: {judged:?}"
    );
}

#[tokio::test]
async fn inv_05_rewound_machine_cloned_repeats_no_nonce() {
    for clear in [false, true] {
        for with_state in [true, false] {
            cloned(clear, with_state).await;
        }
    }
}

/// Design test 3, with the two around it. Set back three backups, with all it knew; then it lives another life.
#[tokio::test]
async fn inv_05_rewound_machine_repeats_no_nonce() {
    for clock_too in [true, false] {
        let world = World::new(seed() + 5).await;
        let state = world.folder.path().join("machine");
        let mut history = Vec::new();
        let mut machine_now = machine(41, &state, &source(), 1);
        machine_now.use_it(0);
        history.push((machine_now.backup(&world, false).await.backup, machine_now.files.clone()));
        let snapshot = world.folder.path().join("snapshot");
        copy_folder(&state, &snapshot);
        let files = machine_now.files.clone();
        // From here the randomness of both lives is that of seed 42.
        for life in [2, 3] {
            let mut lived = machine(42, &state, &files, life);
            if !clock_too {
                let (env, clock) = sim_env(42);
                clock.step_wall_us(1_000_000 * i64::try_from(life).unwrap());
                lived.env = Env { threads: 1, ..env };
            }
            for round in 0..3 {
                lived.use_it(round);
                history.push((lived.backup(&world, false).await.backup, lived.files.clone()));
            }
            std::fs::remove_dir_all(&state).unwrap();
            copy_folder(&snapshot, &state);
        }
        assert_all(&world, &history).await;
        let sessions: std::collections::BTreeSet<_> = history.iter().map(|(backup, _)| backup.header.session).collect();
        assert_eq!(
            sessions.len() < history.len(),
            clock_too,
            "the rewound machine drew what it had drawn"
        );
    }
}

/// Two machines that repeat each other at the very same time.
#[tokio::test]
async fn inv_05_rewound_machine_cloned_in_the_middle() {
    let world = World::new(seed() + 6).await;
    let paths = ["a", "b"].map(|name| world.folder.path().join(name));
    let mut one = machine(7, &paths[0], &source(), 1);
    let mut other = machine(7, &paths[1], &source(), 2);
    let mut history = Vec::new();
    for round in 0..3 {
        one.use_it(round);
        other.use_it(round);
        let (first, second) = tokio::join!(one.backup(&world, false), other.backup(&world, false));
        history.push((first.backup, one.files.clone()));
        history.push((second.backup, other.files.clone()));
    }
    assert_all(&world, &history).await;
    let _keep: Arc<_> = world.instance;
}
