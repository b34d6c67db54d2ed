//! Continuous log: what was appended is what is read, and nothing else is (INV-16); frames go only where something names them (INV-17).

mod damage;
mod faults;
mod independent;
mod retention;

use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::wal::{Range, SegmentSize};
use lifeboat_model::{ErrorKind, Lsn, Result, Timeline};
use lifeboat_repo::{
    Appended, Encryption, Identities, LogFileKind, LogPlan, LogReader, LogWriter, NewLog, Repository, copy_log,
    generate_identity, list_log,
};
use lifeboat_store::BlobStore;
use lifeboat_store::memory::MemoryStore;
use lifeboat_testkit::env::SimClock;

use crate::world::{World, failed};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const SYSTEM: u64 = 7_340_000_000_000_000_001;

pub(super) fn tli(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

pub(super) fn range(start: u64, end: u64) -> Range {
    Range::new(Timeline::FIRST, Lsn(start), Lsn(end))
}

/// What the source wrote there: compressible, and another at every position.
pub(super) fn wal(range: Range) -> Vec<u8> {
    let word = |at: u64| (at / 64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    (range.start.0..range.end.0)
        .map(|at| word(at)[usize::try_from(at % 4).unwrap()])
        .collect()
}

pub(super) fn plan(world: &World) -> LogPlan {
    LogPlan {
        component: world.component.clone(),
        instance: Arc::clone(&world.instance),
        encryption: Encryption::Age(vec![world.recipient.clone()]),
        trust: world.trust.clone(),
        state_dir: world.state_dir(),
        system: SYSTEM,
        segment: SegmentSize::USUAL,
    }
}

pub(super) async fn begin(world: &World, repository: &Repository) -> Result<LogWriter> {
    LogWriter::begin(&world.env, repository, plan(world), NewLog::Continue).await
}

pub(super) async fn reader(world: &World, repository: &Repository) -> LogReader {
    let listing = list_log(repository, &world.component, &world.trust).await.unwrap();
    let lineage = listing.newest(SYSTEM).unwrap().lineage;
    LogReader::of(
        repository,
        &world.component,
        &world.trust,
        world.identities(),
        lineage,
        &listing,
    )
}

pub(super) async fn append(writer: &mut LogWriter, kind: LogFileKind, range: Range) -> Result<Appended> {
    writer.append(kind, range, wal(range), Some(1_000_000)).await
}

#[tokio::test]
async fn what_is_appended_is_what_is_read() {
    let world = World::new(11).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Piece, range(16 * MIB, 32 * MIB))
        .await
        .unwrap();
    append(&mut writer, LogFileKind::Frame, range(32 * MIB, 32 * MIB + 5000))
        .await
        .unwrap();
    append(&mut writer, LogFileKind::Frame, range(32 * MIB + 5000, 33 * MIB))
        .await
        .unwrap();
    let history = b"1\t0/2100000\tno recovery target specified\n".to_vec();
    writer.append_history(tli(2), history.clone()).await.unwrap();
    let gap = writer
        .record_gap(range(40 * MIB, 48 * MIB), "the slot was dropped")
        .await
        .unwrap();

    let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
    assert!(listing.rejected.is_empty(), "{:?}", listing.rejected);
    assert_eq!(listing.gaps, [gap]);
    assert_eq!(listing.histories(writer.lineage()).collect::<Vec<_>>(), [tli(2)]);
    let reader = reader(&world, &world.repository).await;
    let judged = reader.headers(|_| true).await.unwrap();
    assert!(judged.rejected.is_empty());
    assert_eq!(judged.coverage().ranges().collect::<Vec<_>>(), [range(16 * MIB, 33 * MIB)]);
    assert_eq!(judged.coverage(), listing.candidates(writer.lineage()));
    assert_eq!(judged.marks().map(|mark| mark.at_us).max(), Some(1_000_000));
    // The chain is unbroken: each file names the one before it.
    let mut chain: Vec<_> = judged
        .fit
        .iter()
        .map(|(name, header)| (header.number, header.previous, name.hash))
        .collect();
    chain.sort_by_key(|(number, ..)| *number);
    assert!(chain.windows(2).all(|pair| pair[1].1 == Some(pair[0].2)), "{chain:?}");

    for asked in [
        range(16 * MIB, 32 * MIB),
        range(20 * MIB + 3, 20 * MIB + 4),
        range(32 * MIB, 33 * MIB),
        range(32 * MIB + 4999, 32 * MIB + 5001),
    ] {
        assert!(reader.read(asked).await.unwrap() == wal(asked), "{asked}");
    }
    for asked in [range(33 * MIB - 1, 33 * MIB + 1), range(48 * MIB, 49 * MIB)] {
        let error = failed(reader.read(asked).await, "reading what is not held");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert_eq!(reader.history(tli(2)).await.unwrap(), history);
    assert_eq!(
        failed(reader.history(tli(3)).await, "a history that is not there").kind(),
        ErrorKind::NotFound
    );
}

/// PG-06: the same again is no error and stores nothing; other bytes are refused, by the process that wrote them and by the next one.
#[tokio::test]
async fn the_same_position_takes_no_other_bytes() {
    let world = World::new(12).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    let (piece, frame) = (range(0, 16 * MIB), range(16 * MIB, 17 * MIB));
    append(&mut writer, LogFileKind::Piece, piece).await.unwrap();
    append(&mut writer, LogFileKind::Frame, frame).await.unwrap();
    writer.append_history(tli(2), b"1\t0/2000000\tone\n".to_vec()).await.unwrap();
    for _ in 0..2 {
        let before = world.stored("log").await;
        assert!(append(&mut writer, LogFileKind::Piece, piece).await.unwrap().there);
        assert!(append(&mut writer, LogFileKind::Frame, frame).await.unwrap().there);
        assert!(
            writer
                .append_history(tli(2), b"1\t0/2000000\tone\n".to_vec())
                .await
                .unwrap()
                .there
        );
        assert_eq!(world.stored("log").await, before);
        let mut other = wal(piece);
        other[5] ^= 1;
        let refused = failed(
            writer.append(LogFileKind::Piece, piece, other, None).await,
            "other bytes of a piece",
        );
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        // A longer one that holds other bytes where a frame is.
        let longer = range(16 * MIB, 18 * MIB);
        let mut other = wal(longer);
        other[100] ^= 1;
        let refused = failed(
            writer.append(LogFileKind::Piece, longer, other, None).await,
            "other bytes of a frame",
        );
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        let other = b"1\t0/2000008\tanother\n".to_vec();
        assert_eq!(
            failed(writer.append_history(tli(2), other).await, "another history").kind(),
            ErrorKind::Refused
        );
        assert_eq!(world.stored("log").await, before);
        drop(writer);
        writer = begin(&world, &world.repository).await.unwrap();
    }
}

/// INV-17: a piece names the frames that it replaces, and only those go; a frame that other keys wrote stays, as it cannot be compared.
#[tokio::test]
async fn frames_go_once_a_piece_that_names_them_stands() {
    let world = World::new(13).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Frame, range(0, 1000)).await.unwrap();
    let longer = append(&mut writer, LogFileKind::Frame, range(0, 2000)).await.unwrap();
    assert_eq!((longer.replaces.len(), writer.drop_replaced(&longer).await.unwrap()), (1, 1));
    append(&mut writer, LogFileKind::Frame, range(2000, MIB)).await.unwrap();
    drop(writer);
    // The next process finds them and compares them by their headers.
    let mut writer = begin(&world, &world.repository).await.unwrap();
    let piece = append(&mut writer, LogFileKind::Piece, range(0, 16 * MIB)).await.unwrap();
    assert_eq!(piece.replaces.len(), 2);
    assert_eq!(world.stored("log").await.len(), 4, "a lineage, two frames, a piece");
    assert_eq!(writer.drop_replaced(&piece).await.unwrap(), 2);
    assert_eq!(world.stored("log").await.len(), 2);
    // A piece that was lost behind our back: nothing that it named goes.
    append(&mut writer, LogFileKind::Frame, range(16 * MIB, 17 * MIB))
        .await
        .unwrap();
    let piece = append(&mut writer, LogFileKind::Piece, range(16 * MIB, 32 * MIB))
        .await
        .unwrap();
    let key = piece.name.key(&world.component, writer.lineage()).unwrap();
    world.memory.delete(&key).await.unwrap();
    assert_eq!(
        failed(writer.drop_replaced(&piece).await, "dropping for a lost piece").kind(),
        ErrorKind::NotFound
    );
    assert!(
        reader(&world, &world.repository)
            .await
            .read(range(16 * MIB, 17 * MIB))
            .await
            .is_ok()
    );
    // With the state lost, content of the other key cannot be compared: both stay, and the reader finds them the same.
    drop(writer);
    std::fs::remove_file(world.state_folder().parent().unwrap().join("log/log.json")).unwrap();
    let mut writer = begin(&world, &world.repository).await.unwrap();
    let piece = append(&mut writer, LogFileKind::Piece, range(16 * MIB, 32 * MIB))
        .await
        .unwrap();
    assert!(piece.replaces.is_empty());
    let bytes = reader(&world, &world.repository)
        .await
        .read(range(16 * MIB, 32 * MIB))
        .await
        .unwrap();
    assert!(bytes == wal(range(16 * MIB, 32 * MIB)));
}

#[tokio::test]
async fn a_session_lasts_a_day_and_a_late_answer_counts_for_nothing() {
    let world = World::new(14).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    let first = append(&mut writer, LogFileKind::Frame, range(0, 10)).await.unwrap().name;
    let second = append(&mut writer, LogFileKind::Frame, range(10, 20)).await.unwrap().name;
    assert_eq!(first.session, second.session);
    advance(&world.clock, 24);
    let third = append(&mut writer, LogFileKind::Frame, range(20, 30)).await.unwrap().name;
    assert_ne!(third.session, first.session);
    assert_eq!(world.stored("sessions").await.len(), 2);
    let reader = reader(&world, &world.repository).await;
    assert!(reader.read(range(0, 30)).await.unwrap() == wal(range(0, 30)));
    let header = reader.header(&third).await.unwrap();
    assert_eq!((header.number, header.previous), (0, Some(second.hash)));
}

fn advance(clock: &SimClock, hours: u64) {
    clock.advance(Duration::from_secs(hours * 3600));
}

/// PG-05, and what follows a restoration of the source to an earlier moment.
#[tokio::test]
async fn another_cluster_is_refused_and_a_restored_one_begins_a_lineage() {
    let world = World::new(15).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Piece, range(0, 16 * MIB)).await.unwrap();
    let first = writer.lineage();
    let locked = failed(begin(&world, &world.repository).await, "a second follower");
    assert_eq!(locked.kind(), ErrorKind::Locked);
    drop(writer);
    let other = LogPlan {
        system: SYSTEM + 1,
        ..plan(&world)
    };
    let refused = failed(
        LogWriter::begin(&world.env, &world.repository, other, NewLog::Continue).await,
        "another cluster",
    );
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    // The clock does not even move meanwhile.
    let why = NewLog::Begin {
        lineage: lifeboat_repo::Lineage::draw(&world.env).unwrap(),
        why: "the source was behind its log".into(),
    };
    let mut writer = LogWriter::begin(&world.env, &world.repository, plan(&world), why)
        .await
        .unwrap();
    assert_ne!(writer.lineage(), first);
    let mut bytes = wal(range(0, 16 * MIB));
    bytes[77] ^= 1;
    writer
        .append(LogFileKind::Piece, range(0, 16 * MIB), bytes.clone(), None)
        .await
        .unwrap();
    let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
    assert_eq!(listing.newest(SYSTEM).unwrap().previous, Some(first));
    for (lineage, wanted) in [(first, wal(range(0, 16 * MIB))), (writer.lineage(), bytes)] {
        let reader = LogReader::of(
            &world.repository,
            &world.component,
            &world.trust,
            world.identities(),
            lineage,
            &listing,
        );
        assert!(reader.read(range(0, 16 * MIB)).await.unwrap() == wanted);
    }
    drop(writer);
    let newest = listing.newest(SYSTEM).unwrap().lineage;
    either_goes_on(&world, first, newest).await;
}

/// Whoever goes on with the old one gets the old one, and can still compare what he writes with it; the newest stays the newest.
async fn either_goes_on(world: &World, first: lifeboat_repo::Lineage, newest: lifeboat_repo::Lineage) {
    for (lineage, wanted) in [
        (first, wal(range(0, 16 * MIB))),
        (newest, {
            let mut bytes = wal(range(0, 16 * MIB));
            bytes[77] ^= 1;
            bytes
        }),
    ] {
        let mut writer = LogWriter::begin(&world.env, &world.repository, plan(world), NewLog::Of(lineage))
            .await
            .unwrap();
        assert_eq!(writer.lineage(), lineage);
        let mut other = wanted.clone();
        other[99] ^= 1;
        assert!(
            writer
                .append(LogFileKind::Piece, range(0, 16 * MIB), wanted, None)
                .await
                .unwrap()
                .there
        );
        let refused = failed(
            writer.append(LogFileKind::Piece, range(0, 16 * MIB), other, None).await,
            "other bytes",
        );
        assert_eq!(refused.kind(), ErrorKind::Refused);
    }
    let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
    assert_eq!((listing.lineages.len(), listing.newest(SYSTEM).unwrap().lineage), (2, newest));
}

/// PG-06: what reaches over an end cannot be compared, and nothing is put over it.
#[tokio::test]
async fn what_cannot_be_compared_is_left_as_it_stands() {
    let world = World::new(18).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Frame, range(2 * MIB, 4 * MIB))
        .await
        .unwrap();
    append(&mut writer, LogFileKind::Frame, range(6 * MIB, 9 * MIB))
        .await
        .unwrap();
    for asked in [range(3 * MIB, 5 * MIB), range(MIB, 3 * MIB), range(7 * MIB, 8 * MIB)] {
        let mut other = wal(asked);
        other[0] ^= 1;
        other[usize::try_from(asked.bytes() - 1).unwrap()] ^= 1;
        for raw in [wal(asked), other] {
            let refused = failed(writer.append(LogFileKind::Piece, asked, raw, None).await, "an overlap");
            assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        }
    }
    assert_eq!(
        writer.fitting(range(0, 5 * MIB)).await.unwrap(),
        [range(0, 5 * MIB)],
        "it lies inside"
    );
    assert_eq!(
        writer.fitting(range(3 * MIB, 8 * MIB)).await.unwrap(),
        [range(4 * MIB, 6 * MIB)]
    );
    assert!(writer.fitting(range(7 * MIB, 8 * MIB)).await.unwrap().is_empty());
    append(&mut writer, LogFileKind::Piece, range(4 * MIB, 6 * MIB))
        .await
        .unwrap();
    // The same once more, with a newer time: it replaces the one before.
    let before = writer
        .append_again(
            LogFileKind::Frame,
            range(8 * MIB, 9 * MIB),
            wal(range(8 * MIB, 9 * MIB)),
            Some(1),
        )
        .await
        .unwrap();
    let again = writer
        .append_again(
            LogFileKind::Frame,
            range(8 * MIB, 9 * MIB),
            wal(range(8 * MIB, 9 * MIB)),
            Some(2),
        )
        .await
        .unwrap();
    assert_eq!(again.replaces, [before.name]);
    // A file whose key is not there counts for nothing where it is asked for.
    let lineage = writer.lineage();
    let confirm = || {
        lifeboat_repo::confirm_log(
            &world.repository,
            &world.component,
            &world.trust,
            lineage,
            vec![before.name, again.name],
        )
    };
    assert_eq!(confirm().await.unwrap().len(), 2);
    writer.drop_replaced(&again).await.unwrap();
    assert_eq!(confirm().await.unwrap(), [again.name]);
    for key in world.stored("keys").await {
        world.memory.delete(&key).await.unwrap();
    }
    assert!(confirm().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_key_is_not_damage() {
    let world = World::new(16).await;
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Piece, range(0, MIB)).await.unwrap();
    let open = |identities| {
        LogReader::open(
            &world.repository,
            &world.component,
            &world.trust,
            identities,
            writer.lineage(),
        )
    };
    let stranger = Identities::parse(&generate_identity().0).unwrap();
    let error = failed(
        open(stranger).await.unwrap().read(range(0, MIB)).await,
        "reading with a stranger's key",
    );
    assert_eq!(error.kind(), ErrorKind::WrongKey, "{error}");
    let key_file = world.stored("keys").await[0].clone();
    world.overwrite(&key_file, b"not a key file".to_vec()).await;
    let error = failed(
        open(world.identities()).await.unwrap().read(range(0, MIB)).await,
        "reading with a damaged key file",
    );
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn several_stores_hold_the_same_and_a_copy_brings_what_one_missed() {
    let world = World::new(17).await;
    let other = MemoryStore::new();
    let second = world.repository.replicate(Arc::new(other.clone())).await.unwrap();
    let both = || {
        Repository::joined(vec![
            ("a".into(), Ok(world.repository.clone())),
            ("b".into(), Ok(second.clone())),
        ])
        .unwrap()
    };
    let joined = both();
    let mut writer = begin(&world, &joined).await.unwrap();
    let done = append(&mut writer, LogFileKind::Piece, range(0, 16 * MIB)).await.unwrap();
    assert!(done.stores.iter().all(|store| store.missing.is_none()));
    let folder = world.component.folder().unwrap();
    assert_eq!(names(&world.memory, &folder).await, names(&other, &folder).await);
    drop(writer);
    // One store away for some time: what it missed is copied, key files included, and a damaged file is read from the other.
    let mut writer = begin(&world, &world.repository).await.unwrap();
    append(&mut writer, LogFileKind::Frame, range(16 * MIB, 17 * MIB))
        .await
        .unwrap();
    append(&mut writer, LogFileKind::Piece, range(16 * MIB, 32 * MIB))
        .await
        .unwrap();
    writer.record_gap(range(64 * MIB, 65 * MIB), "test").await.unwrap();
    // Without the key of its session a piece would count as held where nobody can open it.
    let there = names(&other, &folder).await;
    let is_new = |name: &&String| name.contains("/keys/") && !there.contains(name);
    let key_file = names(&world.memory, &folder).await.iter().find(is_new).cloned().unwrap();
    let key_file = lifeboat_store::Key::new(&key_file).unwrap();
    let sound = world.memory.get(&key_file, 1 << 20).await.unwrap().to_vec();
    world.overwrite(&key_file, vec![7; sound.len()]).await;
    let copied = copy_log(
        &world.env,
        &world.repository,
        &second,
        &world.component,
        &world.instance,
        &world.trust,
    )
    .await
    .unwrap();
    // The gap record; the key, the piece and its frame could not be.
    assert_eq!((copied.files, copied.failed.len()), (1, 3), "{:?}", copied.failed);
    world.overwrite(&key_file, sound).await;
    let copied = copy_log(
        &world.env,
        &world.repository,
        &second,
        &world.component,
        &world.instance,
        &world.trust,
    )
    .await
    .unwrap();
    assert!(copied.failed.is_empty(), "{:?}", copied.failed);
    // Key file, piece: the frame that the piece replaces is not copied, the gap record came before.
    assert_eq!(copied.files, 2);
    assert!(reader(&world, &second).await.read(range(16 * MIB, 32 * MIB)).await.unwrap() == wal(range(16 * MIB, 32 * MIB)));
    let again = copy_log(
        &world.env,
        &world.repository,
        &second,
        &world.component,
        &world.instance,
        &world.trust,
    );
    assert_eq!(again.await.unwrap().files, 0);
    let key = done.name.key(&world.component, writer.lineage()).unwrap();
    world
        .overwrite(&key, vec![0; usize::try_from(done.name.size_bytes).unwrap()])
        .await;
    assert!(reader(&world, &both()).await.read(range(0, 16 * MIB)).await.unwrap() == wal(range(0, 16 * MIB)));
}

async fn names(store: &MemoryStore, folder: &lifeboat_store::Key) -> Vec<String> {
    let entries = store.list(folder).await.unwrap();
    entries.iter().map(|entry| entry.key.to_string()).collect()
}
