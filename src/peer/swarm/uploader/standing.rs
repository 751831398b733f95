//! What a stranger has given of late, and the slot that it has.

use std::time::Instant;

/// Why a stranger may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// It may not.
    None,
    /// It is one of those that give most.
    Earned,
    /// It is its turn, whatever it gives.
    OnTrust,
}

/// A stranger, as the rounds see it.
#[derive(Debug)]
pub(super) struct Standing {
    slot: Slot,
    /// Since when it has a slot; or until when it had one, if it ever had.
    since: Option<Instant>,
    /// Bytes that it gave in this round, and in the one before.
    given: [u64; 2],
    /// Bytes that it was sent in this round.
    taken: u64,
    /// Its part of what its lane is sent: [`MEAN`] on average.
    weight: u64,
    /// When its next block begins, in the virtual time of its lane.
    start: u64,
}

/// The mean of the weights in a lane.
const MEAN: u64 = 1 << 10;

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            slot: Slot::None,
            since: None,
            given: [0; 2],
            taken: 0,
            weight: MEAN,
            start: 0,
        }
    }

    pub(super) fn has_slot(&self) -> bool {
        self.slot != Slot::None
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// It has this slot from now on.
    pub(super) fn set_slot(&mut self, now: Instant, slot: Slot) {
        if slot == self.slot {
            return;
        }
        if self.slot == Slot::None || slot == Slot::None {
            self.since = Some(now);
            self.taken = 0;
        }
        self.slot = slot;
        self.weight = MEAN;
        // Each lane has a time of its own.
        self.start = 0;
    }

    /// When its slot began, or ended; `None` if it never had one.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// It has sent so many bytes that were asked for.
    pub(super) fn gave(&mut self, bytes: u64) {
        self.given[0] = self.given[0].saturating_add(bytes);
    }

    /// Bytes that it gave in this round and the one before.
    pub(super) fn given(&self) -> u64 {
        self.given[0].saturating_add(self.given[1])
    }

    /// It is one of so many that have earned their slots, and gave `sum` together. Half of
    /// what they are sent is divided among all alike, so that it is worth while to give for
    /// one with a slow line as well; and half by what each gave.
    pub(super) fn weigh(&mut self, earners: usize, sum: u64) {
        let half = MEAN / 2;
        let mean = (sum / earners.max(1) as u64).max(1);
        let part = u128::from(half) * u128::from(self.given()) / u128::from(mean);
        self.weight = half.saturating_add(u64::try_from(part).unwrap_or(half));
    }

    /// Bytes that it was sent in this round.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// So many rounds are over.
    pub(super) fn rounds_ended(&mut self, rounds: u32) {
        self.given = match rounds {
            0 => return,
            1 => [0, self.given[0]],
            _ => [0; 2],
        };
        self.taken = 0;
    }

    /// When its next block begins in a lane whose time this is.
    pub(super) fn start(&self, time: u64) -> u64 {
        self.start.max(time)
    }

    /// It is sent a block, in a lane whose time this is. Returns the time of the lane by
    /// then.
    pub(super) fn takes(&mut self, time: u64, bytes: u64) -> u64 {
        let start = self.start(time);
        self.start = start.saturating_add(bytes.saturating_mul(MEAN) / self.weight);
        self.taken = self.taken.saturating_add(bytes);
        start
    }
}
