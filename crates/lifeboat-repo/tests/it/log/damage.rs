//! Every byte of a log file flipped, every end cut off, every name changed: it counts for nothing, and nothing of it is given out.

use bytes::Bytes;
use lifeboat_model::ErrorKind;
use lifeboat_model::wal::Range;
use lifeboat_repo::{Instance, LogFileKind, LogName, LogPlan, LogWriter, NewLog, Trust, list_log};
use lifeboat_store::{BlobStore, Key};

use super::{MIB, append, begin, plan, range, reader, wal};
use crate::world::{World, copy_folder, failed, share};

/// A repository with one frame, its key and its bytes.
async fn one_file(seed: u64) -> (World, Key, Range) {
    let world = World::new(seed).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    let range = range(16 * MIB, 16 * MIB + 700);
    let done = append(&mut writer, LogFileKind::Frame, range).await.unwrap();
    let key = done.name.key(&world.component, writer.lineage()).unwrap();
    (world, key, range)
}

/// INV-16, INV-10
#[tokio::test]
async fn a_flipped_byte_makes_a_file_count_for_nothing() {
    let (world, key, range) = one_file(21).await;
    let good = world.bytes_of(&key).await;
    for at in share((0..good.len()).collect(), 3) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        world.overwrite(&key, bytes).await;
        let error = failed(
            reader(&world, &world.repository).await.read(range).await,
            "reading a flipped byte",
        );
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
    }
    // What is in front of the sealed bytes is judged by a look at the header alone.
    let sealed = good.len() - 1;
    for at in share((0..368).collect(), 3) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        world.overwrite(&key, bytes).await;
        let judged = reader(&world, &world.repository).await.headers(|_| true).await.unwrap();
        assert!(
            judged.coverage().is_empty() && judged.rejected.len() == 1,
            "byte {at} of {sealed}"
        );
    }
    world.overwrite(&key, good).await;
    assert_eq!(reader(&world, &world.repository).await.read(range).await.unwrap(), wal(range));
}

#[tokio::test]
async fn a_file_that_is_cut_short_or_longer_is_seen_in_the_listing() {
    let (world, key, range) = one_file(22).await;
    let good = world.bytes_of(&key).await;
    for length in share((0..good.len()).collect(), 7).into_iter().chain([good.len() - 1]) {
        world.overwrite(&key, good[..length].to_vec()).await;
        let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
        let lineage = listing.lineages[0].lineage;
        assert!(
            listing.candidates(lineage).is_empty() && listing.rejected.len() == 1,
            "{length}"
        );
        let error = failed(
            reader(&world, &world.repository).await.read(range).await,
            "reading a short file",
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let longer = [good.as_slice(), &[0]].concat();
    world.overwrite(&key, longer).await;
    let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
    assert_eq!(listing.rejected.len(), 1);
}

/// A name that was changed says another place than the signed header does.
#[tokio::test]
async fn a_file_under_another_name_counts_for_nothing() {
    let (world, key, _) = one_file(23).await;
    let good = world.bytes_of(&key).await;
    let folder = world.component.folder().unwrap();
    let name = key.as_str().rsplit_once("/tail/").unwrap().1.to_owned();
    let lineage = key
        .as_str()
        .rsplit_once("/tail/")
        .unwrap()
        .0
        .rsplit_once('/')
        .unwrap()
        .1
        .to_owned();
    let (timeline, rest) = name.split_once('-').unwrap();
    let (start, rest) = rest.split_once('-').unwrap();
    let (end, rest) = rest.split_once('-').unwrap();
    let other_lineage = "0".repeat(32);
    let renamed = [
        format!("log/{lineage}/tail/00000002-{start}-{end}-{rest}"),
        format!("log/{lineage}/tail/{timeline}-0000000001000001-{end}-{rest}"),
        format!("log/{lineage}/tail/{timeline}-{start}-00000000010002bd-{rest}"),
        format!("log/{lineage}/{timeline}/{start}-{end}-{rest}"),
        format!("log/{other_lineage}/tail/{name}"),
    ];
    for other in renamed {
        let other = folder.join(&other).unwrap();
        world.memory.delete(&key).await.unwrap();
        let _put = world.memory.put(&other, Bytes::from(good.clone())).await.unwrap();
        let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
        let lineage = other.as_str().split('/').nth(3).unwrap().parse().unwrap();
        assert!(!listing.candidates(lineage).is_empty(), "{other}");
        let reader = lifeboat_repo::LogReader::of(
            &world.repository,
            &world.component,
            &world.trust,
            world.identities(),
            lineage,
            &listing,
        );
        let judged = reader.headers(|_| true).await.unwrap();
        assert!(judged.coverage().is_empty(), "{other}");
        let asked = judged.rejected[0].0.range;
        assert_eq!(
            failed(reader.read(asked).await, "reading a renamed file").kind(),
            ErrorKind::Corrupt,
            "{other}"
        );
        world.memory.delete(&other).await.unwrap();
    }
}

#[test]
fn each_file_has_one_name() {
    let good = format!(
        "tail/00000001-{:016x}-{:016x}-000002bc-{}-{}",
        0x100_0000,
        0x100_02bc,
        "ab".repeat(16),
        "cd".repeat(32)
    );
    assert_eq!(LogName::parse(&good).unwrap().to_string(), good);
    for wrong in [
        good.to_uppercase(),
        good.replace("ab", "AB"),
        good.replace("tail/", ""),
        good.replace("tail/", "Tail/"),
        good.replace("00000001-", "00000000-"),
        good.replace("00000001-", "1-"),
        // Empty, backwards, and over the end of its block.
        good.replace("00000000010002bc", "0000000001000000"),
        good.replace("00000000010002bc", "0000000000fffff0"),
        good.replace("00000000010002bc", "0000000002000001"),
        format!("{good}-00"),
        format!("{good}/x"),
    ] {
        assert_eq!(LogName::parse(&wrong), None, "{wrong}");
    }
}

/// INV-16: what nobody known signed is not held; what an instance that may not back up signed is not either.
#[tokio::test]
async fn a_stranger_writes_no_log() {
    let (world, _, range) = one_file(24).await;
    let stranger = Instance::create(&world.env, "stranger", &world.folder.path().join("stranger.key")).unwrap();
    let plan = LogPlan {
        instance: std::sync::Arc::new(stranger),
        state_dir: world.folder.path().join("elsewhere"),
        ..plan(&world)
    };
    let mut writer = LogWriter::begin(&world.env, &world.repository, plan, NewLog::Continue)
        .await
        .unwrap();
    let forged = super::range(range.end.0, range.end.0 + 10);
    append(&mut writer, LogFileKind::Frame, forged).await.unwrap();
    let reader = reader(&world, &world.repository).await;
    let judged = reader.headers(|_| true).await.unwrap();
    assert_eq!(judged.coverage().ranges().collect::<Vec<_>>(), [range]);
    assert_eq!(
        failed(reader.read(forged).await, "reading a stranger's log").kind(),
        ErrorKind::Corrupt
    );
    let nobody = Trust::new();
    let listing = list_log(&world.repository, &world.component, &nobody).await.unwrap();
    assert!(listing.lineages.is_empty() && !listing.rejected.is_empty());
}

/// PG-06, INV-16: a machine and database that were cloned write on under the same name. Both stay, and the reader stops.
#[tokio::test]
async fn two_that_differ_both_stay_and_stop_the_reader() {
    let world = World::new(25).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Piece, range(0, 16 * MIB)).await.unwrap();
    copy_folder(&world.state_dir(), &world.folder.path().join("clone"));
    let cloned = LogPlan {
        state_dir: world.folder.path().join("clone"),
        ..plan(&world)
    };
    let mut clone = LogWriter::begin(&world.env, &world.repository, cloned, NewLog::Continue)
        .await
        .unwrap();
    let (second, third) = (range(16 * MIB, 32 * MIB), range(32 * MIB, 48 * MIB));
    let mut other = wal(second);
    other[9 << 20] ^= 1;
    append(&mut writer, LogFileKind::Piece, second).await.unwrap();
    clone.append(LogFileKind::Piece, second, other, None).await.unwrap();
    append(&mut writer, LogFileKind::Piece, third).await.unwrap();
    let reader = reader(&world, &world.repository).await;
    let judged = reader.headers(|_| true).await.unwrap();
    assert_eq!(judged.conflicts(), [second]);
    // Nothing of the block is held, so nothing behind it is reached.
    assert_eq!(judged.coverage().end_from(second.timeline, range(0, 1).start), second.start);
    let error = failed(reader.read(second).await, "reading what is held twice");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("0/1900000"), "{error}");
    assert!(
        reader.read(range(16 * MIB, 25 * MIB)).await.unwrap() == wal(range(16 * MIB, 25 * MIB)),
        "before it all is well"
    );
}
