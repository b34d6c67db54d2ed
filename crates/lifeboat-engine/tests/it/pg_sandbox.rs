//! Sandboxes on real servers: what a cluster was configured for must not happen again, and nothing may stay behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::sandbox::{self, Plan, Recovery, Stage};
use lifeboat_model::{Env, ErrorKind};
use lifeboat_testkit::postgres::{Cluster, Options, Stop, bindir, majors};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
const CHILD: &str = "LIFEBOAT_TEST_SANDBOX";

fn env() -> Env {
    lifeboat_testkit::env::real_env()
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

async fn plan(major: u32, data_dir: &Path, root: &Path) -> Plan {
    let binaries = Binaries::find(major, &[bindir(major)]).await.unwrap();
    assert_eq!(binaries.major(), major);
    Plan {
        data_dir: data_dir.to_owned(),
        dispose: true,
        binaries,
        root: root.to_owned(),
        recovery: Recovery::None,
        durable: false,
        superuser: "postgres".into(),
        preload: None,
        settings: BTreeMap::new(),
        patience: PATIENCE,
    }
}

/// A folder with a short path that the user of the servers can reach.
fn root() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("lbsbt").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

async fn text(session: &sandbox::Session, sql: &str) -> String {
    session
        .client()
        .query_one(sql, &[])
        .await
        .unwrap()
        .get::<_, Option<String>>(0)
        .unwrap_or_default()
}

/// A cluster that does harm where it is started as it is.
fn nasty(major: u32) -> (Cluster, PathBuf) {
    let options = Options::new()
        .set("wal_level", "logical")
        .set("max_connections", "500")
        .set("max_worker_processes", "11")
        .set("archive_mode", "on")
        .set("archive_command", "/bin/false");
    let mut cluster = Cluster::start(major, &options);
    let harm = cluster.make_folder("harm");
    cluster.pgbench_init(1);
    cluster.query("select pg_create_logical_replication_slot('decode', 'pgoutput')");
    cluster.query("create subscription s connection 'host=/nowhere' publication p with (connect = false, slot_name = 'x')");
    cluster.query("alter subscription s enable");
    cluster.query("alter role postgres set session_preload_libraries = 'nosuchlibrary'");
    cluster.stop(Stop::Immediate);
    let archive = format!("touch {}/archived", harm.display());
    let auto = format!(
        "listen_addresses = '*'\nshared_preload_libraries = 'nosuchlibrary, pg_cron, auto_explain'\narchive_command = '{archive}'\n\
         recovery_end_command = 'touch {0}/ended'\narchive_cleanup_command = 'touch {0}/cleaned'\nlc_messages = 'xx_XX.UTF-8'\n\
         synchronous_standby_names = '*'\nshared_buffers = '512GB'\nhuge_pages = on\nlogging_collector = on\nport = 1\n",
        harm.display()
    );
    cluster.write(&cluster.data_dir().join("postgresql.auto.conf"), auto.as_bytes());
    (cluster, harm)
}

#[tokio::test]
async fn a_nasty_cluster_does_nothing_to_anybody() {
    for major in majors() {
        let (cluster, harm) = nasty(major);
        let root = root();
        let data = cluster.folder().join("copy");
        copy(&cluster.data_dir(), &data);
        let sandbox = sandbox::start(&env(), plan(major, &data, root.path()).await).await.unwrap();
        let notes = sandbox.notes().join("\n");
        assert!(notes.contains("nosuchlibrary") && notes.contains("pg_cron"), "{notes}");
        let session = sandbox.connect("postgres").await.unwrap();
        for (name, value) in [
            ("listen_addresses", ""),
            ("archive_mode", "off"),
            ("max_logical_replication_workers", "0"),
            ("synchronous_standby_names", ""),
            ("primary_conninfo", ""),
            ("autovacuum", "off"),
            ("max_connections", "500"),
            ("max_worker_processes", "11"),
            ("session_preload_libraries", ""),
        ] {
            assert_eq!(text(&session, &format!("show {name}")).await, value, "{major}: {name}");
        }
        let loaded = text(&session, "show shared_preload_libraries").await;
        assert!(loaded.is_empty() || loaded == "auto_explain", "{loaded}");
        // A commit waits for nobody, and a full segment goes nowhere.
        session
            .client()
            .batch_execute("create table new (a int); insert into new values (1)")
            .await
            .unwrap();
        session
            .client()
            .batch_execute("select pg_switch_wal(); checkpoint")
            .await
            .unwrap();
        let workers = text(
            &session,
            "select count(*)::text from pg_stat_activity where backend_type ~ 'logical|archiver|autovacuum'",
        );
        assert_eq!(workers.await, "0");
        assert_eq!(text(&session, "select sum(bbalance)::text from pgbench_branches").await, "0");
        drop(session);
        sandbox.stop(&env(), Signal::INT).await.unwrap();
        assert!(names(&harm).is_empty(), "{major}: {:?}", names(&harm));
        assert!(names(root.path()).is_empty(), "the sandbox is gone");
        assert!(!data.exists(), "what went with it is gone");
        assert!(cluster.data_dir().join("PG_VERSION").exists());
    }
}

#[tokio::test]
async fn recovery_stops_at_its_target_and_says_where() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new().set("wal_keep_size", "1GB"));
        let base = cluster.folder().join("base");
        cluster.run("pg_basebackup", &["-D", base.to_str().unwrap(), "-X", "none", "-c", "fast"]);
        cluster.query("create table t as select 1 as a");
        let target = cluster.query("select pg_current_wal_insert_lsn()");
        cluster.query("insert into t values (2)");
        cluster.query("select pg_switch_wal()");
        cluster.query("insert into t values (3)");
        cluster.stop(Stop::Fast);
        let log = cluster.folder().join("log-copy");
        copy(&cluster.data_dir().join("pg_wal"), &log);
        let root = root();
        let mut recovering = plan(major, &base, root.path()).await;
        recovering.recovery = Recovery::Archive {
            restore_command: format!("cp {}/%f %p", log.display()),
            settings: BTreeMap::from([("recovery_target_lsn".to_owned(), target.clone())]),
        };
        let mut sandbox = sandbox::start(&env(), recovering).await.unwrap();
        let stage = sandbox.wait_until_recovered(&env()).await.unwrap();
        let Stage::Paused(reached) = stage else {
            panic!("{major}: {stage:?}\n{}", sandbox.log().unwrap());
        };
        assert!(reached >= target.parse().unwrap(), "{reached:?} {target}");
        let session = sandbox.connect("postgres").await.unwrap();
        assert_eq!(text(&session, "select count(*)::text from t").await, "1", "{major}");
        drop(session);
        sandbox.stop(&env(), Signal::QUIT).await.unwrap();
        assert!(names(root.path()).is_empty());
    }
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let major = majors()[0];
    let mut cluster = Cluster::start(major, &Options::new());
    let root = root();
    // It runs.
    let refused = sandbox::start(&env(), plan(major, &cluster.data_dir(), root.path()).await)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    cluster.stop(Stop::Immediate);
    // Other programs.
    let other = plan(majors()[1], &cluster.data_dir(), root.path()).await;
    assert_eq!(
        sandbox::start(&env(), other).await.unwrap_err().kind(),
        ErrorKind::Incompatible
    );
    // No log.
    let data = cluster.folder().join("nolog");
    copy(&cluster.data_dir(), &data);
    for name in names(&data.join("pg_wal")).iter().filter(|name| name.len() == 24) {
        std::fs::remove_file(data.join("pg_wal").join(name)).unwrap();
    }
    let failed = sandbox::start(&env(), plan(major, &data, root.path()).await)
        .await
        .unwrap_err();
    assert!(
        failed.detail().contains("could not locate a valid checkpoint record"),
        "{failed}"
    );
    assert!(failed.hint().unwrap().contains("do not remove backup_label"), "{failed:?}");
    assert!(names(root.path()).is_empty() && !data.exists());
    // Half restored.
    let data = cluster.folder().join("half");
    copy(&cluster.data_dir(), &data);
    std::fs::remove_file(data.join("global/pg_control")).unwrap();
    let failed = sandbox::start(&env(), plan(major, &data, root.path()).await)
        .await
        .unwrap_err();
    assert!(failed.hint().unwrap().contains("not restored to its end"), "{failed:?}");
    assert!(data.exists(), "nothing was begun, nothing is removed");
}

/// What the child of the next test does: it starts a sandbox and is killed.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(words) = std::env::var_os(CHILD) else { return };
    let words = words.into_string().unwrap();
    let parts: Vec<&str> = words.split('|').collect();
    let [major, data, root] = parts[..] else { panic!("{words}") };
    let sandbox = sandbox::start(&env(), plan(major.parse().unwrap(), Path::new(data), Path::new(root)).await)
        .await
        .unwrap();
    std::fs::write(Path::new(root).join("started"), "").unwrap();
    std::future::pending::<()>().await;
    drop(sandbox);
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_by_the_next() {
    let major = majors()[0];
    let mut cluster = Cluster::start(major, &Options::new());
    cluster.stop(Stop::Fast);
    let root = root();
    let data = cluster.folder().join("copy");
    copy(&cluster.data_dir(), &data);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pg_sandbox::child_that_is_killed"])
        .env(CHILD, format!("{major}|{}|{}", data.display(), root.path().display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = root.path().join("started");
    while !started.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended");
        std::thread::yield_now();
    }
    // While it is used, nobody touches it.
    assert_eq!(sandbox::sweep(root.path()).unwrap(), 0);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(started).unwrap();
    let file = data.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap();
    let pid: u32 = text.lines().next().unwrap().parse().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the server outlives it");
    // As a server has it that is just starting: no socket is named yet. And one that has not come to it has no file.
    std::fs::write(&file, text.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
    // Whoever sweeps at the same time comes back only when the server has ended, too.
    let sweep = || {
        let removed = sandbox::sweep(root.path()).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("zombie"), "{status}");
        removed
    };
    let removed: u32 = std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(sweep)).collect();
        others.into_iter().map(|other| other.join().unwrap()).sum()
    });
    assert_eq!(removed, 1);
    assert!(names(root.path()).is_empty() && !data.exists());
}

#[test]
fn nothing_that_is_not_a_sandbox_is_swept() {
    let root = root();
    let precious = root.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    for (name, marker, open) in [
        ("lbsb-0123456789abcdef", "dispose", true),
        ("lbsb-short", "dispose", false),
        ("other-0123456789abcdef", "dispose", false),
    ] {
        let folder = root.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("marker"), format!("{marker} {}", precious.display())).unwrap();
        let mode = if open { 0o777 } else { 0o711 };
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    assert_eq!(sandbox::sweep(root.path()).unwrap(), 0);
    // Ours, but the data directory does not bear its token.
    let folder = root.path().join("lbsb-0123456789abcdef");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    assert_eq!(sandbox::sweep(root.path()).unwrap(), 1);
    assert!(precious.exists() && !folder.exists());
}
