//! PG-12, INV-17: what a pruner does to log. It keeps what kept backups and the window need, and the keys of what it keeps.

use std::sync::Arc;

use lifeboat_model::wal::Range;
use lifeboat_repo::{BackupId, LogFileKind, LogNeed, LogWriter, PrunePlan, Pruned, Retired, Standing, Writer, list_log, prune};

use super::{MIB, append, begin, range, reader, wal};
use crate::prune::{GRACE, HOUR, world};
use crate::world::{World, pages, put_all};

const BLOCK: u64 = 16 * MIB;

/// A small piece at the end of block `number`: what goes and what stays is decided by positions, not by bytes.
fn piece(number: u64) -> Range {
    range((number + 1) * BLOCK - 512, (number + 1) * BLOCK)
}

async fn follow(writer: &mut LogWriter, world: &World, numbers: std::ops::Range<u64>) {
    for number in numbers {
        append(writer, LogFileKind::Piece, piece(number)).await.unwrap();
        world.clock.advance(HOUR);
    }
}

/// A backup that needs the log of block `number`.
async fn base(world: &World, writer: &LogWriter, number: u64) -> BackupId {
    let mut backup = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
    put_all(&mut backup, &pages("db", vec![7; 8192], 4096)).await.unwrap();
    backup.needs_log(LogNeed {
        lineage: writer.lineage(),
        range: piece(number),
    });
    let moment_us = world.env.clock.wall_us();
    let committed = backup.commit(moment_us, serde_json::json!({})).await.unwrap().backup;
    assert_eq!(
        committed.header.log.map(|need| need.range),
        Some(piece(number)),
        "the header says it"
    );
    committed.id
}

/// `onward`: those of `keep` that need all log behind them; none: all do.
async fn prune_to(world: &World, keep: Vec<BackupId>, onward: Option<Vec<BackupId>>) -> Pruned {
    let retire = move |standing: &Standing<'_>| -> lifeboat_model::Result<Retired> {
        let ids = standing.listing.backups.iter().map(|backup| backup.id);
        Ok(Retired {
            backups: ids.filter(|id| !keep.contains(id)).collect(),
            onward: onward.clone().map(|onward| onward.into_iter().collect()),
        })
    };
    let plan = PrunePlan {
        component: world.component.clone(),
        instance: Arc::clone(&world.instance),
        trust: world.trust.clone(),
        state_dir: world.state_dir(),
        grace: GRACE,
        dry_run: false,
        retire: &retire,
    };
    prune(&world.env, &world.repository, &plan).await.unwrap()
}

/// Which blocks are held and can be read.
async fn held(world: &World, up_to: u64) -> Vec<u64> {
    let reader = reader(world, &world.repository).await;
    let mut held = Vec::new();
    for number in 0..up_to {
        if let Ok(bytes) = reader.read(piece(number)).await {
            assert!(bytes == wal(piece(number)));
            held.push(number);
        }
    }
    held
}

#[tokio::test]
async fn log_goes_behind_the_last_need_after_the_grace_period() {
    let world = world().await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    writer.append_history(super::tli(2), b"1\t0/100\tx\n".to_vec()).await.unwrap();
    follow(&mut writer, &world, 0..4).await;
    let old = base(&world, &writer, 3).await;
    follow(&mut writer, &world, 4..8).await;
    let new = base(&world, &writer, 7).await;
    follow(&mut writer, &world, 8..10).await;
    world.clock.advance(HOUR * 100);
    follow(&mut writer, &world, 10..11).await;
    // Without a window, everything behind the oldest base stays.
    let first = prune_to(&world, vec![old, new], None).await;
    assert_eq!(first.condemned.files, 3, "{first:?}");
    assert_eq!(held(&world, 11).await.len(), 11, "nothing goes before the grace period");
    world.clock.advance(GRACE + HOUR);
    drop(prune_to(&world, vec![old, new], None).await);
    assert_eq!(held(&world, 11).await, (3..11).collect::<Vec<_>>());
    // With one, the old base keeps its own log only, and the newest base in front of the window what is behind it.
    let onward = || Some(vec![new]);
    drop(prune_to(&world, vec![old, new], onward()).await);
    world.clock.advance(GRACE + HOUR);
    drop(prune_to(&world, vec![old, new], onward()).await);
    assert_eq!(held(&world, 11).await, [3, 7, 8, 9, 10]);
    // The old base is given up, and with it its log; histories and the record of the lineage stay, and the keys of what stays.
    drop(prune_to(&world, vec![new], onward()).await);
    world.clock.advance(GRACE + HOUR);
    drop(prune_to(&world, vec![new], onward()).await);
    assert_eq!(held(&world, 11).await, [7, 8, 9, 10]);
    let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
    assert_eq!(listing.histories(writer.lineage()).count(), 1);
    assert!(reader(&world, &world.repository).await.history(super::tli(2)).await.is_ok());
    // The follower has noticed nothing.
    follow(&mut writer, &world, 11..12).await;
    assert_eq!(held(&world, 12).await, [7, 8, 9, 10, 11]);
}

#[tokio::test]
async fn without_a_base_no_log_goes_and_its_keys_stay() {
    let world = world().await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    follow(&mut writer, &world, 0..3).await;
    world.clock.advance(HOUR * 24 * 30);
    for _ in 0..3 {
        drop(prune_to(&world, Vec::new(), Some(Vec::new())).await);
        world.clock.advance(GRACE + HOUR);
    }
    assert_eq!(held(&world, 3).await, [0, 1, 2]);
    // A session that wrote nothing leaves a key file that nobody needs.
    assert_eq!(world.stored("keys").await.len(), 1);
}

/// A base that began long ago and is not there yet: what was stored shortly before its announcement, or later, stays whatever is kept.
#[tokio::test]
async fn log_that_an_open_session_may_need_stays() {
    let world = world().await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    follow(&mut writer, &world, 0..2).await;
    world.clock.advance(HOUR * 100);
    follow(&mut writer, &world, 2..4).await;
    let running = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
    follow(&mut writer, &world, 4..8).await;
    // A second host made a newer one meanwhile.
    let elsewhere = lifeboat_repo::BackupPlan {
        state_dir: world.folder.path().join("elsewhere"),
        ..world.plan()
    };
    let mut backup = Writer::begin(&world.env, &world.repository, elsewhere).await.unwrap();
    put_all(&mut backup, &pages("db", vec![8; 8192], 4096)).await.unwrap();
    backup.needs_log(LogNeed {
        lineage: writer.lineage(),
        range: piece(7),
    });
    let newer = backup
        .commit(world.env.clock.wall_us(), serde_json::json!({}))
        .await
        .unwrap()
        .backup
        .id;
    let condemned = prune_to(&world, vec![newer], None).await.condemned;
    assert_eq!(
        condemned.files, 3,
        "only what is older than the session by more than the margin, two pieces and the key file of theirs: {condemned:?}"
    );
    drop(running);
}

/// A piece that was cut short in the store replaces nothing: its frames are all that is left of that log.
#[tokio::test]
async fn a_piece_that_was_cut_short_replaces_no_frame() {
    let world = world().await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Frame, range(0, 1000)).await.unwrap();
    let piece = append(&mut writer, LogFileKind::Piece, range(0, 4000)).await.unwrap();
    let key = piece.name.key(&world.component, writer.lineage()).unwrap();
    let good = world.bytes_of(&key).await;
    world.overwrite(&key, good[..good.len() - 1].to_vec()).await;
    assert_eq!(prune_to(&world, Vec::new(), None).await.tidied, 0);
    assert!(reader(&world, &world.repository).await.read(range(0, 1000)).await.unwrap() == wal(range(0, 1000)));
}

#[tokio::test]
async fn replaced_frames_go_at_once_and_others_never() {
    let world = world().await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Frame, range(0, 1000)).await.unwrap();
    append(&mut writer, LogFileKind::Frame, range(1000, 2000)).await.unwrap();
    drop(prune_to(&world, Vec::new(), None).await);
    assert_eq!(world.stored("log").await.len(), 3);
    append(&mut writer, LogFileKind::Piece, range(0, 4000)).await.unwrap();
    append(&mut writer, LogFileKind::Frame, range(4000, 5000)).await.unwrap();
    let pruned = prune_to(&world, Vec::new(), None).await;
    assert_eq!((pruned.tidied, world.stored("log").await.len()), (2, 3));
    assert!(reader(&world, &world.repository).await.read(range(0, 5000)).await.unwrap() == wal(range(0, 5000)));
}
