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
    // A system that allows less gives as much as it allows, or leaves it as it is.
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn socket_has_more_room_than_by_itself_and_is_not_handed_to_other_programs() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (plain, ours) = (UdpSocket::bind(any).unwrap(), socket(any).unwrap());
        let room = |socket: &UdpSocket| {
            let received = sockopt::socket_recv_buffer_size(socket).unwrap();
            (received, sockopt::socket_send_buffer_size(socket).unwrap())
        };
        let ((received, sent), by_itself) = (room(&ours), room(&plain));
        assert!(
            received > by_itself.0 && sent > by_itself.1,
            "{received}, {sent}"
        );
        let flags = rustix::io::fcntl_getfd(&ours).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
