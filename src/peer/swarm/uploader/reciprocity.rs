//! Which strangers may ask: tit for tat, as BitTorrent clients expect it (BEP 3).
//!
//! Among peers of this crate choking is no punishment, as all of them pass on what they
//! get. A client of another maker may not, and chokes those that do not give. So strangers
//! have slots, which are given in rounds of [`ROUND`]:
//!
//! - Who gives most in the last two rounds has *earned* a slot. One that gives nothing for so
//!   long (BEP 3 calls that snubbing) has not, whatever it gave before.
//! - The other slots are given *on trust*, in turns of [`TURN`]: to those of the host that has
//!   waited longest, so that nobody gains by more links or by coming again. These are the
//!   optimistic slots, and those that nobody has earned.
//! - Where the content is complete, nobody can earn anything, and all slots are given in
//!   turns.
//!
//! A slot that is free is given at once, and slots are taken away at the end of a round
//! only, as a client that is choked has to ask for everything again. Invariant: no more
//! strangers than there are slots may ask, and one that wants something gets a turn sooner or
//! later, if there is any slot that is given on trust.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::super::LinkId;
use super::accounts::Accounts;
use super::choker::Turn;
use super::receiver::Receiver;
use super::receivers::Receivers;
use super::standing::{Slot, Standing};

/// How long a round is (BEP 3): TCP needs some seconds to show how fast it is, and other
/// clients judge over ten or twenty.
const ROUND: Duration = Duration::from_secs(10);

/// How long a turn on trust is (BEP 3): enough to get something worth giving, and to give
/// it.
const TURN: Duration = Duration::from_secs(30);

/// A turn is longer if it did not suffice for a whole chunk, which alone can be passed on;
/// up to this.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// Gives the slots.
#[derive(Debug)]
pub(super) struct Reciprocity {
    /// How many strangers may ask.
    slots: usize,
    /// How many of them cannot be earned.
    optimistic: usize,
    /// The content is complete.
    seeding: bool,
    unsettled: bool,
    round_began: Option<Instant>,
    /// A stranger wants something.
    is_wanted: bool,
}

impl Reciprocity {
    pub(super) fn new(slots: usize, optimistic: usize) -> Self {
        Self {
            slots,
            optimistic: optimistic.min(slots),
            seeding: false,
            unsettled: false,
            round_began: None,
            is_wanted: false,
        }
    }

    /// Something may have changed that slots depend on.
    pub(super) fn unsettle(&mut self, changed: bool) {
        self.unsettled |= changed;
    }

    /// Whether nothing is wanted any more.
    pub(super) fn set_seeding(&mut self, seeding: bool) {
        self.seeding = seeding;
    }

    /// How many slots can be earned.
    pub(super) fn earnable(&self) -> usize {
        match self.seeding {
            true => 0,
            false => self.slots - self.optimistic,
        }
    }

    /// How many slots are given on trust in any case.
    pub(super) fn on_trust(&self) -> usize {
        self.slots - self.earnable()
    }

    /// When a round ends that somebody waits for.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.round_ends().filter(|_| self.is_wanted)
    }

    fn round_ends(&self) -> Option<Instant> {
        self.round_began?.checked_add(ROUND)
    }

    /// Which stranger may ask from now on, or may not any more; `None` if nothing changes.
    pub(super) fn next_turn(
        &mut self,
        now: Instant,
        receivers: &mut Receivers,
        accounts: &mut Accounts,
        chunk_len: u64,
    ) -> Option<Turn> {
        let is_over = self.round_ends().is_some_and(|end| end <= now);
        if !self.unsettled && !is_over {
            return None;
        }
        let began = *self.round_began.get_or_insert(now);
        if is_over {
            self.end_round(now, receivers, accounts, chunk_len);
            let rounds = now.saturating_duration_since(began).as_secs() / ROUND.as_secs();
            let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
            self.round_began = began.checked_add(ROUND.saturating_mul(rounds));
            for (_, standing) in receivers.standings_mut() {
                standing.rounds_ended(rounds);
            }
        }
        self.fill(now, receivers, accounts);
        let turn = apply(receivers);
        self.unsettled = turn.is_some();
        self.is_wanted = receivers.strangers().any(|(_, r, _)| r.wants());
        turn
    }

    /// Decides anew who has a slot.
    fn end_round(
        &mut self,
        now: Instant,
        receivers: &mut Receivers,
        accounts: &mut Accounts,
        chunk_len: u64,
    ) {
        let givers = receivers.strangers();
        let givers = givers.filter(|(_, r, s)| r.wants() && s.given() > 0);
        let mut givers: Vec<_> = givers
            .map(|(link, r, s)| (Reverse(s.given()), r.lot(), link))
            .collect();
        givers.sort_unstable();
        givers.truncate(self.earnable());
        let (earners, gave) = (
            givers.len(),
            givers.iter().map(|(Reverse(given), ..)| given),
        );
        let gave = gave.fold(0_u64, |sum, given| sum.saturating_add(*given));
        let is_giver = |link: LinkId| givers.iter().any(|(.., giver)| *giver == link);
        let room = self.slots - givers.len();
        let others = receivers.strangers().filter(|(link, ..)| !is_giver(*link));
        let (holding, waiting): (Vec<_>, Vec<_>) = others.partition(|(.., s)| s.has_slot());
        let waiting = waiting.iter().filter(|(_, r, _)| r.wants()).count();
        // Those who keep their slots longest come first.
        let mut holding: Vec<_> = holding
            .into_iter()
            .map(|(link, r, s)| {
                (
                    has_had_its_turn(now, r, s, chunk_len),
                    Reverse(s.since()),
                    link,
                )
            })
            .collect();
        holding.sort_unstable();
        let mut leaves = holding.len().saturating_sub(room);
        let over = holding.iter().filter(|(is_over, ..)| *is_over).count();
        let free = room.saturating_sub(holding.len());
        leaves = leaves.max(waiting.saturating_sub(free).min(over));
        for (.., link) in holding.drain(holding.len() - leaves..) {
            place(now, receivers, accounts, link, Slot::None);
        }
        for (.., link) in holding {
            place(now, receivers, accounts, link, Slot::OnTrust);
        }
        for (.., link) in givers {
            place(now, receivers, accounts, link, Slot::Earned);
            weigh(receivers, link, (earners, gave));
        }
    }

    /// Gives the slots that are free.
    fn fill(&self, now: Instant, receivers: &mut Receivers, accounts: &mut Accounts) {
        let has = |receivers: &Receivers, slot| {
            let strangers = receivers.strangers();
            strangers.filter(|(.., s)| s.slot() == slot).count()
        };
        loop {
            let earned = has(receivers, Slot::Earned);
            let is_full = earned + has(receivers, Slot::OnTrust) >= self.slots;
            // It keeps its slot as long as nobody waits for it: it may change its mind.
            let spare = first(receivers, |r, s| r.has_said_no() && s.has_slot());
            if is_full && spare.is_none() {
                return;
            }
            let is_earnable = earned < self.earnable();
            let waiting = receivers.strangers();
            let waiting = waiting.filter(|(_, r, s)| r.wants() && !s.has_slot());
            let next = waiting.min_by_key(|(_, r, s)| {
                let given = Reverse(if is_earnable { s.given() } else { 0 });
                let waits_since = (accounts.trusted_at(r.host()), s.since());
                // Those that came together go on together: of them, the one that had least.
                (given, waits_since, r.given(), r.lot())
            });
            let Some((link, _, standing)) = next else {
                return;
            };
            let slot = match is_earnable && standing.given() > 0 {
                true => Slot::Earned,
                false => Slot::OnTrust,
            };
            if let Some(spare) = spare.filter(|_| is_full) {
                place(now, receivers, accounts, spare, Slot::None);
                continue;
            }
            place(now, receivers, accounts, link, slot);
        }
    }
}

/// A stranger has this slot from now on. Its host has had its turn when one begins that is
/// given on trust, and when one ends.
fn place(
    now: Instant,
    receivers: &mut Receivers,
    accounts: &mut Accounts,
    link: LinkId,
    slot: Slot,
) {
    receivers.update(link, |receiver| {
        let host = receiver.host();
        if let Some(standing) = receiver.standing_mut()
            && standing.slot() != slot
        {
            if slot == Slot::None || slot == Slot::OnTrust && !standing.has_slot() {
                accounts.trust(host, now);
            }
            standing.set_slot(now, slot);
        }
    });
}

/// What a stranger that has earned its slot gave, beside all of so many together.
fn weigh(receivers: &mut Receivers, link: LinkId, (earners, gave): (usize, u64)) {
    receivers.update(link, |receiver| {
        if let Some(standing) = receiver.standing_mut() {
            standing.weigh(earners, gave);
        }
    });
}

/// Whether the slot of a stranger may be given to another one that waits.
fn has_had_its_turn(now: Instant, receiver: &Receiver, of: &Standing, chunk_len: u64) -> bool {
    let held = of.since().map(|since| now.saturating_duration_since(since));
    let held = held.unwrap_or_default();
    let is_idle = held >= ROUND && of.taken() == 0;
    let is_enough = receiver.turn_bytes() >= chunk_len;
    // It began shortly after the end of a round, or in the middle of one.
    let is_over = held >= TURN.saturating_sub(ROUND / 2);
    !receiver.wants() || is_idle || is_over && is_enough || held >= LONGEST_TURN
}

/// The first stranger that does not know yet whether it has a slot. Those that have none
/// any more come first.
fn apply(receivers: &mut Receivers) -> Option<Turn> {
    if let Some(link) = first(receivers, |r, s| !s.has_slot() && !r.is_choked()) {
        let rejected = receivers.update(link, Receiver::choke).unwrap_or_default();
        return Some(Turn::Choke { link, rejected });
    }
    let link = first(receivers, |r, s| s.has_slot() && r.is_choked())?;
    receivers.update(link, Receiver::begin_turn);
    Some(Turn::Unchoke { link })
}

/// The first stranger of which this is true.
fn first(receivers: &Receivers, is: impl Fn(&Receiver, &Standing) -> bool) -> Option<LinkId> {
    let mut strangers = receivers.strangers();
    let found = strangers.find(|(_, receiver, standing)| is(receiver, standing));
    found.map(|(link, ..)| link)
}
