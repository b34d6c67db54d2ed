//! An application to ask: HTTP and WebSockets, with and without TLS, right and wrong in every way that a probe has to see.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub const GOOD: &str =
    r#"{"status":"ok","db":{"connected":true,"lag":0.5,"nodes":[{"state":"up"},{"state":"down"}]},"build":42,"note":null}"#;

/// The RFC's own words.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

pub struct Server {
    pub port: u16,
    seen: Receiver<String>,
}

impl Server {
    pub fn plain() -> Self {
        Self::start(None)
    }

    /// With this chain and key, both PEM.
    pub fn tls(chain: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        Self::start(Some(Arc::new(config)))
    }

    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, seen) = sync_channel(1_000);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls, tell) = (stream.unwrap(), tls.clone(), tell.clone());
                std::thread::spawn(move || match tls {
                    None => visit(stream, &tell),
                    Some(tls) => visit(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), &tell),
                });
            }
        });
        Self { port, seen }
    }

    /// The next thing that it saw.
    #[track_caller]
    pub fn saw(&self) -> String {
        self.seen.recv_timeout(Duration::from_secs(60)).expect("it saw nothing")
    }
}

/// A port on which nobody listens.
pub fn closed_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Whoever is visited may leave at any time: that is part of what is tested.
fn visit(mut stream: impl Stream, tell: &SyncSender<String>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (method, path) = head.split_once(' ').unwrap();
    let path = path.split(' ').next().unwrap();
    tell.send(format!("{method} {path}")).unwrap();
    let left = if path.starts_with("/ws") {
        websocket(path, &head, &mut stream, tell)
    } else {
        page(path, &head, &mut stream)
    };
    drop(left);
}

fn answer(stream: &mut dyn Stream, status: &str, more: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

/// Says nothing more, until the other side leaves.
fn silent(stream: &mut dyn Stream) -> std::io::Result<()> {
    let mut rest = [0; 64];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

fn page(path: &str, head: &str, stream: &mut dyn Stream) -> std::io::Result<()> {
    match path {
        "/good" | "/good?deep=1" => answer(stream, "200 OK", "", GOOD.as_bytes()),
        "/teapot" => answer(stream, "418 I'm a teapot", "", b"short and stout\x1b[2J\n"),
        "/text" => answer(stream, "200 OK", "", b"all is well"),
        "/redirect" => answer(stream, "302 Found", "Location: /good\r\n", b""),
        "/mebibyte" => answer(stream, "200 OK", "", &vec![b' '; 1 << 20]),
        "/huge" => answer(stream, "200 OK", "", &vec![b' '; (1 << 20) + 1]),
        "/cut" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")?;
            stream.flush()
        }
        "/half" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")?;
            stream.flush()?;
            silent(stream)
        }
        "/silent" => silent(stream),
        "/closes" => Ok(()),
        "/nonsense" => stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n"),
        "/secret" if head.contains("\r\nauthorization: Bearer s3cret\r\n") && head.contains("\r\nx-who: probe\r\n") => {
            answer(stream, "200 OK", "", b"{}")
        }
        "/secret" => answer(stream, "401 Unauthorized", "", b""),
        other => panic!("{other}"),
    }
}

fn open(head: &str, stream: &mut dyn Stream, more: &str) -> std::io::Result<()> {
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    assert_eq!(STANDARD.decode(key).unwrap().len(), 16);
    for wanted in ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"] {
        assert!(head.lines().any(|line| line == wanted), "{head}");
    }
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    let accept = STANDARD.encode(digest);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes())
}

/// A short frame of the client, unmasked.
fn frame(stream: &mut dyn Stream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 6];
    stream.read_exact(&mut head)?;
    assert_eq!(head[1] & 0x80, 0x80, "a client masks");
    let mut content = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut content)?;
    for (at, byte) in content.iter_mut().enumerate() {
        *byte ^= head[2 + at % 4];
    }
    Ok((head[0], content))
}

fn short(first: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, u8::try_from(content.len()).unwrap()];
    frame.extend_from_slice(content);
    frame
}

fn websocket(path: &str, head: &str, stream: &mut dyn Stream, tell: &SyncSender<String>) -> std::io::Result<()> {
    match path {
        "/ws-refused" => return answer(stream, "403 Forbidden", "", b""),
        "/ws-moved" => return answer(stream, "301 Moved Permanently", "Location: /ws\r\n", b""),
        "/ws-wrong" => {
            let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
            return stream.write_all(format!("{head}{accept}\r\n\r\n").as_bytes());
        }
        "/ws-compressed" => return open(head, stream, "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        _ => open(head, stream, "")?,
    }
    stream.flush()?;
    let (first, payload) = frame(stream)?;
    assert_eq!((first, payload.len()), (0x89, 8), "a ping");
    let pong = short(0x8a, &payload);
    match path {
        "/ws" => {
            // A greeting, a long one, another ping and a pong that nobody asked for; only then the right one.
            let mut said = short(0x81, b"hello");
            said.extend([0x82, 126, 0x01, 0x00]);
            said.extend([7; 256]);
            said.extend(short(0x89, b"you?"));
            said.extend(short(0x8a, b"whatever"));
            said.extend(pong);
            stream.write_all(&said)?;
            stream.flush()?;
            for _ in 0..2 {
                let (first, content) = frame(stream)?;
                tell.send(format!("{first:x} {content:x?}")).unwrap();
            }
            Ok(())
        }
        "/ws-silent" => silent(stream),
        "/ws-closes" => stream.write_all(&short(0x88, b"\x03\xf3no database")),
        "/ws-leaves" => Ok(()),
        "/ws-other" => stream.write_all(&short(0x8a, b"whatever")),
        "/ws-masked" => stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]),
        "/ws-floods" => {
            let mut much = vec![0x82, 127, 0, 0, 0, 0, 0, 0, 0x80, 0];
            much.extend(vec![0; 0x8000]);
            for _ in 0..40 {
                stream.write_all(&much)?;
            }
            stream.flush()?;
            silent(stream)
        }
        "/ws-endless" => {
            stream.write_all(&[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])?;
            stream.flush()?;
            silent(stream)
        }
        other => panic!("{other}"),
    }
}
