//! Whose turn it is.
//!
//! As long as no more links want something than there are slots, all may ask.
//! Beyond that, a turn is an invitation to ask for one chunk, and goes to the
//! most deprived link. It is given as late as the line allows, when no more
//! than the backlog waits: what a link has asked for here, it asks for nowhere
//! else, so requests that wait long are worse than none. A link that does not
//! answer in time, or says that it wants nothing, is passed over until it
//! speaks again.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::super::gate::Gate;
use super::accounts::{Accounts, Rank};
use super::receiver::{LinkWindow, Receiver};
use super::receivers::Receivers;
use super::trials::Trials;
use crate::content::BlockRange;

/// How long an invited link is waited for before another is invited: a round
/// trip between most hosts.
const ANSWER: Duration = Duration::from_millis(100);

/// The shortest pause that counts as one, however short the chunks are.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// A change of turns, to be told to the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A link's turn is over; what it had asked for is rejected.
    Choke {
        /// The link.
        link: LinkId,
        /// Its requests that waited.
        rejected: Vec<BlockRange>,
    },
    /// It is a link's turn.
    Unchoke {
        /// The link.
        link: LinkId,
    },
}

/// How fast this peer sends, as far as turns depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The length of a block in bytes.
    pub(super) block_len: u64,
    /// The length of a chunk in bytes, and how long it takes.
    pub(super) chunk_len: u64,
    pub(super) chunk_time: Duration,
    /// Bytes that should wait behind those on their way.
    pub(super) backlog: u64,
    pub(super) window: LinkWindow,
}

/// Decides whose turn it is.
#[derive(Debug)]
pub(super) struct Choker {
    /// How many links are served without taking turns.
    slots: usize,
    /// Whether something has changed that turns depend on.
    unsettled: bool,
    /// When an invited link has been waited for long enough.
    invitation_ends: Option<Instant>,
    lull: Lull,
    trials: Trials,
    /// When one more link may be tried that has told of nothing, because those
    /// on trial took too long to tell.
    trial_ends: Option<Instant>,
}

/// Whether nobody wants anything but links that come last: those of hosts that
/// had more than their share, and those on trial that there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lull {
    /// No link that comes last waits.
    NotNeeded,
    /// They wait until then: the others often pause for less.
    Begins(Instant),
    /// They are served.
    Here,
}

/// How deprived a link is, its lot, and which link it is.
type Ranked = ((bool, Rank), u64, LinkId);

/// The links that want something, as far as the next turn depends on them.
#[derive(Debug, Default)]
struct Look {
    /// How many there are.
    wanting: usize,
    /// Bytes that wait on links whose turn it is.
    ready: u64,
    /// Links that were invited and have not answered.
    expected: usize,
    /// The most deprived of those whose turn it is not.
    next: Option<Ranked>,
    /// The same, of those that may be invited as far as the limits go.
    allowed: Option<Ranked>,
    /// The accounts of the hosts of the others.
    held: Vec<usize>,
    /// The least deprived of those that had their chunk.
    spent: Option<Ranked>,
    /// The least deprived of those that were sent nothing yet.
    unused: Option<Unused>,
    /// One whose turn ends at once, as others lack something: it does not tell
    /// of what it gets, or is new and has to wait.
    turned_away: Option<LinkId>,
}

/// A link that was sent nothing in its turn.
#[derive(Debug, Clone, Copy)]
struct Unused {
    ranked: Ranked,
    /// Bytes that wait on it.
    waiting: u64,
    /// It has not asked yet.
    invited: bool,
}

impl Look {
    /// A link wants something, and it is not its turn.
    /// The limits allow it, or not.
    fn add_choked(&mut self, ranked: Ranked, must_wait: bool, host: usize, allowed: bool) {
        self.wanting += 1;
        if must_wait {
            return;
        }
        let is_first = |best: Option<Ranked>| best.is_none_or(|best| ranked < best);
        if is_first(self.next) {
            self.next = Some(ranked);
        }
        if !allowed {
            self.held.push(host);
        } else if is_first(self.allowed) {
            self.allowed = Some(ranked);
        }
    }

    /// A link had its chunk in this turn.
    fn add_spent(&mut self, ranked: Ranked) {
        if self.spent.is_none_or(|last| ranked > last) {
            self.spent = Some(ranked);
        }
    }

    /// A link's turn goes on, and blocks may be sent to it.
    fn add_ready(&mut self, receiver: &Receiver, ranked: Ranked, invited: bool) {
        let waiting = receiver.waiting_bytes();
        self.ready += waiting;
        let is_last = |last: Unused| ranked > last.ranked;
        if receiver.is_unused() && self.unused.is_none_or(is_last) {
            self.unused = Some(Unused {
                ranked,
                waiting,
                invited,
            });
        }
    }
}

impl Choker {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            unsettled: false,
            invitation_ends: None,
            lull: Lull::NotNeeded,
            trials: Trials::default(),
            trial_ends: None,
        }
    }

    /// Something may have changed that turns depend on.
    pub(super) fn unsettle(&mut self, changed: bool) {
        self.unsettled |= changed;
    }

    /// A link has told of something: if it was on trial, it passed.
    pub(super) fn told(&mut self, receiver: &mut Receiver) {
        if receiver.pass_trial() {
            self.trials.passed();
        }
    }

    /// A link is gone: if it was on trial, the trial has lapsed.
    pub(super) fn removed(&mut self, now: Instant, receiver: &Receiver, chunk_time: Duration) {
        if let Some((began, _)) = receiver.trial() {
            self.trials.lapsed(now, began, chunk_time);
        }
        self.unsettled = true;
    }

    /// Whether turns may change now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let lapsed = self.invitation_ends.is_some_and(|end| end <= now);
        let lull = self.lull_begins().is_some_and(|begin| begin <= now);
        let trial = self.trial_ends.is_some_and(|end| end <= now);
        self.unsettled || lapsed || lull || trial
    }

    /// When turns may change, though nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let times = self.invitation_ends.into_iter();
        times.chain(self.lull_begins()).chain(self.trial_ends).min()
    }

    fn lull_begins(&self) -> Option<Instant> {
        match self.lull {
            Lull::Begins(at) => Some(at),
            Lull::NotNeeded | Lull::Here => None,
        }
    }

    /// Whose turn begins or ends now; `None` if nothing changes. O(links).
    pub(super) fn next_turn(
        &mut self,
        now: Instant,
        receivers: &mut Receivers,
        accounts: &mut Accounts,
        pace: &Pace,
        gate: Option<&mut Gate>,
    ) -> Option<Turn> {
        if receivers.are_strangers() {
            // They do not take these turns.
            self.unsettled = false;
            (self.invitation_ends, self.trial_ends) = (None, None);
            return None;
        }
        let turn = self.decide(now, receivers, accounts, pace, gate);
        self.unsettled = turn.is_some();
        turn
    }

    fn decide(
        &mut self,
        now: Instant,
        receivers: &mut Receivers,
        accounts: &mut Accounts,
        pace: &Pace,
        mut gate: Option<&mut Gate>,
    ) -> Option<Turn> {
        loop {
            let look = self.look(now, receivers, accounts, pace, gate.as_deref());
            if let Some(link) = look.turned_away {
                return Some(choke(receivers, link));
            }
            let crowded = look.wanting > self.slots;
            let starved = look.ready < pace.backlog && look.expected == 0;
            if let Some((rank, _, spent)) = look.spent {
                if crowded && look.next.is_some_and(|(best, ..)| best <= rank) {
                    return Some(choke(receivers, spent));
                }
                if starved || !crowded {
                    // It is still the most deprived, or alone.
                    receivers.update(spent, Receiver::begin_turn);
                    continue;
                }
            }
            let mut next = look.next.filter(|_| starved || !crowded);
            if let Some(gate) = &mut gate {
                for &host in look.held.iter().filter(|_| next.is_some()) {
                    gate.want_invitation(accounts.host(host), pace.block_len);
                }
                next = look.allowed.filter(|_| next.is_some());
            }
            if let Some((.., next)) = next {
                if let (Some(gate), Some(receiver)) = (gate, receivers.get(next)) {
                    gate.invited(accounts.host(receiver.host()));
                }
                receivers.update(next, Receiver::begin_turn);
                return Some(Turn::Unchoke { link: next });
            }
            let unused = look.unused.filter(|_| crowded)?;
            let others_wait = look.ready - unused.waiting >= pace.backlog;
            let others_answer = unused.invited && look.expected > 1;
            let (.., link) = unused.ranked;
            return (others_wait || others_answer).then(|| choke(receivers, link));
        }
    }

    /// Looks at all links. Those that were invited for too long let their turn
    /// pass.
    fn look(
        &mut self,
        now: Instant,
        receivers: &mut Receivers,
        accounts: &mut Accounts,
        pace: &Pace,
        gate: Option<&Gate>,
    ) -> Look {
        let lacks = |r: &Receiver| r.lacks_something() && !accounts.is_silent(r);
        let others_lack = receivers.own().any(lacks);
        let may_try = self.update_trials(now, receivers, accounts, pace.chunk_time);
        let mut look = Look::default();
        self.invitation_ends = None;
        for (link, receiver) in receivers.own_mut() {
            if !receiver.wants() {
                receiver.withdraw_invitation();
                continue;
            }
            if others_lack && accounts.is_silent(receiver) {
                if !receiver.is_choked() {
                    look.turned_away = Some(link);
                }
                continue;
            }
            let rank = (receiver.comes_last(), accounts.rank(receiver));
            let ranked = (rank, receiver.lot(), link);
            let must_wait = accounts.is_ahead(receiver) && self.lull != Lull::Here
                || receiver.is_blank() && !may_try;
            let host = receiver.host();
            let may_invite = |gate: &Gate| gate.may_invite(accounts.host(host));
            if receiver.is_choked() {
                look.add_choked(ranked, must_wait, host, gate.is_none_or(may_invite));
                continue;
            }
            if must_wait && receiver.is_initial() && others_lack {
                look.wanting += 1;
                look.turned_away = Some(link);
                continue;
            }
            let invitation = receiver.invite(now).map(|since| since + ANSWER);
            if invitation.is_some_and(|end| end <= now) {
                receiver.let_turn_pass();
                accounts.passed(receiver.host());
                continue;
            }
            let invited = invitation.is_some();
            self.invitation_ends = self.invitation_ends.into_iter().chain(invitation).min();
            look.wanting += 1;
            if receiver.turn_bytes() >= pace.chunk_len.max(1) {
                look.add_spent(ranked);
            } else if receiver.has_room(now, pace.window) {
                look.add_ready(receiver, ranked, invited);
                look.expected += usize::from(invited && accounts.is_expected(receiver));
            }
        }
        look
    }

    /// Ends the trials that took too long, and returns whether one more link
    /// may be tried.
    fn update_trials(
        &mut self,
        now: Instant,
        receivers: &mut Receivers,
        accounts: &Accounts,
        chunk_time: Duration,
    ) -> bool {
        let mut under_way = 0;
        let mut first = None;
        for (_, receiver) in receivers.own_mut() {
            let Some((began, since)) = receiver.trial() else {
                continue;
            };
            if since + Trials::patience(chunk_time) <= now {
                receiver.lapse_trial();
                self.trials.lapsed(now, began, chunk_time);
            }
            let end = since + Trials::hold(chunk_time);
            if end > now {
                under_way += 1;
                first = first.into_iter().chain([end]).min();
            }
        }
        let has_room = self.trials.has_room(now, under_way);
        self.update_lull(now, receivers, accounts, chunk_time, has_room);
        let spare = self.lull == Lull::Here && self.trials.has_spare(under_way);
        let may_try = has_room || spare;
        let pause = self.trials.next().filter(|next| *next > now);
        self.trial_ends = first.into_iter().chain(pause).min().filter(|_| !may_try);
        may_try
    }

    /// Notes whether anybody wants something but links that come last. Those
    /// are served when the others have not wanted anything for as long as a
    /// chunk takes.
    fn update_lull(
        &mut self,
        now: Instant,
        receivers: &Receivers,
        accounts: &Accounts,
        chunk_time: Duration,
        has_room: bool,
    ) {
        let is_last = |r: &Receiver| accounts.is_ahead(r) || r.is_blank() && !has_room;
        let is_other = |r: &Receiver| (r.wants() || r.under_way() > 0) && !is_last(r);
        let waits = |r: &Receiver| r.wants() && is_last(r);
        self.lull = if !receivers.own().any(waits) {
            Lull::NotNeeded
        } else if self.lull == Lull::NotNeeded || receivers.own().any(is_other) {
            Lull::Begins(now + chunk_time.max(MIN_PAUSE))
        } else {
            match self.lull {
                Lull::Begins(at) if at > now => Lull::Begins(at),
                _ => Lull::Here,
            }
        };
    }
}

fn choke(receivers: &mut Receivers, link: LinkId) -> Turn {
    let rejected = receivers.update(link, Receiver::choke).unwrap_or_default();
    Turn::Choke { link, rejected }
}
