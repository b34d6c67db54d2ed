//! Backup files with a good signature and something else wrong: what a stolen host, or a newer Lifeboat, could put there.

use lifeboat_model::ErrorKind;
use lifeboat_store::BlobStore;
use lifeboat_testkit::pages::{change_pages, table_pages};

use super::world::{World, pages, seed};
use crate::header::{self, HEADER_BYTES};
use crate::manifest::{FileMeta, FileRecord, decode_table, encode_table};
use crate::signed::{self, Kind, TRAILER_BYTES};
use crate::{Backup, BackupId};

async fn two_backups() -> (World, Vec<Backup>, Vec<Vec<u8>>) {
    let world = World::new(seed()).await;
    let mut bytes = table_pages(1, 4096, 70);
    let mut backups = Vec::new();
    let mut bodies = Vec::new();
    for round in 0..2 {
        change_pages(&mut bytes, 4096, round, 2);
        let backup = world.backup(&pages("db", bytes.clone(), 4096)).await.backup;
        let key = world
            .component
            .folder()
            .unwrap()
            .join(&format!("backups/{}", backup.id))
            .unwrap();
        let mut body = world.bytes_of(&key).await;
        body.truncate(body.len() - TRAILER_BYTES);
        backups.push(backup);
        bodies.push(body);
    }
    (world, backups, bodies)
}

/// Signs `body` with the trusted key and puts it as backup `seq`.
async fn plant(world: &World, seq: u64, body: Vec<u8>, kind: Kind) -> BackupId {
    let bytes = signed::sign(kind, body, &world.instance);
    let id = BackupId {
        seq,
        hash: *blake3::hash(&bytes).as_bytes(),
    };
    let key = world.component.folder().unwrap().join(&format!("backups/{id}")).unwrap();
    let _put = world.memory.put(&key, bytes.into()).await.unwrap();
    id
}

/// The body with another header JSON.
fn with_json(body: &[u8], from: &str, to: &str) -> Vec<u8> {
    let length = u32::from_le_bytes(body[8..12].try_into().unwrap()) as usize;
    let json = String::from_utf8(body[48..48 + length].to_vec()).unwrap();
    assert!(json.contains(from), "{json}");
    let json = json.replacen(from, to, 1);
    let mut changed = body.to_vec();
    changed[8..12].copy_from_slice(&u32::try_from(json.len()).unwrap().to_le_bytes());
    changed[48..HEADER_BYTES].fill(b' ');
    changed[48..48 + json.len()].copy_from_slice(json.as_bytes());
    changed
}

async fn rejected_as(world: &World, id: BackupId) -> Option<ErrorKind> {
    let listing = world.listing().await;
    let found = listing.rejected.into_iter().find(|rejected| rejected.name == id.to_string());
    found.map(|rejected| rejected.reason.kind())
}

#[tokio::test]
async fn unknown_features_and_versions_are_refused() {
    let (world, backups, bodies) = two_backups().await;
    for (from, to) in [
        ("\"features\":[]", "\"features\":[\"holes\"]"),
        ("{\"version\":1", "{\"version\":2"),
    ] {
        let id = plant(&world, 2, with_json(&bodies[1], from, to), Kind::Backup).await;
        assert_eq!(rejected_as(&world, id).await, Some(ErrorKind::Incompatible), "{to}");
    }
    let mut logs = bodies[1].clone();
    logs[HEADER_BYTES + 8] = 1;
    let id = plant(&world, 2, logs, Kind::Backup).await;
    assert_eq!(rejected_as(&world, id).await, Some(ErrorKind::Incompatible));
    // Unknown fields are ignored.
    let id = plant(
        &world,
        2,
        with_json(&bodies[1], "{\"version\":1", "{\"later\":5,\"version\":1"),
        Kind::Backup,
    )
    .await;
    assert_eq!(rejected_as(&world, id).await, None);
    assert_eq!(world.listing().await.backups.len(), 3);
    assert!(backups.len() == 2);
}

/// INV-10: the header is the manifest's associated data: one from another backup opens nothing.
#[tokio::test]
async fn a_changed_or_exchanged_header_opens_nothing() {
    let (world, _, bodies) = two_backups().await;
    let mut planted = vec![plant(&world, 9, with_json(&bodies[1], "\"seq\":2", "\"seq\":9"), Kind::Backup).await];
    let later = with_json(&bodies[1], "\"moment\":\"2026", "\"moment\":\"2036");
    planted.push(plant(&world, 2, later, Kind::Backup).await);
    // The header and closure of the second with the manifest of the first.
    let (first, second) = (header::decode(&bodies[0]).unwrap(), header::decode(&bodies[1]).unwrap());
    let mut mixed = second.clear.to_vec();
    mixed[24..32].copy_from_slice(&(first.manifest.len() as u64).to_le_bytes());
    mixed.extend_from_slice(first.manifest);
    planted.push(plant(&world, 2, mixed, Kind::Backup).await);
    // A closure that names less than the maps reach.
    let mut less = second.closure.clone();
    less.packs.remove(0);
    let mut cut = header::encode(&second.header, &less, second.manifest.len()).unwrap();
    cut.extend_from_slice(second.manifest);
    planted.push(plant(&world, 2, cut, Kind::Backup).await);
    let listing = world.listing().await;
    for id in planted {
        let backup = listing.backups.iter().find(|backup| backup.id == id).unwrap();
        let error = world.open(backup).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.detail().contains("authentication tag"), "{error}");
    }
}

#[tokio::test]
async fn bodies_that_do_not_add_up_are_rejected() {
    let (world, _, bodies) = two_backups().await;
    let body = &bodies[1];
    let edit = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = body.clone();
        change(&mut body);
        body
    };
    let cases = [
        edit(&|body| body[0] ^= 1),
        edit(&|body| body.push(0)),
        edit(&|body| body.truncate(HEADER_BYTES)),
        edit(&|body| body.truncate(20)),
        edit(&|body| body[8..12].copy_from_slice(&5000_u32.to_le_bytes())),
        edit(&|body| body[8..12].copy_from_slice(&0_u32.to_le_bytes())),
        edit(&|body| body[16..24].copy_from_slice(&u64::MAX.to_le_bytes())),
        edit(&|body| body[24..32].copy_from_slice(&1_u64.to_le_bytes())),
        // No key file; a pack class that does not exist; a key that is not there.
        edit(&|body| body[HEADER_BYTES..HEADER_BYTES + 4].fill(0)),
        edit(&|body| body[HEADER_BYTES..HEADER_BYTES + 4].fill(0xFF)),
        with_json(body, "\"component\":\"shop/db\"", "\"component\":\"shop/../db\""),
        with_json(body, "\"component\":\"shop/db\"", "\"component\":\"shop/web\""),
        with_json(body, "\"lineage\":\"", "\"lineage\":\"zz"),
        with_json(body, "\"seq\":2", "\"seq\":\"2\""),
    ];
    for (number, body) in cases.into_iter().enumerate() {
        let id = plant(&world, 2, body, Kind::Backup).await;
        assert_eq!(rejected_as(&world, id).await, Some(ErrorKind::Corrupt), "case {number}");
    }
    // A genuine announcement is not a backup, whatever it holds.
    let id = plant(&world, 2, body.clone(), Kind::Session).await;
    assert_eq!(rejected_as(&world, id).await, Some(ErrorKind::Corrupt));
    assert_eq!(world.listing().await.backups.len(), 2);
}

fn record(path: &str) -> FileRecord {
    FileRecord {
        role: crate::manifest::Role::File,
        meta: FileMeta {
            path: path.to_owned(),
            mode: 0,
            uid: 0,
            gid: 0,
            modified_us: 0,
        },
        page_size: 4096,
        size_bytes: 131_073,
        root: [1; 32],
        ranges: vec![(128, 2)],
    }
}

#[test]
fn a_file_table_that_could_climb_out_or_overflow_is_refused() {
    let line = |record: FileRecord| decode_table(&encode_table(&[record]).unwrap());
    assert_eq!(line(record("a/b")).unwrap(), [record("a/b")]);
    for path in ["..", "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "", "a/", "a\0b"] {
        assert_eq!(line(record(path)).unwrap_err().kind(), ErrorKind::Corrupt, "{path:?}");
    }
    assert!(decode_table(&encode_table(&[record("a"), record("a")]).unwrap()).is_err());
    let changes: [fn(&mut FileRecord); 9] = [
        |record| record.page_size = 100,
        |record| record.page_size = 1 << 17,
        |record| record.ranges = vec![(u64::MAX, 2)],
        |record| record.ranges = vec![(0, u64::MAX)],
        |record| record.ranges = vec![(0, 1), (128, u64::MAX)],
        |record| record.ranges = vec![(1, 2)],
        |record| record.ranges = vec![(0, 2), (128, 0)],
        |record| record.ranges = vec![(0, 3)],
        |record| record.size_bytes = u64::MAX,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut changed = record("a");
        change(&mut changed);
        assert_eq!(line(changed).unwrap_err().kind(), ErrorKind::Corrupt, "change {number}");
    }
}
