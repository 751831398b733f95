//! A naive record of all that went into one machine and came out of it, which
//! knows what may come out.

use std::collections::{BTreeMap, BTreeSet};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo, Output};
use bt_lite::protocol::limits::MAX_REQUESTS;
use bt_lite::protocol::{Addr, OwnState, PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};
use bytes::Bytes;

use crate::sample::Sample;

/// A link that is up.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) info: LinkInfo,
    /// Requests of the machine without an answer, and whether it cancelled.
    pub(crate) asked: Vec<(BlockRange, bool)>,
    /// Parts of the manifest that the machine asked for.
    pub(crate) parts: Vec<u32>,
    /// Requests of the other side without an answer.
    pub(crate) theirs: Vec<BlockRange>,
    reading: Vec<BlockRange>,
    /// What the other side said to have.
    pub(crate) has: BTreeSet<u32>,
    pub(crate) choked: bool,
    /// It broke the protocol, and the machine can tell.
    pub(crate) rude: bool,
    must_go: bool,
    /// It said what it has.
    said: bool,
    refused: bool,
    greeted: bool,
    /// The machine gave it no slot, and told it to want nothing.
    choked_by_us: bool,
    declined: bool,
    /// What it was told to be here.
    told: BTreeSet<ChunkIndex>,
}

impl Seen {
    /// A request was answered, with a block or not. Of a download that has
    /// ended, it is only counted how many answers are owed.
    fn answered(&mut self, block: BlockRange, ended: bool) {
        let at = self.asked.iter().position(|(asked, _)| *asked == block);
        let any = (ended && !self.asked.is_empty()).then_some(0);
        match at.or(any) {
            Some(at) => {
                self.asked.remove(at);
            }
            None => self.must_go = true,
        }
    }
}

/// Who sent some bytes, and whether its address is proven.
type Sent = (Bytes, PeerId, Option<Addr>, bool);

pub(crate) struct Observer {
    pub(crate) sample: Sample,
    pub(crate) links: BTreeMap<LinkId, Seen>,
    pub(crate) stored: BTreeSet<ChunkIndex>,
    /// Chunks of before that nobody has looked at, and whether it was asked.
    held: BTreeMap<ChunkIndex, bool>,
    pub(crate) seeding: bool,
    me: PeerId,
    max_links: usize,
    max_requests: usize,
    /// Blocks that were sent to the machine, by the address of their bytes,
    /// which are kept so that no others get it.
    sent: BTreeMap<usize, Sent>,
    lied: BTreeSet<PeerId>,
    /// Peers that must have been found out.
    pub(crate) caught: BTreeSet<PeerId>,
    banned_addrs: BTreeSet<Addr>,
    named: BTreeSet<Addr>,
    dialling: BTreeSet<Addr>,
    verifying: BTreeMap<ChunkIndex, Vec<Bytes>>,
    storing: BTreeMap<ChunkIndex, Vec<Bytes>>,
    suspects: BTreeMap<ChunkIndex, Vec<Bytes>>,
    credits: BTreeMap<Addr, u64>,
    committing: bool,
    finishing: bool,
    finding: bool,
    opening: bool,
    opened: bool,
    partial: bool,
    complete: bool,
    gave_up: bool,
}

impl Observer {
    pub(crate) fn new(sample: &Sample, me: PeerId, seeding: bool, bounds: (usize, usize)) -> Self {
        let indices = sample.manifest.geometry().indices();
        Self {
            sample: sample.clone(),
            links: BTreeMap::new(),
            stored: indices.filter(|_| seeding).collect(),
            held: BTreeMap::new(),
            seeding,
            me,
            max_links: bounds.0,
            max_requests: bounds.1.min(MAX_REQUESTS),
            sent: BTreeMap::new(),
            lied: BTreeSet::new(),
            caught: BTreeSet::new(),
            banned_addrs: BTreeSet::new(),
            named: BTreeSet::new(),
            dialling: BTreeSet::new(),
            verifying: BTreeMap::new(),
            storing: BTreeMap::new(),
            suspects: BTreeMap::new(),
            credits: BTreeMap::new(),
            committing: false,
            finishing: false,
            finding: false,
            opening: false,
            opened: seeding,
            partial: false,
            complete: false,
            gave_up: false,
        }
    }

    fn chunks(&self) -> u32 {
        self.sample.manifest.geometry().chunks()
    }

    // What goes in, told before the machine is.

    pub(crate) fn up(&mut self, link: LinkId, info: LinkInfo) {
        if let Some(addr) = &info.addr {
            // Whoever dialled: a dial that is still under way will be one too many.
            self.dialling.remove(addr);
            if !self.seeding {
                self.named.insert(addr.clone());
            }
        }
        let seen = Seen {
            info,
            asked: Vec::new(),
            parts: Vec::new(),
            theirs: Vec::new(),
            reading: Vec::new(),
            has: BTreeSet::new(),
            choked: false,
            rude: false,
            must_go: false,
            said: false,
            refused: false,
            greeted: false,
            choked_by_us: false,
            declined: false,
            told: BTreeSet::new(),
        };
        self.links.insert(link, seen);
    }

    pub(crate) fn down(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    pub(crate) fn named(&mut self, addrs: impl Iterator<Item = Addr>) {
        self.finding = false;
        self.named.extend(addrs);
    }

    pub(crate) fn dial_failed(&mut self, addr: &Addr) {
        self.dialling.remove(addr);
    }

    pub(crate) fn opened(&mut self, present: &Bitfield, verified: &Bitfield) {
        if std::mem::take(&mut self.opening) {
            self.opened = true;
            self.stored = verified.iter().collect();
            let held = present.iter().filter(|chunk| !verified.contains(*chunk));
            self.held = held.map(|chunk| (chunk, false)).collect();
            self.gave_up = false;
        }
    }

    pub(crate) fn rechecked(&mut self, chunk: ChunkIndex, good: bool) {
        self.held.remove(&chunk);
        self.stored.extend(good.then_some(chunk));
    }

    pub(crate) fn committed(&mut self) {
        self.committing = false;
    }

    pub(crate) fn finished(&mut self) {
        self.seeding |= std::mem::take(&mut self.finishing);
    }

    /// The verdict on a chunk, and what follows from it.
    pub(crate) fn verified(&mut self, chunk: ChunkIndex) -> bool {
        let pieces = self.verifying.remove(&chunk).expect("it was to be hashed");
        let good = self.sample.is_good(chunk, &pieces);
        if good {
            let suspects = self.suspects.remove(&chunk).unwrap_or_default();
            for (suspect, piece) in suspects.iter().zip(&pieces) {
                if suspect != piece {
                    self.catch(suspect);
                }
            }
            self.storing.insert(chunk, pieces);
        } else {
            self.gave_up = false;
            if self.senders(&pieces).len() == 1 {
                self.catch(&pieces[0]);
                pieces.iter().for_each(|piece| self.catch(piece));
            } else {
                self.suspects.insert(chunk, pieces);
            }
        }
        good
    }

    pub(crate) fn senders(&self, pieces: &[Bytes]) -> BTreeSet<PeerId> {
        let sender = |piece: &Bytes| self.sent.get(&(piece.as_ptr() as usize));
        pieces
            .iter()
            .filter_map(sender)
            .map(|sent| sent.1)
            .collect()
    }

    fn catch(&mut self, piece: &Bytes) {
        let sent = self.sent.get(&(piece.as_ptr() as usize));
        let (_, peer, addr, dialled) = sent.expect("somebody sent it");
        assert!(self.lied.contains(peer), "only liars are caught");
        self.caught.insert(*peer);
        self.banned_addrs
            .extend(addr.iter().filter(|_| *dialled).cloned());
    }

    pub(crate) fn stored(&mut self, chunk: ChunkIndex) {
        let pieces = self.storing.remove(&chunk).expect("it was to be written");
        self.gave_up = false;
        self.stored.insert(chunk);
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let sent = self.sent.get(&(piece.as_ptr() as usize));
            if let Some((_, _, Some(addr), _)) = sent {
                *self.credits.entry(addr.clone()).or_default() += piece.len() as u64;
            }
        }
    }

    /// A block was read, or could not be.
    pub(crate) fn read(&mut self, link: LinkId, block: BlockRange) {
        if let Some(seen) = self.links.get_mut(&link) {
            let at = seen.reading.iter().position(|b| *b == block);
            seen.reading.remove(at.expect("it was to be read"));
        }
    }

    pub(crate) fn lies(&mut self, link: LinkId) {
        self.lied.extend(self.links.get(&link).map(|s| s.info.peer));
    }

    /// Something comes from a link. Says what of it breaks the protocol.
    pub(crate) fn hears(&mut self, link: LinkId, message: &PeerMessage) {
        let chunks = self.chunks();
        let geometry = self.sample.manifest.geometry();
        // Before the length is known, little can be held against it.
        let known = self.opening || self.opened;
        let Some(seen) = self.links.get_mut(&link) else {
            return;
        };
        if let PeerMessage::Bitfield(_) | PeerMessage::HaveAll | PeerMessage::HaveNone = message {
            seen.must_go |= std::mem::replace(&mut seen.said, true);
        }
        let rude = std::mem::take(&mut seen.rude);
        match message {
            PeerMessage::Hello(_) => seen.must_go = true,
            PeerMessage::Refuse(_) => seen.refused = true,
            PeerMessage::HaveAll => seen.has.extend(0..chunks),
            PeerMessage::Bitfield(bytes) => match Bitfield::from_bytes(bytes, chunks) {
                Ok(bits) => seen.has.extend(bits.iter().map(|chunk| chunk.0)),
                Err(_) => seen.rude = true,
            },
            PeerMessage::Have(chunk) => {
                seen.said = true;
                seen.rude = chunk.0 >= chunks;
                seen.has.extend((!seen.rude).then_some(chunk.0));
            }
            PeerMessage::Choke => seen.choked = true,
            PeerMessage::Unchoke => seen.choked = false,
            PeerMessage::Request(block) => {
                seen.rude = !geometry.contains_block(*block);
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
                seen.answered(block, self.seeding);
                let info = &seen.info;
                let sent = (data.clone(), info.peer, info.addr.clone(), info.dialled);
                self.sent.insert(data.as_ptr() as usize, sent);
                self.gave_up = false;
            }
            PeerMessage::Reject(block) => {
                seen.answered(*block, self.seeding);
            }
            PeerMessage::ManifestLength { .. } | PeerMessage::ManifestHashes { .. } => {
                self.gave_up = false;
            }
            _ => {}
        }
        seen.must_go |= seen.rude && known;
        seen.rude |= rude || seen.must_go;
    }

    // What comes out.

    pub(crate) fn output(&mut self, output: &Output) {
        match output {
            Output::Send { link, message } => self.said(*link, message),
            Output::Dial { addr } => {
                assert!(!self.seeding, "a seeder dials");
                assert!(self.named.contains(addr), "nobody named it");
                assert!(!self.banned_addrs.contains(addr), "dials who is banned");
                let linked = |seen: &Seen| seen.info.addr.as_ref() == Some(addr);
                assert!(!self.links.values().any(linked), "dials who is linked");
                assert!(self.dialling.insert(addr.clone()), "dials twice");
                // A dial to whoever was banned meanwhile leads to no link.
                let banned = |addr: &&Addr| self.banned_addrs.contains(*addr);
                let dialling = self.dialling.len() - self.dialling.iter().filter(banned).count();
                assert!(self.links.len() + dialling <= self.max_links);
            }
            Output::Drop { link, reason } => self.dropped(*link, *reason),
            Output::FindOwners => {
                assert!(!self.seeding && !self.finding, "looks twice");
                self.finding = true;
            }
            Output::Open(manifest) => {
                assert_eq!(manifest.id(), self.sample.manifest.id());
                assert!(!self.opening && !self.opened, "opens twice");
                self.opening = true;
            }
            Output::Verify { chunk, pieces } => {
                assert!(!self.stored.contains(chunk) && !self.storing.contains_key(chunk));
                let suspect = self.suspects.contains_key(chunk);
                let senders = self.senders(pieces).len();
                assert!(!suspect || senders == 1, "a second copy is mixed");
                assert!(senders >= 1 || pieces.iter().all(|piece| piece.is_empty()));
                let before = self.verifying.insert(*chunk, pieces.clone());
                assert_eq!(before, None, "hashed twice at a time");
            }
            Output::Recheck { chunk } => {
                assert_eq!(self.held.insert(*chunk, true), Some(false));
            }
            Output::Store { chunk, pieces } => {
                assert_eq!(self.storing.get(chunk), Some(pieces), "unverified bytes");
            }
            Output::Read { link, block } => {
                assert!(self.stored.contains(&block.chunk), "reads what is not here");
                let seen = self.links.get_mut(link).expect("reads for a dead link");
                seen.reading.push(*block);
                for block in &seen.reading {
                    let times = |list: &[BlockRange]| list.iter().filter(|b| *b == block).count();
                    assert!(times(&seen.reading) <= times(&seen.theirs), "nobody asked");
                }
            }
            Output::Commit { verified } => {
                assert!(!self.committing && !self.finishing && !self.seeding);
                let kept: BTreeSet<_> = self.stored.iter().chain(self.held.keys()).collect();
                assert!(verified.iter().eq(kept.into_iter().copied()));
                self.committing = true;
            }
            Output::Finish => {
                assert!(!self.finishing && !self.committing && !self.seeding);
                assert_eq!(self.stored.len(), self.chunks() as usize);
                self.finishing = true;
            }
            Output::Announce(OwnState::Partial) => {
                assert!(!self.partial && !self.complete);
                self.partial = true;
            }
            Output::Announce(_) => {
                assert!(self.seeding && !self.complete);
                self.complete = true;
            }
            Output::Credit { bytes: 0, .. } => {}
            Output::Credit { owner, bytes } => {
                assert_eq!(self.credits.remove(owner), Some(*bytes));
            }
            Output::GaveUp => {
                assert!(!self.seeding && !self.gave_up, "gives up twice");
                self.gave_up = true;
            }
            other => panic!("unknown: {other:?}"),
        }
    }

    fn dropped(&mut self, link: LinkId, reason: DropReason) {
        let seen = self.links.remove(&link).expect("drops a dead link");
        let proven = seen.info.addr.clone().filter(|_| seen.info.dialled);
        match reason {
            DropReason::Refused(RefuseReason::Banned) => {
                let by_addr = seen.info.addr.as_ref();
                let by_addr = by_addr.is_some_and(|addr| self.banned_addrs.contains(addr));
                assert!(
                    by_addr || self.lied.contains(&seen.info.peer),
                    "an honest peer is banned"
                );
                if proven.is_some() {
                    // Whoever answers at a liar's address is the liar.
                    self.lied.insert(seen.info.peer);
                }
                self.banned_addrs.extend(proven);
            }
            DropReason::Refused(RefuseReason::SelfConnection) => {
                assert_eq!(seen.info.peer, self.me);
                self.banned_addrs.extend(proven);
            }
            DropReason::Refused(RefuseReason::Duplicate) => {}
            DropReason::Refused(RefuseReason::Busy) => {
                assert!(self.links.len() >= self.max_links, "there is room");
            }
            DropReason::Refused(RefuseReason::NotNeeded) => {
                let all = seen.has.len() == self.chunks() as usize;
                assert!(!self.seeding || all, "it lacks something");
            }
            DropReason::Left(_) => assert!(seen.refused),
            DropReason::Violation(what) => assert!(seen.rude, "it kept to the protocol: {what}"),
            DropReason::Silent => assert!(!seen.asked.is_empty(), "it owes nothing"),
            other => panic!("unknown: {other}"),
        }
    }

    fn said(&mut self, link: LinkId, message: &PeerMessage) {
        let chunks = self.chunks();
        let all = self.stored.len() == chunks as usize;
        let seen = self.links.get_mut(&link).expect("sends on a dead link");
        match message {
            PeerMessage::Request(block) => {
                assert!(self.opened && !self.seeding, "needs nothing");
                assert!(self.sample.manifest.geometry().contains_block(*block));
                assert!(!self.stored.contains(&block.chunk), "it is here");
                assert!(!self.held.contains_key(&block.chunk), "it may be here");
                assert!(seen.has.contains(&block.chunk.0), "asks for what it lacks");
                assert!(!seen.choked, "asks who does not answer");
                assert!(!seen.asked.contains(&(*block, false)), "asks twice");
                seen.asked.push((*block, false));
                seen.declined = false;
                assert!(seen.asked.len() <= self.max_requests);
            }
            PeerMessage::Cancel(block) => {
                // Was it asked again, the first request was cancelled before.
                let asked = seen.asked.iter_mut().find(|(b, c)| b == block && !c);
                asked.expect("cancels what it did not ask").1 = true;
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let (chunk, offset, len) = (*chunk, *offset, data.len() as u32);
                let block = BlockRange { chunk, offset, len };
                assert!(self.stored.contains(&chunk), "serves what is not stored");
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
                assert!(seen.greeted && seen.told.insert(*chunk), "told twice");
            }
            PeerMessage::Suggest(chunk) => assert!(self.stored.contains(chunk)),
            PeerMessage::ManifestRequest { part } => {
                assert!(!self.opened && !self.opening);
                seen.parts.push(*part);
            }
            PeerMessage::ManifestLength { .. } | PeerMessage::ManifestHashes { .. } => {
                let known = self.opening || self.opened;
                assert!(known, "a manifest that is not checked");
            }
            PeerMessage::ManifestReject { .. } => {}
            PeerMessage::Choke => {
                assert!(
                    !std::mem::replace(&mut seen.choked_by_us, true),
                    "choked twice"
                );
            }
            PeerMessage::Unchoke => {
                assert!(std::mem::take(&mut seen.choked_by_us), "unchoked twice");
            }
            PeerMessage::NotInterested => {
                assert!(seen.asked.is_empty(), "wants what it asked for");
                assert!(!std::mem::replace(&mut seen.declined, true), "said twice");
            }
            PeerMessage::Interested => {
                assert!(
                    std::mem::take(&mut seen.declined),
                    "a link starts interested"
                );
            }
            other => panic!("says {other:?}"),
        }
        assert!(seen.told.is_subset(&self.stored), "offers what is not here");
    }

    /// After all outputs of a step.
    pub(crate) fn settled(&self) {
        let peers: BTreeSet<PeerId> = self.links.values().map(|seen| seen.info.peer).collect();
        assert_eq!(peers.len(), self.links.len(), "two links to one peer");
        assert!(peers.is_disjoint(&self.caught), "a link to a liar");
        assert!(!peers.contains(&self.me));
        assert!(self.links.len() <= self.max_links);
        assert!(self.credits.is_empty(), "not credited");
        assert!(
            !self.links.values().any(|seen| seen.must_go),
            "it broke the protocol"
        );
        assert!(self.stored.is_empty() || self.partial || self.seeding);
    }

    /// When all that was to be read and sent has been.
    pub(crate) fn drained(&self) {
        assert!(self.links.values().all(|seen| seen.theirs.is_empty()));
        assert!(self.links.values().all(|seen| seen.greeted));
        let needs = |seen: &Seen| seen.has.len() < self.chunks() as usize;
        for seen in self.links.values().filter(|seen| needs(seen)) {
            assert_eq!(seen.told, self.stored, "not told of all");
        }
    }
}

fn answered(theirs: &mut Vec<BlockRange>, block: BlockRange) {
    let at = theirs.iter().position(|asked| *asked == block);
    theirs.remove(at.expect("answers what nobody asked"));
}
