//! Asks for a file of log on a socket until there is an answer: `lifeboat wal fetch`, as a recovering server calls it (PG-07).
//!
//! Without an async runtime: it is started for each segment. The file gets its name last, complete and durable.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Clock, Error, ErrorKind, Result};

use super::talk::{FILE_LIMIT, GREETING, Tag, read_head};

/// The first pause between two tries, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long the server of log may say nothing: it may read slowly, but it answers errors at once.
const SILENCE: Duration = Duration::from_secs(60);

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The file stands under the name asked for, whole.
    There,
    /// There is no such file, and why that is sure.
    Absent(String),
}

/// Asks on `socket` for the file `name` and puts it at `to`. Tries again for as long as `patience`; `nobody` is called when nobody
/// listens there, and may start somebody.
///
/// # Errors
/// Whatever the last try said. Nothing stands at `to` that did not stand there before.
pub fn fetch(
    clock: &dyn Clock,
    socket: &Path,
    name: &str,
    to: &Path,
    patience: Duration,
    nobody: &mut dyn FnMut() -> Result<()>,
) -> Result<Fetched> {
    let began = clock.monotonic();
    let mut pause = PAUSES.0;
    loop {
        let error = match ask(socket, name) {
            Ok(Reply::File(bytes)) => {
                durable::replace_file(to, &bytes, durable::FILE_MODE)?;
                return Ok(Fetched::There);
            }
            Ok(Reply::Absent(why)) => return Ok(Fetched::Absent(why)),
            Ok(Reply::NotNow(why)) => Error::new(ErrorKind::Unreachable, "fetch", name, why),
            Err(Failed::Nobody(error)) => {
                nobody()?;
                error
            }
            Err(Failed::Other(error)) => error,
        };
        if clock.monotonic().saturating_sub(began) >= patience {
            return Err(error);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

enum Reply {
    File(Vec<u8>),
    Absent(String),
    NotNow(String),
}

enum Failed {
    Nobody(Error),
    Other(Error),
}

fn ask(socket: &Path, name: &str) -> Result<Reply, Failed> {
    let failed = |error| Error::io("ask for log on", socket.display(), error);
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Failed::Nobody(
            failed(error)
                .with_hint("nobody serves log there: restore with --start, or start the server of the restored directory again"),
        ),
        _ => Failed::Other(failed(error)),
    })?;
    let other = |error| Failed::Other(failed(error));
    stream.set_read_timeout(Some(SILENCE)).map_err(other)?;
    stream.set_write_timeout(Some(SILENCE)).map_err(other)?;
    stream.write_all(format!("{GREETING}{name}\n").as_bytes()).map_err(other)?;
    hear(&mut stream, socket).map_err(Failed::Other)
}

fn hear(stream: &mut UnixStream, socket: &Path) -> Result<Reply> {
    let failed = |error| Error::io("hear about log on", socket.display(), error);
    let mut file = Vec::new();
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).map_err(failed)?;
        let (tag, length) = read_head(head)?;
        let before = file.len();
        if (before + length) as u64 > FILE_LIMIT {
            let detail = "it is longer than a segment can be";
            return Err(Error::new(ErrorKind::Corrupt, "hear about log on", socket.display(), detail));
        }
        if tag == Tag::Bytes {
            file.resize(before + length, 0);
            stream
                .read_exact(file.get_mut(before..).unwrap_or_default())
                .map_err(failed)?;
            continue;
        }
        let mut text = vec![0; length];
        stream.read_exact(&mut text).map_err(failed)?;
        let words = || String::from_utf8_lossy(&text).into_owned();
        return match tag {
            Tag::Absent => Ok(Reply::Absent(words())),
            Tag::NotNow => Ok(Reply::NotNow(words())),
            Tag::Bytes | Tag::Whole => {
                if text != (file.len() as u64).to_le_bytes() {
                    let detail = "it has another length than was said";
                    return Err(Error::new(ErrorKind::Corrupt, "hear about log on", socket.display(), detail));
                }
                Ok(Reply::File(file))
            }
        };
    }
}
