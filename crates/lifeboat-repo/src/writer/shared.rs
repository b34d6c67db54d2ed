//! What all threads of one session share.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use lifeboat_model::{Env, Error, ErrorKind, Result};

use super::upload::Queue;
use crate::id::{ComponentName, SessionId};
use crate::key::{IdKeys, Scope, Secret};
use crate::pack::{Effort, FinishedPack, PACK_TARGET_BYTES, PackBuilder, PackClass, Pool};
use crate::sync::lock;

/// What a backup did, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes of extents and chunks that were not taken over from the parent (of overlays: the changed pages).
    pub changed_bytes: u64,
    /// Bytes added to the store: packs, maps, key and backup file.
    pub stored_bytes: u64,
    /// Packs and maps written.
    pub packs: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) component: ComponentName,
    pub(crate) session: SessionId,
    pub(crate) scope: Scope,
    pub(crate) data_key: Secret,
    pub(crate) ids: IdKeys,
    /// Packs of the parent that are missing, have another size or are known to be bad: what lies on them is stored again.
    pub(crate) lost: HashSet<u32>,
    /// Every pack that a row or slot of this backup reaches (INV-06).
    reached: Mutex<BTreeSet<u32>>,
    last_pack: AtomicU32,
    cancelled: AtomicBool,
    /// Streams that were begun beside each other and are not yet part of the backup.
    pub(crate) open_streams: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) changed_bytes: AtomicU64,
    /// Bytes that may still be compressed hard.
    hard_bytes: AtomicU64,
    /// Data packs that are not full yet, kept from file to file.
    open: Mutex<Vec<PackBuilder>>,
    uploads: Mutex<Option<Queue>>,
    /// Buffers of packs that were stored.
    pub(crate) pool: Pool,
}

/// A full pack and the longest blob that may overshoot it.
const PACK_BUFFER_BYTES: usize = PACK_TARGET_BYTES + (1 << 18);

#[derive(Debug)]
pub(crate) struct SharedParts {
    pub(crate) env: Env,
    pub(crate) component: ComponentName,
    pub(crate) session: SessionId,
    pub(crate) scope: Scope,
    pub(crate) data_key: Secret,
    pub(crate) ids: IdKeys,
    pub(crate) lost: HashSet<u32>,
    pub(crate) last_pack: u32,
    /// Bytes that may be compressed hard.
    pub(crate) hard_bytes: u64,
    pub(crate) uploads: Queue,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        Self {
            env: parts.env,
            component: parts.component,
            session: parts.session,
            scope: parts.scope,
            data_key: parts.data_key,
            ids: parts.ids,
            lost: parts.lost,
            reached: Mutex::default(),
            last_pack: AtomicU32::new(parts.last_pack),
            cancelled: AtomicBool::new(false),
            open_streams: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            changed_bytes: AtomicU64::new(0),
            hard_bytes: AtomicU64::new(parts.hard_bytes),
            open: Mutex::default(),
            uploads: Mutex::new(Some(parts.uploads)),
            pool: Pool::default(),
        }
    }

    /// Begins a pack under the next number.
    pub(crate) fn begin_pack(&self, class: PackClass) -> Result<PackBuilder> {
        let number = self.last_pack.fetch_add(1, Ordering::Relaxed).checked_add(1);
        let number = number.ok_or_else(|| {
            Error::new(
                ErrorKind::Failed,
                "begin",
                "a pack",
                "the lineage has used up its pack numbers; run `lifeboat backup --full`",
            )
        })?;
        let bytes = self.pool.take(match class {
            PackClass::Data => PACK_BUFFER_BYTES,
            PackClass::Map => 1 << 20,
        });
        PackBuilder::begin(&self.env, bytes, number, class, self.session, &self.data_key, &self.scope)
    }

    /// How hard to compress `raw_bytes` of a page file.
    pub(crate) fn effort(&self, raw_bytes: usize) -> Effort {
        let taken = self.hard_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(raw_bytes as u64)
        });
        if taken.is_ok() { Effort::Hard } else { Effort::Quick }
    }

    pub(crate) fn last_pack(&self) -> u32 {
        self.last_pack.load(Ordering::Relaxed)
    }

    /// A data pack to fill: one that an earlier file left open, or a new one.
    pub(crate) fn take_open(&self) -> Result<PackBuilder> {
        let open = lock(&self.open).pop();
        open.map_or_else(|| self.begin_pack(PackClass::Data), Ok)
    }

    pub(crate) fn give_back(&self, pack: PackBuilder) {
        lock(&self.open).push(pack);
    }

    pub(crate) fn drain_open(&self) -> Vec<PackBuilder> {
        std::mem::take(&mut *lock(&self.open))
    }

    /// Hands a pack to the uploader; waits while enough are under way.
    pub(crate) fn upload(&self, pack: FinishedPack) -> Result<()> {
        let queue = lock(&self.uploads).clone();
        let sent = queue.is_some_and(|queue| queue.put(pack));
        if sent { Ok(()) } else { Err(cancelled()) }
    }

    /// No more packs will come.
    pub(crate) fn close_uploads(&self) {
        lock(&self.uploads).take();
    }

    pub(crate) fn reach(&self, pack: u32) {
        lock(&self.reached).insert(pack);
    }

    pub(crate) fn reached(&self) -> BTreeSet<u32> {
        lock(&self.reached).clone()
    }

    /// Tells all workers to stop; the writer was dropped or something failed.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.close_uploads();
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(cancelled())
        } else {
            Ok(())
        }
    }
}

/// What a worker returns when it stops because something else failed; the caller prefers that something's own error.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Interrupted, "go on with", "the backup", "it was cancelled")
}
