//! How much is asked for in a crowd, and of whom it is likely to come.
//!
//! Where links take turns, what one peer has asked for in many lines at once
//! comes no sooner, and others could have had the turn: so a download asks for
//! a few chunks at a time. Only what is asked of links that have proved
//! themselves counts. The others are tried with a few chunks beside that, and
//! with more when nothing comes of these: peers that take requests and never
//! answer hold nobody up.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::super::source::{Has, Source};
use super::Planner;

/// How many chunks links that take turns are asked for at a time, if that keeps
/// the line busy: one comes while the next is waited for, and one to spare.
const MAX_TURNS: u32 = 3;

/// Who is behind takes more at a time: one chunk for each so many that other
/// leechers have and that wait here, up to a bound. In a crowd that starts
/// together, everybody is about as many behind as it takes to pass a chunk on
/// to all.
const BEHIND: u32 = 12;
const MAX_MORE_TURNS: u32 = 5;

/// How many round trips' worth of bytes they are asked for, if that is more.
const SATED: f64 = 1.5;

/// For how many blocks' time a new link may be silent, and how long at the
/// least: a long round trip, and some.
const FIRST_SILENCE: f64 = 8.0;
const MIN_SILENCE: Duration = Duration::from_millis(500);

/// After what part of that time others are tried as well.
const DOUBT: u32 = 4;

impl Planner {
    /// How long a link that has sent nothing yet may take: several times as long
    /// as a block takes at the rate at which the others deliver.
    pub(super) fn first_silence(&self) -> Duration {
        let rate = self.meter.measured().unwrap_or(0.0);
        let blocks = FIRST_SILENCE * self.grid.block_len() as f64 / rate;
        let blocks = Duration::try_from_secs_f64(blocks).unwrap_or(self.config.silence);
        blocks.max(MIN_SILENCE).min(self.config.silence)
    }

    /// How long a link that has sent nothing yet may take before others are tried
    /// as well.
    fn patience(&self) -> Duration {
        self.first_silence() / DOUBT
    }

    /// Whether a link was asked for something, has sent nothing yet, and takes so
    /// long that others are tried as well.
    pub fn is_doubtful(&self, now: Instant, link: LinkId) -> bool {
        let unproven = self.sources.get(link).filter(|source| !source.is_proven());
        let asked = unproven.and_then(|source| source.asks.front());
        asked.is_some_and(|ask| now.duration_since(ask.at) >= self.patience())
    }

    /// Whether a link that has something was not asked yet, though it would answer
    /// and nothing else is promised.
    pub fn is_untried(&self, link: LinkId) -> bool {
        let untried = |source: &Source| {
            let idle = !source.is_proven() && !source.choked && source.asks.is_empty();
            idle && !matches!(source.has, Has::Nothing)
        };
        self.live == self.doubtful && self.sources.get(link).is_some_and(untried)
    }

    /// Whether something is asked for of links that have sent nothing yet.
    pub fn has_doubts(&self) -> bool {
        self.doubtful > 0
    }

    /// Whether a link is not asked before something has come: others have been
    /// asked for enough.
    pub(super) fn passes_over(&mut self, now: Instant, link: LinkId) -> bool {
        let Some(source) = self.sources.get(link) else {
            return true;
        };
        let passed = if source.snubs > 0 && self.live > 0 {
            true
        } else if source.is_proven() {
            source.takes_turns() && self.is_sated(now)
        } else {
            let takes_turns = source.takes_turns();
            let until = self.doubts_until(now, takes_turns);
            self.look_again(until);
            until.is_some()
        };
        self.passed_over |= passed;
        passed
    }

    /// Whether some link was passed over since this was last asked: it may be
    /// asked when something has come.
    pub fn take_passed_over(&mut self) -> bool {
        std::mem::take(&mut self.passed_over)
    }

    /// No later than that, the hungry look again.
    pub(super) fn look_again(&mut self, at: Option<Instant>) {
        self.retry = self.retry.into_iter().chain(at).min();
    }

    /// Whether so much is asked for that links which take turns are not asked
    /// as well: what waits in many lines at once comes no sooner, and others
    /// could have had the turn.
    fn is_sated(&mut self, now: Instant) -> bool {
        let behind = self.picker.held_in_part() / BEHIND;
        let turns = MAX_TURNS + behind.min(MAX_MORE_TURNS);
        let least = u64::from(turns) * self.grid.geometry().chunk_len();
        let promised = self.live - self.doubtful;
        if promised < least {
            return false;
        }
        // Many links are looked at in the same moment.
        if self.appetite.is_none_or(|(at, _)| at != now) {
            let pipe = match (self.meter.rate(now), self.round_trip) {
                (Some(rate), Some(round_trip)) => {
                    let time = round_trip.mul_f64(SATED);
                    rate * time.saturating_add(self.config.slack).as_secs_f64()
                }
                _ => 0.0,
            };
            self.appetite = Some((now, pipe as u64));
        }
        self.appetite.is_none_or(|(_, pipe)| promised >= pipe)
    }

    /// Until when no more is asked of links that have not proved themselves:
    /// enough was asked for only now, and may well come. Who takes turns and who
    /// does not are counted apart: a turn that is offered is worth more than a
    /// line that never says no. Where nobody takes turns, all are tried at once.
    /// O(links).
    fn doubts_until(&mut self, now: Instant, takes_turns: bool) -> Option<Instant> {
        let enough = u64::from(MAX_TURNS) * self.grid.geometry().chunk_len();
        if self.turn_takers == 0 || self.doubtful < enough {
            return None;
        }
        // Many links are looked at in the same moment.
        let doubts = &self.doubts[usize::from(takes_turns)];
        if let Some((at, doubtful, until)) = *doubts
            && (at, doubtful) == (now, self.doubtful)
        {
            return until;
        }
        let patience = self.patience();
        let mut fresh = 0;
        let mut until = None;
        let unproven = |s: &&Source| !s.is_proven() && s.takes_turns() == takes_turns;
        for source in self.sources.values().filter(unproven) {
            let Some(ask) = source.live_asks().next() else {
                continue;
            };
            if now.duration_since(ask.at) < patience {
                fresh += source.live_bytes;
                let end = ask.at.checked_add(patience);
                until = until.into_iter().chain(end).min();
            }
        }
        let until = until.filter(|_| fresh >= enough);
        self.doubts[usize::from(takes_turns)] = Some((now, self.doubtful, until));
        until
    }

    /// Whether no link at all is asked for more at present.
    pub fn is_served(&mut self, now: Instant) -> bool {
        if self.turn_takers < self.sources.len() || !self.is_sated(now) {
            return false;
        }
        // All of them take turns.
        let until = self.doubts_until(now, true);
        self.look_again(until);
        let served = self.unproven == 0 || until.is_some();
        self.passed_over |= served;
        served
    }
}
