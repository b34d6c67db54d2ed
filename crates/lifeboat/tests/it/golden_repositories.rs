//! Repositories that an earlier Lifeboat wrote restore to the same bytes, by the binary and by the independent reader.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::recover::{recover, recovered};
use crate::world::World;

fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn root() -> PathBuf {
    repository_root().join("tests/golden-repositories")
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.sort();
    names
}

fn scenarios() -> Vec<String> {
    let mut names = names_in(&root());
    names.retain(|name| root().join(name).is_dir());
    assert!(!names.is_empty(), "`cargo xtask golden` makes them");
    names
}

/// One scenario in a world of its own.
struct Golden {
    name: String,
    world: World,
}

impl Golden {
    fn new(name: &str) -> Self {
        let world = World::with_database();
        for folder in ["store", "second", "keys"] {
            let from = root().join(name).join(folder);
            if from.is_dir() {
                assert!(world.copy_folder(&from, folder) > 0, "{name}/{folder}");
            }
        }
        let configuration = std::fs::read_to_string(root().join(name).join("lifeboat.yaml")).unwrap();
        world.write("lifeboat.yaml", &configuration);
        Self {
            name: name.to_owned(),
            world,
        }
    }

    fn key(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.world.path("keys").join(file)).ok()
    }

    fn lifeboat(&self, words: &[&str]) -> crate::world::Ran {
        let mut command = self.world.command();
        command.args(words);
        command.envs(self.key("passphrase.txt").map(|text| ("LIFEBOAT_PASSPHRASE", text)));
        command.envs(self.key("derived.txt").map(|text| ("BACKUP_ENCRYPTION_KEY", text)));
        self.world.finish(&mut command)
    }

    /// Python with a script of ours.
    fn python(&self, words: &[&str]) -> String {
        let python = std::env::var_os("LIFEBOAT_TEST_PYTHON").expect("run these tests through `cargo xtask test`");
        #[expect(clippy::disallowed_methods, reason = "a test runs another program")]
        let mut command = Command::new(python);
        command.args(words).current_dir(self.world.path(""));
        command.envs(self.key("derived.txt").map(|text| ("BACKUP_ENCRYPTION_KEY", text)));
        let output = command.output().unwrap();
        recovered(&output, 0);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What lies in a folder, or contents alone.
    fn listed(&self, folder: &str, contents: bool) -> String {
        let script = repository_root().join("xtask/python/tree.py").display().to_string();
        match contents {
            true => self.python(&[&script, "--contents", folder]),
            false => self.python(&[&script, folder]),
        }
    }

    fn instance(&self) -> String {
        let configuration = std::fs::read_to_string(self.world.path("lifeboat.yaml")).unwrap();
        let public = configuration.split(['"', '\n']).find(|word| word.starts_with("ed25519:"));
        public.unwrap().to_owned()
    }

    /// The file with which the independent reader opens it; none where it is in the clear.
    fn identity(&self) -> Option<String> {
        if self.key("derived.txt").is_some() {
            let script = repository_root().join("tools/recover.py").display().to_string();
            let derived = self.python(&[&script, "identity"]);
            self.world.write("derived-identity.txt", &derived);
            return Some("derived-identity.txt".to_owned());
        }
        let files = ["keys/identity.txt", "keys/protected.age"];
        let file = files.into_iter().find(|file| self.world.path(file).is_file());
        file.map(str::to_owned)
    }

    /// The independent reader, on a terminal where it has to ask for a passphrase.
    fn recover(&self, words: &[&str]) {
        let Some(passphrase) = self.key("passphrase.txt") else {
            return recovered(&recover(&self.world, words), 0);
        };
        let terminal = repository_root().join("xtask/python/on_terminal.py").display().to_string();
        let script = repository_root().join("tools/recover.py").display().to_string();
        let python = std::env::var("LIFEBOAT_TEST_PYTHON").unwrap();
        let mut all = vec![terminal.as_str(), &passphrase, &python, &script];
        all.extend(words);
        self.python(&all);
    }

    /// Restores a backup from a store by both readers and compares with what was written down when it was made.
    fn check(&self, store: (&str, &str), component: &str, seq: &str, expected: &str) {
        let what = format!("{} in {}: {component} {seq}", self.name, store.1);
        let (name, trust) = (format!("golden/{component}"), self.instance());
        let (ours, theirs) = (
            format!("restored-{}-{component}-{seq}", store.0),
            format!("recovered-{}-{component}-{seq}", store.0),
        );
        self.lifeboat(&["restore", &name, "--backup", seq, "--from", store.0, "--to", &ours])
            .ends(0);
        let mut words = vec!["restore", store.1, &name, "--backup", seq, "--to", &theirs, "--trust", &trust];
        let identity = self.identity();
        if let Some(identity) = &identity {
            words.extend(["--identity", identity]);
        }
        self.recover(&words);
        if self.world.path(&ours).is_dir() {
            assert_eq!(self.listed(&ours, false), expected, "{what}: by Lifeboat");
            assert_eq!(self.listed(&theirs, false), expected, "{what}: by recover.py");
            return;
        }
        assert_eq!(self.listed(&theirs, true), expected, "{what}: by recover.py");
        for line in expected.lines() {
            let (sum, file) = line.split_once(' ').unwrap();
            let path = match file {
                "db.sqlite" => ours.clone(),
                csv if csv.ends_with(".csv") => {
                    let to = format!("{ours}-{}", csv.replace('/', "-"));
                    let extract = Path::new(csv).file_name().unwrap().to_str().unwrap();
                    self.lifeboat(&["restore", "export", &name, "--backup", seq, "--extract", extract, "--to", &to])
                        .ends(0);
                    to
                }
                // The text of the database as SQL is read by the independent reader alone.
                _ => continue,
            };
            self.world.write("sum", &format!("{sum}  {path}\n"));
            self.world.shell("sha256sum --quiet --strict -c sum").ends(0);
        }
    }
}

#[test]
fn no_golden_file_has_changed() {
    let world = World::with_database();
    let folder = root().display().to_string();
    world
        .shell(&format!("cd '{folder}' && sha256sum --quiet --strict -c SHA256SUMS"))
        .ends(0);
    let listed = std::fs::read_to_string(root().join("SHA256SUMS")).unwrap().lines().count();
    let there = world
        .shell(&format!(
            "cd '{folder}' && find . -type f ! -name SHA256SUMS ! -name README.md | wc -l"
        ))
        .ends(0);
    assert_eq!(there.stdout.trim(), listed.to_string(), "a file is not listed");
}

#[test]
fn every_golden_repository_restores_to_the_same_bytes() {
    // Most of the time is Python starting: several at once.
    let names = scenarios();
    std::thread::scope(|scope| {
        for some in names.chunks(names.len().div_ceil(4)) {
            scope.spawn(move || some.iter().for_each(|name| restores_to_the_same_bytes(name)));
        }
    });
}

fn restores_to_the_same_bytes(name: &str) {
    let golden = Golden::new(name);
    golden.lifeboat(&["verify", "golden", "--all"]).ends(0);
    let mut stores = vec![("disk", "store")];
    if golden.world.path("second").is_dir() {
        stores.push(("second", "second"));
    }
    let expected = root().join(name).join("expected");
    for file in names_in(&expected) {
        let (component, seq) = file.rsplit_once('-').unwrap();
        let text = std::fs::read_to_string(expected.join(&file)).unwrap();
        for store in &stores {
            golden.check(*store, component, seq, &text);
        }
    }
}

/// Who was taken out opens nothing, by either reader; every other key that lies there does.
#[test]
fn the_keys_of_golden_repositories_open_what_they_should() {
    let removed = Golden::new("1-sqlite-removed-recipient");
    let ssh = Golden::new("1-sqlite-ssh-recipients");
    ssh.world.edit_config("keys/identity.txt", "keys/rsa");
    ssh.lifeboat(&["verify", "golden", "--all"]).ends(0);
    for seq in ["1", "2", "3"] {
        let words = [
            "restore",
            "store",
            "golden/db",
            "--backup",
            seq,
            "--to",
            "out",
            "--identity",
            "keys/removed.txt",
        ];
        recovered(&recover(&removed.world, &words), 12);
    }
    removed.world.edit_config("keys/identity.txt", "keys/removed.txt");
    for seq in ["1", "2", "3"] {
        removed
            .lifeboat(&["restore", "golden", "--backup", seq, "--to", "out"])
            .ends(12);
    }
}
