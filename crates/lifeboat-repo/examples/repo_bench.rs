//! Drives the repository alone, for `cargo xtask bench repo`: every file of a folder as a page file, encrypted, into a directory store.
//!
//! `repo_bench backup --source DIR --store DIR --state DIR --page-size N` and `repo_bench restore --store DIR --state DIR --to DIR`;
//! each prints one line of JSON. Not shipped, and no way to back anything up: it proves nothing about a source that changes.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark driver prints, and builds the real clock"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lifeboat_io::flow::{FilePages, PageSink};
use lifeboat_io::sink::FileSink;
use lifeboat_model::{Clock, Entropy, Env, env::Silent};
use lifeboat_repo::{
    BackupPlan, ComponentName, Encryption, FileMeta, Identities, Instance, Reader, Repository, Trust, Writer, generate_identity,
};
use lifeboat_store::BlobStore;
use lifeboat_store::fs::FsStore;

#[derive(Debug)]
struct Real(Instant);

impl Clock for Real {
    fn wall_us(&self) -> i64 {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Debug)]
struct System;

impl Entropy for System {
    fn fill(&self, bytes: &mut [u8]) -> lifeboat_model::Result<()> {
        getrandom::fill(bytes)
            .map_err(|error| lifeboat_model::Error::new(lifeboat_model::ErrorKind::Failed, "draw", "random bytes", error))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let verb = args.next().context("backup or restore?")?;
    let mut flags = BTreeMap::new();
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        flags.insert(name, value);
    }
    let flag = |name: &str| flags.get(name).with_context(|| format!("{name} is missing"));
    let (store, state) = (PathBuf::from(flag("--store")?), PathBuf::from(flag("--state")?));
    let threads = std::thread::available_parallelism()?.get();
    let env = Env {
        clock: Arc::new(Real(Instant::now())),
        entropy: Arc::new(System),
        progress: Arc::new(Silent),
        threads,
    };
    match verb.as_str() {
        "backup" => {
            backup(
                &env,
                Path::new(flag("--source")?),
                store,
                state,
                flag("--page-size")?.parse()?,
            )
            .await
        }
        "restore" => restore(&env, store, state, Path::new(flag("--to")?)).await,
        other => bail!("{other}: backup or restore?"),
    }
}

/// Files below `folder`, with their relative names, in order.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)?
                    .to_str()
                    .context("a name that is not UTF-8")?
                    .to_owned();
                found.push((name, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn instance(env: &Env, state: &Path) -> Result<(Arc<Instance>, Trust)> {
    let path = state.join("instance.key");
    let instance = match Instance::load("bench", &path) {
        Ok(instance) => instance,
        Err(_) => Instance::create(env, "bench", &path)?,
    };
    let mut trust = Trust::new();
    trust.add("bench", instance.public_key());
    Ok((Arc::new(instance), trust))
}

async fn backup(env: &Env, source: &Path, store: PathBuf, state: PathBuf, page_size: u32) -> Result<()> {
    let began = Instant::now();
    std::fs::create_dir_all(&state)?;
    let store: Arc<dyn BlobStore> = Arc::new(FsStore::create(&store).await?);
    let repository = match Repository::open(Arc::clone(&store)).await {
        Ok(repository) => repository,
        Err(_) => Repository::init(env, store).await?,
    };
    let identity = state.join("identity.txt");
    if !identity.exists() {
        std::fs::write(&identity, generate_identity().0)?;
    }
    let recipients = Identities::parse(&std::fs::read_to_string(&identity)?)?.public_keys();
    let (instance, trust) = instance(env, &state)?;
    let plan = BackupPlan {
        component: ComponentName::new("bench/repo")?,
        kind: "bench".into(),
        method: "physical".into(),
        source: source.display().to_string(),
        instance,
        encryption: Encryption::Age(recipients),
        trust,
        state_dir: state,
        tags: Vec::new(),
        reason: None,
        keep_for: None,
        full: false,
        extract: false,
        patient: false,
    };
    let mut writer = Writer::begin(env, &repository, plan).await?;
    for (name, path) in files(source)? {
        let meta = FileMeta {
            path: name.clone(),
            mode: 0o600,
            uid: 0,
            gid: 0,
            modified_us: 0,
        };
        writer
            .put_pages(meta, Arc::new(FilePages::new(File::open(path)?, name, page_size)?))
            .await?;
    }
    let committed = writer.commit(env.clock.wall_us(), serde_json::json!({})).await?;
    let stats = committed.stats;
    println!(
        "{}",
        serde_json::json!({
            "read_bytes": stats.read_bytes, "changed_bytes": stats.changed_bytes, "stored_bytes": stats.stored_bytes,
            "packs": stats.packs, "seconds": began.elapsed().as_secs_f64(), "notes": committed.notes,
        })
    );
    Ok(())
}

async fn restore(env: &Env, store: PathBuf, state: PathBuf, to: &Path) -> Result<()> {
    let began = Instant::now();
    let store: Arc<dyn BlobStore> = Arc::new(FsStore::open(&store).await?);
    let repository = Repository::open(store).await?;
    let (_, trust) = instance(env, &state)?;
    let listing = repository.backups(&ComponentName::new("bench/repo")?, &trust).await?;
    let identities = Identities::parse(&std::fs::read_to_string(state.join("identity.txt"))?)?;
    let reader = Reader::open(env, &repository, listing.find("latest")?, &identities).await?;
    let mut files: Vec<(_, Arc<dyn PageSink>)> = Vec::new();
    for file in reader.files() {
        let path = to.join(&file.meta.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let target = File::options().read(true).write(true).create_new(true).open(&path)?;
        // As a database's folder is restored: nobody reads it back at once.
        let sink = FileSink::new(target, file.meta.path.clone()).around_cache(file.size_bytes)?;
        files.push((file.clone(), Arc::new(sink)));
    }
    let fetched = reader.restore_all(files, 2).await?;
    println!(
        "{}",
        serde_json::json!({ "fetched_bytes": fetched.fetched_bytes, "written_bytes": fetched.written_bytes, "seconds": began.elapsed().as_secs_f64() })
    );
    Ok(())
}
