//! A followed cluster: a repository in a folder, and what is asked of it afterwards.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{Lsn, Result, Timeline};
use lifeboat_ops::Source;
use lifeboat_ops::follow::{self, Options, Report, Standing, Tell};
use lifeboat_ops::protected::Place;
use lifeboat_ops::protected::{Cluster as ClusterSource, Login, Mode};
use lifeboat_repo::{LogFileKind, LogListing, LogReader, block_end, list_log};
use lifeboat_testkit::postgres::{Cluster, Options as Server};
use tokio::sync::oneshot;

use crate::world::World;

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(60);

/// Segments of 1 MiB, of which the server keeps as few as it can.
pub fn small_segments() -> Server {
    Server::new()
        .segments(1)
        .set("min_wal_size", "2MB")
        .set("max_wal_size", "2MB")
        .set("wal_keep_size", "0")
}

pub fn flushed(cluster: &Cluster) -> Lsn {
    cluster.query("select pg_current_wal_flush_lsn()").parse().unwrap()
}

fn source_of(cluster: &Cluster) -> ClusterSource {
    source(&cluster.dsn("postgres", "postgres"))
}

pub fn source(dsn: &str) -> ClusterSource {
    let info = ConnInfo::parse(dsn, &Surroundings::default()).unwrap();
    ClusterSource {
        method: lifeboat_ops::protected::Method::Physical,
        logical: lifeboat_ops::protected::Logical::default(),
        login: Login::known(info),
        data_dir: None,
        mode: Mode::Auto,
        slot: "lifeboat_test_db".into(),
        binaries: Vec::new(),
        program: PathBuf::new(),
        care: lifeboat_ops::protected::Care::default(),
    }
}

pub struct Followed {
    pub world: World,
    pub cluster: ClusterSource,
    /// Changes the usual options.
    pub with: fn(Options) -> Options,
    _folder: Option<tempfile::TempDir>,
}

impl Followed {
    pub async fn new(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut followed = Self::within(folder.path(), cluster, true).await;
        followed._folder = Some(folder);
        followed
    }

    pub async fn within(folder: &Path, cluster: &Cluster, create: bool) -> Self {
        Self::of(World::at(folder, create).await, source_of(cluster))
    }

    /// With its repository in this store.
    pub async fn in_store(cluster: &Cluster, place: Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut followed = Self::of(World::over(folder.path(), place, true).await, source_of(cluster));
        followed._folder = Some(folder);
        followed
    }

    /// What log takes of the disk in the spool, without the files that are kept to be written again.
    pub fn spooled(&self) -> u64 {
        let Ok(found) = self.spool().read_dir() else { return 0 };
        let folders = found.map(|found| found.unwrap().path());
        let files = folders.flat_map(|folder| folder.read_dir().unwrap().filter_map(Result::ok));
        let held = files.filter(|file| !file.file_name().to_string_lossy().starts_with("spare-"));
        held.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// Reads every byte, verified.
    pub async fn read_all(&self, range: Range) {
        let reader = self.reader().await;
        let mut start = range.start;
        while start < range.end {
            let end = block_end(start).min(range.end);
            reader.read(Range::new(range.timeline, start, end)).await.unwrap();
            start = end;
        }
    }

    pub fn of(mut world: World, cluster: ClusterSource) -> Self {
        world.protected.source = Source::Postgres(cluster.clone());
        Self {
            world,
            cluster,
            with: |options| options,
            _folder: None,
        }
    }

    /// The same component, pointed at another server.
    pub fn at(&self, cluster: &Cluster) -> Self {
        let world = World {
            env: self.world.env.clone(),
            folder: self.world.folder.clone(),
            database: self.world.database.clone(),
            protected: self.world.protected.clone(),
            identities: lifeboat_repo::Identities::parse(&std::fs::read_to_string(self.world.folder.join("key")).unwrap())
                .unwrap(),
            instance: Arc::clone(&self.world.instance),
            _temporary: None,
        };
        Self::of(world, source_of(cluster))
    }

    pub fn slot(&self) -> &str {
        &self.cluster.slot
    }

    pub fn options(&self, once: bool) -> (Options, Arc<Mutex<Vec<String>>>) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let tell = Tell::to(move |event| {
            eprintln!("{}{}", if event.is_alarm { "ALARM " } else { "" }, event.text);
            heard.lock().unwrap().push(event.text.clone());
        });
        let options = Options {
            once,
            frame_every: Duration::from_millis(100),
            rejoin_after: Duration::from_millis(300),
            ..Options::new(&self.cluster, tell)
        };
        ((self.with)(options), events)
    }

    pub async fn once(&self) -> Result<Report> {
        let (world, (options, _)) = (&self.world, self.options(true));
        let never = std::future::pending();
        let run = follow::run(&world.env, &world.protected, Arc::clone(&world.instance), options, never);
        tokio::time::timeout(LONG, run).await.expect("it does not come to an end")
    }

    /// Follows until it is told to end.
    pub fn begin(&self) -> Following {
        let (env, protected, instance) = (
            self.world.env.clone(),
            self.world.protected.clone(),
            Arc::clone(&self.world.instance),
        );
        let (options, events) = self.options(false);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ended, report) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let stop = async move { drop(stopped.await) };
            let report = runtime.block_on(follow::run(&env, &protected, instance, options, stop));
            drop(ended.send(report));
        });
        Following {
            stop,
            report,
            events,
            _thread: thread,
        }
    }

    pub async fn listing(&self) -> LogListing {
        let repository = self.world.protected.repository().await.unwrap();
        let protected = &self.world.protected;
        list_log(&repository, &protected.component, &protected.trust).await.unwrap()
    }

    pub async fn reader(&self) -> LogReader {
        let listing = self.listing().await;
        let lineage = listing.lineages.last().unwrap().lineage;
        let repository = self.world.protected.repository().await.unwrap();
        let protected = &self.world.protected;
        let identities =
            lifeboat_repo::Identities::parse(&std::fs::read_to_string(self.world.folder.join("key")).unwrap()).unwrap();
        LogReader::of(
            &repository,
            &protected.component,
            &protected.trust,
            identities,
            lineage,
            &listing,
        )
    }

    pub async fn coverage(&self) -> Coverage {
        let listing = self.listing().await;
        let lineage = listing.lineages.last().map(|record| record.lineage);
        lineage.map_or_else(Coverage::new, |lineage| listing.candidates(lineage))
    }

    /// How many frames stand.
    pub async fn frames(&self) -> usize {
        let reader = self.reader().await;
        reader.files().iter().filter(|name| name.kind == LogFileKind::Frame).count()
    }

    /// Waits until the stores hold the log up to there.
    pub async fn wait_for(&self, following: &Following, timeline: Timeline, lsn: Lsn) {
        for _ in 0..1200 {
            if self.coverage().await.end(timeline) >= Some(lsn) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{lsn} on {timeline:?} is not stored: {:?}", following.events.lock().unwrap());
    }

    pub fn standing(&self) -> Standing {
        let protected = &self.world.protected;
        follow::standing(&protected.state_dir, &protected.component).expect("nothing was written down")
    }

    pub fn spool(&self) -> PathBuf {
        let protected = &self.world.protected;
        protected.state_dir.join("spool").join(protected.component.segment())
    }

    /// Everything of this timeline that is stored and still in a file of the server is the same there. At least something is.
    pub async fn same_as_files(&self, cluster: &Cluster, timeline: u32) {
        let reader = self.reader().await;
        let (mut compared, tli) = (0, Timeline::new(timeline).unwrap());
        for held in self.coverage().await.ranges().filter(|range| range.timeline == tli) {
            let mut at = held.start;
            while at < held.end {
                let segment = at.0 / MIB;
                let end = Lsn((segment + 1) * MIB).min(held.end).min(block_end(at));
                let name = format!("{timeline:08X}{:08X}{:08X}", segment / 4096, segment % 4096);
                let folder = cluster.data_dir().join("pg_wal");
                // The file in which the timeline ended has another ending.
                let file = std::fs::read(folder.join(&name)).or_else(|_| std::fs::read(folder.join(format!("{name}.partial"))));
                if let Ok(bytes) = file {
                    let from = usize::try_from(at.0 % MIB).unwrap();
                    let length = usize::try_from(end.0 - at.0).unwrap();
                    let stored = reader.read(Range::new(tli, at, end)).await.unwrap();
                    assert!(stored == bytes[from..from + length], "{at} to {end} differ from {name}");
                    compared += length;
                }
                at = end;
            }
        }
        assert!(compared > 0, "nothing of timeline {timeline} was compared");
    }
}

/// A follower that runs.
pub struct Following {
    stop: oneshot::Sender<()>,
    report: oneshot::Receiver<Result<Report>>,
    pub events: Arc<Mutex<Vec<String>>>,
    _thread: std::thread::JoinHandle<()>,
}

impl Following {
    pub async fn end(self) -> Result<Report> {
        drop(self.stop);
        tokio::time::timeout(LONG, self.report)
            .await
            .expect("it does not end")
            .unwrap()
    }

    /// Waits until it says this.
    pub async fn says(&self, words: &str) {
        for _ in 0..1200 {
            if self.events.lock().unwrap().iter().any(|event| event.contains(words)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not say {words:?}: {:?}", self.events.lock().unwrap());
    }
}
