//! How results look: text for people, JSON for programs, errors for both, progress for whoever waits.
//!
//! stdout carries the result and nothing else; everything else goes to stderr. Nothing here decides anything.

pub(crate) mod drill;
pub(crate) mod drill_page;
pub(crate) mod error;
pub(crate) mod json;
pub(crate) mod kit;
pub(crate) mod progress;
pub(crate) mod text;

use std::io::{self, Write};

use lifeboat_model::{Error, Result};
use serde_json::Value;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// The result is one JSON document.
    pub(crate) json: bool,
    /// No notes.
    pub(crate) quiet: bool,
    /// Details.
    pub(crate) verbose: bool,
}

impl Out {
    /// Prints the result: `body` as `lifeboat/v1/<kind>` with `--json`, the text otherwise.
    pub(crate) fn result(self, kind: &str, body: Value, text: &str) -> Result<()> {
        if self.json {
            print(&json::document(kind, body))
        } else {
            print(text)
        }
    }

    /// Tells a person something beside the result.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            tell(text);
        }
    }

    /// Tells a person what is going on, where `-v` asks for it.
    pub(crate) fn detail(self, text: impl FnOnce() -> String) {
        if self.verbose {
            tell(&text());
        }
    }
}

/// Writes to stdout. A reader that went away (`| head`) is no failure; a full disk is.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    let written = write_whole(&mut stdout, text);
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write to", "stdout", error).with_hint(
            "the command did its work, only its report is missing: `lifeboat list` and `lifeboat status` show how things stand",
        )),
        _ => Ok(()),
    }
}

/// Writes to stderr, whatever becomes of it: there is nowhere left to complain.
pub(crate) fn tell(text: &str) {
    let mut stderr = anstream::stderr().lock();
    if write_whole(&mut stderr, text).is_err() {}
}

fn write_whole(sink: &mut impl Write, text: &str) -> io::Result<()> {
    sink.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        sink.write_all(b"\n")?;
    }
    sink.flush()
}
