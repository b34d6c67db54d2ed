//! `lifeboat key`: make a key pair; prove that the private key at hand opens what is stored.

use std::path::Path;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{Reader, format_utc, generate_identity};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Cx;
use super::context::Context;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render;

/// Makes a key pair and writes the private half into the new file `path` (0600). Returns the public half.
pub(super) fn write_new(cx: &Cx, path: &Path) -> Result<String> {
    let (secret, public) = generate_identity();
    let secret = Zeroizing::new(secret);
    let made = format_utc(cx.env.clock.wall_us());
    let text = Zeroizing::new(format!(
        "# Lifeboat private key, made {made}\n# public key: {public}\n{}\n",
        secret.as_str()
    ));
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
pub(super) fn new(cx: &Cx, path: &Path) -> Result<Exit> {
    let public = write_new(cx, path).map_err(|error| {
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

/// `key check`.
pub(super) async fn check(cx: &Cx) -> Result<Exit> {
    let context = Context::load(cx)?;
    let mut exit = Exit::OK;
    let (mut rows, mut text) = (Vec::new(), String::new());
    for component in context.select(&[])? {
        match opens(cx, &context, component).await {
            Ok(opened) => {
                text.push_str(&format!("{}: {}\n", component.name, opened.sentence));
                rows.push(opened.json);
            }
            Err(error) => {
                exit = exit.worse(Exit::of(error.kind()));
                if !cx.out.json {
                    render::tell(&render::error::for_people(&error));
                }
                rows.push(json!({ "component": component.name, "opens": false, "error": render::json::error(&error) }));
            }
        }
    }
    cx.out
        .result("key-check", json!({ "components": rows, "exit_code": exit.code() }), &text)?;
    Ok(exit)
}

struct Opened {
    sentence: String,
    json: Value,
}

async fn opens(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<Opened> {
    let identities = context.identities(component).await?;
    let public_keys = identities.public_keys();
    let protected = context.protected(component, None).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    let Some(latest) = listing.latest() else {
        return Err(Error::new(
            ErrorKind::NoSuchPoint,
            "check the key with",
            &component.name,
            "there is no backup yet that it could open",
        )
        .with_hint(format!("`lifeboat backup {}` makes one", component.name)));
    };
    Reader::open(&cx.env, &repository, latest, &identities).await?;
    let clear = !latest.closure.is_encrypted();
    let sentence = if clear {
        format!(
            "backup {} is not encrypted: everybody who has the store can read it",
            latest.id.short()
        )
    } else {
        format!(
            "the private key of {} opens backup {}",
            public_keys.join(", "),
            latest.id.short()
        )
    };
    Ok(Opened {
        sentence,
        json: json!({
            "component": component.name, "opens": true, "encrypted": !clear, "public_keys": public_keys,
            "backup": render::json::backup(latest),
        }),
    })
}
