//! Records and checks the messages on links.

use std::time::Duration;

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::LinkId;
use bt_lite::protocol::limits::{HASHES_PER_PAGE, MAX_BLOCK_LEN};
use bt_lite::protocol::{LinkProof, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, Geometry};

use super::{Observer, Run, Seen};
use crate::sample::{lot, proof};

/// The most proofs that a link may give, and that the machine gives, that two
/// links belong to one peer.
const MAX_PROOFS: usize = 4;

/// How many manifest pages are handed to a link at a time, and how many more
/// requests for pages may wait.
const MAX_PAGES: (usize, usize) = (2, 32);

/// How long a link that has sent the length waits to be asked for the rest.
const SPARE: Duration = Duration::from_secs(60);

impl Observer {
    /// Records a message from a link, and whether it breaks the protocol.
    pub(crate) fn hears(&mut self, link: LinkId, message: &PeerMessage) {
        let chunks = self.chunks();
        let geometry = self.sample.manifest.geometry();
        // Before the length is known, few violations can be noticed.
        let known = self.opening || self.opened;
        let harmless = |reason| {
            use RefuseReason::{Busy, Duplicate, NotNeeded};
            matches!(reason, Busy | Duplicate | NotNeeded)
        };
        if let PeerMessage::Refuse(reason) = message
            && !harmless(*reason)
        {
            self.left(link);
        }
        let others_sent = self.links.iter().any(|(other, seen)| {
            let sent = |run: &Run| !run.came.is_empty();
            *other != link && seen.run.as_ref().is_some_and(sent)
        });
        (self.came_before, self.promoted_before) = (self.came, self.promoted);
        let Some(seen) = self.links.get_mut(&link) else {
            return;
        };
        if let PeerMessage::Bitfield(_) | PeerMessage::HaveAll | PeerMessage::HaveNone = message {
            seen.must_go |= std::mem::replace(&mut seen.said, true);
        }
        let had_nothing = seen.has.is_empty() && seen.taken == 0;
        let rude = std::mem::take(&mut seen.rude);
        let says = matches!(message, PeerMessage::Bitfield(_) | PeerMessage::Have(_));
        seen.anything |= says;
        match message {
            PeerMessage::Hello(_) => seen.must_go = true,
            PeerMessage::SamePeer(_) => {
                seen.proofs += 1;
                seen.must_go |= seen.proofs > MAX_PROOFS;
            }
            PeerMessage::Interested => seen.wants_nothing = false,
            PeerMessage::NotInterested => seen.wants_nothing = true,
            PeerMessage::ManifestRequest { page } => {
                seen.must_go |= seen.pages_asked.len() >= MAX_PAGES.1;
                seen.pages_asked.push_back(*page);
            }
            PeerMessage::ManifestReject { page } => {
                // By the length that it claims, there is no such page.
                let past_the_end = |run: &Run| run.came.contains(&0) && *page > run.pages;
                if !seen.run.as_ref().is_some_and(past_the_end) {
                    (seen.run, seen.without) = (None, true);
                }
            }
            PeerMessage::Refuse(_) => seen.refused = true,
            PeerMessage::HaveAll => {
                seen.anything = true;
                seen.has.extend(0..chunks);
            }
            PeerMessage::Bitfield(bytes) => match Bitfield::from_bytes(bytes, chunks) {
                Ok(bits) => seen.has.extend(bits.iter().map(|chunk| chunk.0)),
                Err(_) => seen.rude = true,
            },
            PeerMessage::Have(chunk) => {
                seen.without = false;
                seen.said = true;
                seen.rude = chunk.0 >= chunks;
                if !seen.rude && seen.has.insert(chunk.0) {
                    if seen.untold > 0 {
                        self.suspected.remove(&seen.info.host);
                        for blanks in &mut self.blanks {
                            blanks.remove(&seen.info.host);
                        }
                    }
                    let paid = seen.untold.min(geometry.chunk_len());
                    seen.untold -= paid;
                    seen.told_of |= paid > 0;
                    (seen.mute, seen.debt) = (None, None);
                    let debt = self.debts.entry(seen.info.host.clone()).or_default();
                    *debt = debt.saturating_sub(geometry.chunk_len() - paid);
                }
            }
            PeerMessage::Choke => {
                seen.choked = true;
                seen.choked_since.get_or_insert(self.now);
            }
            PeerMessage::Unchoke => (seen.choked, seen.choked_since) = (false, None),
            PeerMessage::Request(block) => {
                seen.rude = block.len > MAX_BLOCK_LEN;
                seen.wants_nothing &= !self.stored.contains(&block.chunk);
                seen.theirs.push(*block);
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let block = BlockRange {
                    chunk: *chunk,
                    offset: *offset,
                    len: data.len() as u32,
                };
                let mut asked = seen.asked.iter().filter(|(asked, _)| *asked == block);
                if let Some((_, cancelled)) = asked.next().filter(|_| !self.seeding) {
                    if !cancelled {
                        self.last_gain = self.now;
                    }
                    seen.solid = true;
                    if seen.received == 0 {
                        self.suspected.remove(&seen.info.host);
                        for blanks in &mut self.blanks {
                            blanks.remove(&seen.info.host);
                        }
                    }
                    seen.suspect = false;
                    seen.received += u64::from(block.len);
                    seen.gave.insert(*chunk);
                    if let Some(addr) = &seen.info.addr {
                        self.proved.insert(addr.clone());
                        self.untried.remove(addr);
                    }
                }
                seen.answered(block, self.seeding);
                self.sent
                    .insert(data.as_ptr() as usize, (data.clone(), link));
                self.gave_up = false;
            }
            PeerMessage::Reject(block) => {
                seen.rejected = true;
                // A link that answers is not silent.
                seen.suspect &= !seen.asked.iter().any(|(asked, _)| asked == block);
                seen.answered(*block, self.seeding);
            }
            PeerMessage::ManifestLength { length, .. } => {
                self.gave_up = false;
                if let Some(run) = seen.run.as_mut().filter(|run| run.came.is_empty()) {
                    run.came.insert(0);
                    let claimed = Geometry::of(*length).map(|geometry| geometry.chunks());
                    run.pages = claimed.unwrap_or(0).div_ceil(HASHES_PER_PAGE);
                    // If another link sends already, this one is a spare.
                    run.spare = others_sent;
                    let wait = if others_sent { SPARE } else { run.patience };
                    run.deadline = self.now + wait;
                    self.came = Some(self.now);
                    if !others_sent {
                        self.promoted = self.came;
                    }
                }
            }
            PeerMessage::ManifestHashes { page, hashes } => {
                self.gave_up = false;
                let is_long_enough = hashes.len() == 32 * chunks as usize;
                let asked = |run: &&mut Run| *page > 0 && run.asked.contains(page);
                if let Some(run) = seen.run.as_mut().filter(asked)
                    && run.came.contains(&0)
                    && run.came.insert(*page)
                {
                    run.deadline = self.now + run.patience;
                    self.came = Some(self.now);
                    if is_long_enough {
                        self.came_before = self.came;
                    }
                }
            }
            _ => {}
        }
        if let PeerMessage::Bitfield(_) | PeerMessage::HaveAll = message
            && had_nothing
            && !seen.has.is_empty()
        {
            // An earlier link of the same host may have received these chunks.
            seen.debt = None;
            let debt = self.debts.entry(seen.info.host.clone()).or_default();
            let has = geometry.chunk_len() * seen.has.len() as u64;
            *debt = debt.saturating_sub(has);
        }
        seen.must_go |= seen.rude && known;
        seen.rude |= rude || seen.must_go;
        if let PeerMessage::SamePeer(proof) = message
            && !seen.must_go
        {
            self.merge(link, *proof);
        }
    }

    /// Finds the link that a proof is about, and decides which of the two must
    /// go.
    pub(super) fn merge(&mut self, link: LinkId, claimed: LinkProof) {
        let Some(newer) = self.links[&link].info.cookies else {
            return;
        };
        let is_other = |(other, seen): (&LinkId, &Seen)| {
            let older = seen.info.cookies.filter(|_| *other != link)?;
            let right = proof([older.heard, older.said], [newer.heard, newer.said]);
            (right == claimed).then_some(*other)
        };
        let Some(other) = self.links.iter().find_map(is_other) else {
            return;
        };
        let smaller = lot(&self.links[&link].info) < lot(&self.links[&other].info);
        let (stays, goes) = if smaller {
            (link, other)
        } else {
            (other, link)
        };
        self.duplicate = Some(goes);
        let goes = &self.links[&goes];
        let (solid, addr) = (goes.solid, goes.info.addr.clone());
        let stays = self.links.get_mut(&stays).expect("it is there");
        if solid && !stays.solid && addr.is_some() {
            stays.solid = true;
            stays.info.addr = addr;
        }
    }

    pub(super) fn said(&mut self, link: LinkId, message: &PeerMessage) {
        let chunks = self.chunks();
        let all = self.stored.len() == chunks as usize;
        if let PeerMessage::HaveAll | PeerMessage::HaveNone | PeerMessage::Bitfield(_) = message {
            self.greeted(link);
        }
        if let PeerMessage::ManifestRequest { page } = message {
            self.run(link, *page);
        }
        let seen = self
            .links
            .get_mut(&link)
            .expect("sends on a link that is not up");
        let hashes = matches!(message, PeerMessage::ManifestHashes { .. });
        seen.queued.push_back(hashes);
        match message {
            PeerMessage::SamePeer(proof) => {
                let at = seen.to_prove.iter().position(|owed| owed == proof);
                seen.to_prove
                    .remove(at.expect("gives a proof that is not owed"));
            }
            PeerMessage::Request(block) => {
                assert!(
                    self.opened && !self.seeding,
                    "requests a block while it does not download"
                );
                assert!(self.sample.manifest.geometry().contains_block(*block));
                assert!(
                    !self.stored.contains(&block.chunk),
                    "requests a chunk that is stored"
                );
                assert!(
                    !self.held.contains_key(&block.chunk),
                    "requests a chunk that awaits its recheck"
                );
                assert!(
                    seen.has.contains(&block.chunk.0) || seen.perhaps_presumed && !seen.said,
                    "requests a chunk that the link lacks"
                );
                assert!(!seen.choked, "sends a request to a link that chokes");
                assert_eq!(self.paused, None, "a paused download requests a block");
                assert!(
                    !seen.asked.contains(&(*block, false)),
                    "requests a block twice"
                );
                seen.asked.push((*block, false));
                seen.first_asked.get_or_insert(self.now);
                seen.declined = false;
                assert!(seen.asked.len() <= self.max_requests);
            }
            PeerMessage::Cancel(block) => {
                // If a block was requested again, the first request is cancelled
                // already.
                let asked = seen.asked.iter_mut().find(|(b, c)| b == block && !c);
                asked.expect("cancels a block that it did not request").1 = true;
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let (chunk, offset, len) = (*chunk, *offset, data.len() as u32);
                let block = BlockRange { chunk, offset, len };
                assert!(
                    self.stored.contains(&chunk),
                    "serves a chunk that is not stored"
                );
                assert_eq!(*data, self.sample.block(block));
                answered(&mut seen.theirs, block);
            }
            PeerMessage::Reject(block) => answered(&mut seen.theirs, *block),
            PeerMessage::HaveAll => {
                assert!(all && self.seeding);
                assert!(!std::mem::replace(&mut seen.greeted, true));
                seen.told.extend(self.stored.iter().copied());
            }
            PeerMessage::HaveNone => {
                assert!(!std::mem::replace(&mut seen.greeted, true));
            }
            PeerMessage::Bitfield(bytes) => {
                assert!(!std::mem::replace(&mut seen.greeted, true));
                let bits = Bitfield::from_bytes(bytes, chunks).unwrap();
                seen.told.extend(bits.iter());
            }
            PeerMessage::Have(chunk) => {
                assert!(
                    seen.greeted && seen.told.insert(*chunk),
                    "announces a chunk twice"
                );
                let seeder = seen.has.len() == chunks as usize;
                let gave = seen.gave.contains(chunk) || self.first == Some(*chunk);
                assert!(
                    !seeder || gave,
                    "announces a chunk to a seeder without a reason"
                );
            }
            PeerMessage::Suggest(chunk) => assert!(self.stored.contains(chunk)),
            PeerMessage::ManifestRequest { page } => {
                assert!(!self.opened && !self.opening);
                assert_eq!(self.paused, None, "a paused download requests a page");
                seen.pages.push(*page);
            }
            PeerMessage::ManifestLength { .. } => {
                let known = self.opening || self.opened;
                assert!(known, "sends a manifest that is not checked yet");
                assert_eq!(seen.pages_asked.pop_front(), Some(0));
            }
            PeerMessage::ManifestHashes { page, .. } => {
                let known = self.opening || self.opened;
                assert!(known, "sends a manifest that is not checked yet");
                assert_eq!(seen.pages_asked.pop_front(), Some(*page));
                let under_way = seen.queued.iter().filter(|hashes| **hashes).count();
                assert!(under_way <= MAX_PAGES.0, "sends too many pages at a time");
            }
            PeerMessage::ManifestReject { page } => {
                assert_eq!(seen.pages_asked.pop_front(), Some(*page));
            }
            PeerMessage::Choke => {
                assert!(
                    !std::mem::replace(&mut seen.choked_by_us, true),
                    "chokes a link twice"
                );
            }
            PeerMessage::Unchoke => {
                assert!(
                    std::mem::take(&mut seen.choked_by_us),
                    "unchokes a link twice"
                );
            }
            PeerMessage::NotInterested => {
                assert!(
                    seen.asked.is_empty(),
                    "is not interested but has open requests"
                );
                assert!(
                    !std::mem::replace(&mut seen.declined, true),
                    "says NotInterested twice"
                );
            }
            PeerMessage::Interested => {
                assert!(
                    std::mem::take(&mut seen.declined),
                    "says Interested though it already is"
                );
            }
            other => panic!("unexpected message: {other:?}"),
        }
        assert!(
            seen.told.is_subset(&self.stored),
            "announces a chunk that is not stored"
        );
    }

    /// The proofs that a new link must get: that others belong to the same peer.
    pub(super) fn greeted(&mut self, link: LinkId) {
        let info = &self.links[&link].info;
        let Some(newer) = info.cookies else {
            return;
        };
        let others = self.links.iter().filter(|(other, _)| **other != link);
        let others = others.filter(|(_, seen)| seen.info.peer == info.peer);
        let older = others.filter_map(|(_, seen)| seen.info.cookies);
        let proofs = older.take(MAX_PROOFS);
        let proofs =
            proofs.map(|older| proof([older.said, older.heard], [newer.said, newer.heard]));
        let proofs = proofs.collect();
        self.links.get_mut(&link).expect("it is up").to_prove = proofs;
    }
}

fn answered(theirs: &mut Vec<BlockRange>, block: BlockRange) {
    let at = theirs.iter().position(|asked| *asked == block);
    theirs.remove(at.expect("answers a request that was not made"));
}
