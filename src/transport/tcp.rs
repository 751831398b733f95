//! TCP, for IPv4 and IPv6: `127.0.0.1:7000`, `[::1]:0`, `example.org:7000`.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use super::{Addr, Connection, Listener, Transport, TransportError, framed};

/// How many connections may wait to be accepted, at the most: those of a crowd
/// that comes at once, or of somebody who only knocks, while the program is
/// busy. Where more wait, the system lets others try again after a second or
/// later. The system may have a lower bound of its own (`net.core.somaxconn` on
/// Linux, 4096 by default since 5.4).
const BACKLOG: u32 = 1024;

/// TCP. Addresses are an IP and a port, or a host name and a port; a name is
/// looked up by the operating system, and all that it stands for is tried in
/// turn.
///
/// Small frames go out at once (`TCP_NODELAY`), and a listener takes an
/// address again that was in use a moment ago (`SO_REUSEADDR`, on Unix). Up to
/// 1,024 connections wait to be accepted, where the operating system allows so
/// many. One that has failed by then is passed over. A
/// listener at `[::]` serves IPv4 too where the operating system does that;
/// such remotes are given as IPv4.
///
/// ```
/// use bt_lite::{TcpTransport, Transport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpTransport::new().listen(&"127.0.0.1:0".parse()?).await?;
/// println!("reached at {}", listener.local_addr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct TcpTransport {}

impl TcpTransport {
    /// TCP with the settings above.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Transport for TcpTransport {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        let targets = resolve(addr).await?;
        let stream = TcpStream::connect(&*targets).await?;
        let remote = stream.peer_addr()?;
        Ok(connection(stream, remote)?)
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        let targets = resolve(addr).await?;
        let listener = bind(&targets)?;
        let local = listener.local_addr()?.into();
        Ok(Box::new(TcpAcceptor { listener, local }))
    }
}

struct TcpAcceptor {
    listener: TcpListener,
    local: Addr,
}

#[async_trait]
impl Listener for TcpAcceptor {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        loop {
            // The one await: a future that is dropped there has taken nothing.
            let failed = match self.listener.accept().await {
                Ok((stream, remote)) => match connection(stream, remote) {
                    Ok(connection) => return Ok(connection),
                    Err(failed) => failed,
                },
                Err(failed) if is_of_the_other_side(&failed) => failed,
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
        let socket = match target {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let bound = socket.and_then(|socket| {
            // Elsewhere it would share the address with another program.
            #[cfg(unix)]
            socket.set_reuseaddr(true)?;
            socket.bind(*target)?;
            socket.listen(BACKLOG)
        });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Whether accepting failed because of this one connection, as happens when its
/// other side or the way there is gone already (accept(2)). Nobody else has to
/// wait for that.
fn is_of_the_other_side(error: &io::Error) -> bool {
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

fn connection(stream: TcpStream, mut remote: SocketAddr) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    remote.set_ip(remote.ip().to_canonical());
    let (read, write) = stream.into_split();
    Ok(framed::from_halves(remote.into(), read, write))
}

/// Everything that the address stands for, at least one.
async fn resolve(addr: &Addr) -> Result<Vec<SocketAddr>, TransportError> {
    if let Some(addr) = addr.socket_addr() {
        return Ok(vec![addr]);
    }
    check_name(addr)?;
    let found: Vec<_> = lookup_host(addr.as_str()).await?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
    }
    Ok(found)
}

/// Whether the address is a host name and a port, before anybody is asked.
fn check_name(addr: &Addr) -> Result<(), TransportError> {
    let reason = match addr.as_str().rsplit_once(':') {
        None => "no port",
        Some((_, port)) if port.parse::<u16>().is_err() => "the port is no number up to 65535",
        Some(("", _)) => "no host before the port",
        Some((host, _)) if host.contains([':', '[', ']', '/']) => {
            "neither an IP address nor a host name before the port"
        }
        Some(_) => return Ok(()),
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
    fn names_with_a_port_are_told_from_other_addresses() {
        for good in ["localhost:7000", "example.org:0", "a_b-c.d:65535"] {
            assert_eq!(check_name(&good.parse().unwrap()), Ok(()), "{good}");
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
        ] {
            assert!(
                matches!(
                    check_name(&bad.parse().unwrap()),
                    Err(TransportError::Address { .. })
                ),
                "{bad}"
            );
        }
    }
}
