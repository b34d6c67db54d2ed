//! Drives the repository with a database that does not exist, for `cargo xtask bench scale`: pages are made up as they are asked for.
//!
//! `scale_bench --gib N --round R --store DIR --state DIR` backs the made-up database up as it is in round `R` and prints one line of JSON.
//! Every extent is different from every other one, so that nothing is found twice, and compresses to a few dozen bytes, so that 200 GiB fit
//! on any disk. From round to round one page of every thousandth extent changes.
//!
//! `scale_bench --prune PACKS --store DIR --state DIR` prunes the same store: all backups but the newest go, and so do `PACKS` packs of a session that
//! died (small ones: what a prune costs depends on their number). Before the sweep, everything is made four days older. Not shipped.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark driver prints, and builds the real clock"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lifeboat_io::flow::{EXTENT_BYTES, PageSource, SEGMENT_BYTES};
use lifeboat_model::{Clock, Entropy, Env, env::Silent};
use lifeboat_repo::{
    BackupId, BackupPlan, ComponentName, Encryption, FileMeta, Identities, Instance, PrunePlan, Repository, Retired, Standing,
    Trust, Writer, generate_identity, prune,
};
use lifeboat_store::fs::FsStore;
use lifeboat_store::layer::meter::Metered;

const PAGE_BYTES: u32 = 4096;

/// One page of every so many extents changes in a round.
const CHANGED_EVERY: u64 = 1000;

/// How long what is condemned stays: the shortest that there is.
const GRACE: Duration = Duration::from_secs(48 * 3600);

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

/// Pages that are made up: zeros, but for the number of the extent at its beginning, and the round where it has changed.
#[derive(Debug)]
struct MadeUp {
    size_bytes: u64,
    round: u64,
    next: AtomicU64,
}

impl PageSource for MadeUp {
    fn page_size(&self) -> u32 {
        PAGE_BYTES
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn next_segment(&self, buffer: &mut Vec<u8>) -> lifeboat_model::Result<Option<u64>> {
        let at = self.next.fetch_add(SEGMENT_BYTES as u64, Ordering::Relaxed);
        if at >= self.size_bytes {
            return Ok(None);
        }
        let length = (self.size_bytes - at).min(SEGMENT_BYTES as u64);
        buffer.clear();
        buffer.resize(usize::try_from(length).unwrap_or(SEGMENT_BYTES), 0);
        for (index, extent) in (0_u64..).zip(buffer.chunks_mut(EXTENT_BYTES)) {
            let number = at / EXTENT_BYTES as u64 + index;
            extent[..8].copy_from_slice(&(number + 1).to_le_bytes());
            if number.is_multiple_of(CHANGED_EVERY) {
                extent[8..16].copy_from_slice(&self.round.to_le_bytes());
            }
        }
        Ok(Some(at))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut flags = BTreeMap::new();
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        flags.insert(name, value);
    }
    let flag = |name: &str| flags.get(name).with_context(|| format!("{name} is missing"));
    let (store, state) = (PathBuf::from(flag("--store")?), PathBuf::from(flag("--state")?));
    let env = Env {
        clock: Arc::new(Real(Instant::now())),
        entropy: Arc::new(System),
        progress: Arc::new(Silent),
        threads: std::thread::available_parallelism()?.get(),
    };
    std::fs::create_dir_all(&state)?;
    match flags.get("--prune") {
        Some(packs) => prune_all(&env, &store, state, packs.parse()?).await,
        None => {
            backup(
                &env,
                &store,
                state,
                flag("--gib")?.parse::<u64>()? << 30,
                flag("--round")?.parse()?,
            )
            .await
        }
    }
}

/// The key of this installation, and the trust in it.
fn trusted(env: &Env, state: &Path) -> Result<(Arc<Instance>, Trust)> {
    let key = state.join("instance.key");
    let instance = match Instance::load("bench", &key) {
        Ok(instance) => instance,
        Err(_) => Instance::create(env, "bench", &key)?,
    };
    let mut trust = Trust::new();
    trust.add("bench", instance.public_key());
    Ok((Arc::new(instance), trust))
}

/// Two prunes, with the grace period between them.
async fn prune_all(env: &Env, store: &Path, state_dir: PathBuf, packs: u64) -> Result<()> {
    let folder = store.join("c/bench~2Fscale/packs/").join("5".repeat(32));
    std::fs::create_dir_all(&folder)?;
    for number in 0..packs {
        std::fs::write(folder.join(format!("{number:064x}")), b"left by a session that died")?;
    }
    let (instance, trust) = trusted(env, &state_dir)?;
    let retire = |standing: &Standing<'_>| -> lifeboat_model::Result<Retired> {
        let newest = standing.listing.latest().map(|backup| backup.id);
        let ids = standing.listing.backups.iter().map(|backup| backup.id);
        Ok(ids.filter(|id| Some(*id) != newest).collect::<BTreeSet<BackupId>>().into())
    };
    let plan = PrunePlan {
        component: ComponentName::new("bench/scale")?,
        instance,
        trust,
        state_dir,
        grace: GRACE,
        dry_run: false,
        retire: &retire,
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        older(store)?;
        let metered = Metered::new(FsStore::open(store).await?);
        let meter = metered.meter();
        let repository = Repository::open(Arc::new(metered)).await?;
        let began = Instant::now();
        let pruned = prune(env, &repository, &plan).await?;
        let counts = meter.counts();
        runs.push(serde_json::json!({
            "seconds": began.elapsed().as_secs_f64(), "condemned": pruned.condemned.files, "swept": pruned.swept.files,
            "swept_backups": pruned.swept.backups.len(), "list_calls": counts.list.calls, "notes": pruned.notes,
        }));
    }
    println!("{}", serde_json::Value::from(runs));
    Ok(())
}

/// Makes everything in a store older than the grace period.
fn older(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            older(&path)?;
        } else {
            let file = std::fs::File::options().append(true).open(&path)?;
            let before = file.metadata()?.modified()?;
            file.set_modified(before - 2 * GRACE)?;
        }
    }
    Ok(())
}

async fn backup(env: &Env, store: &Path, state: PathBuf, size_bytes: u64, round: u64) -> Result<()> {
    let began = Instant::now();
    let metered = Metered::new(FsStore::create(store).await?);
    let meter = metered.meter();
    let store: Arc<dyn lifeboat_store::BlobStore> = Arc::new(metered);
    let repository = match Repository::open(Arc::clone(&store)).await {
        Ok(repository) => repository,
        Err(_) => Repository::init(env, store).await?,
    };
    let identity = state.join("identity.txt");
    if !identity.exists() {
        std::fs::write(&identity, generate_identity().0)?;
    }
    let recipients = Identities::parse(&std::fs::read_to_string(&identity)?)?.public_keys();
    let (instance, trust) = trusted(env, &state)?;
    let before = meter.counts();
    let plan = BackupPlan {
        component: ComponentName::new("bench/scale")?,
        kind: "bench".into(),
        method: "physical".into(),
        source: "made up".into(),
        instance,
        encryption: Encryption::Age(recipients),
        trust: trust.clone(),
        state_dir: state,
        tags: Vec::new(),
        reason: None,
        keep_for: None,
        full: false,
        extract: false,
        patient: false,
    };
    let mut writer = Writer::begin(env, &repository, plan).await?;
    let meta = FileMeta {
        path: "made-up.db".into(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        modified_us: 0,
    };
    let pages = MadeUp {
        size_bytes,
        round,
        next: AtomicU64::new(0),
    };
    writer.put_pages(meta, Arc::new(pages)).await?;
    let committed = writer.commit(env.clock.wall_us(), serde_json::json!({})).await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = meter.counts();
    let listed = Instant::now();
    let listing = repository.backups(&ComponentName::new("bench/scale")?, &trust).await?;
    println!(
        "{}",
        serde_json::json!({
            "seconds": seconds, "list_seconds": listed.elapsed().as_secs_f64(), "backups": listing.backups.len(),
            "read_bytes": committed.stats.read_bytes, "stored_bytes": committed.stats.stored_bytes,
            "packs": committed.backup.closure.packs.len(), "list_calls": after.list.calls - before.list.calls,
            "put_calls": after.put.calls - before.put.calls, "notes": committed.notes,
        })
    );
    Ok(())
}
