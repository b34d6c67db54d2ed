//! The deletion protocol, enumerated: every interleaving of two writers and two pruners, and one mutation per rule.
//!
//! `LIFEBOAT_SOAK=1` adds the worlds that take minutes; `--nocapture` prints the shortest run that each mutation breaks.

mod explore;
mod pruner;
mod world;
mod writer;

use std::collections::BTreeSet;
use std::time::Duration;

use explore::explore;
use lifeboat_model::protocol::{
    Backup, Census, Marks, ParentUse, Session, Standing, Stop, StoredFile, View, condemn, counts, is_spent, may_sweep,
    may_use_parent,
};
use world::{Flaw, State, World};

type Witness = fn(&World, &State) -> bool;

const WITNESSES: [Witness; 2] = [World::late_and_swept, World::pack_outlives_its_backup];

fn world(writers: usize, pruners: usize, flaws: &[Flaw]) -> World {
    let mut world = World::new(flaws);
    (world.writers, world.pruners) = (writers, pruners);
    world
}

#[allow(
    clippy::print_stdout,
    reason = "the runs and sizes are what a reader of the test wants to see"
)]
fn say(text: &str) {
    println!("{text}");
}

fn holds(what: &str, world: &World, witnesses: &[Witness]) {
    let found = explore(world, true, witnesses);
    say(&format!("{what}: {} states", found.states));
    if found.violation.is_some() {
        // Once more with every actor told apart, so that the run can be read.
        panic!("{what}:\n{}", explore(world, false, &[]).violation.unwrap());
    }
    assert!(
        found.witnessed.iter().all(|met| *met),
        "{what}: situations never reached: {:?}",
        found.witnessed
    );
}

fn breaks(flaws: &[Flaw], adjust: fn(&mut World)) {
    for (writers, pruners) in [(1, 1), (1, 2), (2, 1)] {
        let mut world = world(writers, pruners, flaws);
        adjust(&mut world);
        if let Some(run) = explore(&world, false, &[]).violation {
            say(&format!(
                "without {flaws:?}, {writers} writer(s) and {pruners} pruner(s):\n{run}"
            ));
            return;
        }
    }
    panic!("{flaws:?}: nothing breaks");
}

#[test]
fn inv_14_inv_15_two_writers_and_two_pruners() {
    let mut world = world(2, 2, &[]);
    (world.extensions, world.any_parent) = (false, false);
    let witnesses = [
        World::late_and_swept,
        World::pack_outlives_its_backup,
        World::both_made_and_swept,
    ];
    holds("two writers, two pruners", &world, &witnesses);
}

#[test]
fn inv_14_inv_15_extended_sessions_and_any_parent() {
    holds("two writers, one pruner", &world(2, 1, &[]), &WITNESSES);
}

#[test]
fn inv_14_inv_15_puts_that_land_twice_on_both_kinds_of_store() {
    for conditional_put in [true, false] {
        let mut world = world(1, 2, &[]);
        (world.repeats, world.conditional_put) = (true, conditional_put);
        holds(&format!("conditional put: {conditional_put}"), &world, &WITNESSES);
    }
}

#[test]
fn inv_13_a_listing_that_fails_or_hides_a_backup() {
    for (writers, pruners) in [(1, 1), (1, 2)] {
        let mut world = world(writers, pruners, &[]);
        world.faults = 1;
        holds("faulty listings", &world, &WITNESSES);
    }
}

#[test]
fn soak_the_large_worlds() {
    if std::env::var_os("LIFEBOAT_SOAK").is_none() {
        // The same search over the smallest world, so that this test means something on every run.
        holds("one writer, one pruner", &world(1, 1, &[]), &WITNESSES);
        return;
    }
    holds("two writers, two pruners, everything", &world(2, 2, &[]), &WITNESSES);
    for conditional_put in [true, false] {
        let mut twice = world(2, 1, &[]);
        (twice.repeats, twice.conditional_put) = (true, conditional_put);
        holds("two writers, puts land twice", &twice, &WITNESSES);
    }
    let mut faulty = world(2, 1, &[]);
    faulty.faults = 1;
    holds("two writers, faulty listings", &faulty, &WITNESSES);
}

#[test]
fn each_rule_of_the_writer_is_needed() {
    for flaw in [
        Flaw::CensusBeforeAnnounce,
        Flaw::ListParentBeforeCensus,
        Flaw::OnlyOneCensusRead,
        Flaw::DeadlineIgnored,
        Flaw::LateExtensionTaken,
    ] {
        breaks(&[flaw], |_| {});
    }
}

#[test]
fn each_rule_of_the_pruner_is_needed() {
    for flaw in [
        Flaw::SessionsSkipped,
        Flaw::SessionsListedLast,
        Flaw::BackupsNotReadAgain,
        Flaw::NoSweepList,
        Flaw::UnspentRemoved,
        Flaw::PacksBeforeBackups,
    ] {
        breaks(&[flaw], |_| {});
    }
    breaks(&[Flaw::SeenNotCompared], |world| world.faults = 1);
    // One failed listing is caught by the comparison; a folder that stays unreadable is not.
    breaks(&[Flaw::ErrorTakenForEmpty], |world| world.faults = 2);
}

/// Grace and the last look at the sweep lists are second lines: alone neither is missed, but each carries where the first
/// line fails. The documents say so; this keeps them honest.
#[test]
fn second_lines_hold_where_the_first_fails() {
    for flaw in [Flaw::NoGrace, Flaw::ConfirmSkipsSweepLists] {
        holds("second line", &world(1, 2, &[flaw]), &[]);
    }
    let mut blind = world(1, 2, &[Flaw::SessionsSkipped]);
    blind.extensions = false;
    holds("grace alone protects sessions that were never extended", &blind, &[]);
    breaks(&[Flaw::SessionsSkipped, Flaw::NoGrace], |world| world.extensions = false);
}

fn names(names: &[&'static str]) -> BTreeSet<&'static str> {
    names.iter().copied().collect()
}

fn view() -> View<&'static str> {
    View {
        files: vec![
            StoredFile {
                name: "p1",
                session: "s1",
            },
            StoredFile {
                name: "p2",
                session: "s2",
            },
        ],
        sessions: Vec::new(),
        asked_at: Duration::from_secs(100),
        held: BTreeSet::new(),
        backups: vec![Backup {
            name: "b1",
            files: names(&["p1"]),
        }],
    }
}

#[test]
fn inv_14_what_is_held_or_named_or_owned_is_not_condemned() {
    let all = Marks {
        backups: names(&["b1"]),
        files: names(&["p1", "p2"]),
    };
    assert_eq!(condemn(&view(), &names(&["b1"])), Ok(all));
    let held = View {
        held: names(&["b1"]),
        ..view()
    };
    assert_eq!(
        condemn(&held, &names(&["b1"])),
        Ok(Marks {
            backups: names(&[]),
            files: names(&["p2"])
        })
    );
    let session = Session {
        id: "s2",
        parent: Some("b1"),
        announced_at: Duration::from_secs(90),
        deadline: Duration::from_secs(11),
    };
    let open = View {
        sessions: vec![session.clone()],
        ..view()
    };
    assert!(condemn(&open, &names(&["b1"])).unwrap().is_empty());
    let over = View {
        sessions: vec![Session {
            deadline: Duration::from_secs(10),
            ..session.clone()
        }],
        ..view()
    };
    assert_eq!(condemn(&over, &names(&["b1"])).unwrap().files, names(&["p1", "p2"]));
    let unknown = View {
        sessions: vec![Session {
            parent: Some("b9"),
            ..session
        }],
        ..view()
    };
    assert_eq!(condemn(&unknown, &names(&["b1"])), Err(Stop::UnknownParent("b9")));
}

#[test]
fn a_sweep_waits_and_stops_where_a_backup_is_missing() {
    let census = Census {
        name: "c1",
        published_at: Duration::from_secs(60),
        seen: names(&["b1"]),
        condemned: Marks {
            backups: names(&["b1"]),
            files: names(&["p1"]),
        },
    };
    assert_eq!(may_sweep(&census, Duration::from_secs(41), &view()), Err(Stop::TooEarly));
    // p2 was not condemned by the census, so it stays, whatever it looks like now.
    assert_eq!(
        may_sweep(&census, Duration::from_secs(40), &view()),
        Ok(census.condemned.clone())
    );
    let hidden = View {
        backups: Vec::new(),
        ..view()
    };
    assert_eq!(
        may_sweep(&census, Duration::from_secs(40), &hidden),
        Err(Stop::BackupMissing("b1"))
    );
    assert!(!is_spent(&census.condemned, &names(&["p1"])));
    assert!(is_spent(&census.condemned, &names(&["p2"])));
}

#[test]
fn inv_15_a_backup_that_lacks_a_file_or_is_being_swept_does_not_count() {
    let backup = Backup {
        name: "b1",
        files: names(&["p1", "k1"]),
    };
    let sweeping = [Marks {
        backups: names(&[]),
        files: names(&["k1"]),
    }];
    assert_eq!(counts(&backup, &names(&["p1", "k1"]), &[]), Standing::Counts);
    assert_eq!(counts(&backup, &names(&["p1"]), &[]), Standing::Missing("k1"));
    assert_eq!(counts(&backup, &names(&["p1", "k1"]), &sweeping), Standing::Swept);
    assert_eq!(
        may_use_parent(&backup, &sweeping, &names(&["b1", "p1", "k1"])),
        ParentUse::Condemned
    );
    assert_eq!(may_use_parent(&backup, &[], &names(&["p1", "k1"])), ParentUse::Missing("b1"));
}
