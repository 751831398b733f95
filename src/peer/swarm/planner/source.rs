//! One link as a source of blocks: what it has, what was asked of it, and how
//! fast it answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::block_layout::BlockLayout;
use super::super::chunk_set::ChunkSet;
use super::super::rate::RateMeter;
use super::config::PlannerConfig;
use super::delivery::{DeliveryRate, Mark};
use super::line_meter::LineMeter;
use crate::content::{BlockRange, ChunkIndex};

/// How often the shortest silence doubles for a link that is silent repeatedly.
const MAX_DOUBLINGS: u32 = 4;

/// How often the budget of a turn doubles. Each doubling costs a round trip in
/// which nothing comes. This many are enough for any content.
const MAX_TURN_DOUBLINGS: u32 = 20;

/// How many suggestions of a link are remembered.
const MAX_SUGGESTED: usize = 8;

/// A link that owes as much as it may is asked again when this part of it has come: its
/// requests travel together then, and wake it once. The rest is still more than it can send
/// while they travel.
const REST: u64 = 4;

/// A pause of this length, between two blocks or before the first, is not a sign that a
/// line is slow: the programs and the systems on both sides pause as well.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// A request that the other side has not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) block: BlockRange,
    pub(super) at: Instant,
    /// Whether the answer is still counted on. A request that was taken back
    /// stays in the list until its answer comes, a block or a rejection.
    pub(super) live: bool,
    /// What had been delivered by then.
    mark: Mark,
    /// What its line had carried by then, in bytes.
    carried: u64,
}

/// What is assumed of a link of which nothing is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Typical {
    /// Bytes per second.
    pub(super) rate: f64,
    /// Seconds that a request and its block travel.
    pub(super) travel: f64,
}

/// One link as a source.
#[derive(Debug)]
pub(super) struct Source {
    has: ChunkSet,
    /// How many waiting chunks are in `has`, if that is `Some`.
    candidates: u32,
    /// How many chunks in `has` are not stored yet, if that is `Some`.
    wanted: u32,
    /// Whether it has said what it has.
    announced: bool,
    /// The number of the other zone that it is in.
    far: Option<u32>,
    /// It rejected a chunk that it claimed to have. From then on it never
    /// counts as a seeder.
    unreliable: bool,
    /// Rejections of live requests since the last block.
    rejections: u32,
    /// The other side does not answer requests at present.
    choked: bool,
    /// Bytes that were asked for in this turn, if the other side makes its
    /// links take turns.
    turn: Option<u64>,
    /// How often the turn went on without a choke.
    turns: u32,
    /// How often in a row the other side missed its deadline.
    snubs: u32,
    asks: VecDeque<Ask>,
    /// Bytes of the live requests.
    live_bytes: u64,
    /// It owed as much as it may, and is asked again when part of that has come.
    is_full: bool,
    /// Chunks that the other side suggests, oldest first.
    suggested: VecDeque<ChunkIndex>,
    /// The chunk whose blocks this link asks for first.
    lead: Option<ChunkIndex>,
    meter: RateMeter,
    line: LineMeter,
    delivery: DeliveryRate,
    /// The shortest time from a request to its block.
    round_trip: Option<Duration>,
    /// What its line has carried, in bytes: blocks, and what came between them.
    carried: u64,
    /// The longest time from a request to its block, in seconds, without the time in
    /// which the line was busy. Known as soon as the rate is.
    unexplained: Option<f64>,
    /// When it last answered, or was last found silent.
    last_sign: Option<Instant>,
}

impl Source {
    pub(super) fn new() -> Self {
        Self {
            has: ChunkSet::Nothing,
            candidates: 0,
            wanted: 0,
            announced: false,
            far: None,
            unreliable: false,
            rejections: 0,
            choked: false,
            turn: None,
            turns: 0,
            snubs: 0,
            asks: VecDeque::new(),
            live_bytes: 0,
            is_full: false,
            suggested: VecDeque::new(),
            lead: None,
            meter: RateMeter::default(),
            line: LineMeter::default(),
            delivery: DeliveryRate::default(),
            round_trip: None,
            carried: 0,
            unexplained: None,
            last_sign: None,
        }
    }

    pub(super) fn has(&self) -> &ChunkSet {
        &self.has
    }

    pub(super) fn has_chunk(&self, chunk: ChunkIndex) -> bool {
        self.has.contains(chunk)
    }

    pub(super) fn has_anything(&self) -> bool {
        self.has != ChunkSet::Nothing
    }

    pub(super) fn is_seeder(&self) -> bool {
        self.has == ChunkSet::All
    }

    /// Whether it said what it has, and that is not everything.
    pub(super) fn is_leecher(&self) -> bool {
        self.announced && !self.is_seeder()
    }

    /// Replaces what it has. `candidates` of these chunks wait, and `wanted`
    /// are not stored. Returns what it had before.
    pub(super) fn set_has(&mut self, has: ChunkSet, candidates: u32, wanted: u32) -> ChunkSet {
        (self.candidates, self.wanted) = (candidates, wanted);
        std::mem::replace(&mut self.has, has)
    }

    /// Whether it is in another zone.
    pub(super) fn is_far(&self) -> bool {
        self.far.is_some()
    }

    /// The number of the other zone that it is in.
    pub(super) fn far(&self) -> Option<u32> {
        self.far
    }

    /// It is in another zone, with this number.
    pub(super) fn set_far(&mut self, zone: u32) {
        self.far = Some(zone);
    }

    /// It has said what it has.
    pub(super) fn announce(&mut self) {
        self.announced = true;
    }

    /// A leecher has one more chunk. `waits` and `wanted` say whether the chunk
    /// waits to be asked for, and whether it is not stored. Returns whether the
    /// chunk is new.
    pub(super) fn gain(&mut self, chunk: ChunkIndex, waits: bool, wanted: bool) -> bool {
        let is_new = match &mut self.has {
            ChunkSet::Some(chunks) => chunks.insert(chunk),
            ChunkSet::Nothing | ChunkSet::All => false,
        };
        if is_new {
            self.candidates += u32::from(waits);
            self.wanted += u32::from(wanted);
        }
        is_new
    }

    /// The opposite of [`gain`](Self::gain).
    pub(super) fn lose(&mut self, chunk: ChunkIndex, waits: bool, wanted: bool) -> bool {
        let had = match &mut self.has {
            ChunkSet::Some(chunks) => chunks.remove(chunk),
            ChunkSet::Nothing | ChunkSet::All => false,
        };
        if had {
            self.candidates -= u32::from(waits);
            self.wanted -= u32::from(wanted);
        }
        had
    }

    /// Whether it has every chunk now, and may count as a seeder.
    pub(super) fn became_seeder(&self) -> bool {
        let is_complete = matches!(&self.has, ChunkSet::Some(chunks) if chunks.is_complete());
        is_complete && !self.unreliable
    }

    pub(super) fn mark_unreliable(&mut self) {
        self.unreliable = true;
    }

    /// A chunk began to wait to be asked for.
    pub(super) fn chunk_waits(&mut self, chunk: ChunkIndex) {
        self.candidates += u32::from(self.counts(chunk));
    }

    /// A chunk no longer waits to be asked for.
    pub(super) fn chunk_taken(&mut self, chunk: ChunkIndex) {
        self.candidates -= u32::from(self.counts(chunk));
    }

    /// A chunk is stored, or nobody wants it.
    pub(super) fn chunk_unwanted(&mut self, chunk: ChunkIndex) {
        self.wanted -= u32::from(self.counts(chunk));
    }

    /// A chunk that nobody wanted is wanted again.
    pub(super) fn chunk_wanted(&mut self, chunk: ChunkIndex) {
        self.wanted += u32::from(self.counts(chunk));
    }

    /// Whether a chunk is one that `candidates` and `wanted` count.
    fn counts(&self, chunk: ChunkIndex) -> bool {
        matches!(&self.has, ChunkSet::Some(has) if has.contains(chunk))
    }

    pub(super) fn candidates(&self) -> u32 {
        self.candidates
    }

    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// The other side suggests a chunk. Only the latest few suggestions count.
    pub(super) fn suggest(&mut self, chunk: ChunkIndex) {
        if self.suggested.len() == MAX_SUGGESTED {
            self.suggested.pop_front();
        }
        self.suggested.push_back(chunk);
    }

    pub(super) fn has_suggestions(&self) -> bool {
        !self.suggested.is_empty()
    }

    /// Takes the oldest suggestion.
    pub(super) fn next_suggestion(&mut self) -> Option<ChunkIndex> {
        self.suggested.pop_front()
    }

    pub(super) fn lead(&self) -> Option<ChunkIndex> {
        self.lead
    }

    /// Asks for a chunk's blocks first from now on. Returns the chunk before.
    pub(super) fn set_lead(&mut self, chunk: ChunkIndex) -> Option<ChunkIndex> {
        self.lead.replace(chunk)
    }

    /// Leads a chunk no longer, if it did.
    pub(super) fn drop_lead(&mut self, chunk: ChunkIndex) {
        self.lead = self.lead.filter(|lead| *lead != chunk);
    }

    /// Whether its answers are likely to come: it has sent something, and was
    /// not silent since.
    pub(super) fn is_proven(&self) -> bool {
        self.round_trip.is_some() && !self.is_snubbed()
    }

    /// Whether it was silent when it was last asked.
    pub(super) fn is_snubbed(&self) -> bool {
        self.snubs > 0
    }

    pub(super) fn snubs(&self) -> u32 {
        self.snubs
    }

    /// It may send nothing: it is treated as a link that was silent before.
    pub(super) fn suspect(&mut self) {
        self.snubs = self.snubs.max(1);
    }

    pub(super) fn rejections(&self) -> u32 {
        self.rejections
    }

    /// It rejected a live request.
    pub(super) fn rejected(&mut self) {
        self.rejections = self.rejections.saturating_add(1);
    }

    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        self.meter.rate(now)
    }

    /// How many bytes may be outstanding: rate × (two round trips + slack), so that a
    /// link which could be faster can show it.
    pub(super) fn window(&self, now: Instant, config: &PlannerConfig) -> u64 {
        let rate = self.rate(now).unwrap_or(0.0);
        self.window_at(rate, config)
    }

    /// The same for a link that serves nobody else: the rate is the highest of late, so
    /// that a pause is not made longer by asking for less. Before the first round trip is
    /// over, that rate is too low, and `first` bytes may be outstanding at least.
    pub(super) fn window_alone(&self, now: Instant, config: &PlannerConfig, first: u64) -> u64 {
        let peak = self.window_at(self.delivery.peak(), config);
        let least = if self.delivery.is_measured() {
            0
        } else {
            first
        };
        self.window(now, config).max(peak).max(least)
    }

    /// The same while somebody reads, and little is asked for at first: the rate since the
    /// first block tells soon how much more is wanted.
    pub(super) fn window_reading(&self, now: Instant, config: &PlannerConfig, first: u64) -> u64 {
        let rate = self.line_rate(now).unwrap_or(0.0);
        let early = self.window_at(rate, config).min(config.first_window);
        self.window_alone(now, config, first.max(early))
    }

    /// How fast its line is, as far as is known: the highest rate of late, or that since
    /// its first block came. Other rates are too low at first, as they count the wait for
    /// the first block.
    pub(super) fn line_rate(&self, now: Instant) -> Option<f64> {
        let rate = self.rate(now)?;
        Some(match self.delivery.is_measured() {
            true => rate.max(self.delivery.peak()),
            false => rate.max(self.delivery.since_first()),
        })
    }

    /// Seconds that a request and its block travel: the round trip without the time that
    /// the line is busy with a block.
    ///
    /// Behind a queue that is never empty, the shortest round trip is too long. So the
    /// travel is also no longer than what no queue has explained so far.
    pub(super) fn travel(&self, block_len: f64, rate: f64) -> f64 {
        let round_trip = self.round_trip.unwrap_or_default().as_secs_f64();
        let most = self.unexplained.unwrap_or(f64::INFINITY);
        (round_trip - block_len / rate).min(most).max(0.0)
    }

    /// Whether its rate is known apart from the wait for its first block.
    pub(super) fn shows_rate(&self) -> bool {
        self.delivery.is_measured() || self.delivery.since_first() > 0.0
    }

    /// Its line carried something else than a block.
    pub(super) fn carried(&mut self, bytes: u64) {
        self.carried += bytes;
    }

    /// Seconds until its line has brought what it was asked for, up to a block or all of it,
    /// at the rate of its line. `typical` stands for what is not known yet.
    ///
    /// Requests that were taken back count as well, until they are answered: they may be on
    /// the line already. What is overdue may take as long again. A link that has sent nothing while others
    /// have is taken to need twice as long for each block as it was waited for.
    pub(super) fn clear_in(
        &self,
        now: Instant,
        until: Option<BlockRange>,
        typical: Typical,
    ) -> f64 {
        self.clear_at(now, until, typical, 1.0)
    }

    /// The same, if its line is faster by a factor than is known.
    pub(super) fn clear_at(
        &self,
        now: Instant,
        until: Option<BlockRange>,
        typical: Typical,
        factor: f64,
    ) -> f64 {
        let mut clear = 0.0;
        for (ask, _, end) in self.arrivals(now, typical, factor) {
            clear = end;
            if ask.live && until == Some(ask.block) {
                break;
            }
        }
        f64::max(clear, 0.0)
    }

    /// What it was asked for and its line does not come to within `limit` seconds.
    pub(super) fn asked_beyond(
        &self,
        now: Instant,
        typical: Typical,
        limit: f64,
    ) -> impl Iterator<Item = BlockRange> {
        let arrivals = self.arrivals(now, typical, 1.0);
        let beyond = arrivals.filter(move |(ask, start, _)| ask.live && *start >= limit);
        beyond.map(|(ask, ..)| ask.block)
    }

    /// The requests, and in how many seconds the line comes to each and is free again.
    fn arrivals(
        &self,
        now: Instant,
        typical: Typical,
        factor: f64,
    ) -> impl Iterator<Item = (&Ask, f64, f64)> {
        let since = move |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        let shown = self.line_rate(now).filter(|_| self.shows_rate());
        let rate = shown.unwrap_or_else(|| {
            let head = self.asks.front().map(|head| {
                // One block tells only that its line is not slower: the wait for it was long.
                let waited = match self.last_sign.filter(|last| *last > head.at) {
                    Some(last) => since(last),
                    None => {
                        let busy = (self.carried - head.carried) as f64 / typical.rate;
                        since(head.at) - typical.travel - busy
                    }
                };
                f64::from(head.block.len) / (2.0 * waited.max(0.0))
            });
            let rate = typical.rate.min(head.unwrap_or(f64::INFINITY));
            rate.max(self.line_rate(now).unwrap_or_default())
        }) * factor;
        let mut clear = self
            .last_sign
            .map_or(f64::NEG_INFINITY, |last| -since(last));
        let mut is_first = true;
        self.asks.iter().map(move |ask| {
            let len = f64::from(ask.block.len);
            let travel = match self.round_trip {
                Some(_) => self.travel(len, rate),
                None => typical.travel,
            };
            let start = clear.max(travel - since(ask.at));
            clear = start + len / rate;
            if is_first && clear < 0.0 {
                clear = -clear;
            }
            is_first = false;
            (ask, start, clear)
        })
    }

    /// Whether it is known how fast it is when its line is full.
    pub(super) fn is_measured(&self) -> bool {
        self.delivery.is_measured()
    }

    fn window_at(&self, rate: f64, config: &PlannerConfig) -> u64 {
        let round_trip = self.round_trip.unwrap_or_default();
        let time = round_trip.saturating_mul(2).saturating_add(config.slack);
        (rate * time.as_secs_f64()) as u64
    }

    /// Whether one more request may be outstanding, by number and by bytes, if `window`
    /// bytes may be.
    ///
    /// It is at least two blocks: one on its way and one behind it.
    pub(super) fn has_room(
        &self,
        config: &PlannerConfig,
        layout: &BlockLayout,
        window: u64,
    ) -> bool {
        if self.asks.len() >= config.max_requests {
            return false;
        }
        let block_len = layout.block_len();
        if self.is_snubbed() {
            // One block at a time, until it answers.
            return self.live_bytes < block_len;
        }
        if self
            .turn
            .is_some_and(|asked| asked >= self.turn_len(layout))
        {
            return false;
        }
        self.live_bytes < window.min(config.max_window).max(2 * block_len)
    }

    /// Whether it still owes more than a part of its window since it was full.
    ///
    /// The window is at least two blocks, as in [`has_room`](Self::has_room), so that one is on
    /// its way when the next is asked for. It is not bounded by `max_window`: where that is less
    /// than the line carries in two round trips, the link never rests.
    pub(super) fn rests(&self, layout: &BlockLayout, window: u64) -> bool {
        let window = window.max(2 * layout.block_len());
        self.is_full && self.live_bytes > window - window / REST
    }

    /// Notes whether it owes as much as it may.
    pub(super) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Whether it will be asked for more as soon as it has room: it answers, and its turn
    /// goes on.
    pub(super) fn may_be_asked(&self, layout: &BlockLayout) -> bool {
        let is_spent = |asked| asked >= self.turn_len(layout);
        let spent = self.turn.is_some_and(is_spent);
        !self.choked && !self.is_snubbed() && self.has_anything() && !spent
    }

    /// How much may be asked for in a turn: a chunk at first, and twice as much each time
    /// that the turn goes on.
    fn turn_len(&self, layout: &BlockLayout) -> u64 {
        layout.geometry().chunk_len() << self.turns.min(MAX_TURN_DOUBLINGS)
    }

    /// The shortest time from a request to its block.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn is_choked(&self) -> bool {
        self.choked
    }

    /// The other side answers requests, or does not. A side that has choked
    /// once makes its links take turns.
    pub(super) fn set_choked(&mut self, choked: bool) {
        self.choked = choked;
        if choked {
            self.turn = Some(0);
            self.turns = 0;
            // Others get the same suggestions meanwhile.
            self.suggested.clear();
        }
    }

    /// Whether the other side makes its links take turns.
    pub(super) fn takes_turns(&self) -> bool {
        self.turn.is_some()
    }

    /// A block was asked for.
    pub(super) fn ask(&mut self, now: Instant, block: BlockRange) {
        self.meter.began(now);
        self.live_bytes += u64::from(block.len);
        if let Some(turn) = &mut self.turn {
            *turn += u64::from(block.len);
        }
        let mark = self.delivery.mark(now, self.asks.is_empty());
        self.asks.push_back(Ask {
            block,
            at: now,
            live: true,
            mark,
            carried: self.carried,
        });
    }

    /// It was asked for these by another plan, and still has to answer.
    pub(super) fn owe(&mut self, asks: Vec<(BlockRange, Instant)>) {
        for (block, at) in asks {
            let mark = self.delivery.mark(at, self.asks.is_empty());
            self.asks.push_back(Ask {
                block,
                at,
                live: false,
                mark,
                carried: self.carried,
            });
        }
    }

    /// An answer came: takes its request out of the list.
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

    /// Counts the block that answered a request.
    pub(super) fn delivered(&mut self, now: Instant, ask: &Ask) {
        // A meter that has just rested must include this moment as well.
        self.meter.began(now);
        self.meter.arrived(now, ask.block.len.into());
        let due = self.round_trip.map(|trip| ask.at + trip);
        self.line.arrived(now, ask.block.len.into(), due);
        self.delivery.arrived(now, ask.block.len.into(), ask.mark);
        if self.asks.is_empty() {
            self.meter.rested(now);
        }
        let took = now.duration_since(ask.at);
        self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
        self.carried += u64::from(ask.block.len);
        if let Some(rate) = self.line_rate(now).filter(|_| self.shows_rate()) {
            let busy = (self.carried - ask.carried) as f64 / rate;
            let idle = took.as_secs_f64() - busy;
            self.unexplained = Some(self.unexplained.map_or(idle, |most| most.max(idle)));
        }
        self.rejections = 0;
    }

    /// It was silent for too long: takes all live requests back, and returns
    /// their blocks.
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

    /// Takes a request back.
    pub(super) fn take_back(&mut self, block: BlockRange) {
        let live = |ask: &&mut Ask| ask.block == block && ask.live;
        if let Some(ask) = self.asks.iter_mut().find(live) {
            ask.live = false;
            self.live_bytes -= u64::from(block.len);
        }
    }

    /// The unanswered requests, live or taken back, oldest first.
    pub(super) fn asks(&self) -> impl Iterator<Item = &Ask> {
        self.asks.iter()
    }

    /// How many requests are unanswered, live or taken back.
    pub(super) fn unanswered(&self) -> usize {
        self.asks.len()
    }

    /// The oldest unanswered request, live or taken back.
    pub(super) fn oldest_ask(&self) -> Option<&Ask> {
        self.asks.front()
    }

    /// The live requests, oldest first.
    pub(super) fn live_asks(&self) -> impl DoubleEndedIterator<Item = &Ask> {
        self.asks.iter().filter(|ask| ask.live)
    }

    /// The live request for a block.
    pub(super) fn live_ask(&self, block: BlockRange) -> Option<&Ask> {
        self.live_asks().find(|ask| ask.block == block)
    }

    /// Bytes of the live requests.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Since when the next answer has been waited for.
    fn waiting_since(&self) -> Option<Instant> {
        let asked = self.live_asks().next()?.at;
        Some(self.last_sign.map_or(asked, |last| last.max(asked)))
    }

    /// When the link counts as silent: when its answer is long overdue. `first`
    /// is the patience with a link that has sent nothing yet.
    pub(super) fn deadline(&self, config: &PlannerConfig, first: Duration) -> Option<Instant> {
        let Some(ask) = self.live_asks().next() else {
            // Requests that were taken back need an answer as well, but it is
            // not urgent.
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

    /// Bytes per second of its line, as its last blocks have shown. Unlike the measured rate
    /// it does not count the wait for the first of them: by that one, a fast link that was
    /// asked for much would seem to need many times as long as it does. `None` before
    /// there are blocks to tell it. It falls when the next block is overdue by more than
    /// `patience`.
    pub(super) fn shown_rate(&self, now: Instant, patience: Duration) -> Option<f64> {
        self.line.rate(self.waited(now), patience)
    }

    /// How fast its line can be, in bytes per second, as its next block does not come: as
    /// that takes longer than a pause, the one before it came in no burst. So that one has
    /// taken as long as it came later than those of other links.
    fn most_by_waiting(&self, now: Instant, patience: Duration, typical: Typical) -> f64 {
        let longer = self.waited(now).saturating_sub(patience);
        match self.live_asks().next() {
            Some(next) if !longer.is_zero() => {
                let first = self.round_trip.unwrap_or_default().as_secs_f64() - typical.travel;
                f64::from(next.block.len) / longer.as_secs_f64().max(first)
            }
            _ => f64::INFINITY,
        }
    }

    /// Whether its next block is overdue by more than a pause.
    pub(super) fn pauses(&self, now: Instant) -> bool {
        self.waited(now) > PAUSE
    }

    /// For how long its next block is due: since the one before it, and not before a round
    /// trip was over.
    fn waited(&self, now: Instant) -> Duration {
        let next = self.live_asks().next();
        let due = next.map(|next| next.at + self.round_trip.unwrap_or_default());
        let due = due.map(|due| self.last_sign.map_or(due, |last| last.max(due)));
        due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due))
    }

    /// Whether its rate is more than that of one burst.
    pub(super) fn has_shown_rate(&self) -> bool {
        self.line.time() >= PAUSE
    }

    /// Bytes that are not answered, live or taken back: all, or those up to the last live
    /// request.
    fn line_holds(&self, up_to_live: bool) -> u64 {
        let len = |ask: &Ask| u64::from(ask.block.len);
        let behind = |ask: &&Ask| up_to_live && !ask.live;
        let asks = self.asks.iter().rev().skip_while(behind);
        asks.map(len).sum()
    }

    /// Seconds until all live requests and then `extra` bytes are answered, if
    /// the rate holds. `typical` stands for what is not known yet.
    ///
    /// What was taken back and was not rejected yet is on the line already, and the rest comes
    /// behind it.
    ///
    /// An overdue answer is expected to take as long again as it is overdue:
    /// the longer a link is silent, the less it promises.
    pub(super) fn finish_in(&self, now: Instant, extra: u64, typical: Typical) -> f64 {
        let bytes = (self.line_holds(extra == 0) + extra) as f64;
        let measured = self.rate(now);
        // What is asked for now is promised, and the rest is not to be taken too early.
        let patience = if extra > 0 { Duration::ZERO } else { PAUSE };
        let shown = self.shown_rate(now, patience);
        let rate = shown.unwrap_or_else(|| match measured {
            // It is asked for one block at a time, and a round trip belongs to each.
            Some(rate) if self.is_snubbed() => rate,
            // It is asked for so little that its blocks do not follow one another.
            Some(rate) if self.delivery.is_measured() => rate,
            // The first blocks tell only that its line is not slower.
            Some(rate) => {
                let most = self.most_by_waiting(now, patience, typical);
                rate.max(typical.rate.min(most))
            }
            None => typical.rate,
        });
        // A request that is sent now takes a round trip or longer.
        let round_trip = self
            .round_trip
            .map_or(typical.travel, |trip| trip.as_secs_f64());
        let extra_comes = if extra > 0 { round_trip } else { 0.0 };
        let Some(next) = self.live_asks().next() else {
            return (bytes / rate).max(extra_comes);
        };
        let head = f64::from(next.block.len);
        let asked = now.duration_since(next.at).as_secs_f64();
        if measured.is_none() {
            let overdue = asked - round_trip - PAUSE.as_secs_f64();
            let first = (round_trip - asked).max(0.0);
            return (first + bytes / rate).max(overdue);
        }
        let waited = self.waiting_since().map(|since| now.duration_since(since));
        let waited = waited.unwrap_or_default().as_secs_f64();
        // The current rate falls while the answer is late, the measured one
        // does not.
        let usual = self.meter.measured().map_or(rate, |usual| usual.max(rate));
        let due = (head / usual - waited).max(round_trip - asked);
        ((bytes - head) / rate + due.abs()).max(extra_comes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Typical = Typical {
        rate: 1.0,
        travel: 0.0,
    };

    /// The one block of a chunk.
    fn block(chunk: u32) -> BlockRange {
        BlockRange {
            chunk: ChunkIndex(chunk),
            offset: 0,
            len: 1000,
        }
    }

    #[test]
    fn silent_link_promises_less_the_longer_its_answer_is_overdue() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut source = Source::new();
        for index in 0..4 {
            source.ask(at(0), block(index));
        }
        for index in 0..2 {
            let now = at(100 * u64::from(index + 1));
            let ask = source.answered(now, block(index)).unwrap();
            source.delivered(now, &ask);
        }
        let close = |seconds: f64, expected: f64| (seconds - expected).abs() < 1e-9;
        assert!(close(source.finish_in(at(200), 0, UNKNOWN), 0.2));
        assert!(close(source.finish_in(at(250), 0, UNKNOWN), 0.15));
        source.take_back(block(3));
        assert!(close(source.finish_in(at(300), 0, UNKNOWN), 0.0));
        let promises: Vec<f64> = [400, 1000, 10_000]
            .map(|ms| source.finish_in(at(ms), 0, UNKNOWN))
            .to_vec();
        assert!(promises.is_sorted() && promises[2] > 4.0, "{promises:?}");
    }

    #[test]
    fn link_that_stops_after_its_first_block_promises_less_and_less() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut source = Source::new();
        for index in 0..2 {
            source.ask(at(0), block(index));
        }
        let ask = source.answered(at(100), block(0)).unwrap();
        source.delivered(at(100), &ask);
        let promises = [300, 400, 1100].map(|ms| source.finish_in(at(ms), 0, UNKNOWN));
        for (promise, expected) in promises.into_iter().zip([0.1, 0.2, 0.9]) {
            assert!((promise - expected).abs() < 1e-9, "{promises:?}");
        }
    }

    #[test]
    fn line_is_clear_when_what_was_taken_back_has_come_as_well() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut source = Source::new();
        for index in 0..6 {
            source.ask(at(0), block(index));
        }
        // The round trip is 150 ms, and a block takes 50 ms.
        for (index, ms) in [(0, 200), (1, 250)] {
            let ask = source.answered(at(ms), block(index)).unwrap();
            source.delivered(at(ms), &ask);
        }
        source.take_back(block(2));
        let close = |seconds: f64, expected: f64| (seconds - expected).abs() < 1e-9;
        let clear = |now, until| source.clear_in(now, until, UNKNOWN);
        assert!(close(clear(at(250), Some(block(3))), 0.1));
        assert!(close(clear(at(260), None), 0.19));
        // The next one is overdue by 100 ms, and may take as long again.
        assert!(close(clear(at(400), None), 0.25));
    }

    #[test]
    fn link_that_has_sent_nothing_promises_less_the_longer_it_was_waited_for() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let typical = Typical {
            rate: 10_000.0,
            travel: 0.05,
        };
        let mut source = Source::new();
        for index in 0..2 {
            source.ask(at(0), block(index));
        }
        let close = |seconds: f64, expected: f64| (seconds - expected).abs() < 1e-9;
        assert!(close(source.clear_in(at(0), None, typical), 0.25));
        assert!(close(source.clear_in(at(450), None, typical), 0.4 + 0.8));
    }

    #[test]
    fn answer_is_not_overdue_within_the_shortest_round_trip() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut source = Source::new();
        for index in 0..2 {
            source.ask(at(0), block(index));
        }
        for index in 0..2 {
            let ask = source.answered(at(100), block(index)).unwrap();
            source.delivered(at(100), &ask);
        }
        source.ask(at(100), block(2));
        // Two blocks a round trip are 50 ms each.
        let promise = source.finish_in(at(180), 0, UNKNOWN);
        assert!((promise - 0.02).abs() < 1e-9, "{promise}");
    }
}
