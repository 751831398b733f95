//! A naive record of all that went into one machine and came out of it, which
//! knows what may come out.

mod manifest;
mod messages;
mod outputs;
mod places;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, LinkInfo, SwarmConfig};
use bt_lite::protocol::limits::MAX_REQUESTS;
use bt_lite::protocol::{Addr, HostKey, LinkProof, PeerId};
use bt_lite::{Bitfield, ChunkIndex};
use bytes::Bytes;

use crate::sample::Sample;

/// A link that took a chunk must have told of it by then.
const TELL: Duration = Duration::from_secs(2);

/// A link of which nothing is known is old after so long, at the earliest and at
/// the latest: what a peer passes on in the meantime can not be seen.
const OLD: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(16)];

/// A request may wait for so long at the least.
const MIN_SILENCE: Duration = Duration::from_millis(500);

/// After what time a link that nothing was asked of is in doubt.
const UNTRIED: Duration = Duration::from_secs(1);

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
    /// How many parts there are by what it says of the length.
    parts: u32,
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
    /// It told of a chunk that it took.
    told_of: bool,
    /// Since when it is there, if earlier links of its host owed a chunk.
    debt: Option<Instant>,
    /// Decides between hosts that nothing is known of, and whether this one is
    /// known to have had nothing before: perhaps, and for certain.
    lot: u64,
    old: [bool; 2],
    /// Its host was suspected when it came or the download began, and it has
    /// answered nothing since.
    suspect: bool,
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

    /// For how long it has not told of a chunk.
    fn mute_for(&self, now: Instant) -> Duration {
        let since = self.mute.or(self.debt);
        since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Whether it took a chunk and should have told of it, or has nothing though
    /// its host took one.
    fn is_mute(&self, now: Instant) -> bool {
        let owes = self.has.is_empty() && self.debt.is_some();
        owes || self.mute_for(now) >= TELL
    }

    /// Whether it may be in doubt, since it sent nothing: it was asked, or waits to
    /// be asked.
    fn may_be_doubtful(&self, now: Instant) -> bool {
        let late = |at: Instant| now - at >= MIN_SILENCE / 4;
        let asked = !self.asked.is_empty() && self.first_asked.is_some_and(late);
        let untried = !self.info.dialled && self.anything && now - self.since >= UNTRIED;
        self.received == 0 && (asked || untried)
    }

    /// Whether it may have been asked in vain, as far as can be told.
    fn may_be_snubbed(&self, now: Instant) -> bool {
        let late = |at: Instant| now - at >= MIN_SILENCE;
        !self.asked.is_empty() && (self.suspect || self.first_asked.is_some_and(late))
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
    /// Until when hosts are suspected.
    suspected: BTreeMap<HostKey, Instant>,
    /// Until when hosts are known never to have had anything: perhaps, and for
    /// certain.
    blanks: [BTreeMap<HostKey, Instant>; 2],
    /// How many links of which nothing is known were old lately, at the most.
    old_lately: VecDeque<(Instant, usize)>,
    /// Bytes that links of a host which are gone were sent and did not tell of.
    debts: BTreeMap<HostKey, u64>,
    seed: u64,
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
    /// When the last came before this step's, which is none if it proves to be
    /// a lie at first sight.
    came_before: Option<Instant>,
    /// When a link was last asked for more of the manifest than the length; and
    /// before this step.
    promoted: Option<Instant>,
    promoted_before: Option<Instant>,
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
            suspected: BTreeMap::new(),
            blanks: [BTreeMap::new(), BTreeMap::new()],
            old_lately: VecDeque::new(),
            debts: BTreeMap::new(),
            seed: config.planner.seed,
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
            came_before: None,
            promoted: None,
            promoted_before: None,
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

    pub(crate) fn up(&mut self, link: LinkId, info: LinkInfo) {
        if let Some(addr) = info.addr.as_ref().filter(|_| info.dialled) {
            self.dialling.remove(addr);
        }
        self.fresh = Some(link);
        self.must_refuse = info.peer == self.me || self.is_banned(&info);
        self.crowded = self.links.len() >= self.max_links / 2 && !self.must_refuse;
        let suspect = self.is_suspect(&info.host);
        self.must_refuse |= self.crowded && !info.dialled && suspect;
        if self.crowded && !self.must_refuse {
            let useless = self.links.iter().filter(|(_, seen)| self.is_useless(seen));
            self.must_go = useless.map(|(link, _)| *link).collect();
        }
        self.known.insert(link, info.clone());
        let owed = self.debts.get(&info.host).copied().unwrap_or(0);
        let mut others = self.links.iter();
        let alone =
            others.all(|(other, seen)| self.must_go.contains(other) || seen.info.host != info.host);
        let owed = if alone { owed } else { 0 };
        let owes = owed >= self.sample.manifest.geometry().chunk_len();
        let seen = Seen {
            debt: owes.then_some(self.now),
            lot: self.lot(&info.host),
            old: self.known_blank(&info.host),
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
            told_of: false,
            mute: None,
            suspect: suspect && self.downloads(),
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
                let suspect = self.is_suspect(&host);
                self.links.get_mut(&link).expect("it is up").suspect = suspect;
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
}
