//! What goes into the machine beside messages, and what comes out of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::ManifestClaim;
use crate::content::{Bitfield, BlockRange, ChunkIndex, Manifest};
use crate::protocol::{
    Addr, HostKey, LinkCookie, LinkProof, OwnState, PeerId, PeerMessage, RefuseReason,
};

/// A link, as the driver numbers it: never twice in the life of a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

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

/// Something that the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a message; report it with [`messages_sent`](super::Swarm::messages_sent).
    Send {
        /// Where to.
        link: LinkId,
        /// What.
        message: PeerMessage,
    },
    /// Connect, shake hands, and report [`link_up`](super::Swarm::link_up) or
    /// [`dial_failed`](super::Swarm::dial_failed).
    Dial {
        /// Where to.
        addr: Addr,
    },
    /// Close a link, which the machine has forgotten already.
    Drop {
        /// Which.
        link: LinkId,
        /// Why.
        reason: DropReason,
    },
    /// Ask the trackers; report [`owners_found`](super::Swarm::owners_found).
    FindOwners,
    /// Check a long manifest, which takes as long as hashing some megabytes
    /// ([`ManifestClaim::check`]); report
    /// [`manifest_checked`](super::Swarm::manifest_checked).
    CheckManifest {
        /// Who sent it.
        link: LinkId,
        /// What it sent.
        claim: ManifestClaim,
    },
    /// Open the storage; report [`opened`](super::Swarm::opened).
    Open(Arc<Manifest>),
    /// Hash; report [`chunk_verified`](super::Swarm::chunk_verified).
    Verify {
        /// Which chunk.
        chunk: ChunkIndex,
        /// Its bytes, in order.
        pieces: Vec<Bytes>,
    },
    /// Write; report [`chunk_stored`](super::Swarm::chunk_stored).
    Store {
        /// Which chunk.
        chunk: ChunkIndex,
        /// Its bytes, in order.
        pieces: Vec<Bytes>,
    },
    /// Read a chunk that an earlier download left behind, and hash it; report
    /// [`chunk_rechecked`](super::Swarm::chunk_rechecked). It may take its time.
    Recheck {
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// Read; report [`block_read`](super::Swarm::block_read).
    Read {
        /// For whom.
        link: LinkId,
        /// What.
        block: BlockRange,
    },
    /// Make durable; report [`committed`](super::Swarm::committed).
    Commit {
        /// All chunks that are stored, and those of an earlier download that
        /// are still to be looked at.
        verified: Bitfield,
    },
    /// Publish; report [`finished`](super::Swarm::finished).
    Finish,
    /// Tell the trackers how much of the content is here now.
    Announce(OwnState),
    /// Tell the trackers who sent so many verified bytes.
    Credit {
        /// Who.
        owner: Addr,
        /// How many.
        bytes: u64,
    },
    /// Nothing has come for longer than the configured patience.
    GaveUp,
}

/// Why the machine dropped a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// This side wants it no longer; the other side is told.
    Refused(RefuseReason),
    /// The other side said that it ends the link.
    Left(RefuseReason),
    /// The other side broke the protocol.
    Violation(&'static str),
    /// The other side owed blocks for too long.
    Silent,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Left(reason) => write!(f, "left: {reason}"),
            Self::Violation(what) => write!(f, "broke the protocol: {what}"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

/// How far a content is.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The content's length in bytes, once it is known.
    pub length: Option<u64>,
    /// Its number of chunks, once it is known.
    pub chunks: Option<u32>,
    /// Bytes that are verified and stored.
    pub verified_bytes: u64,
    /// Chunks that are verified and stored.
    pub verified_chunks: u32,
    /// Bytes of blocks that came, whatever became of them.
    pub downloaded: u64,
    /// Bytes of blocks that were sent.
    pub uploaded: u64,
    /// Bytes that came twice, too late or bad.
    pub wasted: u64,
    /// Bytes per second that come at present.
    pub rate: f64,
    /// Owners that are sending at present.
    pub owners: u32,
    /// Peers that sent something of what is stored.
    pub senders: u32,
    /// Links that are up.
    pub links: u32,
}
