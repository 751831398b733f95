//! TCP, for IPv4 and IPv6: `127.0.0.1:7000`, `[::1]:0`, `example.org:7000`.

mod happy_eyeballs;
mod lookup;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::connection::Connection;
use super::error::TransportError;
use super::framed;
use super::stream::{ByteStream, StreamListener, StreamTransport};
use super::traits::{Listener, Transport};
use crate::protocol::Addr;
pub(super) use happy_eyeballs::connect_first;
use lookup::{Lookup, look_up, system_lookup};

/// How many connections may wait to be accepted. It is large enough for a crowd
/// that connects at once, or for a flood of connections that say nothing, while
/// the program is busy. When the backlog is full, the operating system makes
/// further clients retry after a second or more. It may also have a lower limit
/// of its own (`net.core.somaxconn` on Linux, 4096 by default since 5.4).
const BACKLOG: u32 = 1024;

/// TCP. An address is an IP and a port, or a host name and a port. The operating
/// system looks up a host name. Up to 16 of its addresses are tried as RFC 8305
/// recommends: IPv6 and IPv4 in turn, each 250 ms after the one before if that has
/// not succeeded, or at once if it has failed. The first connection wins. A listener
/// binds the first address that can be bound.
///
/// Small frames are sent at once (`TCP_NODELAY`). A listener can bind an address
/// that was in use a moment ago (`SO_REUSEADDR`, on Unix). Up to 1,024
/// connections can wait to be accepted if the operating system allows that many;
/// a connection that fails while it waits is skipped. A listener at `[::]` serves
/// IPv6 and IPv4 (on Windows IPv6 alone), and IPv4 alone on a machine without IPv6.
/// Remotes of IPv4 are shown as IPv4 addresses.
///
/// A link-local address needs its scope: `[fe80::1%eth0]:7000`, or the number of the
/// interface in place of its name.
///
/// ```
/// use bt_lite::{TcpTransport, Transport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpTransport::new().listen(&"127.0.0.1:0".parse()?).await?;
/// println!("listening at {}", listener.local_addr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TcpTransport {
    /// Asks the operating system, except in tests.
    lookup: Lookup,
}

impl TcpTransport {
    /// Makes a TCP transport.
    pub fn new() -> Self {
        Self {
            lookup: system_lookup,
        }
    }

    /// A transport whose host names are looked up by this function, which may block. For
    /// tests.
    #[cfg(feature = "testing")]
    pub fn with_lookup(lookup: fn(&str, u16) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self { lookup }
    }

    /// All socket addresses of an address; at least one.
    pub(super) async fn targets(&self, addr: &Addr) -> Result<Vec<SocketAddr>, TransportError> {
        if let Some(addr) = addr.socket_addr() {
            return Ok(vec![addr]);
        }
        let (host, port) = split_name(addr)?;
        let found = look_up(self.lookup, host.to_owned(), port).await?;
        if found.is_empty() {
            let reason = "the host name has no address";
            return Err(io::Error::new(io::ErrorKind::NotFound, reason).into());
        }
        Ok(found)
    }
}

impl Default for TcpTransport {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Transport for TcpTransport {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        self.connect_stream(addr).await.map(connection)
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        let acceptor = self.listen_for_streams(addr).await?;
        Ok(Box::new(acceptor))
    }

    fn check(&self, addr: &Addr) -> Result<(), TransportError> {
        self.check_addr(addr)
    }

    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        self.resolve_addr(addr).await
    }
}

#[async_trait]
impl StreamTransport for TcpTransport {
    type Stream = TcpStream;
    type Listener = TcpAcceptor;

    async fn connect_stream(&self, addr: &Addr) -> Result<ByteStream<TcpStream>, TransportError> {
        let targets = self.targets(addr).await?;
        let stream = connect_first(targets, TcpStream::connect::<SocketAddr>).await?;
        let remote = stream.peer_addr()?;
        Ok(byte_stream(stream, remote)?)
    }

    async fn listen_for_streams(&self, addr: &Addr) -> Result<TcpAcceptor, TransportError> {
        let targets = self.targets(addr).await?;
        let listener = bind(&targets)?;
        let local = listener.local_addr()?.into();
        Ok(TcpAcceptor { listener, local })
    }

    fn check_addr(&self, addr: &Addr) -> Result<(), TransportError> {
        let port = match addr.socket_addr() {
            Some(socket) => socket.port(),
            None => split_name(addr)?.1,
        };
        match port {
            0 => Err(TransportError::Address {
                addr: addr.clone(),
                reason: "nobody can be reached at port 0".into(),
            }),
            _ => Ok(()),
        }
    }

    async fn resolve_addr(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        let targets = self.targets(addr).await?;
        Ok(targets.into_iter().map(Addr::from).collect())
    }
}

/// Accepts TCP connections.
#[derive(Debug)]
pub struct TcpAcceptor {
    listener: TcpListener,
    local: Addr,
}

#[async_trait]
impl Listener for TcpAcceptor {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        self.accept_stream().await.map(connection)
    }

    fn local_addr(&self) -> &Addr {
        &self.local
    }
}

#[async_trait]
impl StreamListener for TcpAcceptor {
    type Stream = TcpStream;

    async fn accept_stream(&mut self) -> Result<ByteStream<TcpStream>, TransportError> {
        loop {
            // The only await: a future dropped there has accepted nothing.
            let failed = match self.listener.accept().await {
                Ok((stream, remote)) => match byte_stream(stream, remote) {
                    Ok(stream) => return Ok(stream),
                    Err(failed) => failed,
                },
                Err(failed) if concerns_one_connection(&failed) => failed,
                Err(error) => return Err(error.into()),
            };
            tracing::debug!(%failed, "a connection failed before it was accepted");
        }
    }

    fn local_addr(&self) -> &Addr {
        &self.local
    }
}

/// Binds the first of the addresses that can be bound.
fn bind(targets: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    for target in targets {
        match bind_with_fallback(*target) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Binds an address. `0.0.0.0` takes the place of `[::]` on a machine without IPv6.
fn bind_with_fallback(target: SocketAddr) -> io::Result<TcpListener> {
    let bound = bind_one(target);
    let is_any = target.is_ipv6() && target.ip().is_unspecified();
    match bound {
        Err(error)
            if is_any
                && !matches!(
                    error.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                ) =>
        {
            bind_one((Ipv4Addr::UNSPECIFIED, target.port()).into())
        }
        bound => bound,
    }
}

fn bind_one(target: SocketAddr) -> io::Result<TcpListener> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Not on Windows: there, two programs could bind the same address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // `[::]` serves IPv4 as well, whatever the default of the system is.
    #[cfg(unix)]
    if target.is_ipv6() && target.ip().is_unspecified() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(target)?;
    socket.listen(BACKLOG)
}

/// Whether accepting failed only for this one connection, because the other side
/// or the route to it is gone (see accept(2)). The next connection can then be
/// accepted without a pause.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
    )
}

fn byte_stream(stream: TcpStream, remote: SocketAddr) -> io::Result<ByteStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let local = canonical(stream.local_addr()?).into();
    Ok(ByteStream::new(
        stream,
        canonical(remote).into(),
        Some(local),
    ))
}

/// Frames over the two halves of a stream, which need no lock.
fn connection(stream: ByteStream<TcpStream>) -> Connection {
    let (read, write) = stream.io.into_split();
    let mut connection = framed::from_halves(stream.remote, read, write);
    connection.local = stream.local;
    connection
}

/// The same address, as IPv4 if it is one.
pub(super) fn canonical(mut addr: SocketAddr) -> SocketAddr {
    addr.set_ip(addr.ip().to_canonical());
    addr
}

/// The host and the port of an IPv6 address with a named scope: `[fe80::1%eth0]:7000`.
/// The resolver knows the interfaces.
fn scoped(addr: &Addr) -> Option<(&str, u16)> {
    let (host, port) = addr.as_str().strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, scope) = host.split_once('%')?;
    let is_scoped = ip.parse::<Ipv6Addr>().is_ok() && !scope.is_empty();
    Some((host, port.parse().ok()?)).filter(|_| is_scoped)
}

/// The host name and the port of an address, before the name is looked up.
fn split_name(addr: &Addr) -> Result<(&str, u16), TransportError> {
    if let Some(scoped) = scoped(addr) {
        return Ok(scoped);
    }
    let reason = match addr.as_str().rsplit_once(':') {
        None => "it has no port",
        Some(("", _)) => "it has no host before the port",
        Some((host, _)) if host.contains([':', '[', ']', '/']) => {
            "what stands before the port is neither an IP address nor a host name"
        }
        Some((host, port)) => match port.parse() {
            Ok(port) => return Ok((host, port)),
            Err(_) => "the port is not a number from 0 to 65535",
        },
    };
    Err(TransportError::Address {
        addr: addr.clone(),
        reason: reason.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_with_a_port_are_accepted() {
        for good in ["localhost:7000", "example.org:0", "a_b-c.d:65535"] {
            assert!(split_name(&good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in [
            "localhost",
            ":7000",
            "localhost:",
            "localhost:65536",
            "localhost:-1",
            "memory:seed-1",
            "memory:seed-1:7",
            "::1",
            "[::1]",
            "[::1:7000",
            "unix:/tmp/a:7",
            "[fe80::1%]:7",
            "[name%lo]:7",
            "[fe80::1%lo]",
        ] {
            assert!(
                matches!(
                    split_name(&bad.parse().unwrap()),
                    Err(TransportError::Address { .. })
                ),
                "{bad}"
            );
        }
    }
}
