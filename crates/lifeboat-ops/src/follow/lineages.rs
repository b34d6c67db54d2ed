//! From one lineage to the next: what was decided is written down before anything is done, so that whoever dies in between is taken up at the next
//! start.
//!
//! `next` names the new lineage, and the one whose spool it takes over → the spool's folder gets the new name → the lineage's record is put → `next` goes.
//! If we die: before `next`, the same is decided again; after it, the rest is done under the same name.

use std::path::{Path, PathBuf};

use lifeboat_io::{compute, durable};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{Lineage, NewLog};
use serde::{Deserialize, Serialize};

const FILE: &str = "next";

#[derive(Debug, Serialize, Deserialize)]
struct Next {
    version: u32,
    lineage: String,
    take_over: Option<String>,
    why: String,
}

/// Writes down that a lineage begins. `take_over`: what the spool holds of this one is of the new one.
pub(super) async fn decide(home: &Path, lineage: Lineage, take_over: Option<Lineage>, why: String) -> Result<()> {
    let next = Next {
        version: 1,
        lineage: lineage.to_string(),
        take_over: take_over.map(|old| old.to_string()),
        why,
    };
    let home = home.to_path_buf();
    compute::run("write down a new lineage", move || {
        let text = serde_json::to_vec(&next)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "a new lineage", error.to_string()))?;
        durable::create_folder(&home)?;
        durable::replace_file(&home.join(FILE), &text, durable::FILE_MODE)
    })
    .await
}

/// The lineage that is to begin, where one is; the spool has its name afterwards.
pub(super) async fn decided(home: &Path) -> Result<Option<NewLog>> {
    let home = home.to_path_buf();
    compute::run("look for a new lineage", move || {
        let path = home.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path.display(), error)),
        };
        let wrong = |detail: String| {
            Error::new(ErrorKind::Corrupt, "read", path.display(), detail)
                .with_hint("it says which lineage of log was to begin: move it away, and start again")
        };
        let next: Next = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if next.version != 1 {
            return Err(wrong(format!("its version is {}", next.version)));
        }
        let lineage: Lineage = next.lineage.parse()?;
        if let Some(old) = next.take_over {
            let (from, to) = (home.join(old.parse::<Lineage>()?.to_string()), home.join(lineage.to_string()));
            let is_there = |path: &Path| path.try_exists().map_err(|error| Error::io("look at", path.display(), error));
            if is_there(&from)? && !is_there(&to)? {
                durable::rename(&from, &to)?;
            }
        }
        Ok(Some(NewLog::Begin { lineage, why: next.why }))
    })
    .await
}

/// Its record stands.
pub(super) async fn done(home: &Path) -> Result<()> {
    let path = home.join(FILE);
    compute::run("forget a decision", move || durable::remove_file(&path)).await
}

/// Other lineages of which something is here.
pub(super) async fn others(home: &Path, lineage: Lineage) -> Result<Vec<Lineage>> {
    let home = home.to_path_buf();
    compute::run("look into the spool", move || {
        let failed = |error| Error::io("look into", home.display(), error);
        let found = match home.read_dir() {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut others = Vec::new();
        for found in found {
            let name = found.map_err(failed)?.file_name();
            let parsed = name.to_str().and_then(|name| name.parse::<Lineage>().ok());
            others.extend(parsed.filter(|other| *other != lineage));
        }
        others.sort();
        Ok(others)
    })
    .await
}

/// Removes the folder of a lineage of which nothing is left to store; whether that is so. What was kept aside there stays.
pub(super) async fn leave(home: &Path, lineage: Lineage) -> Result<bool> {
    let folder: PathBuf = home.join(lineage.to_string());
    compute::run("leave the spool", move || {
        let failed = |error| Error::io("look into", folder.display(), error);
        let (mut is_empty, mut is_stored) = (true, true);
        for found in folder.read_dir().map_err(failed)? {
            let name = found.map_err(failed)?.file_name();
            is_empty = false;
            is_stored &= name.to_str().is_some_and(|name| name.starts_with(super::spool::DAMAGED));
        }
        if is_empty {
            durable::remove_folder(&folder)?;
        }
        Ok(is_stored)
    })
    .await
}
