//! The verbs `key list | add | remove | rotate | check`: who can open what, in every store by itself.
//!
//! Edits no configuration: that is a person's, and lies in version control. What was wrapped for whom is read from the key files.

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{
    Access, Backup, Encryption, Fingerprint, Identities, Listing, Reader, Recipient, Rekey, Rekeyed, Repository, access,
    forget_parent, rekey, rekey_log,
};

use crate::protected::{Place, Protected};

/// What came of something in one store.
#[derive(Debug)]
pub struct InStore<T> {
    /// The store's name in the configuration.
    pub store: String,
    /// What came of it there. A store that is away does not stop the others.
    pub outcome: Result<T>,
}

async fn listed(protected: &Protected, place: &Place) -> Result<(Repository, Listing)> {
    let repository = Repository::open(Arc::clone(&place.store)).await?;
    let listing = protected.listing(&repository).await?;
    Ok((repository, listing))
}

/// A backup and who can open it.
#[derive(Debug)]
pub struct Readable {
    /// The backup.
    pub backup: Backup,
    /// Who can open it.
    pub access: Access,
}

/// `key list`: for every backup in every store who can open it, as the key files say; needs no private key.
pub async fn list(protected: &Protected) -> Vec<InStore<Vec<Readable>>> {
    let mut stores = Vec::new();
    for place in &protected.stores {
        let outcome = listed(protected, place).await.map(|(_, listing)| {
            let backups = listing.backups.iter().rev();
            backups
                .map(|backup| Readable {
                    access: access(&listing, backup),
                    backup: backup.clone(),
                })
                .collect()
        });
        stores.push(InStore {
            store: place.name.clone(),
            outcome,
        });
    }
    stores
}

/// The recipients that a change leads to. Kind `Usage` where there is nothing to do or nobody would be left.
pub fn changed(encryption: &Encryption, recipient: &str, how: Rekey) -> Result<Vec<String>> {
    let refused =
        |detail: &str, hint: &str| Error::new(ErrorKind::Usage, "change the recipients of", "the key", detail).with_hint(hint);
    let Encryption::Age(configured) = encryption else {
        return Err(refused(
            "its backups are not encrypted",
            "name a key under `encrypt:` first; the next backup is then a full one under new keys",
        ));
    };
    let mut known = Vec::new();
    for text in configured {
        known.push(Recipient::parse(text)?);
    }
    if how == Rekey::Add {
        let new = Recipient::parse(recipient).map_err(|error| error.with_kind(ErrorKind::Usage))?;
        if !known.iter().any(|one| one.fingerprint() == new.fingerprint()) {
            known.push(new);
        }
    } else {
        let gone = fingerprint_of(recipient)?;
        known.retain(|one| one.fingerprint() != gone);
        if known.is_empty() {
            return Err(refused(
                "nobody would be left to read the backups",
                "`lifeboat key add` another recipient first",
            ));
        }
    }
    Ok(known.iter().map(ToString::to_string).collect())
}

/// The fingerprint that a person means: itself, or that of a public key.
pub fn fingerprint_of(text: &str) -> Result<Fingerprint> {
    match text.trim().parse::<Fingerprint>() {
        Ok(fingerprint) => Ok(fingerprint),
        Err(_) => Recipient::parse(text)
            .map(|recipient| recipient.fingerprint())
            .map_err(|error| error.with_kind(ErrorKind::Usage)),
    }
}

/// `key add` and `key remove`: wraps the keys of all sessions, of backups and of log, for `recipients`, in every store. After a removal the local state is forgotten,
/// so that the next backup is a full one under new keys. Kind `Refused` where none of `identities` would be able to read afterwards.
pub async fn change(
    env: &Env,
    protected: &Protected,
    recipients: &[String],
    identities: &Identities,
    how: Rekey,
) -> Result<Vec<InStore<Rekeyed>>> {
    let wanted: BTreeSet<Fingerprint> = recipients
        .iter()
        .map(|text| Recipient::parse(text).map(|recipient| recipient.fingerprint()))
        .collect::<Result<_>>()?;
    if how == Rekey::Replace && !identities.recipients().any(|own| wanted.contains(&own.fingerprint())) {
        return Err(Error::new(
            ErrorKind::Refused,
            "remove a recipient of",
            &protected.component,
            "the private key at hand here would not open the backups any more, so nobody could prove that they still open",
        )
        .with_hint("run it where the private key of a remaining recipient is"));
    }
    let encryption = Encryption::Age(recipients.to_vec());
    let mut stores = Vec::new();
    let mut opened: Vec<Repository> = Vec::new();
    for place in &protected.stores {
        let outcome = async {
            let (repository, listing) = listed(protected, place).await?;
            opened.push(repository.clone());
            let (component, trust) = (&protected.component, &protected.trust);
            let mut done = rekey(env, &repository, component, &listing, &encryption, identities, how).await?;
            done.unite(rekey_log(env, &repository, component, trust, &encryption, identities, how).await?);
            Ok(done)
        };
        stores.push(InStore {
            store: place.name.clone(),
            outcome: outcome.await,
        });
    }
    if how == Rekey::Replace {
        for repository in opened {
            forget_parent(&protected.state_dir, repository.id(), &protected.component)?;
        }
    }
    Ok(stores)
}

/// `key rotate`: the next backup from this machine is a full one under new keys. Returns whether there was anything to forget here.
pub async fn rotate(protected: &Protected) -> Result<bool> {
    let repository = protected.repository().await?;
    forget_parent(&protected.state_dir, repository.id(), &protected.component)
}

/// `key check`: which of `identities` opens the newest backup of every store.
pub async fn check(env: &Env, protected: &Protected, identities: &Identities) -> Vec<InStore<Backup>> {
    let mut stores = Vec::new();
    for place in &protected.stores {
        stores.push(InStore {
            store: place.name.clone(),
            outcome: opens(env, protected, place, identities).await,
        });
    }
    stores
}

async fn opens(env: &Env, protected: &Protected, place: &Place, identities: &Identities) -> Result<Backup> {
    let (repository, listing) = listed(protected, place).await?;
    let Some(latest) = listing.latest() else {
        return Err(Error::new(
            ErrorKind::NoSuchPoint,
            "check the key with",
            &protected.component,
            format!("there is no backup in {} yet that it could open", place.name),
        )
        .with_hint(format!("`lifeboat backup {}` makes one", protected.component)));
    };
    Reader::open(env, &repository, latest, identities).await?;
    Ok(latest.clone())
}
