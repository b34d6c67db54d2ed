//! Log from several stores, and from several timelines: what one lacks stands in another.

use std::path::Path;
use std::sync::Arc;

use lifeboat_model::wal::Range;
use lifeboat_model::{ErrorKind, Lsn};
use lifeboat_ops::wal::{Answer, Archive, Limit, Place, Source};
use lifeboat_repo::LogFileKind;
use lifeboat_store::BlobStore;
use lifeboat_store::fs::FsStore;
use lifeboat_testkit::faulty::{Fault, FaultyStore, Op, Plan};
use lifeboat_testkit::postgres::majors;

use super::scene::{Scene, tli};

const KIB: u64 = 1 << 10;

/// The same store somewhere else.
async fn copied(scene: &Scene, to: &Path) -> Arc<dyn BlobStore> {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(scene.store_dir())
        .arg(to)
        .status();
    assert!(copied.unwrap().success());
    Arc::new(FsStore::open(to).await.unwrap())
}

/// A store that answers nothing.
fn away(store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
    let refused = Fault::Refused(ErrorKind::Unreachable);
    let all = [Op::Get, Op::GetRange, Op::Head, Op::List].into_iter();
    Arc::new(FaultyStore::new(
        store,
        all.fold(Plan::calm(), |plan, op| plan.always(op, refused)),
    ))
}

fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// A segment as it is handed out.
async fn segment(archive: &Archive, name: &str) -> Vec<u8> {
    let Answer::Segment(segment) = archive.look(name).await.unwrap() else {
        panic!("{name} is there");
    };
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < segment.bytes() {
        let part = archive.part(&segment, bytes.len() as u64).await.unwrap();
        bytes.extend_from_slice(part.bytes());
        bytes.resize(bytes.len() + part.zeros(), 0);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_store_lacks_is_read_from_the_next_and_absence_is_asked_of_all() {
    let mut scene = Scene::new(majors()[1], 1).await;
    scene.commit(1);
    scene.fill(3);
    scene.commit(2);
    let until = scene.put_all().await;
    let limit = scene.archive(1, until).await.limit();
    let folder = tempfile::tempdir().unwrap();
    let lagging = copied(&scene, &folder.path().join("lagging")).await;
    let mut writer = scene.writer(scene.cluster.system_identifier()).await;
    writer
        .append_history(tli(2), b"1\t0/5000000\tpromoted\n".to_vec())
        .await
        .unwrap();
    let second = copied(&scene, &folder.path().join("second")).await;
    // In the first store a segment is gone, and another one damaged.
    let files = scene.log_files(1);
    std::fs::remove_file(&files[files.len() - 2]).unwrap();
    flip(&files[files.len() - 3]);
    let first = || Source::at("first".to_owned(), scene.store(), true);
    let open = async |sources: Vec<Source>| {
        Archive::open(
            Place {
                sources,
                ..scene.place()
            },
            limit,
        )
        .await
        .unwrap()
    };
    let both = open(vec![first(), Source::at("second".to_owned(), Arc::clone(&second), true)]).await;
    let pg_wal = scene.cluster.data_dir().join("pg_wal");
    for number in scene.size.number_of(limit_start(&scene))..scene.size.number_of(until) {
        let name = scene.size.name_of(tli(1), number).unwrap();
        assert!(
            segment(&both, &name).await == std::fs::read(pg_wal.join(&name)).unwrap(),
            "{name}"
        );
    }
    // A timeline that only one store knows of was used all the same.
    let lagging = || Source::at("lagging".to_owned(), Arc::clone(&lagging), true);
    let known = open(vec![lagging(), first()]).await;
    assert!(matches!(known.look("00000002.history").await.unwrap(), Answer::Text(_)));
    assert!(matches!(known.look("00000003.history").await.unwrap(), Answer::Absent(_)));
    // One that counts and does not answer may know of more; one that nobody counted on is not waited for.
    let silent = |counts| Source::at("away".to_owned(), away(Arc::clone(&second)), counts);
    let asked = open(vec![lagging(), silent(true)]).await;
    assert_eq!(
        asked.look("00000002.history").await.unwrap_err().kind(),
        ErrorKind::Unreachable
    );
    let others = open(vec![lagging(), silent(false)]).await;
    assert!(matches!(others.look("00000002.history").await.unwrap(), Answer::Absent(_)));
    // A store that opens only later does not keep the others from being read.
    let late = open(vec![silent(true), Source::at("second".to_owned(), Arc::clone(&second), true)]).await;
    let name = scene.size.name_of(tli(1), scene.size.number_of(limit_start(&scene))).unwrap();
    assert_eq!(segment(&late, &name).await.len() as u64, scene.size.bytes());
    // Of a history that cannot be read it counts that there is one: its number is not free.
    flip(&scene.stored("history")[0]);
    let unreadable = open(vec![first()]).await;
    let Answer::Text(text) = unreadable.look("00000002.history").await.unwrap() else {
        panic!("timeline 2 was used");
    };
    assert!(text.starts_with(b"#"), "{text:?}");
}

fn limit_start(scene: &Scene) -> Lsn {
    scene.base.0
}

/// The end of timeline 1 stands only in what timeline 2 copied of it, and timeline 3 came of that.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_timeline_is_read_from_any_that_copied_it() {
    let mut scene = Scene::new(majors()[0], 1).await;
    let begin = Lsn(1 << 30);
    let (one, two) = (begin.plus(500 * KIB), begin.plus(1_300 * KIB));
    let until = begin.plus(2_048 * KIB);
    let bytes: Vec<u8> = (0..until.since(begin))
        .map(|at| u8::try_from(at * 7 / 640 % 251).unwrap())
        .collect();
    let mut writer = scene.writer(scene.cluster.system_identifier()).await;
    let second = format!("1\t{one}\tpromoted\n");
    let third = format!("{second}2\t{two}\tpromoted\n");
    writer.append_history(tli(2), second.into_bytes()).await.unwrap();
    writer.append_history(tli(3), third.into_bytes()).await.unwrap();
    let part = |from: Lsn, to: Lsn| {
        let at = |lsn: Lsn| usize::try_from(lsn.since(begin)).unwrap();
        bytes[at(from)..at(to)].to_vec()
    };
    let copied = begin.plus(1_024 * KIB);
    // Of what 1 had last, its own copy ends early, and that of 2 has a hole in front of that.
    let held = [
        (1, begin, begin.plus(300 * KIB)),
        (2, begin.plus(200 * KIB), begin.plus(1_200 * KIB)),
        (3, copied, until),
    ];
    for (timeline, from, to) in held {
        let range = Range::new(tli(timeline), from, to);
        writer.append(LogFileKind::Frame, range, part(from, to), None).await.unwrap();
    }
    let archive = scene.archive(3, until).await;
    assert_eq!(
        archive.limit(),
        Limit {
            lineage: scene.lineage.unwrap(),
            timeline: tli(3),
            until
        }
    );
    assert!(archive.along_way(begin, until).await.unwrap() == bytes);
    // What nobody has is missing.
    let missing = begin.plus(100 * KIB);
    let file = scene.stored("tail").remove(0);
    std::fs::remove_file(file).unwrap();
    let archive = scene.archive(3, until).await;
    let error = archive.along_way(missing, until).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(archive.along_way(begin.plus(200 * KIB), until).await.unwrap() == bytes[200 * 1024..]);
}
