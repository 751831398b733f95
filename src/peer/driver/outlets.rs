//! The driver's ends of its links.

use std::collections::BTreeMap;

use super::super::outlet::{LinkEnd, Outlet};
use super::super::swarm::LinkId;
use crate::protocol::PeerMessage;

/// The ways out to all links of a driver.
#[derive(Default)]
pub(super) struct LinkOutlets {
    outlets: BTreeMap<LinkId, Box<dyn Outlet>>,
}

impl LinkOutlets {
    pub(super) fn insert(&mut self, link: LinkId, outlet: Box<dyn Outlet>) {
        self.outlets.insert(link, outlet);
    }

    pub(super) fn is_open(&self, link: LinkId) -> bool {
        self.outlets.contains_key(&link)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outlets.is_empty()
    }

    /// Queues a message. Closes the link and returns `false` if that is
    /// impossible: the link does not read, or is about to report its end.
    /// Messages for closed links are dropped.
    pub(super) fn send(&mut self, link: LinkId, message: PeerMessage) -> bool {
        let Some(outlet) = self.outlets.get(&link) else {
            return true;
        };
        let sent = outlet.send(message);
        if !sent {
            self.outlets.remove(&link);
        }
        sent
    }

    /// Closes a link.
    pub(super) fn end(&mut self, link: LinkId, end: LinkEnd) {
        if let Some(outlet) = self.outlets.remove(&link) {
            outlet.end(end);
        }
    }

    /// From now on nothing more arrives.
    pub(super) fn mute(&self) {
        for outlet in self.outlets.values() {
            outlet.mute();
        }
    }

    /// Closes every link.
    pub(super) fn end_all(self, end: LinkEnd) {
        for outlet in self.outlets.into_values() {
            outlet.end(end);
        }
    }
}
