//! Peers in the local network (BEP 14): each announces its torrents to a multicast group, and
//! those that have the same connect to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::next_turn;
use crate::bittorrent::local_discovery::{GROUP, LocalAnnounce, MAX_ANNOUNCE_LEN};
use crate::peer::torrents::begun::Begun;
use crate::peer::torrents::links::accept_link;
use crate::peer::torrents::rendezvous::Rendezvous;
use crate::peer::torrents::table::{Found, TorrentTable};
use crate::protocol::Addr;

/// How often a torrent is announced (BEP 14).
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The same as long as peers are missing: the shortest that BEP 14 allows.
const SOONEST: Duration = Duration::from_secs(60);

/// How many neighbours are dialled at a time. Those beyond that are passed over, and announce
/// themselves again.
const MAX_DIALS: usize = 16;

/// The pause after receiving has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket of a session in the multicast group.
pub(in crate::peer::torrents) struct LocalDiscovery {
    socket: UdpSocket,
    /// By which a session knows its own announces.
    cookie: String,
    /// For those that are dialled.
    dials: Arc<Semaphore>,
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
        Ok(Self {
            socket,
            cookie,
            dials: Arc::new(Semaphore::new(MAX_DIALS)),
        })
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
            for found in announce
                .info_hashes
                .iter()
                .filter_map(|hash| torrents.find(hash))
            {
                if found.meeting().is_public() {
                    self.meet(found, peer).await;
                }
            }
        }
    }

    /// A torrent has this peer. Who has all of it dials nobody, and is told of by the next
    /// announce only, so that the peer is dialled here.
    async fn meet(&self, found: Found, peer: SocketAddr) {
        let torrent = match found {
            Found::Known(torrent) if torrent.meeting.is_complete() => torrent,
            found => return found.meeting().found(vec![peer]).await,
        };
        if torrent.meeting.peers.found([peer]).is_empty() {
            return;
        }
        let Ok(dials) = Arc::clone(&self.dials).try_acquire_owned() else {
            return;
        };
        let tasks = &torrent.meeting.session.shared.tasks;
        let span = tracing::info_span!(parent: &tasks.span, "session", remote = %peer);
        tasks.clone().spawn(span, async move {
            let meeting = &torrent.meeting;
            let addr = Addr::from(peer);
            let dial = Begun::dialled(meeting, torrent.wire_hashes(), &addr);
            let begun = tokio::select! {
                biased;
                () = meeting.not_public() => return,
                begun = dial => begun,
            };
            drop(dials);
            match begun {
                Ok(begun) => accept_link(torrent, begun).await,
                Err(error) => tracing::debug!(%error, "a neighbour is not reached"),
            }
        });
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
