//! The recovery kit: after a backup every store of the component has one that says what the configuration says now.
//!
//! Here and not in `lifeboat_ops`, because only the command line knows the text of the configuration. Nothing here changes how a backup ends.
//! If we die before the put, the next backup puts it; behind it, before it is remembered, the next backup puts the same once more.

pub(super) mod page;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::backup::Report;
use lifeboat_ops::protected::{Place, Protected};
use lifeboat_repo::{
    Content, Encryption, Instance, KitComponent, KitConfiguration, NewKit, Repository, RepositoryId, get_kit, kit_digest,
    list_kits, open_kit, put_kit, seal_kit,
};
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::{Cx, zero};
use crate::config::{ComponentSettings, Settings};

/// What this machine put last into a store.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Last {
    digest: String,
    at_us: i64,
}

/// Puts a kit into every store that has got the backup and whose kit says something else. What goes wrong is said.
pub(super) async fn after_backup(cx: &Cx, context: &Context, protected: &Protected, instance: &Instance, report: &Report) {
    let missing: Vec<&str> = report.missing().map(|(store, _)| store).collect();
    for place in &protected.stores {
        if missing.contains(&place.name.as_str()) || context.store(&place.name).is_err() {
            continue;
        }
        let put = put(cx, context, instance, report.backup.header.repository, place).await;
        if let Err(error) = put {
            let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
            cx.out.note(&format!(
                "note: {}: the recovery kit could not be put into the store {}: {error}{hint}; the next backup tries again",
                protected.component, place.name
            ));
        }
    }
}

/// Behind a copy: whoever has nothing but that store begins from it, too. A store of the configuration gets its own kit, as after a backup; any other one
/// the newest whole kit of each installation that the source has.
pub(super) async fn after_copy(
    cx: &Cx,
    context: &Context,
    protected: &Protected,
    instance: &Instance,
    (from, to): (&Place, &Place),
) -> Result<()> {
    let source = Repository::open(Arc::clone(&from.store)).await?;
    let copy = Repository::open(Arc::clone(&to.store)).await?;
    let there = list_kits(&copy).await?.names;
    let is_own = |component: &ComponentSettings| component.stores.contains(&to.name);
    if context.settings.components.iter().any(is_own) {
        if there.is_empty() {
            // It was replaced since: what was put into the one before is not in it.
            durable::remove_file(&remembered(&context.settings, &to.name))?;
        }
        return put(cx, context, instance, source.id(), to).await;
    }
    let (mut settled, mut first) = (Vec::new(), None);
    // The newest comes last.
    for name in list_kits(&source).await?.names.into_iter().rev() {
        if settled.contains(&name.signer) {
            continue;
        }
        if there.contains(&name) {
            settled.push(name.signer);
            continue;
        }
        let brought = async {
            let stored = get_kit(&source, &name).await?;
            // What nobody trusts here does not get around.
            open_kit(source.id(), &protected.trust, &name, &stored)?;
            put_kit(to.store.as_ref(), &name, stored).await
        };
        match brought.await {
            Ok(()) => settled.push(name.signer),
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(()), Err)
}

async fn put(cx: &Cx, context: &Context, instance: &Instance, repository: RepositoryId, place: &Place) -> Result<()> {
    let (text, settings) = zero::written(cx, &context.settings)?;
    let new = make(context, &settings, text, &place.name).await?;
    let digest = kit_digest(repository, instance, &new)?;
    let file = remembered(&settings, &place.name);
    let last = recall(&file);
    if last.digest == digest {
        return Ok(());
    }
    let at_us = cx.env.clock.wall_us().max(last.at_us.saturating_add(1));
    let (name, stored) = seal_kit(repository, instance, at_us, &new)?;
    put_kit(place.store.as_ref(), &name, stored).await?;
    if let Content::LeftOut(why) = &new.content {
        cx.out.note(&format!(
            "note: the recovery kit in the store {} has no configuration: {why}",
            place.name
        ));
    }
    let json = serde_json::to_vec(&Last { digest, at_us })
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", file.display(), error.to_string()))?;
    durable::create_folder(&durable::parent_of(&file))?;
    durable::replace_file(&file, &json, durable::FILE_MODE)
}

fn remembered(settings: &Settings, store: &str) -> PathBuf {
    // Names of stores hold letters, digits, `-`, `_` and `.`, and do not begin with a dot.
    settings.state_dir.join("kit").join(format!("{store}.json"))
}

/// What was put last; nothing where that is not known, which costs one kit more.
fn recall(file: &std::path::Path) -> Last {
    let read = std::fs::read(file).ok();
    read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The kit of a store: what is in it, and the configuration.
async fn make(context: &Context, settings: &Settings, text: String, store: &str) -> Result<NewKit> {
    let here = |component: &&ComponentSettings| component.stores.iter().any(|name| name == store);
    let here: Vec<&ComponentSettings> = settings.components.iter().filter(here).collect();
    let components = here.iter().map(|component| KitComponent {
        name: component.name.clone(),
        kind: component.source.kind().to_owned(),
        priority: component.priority.word().to_owned(),
        depends_on: component.depends_on.clone(),
    });
    Ok(NewKit {
        lifeboat: env!("CARGO_PKG_VERSION").to_owned(),
        store: store.to_owned(),
        components: components.collect(),
        how: how(),
        content: content(context, settings, text, &here).await?,
    })
}

async fn content(context: &Context, settings: &Settings, text: String, here: &[&ComponentSettings]) -> Result<Content> {
    if !settings.inline_secrets.is_empty() {
        let which = settings.inline_secrets.join("; ");
        return Ok(Content::LeftOut(format!("a secret stands in it ({which})")));
    }
    let named = settings.keys.values().filter(|key| !key.recipients.is_empty());
    let mut known: BTreeMap<String, Vec<String>> = named.map(|key| (key.name.clone(), key.recipients.clone())).collect();
    let mut recipients: Vec<String> = Vec::new();
    let mut is_encrypted = false;
    for component in &settings.components {
        let Encryption::Age(own) = context.encryption(component).await? else {
            continue;
        };
        if here.iter().any(|there| there.name == component.name) {
            is_encrypted = true;
            recipients.extend(
                own.iter()
                    .filter(|one| !recipients.contains(one))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        known.insert(component.encrypt.to_string(), own);
    }
    if is_encrypted && recipients.is_empty() {
        return Ok(Content::LeftOut(
            "the public keys are not known here: the passphrase that they are derived from is not at hand".into(),
        ));
    }
    recipients.sort_unstable();
    let configuration = KitConfiguration {
        path: settings.path.display().to_string(),
        text,
        recipients: known,
    };
    Ok(Content::Kept(
        configuration,
        if is_encrypted {
            Encryption::Age(recipients)
        } else {
            Encryption::Clear
        },
    ))
}

/// How to get on, for somebody who has opened this file and knows nothing.
fn how() -> Vec<String> {
    [
        "This is a recovery kit: with it, the private key and this store, everything listed under components can be restored on a bare machine.",
        "With Lifeboat: lifeboat bootstrap STORE --key FILE, where STORE is this folder or s3://BUCKET/PREFIX (gs://, az:// too) and FILE holds the private key.",
        "It shows the public key that signed this kit (ed25519:…): compare it with what was written down, and go on with --instance.",
        "Then: lifeboat restore SYSTEM, in the order in which the components stand here.",
        "Without Lifeboat: tools/recover.py of its source restores from this store and the private key alone, with Python and nothing else of Lifeboat.",
        "The configuration by hand: head -c -104 THIS_FILE | jq -r .configuration.age | base64 -d | age -d -i FILE.",
        "Without the private key nothing encrypted here can be read, by anybody.",
    ]
    .map(str::to_owned)
    .to_vec()
}
