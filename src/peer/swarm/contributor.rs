//! Who sent a block.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::assembler::Assembled;
use super::{LinkId, RemotePeer};
use crate::protocol::{Addr, HostKey, PeerId};

/// Who sent a block. It is remembered after its link has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contributor {
    pub(super) link: LinkId,
    /// Known as soon as anything has come from there.
    pub(super) peer: Option<PeerId>,
    pub(super) addr: Option<Addr>,
    /// Whether this side dialled. Only then is the address proven.
    pub(super) dialled: bool,
    pub(super) host: HostKey,
}

impl Contributor {
    /// Who it is, once it has said that.
    pub(super) fn remote_peer(&self) -> Option<RemotePeer> {
        let addr = self.addr.clone();
        self.peer.map(|peer| RemotePeer { peer, addr })
    }
}

/// How many bytes of a chunk each address sent.
pub(super) fn credits(assembled: &Assembled<Arc<Contributor>>) -> BTreeMap<Addr, u64> {
    let mut credits: BTreeMap<Addr, u64> = BTreeMap::new();
    for (sender, piece) in assembled.senders.iter().zip(&assembled.pieces) {
        if let Some(addr) = &sender.addr {
            *credits.entry(addr.clone()).or_default() += piece.len() as u64;
        }
    }
    credits
}
