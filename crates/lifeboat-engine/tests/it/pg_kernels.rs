//! What is known about the files of a data directory, against real servers.

use std::collections::BTreeSet;
use std::path::Path;

use lifeboat_engine::postgres::control::{Control, State};
use lifeboat_engine::postgres::label::Label;
use lifeboat_engine::postgres::layout::{self, Class, Fork, Relation};
use lifeboat_engine::postgres::page::{self, PAGE_BYTES, Verdict};
use lifeboat_engine::postgres::{manifest, tar};
use lifeboat_model::{ErrorKind, Lsn};
use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};

/// Relative paths of all files and folders below `root`, `/`-separated.
fn tree(root: &Path) -> Vec<(String, bool)> {
    walkdir::WalkDir::new(root)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (path, entry.file_type().is_file())
        })
        .collect()
}

/// Some of everything: tables, indexes, maps, an unlogged table, several databases.
fn populated(major: u32) -> Cluster {
    let cluster = Cluster::start(major, &Options::new());
    cluster.pgbench_init(2);
    cluster.query("create unlogged table quick as select 1 as a from generate_series(1, 1000)");
    cluster.query("create database other");
    cluster.query_in(
        "other",
        "create table t as select generate_series(1, 50000) as a, repeat('x', 100) as b",
    );
    cluster.query_in("other", "vacuum t");
    cluster
}

#[test]
fn every_page_of_a_real_cluster_carries_our_number() {
    for major in majors() {
        let mut cluster = populated(major);
        cluster.stop(Stop::Fast);
        let data = cluster.data_dir();
        let (mut pages, mut files) = (0, 0);
        for (path, is_file) in tree(&data) {
            let Some(relation) = Relation::parse(&path).filter(|_| is_file) else {
                continue;
            };
            files += 1;
            let bytes = std::fs::read(data.join(&path)).unwrap();
            for (index, one) in bytes.chunks(PAGE_BYTES).enumerate() {
                let block = relation.first_block() + u32::try_from(index).unwrap();
                assert_eq!(
                    page::judge(one, block, Lsn(u64::MAX)),
                    Verdict::Fine,
                    "{major}: {path} block {block}"
                );
                pages += 1;
            }
        }
        assert!(pages > 2000 && files > 500, "{major}: {pages} pages in {files} files");
    }
}

#[test]
fn the_control_file_says_what_pg_controldata_says() {
    for major in majors() {
        let mut cluster = Cluster::start(
            major,
            &Options::new().set("max_connections", "37").set("wal_level", "logical"),
        );
        let data = cluster.data_dir();
        let running = Control::parse(&std::fs::read(data.join(layout::CONTROL)).unwrap()).unwrap();
        assert_eq!(running.state, State::Running);
        assert_eq!(running.system_identifier, cluster.system_identifier());
        cluster.stop(Stop::Fast);
        let bytes = std::fs::read(data.join(layout::CONTROL)).unwrap();
        let control = Control::parse(&bytes).unwrap();
        let output = cluster.run("pg_controldata", &["-D", data.to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        let says = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("{name} in {text}"));
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        assert_eq!(control.state, State::Stopped);
        assert_eq!(control.needs.connections, 37);
        assert!(control.checkable());
        for (name, value) in [
            ("pg_control version number", control.control_version.to_string()),
            ("Catalog version number", control.catalog_version.to_string()),
            ("Database system identifier", control.system_identifier.to_string()),
            ("Latest checkpoint location", control.checkpoint.to_string()),
            ("Latest checkpoint's REDO location", control.redo.to_string()),
            ("Latest checkpoint's TimeLineID", control.timeline.to_string()),
            ("Minimum recovery ending location", control.min_recovery.to_string()),
            ("Backup start location", control.backup_start.to_string()),
            (
                "End-of-backup record required",
                if control.backup_end_required { "yes" } else { "no" }.to_owned(),
            ),
            (
                "wal_level setting",
                ["minimal", "replica", "logical"][control.wal_level as usize].to_owned(),
            ),
            ("max_worker_processes setting", control.needs.worker_processes.to_string()),
            ("max_wal_senders setting", control.needs.wal_senders.to_string()),
            ("max_prepared_xacts setting", control.needs.prepared_transactions.to_string()),
            ("max_locks_per_xact setting", control.needs.locks_per_transaction.to_string()),
            ("Database block size", control.block_bytes.to_string()),
            ("Blocks per segment of large relation", control.segment_blocks.to_string()),
            ("Bytes per WAL segment", control.wal_segment_bytes.to_string()),
            ("Data page checksum version", u32::from(control.checksums).to_string()),
        ] {
            assert_eq!(says(name), value, "{major}: {name}");
        }
        // Every damaged bit in front of the sum is found.
        for at in 0..288 * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let kind = Control::parse(&damaged).unwrap_err().kind();
            assert!(
                matches!(kind, ErrorKind::Corrupt | ErrorKind::Incompatible),
                "{major}: bit {at}"
            );
        }
    }
}

/// What the server itself takes into its base, and what our lists say of the same folder.
#[test]
fn the_layout_is_that_of_the_servers_own_base() {
    for major in majors() {
        let mut cluster = populated(major);
        let data = cluster.data_dir();
        let base = cluster.folder().join("base-plain");
        cluster.run(
            "pg_basebackup",
            &[
                "-D",
                base.to_str().unwrap(),
                "-X",
                "none",
                "-c",
                "fast",
                "--manifest-checksums=NONE",
            ],
        );
        let own = tree(&data);
        let inits: BTreeSet<(String, u32)> = own
            .iter()
            .filter_map(|(path, _)| Relation::parse(path))
            .filter(|relation| relation.fork == Fork::Init)
            .map(|relation| (relation.folder.to_owned(), relation.number))
            .collect();
        assert!(!inits.is_empty());
        let mut ours = BTreeSet::new();
        for (path, is_file) in &own {
            let unlogged = Relation::parse(path)
                .is_some_and(|relation| relation.is_unlogged(inits.contains(&(relation.folder.to_owned(), relation.number))));
            if *is_file && layout::classify(path) == Class::Taken && !unlogged {
                ours.insert(path.clone());
            }
        }
        let mut listed = BTreeSet::new();
        let mut sizes = 0;
        let bytes = std::fs::read(base.join("backup_manifest")).unwrap();
        let summary = manifest::read(bytes.as_slice(), |file| {
            sizes += file.size_bytes;
            listed.insert(String::from_utf8(file.path).unwrap());
            Ok(())
        });
        let summary = summary.unwrap();
        assert!(listed.remove("backup_label"));
        assert_eq!(ours, listed, "{major}");
        assert_eq!(summary.system_identifier, (major >= 17).then(|| cluster.system_identifier()));
        let label = Label::parse(&std::fs::read(base.join("backup_label")).unwrap()).unwrap();
        assert_eq!(summary.wal[0].start, label.start);
        assert!(sizes > 10 << 20);
        cluster.stop(Stop::Immediate);
    }
}

#[test]
fn the_archive_of_a_server_is_split_into_the_files_of_its_manifest() {
    for major in majors() {
        let cluster = populated(major);
        let base = cluster.folder().join("base-tar");
        cluster.run(
            "pg_basebackup",
            &["-D", base.to_str().unwrap(), "-Ft", "-X", "none", "-c", "fast"],
        );
        let mut listed = BTreeSet::new();
        let bytes = std::fs::read(base.join("backup_manifest")).unwrap();
        manifest::read(bytes.as_slice(), |file| {
            listed.insert((String::from_utf8(file.path).unwrap(), file.size_bytes));
            Ok(())
        })
        .unwrap();
        let mut splitter = tar::Splitter::default();
        let (mut found, mut order, mut data) = (BTreeSet::new(), Vec::new(), 0);
        for piece in std::fs::read(base.join("base.tar")).unwrap().chunks(32 << 10) {
            let pushed = splitter.push(piece, |event| {
                match event {
                    tar::Event::Begin(entry) if entry.kind == tar::Kind::File => {
                        order.push(entry.path.clone());
                        found.insert((entry.path, entry.size_bytes));
                    }
                    tar::Event::Data(bytes) => data += bytes.len() as u64,
                    tar::Event::Begin(_) | tar::Event::End => {}
                }
                Ok(())
            });
            pushed.unwrap();
        }
        splitter.finish().unwrap();
        assert_eq!(found, listed, "{major}");
        assert_eq!(data, listed.iter().map(|(_, size)| size).sum::<u64>());
        assert_eq!(order.last().map(String::as_str), Some(layout::CONTROL));
    }
}
