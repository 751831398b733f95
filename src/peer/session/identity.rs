//! Who a peer is to others.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::{Addr, Hello, LinkCookie, PeerId};

/// What a peer says of itself.
pub(in crate::peer) struct Identity {
    pub(in crate::peer) id: PeerId,
    /// Where others reach this peer, if it listens.
    pub(in crate::peer) addr: Option<Addr>,
    /// The key of the cookies.
    secret: [u8; 32],
    next_cookie: AtomicU64,
}

impl Identity {
    pub(in crate::peer) fn new(id: PeerId, addr: Option<Addr>, secret: [u8; 32]) -> Self {
        Self {
            id,
            addr,
            secret,
            next_cookie: AtomicU64::new(0),
        }
    }

    /// What this side says first in a session. Each session has another cookie.
    pub(in crate::peer) fn hello(&self) -> Hello {
        let number = self.next_cookie.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.secret, &number.to_le_bytes());
        let mut cookie = [0; 16];
        cookie.copy_from_slice(&hash.as_bytes()[..16]);
        Hello::new(self.id, self.addr.clone(), LinkCookie(cookie))
    }
}
