//! The negative control of a drill: the same backup once more, with one bit flipped in whatever is read of its data, has to be refused. A check that can
//! only say yes proves nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::check::Outcome;
use lifeboat_model::{Env, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader, Repository};
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};

/// What it is called in a report.
const NAME: &str = "negative control";
/// The folder of stored data in that of a component (format 2): what only names and orders it stays as it is, so that the control gets as far as the data.
const DATA: &str = "/packs/";

/// Reads the backup with a bit flipped in its data. Nothing is written.
pub(super) async fn run(env: &Env, repository: &Repository, backup: &Backup, identities: &Identities) -> Outcome {
    env.progress.step(NAME, None);
    let flipped = Arc::new(Flipped {
        inner: Arc::clone(repository.store()),
        flips: AtomicU64::new(0),
    });
    let read = async {
        let repository = Repository::open(Arc::clone(&flipped) as Arc<dyn BlobStore>).await?;
        Reader::open(env, &repository, backup, identities).await?.verify().await
    };
    let read = read.await;
    env.progress.finish();
    match read {
        // What was refused without a flip was refused for another reason.
        Err(error) if error.kind() == ErrorKind::Corrupt && flipped.flips.load(Ordering::Relaxed) > 0 => {
            Outcome::passed(NAME, "with one bit flipped on its way from the store, the data is refused")
                .with_evidence(vec![error.to_string()])
        }
        Err(error) => Outcome::not_available(NAME, format!("the backup could not be read once more: {error}")),
        // A component of empty files would otherwise never pass.
        Ok(verified) if verified.bytes == 0 => Outcome::passed(NAME, "nothing is stored in which a bit could be flipped"),
        Ok(_) => Outcome::failed(
            NAME,
            "with one bit flipped on its way from the store, the data was taken for whole",
        ),
    }
}

/// A store whose data comes with a bit flipped. Nothing can be written through it.
#[derive(Debug)]
struct Flipped {
    inner: Arc<dyn BlobStore>,
    /// How often.
    flips: AtomicU64,
}

impl Flipped {
    /// The lowest bit of the byte in the middle.
    fn flip(&self, key: &Key, bytes: Bytes) -> Bytes {
        if !key.as_str().contains(DATA) {
            return bytes;
        }
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
            self.flips.fetch_add(1, Ordering::Relaxed);
        }
        bytes.into()
    }

    fn refuse<T>(&self) -> Result<T> {
        let detail = "a control only reads";
        Err(lifeboat_model::Error::new(
            ErrorKind::Bug,
            "write into",
            self.inner.name(),
            detail,
        ))
    }
}

#[async_trait]
impl BlobStore for Flipped {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn requests_at_once(&self) -> usize {
        self.inner.requests_at_once()
    }

    async fn put(&self, _key: &Key, _body: Bytes) -> Result<Put> {
        self.refuse()
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        Ok(self.flip(key, self.inner.get(key, limit_bytes).await?))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        Ok(self.flip(key, self.inner.get_range(key, range).await?))
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, _key: &Key) -> Result<()> {
        self.refuse()
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_store::memory::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn data_comes_with_one_bit_flipped_and_all_else_as_it_is() {
        let (data, other) = (Key::new("c/a/packs/s/h").unwrap(), Key::new("c/a/maps/s/h").unwrap());
        let inner = Arc::new(MemoryStore::new());
        for key in [&data, &other] {
            assert_eq!(inner.put(key, Bytes::from_static(&[0; 5])).await.unwrap(), Put::Created);
        }
        let flipped = Flipped {
            inner,
            flips: AtomicU64::new(0),
        };
        assert_eq!(flipped.get(&data, 10).await.unwrap(), [0, 0, 1, 0, 0].as_slice());
        assert_eq!(flipped.get_range(&data, 3..4).await.unwrap(), [1].as_slice());
        assert_eq!(flipped.get(&other, 10).await.unwrap(), [0; 5].as_slice());
        assert_eq!(flipped.flips.load(Ordering::Relaxed), 2);
        assert!(flipped.put(&other, Bytes::new()).await.is_err());
        assert!(flipped.delete(&other).await.is_err());
    }
}
