//! When leases end. A timing wheel: a refreshed lease writes nothing here; its
//! old entry is moved on when its turn comes. Every slot has at most one entry,
//! which is a link to the next one of the same tick and stands in the slot
//! itself: here are only the first ones.

use std::time::{Duration, Instant};

/// How many ticks a lease has: what is forgotten is forgotten at most one tick
/// late.
const TICKS_PER_LEASE: u32 = 64;

/// A ring of more ticks than any lease has, so that a place in the ring stands
/// for one tick only.
const PLACES: usize = 2 * TICKS_PER_LEASE as usize;

/// What is behind an entry: another slot, or [`END`].
pub(super) type Link = u32;

/// No slot.
pub(super) const END: Link = Link::MAX;

/// A tick's number, from the first one on.
pub(super) type Tick = u32;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(super) struct Wheel {
    tick: Duration,
    /// A lease in ticks, and what is left of it beyond, in nanoseconds.
    lease: (u64, u64),
    /// The time of tick 0: the first that was heard of.
    base: Option<Instant>,
    /// Everything up to this tick, exclusive, has had its turn.
    next: Tick,
    places: Box<[Link; PLACES]>,
    entries: usize,
    /// The last tick that was asked for, for others ask for the same one, with
    /// the nanoseconds in which it lasts.
    current: (u64, u64, u64),
    /// The last time that was told.
    last: Option<(Instant, Moment)>,
}

/// What a time comes to.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// Since the first time that was told.
    elapsed: Duration,
    tick: Tick,
    /// When a lease ends that begins now.
    deadline: Tick,
}

impl Wheel {
    /// A wheel that counts from `base` on, or from the first time it is told.
    pub(super) fn new(lease: Duration, base: Option<Instant>) -> Self {
        let tick = (lease / TICKS_PER_LEASE).max(Duration::from_millis(1));
        Self {
            tick,
            lease: (nanos(lease) / nanos(tick), nanos(lease) % nanos(tick)),
            base,
            next: 0,
            places: Box::new([END; PLACES]),
            entries: 0,
            current: (0, 0, 0),
            last: None,
        }
    }

    /// The time since the first one that the wheel was told.
    pub(super) fn elapsed(&mut self, now: Instant) -> Duration {
        self.moment(now).elapsed
    }

    /// The tick that `now` lies in.
    pub(super) fn tick_at(&mut self, now: Instant) -> Tick {
        self.moment(now).tick
    }

    /// How many ticks a lease takes at the most.
    pub(super) fn lease_ticks(&self) -> Tick {
        let ticks = self.lease.0.saturating_add(1);
        u32::try_from(ticks).unwrap_or(Tick::MAX / 2)
    }

    /// The tick at which a lease ends that begins now.
    pub(super) fn deadline(&mut self, now: Instant) -> Tick {
        self.moment(now).deadline
    }

    /// Computed once for each request, which asks for it several times.
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
        let base = *self.base.get_or_insert(now);
        let elapsed = now.saturating_duration_since(base);
        let at = nanos(elapsed);
        if !(self.current.1..self.current.2).contains(&at) {
            let tick = nanos(self.tick);
            let number = (at / tick).min(u64::from(Tick::MAX / 2));
            let from = number * tick;
            self.current = (number, from, from.saturating_add(tick));
        }
        let (tick, from, until) = self.current;
        let (ticks, rest) = self.lease;
        // The part of a tick that has passed, and the one that is left over, are
        // less than a tick each.
        let rest = at.saturating_sub(from) + rest;
        let more = u64::from(rest > 0) + u64::from(rest > until - from);
        let deadline = tick.saturating_add(ticks + more);
        Moment {
            elapsed,
            tick: tick as Tick,
            deadline: deadline.min(u64::from(Tick::MAX / 2)) as Tick,
        }
    }

    /// Enters a slot for its deadline, or, where the ring is too short while
    /// turns are overdue, for an earlier turn at which it is entered again.
    /// Returns what is behind it from now on.
    #[must_use]
    pub(super) fn insert(&mut self, slot: u32, deadline: Tick) -> Link {
        if self.entries == 0 {
            // Nothing was due for who knows how long. A lease has one tick more
            // where it begins inside of one, and one where it is rounded up.
            self.next = self.next.max(deadline.saturating_sub(TICKS_PER_LEASE + 2));
        }
        let at = deadline.clamp(self.next, self.next + PLACES as Tick - 1);
        self.entries += 1;
        std::mem::replace(&mut self.places[at as usize % PLACES], slot)
    }

    /// A slot whose turn has come by tick `now`. It has no entry any more.
    /// `behind` tells what is behind a slot.
    pub(super) fn pop(&mut self, now: Tick, behind: impl Fn(u32) -> Link) -> Option<u32> {
        while self.next <= now {
            let first = &mut self.places[self.next as usize % PLACES];
            if *first != END {
                self.entries -= 1;
                let slot = *first;
                *first = behind(slot);
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

    /// When the next slot has its turn, if that is a time that can be told.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let from = self.next;
        let next = (self.entries > 0)
            .then(|| (from..from + PLACES as Tick).find(|&tick| self.first(tick) != END));
        self.time_of(next??)
    }

    fn first(&self, tick: Tick) -> Link {
        self.places[tick as usize % PLACES]
    }

    /// When a tick begins, if that is a time that can be told.
    pub(super) fn time_of(&self, tick: Tick) -> Option<Instant> {
        self.base?.checked_add(self.tick.checked_mul(tick)?)
    }

    /// All entries, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn entries(&self, behind: impl Fn(u32) -> Link) -> Vec<u32> {
        let link = |slot: Link| (slot != END).then_some(slot);
        let first = self.places.iter().filter_map(|&first| link(first));
        let all =
            first.flat_map(|first| std::iter::successors(Some(first), |&slot| link(behind(slot))));
        all.collect()
    }
}
