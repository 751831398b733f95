//! How much a download asks for at a time where links take turns.
//!
//! Requests that wait in many queues at once come no sooner, and others could
//! have had the turns. So a download asks for a few chunks at a time, or for
//! more if that is needed to keep the line busy.

use std::time::{Duration, Instant};

use super::super::rate::RateMeter;

/// How many chunks are asked for at a time: one comes while the next is waited
/// for, and one more as a reserve.
pub(super) const MAX_TURNS: u32 = 3;

/// A download that is behind takes one chunk more at a time for each of so many
/// chunks that other leechers have and that wait here. In a crowd that starts
/// together, everybody is about as many chunks behind as it takes to pass a
/// chunk on to all.
const BEHIND: u32 = 12;
const MAX_MORE_TURNS: u32 = 5;

/// How many round trips' worth of bytes are asked for, if that is more.
const ROUND_TRIPS: f64 = 1.5;

/// How long a new link may be silent, in blocks' time, and at least: a long
/// round trip and some reserve.
const FIRST_SILENCE: f64 = 8.0;
const MIN_SILENCE: Duration = Duration::from_millis(500);

/// How fast all links together deliver, and how many bytes are therefore worth
/// asking for.
#[derive(Debug, Default)]
pub(super) struct RequestBudget {
    meter: RateMeter,
    /// The shortest time from a request to its block, over all links.
    round_trip: Option<Duration>,
    /// What keeps the line busy, in bytes, as of that moment.
    pipe: Option<(Instant, u64)>,
}

impl RequestBudget {
    /// The budget in bytes that a download has at any rate, when `behind`
    /// chunks that other leechers have wait here.
    pub(super) fn least(behind: u32, chunk_len: u64) -> u64 {
        let more = (behind / BEHIND).min(MAX_MORE_TURNS);
        u64::from(MAX_TURNS + more) * chunk_len
    }

    /// Something was asked for.
    pub(super) fn asked(&mut self, now: Instant) {
        self.meter.began(now);
    }

    /// A block arrived, `took` after it had been asked for.
    pub(super) fn delivered(&mut self, now: Instant, bytes: u64, took: Duration) {
        self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
        self.meter.arrived(now, bytes);
    }

    /// Nothing is outstanding any more.
    pub(super) fn rested(&mut self, now: Instant) {
        self.meter.rested(now);
    }

    /// Measures what keeps the line busy, once per moment: many links are
    /// looked at in the same one.
    pub(super) fn refresh(&mut self, now: Instant, slack: Duration) {
        if self.pipe.is_some_and(|(at, _)| at == now) {
            return;
        }
        let pipe = match (self.meter.rate(now), self.round_trip) {
            (Some(rate), Some(round_trip)) => {
                let time = round_trip.mul_f64(ROUND_TRIPS);
                rate * time.saturating_add(slack).as_secs_f64()
            }
            _ => 0.0,
        };
        self.pipe = Some((now, pipe as u64));
    }

    /// What keeps the line busy, in bytes, as of the last
    /// [`refresh`](Self::refresh).
    pub(super) fn pipe(&self) -> u64 {
        self.pipe.map_or(0, |(_, pipe)| pipe)
    }

    /// How long a link that has sent nothing yet may take: several times as
    /// long as a block takes at the rate at which the others deliver, and
    /// `most` if that is not known.
    pub(super) fn first_silence(&self, block_len: u64, most: Duration) -> Duration {
        let rate = self.meter.measured().unwrap_or(0.0);
        let blocks = FIRST_SILENCE * block_len as f64 / rate;
        let blocks = Duration::try_from_secs_f64(blocks).unwrap_or(most);
        blocks.max(MIN_SILENCE).min(most)
    }
}
