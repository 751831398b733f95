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
const UNESTABLISHED: u64 = 12;
const OPTIMISTIC: u64 = 12;

/// For how many chunks' time a link that has told of nothing keeps others like it
/// waiting, after its first chunk or the last that it took of it; and how many such
/// links are served at a time as long as no link has told of anything.
const TRIAL_CHUNKS: u32 = 8;
const FIRST_TRIALS: usize = 4;

/// What is shorter is no pause, however short the chunks are.
const MIN_PAUSE: Duration = Duration::from_millis(10);

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
        let trial = self.trial_ends.is_some_and(|end| end <= now);
        if !self.unsettled && !lapsed && !calm && !trial {
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
                    self.count_turn();
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
        let accounts = &self.accounts;
        let lacks = |r: &Receiver| r.lacks > 0 && !accounts.is_silent(r);
        let others_lack = self.receivers.values().any(lacks);
        let blank_first = self.turns < UNESTABLISHED || self.optimistic;
        self.note_calm(now, blank_first);
        let is_calm = self.is_calm;
        let may_try = self.may_try(now);
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
            let behind = blank && receiver.old || blank != blank_first;
            let rank = (behind, self.accounts.rank(receiver));
            let ranked = (rank, receiver.lot, link);
            let last = self.accounts.is_ahead(receiver) || blank && !blank_first;
            let waits = last && !is_calm || blank && !may_try;
            if receiver.choked {
                look.wanting += 1;
                if waits {
                    continue;
                }
                if look.next.is_none_or(|best| ranked < best) {
                    look.next = Some(ranked);
                }
                continue;
            }
            let is_unused = receiver.turn == 0 && receiver.under_way == 0;
            if waits && is_unused && !receiver.given && others_lack {
                // A link starts unchoked.
                look.wanting += 1;
                look.silent = Some(link);
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

    /// Whether one more link is tried that has told of no chunk. Who tells makes
    /// room for the next at once, so an honest crowd is served as fast as it
    /// answers, and so many as have told leave room for twice as many that have not.
    fn may_try(&mut self, now: Instant) -> bool {
        let hold = self.chunk_time(now) * TRIAL_CHUNKS;
        let (mut trials, mut first, mut limit) = (0, None::<Instant>, FIRST_TRIALS);
        for receiver in self.receivers.values() {
            if receiver.has > 0 {
                limit += 2;
                continue;
            }
            // One that pauses in the middle of its chunk is not waited for longer.
            let begun = receiver.mute.is_some() || receiver.turn > 0 || receiver.under_way > 0;
            let since = receiver.mute.or(receiver.moved).filter(|_| begun);
            if let Some(end) = since.map(|since| since + hold).filter(|end| *end > now) {
                trials += 1;
                first = first.into_iter().chain([end]).min();
            }
        }
        let full = trials >= limit;
        self.trial_ends = first.filter(|_| full);
        !full
    }

    /// Hosts that had more than their share, and links that have told of nothing,
    /// are served when the others have not wanted anything for as long as a chunk
    /// takes: they often pause for less.
    fn note_calm(&mut self, now: Instant, blank_first: bool) {
        let last = |r: &Receiver| self.accounts.is_ahead(r) || r.has == 0 && !blank_first;
        let others = |r: &Receiver| (r.wants() || r.under_way > 0) && !last(r);
        let waits = |r: &Receiver| r.wants() && last(r);
        if !self.receivers.values().any(waits) {
            self.calm_from = None;
            self.is_calm = false;
        } else if self.calm_from.is_none() || self.receivers.values().any(others) {
            self.calm_from = Some(now + self.chunk_time(now).max(MIN_PAUSE));
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
        self.count_turn();
        self.begin_turn(link);
        Turn::Unchoke { link }
    }

    /// The claim of those that have told of nothing stands until one of them is
    /// served: what they are invited to may come late.
    fn count_turn(&mut self) {
        self.turns += 1;
        let blank = self.receivers.values().filter(|r| r.has == 0).count();
        // Where most have nothing, they have every second turn.
        let most = 2 * blank > self.receivers.len();
        let period = if most { 2 } else { OPTIMISTIC };
        self.optimistic |= self.turns.is_multiple_of(period);
    }

    fn begin_turn(&mut self, link: LinkId) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            receiver.turn = 0;
            receiver.given = true;
        }
    }
}
