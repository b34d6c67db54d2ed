//! A busy server: what is due of a block and long enough becomes a piece at once, so that each byte is put once.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{Lsn, Timeline};
use lifeboat_ops::follow::Options;
use lifeboat_repo::{BLOCK_BYTES, LogFileKind, Repository, block_end, block_start, list_log};
use lifeboat_store::BlobStore;
use lifeboat_testkit::postgres::{Cluster, Options as Server, majors};

use super::faults::{Door, place};
use super::world::{Followed, flushed};

/// The ranges of files of that kind within the block, in order.
async fn within(world: &Followed, kind: LogFileKind, block: Range) -> Vec<Range> {
    let reader = world.reader().await;
    let names = reader.files().iter().filter(|name| name.kind == kind);
    let mut ranges: Vec<Range> = names.map(|name| name.range).filter(|range| block.contains(range)).collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

fn part_of(pieces: &[Range]) -> Option<&Range> {
    pieces.iter().find(|piece| piece.bytes() < BLOCK_BYTES)
}

/// Follows a server that writes more than a piece needs, until a block that goes on has one. Returns the block.
async fn until_a_part_stands(world: &Followed, cluster: &Cluster) -> Range {
    for _ in 0..100 {
        let at = flushed(cluster);
        let block = Range::new(Timeline::FIRST, block_start(at), block_end(at));
        // Five MiB of log, none of which can be compressed away.
        cluster.query(
            "insert into t select i, array_to_string(array(select md5(random()::text || i) from generate_series(1, 30)), '') \
             from generate_series(1, 5000) as i",
        );
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if part_of(&within(world, LogFileKind::Piece, block).await).is_some() && flushed(cluster) < block.end {
                return block;
            }
        }
    }
    panic!("no piece of less than a block was put");
}

/// The block's bytes in the server's file are those in the stores.
async fn same_as_file(world: &Followed, cluster: &Cluster, block: Range) {
    let segment = block.start.0 / BLOCK_BYTES;
    let name = format!("{:08X}{:08X}{:08X}", 1, segment / 256, segment % 256);
    let file = std::fs::read(cluster.data_dir().join("pg_wal").join(&name)).unwrap();
    assert!(world.reader().await.read(block).await.unwrap() == file, "{name} differs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_of_a_busy_server_is_put_in_pieces_and_each_byte_once() {
    let server = Server::new().set("wal_keep_size", "1GB").set("full_page_writes", "off");
    let cluster = Cluster::start(majors()[0], &server);
    let mut world = Followed::new(&cluster).await;
    world.with = |options| Options {
        frame_every: Duration::from_millis(400),
        mark_every: Duration::from_millis(600),
        ask_every: Duration::from_millis(200),
        ..options
    };
    cluster.query("create table t (i int, what text)");
    let following = world.begin();
    world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
    let block = until_a_part_stands(&world, &cluster).await;
    // Little behind it: frames, and times that are told by small ones. None of them lies across the end of a piece.
    for _ in 0..3 {
        cluster.query("insert into t values (1, 'little')");
        world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    cluster.query("select pg_switch_wal(); create table u ()");
    let is_crossed = |frame: &Range, pieces: &[Range]| !pieces.iter().any(|piece| piece.contains(frame));
    for round in 0.. {
        let pieces = within(&world, LogFileKind::Piece, block).await;
        let frames = within(&world, LogFileKind::Frame, block).await;
        let bytes: u64 = pieces.iter().map(Range::bytes).sum();
        // What a piece replaces goes a moment after it.
        if bytes >= BLOCK_BYTES && !frames.iter().any(|frame| is_crossed(frame, &pieces)) {
            assert_eq!(bytes, BLOCK_BYTES, "each byte once: {pieces:?}");
            assert!(
                pieces.len() > 1 && pieces.windows(2).all(|two| two[0].end == two[1].start),
                "{pieces:?}"
            );
            break;
        }
        assert!(round < 400, "{pieces:?} {frames:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    same_as_file(&world, &cluster, block).await;
    // Ended in the middle of the next one, and taken up again.
    let block = until_a_part_stands(&world, &cluster).await;
    following.end().await.unwrap();
    cluster.query("insert into t values (2, 'meanwhile')");
    let following = world.begin();
    cluster.query("select pg_switch_wal(); create table v ()");
    world.wait_for(&following, Timeline::FIRST, Lsn(block.end.0 + 1)).await;
    let report = following.end().await.unwrap();
    assert!(report.alarms.is_empty() && report.gaps.is_empty(), "{report:?}");
    same_as_file(&world, &cluster, block).await;
    let held = world.coverage().await;
    let ranges: Vec<Range> = held.ranges().collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    world.read_all(ranges[0]).await;
}

/// A store that is required is away while such a piece is put, and while the rest of its block is: it gets both, and the spool waits for that (PG-03).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_store_that_was_away_gets_the_pieces_of_a_busy_block() {
    let server = Server::new().set("wal_keep_size", "1GB").set("full_page_writes", "off");
    let cluster = Cluster::start(majors()[0], &server);
    let (near, far) = (Door::new(), Door::new());
    let mut world = Followed::in_store(&cluster, place("near", &near, false)).await;
    let repository = world.world.protected.repository().await.unwrap();
    repository.replicate(Arc::clone(&far) as Arc<dyn BlobStore>).await.unwrap();
    world.world.protected.stores.push(place("far", &far, true));
    world.with = |options| Options {
        frame_every: Duration::from_millis(400),
        ..options
    };
    cluster.query("create table t (i int, what text)");
    let following = world.begin();
    world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
    far.shut(true);
    let block = until_a_part_stands(&world, &cluster).await;
    following.says("no log reaches far").await;
    cluster.query("select pg_switch_wal(); create table u ()");
    world.wait_for(&following, Timeline::FIRST, Lsn(block.end.0 + 1)).await;
    assert!(world.spooled() >= BLOCK_BYTES, "{} bytes in the spool", world.spooled());
    far.shut(false);
    let far = Repository::open(far).await.unwrap();
    let protected = &world.world.protected;
    for round in 0.. {
        let listing = list_log(&far, &protected.component, &protected.trust).await.unwrap();
        let lineage = listing.lineages.last().unwrap().lineage;
        let names = listing.files(lineage).iter().filter(|name| name.kind == LogFileKind::Piece);
        let mut pieces = Coverage::new();
        names.for_each(|name| pieces.add(name.range));
        if pieces.holds(block) && world.spooled() < BLOCK_BYTES {
            break;
        }
        assert!(round < 800, "{pieces:?}, {} bytes in the spool", world.spooled());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let report = following.end().await.unwrap();
    assert!(report.gaps.is_empty(), "{report:?}");
    same_as_file(&world, &cluster, block).await;
}
