//! `lifeboat store`: set a store up, look at its set-up, make its locks longer, move packs to a cold class.

use std::sync::Arc;

use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::doctor::{Check, Outcome};
use lifeboat_ops::store::{self as verb, Cold, Wanted};
use lifeboat_repo::{ComponentName, Listing, Repository};
use lifeboat_store::fs::FsStore;
use lifeboat_store::s3admin::{Bucket, Lock, LockMode};
use lifeboat_store::{Key, Put};
use serde_json::{Value, json};

use super::args::Store;
use super::context::Context;
use super::open::{OpenStore, s3_settings};
use super::outcomes::Outcomes;
use super::{Cx, doctor};
use crate::config::{ComponentSettings, MinFree, S3Place, StorePlace, StoreSettings};
use crate::exit::Exit;

/// A repository's `lifeboat.json` is far smaller.
const DESCRIPTOR_LIMIT_BYTES: u64 = 1 << 16;

pub(super) async fn run(cx: &Cx, command: Store) -> Result<Exit> {
    let context = Context::load(cx)?;
    match command {
        Store::Setup { stores, print: true } => print(cx, &context, &stores).await,
        Store::Setup { stores, print: false } => set_up(cx, &context, &stores).await,
        Store::Check { stores } => check(cx, &context, &stores).await,
        Store::Chill { stores } => chill(cx, &context, &stores).await,
        Store::ExtendLock { stores } => extend_lock(cx, &context, &stores).await,
    }
}

/// The named stores, or all.
fn select<'a>(context: &'a Context, names: &[String]) -> Result<Vec<&'a StoreSettings>> {
    if names.is_empty() {
        return Ok(context.settings.stores.values().collect());
    }
    names.iter().map(|name| context.store(name)).collect()
}

async fn check(cx: &Cx, context: &Context, names: &[String]) -> Result<Exit> {
    let stores = select(context, names)?;
    let mut outcomes = Outcomes::of_stores(stores.len());
    for store in stores {
        match look(store).await {
            Ok(checks) => said(cx, &mut outcomes, store, &checks, &[]),
            Err(error) => outcomes.bad(cx, &store.name, error),
        }
    }
    outcomes.finish(cx, "store-check")
}

/// Says what was done and how it now is.
fn said(cx: &Cx, outcomes: &mut Outcomes, store: &StoreSettings, checks: &[Check], done: &[String]) {
    if checks.iter().any(|check| check.outcome == Outcome::Bad) {
        outcomes.but(Exit::of(ErrorKind::Failed));
    }
    let mut row = doctor::as_json(&store.name, checks);
    if let Some(row) = row.as_object_mut() {
        row.remove("component");
        row.insert("store".to_owned(), json!(store.name));
        row.insert("done".to_owned(), json!(done));
    }
    let mut text = doctor::for_people(&format!("{} ({})", store.name, store.address()), checks);
    for step in done {
        text.push_str(&format!("  done: {step}\n"));
    }
    outcomes.good(cx, row, &text);
}

/// Everything that can be asked about the set-up of a store.
pub(super) async fn look(store: &StoreSettings) -> Result<Vec<Check>> {
    match &store.place {
        StorePlace::Fs(fs) => {
            let min_free = fs.min_free;
            verb::check_folder(&fs.path, move |size| min_free.map(|min_free| bytes(min_free, size))).await
        }
        StorePlace::S3(s3) => verb::check_bucket(&bucket(s3).await?, &wanted(s3)).await,
        StorePlace::Gcs(_) | StorePlace::Azure(_) => Ok(vec![Check {
            says: "the rules of this service are not looked at by this version".to_owned(),
            outcome: Outcome::Warning,
            fix: Some("see that nothing there moves or deletes files by age, and that versions are kept (docs/how-to/object-storage.md)".to_owned()),
        }]),
    }
}

fn bytes(min_free: MinFree, size: u64) -> u64 {
    match min_free {
        MinFree::Bytes(bytes) => bytes,
        MinFree::Percent(percent) => size / 100 * u64::from(percent),
    }
}

async fn set_up(cx: &Cx, context: &Context, names: &[String]) -> Result<Exit> {
    let stores = select(context, names)?;
    let mut outcomes = Outcomes::of_stores(stores.len());
    for store in stores {
        let done = async {
            let mut done = match &store.place {
                StorePlace::Fs(fs) if fs.path.is_dir() => Vec::new(),
                StorePlace::Fs(fs) => {
                    FsStore::create(&fs.path).await?;
                    vec![format!("made the folder {}", fs.path.display())]
                }
                StorePlace::S3(s3) => verb::set_up_bucket(&bucket(s3).await?, &wanted(s3)).await?,
                StorePlace::Gcs(_) | StorePlace::Azure(_) => return Err(by_hand(store)),
            };
            done.extend(repository(cx, context, store).await?);
            Ok((done, look(store).await?))
        };
        match done.await {
            Ok((done, checks)) => said(cx, &mut outcomes, store, &checks, &done),
            Err(error) => outcomes.bad(cx, &store.name, error),
        }
    }
    outcomes.finish(cx, "store-setup")
}

/// Makes the repository in a store that holds none: the one that the other stores hold, or a new one where all of them answer that they hold
/// none. While one of them is away nobody knows, and two stores with different repositories would never fit together again.
async fn repository(cx: &Cx, context: &Context, store: &StoreSettings) -> Result<Option<String>> {
    let opened = OpenStore::open(store, &cx.env.clock).await?.store;
    match Repository::open(Arc::clone(&opened)).await {
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NoRepository => {}
        Err(error) => return Err(error),
    }
    for other in context.settings.stores.values().filter(|other| other.name != store.name) {
        let there = async { Repository::open(OpenStore::open(other, &cx.env.clock).await?.store).await };
        match there.await {
            Ok(there) => {
                let descriptor = Key::new("lifeboat.json")?;
                let same = there.store().get(&descriptor, DESCRIPTOR_LIMIT_BYTES).await?;
                match opened.put(&descriptor, same).await? {
                    Put::Created | Put::AlreadyThere => {}
                }
                return Ok(Some(format!(
                    "made the repository {} here, as it is in {}",
                    there.id(),
                    other.name
                )));
            }
            Err(error) if error.kind() == ErrorKind::NoRepository => {}
            Err(error) => {
                return Err(error.with_hint(format!(
                    "the store {} may hold the repository that belongs here: bring it back, or take it out of the configuration, then run this again",
                    other.name
                )));
            }
        }
    }
    let made = Repository::init(&cx.env, opened).await?;
    Ok(Some(format!("made the repository {}", made.id())))
}

fn by_hand(store: &StoreSettings) -> Error {
    Error::new(
        ErrorKind::Refused,
        "set up",
        format!("the store {}", store.name),
        "this version sets up folders and buckets of S3 only",
    )
    .with_hint("make the bucket with the tools of its service: docs/how-to/object-storage.md says what it needs")
}

async fn print(cx: &Cx, context: &Context, names: &[String]) -> Result<Exit> {
    let stores = select(context, names)?;
    let mut outcomes = Outcomes::of_stores(stores.len());
    for store in stores {
        let (row, text) = match &store.place {
            StorePlace::Fs(fs) => {
                let command = format!("install -d -m 0700 '{}'", fs.path.display());
                (json!({ "store": store.name, "commands": [command] }), command)
            }
            StorePlace::S3(s3) => plan(store, &verb::plan(&bucket(s3).await?, &wanted(s3))),
            StorePlace::Gcs(_) | StorePlace::Azure(_) => {
                outcomes.bad(cx, &store.name, by_hand(store));
                continue;
            }
        };
        outcomes.good(cx, row, &text);
    }
    outcomes.finish(cx, "store-setup-plan")
}

fn plan(store: &StoreSettings, plan: &verb::Plan) -> (Value, String) {
    let text = format!(
        "# Commands for the store {}. The last one replaces all lifecycle rules of the bucket; `lifeboat store setup` keeps those of others.\n{}\n\n\
         # Policy of the credentials that write backups (they cannot delete, nor change a lock or a rule):\n{:#}\n\n\
         # Policy of the `maintenance` credentials (prune, extend-lock, store setup):\n{:#}\n",
        store.name,
        plan.commands.join("\n"),
        plan.writer,
        plan.maintenance
    );
    let row = json!({
        "store": store.name, "commands": plan.commands, "writer_policy": plan.writer, "maintenance_policy": plan.maintenance,
    });
    (row, text)
}

/// The named stores, or all that `has` holds of.
fn select_with<'a>(context: &'a Context, names: &[String], has: impl Fn(&S3Place) -> bool) -> Result<Vec<&'a StoreSettings>> {
    let wanted = |store: &&StoreSettings| !names.is_empty() || matches!(&store.place, StorePlace::S3(s3) if has(s3));
    Ok(select(context, names)?.into_iter().filter(wanted).collect())
}

/// The components whose backups rest in a store.
fn components_in<'a>(context: &'a Context, store: &StoreSettings) -> Result<Vec<&'a ComponentSettings>> {
    let all = context.select(&[])?;
    Ok(all
        .into_iter()
        .filter(|component| component.stores.contains(&store.name))
        .collect())
}

async fn listing(context: &Context, component: &ComponentSettings, store: &StoreSettings) -> Result<(ComponentName, Listing)> {
    let protected = context.protected(component, std::slice::from_ref(&store.name)).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    Ok((protected.component, listing))
}

async fn extend_lock(cx: &Cx, context: &Context, names: &[String]) -> Result<Exit> {
    let stores = select_with(context, names, |s3| s3.care.lock.is_some())?;
    let mut outcomes = Outcomes::of_stores(stores.len());
    for store in stores {
        let done = async {
            let StorePlace::S3(s3) = &store.place else {
                return Err(not_configured(store, LOCK));
            };
            let lock = wanted(s3).lock.ok_or_else(|| not_configured(store, LOCK))?;
            let bucket = bucket(s3).await?;
            let mut sum = verb::Extended::default();
            for component in components_in(context, store)? {
                let (component, listing) = listing(context, component, store).await?;
                sum = sum.and(verb::extend(&cx.env, &bucket, &component, &listing, lock).await?);
            }
            Ok((sum, lock))
        };
        match done.await {
            Ok((sum, lock)) => outcomes.good(
                cx, json!({ "store": store.name, "files": sum.files, "extended": sum.extended, "long_enough": sum.long_enough, "days": lock.days }),
                &format!(
                    "{}: {} files of living backups looked at, {} locks now last {} days, {} lasted long enough",
                    store.name, sum.files, sum.extended, lock.days, sum.long_enough
                ),
            ),
            Err(error) => outcomes.bad(cx, &store.name, error),
        }
    }
    outcomes.finish(cx, "store-extend-lock")
}

async fn chill(cx: &Cx, context: &Context, names: &[String]) -> Result<Exit> {
    let stores = select_with(context, names, |s3| s3.care.cold.is_some())?;
    let mut outcomes = Outcomes::of_stores(stores.len());
    for store in stores {
        let done = async {
            let StorePlace::S3(s3) = &store.place else {
                return Err(not_configured(store, COLD));
            };
            let cold = wanted(s3).cold.ok_or_else(|| not_configured(store, COLD))?;
            let bucket = bucket(s3).await?;
            let mut sum = verb::Chilled::default();
            for component in components_in(context, store)? {
                let (component, listing) = listing(context, component, store).await?;
                sum = sum.and(verb::chill(&cx.env, &bucket, &component, &listing, &cold).await?);
            }
            Ok((sum, cold))
        };
        match done.await {
            Ok((sum, cold)) => outcomes.good(
                cx,
                json!({
                    "store": store.name, "packs": sum.packs, "bytes": sum.bytes, "cold_before": sum.cold_before,
                    "storage_class": cold.storage_class,
                }),
                &format!(
                    "{}: {} packs ({}) moved to {}, {} were there before",
                    store.name,
                    sum.packs,
                    human_bytes(sum.bytes),
                    cold.storage_class,
                    sum.cold_before
                ),
            ),
            Err(error) => outcomes.bad(cx, &store.name, error),
        }
    }
    outcomes.finish(cx, "store-chill")
}

const LOCK: &str = "object_lock: { mode: governance, days: 14 }";
const COLD: &str = "cold: { unreached_for: 30d, storage_class: GLACIER }";

fn not_configured(store: &StoreSettings, what: &str) -> Error {
    let key = what.split(':').next().unwrap_or(what);
    Error::new(
        ErrorKind::Usage,
        "use the bucket of",
        format!("the store {}", store.name),
        format!("the configuration gives it no `{key}`"),
    )
    .with_hint(format!("write `{what}` under its `s3:`, then run `lifeboat store setup`"))
}

/// The bucket of a store as its owner sees it: with the maintenance credentials where there are some.
pub(super) async fn bucket(s3: &S3Place) -> Result<Bucket> {
    Bucket::open(&s3_settings(&s3.for_upkeep()).await?)
}

/// What the configuration wants of a bucket.
pub(super) fn wanted(s3: &S3Place) -> Wanted {
    Wanted {
        lock: s3.care.lock.map(|lock| Lock {
            mode: if lock.compliance {
                LockMode::Compliance
            } else {
                LockMode::Governance
            },
            days: lock.days,
        }),
        cold: s3.care.cold.as_ref().map(|cold| Cold {
            unreached_for: cold.unreached_for,
            storage_class: cold.storage_class.clone(),
        }),
    }
}
