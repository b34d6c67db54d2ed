//! Answers for log on a socket that only the user of the database server can reach: in the process of a restore, or as a program of its own.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmodat, chownat, fchown, fstat, open};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::archive::{Answer, Archive, lock};
use super::sources::is_verdict;
use super::talk::{GREETING, QUESTION_LIMIT, Tag, head};

const SOCKET: &str = "log";
/// The longest path of a socket, as the system has it.
const PATH_LIMIT_BYTES: usize = 103;
/// How long somebody may take to ask, or to take what he asked for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often somebody who waits hears that we are at it.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Log that is being served. Dropped, it ends.
#[derive(Debug)]
pub struct Serving {
    socket: PathBuf,
    opened: OwnedFd,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    env: Env,
    archive: Archive,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asking: usize,
    last: Duration,
    served: u64,
    trouble: Option<String>,
}

/// Where log is served that is served in `folder`.
#[must_use]
pub fn socket_in(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

/// Serves `archive` on a new socket in `folder`, which is made where it is missing, 0700, and afterwards belongs to `owner` (user and group) where
/// that is somebody else: the server that asks. Kind `Refused` where the folder is not ours alone, or somebody serves there already.
pub async fn serve(env: &Env, archive: Archive, folder: &Path, owner: Option<(u32, u32)>) -> Result<Serving> {
    let socket = socket_in(folder);
    if socket.as_os_str().len() > PATH_LIMIT_BYTES {
        let detail = format!("the path of a socket has at most {PATH_LIMIT_BYTES} bytes");
        return Err(Error::new(ErrorKind::Usage, "serve log on", socket.display(), detail)
            .with_hint("put the restored directory, or the folder for sockets, at a shorter path"));
    }
    let opened = prepare(folder)?;
    let within = socket_of(&opened);
    if UnixStream::connect(&within).await.is_ok() {
        let detail = "somebody serves log there already";
        return Err(Error::new(ErrorKind::Refused, "serve log on", socket.display(), detail));
    }
    let failed = |error| Error::io("serve log on", socket.display(), error);
    durable::remove_file(&within)?;
    let listener = UnixListener::bind(&within).map_err(failed)?;
    // Nobody else gets into the folder yet.
    chmodat(&opened, SOCKET, Mode::RUSR | Mode::WUSR, AtFlags::empty()).map_err(|error| failed(error.into()))?;
    if let Some((user, group)) = owner {
        let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
        chownat(&opened, SOCKET, user, group, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(error.into()))?;
        fchown(&opened, user, group).map_err(|error| failed(error.into()))?;
    }
    let shared = Arc::new(Shared {
        env: env.clone(),
        archive,
        state: Mutex::new(State {
            last: env.clock.monotonic(),
            ..State::default()
        }),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, Arc::clone(&shared)));
    Ok(Serving {
        socket,
        opened,
        shared,
        tasks,
    })
}

/// The socket in the folder that was looked at, whatever the folder's path has come to mean.
fn socket_of(opened: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())).join(SOCKET)
}

/// The folder is there, it is ours, and nobody else gets in.
fn prepare(folder: &Path) -> Result<OwnedFd> {
    durable::create_folder(folder)?;
    let failed = |error: Errno| Error::io("look at", folder.display(), error.into());
    let refused = |detail: &str| {
        Error::new(ErrorKind::Refused, "serve log in", folder.display(), detail)
            .with_hint("remove it, or name another folder; others could read the log there, or have us write somewhere else")
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match open(folder, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(refused("it is not a folder")),
        Err(error) => return Err(failed(error)),
    };
    let meta = fstat(&opened).map_err(failed)?;
    if meta.st_uid != rustix::process::geteuid().as_raw() || meta.st_mode & 0o077 != 0 {
        return Err(refused("it is not a folder of ours alone"));
    }
    Ok(opened)
}

impl Serving {
    /// Where it answers.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// For how long nobody has asked.
    #[must_use]
    pub fn idle(&self) -> Duration {
        let state = lock(&self.shared.state);
        if state.asking > 0 {
            return Duration::ZERO;
        }
        self.shared.env.clock.monotonic().saturating_sub(state.last)
    }

    /// How many files were handed out.
    #[must_use]
    pub fn served(&self) -> u64 {
        lock(&self.shared.state).served
    }

    /// What could not be handed out last, and why: the reason behind a recovery that the server gave up.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.state).trouble.clone()
    }

    /// Ends it, and removes the socket.
    pub async fn stop(mut self) -> Result<()> {
        self.tasks.shutdown().await;
        durable::remove_file(&socket_of(&self.opened))
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    calls.spawn(call(stream, Arc::clone(&shared)));
                }
                // Out of descriptors, for example: whoever asks tries again, and so do we.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
        }
    }
}

async fn call(stream: UnixStream, shared: Arc<Shared>) {
    lock(&shared.state).asking += 1;
    let told = converse(stream, &shared).await;
    let mut state = lock(&shared.state);
    state.asking -= 1;
    state.last = shared.env.clock.monotonic();
    match told {
        Ok(()) => state.served += 1,
        Err(error) => state.trouble = Some(error.to_string()),
    }
}

async fn converse(mut stream: UnixStream, shared: &Shared) -> Result<()> {
    let name = in_time(question(&mut stream)).await?;
    let answered = answer(&mut stream, &shared.archive, &name).await;
    if let Err(error) = &answered {
        // Before whoever asked hears of it, and asks us why.
        lock(&shared.state).trouble = Some(error.to_string());
        let mut text = error.to_string();
        if let Some(hint) = error.hint() {
            text = format!("{text}; {hint}");
        }
        let tag = if is_verdict(error) { Tag::Broken } else { Tag::NotNow };
        // Whoever does not hear it any more will ask again.
        drop(in_time(say(&mut stream, tag, text.as_bytes())).await);
    }
    answered
}

async fn question(stream: &mut UnixStream) -> Result<String> {
    let failed = |error| Error::io("read from", "the socket", error);
    let mut bytes = Vec::new();
    let mut buffer = [0; 64];
    while !bytes.ends_with(b"\n") {
        let read = stream.read(&mut buffer).await.map_err(failed)?;
        bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if read == 0 || bytes.len() > QUESTION_LIMIT {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let name = text.strip_prefix(GREETING).and_then(|rest| rest.strip_suffix('\n'));
    name.map(str::to_owned)
        .ok_or_else(|| Error::new(ErrorKind::Usage, "understand", "a question on the socket", "it names no file"))
}

async fn answer(stream: &mut UnixStream, archive: &Archive, name: &str) -> Result<()> {
    let segment = match meanwhile(stream, ALIVE_EVERY, archive.look(name)).await? {
        Answer::Absent(why) => return in_time(say(stream, Tag::Absent, why.as_bytes())).await,
        Answer::Text(text) => {
            in_time(say(stream, Tag::Bytes, &text)).await?;
            return in_time(say(stream, Tag::Whole, &(text.len() as u64).to_le_bytes())).await;
        }
        Answer::Segment(segment) => segment,
    };
    let mut at = 0;
    while at < segment.bytes() {
        let part = meanwhile(stream, ALIVE_EVERY, archive.part(&segment, at)).await?;
        if !part.bytes().is_empty() {
            in_time(say(stream, Tag::Bytes, part.bytes())).await?;
        }
        let mut zeros = part.zeros();
        while zeros > 0 {
            let some = zeros.min(ZEROS.len());
            in_time(say(stream, Tag::Bytes, &ZEROS[..some])).await?;
            zeros -= some;
        }
        at += (part.bytes().len() + part.zeros()) as u64;
    }
    in_time(say(stream, Tag::Whole, &at.to_le_bytes())).await
}

/// Says from time to time that we are at it, for as long as `doing` takes: a store that stalls is not a silence.
async fn meanwhile<T>(stream: &mut UnixStream, every: Duration, doing: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::pin!(doing);
    loop {
        match tokio::time::timeout(every, &mut doing).await {
            Ok(done) => return done,
            Err(_elapsed) => in_time(say(stream, Tag::Wait, &[])).await?,
        }
    }
}

async fn say(stream: &mut UnixStream, tag: Tag, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io("write to", "the socket", error);
    stream.write_all(&head(tag, bytes.len())?).await.map_err(failed)?;
    stream.write_all(bytes).await.map_err(failed)
}

async fn in_time<T>(doing: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_elapsed| {
        Error::new(
            ErrorKind::TimedOut,
            "answer on",
            "the socket",
            "the other side does not go on",
        )
    };
    tokio::time::timeout(PATIENCE, doing).await.map_err(late)?
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
