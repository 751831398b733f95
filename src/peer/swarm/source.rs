//! One link as a source of blocks: what it has, what was asked of it, and how
//! fast it answers.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::rate::RateMeter;
use super::{BlockGrid, PlannerConfig};
use crate::content::{Bitfield, BlockRange, ChunkIndex};

/// The chunks that the other side of a link has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Has {
    /// None, or it has not said.
    Nothing,
    /// Some: its peer is a leecher.
    Some(Bitfield),
    /// All: its peer is a seeder.
    All,
}

impl Has {
    /// Whether a chunk is among them.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some(chunks) => chunks.contains(chunk),
            Self::All => true,
        }
    }

    /// How many of `chunks` chunks these are.
    pub fn count(&self, chunks: u32) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Some(has) => has.count(),
            Self::All => chunks,
        }
    }
}

/// How often the shortest silence doubles for a link that is silent again and
/// again.
const MAX_DOUBLINGS: u32 = 4;

/// How often what is asked for in a turn doubles: each time costs a round trip,
/// in which nothing comes. Enough for all of a content.
const MAX_TURN_DOUBLINGS: u32 = 20;

/// A request that the other side has not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) block: BlockRange,
    pub(super) at: Instant,
    /// Whether it is still counted on. A request that was taken back stays in
    /// the list until its answer comes, a block or a rejection.
    pub(super) live: bool,
}

/// One link as a source.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) has: Has,
    /// How many waiting chunks are in `has`, when that is `Some`.
    pub(super) candidates: u32,
    /// How many chunks in `has` are not stored yet, when that is `Some`.
    pub(super) wanted: u32,
    /// It rejected something that it said to have, and counts no longer as one
    /// that has everything, whatever it says.
    pub(super) unreliable: bool,
    /// Rejections of what was counted on, since the last block.
    pub(super) rejections: u32,
    /// The other side does not answer requests at present.
    pub(super) choked: bool,
    /// Bytes that were asked for in this turn, where the other side makes its
    /// links take turns; and how often the turn went on without a choke.
    turn: Option<u64>,
    turns: u32,
    /// The other side missed its deadline, and has sent nothing since.
    pub(super) snubs: u32,
    pub(super) asks: VecDeque<Ask>,
    pub(super) live_bytes: u64,
    /// Whether it has said what it has.
    pub(super) said: bool,
    /// Chunks that the other side would like to be asked for.
    pub(super) suggested: VecDeque<ChunkIndex>,
    /// The chunk whose blocks this link asks for first.
    pub(super) lead: Option<ChunkIndex>,
    /// The part of the content that is this link's by the plain split.
    pub(super) home: Range<u32>,
    meter: RateMeter,
    /// The shortest time from a request to its block.
    round_trip: Option<Duration>,
    /// When it last answered, or was last found silent.
    last_sign: Option<Instant>,
}

impl Source {
    pub(super) fn new() -> Self {
        Self {
            has: Has::Nothing,
            candidates: 0,
            wanted: 0,
            unreliable: false,
            rejections: 0,
            choked: false,
            turn: None,
            turns: 0,
            snubs: 0,
            asks: VecDeque::new(),
            live_bytes: 0,
            said: false,
            suggested: VecDeque::new(),
            lead: None,
            home: 0..0,
            meter: RateMeter::default(),
            round_trip: None,
            last_sign: None,
        }
    }

    /// Whether what it was asked for is likely to come: it has sent something,
    /// and was not silent since.
    pub(super) fn is_proven(&self) -> bool {
        self.round_trip.is_some() && self.snubs == 0
    }

    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        self.meter.rate(now)
    }

    /// Whether another block may be asked for: outstanding may be rate × (two
    /// round trips + slack), so that a link which could be faster shows it, and
    /// one block on its way plus one behind it at the least. A turn is good
    /// for one chunk at first, and for twice as much each time that it goes on.
    pub(super) fn has_room(&self, now: Instant, config: &PlannerConfig, grid: &BlockGrid) -> bool {
        let block_len = grid.block_len();
        if self.snubs > 0 {
            return self.live_bytes < block_len;
        }
        let turn_len = grid.geometry().chunk_len() << self.turns.min(MAX_TURN_DOUBLINGS);
        if self.turn.is_some_and(|asked| asked >= turn_len) {
            return false;
        }
        if self.live_bytes < 2 * block_len {
            return true;
        }
        let pipe = match (self.rate(now), self.round_trip) {
            (Some(rate), Some(round_trip)) => {
                let time = round_trip.saturating_mul(2).saturating_add(config.slack);
                (rate * time.as_secs_f64()) as u64
            }
            _ => 0,
        };
        self.live_bytes < pipe.min(config.max_window)
    }

    /// The other side answers requests, or does not. Once it has refused, its
    /// links take turns.
    pub(super) fn choked(&mut self, choked: bool) {
        self.choked = choked;
        if choked {
            self.turn = Some(0);
            self.turns = 0;
            // Others are told to ask for the same meanwhile.
            self.suggested.clear();
        }
    }

    /// Whether the other side makes its links take turns.
    pub(super) fn takes_turns(&self) -> bool {
        self.turn.is_some()
    }

    pub(super) fn asked(&mut self, now: Instant, block: BlockRange) {
        self.meter.began(now);
        self.live_bytes += u64::from(block.len);
        if let Some(turn) = &mut self.turn {
            *turn += u64::from(block.len);
        }
        self.asks.push_back(Ask {
            block,
            at: now,
            live: true,
        });
    }

    /// Takes an ask out of the list, because its answer came.
    pub(super) fn answered(&mut self, now: Instant, block: BlockRange) -> Option<Ask> {
        let at = self.asks.iter().position(|ask| ask.block == block)?;
        let ask = self.asks.remove(at)?;
        if ask.live {
            self.live_bytes -= u64::from(block.len);
        }
        if self.asks.is_empty() {
            self.meter.rested(now);
            if let Some(turn) = &mut self.turn {
                self.turns += u32::from(*turn > 0);
                *turn = 0;
            }
        }
        self.last_sign = Some(now);
        self.snubs = 0;
        Some(ask)
    }

    /// Counts the block that answered an ask.
    pub(super) fn delivered(&mut self, now: Instant, ask: &Ask) {
        // A link that has just rested is measured up to this moment as well.
        self.meter.began(now);
        self.meter.arrived(now, ask.block.len.into());
        if self.asks.is_empty() {
            self.meter.rested(now);
        }
        let took = now.duration_since(ask.at);
        self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
        self.rejections = 0;
    }

    /// It was silent for too long: nothing is counted on any more. Returns
    /// what was.
    pub(super) fn silent(&mut self, now: Instant) -> Vec<BlockRange> {
        self.snubs = self.snubs.saturating_add(1);
        self.last_sign = Some(now);
        self.lead = None;
        self.live_bytes = 0;
        let live = self.asks.iter_mut().filter(|ask| ask.live);
        live.map(|ask| {
            ask.live = false;
            ask.block
        })
        .collect()
    }

    /// No longer counts on a request.
    pub(super) fn take_back(&mut self, block: BlockRange) {
        let live = |ask: &&mut Ask| ask.block == block && ask.live;
        if let Some(ask) = self.asks.iter_mut().find(live) {
            ask.live = false;
            self.live_bytes -= u64::from(block.len);
        }
    }

    pub(super) fn live_asks(&self) -> impl DoubleEndedIterator<Item = &Ask> {
        self.asks.iter().filter(|ask| ask.live)
    }

    /// Since when the next answer has been waited for.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let asked = self.live_asks().next()?.at;
        Some(self.last_sign.map_or(asked, |last| last.max(asked)))
    }

    /// When the link counts as silent: it should have answered long ago. What
    /// was taken back is owed an answer as well, but not urgently.
    /// `first` is for one that has sent nothing yet.
    pub(super) fn deadline(&self, config: &PlannerConfig, first: Duration) -> Option<Instant> {
        let Some(ask) = self.live_asks().next() else {
            let asked = self.asks.front()?.at;
            let since = self.last_sign.map_or(asked, |last| last.max(asked));
            return since.checked_add(config.max_silence);
        };
        let rate = self.meter.measured();
        let expected = rate.map_or(0.0, |rate| f64::from(ask.block.len) / rate);
        let expected = Duration::try_from_secs_f64(expected).unwrap_or(config.max_silence);
        let silence = if self.round_trip.is_some() {
            config.silence
        } else {
            first
        };
        let earliest = silence.saturating_mul(1 << self.snubs.min(MAX_DOUBLINGS));
        let patience = expected.saturating_mul(4).max(earliest);
        self.waiting_since()?
            .checked_add(patience.min(config.max_silence))
    }

    /// Seconds until `extra` bytes behind everything outstanding are there, if
    /// the rate holds; `typical` stands in for a rate that is not known yet.
    /// A next answer that is overdue is expected to take as long again as it
    /// is overdue: the longer a link is silent, the less it promises.
    pub(super) fn finish_in(&self, now: Instant, extra: u64, typical: f64) -> f64 {
        let bytes = (self.live_bytes + extra) as f64;
        let next = self.live_asks().next();
        let waited = self.waiting_since().map(|since| now.duration_since(since));
        let waited = waited.unwrap_or_default().as_secs_f64();
        let Some(rate) = self.rate(now) else {
            return (bytes / typical).max(waited);
        };
        // What is asked for now cannot come sooner than a round trip.
        let round_trip = self.round_trip.unwrap_or_default().as_secs_f64();
        let extra_comes = if extra > 0 { round_trip } else { 0.0 };
        let Some(next) = next else {
            return (bytes / rate).max(extra_comes);
        };
        let head = f64::from(next.block.len);
        let asked = now.duration_since(next.at).as_secs_f64();
        // Its rate falls while it is late; what it should take does not.
        let usual = self.meter.measured().unwrap_or(rate);
        let due = (head / usual - waited).max(round_trip - asked);
        ((bytes - head) / rate + due.abs()).max(extra_comes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_link_promises_less_the_longer_its_answer_is_overdue() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let block = |index: u32| BlockRange {
            chunk: ChunkIndex(index),
            offset: 0,
            len: 1000,
        };
        let mut source = Source::new();
        for index in 0..4 {
            source.asked(at(0), block(index));
        }
        for index in 0..2 {
            let now = at(100 * u64::from(index + 1));
            let ask = source.answered(now, block(index)).unwrap();
            source.delivered(now, &ask);
        }
        let close = |seconds: f64, expected: f64| (seconds - expected).abs() < 1e-9;
        assert!(close(source.finish_in(at(200), 0, 1.0), 0.2));
        assert!(close(source.finish_in(at(250), 0, 1.0), 0.15));
        source.take_back(block(3));
        assert!(close(source.finish_in(at(300), 0, 1.0), 0.0));
        let promises: Vec<f64> = [400, 1000, 10_000]
            .map(|ms| source.finish_in(at(ms), 0, 1.0))
            .to_vec();
        assert!(promises.is_sorted() && promises[2] > 4.0, "{promises:?}");
    }

    #[test]
    fn link_that_stops_after_its_first_block_promises_less_and_less() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let block = |index: u32| BlockRange {
            chunk: ChunkIndex(index),
            offset: 0,
            len: 1000,
        };
        let mut source = Source::new();
        for index in 0..2 {
            source.asked(at(0), block(index));
        }
        let ask = source.answered(at(100), block(0)).unwrap();
        source.delivered(at(100), &ask);
        let promises = [300, 400, 1100].map(|ms| source.finish_in(at(ms), 0, 1.0));
        for (promise, expected) in promises.into_iter().zip([0.1, 0.2, 0.9]) {
            assert!((promise - expected).abs() < 1e-9, "{promises:?}");
        }
    }

    #[test]
    fn answer_is_not_overdue_within_the_shortest_round_trip() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let block = |index: u32| BlockRange {
            chunk: ChunkIndex(index),
            offset: 0,
            len: 1000,
        };
        let mut source = Source::new();
        for index in 0..2 {
            source.asked(at(0), block(index));
        }
        for index in 0..2 {
            let ask = source.answered(at(100), block(index)).unwrap();
            source.delivered(at(100), &ask);
        }
        source.asked(at(100), block(2));
        // Two blocks a round trip are 50 ms each.
        let promise = source.finish_in(at(180), 0, 1.0);
        assert!((promise - 0.02).abs() < 1e-9, "{promise}");
    }
}
