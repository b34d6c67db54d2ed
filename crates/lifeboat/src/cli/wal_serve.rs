//! `lifeboat wal serve`: hands out the log for a restored directory that a person starts. `wal fetch --restore` starts it, as the user of the
//! database server; it ends by itself when nobody has asked for a while, or when the directory has gone.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::wal::{self, Archive, RestoreFile};
use lifeboat_repo::Repository;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Cx;
use super::context::Context;
use crate::exit::Exit;

/// How long nobody has to ask before it ends.
const IDLE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(1);

/// `wal serve --restore FILE`.
pub(super) async fn run(cx: &Cx, file: &Path) -> Result<Exit> {
    // Signals to the database server's group are not for us. Whoever leads a group already, in a shell, stays where he is.
    if let Err(error) = rustix::process::setsid()
        && error != Errno::PERM
    {
        return Err(Error::io("begin", "a session", error.into()));
    }
    let folder = durable::parent_of(file);
    // Held until we end, however that is.
    let Some(_lock) = lock(&folder)? else {
        cx.out.note("somebody serves the log of this directory already");
        return Ok(Exit::OK);
    };
    let restore = RestoreFile::read(file)?;
    let archive = open(cx, &restore).await?;
    let serving = wal::serve(&cx.env, archive, &folder, owner(&folder)?).await?;
    cx.out
        .note(&format!("serving the log of {} for {}", restore.component, folder.display()));
    let mut told = None;
    while serving.idle() < IDLE && file.try_exists().unwrap_or(true) {
        tokio::time::sleep(LOOK).await;
        let trouble = serving.trouble();
        if trouble != told {
            cx.out.note(trouble.as_deref().unwrap_or("it can be read again"));
            told = trouble;
        }
    }
    serving.stop().await?;
    Ok(Exit::OK)
}

/// Whose server it is: as root we may be somebody else.
pub(crate) fn owner(folder: &Path) -> Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let meta = folder
        .metadata()
        .map_err(|error| Error::io("look at", folder.display(), error))?;
    Ok(Some((meta.uid(), meta.gid())))
}

/// A file beside the restore file belongs to whom that folder belongs to, whoever makes it.
pub(crate) fn give(file: &std::fs::File, folder: &Path) -> Result<()> {
    let Some((user, group)) = owner(folder)? else { return Ok(()) };
    std::os::unix::fs::fchown(file, Some(user), Some(group))
        .map_err(|error| Error::io("give away a file in", folder.display(), error))
}

fn lock(folder: &Path) -> Result<Option<std::fs::File>> {
    let path = folder.join("lock");
    let failed = |error| Error::io("lock", path.display(), error);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For people; the lock is what counts.
            let pid = format!("{}\n", std::process::id());
            give(&file, folder)?;
            file.set_len(0)
                .and_then(|()| (&file).write_all(pid.as_bytes()))
                .map_err(failed)?;
            Ok(Some(file))
        }
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// The log in the store that the restore read from, or in the first one that has it.
async fn open(cx: &Cx, restore: &RestoreFile) -> Result<Archive> {
    let cx = Cx {
        env: cx.env.clone(),
        out: cx.out,
        config: restore.config.clone().or_else(|| cx.config.clone()),
    };
    let context = Context::load(&cx)?;
    let components = context.select(std::slice::from_ref(&restore.component))?;
    let [component] = components.as_slice() else {
        let detail = "the configuration has no such component any more";
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            "serve the log of",
            &restore.component,
            detail,
        ));
    };
    let protected = context.protected(component, &[]).await?;
    let identities = context.identities(component).await?;
    let mut stores: Vec<_> = protected.stores.iter().collect();
    // A stable sort: the one that was read from comes first.
    stores.sort_by_key(|place| restore.store.as_ref().is_some_and(|name| *name != place.name));
    let mut first = None;
    let mut places = Vec::new();
    for place in stores {
        match Repository::open(std::sync::Arc::clone(&place.store)).await {
            Ok(repository) => places.push(wal::Place {
                repository,
                component: protected.component.clone(),
                trust: protected.trust.clone(),
                identities: identities.clone(),
            }),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    while !places.is_empty() {
        let place = places.remove(0);
        // What the first one does not give, the others may.
        match Archive::open_beside(place, places.clone(), restore.limit).await {
            Ok(archive) => return Ok(archive),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| {
        Error::new(
            ErrorKind::ConfigInvalid,
            "serve the log of",
            &restore.component,
            "it has no store",
        )
    }))
}
