//! Storing finished packs, several at a time.

use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Put};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::shared::Shared;
use crate::bytes::len_u32;
use crate::closure::{Pack, pack_name};
use crate::key::instance::Instance;
use crate::pack::{FinishedPack, PackClass};
use crate::session::OpenSession;

/// MiB of packs that wait for an upload to begin: one data pack, or many small ones of maps. With [`UPLOADS`] and one pack per worker this
/// bounds memory (INV-08).
const WAITING_MIB: u32 = 16;
/// Uploads at the same time.
const UPLOADS: usize = 3;

/// The end of the queue of packs at which workers put theirs.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    packs: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
}

/// The end of the queue of packs from which they are stored. Nobody waits for room in it when this is gone.
pub(crate) struct Queued {
    packs: mpsc::UnboundedReceiver<Waiting>,
    room: Arc<Semaphore>,
}

type Waiting = (FinishedPack, OwnedSemaphorePermit);

impl Drop for Queued {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// A queue of packs, empty.
pub(crate) fn queue() -> (Queue, Queued) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the permits bound it: what waits is counted in MiB, not in packs"
    )]
    let (sender, packs) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(usize::try_from(WAITING_MIB).unwrap_or(usize::MAX)));
    let queue = Queue {
        packs: sender,
        room: Arc::clone(&room),
    };
    (queue, Queued { packs, room })
}

impl Queue {
    /// Puts a pack into the queue, from a thread that may block: waits while there is no room. False where nobody stores packs any more.
    pub(crate) fn put(&self, pack: FinishedPack) -> bool {
        let mib = match pack.class {
            PackClass::Data => WAITING_MIB,
            PackClass::Map => 1,
        };
        let room = Handle::current().block_on(Arc::clone(&self.room).acquire_many_owned(mib));
        room.is_ok_and(|room| self.packs.send((pack, room)).is_ok())
    }
}

/// Stores every pack that arrives; returns what they are in the closure (their key is the first). Ends at the first failure,
/// which ends the queue and so stops the workers.
pub(crate) async fn run(
    store: Arc<dyn BlobStore>,
    shared: Arc<Shared>,
    session: Arc<OpenSession>,
    instance: Arc<Instance>,
    mut queued: Queued,
) -> Result<Vec<Pack>> {
    let mut stored = Vec::new();
    let mut uploads = JoinSet::new();
    loop {
        if uploads.len() >= UPLOADS {
            collect(&mut uploads, &mut stored).await?;
        }
        let Some((pack, room)) = queued.packs.recv().await else {
            break;
        };
        drop(room);
        session.keep_open(&*store, &instance).await?;
        uploads.spawn(put(Arc::clone(&store), Arc::clone(&shared), pack));
    }
    while !uploads.is_empty() {
        collect(&mut uploads, &mut stored).await?;
    }
    Ok(stored)
}

async fn collect(uploads: &mut JoinSet<Result<Pack>>, stored: &mut Vec<Pack>) -> Result<()> {
    if let Some(joined) = uploads.join_next().await {
        let pack =
            joined.map_err(|error| Error::new(ErrorKind::Bug, "store", "a pack", "a task panicked").with_source(error))??;
        stored.push(pack);
    }
    Ok(())
}

async fn put(store: Arc<dyn BlobStore>, shared: Arc<Shared>, pack: FinishedPack) -> Result<Pack> {
    let key = pack_name(&shared.component, pack.class, shared.session, &pack.hash)?;
    let size_bytes = len_u32(pack.bytes.len(), "a pack")?;
    match store.put(&key, shared.pool.lend(pack.bytes)).await? {
        Put::Created | Put::AlreadyThere => {}
    }
    Ok(Pack {
        number: pack.number,
        session: 0,
        size_bytes,
        class: pack.class,
        hash: pack.hash,
    })
}
