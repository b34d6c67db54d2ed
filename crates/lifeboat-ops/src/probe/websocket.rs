//! A WebSocket (RFC 6455): the opening handshake (4.1), a ping (5.5.2) with bytes that nobody can guess, the pong with the same bytes (5.5.3), a close
//! (5.5.1). No message is sent, so the application hears of a visitor and of nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use lifeboat_model::Env;
use lifeboat_model::time::human_duration;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::{
    CONNECTION, HOST, LOCATION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Address, Answer, Found, Header, causes, shown, tls, within};

/// Whatever a server says before the pong may be this long.
const DATA_LIMIT_BYTES: usize = 1 << 20;

/// A WebSocket.
#[derive(Debug, Clone)]
pub struct WebSocket {
    /// Whom.
    pub url: Address,
    /// How long everything may take.
    pub within: Duration,
    /// A file with authorities that are trusted besides those of the machine.
    pub ca: Option<PathBuf>,
    /// What is sent besides.
    pub headers: Vec<Header>,
}

/// A stream, encrypted or not.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

type Opened = WebSocketStream<Box<dyn Io>>;

pub(super) async fn ask(env: &Env, websocket: &WebSocket) -> Answer {
    let began = env.clock.monotonic();
    within(websocket.within, &websocket.url.to_string(), async {
        let io = connect(websocket).await?;
        let request = request(env, websocket).await?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(DATA_LIMIT_BYTES))
            .max_frame_size(Some(DATA_LIMIT_BYTES));
        let opened = tokio_tungstenite::client_async_with_config(request, io, Some(limits)).await;
        let (mut io, response) = opened.map_err(|error| unopened(&error))?;
        let line = first_line(&response);
        // The library leaves this to us (RFC 6455, 4.1).
        if response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err(Found::new("the answer has sec-websocket-extensions, which nobody asked for").seeing(line));
        }
        let opened = human_duration(env.clock.monotonic().saturating_sub(began));
        let mut payload = [0; 8];
        env.entropy.fill(&mut payload)?;
        let ping = Message::Ping(payload.to_vec().into());
        io.send(ping).await.map_err(|error| broken(&error))?;
        let before = until_pong(&mut io, &payload).await?;
        let took = human_duration(env.clock.monotonic().saturating_sub(began));
        let mut found = Found::new(format!("{line} after {opened}, and the pong after {took}"));
        if before > 0 {
            found = found.seeing(format!("messages before the pong: {before}"));
        }
        // The purpose is fulfilled (7.4.1).
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: String::new().into(),
        };
        if io.close(Some(close)).await.is_err() {
            found = found.seeing("the server had closed the connection before we did");
        }
        Ok(found)
    })
    .await
}

async fn connect(websocket: &WebSocket) -> Result<Box<dyn Io>, Found> {
    let url = &websocket.url;
    let unreachable = |error: &dyn std::error::Error| {
        Found::new(format!("{url} cannot be reached"))
            .seeing(causes(error))
            .seeing("hint: is the application running, and does this machine reach it at this address?")
    };
    let stream = TcpStream::connect((url.host(), url.port())).await;
    let stream = stream.map_err(|error| unreachable(&error))?;
    if url.0.scheme() == "ws" {
        return Ok(Box::new(stream));
    }
    let config = tls::config(websocket.ca.as_deref()).await?;
    let name = ServerName::try_from(url.host().to_owned()).map_err(|error| unreachable(&error))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| unreachable(&error))?))
}

/// The opening handshake of a client (RFC 6455, 4.1).
async fn request(env: &Env, websocket: &WebSocket) -> Result<Request, Found> {
    let mut key = [0; 16];
    env.entropy.fill(&mut key)?;
    let mut request = Request::builder()
        .uri(websocket.url.to_string())
        .header(HOST, websocket.url.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, STANDARD.encode(key))
        .header(USER_AGENT, concat!("lifeboat/", env!("CARGO_PKG_VERSION")));
    for header in &websocket.headers {
        let (name, value) = header.read().await?;
        request = request.header(name, value);
    }
    let request = request.body(());
    request.map_err(|error| Found::new(format!("{} cannot be asked", websocket.url)).seeing(causes(&error)))
}

fn first_line(response: &Response) -> String {
    shown(&format!("{:?} {}", response.version(), response.status()))
}

/// Why the answer opens no WebSocket.
fn unopened(error: &Error) -> Found {
    match error {
        Error::Http(response) => {
            let found = Found::new(format!("it opens no WebSocket: {}", first_line(&response.as_ref().clone())));
            match response.headers().get(LOCATION) {
                Some(to) => {
                    let to = String::from_utf8_lossy(to.as_bytes());
                    found.seeing(format!("a redirect to {}, which is not followed", shown(&to)))
                }
                None => found,
            }
        }
        Error::Protocol(ProtocolError::SecWebSocketAcceptKeyMismatch) => {
            Found::new("Sec-WebSocket-Accept is not the one for our key: somebody answers who did not read it")
        }
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            Found::new("the server closed the connection instead of answering")
        }
        Error::Io(error) => Found::new("the connection broke off").seeing(causes(error)),
        other => Found::new("it opens no WebSocket").seeing(causes(other)),
    }
}

/// Why there is no pong.
fn broken(error: &Error) -> Found {
    match error {
        Error::Capacity(_) => too_much(),
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => left(),
        Error::Io(error) => Found::new("the connection broke off").seeing(causes(error)),
        other => Found::new("the server says what no WebSocket says").seeing(causes(other)),
    }
}

fn too_much() -> Found {
    Found::new("the server sent more than 1 MiB, and no pong")
}

fn left() -> Found {
    Found::new("the server closed the connection instead of answering the ping")
}

/// Waits for our pong; how many messages came before it. The library answers the pings of the server.
async fn until_pong(io: &mut Opened, payload: &[u8]) -> Result<u32, Found> {
    let (mut messages, mut bytes) = (0, 0_usize);
    loop {
        let message = io.next().await.ok_or_else(left)?;
        let message = message.map_err(|error| broken(&error))?;
        bytes = bytes.saturating_add(message.len());
        if bytes > DATA_LIMIT_BYTES {
            return Err(too_much());
        }
        match message {
            Message::Pong(content) if content == payload => return Ok(messages),
            // A pong that nobody asked for is allowed, and no answer (5.5.3).
            Message::Pong(_) | Message::Ping(_) | Message::Frame(_) => {}
            Message::Text(_) | Message::Binary(_) => messages += 1,
            Message::Close(frame) => {
                let said = frame.map_or_else(
                    || "no code".to_owned(),
                    |frame| format!("{} {}", u16::from(frame.code), shown(&frame.reason)),
                );
                return Err(
                    Found::new("the server closed the WebSocket instead of answering the ping").seeing(said.trim().to_owned())
                );
            }
        }
    }
}
