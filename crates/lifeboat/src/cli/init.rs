//! `lifeboat init`: keys, store, configuration, first backup, first proof.
//!
//! Every step can be repeated: what an earlier run of our own left is used as it is. The configuration is written after everything that it
//! names is there, so that a configuration never points into nothing; from then on only the backup and its proof can be missing.

mod cluster;
mod others;
pub(super) mod proposal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::time::human_duration;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::backup::Request;
use lifeboat_ops::proof::{self, Level};
use lifeboat_ops::{Protected, verify};
use lifeboat_repo::{ComponentName, Identities, Instance, Repository};
use lifeboat_store::BlobStore;
use lifeboat_store::fs::FsStore;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::Init;
use super::context::Context;
use super::open::OpenStore;
use super::scratch::Scratch;
use super::{Cx, ask, backup, key};
use crate::config::{ComponentSettings, Initial, StorePlace, render_initial};
use crate::exit::Exit;
use crate::render::json as document;
use proposal::Proposal;

const RPO: &str = "24h";
const RTO: &str = "1h";

pub(super) async fn run(cx: &Cx, args: Init) -> Result<Exit> {
    let config = cx.config.clone().unwrap_or_else(|| PathBuf::from("lifeboat.yaml"));
    let there = config
        .try_exists()
        .map_err(|error| Error::io("look at", config.display(), error))?;
    let mut public_key = None;
    if there {
        go_on(cx, &args, &config).await?;
    } else {
        let proposal = Proposal::make(cx, &args, config.clone()).await?;
        cx.out.note(&proposal.for_people());
        if !args.yes {
            let subject = proposal.config.display().to_string();
            ask::confirm(cx, "Set this up?", "set up", &subject, &proposal.command(&args))?;
        }
        public_key = set_up(cx, &proposal).await?;
    }
    let context = Context::load(&Cx {
        config: Some(config),
        env: cx.env.clone(),
        told: std::sync::Arc::clone(&cx.told),
        out: cx.out,
    })?;
    let mut done = Done {
        rows: Vec::new(),
        text: String::new(),
        back: Duration::ZERO,
    };
    if !args.no_backup {
        for component in context.select(&[])? {
            cluster::doctor(cx, component).await;
            Box::pin(first_backup(cx, &context, component, &mut done)).await?;
        }
    }
    finish(cx, &context, &args, public_key, done)
}

/// A configuration that is there is never written over; but a set-up that was interrupted before its first proof is continued.
async fn go_on(cx: &Cx, args: &Init, config: &Path) -> Result<()> {
    let refuse = |detail: &str| {
        Err(Error::new(ErrorKind::Refused, "set up", config.display(), detail)
            .with_hint("`lifeboat status` shows how things stand; to add a database, write it into that file; for another set-up, name another file with --config"))
    };
    let context = Context::load(&Cx {
        config: Some(config.to_path_buf()),
        env: cx.env.clone(),
        told: std::sync::Arc::clone(&cx.told),
        out: crate::render::Out { quiet: true, ..cx.out },
    })?;
    for path in &args.path {
        let given = path.canonicalize().ok();
        let known = |component: &ComponentSettings| {
            let known = component.source.path().and_then(|path| path.canonicalize().ok());
            known.is_some() && known == given
        };
        if !context.settings.components.iter().any(known) {
            return refuse(&format!(
                "a configuration is there already, and it does not protect {}",
                path.display()
            ));
        }
    }
    let has_cluster = context
        .settings
        .components
        .iter()
        .any(|component| component.source.cluster().is_some());
    if args.postgres.is_some() && !has_cluster {
        return refuse("a configuration is there already, and there is no PostgreSQL cluster in it");
    }
    let made = make_stores(cx, &context).await?;
    if let Some(refused) = renew_instance(cx, &context)? {
        return Err(refused);
    }
    let mut finished = true;
    for component in context.select(&[])? {
        let protected = context.protected(component, &[]).await?;
        finished &= newest_proven(&protected).await?;
    }
    if args.no_backup && made > 0 {
        return Ok(());
    }
    if finished || args.no_backup {
        return refuse("a configuration is there already, and it is never overwritten");
    }
    cx.out.note(&format!("going on with {}", config.display()));
    Ok(())
}

/// A configuration that was written by hand, or came out of a version control, names stores that are not there yet: the folder of the
/// first store of each component becomes a repository. What holds one already is left as it is. Returns how many were made.
async fn make_stores(cx: &Cx, context: &Context) -> Result<u64> {
    let mut made = 0;
    for component in context.select(&[])? {
        let Some(first) = component.stores.first() else { continue };
        // Where backups were seen before, an empty place is a disk that is away, and not a new store.
        let name = ComponentName::new(&component.name)?;
        if proof::vanished(&context.settings.state_dir, &name, None).is_some() {
            continue;
        }
        let settings = context.store(first)?;
        let (store, place) = match &settings.place {
            StorePlace::Fs(folder) => (
                Arc::new(FsStore::create(&folder.path).await?) as Arc<dyn BlobStore>,
                folder.path.display().to_string(),
            ),
            // A bucket must be there: `lifeboat store setup` makes one.
            _ => (
                OpenStore::open(settings, &cx.env.clock).await?.store,
                format!("the store {first}"),
            ),
        };
        match Repository::open(Arc::clone(&store)).await {
            Err(error) if error.kind() == ErrorKind::NoRepository => {
                Repository::init(&cx.env, store).await?;
                made += 1;
                cx.out.note(&format!("note: {place} is a repository from now on"));
            }
            other => drop(other?),
        }
    }
    Ok(made)
}

async fn newest_proven(protected: &Protected) -> Result<bool> {
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    let proofs = proof::load(&protected.state_dir, &protected.component);
    Ok(listing.latest().is_some() && proofs.iter().any(|proof| proof.level >= Level::Restore))
}

/// Key, signing key, store, and then the configuration. Returns the public key.
async fn set_up(cx: &Cx, proposal: &Proposal) -> Result<Option<String>> {
    let key = match &proposal.key {
        None => None,
        Some(path) => Some((own_key(cx, path)?, path.clone())),
    };
    durable::create_folder(&proposal.state_dir)?;
    if let Some(create) = proposal.cluster.as_ref().and_then(|cluster| cluster.create.as_ref()) {
        create.run(cx).await?;
    }
    let instance_name = proposal::instance_name();
    let instance = own_instance(cx, &instance_name, &proposal.state_dir)?;
    let store: Arc<FsStore> = Arc::new(FsStore::create(&proposal.store).await?);
    match Repository::open(Arc::clone(&store) as _).await {
        Ok(_) => cx.out.note(&format!(
            "note: {} holds a repository already; it is used as it is",
            proposal.store.display()
        )),
        Err(error) if error.kind() == ErrorKind::NoRepository => {
            Repository::init(&cx.env, store).await?;
        }
        Err(error) => return Err(error),
    }
    let public_key = key.as_ref().map(|(public, _)| public.clone());
    let text = render_initial(&Initial {
        instance_name,
        state_dir: proposal.state_dir.clone(),
        instance_public: instance.public_key().to_string(),
        key,
        store_path: proposal.store.clone(),
        components: proposal.components.clone(),
        rpo: RPO.to_owned(),
        rto: RTO.to_owned(),
    });
    durable::create_folder(&durable::parent_of(&proposal.config))?;
    match durable::create_file(&proposal.config, text.as_bytes(), 0o644)? {
        durable::Created::New => Ok(public_key),
        durable::Created::AlreadyThere => Err(Error::new(
            ErrorKind::Refused,
            "write",
            proposal.config.display(),
            "somebody else has just written it; it is never overwritten",
        )),
    }
}

/// The key that an earlier run left, or a new one. A file that is no key is not touched.
pub(super) fn own_key(cx: &Cx, path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            let public = Identities::parse(&text)
                .map(|identities| identities.public_keys().into_iter().next())
                .map_err(|error| {
                    error.with_kind(ErrorKind::Refused).with_hint(format!(
                        "{} is there and holds no key; choose another place with --key",
                        path.display()
                    ))
                })?;
            cx.out.note(&format!(
                "note: the key {} is there already; it is used as it is",
                path.display()
            ));
            public.ok_or_else(|| Error::new(ErrorKind::Refused, "use", path.display(), "it holds no key"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => key::write_new(cx, path),
        Err(error) => Err(Error::io("read", path.display(), error)),
    }
}

pub(super) fn own_instance(cx: &Cx, name: &str, state_dir: &Path) -> Result<Instance> {
    let path = Protected::instance_key(state_dir);
    match Instance::load(name, &path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Instance::create(&cx.env, name, &path),
        other => other,
    }
}

struct Done {
    rows: Vec<Value>,
    text: String,
    /// Restores run one after the other.
    back: Duration,
}

/// The first backup of a component, unless an earlier run took it, and its proof.
async fn first_backup(cx: &Cx, context: &Context, component: &ComponentSettings, done: &mut Done) -> Result<()> {
    let protected = context.protected(component, &[]).await?;
    let repository = protected.repository().await?;
    if protected.listing(&repository).await?.latest().is_none() {
        let request = Request {
            reason: Some("first backup".to_owned()),
            ..Request::default()
        };
        let report = backup::one(cx, context, component, request).await?;
        cx.env.progress.finish();
        for note in &report.notes {
            cx.out.note(&format!("note: {}: {note}", component.name));
        }
        done.text
            .push_str(&format!("{}\n", backup::sentence(&component.name, &report)));
    }
    let listing = protected.listing(&repository).await?;
    let Some(latest) = listing.latest() else {
        return Err(Error::new(
            ErrorKind::Bug,
            "find",
            &component.name,
            "the backup that was just taken is not listed",
        ));
    };
    let identities = context.identities(component).await?;
    let scratch = Scratch::create(&cx.env, &protected)?;
    let prove = async |level| verify::run(&cx.env, &protected, &repository, latest, level, &identities, scratch.path()).await;
    let proven = match prove(Level::Restore).await {
        // The programs of a server are not on every host that backs one up.
        Err(error) if error.kind() == ErrorKind::NotFound && component.source.cluster().is_some() => {
            cx.env.progress.finish();
            let hint = error.hint().unwrap_or_default();
            cx.out.note(&format!(
                "note: {}: nothing was restored, only opened: {error}; {hint}",
                component.name
            ));
            prove(Level::Decrypt).await?
        }
        other => other?,
    };
    cx.env.progress.finish();
    done.text.push_str(&super::verify::sentence(&component.name, &proven));
    done.back += proven.took;
    done.rows.push(json!({
        "component": component.name,
        "path": component.source.path(),
        "backup": document::backup(latest),
        "proof": super::verify::as_json(&proven),
    }));
    Ok(())
}

fn finish(cx: &Cx, context: &Context, args: &Init, public_key: Option<String>, done: Done) -> Result<Exit> {
    let settings = &context.settings;
    let mut text = done.text;
    let key_file = settings
        .keys
        .values()
        .find_map(|key| key.identity.as_ref())
        .and_then(super::context::secret_file);
    if let Some(file) = &key_file {
        text.push_str(&format!(
            "\nKeep a copy of {} off this machine: without it, nobody can read the backups.\n",
            file.display()
        ));
    }
    let sentence = if args.no_backup {
        "Everything is set up, and nothing is protected yet: `lifeboat backup` takes the first backup.".to_owned()
    } else {
        let lost: Vec<String> = settings
            .components
            .iter()
            .map(|component| {
                let path = component.source.path();
                path.map_or_else(|| component.name.clone(), |path| path.display().to_string())
            })
            .collect();
        // A restore of a small database is faster than a person; less than a second is not promised.
        let back = human_duration(done.back.max(Duration::from_secs(1)));
        format!(
            "You can now lose {} and be back in about {back}, losing at most what was written since the last backup.",
            lost.join(", ")
        )
    };
    text.push_str(&format!("{sentence}\n"));
    let body = json!({
        "config": settings.path,
        "state_dir": settings.state_dir,
        "key_path": key_file,
        "public_key": public_key,
        "components": done.rows,
        "sentence": sentence,
    });
    cx.result("init", body, &text)?;
    Ok(Exit::OK)
}

/// The signing key of a lost state folder: a new one is made. The configuration is a person's: they are told what to write there.
fn renew_instance(cx: &Cx, context: &Context) -> Result<Option<Error>> {
    let (settings, path) = (&context.settings, Protected::instance_key(&context.settings.state_dir));
    if path
        .try_exists()
        .map_err(|error| Error::io("look at", path.display(), error))?
    {
        return Ok(None);
    }
    durable::create_folder(&settings.state_dir)?;
    let instance = Instance::create(&cx.env, &settings.instance_name, &path)?;
    let error = Error::new(
        ErrorKind::ConfigInvalid,
        "use the instance key",
        path.display(),
        "the old one is gone, a new one was made just now, and the configuration does not trust it yet",
    );
    Ok(Some(error.with_hint(format!(
        "add this line under `instances:` in {}, leave the old one for the old backups, then run `lifeboat backup`: {}-new: \"{}\"",
        settings.path.display(),
        settings.instance_name,
        instance.public_key()
    ))))
}
