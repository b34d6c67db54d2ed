//! A server whose log lies in a repository, and a recovery from there: through the real binary, by a real server.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::recovery::{Action, Settings, restore_command};
use lifeboat_engine::postgres::sandbox::{self, Plan, Stage};
use lifeboat_model::wal::{LogFile, Range, SegmentSize};
use lifeboat_model::{Env, Lsn, Result, Timeline};
use lifeboat_ops::wal::{Archive, Goal, Limit, Place, Resolved, Serving, resolve, serve};
use lifeboat_repo::{
    BLOCK_BYTES, ComponentName, Encryption, Identities, Instance, Lineage, LogFileKind, LogPlan, LogWriter, NewLog, Repository,
    Trust, generate_identity,
};
use lifeboat_store::BlobStore;
use lifeboat_store::fs::FsStore;
use lifeboat_testkit::env::real_env;
use lifeboat_testkit::postgres::{Cluster, Options, bindir};
use rustix::process::Signal;

pub fn tli(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

/// A server, a base of it, and its log in a repository.
pub struct Scene {
    pub env: Env,
    pub cluster: Cluster,
    pub size: SegmentSize,
    /// From where on the base needs log, and from where on it is consistent.
    pub base: (Lsn, Lsn),
    pub lineage: Option<Lineage>,
    repository: Repository,
    instance: Arc<Instance>,
    identities: Identities,
    trust: Trust,
    folder: tempfile::TempDir,
}

/// A folder with a short path that the user of the servers can reach.
pub fn short_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("lbft").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The binary, where the user of the servers can reach it.
pub fn program(folder: &Path) -> PathBuf {
    let (from, to) = (env!("CARGO_BIN_EXE_lifeboat"), folder.join("lifeboat"));
    if std::fs::hard_link(from, &to).is_err() {
        std::fs::copy(from, &to).unwrap();
    }
    to
}

impl Scene {
    /// A cluster with a table `t`, a base of it, and some commits behind that.
    pub async fn new(major: u32, segment_mib: u32) -> Self {
        let mut options = Options::new().set("wal_keep_size", "2GB").set("track_commit_timestamp", "on");
        if segment_mib != 16 {
            options = options.segments(segment_mib);
        }
        let cluster = Cluster::start(major, &options);
        let folder = tempfile::tempdir().unwrap();
        let env = real_env();
        let store = Arc::new(FsStore::create(&folder.path().join("store")).await.unwrap());
        let repository = Repository::init(&env, store).await.unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let instance = Arc::new(Instance::create(&env, "test", &folder.path().join("instance")).unwrap());
        let mut trust = Trust::new();
        trust.add("test", instance.public_key());
        let mut scene = Self {
            env,
            size: SegmentSize::new(u64::from(segment_mib) << 20).unwrap(),
            base: (Lsn::INVALID, Lsn::INVALID),
            lineage: None,
            repository,
            instance,
            identities: Identities::parse(&generate_identity().0).unwrap(),
            trust,
            folder,
            cluster,
        };
        scene.cluster.query("create table t (id int, filler text)");
        let base = scene.base_dir().display().to_string();
        scene.cluster.run("pg_basebackup", &["-D", &base, "-X", "none", "-c", "fast"]);
        let label = std::fs::read_to_string(scene.base_dir().join("backup_label")).unwrap();
        let start = label.split_whitespace().nth(3).unwrap();
        scene.base = (start.parse().unwrap(), scene.lsn("pg_current_wal_flush_lsn()"));
        scene
    }

    fn base_dir(&self) -> PathBuf {
        self.cluster.folder().join("base")
    }

    pub fn lsn(&self, function: &str) -> Lsn {
        self.cluster.query(&format!("select {function}")).parse().unwrap()
    }

    /// Commits a row; returns the commit's time and the position behind it.
    pub fn commit(&self, id: u32) -> (i64, Lsn) {
        self.cluster.query(&format!("insert into t values ({id}, '')"));
        let lsn = self.lsn("pg_current_wal_flush_lsn()");
        let us = format!("select (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from t where id = {id}");
        (self.cluster.query(&us).parse().unwrap(), lsn)
    }

    /// Writes so many segments full.
    pub fn fill(&self, segments: u64) {
        if self.size.bytes() <= 1 << 20 {
            // About 1.1 MiB of log.
            for _ in 0..segments {
                self.cluster
                    .query("insert into t select -1, repeat(md5(i::text), 30) from generate_series(1, 1000) i");
            }
        } else {
            for _ in 0..segments {
                self.cluster
                    .query("insert into t select -1, repeat(md5(i::text), 30) from generate_series(1, 100) i");
                self.cluster.query("select pg_switch_wal()");
            }
        }
    }

    /// Opens the writer of the log, of this cluster or one that pretends.
    pub async fn writer(&mut self, system: u64) -> LogWriter {
        let plan = LogPlan {
            component: ComponentName::new("test/db").unwrap(),
            instance: Arc::clone(&self.instance),
            encryption: Encryption::Age(self.identities.public_keys()),
            trust: self.trust.clone(),
            state_dir: self.folder.path().join("state"),
            system,
            segment: self.size,
        };
        let writer = LogWriter::begin(&self.env, &self.repository, plan, NewLog::Continue)
            .await
            .unwrap();
        self.lineage = Some(writer.lineage());
        writer
    }

    /// Puts what a server has in `pg_wal` of a timeline, from the base's start to `until`.
    pub async fn put_log(&mut self, pg_wal: &Path, timeline: Timeline, until: Lsn) {
        let mut writer = self.writer(self.cluster.system_identifier()).await;
        let mut names: Vec<String> = std::fs::read_dir(pg_wal)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in names {
            match LogFile::parse(&name, self.size) {
                Some(LogFile::History { timeline }) => {
                    let text = std::fs::read(pg_wal.join(&name)).unwrap();
                    writer.append_history(timeline, text).await.unwrap();
                }
                Some(LogFile::Segment { timeline: of, number }) if of == timeline => {
                    let start = self.size.start_of(number);
                    let end = start.plus(self.size.bytes()).min(until);
                    if end <= start || end <= self.base.0 {
                        continue;
                    }
                    let bytes = std::fs::read(pg_wal.join(&name)).unwrap();
                    let mut at = start;
                    while at < end {
                        let stop = Lsn((at.0 / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
                        let part = offset(at.since(start))..offset(stop.since(start));
                        let range = Range::new(of, at, stop);
                        let kind = if stop == until {
                            LogFileKind::Frame
                        } else {
                            LogFileKind::Piece
                        };
                        writer.append(kind, range, bytes[part].to_vec(), None).await.unwrap();
                        at = stop;
                    }
                }
                _ => {}
            }
        }
    }

    /// The log of this cluster until now; returns where it ends.
    pub async fn put_all(&mut self) -> Lsn {
        let until = self.lsn("pg_current_wal_flush_lsn()");
        let pg_wal = self.cluster.data_dir().join("pg_wal");
        self.put_log(&pg_wal, Timeline::FIRST, until).await;
        until
    }

    pub fn place(&self) -> Place {
        Place {
            repository: self.repository.clone(),
            component: ComponentName::new("test/db").unwrap(),
            trust: self.trust.clone(),
            identities: self.identities.clone(),
        }
    }

    /// The same repository seen through another store.
    pub async fn place_in(&self, store: Arc<dyn BlobStore>) -> Place {
        let repository = Repository::open(store).await.unwrap();
        Place {
            repository,
            ..self.place()
        }
    }

    pub fn store(&self) -> Arc<dyn BlobStore> {
        Arc::clone(self.repository.store())
    }

    /// The files of the log in the store, by path.
    pub fn log_files(&self, timeline: u32) -> Vec<PathBuf> {
        let lineage = self.lineage.unwrap();
        let component = self.place().component.folder().unwrap();
        let below = format!("store/{component}/log/{lineage}/{timeline:08x}");
        let folder = self.folder.path().join(below);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    pub async fn archive(&self, timeline: u32, until: Lsn) -> Archive {
        let limit = Limit {
            lineage: self.lineage.unwrap(),
            timeline: tli(timeline),
            until,
        };
        Archive::open(self.place(), limit).await.unwrap()
    }

    pub async fn resolve(&self, archive: &Archive, goal: Goal) -> Resolved {
        resolve(archive, self.base, goal).await.unwrap()
    }

    /// Recovers a copy of the base with what `archive` has up to what was resolved; returns the rows of `t` and where it stands.
    pub async fn recover(&self, archive: &Archive, resolved: &Resolved, patience_s: u64) -> Result<(String, Lsn)> {
        let root = short_folder();
        let data_dir = root.path().join("data");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.base_dir())
            .arg(&data_dir)
            .status()
            .unwrap();
        assert!(copied.success());
        let meta = data_dir.metadata().unwrap();
        let owner = Some((meta.uid(), meta.gid()));
        let serving = serve(&self.env, archive.until(resolved.until), &root.path().join("s"), owner).await?;
        let command = restore_command(&program(root.path()), serving.socket())?;
        let settings = Settings {
            restore_command: command.replace(" wal fetch ", &format!(" wal fetch --patience {patience_s} ")),
            target: resolved.target,
            timeline: archive.limit().timeline,
            action: Action::Pause,
        };
        let major = self.cluster.major();
        let plan = Plan {
            data_dir,
            dispose: true,
            binaries: Binaries::find(major, &[bindir(major)]).await?,
            root: root.path().to_owned(),
            recovery: settings.for_sandbox(),
            durable: false,
            superuser: "postgres".into(),
            preload: None,
            settings: std::collections::BTreeMap::new(),
            patience: Duration::from_secs(60),
        };
        let mut sandbox = sandbox::start(&self.env, plan).await?;
        let outcome = async {
            let stage = sandbox.wait_until_recovered(&self.env).await?;
            let Stage::Paused(reached) = stage else {
                panic!("{stage:?}: {}", sandbox.log().unwrap());
            };
            let session = sandbox.connect("postgres").await?;
            let sql = "select coalesce(string_agg(id::text, ',' order by id), '') from t where id > 0";
            let rows: String = session.client().query_one(sql, &[]).await.unwrap().get(0);
            Ok((rows, reached))
        }
        .await;
        sandbox.stop(&self.env, Signal::QUIT).await?;
        serving.stop().await?;
        outcome
    }
}

/// Serves an archive for ourselves.
pub async fn served(scene: &Scene, archive: &Archive, folder: &Path) -> Serving {
    serve(&scene.env, archive.clone(), &folder.join("s"), None).await.unwrap()
}

/// Runs the binary.
pub fn lifeboat(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(words).stdin(std::process::Stdio::null());
    command.output().unwrap()
}

fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}
