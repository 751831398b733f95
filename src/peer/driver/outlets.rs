//! The driver's ends of its links.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::link::{LinkInput, QUEUE_LEN};
use super::super::swarm::LinkId;
use crate::protocol::{PeerMessage, RefuseReason};

/// The queues of all links of a driver.
#[derive(Default)]
pub(super) struct LinkOutlets {
    outlets: BTreeMap<LinkId, Outlet>,
}

/// Dropping it closes the link behind what is queued.
struct Outlet {
    queue: mpsc::Sender<PeerMessage>,
    _closing: DropGuard,
}

impl LinkOutlets {
    /// Makes the queue of a new link, and returns the link's end of it.
    pub(super) fn open(&mut self, link: LinkId) -> LinkInput {
        let (queue, messages) = mpsc::channel(QUEUE_LEN);
        let closing = CancellationToken::new();
        let outlet = Outlet {
            queue,
            _closing: closing.clone().drop_guard(),
        };
        self.outlets.insert(link, outlet);
        LinkInput { messages, closing }
    }

    pub(super) fn is_open(&self, link: LinkId) -> bool {
        self.outlets.contains_key(&link)
    }

    /// Queues a message. Closes the link and returns `false` if that is
    /// impossible: the link does not read, or is about to report its end.
    /// Messages for closed links are dropped.
    pub(super) fn send(&mut self, link: LinkId, message: PeerMessage) -> bool {
        let Some(outlet) = self.outlets.get(&link) else {
            return true;
        };
        let sent = outlet.queue.try_send(message).is_ok();
        if !sent {
            self.outlets.remove(&link);
        }
        sent
    }

    /// Closes a link, and says why if there is a reason.
    pub(super) fn close(&mut self, link: LinkId, reason: Option<RefuseReason>) {
        if let Some(outlet) = self.outlets.remove(&link)
            && let Some(reason) = reason
        {
            outlet.refuse(reason);
        }
    }

    /// Closes every link for this reason.
    pub(super) fn close_all(self, reason: RefuseReason) {
        for outlet in self.outlets.into_values() {
            outlet.refuse(reason);
        }
    }
}

impl Outlet {
    fn refuse(self, reason: RefuseReason) {
        // A link whose queue is full ends without a farewell.
        let _ = self.queue.try_send(PeerMessage::Refuse(reason));
    }
}
