//! The links of a torrent: its connections, accepted and dialled, as its driver sees them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::ConnectionTask;
use super::handshake::{Shaken, dialled};
use super::known_peers::ConnectedPeer;
use super::outgoing::{Outgoing, OutgoingHandle};
use super::torrent::Torrent;
use crate::bittorrent::link::{BitTorrentLink, LinkFacts};
use crate::bittorrent::wire::ExtendedHandshake;
use crate::peer::contents::inbox::{DriverInput, NewLink};
use crate::peer::contents::outside::Outside;
use crate::peer::contents::role::Role;
use crate::peer::session::HandshakeError;
use crate::peer::session::admission::ConnectionPlace;
use crate::peer::swarm::{LinkId, LinkInfo, LinkKind};
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, HostKey, OwnState};
use crate::transport::{StreamTransport, TransportError};

/// How long a driver that knows nobody waits for the first answer of a tracker.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// Has the driver take over a connection that others have opened.
pub(super) async fn accept_link<S>(
    torrent: Arc<Torrent>,
    shaken: Shaken<S>,
    remote: SocketAddr,
    place: ConnectionPlace,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let Some(connected) = torrent.peers.connect(shaken.client, None) else {
        tracing::debug!("connected already");
        return;
    };
    let contents = &torrent.session.shared.contents;
    let mut task = None;
    let is_torrent = |role| role == Role::Torrent;
    let linked = contents.link_if(torrent.id, is_torrent, |inbox, id| {
        let info = LinkInfo {
            peer: Some(shaken.client.to_peer_id()),
            addr: None,
            dialled: false,
            host: HostKey::of(&remote.into()),
            cookies: None,
            kind: LinkKind::Stranger,
        };
        let (link, connection) = link(&torrent, &shaken, id, info, (remote, inbox));
        task = Some(connection);
        link
    });
    if linked.await
        && let Some(task) = task
    {
        task.run(shaken, place, connected).await;
    }
}

/// A link by a connection that has shaken hands, and its task.
fn link<S>(
    torrent: &Arc<Torrent>,
    shaken: &Shaken<S>,
    id: LinkId,
    info: LinkInfo,
    (remote, inbox): (SocketAddr, mpsc::Sender<DriverInput>),
) -> (NewLink, ConnectionTask) {
    let mut config = LinkFacts::new(torrent.geometry, shaken.agreed, shaken.client);
    config.padding = Arc::clone(&torrent.padding);
    config.private = torrent.metainfo.is_private();
    config.info = Some(torrent.metainfo.info_bytes().clone());
    config.about = ExtendedHandshake {
        client: Some(format!("bt_lite {}", env!("CARGO_PKG_VERSION"))),
        port: torrent.session.port,
        your_ip: Some(remote.ip()),
        // Two that want nothing need not wait for each other's Bitfield to part (BEP 21).
        upload_only: torrent.is_complete().then_some(true),
        ..ExtendedHandshake::default()
    };
    let now = tokio::time::Instant::now().into_std();
    let outgoing = Arc::new(Outgoing::default());
    let task = ConnectionTask {
        torrent: Arc::clone(torrent),
        link: BitTorrentLink::new(now, config),
        outgoing: Arc::clone(&outgoing),
        inbox,
        id,
        remote,
    };
    let link = NewLink {
        id,
        info,
        remote: remote.into(),
        outlet: Box::new(OutgoingHandle(outgoing)),
    };
    (link, task)
}

async fn connect(
    torrent: &Torrent,
    addr: &Addr,
) -> Result<
    (
        Shaken<<crate::TcpTransport as StreamTransport>::Stream>,
        SocketAddr,
        ConnectionPlace,
        ConnectedPeer,
    ),
    HandshakeError,
> {
    let shared = &torrent.session.shared;
    let place = timeout(HANDSHAKE_TIMEOUT, shared.admission.dial_when_free()).await;
    let place = place.map_err(|_| HandshakeError::Full)?;
    let shake = async {
        let stream = torrent.session.transport.connect_stream(addr).await?;
        let remote = stream.remote.socket_addr();
        let remote = remote.ok_or(HandshakeError::Transport(TransportError::Closed))?;
        let shaken = dialled(stream.io, torrent.info_hash, torrent.session.client).await;
        let shaken = shaken.map_err(|error| {
            tracing::debug!(%error, "no handshake");
            HandshakeError::NoHello
        })?;
        Ok((shaken, remote))
    };
    let (shaken, remote) = timeout(HANDSHAKE_TIMEOUT, shake)
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))?;
    let connected = torrent.peers.connect(shaken.client, Some(remote));
    let connected = connected.ok_or(HandshakeError::WrongPeer)?;
    Ok((shaken, remote, place, connected))
}

/// What the driver of a torrent holds. When it is dropped, the driver has ended.
pub(super) struct TorrentOutside(pub(super) Arc<Torrent>);

#[async_trait]
impl Outside for TorrentOutside {
    async fn owners(&self) -> Vec<(Addr, bool)> {
        let torrent = &self.0;
        if torrent.peers.named().is_empty() {
            let _ = timeout(FIRST_ANSWER, torrent.wishes.answered()).await;
        }
        torrent.wishes.wants_peers();
        torrent.owners()
    }

    async fn dial(
        &self,
        addr: Addr,
        inbox: mpsc::Sender<DriverInput>,
    ) -> Result<NewLink, HandshakeError> {
        let torrent = &self.0;
        let (shaken, remote, place, connected) = connect(torrent, &addr).await?;
        let shared = &torrent.session.shared;
        let id = shared.contents.next_link();
        let mut info = LinkInfo::unmet(addr).of_stranger();
        info.peer = Some(shaken.client.to_peer_id());
        let (link, task) = link(torrent, &shaken, id, info, (remote, inbox));
        let span = tracing::info_span!(parent: &shared.tasks.span, "session", %remote);
        // The driver polls this, and so it knows the link before anything arrives by it.
        let run = task.run(shaken, place, connected);
        shared.tasks.spawn(span, run);
        Ok(link)
    }

    fn announce(&self, state: OwnState) {
        let torrent = &self.0;
        // What was here from the start was not completed here.
        if state == OwnState::Complete && torrent.complete() && torrent.figures().downloaded > 0 {
            torrent.wishes.completed();
        }
    }
}

impl Drop for TorrentOutside {
    fn drop(&mut self) {
        self.0.stop();
    }
}
