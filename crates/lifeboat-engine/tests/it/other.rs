//! Other processes that use a database: the applications of these tests.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Runs `script`, in which dot commands have a line of their own, in the `sqlite3` shell and returns what it prints.
pub fn sql(database: &Path, script: &str) -> String {
    let mut command = Command::new("sqlite3");
    command.arg("-batch").arg("-bail").arg(database);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{script};").unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{script}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Fills the database, which must have no table `pad`, with `mib` MiB in rows of 1000 bytes: more than a capture reads ahead if over 5.
pub fn pad(database: &Path, mib: u32) {
    let rows = mib * 1050;
    let script = format!(
        "CREATE TABLE pad (id INTEGER PRIMARY KEY, v); \
         WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {rows}) INSERT INTO pad SELECT x, randomblob(1000) FROM n;"
    );
    sql(database, &script);
}

/// A process that is killed when the test is over.
#[derive(Debug)]
pub struct Other {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Other {
    /// Starts Python with `script`, whose `sys.argv[1]` is `argument`, and waits for its first line.
    pub fn python(script: &str, argument: &Path) -> Self {
        let mut command = Command::new("python3");
        command.arg("-c").arg(script).arg(argument);
        let mut other = Self::start(command);
        assert_eq!(other.line(), "ready");
        other
    }

    /// Starts the `sqlite3` shell, runs `script` in it and leaves it open.
    pub fn shell(database: &Path, script: &str) -> Self {
        let mut command = Command::new("sqlite3");
        command.arg("-batch").arg(database);
        let mut other = Self::start(command);
        // The shell holds back what it prints until it starts a program.
        other.tell(&format!("{script}\n.shell echo ready"));
        loop {
            match other.line().as_str() {
                "ready" => return other,
                "" => panic!("the shell ended"),
                _ => {}
            }
        }
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            input: child.stdin.take(),
            child,
            output,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The next line that it prints; empty when it ended.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Writes a line to its input.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Closes its input, and waits for its end.
    pub fn end(mut self) -> bool {
        drop(self.input.take());
        self.child.wait().unwrap().success()
    }

    /// Kills it without a warning, and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A database in WAL mode with `rows` rows in table `t`, whose application died: all of them are in the `-wal` alone.
pub fn leftover_wal(database: &Path, rows: u32) {
    let script = format!(
        "import sqlite3, sys\n\
         c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
         c.execute('PRAGMA journal_mode = WAL')\n\
         c.execute('PRAGMA wal_autocheckpoint = 0')\n\
         c.execute('CREATE TABLE t (x)')\n\
         for i in range({rows}): c.execute('INSERT INTO t VALUES (?)', (i,))\n\
         print('ready', flush=True)\n\
         sys.stdin.read()\n"
    );
    Other::python(&script, database).kill();
}
