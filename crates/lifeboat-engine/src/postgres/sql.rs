//! SQL goes through `tokio-postgres`, over the same sockets and the same TLS as replication.
//!
//! Names, fallbacks and certificates are ours ([`super::wire`]); it only gets a stream on which it logs in. A password in clear is refused
//! where somebody could listen, as in our own exchange.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use lifeboat_model::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding as EndPoint, TlsConnect, TlsStream};

use super::conninfo::{ChannelBinding, ConnInfo, Host, Password};
use super::wire::error::ServerError;
use super::wire::{BoxIo, Opened, Role, choose};

/// A session for SQL. Dropping it ends the session.
#[derive(Debug)]
pub struct Sql {
    /// What runs statements.
    pub client: tokio_postgres::Client,
    /// Moves bytes while there is a client.
    _driver: JoinSet<()>,
    subject: String,
    host: Host,
}

impl Sql {
    /// Connects to the first server of the list that lets us in and is what is wanted.
    pub async fn connect(info: &ConnInfo) -> Result<Self> {
        choose(info, async |host, opened: Opened| {
            let subject = format!("{}@{host}", info.user());
            let mut config = tokio_postgres::Config::new();
            config
                .user(info.user())
                .dbname(info.database())
                .application_name(&info.application_name)
                .channel_binding(match info.channel_binding {
                    ChannelBinding::Disable => Binding::Disable,
                    ChannelBinding::Prefer => Binding::Prefer,
                    ChannelBinding::Require => Binding::Require,
                });
            if let Password::Known(password) = info.password(host, info.database()) {
                config.password(password.as_bytes());
            }
            if let Some(options) = &info.options {
                config.options(options);
            }
            // The stream is encrypted already: "direct" has the crate take it as it is.
            let encrypted = opened.end_point.is_some() || opened.reached.is_encrypted();
            config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
            config.ssl_negotiation(SslNegotiation::Direct);
            let stream = Stream {
                io: opened.io,
                end_point: opened.end_point,
                greeting: (!opened.reached.is_private()).then(Vec::new),
            };
            let connected = config.connect_raw(stream, AsItIs).await;
            let (client, connection) = connected.map_err(|error| error_of("log in to PostgreSQL at", &subject, error))?;
            let role = Role::of(|name| connection.parameter(name));
            let mut driver = JoinSet::new();
            driver.spawn(async move {
                // Its error ends every statement that waits, with the same words.
                drop(connection.await);
            });
            let sql = Self {
                client,
                _driver: driver,
                subject,
                host: host.clone(),
            };
            Ok((sql, role))
        })
        .await
    }

    /// Who is spoken to, for messages.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Which server of the list it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Runs statements without parameters; returns all values as text.
    pub async fn text(&self, op: &'static str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let answers = self.client.simple_query(sql).await.map_err(|error| self.error(op, error))?;
        let mut rows = Vec::new();
        for answer in answers {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = answer {
                rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// An error of `tokio-postgres` as one of ours.
    #[must_use]
    pub fn error(&self, op: &'static str, error: tokio_postgres::Error) -> Error {
        error_of(op, &self.subject, error)
    }
}

fn error_of(op: &'static str, subject: &str, error: tokio_postgres::Error) -> Error {
    if let Some(said) = error.as_db_error() {
        let said = ServerError {
            severity: said
                .parsed_severity()
                .map_or_else(|| said.severity().to_owned(), |severity| severity.to_string()),
            code: said.code().code().to_owned(),
            message: said.message().to_owned(),
            detail: said.detail().map(str::to_owned),
            hint: said.hint().map(str::to_owned),
        };
        return said.into_error(op, subject);
    }
    let kind = if error.is_closed() {
        ErrorKind::Unreachable
    } else {
        ErrorKind::Failed
    };
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    Error::new(kind, op, subject, detail).with_source(error)
}

/// What `connect_raw` is given.
struct Stream {
    io: BoxIo,
    end_point: Option<Vec<u8>>,
    /// The first bytes that came, until they are enough to see whether a password in clear is asked for; none where it may be.
    greeting: Option<Vec<u8>>,
}

/// `AuthenticationCleartextPassword`, whole.
const CLEARTEXT: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if let (Poll::Ready(Ok(())), Some(greeting)) = (&polled, &mut self.greeting) {
            let room = CLEARTEXT.len() - greeting.len();
            greeting.extend(buffer.filled().iter().skip(before).take(room));
            if *greeting == CLEARTEXT {
                let text = "the server wants the password in clear, over a connection that is not encrypted";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, text)));
            }
            if greeting.len() == CLEARTEXT.len() {
                self.greeting = None;
            }
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> EndPoint {
        self.end_point
            .clone()
            .map_or_else(EndPoint::none, EndPoint::tls_server_end_point)
    }
}

/// The handshake was made before.
struct AsItIs;

impl TlsConnect<Stream> for AsItIs {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Ready<io::Result<Stream>>;

    fn connect(self, stream: Stream) -> Self::Future {
        ready(Ok(stream))
    }
}
