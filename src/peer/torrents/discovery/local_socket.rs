//! The socket of a session in the multicast group of its local network (BEP 14).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bittorrent::InfoHashV1;
use crate::bittorrent::local_discovery::{GROUP, LocalAnnounce, MAX_ANNOUNCE_LEN};

/// How many neighbours are dialled at a time. Those beyond that are passed over, and announce
/// themselves again.
const MAX_DIALS: usize = 16;

/// The socket of a session.
pub(in crate::peer::torrents) struct LocalSocket {
    socket: UdpSocket,
    /// By which a session knows its own announces.
    cookie: String,
    /// For those that are dialled.
    dials: Arc<Semaphore>,
}

impl LocalSocket {
    /// Joins the group at the interface with this address; the system chooses one if it is
    /// unspecified.
    pub(in crate::peer::torrents) fn join(interface: Ipv4Addr, cookie: String) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Other clients on this machine have the same port.
        socket.set_reuse_address(true)?;
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GROUP.port());
        socket.bind(&any.into())?;
        socket.join_multicast_v4(GROUP.ip(), &interface)?;
        if !interface.is_unspecified() {
            socket.set_multicast_if_v4(&interface)?;
        }
        // They must hear this session, too.
        socket.set_multicast_loop_v4(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            cookie,
            dials: Arc::new(Semaphore::new(MAX_DIALS)),
        })
    }

    /// Announces a torrent that can be had at this port.
    pub(super) async fn announce(&self, torrent: InfoHashV1, port: u16) {
        let announce = LocalAnnounce {
            port,
            info_hashes: vec![torrent],
            cookie: Some(self.cookie.clone()),
        };
        if let Err(error) = self.socket.send_to(&announce.encode(), GROUP).await {
            tracing::debug!(%error, "not announced in the local network");
        }
    }

    /// The next announce of others, and where they can be dialled. `None` if it is something
    /// else.
    ///
    /// Cancel safe.
    pub(super) async fn heard(&self) -> io::Result<Option<(SocketAddr, Vec<InfoHashV1>)>> {
        // A longer datagram is cut, and is no announce then.
        let mut bytes = [0; MAX_ANNOUNCE_LEN + 1];
        let (len, from) = self.socket.recv_from(&mut bytes).await?;
        let announce = LocalAnnounce::decode(&bytes[..len]);
        let announce = announce.filter(|it| it.cookie.as_deref() != Some(&self.cookie));
        Ok(announce.map(|it| (SocketAddr::new(from.ip(), it.port), it.info_hashes)))
    }

    /// The right to dial a neighbour, if not too many are being dialled.
    pub(super) fn dial(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.dials).try_acquire_owned().ok()
    }
}
