//! Files put in the place of others: what stays, what is replaced, what a person filled in; and trees compared with each other.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use lifeboat_engine::files::{Aspect, Fate, TreeDifference};
use lifeboat_model::{ErrorKind, Result};
use lifeboat_ops::diff::{self, Of};
use lifeboat_ops::restore::promote::{self, Promoted};
use lifeboat_ops::restore::{Destination, Report, Selection, record, tree_place};

use crate::files::{Files, options, seen, walk};
use crate::world::kind_of;

impl Files {
    fn in_place(&self) -> Destination {
        Destination::InPlace { path: self.root.clone() }
    }

    async fn put_back(&self) -> Report {
        self.select_to(self.in_place(), &Selection::default()).await.unwrap()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        self.root.join(path).metadata().unwrap().mode() & 0o7777
    }

    fn set_mode(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.root.join(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    async fn promote(&self, id: &str) -> Result<Promoted> {
        let restored = record::find(&self.world.protected.state_dir, id)?;
        promote::run(&self.world.env, &self.world.protected, restored, false).await
    }

    async fn backups(&self) -> Vec<Of> {
        let repository = self.world.protected.repository().await.unwrap();
        let listing = self.world.protected.listing(&repository).await.unwrap();
        listing
            .backups
            .into_iter()
            .map(|backup| Of::Backup(Box::new(backup)))
            .collect()
    }

    async fn diff(&self, before: &Of, after: &Of, paths: &[&str]) -> Result<TreeDifference> {
        let world = &self.world;
        let repository = world.protected.repository().await?;
        let scratch = tempfile::tempdir().unwrap();
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let (scope, folder) = ((paths, 100), scratch.path().join("lists"));
        let compared = diff::trees(
            &world.env,
            &world.protected,
            &repository,
            (before, after),
            &world.identities,
            scope,
            &folder,
        )
        .await;
        // Not one byte of the live files is written anywhere.
        for path in walk(scratch.path()) {
            let bytes = std::fs::read(path).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"SECRET"));
        }
        compared
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_values_never_takes_the_place_of_one_that_has_them() {
    let mut files = Files::new().await;
    files.write(".env", "PASSWORD=SECRET\nTOKEN=SECRET\n");
    files.write("app.conf", "port = 1\n");
    files.options().env_structure = vec![".env".into()];
    drop(files.back_up().await);
    // Its values were changed since, a key went away; the configuration is spoiled.
    files.write(".env", "PASSWORD=SECRET2\n");
    files.write("app.conf", "spoiled\n");
    let report = files.put_back().await;
    assert_eq!(files.read(".env"), "PASSWORD=SECRET2\n");
    assert_eq!(files.read("app.conf"), "port = 1\n");
    assert!(report.findings.missing_values.is_empty(), "{:?}", report.findings);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains(".env") && note.contains("lacks TOKEN") && !note.contains("SECRET")),
        "{:?}",
        report.notes
    );
    drop(tree_place::undo(&files.root, &report.id).unwrap());
    assert_eq!(files.read("app.conf"), "spoiled\n");
    // Where none is, the skeleton comes; and it is no file with values that would have to stay.
    std::fs::remove_file(files.root.join(".env")).unwrap();
    for _ in 0..2 {
        let report = files.put_back().await;
        assert_eq!(files.read(".env"), "PASSWORD=\nTOKEN=\n");
        assert_eq!(report.findings.missing_values.len(), 1, "{:?}", report.notes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_somebody_filled_in_is_promoted_and_that_is_undone() {
    let mut files = Files::new().await;
    files.write(".env", "PASSWORD=SECRET\nTOKEN=SECRET\n");
    files.write("k8s/app.yaml", "replicas: 2\n");
    files.write("k8s/same.yaml", "same\n");
    files.options().env_structure = vec![".env".into()];
    drop(files.back_up().await);
    files.write("k8s/app.yaml", "replicas: 0\n");
    files.write("k8s/new.yaml", "new\n");
    let same = files.root.join("k8s/same.yaml").metadata().unwrap().ino();
    // Nobody filled anything in: the file with values stays, the rest is put in its place.
    let (_, report) = files.restore("copy").await;
    let promoted = files.promote(&report.id).await.unwrap();
    assert_eq!(files.read(".env"), "PASSWORD=SECRET\nTOKEN=SECRET\n");
    assert_eq!(files.read("k8s/app.yaml"), "replicas: 2\n");
    assert_eq!(files.read("k8s/new.yaml"), "new\n");
    assert_eq!(files.root.join("k8s/same.yaml").metadata().unwrap().ino(), same);
    assert!(promoted.undo_folder.is_some());
    assert_eq!(kind_of(files.promote(&report.id).await), ErrorKind::Refused, "it is promoted");
    drop(tree_place::undo(&files.root, &report.id).unwrap());
    assert_eq!(files.read("k8s/app.yaml"), "replicas: 0\n");
    // Somebody did.
    let (copy, report) = files.restore("filled").await;
    std::fs::write(copy.join(".env"), "PASSWORD=new\nTOKEN=new\n").unwrap();
    drop(files.promote(&report.id).await.unwrap());
    assert_eq!(files.read(".env"), "PASSWORD=new\nTOKEN=new\n");
    // Something else under the name of the copy is not promoted, nothing is nothing.
    let (copy, report) = files.restore("other").await;
    std::fs::rename(&copy, copy.with_extension("away")).unwrap();
    assert_eq!(kind_of(files.promote(&report.id).await), ErrorKind::NoSuchPoint);
    std::fs::create_dir(&copy).unwrap();
    assert_eq!(kind_of(files.promote(&report.id).await), ErrorKind::Refused);
    // Where the whole folder is gone, the copy becomes it.
    let (_, report) = files.restore("whole").await;
    std::fs::rename(&files.root, files.root.with_extension("lost")).unwrap();
    let promoted = files.promote(&report.id).await.unwrap();
    assert!(promoted.undo_folder.is_none());
    assert_eq!(files.read("k8s/app.yaml"), "replicas: 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_stay_get_their_modes_and_names_of_one_file_stay_one_file() {
    let files = Files::new().await;
    files.write("private/key", "key");
    files.write("a", "one");
    std::fs::hard_link(files.root.join("a"), files.root.join("b")).unwrap();
    files.write("c", "two");
    std::fs::hard_link(files.root.join("c"), files.root.join("d")).unwrap();
    files.set_mode("private", 0o2710);
    files.set_mode("", 0o750);
    drop(files.back_up().await);
    // Somebody opened everything to everybody, and one of two names is a file of its own now.
    files.set_mode("private", 0o777);
    files.set_mode("", 0o777);
    std::fs::remove_file(files.root.join("b")).unwrap();
    files.write("b", "one");
    let untouched = files.root.join("c").metadata().unwrap().ino();
    let report = files.put_back().await;
    assert_eq!((files.mode("private"), files.mode("")), (0o2710, 0o750));
    let inode = |name: &str| files.root.join(name).metadata().unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!((inode("c"), inode("d")), (untouched, untouched));
    drop(tree_place::undo(&files.root, &report.id).unwrap());
    assert_eq!((files.mode("private"), files.mode("")), (0o777, 0o777));
    assert_ne!(inode("a"), inode("b"));
    // A second time there is nothing to do.
    drop(files.put_back().await);
    let again = files.put_back().await;
    assert!(
        again.notes.iter().any(|note| note.starts_with("0 names")),
        "{:?}",
        again.notes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_a_link_and_some_files_in_place() {
    let mut files = Files::new().await;
    files.write("etc/a.conf", "a");
    files.write("etc/b.conf", "b");
    let link = files.root.with_extension("link");
    symlink(&files.root, &link).unwrap();
    *files.options() = options(&link, &["etc"]);
    drop(files.back_up().await);
    files.write("etc/a.conf", "spoiled");
    files.write("etc/b.conf", "wanted");
    files.set_mode("etc", 0o700);
    let some = Selection {
        paths: vec!["etc/a.*".into()],
        outside_links: false,
    };
    let report = files
        .select_to(Destination::InPlace { path: link.clone() }, &some)
        .await
        .unwrap();
    assert_eq!(
        (files.read("etc/a.conf"), files.read("etc/b.conf")),
        ("a".into(), "wanted".into())
    );
    assert!(link.symlink_metadata().unwrap().is_symlink());
    drop(tree_place::undo(&link, &report.id).unwrap());
    assert_eq!(files.read("etc/a.conf"), "spoiled");
    assert_eq!(files.mode("etc"), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_and_the_files_as_they_are_now() {
    let mut files = Files::new().await;
    files.write("etc/app.conf", "port = 1");
    files.write("etc/gone.conf", "gone");
    files.write(".env", "PASSWORD=SECRET\n");
    files.options().env_structure = vec![".env".into()];
    drop(files.back_up().await);
    files.write("etc/app.conf", "port = 22");
    std::fs::remove_file(files.root.join("etc/gone.conf")).unwrap();
    drop(files.back_up().await);
    files.write("etc/new.conf", "SECRET");
    files.write(".env", "PASSWORD=SECRET2\nTOKEN=SECRET\n");
    files.set_mode("etc", 0o700);
    let backups = files.backups().await;
    let found = files.diff(&backups[0], &backups[1], &[]).await.unwrap();
    assert_eq!((found.missing, found.changed, found.extra), (1, 1, 0));
    let found = files.diff(&backups[1], &Of::Live, &[]).await.unwrap();
    let told: Vec<(&[u8], Fate, &[Aspect])> = found
        .samples
        .iter()
        .map(|change| (change.path.as_slice(), change.fate, change.aspects.as_slice()))
        .collect();
    let expected: [(&[u8], Fate, &[Aspect]); 3] = [
        (b".env", Fate::Changed, &[Aspect::Content, Aspect::Time]),
        (b"etc", Fate::Changed, &[Aspect::Mode]),
        (b"etc/new.conf", Fate::Extra, &[]),
    ];
    assert_eq!(told, expected);
    assert!(files.diff(&backups[1], &backups[1], &[]).await.unwrap().is_same());
    assert!(files.diff(&backups[1], &Of::Live, &["etc/a*"]).await.unwrap().is_same());
    // What a pattern names and is gone is a difference, not an error; a folder that is gone whole is an error.
    files.options().include = vec!["etc/app.conf".into(), "etc/nowhere".into()];
    std::fs::remove_file(files.root.join("etc/app.conf")).unwrap();
    let found = files.diff(&backups[1], &Of::Live, &["etc/*"]).await.unwrap();
    assert_eq!((found.missing, found.extra), (1, 0));
    std::fs::rename(&files.root, files.root.with_extension("gone")).unwrap();
    assert_eq!(kind_of(files.diff(&backups[1], &Of::Live, &[]).await), ErrorKind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_stored_any_more_is_not_kept_from_before() {
    let mut files = Files::new().await;
    files.world.protected.encryption = lifeboat_repo::Encryption::Clear;
    files.write(".env", "PASSWORD=SECRETVALUE\n");
    files.write("large", vec![7_u8; 100_000]);
    drop(files.back_up().await);
    // Somebody notices, and wants the structure alone from now on.
    files.options().env_structure = vec![".env".into()];
    let report = files.back_up().await;
    let repository = files.world.protected.repository().await.unwrap();
    let reader = lifeboat_repo::Reader::open(&files.world.env, &repository, &report.backup, &files.world.identities)
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (number, file) in reader.files().iter().enumerate() {
        let path = folder.path().join(number.to_string());
        let out = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let sink = lifeboat_io::sink::FileSink::new(out, "stream");
        let restored = reader.restore(file, std::sync::Arc::new(sink), false).await;
        restored.unwrap();
        assert!(!holds(&path, b"SECRETVALUE"), "{} holds it still", file.meta.path);
    }
}

fn holds(path: &Path, what: &[u8]) -> bool {
    std::fs::read(path).unwrap().windows(what.len()).any(|window| window == what)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_tree_and_the_restored_one_are_the_same() {
    let files = Files::new().await;
    files.write("a/b/c", "c");
    symlink("b", files.root.join("a/link")).unwrap();
    drop(files.back_up().await);
    let backups = files.backups().await;
    assert!(files.diff(&backups[0], &Of::Live, &[]).await.unwrap().is_same());
    let before = seen(&files.root);
    drop(files.put_back().await);
    let mut after = seen(&files.root);
    after.retain(|path, _| !path.to_string_lossy().starts_with(".lifeboat-undo-"));
    assert_eq!(after, before);
}
