//! Records that are cut, edited, moved, forked or foreign, and chains with holes (INV-18).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_model::ErrorKind;
use lifeboat_repo::{
    ChainId, ComponentName, FlawKind, Instance, LEDGER_LIMIT_BYTES, LedgerHead, LedgerName, LedgerRecord, NewLedgerRecord,
    Rights, chain_of, clock_steps, flaws, get_record, list_ledger, open_record, put_record, read_ledger, seal_record,
};
use lifeboat_store::{BlobStore as _, Put};
use lifeboat_testkit::faulty::{Fault, FaultyStore, Op, Plan};
use serde_json::{Map, Value, json};

use crate::prune;
use crate::world::{World, failed, pages};

fn seal(
    world: &World,
    instance: &Instance,
    previous: Option<LedgerHead>,
    at_us: i64,
    heads: &BTreeMap<ChainId, LedgerHead>,
    what: &str,
) -> (LedgerName, Bytes) {
    let facts = Map::from_iter([("what".to_owned(), json!(what))]);
    let new = NewLedgerRecord {
        previous,
        at_us,
        heads,
        verb: "backup",
        outcome: "done",
        facts: &facts,
    };
    seal_record(world.repository.id(), &world.component, instance, &new).unwrap()
}

/// A chain of so many records, put into the store.
async fn chain(world: &World, instance: &Instance, count: i64) -> Vec<LedgerRecord> {
    let mut previous = None;
    let mut records = Vec::new();
    for number in 0..count {
        let (name, stored) = seal(world, instance, previous, number * 1_000_000, &BTreeMap::new(), "a");
        put_record(&world.repository, &world.component, &name, stored.clone())
            .await
            .unwrap();
        previous = Some(name.at);
        records.push(open_record(world.repository.id(), &world.component, &world.trust, &name, &stored).unwrap());
    }
    records
}

async fn instance(world: &mut World, name: &str, rights: Option<Rights>) -> Instance {
    let instance = Instance::create(&world.env, name, &world.folder.path().join(format!("{name}.key"))).unwrap();
    if let Some(rights) = rights {
        world.trust.add_with(name, instance.public_key(), rights);
    }
    instance
}

#[tokio::test]
async fn a_chain_reads_as_it_was_written_and_is_whole() {
    let world = World::new(1).await;
    let written = chain(&world, &world.instance, 5).await;
    let listing = list_ledger(&world.repository, &world.component).await.unwrap();
    assert!(listing.unknown.is_empty());
    assert_eq!(listing.names.len(), 5);
    let read = read_ledger(&world.repository, &world.component, &world.trust, listing.names)
        .await
        .unwrap();
    let read: Vec<LedgerRecord> = read.into_iter().map(|(_, record)| record.unwrap().0).collect();
    assert_eq!(read, written);
    assert_eq!(read[0].name.at.seq, 1);
    assert_eq!(read[0].previous, None);
    assert_eq!(read[4].previous, Some(read[3].name.at.hash));
    assert_eq!(read[2].instance, "host");
    assert!(flaws(&read).is_empty());
    assert!(clock_steps(&read).is_empty());
}

#[tokio::test]
async fn every_flipped_bit_and_every_cut_is_seen() {
    let world = World::new(2).await;
    let (name, stored) = seal(&world, &world.instance, None, 7, &BTreeMap::new(), "a");
    for at in 0..stored.len() {
        let mut flipped = stored.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let judged = open_record(world.repository.id(), &world.component, &world.trust, &name, &flipped);
        assert_eq!(judged.unwrap_err().kind(), ErrorKind::Corrupt, "bit in byte {at}");
        let cut = open_record(world.repository.id(), &world.component, &world.trust, &name, &stored[..at]);
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::Corrupt, "cut at {at}");
        // A name that fits the changed bytes helps nobody: the signature does not.
        let renamed = LedgerName {
            at: LedgerHead {
                hash: *blake3::hash(&flipped).as_bytes(),
                ..name.at
            },
            ..name
        };
        assert!(open_record(world.repository.id(), &world.component, &world.trust, &renamed, &flipped).is_err());
    }
}

#[tokio::test]
async fn a_record_counts_only_where_it_was_written_for_and_by_whom() {
    let mut world = World::new(3).await;
    let (name, stored) = seal(&world, &world.instance, None, 7, &BTreeMap::new(), "a");
    let id = world.repository.id();
    let other = ComponentName::new("shop/other").unwrap();
    let elsewhere = open_record(id, &other, &world.trust, &name, &stored).unwrap_err();
    assert!(
        elsewhere.to_string().contains("another repository or component"),
        "{elsewhere}"
    );
    let foreign = World::new(4).await.repository.id();
    assert!(open_record(foreign, &world.component, &world.trust, &name, &stored).is_err());
    let moved = LedgerName {
        at: LedgerHead { seq: 2, ..name.at },
        ..name
    };
    let moved = open_record(id, &world.component, &world.trust, &moved, &stored).unwrap_err();
    assert!(moved.to_string().contains("another place"), "{moved}");
    let stranger = instance(&mut world, "stranger", None).await;
    let taken = LedgerName {
        chain: chain_of(&stranger.public_key()),
        ..name
    };
    assert!(open_record(id, &world.component, &world.trust, &taken, &stored).is_err());
    let (name, stored) = seal(&world, &stranger, None, 7, &BTreeMap::new(), "a");
    let unknown = open_record(id, &world.component, &world.trust, &name, &stored).unwrap_err();
    assert!(
        unknown.to_string().contains("not among the configured instances"),
        "{unknown}"
    );
    // Whoever is configured at all may tell what it did.
    let nothing = Rights {
        backup: false,
        prune: false,
        hold: false,
    };
    let retired = instance(&mut world, "retired", Some(nothing)).await;
    let (name, stored) = seal(&world, &retired, None, 7, &BTreeMap::new(), "a");
    assert_eq!(
        open_record(id, &world.component, &world.trust, &name, &stored)
            .unwrap()
            .instance,
        "retired"
    );
}

#[tokio::test]
async fn names_have_one_spelling() {
    let world = World::new(5).await;
    let (name, stored) = seal(&world, &world.instance, None, 7, &BTreeMap::new(), "a");
    let text = name.to_string();
    assert_eq!(text.parse::<LedgerName>().unwrap(), name);
    let (chain, at) = text.split_once('/').unwrap();
    for wrong in [
        text.to_uppercase(),
        format!("{chain}/0{at}"),
        format!("{chain}/{}", at.trim_start_matches('0')),
        format!("{chain}/{:016x}-{}", 0, hex_of(&name)),
        format!("{chain}/{at}/x"),
        at.to_owned(),
        String::new(),
    ] {
        assert!(wrong.parse::<LedgerName>().is_err(), "{wrong}");
    }
    let folder = world.component.folder().unwrap();
    for odd in ["ledger/x", "ledger/x/y/z"] {
        let put = world.memory.put(&folder.join(odd).unwrap(), stored.clone()).await;
        assert_eq!(put.unwrap(), Put::Created);
    }
    let listing = list_ledger(&world.repository, &world.component).await.unwrap();
    assert_eq!((listing.names.len(), listing.unknown.len()), (0, 2));
}

fn hex_of(name: &LedgerName) -> String {
    name.at.to_string().split_once('-').unwrap().1.to_owned()
}

#[tokio::test]
async fn a_record_is_never_put_over_another_and_never_too_long() {
    let world = World::new(6).await;
    let (name, stored) = seal(&world, &world.instance, None, 7, &BTreeMap::new(), "a");
    put_record(&world.repository, &world.component, &name, stored.clone())
        .await
        .unwrap();
    put_record(&world.repository, &world.component, &name, stored.clone())
        .await
        .unwrap();
    let other = put_record(&world.repository, &world.component, &name, Bytes::from_static(b"other")).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(get_record(&world.repository, &world.component, &name).await.unwrap(), stored);
    let facts = Map::from_iter([(
        "long".to_owned(),
        Value::from("x".repeat(usize::try_from(LEDGER_LIMIT_BYTES).unwrap())),
    )]);
    let new = NewLedgerRecord {
        previous: None,
        at_us: 0,
        heads: &BTreeMap::new(),
        verb: "backup",
        outcome: "done",
        facts: &facts,
    };
    let long = seal_record(world.repository.id(), &world.component, &world.instance, &new);
    assert_eq!(long.unwrap_err().kind(), ErrorKind::Refused);
}

/// Takes records out of a whole chain, and says what is told.
fn told(records: &[LedgerRecord], keep: impl Fn(u64) -> bool) -> Vec<(FlawKind, u64, u64)> {
    let kept: Vec<LedgerRecord> = records.iter().filter(|record| keep(record.name.at.seq)).cloned().collect();
    flaws(&kept)
        .into_iter()
        .map(|flaw| (flaw.kind, flaw.seq, flaw.last))
        .collect()
}

#[tokio::test]
async fn holes_forks_and_cut_ends_are_seen() {
    let mut world = World::new(7).await;
    let records = chain(&world, &world.instance, 6).await;
    assert_eq!(told(&records, |seq| seq != 3), [(FlawKind::Missing, 3, 3)]);
    assert_eq!(told(&records, |seq| seq > 2), [(FlawKind::Missing, 1, 2)]);
    assert_eq!(told(&records, |seq| seq == 6), [(FlawKind::Missing, 1, 5)]);
    // The end alone cannot be missed by its own chain.
    assert_eq!(told(&records, |seq| seq < 4), []);
    let other = instance(&mut world, "other", Some(Rights::ALL)).await;
    let id = world.repository.id();
    let heads = BTreeMap::from([(records[0].name.chain, records[5].name.at)]);
    let (name, stored) = seal(&world, &other, None, 9, &heads, "a");
    let citing = open_record(id, &world.component, &world.trust, &name, &stored).unwrap();
    let mut all = records.clone();
    all.push(citing);
    assert_eq!(told(&all, |_| true), []);
    assert_eq!(
        flaws(&all[..5].iter().chain(&all[6..]).cloned().collect::<Vec<_>>())[0].kind,
        FlawKind::Cut
    );
    // The same machine twice: both go on behind record 3.
    let (name, stored) = seal(&world, &world.instance, Some(records[2].name.at), 9, &BTreeMap::new(), "b");
    let twin = open_record(id, &world.component, &world.trust, &name, &stored).unwrap();
    let mut forked = records.clone();
    forked.push(twin);
    let kinds = told(&forked, |_| true);
    assert_eq!(kinds, [(FlawKind::Forked, 4, 4)]);
    // A record put in the place of another does not fit what follows it.
    let swapped: Vec<LedgerRecord> = forked
        .iter()
        .filter(|record| record.name != records[3].name)
        .cloned()
        .collect();
    assert_eq!(told(&swapped, |_| true), [(FlawKind::Misfit, 5, 5)]);
    // The same record read from two stores is one.
    let twice: Vec<LedgerRecord> = records.iter().chain(&records).cloned().collect();
    assert_eq!(told(&twice, |_| true), []);
}

#[tokio::test]
async fn a_clock_that_went_back_is_told_and_nothing_else() {
    let world = World::new(8).await;
    let mut previous = None;
    let mut records = Vec::new();
    for at_us in [10_000_000, 20_000_000, 5_000_000, 6_000_000] {
        let (name, stored) = seal(&world, &world.instance, previous, at_us, &BTreeMap::new(), "a");
        previous = Some(name.at);
        records.push(open_record(world.repository.id(), &world.component, &world.trust, &name, &stored).unwrap());
    }
    assert!(flaws(&records).is_empty());
    let steps = clock_steps(&records);
    assert_eq!(steps, [(records[2].name, 15_000_000)]);
}

#[tokio::test]
async fn a_store_that_does_not_list_is_an_error() {
    let world = World::new(9).await;
    chain(&world, &world.instance, 2).await;
    let plan = Plan::calm().always(Op::List, Fault::Refused(ErrorKind::Unreachable));
    let repository = world
        .through(Arc::new(FaultyStore::new(world.memory.clone(), plan)))
        .await
        .unwrap();
    assert_eq!(
        failed(list_ledger(&repository, &world.component).await, "a list").kind(),
        ErrorKind::Unreachable
    );
}

#[tokio::test]
async fn prune_leaves_the_ledger_alone() {
    let world = prune::world().await;
    for generation in 0..3 {
        world.clock.advance(prune::HOUR);
        world.backup(&pages("db", vec![generation; 8192], 4096)).await;
    }
    chain(&world, &world.instance, 3).await;
    let before = world.stored("ledger").await;
    assert_eq!(before.len(), 3);
    let mut swept = 0;
    for _ in 0..4 {
        world.clock.advance(prune::GRACE + prune::HOUR);
        swept += prune::prune_with(&world, &world.repository, 1)
            .await
            .unwrap()
            .swept
            .backups
            .len();
    }
    assert_eq!(swept, 2);
    assert_eq!(world.stored("ledger").await, before);
}
