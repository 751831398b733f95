//! Peers in the local network (BEP 14): each announces its torrents to a multicast group, and
//! those that have the same connect to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::next_turn;
use crate::bittorrent::local_discovery::{GROUP, LocalAnnounce, MAX_ANNOUNCE_LEN};
use crate::peer::torrents::rendezvous::Rendezvous;
use crate::peer::torrents::table::{Found, TorrentTable};

/// How often a torrent is announced (BEP 14).
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The same as long as peers are missing: the shortest that BEP 14 allows.
const SOONEST: Duration = Duration::from_secs(60);

/// The pause after receiving has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket of a session in the multicast group.
pub(in crate::peer::torrents) struct LocalDiscovery {
    socket: UdpSocket,
    /// By which a session knows its own announces.
    cookie: String,
}

impl LocalDiscovery {
    /// Joins the group at the interface with this address; the system chooses one if it is
    /// unspecified.
    pub(in crate::peer::torrents) fn start(
        interface: Ipv4Addr,
        cookie: String,
    ) -> io::Result<Self> {
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
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, cookie })
    }

    /// Tells the torrents of announces until the session ends.
    pub(in crate::peer::torrents) async fn hear(
        &self,
        torrents: &TorrentTable,
        stop: &CancellationToken,
    ) {
        // A longer datagram is cut, and is no announce then.
        let mut bytes = [0; MAX_ANNOUNCE_LEN + 1];
        while let Some(heard) = stop
            .run_until_cancelled(self.socket.recv_from(&mut bytes))
            .await
        {
            let (len, from) = match heard {
                Ok(heard) => heard,
                Err(error) => {
                    tracing::debug!(%error, "the local network is not heard");
                    stop.run_until_cancelled(sleep(PAUSE)).await;
                    continue;
                }
            };
            let Some(announce) = LocalAnnounce::decode(&bytes[..len]) else {
                continue;
            };
            if announce.cookie.as_deref() == Some(&self.cookie) {
                continue;
            }
            let peer = SocketAddr::new(from.ip(), announce.port);
            for hash in &announce.info_hashes {
                let meeting = match torrents.find(hash) {
                    Some(Found::Known(torrent)) => Arc::clone(&torrent.meeting),
                    Some(Found::Sought(sought)) => Arc::clone(&sought.meeting),
                    None => continue,
                };
                if meeting.is_public() {
                    meeting.found(vec![peer]).await;
                }
            }
        }
    }
}

/// Announces the torrent in the local network, again and again, if this side can be dialled.
pub(super) async fn announce(torrent: Arc<Rendezvous>) {
    let session = &torrent.session;
    let (Some(local), Some(port)) = (&session.local, session.port) else {
        return;
    };
    let announce = LocalAnnounce {
        port,
        info_hashes: vec![torrent.info_hash],
        cookie: Some(local.cookie.clone()),
    };
    let announce = announce.encode();
    loop {
        let since = Instant::now();
        if !torrent.is_public() {
            return;
        }
        if let Err(error) = local.socket.send_to(&announce, GROUP).await {
            tracing::debug!(%error, "not announced in the local network");
        }
        if next_turn(&torrent, since, SOONEST, INTERVAL)
            .await
            .is_none()
        {
            return;
        }
    }
}
