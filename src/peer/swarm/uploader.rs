//! The uploader: whose requests are taken, and which is answered next.
//!
//! A peer that sends to everybody at once is slow to each, and everybody waits
//! for their first whole chunk. A peer that serves a few at full speed sooner
//! has others who help it. So when more links want something than there are
//! slots, they take turns: see [`choker`]. Strangers, which may not help anybody, are
//! chosen in another way: see [`reciprocity`].
//!
//! A bounded number of bytes is on its way to the network at any time, so that
//! the choice stays open as long as possible. Bytes before a link that does not
//! read stop counting after a while, so that they hold nobody up.

mod accounts;
mod choker;
mod lanes;
mod receiver;
mod receivers;
mod reciprocity;
mod standing;
mod trials;

use std::time::{Duration, Instant};

pub use choker::Turn;

use accounts::Accounts;
use choker::{Choker, Pace};
use lanes::{Lane, Lanes};
use receiver::{LinkWindow, Receiver, STALLED};
use receivers::Receivers;
use reciprocity::Reciprocity;
use standing::Standing;

use super::LinkId;
use super::gate::{Allowance, Direction, Gate};
use super::rate::RateMeter;
use crate::content::BlockRange;
use crate::protocol::HostKey;

/// For how long, at the rate at which the network takes blocks, blocks are on
/// their way: longer than the pauses of a busy program.
const AHEAD: Duration = Duration::from_millis(50);

/// For how long, at that rate, requests wait behind them: an unchoked link
/// needs a round trip to ask.
const BACKLOG: Duration = Duration::from_millis(50);

/// How long a link may take to store a chunk and to tell of it, when others want
/// its place.
const TELL: Duration = Duration::from_secs(2);

/// The longest time that a chunk counts as on its way.
const MAX_CHUNK_TIME: Duration = Duration::from_secs(1);

/// How long a request may wait for the limits. After that its link is choked, and invited
/// again when a block may be sent to it: nobody takes a peer for silent that has choked.
/// Others are patient with a new link for half a second.
const HELD: Duration = Duration::from_millis(250);

/// The bounds of an [`Uploader`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct UploadLimits {
    /// Bytes on their way, over all links.
    pub window: u64,
    /// Requests that wait on one link.
    pub requests: usize,
    /// Links that are served without taking turns.
    pub slots: usize,
    /// Strangers that may ask at a time, and how many of these do not depend on what they
    /// give.
    pub strangers: (usize, usize),
}

impl UploadLimits {
    /// The bounds of an uploader.
    pub const fn new(window: u64, requests: usize, slots: usize) -> Self {
        Self {
            window,
            requests,
            slots,
            strangers: (slots, 1),
        }
    }

    /// The same, with so many slots for strangers, of which so many are given on trust.
    #[must_use]
    pub const fn strangers(mut self, slots: usize, on_trust: usize) -> Self {
        self.strangers = (slots, on_trust);
        self
    }
}

/// The requests of all links, and the bytes on their way.
#[derive(Debug)]
pub struct Uploader {
    limits: UploadLimits,
    seed: u64,
    /// The length of a block and of a chunk, in bytes.
    block_len: u64,
    chunk_len: u64,
    meter: RateMeter,
    receivers: Receivers,
    accounts: Accounts,
    choker: Choker,
    reciprocity: Reciprocity,
    lanes: Lanes,
    /// When a link that holds the window up counts as stalled.
    look_again: Option<Instant>,
    /// Whether something has changed that sending depends on.
    movable: bool,
    /// Before the limits, if there are any.
    gate: Option<Box<Gate>>,
}

/// Spreads the lots of consecutive links: 2^64 divided by the golden ratio
/// (Knuth, The Art of Computer Programming, volume 3, section 6.4).
const LOT: u64 = 0x9E37_79B9_7F4A_7C15;

impl Uploader {
    /// An uploader without links. The seed decides between links that are
    /// equally deprived.
    pub fn new(limits: UploadLimits, seed: u64) -> Self {
        Self {
            limits,
            seed,
            block_len: 0,
            chunk_len: 0,
            meter: RateMeter::default(),
            receivers: Receivers::default(),
            accounts: Accounts::default(),
            choker: Choker::new(limits.slots),
            reciprocity: Reciprocity::new(limits.strangers.0, limits.strangers.1),
            lanes: Lanes::default(),
            look_again: None,
            movable: false,
            gate: None,
        }
    }

    // Limits.

    /// Blocks are sent only as far as [`allow`](Self::allow) says from now on, or freely.
    pub fn set_limited(&mut self, limited: bool) {
        if !limited {
            self.gate = None;
            for (_, receiver) in self.receivers.iter_mut() {
                receiver.release();
            }
        } else if self.gate.is_none() {
            self.gate = Some(Box::new(Gate::new(Direction::Upload)));
        }
        self.movable = true;
        self.choker.unsettle(true);
    }

    /// So many bytes may be sent to a host, or a link of it may be invited.
    pub fn allow(&mut self, now: Instant, allowance: &Allowance) {
        if let Some(gate) = &mut self.gate {
            gate.allow(now, allowance);
            self.movable = true;
            self.choker.unsettle(true);
        }
    }

    /// What was to be sent to a link was not.
    pub fn give_back(&mut self, link: LinkId, bytes: u64) {
        if let (Some(gate), Some(receiver)) = (&mut self.gate, self.receivers.get(link)) {
            gate.give_back(self.accounts.host(receiver.host()), bytes);
        }
    }

    /// Gives back what nobody uses of what was allowed.
    pub fn reclaim(&mut self, now: Instant) {
        if let Some(gate) = &mut self.gate {
            gate.reclaim(now);
        }
    }

    pub(super) fn gate_mut(&mut self) -> Option<&mut Gate> {
        self.gate.as_deref_mut()
    }

    /// Notes which of the links that have room have to wait for the limits.
    fn hold(&mut self, now: Instant, window: LinkWindow) {
        if self.gate.is_none() {
            return;
        }
        let trusts = self.may_trust(|r| r.waiting() > 0 && r.has_room(now, window));
        let Some(gate) = &mut self.gate else {
            return;
        };
        for (_, receiver) in self.receivers.iter_mut() {
            if let Some(len) = receiver.next_len()
                && receiver.has_room(now, window)
            {
                if !trusts && lane(receiver) == Lane::OnTrust {
                    // What the limits let pass goes to others first.
                    receiver.hold(now, true);
                    continue;
                }
                let host = self.accounts.host(receiver.host());
                receiver.hold(now, !gate.admits(host, len));
            }
        }
    }

    /// Whether strangers that have their slots on trust are sent something: those that have
    /// earned theirs had their part, or want nothing.
    fn may_trust(&self, is_ready: impl Fn(&Receiver) -> bool) -> bool {
        let is_earned = |r: &Receiver| lane(r) == Lane::Earned && is_ready(r);
        let first = self.lanes.first(|lane| lane != Lane::Own);
        first == Some(Lane::OnTrust) || !self.receivers.values().any(is_earned)
    }

    /// When a link has to be choked that the limits hold up. A stranger waits for long
    /// before it takes anybody for silent.
    fn held_until(&self) -> Option<Instant> {
        self.gate.as_ref()?;
        let held = self.receivers.own().filter_map(Receiver::held);
        held.min().and_then(|since| since.checked_add(HELD))
    }

    /// Chokes a link that the limits hold up for too long, if there is one.
    fn choke_held(&mut self, now: Instant) -> Option<Turn> {
        if self.held_until().is_none_or(|until| until > now) {
            return None;
        }
        let held = self.receivers.iter();
        let held = held.filter(|(_, r)| r.held().is_some() && !r.is_stranger());
        let (link, _) = held.min_by_key(|(_, r)| r.held())?;
        let rejected = self.receivers.update(link, Receiver::choke)?;
        self.choker.unsettle(true);
        Some(Turn::Choke { link, rejected })
    }

    /// Sets the lengths of a block and of a chunk in bytes, once they are
    /// known.
    pub fn set_lengths(&mut self, block_len: u64, chunk_len: u64) {
        (self.block_len, self.chunk_len) = (block_len, chunk_len);
        self.accounts.set_chunk_len(chunk_len);
    }

    // Links, and what they have.

    /// A link is here. It may ask until it is told otherwise.
    pub fn link_added(&mut self, now: Instant, link: LinkId, host: &HostKey) {
        let host = self.accounts.open(host);
        let lot = (link.0 ^ self.seed).wrapping_mul(LOT);
        let indebted_since = self.accounts.owes(host).then_some(now);
        let receiver = Receiver::new(lot, host, indebted_since);
        self.receivers.insert(link, receiver);
        self.choker.unsettle(true);
    }

    /// A link with a stranger is here. It may not ask until it is told that it may.
    pub fn stranger_added(&mut self, link: LinkId, host: &HostKey) {
        let host = self.accounts.open(host);
        let lot = (link.0 ^ self.seed).wrapping_mul(LOT);
        self.receivers.insert(link, Receiver::stranger(lot, host));
        self.reciprocity.unsettle(true);
    }

    /// A link has sent so many bytes that were asked for.
    pub fn gave(&mut self, link: LinkId, bytes: u64) {
        self.receivers.update(link, |receiver| {
            if let Some(standing) = receiver.standing_mut() {
                standing.gave(bytes);
            }
        });
    }

    /// Whether nobody can give anything any more: the content is complete, or all that is
    /// wanted of it is here.
    pub fn set_seeding(&mut self, seeding: bool) {
        self.reciprocity.set_seeding(seeding);
    }

    /// A link is gone, with all that it asked for and all that was on its way.
    pub fn link_removed(&mut self, now: Instant, link: LinkId) {
        let chunk_time = self.chunk_time(now);
        if let Some(receiver) = self.receivers.remove(link) {
            self.choker.removed(now, &receiver, chunk_time);
            self.reciprocity.unsettle(receiver.is_stranger());
            self.accounts.close(receiver.host(), receiver.untold());
            self.movable = true;
            self.rest(now);
        }
    }

    /// How many chunks a link has, and how many it lacks of those that are
    /// here.
    pub fn link_has(&mut self, link: LinkId, has: u32, lacks: u32) {
        self.receivers.update(link, |receiver| {
            if receiver.is_blank() && receiver.sent_bytes() == 0 && has > 0 {
                receiver.forgive_debt();
                // It may have got these chunks on an earlier link.
                let bytes = self.chunk_len.saturating_mul(has.into());
                self.accounts.told(receiver.host(), bytes);
            }
            let lacks_changed = receiver.lacks_something() != (lacks > 0);
            let has_changed = receiver.is_blank() != (has == 0);
            self.choker.unsettle(lacks_changed || has_changed);
            self.reciprocity.unsettle(lacks_changed);
            if has > 0 {
                self.choker.told(receiver);
            }
            receiver.set_has(has, lacks);
        });
    }

    /// A link has one chunk more, which is here as well or not. Returns whether
    /// the turns may change by that: it is the first chunk that the link has or
    /// the last that it lacked, or its host no longer owes what kept it from
    /// its turn.
    pub fn link_gained(&mut self, link: LinkId, here: bool) -> bool {
        let changes = self.receivers.update(link, |receiver| {
            let was_silent = self.accounts.is_silent(receiver);
            let was_blank = receiver.is_blank();
            receiver.gain(here);
            self.choker.told(receiver);
            let paid = receiver.tell(self.chunk_len);
            let paid_more = self.accounts.told(receiver.host(), self.chunk_len - paid);
            let speaks = was_silent && !self.accounts.is_silent(receiver);
            let sated = here && !receiver.lacks_something();
            was_blank || sated || speaks || paid_more
        });
        self.choker.unsettle(changes == Some(true));
        changes == Some(true)
    }

    /// There is one chunk more here that a link lacks.
    pub fn link_lacks(&mut self, link: LinkId) {
        self.receivers.update(link, |receiver| {
            self.choker.unsettle(!receiver.lacks_something());
            self.reciprocity.unsettle(!receiver.lacks_something());
            receiver.lack();
        });
    }

    /// A link wants something, or nothing.
    pub fn link_declined(&mut self, link: LinkId, declined: bool) {
        self.receivers.update(link, |receiver| {
            receiver.set_interest(!declined);
            self.choker.unsettle(true);
            self.reciprocity.unsettle(true);
        });
    }

    /// A link has been here for so long that others would know it if it had
    /// anything. It comes last until it tells of something.
    pub fn mark_never_told(&mut self, link: LinkId) {
        let is_news = self.receivers.update(link, Receiver::mark_never_told);
        self.choker.unsettle(is_news == Some(true));
    }

    /// A link that came last for long is served again before those that got
    /// something.
    pub fn try_again(&mut self, link: LinkId) {
        let is_news = self.receivers.update(link, Receiver::forget_never_told);
        self.choker.unsettle(is_news == Some(true));
    }

    // Requests and blocks.

    /// Takes a request, or refuses it (`false`): the link is choked, or too
    /// many wait.
    pub fn requested(&mut self, link: LinkId, block: BlockRange) -> bool {
        let fits = self.receivers.update(link, |receiver| {
            let is_news = receiver.ask();
            self.choker.unsettle(is_news);
            self.reciprocity.unsettle(is_news);
            self.accounts.asked(receiver.host());
            receiver.queue(block, self.limits.requests)
        });
        self.movable |= fits == Some(true);
        fits == Some(true)
    }

    /// Takes a request back. Returns `false` if its block is on its way
    /// already, or was never asked for.
    pub fn cancelled(&mut self, link: LinkId, block: BlockRange) -> bool {
        let cancelled = self.receivers.update(link, |r| r.cancel(block));
        self.choker.unsettle(cancelled == Some(true));
        cancelled == Some(true)
    }

    /// The next block to read and send, if the window has room: to the most
    /// deprived link whose turn it is.
    pub fn next_block(&mut self, now: Instant) -> Option<(LinkId, BlockRange)> {
        if self.receivers.waiting() == 0 {
            self.look_again = None;
            return None;
        }
        if !self.movable && self.look_again.is_none_or(|at| at > now) {
            return None;
        }
        self.look_again = None;
        self.movable = false;
        if self.is_full(now) {
            self.look_again = self.next_stall(now);
            return None;
        }
        let window = self.link_window();
        self.hold(now, window);
        let ready = |r: &Receiver| r.waiting() > 0 && r.held().is_none() && r.has_room(now, window);
        let link = match self.receivers.has_strangers() {
            false => self.first_of(Lane::Own, ready)?,
            true => {
                let firsts = Lane::ALL.map(|lane| self.first_of(lane, ready));
                let lane = self.lanes.first(|lane| firsts[lane as usize].is_some())?;
                firsts[lane as usize]?
            }
        };
        let block = self.receivers.update(link, |r| r.take_next(now))??;
        self.divide(link, block.len.into());
        if let (Some(gate), Some(receiver)) = (&mut self.gate, self.receivers.get(link)) {
            gate.spend(self.accounts.host(receiver.host()), block.len.into());
        }
        self.meter.began(now);
        self.choker.unsettle(true);
        self.movable = true;
        Some((link, block))
    }

    /// The link of a lane that is sent the next block, if one is ready for it.
    fn first_of(&self, of: Lane, is_ready: impl Fn(&Receiver) -> bool) -> Option<LinkId> {
        let ready = self.receivers.iter();
        let ready = ready.filter(|(_, r)| lane(r) == of && is_ready(r));
        let time = self.lanes.time_in(of);
        let start = |r: &Receiver| r.standing().map_or(time, |s| s.start(time));
        let first = match of {
            Lane::Own => ready.min_by_key(|(_, r)| (self.accounts.rank(r), r.lot())),
            Lane::Earned | Lane::OnTrust => ready.min_by_key(|(_, r)| (start(r), r.lot())),
        };
        first.map(|(link, _)| link)
    }

    /// A link is sent a block, which counts for it and its lane.
    fn divide(&mut self, link: LinkId, bytes: u64) {
        let Some(lane) = self.receivers.get(link).map(lane) else {
            return;
        };
        let time = self.lanes.time_in(lane);
        let takes = |r: &mut Receiver| Some(r.standing_mut()?.takes(time, bytes));
        let inner = self.receivers.update(link, takes).flatten();
        let weight = match lane {
            Lane::Own => self.limits.slots,
            // A slot on trust counts half, so that giving always gets more than not to give.
            Lane::Earned => 2 * self.reciprocity.earnable(),
            Lane::OnTrust => self.reciprocity.on_trust(),
        };
        self.lanes.sent(lane, bytes, weight, inner.unwrap_or(time));
    }

    /// Bytes are with the network. A number above those on their way counts as
    /// all of them.
    pub fn sent(&mut self, now: Instant, link: LinkId, bytes: u64) {
        let wanting = match self.receivers.are_strangers() {
            true => 0,
            false => self.receivers.wanting_hosts(),
        };
        let sent = self.receivers.update(link, |receiver| {
            let bytes = receiver.sent(now, bytes, self.chunk_len);
            if !receiver.is_stranger() {
                self.accounts.sent(receiver.host(), bytes, wanting);
            }
            bytes
        });
        if let Some(bytes) = sent {
            self.movable = true;
            if bytes > 0 {
                self.meter.arrived(now, bytes);
                self.choker.unsettle(true);
            }
            self.rest(now);
        }
    }

    /// Bytes that were on their way could not be read: they will never be with
    /// the network.
    pub fn failed(&mut self, now: Instant, link: LinkId, bytes: u64) {
        let failed = self.receivers.update(link, |r| r.failed(bytes));
        if failed.is_some() {
            self.movable = true;
            self.rest(now);
        }
    }

    fn rest(&mut self, now: Instant) {
        // What waits for the limits is slow, and does not rest.
        let is_held = self.gate.as_ref().is_some_and(|gate| gate.is_waiting());
        if self.receivers.under_way() == 0 && !is_held {
            self.meter.rested(now);
        }
    }

    /// Whose turn begins or ends now; `None` if nothing changes. O(links), and
    /// O(1) if nothing has happened.
    pub fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        if let Some(turn) = self.choke_held(now) {
            return Some(turn);
        }
        if self.receivers.has_strangers() {
            let (receivers, accounts) = (&mut self.receivers, &mut self.accounts);
            let turn = self
                .reciprocity
                .next_turn(now, receivers, accounts, self.chunk_len);
            if turn.is_some() {
                return turn;
            }
        }
        if !self.choker.is_due(now) {
            return None;
        }
        let pace = Pace {
            block_len: self.block_len,
            chunk_len: self.chunk_len,
            chunk_time: self.chunk_time(now),
            backlog: self.backlog(now),
            window: self.link_window(),
        };
        let gate = self.gate.as_deref_mut();
        self.choker
            .next_turn(now, &mut self.receivers, &mut self.accounts, &pace, gate)
    }

    /// When to look again, because the window is full of what links do not
    /// take, or a link does not use its turn.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let turns = self.choker.poll_timeout();
        let first = self.look_again.into_iter().chain(turns);
        let rounds = self.reciprocity.poll_timeout();
        let rounds = rounds.filter(|_| self.receivers.has_strangers());
        first.chain(self.held_until()).chain(rounds).min()
    }

    // Windows and rates.

    /// Whether no more bytes may be on their way. Those before stalled links do
    /// not count, up to the limit.
    fn is_full(&self, now: Instant) -> bool {
        let window = self.window(now);
        let under_way = self.receivers.under_way();
        under_way >= window
            && (under_way >= self.limits.window || under_way - self.stalled(now) >= window)
    }

    /// When the next link counts as stalled, unless it takes something before.
    fn next_stall(&self, now: Instant) -> Option<Instant> {
        let owing = self.receivers.values().filter(|r| r.under_way() > 0);
        let stalls = owing.filter_map(|r| r.moved()?.checked_add(STALLED));
        stalls.filter(|&stall| stall > now).min()
    }

    /// Bytes that lie before links which do not read.
    fn stalled(&self, now: Instant) -> u64 {
        let stalled = self.receivers.values().filter(|r| r.is_stalled(now));
        stalled.map(Receiver::under_way).sum()
    }

    /// A link that does not read and holds up others: the window is full, and
    /// at least half of it lies before such links. The one that has taken
    /// nothing for longest.
    pub fn in_the_way(&self, now: Instant) -> Option<LinkId> {
        if self.receivers.waiting() == 0 || self.under_way() < self.limits.window {
            return None;
        }
        if self.stalled(now) < self.limits.window.div_ceil(2) {
            return None;
        }
        let stalled = self.receivers.iter().filter(|(_, r)| r.is_stalled(now));
        stalled.min_by_key(|(_, r)| r.moved()).map(|(link, _)| link)
    }

    /// Bytes that may be on their way: what the network takes in [`AHEAD`].
    fn window(&self, now: Instant) -> u64 {
        self.during(now, AHEAD)
            .clamp(self.block_len, self.limits.window.max(self.block_len))
    }

    fn link_window(&self) -> LinkWindow {
        LinkWindow {
            block_len: self.block_len,
            most: (self.limits.window / 4).max(self.block_len),
        }
    }

    /// Bytes that should wait behind those on their way.
    fn backlog(&self, now: Instant) -> u64 {
        self.during(now, BACKLOG)
            .clamp(self.block_len, self.limits.window.max(self.block_len))
    }

    /// How long a chunk takes at the rate at which the network takes blocks: at
    /// most a second, which is also the value before anything was sent.
    pub fn chunk_time(&self, now: Instant) -> Duration {
        let rate = self.meter.rate(now).unwrap_or(0.0);
        let time = Duration::try_from_secs_f64(self.chunk_len as f64 / rate);
        time.map_or(MAX_CHUNK_TIME, |time| time.min(MAX_CHUNK_TIME))
    }

    fn during(&self, now: Instant, time: Duration) -> u64 {
        let rate = self.meter.rate(now).unwrap_or(0.0);
        (rate * time.as_secs_f64()) as u64
    }

    // Questions.

    /// Bytes on their way.
    pub fn under_way(&self) -> u64 {
        self.receivers.under_way()
    }

    /// The requests of a link that wait, in their order.
    pub fn waiting(&self, link: LinkId) -> impl Iterator<Item = BlockRange> + Clone {
        let receiver = self.receivers.get(link).into_iter();
        receiver.flat_map(Receiver::requests)
    }

    /// Whether a link wants something that is here, or is owed something.
    pub fn is_wanted(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(Receiver::is_wanted)
    }

    /// Whether a link asks for nothing at present, and nothing is on its way.
    pub fn is_resting(&self, link: LinkId) -> bool {
        let rests = |r: &Receiver| r.waiting() == 0 && r.under_way() == 0;
        self.receivers.get(link).is_none_or(rests)
    }

    /// Whether a link said that it wants nothing, or lacks nothing.
    pub fn has_declined(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(Receiver::has_declined)
    }

    /// Whether a link said that it wants nothing, or let its turn pass and has
    /// not asked since.
    pub fn has_passed(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(Receiver::has_passed)
    }

    /// For how long a link has not told of a whole chunk that it was sent.
    pub fn mute_for(&self, now: Instant, link: LinkId) -> Duration {
        let since = self.receivers.get(link).and_then(Receiver::mute_since);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether a link was sent a chunk and has not told of it for so long that
    /// it must have stored it; or says that it has nothing, after an earlier link
    /// of its host did the same.
    pub fn is_mute(&self, now: Instant, link: LinkId) -> bool {
        let receiver = self.receivers.get(link);
        self.mute_for(now, link) >= TELL || receiver.is_some_and(Receiver::repeats_debt)
    }

    /// Whether a link was sent something that it has not told of.
    pub fn is_untold(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(|r| r.untold() > 0)
    }

    /// Whether a link told of something that it was sent.
    pub fn has_told(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(|r| r.told() > 0)
    }

    /// Bytes of blocks that a link has taken.
    pub fn sent_to(&self, link: LinkId) -> u64 {
        self.receivers.get(link).map_or(0, Receiver::sent_bytes)
    }

    /// Whether links take turns.
    pub fn is_contended(&self) -> bool {
        let turned_away = |r: &Receiver| r.is_choked() && r.wants();
        self.receivers.values().any(turned_away)
    }

    /// Whether a link may not ask at present.
    pub fn is_choked(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(Receiver::is_choked)
    }

    /// Panics if the counts contradict each other. For tests.
    pub fn check_invariants(&self) {
        self.receivers.check_invariants();
        let hosts = self.receivers.values().map(Receiver::host);
        self.accounts.check_invariants(hosts);
        for receiver in self.receivers.values() {
            assert!(receiver.waiting() <= self.limits.requests);
            assert!(!receiver.is_choked() || receiver.waiting() == 0);
        }
        let slots = self.receivers.strangers();
        let slots = slots.filter(|(.., standing)| standing.has_slot()).count();
        assert!(slots <= self.limits.strangers.0);
    }
}

/// Which kind of link it is.
fn lane(receiver: &Receiver) -> Lane {
    Lane::of(receiver.standing().map(Standing::slot))
}
