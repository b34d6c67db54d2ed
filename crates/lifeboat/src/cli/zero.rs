//! Without a file: what a configuration in the environment needs is made by the first backup, and said once.
//!
//! Only `backup` makes anything: a `restore` on a new machine that made a key of its own would hide that the right one is missing.

use std::path::Path;
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Protected;
use lifeboat_repo::{Identities, Instance, Repository};
use lifeboat_store::fs::FsStore;
use zeroize::Zeroizing;

use super::init::{own_instance, own_key, proposal};
use super::open::OpenStore;
use super::{Cx, key};
use crate::config::environment::{Encryption, Local, Variables};
use crate::config::{self, Origin, Settings};

/// The configuration in force, from a file or from the environment.
pub(super) fn settings(cx: &Cx) -> Result<Settings> {
    match config::discover(cx.config.as_deref())? {
        Origin::File(path) => config::load(&path),
        Origin::Environment(variables) => {
            let (state_dir, key_file) = config::local_places(&variables)?;
            let local = local(&variables, &state_dir, &key_file)?;
            if variables.encryption == Encryption::KeyFile && local.key.is_none() {
                return Err(not_set_up(&key_file, "there is no key yet"));
            }
            if local.instance_public.is_none() && !variables.trusts_somebody() {
                return Err(not_set_up(
                    &key_file,
                    "this installation has no signing key yet, and trusts no other",
                ));
            }
            config::from_environment(&variables, &state_dir, &local)
        }
    }
}

/// The text of the configuration that gave `in_force`, and what that text says now.
pub(super) fn written(cx: &Cx, in_force: &Settings) -> Result<(String, Settings)> {
    if in_force.path.is_file() {
        return config::written(&in_force.path);
    }
    match config::discover(cx.config.as_deref())? {
        Origin::File(path) => Err(Error::new(
            ErrorKind::NotFound,
            "read",
            in_force.path.display(),
            format!("it is not there any more; {} is another configuration", path.display()),
        )),
        Origin::Environment(variables) => {
            let (state_dir, key_file) = config::local_places(&variables)?;
            let text = variables.text(&state_dir, &local(&variables, &state_dir, &key_file)?);
            Ok((text, settings(cx)?))
        }
    }
}

fn not_set_up(key_file: &Path, detail: &str) -> Error {
    Error::new(ErrorKind::NoRepository, "use", "the configuration in the environment", detail).with_hint(format!(
        "`lifeboat backup` sets everything up and takes the first backup. To restore on another machine, bring the private key to {} (or name it with LIFEBOAT_KEY_FILE) and set LIFEBOAT_TRUST to the public key of the installation that wrote the backups",
        key_file.display()
    ))
}

/// What this machine has already.
fn local(variables: &Variables, state_dir: &Path, key_file: &Path) -> Result<Local> {
    let instance_name = proposal::instance_name();
    let instance_public = match Instance::load(&instance_name, &Protected::instance_key(state_dir)) {
        Ok(instance) => Some(instance.public_key().to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let key = match variables.encryption {
        Encryption::None | Encryption::Passphrase | Encryption::PassphraseFile => None,
        Encryption::KeyFile => public_half(key_file)?.map(|public| (public, key_file.to_path_buf())),
    };
    Ok(Local {
        instance_name,
        instance_public,
        key,
    })
}

fn public_half(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Identities::parse(&Zeroizing::new(text))?.public_keys().into_iter().next()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", file.display(), error)),
    }
}

/// Makes what is missing: state, signing key, key pair, repository. Nothing where a file says what is what.
pub(super) async fn set_up(cx: &Cx) -> Result<()> {
    let Origin::Environment(variables) = config::discover(cx.config.as_deref())? else {
        return Ok(());
    };
    let (state_dir, key_file) = config::local_places(&variables)?;
    let before = local(&variables, &state_dir, &key_file)?;
    if let Some(folder) = &variables.folder {
        let folder = std::path::absolute(folder).map_err(|error| Error::io("resolve", folder.display(), error))?;
        for (what, path) in [("the key", &key_file), ("the state", &state_dir)] {
            if path.starts_with(&folder) {
                return Err(Error::new(
                    ErrorKind::Refused,
                    "keep",
                    path.display(),
                    format!("that is inside the store: who loses the store would lose {what} with it"),
                )
                .with_hint("choose other places with LIFEBOAT_STATE_DIR and LIFEBOAT_KEY_FILE"));
            }
        }
    }
    durable::create_folder(&state_dir)?;
    let instance = own_instance(cx, &before.instance_name, &state_dir)?;
    if before.instance_public.is_none() {
        cx.out.note(&format!(
            "note: this installation signs its backups from now on; another machine reads them with LIFEBOAT_TRUST={}={}",
            before.instance_name,
            instance.public_key()
        ));
    }
    if variables.encryption == Encryption::KeyFile && before.key.is_none() {
        let public = if key_file.symlink_metadata().is_ok() {
            own_key(cx, &key_file)?
        } else {
            key::write_new(cx, &key_file)?
        };
        cx.out.note(&format!(
            "note: a new key was made: {public}\n      Keep a copy of {} off this machine: without it, nobody can read the backups.",
            key_file.display()
        ));
    }
    repository(cx, &variables).await
}

/// A folder is made and becomes a repository; a bucket must be there, and becomes one.
async fn repository(cx: &Cx, variables: &Variables) -> Result<()> {
    let settings = settings(cx)?;
    let bucket = settings.stores.get("bucket");
    let store = match (&variables.folder, bucket) {
        (Some(folder), _) => Arc::new(FsStore::create(folder).await?) as _,
        (None, Some(bucket)) => OpenStore::open(bucket, &cx.env.clock).await?.store,
        (None, None) => return Ok(()),
    };
    match Repository::open(Arc::clone(&store)).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NoRepository => Repository::init(&cx.env, store).await.map(drop),
        Err(error) => Err(error),
    }
}
