//! Child processes: with a time limit, a limit on what they may say, nothing to read, and no survivors.
//!
//! The only place that starts one. A child never outlives the future that waits for it: when that is dropped, the child and everything
//! it started in its process group are killed. Must not know any program by name.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// How many bytes of each output stream are taken unless [`Process::output_limit_bytes`] says otherwise.
pub const OUTPUT_LIMIT_BYTES: u64 = 1 << 20;

/// What to start and within which limits.
#[derive(Debug, Clone)]
#[must_use]
pub struct Process {
    program: OsString,
    args: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    user: Option<(u32, u32)>,
    time_limit: Duration,
    output_limit_bytes: u64,
}

/// What a child left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// How a child came to its end.
#[derive(Debug, Clone)]
pub enum Ended {
    /// By itself.
    Itself(Output),
    /// Its time limit passed, and it was killed with its process group.
    Stopped {
        /// What it had written to standard output.
        stdout: Vec<u8>,
        /// What it had written to standard error.
        stderr: Vec<u8>,
    },
}

impl Process {
    /// Will start `program` (a path, or a name that is looked up in `PATH`) and give it at most `time_limit`.
    pub fn new(program: impl Into<OsString>, time_limit: Duration) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            variables: Vec::new(),
            folder: None,
            user: None,
            time_limit,
            output_limit_bytes: OUTPUT_LIMIT_BYTES,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable. Secrets go here and never into arguments, which every user of the machine can read.
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Starts it in `folder`.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Runs it as this user and group, and in no other group; only root may ask for others than its own.
    pub fn user(mut self, user: Option<(u32, u32)>) -> Self {
        self.user = user;
        self
    }

    /// Takes at most this many bytes of each output stream; a child that writes more is killed.
    pub fn output_limit_bytes(mut self, bytes: u64) -> Self {
        self.output_limit_bytes = bytes;
        self
    }

    /// Runs it to its end. Any exit status but 0 is an error of kind `Failed` that holds the status and the end of what it said.
    /// Otherwise as [`Process::finish`].
    pub async fn run(&self) -> Result<Output> {
        let output = self.finish().await?;
        if output.status.success() {
            Ok(output)
        } else {
            let said = last_words(&output);
            let detail = if said.is_empty() {
                output.status.to_string()
            } else {
                format!("{}: {said}", output.status)
            };
            Err(Error::new(ErrorKind::Failed, "run", self, detail))
        }
    }

    /// Runs it to its end, whatever its exit status. A program that is not there is an error of kind `NotFound`, a passed time limit one
    /// of kind `TimedOut`, too much output one of kind `Failed`. Descendants that keep the output open count as still running.
    pub async fn finish(&self) -> Result<Output> {
        match self.finish_or_stop().await? {
            Ended::Itself(output) => Ok(output),
            Ended::Stopped { .. } => {
                let detail = format!(
                    "it did not end within {} seconds and was stopped",
                    self.time_limit.as_secs_f64()
                );
                Err(Error::new(ErrorKind::TimedOut, "run", self, detail))
            }
        }
    }

    /// As [`Process::finish`], for who wants to know what it had said when its time limit passed: that is no error here.
    pub async fn finish_or_stop(&self) -> Result<Ended> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        // Where the limit passes, the future is dropped here, and the child with it.
        let finished = tokio::time::timeout(self.time_limit, self.finish_into(&mut stdout, &mut stderr)).await;
        Ok(match finished {
            Ok(status) => Ended::Itself(Output {
                status: status?,
                stdout,
                stderr,
            }),
            Err(_passed) => Ended::Stopped { stdout, stderr },
        })
    }

    async fn finish_into(&self, stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) -> Result<ExitStatus> {
        let mut group = Group::start(self)?;
        let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
        tokio::try_join!(self.read(out, stdout), self.read(err, stderr))?;
        let status = group.child.wait().await.map_err(|error| Error::io("wait for", self, error))?;
        group.ended();
        Ok(status)
    }

    /// Starts it and leaves it running, without a time limit; what it says goes to `log`.
    pub fn start(&self, log: std::fs::File) -> Result<Running> {
        let error_log = log.try_clone().map_err(|error| Error::io("start", self, error))?;
        let mut command = self.command();
        command.stdout(log).stderr(error_log);
        let child = command.spawn().map_err(|error| Error::io("start", self, error))?;
        Ok(Running {
            group: Group::of(child),
            name: self.to_string(),
        })
    }

    /// Starts a program that goes on when we end, without a time limit; what it says goes to `log`. It should begin a session of its own.
    /// Needs no async runtime.
    pub fn detach(&self, log: std::fs::File) -> Result<Detached> {
        let error_log = log.try_clone().map_err(|error| Error::io("start", self, error))?;
        let mut command = self.plain();
        command.stdout(log).stderr(error_log);
        let child = command.spawn().map_err(|error| Error::io("start", self, error))?;
        Ok(Detached {
            child,
            name: self.to_string(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::from(self.plain());
        command.process_group(0).kill_on_drop(true);
        command
    }

    fn plain(&self) -> std::process::Command {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that starts a process")]
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if let Some((user, group)) = self.user {
            use std::os::unix::process::CommandExt;
            command.uid(user).gid(group);
        }
        command
    }

    /// Piece by piece, so that `bytes` holds what came even where the future is dropped.
    async fn read(&self, stream: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) -> Result<()> {
        let Some(stream) = stream else { return Ok(()) };
        let limit = self.output_limit_bytes;
        let mut stream = stream.take(limit.saturating_add(1));
        let failed = |error| Error::io("read the output of", self, error);
        while stream.read_buf(bytes).await.map_err(failed)? > 0 {}
        if bytes.len() as u64 > limit {
            let detail = format!("it wrote more than {limit} bytes and was stopped");
            return Err(Error::new(ErrorKind::Failed, "run", self, detail));
        }
        Ok(())
    }
}

/// The program's name only: arguments can hold what does not belong into a message.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())
    }
}

/// A running child that leads its own process group; killed as a whole when dropped before it ended.
#[derive(Debug)]
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    fn start(process: &Process) -> Result<Self> {
        let child = process
            .command()
            .spawn()
            .map_err(|error| Error::io("start", process, error))?;
        Ok(Self::of(child))
    }

    fn of(child: Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { child, leader }
    }

    /// The child was waited for: its number may belong to somebody else from now on.
    fn ended(&mut self) {
        self.leader = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader
            && rustix::process::kill_process_group(leader, Signal::KILL).is_err()
        {
            // Only possible when the whole group is gone already.
        }
    }
}

/// A program that was left running.
#[derive(Debug)]
pub struct Detached {
    child: std::process::Child,
    name: String,
}

impl Detached {
    /// How it ended, if it did already.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|error| Error::io("look at", &self.name, error))
    }
}

/// A child that runs beside us. Dropped before it ended, it is killed with its process group.
#[derive(Debug)]
pub struct Running {
    group: Group,
    name: String,
}

impl Running {
    /// Its number, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.group.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.group.child.try_wait();
        let ended = ended.map_err(|error| Error::io("wait for", &self.name, error))?;
        if ended.is_some() {
            self.group.ended();
        }
        Ok(ended)
    }

    /// Sends it a signal; nothing happens where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(leader) = self.group.leader else { return Ok(()) };
        match rustix::process::kill_process(leader, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::io("send a signal to", &self.name, error.into())),
        }
    }
}

/// The last line that says anything, of standard error before standard output, at most 400 characters.
fn last_words(output: &Output) -> String {
    [&output.stderr, &output.stdout]
        .into_iter()
        .find_map(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
            Some(line.chars().take(400).collect())
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, time_limit: Duration) -> Process {
        Process::new("/bin/sh", time_limit).arg("-c").arg(script)
    }

    #[tokio::test]
    async fn output_variables_and_folder_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let folder_path = folder.path().canonicalize().unwrap();
        let output = shell("pwd; echo \"$WORD\" >&2", LONG)
            .variable("WORD", "hello")
            .folder(&folder_path)
            .run()
            .await
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().trim(),
            folder_path.to_str().unwrap()
        );
        assert_eq!(output.stderr, b"hello\n");
    }

    #[tokio::test]
    async fn standard_input_is_empty() {
        assert_eq!(shell("cat", LONG).run().await.unwrap().stdout, b"");
    }

    #[tokio::test]
    async fn a_failure_holds_the_status_and_the_last_words() {
        let error = shell("echo one >&2; echo the disk is gone >&2; echo; exit 3", LONG)
            .run()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.detail().contains("exit status: 3: the disk is gone"), "{error}");
        let status = shell("exit 3", LONG).finish().await.unwrap().status;
        assert_eq!(status.code(), Some(3));
    }

    #[tokio::test]
    async fn a_missing_program_is_not_found() {
        let error = Process::new("/nonexistent/program", LONG).run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn too_much_output_ends_the_child() {
        let error = shell("while :; do echo 0123456789; done", LONG)
            .output_limit_bytes(1000)
            .run()
            .await
            .unwrap_err();
        assert!(error.detail().contains("more than 1000 bytes"), "{error}");
        let exact = shell("printf 0123456789", LONG).output_limit_bytes(10).run().await.unwrap();
        assert_eq!(exact.stdout, b"0123456789");
    }

    /// A FIFO whose other end tells whether anybody who opened it is still alive: reading gives the end once all writers are gone.
    fn fifo(folder: &std::path::Path) -> std::fs::File {
        use rustix::fs::{Mode, OFlags};
        let path = folder.join("alive");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RWXU).unwrap();
        let reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        std::fs::File::from(reader)
    }

    async fn until_nobody_holds(mut fifo: std::fs::File) {
        use std::io::Read;
        let gone = async {
            while fifo.read(&mut [0; 64]).map_or(true, |count| count > 0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, gone).await.expect("a child survived");
    }

    #[tokio::test]
    async fn a_passed_time_limit_kills_the_child_and_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = fifo(folder.path());
        // The grandchild holds the FIFO; the child itself only waits.
        let holder = shell("sleep 600 >alive & wait", Duration::from_millis(500)).folder(folder.path());
        assert_eq!(holder.run().await.unwrap_err().kind(), ErrorKind::TimedOut);
        until_nobody_holds(fifo).await;
    }

    #[tokio::test]
    async fn what_a_stopped_child_had_said_is_there() {
        let talker = shell("echo one; echo two >&2; exec sleep 600", Duration::from_secs(5));
        let Ended::Stopped { stdout, stderr } = talker.finish_or_stop().await.unwrap() else {
            panic!("it sleeps for ten minutes");
        };
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"one\n"[..], &b"two\n"[..]));
    }

    #[tokio::test]
    async fn dropping_the_future_kills_the_child_and_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = fifo(folder.path());
        let marker = folder.path().join("go");
        let holder = shell("exec 3>alive; sleep 600 & echo started >go; wait", LONG * 10).folder(folder.path());
        tokio::select! {
            ended = holder.run() => unreachable!("it sleeps for ten minutes: {ended:?}"),
            () = until_written(&marker) => {}
        }
        until_nobody_holds(fifo).await;
    }

    async fn until_written(path: &std::path::Path) {
        while std::fs::read(path).unwrap_or_default().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
