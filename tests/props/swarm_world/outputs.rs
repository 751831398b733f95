//! Handles the outputs of a swarm's machines, and checks that none is forbidden.

use std::collections::BTreeSet;

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, Output};
use bt_lite::protocol::limits::HANDSHAKE_TIMEOUT;
use bt_lite::protocol::{PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};
use bytes::Bytes;

use super::{Event, Kind, World};
use crate::sample::{Sample, lot};

impl World {
    pub(super) fn outputs(&mut self, node: usize) {
        // The check is slow for a long content, and few events affect it.
        if !self.is_long() || self.sequence.is_multiple_of(32) {
            self.nodes[node].swarm.check_invariants();
        }
        while let Some(output) = self.nodes[node].swarm.poll_output() {
            match output {
                Output::Send { link, message } => self.send(node, link, message),
                Output::Dial { addr } => {
                    let this = &self.nodes[node];
                    let caught = this.caught.iter().map(|liar| &this.known[liar].0);
                    let mut dialled = caught.filter(|liar| liar.dialled);
                    let banned = dialled.any(|liar| liar.addr.as_ref() == Some(&addr));
                    assert!(!banned, "node {node} dials a banned address");
                    let (after, life) = (self.soon(), self.nodes[node].life);
                    self.push(after, Event::Dial { node, life, addr });
                }
                Output::Drop { link, reason } => {
                    let Some(other) = self.nodes[node].links.remove(&link) else {
                        continue;
                    };
                    self.check_drop(node, link, other, reason);
                    self.nodes[node].owes.remove(&link);
                    self.in_order(node, other, link, Event::Down { node: other, link });
                }
                Output::FindOwners => {
                    let others = (0..self.nodes.len()).filter(|&at| at != node);
                    let others = others.filter(|&at| !self.nodes[at].dead);
                    let owners: Vec<_> = others
                        .map(|at| (self.nodes[at].addr.clone(), !self.nodes[at].leecher))
                        .collect();
                    self.later(node, move |swarm, now| swarm.owners_found(now, owners));
                }
                Output::Open(_) => {
                    let present = self.nodes[node].stored.clone();
                    self.later(node, move |swarm, now| {
                        swarm.opened(now, &present, &present)
                    });
                }
                Output::Verify { chunk, pieces, .. } => {
                    if self.sample.manifest.is_torrent() {
                        // The others are verified elsewhere.
                        let bytes = pieces.iter().map(|piece| &piece[..]);
                        let good = self.sample.manifest.verify(chunk, bytes);
                        assert_eq!(good, self.sample.is_good(chunk, &pieces));
                    }
                    let liars = self.judge(node, chunk, &pieces);
                    let (after, life) = (self.soon(), self.nodes[node].life);
                    let verified = Event::Verified {
                        node,
                        life,
                        chunk,
                        liars,
                    };
                    self.push(after, verified);
                }
                Output::Store { chunk, pieces } => {
                    assert!(
                        self.sample.is_good(chunk, &pieces),
                        "stores unverified bytes"
                    );
                    let caught = self.nodes[node].suspects.remove(&chunk);
                    let caught = caught.unwrap_or_default();
                    self.counts.convicted += caught.len() as u64;
                    self.nodes[node].caught.extend(caught);
                    let (after, life) = (self.soon(), self.nodes[node].life);
                    self.push(after, Event::Store { node, life, chunk });
                }
                Output::Read { link, block } => {
                    assert!(self.nodes[node].stored.contains(block.chunk));
                    let fails = self
                        .faults
                        .bad_reads
                        .is_some_and(|n| self.rng.u32(0..n) == 0);
                    let data = (!fails || self.calm).then(|| self.sample.block(block));
                    self.later(node, move |s, now| s.block_read(now, link, block, data));
                }
                Output::Commit { .. } => self.later(node, |swarm, now| swarm.committed(now)),
                Output::Finish => self.later(node, |swarm, now| swarm.finished(now)),
                Output::GaveUp(_) => self.fail(&format!("node {node} gave up")),
                _ => {}
            }
        }
        let this = &mut self.nodes[node];
        this.timer = this.swarm.poll_timeout();
        let linked = |liar: &LinkId| this.links.contains_key(liar);
        assert!(
            !this.caught.iter().any(linked),
            "node {node} keeps a link to a liar"
        );
    }

    /// Checks that a node may drop a link for this reason.
    fn check_drop(&mut self, node: usize, link: LinkId, other: usize, reason: DropReason) {
        let (this, kind) = (&self.nodes[node], self.nodes[other].kind);
        let (info, since) = &this.known[&link];
        match reason {
            DropReason::Refused(RefuseReason::Banned) => {
                self.counts.bans += 1;
                // Other links of the liar's host stay up until they lie themselves.
                let refused = this.fresh == Some(link) && this.is_banned(info, &this.lied_to_by);
                let lied = this.lied_to_by.contains(&link);
                assert!(lied || refused, "node {other} did not lie but is banned");
            }
            DropReason::Refused(RefuseReason::SelfConnection) => {
                assert_eq!(Some(this.peer), info.peer);
            }
            DropReason::Refused(RefuseReason::Duplicate) => {
                self.counts.merged += 1;
                let stays = this
                    .links
                    .iter()
                    .any(|(stays, to)| *to == other && lot(&this.known[stays].0) < lot(info));
                assert!(stays, "the only link of {node} to {other} is dropped");
            }
            DropReason::Refused(RefuseReason::Busy) => {
                panic!("a link is refused as Busy though there is room")
            }
            DropReason::Violation("no Bitfield in time") => {
                assert!(!this.said.contains(&link) && *since + HANDSHAKE_TIMEOUT <= self.now);
            }
            DropReason::Violation(what) => assert!(
                kind == Kind::Silent || kind == Kind::Rejecting,
                "{kind:?} is dropped for a violation: {what}"
            ),
            _ => {}
        }
    }

    /// The links that must be banned at once if the chunk is bad; `None` if it is
    /// good.
    fn judge(
        &mut self,
        node: usize,
        chunk: ChunkIndex,
        pieces: &[Bytes],
    ) -> Option<BTreeSet<LinkId>> {
        let sender = |piece: &Bytes| self.senders.get(&(piece.as_ptr() as usize)).map(|s| s.1);
        let senders: BTreeSet<LinkId> = pieces.iter().filter_map(sender).collect();
        let this = &mut self.nodes[node];
        if this.suspects.contains_key(&chunk) {
            self.counts.exclusive += 1;
            assert_eq!(senders.len(), 1, "a second copy has several senders");
        }
        if self.sample.is_good(chunk, pieces) {
            return None;
        }
        if senders.len() == 1 {
            return Some(senders);
        }
        self.counts.co_sent += 1;
        let good = self.sample.chunk(chunk);
        let mut start = 0;
        let mut liars = BTreeSet::new();
        for piece in pieces {
            let end = start + piece.len();
            liars.extend(sender(piece).filter(|_| good[start..end] != piece[..]));
            start = end;
        }
        this.suspects.insert(chunk, liars);
        Some(BTreeSet::new())
    }

    /// Nothing is asked of a BitTorrent client that it cannot answer.
    fn check_torrent_message(&self, node: usize, link: LinkId, message: &PeerMessage) {
        match message {
            PeerMessage::Request(block) => {
                let len_of = self.sample.manifest.geometry().len_of(block.chunk);
                let rest = len_of - u64::from(block.offset);
                assert!(block.offset.is_multiple_of(16 << 10));
                assert_eq!(u64::from(block.len), rest.min(16 << 10));
                assert!(self.nodes[node].said.contains(&link), "asks too early");
            }
            PeerMessage::ManifestRequest { .. }
            | PeerMessage::ManifestLength { .. }
            | PeerMessage::ManifestHashes { .. }
            | PeerMessage::SamePeer(_) => panic!("a client does not know {message:?}"),
            _ => {}
        }
    }

    fn send(&mut self, node: usize, link: LinkId, mut message: PeerMessage) {
        let bytes = match &message {
            PeerMessage::Block { data, .. } => data.len() as u64,
            _ => 0,
        };
        self.later(node, move |swarm, now| {
            swarm.messages_sent(now, link, 1, bytes)
        });
        if self.sample.manifest.is_torrent() {
            self.check_torrent_message(node, link, &message);
        }
        let stored = &self.nodes[node].stored;
        let answer = match &message {
            PeerMessage::Have(chunk) => {
                assert!(
                    stored.contains(*chunk),
                    "announces a chunk that is not stored"
                );
                None
            }
            PeerMessage::Bitfield(bytes) => {
                let chunks = stored.chunks();
                let offered = Bitfield::from_bytes(bytes, chunks).unwrap();
                assert_eq!(offered.first_not_in(stored), None);
                None
            }
            PeerMessage::HaveAll => {
                assert!(stored.is_complete());
                None
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                assert!(!is_lie(&self.sample, &message), "serves bad bytes");
                self.counts.shared += u64::from(self.nodes[node].leecher);
                Some(BlockRange {
                    chunk: *chunk,
                    offset: *offset,
                    len: data.len() as u32,
                })
            }
            PeerMessage::Cancel(_) => {
                self.counts.cancels += 1;
                None
            }
            PeerMessage::Reject(block) => Some(*block),
            _ => None,
        };
        if let Some(block) = answer {
            let owes = self.nodes[node].owes.entry(link).or_default();
            let at = owes.iter().position(|b| *b == block);
            owes.remove(at.expect("answers a request that was not made"));
        }
        if let PeerMessage::Block {
            chunk,
            offset,
            data,
        } = &mut message
        {
            let block = BlockRange {
                chunk: *chunk,
                offset: *offset,
                len: data.len() as u32,
            };
            match self.nodes[node].kind {
                Kind::Liar(always) if !data.is_empty() && (always || self.rng.bool()) => {
                    let mut bytes = data.to_vec();
                    let at = self.rng.usize(0..bytes.len());
                    bytes[at] ^= 1;
                    *data = bytes.into();
                }
                Kind::Silent => return,
                Kind::Rejecting => message = PeerMessage::Reject(block),
                _ => {}
            }
        }
        if let PeerMessage::ManifestHashes { hashes, .. } = &mut message
            && self.nodes[node].kind == Kind::Liar(false)
            && self.rng.bool()
        {
            let mut bytes = hashes.to_vec();
            bytes[0] ^= 1;
            *hashes = bytes.into();
        }
        if let Some(&other) = self.nodes[node].links.get(&link) {
            let event = Event::Message {
                node: other,
                link,
                message,
            };
            self.in_order(node, other, link, event);
        }
    }
}

pub(super) fn is_lie(sample: &Sample, message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Block {
            chunk,
            offset,
            data,
        } => {
            let start = *offset as usize;
            sample.chunk(*chunk)[start..start + data.len()] != data[..]
        }
        PeerMessage::ManifestHashes { .. } => sample.page(1).as_ref() != Some(message),
        _ => false,
    }
}
