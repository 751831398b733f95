//! Who is at the other end of a link, and how two links of one peer are told.

use crate::protocol::{Addr, HostKey, LinkCookie, LinkProof, PeerId};

/// Who is at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// As it calls itself, which proves nothing.
    pub peer: PeerId,
    /// Where it listens, if it does: proven where this side dialled, and else
    /// what the other side says, of its own host.
    pub addr: Option<Addr>,
    /// Whether this side dialled.
    pub dialled: bool,
    /// The host that the connection is with.
    pub host: HostKey,
    /// What this side and the other one said as the secret of this link; none
    /// where the two ends cannot prove anything by it.
    pub cookies: Option<LinkCookies>,
}

/// The secrets of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCookies {
    /// What this side said in its Hello.
    pub said: LinkCookie,
    /// What the other side said.
    pub heard: LinkCookie,
}

impl LinkCookies {
    /// What this side says on this link to prove that it is at the same end of
    /// an older one.
    pub fn proof(&self, older: &Self) -> LinkProof {
        prove([older.said, older.heard], [self.said, self.heard])
    }

    /// What the other side says for the same.
    pub fn expected(&self, older: &Self) -> LinkProof {
        prove([older.heard, older.said], [self.heard, self.said])
    }

    /// Decides between two links of one peer, the same at both ends.
    pub(super) fn lot(&self) -> u128 {
        let number = |cookie: LinkCookie| u128::from_be_bytes(cookie.0);
        number(self.said) ^ number(self.heard)
    }
}

fn prove(older: [LinkCookie; 2], newer: [LinkCookie; 2]) -> LinkProof {
    let join = |cookies: [LinkCookie; 2]| {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&cookies[0].0);
        bytes[16..].copy_from_slice(&cookies[1].0);
        bytes
    };
    let hash = blake3::keyed_hash(&join(older), &join(newer));
    let mut proof = [0; 16];
    proof.copy_from_slice(&hash.as_bytes()[..16]);
    LinkProof(proof)
}

impl LinkInfo {
    /// A link that this side dialled.
    pub fn dialled(peer: PeerId, addr: Addr) -> Self {
        Self {
            peer,
            dialled: true,
            host: HostKey::of(&addr),
            addr: Some(addr),
            cookies: None,
        }
    }

    /// A link that came from `remote`, whose peer says that it listens at
    /// `listen`. Another host's address is left out: nobody can aim this peer
    /// at a third party.
    pub fn accepted(peer: PeerId, remote: &Addr, listen: Option<Addr>) -> Self {
        let listen = listen.map(|addr| addr.filled_in_from(remote));
        Self {
            peer,
            dialled: false,
            host: HostKey::of(remote),
            addr: listen.filter(|addr| addr.same_host(remote)),
            cookies: None,
        }
    }

    /// The same, with what both sides said in their Hellos.
    #[must_use]
    pub fn with_cookies(mut self, said: LinkCookie, heard: LinkCookie) -> Self {
        self.cookies = Some(LinkCookies { said, heard });
        self
    }
}
