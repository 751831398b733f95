//! UDP sockets with room for what comes while this program does something else.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::net::UdpSocket;
#[cfg(unix)]
use std::sync::Arc;

use quinn::Endpoint;
#[cfg(unix)]
use quinn::{EndpointConfig, TokioRuntime};
#[cfg(unix)]
use rustix::net::{AddressFamily, SocketType, sockopt};

/// How much a socket may hold in each direction, in bytes, where the system allows that. What
/// comes when it is full is lost, and is sent again: at 1 Gbit/s the usual 208 KiB of Linux
/// are full after one and a half milliseconds in which no thread is free, and this after
/// sixteen. The system takes the memory only as it is needed.
#[cfg(unix)]
const SOCKET_BUFFER: usize = 2 << 20;

/// An endpoint at an address. At `[::]` it serves IPv4 as well, where the system can do that.
pub(super) fn endpoint(target: SocketAddr) -> io::Result<Endpoint> {
    #[cfg(unix)]
    return Endpoint::new(
        EndpointConfig::default(),
        None,
        socket(target)?,
        Arc::new(TokioRuntime),
    );
    #[cfg(not(unix))]
    Endpoint::client(target)
}

/// A socket that is bound to an address.
#[cfg(unix)]
pub(super) fn socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket(family, SocketType::DGRAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    if target.is_ipv6() {
        // Where there is no IPv4, it serves IPv6 alone.
        let _ = sockopt::set_ipv6_v6only(&socket, false);
    }
    // A system that allows less gives as much as it allows.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    rustix::net::bind(&socket, &target)?;
    Ok(socket.into())
}

/// A socket that is bound to an address.
#[cfg(not(unix))]
pub(super) fn socket(target: SocketAddr) -> io::Result<std::net::UdpSocket> {
    std::net::UdpSocket::bind(target)
}
