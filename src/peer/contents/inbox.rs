//! The inbox of a driver: what sessions and users send to it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::content::Bitfield;
use crate::peer::contents::asleep::Asleep;
use crate::peer::limits::ContentLimits;
use crate::peer::session::outlet::{LinkEnd, Outlet};
use crate::peer::swarm::{DownloadStats, LinkCookies, LinkId, LinkInfo, PieceMap};
use crate::protocol::{Addr, PeerId, PeerMessage, RefuseReason};
use crate::storage::{Blob, StorageError};

/// How many inputs may wait for a driver: 16 MiB, if each is a block.
const INBOX_LEN: usize = 64;

/// Something that happened outside of the driver.
pub(in crate::peer) enum DriverInput {
    /// Another peer has opened a link.
    Link(Box<NewLink>),
    /// The other side of a link that was dialled has said who it is.
    Met {
        link: LinkId,
        peer: PeerId,
        cookies: LinkCookies,
    },
    /// A message arrived.
    Message { link: LinkId, message: PeerMessage },
    /// Several arrived together, in this order.
    #[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
    Messages {
        link: LinkId,
        messages: Vec<PeerMessage>,
    },
    /// Messages were handed to the network; `bytes` counts the blocks in them.
    Sent {
        link: LinkId,
        messages: usize,
        bytes: u64,
    },
    /// The session of a link has ended.
    Down { link: LinkId },
    /// Somebody wants to know where the complete content is. Not answered if it is not
    /// complete.
    Describe(oneshot::Sender<Arc<Asleep>>),
    /// The complete content cannot be read from this blob.
    Unreadable {
        blob: Arc<dyn Blob>,
        error: StorageError,
    },
    /// Owners that are known in addition to those that a tracker names.
    Owners(Vec<Addr>),
    /// The user limits the content after its download has ended.
    SetLimits(ContentLimits),
    /// The user asks which chunks are verified.
    VerifiedChunks {
        reply: oneshot::Sender<Option<Bitfield>>,
    },
    /// Somebody asks what is done for the content.
    Stats {
        reply: oneshot::Sender<DownloadStats>,
    },
    /// Somebody asks how far each chunk is.
    PieceMap {
        reply: oneshot::Sender<Option<PieceMap>>,
    },
}

/// A link that the machine does not know yet.
pub(in crate::peer) struct NewLink {
    pub(in crate::peer) id: LinkId,
    pub(in crate::peer) info: LinkInfo,
    /// The other end of the session, for logs.
    pub(in crate::peer) remote: Addr,
    pub(in crate::peer) outlet: Box<dyn Outlet>,
}

/// Both ends of the channel to a driver.
pub(in crate::peer) struct Inbox {
    sender: mpsc::Sender<DriverInput>,
    receiver: mpsc::Receiver<DriverInput>,
}

impl Inbox {
    pub(in crate::peer) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(INBOX_LEN);
        Self { sender, receiver }
    }

    pub(in crate::peer) fn sender(&self) -> mpsc::Sender<DriverInput> {
        self.sender.clone()
    }

    /// The next input. Never ends, as this side holds a sender.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn recv(&mut self) -> Option<DriverInput> {
        self.receiver.recv().await
    }

    /// Takes the next link that waits, and drops what waits before it.
    pub(in crate::peer) fn next_link(&mut self) -> Option<NewLink> {
        loop {
            if let DriverInput::Link(link) = self.receiver.try_recv().ok()? {
                return Some(*link);
            }
        }
    }

    /// Ends the links that wait, as this side does not serve them.
    pub(in crate::peer) fn refuse_links(&mut self, reason: RefuseReason) {
        while let Some(link) = self.next_link() {
            link.outlet.end(LinkEnd::Refused(reason));
        }
    }

    /// Whether nothing waits, and nobody is about to send something.
    pub(in crate::peer) fn is_idle(&self) -> bool {
        self.receiver.is_empty() && self.sender.capacity() == INBOX_LEN
    }
}
