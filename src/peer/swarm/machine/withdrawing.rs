//! Chunks that were announced and are here no longer: those who know the message for that
//! are told, and nobody else was told of them in the first place.

use std::ops::Range;

use super::announced;
use super::parts::Parts;
use crate::content::ChunkIndex;
use crate::peer::swarm::LinkId;
use crate::protocol::PeerMessage;

/// A content passes through here, and these chunks are here no longer.
pub(super) fn passed(parts: &mut Parts, chunks: Range<u32>) {
    if chunks.is_empty() {
        return;
    }
    for chunk in chunks.map(ChunkIndex) {
        let Some(told_from) = parts.outbox.withdraw(chunk) else {
            continue;
        };
        let told = parts
            .links
            .iter()
            .filter(|(_, link)| link.told >= told_from);
        let told: Vec<LinkId> = told.map(|(id, _)| id).collect();
        for id in told {
            parts.send(id, PeerMessage::DontHave(chunk));
        }
    }
    let links: Vec<LinkId> = parts.links.keys().collect();
    for id in links {
        announced::count_lacks(parts, id);
    }
}
