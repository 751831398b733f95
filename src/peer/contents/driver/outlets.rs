//! The driver's ends of its links.

use std::collections::BTreeMap;

use tracing::Span;

use crate::metrics::{self, Held};
use crate::peer::session::outlet::{LinkEnd, Outlet};
use crate::peer::swarm::LinkId;
use crate::protocol::{Addr, PeerId, PeerMessage};

/// The ways out to all links of a driver.
#[derive(Default)]
pub(super) struct LinkOutlets {
    outlets: BTreeMap<LinkId, Open>,
}

/// A link that is open.
struct Open {
    outlet: Box<dyn Outlet>,
    span: Span,
    /// The other end of the connection.
    remote: Addr,
    _counted: Held,
}

impl Open {
    fn end(self, end: LinkEnd) {
        self.span.in_scope(|| tracing::debug!(?end, "link ended"));
        self.outlet.end(end);
    }
}

impl LinkOutlets {
    /// A link is here, which logs in this span.
    pub(super) fn insert(
        &mut self,
        link: LinkId,
        outlet: Box<dyn Outlet>,
        span: Span,
        remote: Addr,
    ) {
        let open = Open {
            outlet,
            span,
            remote,
            _counted: Held::new(metrics::LINKS),
        };
        self.outlets.insert(link, open);
    }

    /// The other end of the connection of a link.
    pub(super) fn remote(&self, link: LinkId) -> Option<&Addr> {
        self.outlets.get(&link).map(|open| &open.remote)
    }

    /// The other side of a link has said who it is.
    pub(super) fn met(&self, link: LinkId, peer: PeerId) {
        if let Some(open) = self.outlets.get(&link) {
            open.span.record("peer", tracing::field::display(peer));
            open.span.in_scope(|| tracing::debug!("link up"));
        }
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
        let Some(open) = self.outlets.get(&link) else {
            return true;
        };
        let sent = open.outlet.send(message);
        if !sent {
            self.end(link, LinkEnd::Left);
        }
        sent
    }

    /// Closes a link.
    pub(super) fn end(&mut self, link: LinkId, end: LinkEnd) {
        if let Some(open) = self.outlets.remove(&link) {
            open.end(end);
        }
    }

    /// From now on nothing more arrives.
    pub(super) fn mute(&self) {
        for open in self.outlets.values() {
            open.outlet.mute();
        }
    }

    /// Closes every link.
    pub(super) fn end_all(self, end: LinkEnd) {
        for open in self.outlets.into_values() {
            open.end(end);
        }
    }
}
