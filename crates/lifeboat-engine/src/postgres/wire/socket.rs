//! Sockets, kept alive by the operating system, so that a peer that vanished without a word is noticed.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::super::conninfo::{Endpoint, Host, socket_path};

/// Anything that bytes go through.
pub(in crate::postgres) trait Io: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Io for T {}

/// Any of them.
pub(in crate::postgres) type BoxIo = Box<dyn Io>;

impl fmt::Debug for dyn Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection")
    }
}

/// Where a connection leads, exactly: names are resolved once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Socket(PathBuf),
    Tcp(std::net::SocketAddr),
}

/// The places that a host stands for.
pub(super) async fn places(host: &Host) -> io::Result<Vec<Place>> {
    match &host.endpoint {
        Endpoint::Socket(folder) => Ok(vec![Place::Socket(socket_path(folder, host.port))]),
        Endpoint::Tcp { name, address } => {
            let name = address.as_deref().unwrap_or(name);
            let found: Vec<Place> = tokio::net::lookup_host((name, host.port)).await?.map(Place::Tcp).collect();
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            }
            Ok(found)
        }
    }
}

/// Connects there.
pub(super) async fn connect(place: &Place) -> io::Result<BoxIo> {
    match place {
        Place::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Place::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
            rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30))?;
            rustix::net::sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(10))?;
            rustix::net::sockopt::set_tcp_keepcnt(&stream, 3)?;
            Ok(Box::new(stream))
        }
    }
}
