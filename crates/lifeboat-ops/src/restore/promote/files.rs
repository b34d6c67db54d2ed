//! Promoting a folder: what somebody looked at, and perhaps filled in, takes the place of what is in the root, as an in-place restore does.
//!
//! The folder is read as it is now, because people work on copies: they write the values into a `.env` that was kept as structure. One that
//! still has none never takes the place of a file that has them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use lifeboat_engine::files::{self, Beneath, Chosen, Kind, Options, TreeReader, is_skeleton};
use lifeboat_io::durable;
use lifeboat_model::{Clock, Error, ErrorKind, Result};

use super::super::record::{self, Restored};
use super::super::staging::Staging;
use super::super::{quarantine, tree_place};
use super::{Promoted, look, on_one_disk};

/// A file of keys is not longer.
const ENV_LIMIT_BYTES: u64 = 4 << 20;

pub(super) fn promote(options: &Options, restored: &Restored, clock: &Arc<dyn Clock>, state_dir: &Path) -> Result<Promoted> {
    let (root, copy, at_us) = (options.root.as_path(), restored.path.as_path(), clock.wall_us());
    tree_place::settle_interrupted(root)?;
    look(restored)?;
    if !copy.is_dir() {
        let detail = "it is a file, and the component is of files in a folder";
        return Err(Error::new(ErrorKind::Refused, "promote", copy.display(), detail));
    }
    let mut notes = Vec::new();
    let there = root
        .try_exists()
        .map_err(|error| Error::io("look at", root.display(), error))?;
    let undo_folder = if there {
        if !on_one_disk(copy, &root.join("restored"))? {
            return Err(Error::new(
                ErrorKind::Refused,
                "promote",
                copy.display(),
                format!("it lies on another disk than {}", root.display()),
            )
            .with_hint("restore to a folder of that disk with --to, or restore with --in-place"));
        }
        let staging = Staging::create(&root.join("restored"), &restored.id)?;
        let list = staging.path("list");
        let around = files::Around::default();
        crate::diff::files::live(&all_of(copy), &around, Arc::clone(clock), &list)?;
        let intent = quarantine::Intent {
            id: restored.id.clone(),
            component: restored.component.clone(),
            backup: restored.backup.clone(),
            at_us,
        };
        let placed = tree_place::replace(&intent, root, copy, &list, &skeletons(options, copy, &list)?)?;
        notes.extend(placed.notes());
        // The data is in its place: litter is worth a word, not a failure.
        notes.extend(staging.remove().err().map(|error| error.to_string()));
        Some(placed.folder)
    } else {
        durable::create_folder(&durable::parent_of(root))?;
        durable::rename_new(copy, root)?;
        None
    };
    let now = Restored::here(&restored.id, &restored.component, &restored.backup, at_us, root, true);
    if let Err(error) = now.and_then(|now| record::remember(state_dir, &now)) {
        notes.push(format!("the run could not be recorded: {error}"));
    }
    Ok(Promoted {
        id: restored.id.clone(),
        backup: restored.backup.clone(),
        from: copy.to_path_buf(),
        path: root.to_path_buf(),
        undo_folder,
        notes,
    })
}

/// Everything in a folder, as it is.
fn all_of(folder: &Path) -> Options {
    Options {
        root: folder.to_path_buf(),
        include: Vec::new(),
        optional: vec!["**".to_owned()],
        exclude: Vec::new(),
        env_structure: Vec::new(),
        follow_links: false,
        max_change_retries: files::DEFAULT_CHANGE_RETRIES,
    }
}

/// The files of which only the structure is kept, and into which nobody has written a value yet.
fn skeletons(options: &Options, copy: &Path, list: &Path) -> Result<BTreeSet<Vec<u8>>> {
    let mut found = BTreeSet::new();
    if options.env_structure.is_empty() {
        return Ok(found);
    }
    let chosen = Chosen::new(&options.env_structure)?;
    let beneath = Beneath::open(copy)?;
    let lines = File::open(list).map_err(|error| Error::io("open", list.display(), error))?;
    let mut tree = TreeReader::open(BufReader::new(lines))?;
    while let Some(entry) = tree.next_entry()? {
        let Kind::File(content) = &entry.kind else { continue };
        if content.size > ENV_LIMIT_BYTES || !chosen.has(&entry.path) {
            continue;
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut beneath.file(&entry.path)?, &mut bytes)
            .map_err(|error| Error::io("read", entry.shown(), error))?;
        if is_skeleton(&bytes) {
            found.insert(entry.path);
        }
    }
    Ok(found)
}
