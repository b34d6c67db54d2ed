//! `lifeboat bootstrap`: from the store and the private key to a configuration, and what can be restored with it.
//!
//! ```text
//! look at DIR → read the key → open the store → find the kits → judge who signed → open the configuration → write it → list
//! ```
//! Nothing of a kit is used before somebody said that its signer is to be believed (INV-19). `lifeboat.yaml` gets its name last and is never put over
//! another: whoever dies in between runs the same command again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_io::{compute, durable};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::stores;
use lifeboat_repo::{
    Identities, Kit, KitName, PublicKey, Repository, Trust, get_kit, kit_signer, list_kits, needs_passphrase, open_kit,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Cx;
use super::args::Bootstrap;
use super::ask::{ask_passphrase, can_ask, command_line, confirm, this_command_with};
use super::context::{Context, system_of};
use super::open::OpenStore;
use crate::config::{self, Arrival, SecretRef, Settings, StorePlace, StoreSettings};
use crate::exit::Exit;
use crate::render::{json as document, tell, text};

const CONFIG: &str = "lifeboat.yaml";
const ORIGINAL: &str = "lifeboat.original.yaml";

/// What was done, and how long each part took.
struct Steps<'a> {
    cx: &'a Cx,
    since: Duration,
    done: Vec<Value>,
}

impl Steps<'_> {
    fn done(&mut self, step: &str) {
        let now = self.cx.env.clock.monotonic();
        let took = now.saturating_sub(self.since);
        self.since = now;
        self.done.push(json!({ "step": step, "took_s": took.as_secs_f64() }));
        self.cx.out.detail(|| format!("{step}: done"));
    }
}

/// Where everything goes.
struct Places {
    folder: PathBuf,
    key: PathBuf,
}

pub(super) async fn run(cx: &Cx, args: Bootstrap) -> Result<Exit> {
    let mut steps = Steps {
        cx,
        since: cx.env.clock.monotonic(),
        done: Vec::new(),
    };
    let places = Places {
        folder: absolute(args.to.as_deref().unwrap_or(Path::new(".")))?,
        key: absolute(&args.key)?,
    };
    refuse_existing(&places.folder.join(CONFIG))?;
    let wanted = args.instance.as_deref().map(str::parse::<PublicKey>).transpose();
    let wanted = wanted.map_err(|error| error.with_kind(ErrorKind::Usage))?;
    let identities = read_key(cx, &places.key).await?;
    steps.done("read the key");
    let place = store_settings(&args.store)?;
    let store = OpenStore::open(&place, &cx.env.clock).await?;
    let repository = Repository::open(Arc::clone(&store.store)).await?;
    steps.done("open the store");
    let kits = newest(&repository).await?;
    steps.done("find the kits");
    let kit = choose(cx, &kits, wanted, args.yes)?;
    let configuration = kit.configuration(&identities)?;
    steps.done("open the configuration");
    let arrival = Arrival {
        state_dir: &places.folder.join("state"),
        store: &kit.store,
        place: &place,
        key: &places.key,
        identities: &identities,
        recipients: &configuration.recipients,
    };
    let path = places.folder.join(CONFIG);
    let text = arrival.apply(&configuration.text)?;
    let settings = config::check_text(&path, &text)?;
    refuse_strangers(&settings, kit)?;
    write(&places.folder, &configuration.text, &text)?;
    steps.done("write the configuration");
    let (rows, exit) = recoverable(cx, settings, kit).await;
    steps.done("list what can be restored");
    report(cx, kit, &path, &rows, steps.done)?;
    Ok(exit)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| Error::io("resolve", path.display(), error))?;
    Ok(path.components().collect())
}

fn refuse_existing(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", path.display(), error)),
        Ok(_) => Err(Error::new(
            ErrorKind::Refused,
            "write",
            path.display(),
            "there is one already; nothing was changed",
        )
        .with_hint("use it as it is (`lifeboat status`), or name an empty folder with --to")),
    }
}

/// The store as the command line names it.
fn store_settings(named: &str) -> Result<StoreSettings> {
    // `usb` and `./usb` are the same folder here: there is no configuration that could call a store so.
    let is_bare = !named.contains('/');
    let text = if is_bare { format!("./{named}") } else { named.to_owned() };
    let mut settings = StoreSettings::unnamed(&text)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Usage,
            "use the store",
            named,
            "it is neither a folder nor s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://ACCOUNT/CONTAINER/PREFIX",
        )
        .with_hint("write the path of the folder, or the URL of the bucket and the folder in it")
    })?;
    if let StorePlace::Fs(fs) = &mut settings.place {
        fs.path = absolute(&fs.path)?;
    }
    Ok(settings)
}

async fn read_key(cx: &Cx, path: &Path) -> Result<Identities> {
    let stored = SecretRef::File(path.to_owned())
        .read_bytes()
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => error
                .with_kind(ErrorKind::WrongKey)
                .with_hint("name the file with the private key: the copy that is kept away from the machine that is gone"),
            _ => error,
        })?;
    let passphrase = if !needs_passphrase(&stored) {
        Zeroizing::default()
    } else if can_ask(cx) {
        compute::run("ask for the passphrase", || ask_passphrase("Passphrase of the key:", false)).await?
    } else {
        return Err(Error::new(
            ErrorKind::WrongKey,
            "read the identity",
            path.display(),
            "it is protected by a passphrase, and there is no terminal to ask on",
        )
        .with_hint("run this on a terminal"));
    };
    compute::run("open the private key", move || {
        Identities::read(&stored, &mut || Ok(passphrase.clone()))
    })
    .await
}

/// Of every signer the newest kit that is whole. What is not is told, and the one before it is taken.
async fn newest(repository: &Repository) -> Result<Vec<Kit>> {
    let listing = list_kits(repository).await?;
    if listing.names.is_empty() {
        return Err(Error::new(
            ErrorKind::NoSuchPoint,
            "find a recovery kit in",
            repository.store().name(),
            "there is none: no backup was taken since Lifeboat puts kits",
        )
        .with_hint("write a lifeboat.yaml by hand (docs/configuration.md), or recover without Lifeboat (docs/recover-without-lifeboat.md)"));
    }
    let mut found: BTreeMap<PublicKey, Kit> = BTreeMap::new();
    let mut settled = Vec::new();
    let mut last = None;
    for name in listing.names.iter().rev() {
        if settled.contains(&name.signer) {
            continue;
        }
        match judge(repository, name).await {
            Ok(kit) => {
                settled.push(name.signer);
                found.insert(kit.signer, kit);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) => {
                tell(&format!("warning: {error}; the one before it is looked for"));
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match last {
        Some(error) if found.is_empty() => {
            Err(error.with_hint("no kit here is whole: try another store, or write a lifeboat.yaml by hand"))
        }
        _ => Ok(found.into_values().collect()),
    }
}

/// A kit that is what it says of itself; whether its signer is to be believed is another question.
async fn judge(repository: &Repository, name: &KitName) -> Result<Kit> {
    let stored = get_kit(repository, name).await?;
    let mut itself = Trust::new();
    itself.add("the signer of the kit", kit_signer(name, &stored)?);
    open_kit(repository.id(), &itself, name, &stored)
}

/// The kit of the signer that is believed: the one that was named, or the only one after a yes.
fn choose<'a>(cx: &Cx, kits: &'a [Kit], wanted: Option<PublicKey>, yes: bool) -> Result<&'a Kit> {
    let signers: Vec<String> = kits
        .iter()
        .map(|kit| format!("{} ({}, {})", kit.signer, kit.instance, text::time(kit.at_us)))
        .collect();
    let refused = |detail: String| Error::new(ErrorKind::Refused, "believe", "the recovery kit", detail);
    match (wanted, kits) {
        (Some(wanted), _) => kits.iter().find(|kit| kit.signer == wanted).ok_or_else(|| {
            refused(format!(
                "none here is signed by {wanted}; there are kits of: {}",
                signers.join(", ")
            ))
            .with_hint("compare the key with what was written down; a kit of somebody else is not used")
        }),
        (None, [kit]) => {
            if !yes {
                cx.out.note(&format!(
                    "The kit of {} is signed by {}.",
                    text::time(kit.at_us),
                    signers.join(", ")
                ));
                let question = "Is this the public key of your installation?";
                let command = this_command_with(&["--instance", &kit.signer.to_string()]);
                confirm(
                    cx,
                    question,
                    "believe",
                    &format!("the recovery kit that {} signed", kit.signer),
                    &command,
                )?;
            }
            Ok(kit)
        }
        (None, _) => {
            let commands: Vec<String> = kits
                .iter()
                .map(|kit| this_command_with(&["--instance", &kit.signer.to_string()]))
                .collect();
            Err(
                refused(format!("several installations have one here: {}", signers.join(", ")))
                    .with_hint(format!("one of these goes on: {}", commands.join(" ; "))),
            )
        }
    }
}

/// A configuration that does not believe its own author is not the one that wrote these backups.
fn refuse_strangers(settings: &Settings, kit: &Kit) -> Result<()> {
    let signer = kit.signer.to_string();
    if settings.instances.values().any(|(key, _)| *key == signer) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        "use",
        "the configuration in the kit",
        format!("it does not name {signer}, which signed the kit, under `instances`"),
    )
    .with_hint("write a lifeboat.yaml by hand, and look at what else lies in the store"))
}

/// The text as it was, then the one that is used here, whose name is given last.
fn write(folder: &Path, original: &str, text: &str) -> Result<()> {
    durable::create_folder(folder)?;
    let beside = folder.join(ORIGINAL);
    match durable::create_file(&beside, original.as_bytes(), durable::FILE_MODE)? {
        durable::Created::New => {}
        durable::Created::AlreadyThere => {
            let there = std::fs::read(&beside).map_err(|error| Error::io("read", beside.display(), error))?;
            if there != original.as_bytes() {
                return refuse_existing(&beside);
            }
        }
    }
    durable::create_folder(&folder.join("state"))?;
    let path = folder.join(CONFIG);
    match durable::create_file(&path, text.as_bytes(), durable::FILE_MODE)? {
        durable::Created::New => Ok(()),
        durable::Created::AlreadyThere => refuse_existing(&path),
    }
}

/// What the store holds of each component, in the order of recovery.
async fn recoverable(cx: &Cx, settings: Settings, kit: &Kit) -> (Vec<Value>, Exit) {
    let context = Context::quiet(cx, settings);
    let mut rows = Vec::new();
    let mut exit = Exit::OK;
    for component in &context.settings.components {
        let mut row = json!({
            "component": component.name,
            "system": system_of(component),
            "kind": component.source.kind(),
            "priority": component.priority.word(),
            "stores": component.stores,
            "here": component.stores.contains(&kit.store),
            "newest": null,
        });
        if component.stores.contains(&kit.store) {
            let here = [kit.store.clone()];
            let looked = async { stores::survey(&context.protected(component, &here).await?).await };
            match looked.await {
                Ok(survey) => {
                    row["newest"] = survey.listing().latest().map_or(Value::Null, document::backup);
                    for (_, rejected) in &survey.rejected {
                        tell(&format!(
                            "warning: {}: {} does not count: {}",
                            component.name, rejected.name, rejected.reason
                        ));
                    }
                }
                Err(error) => {
                    exit = exit.worse(Exit::of(error.kind()));
                    tell(&format!("warning: {}: {error}", component.name));
                    row["error"] = document::error(&error);
                }
            }
        }
        rows.push(row);
    }
    (rows, exit)
}

fn report(cx: &Cx, kit: &Kit, path: &Path, rows: &[Value], steps: Vec<Value>) -> Result<()> {
    let config = path.display().to_string();
    let command = |words: &[&str]| {
        let all = ["--config", &config].into_iter().chain(words.iter().copied());
        command_line(all.map(str::to_owned))
    };
    let mut systems: Vec<&str> = Vec::new();
    let mut said = format!(
        "The configuration of {} is in {config}; the kit is of {}.\nWhat this store holds, in the order of recovery:\n",
        kit.instance,
        text::time(kit.at_us)
    );
    for row in rows {
        let name = row["component"].as_str().unwrap_or_default();
        let newest = row["newest"]["moment"].as_str();
        let held = match (newest, row["here"].as_bool()) {
            (Some(moment), _) => format!("newest backup of {moment}"),
            (None, Some(true)) => "no backup here".to_owned(),
            (None, _) => "in other stores".to_owned(),
        };
        said.push_str(&format!("  {name}: {held}\n"));
        let system = row["system"].as_str().unwrap_or_default();
        if newest.is_some() && !systems.contains(&system) {
            systems.push(system);
        }
    }
    let mut next: Vec<String> = vec![command(&["status"])];
    next.push(command(&["kit"]));
    next.extend(systems.iter().map(|system| command(&["restore", system])));
    said.push_str("Next:\n");
    next.iter().for_each(|line| said.push_str(&format!("  {line}\n")));
    said.push_str("Backups from here need a signing key of this machine: `lifeboat backup` says how.\n");
    let body = json!({
        "path": config,
        "kit": {
            "name": kit.name.to_string(),
            "at": lifeboat_repo::format_utc(kit.at_us),
            "instance": kit.instance,
            "signer": kit.signer.to_string(),
            "store": kit.store,
            "lifeboat": kit.lifeboat,
            "encrypted": kit.is_encrypted(),
        },
        "components": rows,
        "next": next,
        "steps": steps,
    });
    cx.out.result("bootstrap", body, &said)
}
