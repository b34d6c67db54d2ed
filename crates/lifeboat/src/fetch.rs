//! `lifeboat wal fetch`: a database server in recovery runs it for each file of log (`restore_command`).
//!
//! Apart from the other commands, because the server takes the exit code for a statement (PG-07): 0, the file is there, whole; 1, it does not
//! exist, which ends the recovery; anything below 126 means the same as 1 there. So it ends in 0, 1 or 255, whatever is wrong, and the words of
//! its command line are read here and not by what ends with 2. It is started for each segment: no configuration is read, no runtime begun.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_io::process::{Detached, Process};
use lifeboat_model::env::Silent;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::wal::{self, Fetched};

use crate::exit::Exit;
use crate::render;

/// The file stands, whole.
const THERE: u8 = 0;
/// There is no such file.
const ABSENT: u8 = 1;
/// Everything else: the server stops, and can be started again.
pub(crate) const NOT_NOW: u8 = Exit::NOT_NOW.code();

const USAGE: &str = "usage: lifeboat wal fetch (--socket PATH | --restore FILE) [--patience SECONDS] NAME DEST";
const PATIENCE_S: u64 = 60;

/// Whether the words on the command line mean this command, as well as one can tell: wrong ones included.
#[must_use]
pub(crate) fn is_meant(words: &[OsString]) -> bool {
    let place = words.windows(2).position(|pair| pair[0] == "wal" && pair[1] == "fetch");
    let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    place.is_some_and(|place| {
        let before = &words[..place];
        // Options of every command may stand in front, with their values.
        let value = |at: usize| at.checked_sub(1).is_some_and(|option| is_option(&before[option]));
        (0..place).all(|at| is_option(&before[at]) || value(at))
    })
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    from: From,
    patience: Duration,
    name: String,
    to: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
enum From {
    Socket(PathBuf),
    Restore(PathBuf),
}

/// Runs it; returns the exit code.
pub(crate) fn main(words: &[OsString]) -> u8 {
    let told = |error: &Error| {
        render::tell(&render::error::for_people(error));
        NOT_NOW
    };
    let asked = match understand(words) {
        Ok(asked) => asked,
        Err(error) => return told(&error),
    };
    match run(&asked) {
        Ok(Fetched::There) => THERE,
        Ok(Fetched::Absent(why)) => {
            render::tell(&format!("{} does not exist: {why}", asked.name));
            ABSENT
        }
        Err(error) => told(&error),
    }
}

fn run(asked: &Asked) -> Result<Fetched> {
    let env = crate::env::real(|_| std::sync::Arc::new(Silent));
    let (socket, mut starter) = match &asked.from {
        From::Socket(socket) => (socket.clone(), None),
        From::Restore(file) => {
            let file = std::path::absolute(file).map_err(|error| Error::io("find", file.display(), error))?;
            let folder = durable::parent_of(&file);
            (
                wal::socket_in(&folder),
                Some(Starter {
                    file,
                    folder,
                    child: None,
                }),
            )
        }
    };
    let patience = wal::Patience::of(asked.patience);
    wal::fetch(&*env.clock, &socket, &asked.name, &asked.to, patience, &mut || {
        starter.as_mut().map_or(Ok(()), Starter::start)
    })
}

/// Starts the server of log of a restored directory.
struct Starter {
    file: PathBuf,
    folder: PathBuf,
    child: Option<Detached>,
}

impl Starter {
    /// Starts it unless one that we started is still at it. One that another call started holds a lock, and ours ends at once and well.
    fn start(&mut self) -> Result<()> {
        crate::cli::refuse_as_root(&self.folder)?;
        if let Some(child) = &mut self.child {
            match child.ended()? {
                None => return Ok(()),
                Some(status) if status.success() => {}
                Some(status) => {
                    let code = status.code().and_then(|code| u8::try_from(code).ok());
                    if !code.is_some_and(may_pass) {
                        return Err(self.failed());
                    }
                }
            }
        }
        let program = std::env::current_exe().map_err(|error| Error::io("find", "our own program", error))?;
        let process = Process::new(program, Duration::MAX)
            .arg("wal")
            .arg("serve")
            .arg("--restore")
            .arg(&self.file);
        // Not the data directory: a server that is gone for long must not be kept from being moved.
        self.child = Some(process.folder("/").detach(self.log()?)?);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("serve.log")
    }

    fn log(&self) -> Result<std::fs::File> {
        let path = self.log_path();
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(durable::FILE_MODE)
            .custom_flags(crate::cli::NO_LINK)
            .open(&path);
        opened.map_err(|error| Error::io("open", path.display(), error))
    }

    fn failed(&self) -> Error {
        let path = self.log_path();
        let text = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_else(|error| error.to_string());
        let said = text.lines().rev().take(3).collect::<Vec<_>>();
        let said = said.into_iter().rev().collect::<Vec<_>>().join(" ");
        let detail = format!("the server of log ended: {said}");
        Error::new(ErrorKind::Unreachable, "start the server of log of", self.file.display(), detail).with_hint(format!(
            "it runs as the user of the database server, who has to be able to read the configuration and the private key; `lifeboat restore … --start` does it as you; all its words are in {}",
            path.display()
        ))
    }
}

/// Whether what made a program end with this code may pass by itself.
fn may_pass(code: u8) -> bool {
    [ErrorKind::TimedOut, ErrorKind::Locked, ErrorKind::Unreachable]
        .iter()
        .any(|kind| Exit::of(*kind).code() == code)
}

fn understand(words: &[OsString]) -> Result<Asked> {
    let wrong = |detail: String| Error::new(ErrorKind::Usage, "understand", "the command line", detail).with_hint(USAGE);
    let (mut from, mut patience, mut plain) = (None, PATIENCE_S, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        let (option, value) = match text.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(OsString::from(value))),
            _ => (text, None),
        };
        let mut value = || {
            value
                .clone()
                .or_else(|| words.next().cloned())
                .filter(|value| !value.is_empty())
        };
        match option {
            "--socket" | "--restore" => {
                let path = value()
                    .map(PathBuf::from)
                    .ok_or_else(|| wrong(format!("{option} names no path")))?;
                let given = if option == "--socket" {
                    From::Socket(path)
                } else {
                    From::Restore(path)
                };
                if from.replace(given).is_some() {
                    return Err(wrong("it names two sources".to_owned()));
                }
            }
            "--patience" => {
                let given = value();
                let seconds = given.as_deref().and_then(OsStr::to_str).and_then(|text| text.parse().ok());
                patience = seconds.ok_or_else(|| wrong("--patience is not a number of seconds".to_owned()))?;
            }
            // Options of every command that change nothing here.
            "--json" | "--quiet" | "-q" | "--verbose" | "-v" => {}
            "--config" | "--progress" => drop(value()),
            _ if text.starts_with('-') || word.is_empty() => return Err(wrong(format!("it has no option {text:?}"))),
            _ => plain.push(word.clone()),
        }
    }
    let [wal, fetch, name, to] = plain.as_slice() else {
        return Err(wrong("it names not just a file of log and where to put it".to_owned()));
    };
    let name = name
        .to_str()
        .ok_or_else(|| wrong("the name of the file is not text".to_owned()))?;
    if wal != "wal" || fetch != "fetch" || name.chars().any(char::is_control) {
        return Err(wrong("it does not begin with wal fetch".to_owned()));
    }
    let from = from.ok_or_else(|| wrong("it says neither --socket nor --restore".to_owned()))?;
    Ok(Asked {
        from,
        patience: Duration::from_secs(patience),
        name: name.to_owned(),
        to: PathBuf::from(to),
    })
}
