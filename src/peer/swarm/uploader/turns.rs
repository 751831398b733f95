//! Whose turn it is.
//!
//! As long as no more links want something than there are slots, all may ask.
//! Beyond, a turn is an invitation to ask for one chunk, and goes to the most
//! deprived. It is given as late as the line allows, when no more than the
//! backlog waits: what a link has asked for here it asks for nowhere else, so
//! requests that wait long are worse than none. A link that does not answer in
//! time, or says that it wants nothing, is passed over until it speaks again.

use std::time::{Duration, Instant};

use super::{LinkId, Rank, Receiver, Turn, Uploader};

/// For how long the line waits for an invited link before it invites another:
/// a round trip between most hosts.
const ANSWER: Duration = Duration::from_millis(100);

/// As long as a peer has given fewer turns, nobody is expected to have anything.
/// Afterwards who has told of no chunk at all comes behind the others, since the
/// whole swarm serves it, and has the first claim to one turn in so many: the
/// optimistic unchoke of BitTorrent.
const UNESTABLISHED: u64 = 8;
const OPTIMISTIC: u64 = 16;

/// The bounds of the time of a chunk, as far as it matters for whether others
/// want something: what is shorter is no pause, and what is longer is waste.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How deprived a link is, its lot, and which link it is.
type Ranked = ((bool, Rank), u64, LinkId);

/// The links that want something, as the next turn depends on them.
#[derive(Debug, Default)]
struct Look {
    wanting: usize,
    /// Bytes that wait on links whose turn it is.
    ready: u64,
    /// Links that were invited and have not answered.
    expected: usize,
    /// The most deprived of those whose turn it is not.
    next: Option<Ranked>,
    /// The least deprived of those that had their chunk.
    spent: Option<Ranked>,
    /// The least deprived of those that were sent nothing yet, the bytes that
    /// wait on it, and whether it was invited only now.
    unused: Option<(Ranked, u64, bool)>,
    /// One whose turn it is, though it does not tell of what it gets and others
    /// lack something.
    silent: Option<LinkId>,
}

impl Uploader {
    /// Whose turn begins or ends now; `None` when all is well. O(links), and
    /// nothing when nothing has changed.
    pub fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        let lapsed = self.invitation_ends.is_some_and(|end| end <= now);
        let calm = self.calm_from.is_some_and(|calm| calm <= now) && !self.is_calm;
        if !self.unsettled && !lapsed && !calm {
            return None;
        }
        let turn = self.turn(now);
        self.unsettled = turn.is_some();
        turn
    }

    fn turn(&mut self, now: Instant) -> Option<Turn> {
        let backlog = self.backlog(now);
        loop {
            let look = self.look(now);
            if let Some(silent) = look.silent {
                return Some(self.choke(silent));
            }
            let crowded = look.wanting > self.limits.slots;
            let starved = look.ready < backlog && look.expected == 0;
            if let Some((rank, _, spent)) = look.spent {
                if crowded && look.next.is_some_and(|(best, ..)| best <= rank) {
                    return Some(self.choke(spent));
                }
                if starved || !crowded {
                    // It is still the most deprived, or alone.
                    self.turns += 1;
                    self.begin_turn(spent);
                    continue;
                }
            }
            if let Some((.., next)) = look.next.filter(|_| starved || !crowded) {
                return Some(self.unchoke(next));
            }
            let ((.., unused), waiting, invited) = look.unused.filter(|_| crowded)?;
            let others_answer = invited && look.expected > 1;
            let dispensable = look.ready - waiting >= backlog || others_answer;
            return dispensable.then(|| self.choke(unused));
        }
    }

    fn look(&mut self, now: Instant) -> Look {
        let (limits, block_len) = (self.limits, self.block_len);
        let mut look = Look::default();
        self.invitation_ends = None;
        let silences = self.receivers.values().map(|r| self.accounts.is_silent(r));
        let others_lack = self.receivers.values().zip(silences);
        let others_lack = others_lack.filter(|(r, silent)| r.lacks > 0 && !silent);
        let others_lack = others_lack.count() > 0;
        let blank_first = self.turns < UNESTABLISHED || self.turns.is_multiple_of(OPTIMISTIC);
        self.note_calm(now);
        let is_calm = self.is_calm;
        for (link, receiver) in self.receivers.iter_mut() {
            if !receiver.wants() {
                receiver.invited = None;
                continue;
            }
            if others_lack && self.accounts.is_silent(receiver) {
                if !receiver.choked {
                    look.silent = Some(link);
                }
                continue;
            }
            let blank = receiver.has == 0;
            let rank = (blank != blank_first, self.accounts.rank(receiver));
            let ranked = (rank, receiver.lot, link);
            if receiver.choked {
                look.wanting += 1;
                if !is_calm && self.accounts.is_ahead(receiver) {
                    continue;
                }
                if look.next.is_none_or(|best| ranked < best) {
                    look.next = Some(ranked);
                }
                continue;
            }
            let mut invited = false;
            if receiver.turn == 0 && receiver.waiting.is_empty() && receiver.under_way == 0 {
                let end = *receiver.invited.get_or_insert(now) + ANSWER;
                if end <= now {
                    receiver.invited = None;
                    receiver.declined = true;
                    receiver.passed += 1;
                    self.accounts.passed(receiver.host, true);
                    continue;
                }
                invited = true;
                let sooner = self.invitation_ends.is_none_or(|first| end < first);
                if sooner {
                    self.invitation_ends = Some(end);
                }
            }
            look.wanting += 1;
            if receiver.turn >= self.chunk_len.max(1) {
                if look.spent.is_none_or(|last| ranked > last) {
                    look.spent = Some(ranked);
                }
                continue;
            }
            if receiver.under_way >= Self::link_window(limits, block_len, receiver)
                || receiver.is_stalled(now)
            {
                continue;
            }
            let waiting = receiver.waiting.iter().map(|block| u64::from(block.len));
            let waiting: u64 = waiting.sum();
            look.ready += waiting;
            look.expected += usize::from(invited && self.accounts.is_expected(receiver));
            let unused = receiver.turn == 0 && receiver.under_way == 0;
            if unused && look.unused.is_none_or(|(last, ..)| ranked > last) {
                look.unused = Some((ranked, waiting, invited));
            }
        }
        look
    }

    /// Hosts that had more than their share are served when the others have not
    /// wanted anything for as long as a chunk takes: they often pause for less.
    fn note_calm(&mut self, now: Instant) {
        let others = |r: &Receiver| (r.wants() || r.under_way > 0) && !self.accounts.is_ahead(r);
        let waits = |r: &Receiver| r.wants() && r.choked && self.accounts.is_ahead(r);
        if !self.receivers.values().any(waits) {
            self.calm_from = None;
            self.is_calm = true;
        } else if self.calm_from.is_none() || self.receivers.values().any(others) {
            let rate = self.meter.rate(now).unwrap_or(0.0);
            let chunk = Duration::try_from_secs_f64(self.chunk_len as f64 / rate);
            let pause = chunk.unwrap_or(MAX_PAUSE).clamp(MIN_PAUSE, MAX_PAUSE);
            self.calm_from = Some(now + pause);
            self.is_calm = false;
        } else {
            self.is_calm = self.calm_from.is_some_and(|calm| calm <= now);
        }
    }

    fn choke(&mut self, link: LinkId) -> Turn {
        let mut rejected = Vec::new();
        if let Some(receiver) = self.receivers.get_mut(link) {
            receiver.choked = true;
            receiver.invited = None;
            rejected.extend(receiver.waiting.drain(..));
            self.waiting -= rejected.len();
        }
        Turn::Choke { link, rejected }
    }

    fn unchoke(&mut self, link: LinkId) -> Turn {
        if let Some(receiver) = self.receivers.get_mut(link) {
            receiver.choked = false;
        }
        self.turns += 1;
        self.begin_turn(link);
        Turn::Unchoke { link }
    }

    fn begin_turn(&mut self, link: LinkId) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            receiver.turn = 0;
        }
    }
}
