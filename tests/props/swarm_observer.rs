//! A naive record of all that went into one machine and came out of it, which
//! knows what may come out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{BlockGrid, DropReason, LinkId, LinkInfo, Output, SwarmConfig};
use bt_lite::protocol::limits::{HANDSHAKE_TIMEOUT, MAX_REQUESTS};
use bt_lite::protocol::{Addr, HostKey, LinkProof, OwnState, PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};
use bytes::Bytes;

use crate::sample::{Sample, lot, proof};

/// How many proofs that two links are one peer's a link may give, and gives.
const MAX_PROOFS: usize = 4;

/// How many parts of the manifest are handed to a link at a time, and how many
/// more may be asked for.
const MAX_PARTS: (usize, usize) = (2, 32);

/// A link that has so many messages waiting is told of chunks later.
const MAX_QUEUED_HAVES: usize = 256;

/// A link is new for so long.
const GRACE: Duration = Duration::from_secs(10);

/// After so long without a gain, owners that links claim to be are dialled.
const STARVED: Duration = Duration::from_secs(5);

/// One more link is asked for the manifest after so long at the earliest.
const HEDGE: Duration = Duration::from_millis(500);

/// And after so long though parts come.
const STEADY: Duration = Duration::from_secs(5);

/// How many links are asked for the length at once.
const AT_ONCE: usize = 4;

/// How long a part of the manifest may take at first, and how long who has sent
/// the length waits to be asked for the rest.
const PART_TIMEOUT: Duration = Duration::from_secs(10);
const SPARE: Duration = Duration::from_secs(60);

/// A link that took a chunk must have told of it by then.
const TELL: Duration = Duration::from_secs(2);

/// How long a host is suspected.
const SUSPICION: Duration = Duration::from_secs(60);

/// A request may wait for so long at the least.
const MIN_SILENCE: Duration = Duration::from_millis(500);

/// A link that takes nothing for so long is stalled.
const STALLED: Duration = Duration::from_secs(1);

/// What a link was asked for of the manifest, since it was asked last.
#[derive(Debug)]
struct Run {
    deadline: Instant,
    patience: Duration,
    /// Parts that were asked for, and those that came.
    asked: BTreeSet<u32>,
    came: BTreeSet<u32>,
    spare: bool,
}

/// A link that is up.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) info: LinkInfo,
    since: Instant,
    /// This side dialled it, or it has delivered: its address counts.
    solid: bool,
    /// What it says of its address counts, as long as nobody has tried that.
    claims: bool,
    /// How many proofs it gave that another link is the same peer's.
    proofs: usize,
    /// What this side is to prove to it.
    to_prove: Vec<LinkProof>,
    /// Messages that were not handed to the network yet: whether each is a part
    /// of the manifest with hashes.
    queued: VecDeque<bool>,
    /// Parts that the other side asked for and did not get yet.
    parts_asked: VecDeque<u32>,
    /// It is asked for the manifest, and how often it was too slow.
    run: Option<Run>,
    slow: u32,
    /// Whether it said that it has none.
    without: bool,
    /// Chunks of which it sent blocks.
    gave: BTreeSet<ChunkIndex>,
    /// Bytes of blocks that were asked for and came, and that it took.
    received: u64,
    taken: u64,
    /// It rejected something that it said to have.
    rejected: bool,
    /// It said to have something, whatever that is.
    anything: bool,
    /// Bytes that are read for it or on their way, and when it last took some.
    under_way: u64,
    moved: Option<Instant>,
    /// Bytes that it took and has not told of, and since when they are a chunk.
    untold: u64,
    mute: Option<Instant>,
    /// Its host was suspected when it came or the download began: for certain,
    /// or perhaps.
    suspect: bool,
    maybe_suspect: bool,
    /// When it was first asked for a block.
    first_asked: Option<Instant>,
    /// It said that it wants nothing.
    wants_nothing: bool,
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
    fn is_stalled(&self, now: Instant) -> bool {
        let moved = self.moved.filter(|_| self.under_way > 0);
        moved.is_some_and(|moved| now - moved >= STALLED)
    }

    /// Whether it may have the manifest and was not tried in vain.
    fn may_have_manifest(&self) -> bool {
        self.anything && !self.without && self.slow == 0
    }

    /// Whether it could be asked for the manifest now.
    fn is_free(&self) -> bool {
        self.anything && !self.without && self.run.is_none()
    }

    /// Whether it took a chunk and should have told of it.
    fn is_mute(&self, now: Instant) -> bool {
        self.mute.is_some_and(|since| now - since >= TELL)
    }

    /// Whether it may have been asked in vain, as far as can be told.
    fn may_be_snubbed(&self, now: Instant) -> bool {
        let asked = self.first_asked;
        self.maybe_suspect || asked.is_some_and(|at| now - at >= MIN_SILENCE)
    }

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

/// By which link some bytes came.
type Sent = (Bytes, LinkId);

pub(crate) struct Observer {
    pub(crate) sample: Sample,
    pub(crate) links: BTreeMap<LinkId, Seen>,
    /// The time of the last input.
    pub(crate) now: Instant,
    /// All links that ever were, as they came.
    known: BTreeMap<LinkId, LinkInfo>,
    /// The link that has just come, which may be refused.
    fresh: Option<LinkId>,
    /// It is of a liar's address or host, or of a suspected host when there are
    /// many links.
    must_refuse: bool,
    /// There were many links when it came, and links of no use were to go.
    crowded: bool,
    must_go: BTreeSet<LinkId>,
    /// Until when hosts are suspected: for certain, and perhaps.
    suspected: [BTreeMap<HostKey, Instant>; 2],
    /// A link that was proved to be one too many.
    duplicate: Option<LinkId>,
    pub(crate) stored: BTreeSet<ChunkIndex>,
    /// Chunks of before that nobody has looked at, and whether it was asked.
    held: BTreeMap<ChunkIndex, bool>,
    pub(crate) seeding: bool,
    me: PeerId,
    max_links: usize,
    max_requests: usize,
    send_window: u64,
    /// Blocks that were sent to the machine, by the address of their bytes,
    /// which are kept so that no others get it.
    sent: BTreeMap<usize, Sent>,
    lied: BTreeSet<LinkId>,
    /// Links that must have been found out.
    pub(crate) caught: BTreeSet<LinkId>,
    /// What is banned: where this side dialled, and where others came from.
    banned_addrs: BTreeSet<Addr>,
    banned_hosts: BTreeSet<HostKey>,
    /// Whom the tracker named, and who delivered and said where it listens.
    named: BTreeSet<Addr>,
    proved: BTreeSet<Addr>,
    /// Whom the tracker named and nobody dialled.
    untried: BTreeSet<Addr>,
    /// When something last came that brings the download on.
    last_gain: Instant,
    /// When a link was last asked for the manifest, and when a part last came.
    started: Option<Instant>,
    came: Option<Instant>,
    /// The first chunk that was here.
    first: Option<ChunkIndex>,
    /// What senders are to be told of.
    owed_haves: Vec<(LinkId, ChunkIndex)>,
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
    pub(crate) fn new(
        now: Instant,
        sample: &Sample,
        me: PeerId,
        seeding: bool,
        config: &SwarmConfig,
    ) -> Self {
        let indices = sample.manifest.geometry().indices();
        Self {
            sample: sample.clone(),
            links: BTreeMap::new(),
            now,
            known: BTreeMap::new(),
            fresh: None,
            must_refuse: false,
            crowded: false,
            must_go: BTreeSet::new(),
            suspected: [BTreeMap::new(), BTreeMap::new()],
            duplicate: None,
            stored: indices.filter(|_| seeding).collect(),
            held: BTreeMap::new(),
            seeding,
            me,
            max_links: config.max_links,
            max_requests: config.planner.max_requests.min(MAX_REQUESTS),
            send_window: config.send_window,
            sent: BTreeMap::new(),
            lied: BTreeSet::new(),
            caught: BTreeSet::new(),
            banned_addrs: BTreeSet::new(),
            banned_hosts: BTreeSet::new(),
            named: BTreeSet::new(),
            proved: BTreeSet::new(),
            untried: BTreeSet::new(),
            last_gain: now,
            started: None,
            came: None,
            first: None,
            owed_haves: Vec::new(),
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
        if let Some(addr) = info.addr.as_ref().filter(|_| info.dialled) {
            self.dialling.remove(addr);
        }
        self.fresh = Some(link);
        self.must_refuse = info.peer == self.me || self.is_banned(&info);
        self.crowded = self.links.len() >= self.max_links / 2 && !self.must_refuse;
        let [suspect, maybe_suspect] = self.suspicions(&info.host);
        self.must_refuse |= self.crowded && !info.dialled && suspect;
        if self.crowded && !self.must_refuse && !(maybe_suspect && !info.dialled) {
            let useless = self.links.iter().filter(|(_, seen)| self.is_useless(seen));
            self.must_go = useless.map(|(link, _)| *link).collect();
        }
        self.known.insert(link, info.clone());
        let seen = Seen {
            solid: info.dialled,
            claims: !info
                .addr
                .as_ref()
                .is_some_and(|addr| self.dialling.contains(addr)),
            info,
            since: self.now,
            proofs: 0,
            to_prove: Vec::new(),
            queued: VecDeque::new(),
            parts_asked: VecDeque::new(),
            run: None,
            slow: 0,
            without: false,
            gave: BTreeSet::new(),
            received: 0,
            rejected: false,
            anything: false,
            taken: 0,
            under_way: 0,
            moved: None,
            untold: 0,
            mute: None,
            suspect: suspect && self.downloads(),
            maybe_suspect: maybe_suspect && self.downloads(),
            first_asked: None,
            wants_nothing: false,
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

    /// Whether blocks are asked for.
    fn downloads(&self) -> bool {
        self.opened && !self.seeding
    }

    /// Whether a host is suspected: for certain, and perhaps.
    fn suspicions(&self, host: &HostKey) -> [bool; 2] {
        let is =
            |until: &BTreeMap<HostKey, Instant>| until.get(host).is_some_and(|u| *u > self.now);
        [is(&self.suspected[0]), is(&self.suspected[1])]
    }

    fn suspect(&mut self, host: &HostKey, certain: bool) {
        let until = self.now + SUSPICION;
        self.suspected[1].insert(host.clone(), until);
        if certain {
            self.suspected[0].insert(host.clone(), until);
        }
    }

    /// Whether a link is of no use for certain: it took a chunk and told of none,
    /// or came from a suspected host, and sent nothing.
    fn is_useless(&self, seen: &Seen) -> bool {
        let snubbed = self.downloads() && seen.suspect;
        seen.received == 0 && (snubbed || seen.is_mute(self.now))
    }

    /// The other side ends a link: one that came and went for nothing casts a
    /// suspicion on its host.
    fn left(&mut self, link: LinkId) {
        let Some(seen) = self.links.get(&link).filter(|seen| !seen.info.dialled) else {
            return;
        };
        let is_new = self.now - seen.since < GRACE;
        if is_new && seen.received == 0 && seen.taken == 0 {
            let host = seen.info.host.clone();
            self.suspect(&host, true);
        }
    }

    /// No link again to where this side dialled a liar, and none from where
    /// another liar came.
    fn is_banned(&self, info: &LinkInfo) -> bool {
        let by_addr = info.addr.as_ref();
        by_addr.is_some_and(|addr| self.banned_addrs.contains(addr))
            || !info.dialled && self.banned_hosts.contains(&info.host)
    }

    fn ban(&mut self, link: LinkId) {
        let info = &self.known[&link];
        match info.addr.as_ref().filter(|_| info.dialled) {
            Some(addr) => {
                self.banned_addrs.insert(addr.clone());
            }
            None => {
                self.banned_hosts.insert(info.host.clone());
            }
        }
    }

    /// So many messages were handed to the network, with bytes of blocks.
    pub(crate) fn sent(&mut self, link: LinkId, messages: usize, bytes: u64) {
        if let Some(seen) = self.links.get_mut(&link) {
            seen.queued.drain(..messages.min(seen.queued.len()));
            if bytes > 0 {
                let bytes = bytes.min(seen.under_way);
                seen.under_way -= bytes;
                seen.taken += bytes;
                seen.untold += bytes;
                if seen.untold >= self.sample.manifest.geometry().chunk_len() {
                    seen.mute.get_or_insert(self.now);
                }
                seen.moved = Some(self.now);
            }
        }
    }

    pub(crate) fn down(&mut self, link: LinkId) {
        self.left(link);
        self.removed(link);
    }

    /// Time has passed: links that were too slow with the manifest are passed
    /// over, and those that were so twice and sent nothing go.
    pub(crate) fn timeout(&mut self) {
        if self.opened || self.opening {
            return;
        }
        for (link, seen) in &mut self.links {
            let late = |run: &mut Run| run.deadline <= self.now;
            if let Some(run) = seen.run.take_if(late) {
                seen.slow += 1;
                if seen.slow >= 2 && run.came.is_empty() {
                    self.must_go.insert(*link);
                }
            }
        }
    }

    /// When one more link is asked for the manifest at the earliest; none if it
    /// is at once.
    fn next_run(&self) -> Option<Instant> {
        let runs = self.links.values().filter_map(|seen| seen.run.as_ref());
        let nothing = runs.clone().all(|run| run.came.is_empty());
        if nothing && runs.count() < AT_ONCE {
            return None;
        }
        let started = self.started?;
        let last = self.came.map_or(started, |came| came.max(started));
        Some((last + HEDGE).min(started + STEADY))
    }

    /// When a link must be asked for more of the manifest, or is too slow.
    pub(crate) fn manifest_due(&self) -> Option<Instant> {
        if self.opened || self.opening {
            return None;
        }
        let runs = self.links.values().filter_map(|seen| seen.run.as_ref());
        let has_spare = runs.clone().any(|run| run.spare);
        let more = has_spare || self.links.values().any(Seen::is_free);
        let next = more.then(|| self.next_run().unwrap_or(self.now));
        runs.map(|run| run.deadline).chain(next).min()
    }

    /// Beside a link whose address counts, what another merely says does not.
    fn removed(&mut self, link: LinkId) -> Option<Seen> {
        let seen = self.links.remove(&link)?;
        if seen.received == 0 {
            let asks = self.downloads();
            let certain =
                seen.is_mute(self.now) || asks && (seen.suspect || !seen.asked.is_empty());
            if certain || asks && seen.may_be_snubbed(self.now) {
                self.suspect(&seen.info.host.clone(), certain);
            }
        }
        if seen.solid {
            self.untried
                .retain(|addr| seen.info.addr.as_ref() != Some(addr));
            for other in self.links.values_mut() {
                other.claims &= other.info.addr != seen.info.addr;
            }
        }
        Some(seen)
    }

    pub(crate) fn named(&mut self, addrs: impl Iterator<Item = Addr>) {
        self.finding = false;
        for addr in addrs.filter(|addr| !self.banned_addrs.contains(addr)) {
            if self.named.insert(addr.clone()) && !self.proved.contains(&addr) {
                self.untried.insert(addr);
            }
        }
    }

    pub(crate) fn dial_failed(&mut self, addr: &Addr) {
        self.dialling.remove(addr);
    }

    pub(crate) fn opened(&mut self, present: &Bitfield, verified: &Bitfield) {
        if std::mem::take(&mut self.opening) {
            self.opened = true;
            self.last_gain = self.now;
            self.stored = verified.iter().collect();
            self.first = verified.iter().next();
            let links: Vec<LinkId> = self.links.keys().copied().collect();
            for link in links {
                let host = self.links[&link].info.host.clone();
                let suspicions = self.suspicions(&host);
                let seen = self.links.get_mut(&link).expect("it is up");
                [seen.suspect, seen.maybe_suspect] = suspicions;
            }
            let held = present.iter().filter(|chunk| !verified.contains(*chunk));
            self.held = held.map(|chunk| (chunk, false)).collect();
            self.gave_up = false;
        }
    }

    pub(crate) fn rechecked(&mut self, chunk: ChunkIndex, good: bool) {
        self.held.remove(&chunk);
        self.last_gain = self.now;
        self.stored.extend(good.then_some(chunk));
        self.first = self.first.or(good.then_some(chunk));
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
            self.last_gain = self.now;
            if self.senders(&pieces).len() == 1 {
                self.catch(&pieces[0]);
                pieces.iter().for_each(|piece| self.catch(piece));
            } else {
                self.suspects.insert(chunk, pieces);
            }
        }
        good
    }

    pub(crate) fn senders(&self, pieces: &[Bytes]) -> BTreeSet<LinkId> {
        let sender = |piece: &Bytes| self.sent.get(&(piece.as_ptr() as usize));
        pieces
            .iter()
            .filter_map(sender)
            .map(|sent| sent.1)
            .collect()
    }

    fn catch(&mut self, piece: &Bytes) {
        let sent = self.sent.get(&(piece.as_ptr() as usize));
        let &(_, link) = sent.expect("somebody sent it");
        assert!(self.lied.contains(&link), "only liars are caught");
        self.caught.insert(link);
        self.ban(link);
    }

    pub(crate) fn stored(&mut self, chunk: ChunkIndex) {
        let pieces = self.storing.remove(&chunk).expect("it was to be written");
        self.gave_up = false;
        self.last_gain = self.now;
        self.stored.insert(chunk);
        self.first.get_or_insert(chunk);
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let sent = self.sent.get(&(piece.as_ptr() as usize));
            let link = sent.map(|sent| sent.1);
            self.owed_haves.extend(link.map(|link| (link, chunk)));
            let addr = link.and_then(|link| self.known[&link].addr.as_ref());
            if let Some(addr) = addr {
                *self.credits.entry(addr.clone()).or_default() += piece.len() as u64;
            }
        }
    }

    /// A block was read, or could not be.
    pub(crate) fn read(&mut self, link: LinkId, block: BlockRange, works: bool) {
        if let Some(seen) = self.links.get_mut(&link) {
            if !works {
                seen.under_way -= u64::from(block.len).min(seen.under_way);
            }
            let at = seen.reading.iter().position(|b| *b == block);
            seen.reading.remove(at.expect("it was to be read"));
        }
    }

    pub(crate) fn lies(&mut self, link: LinkId) {
        self.lied.insert(link);
    }

    /// Something comes from a link. Says what of it breaks the protocol.
    pub(crate) fn hears(&mut self, link: LinkId, message: &PeerMessage) {
        let chunks = self.chunks();
        let geometry = self.sample.manifest.geometry();
        // Before the length is known, little can be held against it.
        let known = self.opening || self.opened;
        if let PeerMessage::Refuse(_) = message {
            self.left(link);
        }
        let others_sent = self.links.iter().any(|(other, seen)| {
            let sent = |run: &Run| !run.came.is_empty();
            *other != link && seen.run.as_ref().is_some_and(sent)
        });
        let Some(seen) = self.links.get_mut(&link) else {
            return;
        };
        if let PeerMessage::Bitfield(_) | PeerMessage::HaveAll | PeerMessage::HaveNone = message {
            seen.must_go |= std::mem::replace(&mut seen.said, true);
        }
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
            PeerMessage::ManifestRequest { part } => {
                seen.must_go |= seen.parts_asked.len() >= MAX_PARTS.1;
                seen.parts_asked.push_back(*part);
            }
            PeerMessage::ManifestReject { .. } => {
                (seen.run, seen.without) = (None, true);
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
                    seen.untold = seen.untold.saturating_sub(geometry.chunk_len());
                    seen.mute = None;
                }
            }
            PeerMessage::Choke => seen.choked = true,
            PeerMessage::Unchoke => seen.choked = false,
            PeerMessage::Request(block) => {
                seen.rude = !geometry.contains_block(*block);
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
                        self.suspected.iter_mut().for_each(|of| {
                            of.remove(&seen.info.host);
                        });
                    }
                    (seen.suspect, seen.maybe_suspect) = (false, false);
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
                seen.answered(*block, self.seeding);
            }
            PeerMessage::ManifestLength { .. } => {
                self.gave_up = false;
                if let Some(run) = seen.run.as_mut().filter(|run| run.came.is_empty()) {
                    run.came.insert(0);
                    // If another sends already, this one waits.
                    run.spare = others_sent;
                    let wait = if others_sent { SPARE } else { run.patience };
                    run.deadline = self.now + wait;
                    self.came = Some(self.now);
                }
            }
            PeerMessage::ManifestHashes { part, .. } => {
                self.gave_up = false;
                let asked = |run: &&mut Run| *part > 0 && run.asked.contains(part);
                if let Some(run) = seen.run.as_mut().filter(asked)
                    && run.came.contains(&0)
                    && run.came.insert(*part)
                {
                    run.deadline = self.now + run.patience;
                    self.came = Some(self.now);
                }
            }
            _ => {}
        }
        seen.must_go |= seen.rude && known;
        seen.rude |= rude || seen.must_go;
        if let PeerMessage::SamePeer(proof) = message
            && !seen.must_go
        {
            self.merge(link, *proof);
        }
    }

    /// Finds the link that a proof is about, and which of the two must go.
    fn merge(&mut self, link: LinkId, claimed: LinkProof) {
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

    // What comes out.

    pub(crate) fn output(&mut self, output: &Output) {
        match output {
            Output::Send { link, message } => self.said(*link, message),
            Output::Dial { addr } => {
                assert!(!self.seeding, "a seeder dials");
                let named = self.named.contains(addr);
                assert!(named || self.proved.contains(addr), "nobody named it");
                assert!(!self.banned_addrs.contains(addr), "dials who is banned");
                let at = |seen: &&Seen| seen.info.addr.as_ref() == Some(addr);
                let linked = self.links.values().filter(at);
                for seen in linked {
                    // What a link merely says keeps nobody from being dialled,
                    // if the tracker named it and nothing comes.
                    let starving = self.is_starving();
                    assert!(!seen.solid, "dials who is linked");
                    assert!(!seen.claims || named && starving, "dials who seems linked");
                }
                self.untried.remove(addr);
                for seen in self.links.values_mut() {
                    seen.claims &= seen.info.addr.as_ref() != Some(addr);
                }
                assert!(self.dialling.insert(addr.clone()), "dials twice");
                // A dial to whoever was banned meanwhile leads to no link.
                let banned = |addr: &&Addr| self.banned_addrs.contains(*addr);
                let dialling = self.dialling.len() - self.dialling.iter().filter(banned).count();
                // If nothing comes, whoever answers takes another's place.
                let accepted = self.links.values().any(|seen| !seen.info.dialled);
                let one_more = self.links.len() == self.max_links
                    && dialling == 1
                    && accepted
                    && self.is_starving();
                assert!(one_more || self.links.len() + dialling <= self.max_links);
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
                self.last_gain = self.now;
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
                let before: u64 = self.links.values().map(|seen| seen.under_way).sum();
                let block_len = BlockGrid::of(self.sample.manifest.geometry()).block_len();
                assert!(
                    before < self.send_window.max(block_len),
                    "the window is full"
                );
                let seen = self.links.get_mut(link).expect("reads for a dead link");
                seen.reading.push(*block);
                if seen.under_way == 0 {
                    seen.moved = Some(self.now);
                }
                seen.under_way += u64::from(block.len);
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
                if !self.opened && !self.opening {
                    let tried = !self.links.values().any(Seen::may_have_manifest);
                    assert!(tried, "somebody has time to answer");
                    let room = self.links.len() < self.max_links;
                    let untried = self.untried.iter().any(|addr| !self.is_claimed(addr));
                    assert!(!(room && untried), "an owner was not tried");
                }
                self.gave_up = true;
            }
            other => panic!("unknown: {other:?}"),
        }
    }

    fn dropped(&mut self, link: LinkId, reason: DropReason) {
        let seen = self.removed(link).expect("drops a dead link");
        match reason {
            DropReason::Refused(RefuseReason::Banned) => {
                // Other links of a liar live on, until they lie themselves.
                let refused = self.fresh == Some(link) && self.is_banned(&seen.info);
                let lied = self.lied.contains(&link);
                assert!(refused || lied, "who did not lie is banned");
                if !refused {
                    self.ban(link);
                }
            }
            DropReason::Refused(RefuseReason::SelfConnection) => {
                assert_eq!((seen.info.peer, self.fresh), (self.me, Some(link)));
                if seen.info.dialled {
                    self.ban(link);
                }
            }
            DropReason::Refused(RefuseReason::Duplicate) => {
                assert_eq!(self.duplicate, Some(link), "nobody has proved it");
            }
            DropReason::Refused(RefuseReason::Busy)
                if self.fresh == Some(link) && self.is_not_worth_a_place(&seen.info) => {}
            DropReason::Refused(RefuseReason::Busy) => {
                assert!(self.links.len() >= self.max_links, "there is room");
                let fresh = self.fresh.expect("somebody wants the place");
                if link == fresh {
                    let gives_way = |old: &Seen| self.gives_way(old, &seen.info);
                    assert!(!self.links.values().any(gives_way), "somebody is of no use");
                } else {
                    let newcomer = self.links[&fresh].info.clone();
                    assert!(
                        self.may_give_way(&seen, &newcomer),
                        "it is of use: {seen:?}"
                    );
                }
            }
            DropReason::Refused(RefuseReason::NotNeeded) => {
                let all = seen.has.len() == self.chunks() as usize;
                assert!(!self.seeding || all, "it lacks something");
            }
            DropReason::Left(_) => assert!(seen.refused),
            DropReason::Violation("no Bitfield in time") => {
                assert!(!seen.said && seen.since + HANDSHAKE_TIMEOUT <= self.now);
            }
            DropReason::Violation(what) => assert!(seen.rude, "it kept to the protocol: {what}"),
            DropReason::Silent => {
                let in_the_way = seen.is_stalled(self.now) && self.holds_up(Some(&seen));
                let owes_parts = !self.opened && !self.opening && self.must_go.contains(&link);
                let asks = self.downloads();
                let snubbed = asks && seen.may_be_snubbed(self.now);
                let useless = seen.received == 0 && (snubbed || seen.is_mute(self.now));
                let useless = useless && self.crowded && self.fresh.is_some();
                let owes = asks && !seen.asked.is_empty() || owes_parts || in_the_way || useless;
                assert!(owes, "it owes nothing: {seen:?}");
            }
            other => panic!("unknown: {other}"),
        }
    }

    /// Whether a newcomer may be refused though there is room: many links are
    /// there, and its host was of no use before or has its share.
    fn is_not_worth_a_place(&self, newcomer: &LinkInfo) -> bool {
        let [_, suspect] = self.suspicions(&newcomer.host);
        self.crowded && !newcomer.dialled && (suspect || self.has_its_share(newcomer))
    }

    /// Whether a host has twice as many links as all would have if they had as
    /// many each.
    fn has_its_share(&self, newcomer: &LinkInfo) -> bool {
        let others = self
            .links
            .iter()
            .filter(|(link, _)| self.fresh != Some(**link));
        let hosts: BTreeSet<&HostKey> = others.map(|(_, seen)| &seen.info.host).collect();
        let share = (2 * self.max_links).div_ceil(hosts.len().max(1)).max(2);
        self.of_host(&newcomer.host, []) >= share
    }

    /// How many links came from a host.
    fn of_host<'a>(&'a self, host: &HostKey, also: impl IntoIterator<Item = &'a Seen>) -> usize {
        let links = self.links.iter().filter(|(id, _)| self.fresh != Some(**id));
        let links = links.map(|(_, seen)| seen).chain(also);
        let of_host = |seen: &&Seen| !seen.info.dialled && seen.info.host == *host;
        links.filter(of_host).count()
    }

    fn lacks_nothing(&self, seen: &Seen) -> bool {
        let mut stored = self.stored.iter();
        stored.all(|chunk| seen.has.contains(&chunk.0))
    }

    /// Whether a link has something that is not stored here.
    fn is_useful(&self, seen: &Seen) -> bool {
        let mut has = seen.has.iter();
        has.any(|&chunk| !self.stored.contains(&ChunkIndex(chunk)))
    }

    /// Whether a link must give way to a newcomer before that is refused.
    fn gives_way(&self, old: &Seen, newcomer: &LinkInfo) -> bool {
        let is_new = self.now - old.since < GRACE;
        let declined = old.wants_nothing || self.lacks_nothing(old);
        let settled = old.theirs.is_empty() && old.under_way == 0;
        let useful = !self.seeding && self.is_useful(old);
        let idle = old.said && self.opened && declined && settled && !useful;
        let barren = !is_new && old.received == 0 && old.taken == 0 && old.wants_nothing;
        let crowd = self.of_host(&newcomer.host, []) + 1;
        let crowded = !old.info.dialled && self.of_host(&old.info.host, []) > crowd;
        idle || barren || crowded
    }

    /// Whether a link, which is out of the list already, may give way at all.
    fn may_give_way(&self, old: &Seen, newcomer: &LinkInfo) -> bool {
        let is_new = self.now - old.since < GRACE;
        let declined = old.wants_nothing || self.lacks_nothing(old);
        let waits = old.theirs.len() > old.reading.len() || old.under_way > 0;
        let useful = !self.seeding && !old.rejected && self.is_useful(old);
        let may_idle = old.said && self.opened && !waits && !useful && (declined || !is_new);
        let barren = !is_new && old.received == 0 && old.taken == 0;
        let crowd = self.of_host(&newcomer.host, [old]) + 1;
        let crowded = self.of_host(&old.info.host, [old]) > crowd;
        let wanted = newcomer.dialled && self.is_starving();
        may_idle || barren || !old.info.dialled && (crowded || wanted)
    }

    /// Whether nothing comes, as far as that can be told from outside.
    fn is_starving(&self) -> bool {
        let supplied = |seen: &Seen| match self.opened {
            true => !seen.rejected && self.is_useful(seen),
            // Whoever was asked for the manifest in vain supplies nothing.
            false => seen.may_have_manifest(),
        };
        let quiet = self.now - self.last_gain >= STARVED;
        !self.seeding && (quiet || !self.links.values().any(supplied))
    }

    /// Whether links that take nothing hold up others.
    pub(crate) fn holds_up(&self, also: Option<&Seen>) -> bool {
        let links = || self.links.values().chain(also);
        let waits = links().any(|seen| seen.theirs.len() > seen.reading.len());
        let all: u64 = links().map(|seen| seen.under_way).sum();
        let stalled = links().filter(|seen| seen.is_stalled(self.now));
        let stalled: u64 = stalled.map(|seen| seen.under_way).sum();
        waits && all >= self.send_window && 2 * stalled >= self.send_window
    }

    /// A link that should have said what it has.
    pub(crate) fn unsaid(&self) -> impl Iterator<Item = Instant> {
        let unsaid = self.links.values().filter(|seen| !seen.said);
        unsaid.map(|seen| seen.since + HANDSHAKE_TIMEOUT)
    }

    fn is_claimed(&self, addr: &Addr) -> bool {
        let mut links = self.links.values();
        links.any(|seen| seen.info.addr.as_ref() == Some(addr))
    }

    fn said(&mut self, link: LinkId, message: &PeerMessage) {
        let chunks = self.chunks();
        let all = self.stored.len() == chunks as usize;
        if let PeerMessage::HaveAll | PeerMessage::HaveNone | PeerMessage::Bitfield(_) = message {
            self.greeted(link);
        }
        if let PeerMessage::ManifestRequest { part } = message {
            self.run(link, *part);
        }
        let seen = self.links.get_mut(&link).expect("sends on a dead link");
        let hashes = matches!(message, PeerMessage::ManifestHashes { .. });
        seen.queued.push_back(hashes);
        match message {
            PeerMessage::SamePeer(proof) => {
                let at = seen.to_prove.iter().position(|owed| owed == proof);
                seen.to_prove.remove(at.expect("proves what is not so"));
            }
            PeerMessage::Request(block) => {
                assert!(self.opened && !self.seeding, "needs nothing");
                assert!(self.sample.manifest.geometry().contains_block(*block));
                assert!(!self.stored.contains(&block.chunk), "it is here");
                assert!(!self.held.contains_key(&block.chunk), "it may be here");
                assert!(seen.has.contains(&block.chunk.0), "asks for what it lacks");
                assert!(!seen.choked, "asks who does not answer");
                assert!(!seen.asked.contains(&(*block, false)), "asks twice");
                seen.asked.push((*block, false));
                seen.first_asked.get_or_insert(self.now);
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
                let seeder = seen.has.len() == chunks as usize;
                let gave = seen.gave.contains(chunk) || self.first == Some(*chunk);
                assert!(!seeder || gave, "a seeder has it");
            }
            PeerMessage::Suggest(chunk) => assert!(self.stored.contains(chunk)),
            PeerMessage::ManifestRequest { part } => {
                assert!(!self.opened && !self.opening);
                seen.parts.push(*part);
            }
            PeerMessage::ManifestLength { .. } => {
                let known = self.opening || self.opened;
                assert!(known, "a manifest that is not checked");
                assert_eq!(seen.parts_asked.pop_front(), Some(0));
            }
            PeerMessage::ManifestHashes { part, .. } => {
                let known = self.opening || self.opened;
                assert!(known, "a manifest that is not checked");
                assert_eq!(seen.parts_asked.pop_front(), Some(*part));
                let under_way = seen.queued.iter().filter(|hashes| **hashes).count();
                assert!(under_way <= MAX_PARTS.0, "too many parts at a time");
            }
            PeerMessage::ManifestReject { part } => {
                assert_eq!(seen.parts_asked.pop_front(), Some(*part));
            }
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

    /// What a new link is to hear: that others are the same peer's.
    fn greeted(&mut self, link: LinkId) {
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

    /// A link is asked for a part of the manifest: a few for the first at once,
    /// and a further one only after a while. Who was asked least in vain comes
    /// first; who has sent the length comes before all others.
    fn run(&mut self, link: LinkId, part: u32) {
        let due = self.next_run().is_none_or(|at| at <= self.now);
        let runs = || self.links.values().filter_map(|seen| seen.run.as_ref());
        if part == 0 {
            assert!(due, "asks another too soon");
            let free = self.links.iter().filter(|(_, seen)| seen.is_free());
            let first = free.map(|(link, seen)| (seen.slow, *link)).min();
            assert_eq!(first.map(|(_, link)| link), Some(link), "others come first");
            let seen = self.links.get_mut(&link).expect("it is up");
            let patience = PART_TIMEOUT * (1 + seen.slow);
            seen.run = Some(Run {
                deadline: self.now + patience,
                patience,
                asked: BTreeSet::new(),
                came: BTreeSet::new(),
                spare: false,
            });
            self.started = Some(self.now);
        } else {
            let runs = runs().any(|run| !run.spare && !run.came.is_empty());
            let promotes = !runs || due;
            let seen = self.links.get_mut(&link).expect("it is up");
            let run = seen.run.as_mut().expect("it sent the length");
            assert!(run.came.contains(&0), "it has not sent the length");
            if std::mem::take(&mut run.spare) {
                assert!(promotes, "asks a spare too soon");
                run.deadline = self.now + run.patience;
                self.started = Some(self.now);
            }
        }
        let seen = self.links.get_mut(&link).expect("it is up");
        let run = seen.run.as_mut().expect("it is asked");
        assert!(run.asked.insert(part), "asks for a part twice");
    }

    /// After all outputs of a step.
    pub(crate) fn settled(&mut self) {
        let up = |link: &LinkId| self.links.contains_key(link);
        assert!(!self.caught.iter().any(up), "a link that lied");
        assert!(!self.duplicate.iter().any(up), "one link too many");
        let refused = self.fresh.filter(|_| self.must_refuse);
        assert!(!refused.iter().any(up), "a liar is back");
        let mut must_go = std::mem::take(&mut self.must_go).into_iter();
        assert!(!must_go.any(|link| up(&link)), "it is of no use");
        for seen in self.links.values() {
            assert!(seen.to_prove.is_empty(), "does not prove who it is");
            assert_ne!(seen.info.peer, self.me);
        }
        for (link, chunk) in std::mem::take(&mut self.owed_haves) {
            let seen = self
                .links
                .get(&link)
                .filter(|s| s.queued.len() < MAX_QUEUED_HAVES);
            assert!(
                seen.is_none_or(|seen| seen.told.contains(&chunk)),
                "a sender is not told"
            );
        }
        (self.fresh, self.duplicate) = (None, None);
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
        assert!(self.links.values().all(|seen| seen.parts_asked.is_empty()));
        let needs = |seen: &Seen| seen.has.len() < self.chunks() as usize;
        for seen in self.links.values().filter(|seen| needs(seen)) {
            assert_eq!(seen.told, self.stored, "not told of all");
        }
        let mut links = self.links.values();
        let first = |seen: &Seen| self.first.is_none_or(|first| seen.told.contains(&first));
        assert!(links.all(first), "not told that there is somebody to serve");
    }
}

fn answered(theirs: &mut Vec<BlockRange>, block: BlockRange) {
    let at = theirs.iter().position(|asked| *asked == block);
    theirs.remove(at.expect("answers what nobody asked"));
}
