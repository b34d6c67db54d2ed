//! Announcements (format 4): who writes or copies, until when, and what is to be built upon. They come before everything (INV-02).
//!
//! The session while it is open: its announcement, its extensions, its deadline (steps 1, 4 and 5 of the writer in `docs/deletion.md`).
//! Its deadline is counted from before the first put, by the clocks of this machine and never from a listing: so it ends here before it
//! ends in any store. What is in the store if we die: announcements, which protect for 48 h at most.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_model::protocol::{self, Session};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Key, Put};

use crate::id::{BackupId, ComponentName, SessionId};
use crate::key::instance::Instance;
use crate::prune::records::{About, SessionJson};
use crate::repository::Repository;
use crate::signed::{self, Kind};
use crate::sync::lock;
use crate::time::format_utc;

/// How long a session protects what it names; a backup file is not put later.
pub(crate) const SESSION_DEADLINE: Duration = Duration::from_secs(48 * 3600);
/// Extended when half of its time is over.
const EXTEND_AFTER: Duration = Duration::from_secs(SESSION_DEADLINE.as_secs() / 2);
/// Extensions have two hex digits. More than a year is no backup.
const MOST_EXTENSIONS: u8 = 0xff;

/// Draws a session and announces it. A number that is taken (a rewound or cloned machine draws it again) is not used twice.
pub(crate) async fn announce(
    env: &Env,
    repository: &Repository,
    component: &ComponentName,
    instance: &Instance,
    verb: &'static str,
    parent: Option<&BackupId>,
) -> Result<OpenSession> {
    const ATTEMPTS: usize = 64;
    let mut taken = None;
    for _ in 0..ATTEMPTS {
        let about = About::new(repository.id(), component, instance);
        let open = OpenSession::begin(env, &component.folder()?, SessionId::draw(env)?, about, verb, parent)?;
        match open.put(&**repository.store(), &open.key, instance).await {
            Ok(()) => return Ok(open),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(taken.unwrap_or_else(|| Error::new(ErrorKind::Bug, "announce", component, "no attempt was made")))
}

/// The session of one backup or copy.
#[derive(Debug)]
pub(crate) struct OpenSession {
    env: Env,
    pub(crate) began_us: i64,
    began: Duration,
    pub(crate) id: SessionId,
    /// Where it is announced.
    key: Key,
    about: About,
    verb: &'static str,
    parent: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    announced: Session<SessionId>,
    extensions: u8,
}

impl OpenSession {
    /// A session that is going to be announced in `folder` (of its component) now.
    fn begin(
        env: &Env,
        folder: &Key,
        id: SessionId,
        about: About,
        verb: &'static str,
        parent: Option<&BackupId>,
    ) -> Result<Self> {
        let announced = Session {
            id,
            // It never changes, and is compared with itself only.
            parent: None,
            announced_at: Duration::ZERO,
            deadline: SESSION_DEADLINE,
        };
        Ok(Self {
            env: env.clone(),
            began_us: env.clock.wall_us(),
            began: env.clock.monotonic(),
            id,
            key: folder.join(&format!("sessions/{id}"))?,
            about,
            verb,
            parent: parent.map(ToString::to_string),
            state: Mutex::new(State {
                announced,
                extensions: 0,
            }),
        })
    }

    /// How long ago it began. A machine that was suspended may have stopped its monotonic clock; the wall clock went on. Whichever says
    /// more counts.
    pub(crate) fn elapsed(&self) -> Duration {
        let clock = &self.env.clock;
        let wall_us = u64::try_from(clock.wall_us().saturating_sub(self.began_us)).unwrap_or(0);
        clock
            .monotonic()
            .saturating_sub(self.began)
            .max(Duration::from_micros(wall_us))
    }

    /// The names of its announcement and of the extensions that were put, the newest first.
    pub(crate) fn names(&self) -> Result<Vec<Key>> {
        let extensions = lock(&self.state).extensions;
        let extension = |number: u8| Key::new(format!("{}-{number:02x}", self.key));
        let extensions = (1..=extensions).rev().map(extension);
        extensions.chain([Ok(self.key.clone())]).collect()
    }

    /// Fails with kind `TimedOut` once the deadline has passed, counted from the last extension.
    pub(crate) fn check_deadline(&self, op: &'static str, component: &ComponentName) -> Result<()> {
        if protocol::may_publish(&self.announced(), self.elapsed()) {
            return Ok(());
        }
        let detail = "it took longer than its session may last (48 h)";
        Err(Error::new(ErrorKind::TimedOut, op, component, detail)
            .with_hint("find out what makes it so slow (the store, the network), then run it again"))
    }

    /// The announcement or its last extension, in time since the session began.
    pub(crate) fn announced(&self) -> Session<SessionId> {
        lock(&self.state).announced.clone()
    }

    /// Extends the session where half of its time is over. One that is over already stays over: its backup is refused at the end.
    pub(crate) async fn keep_open(&self, store: &dyn BlobStore, instance: &Instance) -> Result<()> {
        let at = self.elapsed();
        let before = self.announced();
        let due = at >= before.announced_at.saturating_add(EXTEND_AFTER);
        let number = lock(&self.state).extensions;
        if !due || !before.is_open(at) || number == MOST_EXTENSIONS {
            return Ok(());
        }
        let number = number.saturating_add(1);
        let key = self.key.as_str();
        self.put(store, &Key::new(format!("{key}-{number:02x}"))?, instance).await?;
        let landed = Session {
            announced_at: self.elapsed(),
            ..before.clone()
        };
        let mut state = lock(&self.state);
        // One that lands after the deadline ends the session: what it named may be on its way out.
        if protocol::may_extend(&before, &landed) {
            state.announced = Session {
                // Counted from before the put.
                announced_at: at,
                ..before
            };
        }
        state.extensions = number;
        Ok(())
    }

    async fn put(&self, store: &dyn BlobStore, key: &Key, instance: &Instance) -> Result<()> {
        let json = SessionJson {
            about: self.about.clone(),
            session: self.id.to_string(),
            verb: self.verb.to_owned(),
            announced_at: format_utc(self.env.clock.wall_us()),
            deadline_s: SESSION_DEADLINE.as_secs(),
            parent: self.parent.clone(),
        };
        let body = serde_json::to_vec(&json)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "an announcement", error.to_string()))?;
        match store
            .put(key, Bytes::from(signed::sign(Kind::Session, body, instance)))
            .await?
        {
            Put::Created | Put::AlreadyThere => Ok(()),
        }
    }
}
