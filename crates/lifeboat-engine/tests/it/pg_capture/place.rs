//! Where what was captured is put, and started.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::capture::{Captured, Content, FileInfo, Options as CaptureOptions};
use lifeboat_engine::postgres::sandbox::{self, Plan, Recovery, Sandbox};
use lifeboat_testkit::postgres::{Cluster, bindir};
use tokio::task::JoinSet;

/// A session for SQL.
pub struct Session {
    pub client: tokio_postgres::Client,
    _driver: JoinSet<()>,
}

/// As the superuser, over the socket.
pub async fn connect(cluster: &Cluster) -> Session {
    let (client, connection) = tokio_postgres::connect(&cluster.dsn("postgres", "postgres"), tokio_postgres::NoTls)
        .await
        .unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    Session { client, _driver: driver }
}

/// A quick checkpoint.
pub fn options() -> CaptureOptions {
    CaptureOptions {
        data_dir: None,
        label: "a test".into(),
        fast: true,
        pace: None,
    }
}

/// Where restored clusters of this test lie, and who owns them.
pub struct Place {
    pub folder: PathBuf,
    spaces: PathBuf,
    user: (u32, u32),
}

impl Place {
    pub fn new(cluster: &Cluster) -> Self {
        use std::os::unix::fs::MetadataExt;
        let meta = cluster.data_dir().metadata().unwrap();
        Self {
            folder: cluster.make_folder("restored"),
            spaces: cluster.make_folder("restored-spaces"),
            user: (meta.uid(), meta.gid()),
        }
    }

    fn own(&self, path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        std::os::unix::fs::lchown(path, Some(self.user.0), Some(self.user.1)).unwrap();
    }

    pub fn write(&self, file: &FileInfo, content: Content) {
        let place = self.folder.join(&file.path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        let to = std::fs::File::create(&place).unwrap();
        match content {
            Content::Stream(mut stream) => {
                std::io::copy(&mut stream, &mut &to).unwrap();
            }
            Content::Changes(_) => panic!("changes have no place without a parent"),
            Content::Pages(pages) => {
                to.set_len(pages.size_bytes()).unwrap();
                std::thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            let mut buffer = Vec::new();
                            while let Some(offset) = pages.next_segment(&mut buffer).unwrap() {
                                to.write_all_at(&buffer, offset).unwrap();
                            }
                        });
                    }
                });
            }
        }
        self.own(&place, file.mode);
    }

    fn bytes(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.join(name), bytes).unwrap();
        self.own(&self.folder.join(name), 0o600);
    }

    /// Everything around the files: folders, links, labels, and the log from the source's `pg_wal`.
    pub fn complete(&self, captured: &Captured, source: &Path) {
        for (path, (mode, _, _)) in &captured.facts.folders {
            std::fs::create_dir_all(self.folder.join(path)).unwrap();
            self.own(&self.folder.join(path), *mode);
        }
        for oid in captured.facts.tablespaces.keys() {
            let (inside, outside) = (
                self.folder.join(format!("pg_tblspc/{oid}")),
                self.spaces.join(oid.to_string()),
            );
            let moved = Command::new("mv").arg(&inside).arg(&outside).status().unwrap();
            assert!(moved.success());
            std::os::unix::fs::symlink(&outside, &inside).unwrap();
        }
        for folder in walkdir::WalkDir::new(&self.folder)
            .into_iter()
            .chain(walkdir::WalkDir::new(&self.spaces))
        {
            let folder = folder.unwrap();
            chown(folder.path(), Some(self.user.0), Some(self.user.1)).unwrap();
        }
        self.bytes("backup_label", &captured.label);
        if !captured.tablespace_map.is_empty() {
            // The server makes the links itself, of what it is told.
            let map: String = captured
                .facts
                .tablespaces
                .keys()
                .map(|oid| format!("{oid} {}\n", self.spaces.join(oid.to_string()).display()))
                .collect();
            self.bytes("tablespace_map", map.as_bytes());
        }
        let copied = Command::new("/bin/sh")
            .args(["-c", "cp -a \"$0\"/0* \"$1\"/"])
            .arg(source.join("pg_wal"))
            .arg(self.folder.join("pg_wal"))
            .status()
            .unwrap();
        assert!(copied.success());
    }

    pub async fn start(&self, major: u32) -> Sandbox {
        let plan = Plan {
            data_dir: self.folder.clone(),
            dispose: true,
            binaries: Binaries::find(major, &[bindir(major)]).await.unwrap(),
            root: PathBuf::from("/tmp"),
            recovery: Recovery::None,
            durable: false,
            superuser: "postgres".into(),
            preload: Some(Vec::new()),
            settings: BTreeMap::new(),
            patience: Duration::from_secs(60),
        };
        sandbox::start(&lifeboat_testkit::env::real_env(), plan).await.unwrap()
    }
}

impl Drop for Place {
    /// Folders that we made as ourselves are not for the user of the servers to remove.
    fn drop(&mut self) {
        for folder in [&self.folder, &self.spaces] {
            if folder.exists() {
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
    }
}

/// One number.
pub async fn number(session: &sandbox::Session, sql: &str) -> i64 {
    session.client().query_one(sql, &[]).await.unwrap().get(0)
}
