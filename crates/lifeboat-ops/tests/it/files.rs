//! Files: what goes in comes out, whatever it is, and nothing is skipped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_engine::files::Options;
use lifeboat_model::{ErrorKind, Result};
use lifeboat_ops::restore::{self, Destination, Selection, tree_place};
use lifeboat_ops::verify::{self, Level};
use lifeboat_ops::{Source, backup};
use lifeboat_repo::Encryption;

use crate::world::{World, beside, kind_of};

pub struct Files {
    pub world: World,
    pub root: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Files {
    /// An empty folder that is backed up whole.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::at(folder.path(), true).await;
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        world.protected.source = source(options(&root, &["**"]));
        Self { world, root, folder }
    }

    pub fn options(&mut self) -> &mut Options {
        match &mut self.world.protected.source {
            Source::Files { files, .. } => files,
            other => panic!("{other:?}"),
        }
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub async fn back_up(&self) -> backup::Report {
        self.world.back_up().await.unwrap()
    }

    /// Restores the newest backup to a new folder.
    pub async fn restore(&self, name: &str) -> (PathBuf, restore::Report) {
        let to = self.folder.path().join(name);
        let destination = Destination::Beside {
            path: to.clone(),
            keep_owner: true,
        };
        let report = self.select_to(destination, &Selection::default()).await.unwrap();
        (to, report)
    }

    pub async fn select(&self, to: &Path, selection: &Selection) -> Result<restore::Report> {
        self.select_to(beside(to), selection).await
    }

    pub async fn select_to(&self, destination: Destination, selection: &Selection) -> Result<restore::Report> {
        let world = &self.world;
        let repository = world.protected.repository().await?;
        let listing = world.protected.listing(&repository).await?;
        let backup = listing.latest().unwrap();
        restore::run_selected(
            &world.env,
            &world.protected,
            &repository,
            backup,
            &world.identities,
            destination,
            selection,
        )
        .await
    }
}

pub fn options(root: &Path, include: &[&str]) -> Options {
    Options {
        root: root.to_path_buf(),
        include: include.iter().map(|pattern| (*pattern).to_owned()).collect(),
        optional: Vec::new(),
        exclude: Vec::new(),
        env_structure: Vec::new(),
        follow_links: false,
        max_change_retries: 3,
    }
}

fn source(files: Options) -> Source {
    Source::Files {
        files,
        encryption_required: false,
    }
}

/// Everything that can be seen of a tree.
pub fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_dir() {
                folders.push(path.clone());
                String::new()
            } else if meta.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).unwrap())
            } else if meta.is_file() {
                blake3::hash(&std::fs::read(&path).unwrap()).to_string()
            } else {
                "special".to_owned()
            };
            let size = if meta.is_dir() { 0 } else { meta.len() };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let line = format!(
                "{:o} {} {}.{} {links} {content} {:?}",
                meta.mode(),
                size,
                meta.mtime(),
                meta.mtime_nsec(),
                attribute(&path)
            );
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), line);
        }
    }
    found
}

fn attribute(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let length = rustix::fs::lgetxattr(path, "user.lifeboat", value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// One of everything that a folder can hold.
fn everything(files: &Files) {
    files.write("a/plain", b"plain");
    files.write("a/empty", b"");
    files.write("a-b", b"sorts between");
    files.write("big", noise(5 << 20));
    files.write("name with \"quotes\"\n and line", b"x");
    std::fs::write(files.root.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), b"bytes").unwrap();
    let mode = |path: &str, mode: u32| {
        std::fs::set_permissions(files.root.join(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("a/plain", 0o4751);
    std::fs::create_dir_all(files.root.join("deep/er/est")).unwrap();
    mode("deep/er", 0o1770);
    symlink("../a/plain", files.root.join("deep/link")).unwrap();
    symlink("nowhere", files.root.join("dangling")).unwrap();
    symlink("a", files.root.join("folder-link")).unwrap();
    std::fs::hard_link(files.root.join("a/plain"), files.root.join("z-hard")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        files.root.join("a/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o620),
        0,
    )
    .unwrap();
    let sparse = std::fs::File::create(files.root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 20 << 20).unwrap();
    sparse.write_all_at(b"near the end", 60 << 20).unwrap();
    for path in ["a/plain", "deep"] {
        let set = rustix::fs::setxattr(
            files.root.join(path),
            "user.lifeboat",
            b"value \0 with zero",
            rustix::fs::XattrFlags::empty(),
        );
        // Not every file system of a test machine has them.
        assert!(matches!(set, Ok(()) | Err(rustix::io::Errno::OPNOTSUPP)), "{set:?}");
    }
    let old = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567, 891_234_567));
    std::fs::File::open(files.root.join("a-b")).unwrap().set_times(old).unwrap();
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_a_folder_comes_back() {
    let files = Files::new().await;
    everything(&files);
    let before = seen(&files.root);
    let report = files.back_up().await;
    let facts = report.facts.files().unwrap();
    assert_eq!((facts.links, facts.others, facts.outside_links), (3, 1, 0));
    assert_eq!(facts.files, report.backup.header.files);
    assert_eq!(facts.size_bytes, report.backup.header.size_bytes);
    assert!(facts.size_bytes < 7 << 20, "holes are not stored: {}", facts.size_bytes);
    let (to, restored) = files.restore("restored").await;
    assert_eq!(seen(&to), before);
    assert_eq!(restored.findings.files, facts.files);
    assert!(restored.notes.is_empty(), "{:?}", restored.notes);
    let sparse = to.join("sparse").metadata().unwrap();
    assert!(sparse.blocks() * 512 < 4 << 20, "{} blocks", sparse.blocks());
    assert_eq!(
        to.join("a/plain").metadata().unwrap().ino(),
        to.join("z-hard").metadata().unwrap().ino()
    );
    // And once more, unchanged, changed, and by the other verb.
    let second = files.back_up().await;
    assert_eq!(second.backup.header.size_bytes, report.backup.header.size_bytes);
    assert!(second.stats.stored_bytes < 16 << 10, "{:?}", second.stats);
    files.write("a/plain2", b"new");
    std::fs::remove_file(files.root.join("a-b")).unwrap();
    let before = seen(&files.root);
    drop(files.back_up().await);
    assert_eq!(seen(&files.restore("again").await.0), before);
    let world = &files.world;
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    for backup in &listing.backups {
        for level in [Level::Decrypt, Level::Restore] {
            let scratch = verify::scratch_folder(&world.env, &world.protected).unwrap();
            let report = verify::run(
                &world.env,
                &world.protected,
                &repository,
                backup,
                level,
                &world.identities,
                scratch,
            );
            drop(report.await.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_files_cost_little_when_nothing_changed() {
    let files = Files::new().await;
    for folder in 0..200 {
        let folder = files.root.join(format!("d{folder}"));
        std::fs::create_dir(&folder).unwrap();
        for number in 0..100 {
            std::fs::write(folder.join(format!("f{number}")), format!("{} {number}", folder.display())).unwrap();
        }
    }
    let first = files.back_up().await;
    assert_eq!(first.facts.files().unwrap().files, 20_000);
    let second = files.back_up().await;
    assert!(second.stats.stored_bytes < 64 << 10, "{:?}", second.stats);
    files.write("d7/f7", b"changed");
    let third = files.back_up().await;
    assert!(third.stats.stored_bytes < 1 << 20, "{:?}", third.stats);
    let (to, _) = files.restore("restored").await;
    assert_eq!(seen(&to), seen(&files.root));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_changes_do_not_pile_up() {
    let files = Files::new().await;
    for number in 0..30 {
        files.write(&format!("f{number}"), format!("first {number}"));
    }
    for round in 0..24 {
        files.write(&format!("f{round}"), format!("changed in {round}"));
        drop(files.back_up().await);
    }
    let world = &files.world;
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    let latest = listing.latest().unwrap();
    let reader = lifeboat_repo::Reader::open(&world.env, &repository, latest, &world.identities)
        .await
        .unwrap();
    assert!(reader.files().len() <= 20, "{}", reader.files().len());
    assert_eq!(seen(&files.restore("restored").await.0), seen(&files.root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pack_is_stored_again() {
    let files = Files::new().await;
    files.write("a", noise(100_000));
    drop(files.back_up().await);
    let packs = walk(&files.folder.path().join("store"))
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("/packs/"));
    for pack in packs {
        std::fs::remove_file(pack).unwrap();
    }
    files.write("b", b"b");
    drop(files.back_up().await);
    assert_eq!(seen(&files.restore("restored").await.0), seen(&files.root));
}

pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_03_what_was_asked_for_is_there_or_the_backup_fails() {
    let mut files = Files::new().await;
    files.write("etc/app.yaml", b"a: 1");
    files.write("etc/other.txt", b"x");
    *files.options() = options(&files.root.clone(), &["etc/*.yaml", "missing.conf"]);
    let error = files.world.back_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("missing.conf"), "{error}");
    let root = files.root.clone();
    files.options().include.pop();
    files.options().optional.push("missing.conf".into());
    let facts = files.back_up().await.facts.files().unwrap().clone();
    assert_eq!((facts.files, facts.folders), (1, 1));
    assert_eq!(facts.patterns["etc/*.yaml"], 1);
    // A pipe that is named is an error, one that lies in a folder is not.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("etc/pipe.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert_eq!(kind_of(files.world.back_up().await), ErrorKind::Unreachable);
    files.options().include = vec!["etc".into()];
    drop(files.back_up().await);
    // A link on the way is not followed.
    symlink("etc", root.join("linked")).unwrap();
    files.options().include = vec!["linked/app.yaml".into()];
    assert_eq!(kind_of(files.world.back_up().await), ErrorKind::Unreachable);
    files.options().follow_links = true;
    drop(files.back_up().await);
    // A root that is gone is no empty folder.
    std::fs::rename(&root, root.with_extension("gone")).unwrap();
    assert_eq!(kind_of(files.world.back_up().await), ErrorKind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_03_a_file_that_changes_while_it_is_read_is_an_error_with_its_path() {
    let mut files = Files::new().await;
    files.options().max_change_retries = 1;
    files.write("calm", b"calm");
    files.write("busy", noise(8 << 20));
    let (stop, path) = (Arc::new(AtomicBool::new(false)), files.root.join("busy"));
    let stopped = Arc::clone(&stop);
    let (begun, begins) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let mut number = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            file.write_all_at(&number.to_le_bytes(), (number % 1000) * 8).unwrap();
            number += 1;
            if number == 1 {
                begun.send(()).unwrap();
            }
        }
    });
    begins.recv().unwrap();
    let result = files.world.back_up().await;
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let error = result.unwrap_err();
    assert!(error.to_string().contains("busy"), "{error}");
    assert!(error.detail().contains("changed every time"), "{error}");
    drop(files.back_up().await);
    assert_eq!(seen(&files.restore("restored").await.0), seen(&files.root));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_env_file_no_value_is_stored_or_said() {
    let mut files = Files::new().await;
    files.write(
        ".env",
        "# SECRETVALUE\nexport DB_PASSWORD=\"SECRETVALUE\nSECRETVALUE2\"\nTOKEN=SECRETVALUE\nSECRETVALUE without sense\n",
    );
    files.write("app.conf", b"port = 1");
    files.world.protected.encryption = Encryption::Clear;
    files.options().env_structure = vec![".env".into()];
    let report = files.back_up().await;
    let said = format!("{report:?}");
    assert!(!said.contains("SECRETVALUE"), "{said}");
    let (to, restored) = files.restore("restored").await;
    assert_eq!(
        std::fs::read_to_string(to.join(".env")).unwrap(),
        "export DB_PASSWORD=\nTOKEN=\n"
    );
    let keys = vec!["DB_PASSWORD".to_owned(), "TOKEN".to_owned()];
    assert_eq!(restored.findings.missing_values, [(".env".to_owned(), keys)]);
    assert_eq!(std::fs::read_to_string(to.join("app.conf")).unwrap(), "port = 1");
    // Everything that was written anywhere but in the source, decompressed or not.
    for folder in ["store", "state", "restored"] {
        for path in walk(&files.folder.path().join(folder)) {
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                !bytes.windows(11).any(|window| window == b"SECRETVALUE"),
                "{}",
                path.display()
            );
        }
    }
    // What is said to be secret is never stored in the clear.
    if let Source::Files { encryption_required, .. } = &mut files.world.protected.source {
        *encryption_required = true;
    }
    assert_eq!(kind_of(files.world.back_up().await), ErrorKind::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_files_and_links_that_lead_out() {
    let files = Files::new().await;
    files.write("etc/a.conf", b"a");
    files.write("etc/b.conf", b"b");
    files.write("var/log", b"log");
    symlink("/etc/passwd", files.root.join("etc/out")).unwrap();
    let report = files.back_up().await;
    assert!(report.notes.iter().any(|note| note.contains("etc/out")), "{:?}", report.notes);
    let to = files.folder.path().join("to");
    let mut selection = Selection::default();
    assert_eq!(kind_of(files.select(&to, &selection).await), ErrorKind::Refused);
    assert!(!to.exists());
    selection.paths = vec!["etc/*.conf".into()];
    drop(files.select(&to, &selection).await.unwrap());
    let names: Vec<PathBuf> = seen(&to).into_keys().collect();
    assert_eq!(names, [Path::new("etc"), Path::new("etc/a.conf"), Path::new("etc/b.conf")]);
    assert_eq!(
        kind_of(files.select(&to, &selection).await),
        ErrorKind::Refused,
        "it is there"
    );
    selection.paths = vec!["nothing".into()];
    let other = files.folder.path().join("other");
    assert_eq!(kind_of(files.select(&other, &selection).await), ErrorKind::NoSuchPoint);
    selection = Selection {
        paths: Vec::new(),
        outside_links: true,
    };
    drop(files.select(&other, &selection).await.unwrap());
    assert_eq!(seen(&other), seen(&files.root));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_only_what_differs_is_replaced_and_undo_brings_it_back() {
    let files = Files::new().await;
    everything(&files);
    drop(files.back_up().await);
    let captured = seen(&files.root);
    // Changed, removed, turned into something else; and something that is not in the backup.
    files.write("a/plain", b"spoiled");
    std::fs::remove_file(files.root.join("a-b")).unwrap();
    std::fs::remove_dir_all(files.root.join("deep")).unwrap();
    symlink("/etc", files.root.join("deep")).unwrap();
    files.write("extra/kept", b"extra");
    let untouched = files.root.join("big").metadata().unwrap().ino();
    let spoiled = seen(&files.root);
    let in_place = || Destination::InPlace {
        path: files.root.clone(),
    };
    let report = files.select_to(in_place(), &Selection::default()).await.unwrap();
    let id = report.id.clone();
    let now = || {
        let mut now = seen(&files.root);
        now.retain(|path, _| !path.to_string_lossy().starts_with(".lifeboat-undo-"));
        now
    };
    let mut restored = now();
    assert!(restored.remove(Path::new("extra/kept")).is_some());
    assert!(restored.remove(Path::new("extra")).is_some());
    let content = |map: &BTreeMap<PathBuf, String>| -> BTreeMap<PathBuf, String> {
        // Folders that stayed have new times, and the hard link was one name.
        map.iter()
            .filter(|(_, line)| !line.starts_with('4'))
            .map(|(path, line)| (path.clone(), line.clone()))
            .collect()
    };
    assert_eq!(content(&restored), content(&captured));
    assert_eq!(files.root.join("big").metadata().unwrap().ino(), untouched);
    // The next backup holds nothing of Lifeboat's own folders.
    let report = files.back_up().await;
    assert!(!format!("{:?}", report.facts).contains("lifeboat-undo"));
    drop(tree_place::undo(&files.root, &id).unwrap());
    assert_eq!(content(&now()), content(&spoiled));
    assert_eq!(kind_of(tree_place::undo(&files.root, &id)), ErrorKind::Refused);
    // A folder that is lost whole comes back as a whole.
    std::fs::remove_dir_all(&files.root).unwrap();
    drop(files.select_to(in_place(), &Selection::default()).await.unwrap());
    assert!(files.root.join("a/plain").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_left_out() {
    let mut files = Files::new().await;
    files.write("keep/a", b"a");
    files.write("keep/a.log", b"log");
    files.write("cache/b", b"b");
    files.options().exclude = vec!["*.log".into(), "cache/".into()];
    files.options().exclude[1] = "./cache".into();
    let inside = files.root.join("store");
    std::fs::rename(files.folder.path().join("store"), &inside).unwrap();
    symlink(&inside, files.folder.path().join("store")).unwrap();
    let report = files.back_up().await;
    assert_eq!(report.facts.files().unwrap().files, 1);
    assert!(
        report.notes.iter().any(|note| note.contains("store is a folder of Lifeboat")),
        "{:?}",
        report.notes
    );
    std::fs::remove_file(files.folder.path().join("store")).unwrap();
    std::fs::rename(&inside, files.folder.path().join("store")).unwrap();
    let (to, _) = files.restore("restored").await;
    assert_eq!(
        seen(&to).into_keys().collect::<Vec<_>>(),
        [Path::new("keep"), Path::new("keep/a")]
    );
}
