//! `lifeboat wal serve`: hands out the log for a restored directory that a person starts. `wal fetch --restore` starts it, as the user of the
//! database server; it ends by itself when nobody has asked for a while, or when the directory has gone.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::wal::{self, Archive, RestoreFile, Source};
use rustix::fs::{FlockOperation, OFlags, flock};
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
    refuse_as_root(&folder)?;
    // Held until we end, however that is.
    let Some(_lock) = lock(&folder)? else {
        cx.out.note("somebody serves the log of this directory already");
        return Ok(Exit::OK);
    };
    let restore = RestoreFile::read(file)?;
    let archive = open(cx, &restore).await?;
    let serving = wal::serve(&cx.env, archive, &folder, None).await?;
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

/// A file is opened, not what a link of its name leads to.
pub(crate) const NO_LINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// As root nothing is written where somebody else could put a link in the way.
pub(crate) fn refuse_as_root(folder: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = folder
        .metadata()
        .map_err(|error| Error::io("look at", folder.display(), error))?;
    if !rustix::process::geteuid().is_root() || meta.uid() == 0 {
        return Ok(());
    }
    let detail = format!("it belongs to the user {}, and you are root", meta.uid());
    Err(Error::new(ErrorKind::Refused, "serve log in", folder.display(), detail)
        .with_hint("run it as that user, as the database server does, for example with `runuser -u postgres --`"))
}

fn lock(folder: &Path) -> Result<Option<std::fs::File>> {
    let path = folder.join("lock");
    let failed = |error| Error::io("lock", path.display(), error);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(NO_LINK)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For people; the lock is what counts.
            let pid = format!("{}\n", std::process::id());
            file.set_len(0)
                .and_then(|()| (&file).write_all(pid.as_bytes()))
                .map_err(failed)?;
            Ok(Some(file))
        }
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// The log in the stores that the restore was planned with, and in the others of the component where those lack something. Each is opened when it
/// is asked, and again later where it does not answer.
async fn open(cx: &Cx, restore: &RestoreFile) -> Result<Archive> {
    let cx = Cx {
        env: cx.env.clone(),
        out: cx.out,
        told: std::sync::Arc::clone(&cx.told),
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
    let mut sources = Vec::new();
    for name in &restore.stores {
        // One that is not configured was named by its place.
        let source = match protected.stores.iter().find(|place| place.name == *name) {
            Some(place) => Source::at(name.clone(), Arc::clone(&place.store), true),
            None => {
                let named = context.protected(component, std::slice::from_ref(name)).await?;
                let place = named.stores.into_iter().next();
                let place = place.ok_or_else(|| Error::new(ErrorKind::Bug, "open the store", name, "it has no place"))?;
                Source::at(name.clone(), place.store, true)
            }
        };
        sources.push(source);
    }
    let others = protected.stores.iter().filter(|place| !restore.stores.contains(&place.name));
    sources.extend(others.map(|place| Source::at(place.name.clone(), Arc::clone(&place.store), restore.stores.is_empty())));
    let place = wal::Place {
        sources,
        identities: context.identities(component).await?,
        component: protected.component,
        trust: protected.trust,
    };
    Archive::open(place, restore.limit).await
}
