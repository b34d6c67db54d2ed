//! Asks for a file of log on a socket until there is an answer: `lifeboat wal fetch`, as a recovering server calls it (PG-07).
//!
//! Without an async runtime: it is started for each segment. The file gets its name last, complete. It is not made durable: a server that
//! crashes before it has replayed a file asks for it again, and waiting for the disk would hold up every segment.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Clock, Error, ErrorKind, Result};

use super::talk::{FILE_LIMIT, GREETING, Tag, read_head};

/// The first pause between two tries, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long the server of log may say nothing: it says every few seconds that it is at it.
const SILENCE: Duration = Duration::from_secs(20);
/// For how long it is tried again where nobody listens, or what is stored is damaged.
const FOR_WHAT_STAYS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));

/// For how long somebody tries.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Where what is in the way may pass by itself.
    pub passing: Duration,
    /// Where nobody listens.
    pub nobody: Duration,
    /// Where what is stored is damaged or missing: a listing may be old, and another copy may be found.
    pub damaged: Duration,
    /// How long one answer may say nothing.
    pub silence: Duration,
}

impl Patience {
    /// At most so long for anything.
    #[must_use]
    pub fn of(longest: Duration) -> Self {
        Self {
            passing: longest,
            nobody: longest.min(FOR_WHAT_STAYS.0),
            damaged: longest.min(FOR_WHAT_STAYS.1),
            silence: SILENCE,
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The file stands under the name asked for, whole.
    There,
    /// There is no such file, and why that is sure.
    Absent(String),
}

/// Asks on `socket` for the file `name` and puts it at `to`. Tries again for as long as `patience` says of what is in the way; `nobody` is called
/// when nobody listens there, and may start somebody.
///
/// # Errors
/// Whatever the last try said. Nothing stands at `to` that did not stand there before.
pub fn fetch(
    clock: &dyn Clock,
    socket: &Path,
    name: &str,
    to: &Path,
    patience: Patience,
    nobody: &mut dyn FnMut() -> Result<()>,
) -> Result<Fetched> {
    let began = clock.monotonic();
    let (mut pause, mut tries) = (PAUSES.0, 0_u32);
    loop {
        let (error, longest) = match ask(socket, name, patience.silence) {
            Ok(Reply::File(bytes)) => {
                durable::hand_over(to, &bytes, durable::FILE_MODE)?;
                return Ok(Fetched::There);
            }
            Ok(Reply::Absent(why)) => return Ok(Fetched::Absent(why)),
            Ok(Reply::NotNow(why)) => (Error::new(ErrorKind::Unreachable, "fetch", name, why), patience.passing),
            Ok(Reply::Broken(why)) => (Error::new(ErrorKind::Corrupt, "fetch", name, why), patience.damaged),
            Err(Failed::Nobody(error)) => {
                nobody()?;
                (error, patience.nobody)
            }
            Err(Failed::Other(error)) => (error, patience.passing),
        };
        tries += 1;
        // One answer that does not come must not be the only one asked for.
        let again = tries == 1 && !longest.is_zero();
        if !again && clock.monotonic().saturating_sub(began) >= longest {
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
    Broken(String),
}

enum Failed {
    Nobody(Error),
    Other(Error),
}

fn ask(socket: &Path, name: &str, silence: Duration) -> Result<Reply, Failed> {
    let failed = |error| Error::io("ask for log on", socket.display(), error);
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Failed::Nobody(
            failed(error)
                .with_hint("nobody serves log there: restore with --start, or start the server of the restored directory again"),
        ),
        _ => Failed::Other(failed(error)),
    })?;
    let other = |error| Failed::Other(failed(error));
    stream.set_read_timeout(Some(silence)).map_err(other)?;
    stream.set_write_timeout(Some(silence)).map_err(other)?;
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
            Tag::Wait => continue,
            Tag::Absent => Ok(Reply::Absent(words())),
            Tag::NotNow => Ok(Reply::NotNow(words())),
            Tag::Broken => Ok(Reply::Broken(words())),
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::talk::head;
    use super::*;

    fn patience() -> Patience {
        Patience {
            passing: Duration::from_secs(20),
            nobody: Duration::from_millis(100),
            damaged: Duration::from_millis(100),
            silence: Duration::from_millis(300),
        }
    }

    /// Answers call after call, each in its own way.
    fn serving(socket: &Path, answers: Vec<fn(&mut UnixStream)>) -> std::thread::JoinHandle<usize> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let mut answered = 0;
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = [0; 64];
                assert!(stream.read(&mut question).unwrap() > 0);
                answer(&mut stream);
                answered += 1;
            }
            answered
        })
    }

    fn say(stream: &mut UnixStream, tag: Tag, bytes: &[u8]) {
        stream.write_all(&head(tag, bytes.len()).unwrap()).unwrap();
        stream.write_all(bytes).unwrap();
    }

    fn pause(millis: u64) {
        std::thread::park_timeout(Duration::from_millis(millis));
    }

    /// One that says nothing, and one that is at it for longer than silence may last.
    #[test]
    fn a_silence_is_not_an_answer_and_being_at_it_is_not_a_silence() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, to) = (folder.path().join("log"), folder.path().join("to"));
        let server = serving(
            &socket,
            vec![
                |stream| {
                    // Until the other side has given up.
                    drop(stream.read(&mut [0; 1]));
                },
                |stream| {
                    for _ in 0..8 {
                        pause(100);
                        say(stream, Tag::Wait, &[]);
                    }
                    say(stream, Tag::Bytes, b"log");
                    say(stream, Tag::Whole, &3_u64.to_le_bytes());
                },
            ],
        );
        let short = Patience {
            passing: Duration::from_millis(200),
            ..patience()
        };
        let clock = lifeboat_testkit::env::real_env().clock;
        let fetched = fetch(&*clock, &socket, "name", &to, short, &mut || Ok(()));
        assert_eq!(fetched.unwrap(), Fetched::There);
        assert_eq!((server.join().unwrap(), std::fs::read(to).unwrap()), (2, b"log".to_vec()));
    }

    #[test]
    fn damage_is_told_soon_and_what_may_pass_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, to) = (folder.path().join("log"), folder.path().join("to"));
        let clock = lifeboat_testkit::env::real_env().clock;
        let server = serving(
            &socket,
            vec![
                |stream| say(stream, Tag::NotNow, b"the store is away"),
                |stream| say(stream, Tag::NotNow, b"the store is away"),
                |stream| say(stream, Tag::Absent, b"decided"),
            ],
        );
        let fetched = fetch(&*clock, &socket, "name", &to, patience(), &mut || Ok(()));
        assert_eq!(fetched.unwrap(), Fetched::Absent("decided".into()));
        server.join().unwrap();
        std::fs::remove_file(&socket).unwrap();
        let broken: fn(&mut UnixStream) = |stream| say(stream, Tag::Broken, b"a piece is damaged");
        let server = serving(&socket, vec![broken; 3]);
        let error = fetch(&*clock, &socket, "name", &to, patience(), &mut || Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (ErrorKind::Corrupt, "a piece is damaged"));
        drop(server);
    }
}
