//! What the lists in `prune/` of one store mark: for pruners, for writers before they build on something, for readers who count.
//!
//! A sweep list is in force as long as the census that it belongs to stands, because its pruner removes the list before the census: one that
//! was thought lost and lands when all is over deletes nothing and condemns nothing. Decides nothing else.

use std::collections::BTreeSet;

use lifeboat_model::protocol::Marks;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{Entry, Key};

use super::records::{Listed, Place};
use crate::listing::Rejected;

/// Whether a list of `prune/` says anything, where `names` stand there.
pub(super) fn is_in_force(list: &Listed, names: &BTreeSet<&Key>) -> bool {
    list.of_census.as_ref().is_none_or(|census| names.contains(census))
}

/// What all censuses and sweep lists of a store mark, as backups see it; or which of them cannot be judged: then nothing may be built upon.
pub(crate) async fn marks_of(place: &Place<'_>) -> Result<std::result::Result<Vec<Marks<Key>>, Error>> {
    let folder = place.folder()?;
    let entries = place.store().list(&folder.join("prune")?).await?;
    let names: BTreeSet<&Key> = entries.iter().map(|entry| &entry.key).collect();
    let mut marks = Vec::new();
    for entry in &entries {
        match place.marks(entry).await {
            Ok(list) if is_in_force(&list, &names) => marks.push(list.as_backups_see_it(&folder)?),
            Ok(_) => {}
            // A list that has gone since deleted what it named; a census that has gone deletes nothing more.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(doubt) if matches!(doubt.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) => return Ok(Err(doubt)),
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(marks))
}

/// What pruners are deleting now, as backups see it; `prune` is everything that is listed in `prune/`. A list that nobody known signed is
/// reported and never used.
pub(crate) async fn read_sweeps(
    place: &Place<'_>,
    prune: impl Iterator<Item = &Entry>,
) -> Result<(Vec<Marks<Key>>, Vec<Rejected>)> {
    let entries: Vec<&Entry> = prune.collect();
    let names: BTreeSet<&Key> = entries.iter().map(|entry| &entry.key).collect();
    let (mut sweeps, mut unjudged) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| entry.key.file_name().starts_with("sweep-")) {
        match place.marks(entry).await {
            Ok(list) if is_in_force(&list, &names) => sweeps.push(list.as_backups_see_it(&place.folder()?)?),
            Ok(_) => {}
            // Its pruner has finished since it was listed.
            Err(reason) if reason.kind() == ErrorKind::NotFound => {}
            Err(reason) if matches!(reason.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) => unjudged.push(Rejected {
                name: format!("prune/{}", entry.key.file_name()),
                reason,
                backup: None,
            }),
            Err(error) => return Err(error),
        }
    }
    Ok((sweeps, unjudged))
}
