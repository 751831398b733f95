//! How much may be outstanding on a link.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::chunk_states::ChunkState;
use super::config::PlannerConfig;
use super::ledger::Ledger;
use super::source::Source;
use super::urgent::Urgent;

/// How many bytes all links together are asked for at most while somebody reads, before
/// it is known how fast they are: what a line of 10 Mbit/s carries in 300 ms. What slow
/// links were asked for has to be taken over from them, and a reader that goes elsewhere
/// at once waits behind it.
const READING_FIRST_WINDOW: u64 = 384 << 10;

/// The same for short contents: three of the shortest chunks.
const READING_FIRST_LEAST: u64 = 48 << 10;

/// The same in between, as a part of the content. What is read at its own rate lasts for a
/// minute at least, and then this is read in a third of a second: a long round trip.
const READING_FIRST_PART: u64 = 170;

/// The same if there is only one owner: nothing has to be taken over from it, and its line
/// is idle if this is less than it carries in a round trip.
const READING_FIRST_PART_OF_ONE: u64 = 64;

/// While somebody reads, a link is asked for more as if its line were faster by this
/// factor, so that one which could be faster can show it.
const READING_GAIN: f64 = 1.125;

/// A link that would be asked for more later than this is looked at again before.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Whether a link may owe one more block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    /// From then on, even if nothing comes before.
    At(Instant),
    /// Not until something comes.
    None,
}

/// Bounds what is outstanding on each link.
#[derive(Debug)]
pub(super) struct RequestWindows {
    config: PlannerConfig,
    /// How many owners there are, if this peer is the only leecher.
    owners_alone: Option<usize>,
}

impl RequestWindows {
    pub(super) fn new(config: PlannerConfig) -> Self {
        Self {
            config,
            owners_alone: None,
        }
    }

    pub(super) fn set_owners_alone(&mut self, owners: Option<usize>) {
        self.owners_alone = owners;
    }

    /// How many owners there are, if this peer is the only leecher.
    pub(super) fn owners_alone(&self) -> Option<usize> {
        self.owners_alone
    }

    /// Whether a link answers, has something, and may owe one more block.
    pub(super) fn room(
        &self,
        now: Instant,
        ledger: &Ledger,
        urgent: &Urgent,
        link: LinkId,
    ) -> Room {
        let Some(source) = ledger.sources().get(link) else {
            return Room::None;
        };
        let window = self.window(now, ledger, urgent, source);
        let has_room = !source.is_choked()
            && source.has_anything()
            && source.has_room(&self.config, ledger.layout(), window);
        match has_room {
            false => Room::None,
            true if !self.is_alone(source) => Room::Now,
            true if urgent.is_empty() => match source.rests(ledger.layout(), window) {
                true => Room::None,
                false => Room::Now,
            },
            true => self.reading_room(now, ledger, source),
        }
    }

    /// When a link is asked for the next block while somebody reads: just in time to keep
    /// its line busy, as what a reader wants next waits behind all that was asked for.
    fn reading_room(&self, now: Instant, ledger: &Ledger, source: &Source) -> Room {
        let Some(rate) = source.line_rate(now).filter(|_| !source.is_snubbed()) else {
            return Room::Now;
        };
        let block_len = ledger.layout().block_len();
        let typical = ledger.sources().typical(now, block_len);
        let travel = source.travel(block_len as f64, rate);
        let ahead = travel + self.config.slack.as_secs_f64();
        let busy_for = source.clear_at(now, None, typical, READING_GAIN);
        match Duration::try_from_secs_f64(busy_for - ahead) {
            Ok(wait) if !wait.is_zero() => Room::At(now + wait.min(MAX_WAIT)),
            _ => Room::Now,
        }
    }

    pub(super) fn is_alone(&self, source: &Source) -> bool {
        self.owners_alone.is_some() && !source.takes_turns()
    }

    /// How much may be outstanding on a link.
    fn window(&self, now: Instant, ledger: &Ledger, urgent: &Urgent, source: &Source) -> u64 {
        let owners = self.owners_alone.filter(|_| self.is_alone(source));
        let Some(owners) = owners else {
            return source.window(now, &self.config);
        };
        let owners = owners.max(1) as u64;
        let states = ledger.states();
        let wanted = states.count(ChunkState::Missing) + states.count(ChunkState::Open);
        let wanted = u64::from(wanted).min(self.config.max_open as u64);
        let part = (wanted * ledger.layout().geometry().chunk_len()).div_ceil(owners);
        let first = part.min(self.config.first_window);
        if urgent.is_empty() {
            return source.window_alone(now, &self.config, first);
        }
        let length = ledger.layout().geometry().length();
        let all = match owners {
            1 => length / READING_FIRST_PART_OF_ONE,
            _ => length / READING_FIRST_PART,
        };
        let all = all.clamp(READING_FIRST_LEAST, READING_FIRST_WINDOW);
        let first = first.min(all / owners);
        source.window_reading(now, &self.config, first)
    }
}
