//! Who is at the other end of a link, and the secrets that the two ends share.

use crate::protocol::{Addr, HostKey, LinkCookie, LinkProof, PeerId};

/// Who is at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The id that it says it has. It proves nothing. `None` if it has not said so yet;
    /// see [`unmet`](Self::unmet).
    pub peer: Option<PeerId>,
    /// The address at which it listens, if it does. If this side dialled, that is proven.
    /// Otherwise the other side says so, and the address is on its own host.
    pub addr: Option<Addr>,
    /// Whether this side dialled.
    pub dialled: bool,
    /// The host that the connection is with.
    pub host: HostKey,
    /// The secrets of this link. `None` if the two ends cannot prove anything by them.
    pub cookies: Option<LinkCookies>,
    /// What the other side may be expected to do.
    pub kind: LinkKind,
}

/// What the other side of a link may be expected to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkKind {
    /// It speaks the protocol of this crate: it passes on what it gets, whatever it gets
    /// back.
    #[default]
    Own,
    /// It is a client of another maker: it gives to those that give, and may not give at
    /// all. It begins without a slot, and says itself when it wants something.
    Stranger,
}

/// The secrets of one link: a random number from each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCookies {
    /// The one that this side sent in its Hello.
    pub said: LinkCookie,
    /// The one that the other side sent.
    pub heard: LinkCookie,
}

impl LinkCookies {
    /// What this side sends on this link to prove that it is at the same end of an older
    /// link.
    pub fn proof(&self, older: &Self) -> LinkProof {
        prove([older.said, older.heard], [self.said, self.heard])
    }

    /// What the other side sends to prove the same.
    pub fn expected(&self, older: &Self) -> LinkProof {
        prove([older.heard, older.said], [self.heard, self.said])
    }

    /// Decides between two links of one peer. It is the same at both ends.
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
            peer: Some(peer),
            ..Self::unmet(addr)
        }
    }

    /// A link that this side dialled, and whose other side has not said yet who it is.
    /// This side may send before it has.
    pub fn unmet(addr: Addr) -> Self {
        Self {
            peer: None,
            dialled: true,
            host: HostKey::of(&addr),
            addr: Some(addr),
            cookies: None,
            kind: LinkKind::Own,
        }
    }

    /// A link that came from `remote`, whose peer says that it listens at `listen`. An
    /// address of another host is left out, so that nobody can aim this peer at a third
    /// party. So is one that the family of `remote` does not reach.
    pub fn accepted(peer: PeerId, remote: &Addr, listen: Option<Addr>) -> Self {
        let listen = listen.filter(|addr| addr.serves_family_of(remote));
        let listen = listen.map(|addr| addr.filled_in_from(remote).scoped_as(remote));
        Self {
            peer: Some(peer),
            dialled: false,
            host: HostKey::of(remote),
            addr: listen.filter(|addr| addr.same_host(remote)),
            cookies: None,
            kind: LinkKind::Own,
        }
    }

    /// The same, with a client of another maker at the other end.
    #[must_use]
    pub fn of_stranger(mut self) -> Self {
        self.kind = LinkKind::Stranger;
        self
    }

    /// The same, with the secrets that both sides sent in their Hellos.
    #[must_use]
    pub fn with_cookies(mut self, said: LinkCookie, heard: LinkCookie) -> Self {
        self.cookies = Some(LinkCookies { said, heard });
        self
    }
}
