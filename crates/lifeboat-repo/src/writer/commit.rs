//! Commit: maps → backup file → look again → local state (INV-02, INV-06, INV-07).

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_io::compute;
use lifeboat_model::protocol::{self, Standing};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{Key, Put};

use super::pages::state_io;
use super::shared::Shared;
use super::space::{self, Space};
use super::stream;
use super::{Committed, Generation, Stats, Writer};
use crate::closure::{Closure, Pack, SessionKey};
use crate::header::{self, Header};
use crate::id::BackupId;
use crate::key::file::{KeyFile, read_key_files};
use crate::listing::{Backup, protocol_backup};
use crate::manifest::{FileRecord, Inline, Manifest, encode_table};
use crate::map::{MAP_PAGE_BYTES, ROW_BYTES};
use crate::pack::{Compressor, PackClass};
use crate::prune::marks::read_sweeps;
use crate::prune::records::Place;
use crate::replicas::Wanted;
use crate::signed::{self, Kind};
use crate::state::State;

struct Maps {
    row_space: Inline,
    overlay_space: Inline,
    file_table: Inline,
}

pub(super) async fn commit(mut writer: Writer, moment_us: i64, facts: serde_json::Value) -> Result<Committed> {
    writer.refuse_unfinished()?;
    let maps = match store_maps(&writer).await {
        Ok(maps) => maps,
        Err(error) => return Err(writer.first_cause(error).await),
    };
    writer.shared.close_uploads();
    let uploaded = match writer.uploader.join_next().await {
        Some(Ok(result)) => result?,
        _ => return Err(Error::new(ErrorKind::Bug, "store", "the packs", "the uploader is gone")),
    };
    let closure = build_closure(&writer, &uploaded)?;
    let header = build_header(&writer, moment_us, &uploaded);
    let manifest = Manifest {
        row_space: maps.row_space.clone(),
        overlay_space: maps.overlay_space.clone(),
        file_table: maps.file_table.clone(),
        facts,
    };
    let bytes = seal(&writer, &header, &closure, &manifest)?;
    let id = BackupId {
        seq: writer.seq,
        hash: *blake3::hash(&bytes).as_bytes(),
    };
    let state = State {
        backup: id,
        lineage: writer.lineage,
        id_key: writer.id_key.clone(),
        source: writer.plan.source.clone(),
        readers: writer.readers.clone(),
        generation: writer.generation.number,
        last_pack: writer.shared.last_pack(),
        closure: closure.clone(),
        files: std::mem::take(&mut writer.files),
        row_space: maps.row_space,
        overlay_space: maps.overlay_space,
        file_table: maps.file_table,
    };
    sync_generation(&writer.generation)?;
    writer.folder.prepare(&state)?;
    let stored_bytes = header.stored_bytes + bytes.len() as u64;
    put_backup(&writer, &id, bytes).await?;
    look_again_in_each(&writer, &id, &closure, stored_bytes - header.stored_bytes).await?;
    let backup = Backup {
        id,
        key_files: look_again(&writer, &id, &closure).await?,
        header,
        closure,
    };
    writer.folder.publish(state.generation)?;
    let stats = Stats {
        read_bytes: writer.shared.read_bytes.load(std::sync::atomic::Ordering::Relaxed),
        changed_bytes: writer.shared.changed_bytes.load(std::sync::atomic::Ordering::Relaxed),
        stored_bytes,
        packs: uploaded.len() as u64,
    };
    Ok(Committed {
        backup,
        stats,
        notes: std::mem::take(&mut writer.notes),
        copies: writer.repository.copies(),
    })
}

/// Stores row space, overlay space and file table, and whatever packs are still open.
async fn store_maps(writer: &Writer) -> Result<Maps> {
    let records: Vec<FileRecord> = writer.files.iter().map(|file| file.record.clone()).collect();
    let rows_used = records
        .iter()
        .flat_map(|record| &record.ranges)
        .map(|(first, count)| first + count)
        .max()
        .unwrap_or(0);
    let size_bytes = (rows_used * ROW_BYTES as u64).next_multiple_of(MAP_PAGE_BYTES);
    let (shared, chunks) = (Arc::clone(&writer.shared), Arc::clone(&writer.chunks));
    let generation = &writer.generation;
    generation.rows.set_len(size_bytes).map_err(state_io)?;
    let rows = (Arc::clone(&generation.rows), Arc::clone(&generation.row_hashes));
    let slots = (Arc::clone(&generation.slots), Arc::clone(&generation.slot_hashes));
    let parent = writer.parent.as_ref().zip(generation.parent.as_ref()).map(|(state, files)| {
        (
            (state.row_space.clone(), Arc::clone(&files.row_hashes)),
            (state.overlay_space.clone(), Arc::clone(&files.slot_hashes)),
        )
    });
    compute::run("store the maps", move || {
        for pack in shared.drain_open() {
            finish_pack(&shared, pack)?;
        }
        let mut compressor = Compressor::new()?;
        let mut pack = None;
        let (parent_rows, parent_slots) = parent.unzip();
        let space = Space {
            file: &rows.0,
            size_bytes,
            hashes: &rows.1,
            parent: parent_rows.as_ref().map(|(inline, file)| (inline, file.as_ref())),
        };
        let row_space = space::store(&shared, &space, &mut compressor, &mut pack)?;
        let (slot_file, slot_bytes) = slots.0.finish()?;
        let space = Space {
            file: slot_file,
            size_bytes: slot_bytes,
            hashes: &slots.1,
            parent: parent_slots.as_ref().map(|(inline, file)| (inline, file.as_ref())),
        };
        let overlay_space = space::store(&shared, &space, &mut compressor, &mut pack)?;
        if let Some(pack) = pack {
            shared.upload(pack.finish())?;
        }
        let table = stream::store(
            &shared,
            PackClass::Map,
            &chunks,
            "the file table",
            Cursor::new(encode_table(&records)?),
        )?;
        Ok(Maps {
            row_space,
            overlay_space,
            file_table: Inline {
                size_bytes: table.size_bytes,
                rows: table.rows,
            },
        })
    })
    .await
}

/// A pack that was begun and stayed empty is not stored.
fn finish_pack(shared: &Shared, pack: crate::pack::PackBuilder) -> Result<()> {
    if pack.is_empty() {
        Ok(())
    } else {
        shared.upload(pack.finish())
    }
}

/// Exactly what the rows and slots of this backup reach (INV-06).
fn build_closure(writer: &Writer, uploaded: &[Pack]) -> Result<Closure> {
    let new: BTreeMap<u32, &Pack> = uploaded.iter().map(|pack| (pack.number, pack)).collect();
    let mut closure = Closure {
        sessions: vec![writer.key],
        packs: Vec::new(),
    };
    for number in writer.shared.reached() {
        if let Some(pack) = new.get(&number) {
            closure.packs.push(**pack);
            continue;
        }
        let old = writer.parent.as_ref().and_then(|state| {
            state
                .closure
                .pack(number)
                .zip(state.closure.pack(number).and_then(|pack| state.closure.session_of(pack)))
        });
        let Some((pack, session)) = old else {
            return Err(Error::new(
                ErrorKind::Bug,
                "name",
                format!("pack {number}"),
                "a row reaches it, but it was neither written now nor known before",
            ));
        };
        let index = session_index(&mut closure.sessions, *session)?;
        closure.packs.push(Pack { session: index, ..*pack });
    }
    Ok(closure)
}

fn session_index(sessions: &mut Vec<SessionKey>, session: SessionKey) -> Result<u32> {
    let index = sessions.iter().position(|known| *known == session).unwrap_or_else(|| {
        sessions.push(session);
        sessions.len() - 1
    });
    crate::bytes::len_u32(index, "a closure")
}

fn build_header(writer: &Writer, moment_us: i64, uploaded: &[Pack]) -> Header {
    let packs: u64 = uploaded.iter().map(|pack| u64::from(pack.size_bytes)).sum();
    Header {
        repository: writer.repository.id(),
        component: writer.plan.component.clone(),
        kind: writer.plan.kind.clone(),
        method: writer.plan.method.clone(),
        lineage: writer.lineage,
        seq: writer.seq,
        session: writer.session,
        instance: writer.plan.instance.name().to_owned(),
        source: writer.plan.source.clone(),
        moment_us,
        began_us: writer.open.began_us,
        size_bytes: writer.tree.map_or_else(
            || writer.files.iter().map(|file| file.record.size_bytes).sum(),
            |tree| tree.size_bytes,
        ),
        stored_bytes: packs + writer.key_file.size_bytes,
        files: writer.tree.map_or(writer.files.len() as u64, |tree| tree.files),
        parent: writer.parent.as_ref().map(|state| state.backup.to_string()),
        extract: writer.plan.extract,
        incomplete: false,
        tags: writer.plan.tags.clone(),
        reason: writer.plan.reason.clone(),
        recipients: writer.key_file.roster.recipients.iter().flatten().copied().collect(),
        keep_for_s: writer.plan.keep_for.map(|duration| duration.as_secs()),
        log: writer.log,
        bad_pages: writer.bad_pages,
    }
}

fn seal(writer: &Writer, header: &Header, closure: &Closure, manifest: &Manifest) -> Result<Vec<u8>> {
    let unsealed = manifest.prepare()?;
    let mut body = header::encode(header, closure, unsealed.sealed_bytes())?;
    let sealed = unsealed.seal(&writer.env, &writer.shared.data_key, &writer.shared.scope, &body)?;
    body.extend_from_slice(&sealed);
    Ok(signed::sign(Kind::Backup, body, &writer.plan.instance))
}

fn sync_generation(generation: &Generation) -> Result<()> {
    let (slots, _) = generation.slots.finish()?;
    for file in [
        &*generation.rows,
        &*generation.hashes,
        slots,
        &*generation.row_hashes,
        &*generation.slot_hashes,
        &*generation.engine,
    ] {
        file.sync_all().map_err(state_io)?;
    }
    Ok(())
}

fn backup_key(writer: &Writer, id: &BackupId) -> Result<Key> {
    writer.plan.component.folder()?.join(&format!("backups/{id}"))
}

async fn put_backup(writer: &Writer, id: &BackupId, bytes: Vec<u8>) -> Result<()> {
    if !protocol::may_publish(&writer.open.announced(), writer.open.elapsed()) {
        return Err(too_late(writer));
    }
    let key = backup_key(writer, id)?;
    match writer.repository.store().put(&key, Bytes::from(bytes)).await? {
        Put::Created | Put::AlreadyThere => Ok(()),
    }
}

fn too_late(writer: &Writer) -> Error {
    let detail = "it took longer than its session lasts (48 h after it was last extended), so it does not count";
    Error::new(ErrorKind::TimedOut, "commit the backup of", &writer.plan.component, detail)
        .with_hint("find out what makes it so slow (the store, the network), then run it again")
}

/// Where the stores are several: those where the backup does not count leave, and keep no announcement.
async fn look_again_in_each(writer: &Writer, id: &BackupId, closure: &Closure, size_bytes: u64) -> Result<()> {
    let Some(replicas) = writer.repository.replicas() else {
        return Ok(());
    };
    let component = &writer.plan.component;
    let own = [
        (writer.key_file.name.key(component)?, writer.key_file.size_bytes),
        (backup_key(writer, id)?, size_bytes),
    ];
    let as_listed = protocol_backup(component, id, closure)?;
    let wanted = Wanted::new(*id, closure, component)?;
    replicas
        .look_again(component, &writer.plan.trust, &as_listed, &wanted, &own)
        .await?;
    replicas.withdraw(&writer.open.names()?).await;
    Ok(())
}

/// Lists all files of the backup once more: one that went missing between its put and the commit makes the backup not count. Returns its
/// key files.
async fn look_again(writer: &Writer, id: &BackupId, closure: &Closure) -> Result<Vec<KeyFile>> {
    let component = &writer.plan.component;
    let folder = component.folder()?;
    let entries = writer.repository.store().list(&folder).await?;
    let now = writer.open.elapsed();
    let place = Place {
        repository: &writer.repository,
        component,
        trust: &writer.plan.trust,
    };
    let prune = folder.join("prune")?;
    let (sweeps, _) = read_sweeps(&place, entries.iter().filter(|entry| entry.key.is_under(&prune))).await?;
    let as_listed = protocol_backup(component, id, closure)?;
    let swept = sweeps.iter().any(|marks| marks.touches(&as_listed));
    let standing = if swept { Standing::Swept } else { Standing::Counts };
    // INV-15: one that landed late may be swept any time; it is not reported as made, and nothing builds on it.
    if !protocol::is_done(&writer.open.announced(), now, &standing) {
        return Err(too_late(writer));
    }
    let listed: BTreeMap<Key, u64> = entries.into_iter().map(|entry| (entry.key, entry.size_bytes)).collect();
    let lost = |what: String| {
        Error::new(
            ErrorKind::Corrupt,
            "commit the backup of",
            component,
            format!("{what} is no longer in the store, though it was stored"),
        )
        .with_hint("something else deletes from this store; find it, then run the backup again")
    };
    for (key, size_bytes) in closure.pack_files(component)? {
        if listed.get(&key) != Some(&size_bytes) {
            return Err(lost(key.to_string()));
        }
    }
    let mut key_files = Vec::new();
    for session in &closure.sessions {
        let old = writer
            .old_key_files
            .get(&(session.session, session.clear))
            .into_iter()
            .flatten();
        let before = key_files.len();
        for file in old.chain((session.session == writer.session).then_some(&writer.key_file)) {
            if listed.get(&file.name.key(component)?) == Some(&file.size_bytes) {
                key_files.push(file.clone());
            }
        }
        if key_files.len() == before {
            // Whoever replaced the key files of an old session meanwhile put others there first: these are read.
            let folder = component.folder()?.join("keys")?;
            let found = writer.repository.store().list(&folder).await?;
            let mut found = read_key_files(writer.repository.store(), found.iter(), |name| {
                name.session == session.session
            })
            .await?;
            let found = found.remove(&(session.session, session.clear));
            key_files.extend(found.ok_or_else(|| lost(format!("the key file of session {}", session.session)))?);
        }
    }
    Ok(key_files)
}
