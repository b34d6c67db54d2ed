//! The folder of a sandbox, and what is left of one when its process was killed.
//!
//! `ROOT/lbsb-TOKEN` belongs to us and can be written by nobody else; in it `marker` (the data directory, and whether it goes with the
//! sandbox), locked while somebody uses it; `log`; and `run`, which belongs to the server: its socket and an empty configuration. A data
//! directory that goes with the sandbox holds the token, too. If we die: before the marker is whole, the folder is swept and nothing else;
//! later, [`sweep`] kills the server, and removes the folder last. Whoever sweeps holds a lock on the folder itself, and so does whoever makes it, until
//! its marker is locked, and whoever removes it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};

use super::{Plan, Recovery};

const PREFIX: &str = "lbsb-";
const MARKER: &str = "marker";
/// In a data directory that goes with its sandbox.
const TOKEN_FILE: &str = "lifeboat-sandbox";
/// The port in the name of the socket; nothing listens on a network.
pub(super) const OPEN_PORT: u16 = 5432;
/// Bytes of a socket's path at most.
const SOCKET_PATH_BYTES: usize = 107;
/// Bytes of the log that are looked at, from its end.
const LOG_BYTES: u64 = 256 << 10;

/// A sandbox's folder, locked for as long as this is there.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    run: PathBuf,
    data_dir: PathBuf,
    dispose: bool,
    _locked: File,
}

impl Folder {
    pub(super) fn create(env: &Env, root: &Path, data_dir: &Path, dispose: bool, user: Option<(u32, u32)>) -> Result<Self> {
        let data_dir = data_dir
            .canonicalize()
            .map_err(|error| Error::io("look at", data_dir.display(), error))?;
        let (token, path, locked) = begin(env, root)?;
        let run = path.join("run");
        let failed = |error| Error::io("make", path.display(), error);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o711)).map_err(failed)?;
        std::fs::DirBuilder::new().mode(0o700).create(&run).map_err(failed)?;
        let folder = Self {
            path,
            run,
            data_dir,
            dispose,
            _locked: locked,
        };
        folder.mark(&token)?;
        for (_, file) in folder.configuration() {
            let hba = file.ends_with("pg_hba.conf");
            let text: &[u8] = if hba { b"local all all trust\n" } else { b"" };
            durable::replace_file(&file, text, 0o600)?;
            give(&file, user)?;
        }
        give(&folder.run, user)?;
        Ok(folder)
    }

    /// Writes the marker, and the token into the data directory where that goes with the sandbox.
    fn mark(&self, token: &str) -> Result<()> {
        use std::io::Write;
        let marker = self.path.join(MARKER);
        let mut text = if self.dispose {
            b"dispose ".to_vec()
        } else {
            b"leave ".to_vec()
        };
        text.extend_from_slice(self.data_dir.as_os_str().as_bytes());
        let written = (&self._locked).write_all(&text).and_then(|()| self._locked.sync_all());
        written.map_err(|error| Error::io("write", marker.display(), error))?;
        if self.dispose {
            durable::replace_file(&self.data_dir.join(TOKEN_FILE), token.as_bytes(), 0o600)?;
        }
        Ok(())
    }

    /// Brings a data directory that is ours into the state that the plan asks for, and refuses another that is not in it.
    pub(super) fn prepare(&self, plan: &Plan, user: Option<(u32, u32)>) -> Result<()> {
        let signal = self.data_dir.join("recovery.signal");
        let standby = self.data_dir.join("standby.signal");
        let wanted = plan.recovery != Recovery::None;
        if plan.dispose {
            let auto = self.data_dir.join("postgresql.auto.conf");
            durable::replace_file(&auto, b"", 0o600)?;
            give(&auto, user)?;
            durable::remove_file(&standby)?;
            durable::remove_file(&self.data_dir.join("postmaster.pid"))?;
            if wanted {
                durable::replace_file(&signal, b"", 0o600)?;
                give(&signal, user)?;
            } else {
                durable::remove_file(&signal)?;
            }
            return Ok(());
        }
        let there = |path: &Path| {
            path.try_exists()
                .map_err(|error| Error::io("look for", path.display(), error))
        };
        if there(&standby)? || there(&signal)? != wanted {
            let detail = "what it has as recovery.signal or standby.signal is not what is to be done with it";
            return Err(Error::new(ErrorKind::Refused, "start", self.data_dir.display(), detail)
                .with_hint("restore it again, or start a copy of it"));
        }
        Ok(())
    }

    pub(super) fn run(&self) -> &Path {
        &self.run
    }

    /// Settings that name files, and those files.
    pub(super) fn configuration(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("config_file", "postgresql.conf"),
            ("hba_file", "pg_hba.conf"),
            ("ident_file", "pg_ident.conf"),
        ]
        .map(|(setting, name)| (setting, self.run.join(name)))
    }

    fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(super) fn log_file(&self) -> Result<File> {
        let path = self.log_path();
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        opened.map_err(|error| Error::io("write", path.display(), error))
    }

    pub(super) fn log_bytes(&self) -> Result<u64> {
        let path = self.log_path();
        let meta = path.metadata().map_err(|error| Error::io("look at", path.display(), error))?;
        Ok(meta.len())
    }

    pub(super) fn log_text(&self) -> Result<String> {
        let path = self.log_path();
        let failed = |error| Error::io("read", path.display(), error);
        let mut file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES))).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether the server `own` takes connections: the eighth line of its `postmaster.pid`, as `pg_ctl` reads it.
    pub(super) fn is_open(&self, own: Option<u32>) -> Result<bool> {
        let lines = pid_file(&self.data_dir)?;
        let says = |at: usize| lines.get(at).map(|line| line.trim());
        let ours = own.is_some_and(|own| says(0) == Some(own.to_string().as_str()));
        Ok(ours && matches!(says(7), Some("ready" | "standby")))
    }

    /// Removes it, and the data directory where that goes with it.
    pub(super) fn remove(self) -> Result<()> {
        if self.dispose {
            durable::remove_folder(&self.data_dir)?;
        }
        // Whoever sweeps would make the marker again, behind our back.
        let _alone = lock_folder(&self.path)?;
        // The marker holds the lock: it goes last, with the folder.
        durable::remove_folder(&self.path)
    }
}

/// A new folder and its locked marker. Between the two another process may take it for what a killed one has left, and sweep it: then there is another.
fn begin(env: &Env, root: &Path) -> Result<(String, PathBuf, File)> {
    loop {
        let mut random = [0; 8];
        env.entropy.fill(&mut random)?;
        let token = hex::encode(random);
        let path = root.join(format!("{PREFIX}{token}"));
        let socket = path.join("run").join(format!(".s.PGSQL.{OPEN_PORT}"));
        if socket.as_os_str().len() > SOCKET_PATH_BYTES {
            let detail = format!("the name of a socket in it would be longer than {SOCKET_PATH_BYTES} bytes");
            return Err(
                Error::new(ErrorKind::ConfigInvalid, "make a sandbox in", root.display(), detail)
                    .with_hint("choose a folder with a shorter path for sandboxes, for example /tmp"),
            );
        }
        let failed = |error| Error::io("make", path.display(), error);
        std::fs::DirBuilder::new().mode(0o711).create(&path).map_err(failed)?;
        // Whoever sweeps has this lock first, too: either it is gone now, or nobody touches it before its marker is locked.
        let Some(alone) = lock_folder(&path)? else { continue };
        let ours = alone.metadata().map_err(failed)?.ino();
        match path.symlink_metadata() {
            Ok(meta) if meta.ino() == ours => {}
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(_) | Err(_) => continue,
        }
        let locked = lock_marker(&path)?;
        return Ok((token, path, locked));
    }
}

fn lock_marker(path: &Path) -> Result<File> {
    let marker = path.join(MARKER);
    let mut options = OpenOptions::new();
    let opened = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&marker);
    let file = opened.map_err(|error| Error::io("write", marker.display(), error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| Error::io("lock", marker.display(), error.into()).with_kind(ErrorKind::Locked))?;
    Ok(file)
}

fn give(path: &Path, user: Option<(u32, u32)>) -> Result<()> {
    let Some((user, group)) = user else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(user), Some(group))
        .map_err(|error| Error::io("change the owner of", path.display(), error))
}

/// How many slots and origins a server on `data_dir` may have to find room for.
pub(super) fn slots(data_dir: &Path) -> Result<u32> {
    let folder = data_dir.join("pg_replslot");
    let slots = match folder.read_dir() {
        Ok(entries) => entries.count(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::io("read", folder.display(), error)),
    };
    // 16 bytes for each origin, behind a number.
    let origins = data_dir.join("pg_logical/replorigin_checkpoint");
    let origins = match origins.metadata() {
        Ok(meta) => meta.len() / 16,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::io("look at", origins.display(), error)),
    };
    Ok(u32::try_from(slots as u64 + origins)
        .unwrap_or(u32::MAX)
        .saturating_add(8)
        .min(100_000))
}

fn pid_file(data_dir: &Path) -> Result<Vec<String>> {
    let path = data_dir.join("postmaster.pid");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", path.display(), error)),
    }
}

/// The process of the server that runs on `data_dir`. Where it cannot be known whether the process of that number is one, it counts as one.
pub(super) fn running(data_dir: &Path) -> Result<Option<u32>> {
    let Some(pid) = pid_file(data_dir)?.first().and_then(|line| line.trim().parse::<i32>().ok()) else {
        return Ok(None);
    };
    let Some(process) = Pid::from_raw(pid) else { return Ok(None) };
    if test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
        return Ok(None);
    }
    let data_dir = data_dir
        .canonicalize()
        .map_err(|error| Error::io("look at", data_dir.display(), error))?;
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) if cwd != data_dir => Ok(None),
        _ => Ok(u32::try_from(pid).ok()),
    }
}

/// Removes the sandboxes in `root` whose process is gone, with their servers and what goes with them; says how many.
///
/// Only folders that belong to us, that nobody else can write, and that hold a marker which nobody has locked.
pub fn sweep(root: &Path) -> Result<u32> {
    let entries = match root.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::io("read", root.display(), error)),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("read", root.display(), error))?;
        let name = entry.file_name();
        let Some(token) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if token.len() == 16 && is_ours(&entry.path())? && sweep_one(&entry.path(), token)? {
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_ours(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("look at", path.display(), error)),
    }
}

fn sweep_one(path: &Path, token: &str) -> Result<bool> {
    let marker = path.join(MARKER);
    // Whoever sweeps it at the same time is waited for: when this returns, what was left is gone, whoever removed it.
    let Some(_alone) = lock_folder(path)? else { return Ok(false) };
    let mut locked = match lock_marker(path) {
        Ok(file) => file,
        // In use, or just being removed by its own process.
        Err(error) if matches!(error.kind(), ErrorKind::Locked | ErrorKind::NotFound) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    locked
        .read_to_end(&mut text)
        .map_err(|error| Error::io("read", marker.display(), error))?;
    let (dispose, data_dir) = match (text.strip_prefix(b"dispose "), text.strip_prefix(b"leave ")) {
        (Some(data_dir), _) => (true, data_dir),
        (_, Some(data_dir)) => (false, data_dir),
        // It died before it had started anything.
        _ => (false, &b""[..]),
    };
    let data_dir = PathBuf::from(std::ffi::OsString::from_vec(data_dir.to_vec()));
    let run = path.join("run");
    end_servers(&run)?;
    if data_dir.is_absolute() && data_dir.is_dir() {
        refuse_served(&data_dir, &run)?;
        let bears_token = std::fs::read(data_dir.join(TOKEN_FILE)).is_ok_and(|found| found == token.as_bytes());
        if dispose && bears_token {
            durable::remove_folder(&data_dir)?;
        }
    }
    durable::remove_folder(path)?;
    Ok(true)
}

/// Waits until nobody else sweeps this folder; none where it is gone.
fn lock_folder(path: &Path) -> Result<Option<File>> {
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path.display(), error)),
    };
    loop {
        match flock(&folder, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            // A file system without locks on folders has none that are waited for.
            Ok(()) | Err(rustix::io::Errno::BADF | rustix::io::Errno::OPNOTSUPP) => return Ok(Some(folder)),
            Err(error) => return Err(Error::io("lock", path.display(), error.into())),
        }
    }
}

/// Ends the servers of a sandbox whose process is gone.
///
/// They are known by the arguments that they were started with: a server that is just starting has no `postmaster.pid` yet, or one that does not
/// name its socket. Until a child has become a server it holds the lock on the marker, which it has from the process that started it.
fn end_servers(run: &Path) -> Result<()> {
    let settings = run.join("postgresql.conf");
    let wanted = [b"config_file=", settings.as_os_str().as_bytes()].concat();
    let failed = |error| Error::io("list", "/proc", error);
    for entry in Path::new("/proc").read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        let is_server = || {
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == wanted)
        };
        if is_server() {
            end_server(pid, run, is_server)?;
        }
    }
    Ok(())
}

/// A server of ours that could not be found by its arguments, where processes are hidden from us, keeps its data.
fn refuse_served(data_dir: &Path, run: &Path) -> Result<()> {
    let is_ours = pid_file(data_dir)?.get(4).map(String::as_str) == run.to_str();
    match running(data_dir)?.filter(|_| is_ours) {
        None => Ok(()),
        Some(pid) => {
            let detail = format!("its server (process {pid}) was left by a killed run, and cannot be seen from here to be ended");
            Err(Error::new(ErrorKind::Refused, "remove", data_dir.display(), detail)
                .with_hint(format!("stop it (`kill -QUIT {pid}`), and run the same command again")))
        }
    }
}

/// Ends one process, of which `is_server` tells whether its number is still its own.
fn end_server(pid: Pid, run: &Path, is_server: impl Fn() -> bool) -> Result<()> {
    let gone = |error: rustix::io::Errno| error == rustix::io::Errno::SRCH;
    let name = || format!("the server of {}", run.display());
    let failed = |error: rustix::io::Errno| Error::io("stop", name(), error.into());
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(error) if gone(error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // The number may have gone to another process before it was held fast.
    if !is_server() {
        return Ok(());
    }
    for (signal, patience) in [
        (Signal::QUIT, Duration::from_secs(20)),
        (Signal::KILL, Duration::from_secs(20)),
    ] {
        match pidfd_send_signal(&process, signal) {
            Ok(()) => {}
            Err(error) if gone(error) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        if has_ended(&process, patience).map_err(failed)? {
            return Ok(());
        }
    }
    let detail = "it does not end, not even when killed";
    Err(Error::new(ErrorKind::Failed, "stop", name(), detail))
}

fn has_ended(process: &rustix::fd::OwnedFd, patience: Duration) -> rustix::io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut waiting = [PollFd::new(process, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    Ok(poll(&mut waiting, Some(&patience))? > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A sandbox begins while others sweep: they take what was left, and never what is just being made.
    #[test]
    fn a_folder_that_is_being_made_is_not_swept() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = tempfile::tempdir().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        sweep(root.path()).unwrap();
                    }
                });
            }
            for _ in 0..300 {
                let env = lifeboat_testkit::env::real_env();
                let made = Folder::create(&env, root.path(), data_dir.path(), false, None);
                made.unwrap().remove().unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(root.path().read_dir().unwrap().count(), 0);
    }
}
