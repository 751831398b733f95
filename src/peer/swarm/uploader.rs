//! The uploader: whose requests are taken, and which is answered next.
//!
//! A peer that sends to everybody at once is slow to each, and everybody waits
//! for their first whole chunk; one that serves a few at full speed has others
//! who help it sooner. So when more links want something than there are slots,
//! they take turns: see [`turns`].
//!
//! A bounded number of bytes is on its way to the network at any time, so that
//! the choice stays open as long as possible. What lies before a link that does
//! not read counts no longer after a while, so that it holds nobody up.

mod accounts;
mod trials;
mod turns;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use accounts::Accounts;
use trials::Trials;

use super::LinkId;
use super::link_map::LinkMap;
use super::rate::RateMeter;
use crate::content::BlockRange;
use crate::protocol::HostKey;

/// For how long, at the rate at which the network takes blocks, they are on
/// their way: longer than the pauses of a busy program.
const AHEAD: Duration = Duration::from_millis(50);

/// And requests wait behind them: an unchoked link needs a round trip to ask.
const BACKLOG: Duration = Duration::from_millis(50);

/// A link that has taken nothing for so long does not read at present.
const STALLED: Duration = Duration::from_secs(1);

/// How long a link may take to store a chunk and to tell of it, when others want
/// its place.
const TELL: Duration = Duration::from_secs(2);

/// No chunk counts as longer on its way.
const MAX_CHUNK_TIME: Duration = Duration::from_secs(1);

/// The bounds of an [`Uploader`].
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Bytes on their way, over all links.
    pub window: u64,
    /// Requests that wait on one link.
    pub requests: usize,
    /// Links that are served without taking turns.
    pub slots: usize,
}

/// The requests of all links, and the bytes on their way.
#[derive(Debug)]
pub struct Uploader {
    limits: UploadLimits,
    seed: u64,
    /// The length of a block and of a chunk, in bytes.
    block_len: u64,
    chunk_len: u64,
    under_way: u64,
    /// Requests that wait, over all links.
    waiting: usize,
    meter: RateMeter,
    receivers: LinkMap<Receiver>,
    accounts: Accounts,
    /// Something has changed that turns depend on.
    unsettled: bool,
    /// When an invited link has been waited for long enough.
    invitation_ends: Option<Instant>,
    /// When hosts that had more than their share are served, if no others want
    /// anything before.
    calm_from: Option<Instant>,
    is_calm: bool,
    /// When one more link may be tried that has told of nothing, as those that
    /// are have taken too long to tell.
    trial_ends: Option<Instant>,
    trials: Trials,
    /// When a link that holds the window up counts as stalled.
    look_again: Option<Instant>,
    /// Something has changed that sending depends on.
    movable: bool,
}

/// Spreads the lots of consecutive links: 2^64 divided by the golden ratio
/// (Knuth, The Art of Computer Programming, volume 3, section 6.4).
const LOT: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug, Default)]
struct Receiver {
    /// Decides between links that are equally deprived, or everybody would
    /// serve the links first that came first.
    lot: u64,
    /// The account of its host.
    host: usize,
    waiting: VecDeque<BlockRange>,
    /// Bytes that are being read, or queued for the network.
    under_way: u64,
    /// When it last took some, or was first given some.
    moved: Option<Instant>,
    /// Bytes that were handed to the network, and those of this turn, which
    /// may be on their way.
    sent: u64,
    turn: u64,
    choked: bool,
    /// It was given its turn, rather than that it could ask from the start.
    given: bool,
    /// Since when its turn has waited for its first request.
    invited: Option<Instant>,
    /// It said that it wants nothing, or let a turn pass.
    declined: bool,
    /// It said so.
    said_so: bool,
    /// How many turns it let pass since it last asked.
    passed: u32,
    /// Bytes that it was sent and has not told of yet.
    untold: u64,
    /// Since when it has not told of a whole chunk.
    mute: Option<Instant>,
    /// It was there for long, or links of its host were, without anything.
    old: bool,
    /// Since when it is there, if links of its host before it did not either.
    debt: Option<Instant>,
    /// Bytes that it was sent and has told of.
    told: u64,
    trial: Trial,
    /// How many chunks it has, and how many of those that are here it lacks.
    has: u32,
    lacks: u32,
}

/// Whether a link that had told of nothing was sent something for that.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Trial {
    #[default]
    None,
    /// Since then.
    Began(Instant),
    /// It did not tell in time.
    Lapsed,
}

impl Receiver {
    fn wants(&self) -> bool {
        self.lacks > 0 && !self.declined
    }

    fn is_stalled(&self, now: Instant) -> bool {
        let still = |moved: Instant| now.duration_since(moved) >= STALLED;
        self.under_way > 0 && self.moved.is_some_and(still)
    }
}

/// Who comes first, the least: who tells of what it got and had no more than
/// its share; of those the most deprived, then who was sent least.
type Rank = (bool, u64, u64);

/// A change of turns, to be told to the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A link's turn is over; what it had asked for is rejected.
    Choke {
        /// Which.
        link: LinkId,
        /// Its requests that waited.
        rejected: Vec<BlockRange>,
    },
    /// It is a link's turn.
    Unchoke {
        /// Which.
        link: LinkId,
    },
}

impl Uploader {
    /// An uploader without links; the seed decides between links that are
    /// equally deprived.
    pub fn new(limits: UploadLimits, seed: u64) -> Self {
        Self {
            limits,
            seed,
            block_len: 0,
            chunk_len: 0,
            under_way: 0,
            waiting: 0,
            meter: RateMeter::default(),
            receivers: LinkMap::default(),
            accounts: Accounts::default(),
            unsettled: false,
            invitation_ends: None,
            calm_from: None,
            is_calm: true,
            trial_ends: None,
            trials: Trials::default(),
            look_again: None,
            movable: false,
        }
    }

    /// The lengths of a block and of a chunk in bytes, once they are known.
    pub fn measures(&mut self, block_len: u64, chunk_len: u64) {
        (self.block_len, self.chunk_len) = (block_len, chunk_len);
        self.accounts.measures(chunk_len);
    }

    /// A link is there. It may ask until it is told otherwise.
    pub fn link_added(&mut self, now: Instant, link: LinkId, host: &HostKey) {
        let host = self.accounts.open(host);
        // Links of one host are not blamed for each other.
        self.unsettled = true;
        let receiver = Receiver {
            lot: (link.0 ^ self.seed).wrapping_mul(LOT),
            host,
            debt: self.accounts.owes(host).then_some(now),
            ..Receiver::default()
        };
        self.receivers.insert(link, receiver);
    }

    /// How many chunks a link has, and how many it lacks of those that are
    /// here.
    pub fn link_has(&mut self, link: LinkId, has: u32, lacks: u32) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            if receiver.has == 0 && receiver.sent == 0 && has > 0 {
                receiver.debt = None;
                // What it has now it may have been sent on an earlier link.
                let bytes = self.chunk_len.saturating_mul(has.into());
                self.accounts.told(receiver.host, bytes);
            }
            self.unsettled |= (receiver.lacks == 0) != (lacks == 0);
            self.unsettled |= (receiver.has == 0) != (has == 0);
            if has > 0 && std::mem::take(&mut receiver.trial) != Trial::None {
                self.trials.told();
            }
            (receiver.has, receiver.lacks) = (has, lacks);
        }
    }

    /// A link has one chunk more, which is here as well or not. Returns whether
    /// the turns may change by that: it was the first that the link has or the
    /// last that it lacked, or its host no longer owes what kept it from its turn.
    pub fn link_gained(&mut self, link: LinkId, here: bool) -> bool {
        let Some(receiver) = self.receivers.get_mut(link) else {
            return false;
        };
        let was_silent = self.accounts.is_silent(receiver);
        let was_blank = receiver.has == 0;
        receiver.has = receiver.has.saturating_add(1);
        if std::mem::take(&mut receiver.trial) != Trial::None {
            self.trials.told();
        }
        let paid = receiver.untold.min(self.chunk_len);
        receiver.untold -= paid;
        receiver.told += paid;
        receiver.mute = None;
        receiver.debt = None;
        let paid_more = self.accounts.told(receiver.host, self.chunk_len - paid);
        let speaks = was_silent && !self.accounts.is_silent(receiver);
        receiver.lacks = receiver.lacks.saturating_sub(here.into());
        let sated = here && receiver.lacks == 0;
        let changes = was_blank || sated || speaks || paid_more;
        self.unsettled |= changes;
        changes
    }

    /// There is one chunk more here that a link lacks.
    pub fn link_lacks(&mut self, link: LinkId) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            receiver.lacks += 1;
            self.unsettled |= receiver.lacks == 1;
        }
    }

    /// A link wants something, or nothing.
    pub fn link_declined(&mut self, link: LinkId, declined: bool) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            receiver.declined = declined;
            receiver.said_so = declined;
            self.unsettled = true;
        }
    }

    /// Takes a request, or refuses it (`false`): the link is choked, or too
    /// many wait.
    pub fn requested(&mut self, link: LinkId, block: BlockRange) -> bool {
        let Some(receiver) = self.receivers.get_mut(link) else {
            return false;
        };
        self.unsettled |= receiver.declined;
        receiver.declined = false;
        receiver.said_so = false;
        receiver.invited = None;
        receiver.passed = 0;
        self.accounts.passed(receiver.host, false);
        let fits = !receiver.choked && receiver.waiting.len() < self.limits.requests;
        if fits {
            receiver.waiting.push_back(block);
            self.waiting += 1;
            self.movable = true;
        }
        fits
    }

    /// Takes a request back; `false` if its block is on its way already, or
    /// was never asked for.
    pub fn cancelled(&mut self, link: LinkId, block: BlockRange) -> bool {
        let Some(receiver) = self.receivers.get_mut(link) else {
            return false;
        };
        let waiting = receiver.waiting.iter().position(|asked| *asked == block);
        let found = waiting.is_some_and(|at| receiver.waiting.remove(at).is_some());
        self.waiting -= usize::from(found);
        self.unsettled |= found;
        found
    }

    /// The next block to read and send, if the window has room: to the most
    /// deprived link whose turn it is.
    pub fn next_block(&mut self, now: Instant) -> Option<(LinkId, BlockRange)> {
        if self.waiting == 0 {
            self.look_again = None;
            return None;
        }
        if !self.movable && self.look_again.is_none_or(|at| at > now) {
            return None;
        }
        self.look_again = None;
        self.movable = false;
        let window = self.window(now);
        if self.under_way >= window {
            let stalled = self.stalled(now);
            if self.under_way - stalled >= window || self.under_way >= self.limits.window {
                let owing = self.receivers.values().filter(|r| r.under_way > 0);
                let stalls = owing.filter_map(|r| r.moved?.checked_add(STALLED));
                self.look_again = stalls.filter(|&stall| stall > now).min();
                return None;
            }
        }
        let ready = |r: &Receiver| {
            !r.waiting.is_empty()
                && r.under_way < Self::link_window(self.limits, self.block_len, r)
                && !r.is_stalled(now)
        };
        let ready = self.receivers.iter().filter(|(_, r)| ready(r));
        let (link, _) = ready.min_by_key(|(_, r)| (self.accounts.rank(r), r.lot))?;
        let receiver = self.receivers.get_mut(link)?;
        if receiver.under_way == 0 {
            receiver.moved = Some(now);
        }
        let block = receiver.waiting.pop_front()?;
        if receiver.has == 0 && receiver.trial == Trial::None {
            receiver.trial = Trial::Began(now);
        }
        self.waiting -= 1;
        receiver.under_way += u64::from(block.len);
        receiver.turn += u64::from(block.len);
        self.under_way += u64::from(block.len);
        self.meter.began(now);
        self.unsettled = true;
        self.movable = true;
        Some((link, block))
    }

    /// Bytes that lie before links which do not read.
    fn stalled(&self, now: Instant) -> u64 {
        let stalled = self.receivers.values().filter(|r| r.is_stalled(now));
        stalled.map(|receiver| receiver.under_way).sum()
    }

    /// A link that does not read and holds up others: the window is full, for
    /// the larger part of what such links do not take. The one that has taken
    /// nothing for longest.
    pub fn in_the_way(&self, now: Instant) -> Option<LinkId> {
        if self.waiting == 0 || self.under_way < self.limits.window {
            return None;
        }
        if self.stalled(now) < self.limits.window.div_ceil(2) {
            return None;
        }
        let stalled = self.receivers.iter().filter(|(_, r)| r.is_stalled(now));
        stalled.min_by_key(|(_, r)| r.moved).map(|(link, _)| link)
    }

    /// When to look again, because the window is full of what links do not
    /// take, or a link does not use its turn.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.look_again
            .into_iter()
            .chain(self.invitation_ends)
            .chain(self.calm_from.filter(|_| !self.is_calm))
            .chain(self.trial_ends)
            .min()
    }

    /// Bytes that may be on their way: what the network takes in [`AHEAD`].
    fn window(&self, now: Instant) -> u64 {
        self.during(now, AHEAD)
            .clamp(self.block_len, self.limits.window.max(self.block_len))
    }

    /// No single link fills the window, and one that has taken nothing yet has
    /// little of it.
    fn link_window(limits: UploadLimits, block_len: u64, receiver: &Receiver) -> u64 {
        let most = (limits.window / 4).max(block_len);
        (2 * block_len).max(receiver.sent).min(most)
    }

    /// Bytes that should wait behind them.
    fn backlog(&self, now: Instant) -> u64 {
        self.during(now, BACKLOG)
            .clamp(self.block_len, self.limits.window.max(self.block_len))
    }

    /// How long a chunk takes at the rate at which the network takes blocks; a
    /// second at the most, and as long as nothing was sent.
    pub fn chunk_time(&self, now: Instant) -> Duration {
        let rate = self.meter.rate(now).unwrap_or(0.0);
        let time = Duration::try_from_secs_f64(self.chunk_len as f64 / rate);
        time.map_or(MAX_CHUNK_TIME, |time| time.min(MAX_CHUNK_TIME))
    }

    fn during(&self, now: Instant, time: Duration) -> u64 {
        let rate = self.meter.rate(now).unwrap_or(0.0);
        (rate * time.as_secs_f64()) as u64
    }

    /// Bytes are with the network. More than are on their way count as all
    /// that are.
    pub fn sent(&mut self, now: Instant, link: LinkId, bytes: u64) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            let bytes = bytes.min(receiver.under_way);
            receiver.under_way -= bytes;
            receiver.sent += bytes;
            receiver.untold += bytes;
            if receiver.untold >= self.chunk_len.max(1) {
                receiver.mute.get_or_insert(now);
            }
            receiver.moved = Some(now);
            self.accounts.sent(receiver.host, bytes);
            self.under_way -= bytes;
            self.movable = true;
            if bytes > 0 {
                self.meter.arrived(now, bytes);
                self.unsettled = true;
            }
            self.rest(now);
        }
    }

    /// Bytes that were on their way will never be with the network: they
    /// could not be read.
    pub fn failed(&mut self, now: Instant, link: LinkId, bytes: u64) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            let bytes = bytes.min(receiver.under_way);
            receiver.under_way -= bytes;
            self.under_way -= bytes;
            self.movable = true;
            self.rest(now);
        }
    }

    /// A link is gone, with all that it asked for and all that was on its way.
    pub fn link_removed(&mut self, now: Instant, link: LinkId) {
        let chunk_time = self.chunk_time(now);
        if let Some(receiver) = self.receivers.remove(link) {
            if let Trial::Began(began) = receiver.trial {
                self.trials.lapsed(now, began, chunk_time);
            }
            self.accounts.close(receiver.host, receiver.untold);
            self.under_way -= receiver.under_way;
            self.waiting -= receiver.waiting.len();
            self.unsettled = true;
            self.movable = true;
            self.rest(now);
        }
    }

    fn rest(&mut self, now: Instant) {
        if self.under_way == 0 {
            self.meter.rested(now);
        }
    }

    /// Bytes on their way.
    pub fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Whether a link wants something that is here, or is owed something.
    pub fn is_wanted(&self, link: LinkId) -> bool {
        let receiver = self.receivers.get(link);
        receiver.is_some_and(|r| r.wants() || r.under_way > 0 || !r.waiting.is_empty())
    }

    /// Whether a link said that it wants nothing.
    pub fn has_declined(&self, link: LinkId) -> bool {
        self.receivers
            .get(link)
            .is_some_and(|r| r.said_so || r.lacks == 0)
    }

    /// Whether a link let turn after turn pass.
    pub fn has_passed(&self, link: LinkId) -> bool {
        let receiver = self.receivers.get(link);
        receiver.is_some_and(|r| r.said_so || r.passed > 0)
    }

    /// For how long a link has not told of a whole chunk that it was sent.
    pub fn mute_for(&self, now: Instant, link: LinkId) -> Duration {
        let since = self.receivers.get(link).and_then(|r| r.mute.or(r.debt));
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether a link was sent a chunk and has not told of it for so long that
    /// it must have stored it; or says that it has nothing, after an earlier link
    /// of its host did the same.
    pub fn is_mute(&self, now: Instant, link: LinkId) -> bool {
        let owes = |r: &Receiver| r.has == 0 && r.debt.is_some();
        self.mute_for(now, link) >= TELL || self.receivers.get(link).is_some_and(owes)
    }

    /// A link has been there for long, as long as it had anything others would
    /// know: it comes last until it tells of something.
    pub fn never_told(&mut self, link: LinkId) {
        if let Some(receiver) = self.receivers.get_mut(link) {
            self.unsettled |= !receiver.old;
            receiver.old = true;
        }
    }

    /// Whether a link was sent something that it has not told of.
    pub fn is_untold(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(|r| r.untold > 0)
    }

    /// Whether a link told of something that it was sent.
    pub fn has_told(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(|r| r.told > 0)
    }

    /// Bytes of blocks that a link has taken.
    pub fn sent_to(&self, link: LinkId) -> u64 {
        self.receivers.get(link).map_or(0, |r| r.sent)
    }

    /// Whether links take turns.
    pub fn is_contended(&self) -> bool {
        self.receivers.values().any(|r| r.choked && r.wants())
    }

    /// Whether it is not a link's turn.
    pub fn is_choked(&self, link: LinkId) -> bool {
        self.receivers.get(link).is_some_and(|r| r.choked)
    }

    /// Panics where the counts contradict each other. For tests.
    pub fn check_invariants(&self) {
        let sum: u64 = self.receivers.values().map(|r| r.under_way).sum();
        assert_eq!(sum, self.under_way);
        let waiting: usize = self.receivers.values().map(|r| r.waiting.len()).sum();
        assert_eq!(waiting, self.waiting);
        let hosts = self.receivers.values().map(|receiver| receiver.host);
        self.accounts.check_invariants(hosts);
        assert!(self.receivers.values().all(
            |r| r.waiting.len() <= self.limits.requests && (!r.choked || r.waiting.is_empty())
        ));
    }
}
