//! Who may connect to a peer, and fetch what.

use crate::access::AccessPolicy;
use crate::peer::handles::peer::{Peer, PeerBuilder};

impl PeerBuilder {
    /// Sets who may connect to this peer, and which contents each may fetch
    /// ([`access`](crate::access)). By default everybody may do everything, and nothing is
    /// asked.
    pub fn access(mut self, policy: impl AccessPolicy) -> Self {
        self.access = Some(Box::new(policy));
        self
    }
}

impl Peer {
    /// Asks again who may do what ([`PeerBuilder::access`]), for a policy that cannot tell
    /// of changes itself. Within a second, what is denied now has ended.
    pub fn refresh_access(&self) {
        self.shared().guard.refresh();
    }
}
