//! When leases end. A timing wheel: a refreshed lease writes nothing here; its
//! old entry is moved on when its turn comes. Every slot has at most one entry.

use std::time::{Duration, Instant};

/// How many ticks a lease has: what is forgotten is forgotten at most one tick
/// late.
const TICKS_PER_LEASE: u32 = 64;

/// A ring of more ticks than any lease has, so that a place in the ring stands
/// for one tick only.
const PLACES: usize = 2 * TICKS_PER_LEASE as usize;

/// A tick's number, from the first one on.
pub(super) type Tick = u32;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(super) struct Wheel {
    tick: Duration,
    lease: Duration,
    /// The time of tick 0: the first that was heard of.
    base: Option<Instant>,
    /// Everything up to this tick, exclusive, has had its turn.
    next: Tick,
    places: Vec<Vec<u32>>,
    entries: usize,
    /// The last tick that was asked for, for others ask for the same one, with
    /// the nanoseconds in which it lasts.
    current: (Tick, u64, u64),
    /// The last time that was told, and how long that is after the first: each
    /// request asks for it several times.
    last: Option<(Instant, Duration)>,
}

impl Wheel {
    /// A wheel that counts from `base` on, or from the first time it is told.
    pub(super) fn new(lease: Duration, base: Option<Instant>) -> Self {
        Self {
            tick: (lease / TICKS_PER_LEASE).max(Duration::from_millis(1)),
            lease,
            base,
            next: 0,
            places: vec![Vec::new(); PLACES],
            entries: 0,
            current: (0, 0, 0),
            last: None,
        }
    }

    /// The time since the first one that the wheel was told.
    pub(super) fn elapsed(&mut self, now: Instant) -> Duration {
        match self.last {
            Some((last, elapsed)) if last == now => elapsed,
            _ => {
                let base = *self.base.get_or_insert(now);
                let elapsed = now.saturating_duration_since(base);
                self.last = Some((now, elapsed));
                elapsed
            }
        }
    }

    /// The tick that `now` lies in.
    pub(super) fn tick_at(&mut self, now: Instant) -> Tick {
        let elapsed = nanos(self.elapsed(now));
        let (tick, from, until) = self.current;
        if (from..until).contains(&elapsed) {
            return tick;
        }
        let tick_nanos = nanos(self.tick);
        let tick = (elapsed / tick_nanos).min(u64::from(Tick::MAX / 2));
        let from = tick * tick_nanos;
        self.current = (tick as Tick, from, from.saturating_add(tick_nanos));
        tick as Tick
    }

    /// The tick at which a lease ends that begins now.
    pub(super) fn deadline(&mut self, now: Instant) -> Tick {
        let tick = nanos(self.tick);
        let from_tick = nanos(self.elapsed(now)) - u64::from(self.tick_at(now)) * tick;
        let ticks = (from_tick + nanos(self.lease)).div_ceil(tick);
        let ticks = u64::from(self.tick_at(now)).saturating_add(ticks);
        ticks.min(u64::from(Tick::MAX / 2)) as Tick
    }

    /// Enters a slot for its deadline, or, where the ring is too short while
    /// turns are overdue, for an earlier turn at which it is entered again.
    pub(super) fn insert(&mut self, slot: u32, deadline: Tick) {
        if self.entries == 0 {
            // Nothing was due for who knows how long. A lease has one tick more
            // where it begins inside of one, and one where it is rounded up.
            self.next = self.next.max(deadline.saturating_sub(TICKS_PER_LEASE + 2));
        }
        let at = deadline.clamp(self.next, self.next + PLACES as Tick - 1);
        self.places[at as usize % PLACES].push(slot);
        self.entries += 1;
    }

    /// A slot whose turn has come by tick `now`. It has no entry any more.
    pub(super) fn pop(&mut self, now: Tick) -> Option<u32> {
        while self.next <= now {
            if let Some(slot) = self.places[self.next as usize % PLACES].pop() {
                self.entries -= 1;
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

    /// When the next slot has its turn.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let base = self.base.filter(|_| self.entries > 0)?;
        (self.next..self.next + PLACES as Tick)
            .find(|&tick| !self.places[tick as usize % PLACES].is_empty())
            .map(|tick| base + self.tick * tick)
    }

    /// All entries, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn entries(&self) -> impl Iterator<Item = u32> {
        self.places.iter().flatten().copied()
    }
}
