//! One torrent of a session: what its connections and its driver need.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::announcer::{Announcer, Figures};
use super::connection::ConnectionTask;
use super::handshake::{Shaken, dialled};
use super::known_peers::{ConnectedPeer, KnownPeers};
use super::outgoing::{Outgoing, OutgoingHandle};
use super::session::SessionShared;
use crate::bittorrent::link::{BitTorrentLink, LinkFacts, Padding};
use crate::bittorrent::wire::ExtendedHandshake;
use crate::bittorrent::{InfoHashV1, Metainfo};
use crate::content::{ContentId, Geometry};
use crate::peer::contents::inbox::{DriverInput, NewLink};
use crate::peer::contents::outside::Outside;
use crate::peer::contents::role::Role;
use crate::peer::contents::status::ContentStatus;
use crate::peer::session::HandshakeError;
use crate::peer::session::admission::ConnectionPlace;
use crate::peer::swarm::{LinkId, LinkInfo};
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, HostKey, OwnState};
use crate::transport::{StreamTransport, TransportError};

/// How long a driver that knows nobody waits for the first answer of a tracker.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// One torrent, as long as its driver or a connection is there.
pub(super) struct Torrent {
    pub(super) session: Arc<SessionShared>,
    pub(super) metainfo: Metainfo,
    pub(super) id: ContentId,
    /// What its connections and its trackers know it by.
    pub(super) info_hash: InfoHashV1,
    pub(super) geometry: Geometry,
    padding: Arc<Padding>,
    pub(super) peers: Arc<KnownPeers>,
    announcer: Announcer,
    /// Cancelled when the driver has ended.
    stop: CancellationToken,
    is_complete: AtomicBool,
    driven: OnceLock<Driven>,
}

/// The driver of a torrent, as seen from outside.
pub(super) struct Driven {
    pub(super) status: watch::Receiver<ContentStatus>,
    pub(super) inbox: mpsc::Sender<DriverInput>,
}

impl Torrent {
    pub(super) fn new(
        session: Arc<SessionShared>,
        metainfo: Metainfo,
        info_hash: InfoHashV1,
        (id, geometry): (ContentId, Geometry),
        peers: Vec<SocketAddr>,
    ) -> Self {
        let padding = metainfo.files().iter().filter(|file| file.is_padding());
        let ranges = padding.map(|file| file.offset()..file.offset() + file.length());
        let known = KnownPeers::default();
        known.found(peers);
        Self {
            padding: Arc::new(Padding::new(ranges)),
            stop: session.shared.tasks.stop.child_token(),
            session,
            metainfo,
            id,
            info_hash,
            geometry,
            peers: Arc::new(known),
            announcer: Announcer::default(),
            is_complete: AtomicBool::new(false),
            driven: OnceLock::new(),
        }
    }

    /// Begins to announce the torrent.
    pub(super) fn begin(self: &Arc<Self>, driven: Driven, trackers: bool) {
        // Nobody else sets it.
        let _ = self.driven.set(driven);
        if !trackers || self.metainfo.trackers().is_empty() {
            self.announcer.has_none();
            return;
        }
        let tasks = &self.session.shared.tasks;
        let span = tracing::info_span!(parent: &tasks.span, "torrent", hash = %self.info_hash);
        let run = self.announcer.run(Arc::clone(self));
        tasks.spawn(span, run);
    }

    /// What trackers are told.
    pub(super) fn figures(&self) -> Figures {
        let status = self.driven.get().map(|driven| driven.status.borrow());
        let (uploaded, downloaded, verified) = match &status {
            Some(status) => {
                let progress = status.progress();
                let uploaded = status.uploads().bytes();
                (uploaded, progress.downloaded, progress.verified_bytes)
            }
            None => (0, 0, 0),
        };
        Figures {
            uploaded,
            downloaded,
            left: match self.is_complete() {
                true => 0,
                false => self.geometry.length().saturating_sub(verified),
            },
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    pub(super) fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// Waits until the driver has ended.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The driver has ended.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Peers were named. The driver hears of them at once, if it runs.
    pub(super) async fn found(&self, peers: Vec<SocketAddr>) {
        let new = self.peers.found(peers);
        if new.is_empty() {
            return;
        }
        let new = new.into_iter().map(Addr::from).collect();
        if let Some(Driven { inbox, .. }) = self.driven.get() {
            // When the driver has ended, nobody needs to know.
            let _ = inbox.send(DriverInput::Owners(new)).await;
        }
    }

    /// Has the driver take over a connection that others have opened.
    pub(super) async fn accept<S>(
        self: Arc<Self>,
        shaken: Shaken<S>,
        remote: SocketAddr,
        place: ConnectionPlace,
    ) where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let Some(connected) = self.peers.connect(shaken.client, None) else {
            tracing::debug!("connected already");
            return;
        };
        let contents = &self.session.shared.contents;
        let mut task = None;
        let is_torrent = |role| role == Role::Torrent;
        let linked = contents.link_if(self.id, is_torrent, |inbox, id| {
            let info = LinkInfo {
                peer: Some(shaken.client.to_peer_id()),
                addr: None,
                dialled: false,
                host: HostKey::of(&remote.into()),
                cookies: None,
            };
            let (link, connection) = self.link(&shaken, id, info, (remote, inbox));
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
        self: &Arc<Self>,
        shaken: &Shaken<S>,
        id: LinkId,
        info: LinkInfo,
        (remote, inbox): (SocketAddr, mpsc::Sender<DriverInput>),
    ) -> (NewLink, ConnectionTask) {
        let mut config = LinkFacts::new(self.geometry, shaken.agreed, shaken.client);
        config.padding = Arc::clone(&self.padding);
        config.private = self.metainfo.is_private();
        config.info = Some(self.metainfo.info_bytes().clone());
        config.about = ExtendedHandshake {
            client: Some(format!("bt_lite {}", env!("CARGO_PKG_VERSION"))),
            port: self.session.port,
            your_ip: Some(remote.ip()),
            ..ExtendedHandshake::default()
        };
        let now = tokio::time::Instant::now().into_std();
        let outgoing = Arc::new(Outgoing::default());
        let task = ConnectionTask {
            torrent: Arc::clone(self),
            link: BitTorrentLink::new(now, config),
            outgoing: Arc::clone(&outgoing),
            inbox,
            id,
            remote,
            listens: info.dialled.then_some(remote),
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
        &self,
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
        let shared = &self.session.shared;
        let place = timeout(HANDSHAKE_TIMEOUT, shared.admission.dial_when_free()).await;
        let place = place.map_err(|_| HandshakeError::Full)?;
        let shake = async {
            let stream = self.session.transport.connect_stream(addr).await?;
            let remote = stream.remote.socket_addr();
            let remote = remote.ok_or(HandshakeError::Transport(TransportError::Closed))?;
            let shaken = dialled(stream.io, self.info_hash, self.session.client).await;
            let shaken = shaken.map_err(|error| {
                tracing::debug!(%error, "no handshake");
                HandshakeError::NoHello
            })?;
            Ok((shaken, remote))
        };
        let (shaken, remote) = timeout(HANDSHAKE_TIMEOUT, shake)
            .await
            .unwrap_or(Err(HandshakeError::TimedOut))?;
        let connected = self.peers.connect(shaken.client, Some(remote));
        let connected = connected.ok_or(HandshakeError::WrongPeer)?;
        Ok((shaken, remote, place, connected))
    }
}

/// What the driver of a torrent holds. When it is dropped, the driver has ended.
pub(super) struct TorrentOutside(pub(super) Arc<Torrent>);

#[async_trait]
impl Outside for TorrentOutside {
    async fn owners(&self) -> Vec<(Addr, bool)> {
        let torrent = &self.0;
        if torrent.peers.named().is_empty() {
            let _ = timeout(FIRST_ANSWER, torrent.announcer.answered()).await;
        }
        torrent.announcer.wants_peers();
        let named = torrent.peers.named();
        named.into_iter().map(|peer| (peer.into(), false)).collect()
    }

    async fn dial(
        &self,
        addr: Addr,
        inbox: mpsc::Sender<DriverInput>,
    ) -> Result<NewLink, HandshakeError> {
        let torrent = &self.0;
        let (shaken, remote, place, connected) = torrent.connect(&addr).await?;
        let shared = &torrent.session.shared;
        let id = shared.contents.next_link();
        let mut info = LinkInfo::unmet(addr);
        info.peer = Some(shaken.client.to_peer_id());
        let (link, task) = torrent.link(&shaken, id, info, (remote, inbox));
        let span = tracing::info_span!(parent: &shared.tasks.span, "session", %remote);
        // The driver polls this, and so it knows the link before anything arrives by it.
        let run = task.run(shaken, place, connected);
        shared.tasks.spawn(span, run);
        Ok(link)
    }

    fn announce(&self, state: OwnState) {
        let torrent = &self.0;
        if state == OwnState::Complete && !torrent.is_complete.swap(true, Ordering::Relaxed) {
            torrent.announcer.completed();
        }
    }
}

impl Drop for TorrentOutside {
    fn drop(&mut self) {
        self.0.stop();
    }
}
