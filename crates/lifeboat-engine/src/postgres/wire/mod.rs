//! PostgreSQL's protocol, version 3, from the side of the client: sockets, TLS, the password exchange, simple queries and the COPY modes.
//!
//! Of our own because no crate speaks the replication mode (`CopyBothResponse`, two result sets before a COPY). The source of every fact is
//! the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation (55.1 flow, 55.7 formats). Every read and write has a deadline,
//! connections are kept alive by the operating system, and what the server sends is bounded before it allocates: nothing hangs and nothing
//! grows, whoever is at the other end.

mod auth;
mod connect;
mod copy;
pub mod error;
mod frame;
mod query;
mod socket;
mod tls;

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::Result;

pub use connect::{Mode, connect};
pub(super) use connect::{Opened, Role, choose};
pub use error::Notice;
pub use frame::{Body, Frame, Reader, Writer};
pub(super) use query::Answer;
pub use query::ResultSet;
pub(super) use socket::BoxIo;

/// How long the server may be silent, or not take what we send, before the connection counts as lost.
pub const SILENCE: Duration = Duration::from_secs(60);

/// A session that is ready for a command.
#[derive(Debug)]
pub struct Connection {
    /// What comes.
    pub(super) reader: Reader,
    /// What goes.
    pub(super) writer: Writer,
    about: About,
}

/// What is known of a session.
#[derive(Clone)]
pub(super) struct About {
    /// Process and secret of the session, for [`Canceller`].
    key: Option<(i32, i32)>,
    target: connect::Reached,
}

impl std::fmt::Debug for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("About")
            .field("process", &self.key.map(|key| key.0))
            .finish_non_exhaustive()
    }
}

/// Ends what a session is doing, from outside it.
#[derive(Clone, Debug)]
pub struct Canceller(About);

impl Canceller {
    /// Asks the server to end the command that runs. It does not say whether there was one.
    pub async fn cancel(&self) -> Result<()> {
        connect::cancel(&self.0).await
    }
}

impl Connection {
    /// A setting as the server reports it by itself: `server_version`, `in_hot_standby`, `TimeZone`, …
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.reader.parameters.get(name).map(String::as_str)
    }

    /// All of them.
    #[must_use]
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.reader.parameters
    }

    /// The major version of the server, 0 where it says none that can be read.
    #[must_use]
    pub fn major(&self) -> u32 {
        let version = self.parameter("server_version").unwrap_or_default();
        let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().unwrap_or(0)
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.about.target.is_encrypted()
    }

    /// Who is spoken to, for messages.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.reader.subject
    }

    /// Takes the notices that have come since the last call (the newest hundred).
    #[must_use]
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.reader.notices).into()
    }

    /// Whoever may end what this session does.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(self.about.clone())
    }

    /// How long the server may be silent from now on; [`SILENCE`] at first. A command that waits for a checkpoint needs more.
    pub fn set_silence(&mut self, limit: Duration) {
        self.reader.silence = limit;
    }

    /// Says goodbye. Dropping the connection ends the session too, a little later.
    pub async fn close(mut self) -> Result<()> {
        self.writer.terminate().await
    }

    pub(super) fn into_parts(self) -> (Reader, Writer, About) {
        (self.reader, self.writer, self.about)
    }

    pub(super) fn from_parts(reader: Reader, writer: Writer, about: About) -> Self {
        Self { reader, writer, about }
    }
}
