//! What the demo plays with: an application, an encrypted store, and the destruction of the one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::protected::Place;
use lifeboat_ops::{Protected, Source};
use lifeboat_repo::{ComponentName, Encryption, Identities, Instance, Repository, Trust, generate_identity};
use lifeboat_store::BlobStore;
use lifeboat_store::fs::FsStore;
use rusqlite::{Connection, OpenFlags};
use tokio::process::{Child, Command};

use super::super::Cx;
use super::writer;

/// How often the writer's notes are looked at while waiting for more of them.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct World {
    pub(super) database: PathBuf,
    pub(super) protected: Protected,
    pub(super) identities: Identities,
    pub(super) instance: Arc<Instance>,
    pub(super) store: PathBuf,
    writer: Child,
}

/// How the restored rows compare with the writer's notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) rows: u64,
    /// Confirmed after the restored moment.
    pub(super) lost: u64,
}

impl World {
    pub(super) async fn create(cx: &Cx, folder: &Path) -> Result<Self> {
        let store_path = folder.join("store");
        let store: Arc<dyn BlobStore> = Arc::new(FsStore::create(&store_path).await?);
        Repository::init(&cx.env, Arc::clone(&store)).await?;
        let (secret, recipient) = generate_identity();
        let key = format!("# public key: {recipient}\n{secret}\n");
        let durable::Created::New = durable::create_file(&folder.join("demo.key"), key.as_bytes(), durable::FILE_MODE)? else {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "create",
                "demo.key",
                "it is there already",
            ));
        };
        let state_dir = folder.join("state");
        durable::create_folder(&state_dir)?;
        let instance = Instance::create(&cx.env, "demo", &Protected::instance_key(&state_dir))?;
        let mut trust = Trust::new();
        trust.add("demo", instance.public_key());
        durable::create_folder(&folder.join("app"))?;
        let database = folder.join("app").join("orders.db");
        let protected = Protected {
            component: ComponentName::new("demo/db")?,
            source: Source::Sqlite {
                path: database.clone(),
                busy_timeout: Duration::from_secs(5),
                max_stall: Duration::from_secs(5),
                sql_dump: false,
                extracts: Vec::new(),
                checks: Vec::new(),
                heartbeat: None,
            },
            stores: vec![Place::folder("disk", store, store_path.clone())],
            encryption: Encryption::Age(vec![recipient]),
            trust,
            state_dir,
            rpo: Some(Duration::from_secs(3600)),
            rto: Some(Duration::from_secs(900)),
        };
        let writer = start_writer(&database)?;
        Ok(Self {
            database,
            protected,
            identities: Identities::parse(&secret)?,
            instance: Arc::new(instance),
            store: store_path,
            writer,
        })
    }

    /// Rows that the writer has noted as confirmed.
    pub(super) fn confirmed(&self) -> Result<u64> {
        let path = writer::known(&self.database);
        match std::fs::read(&path) {
            Ok(text) => Ok(text.iter().filter(|byte| **byte == b'\n').count() as u64),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io("read", path.display(), error)),
        }
    }

    /// Waits until the writer has confirmed that many rows.
    pub(super) async fn wait_for(&mut self, rows: u64) -> Result<u64> {
        loop {
            let confirmed = self.confirmed()?;
            if confirmed >= rows {
                return Ok(confirmed);
            }
            let ended = self
                .writer
                .try_wait()
                .map_err(|error| Error::io("look after", "the demo's writer", error))?;
            if let Some(status) = ended {
                return Err(Error::new(
                    ErrorKind::Failed,
                    "run",
                    "the demo's writer",
                    format!("it ended by itself ({status})"),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// kill -9.
    pub(super) async fn kill_writer(&mut self) -> Result<()> {
        self.writer
            .kill()
            .await
            .map_err(|error| Error::io("kill", "the demo's writer", error))
    }

    /// Overwrites the middle third of the database; the -wal stays as the crash left it.
    pub(super) fn destroy(&self) -> Result<u64> {
        use std::os::unix::fs::FileExt;
        let failed = |error| Error::io("damage", self.database.display(), error);
        let file = std::fs::File::options().write(true).open(&self.database).map_err(failed)?;
        let third = file.metadata().map_err(failed)?.len() / 3;
        let garbage = vec![0xA5; 1 << 16];
        let mut at = third;
        while at < 2 * third {
            file.write_all_at(&garbage, at).map_err(failed)?;
            at += garbage.len() as u64;
        }
        file.sync_all().map_err(failed)?;
        Ok(third)
    }

    /// Flips one bit in the middle of the largest pack; again puts it back. Returns the pack.
    pub(super) fn flip_bit(&self) -> Result<PathBuf> {
        use std::os::unix::fs::FileExt;
        let pack = largest(&self.store.join("c"))?;
        let failed = |error| Error::io("damage", pack.display(), error);
        let file = std::fs::File::options().read(true).write(true).open(&pack).map_err(failed)?;
        let at = file.metadata().map_err(failed)?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).map_err(failed)?;
        file.write_all_at(&[byte[0] ^ 1], at).map_err(failed)?;
        Ok(pack)
    }

    /// Every row of the restored database against the writer's notes; every row confirmed before `least` must be there.
    pub(super) fn compare(&self, least: u64) -> Result<Compared> {
        let path = writer::known(&self.database);
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io("read", path.display(), error))?;
        let mut known = BTreeMap::new();
        for line in text.lines() {
            let id = line.split('\t').next().and_then(|id| id.parse::<i64>().ok());
            known.insert(id.unwrap_or_default(), line);
        }
        let failed = |error: rusqlite::Error| Error::new(ErrorKind::Corrupt, "read", self.database.display(), error.to_string());
        let connection = Connection::open_with_flags(&self.database, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        let mut statement = connection
            .prepare("SELECT id, customer, amount, note FROM orders ORDER BY id")
            .map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let (mut count, mut sum) = (0_u64, 0_i64);
        while let Some(row) = rows.next().map_err(failed)? {
            let (id, amount): (i64, i64) = (row.get(0).map_err(failed)?, row.get(2).map_err(failed)?);
            let (customer, note): (String, String) = (row.get(1).map_err(failed)?, row.get(3).map_err(failed)?);
            if known.get(&id).copied() != Some(writer::line(id, &customer, amount, &note).as_str()) {
                return Err(different(format!("order {id} is not as the writer noted it")));
            }
            count += 1;
            sum += amount;
        }
        let totals = connection.query_row("SELECT amount, orders FROM totals", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        if totals.map_err(failed)? != (sum, i64::try_from(count).unwrap_or(-1)) {
            return Err(different("the application's own totals do not fit its orders".into()));
        }
        if count < least {
            return Err(different(format!(
                "{count} orders are there, {least} were confirmed before the backup"
            )));
        }
        Ok(Compared {
            rows: count,
            lost: (known.len() as u64).saturating_sub(count),
        })
    }

    /// Writes a configuration, so that a kept folder can be worked with.
    pub(super) fn write_configuration(&self, folder: &Path) -> Result<PathBuf> {
        let Encryption::Age(recipients) = &self.protected.encryption else {
            return Err(Error::new(
                ErrorKind::Bug,
                "write",
                "the demo's configuration",
                "it is encrypted",
            ));
        };
        let path = folder.join("lifeboat.yaml");
        let text = format!(
            "version: 1\ninstance: {{ name: demo, state_dir: state }}\ninstances: {{ demo: \"{}\" }}\nkeys:\n  main: {{ age: {{ recipients: [{}], identity: {{ file: demo.key }} }} }}\nstores:\n  disk: {{ fs: {{ path: store }} }}\nsystems:\n  demo:\n    components:\n      db:\n        sqlite: {{ path: app/orders.db }}\n        objectives: {{ rpo: 1h, rto: 15m }}\n        backup: {{ to: [disk], encrypt: main }}\n",
            self.instance.public_key(),
            recipients.join(", "),
        );
        let mut file = std::fs::File::create(&path).map_err(|error| Error::io("create", path.display(), error))?;
        file.write_all(text.as_bytes())
            .map_err(|error| Error::io("write", path.display(), error))?;
        Ok(path)
    }
}

fn different(detail: String) -> Error {
    Error::new(ErrorKind::Corrupt, "accept", "the restored database", detail)
}

fn start_writer(database: &Path) -> Result<Child> {
    let program = std::env::current_exe().map_err(|error| Error::io("find", "this program", error))?;
    Command::new(program)
        .arg("demo-writer")
        .arg(database)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::io("start", "the demo's writer", error))
}

fn largest(folder: &Path) -> Result<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    let mut best: Option<(u64, PathBuf)> = None;
    while let Some(current) = folders.pop() {
        let failed = |error| Error::io("list", current.display(), error);
        for entry in std::fs::read_dir(&current).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let meta = entry.metadata().map_err(failed)?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else if best.as_ref().is_none_or(|(size, _)| meta.len() > *size) {
                best = Some((meta.len(), entry.path()));
            }
        }
    }
    best.map(|(_, path)| path)
        .ok_or_else(|| Error::new(ErrorKind::Bug, "damage", folder.display(), "the store is empty"))
}

/// The first line of SQLite's integrity check, or the error that it ends in. Opened to read only, so that the -wal stays as it is.
pub(super) fn verdict(database: &Path) -> String {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let first =
        connection.and_then(|connection| connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0)));
    match first {
        Ok(words) => words
            .split('\n')
            .map(str::trim)
            .rfind(|line| !line.is_empty())
            .unwrap_or("")
            .to_owned(),
        Err(error) => error.to_string(),
    }
}
