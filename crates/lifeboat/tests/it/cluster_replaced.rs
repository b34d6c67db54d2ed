//! Restores of PostgreSQL clusters where one is already: onto it, and in its place.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};

use crate::world::{Ran, World};

/// A cluster with a backup, and the world that has it.
struct Scene {
    cluster: Cluster,
    world: World,
    data: String,
}

impl Scene {
    /// Backup 1 has the rows `first`; then rows are changed and come, tables go, and a database comes.
    fn new(major: u32) -> Self {
        let cluster = Cluster::start(major, &Options::new());
        let scene = Self {
            world: world(&cluster),
            data: cluster.data_dir().display().to_string(),
            cluster,
        };
        let sql = [
            "create table accounts (id int primary key, note text)",
            "insert into accounts select i, 'first' from generate_series(1, 60000) i",
            "create table dropped as select i from generate_series(1, 5000) i",
            "create table cut as select i, repeat('x', 200) from generate_series(1, 20000) i",
            "vacuum",
        ];
        sql.iter().for_each(|sql| drop(scene.cluster.query(sql)));
        scene.world.run(&["backup", "bank"]).ends(0);
        let sql = [
            "update accounts set note = 'second' where id % 500 = 0",
            "insert into accounts select i, 'second' from generate_series(60001, 60500) i",
            "drop table dropped",
            "delete from cut where i > 100",
            "vacuum cut",
            "create database later",
        ];
        sql.iter().for_each(|sql| drop(scene.cluster.query(sql)));
        scene
    }

    fn restore(&self, words: &[&str]) -> Ran {
        let all = ["restore", "bank", "--backup", "1", "--to", &self.data];
        self.world.run(&[&all, words].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.data_dir().join(name)
    }

    /// What is in it, as a server says that is started and stopped for it.
    fn rows(&mut self) -> String {
        self.cluster.begin();
        let rows = self
            .cluster
            .query("select note, count(*) from accounts group by note order by note");
        let databases = self.cluster.query("select count(*) from pg_database where datname = 'later'");
        // Every page is read, and every row reached through the index.
        self.cluster
            .query("set enable_seqscan = off; select sum(length(note)) from accounts where id > 0");
        self.cluster.stop(Stop::Fast);
        format!("{rows} {databases}").replace('\n', " ")
    }

    /// Hands all log so far to the repository, as an `archive_command` does.
    fn push_log(&self) {
        let name = self.cluster.query("select pg_walfile_name(pg_switch_wal())");
        let folder = self.path("pg_wal");
        let mut names: Vec<String> = (folder.read_dir().unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|found| found.len() == 24 && *found <= name)
            .collect();
        names.sort();
        for name in names {
            let path = folder.join(name).display().to_string();
            self.world.run(&["wal", "push", "bank/db", &path]).ends(0);
        }
    }

    /// Folders that restores left beside the data directory.
    fn beside(&self) -> Vec<PathBuf> {
        let entries = self.cluster.folder().read_dir().unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| path.display().to_string().contains("lifeboat-");
        let mut found: Vec<PathBuf> = entries.filter(ours).collect();
        found.sort();
        found
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // They belong to whoever runs the tests, and the folder to the user of the servers.
        for folder in self.beside() {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

const BEFORE: &str = "first|60000 0";
const AFTER: &str = "first|59880 second|620 1";

fn world(cluster: &Cluster) -> World {
    let world = World::protected();
    let entry = format!(
        "systems:\n  bank:\n    components:\n      db:\n        postgres: {{ url: \"{}\", binaries: [{}] }}\n        objectives: {{ rpo: 1h, rto: 1h }}\n        backup: {{ to: [disk] }}\n",
        cluster.url("postgres", "postgres"),
        cluster.bindir().display(),
    );
    world.edit_config("systems:\n", &entry);
    world
}

#[track_caller]
fn says(ran: &Ran, wanted: &str) {
    assert!(ran.stderr.contains(wanted), "{wanted:?} is not in {}", ran.stderr);
}

#[test]
fn a_delta_restore_keeps_what_is_right_and_nothing_else() {
    for major in majors() {
        let mut scene = Scene::new(major);
        says(&scene.restore(&["--overwrite", "--yes"]).ends(6), "a server runs on it");
        scene.cluster.stop(Stop::Fast);
        let refused = scene.restore(&[]).ends(6);
        says(&refused, "--in-place");
        says(&refused, "--overwrite");
        // Without a terminal nobody can say yes.
        says(&scene.restore(&["--overwrite"]).ends(6), "it needs a yes");
        let plan = scene
            .restore(&["--overwrite", "--dry-run", "--json"])
            .ends(0)
            .json("restore-plan");
        assert_eq!(plan["components"][0]["overwrite"], true, "{plan:#}");
        assert!(
            plan["components"][0]["present_bytes"].as_u64().unwrap() > 10 << 20,
            "{plan:#}"
        );
        assert_eq!(scene.rows(), AFTER, "{major}: nothing was touched");

        // A file that is somebody else's too, one that nobody knows, one that is a link.
        let table = first_file(&scene.path("base"));
        let twin = scene.cluster.folder().join("twin");
        std::fs::hard_link(&table, &twin).unwrap();
        let bytes = std::fs::read(&twin).unwrap();
        scene.cluster.write(&scene.path("unknown"), b"x");
        let elsewhere = scene.cluster.folder().join("elsewhere");
        scene.cluster.write(&elsewhere, b"not the cluster's");
        std::fs::remove_file(scene.path("pg_hba.conf")).unwrap();
        symlink(&elsewhere, scene.path("pg_hba.conf")).unwrap();
        let done = scene.restore(&["--overwrite", "--yes", "--json"]).ends(0).json("restore");
        let done = &done["components"][0];
        let (reused, fetched) = (
            done["reused_bytes"].as_u64().unwrap(),
            done["fetched_bytes"].as_u64().unwrap(),
        );
        assert!(reused > 10 << 20 && fetched < reused / 2, "{major}: {done:#}");
        assert!(!scene.path("unknown").exists());
        assert!(!scene.path("lifeboat-delta.json").exists());
        assert!(scene.path("global/pg_control").is_file());
        assert!(!scene.path("pg_hba.conf").is_symlink());
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"not the cluster's");
        assert_eq!(std::fs::read(&twin).unwrap(), bytes, "{major}: the other name of a file");
        assert_eq!(twin.metadata().unwrap().nlink(), 1);
        assert_eq!(scene.rows(), BEFORE, "{major}");
        assert_eq!(scene.beside(), Vec::<PathBuf>::new(), "{major}");
        // Again, onto what it has made, now with servers' changes of a start only.
        let again = scene.restore(&["--overwrite", "--yes", "--json"]).ends(0).json("restore");
        let fetched = again["components"][0]["fetched_bytes"].as_u64().unwrap();
        assert!(fetched < 4 << 20, "{major}: {again:#}");
        assert_eq!(scene.rows(), BEFORE, "{major}");
    }
}

/// The longest file below a folder.
fn first_file(folder: &Path) -> PathBuf {
    let (mut pending, mut found) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(folder) = pending.pop() {
        for entry in folder.read_dir().unwrap().map(|entry| entry.unwrap()) {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                pending.push(entry.path());
            } else {
                found.push((meta.len(), entry.path()));
            }
        }
    }
    found.into_iter().max().unwrap().1
}

#[test]
fn a_cluster_that_is_replaced_comes_back_by_undo() {
    for major in majors() {
        let mut scene = Scene::new(major);
        says(&scene.restore(&["--in-place", "--yes"]).ends(6), "a server runs on it");
        scene.cluster.stop(Stop::Fast);
        says(&scene.restore(&["--in-place"]).ends(6), "it needs a yes");
        let done = scene.restore(&["--in-place", "--yes", "--json"]).ends(0).json("restore");
        let id = done["components"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(scene.rows(), BEFORE, "{major}");
        scene.cluster.begin();
        says(&scene.world.run(&["restore", "undo", &id]).ends(6), "a server runs on it");
        scene.cluster.stop(Stop::Fast);
        scene.world.run(&["restore", "undo", &id]).ends(0);
        assert_eq!(scene.rows(), AFTER, "{major}");
        says(&scene.world.run(&["restore", "undo", &id]).ends(6), "it was undone already");
        // And once more: what was undone is in nobody's way.
        scene.restore(&["--in-place", "--yes"]).ends(0);
        assert_eq!(scene.rows(), BEFORE, "{major}");
    }
}

#[test]
fn what_may_be_in_use_or_is_another_cluster_is_refused_and_stays() {
    let major = majors()[0];
    let mut scene = Scene::new(major);
    // A server that was killed, or that runs in a container: the same from here.
    scene.cluster.kill_9();
    for way in ["--overwrite", "--in-place"] {
        says(&scene.restore(&[way, "--yes"]).ends(6), "postmaster.pid");
    }
    std::fs::remove_file(scene.path("postmaster.pid")).unwrap();
    assert_eq!(scene.rows(), AFTER);

    let other = Cluster::start(major, &Options::new().fresh(&[]));
    other.query("create table precious as select 1");
    let place = other.data_dir().display().to_string();
    let mut other = other;
    other.stop(Stop::Fast);
    for way in ["--overwrite", "--in-place"] {
        let ran = scene.world.run(&["restore", "bank", "--to", &place, way, "--yes"]).ends(6);
        says(&ran, "it is another cluster");
    }
    other.begin();
    assert_eq!(other.query("select count(*) from precious"), "1");

    // A folder that is a link may lead to somebody else's.
    let moved = scene.cluster.folder().join("log-elsewhere");
    std::fs::rename(scene.path("pg_wal"), &moved).unwrap();
    symlink(&moved, scene.path("pg_wal")).unwrap();
    says(&scene.restore(&["--overwrite", "--yes"]).ends(6), "not written into");
    assert_eq!(scene.rows(), AFTER);
    // Moved away as it is, and brought back as it was.
    let done = scene.restore(&["--in-place", "--yes", "--json"]).ends(0).json("restore");
    assert!(!scene.path("pg_wal").is_symlink());
    scene
        .world
        .run(&["restore", "undo", done["components"][0]["id"].as_str().unwrap()])
        .ends(0);
    assert!(scene.path("pg_wal").is_symlink());
    assert_eq!(scene.rows(), AFTER);

    // No cluster at all.
    let folder = scene.cluster.make_folder("photographs");
    scene.cluster.write(&folder.join("1.jpg"), b"precious");
    for way in ["--overwrite", "--in-place"] {
        let to = folder.display().to_string();
        let ran = scene.world.run(&["restore", "bank", "--to", &to, way, "--yes"]).ends(6);
        says(&ran, "it is no data directory of PostgreSQL");
    }
    assert!(folder.join("1.jpg").is_file());
}

/// A cluster with a tablespace; returns its number and its folder.
fn with_tablespace(major: u32) -> (Scene, String, PathBuf) {
    let mut scene = Scene::new(major);
    let space = scene.cluster.make_folder("space");
    scene
        .cluster
        .query(&format!("create tablespace elsewhere location '{}'", space.display()));
    scene
        .cluster
        .query("create table far tablespace elsewhere as select i from generate_series(1, 30000) i");
    scene.world.run(&["backup", "bank"]).ends(0);
    let oid = scene
        .cluster
        .query("select oid from pg_tablespace where spcname = 'elsewhere'");
    scene.cluster.query("delete from far where i <= 10000");
    scene.cluster.stop(Stop::Fast);
    (scene, oid, space)
}

impl Scene {
    fn far(&mut self) -> String {
        self.cluster.begin();
        let count = self.cluster.query("select count(*) from far");
        self.cluster.stop(Stop::Fast);
        count
    }
}

#[test]
fn tablespaces_are_written_onto_only_by_name_and_stay_where_they_are_otherwise() {
    let major = majors()[1];
    let (mut scene, oid, space) = with_tablespace(major);
    let data = scene.data.clone();
    let restore = |scene: &Scene, words: &[&str]| {
        let all = ["restore", "bank", "--backup", "2", "--to", &data, "--yes"];
        scene.world.run(&[&all, words].concat())
    };
    says(&restore(&scene, &["--overwrite"]).ends(6), "may be another cluster's as well");
    assert_eq!(scene.far(), "20000");

    // In place: the old one keeps its tablespace.
    let done = restore(&scene, &["--in-place", "--json"]).ends(0).json("restore");
    assert_eq!(scene.far(), "30000");
    let beside = scene.cluster.folder().join("data.tablespaces").join(&oid);
    let link = scene.path("pg_tblspc").join(&oid);
    assert_eq!(link.read_link().unwrap(), beside);
    let id = done["components"][0]["id"].as_str().unwrap();
    scene.world.run(&["restore", "undo", id]).ends(0);
    assert_eq!(scene.far(), "20000");
    assert_eq!(link.read_link().unwrap(), space);

    // By name it is written onto, and what lies beside the server's own folder there stays.
    scene.cluster.write(&space.join("note"), b"of another server");
    let named = format!("{oid}={}", space.display());
    let done = restore(&scene, &["--overwrite", "--tablespace", &named, "--json"])
        .ends(0)
        .json("restore");
    assert!(done["components"][0]["reused_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(scene.far(), "30000");
    assert_eq!(link.read_link().unwrap(), space);
    assert!(space.join("note").is_file());

    // To a folder that is there and empty, and to one that is not empty any more.
    let new = scene.cluster.folder().join("new").display().to_string();
    let place = scene.cluster.make_folder("place");
    let named = format!("{oid}={}", place.display());
    let words = ["restore", "bank", "--backup", "2", "--to", &new, "--tablespace", &named];
    scene.world.run(&words).ends(0);
    assert_eq!(place.read_dir().unwrap().count(), 1, "the server's folder alone");
    let other = scene.cluster.folder().join("other").display().to_string();
    let words = ["restore", "bank", "--backup", "2", "--to", &other, "--tablespace", &named];
    says(&scene.world.run(&words).ends(6), "something is there already");
    assert_eq!(place.read_dir().unwrap().count(), 1);
}

#[test]
fn a_tablespace_that_the_log_makes_is_not_made_where_the_original_has_it() {
    let scene = Scene::new(majors()[1]);
    let space = scene.cluster.make_folder("space");
    scene.cluster.query("select pg_switch_wal()");
    let first = scene.cluster.query("select pg_current_wal_lsn()");
    let sql = format!("create tablespace young location '{}'", space.display());
    scene.cluster.query(&sql);
    scene
        .cluster
        .query("create table youth tablespace young as select i from generate_series(1, 1000) i");
    scene.push_log();
    let before = first_file(&space).metadata().unwrap().modified().unwrap();
    let to = scene.cluster.folder().join("new");
    let words = ["restore", "bank", "--to", to.to_str().unwrap()];
    says(&scene.world.run(&words).ends(6), "may be the original's");
    assert!(!to.exists());
    assert_eq!(first_file(&space).metadata().unwrap().modified().unwrap(), before);
    // In front of it nothing keeps it from coming back.
    let words = ["restore", "bank", "--lsn", &first, "--to", to.to_str().unwrap()];
    scene.world.run(&words).ends(0);
}

/// Kills a restore after a while; says whether it was still under way.
fn killed(scene: &Scene, words: &[&str], after: Duration) -> bool {
    let all = ["restore", "bank", "--backup", "1", "--to", &scene.data, "--yes"];
    let mut child = scene.world.command().args([&all, words].concat()).spawn().unwrap();
    // The fault is a time; nothing is waited for.
    std::thread::park_timeout(after);
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

/// Milliseconds from a seed.
fn drawn(seed: &mut u64, most: u64) -> Duration {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    Duration::from_millis((*seed >> 33) % most)
}

#[test]
fn a_killed_restore_is_repeated_and_nothing_is_lost() {
    let mut seed = std::env::var("LIFEBOAT_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    let soak = std::env::var_os("LIFEBOAT_SOAK").is_some();
    println!("LIFEBOAT_TEST_SEED={seed}");
    let all = majors();
    let some = if soak { &all[..] } else { &all[2..] };
    for major in some {
        let mut scene = Scene::new(*major);
        scene.cluster.stop(Stop::Fast);
        for round in 0..if soak { 20 } else { 3 } {
            let after = drawn(&mut seed, 900);
            // In place: afterwards the old cluster is there, or in the undo folder of a restore that is done.
            let died = killed(&scene, &["--in-place"], after);
            println!("{major} {round}: in place, after {after:?}, died {died}");
            let ran = scene.restore(&["--in-place", "--yes", "--json"]).ends(0).json("restore");
            assert_eq!(scene.rows(), BEFORE);
            let id = ran["components"][0]["id"].as_str().unwrap().to_owned();
            scene.world.run(&["restore", "undo", &id]).ends(0);
            // Where the killed one had done everything but say so, the old cluster is one undo further.
            for folder in scene.beside().into_iter().rev() {
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                if let Some((_, id)) = name.split_once(".lifeboat-undo-") {
                    scene.world.run(&["restore", "undo", id]);
                }
            }
            assert_eq!(scene.rows(), AFTER, "{major} {round}");
        }
        for round in 0..if soak { 20 } else { 3 } {
            let after = drawn(&mut seed, 500);
            let died = killed(&scene, &["--overwrite"], after);
            let half = scene.path("lifeboat-delta.json").exists();
            println!("{major} {round}: onto, after {after:?}, died {died}, half done {half}");
            if half && !scene.path("global/pg_control").exists() {
                assert!(scene.cluster.try_begin().is_err(), "it cannot be started");
            }
            scene.restore(&["--overwrite", "--yes"]).ends(0);
            assert!(!scene.path("lifeboat-delta.json").exists());
            assert_eq!(scene.rows(), BEFORE, "{major} {round}");
            // Something to mend again.
            scene.cluster.begin();
            scene.cluster.query("update accounts set note = 'other' where id % 7 = 0");
            scene
                .cluster
                .query("insert into cut select i, 'y' from generate_series(1, 3000) i");
            scene.cluster.stop(Stop::Fast);
        }
    }
}

/// Its server has no `postmaster.pid` yet, or one that does not name a socket: it is found and ended all the same.
#[test]
fn a_restore_killed_while_its_server_starts_is_repeated() {
    let major = majors()[2];
    let mut scene = Scene::new(major);
    scene.cluster.stop(Stop::Fast);
    let (control, marker) = (scene.path("global/pg_control"), scene.path("lifeboat-delta.json"));
    let mut met = 0;
    for late in (0..300).step_by(if std::env::var_os("LIFEBOAT_SOAK").is_some() { 5 } else { 75 }) {
        let all = [
            "restore",
            "bank",
            "--backup",
            "1",
            "--to",
            &scene.data,
            "--yes",
            "--overwrite",
        ];
        let mut child = scene.world.command().args(all).spawn().unwrap();
        // The marker comes before the old file is taken away, and the file comes back right before the server.
        let is_ready = || marker.exists() && control.exists();
        let mut was_away = false;
        while child.try_wait().unwrap().is_none() && !(was_away && is_ready()) {
            was_away |= marker.exists() && !control.exists();
            std::thread::yield_now();
        }
        // The fault is a time; nothing is waited for.
        std::thread::park_timeout(Duration::from_millis(late));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        println!("{late} ms: {ended}");
        met += u32::from(was_away && !ended.success());
        scene.restore(&["--overwrite", "--yes"]).ends(0);
        assert_eq!(scene.rows(), BEFORE, "{late}");
        scene.cluster.begin();
        scene.cluster.query("update accounts set note = 'other' where id % 7 = 0");
        scene.cluster.stop(Stop::Fast);
    }
    assert!(met > 0, "no restore was killed behind its files");
}

#[test]
fn a_disk_that_fills_up_is_said_and_the_restore_goes_on_afterwards() {
    let mut scene = Scene::new(majors()[2]);
    scene.cluster.stop(Stop::Fast);
    // A file cannot grow beyond this many blocks: the same error as a quota, for one process.
    let line = format!(
        "trap '' XFSZ; ulimit -f 1000; exec lifeboat restore bank --backup 1 --to {} --overwrite --yes",
        scene.data
    );
    let ran = scene.world.shell(&line);
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    says(&ran, "run the same command again");
    assert!(!scene.path("global/pg_control").exists());
    assert!(scene.cluster.try_begin().is_err(), "half of it cannot be started");
    let refused = scene.restore(&[]).ends(6);
    says(&refused, "something is there already");
    scene.restore(&["--overwrite", "--yes"]).ends(0);
    assert_eq!(scene.rows(), BEFORE);
}
