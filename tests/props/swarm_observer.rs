//! A naive record of one machine's inputs and outputs, which checks that every
//! output is allowed.

mod manifest;
mod messages;
mod outputs;
mod places;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, LinkInfo, RemotePeer, SwarmConfig};
use bt_lite::protocol::limits::MAX_REQUESTS;
use bt_lite::protocol::{Addr, HostKey, LinkProof, PeerId};
use bt_lite::{Bitfield, ChunkIndex, StallReason};
use bytes::Bytes;

use crate::sample::Sample;

/// A link that received a chunk must have announced a chunk by then.
const TELL: Duration = Duration::from_secs(2);

/// The age at which a blank link counts as old, at the earliest and at the
/// latest. What a peer passes on in the meantime cannot be seen.
const OLD: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(16)];

/// A request may wait at least this long.
const MIN_SILENCE: Duration = Duration::from_millis(500);

/// The time after which a link is in doubt if nothing was requested from it.
const UNTRIED: Duration = Duration::from_secs(1);

/// A link that has something and does not let this side ask for it may be in doubt after
/// this long.
const PUTS_OFF: Duration = Duration::from_secs(60);

/// A link that accepts no bytes for this long is stalled.
const STALLED: Duration = Duration::from_secs(1);

/// The manifest pages that a link was asked for in its current attempt.
#[derive(Debug)]
struct Run {
    deadline: Instant,
    patience: Duration,
    /// Pages that were asked for, and pages that arrived.
    asked: BTreeSet<u32>,
    came: BTreeSet<u32>,
    /// The number of pages with hashes, by the length that the link claims.
    pages: u32,
    spare: bool,
}

/// A link that is up.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) info: LinkInfo,
    since: Instant,
    /// This side dialled the link, or the link delivered a block. Its address is
    /// trusted.
    solid: bool,
    /// The address that the link claims counts until that address is dialled.
    claims: bool,
    /// How many proofs it gave that another link belongs to the same peer.
    proofs: usize,
    /// Proofs that this side still owes the link.
    to_prove: Vec<LinkProof>,
    /// Messages that are not handed to the network yet. Each flag says whether
    /// the message is a manifest page with hashes.
    queued: VecDeque<bool>,
    /// Pages that the other side asked for and has not received yet.
    pages_asked: VecDeque<u32>,
    /// The current attempt to get the manifest from it, and how often it was too
    /// slow.
    run: Option<Run>,
    slow: u32,
    /// Whether it said that it does not have the manifest.
    without: bool,
    /// Chunks that it sent blocks of.
    gave: BTreeSet<ChunkIndex>,
    /// Bytes of requested blocks that it sent, and bytes of blocks that it
    /// received.
    received: u64,
    taken: u64,
    /// It rejected a request.
    rejected: bool,
    /// It sent a Bitfield, Have or HaveAll, whatever it contained.
    anything: bool,
    /// The tracker named its address as complete, and the download had not begun when it
    /// came up.
    presumed: bool,
    /// The same, but the address has failed before, and may have been forgotten.
    perhaps_presumed: bool,
    /// Bytes that are being read for it or are in flight, and when it last
    /// accepted some.
    under_way: u64,
    moved: Option<Instant>,
    /// Bytes that it received without announcing a chunk for them, and since when
    /// they amount to a chunk.
    untold: u64,
    mute: Option<Instant>,
    /// It announced a chunk after it received bytes.
    told_of: bool,
    /// When it came up, if earlier links of its host owed an announcement.
    debt: Option<Instant>,
    /// The lot that decides between blank hosts, and whether this host is known
    /// to have been blank before: possibly, and certainly.
    lot: u64,
    old: [bool; 2],
    /// Its host was suspected when the link came up or when the download began,
    /// and the link has answered no request since.
    suspect: bool,
    /// When it was first asked for a block.
    first_asked: Option<Instant>,
    /// It said that it is not interested.
    wants_nothing: bool,
    /// Unanswered requests of the machine, and whether the machine cancelled
    /// them.
    pub(crate) asked: Vec<(BlockRange, bool)>,
    /// Manifest pages that the machine asked for.
    pub(crate) pages: Vec<u32>,
    /// Unanswered requests of the other side.
    pub(crate) theirs: Vec<BlockRange>,
    reading: Vec<BlockRange>,
    /// The chunks that the other side says it has.
    pub(crate) has: BTreeSet<u32>,
    pub(crate) choked: bool,
    /// Since when it does not let the machine ask.
    pub(crate) choked_since: Option<Instant>,
    /// It broke the protocol in a way that the machine can notice.
    pub(crate) rude: bool,
    must_go: bool,
    /// It said what it has.
    said: bool,
    refused: bool,
    greeted: bool,
    /// The machine choked it, and said that it is not interested in it.
    choked_by_us: bool,
    declined: bool,
    /// The chunks that the machine announced to it.
    told: BTreeSet<ChunkIndex>,
}

impl Seen {
    fn is_stalled(&self, now: Instant) -> bool {
        let moved = self.moved.filter(|_| self.under_way > 0);
        moved.is_some_and(|moved| now - moved >= STALLED)
    }

    /// Whether it may have the manifest and has not been too slow.
    fn may_have_manifest(&self) -> bool {
        self.may_have_chunks() && !self.without && self.slow == 0
    }

    /// Whether it said that it has something, or is taken to have it until it says what
    /// it has.
    fn may_have_chunks(&self) -> bool {
        self.anything || self.presumed && !self.said
    }

    /// Whether it could be asked for the manifest now.
    fn is_free(&self) -> bool {
        self.may_have_chunks() && !self.without && self.run.is_none()
    }

    /// How long it has owed the announcement of a chunk.
    fn mute_for(&self, now: Instant) -> Duration {
        let since = self.mute.or(self.debt);
        since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Whether it received a chunk and should have announced one by now, or has
    /// nothing although its host received a chunk.
    fn is_mute(&self, now: Instant) -> bool {
        let owes = self.has.is_empty() && self.debt.is_some();
        owes || self.mute_for(now) >= TELL
    }

    /// Whether it may be in doubt: it has sent nothing, and was asked, waits to be
    /// asked, or has not let this side ask for long.
    fn may_be_doubtful(&self, now: Instant) -> bool {
        let late = |at: Instant| now - at >= MIN_SILENCE / 4;
        let asked = !self.asked.is_empty() && self.first_asked.is_some_and(late);
        let untried = !self.info.dialled && self.anything && now - self.since >= UNTRIED;
        let puts_off = self.anything && now - self.since >= PUTS_OFF;
        self.received == 0 && (asked || untried || puts_off)
    }

    /// Whether it may have left a request unanswered for too long, as far as can
    /// be seen from outside.
    fn may_be_snubbed(&self, now: Instant) -> bool {
        let late = |at: Instant| now - at >= MIN_SILENCE;
        !self.asked.is_empty() && (self.suspect || self.first_asked.is_some_and(late))
    }

    /// A request was answered, with a block or a reject. After the download has
    /// ended, only the number of owed answers counts.
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

/// Some bytes, and the link that sent them.
type Sent = (Bytes, LinkId);

pub(crate) struct Observer {
    pub(crate) sample: Sample,
    pub(crate) links: BTreeMap<LinkId, Seen>,
    /// The time of the last input.
    pub(crate) now: Instant,
    /// All links so far, with the information they came up with.
    known: BTreeMap<LinkId, LinkInfo>,
    /// The link that has just come up and may be refused.
    fresh: Option<LinkId>,
    /// The new link must be refused: it is from this peer itself, from a banned
    /// address or host, or from a suspected host when there are many links.
    must_refuse: bool,
    /// There were many links when the new one came up, so useless links must
    /// go.
    crowded: bool,
    must_go: BTreeSet<LinkId>,
    /// Suspected hosts, and when the suspicion ends.
    suspected: BTreeMap<HostKey, Instant>,
    /// Hosts that are known to be blank, and until when: possibly, and
    /// certainly.
    blanks: [BTreeMap<HostKey, Instant>; 2],
    /// Recent counts of old blank links. Each is an upper bound.
    old_lately: VecDeque<(Instant, usize)>,
    /// Bytes that former links of a host received without announcing a chunk.
    debts: BTreeMap<HostKey, u64>,
    seed: u64,
    /// A link that was proved to be a duplicate.
    duplicate: Option<LinkId>,
    pub(crate) stored: BTreeSet<ChunkIndex>,
    /// Chunks from an earlier run that are not rechecked yet, and whether a
    /// recheck was requested.
    held: BTreeMap<ChunkIndex, bool>,
    pub(crate) seeding: bool,
    me: PeerId,
    max_links: usize,
    max_requests: usize,
    send_window: u64,
    /// Blocks that were sent to the machine, by the address of their bytes. The
    /// bytes are kept so that the address is not reused.
    sent: BTreeMap<usize, Sent>,
    lied: BTreeSet<LinkId>,
    /// Links that the machine must have identified as liars.
    pub(crate) caught: BTreeSet<LinkId>,
    /// Banned addresses that this side dialled, and banned hosts that links came
    /// from.
    banned_addrs: BTreeSet<Addr>,
    banned_hosts: BTreeSet<HostKey>,
    /// Addresses that the tracker named, and addresses of peers that delivered.
    named: BTreeSet<Addr>,
    proved: BTreeSet<Addr>,
    /// Addresses that the tracker named and that were not dialled yet.
    untried: BTreeSet<Addr>,
    /// Addresses that the tracker named as complete.
    complete_addrs: BTreeSet<Addr>,
    /// Addresses where a dial failed, or a link ended.
    failed_addrs: BTreeSet<Addr>,
    /// When the download last made progress.
    last_gain: Instant,
    /// When a link was last asked for the manifest, and when a page last
    /// arrived.
    started: Option<Instant>,
    came: Option<Instant>,
    /// When the last page arrived before this step. A page of this step does not
    /// count if it is seen to be a lie at once.
    came_before: Option<Instant>,
    /// When a link was last asked for the pages after the length: now, and before
    /// this step.
    promoted: Option<Instant>,
    promoted_before: Option<Instant>,
    /// The first chunk that was stored.
    first: Option<ChunkIndex>,
    /// Chunks that must be announced to the links that sent blocks of them.
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
    /// Those of whom it was said that they joined, and not that they left.
    owners: Vec<RemotePeer>,
    /// Those of whom it was said that they are banned.
    banned: Vec<RemotePeer>,
    /// Why it said that nothing arrives.
    stalled: Option<StallReason>,
    /// The user has paused the download, and others are still served or not.
    pub(crate) paused: Option<bool>,
    /// The download is being paused: links go that are of no use meanwhile.
    parts: bool,
    /// It is paused, and what was asked for may still come.
    arriving: bool,
    paused_at: Instant,
    /// The machine was told of a time after which nothing of that comes.
    has_arrived: bool,
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
            complete_addrs: BTreeSet::new(),
            failed_addrs: BTreeSet::new(),
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
            owners: Vec::new(),
            banned: Vec::new(),
            stalled: None,
            paused: None,
            parts: false,
            arriving: false,
            paused_at: now,
            has_arrived: false,
        }
    }

    fn chunks(&self) -> u32 {
        self.sample.manifest.geometry().chunks()
    }

    pub(crate) fn up(&mut self, link: LinkId, info: LinkInfo) {
        if let Some(addr) = info.addr.as_ref().filter(|_| info.dialled) {
            self.dialling.remove(addr);
            self.failed_addrs.insert(addr.clone());
        }
        self.fresh = Some(link);
        self.must_refuse = info.peer == Some(self.me) || self.is_banned(&info);
        let rests = self.paused.is_some_and(|serves| info.dialled || !serves);
        self.parts = rests && !self.must_refuse;
        self.must_refuse |= rests;
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
        let addr = info.addr.as_ref().filter(|_| info.dialled);
        let is_complete = addr.is_some_and(|addr| self.complete_addrs.contains(addr));
        let presumed = is_complete && !self.opened;
        let has_failed = addr.is_some_and(|addr| self.failed_addrs.contains(addr));
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
            pages_asked: VecDeque::new(),
            run: None,
            slow: 0,
            without: false,
            gave: BTreeSet::new(),
            received: 0,
            rejected: false,
            anything: false,
            presumed: presumed && !has_failed,
            perhaps_presumed: presumed,
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
            pages: Vec::new(),
            theirs: Vec::new(),
            reading: Vec::new(),
            has: BTreeSet::new(),
            choked: false,
            choked_since: None,
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

    /// The user pauses the download.
    pub(crate) fn pauses(&mut self, serve: bool) {
        if self.seeding || self.finishing {
            return;
        }
        if self.paused.is_none() {
            for seen in self.links.values_mut() {
                seen.run = None;
            }
            (self.started, self.promoted) = (None, None);
            (self.stalled, self.gave_up) = (None, false);
            (self.arriving, self.has_arrived) = (true, false);
            self.paused_at = self.now;
        }
        self.paused = Some(serve);
        self.parts = true;
    }

    /// The user resumes it.
    pub(crate) fn resumes(&mut self) {
        if self.paused.take().is_some() {
            self.arriving = false;
            self.last_gain = self.now;
        }
    }

    /// Whether the machine is downloading blocks.
    fn downloads(&self) -> bool {
        self.opened && !self.seeding
    }

    /// Messages were handed to the network, with this many bytes of blocks.
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

    pub(crate) fn named(&mut self, owners: impl Iterator<Item = (Addr, bool)>) {
        self.finding = false;
        for (addr, complete) in owners.filter(|(addr, _)| !self.banned_addrs.contains(addr)) {
            if complete {
                self.complete_addrs.insert(addr.clone());
            }
            if self.named.insert(addr.clone()) && !self.proved.contains(&addr) {
                self.untried.insert(addr);
            }
        }
    }

    pub(crate) fn dial_failed(&mut self, addr: &Addr) {
        self.dialling.remove(addr);
        self.failed_addrs.insert(addr.clone());
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
        self.paused = self.paused.filter(|_| !self.seeding);
        self.arriving &= !self.seeding;
    }

    /// The verdict on a chunk, and what follows from it.
    pub(crate) fn verified(&mut self, chunk: ChunkIndex) -> bool {
        let pieces = self
            .verifying
            .remove(&chunk)
            .expect("the machine asked to verify it");
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
        let &(_, link) = sent.expect("the sender of every piece is known");
        assert!(
            self.lied.contains(&link),
            "a link that did not lie is caught"
        );
        self.caught.insert(link);
        self.ban(link);
    }

    pub(crate) fn stored(&mut self, chunk: ChunkIndex) {
        let pieces = self
            .storing
            .remove(&chunk)
            .expect("the machine asked to store it");
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

    /// A block was read, or the read failed.
    pub(crate) fn read(&mut self, link: LinkId, block: BlockRange, works: bool) {
        if let Some(seen) = self.links.get_mut(&link) {
            if !works {
                seen.under_way -= u64::from(block.len).min(seen.under_way);
            }
            let at = seen.reading.iter().position(|b| *b == block);
            seen.reading
                .remove(at.expect("the machine asked to read it"));
        }
    }

    pub(crate) fn lies(&mut self, link: LinkId) {
        self.lied.insert(link);
    }
}
