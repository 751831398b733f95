//! The links of a torrent: its connections, accepted and dialled, as its driver sees them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::announcer::announce;
use super::begun::Begun;
use super::connection::ConnectionTask;
use super::layers;
use super::outgoing::{Outgoing, OutgoingHandle};
use super::rendezvous::Driven;
use super::sought::Sought;
use super::table::TorrentTable;
use super::torrent::Torrent;
use crate::bittorrent::link::{BitTorrentLink, LinkFacts};
use crate::content::Bitfield;
use crate::peer::contents::choice::Choice;
use crate::peer::contents::inbox::{DriverInput, NewLink};
use crate::peer::contents::outside::Outside;
use crate::peer::contents::role::Role;
use crate::peer::session::HandshakeError;
use crate::peer::swarm::{LinkId, LinkInfo, LinkKind};
use crate::protocol::{Addr, HostKey};
use crate::storage::StorageError;

/// How long a driver that knows nobody waits for the first answer of a tracker.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// Has the driver take over a connection that others have opened.
pub(super) async fn accept_link(torrent: Arc<Torrent>, begun: Begun) {
    let contents = &torrent.meeting.session.shared.contents;
    let mut run = None;
    let is_torrent = |role| role == Role::Torrent;
    let linked = contents.link_if(torrent.id, is_torrent, |inbox, id| {
        let info = LinkInfo {
            peer: Some(begun.shaken.client.to_peer_id()),
            addr: None,
            dialled: false,
            host: HostKey::of(&begun.remote.into()),
            cookies: None,
            kind: LinkKind::Stranger,
        };
        let (link, task) = link(&torrent, begun, id, info, inbox);
        run = Some(task);
        link
    });
    if linked.await
        && let Some(run) = run
    {
        run.await;
    }
}

/// A link by a connection that has shaken hands, and its task.
fn link(
    torrent: &Arc<Torrent>,
    begun: Begun,
    id: LinkId,
    info: LinkInfo,
    inbox: mpsc::Sender<DriverInput>,
) -> (NewLink, impl Future<Output = ()> + Send + use<>) {
    let shaken = &begun.shaken;
    let mut config = LinkFacts::new(torrent.geometry, shaken.agreed, shaken.client);
    config.padding = Arc::clone(&torrent.padding);
    config.private = torrent.metainfo().is_private();
    config.said_none = begun.said_none;
    config.info = Some(torrent.metainfo().info_bytes().clone());
    config.dht_port = torrent.meeting.session.dht_port();
    config.hash_requests = torrent.hash_requests();
    config.about = begun.about(&torrent.meeting);
    // Two that want nothing need not wait for each other's Bitfield to part (BEP 21).
    let said_upload_only = torrent.meeting.is_upload_only();
    config.about.upload_only = said_upload_only.then_some(true);
    let now = tokio::time::Instant::now().into_std();
    let mut link = BitTorrentLink::new(now, config);
    for message in begun.heard {
        link.handle_message(now, message);
    }
    let outgoing = Arc::new(Outgoing::default());
    let task = ConnectionTask {
        torrent: Arc::clone(torrent),
        link,
        outgoing: Arc::clone(&outgoing),
        inbox,
        id,
        remote: begun.remote,
        said_upload_only,
    };
    let link = NewLink {
        id,
        info,
        remote: begun.remote.into(),
        outlet: Box::new(OutgoingHandle(outgoing)),
    };
    (link, task.run(begun.shaken, begun.place, begun.connected))
}

/// What the driver of a torrent holds. When it is dropped, the driver has ended.
pub(super) struct TorrentOutside {
    torrent: Arc<Torrent>,
    table: Arc<TorrentTable>,
    /// How the torrent was found, if it was sought.
    sought: Option<Arc<Sought>>,
    /// The driver, until it begins.
    driven: Mutex<Option<Driven>>,
}

impl TorrentOutside {
    pub(super) fn new(
        torrent: Arc<Torrent>,
        table: Arc<TorrentTable>,
        sought: Option<Arc<Sought>>,
        driven: Driven,
    ) -> Self {
        Self {
            torrent,
            table,
            sought,
            driven: Mutex::new(Some(driven)),
        }
    }
}

#[async_trait]
impl Outside for TorrentOutside {
    fn claimed(&self) -> Vec<(Addr, bool)> {
        let torrent = &self.torrent;
        self.table.insert(torrent);
        let mut driven = self.driven.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driven) = driven.take() {
            torrent.meeting.driven_by(driven);
        }
        if torrent.metainfo().is_private() {
            torrent.meeting.set_private();
        }
        announce(&torrent.meeting);
        if let Some(sought) = &self.sought {
            sought.becomes(torrent);
        }
        torrent.owners()
    }

    async fn owners(&self) -> Vec<(Addr, bool)> {
        let meeting = &self.torrent.meeting;
        if meeting.peers.named().is_empty() {
            let _ = timeout(FIRST_ANSWER, meeting.wishes.answered()).await;
        }
        meeting.wishes.wants_peers();
        self.torrent.owners()
    }

    async fn dial(
        &self,
        addr: Addr,
        inbox: mpsc::Sender<DriverInput>,
    ) -> Result<NewLink, HandshakeError> {
        let torrent = &self.torrent;
        let ready = match addr.socket_addr() {
            Some(addr) => torrent.take_ready(&addr).await,
            None => None,
        };
        let begun = match ready {
            Some(begun) => begun,
            None => Begun::dialled(&torrent.meeting, torrent.wire_hashes(), &addr).await?,
        };
        let shared = &torrent.meeting.session.shared;
        let id = shared.contents.next_link();
        let mut info = LinkInfo::unmet(addr).of_stranger();
        info.peer = Some(begun.shaken.client.to_peer_id());
        let remote = begun.remote;
        let (link, run) = link(torrent, begun, id, info, inbox);
        let span = tracing::info_span!(parent: &shared.tasks.span, "session", %remote);
        // The driver polls this, and so it knows the link before anything arrives by it.
        shared.tasks.spawn(span, run);
        Ok(link)
    }

    fn choice(&self) -> Arc<Choice> {
        Arc::clone(&self.torrent.meeting.choosing.choice)
    }

    async fn finish_part(&self, verified: Bitfield) -> Result<(), StorageError> {
        self.torrent.common.files.finish_chosen(verified).await
    }

    fn rests(&self, rests: bool) {
        self.torrent.meeting.rests(rests);
    }

    fn completed(&self) {
        let meeting = &self.torrent.meeting;
        meeting.complete();
        // What was here from the start was not completed here. But trackers were told of this
        // peer while it was verified, and would list it as one that lacks something.
        match meeting.figures().downloaded {
            0 => meeting.wishes.settles(),
            _ => meeting.wishes.completed(),
        }
        if layers::are_missing(&self.torrent) {
            let shared = &meeting.session.shared;
            let (torrent, sought) = (Arc::clone(&self.torrent), self.sought.clone());
            let made = async move {
                tokio::select! {
                    biased;
                    () = torrent.meeting.stopped() => {}
                    made = layers::make(&torrent) => {
                        if let (Some(metainfo), Some(sought)) = (made, sought) {
                            sought.is_whole(metainfo);
                        }
                    }
                }
            };
            shared.tasks.spawn(shared.tasks.span.clone(), made);
        }
    }
}

impl Drop for TorrentOutside {
    fn drop(&mut self) {
        self.torrent.meeting.stop();
    }
}
