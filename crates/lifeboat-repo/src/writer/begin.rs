//! Announce: lock, choose the parent, name it, and only then look at what the store holds (INV-02, INV-04).

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::protocol::{self, ParentUse};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::Key;
use tokio::task::JoinSet;

use super::changes::Expected;
use super::place::FreeRows;
use super::shared::{Shared, SharedParts};
use super::slots::Slots;
use super::stream::KnownChunks;
use super::{BackupPlan, Generation, Names, ParentGeneration, Writer, for_each_row, upload};
use crate::closure::{Pack, SessionKey};
use crate::id::{BackupId, ComponentName, Lineage, SessionId};
use crate::key::age::{Encryption, SessionKeys};
use crate::key::file::{KeyFile, put_key_file};
use crate::key::recipient::Fingerprint;
use crate::key::{IdKeys, Scope, draw_secret};
use crate::listing::{Listing, protocol_backup};
use crate::map::Row;
use crate::prune::marks::marks_of;
use crate::prune::records::{Place, keys_of};
use crate::replicas::{Condemned, Wanted};
use crate::repository::Repository;
use crate::session::{OpenSession, announce};
use crate::state::{GENERATION_FILES, State, StateFolder};

/// So much of an increment is compressed hard at most ([`BackupPlan::patient`]): six seconds of a processor.
const HARD_BYTES: u64 = 1 << 30;

pub(super) async fn begin(env: &Env, repository: &Repository, plan: BackupPlan) -> Result<Writer> {
    check_words(&plan)?;
    let folder = StateFolder::lock(&plan.state_dir, repository.id(), &plan.component, &plan.method)?;
    let Announced {
        open,
        listing,
        parent,
        lost,
        seq,
        notes,
    } = announce_and_judge(env, repository, &plan, &folder).await?;
    let session = open.id;
    let (keys, key, scope) = fresh_keys(env, repository, &plan, session, parent.as_ref())?;
    let key_file = put_key(repository, &plan, &keys).await?;
    let readers = all_readers(parent.as_ref(), &key_file);

    let generation = open_generation(&folder, parent.as_ref())?;
    let chunks = known_chunks(&generation, parent.as_ref(), &lost)?;
    let (sender, queued) = upload::queue();
    let shared = Arc::new(Shared::new(SharedParts {
        env: env.clone(),
        component: plan.component.clone(),
        session,
        scope,
        data_key: keys.data_key,
        ids: IdKeys::derive(&keys.id_key),
        lost,
        last_pack: parent.as_ref().map_or(0, |state| state.last_pack),
        hard_bytes: if plan.patient && parent.is_some() { HARD_BYTES } else { 0 },
        uploads: sender,
    }));
    let uploader = uploader(repository, &shared, &open, &plan, queued);
    let names = Names::beside(parent.as_ref());
    let free_rows = FreeRows::beside(parent.as_ref().map_or(&[], |state| state.files.as_slice()));
    Ok(Writer {
        env: env.clone(),
        repository: repository.clone(),
        plan,
        open,
        seq,
        session,
        lineage: keys.lineage,
        id_key: keys.id_key,
        key,
        key_file,
        old_key_files: listing.key_files,
        readers,
        notes,
        parent,
        folder,
        generation,
        chunks: Arc::new(chunks),
        shared,
        uploader,
        files: Vec::new(),
        free_rows,
        unfinished: None,
        tree: None,
        log: None,
        bad_pages: 0,
        names,
        changes: Expected::default(),
        next_hash: 0,
    })
}

/// The task that stores packs.
fn uploader(
    repository: &Repository,
    shared: &Arc<Shared>,
    open: &Arc<OpenSession>,
    plan: &BackupPlan,
    queued: upload::Queued,
) -> JoinSet<Result<Vec<Pack>>> {
    let mut uploader = JoinSet::new();
    uploader.spawn(upload::run(
        Arc::clone(repository.store()),
        Arc::clone(shared),
        Arc::clone(open),
        Arc::clone(&plan.instance),
        queued,
    ));
    uploader
}

/// To whom the keys of this lineage were ever encrypted, as far as this machine knows.
fn all_readers(parent: Option<&State>, key_file: &KeyFile) -> BTreeSet<Fingerprint> {
    let before = parent.iter().flat_map(|state| &state.readers);
    before.chain(key_file.roster.recipients.iter().flatten()).copied().collect()
}

/// The keys of this session: a data key of its own, and the id key of the lineage that it goes on with or begins.
fn fresh_keys(
    env: &Env,
    repository: &Repository,
    plan: &BackupPlan,
    session: SessionId,
    parent: Option<&State>,
) -> Result<(SessionKeys, SessionKey, Scope)> {
    let (lineage, id_key) = match parent {
        Some(state) => (state.lineage, state.id_key.clone()),
        None => (Lineage::draw(env)?, draw_secret(env)?),
    };
    let keys = SessionKeys {
        session,
        lineage,
        data_key: draw_secret(env)?,
        id_key,
    };
    let scope = Scope::new(repository.id(), &plan.component);
    let key = SessionKey {
        session,
        check: keys.check(&scope),
        clear: plan.encryption == Encryption::Clear,
    };
    Ok((keys, key, scope))
}

/// An open session, and what was found after it was announced.
struct Announced {
    open: Arc<OpenSession>,
    listing: Listing,
    parent: Option<State>,
    /// Packs of the parent whose content must be stored again.
    lost: HashSet<u32>,
    seq: u64,
    notes: Vec<String>,
}

/// Steps 1 to 3 of the writer, in this order: announce, read what is being deleted, list.
async fn announce_and_judge(env: &Env, repository: &Repository, plan: &BackupPlan, folder: &StateFolder) -> Result<Announced> {
    let component = plan.component.folder()?;
    let standing: HashSet<BackupId> = backup_names(repository, &component).await?;
    let mut notes = first_notes(plan);
    let proposed = propose_parent(plan, folder, &standing, &mut notes);
    let parent_id = proposed.as_ref().map(|state| &state.backup);
    if let (Some(_), Some(state)) = (repository.replicas(), &proposed) {
        // A store that will not take part is not told of a parent that it may not have: its pruner would wait for it.
        let _seen_again_after_the_announcement = read_condemned(repository, plan, state).await?;
    }
    let open = Arc::new(announce(env, repository, &plan.component, &plan.instance, "backup", parent_id).await?);
    // Only now all censuses and sweep lists, and only then the files: what was condemned or deleted before the announcement is seen here,
    // what is condemned after it must respect it.
    let condemned = match &proposed {
        Some(state) => read_condemned(repository, plan, state).await?,
        None => Ok(Vec::new()),
    };
    if let (Some(replicas), Some(state)) = (repository.replicas(), &proposed) {
        if condemned.as_ref().is_ok_and(Vec::is_empty) {
            let wanted = Wanted::of(state, &plan.component)?;
            replicas.mend(env, &plan.component, &wanted, &mut notes).await?;
        }
        replicas.withdraw(&open.names()?).await;
    }
    let mut listing = repository.backups(&plan.component, &plan.trust).await?;
    if let Some(replicas) = repository.replicas() {
        replicas.keep_wanting(&plan.component, &mut listing.rejected).await?;
    }
    let parent = accept_parent(proposed, &condemned, &listing, &plan.component, open.began_us, &mut notes)?;
    let parent = readable_by_ours_alone(parent, &listing, plan, &mut notes)?;
    let lost = parent.as_ref().map_or_else(
        || Ok(HashSet::new()),
        |state| lost_packs(state, &listing, &plan.component, &mut notes),
    )?;
    let seq = next_seq(&standing, parent.as_ref(), &listing)?;
    Ok(Announced {
        open,
        listing,
        parent,
        lost,
        seq,
        notes,
    })
}

fn first_notes(plan: &BackupPlan) -> Vec<String> {
    let own = plan.instance.public_key();
    let known = plan.trust.name_of(&own).is_some();
    let note = || {
        format!(
            "the key of this instance ({own}) is not among the configured instances: nobody who reads with this configuration will count its backups"
        )
    };
    (!known).then(note).into_iter().collect()
}

/// The words of the operator have to fit the header; better said now than after all is stored.
fn check_words(plan: &BackupPlan) -> Result<()> {
    const LIMIT: usize = 3000;
    let words = (
        &plan.kind,
        &plan.method,
        &plan.source,
        plan.instance.name(),
        &plan.tags,
        &plan.reason,
        plan.encryption
            .fingerprints()?
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
    );
    let length = serde_json::to_vec(&words).map_or(usize::MAX, |json| json.len());
    if length <= LIMIT {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Usage,
        "begin a backup of",
        &plan.component,
        format!("source path, tags and reason take {length} bytes together, and only {LIMIT} fit a backup's header"),
    ))
}

async fn backup_names(repository: &Repository, component: &Key) -> Result<HashSet<BackupId>> {
    let entries = repository.store().list(&component.join("backups")?).await?;
    Ok(entries
        .iter()
        .filter_map(|entry| entry.key.file_name().parse().ok())
        .collect())
}

fn propose_parent(
    plan: &BackupPlan,
    folder: &StateFolder,
    standing: &HashSet<BackupId>,
    notes: &mut Vec<String>,
) -> Option<State> {
    if plan.full {
        notes.push("full backup: asked for".into());
        return None;
    }
    if standing.is_empty() {
        return None;
    }
    let why_not = |reason: &str| format!("full backup: {reason}");
    match folder.load(|id| standing.contains(id)) {
        Err(reason) => notes.push(why_not(&reason)),
        Ok(state) if state.source != plan.source => notes.push(why_not("the source is another one than before")),
        Ok(state) if !standing.contains(&state.backup) => {
            notes.push(why_not("the backup that the local state describes is no longer in the store"))
        }
        Ok(state) => return Some(state),
    }
    None
}

fn accept_parent(
    proposed: Option<State>,
    condemned: &Condemned,
    listing: &Listing,
    component: &ComponentName,
    now_us: i64,
    notes: &mut Vec<String>,
) -> Result<Option<State>> {
    let newest = listing.backups.iter().map(|backup| backup.header.moment_us).max();
    if newest.is_some_and(|moment| moment > now_us) {
        notes.push("the clock of this machine is behind the moment of an earlier backup: backups are ordered by number, but check the clock".into());
    }
    if let Some(rejected) = listing.rejected.first() {
        let count = listing.rejected.len();
        notes.push(format!(
            "{count} stored backups of this component do not count, for example {}: {}",
            rejected.name, rejected.reason
        ));
    }
    let Some(state) = proposed else { return Ok(None) };
    let marks = match condemned {
        Ok(marks) => marks,
        Err(doubt) => {
            notes.push(format!("full backup: nobody knows what is being deleted: {doubt}"));
            return Ok(None);
        }
    };
    let parent = protocol_backup(component, &state.backup, &state.closure)?;
    let present = present(component, listing)?;
    match protocol::may_use_parent(&parent, marks, &present) {
        ParentUse::Use => Ok(Some(state)),
        ParentUse::Condemned => {
            notes.push("full backup: the one before, or a file of it, is going to be deleted".into());
            Ok(None)
        }
        ParentUse::Missing(name) if name == parent.name => {
            notes.push("full backup: the backup that the local state describes is no longer in the store".into());
            Ok(None)
        }
        // Only rows whose packs are there are used: `lost_packs` says which are not.
        ParentUse::Missing(_) => Ok(Some(state)),
    }
}

/// What is there: everything that is listed, and under one name the keys of every session that has a whole key file.
fn present(component: &ComponentName, listing: &Listing) -> Result<BTreeSet<Key>> {
    let folder = component.folder()?;
    let mut present: BTreeSet<Key> = listing.files.keys().cloned().collect();
    for (session, _) in listing.key_files.keys() {
        present.insert(keys_of(&folder, *session)?);
    }
    Ok(present)
}

/// What is being deleted, as far as it concerns the parent; or, in words, what of it cannot be judged: then nothing may be built upon. Where
/// the stores are several, those where it stands in the way of the others leave.
async fn read_condemned(repository: &Repository, plan: &BackupPlan, parent: &State) -> Result<Condemned> {
    let place = Place {
        repository,
        component: &plan.component,
        trust: &plan.trust,
    };
    match repository.replicas() {
        None => marks_of(&place).await,
        Some(replicas) => {
            let as_listed = protocol_backup(&plan.component, &parent.backup, &parent.closure)?;
            replicas
                .send_apart(&plan.component, &plan.trust, &as_listed, &parent.backup)
                .await
        }
    }
}

/// The parent, unless somebody could read its keys whom the configuration does not name (any more): what is written now is then sealed
/// under new keys, in a new lineage.
fn readable_by_ours_alone(
    parent: Option<State>,
    listing: &Listing,
    plan: &BackupPlan,
    notes: &mut Vec<String>,
) -> Result<Option<State>> {
    let Some(state) = parent else { return Ok(None) };
    let ours = plan.encryption.fingerprints()?;
    let clear = plan.encryption == Encryption::Clear;
    let mut known = state.readers.clone();
    let mut retired = false;
    for session in &state.closure.sessions {
        for file in listing.key_files.get(&(session.session, session.clear)).into_iter().flatten() {
            retired |= file.roster.retired;
            known.extend(file.roster.recipients.iter().flatten());
        }
    }
    let same_lineage = listing.backups.iter().filter(|backup| backup.header.lineage == state.lineage);
    known.extend(same_lineage.flat_map(|backup| &backup.header.recipients));
    let reason = if state.closure.sessions.iter().any(|session| session.clear != clear) {
        "encryption was switched on or off since the last one".to_owned()
    } else if retired {
        "the keys of the last one are retired".to_owned()
    } else if let Some(removed) = known.difference(&ours).next() {
        format!("a recipient that the configuration no longer names ({removed}) can read the keys of the last one")
    } else {
        return Ok(Some(state));
    };
    notes.push(format!("full backup under new keys: {reason}"));
    Ok(None)
}

/// Packs of the parent whose content must be stored again: missing, of another size, marked bad, or of a session without a whole key file.
fn lost_packs(state: &State, listing: &Listing, component: &ComponentName, notes: &mut Vec<String>) -> Result<HashSet<u32>> {
    let bad = component.folder()?.join("bad")?;
    let bad: HashSet<&str> = listing
        .files
        .keys()
        .filter(|key| key.is_under(&bad))
        .map(Key::file_name)
        .collect();
    let there = |key: &Key, size_bytes: u32, hash: &[u8; 32]| {
        listing.files.get(key) == Some(&u64::from(size_bytes)) && !bad.contains(hex::encode(hash).as_str())
    };
    let good = |file: &KeyFile| !bad.contains(hex::encode(file.name.hash).as_str());
    let readable = |session: &SessionKey| {
        let files = listing.key_files.get(&(session.session, session.clear));
        files.is_some_and(|files| files.iter().any(good))
    };
    let readable: Vec<bool> = state.closure.sessions.iter().map(readable).collect();
    let mut lost = HashSet::new();
    for pack in &state.closure.packs {
        let readable = readable.get(pack.session as usize).copied().unwrap_or(false);
        if !readable || !there(&state.closure.pack_key(pack, component)?, pack.size_bytes, &pack.hash) {
            lost.insert(pack.number);
        }
    }
    if !lost.is_empty() {
        notes.push(format!(
            "{} packs of earlier backups are missing or damaged in the store: what they held is stored again from the source",
            lost.len()
        ));
    }
    Ok(lost)
}

/// One more than the highest number that counts. Names of backups that do not count are honoured while they are near, because a damaged
/// backup may be mended; a name far off is somebody's nonsense and must not use the numbers up.
fn next_seq(standing: &HashSet<BackupId>, parent: Option<&State>, listing: &Listing) -> Result<u64> {
    const NEAR: u64 = 1 << 20;
    let counted = listing.backups.iter().map(|backup| backup.id.seq);
    let counted = counted.chain(parent.map(|state| state.backup.seq)).max().unwrap_or(0);
    let near = standing
        .iter()
        .map(|id| id.seq)
        .filter(|seq| seq.saturating_sub(counted) <= NEAR);
    let highest = near.max().unwrap_or(0).max(counted);
    highest.checked_add(1).ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            "number",
            "the next backup",
            "the sequence numbers in the store are used up",
        )
    })
}

async fn put_key(repository: &Repository, plan: &BackupPlan, keys: &SessionKeys) -> Result<KeyFile> {
    let bytes = keys.wrap(repository.id(), &plan.component, &plan.encryption, false)?;
    put_key_file(
        repository,
        &plan.component,
        keys.session,
        plan.encryption == Encryption::Clear,
        bytes,
    )
    .await
}

fn open_generation(folder: &StateFolder, parent: Option<&State>) -> Result<Generation> {
    // The current generation stays until another one is published, also when this backup does not build on it (INV-07).
    let current = folder.current_generation();
    folder.sweep(current)?;
    let number = current.map_or(Some(1), |number| number.checked_add(1)).unwrap_or(1);
    let path = folder.generation(number);
    durable::create_folder(&path)?;
    let parent_path = parent.map(|state| folder.generation(state.generation));
    if let Some(parent_path) = &parent_path {
        // The kernel copies, or shares blocks where the file system can.
        std::fs::copy(parent_path.join("slots"), path.join("slots"))
            .map_err(|error| Error::io("copy", parent_path.display(), error))?;
    }
    let open = |name: &str| open_file(&path, name, true);
    let [rows, hashes, slots, row_hashes, slot_hashes, engine] = GENERATION_FILES.map(open);
    let parent = match parent_path {
        None => None,
        Some(path) => {
            let open = |name: &str| open_file(&path, name, false).map(Arc::new);
            let [rows, hashes, _, row_hashes, slot_hashes, engine] = GENERATION_FILES.map(open);
            Some(ParentGeneration {
                rows: rows?,
                hashes: hashes?,
                row_hashes: row_hashes?,
                slot_hashes: slot_hashes?,
                engine: engine?,
            })
        }
    };
    durable::sync_folder(&path)?;
    Ok(Generation {
        number,
        rows: Arc::new(rows?),
        hashes: Arc::new(hashes?),
        slots: Arc::new(Slots::open(slots?)?),
        row_hashes: Arc::new(row_hashes?),
        slot_hashes: Arc::new(slot_hashes?),
        engine: Arc::new(engine?),
        parent,
    })
}

fn open_file(folder: &Path, name: &str, write: bool) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(name);
    let mut options = File::options();
    options.read(true).write(write).mode(durable::FILE_MODE);
    if write {
        options.create(true).truncate(false);
    }
    options.open(&path).map_err(|error| Error::io("open", path.display(), error))
}

/// The chunks of the parent's streams and of its file table that can be used again.
fn known_chunks(generation: &Generation, parent: Option<&State>, lost: &HashSet<u32>) -> Result<KnownChunks> {
    let mut chunks = KnownChunks::new();
    let (Some(state), Some(files)) = (parent, &generation.parent) else {
        return Ok(chunks);
    };
    let mut take = |row: Row| {
        if let Row::Blob { place, id, .. } = &row
            && !lost.contains(&place.pack)
        {
            chunks.insert(*id, row);
        }
        Ok(())
    };
    for file in state.files.iter().filter(|file| file.record.page_size == 0) {
        for_each_row(&files.rows, &file.record.ranges, &mut take)?;
    }
    for row in &state.file_table.rows {
        take(*row)?;
    }
    Ok(chunks)
}
