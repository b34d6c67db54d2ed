//! Servers that die, lie or refuse at every stage of a backup: nothing is listed, the error says why, and the next backup is whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::{ErrorKind, Progress};
use lifeboat_ops::Source;
use lifeboat_ops::protected::{self, Login, Mode};
use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};

use crate::world::{World, kind_of};

fn source(cluster: &Cluster, dsn: &str, mode: Mode) -> Source {
    Source::Postgres(protected::Cluster {
        method: lifeboat_ops::protected::Method::Physical,
        logical: lifeboat_ops::protected::Logical::default(),
        login: Login::known(ConnInfo::parse(dsn, &Surroundings::default()).unwrap()),
        data_dir: None,
        mode,
        slot: "lifeboat_test".to_owned(),
        binaries: vec![cluster.bindir()],
        program: "lifeboat".into(),
        care: protected::Care::default(),
    })
}

async fn world(cluster: &Cluster, mode: Mode) -> World {
    let mut world = World::new(1).await;
    world.protected.source = source(cluster, &cluster.dsn("postgres", "postgres"), mode);
    world
}

async fn listed(world: &World) -> usize {
    let repository = world.protected.repository().await.unwrap();
    world.protected.listing(&repository).await.unwrap().backups.len()
}

/// Kills the server when a backup comes to a step, or has read so much.
#[derive(Debug)]
struct Killer {
    cluster: Mutex<Cluster>,
    step: Mutex<Option<&'static str>>,
    left: AtomicU64,
}

/// No step: in the middle of the files.
const MIDDLE: &str = "middle";
const STEPS: [&str; 6] = ["hold the log", "begin", "back up", MIDDLE, "end", "store the log"];

impl Killer {
    fn strike(&self, now: &str) {
        let mut step = self.step.lock().unwrap();
        if *step == Some(now) {
            *step = None;
            self.cluster.lock().unwrap().kill_9();
        }
    }
}

impl Progress for Killer {
    fn step(&self, name: &str, _total_bytes: Option<u64>) {
        self.strike(name);
    }
    fn advance(&self, bytes: u64) {
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(bytes), Ordering::SeqCst);
        if left <= bytes {
            self.strike(MIDDLE);
        }
    }
    fn finish(&self) {}
}

/// How much was read.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Progress for Counted {
    fn step(&self, _name: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
    fn finish(&self) {}
}

/// The log of a backup that nobody follows comes beside the files: where it ends too early, nobody copies for hours in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_breaks_off_ends_the_backup_at_once() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    cluster.pgbench_init(2);
    let mut world = world(&cluster, Mode::Local).await;
    let Source::Postgres(source) = &mut world.protected.source else {
        unreachable!("it is a cluster");
    };
    source.care.max_rate = Some(1 << 20);
    let counted = Arc::new(Counted::default());
    world.env.progress = Arc::<Counted>::clone(&counted);
    let total = cluster
        .query("select sum(pg_database_size(oid)) from pg_database")
        .parse::<u64>()
        .unwrap();
    let cutting = tokio::task::spawn_blocking(move || {
        let senders = "pg_stat_replication where state = 'streaming'";
        cluster.wait_until(&format!("select count(*) = 1 from {senders}"));
        cluster.query(&format!("select pg_terminate_backend(pid) from {senders}"));
        cluster
    });
    let error = world.back_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    let read = counted.0.load(Ordering::SeqCst);
    assert!(read < total / 2, "{read} bytes of {total} were read");
    let cluster = cutting.await.unwrap();
    assert_eq!(listed(&world).await, 0);
    assert_eq!(cluster.query("select count(*) from pg_replication_slots"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_any_stage_of_a_backup_leaves_no_backup_and_no_slot() {
    let soak = std::env::var_os("LIFEBOAT_SOAK").is_some_and(|value| value == "1");
    for (place, major) in majors().into_iter().enumerate() {
        for (number, mode) in [Mode::Local, Mode::Stream].into_iter().enumerate() {
            if !soak && place % 2 != number {
                continue;
            }
            let mut options = Options::new();
            if major >= 17 {
                options = options.set("summarize_wal", "on").set("wal_keep_size", "1GB");
            }
            let cluster = Cluster::start(major, &options);
            let mut world = world(&cluster, mode).await;
            // On 18 increments are what is killed.
            drop(world.back_up().await.unwrap());
            let mut known = 1;
            let killer = Arc::new(Killer {
                cluster: Mutex::new(cluster),
                step: Mutex::new(None),
                left: AtomicU64::new(0),
            });
            world.env.progress = Arc::<Killer>::clone(&killer);
            for step in STEPS {
                *killer.step.lock().unwrap() = Some(step);
                killer.left.store(100 << 10, Ordering::SeqCst);
                let backup = world.back_up().await;
                if killer.step.lock().unwrap().take().is_some() {
                    assert_eq!(step, MIDDLE, "{major} {mode:?}: there is no such step");
                    killer.cluster.lock().unwrap().kill_9();
                }
                match backup {
                    Ok(report) => {
                        // All that it needed had come.
                        assert!(
                            matches!(step, MIDDLE | "store the log"),
                            "{major} {mode:?}: {step}: {report:?}"
                        );
                        known += 1;
                    }
                    Err(error) => {
                        eprintln!("{major} {mode:?}, {step}: {error}");
                        let kind = error.kind();
                        assert!(
                            matches!(kind, ErrorKind::Unreachable | ErrorKind::Interrupted),
                            "{step}: {error:?}"
                        );
                    }
                }
                assert_eq!(listed(&world).await, known, "{major} {mode:?}: {step}");
                killer.cluster.lock().unwrap().begin();
            }
            drop(world.back_up().await.unwrap());
            assert_eq!(listed(&world).await, known + 1);
            let slots = "select count(*) from pg_replication_slots";
            assert_eq!(killer.cluster.lock().unwrap().query(slots), "0", "{major} {mode:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_not_backed_up_into_the_same_component() {
    let major = majors()[1];
    let first = Cluster::start(major, &Options::new());
    for mode in [Mode::Local, Mode::Stream] {
        let mut world = world(&first, mode).await;
        drop(world.back_up().await.unwrap());
        let other = Cluster::start(major, &Options::new().fresh(&[]));
        world.protected.source = source(&other, &other.dsn("postgres", "postgres"), mode);
        let error = world.back_up().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        for cluster in [&first, &other] {
            let identifier = cluster.system_identifier().to_string();
            assert!(error.to_string().contains(&identifier), "{identifier}: {error}");
        }
        assert_eq!(listed(&world).await, 1);
        assert_eq!(other.query("select count(*) from pg_replication_slots"), "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_told_what_is_missing() {
    let hba = ["host all all all scram-sha-256", "host replication all all scram-sha-256"];
    let cluster = Cluster::start(majors()[0], &Options::new().hba(&hba));
    cluster.query("create role weak login password 'sesame'; create role able login replication password 'sesame'");
    cluster.query("grant pg_read_all_settings to weak, able");
    let mut world = world(&cluster, Mode::Auto).await;
    for (user, words) in [
        ("able:wrong", "password authentication failed"),
        ("nobody:sesame", "password authentication failed"),
        ("weak:sesame", "replication"),
    ] {
        world.protected.source = source(&cluster, &cluster.url(user, "postgres"), Mode::Auto);
        let error = world.back_up().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{user}: {error:?}");
        let says = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(says.to_lowercase().contains(words), "{user}: {says}");
        assert!(!says.contains("sesame"), "{says}");
        assert_eq!(listed(&world).await, 0);
    }
    // Without the right to begin a backup by itself it is streamed.
    world.protected.source = source(&cluster, &cluster.url("able:sesame", "postgres"), Mode::Auto);
    let report = world.back_up().await.unwrap();
    assert_eq!(report.facts.postgres().unwrap().mode, "stream", "{:?}", report.notes);
}

/// A server that says of itself that it is another version.
fn pretend(cluster: &Cluster, major: u32) -> String {
    let number =
        format!("select case $1 when ''server_version_num'' then ''{major}0001'' else pg_catalog.current_setting($1) end");
    cluster.query("drop schema if exists shadow cascade; create schema shadow");
    cluster.query(&format!(
        "create function shadow.current_setting(text) returns text language sql as '{number}'"
    ));
    cluster.query("drop role if exists liar; create role liar superuser replication login");
    cluster.query("alter role liar set search_path = shadow, pg_catalog");
    cluster.dsn("liar", "postgres")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_too_old_is_refused_and_one_that_is_too_new_is_streamed() {
    let cluster = Cluster::start(majors()[2], &Options::new());
    let mut world = world(&cluster, Mode::Auto).await;
    let dsn = pretend(&cluster, 13);
    for mode in [Mode::Auto, Mode::Local, Mode::Stream] {
        world.protected.source = source(&cluster, &dsn, mode);
        let error = world.back_up().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains("14 to 18"), "{error}");
    }
    let dsn = pretend(&cluster, 19);
    world.protected.source = source(&cluster, &dsn, Mode::Local);
    assert_eq!(kind_of(world.back_up().await), ErrorKind::Incompatible);
    assert_eq!(listed(&world).await, 0);
    world.protected.source = source(&cluster, &dsn, Mode::Auto);
    let report = world.back_up().await.unwrap();
    assert_eq!(report.facts.postgres().unwrap().mode, "stream", "{:?}", report.notes);
    assert_eq!(cluster.query("select count(*) from pg_replication_slots"), "0");
}

/// Summaries of the log that are gone, while the server goes on writing new ones: everything comes, and then changes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn summaries_that_are_missing_cost_a_whole_backup_and_nothing_else() {
    let options = Options::new()
        .segments(1)
        .set("summarize_wal", "on")
        .set("min_wal_size", "2MB");
    let mut cluster = Cluster::start(18, &options.set("max_wal_size", "2MB"));
    let world = world(&cluster, Mode::Stream).await;
    drop(world.back_up().await.unwrap());
    cluster.query("create table t (i int)");
    for _ in 0..5 {
        cluster.query("insert into t values (1); select pg_switch_wal(); checkpoint");
    }
    cluster.stop(Stop::Fast);
    std::fs::remove_dir_all(cluster.data_dir().join("pg_wal/summaries")).unwrap();
    // What the log would summarize again is gone, too.
    cluster.begin();
    cluster.query("insert into t values (2); select pg_switch_wal(); checkpoint");
    cluster.query("insert into t values (3); select pg_switch_wal(); checkpoint");
    let modes: Vec<String> = {
        let mut modes = Vec::new();
        for _ in 0..2 {
            let report = world.back_up().await.unwrap();
            eprintln!("{:?}", report.notes);
            modes.push(report.facts.postgres().unwrap().mode.clone());
        }
        modes
    };
    assert_eq!(modes, ["stream", "increment"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backups_at_once_do_not_harm_each_other() {
    for (major, mode) in majors().into_iter().zip([Mode::Local, Mode::Stream, Mode::Stream]) {
        let cluster = Cluster::start(major, &Options::new());
        let world = world(&cluster, mode).await;
        let (one, two) = tokio::join!(world.back_up(), world.back_up());
        let mut done = 0;
        for backup in [one, two] {
            match backup {
                Ok(_report) => done += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Locked, "{major} {mode:?}: {error:?}"),
            }
        }
        assert!(done > 0, "{major} {mode:?}");
        assert_eq!(listed(&world).await, done, "{major} {mode:?}");
        drop(world.back_up().await.unwrap());
        assert_eq!(cluster.query("select count(*) from pg_replication_slots"), "0");
    }
}
