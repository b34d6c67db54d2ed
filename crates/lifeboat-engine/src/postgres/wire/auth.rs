//! Who we are: nothing, a password, MD5, SCRAM-SHA-256 and -PLUS (PostgreSQL documentation, 55.2.1 and 55.3).
//!
//! A password in clear goes only through TLS or a socket of this host. The steps are taken in their order alone: a server that leaves out its
//! own proof is not let through.

use lifeboat_model::{Error, ErrorKind, Result};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::frontend;

use super::super::conninfo::{ChannelBinding, Password};
use super::error::broken;
use super::frame::{Body, Frame, Reader, Writer};

/// The server may ask for a thousand times more work than by default, not for hours of it.
const MOST_ITERATIONS: u32 = 4_096_000;

/// What the exchange may use.
pub(super) struct Credentials<'a> {
    pub(super) user: &'a str,
    pub(super) password: Password,
    pub(super) binding: ChannelBinding,
    /// What ties it to the TLS connection, where there is one.
    pub(super) end_point: Option<Vec<u8>>,
    /// Whether nobody can listen.
    pub(super) is_private: bool,
}

const OP: &str = "log in to PostgreSQL at";

/// Answers what the server asks until it lets us in.
pub(super) async fn log_in(reader: &mut Reader, writer: &mut Writer, with: &Credentials<'_>) -> Result<()> {
    let (kind, body) = request(reader).await?;
    if with.binding == ChannelBinding::Require && kind != 10 {
        return Err(refused(
            reader,
            "channel_binding=require is set, and the server does not use SCRAM",
        ));
    }
    match kind {
        0 => return Ok(()),
        3 if with.is_private => {
            let password = password(reader, with)?;
            writer.put(|buffer| frontend::password_message(password.as_bytes(), buffer))?;
            writer.flush().await?;
        }
        3 => {
            return Err(refused(
                reader,
                "the server wants the password in clear, over a connection that is not encrypted",
            ));
        }
        5 => {
            let salt = body_of(reader, body, |body| Ok([body.u8()?, body.u8()?, body.u8()?, body.u8()?]))?;
            let password = password(reader, with)?;
            let hash = md5_hash(with.user.as_bytes(), password.as_bytes(), salt);
            writer.put(|buffer| frontend::password_message(hash.as_bytes(), buffer))?;
            writer.flush().await?;
        }
        10 => scram(reader, writer, with, body).await?,
        other => {
            let name = match other {
                2 => "Kerberos V5",
                7 => "GSSAPI",
                9 => "SSPI",
                _ => "an unknown method",
            };
            return Err(refused(reader, &format!("the server wants {name}, which is not supported")));
        }
    }
    match request(reader).await? {
        (0, _) => Ok(()),
        (other, _) => Err(broken(
            reader.subject(),
            format_args!("the server asks for more after the password (kind {other})"),
        )),
    }
}

async fn scram(reader: &mut Reader, writer: &mut Writer, with: &Credentials<'_>, body: Body) -> Result<()> {
    let offered = body_of(reader, body, |body| {
        let mut all = Vec::new();
        loop {
            match body.text()? {
                name if name.is_empty() => return Ok(all),
                name => all.push(name),
            }
        }
    })?;
    let has = |name: &str| offered.iter().any(|offer| offer == name);
    let end_point = with.end_point.clone().filter(|_| with.binding != ChannelBinding::Disable);
    let (binding, mechanism) = match end_point {
        Some(end_point) if has(sasl::SCRAM_SHA_256_PLUS) => (
            sasl::ChannelBinding::tls_server_end_point(end_point),
            sasl::SCRAM_SHA_256_PLUS,
        ),
        _ if with.binding == ChannelBinding::Require => {
            return Err(refused(
                reader,
                "channel_binding=require is set, and there is nothing to bind to (no TLS, or a certificate or server without it)",
            ));
        }
        _ if !has(sasl::SCRAM_SHA_256) => {
            return Err(refused(
                reader,
                &format!("the server offers {}, none of which is supported", offered.join(", ")),
            ));
        }
        Some(_) => (sasl::ChannelBinding::unrequested(), sasl::SCRAM_SHA_256),
        None => (sasl::ChannelBinding::unsupported(), sasl::SCRAM_SHA_256),
    };
    let failed = |reader: &Reader, error: std::io::Error| {
        let detail = format!("the exchange of proofs failed: {error}");
        Error::new(ErrorKind::ConfigInvalid, OP, reader.subject(), detail)
            .with_hint("the server may not be the one it says it is: check its address and certificate before the password is used again")
            .with_source(error)
    };
    let password = password(reader, with)?;
    let mut scram = ScramSha256::new(password.as_bytes(), binding);
    writer.put(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))?;
    writer.flush().await?;

    let challenge = step(reader, 11).await?;
    check_iterations(reader, &challenge)?;
    scram.update(&challenge).map_err(|error| failed(reader, error))?;
    writer.put(|buffer| frontend::sasl_response(scram.message(), buffer))?;
    writer.flush().await?;

    let proof = step(reader, 12).await?;
    scram.finish(&proof).map_err(|error| failed(reader, error))
}

/// `r=nonce,s=salt,i=iterations`
fn check_iterations(reader: &Reader, challenge: &[u8]) -> Result<()> {
    let count = challenge
        .split(|byte| *byte == b',')
        .find_map(|part| part.strip_prefix(b"i="))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    match count {
        Some(1..=MOST_ITERATIONS) => Ok(()),
        other => Err(broken(
            reader.subject(),
            format_args!("the server asks for {other:?} rounds of hashing"),
        )),
    }
}

/// The body of an authentication request of exactly this kind.
async fn step(reader: &mut Reader, wanted: i32) -> Result<bytes::Bytes> {
    match request(reader).await? {
        (kind, body) if kind == wanted => Ok(body.rest()),
        (kind, _) => Err(broken(
            reader.subject(),
            format_args!("step {kind} of logging in came where {wanted} belongs"),
        )),
    }
}

/// The next authentication request. `NegotiateProtocolVersion` may stand before it: we ask for nothing newer than 3.0, so it says nothing.
async fn request(reader: &mut Reader) -> Result<(i32, Body)> {
    loop {
        let frame = reader.frame().await?;
        match frame {
            Frame { tag: b'R', body } => {
                let mut body = Body::new(body);
                let kind = body.i32().map_err(|error| reader.in_place(error))?;
                return Ok((kind, body));
            }
            Frame { tag: b'v', .. } => {}
            frame => return Err(reader.unexpected(OP, frame)),
        }
    }
}

fn body_of<T>(reader: &Reader, mut body: Body, read: impl FnOnce(&mut Body) -> Result<T>) -> Result<T> {
    read(&mut body).map_err(|error| reader.in_place(error))
}

fn password(reader: &Reader, with: &Credentials<'_>) -> Result<zeroize::Zeroizing<String>> {
    let (detail, hint) = match &with.password {
        Password::Known(password) => return Ok(password.clone()),
        Password::None => (
            "the server wants a password, and there is none".to_owned(),
            "put it into ~/.pgpass (mode 0600, for replication with the database `replication`) or into PGPASSWORD",
        ),
        Password::Unusable(place, why) => (
            format!("the server wants a password, and {} cannot be used: {why}", place.display()),
            "mend that file, or put the password into PGPASSWORD",
        ),
    };
    Err(Error::new(ErrorKind::ConfigInvalid, OP, reader.subject(), detail).with_hint(hint))
}

fn refused(reader: &Reader, detail: &str) -> Error {
    Error::new(ErrorKind::Refused, OP, reader.subject(), detail)
        .with_hint("connect with sslmode=require or stronger, or let pg_hba.conf use scram-sha-256 for this user")
}
