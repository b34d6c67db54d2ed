//! Opening the keys of every session that a backup reaches.
//!
//! A session has any number of key files, and anyone can encrypt one to a public key: what counts is content that fits the check in the signed
//! closure (format 5).

use futures_util::stream::{self, StreamExt, TryStreamExt};
use lifeboat_model::{Error, ErrorKind, Result};

use super::lost_file;
use crate::closure::SessionKey;
use crate::id::{ComponentName, Lineage};
use crate::key::Scope;
use crate::key::age::SessionKeys;
use crate::key::file::{KEY_FILE_LIMIT_BYTES, KeyFileName};
use crate::key::identity::Identities;
use crate::listing::Backup;
use crate::repository::Repository;

/// What a session's keys have to be of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Of<'a> {
    /// Of this component.
    pub(crate) component: &'a ComponentName,
    /// Of this run of backups, or of this lineage of log.
    pub(crate) lineage: Lineage,
}

/// The keys of each session of the closure, in its order.
pub(super) async fn open(
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    scope: &Scope,
) -> Result<Vec<SessionKeys>> {
    let of = Of {
        component: &backup.header.component,
        lineage: backup.header.lineage,
    };
    let folder = of.component.folder()?.join("keys")?;
    // Listed now: key files may have been replaced since the backup was listed.
    let listed: Vec<KeyFileName> = repository
        .store()
        .list(&folder)
        .await?
        .iter()
        .filter_map(|entry| KeyFileName::parse(entry.key.file_name()))
        .collect();
    // Made before they are awaited: a closure inside the stream would not be `Send` for every caller.
    let openings: Vec<_> = (backup.closure.sessions.iter())
        .map(|session| {
            let names = listed
                .iter()
                .filter(|name| name.session == session.session && name.clear == session.clear);
            open_session(repository, of, session, names, identities, scope)
        })
        .collect();
    let mut opening = stream::iter(openings).buffered(repository.store().requests_at_once());
    let mut keys: Vec<SessionKeys> = Vec::with_capacity(backup.closure.sessions.len());
    while let Some(opened) = opening.try_next().await? {
        if keys.first().is_some_and(|own| own.id_key != opened.id_key) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "open",
                backup.id.short(),
                "its sessions belong to different lineages",
            ));
        }
        keys.push(opened);
    }
    Ok(keys)
}

/// Why key files of a session did not open, each kind with one example.
#[derive(Default)]
struct Reasons {
    damaged: Option<Error>,
    foreign: Option<Error>,
    forged: Option<Error>,
    count: usize,
}

impl Reasons {
    /// INV-11: damage is looked for first, so that it is never taken for a key that does not fit. Content that is not the session's comes
    /// last: anyone can put it there.
    fn into_error(self, session: &SessionKey) -> Error {
        let error = self.damaged.or(self.foreign).or(self.forged);
        let missing = || {
            Error::new(
                ErrorKind::Corrupt,
                "open the session key",
                session.session,
                "no key file of this session is in the store",
            )
            .with_hint("it went missing from the store; `lifeboat list` shows which backups are whole")
        };
        let mut error = error.unwrap_or_else(missing);
        if self.count > 1 {
            let detail = format!("{}; none of the session's {} key files opens", error.detail(), self.count);
            let told = Error::new(error.kind(), "open the session key", session.session, detail);
            let hint = error.hint().map(str::to_owned);
            error = match hint {
                Some(hint) => told.with_hint(hint).with_source(error),
                None => told.with_source(error),
            };
        }
        error
    }
}

/// What one key file turned out to be.
enum Attempt {
    Opened(SessionKeys),
    Damaged(Error),
    Foreign(Error),
    Forged(Error),
}

/// Tries every key file of a session.
pub(crate) async fn open_session(
    repository: &Repository,
    of: Of<'_>,
    session: &SessionKey,
    names: impl Iterator<Item = &KeyFileName>,
    identities: &Identities,
    scope: &Scope,
) -> Result<SessionKeys> {
    let mut reasons = Reasons::default();
    for name in names {
        reasons.count += 1;
        let (place, error) = match attempt(repository, of, session, name, identities, scope).await? {
            Attempt::Opened(keys) => return Ok(keys),
            Attempt::Damaged(error) => (&mut reasons.damaged, error),
            Attempt::Foreign(error) => (&mut reasons.foreign, error),
            Attempt::Forged(error) => (&mut reasons.forged, error),
        };
        place.get_or_insert(error);
    }
    Err(reasons.into_error(session))
}

/// Whether a key file opens here and holds the keys of the session.
pub(crate) async fn genuine(
    repository: &Repository,
    of: Of<'_>,
    session: &SessionKey,
    name: &KeyFileName,
    identities: &Identities,
    scope: &Scope,
) -> Result<bool> {
    let attempt = attempt(repository, of, session, name, identities, scope).await?;
    Ok(matches!(attempt, Attempt::Opened(_)))
}

async fn attempt(
    repository: &Repository,
    of: Of<'_>,
    session: &SessionKey,
    name: &KeyFileName,
    identities: &Identities,
    scope: &Scope,
) -> Result<Attempt> {
    let key = name.key(of.component)?;
    let stored = match repository.store().get(&key, KEY_FILE_LIMIT_BYTES).await.map_err(lost_file) {
        Ok(stored) => stored,
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Attempt::Damaged(error)),
        Err(error) => return Err(error),
    };
    let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "open the session key", &key, detail);
    if blake3::hash(&stored).as_bytes() != &name.hash {
        let detail = "its bytes do not hash to its name: it is damaged or was overwritten";
        return Ok(Attempt::Damaged(wrong(detail)));
    }
    Ok(
        match SessionKeys::unwrap(
            &stored,
            name.clear,
            identities,
            repository.id(),
            of.component,
            session.session,
        ) {
            Ok(keys) if keys.check(scope) == session.check && keys.lineage == of.lineage => Attempt::Opened(keys),
            Ok(_) => Attempt::Forged(wrong(
                "it opens, but holds other keys than those of the session: somebody else put it there",
            )),
            Err(error) if error.kind() == ErrorKind::WrongKey => Attempt::Foreign(error),
            Err(error) => Attempt::Forged(error),
        },
    )
}
