//! When leases end: a timer wheel. Extending a lease writes nothing here; the old
//! entry is moved on when its turn comes. Every slot of a peer has at most one
//! entry. The entries of one tick form a linked list whose links are in the slots
//! themselves, and the wheel holds only the first entry of each tick.

use std::time::{Duration, Instant};

/// How many ticks a lease has. A peer is forgotten at most one tick late.
const TICKS_PER_LEASE: u32 = 64;

/// The ring has more ticks than any lease, so that a position in the ring stands
/// for one tick only.
const RING: usize = 2 * TICKS_PER_LEASE as usize;

/// What follows an entry: another slot, or [`END`].
pub(super) type Link = u32;

/// No slot.
pub(super) const END: Link = Link::MAX;

/// A tick's number, from the first one on.
pub(super) type Tick = u32;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The timer wheel of one shard.
#[derive(Debug)]
pub(super) struct TimerWheel {
    tick: Duration,
    /// A lease in whole ticks, and the rest of it in nanoseconds.
    lease: (u64, u64),
    /// When tick 0 begins.
    base: Instant,
    /// All ticks before this one have had their turn.
    next: Tick,
    first: Box<[Link; RING]>,
    entries: usize,
    /// The tick of the last question, because the next one is mostly about the
    /// same tick, with the nanoseconds at which it begins and ends.
    current: (u64, u64, u64),
    /// The answer to the last question.
    last: Option<(Instant, Moment)>,
}

/// A time in terms of the wheel.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// The time since tick 0 began.
    elapsed: Duration,
    tick: Tick,
    /// The tick at which a lease ends that begins now.
    deadline: Tick,
}

impl TimerWheel {
    /// A wheel whose tick 0 begins at `base`.
    pub(super) fn new(lease: Duration, base: Instant) -> Self {
        let tick = (lease / TICKS_PER_LEASE).max(Duration::from_millis(1));
        Self {
            tick,
            lease: (nanos(lease) / nanos(tick), nanos(lease) % nanos(tick)),
            base,
            next: 0,
            first: Box::new([END; RING]),
            entries: 0,
            current: (0, 0, 0),
            last: None,
        }
    }

    /// The time since tick 0 began.
    pub(super) fn elapsed(&mut self, now: Instant) -> Duration {
        self.moment(now).elapsed
    }

    /// The tick that `now` lies in.
    pub(super) fn tick_at(&mut self, now: Instant) -> Tick {
        self.moment(now).tick
    }

    /// How many ticks a lease takes at most.
    pub(super) fn lease_ticks(&self) -> Tick {
        let ticks = self.lease.0.saturating_add(1);
        u32::try_from(ticks).unwrap_or(Tick::MAX / 2)
    }

    /// The tick at which a lease ends that begins now.
    pub(super) fn deadline(&mut self, now: Instant) -> Tick {
        self.moment(now).deadline
    }

    /// The tick at which a lease of another length ends that begins now.
    #[cfg(feature = "bittorrent")]
    pub(super) fn deadline_after(&mut self, now: Instant, lease: Duration) -> Tick {
        let ends = self.moment(now).elapsed.saturating_add(lease);
        let tick = nanos(ends).div_ceil(nanos(self.tick));
        tick.min(u64::from(Tick::MAX / 2)) as Tick
    }

    /// Computed once per request, which asks for it several times.
    fn moment(&mut self, now: Instant) -> Moment {
        match self.last {
            Some((last, moment)) if last == now => moment,
            _ => {
                let moment = self.reckon(now);
                self.last = Some((now, moment));
                moment
            }
        }
    }

    fn reckon(&mut self, now: Instant) -> Moment {
        let elapsed = now.saturating_duration_since(self.base);
        let at = nanos(elapsed);
        if !(self.current.1..self.current.2).contains(&at) {
            let tick = nanos(self.tick);
            let number = (at / tick).min(u64::from(Tick::MAX / 2));
            let from = number * tick;
            self.current = (number, from, from.saturating_add(tick));
        }
        let (tick, from, until) = self.current;
        let (ticks, rest) = self.lease;
        // The part of the current tick that has passed, and the part of a tick by
        // which a lease is longer than whole ticks: each is less than a tick.
        let rest = at.saturating_sub(from) + rest;
        let more = u64::from(rest > 0) + u64::from(rest > until - from);
        let deadline = tick.saturating_add(ticks + more);
        Moment {
            elapsed,
            tick: tick as Tick,
            deadline: deadline.min(u64::from(Tick::MAX / 2)) as Tick,
        }
    }

    /// Enters a slot for its deadline. While turns are overdue the ring may be too
    /// short for that; then it is entered for an earlier turn, at which it must be
    /// entered again. Returns what follows it from now on. A deadline further away than
    /// that of a lease that begins now must be entered for the latter first.
    #[must_use]
    pub(super) fn insert(&mut self, slot: u32, deadline: Tick) -> Link {
        if self.entries == 0 {
            // The wheel may have been empty for long: skip the ticks without
            // entries. A lease may take up to two ticks more, one because it
            // begins inside a tick and one because it is rounded up.
            self.next = self.next.max(deadline.saturating_sub(TICKS_PER_LEASE + 2));
        }
        let at = deadline.clamp(self.next, self.next + RING as Tick - 1);
        self.entries += 1;
        std::mem::replace(&mut self.first[at as usize % RING], slot)
    }

    /// Removes the entry of a slot whose turn has come by tick `now`. `after`
    /// tells what follows a slot.
    pub(super) fn pop(&mut self, now: Tick, after: impl Fn(u32) -> Link) -> Option<u32> {
        while self.next <= now {
            let first = &mut self.first[self.next as usize % RING];
            if *first != END {
                self.entries -= 1;
                let slot = *first;
                *first = after(slot);
                return Some(slot);
            }
            if self.entries == 0 {
                self.next = now + 1;
                return None;
            }
            self.next += 1;
        }
        None
    }

    /// When the next slot has its turn, if `Instant` can represent that.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let from = self.next;
        let next = (self.entries > 0)
            .then(|| (from..from + RING as Tick).find(|&tick| self.first_at(tick) != END));
        self.time_of(next??)
    }

    fn first_at(&self, tick: Tick) -> Link {
        self.first[tick as usize % RING]
    }

    /// When a tick begins, if `Instant` can represent that.
    pub(super) fn time_of(&self, tick: Tick) -> Option<Instant> {
        self.base.checked_add(self.tick.checked_mul(tick)?)
    }

    /// All entries, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn entries(&self, after: impl Fn(u32) -> Link) -> Vec<u32> {
        let link = |slot: Link| (slot != END).then_some(slot);
        let first = self.first.iter().filter_map(|&first| link(first));
        let all =
            first.flat_map(|first| std::iter::successors(Some(first), |&slot| link(after(slot))));
        all.collect()
    }
}
