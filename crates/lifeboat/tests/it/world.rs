//! A folder with a real database in it, and the real binary to run there. Nothing of the machine's own configuration gets in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::Value;

/// One test's own surroundings.
pub struct World {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// How a run of the binary ended.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Fails the test unless the run ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// stdout as the one JSON document it must be, of this kind.
    #[track_caller]
    pub fn json(&self, kind: &str) -> Value {
        let document: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "stdout is not one JSON document ({error}): {}\nstderr: {}",
                self.stdout, self.stderr
            )
        });
        assert_eq!(document["schema"], format!("lifeboat/v1/{kind}"), "{document:#}");
        document
    }

    /// The command that the hint of a refusal names.
    #[track_caller]
    pub fn proceeds_with(&self) -> String {
        let marker = "this goes on without asking: ";
        self.stderr
            .lines()
            .find_map(|line| line.split_once(marker))
            .map(|(_, command)| command.to_owned())
            .expect("no such hint")
    }
}

impl World {
    /// A home folder, and nothing else.
    pub fn empty() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        };
        std::fs::create_dir(world.path("home")).unwrap();
        world
    }

    /// A variable of the environment for every run from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// A database `shop.db` with some orders, and nothing else.
    pub fn with_database() -> Self {
        let world = Self::empty();
        world.make_database("shop.db", 1_000);
        world
    }

    /// The same, protected: configuration, keys, first backup, first proof.
    pub fn protected() -> Self {
        let world = Self::with_database();
        world.run(&["init", "--path", "shop.db", "--system", "shop", "--yes"]).ends(0);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn open(&self, name: &str) -> Connection {
        Connection::open(self.path(name)).unwrap()
    }

    pub fn make_database(&self, name: &str, rows: usize) {
        let connection = self.open(name);
        connection
            .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT NOT NULL)")
            .unwrap();
        let numbered = (0..rows).map(|row| format!("('order {row} {}')", "x".repeat(80)));
        let values: Vec<String> = numbered.collect();
        connection
            .execute_batch(&format!("INSERT INTO orders (what) VALUES {}", values.join(",")))
            .unwrap();
        connection.close().unwrap();
    }

    /// Rows of `orders`; the connection is closed again.
    #[track_caller]
    pub fn rows(&self, name: &str) -> i64 {
        let connection = self.open(name);
        let rows = connection
            .query_row("SELECT count(*) FROM orders", [], |row| row.get(0))
            .unwrap();
        connection.close().unwrap();
        rows
    }

    pub fn add_rows(&self, name: &str, rows: usize) {
        let connection = self.open(name);
        connection.execute_batch("BEGIN").unwrap();
        for row in 0..rows {
            connection
                .execute("INSERT INTO orders (what) VALUES (?1)", [format!("later {row}")])
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        connection.close().unwrap();
    }

    /// The binary, ready to run here.
    pub fn command(&self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "tests run the binary as a user would")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        for name in [
            "LIFEBOAT_CONFIG",
            "LIFEBOAT_PROGRESS",
            "XDG_CONFIG_HOME",
            "XDG_STATE_HOME",
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "DATABASE_URL",
            "DATABASE_PATH",
            "BACKUP_DIR",
            "BACKUP_S3_BUCKET",
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_S3",
        ] {
            command.env_remove(name);
        }
        command.env("HOME", self.path("home"));
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.finish(self.command().args(args))
    }

    /// The programs that the guides' scripts call, in a shell that stops at the first failure.
    #[track_caller]
    pub fn script(&self, script: &str) {
        #[expect(clippy::disallowed_methods, reason = "the guides' own commands")]
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", script]).current_dir(self.folder.path());
        for (name, value) in &self.variables {
            shell.env(name, value);
        }
        let output = shell.output().unwrap();
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs `lifeboat …` as a shell would, with our binary for the word `lifeboat`.
    pub fn shell(&self, line: &str) -> Ran {
        let mut command = self.command();
        let binary = command.get_program().to_owned();
        let folder = Path::new(&binary).parent().unwrap().to_owned();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        #[expect(clippy::disallowed_methods, reason = "what is printed for a shell is tried in a shell")]
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        command.env_clear();
        self.finish(shell.env("PATH", path))
    }

    pub fn finish(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().expect("it was killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Another process that has a database open; it says so before this returns.
    pub fn held_open(&self, name: &str) -> std::process::Child {
        use std::io::{BufRead as _, BufReader};
        #[expect(clippy::disallowed_methods, reason = "another process, as an application would be")]
        let mut child = Command::new("sh")
            .args(["-c", "exec 9<\"$0\"; echo open; exec sleep 600"])
            .arg(self.path(name))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "open\n");
        child
    }

    /// Replaces a part of `lifeboat.yaml` that must be there.
    #[track_caller]
    pub fn edit_config(&self, from: &str, to: &str) {
        let path = self.path("lifeboat.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text} does not hold {from}");
        self.write("lifeboat.yaml", &text.replacen(from, to, 1));
    }

    pub fn write(&self, name: &str, text: &str) {
        #[expect(clippy::disallowed_methods, reason = "a test's own file")]
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Where `init` keeps the state.
    pub fn state_dir(&self) -> PathBuf {
        self.path(".lifeboat")
    }

    /// The private key that `init` makes for the system `shop`.
    pub fn key(&self) -> PathBuf {
        self.path("home/.config/lifeboat/shop-key.txt")
    }

    /// Copies a folder of another world into this one. Returns the number of files.
    pub fn copy_folder(&self, from: &Path, to: &str) -> usize {
        let mut pending = vec![(from.to_path_buf(), self.path(to))];
        let mut copied = 0;
        while let Some((from, to)) = pending.pop() {
            std::fs::create_dir_all(&to).unwrap();
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                let target = to.join(entry.file_name());
                if entry.path().is_dir() {
                    pending.push((entry.path(), target));
                } else {
                    std::fs::copy(entry.path(), target).unwrap();
                    copied += 1;
                }
            }
        }
        copied
    }

    /// Every file below a folder, with its bytes.
    pub fn files(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut found, mut pending) = (Vec::new(), vec![self.path(name)]);
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let bytes = std::fs::read(&path).unwrap();
                    found.push((path, bytes));
                }
            }
        }
        found.sort();
        found
    }
}
