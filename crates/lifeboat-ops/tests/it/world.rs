//! A protected database in a temporary folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Env, ErrorKind};
use lifeboat_ops::backup::{self, Request};
use lifeboat_ops::protected::Place;
use lifeboat_ops::restore::{self, Destination};
use lifeboat_ops::{Protected, Source};
use lifeboat_repo::{ComponentName, Encryption, Identities, Instance, Repository, Trust, generate_identity};
use lifeboat_store::fs::FsStore;
use lifeboat_testkit::env::real_env;
use rusqlite::Connection;

pub struct World {
    pub env: Env,
    pub folder: PathBuf,
    pub database: PathBuf,
    pub protected: Protected,
    pub identities: Identities,
    pub instance: Arc<Instance>,
    pub _temporary: Option<tempfile::TempDir>,
}

impl World {
    /// A WAL database with `rows` rows, and an empty repository.
    pub async fn new(rows: i64) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut world = Self::at(temporary.path(), true).await;
        world._temporary = Some(temporary);
        make(&world.database, "wal", rows);
        world
    }

    /// The world that lies in `folder`: a killed run's, or a new one.
    pub async fn at(folder: &Path, create: bool) -> Self {
        let path = folder.join("store");
        let store = if create {
            FsStore::create(&path).await
        } else {
            FsStore::open(&path).await
        };
        Self::over(folder, Place::folder("disk", Arc::new(store.unwrap()), path), create).await
    }

    /// The same with its repository in `place`.
    pub async fn over(folder: &Path, place: Place, create: bool) -> Self {
        let env = real_env();
        let state_dir = folder.join("state");
        let key = folder.join("key");
        let instance = if create {
            std::fs::create_dir_all(&state_dir).unwrap();
            std::fs::write(&key, generate_identity().0).unwrap();
            Repository::init(&env, Arc::clone(&place.store)).await.unwrap();
            Instance::create(&env, "test", &Protected::instance_key(&state_dir)).unwrap()
        } else {
            Instance::load("test", &Protected::instance_key(&state_dir)).unwrap()
        };
        let identities = Identities::parse(&std::fs::read_to_string(&key).unwrap()).unwrap();
        let mut trust = Trust::new();
        trust.add("test", instance.public_key());
        let app = folder.join("app");
        std::fs::create_dir_all(&app).unwrap();
        let database = app.join("app.db");
        let protected = Protected {
            component: ComponentName::new("test/db").unwrap(),
            source: Source::Sqlite {
                path: database.clone(),
                busy_timeout: Duration::from_secs(5),
                max_stall: Duration::from_secs(5),
                sql_dump: false,
                extracts: Vec::new(),
                checks: Vec::new(),
                heartbeat: None,
            },
            stores: vec![place],
            encryption: Encryption::Age(identities.public_keys()),
            trust,
            state_dir,
            rpo: None,
            rto: None,
        };
        Self {
            env,
            folder: folder.to_path_buf(),
            database,
            protected,
            identities,
            instance: Arc::new(instance),
            _temporary: None,
        }
    }

    pub async fn back_up(&self) -> lifeboat_model::Result<backup::Report> {
        backup::run(&self.env, &self.protected, Arc::clone(&self.instance), Request::default()).await
    }

    pub async fn restore(&self, backup: &str, destination: Destination) -> lifeboat_model::Result<restore::Report> {
        let repository = self.protected.repository().await?;
        let listing = self.protected.listing(&repository).await?;
        let backup = listing.find(backup)?;
        restore::run(
            &self.env,
            &self.protected,
            &repository,
            backup,
            &self.identities,
            destination,
            false,
        )
        .await
    }
}

pub fn beside(path: &Path) -> Destination {
    Destination::Beside {
        path: path.to_path_buf(),
        keep_owner: false,
    }
}

/// A database with enough rows and an index for a few hundred pages.
pub fn make(path: &Path, journal: &str, rows: i64) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = {journal};
             CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, body BLOB);
             CREATE INDEX items_name ON items (name);"
        ))
        .unwrap();
    add(&connection, rows);
}

pub fn add(connection: &Connection, rows: i64) {
    connection
        .execute_batch(&format!(
            "BEGIN;
             INSERT INTO items (name, body)
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
               SELECT 'item ' || i || ' ' || hex(randomblob(8)), randomblob(200) FROM n;
             COMMIT;"
        ))
        .unwrap();
}

pub fn open(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

pub fn count(path: &Path) -> i64 {
    open(path)
        .query_row("SELECT count(*) FROM items", [], |row| row.get(0))
        .unwrap()
}

/// The error's kind, for one that must be an error.
pub fn kind_of<T>(result: lifeboat_model::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it was to fail"),
        Err(error) => {
            eprintln!("{error:?}");
            error.kind()
        }
    }
}
