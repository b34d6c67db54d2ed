//! `lifeboat key`: make a key pair; show, add and remove who can read; prove that the private key at hand opens what is stored.

mod change;
mod list;

use std::path::Path;

use lifeboat_io::{compute, durable};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::keys::{self, InStore};
use lifeboat_repo::{Backup, Identities, Rekey, format_utc, generate_identity, identity_from_passphrase, protect_identity};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Cx;
use super::args::Key;
use super::ask::{ask_passphrase, can_ask};
use super::context::Context;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render;

/// `key …`.
pub(super) async fn run(cx: &Cx, command: Key) -> Result<Exit> {
    match command {
        Key::New { path, passphrase } => new(cx, &path, passphrase).await,
        Key::List(args) => list::run(cx, &args.what).await,
        Key::Add(args) => change::run(cx, &args, Rekey::Add).await,
        Key::Remove(args) => change::run(cx, &args, Rekey::Replace).await,
        Key::Rotate(args) => change::rotate(cx, &args.what).await,
        Key::Check => check(cx).await,
        Key::Derive => derive(cx).await,
    }
}

/// Makes a key pair and writes the private half into the new file `path` (0600). Returns the public half.
pub(super) fn write_new(cx: &Cx, path: &Path) -> Result<String> {
    write_new_with(cx, path, None)
}

fn write_new_with(cx: &Cx, path: &Path, passphrase: Option<&str>) -> Result<String> {
    let (secret, public) = generate_identity();
    let secret = Zeroizing::new(secret);
    let made = format_utc(cx.env.clock.wall_us());
    let text = Zeroizing::new(format!(
        "# Lifeboat private key, made {made}\n# public key: {public}\n{}\n",
        secret.as_str()
    ));
    let text = match passphrase {
        Some(passphrase) => Zeroizing::new(protect_identity(&text, passphrase)?),
        None => text,
    };
    durable::create_folder(&durable::parent_of(path))?;
    match durable::create_file(path, text.as_bytes(), durable::FILE_MODE)? {
        durable::Created::New => Ok(public),
        durable::Created::AlreadyThere => Err(taken(path)),
    }
}

fn taken(path: &Path) -> Error {
    Error::new(
        ErrorKind::Refused,
        "write a key to",
        path.display(),
        "something is there already; a key is never overwritten",
    )
    .with_hint("choose another name")
}

/// `key new`.
async fn new(cx: &Cx, path: &Path, protect: bool) -> Result<Exit> {
    let passphrase = match protect {
        true if can_ask(cx) => Some(compute::run("ask for a passphrase", || ask_passphrase("New passphrase:", true)).await?),
        true => {
            return Err(Error::new(
                ErrorKind::Refused,
                "protect",
                path.display(),
                "there is no terminal to ask for the passphrase on",
            )
            .with_hint("run it on a terminal; or make the key without --passphrase and protect it with `age -p`"));
        }
        false => None,
    };
    let public = write_new_with(cx, path, passphrase.as_ref().map(|text| text.as_str())).map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            taken(path)
        } else {
            error
        }
    })?;
    let shown = path.display();
    let text = format!(
        "public key   {public}\nprivate key  {shown} (readable by you alone)\n\n\
         Keep a copy of {shown} off this machine: without it, no backup made for this key can be read by anybody."
    );
    cx.out
        .result("key-new", json!({ "public_key": public, "path": path }), &text)?;
    Ok(Exit::OK)
}

/// `key derive`.
async fn derive(cx: &Cx) -> Result<Exit> {
    let passphrase = match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(value) if !value.trim().is_empty() => Zeroizing::new(value),
        _ if can_ask(cx) => compute::run("ask for the passphrase", || ask_passphrase("Passphrase:", false)).await?,
        _ => {
            return Err(Error::new(
                ErrorKind::Usage,
                "derive a key from",
                "the passphrase",
                format!("{PASSPHRASE_VARIABLE} is not set, and there is no terminal to ask on"),
            )
            .with_hint(format!("set {PASSPHRASE_VARIABLE}, or run it on a terminal")));
        }
    };
    let (secret, public) = compute::run("derive a key", move || identity_from_passphrase(&passphrase)).await?;
    let text = format!("# public key: {public}\n{}", secret.as_str());
    cx.out.result(
        "key-derive",
        json!({ "public_key": public, "private_key": secret.as_str() }),
        &text,
    )?;
    Ok(Exit::OK)
}

/// The variable that older set-ups keep their passphrase in.
const PASSPHRASE_VARIABLE: &str = "BACKUP_ENCRYPTION_KEY";

/// `key check`.
async fn check(cx: &Cx) -> Result<Exit> {
    let context = Context::load(cx)?;
    let mut exit = Exit::OK;
    let (mut rows, mut text) = (Vec::new(), String::new());
    for component in context.select(&[])? {
        let (identities, stores) = match opens(cx, &context, component).await {
            Ok(opened) => opened,
            Err(error) => {
                failed(cx, &error, &mut exit);
                rows.push(json!({ "component": component.name, "opens": false, "error": render::json::error(&error) }));
                continue;
            }
        };
        for InStore { store, outcome } in stores {
            match outcome {
                Ok(backup) => {
                    text.push_str(&format!(
                        "{} in {store}: {}\n",
                        component.name,
                        sentence(&backup, &identities)
                    ));
                    rows.push(opened_json(&component.name, &store, &backup, &identities));
                }
                Err(error) => {
                    failed(cx, &error, &mut exit);
                    rows.push(json!({
                        "component": component.name, "store": store, "opens": false, "error": render::json::error(&error),
                    }));
                }
            }
        }
    }
    cx.out
        .result("key-check", json!({ "components": rows, "exit_code": exit.code() }), &text)?;
    Ok(exit)
}

fn failed(cx: &Cx, error: &Error, exit: &mut Exit) {
    *exit = exit.worse(Exit::of(error.kind()));
    if !cx.out.json {
        render::tell(&render::error::for_people(error));
    }
}

async fn opens(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<(Identities, Vec<InStore<Backup>>)> {
    let identities = context.identities(component).await?;
    let protected = context.protected(component, &[]).await?;
    let stores = keys::check(&cx.env, &protected, &identities).await;
    Ok((identities, stores))
}

fn sentence(backup: &Backup, identities: &Identities) -> String {
    if backup.closure.is_encrypted() {
        format!(
            "the private key of {} opens backup {}",
            identities.public_keys().join(", "),
            backup.id.short()
        )
    } else {
        format!(
            "backup {} is not encrypted: everybody who has the store can read it",
            backup.id.short()
        )
    }
}

fn opened_json(component: &str, store: &str, backup: &Backup, identities: &Identities) -> Value {
    json!({
        "component": component, "store": store, "opens": true, "encrypted": backup.closure.is_encrypted(),
        "public_keys": identities.public_keys(), "backup": render::json::backup(backup),
    })
}
