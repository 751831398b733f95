//! Whose turn it is.
//!
//! As long as no more links want something than there are slots, all may ask.
//! Beyond, a turn is an invitation to ask for one chunk, and goes to the most
//! deprived. It is given as late as the line allows, when no more than the
//! backlog waits: what a link has asked for here it asks for nowhere else, so
//! requests that wait long are worse than none. A link that does not answer in
//! time, or says that it wants nothing, is passed over until it speaks again.

use std::time::{Duration, Instant};

use super::trials::Trials;
use super::{LinkId, Rank, Receiver, Trial, Turn, Uploader};

/// For how long the line waits for an invited link before it invites another:
/// a round trip between most hosts.
const ANSWER: Duration = Duration::from_millis(100);

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
        let may_try = self.may_try(now);
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
            let rank = (blank && receiver.old, self.accounts.rank(receiver));
            let ranked = (rank, receiver.lot, link);
            let waits = self.accounts.is_ahead(receiver) && !is_calm || blank && !may_try;
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

    /// Whether one more link is tried that has told of no chunk.
    fn may_try(&mut self, now: Instant) -> bool {
        let chunk_time = self.chunk_time(now);
        let (mut under_way, mut first) = (0, None::<Instant>);
        for receiver in self.receivers.values_mut() {
            let Trial::Began(began) = receiver.trial else {
                continue;
            };
            // One that pauses in the middle of its chunk is not waited for longer.
            let since = receiver.mute.or(receiver.moved).unwrap_or(began);
            if since + Trials::patience(chunk_time) <= now {
                receiver.trial = Trial::Lapsed;
                self.trials.lapsed(now, began, chunk_time);
            }
            let end = since + Trials::hold(chunk_time);
            if end > now {
                under_way += 1;
                first = first.into_iter().chain([end]).min();
            }
        }
        let has_room = self.trials.has_room(now, under_way);
        self.note_calm(now, has_room);
        let may_try = has_room || self.is_calm && self.trials.has_spare(under_way);
        let pause = self.trials.next().filter(|next| *next > now);
        self.trial_ends = first.into_iter().chain(pause).min().filter(|_| !may_try);
        may_try
    }

    /// Hosts that had more than their share, and links that have told of nothing
    /// when others like them came to nothing, are served when the others have not
    /// wanted anything for as long as a chunk takes: they often pause for less.
    fn note_calm(&mut self, now: Instant, has_room: bool) {
        let last = |r: &Receiver| self.accounts.is_ahead(r) || r.has == 0 && !has_room;
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
        self.begin_turn(link);
        Turn::Unchoke { link }
    }

    fn begin_turn(&mut self, link: LinkId) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            receiver.turn = 0;
            receiver.given = true;
        }
    }
}
