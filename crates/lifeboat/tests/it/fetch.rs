//! `wal fetch`: what it ends with, and what real servers make of it (PG-07).

mod daemon;
mod scene;

use std::path::Path;
use std::sync::Arc;

use lifeboat_engine::postgres::records::Scan;
use lifeboat_model::wal::{LogFile, Range};
use lifeboat_model::{ErrorKind, Lsn, Timeline};
use lifeboat_ops::wal::{Answer, Archive, Goal, Limit};
use lifeboat_repo::LogFileKind;
use lifeboat_testkit::faulty::{Fault, FaultyStore, Plan};
use lifeboat_testkit::postgres::{Options, majors};

use scene::{Scene, lifeboat, served, short_folder, tli};

/// How somebody may get it wrong; S is a socket that is not there, D a place to put a file.
const WRONG: [&str; 16] = [
    "wal fetch",
    "wal fetch --help",
    "wal fetch 000000010000000000000001 D",
    "wal fetch --socket S",
    "wal fetch --socket S 000000010000000000000001",
    "wal fetch --socket S 000000010000000000000001 D more",
    "wal fetch --socket S --frobnicate 000000010000000000000001 D",
    "wal fetch --socket S --restore S 000000010000000000000001 D",
    "wal fetch --socket S --patience soon 000000010000000000000001 D",
    "wal fetch --socket S --patience 0 000000010000000000000001 D",
    "wal fetch --socket EMPTY --patience 0 000000010000000000000001 D",
    "wal fetch --restore S --patience 0 000000010000000000000001 D",
    "--json wal fetch --what",
    "--config /nowhere.yaml wal fetch --what",
    "--config wal fetch a b",
    "--frobnicate wal fetch a b",
];

#[test]
fn wrong_words_end_in_255_and_never_in_what_a_server_takes_for_absence() {
    let folder = short_folder();
    let dest = folder.path().join("dest");
    let nowhere = folder.path().join("nowhere");
    for line in WRONG {
        let word = |word| match word {
            "S" => nowhere.to_str().unwrap(),
            "D" => dest.to_str().unwrap(),
            "EMPTY" => "",
            other => other,
        };
        let words: Vec<&str> = line.split(' ').map(word).collect();
        let output = lifeboat(&words);
        assert_eq!(output.status.code(), Some(255), "{line}: {output:?}");
        assert!(!output.stderr.is_empty(), "{line}");
        assert!(!dest.exists(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_recover_to_the_exact_record() {
    for (major, segment_mib) in majors().into_iter().zip([16, 1, 64]) {
        let mut scene = Scene::new(major, segment_mib).await;
        let (_, first) = scene.commit(1);
        scene.fill(2);
        let (second_us, second) = scene.commit(2);
        let (third_us, _) = scene.commit(3);
        scene.fill(if segment_mib == 64 { 2 } else { 1 });
        let (_, fourth) = scene.commit(4);
        if segment_mib == 64 {
            // The last record is the one that leaves the rest of its segment out.
            scene.cluster.query("select pg_switch_wal()");
        }
        let until = scene.put_all().await;
        let archive = scene.archive(1, until).await;

        // Latest: everything that was committed.
        let latest = scene.resolve(&archive, Goal::Lsn(until)).await;
        assert_eq!((latest.until, latest.broken), (until, None), "{major}");
        let (rows, reached) = scene.recover(&archive, &latest, 60).await.unwrap();
        assert_eq!((rows.as_str(), reached), ("1,2,3,4", until), "{major}");

        // Half a record at the end is no record.
        let cut = Lsn(fourth.0 - 8);
        let before = scene.resolve(&archive.until(cut), Goal::Lsn(cut)).await;
        assert!(before.until < fourth, "{before:?}");
        assert_eq!(
            scene.recover(&archive.until(cut), &before, 60).await.unwrap().0,
            "1,2,3",
            "{major}"
        );

        // A position: what ends there comes back, what begins there does not.
        let at = scene.resolve(&archive, Goal::Lsn(first)).await;
        assert_eq!((at.until, at.bracket.last.unwrap().end), (first, first), "{major}");
        assert_eq!(
            scene.recover(&archive, &at, 60).await.unwrap(),
            ("1".to_owned(), first),
            "{major}"
        );

        // A time: up to and with the commit of that microsecond, as the server itself knows its time.
        let goal = |at_us| Goal::Time {
            at_us,
            from: scene.base.0,
        };
        let then = scene.resolve(&archive, goal(second_us)).await;
        let bracket = then.bracket;
        assert_eq!(
            (bracket.last.unwrap().at_us, bracket.last.unwrap().end),
            (second_us, second),
            "{major}"
        );
        assert_eq!(bracket.next.unwrap().at_us, third_us, "{major}");
        assert_eq!(scene.recover(&archive, &then, 60).await.unwrap().0, "1,2", "{major}");
        // Wherever it is looked for first: with segments of 64 MiB that is 128 MiB behind it.
        let guessed = Goal::Time {
            at_us: second_us,
            from: until,
        };
        assert_eq!(scene.resolve(&archive, guessed).await, then, "{major}");
        let just_before = scene.resolve(&archive, goal(second_us - 1)).await;
        assert_eq!(just_before.bracket.next.unwrap().at_us, second_us, "{major}");
        // Behind the last commit that is held there is nothing to stop in front of, and everything comes back.
        let later = scene.resolve(&archive, goal(i64::MAX)).await;
        assert_eq!(later.until, until, "{major}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_for_a_while_does_not_end_a_recovery() {
    let major = majors()[1];
    let mut scene = Scene::new(major, 1).await;
    for id in 1..4 {
        scene.commit(id);
        scene.fill(3);
    }
    scene.commit(4);
    let until = scene.put_all().await;
    let latest = scene.resolve(&scene.archive(1, until).await, Goal::Lsn(until)).await;
    let limit = scene.archive(1, until).await.limit();
    let calm = Arc::new(FaultyStore::new(scene.store(), Plan::calm()));
    drop(
        Archive::open(scene.place_in(Arc::clone(&calm) as _).await, limit)
            .await
            .unwrap(),
    );
    // Opened well; then nothing answers for some requests, twice.
    let opened = calm.operations();
    let mut plan = Plan::calm();
    for number in (opened + 2..opened + 12).chain(opened + 30..opened + 40) {
        plan = plan.fault(number, Fault::Refused(ErrorKind::Unreachable));
    }
    let faulty = Arc::new(FaultyStore::new(scene.store(), plan));
    let archive = Archive::open(scene.place_in(Arc::clone(&faulty) as _).await, limit)
        .await
        .unwrap();
    let (rows, reached) = scene.recover(&archive, &latest, 60).await.unwrap();
    assert_eq!((rows.as_str(), reached), ("1,2,3,4", until));
    assert!(!faulty.faulted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_damaged_stops_a_recovery_and_never_ends_it() {
    for (place, major) in majors().into_iter().enumerate() {
        let mut scene = Scene::new(major, 1).await;
        scene.commit(1);
        scene.fill(6);
        scene.commit(2);
        let until = scene.put_all().await;
        let archive = scene.archive(1, until).await;
        let latest = scene.resolve(&archive, Goal::Lsn(until)).await;
        let files = scene.log_files(1);
        let victim = &files[files.len() - 3];
        if place == 0 {
            std::fs::remove_file(victim).unwrap();
        } else {
            let mut bytes = std::fs::read(victim).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(victim, bytes).unwrap();
        }
        let archive = scene.archive(1, until).await;
        let error = scene.recover(&archive, &latest, 1).await.unwrap_err();
        assert!(error.detail().contains("could not restore file"), "{major}: {error}");
        // The client says the same to whoever asks, and leaves nothing.
        let folder = short_folder();
        let serving = served(&scene, &archive, folder.path()).await;
        let dest = folder.path().join("dest");
        let name = victim_name(&scene, victim);
        let words = [
            "wal",
            "fetch",
            "--patience",
            "0",
            "--socket",
            serving.socket().to_str().unwrap(),
            &name,
        ];
        let output = tokio::task::block_in_place(|| lifeboat(&[&words[..], &[dest.to_str().unwrap()]].concat()));
        assert_eq!(output.status.code(), Some(255), "{output:?}");
        assert!(!dest.exists());
        assert!(serving.trouble().is_some());
        serving.stop().await.unwrap();
    }
}

/// The server's name for the segment in which a stored file begins.
fn victim_name(scene: &Scene, file: &Path) -> String {
    let name = file.file_name().unwrap().to_str().unwrap();
    let start = u64::from_str_radix(name.split('-').next().unwrap(), 16).unwrap();
    scene.size.name_of(Timeline::FIRST, scene.size.number_of(Lsn(start))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_followed_or_left_out_as_it_was_decided() {
    for major in majors() {
        let mut scene = Scene::new(major, 16).await;
        scene.commit(1);
        let standby = scene.cluster.standby(&Options::new().set("wal_keep_size", "1GB"));
        scene.cluster.query("insert into t values (2, '')");
        standby.wait_for_replay(&scene.cluster);
        standby.promote();
        standby.query("insert into t values (20, '')");
        standby.query("select pg_switch_wal()");
        standby.query("insert into t values (21, '')");
        // The old primary did not hear of it.
        scene.commit(3);
        let old = scene.put_all().await;
        let new: Lsn = standby.query("select pg_current_wal_flush_lsn()").parse().unwrap();
        scene.put_log(&standby.data_dir().join("pg_wal"), tli(2), new).await;

        let archive = scene.archive(1, old).await;
        let on_old = scene.resolve(&archive, Goal::Lsn(old)).await;
        assert_eq!(scene.recover(&archive, &on_old, 60).await.unwrap().0, "1,2,3", "{major}");
        // Its next timeline must not be one that was used.
        assert!(matches!(archive.look("00000002.history").await.unwrap(), Answer::Text(_)));
        assert!(matches!(archive.look("00000003.history").await.unwrap(), Answer::Absent(_)));
        let beside = LogFile::Segment {
            timeline: tli(2),
            number: scene.size.number_of(new),
        };
        let beside = beside.name(scene.size).unwrap();
        assert!(matches!(archive.look(&beside).await.unwrap(), Answer::Absent(_)));

        let archive = scene.archive(2, new).await;
        let on_new = scene.resolve(&archive, Goal::Lsn(new)).await;
        assert_eq!(on_new.until, new, "{major}");
        assert_eq!(scene.recover(&archive, &on_new, 60).await.unwrap().0, "1,2,20,21", "{major}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_log_is_never_handed_out() {
    let mut scene = Scene::new(majors()[0], 1).await;
    scene.commit(1);
    scene.fill(2);
    let until = scene.lsn("pg_current_wal_flush_lsn()");
    let number = scene.size.number_of(scene.base.0);
    let name = scene.size.name_of(Timeline::FIRST, number).unwrap();
    let bytes = std::fs::read(scene.cluster.data_dir().join("pg_wal").join(&name)).unwrap();
    let start = scene.size.start_of(number);
    let range = Range::new(Timeline::FIRST, start, start.plus(scene.size.bytes()));
    let mut writer = scene.writer(scene.cluster.system_identifier() + 1).await;
    writer.append(LogFileKind::Piece, range, bytes, None).await.unwrap();
    let archive = scene.archive(1, until).await;
    let Answer::Segment(segment) = archive.look(&name).await.unwrap() else {
        panic!("it is stored");
    };
    let error = archive.part(&segment, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // And of another lineage there is nothing at all.
    let limit = Limit {
        lineage: "00000000000000000000000000000001".parse().unwrap(),
        ..archive.limit()
    };
    assert_eq!(
        Archive::open(scene.place(), limit).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

/// Asks on `socket` for a file; how that ended.
fn ask(socket: &str, patience: &str, name: &str, dest: &Path) -> Option<i32> {
    let dest = dest.to_str().unwrap();
    let words = ["wal", "fetch", "--patience", patience, "--socket", socket, name, dest];
    tokio::task::block_in_place(|| lifeboat(&words)).status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_whole_with_zeros_behind_the_limit() {
    let mut scene = Scene::new(majors()[2], 16).await;
    scene.commit(1);
    scene.fill(2);
    let (_, until) = scene.commit(2);
    scene.put_all().await;
    let archive = scene.archive(1, until).await;
    let folder = short_folder();
    let serving = served(&scene, &archive, folder.path()).await;
    let socket = serving.socket().to_str().unwrap().to_owned();
    let mode = std::os::unix::fs::PermissionsExt::mode(&serving.socket().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let fetch = |name: &str, dest: &Path| ask(&socket, "5", name, dest);
    let (first, last) = (scene.size.number_of(scene.base.0), scene.size.number_of(Lsn(until.0 - 1)));
    for number in first..=last {
        let name = scene.size.name_of(Timeline::FIRST, number).unwrap();
        let dest = folder.path().join(&name);
        assert_eq!(fetch(&name, &dest), Some(0), "{name}");
        let (got, theirs) = (
            std::fs::read(&dest).unwrap(),
            std::fs::read(scene.cluster.data_dir().join("pg_wal").join(&name)).unwrap(),
        );
        assert_eq!(got.len(), 16 << 20);
        let held = usize::try_from(until.since(scene.size.start_of(number)).min(16 << 20)).unwrap();
        assert!(got[..held] == theirs[..held], "{name}");
        assert!(got[held..].iter().all(|byte| *byte == 0), "{name}");
    }
    let dest = folder.path().join("dest");
    // Proven or decided: there is no such file.
    let behind = scene.size.name_of(Timeline::FIRST, last + 1).unwrap();
    for absent in [
        behind.as_str(),
        "00000001.history",
        "00000002.history",
        "000000020000000000000005",
    ] {
        assert_eq!(fetch(absent, &dest), Some(1), "{absent}");
        assert!(!dest.exists());
    }
    // No name of a file of log; nowhere to put it; nobody there any more.
    let segment = scene.size.name_of(Timeline::FIRST, first).unwrap();
    for (name, dest) in [
        ("000000010000000000000zzz", dest.clone()),
        (&segment, folder.path().join("no/such/folder")),
    ] {
        assert_eq!(ask(&socket, "0", name, &dest), Some(255), "{name}");
    }
    serving.stop().await.unwrap();
    assert_eq!(ask(&socket, "0", &segment, &dest), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_those_that_the_servers_own_program_finds() {
    for major in majors() {
        let scene = Scene::new(major, 16).await;
        scene.cluster.pgbench_init(1);
        scene.cluster.pgbench(&["-t", "50", "-c", "2"]);
        scene.fill(1);
        scene.commit(1);
        let until = scene.lsn("pg_current_wal_flush_lsn()");
        let pg_wal = scene.cluster.data_dir().join("pg_wal");
        let start = scene.size.align_down(scene.base.0);
        let mut scan = Scan::new(start, scene.size);
        let mut found = Vec::new();
        for number in scene.size.number_of(start)..=scene.size.number_of(Lsn(until.0 - 1)) {
            let bytes = std::fs::read(pg_wal.join(scene.size.name_of(Timeline::FIRST, number).unwrap())).unwrap();
            let held = usize::try_from(until.since(scene.size.start_of(number)).min(scene.size.bytes())).unwrap();
            // In pieces of any size.
            for part in bytes[..held].chunks(100_003) {
                scan.take(part, |record| found.push((record.start, record.xid, record.ended.is_some())));
            }
        }
        let end = scan.finish(|record| found.push((record.start, record.xid, record.ended.is_some())));
        assert_eq!(end.at, until, "{major}: {end:?}");
        let (from, to) = (found[0].0.to_string(), until.to_string());
        let dump = scene
            .cluster
            .run("pg_waldump", &["-p", pg_wal.to_str().unwrap(), "-s", &from, "-e", &to]);
        let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
        let theirs: Vec<(Lsn, u32, bool)> = dump.lines().map(waldump_line).collect();
        assert_eq!(found.len(), theirs.len(), "{major}");
        if let Some((ours, theirs)) = found.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs) {
            panic!("{major}: {ours:?} {theirs:?}");
        }
        assert!(found.iter().filter(|(.., ended)| *ended).count() > 100, "{major}");
    }
}

/// `rmgr: Transaction len (rec/tot): 34/ 34, tx: 733, lsn: 0/01500FA0, prev 0/01500F60, desc: COMMIT 2026-…`
fn waldump_line(line: &str) -> (Lsn, u32, bool) {
    let field = |name: &str| {
        line.split_once(name)
            .unwrap()
            .1
            .trim_start()
            .split([',', ' '])
            .next()
            .unwrap()
    };
    let ended = line.contains("rmgr: Transaction") && (line.contains("desc: COMMIT") || line.contains("desc: ABORT"));
    (field("lsn:").parse().unwrap(), field("tx:").parse().unwrap(), ended)
}
