//! How much may be outstanding on a link.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::chunk_states::ChunkState;
use super::config::PlannerConfig;
use super::ledger::Ledger;
use super::source::Source;
use super::urgent::Urgent;

/// How many bytes all links together are asked for while somebody reads, before it is
/// known how fast they are: what a line of 10 Mbit/s carries in a long round trip. What
/// slow links were asked for has to be taken over from them, and a reader that goes
/// elsewhere at once waits behind it.
const READING_FIRST_WINDOW: u64 = 256 << 10;

/// How long readers can do without a link, beyond two round trips, when its round trip is
/// measured.
const PROBE: Duration = Duration::from_millis(100);

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
    pub(super) fn has_room(
        &self,
        now: Instant,
        ledger: &Ledger,
        urgent: &Urgent,
        link: LinkId,
    ) -> bool {
        ledger.sources().get(link).is_some_and(|source| {
            let window = self.window(now, ledger, urgent, source);
            !source.is_choked()
                && source.has_anything()
                && source.has_room(&self.config, ledger.layout(), window)
        })
    }

    /// How much may be outstanding on a link.
    fn window(&self, now: Instant, ledger: &Ledger, urgent: &Urgent, source: &Source) -> u64 {
        let alone = self.owners_alone.filter(|_| !source.takes_turns());
        let Some(owners) = alone else {
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
        if source.wants_probe() && is_calm(now, ledger, urgent, source) {
            // As little as possible, see `Source::has_room`.
            return 0;
        }
        let first = first.min(READING_FIRST_WINDOW / owners);
        source.window_reading(now, &self.config, ledger.layout().block_len(), first)
    }
}

/// Whether readers have enough to go on with while the round trip of a link is
/// measured.
fn is_calm(now: Instant, ledger: &Ledger, urgent: &Urgent, source: &Source) -> bool {
    let is_here = |chunk| {
        let state = ledger.states().get(chunk);
        matches!(state, ChunkState::Stored | ChunkState::Complete)
    };
    let mut missing = urgent.iter().filter(|(chunk, _)| !is_here(*chunk));
    let pause = source.round_trip().unwrap_or_default() * 2 + PROBE;
    missing.next().is_none_or(|(_, due)| due > now + pause)
}
