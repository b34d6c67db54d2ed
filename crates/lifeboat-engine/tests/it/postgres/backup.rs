//! A base backup as it comes over the wire is what `pg_basebackup` makes of the same server.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use lifeboat_engine::postgres::replication::backup::{BaseBackup, Event, Request};
use lifeboat_model::ErrorKind;
use lifeboat_model::lsn::Position;
use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};
use sha2::{Digest, Sha256};

use super::replication;

/// Archives by name, with the place of their tablespace, and the manifest.
#[derive(Default)]
struct Taken {
    archives: BTreeMap<String, (Option<String>, Vec<u8>)>,
    manifest: Vec<u8>,
    progress: u64,
}

async fn take(mut backup: BaseBackup) -> (Taken, Position) {
    let mut taken = Taken::default();
    let mut open = None;
    loop {
        match backup.next().await.unwrap() {
            Event::Archive { name, location } => {
                taken.archives.insert(name.clone(), (location, Vec::new()));
                open = Some(name);
            }
            Event::Manifest => open = None,
            Event::Data(data) => match &open {
                Some(name) => taken.archives.get_mut(name).unwrap().1.extend_from_slice(&data),
                None => taken.manifest.extend_from_slice(&data),
            },
            Event::Progress(bytes) => taken.progress = taken.progress.max(bytes),
            Event::End => break,
        }
    }
    let (end, mut connection) = backup.finish().await.unwrap();
    connection.identify_system().await.unwrap();
    (taken, end)
}

/// Files of a tar, and the order in which they stood.
fn files(tar: &[u8]) -> (BTreeMap<String, Vec<u8>>, Vec<String>) {
    let mut all = BTreeMap::new();
    let mut order = Vec::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            order.push(name.clone());
            all.insert(name, bytes);
        }
    }
    (all, order)
}

fn folder(root: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(root).unwrap().display().to_string();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// What every backup of the same server has its own of.
fn is_common(name: &str) -> bool {
    !matches!(
        name,
        "backup_label" | "backup_manifest" | "tablespace_map" | "global/pg_control"
    ) && !name.starts_with("pg_wal/")
}

fn assert_manifest_is_whole(manifest: &[u8]) {
    let text = std::str::from_utf8(manifest).unwrap();
    let at = text.rfind("\"Manifest-Checksum\"").unwrap();
    let sum = hex::encode(Sha256::digest(&manifest[..at]));
    assert!(text.split_at(at).1.contains(&sum), "the manifest is not whole");
}

#[tokio::test]
async fn what_comes_is_what_pg_basebackup_makes() {
    for major in majors() {
        let cluster = Cluster::start(major, &Options::new());
        let place = cluster.make_folder("space");
        cluster.query(&format!("create tablespace other location '{}'", place.display()));
        cluster.query("create table here as select i, md5(i::text) as t from generate_series(1, 20000) i");
        cluster.query("create table there tablespace other as select * from here");
        cluster.query("vacuum freeze");
        cluster.query("checkpoint");
        let connection = replication(&cluster).await;
        let mut request = Request::new("it's a backup");
        request.progress = true;
        let backup = connection.base_backup(&request).await.unwrap();
        let start = backup.start();
        assert_eq!(backup.tablespaces().len(), 2);
        let [other, base] = backup.tablespaces() else {
            panic!("two archives")
        };
        assert_eq!((other.location.as_deref(), base.oid), (place.to_str(), None));
        assert!(base.size.unwrap() > 1 << 20);
        let (taken, end) = take(backup).await;
        assert!(end.lsn > start.lsn && end.timeline == start.timeline);
        assert!(taken.progress > 1 << 20);
        assert_manifest_is_whole(&taken.manifest);
        let (base, order) = files(&taken.archives["base.tar"].1);
        assert_eq!(order.first().map(String::as_str), Some("backup_label"));
        assert_eq!(order.last().map(String::as_str), Some("global/pg_control"));
        assert!(String::from_utf8_lossy(&base["backup_label"]).contains("LABEL: it's a backup\n"));
        assert!(base.contains_key("tablespace_map"));

        let made = cluster.make_folder("made");
        let data = made.join("data").display().to_string();
        let map = format!("{}={}", place.display(), made.join("space").display());
        cluster.run("pg_basebackup", &["-D", &data, "-T", &map, "-X", "none", "-c", "fast"]);
        let theirs = folder(&made.join("data"));
        let common = |all: &BTreeMap<String, Vec<u8>>| all.keys().filter(|name| is_common(name)).cloned().collect::<Vec<_>>();
        assert_eq!(common(&base), common(&theirs));
        for name in common(&base) {
            assert!(base[&name] == theirs[&name], "{name} differs");
        }
        let (name, (location, tar)) = taken.archives.first_key_value().unwrap();
        assert!(
            name.ends_with(".tar") && location.as_deref() == place.to_str(),
            "{name} {location:?}"
        );
        let (ours, theirs) = (files(tar).0, folder(&made.join("space")));
        assert!(ours == theirs && !ours.is_empty(), "the tablespace differs");
    }
}

#[tokio::test]
async fn an_increment_holds_what_changed_since_the_manifest_that_was_sent() {
    let cluster = Cluster::start(18, &Options::new().set("summarize_wal", "on"));
    cluster.query("create table big as select i, repeat('x', 100) as t from generate_series(1, 50000) i");
    // Otherwise the first reader sets hint bits, which changes every page.
    cluster.query("vacuum freeze");
    let (full, _) = take(replication(&cluster).await.base_backup(&Request::new("full")).await.unwrap()).await;
    cluster.query("update big set t = 'y' where i = 7");
    let mut connection = replication(&cluster).await;
    let mut request = Request::new("increment");
    request.incremental = true;
    let error = replication(&cluster).await.base_backup(&request).await.unwrap_err();
    assert!(error.detail().contains("UPLOAD_MANIFEST"), "{error:?}");
    connection.upload_manifest(&mut &full.manifest[..]).await.unwrap();
    let (increment, _) = take(connection.base_backup(&request).await.unwrap()).await;
    let name = cluster.query("select pg_relation_filepath('big')");
    let (folder, file) = name.rsplit_once('/').unwrap();
    let (files, _) = files(&increment.archives["base.tar"].1);
    let changed = &files[&format!("{folder}/INCREMENTAL.{file}")];
    assert_eq!(changed[..4], 0xd3ae_1f0d_u32.to_le_bytes());
    assert!((1..10).contains(&u32::from_le_bytes(changed[4..8].try_into().unwrap())));
    assert!(increment.archives["base.tar"].1.len() * 3 < full.archives["base.tar"].1.len());
    assert_manifest_is_whole(&increment.manifest);

    // A manifest that is damaged, or none at all, is refused, and the connection remains.
    let mut connection = replication(&cluster).await;
    let error = connection
        .upload_manifest(&mut &full.manifest[..full.manifest.len() - 100])
        .await
        .unwrap_err();
    assert!(error.detail().contains("manifest"), "{error:?}");
    let mut connection = replication(&cluster).await;
    connection.upload_manifest(&mut &b"{}"[..]).await.unwrap_err();

    let old = Cluster::start(16, &Options::new());
    let mut connection = replication(&old).await;
    let error = connection.upload_manifest(&mut &full.manifest[..]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert_eq!(
        connection.base_backup(&request).await.unwrap_err().kind(),
        ErrorKind::Incompatible
    );
}

#[tokio::test]
async fn a_bad_page_fails_the_check_of_the_server_and_a_killed_server_the_backup() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new());
        cluster.query("create table t as select i, repeat('x', 100) as t from generate_series(1, 100000) i");
        let mut scrub = Request::new("scrub");
        (scrub.blackhole, scrub.verify_checksums, scrub.manifest) = (true, true, None);
        let (nothing, _) = take(replication(&cluster).await.base_backup(&scrub).await.unwrap()).await;
        assert!(nothing.archives.values().all(|(_, bytes)| bytes.is_empty()));

        let mut backup = replication(&cluster).await.base_backup(&Request::new("dies")).await.unwrap();
        for _ in 0..3 {
            backup.next().await.unwrap();
        }
        cluster.kill_9();
        let error = loop {
            match backup.next().await {
                Ok(Event::End) => break backup.finish().await.map(|_| ()).unwrap_err(),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");

        cluster.begin();
        let name = cluster.query("select pg_relation_filepath('t')");
        cluster.stop(Stop::Fast);
        let path = cluster.data_dir().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8192 * 3 + 5000] ^= 1;
        cluster.write(&path, &bytes);
        cluster.begin();
        let mut backup = replication(&cluster).await.base_backup(&scrub).await.unwrap();
        while backup.next().await.unwrap() != Event::End {}
        let error = backup.finish().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    }
}
