//! Several stores of a component: opening them as one to write through, and asking all of them what they hold (docs/several-stores.md).
//!
//! A store that does not answer is never an empty one: it is named with its error (INV-13).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{Backup, BackupId, Listing, Rejected, Repository, RepositoryId};

use crate::protected::{Choice, Place, Protected, choose};

/// Opens the repository in every store, as one to write through. In a store that this installation has never seen it in, and that holds
/// none, it is made; one that held it and is empty now is left out, because its disk is probably not mounted.
pub async fn joined(protected: &Protected) -> Result<Repository> {
    if let [only] = protected.stores.as_slice() {
        return Repository::open(Arc::clone(&only.store)).await;
    }
    let mut opened = Vec::new();
    for place in &protected.stores {
        opened.push(Repository::open(Arc::clone(&place.store)).await);
    }
    let known = opened.iter().find_map(|repository| repository.as_ref().ok().cloned());
    if let Some(known) = known {
        for (place, repository) in protected.stores.iter().zip(&mut opened) {
            let is_empty = matches!(repository, Err(error) if error.kind() == ErrorKind::NoRepository);
            if is_empty {
                *repository = make(protected, &known, place).await;
            }
            if repository.is_ok() {
                remember(protected, known.id(), place)?;
            }
        }
    }
    let names = protected.stores.iter().map(|place| place.name.clone());
    Repository::joined(names.zip(opened).collect())
}

async fn make(protected: &Protected, known: &Repository, place: &Place) -> Result<Repository> {
    let seen = mark(protected, known.id(), place);
    match seen.try_exists() {
        Ok(false) => known.replicate(Arc::clone(&place.store)).await,
        Ok(true) => Err(Error::new(
            ErrorKind::NoRepository,
            "write to the store",
            &place.name,
            "it held this repository before and holds none now",
        )
        .with_hint(format!(
            "check that the right disk is mounted; if it was emptied on purpose, `lifeboat copy --to {}` fills it again",
            place.name
        ))),
        Err(error) => Err(Error::io("look at", seen.display(), error)),
    }
}

/// Written once this installation has seen the repository in a store.
fn mark(protected: &Protected, repository: RepositoryId, place: &Place) -> PathBuf {
    let folder = protected.state_dir.join("seen").join(repository.to_string());
    folder.join(file_name(&place.name))
}

fn remember(protected: &Protected, repository: RepositoryId, place: &Place) -> Result<()> {
    let path = mark(protected, repository, place);
    durable::create_folder(&durable::parent_of(&path))?;
    match durable::create_file(&path, b"", durable::FILE_MODE)? {
        durable::Created::New | durable::Created::AlreadyThere => Ok(()),
    }
}

/// A name as one part of a path.
pub(crate) fn file_name(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("~{other:02X}"),
    };
    name.bytes().map(escape).collect()
}

/// A backup and the stores where it counts.
#[derive(Debug, Clone)]
pub struct Held {
    /// The backup.
    pub backup: Backup,
    /// Names of the stores, in the order of preference.
    pub stores: Vec<String>,
}

/// What all stores of a component hold together.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every backup that counts somewhere, ascending.
    pub backups: Vec<Held>,
    /// What is stored and does not count, with the store.
    pub rejected: Vec<(String, Rejected)>,
    /// Stores that did not answer.
    pub away: Vec<(String, Error)>,
    /// The stores that did, in the order of preference, with the backups that count there.
    pub open: Vec<(String, Repository, Vec<Backup>)>,
}

impl Survey {
    /// The backups as one listing: for choosing among them.
    #[must_use]
    pub fn listing(&self) -> Listing {
        Listing::of(self.backups.iter().map(|held| held.backup.clone()).collect())
    }

    /// The stores where `backup` counts, in the order of preference, each with the backup as it stands there.
    #[must_use]
    pub fn holders(&self, backup: &BackupId) -> Vec<(String, Repository, Backup)> {
        let there = |(name, repository, backups): &(String, Repository, Vec<Backup>)| {
            let found = backups.iter().find(|there| there.id == *backup)?;
            Some((name.clone(), repository.clone(), found.clone()))
        };
        self.open.iter().filter_map(there).collect()
    }
}

/// Asks every store. Fails, with the error of the first, only when none answers.
pub async fn survey(protected: &Protected) -> Result<Survey> {
    let mut survey = Survey::default();
    let mut held: BTreeMap<BackupId, Held> = BTreeMap::new();
    for place in &protected.stores {
        let listed = async {
            let repository = Repository::open(Arc::clone(&place.store)).await?;
            let listing = protected.listing(&repository).await?;
            Ok::<_, Error>((repository, listing))
        };
        match listed.await {
            Err(error) => survey.away.push((place.name.clone(), error)),
            Ok((repository, listing)) => {
                for backup in &listing.backups {
                    let known = held.entry(backup.id).or_insert_with(|| Held {
                        backup: backup.clone(),
                        stores: Vec::new(),
                    });
                    known.stores.push(place.name.clone());
                }
                survey.open.push((place.name.clone(), repository, listing.backups));
                survey
                    .rejected
                    .extend(listing.rejected.into_iter().map(|rejected| (place.name.clone(), rejected)));
            }
        }
    }
    if survey.open.is_empty() {
        let first = survey.away.into_iter().next().map(|(_, error)| error);
        return Err(
            first.unwrap_or_else(|| Error::new(ErrorKind::Bug, "list the backups of", &protected.component, "it has no store"))
        );
    }
    survey.backups = held.into_values().collect();
    Ok(survey)
}

/// The wanted backup in every store where it counts, the preferred one first; at least one. Each is the backup as it stands there.
#[derive(Debug)]
pub struct Found {
    /// Store name, its repository, the backup there.
    pub places: Vec<(String, Repository, Backup)>,
    /// What to know about stores that did not answer.
    pub notes: Vec<String>,
}

/// Finds a backup in all stores of a component.
pub async fn find(protected: &Protected, choice: &Choice) -> Result<Found> {
    let survey = survey(protected).await?;
    let mut notes: Vec<String> = survey
        .away
        .iter()
        .map(|(name, error)| format!("the store {name} does not answer: {error}"))
        .collect();
    let together = survey.listing();
    let wanted = match choose(&together, choice, &protected.component) {
        Ok(wanted) => wanted.id,
        // What is stored and does not count has its own words, which the whole listing of a store knows.
        Err(error) => match survey.open.first() {
            Some((_, repository, _)) => {
                let listing = protected.listing(repository).await?;
                let Err(told) = choose(&listing, choice, &protected.component) else {
                    return Err(error);
                };
                return Err(told);
            }
            None => return Err(error),
        },
    };
    let places = survey.holders(&wanted);
    if let Some((first, ..)) = places.first()
        && protected.stores.first().is_some_and(|place| place.name != *first)
    {
        notes.push(format!("backup {} is read from the store {first}", wanted.short()));
    }
    if places.is_empty() {
        let detail = "it went away while it was looked for";
        return Err(Error::new(ErrorKind::NoSuchPoint, "find backup", wanted.short(), detail)
            .with_hint("`lifeboat list` shows what is there now"));
    }
    Ok(Found { places, notes })
}

/// Whether another store may have what could not be read in this one.
#[must_use]
pub fn worth_another_store(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Failed
    )
}
