//! What the server says went wrong, and what to do about it.

use std::fmt;

use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};

use super::frame::Body;

/// An `ErrorResponse`. It is the source of the [`Error`] made of it; [`server_error`] finds it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`, never translated.
    pub severity: String,
    /// SQLSTATE, five characters (PostgreSQL documentation, appendix A).
    pub code: String,
    /// In the language of the server.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What the server would do.
    pub hint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.code)?;
        match &self.detail {
            Some(detail) => write!(f, ", {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {}

/// Something that the server mentions in passing: the same fields, of lesser severity.
pub type Notice = ServerError;

/// What the server said, where this error comes from it.
#[must_use]
pub fn server_error(error: &Error) -> Option<&ServerError> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<ServerError>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// Its SQLSTATE.
#[must_use]
pub fn sqlstate(error: &Error) -> Option<&str> {
    server_error(error).map(|error| error.code.as_str())
}

impl ServerError {
    /// Reads the fields of an `ErrorResponse` or `NoticeResponse`.
    pub(super) fn parse(body: Bytes) -> Result<Self> {
        let mut body = Body::new(body);
        let mut found = Self {
            severity: String::new(),
            code: String::new(),
            message: String::new(),
            detail: None,
            hint: None,
        };
        loop {
            let field = body.u8()?;
            if field == 0 {
                return Ok(found);
            }
            let text = body.text()?;
            match field {
                b'S' if found.severity.is_empty() => found.severity = text,
                b'V' => found.severity = text,
                b'C' => found.code = text,
                b'M' => found.message = text,
                b'D' => found.detail = Some(text),
                b'H' => found.hint = Some(text),
                _ => {}
            }
        }
    }

    /// The same as an error of the workspace.
    pub(in crate::postgres) fn into_error(self, op: &'static str, subject: &str) -> Error {
        let detail = self
            .detail
            .as_ref()
            .map_or_else(|| self.message.clone(), |detail| format!("{}: {detail}", self.message));
        let mut error = Error::new(kind(&self.code), op, subject, format!("{detail} (SQLSTATE {})", self.code));
        if let Some(hint) = hint(&self.code).map(str::to_owned).or_else(|| self.hint.clone()) {
            error = error.with_hint(hint);
        }
        error.with_source(self)
    }
}

/// What sort of failure a SQLSTATE is.
fn kind(code: &str) -> ErrorKind {
    match code {
        // The server ends, starts or has no room: later it may be otherwise.
        "57P01" | "57P02" | "57P03" | "53300" => ErrorKind::Unreachable,
        "55006" | "55P03" => ErrorKind::Locked,
        "53100" => ErrorKind::NoSpace,
        "42704" | "58P01" => ErrorKind::NotFound,
        "42710" | "58P02" => ErrorKind::AlreadyExists,
        "57014" => ErrorKind::Failed,
        "42501" | "3D000" => ErrorKind::ConfigInvalid,
        "XX001" | "XX002" => ErrorKind::Corrupt,
        _ if code.starts_with("28") => ErrorKind::ConfigInvalid,
        _ if code.starts_with("08") => ErrorKind::Unreachable,
        _ => ErrorKind::Failed,
    }
}

/// What to do about it, where that is the same whatever was asked.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => {
            "check the password: it comes from the URL, from PGPASSWORD or from ~/.pgpass (for replication the database there is `replication`)"
        }
        "28000" => {
            "give this user a line in pg_hba.conf (for replication the database there is the word `replication`), then run `select pg_reload_conf()`; \
             if the message says `no encryption`, connect with sslmode=require; if the role may not log in, run `alter role … login`"
        }
        "42501" => {
            "let the role do it: replication needs `alter role … replication`, reading settings needs `grant pg_read_all_settings to …`"
        }
        "3D000" => "name a database that is there: `dbname=postgres` nearly always is",
        "53300" => {
            "all connections are taken: raise max_wal_senders (replication) or max_connections, or end one that is not needed"
        }
        "57P03" => "the server starts or recovers: try again when it takes connections",
        "55006" => "another program uses it: look into pg_stat_replication and pg_replication_slots for who",
        "53100" => "the disk of the server is full: make room there first",
        _ => return None,
    })
}

/// The connection is gone.
pub(super) fn lost(subject: &str, detail: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Unreachable, "talk to PostgreSQL at", subject, detail)
        .with_hint("look into the server's log; the same command can simply be run again")
}

/// What came is not PostgreSQL's protocol.
pub(in crate::postgres) fn broken(subject: &str, detail: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Failed, "talk to PostgreSQL at", subject, detail)
        .with_hint("is there really a PostgreSQL server behind this address, and no program between that speaks otherwise?")
}
