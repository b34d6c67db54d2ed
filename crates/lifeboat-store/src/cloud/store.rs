//! The contract of [`BlobStore`] over `object_store`.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use lifeboat_model::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    PutResult,
};
use tokio::sync::OnceCell;

use super::failure::{self, Action, Failure, Kind};
use super::probe;
use super::settings::StorageClass;
use crate::layer::retry::{Policy, Sleep};
use crate::{BlobStore, Capabilities, Entry, Key, Put};

/// No file of any of the services is as long as this; a range beyond it is answered without sending numbers that they may not read.
const LONGEST: u64 = 1 << 50;
/// A request takes some tens of milliseconds however small it is: so many keep a fast line busy with a few megabytes each.
const REQUESTS_AT_ONCE: usize = 24;

/// A store in a cloud. Cheap to clone; clones share connections and what they know.
#[derive(Debug, Clone)]
pub struct CloudStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kind: Kind,
    name: String,
    inner: Arc<dyn ObjectStore>,
    prefix: Option<Key>,
    class: Option<StorageClass>,
    policy: Policy,
    sleep: Arc<dyn Sleep>,
    capabilities: OnceCell<Capabilities>,
}

/// What a put onto a name that may be taken came to.
pub(super) enum Attempt {
    Created(PutResult),
    Taken,
}

impl CloudStore {
    pub(super) fn new(
        kind: Kind,
        name: String,
        inner: Arc<dyn ObjectStore>,
        prefix: Option<Key>,
        class: Option<StorageClass>,
        policy: Policy,
        sleep: Arc<dyn Sleep>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                kind,
                name,
                inner,
                prefix,
                class,
                policy,
                sleep,
                capabilities: OnceCell::new(),
            }),
        }
    }

    /// Finds out what the service can do, by trying; once in the life of the process. Writes and removes a scratch file.
    pub async fn probe(&self) -> Result<Capabilities> {
        self.shared.capabilities.get_or_try_init(|| probe::run(self)).await.copied()
    }

    /// Taken as it stands: `Path::from` would write `~` as `%7E`, and a key holds nothing that must be written otherwise.
    pub(super) fn location(&self, key: &Key) -> Path {
        let name = match &self.shared.prefix {
            Some(prefix) => format!("{prefix}/{key}"),
            None => key.to_string(),
        };
        Path::parse(&name).unwrap_or_else(|_| Path::from(name))
    }

    fn fail(&self, action: Action, key: &Key, error: object_store::Error) -> Failure {
        let subject = format!("{}/{key}", self.shared.name);
        failure::read(self.shared.kind, action, &subject, &self.shared.name, error)
    }

    /// Tries again what may pass, by the policy.
    pub(super) async fn again<T, F>(&self, attempt: impl Fn() -> F + Send + Sync) -> std::result::Result<T, Failure>
    where
        F: Future<Output = std::result::Result<T, Failure>> + Send,
    {
        let mut failures = 0;
        loop {
            match attempt().await {
                Err(failure) if failure.passes => {
                    failures += 1;
                    if failures >= self.shared.policy.attempts {
                        return Err(failure);
                    }
                    self.shared.sleep.sleep(self.shared.policy.pause_after(failures)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// One put, with the condition that nothing of that name is there where `conditional`.
    pub(super) async fn put_once(&self, key: &Key, body: &Bytes, conditional: bool) -> std::result::Result<Attempt, Failure> {
        let mut attributes = Attributes::new();
        if let Some(class) = self.shared.class.as_ref().filter(|class| (class.applies)(key)) {
            attributes.insert(Attribute::StorageClass, class.name.clone().into());
        }
        let options = PutOptions {
            mode: if conditional { PutMode::Create } else { PutMode::Overwrite },
            attributes,
            ..PutOptions::default()
        };
        let payload = PutPayload::from_bytes(body.clone());
        match self.shared.inner.put_opts(&self.location(key), payload, options).await {
            Ok(result) => Ok(Attempt::Created(result)),
            Err(error) => {
                let failure = self.fail(Action::Put, key, error);
                // A conflict (409) may also mean that somebody else is writing; whoever compares finds out.
                if failure.condition { Ok(Attempt::Taken) } else { Err(failure) }
            }
        }
    }

    /// Compares what is stored with `body`: the same, other content, or nothing there.
    async fn compare(&self, key: &Key, body: &Bytes) -> std::result::Result<Option<bool>, Failure> {
        match self.get_once(key, body.len() as u64).await {
            Ok(there) => Ok(Some(there == *body)),
            Err(failure) if failure.error.kind() == ErrorKind::NotFound => Ok(None),
            Err(failure) if failure.error.kind() == ErrorKind::Corrupt => Ok(Some(false)),
            Err(failure) => Err(failure),
        }
    }

    fn taken(&self, key: &Key) -> Failure {
        let subject = format!("{}/{key}", self.shared.name);
        let detail = "a file of that name with other content is there";
        lasting(Error::new(ErrorKind::AlreadyExists, "store", subject, detail))
    }

    /// INV-01: the service refuses to overwrite; whoever is refused looks whether it is the same.
    async fn put_conditional(&self, key: &Key, body: &Bytes) -> std::result::Result<Put, Failure> {
        match self.put_once(key, body, true).await? {
            Attempt::Created(_) => Ok(Put::Created),
            Attempt::Taken => match self.compare(key, body).await? {
                Some(true) => Ok(Put::AlreadyThere),
                Some(false) => Err(self.taken(key)),
                None => Err(self.conflict(key)),
            },
        }
    }

    /// A conflict that stored nothing: it passes.
    fn conflict(&self, key: &Key) -> Failure {
        let subject = format!("{}/{key}", self.shared.name);
        let detail = "somebody else is writing this name at the same moment";
        let error = Error::new(ErrorKind::Unreachable, "store", subject, detail).with_hint("run the same command again");
        Failure {
            error,
            passes: true,
            condition: false,
            unknown_request: false,
        }
    }

    /// A service that ignores conditions: look before, write, compare after. Two writers of different bytes under one name can still
    /// overwrite each other between the look and the write; names that hold the hash of their bytes keep that from mattering.
    async fn put_unconditional(&self, key: &Key, body: &Bytes) -> std::result::Result<Put, Failure> {
        match self.compare(key, body).await? {
            Some(true) => return Ok(Put::AlreadyThere),
            Some(false) => return Err(self.taken(key)),
            None => {}
        }
        let Attempt::Created(result) = self.put_once(key, body, false).await? else {
            return Err(self.conflict(key));
        };
        let after = self.meta_once(key, Action::Put).await?;
        let sure = after.size == body.len() as u64 && result.e_tag.is_some() && result.e_tag == after.e_tag;
        if sure {
            return Ok(Put::Created);
        }
        match self.compare(key, body).await? {
            Some(true) => Ok(Put::Created),
            Some(false) => Err(self.taken(key)),
            None => Err(self.conflict(key)),
        }
    }

    async fn get_once(&self, key: &Key, limit_bytes: u64) -> std::result::Result<Bytes, Failure> {
        let fail = |error| self.fail(Action::Get, key, error);
        let options = GetOptions::default();
        let found = self.shared.inner.get_opts(&self.location(key), options).await.map_err(fail)?;
        let size = found.meta.size;
        if size > limit_bytes {
            let detail = format!("it is {size} bytes long, and no such file is longer than {limit_bytes}");
            return Err(lasting(self.corrupt(key, detail)));
        }
        let bytes = found.bytes().await.map_err(fail)?;
        if bytes.len() as u64 == size {
            return Ok(bytes);
        }
        let detail = format!("{} of {size} bytes arrived", bytes.len());
        Err(Failure {
            passes: true,
            ..lasting(self.corrupt(key, detail))
        })
    }

    async fn range_once(&self, key: &Key, range: Range<u64>) -> std::result::Result<Bytes, Failure> {
        if range.start == range.end || range.end > LONGEST {
            let size = self.meta_once(key, Action::Get).await?.size;
            return if range.end <= size {
                Ok(Bytes::new())
            } else {
                Err(lasting(self.beyond(key, size, &range)))
            };
        }
        let fail = |error| self.fail(Action::Get, key, error);
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let found = match self.shared.inner.get_opts(&self.location(key), options).await {
            Ok(found) => found,
            Err(error) => return Err(self.why_no_range(key, &range, fail(error)).await),
        };
        let size = found.meta.size;
        if found.range != range {
            return Err(lasting(self.beyond(key, size, &range)));
        }
        let bytes = found.bytes().await.map_err(fail)?;
        if bytes.len() as u64 == range.end - range.start {
            return Ok(bytes);
        }
        let detail = format!("{} bytes of the range {range:?} arrived", bytes.len());
        Err(Failure {
            passes: true,
            ..lasting(self.corrupt(key, detail))
        })
    }

    /// Some services answer for a range that ends behind the file in a way that nobody understands: the size tells.
    async fn why_no_range(&self, key: &Key, range: &Range<u64>, failure: Failure) -> Failure {
        if failure.error.kind() != ErrorKind::Unreachable || failure.passes {
            return failure;
        }
        match self.meta_once(key, Action::Get).await {
            Ok(meta) if meta.size < range.end => lasting(self.beyond(key, meta.size, range)),
            Ok(_) | Err(_) => failure,
        }
    }

    fn corrupt(&self, key: &Key, detail: String) -> Error {
        Error::new(ErrorKind::Corrupt, "read", format!("{}/{key}", self.shared.name), detail)
    }

    fn beyond(&self, key: &Key, size: u64, range: &Range<u64>) -> Error {
        let detail = format!(
            "it is {size} bytes long; bytes {} to {} were expected in it",
            range.start, range.end
        );
        self.corrupt(key, detail)
    }

    /// Size and time of a file. The answer to HEAD has no text, so an absence is asked again in a way that tells a missing file from a
    /// missing bucket: absence is only what was proven to be absent.
    async fn meta_once(&self, key: &Key, action: Action) -> std::result::Result<ObjectMeta, Failure> {
        let location = self.location(key);
        let failure = match self.shared.inner.head(&location).await {
            Ok(meta) => return Ok(meta),
            Err(error) => self.fail(action, key, error),
        };
        if failure.error.kind() != ErrorKind::NotFound {
            return Err(failure);
        }
        match self.shared.inner.get_opts(&location, GetOptions::default()).await {
            Ok(found) => Ok(found.meta),
            Err(error) => Err(self.fail(action, key, error)),
        }
    }

    async fn list_once(&self, prefix: &Key) -> std::result::Result<Vec<Entry>, Failure> {
        let fail = |error| self.fail(Action::List, prefix, error);
        let mut found = self.shared.inner.list(Some(&self.location(prefix)));
        let mut entries = Vec::new();
        while let Some(meta) = found.try_next().await.map_err(fail)? {
            let name = meta.location.as_ref();
            let own = match &self.shared.prefix {
                Some(folder) => name.strip_prefix(folder.as_str()).and_then(|rest| rest.strip_prefix('/')),
                None => Some(name),
            };
            let key = Key::new(own.unwrap_or(name)).map_err(lasting)?;
            // What some consoles leave for a folder bears the folder's own name.
            if own.is_some() && key.is_under(prefix) {
                entries.push(entry(key, &meta));
            }
        }
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|a, b| a.key == b.key);
        Ok(entries)
    }

    async fn delete_once(&self, key: &Key) -> std::result::Result<(), Failure> {
        match self.shared.inner.delete(&self.location(key)).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let failure = self.fail(Action::Delete, key, error);
                if failure.error.kind() == ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(failure)
                }
            }
        }
    }
}

fn lasting(error: Error) -> Failure {
    Failure {
        error,
        passes: false,
        condition: false,
        unknown_request: false,
    }
}

/// Listings know milliseconds, single looks only seconds: everybody sees whole seconds, never later than the truth.
fn entry(key: Key, meta: &ObjectMeta) -> Entry {
    Entry {
        key,
        size_bytes: meta.size,
        stored_at_us: meta.last_modified.timestamp().saturating_mul(1_000_000),
    }
}

#[async_trait]
impl BlobStore for CloudStore {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn requests_at_once(&self) -> usize {
        REQUESTS_AT_ONCE
    }

    /// What was found out so far; nothing before the first put.
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities.get().copied().unwrap_or(Capabilities {
            conditional_put: false,
            versioning: false,
            object_lock: false,
        })
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        let conditional = self.probe().await?.conditional_put;
        let outcome = if conditional {
            self.again(|| self.put_conditional(key, &body)).await
        } else {
            self.again(|| self.put_unconditional(key, &body)).await
        };
        outcome.map_err(|failure| failure.error)
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        let read = self.again(|| self.get_once(key, limit_bytes)).await;
        read.map_err(|failure| failure.error)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            let detail = format!("the range {range:?} ends before it begins");
            return Err(Error::new(ErrorKind::Bug, "read", key, detail));
        }
        let read = self.again(|| self.range_once(key, range.clone())).await;
        read.map_err(|failure| match failure.error.kind() {
            // The service knows only that the range lies outside.
            ErrorKind::Corrupt => failure.error.with_hint("run `lifeboat verify` to see what else is damaged"),
            _ => failure.error,
        })
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        let found = self.again(|| self.meta_once(key, Action::Head)).await;
        found.map(|meta| entry(key.clone(), &meta)).map_err(|failure| failure.error)
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        let listed = self.again(|| self.list_once(prefix)).await;
        listed.map_err(|failure| failure.error)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let deleted = self.again(|| self.delete_once(key)).await;
        deleted.map_err(|failure| failure.error)
    }
}
