//! Whether a server runs on a data directory: looked for without starting, connecting to or changing anything.
//!
//! `postmaster.pid` says that one was started, and is gone when it stopped in order. Its number is worth little by itself: it may stand for
//! another process by now, or belong to a container whose numbers are others. A server works in its data directory, so every process that can
//! be seen is asked for the folder that it is in; what cannot be seen is never taken for absent.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lifeboat_model::{Error, Result};
use rustix::process::{Pid, test_kill_process};

/// The file that a running server keeps in its data directory.
pub const PID_FILE: &str = "postmaster.pid";
/// The line of it that names the folder of the socket, from 0.
const SOCKET_LINE: usize = 4;

/// What is known of a server on a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// None runs there: there is no `postmaster.pid`, and no process that can be seen is in that folder.
    Absent,
    /// This process runs there, or cannot be told from one that does.
    Runs(i32),
    /// `postmaster.pid` is there and its server cannot be seen: it was killed, or runs where this process does not see it.
    Unseen {
        /// The process that it names, where it names one.
        pid: Option<i32>,
        /// The folder of its socket.
        socket_folder: Option<String>,
    },
}

/// Looks for a server on `data_dir`.
pub fn server_on(data_dir: &Path) -> Result<Server> {
    let folder = match data_dir.metadata() {
        Ok(meta) => (meta.dev(), meta.ino()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Server::Absent),
        Err(error) => return Err(Error::io("look at", data_dir.display(), error)),
    };
    let path = data_dir.join(PID_FILE);
    let lines: Option<Vec<String>> = match std::fs::read(&path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", path.display(), error)),
    };
    let named = lines
        .as_ref()
        .and_then(|lines| lines.first())
        .and_then(|line| line.trim().parse().ok());
    if let Some(pid) = named
        && may_be(pid, folder)
    {
        return Ok(Server::Runs(pid));
    }
    if let Some(pid) = in_folder(folder)? {
        return Ok(Server::Runs(pid));
    }
    Ok(match lines {
        None => Server::Absent,
        Some(lines) => Server::Unseen {
            pid: named,
            socket_folder: lines.get(SOCKET_LINE).cloned(),
        },
    })
}

/// Whether the process of this number may be a server in `folder`: it is there, and is not known to be somewhere else.
fn may_be(pid: i32, folder: (u64, u64)) -> bool {
    let Some(process) = Pid::from_raw(pid) else { return false };
    if test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    // A process of somebody else does not say where it is.
    std::fs::metadata(format!("/proc/{pid}/cwd")).map_or(true, |meta| (meta.dev(), meta.ino()) == folder)
}

/// A process called `postgres` that works in `folder`. The folder itself is compared and not its name: another container has other names.
fn in_folder(folder: (u64, u64)) -> Result<Option<i32>> {
    let failed = |error| Error::io("list", "/proc", error);
    for entry in Path::new("/proc").read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let here = entry
            .path()
            .join("cwd")
            .metadata()
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == folder);
        let is_server = || std::fs::read(entry.path().join("comm")).is_ok_and(|name| name.starts_with(b"postgres"));
        if here && is_server() {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a server's file, and a process in its folder")]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_somebody_else_is_no_server_and_no_proof_of_absence() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(server_on(folder.path()).unwrap(), Server::Absent);
        assert_eq!(server_on(&folder.path().join("missing")).unwrap(), Server::Absent);
        // This very process lives, in another folder.
        let ours = std::process::id();
        std::fs::write(folder.path().join(PID_FILE), format!("{ours}\n/data\n1\n5432\n/run/pg\n")).unwrap();
        let unseen = Server::Unseen {
            pid: i32::try_from(ours).ok(),
            socket_folder: Some("/run/pg".to_owned()),
        };
        assert_eq!(server_on(folder.path()).unwrap(), unseen);
        // A child of ours that is in that folder may be one, whatever it is called.
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        let number = i32::try_from(child.id()).unwrap();
        std::fs::write(folder.path().join(PID_FILE), format!("{number}\n")).unwrap();
        let seen = server_on(folder.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen.unwrap(), Server::Runs(number));
        // Empty: a server may have died while it wrote it, or is just starting.
        std::fs::write(folder.path().join(PID_FILE), "").unwrap();
        let unknown = Server::Unseen {
            pid: None,
            socket_folder: None,
        };
        assert_eq!(server_on(folder.path()).unwrap(), unknown);
    }
}
