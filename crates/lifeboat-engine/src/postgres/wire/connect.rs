//! From a connection string to a session: which server, encrypted or not, and logged in.

use lifeboat_model::{Error, ErrorKind, Result};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::conninfo::{ConnInfo, Endpoint, Host, SslMode, Target};
use super::auth::Credentials;
use super::error::{lost, server_error};
use super::frame::{Body, halves};
use super::socket::{self, BoxIo, Place};
use super::{About, Connection, auth, tls};

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SQL in the database of the connection string.
    Sql,
    /// The commands of physical replication.
    Replication,
}

/// A stream to a server, encrypted if it is to be, before anything was said.
pub(in crate::postgres) struct Opened {
    pub(in crate::postgres) io: BoxIo,
    /// What ties a password exchange to the encryption.
    pub(in crate::postgres) end_point: Option<Vec<u8>>,
    pub(in crate::postgres) reached: Reached,
}

/// Where a session is, to reach the same server again.
#[derive(Clone)]
pub(in crate::postgres) struct Reached {
    place: Place,
    name: String,
    encrypted: Option<(SslMode, super::super::conninfo::TlsFiles)>,
    subject: String,
}

impl Reached {
    pub(in crate::postgres) fn is_encrypted(&self) -> bool {
        self.encrypted.is_some()
    }

    /// Whether nobody can listen.
    pub(in crate::postgres) fn is_private(&self) -> bool {
        self.encrypted.is_some() || matches!(self.place, Place::Socket(_))
    }
}

/// Whether an attempt is encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Plain,
    /// Encrypted, or plain where the server cannot.
    Offered,
    Encrypted,
}

const OP: &str = "connect to PostgreSQL at";

/// Connects to the first server of the list that answers and is what is wanted, and logs in.
///
/// # Errors
/// `Unreachable` where none answers, `ConfigInvalid` where one does and does not let us in, `NotFound` where none is what is wanted. With several
/// servers the error is the last one's, and its text names what the others said.
pub async fn connect(info: &ConnInfo, mode: Mode) -> Result<Connection> {
    choose(info, async |host, opened| {
        let connection = start(info, host, mode, opened).await?;
        let role = Role::of(|name| connection.parameter(name));
        Ok((connection, role))
    })
    .await
}

/// What tells a primary from a standby: two settings that servers from 14 on report by themselves.
#[derive(Clone, Copy, Debug)]
pub(in crate::postgres) struct Role {
    recovers: bool,
    read_only: bool,
}

impl Role {
    pub(in crate::postgres) fn of<'a>(parameter: impl Fn(&str) -> Option<&'a str>) -> Self {
        let on = |name: &str| parameter(name) == Some("on");
        Self {
            recovers: on("in_hot_standby"),
            read_only: on("default_transaction_read_only"),
        }
    }
}

/// Logs in, by `log_in`, to the first server that is what is wanted.
pub(in crate::postgres) async fn choose<T>(
    info: &ConnInfo,
    log_in: impl AsyncFn(&Host, Opened) -> Result<(T, Role)>,
) -> Result<T> {
    let passes: &[Target] = match info.target {
        Target::PreferStandby => &[Target::Standby, Target::Any],
        _ => std::slice::from_ref(&info.target),
    };
    let mut said: Vec<String> = Vec::new();
    let mut last = None;
    for wanted in passes {
        for host in info.hosts() {
            let tried = every(info, host, async |place, attempt| {
                let opened = open_one(info, host, place, attempt).await?;
                log_in(host, opened).await
            });
            match tried.await {
                Ok((connected, role)) => match unsuitable(role, *wanted, &subject(info, host)) {
                    None => return Ok(connected),
                    Some(error) => last = Some(note(&mut said, error)),
                },
                // Whoever is known there and not let in is not tried elsewhere: libpq does the same.
                Err(error) if server_error(&error).is_some_and(|said| said.code.starts_with("28")) => return Err(error),
                Err(error) => last = Some(note(&mut said, error)),
            }
        }
    }
    let Some(error) = last else {
        return Err(Error::new(ErrorKind::ConfigInvalid, OP, info, "no server is named"));
    };
    if said.len() < 2 {
        return Err(error);
    }
    Err(Error::new(error.kind(), OP, info, said.join("; "))
        .with_hint(error.hint().unwrap_or_default())
        .with_source(error))
}

fn note(said: &mut Vec<String>, error: Error) -> Error {
    said.push(format!("{}: {}", error.subject(), error.detail()));
    error
}

/// Why this server is not the wanted one.
fn unsuitable(role: Role, wanted: Target, subject: &str) -> Option<Error> {
    let Role { recovers, read_only } = role;
    let detail = match wanted {
        Target::ReadWrite if recovers || read_only => "it does not take writes",
        Target::ReadOnly if !recovers && !read_only => "it takes writes",
        Target::Primary if recovers => "it is a standby",
        Target::Standby if !recovers => "it is not a standby",
        _ => return None,
    };
    let error = Error::new(ErrorKind::NotFound, OP, subject, detail);
    Some(error.with_hint("name a server that is what target_session_attrs asks for, or leave it out"))
}

/// All addresses of a host, each in the ways that the TLS mode allows.
async fn every<T>(info: &ConnInfo, host: &Host, go: impl AsyncFn(&Place, Attempt) -> Result<T>) -> Result<T> {
    let subject = subject(info, host);
    let limited = |error: tokio::time::error::Elapsed| {
        let detail = format!("it did not let us in within {} s", info.connect_limit.as_secs());
        Error::new(ErrorKind::TimedOut, OP, &subject, detail)
            .with_hint("look whether the server runs and a firewall lets us through; connect_timeout sets the limit")
            .with_source(error)
    };
    let places = match tokio::time::timeout(info.connect_limit, socket::places(host)).await {
        Ok(Ok(places)) => places,
        Ok(Err(error)) => {
            let detail = format!("its address is not to be had: {error}");
            return Err(Error::new(ErrorKind::Unreachable, OP, &subject, detail).with_source(error));
        }
        Err(error) => return Err(limited(error)),
    };
    let attempts: &[Attempt] = match (&host.endpoint, info.ssl_mode) {
        (Endpoint::Socket(_), _) | (_, SslMode::Disable) => &[Attempt::Plain],
        (_, SslMode::Allow) => &[Attempt::Plain, Attempt::Encrypted],
        (_, SslMode::Prefer) => &[Attempt::Offered, Attempt::Plain],
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Attempt::Encrypted],
    };
    let mut last = None;
    for place in &places {
        for attempt in attempts {
            match tokio::time::timeout(info.connect_limit, go(place, *attempt)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => {
                    // Only what another way can change is tried another way: a line in pg_hba.conf, or the handshake.
                    let other_way = server_error(&error).is_some_and(|said| said.code == "28000")
                        || (error.kind() == ErrorKind::ConfigInvalid && server_error(&error).is_none());
                    last.get_or_insert(error);
                    if !other_way {
                        break;
                    }
                }
                Err(elapsed) => {
                    last.get_or_insert(limited(elapsed));
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::new(ErrorKind::Unreachable, OP, &subject, "it has no address")))
}

fn subject(info: &ConnInfo, host: &Host) -> String {
    format!("{}@{host}", info.user())
}

async fn open_one(info: &ConnInfo, host: &Host, place: &Place, attempt: Attempt) -> Result<Opened> {
    let subject = subject(info, host);
    let mut io = socket::connect(place).await.map_err(|error| {
        Error::new(ErrorKind::Unreachable, OP, &subject, &error)
            .with_hint("look whether the server runs, listens there (listen_addresses, port, unix_socket_directories) and a firewall lets us through")
            .with_source(error)
    })?;
    let name = match &host.endpoint {
        Endpoint::Tcp { name, .. } => name.clone(),
        Endpoint::Socket(_) => String::new(),
    };
    let mut reached = Reached {
        place: place.clone(),
        name,
        encrypted: None,
        subject,
    };
    if attempt == Attempt::Plain {
        return Ok(Opened {
            io,
            end_point: None,
            reached,
        });
    }
    if !asks_for_tls(&mut io, &reached.subject).await? {
        if attempt == Attempt::Offered {
            return Ok(Opened {
                io,
                end_point: None,
                reached,
            });
        }
        let detail = "the server does not offer TLS, and sslmode asks for it";
        return Err(Error::new(ErrorKind::Refused, OP, &reached.subject, detail).with_hint(
            "set `ssl = on` there with a certificate, or connect with sslmode=prefer where the network can be trusted",
        ));
    }
    let (io, end_point) = tls::encrypt(io, &reached.name, info.ssl_mode, &info.tls).await?;
    reached.encrypted = Some((info.ssl_mode, info.tls.clone()));
    Ok(Opened { io, end_point, reached })
}

/// Sends `SSLRequest`. Exactly one byte is read: what came behind it in clear would pass for something said under encryption.
async fn asks_for_tls(io: &mut BoxIo, subject: &str) -> Result<bool> {
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    let mut answer = [0_u8];
    let exchanged = async {
        io.write_all(&request).await?;
        io.flush().await?;
        io.read_exact(&mut answer).await
    };
    exchanged.await.map_err(|error| lost(subject, &error).with_source(error))?;
    match answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        [other] => Err(super::error::broken(
            subject,
            format_args!("the question for TLS was answered with {other:#04x}"),
        )),
    }
}

/// The startup message, the password exchange, and what the server says of itself until it is ready.
async fn start(info: &ConnInfo, host: &Host, mode: Mode, opened: Opened) -> Result<Connection> {
    let (mut reader, mut writer) = halves(opened.io, &opened.reached.subject);
    let mut parameters = vec![
        ("user", info.user()),
        ("client_encoding", "UTF8"),
        ("application_name", &info.application_name),
    ];
    let column = match mode {
        Mode::Sql => {
            parameters.push(("database", info.database()));
            info.database()
        }
        Mode::Replication => {
            parameters.push(("replication", "true"));
            "replication"
        }
    };
    if let Some(options) = &info.options {
        parameters.push(("options", options));
    }
    writer.put(|buffer| frontend::startup_message(parameters.iter().copied(), buffer))?;
    writer.flush().await?;
    let credentials = Credentials {
        user: info.user(),
        password: info.password(host, column),
        binding: info.channel_binding,
        end_point: opened.end_point,
        is_private: opened.reached.is_private(),
    };
    auth::log_in(&mut reader, &mut writer, &credentials).await?;
    let mut key = None;
    loop {
        let frame = reader.frame().await?;
        match frame.tag {
            b'Z' => break,
            b'K' => {
                let mut body = Body::new(frame.body);
                let pair = body.i32().and_then(|process| Ok((process, body.i32()?)));
                key = Some(pair.map_err(|error| reader.in_place(error))?);
            }
            _ => return Err(reader.unexpected(OP, frame)),
        }
    }
    Ok(Connection {
        reader,
        writer,
        about: About {
            key,
            target: opened.reached,
        },
    })
}

/// A connection of its own that carries nothing but the request.
pub(super) async fn cancel(about: &About) -> Result<()> {
    let Some((process, secret)) = about.key else {
        return Ok(());
    };
    let reached = &about.target;
    let cancelled = async {
        let failed = |error: std::io::Error| lost(&reached.subject, &error).with_source(error);
        let mut io = socket::connect(&reached.place).await.map_err(failed)?;
        if let Some((mode, files)) = &reached.encrypted {
            if !asks_for_tls(&mut io, &reached.subject).await? {
                return Err(lost(&reached.subject, "the server does not offer TLS any more"));
            }
            io = tls::encrypt(io, &reached.name, *mode, files).await?.0;
        }
        let mut request = bytes::BytesMut::new();
        frontend::cancel_request(process, secret, &mut request);
        io.write_all(&request).await.map_err(failed)?;
        io.flush().await.map_err(failed)?;
        // The server closes the connection when it has done it; an abrupt end is as good.
        drop(io.read(&mut [0_u8]).await);
        Ok(())
    };
    match tokio::time::timeout(super::SILENCE, cancelled).await {
        Ok(result) => result,
        Err(elapsed) => Err(lost(&reached.subject, "no answer to the request to cancel").with_source(elapsed)),
    }
}
