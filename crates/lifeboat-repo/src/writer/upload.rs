//! Storing finished packs, several at a time.

use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Put};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::shared::Shared;
use crate::bytes::len_u32;
use crate::closure::{Pack, pack_name};
use crate::key::instance::Instance;
use crate::pack::FinishedPack;
use crate::session::OpenSession;

/// Packs that wait for an upload to begin. With [`UPLOADS`] and one pack per worker this bounds memory (INV-08).
pub(crate) const WAITING_PACKS: usize = 1;
/// Uploads at the same time.
const UPLOADS: usize = 3;

/// Stores every pack that arrives; returns what they are in the closure (their key is the first). Ends at the first failure,
/// which closes the channel and so stops the workers.
pub(crate) async fn run(
    store: Arc<dyn BlobStore>,
    shared: Arc<Shared>,
    session: Arc<OpenSession>,
    instance: Arc<Instance>,
    mut packs: mpsc::Receiver<FinishedPack>,
) -> Result<Vec<Pack>> {
    let mut stored = Vec::new();
    let mut uploads = JoinSet::new();
    loop {
        if uploads.len() >= UPLOADS {
            collect(&mut uploads, &mut stored).await?;
        }
        let Some(pack) = packs.recv().await else { break };
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
