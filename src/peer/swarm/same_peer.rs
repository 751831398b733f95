//! Two links with the same peer: how it is proven, and which one stays.
//!
//! A name proves nothing, so links of one name stay side by side until one side shows
//! that it knows the secrets of both. The proof is bound to the two links.

use super::link::Link;
use super::{LinkId, LinkMap};
use crate::protocol::LinkProof;

/// To how many links of one name a new link proves itself, and how many proofs it may
/// send. Two links come from two peers that dialled each other.
pub(super) const MAX_PROOFS: usize = 4;

/// What follows from a proof.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SamePeer {
    /// A link sends more proofs than one that keeps to the protocol.
    TooMany,
    /// The link that is meant has ended, here or at the other side.
    Unknown,
    /// This one of the two links ends.
    Drop(LinkId),
}

/// The proofs that a new link sends, if other links have the same name.
pub(super) fn proofs(links: &LinkMap<Link>, id: LinkId) -> Vec<LinkProof> {
    let known = links.get(id).map(|l| (l.info.peer, l.info.cookies));
    let Some((Some(peer), Some(cookies))) = known else {
        return Vec::new();
    };
    let others = links.iter();
    let others = others.filter(|(other, link)| *other != id && link.info.peer == Some(peer));
    let others = others.filter_map(|(_, link)| link.info.cookies);
    let proofs = others.take(MAX_PROOFS).map(|older| cookies.proof(&older));
    proofs.collect()
}

/// The other side of a link sent a proof. The link with the smaller lot stays, which both
/// ends choose alike. It gets the address that was dialled, if one of the two was.
pub(super) fn received(links: &mut LinkMap<Link>, id: LinkId, proof: LinkProof) -> SamePeer {
    let Some(link) = links.get_mut(id) else {
        return SamePeer::Unknown;
    };
    link.proofs += 1;
    if link.proofs > MAX_PROOFS {
        return SamePeer::TooMany;
    }
    let Some(cookies) = link.info.cookies else {
        return SamePeer::Unknown;
    };
    let older = links.iter().find_map(|(other, link)| {
        let older = link.info.cookies.filter(|_| other != id)?;
        (cookies.expected(&older) == proof).then_some((other, older))
    });
    let Some((other, older)) = older else {
        return SamePeer::Unknown;
    };
    let (stays, goes) = if cookies.lot() < older.lot() {
        (id, other)
    } else {
        (other, id)
    };
    if let Some(proven) = links.get(goes).filter(|link| link.is_proven)
        && let Some(addr) = proven.info.addr.clone()
        && let Some(link) = links.get_mut(stays)
        && !link.is_proven
    {
        link.is_proven = true;
        link.info.addr = Some(addr);
    }
    SamePeer::Drop(goes)
}
