//! All sources of a download, and what they promise together.

use std::time::Instant;

use super::super::LinkId;
use super::super::chunk_set::ChunkSet;
use super::super::link_map::LinkMap;
use super::source::{PAUSE, Source, Typical};
use crate::content::ChunkIndex;

/// All sources, with their totals.
#[derive(Debug, Default)]
pub(super) struct Sources {
    sources: LinkMap<Source>,
    totals: Totals,
}

/// Sums over all sources.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// Bytes of the live requests.
    pub(super) live: u64,
    /// Those of them that were asked of unproven sources.
    pub(super) doubtful: u64,
    /// Sources that have not proved themselves.
    pub(super) unproven: usize,
    /// Sources that were silent when they were last asked.
    pub(super) snubbed: usize,
    /// Sources that make their links take turns.
    pub(super) turn_takers: usize,
}

impl Totals {
    /// What one source adds.
    fn of(source: &Source) -> Self {
        let unproven = !source.is_proven();
        Self {
            live: source.live_bytes(),
            doubtful: if unproven { source.live_bytes() } else { 0 },
            unproven: unproven.into(),
            snubbed: source.is_snubbed().into(),
            turn_takers: source.takes_turns().into(),
        }
    }

    fn add(&mut self, part: Self) {
        self.live += part.live;
        self.doubtful += part.doubtful;
        self.unproven += part.unproven;
        self.snubbed += part.snubbed;
        self.turn_takers += part.turn_takers;
    }

    fn subtract(&mut self, part: Self) {
        self.live -= part.live;
        self.doubtful -= part.doubtful;
        self.unproven -= part.unproven;
        self.snubbed -= part.snubbed;
        self.turn_takers -= part.turn_takers;
    }

    /// Bytes that are likely to come.
    pub(super) fn promised(&self) -> u64 {
        self.live - self.doubtful
    }
}

impl Sources {
    pub(super) fn insert(&mut self, link: LinkId, source: Source) {
        self.totals.add(Totals::of(&source));
        if let Some(before) = self.sources.insert(link, source) {
            self.totals.subtract(Totals::of(&before));
        }
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Option<Source> {
        let source = self.sources.remove(link)?;
        self.totals.subtract(Totals::of(&source));
        Some(source)
    }

    #[inline]
    pub(super) fn get(&self, link: LinkId) -> Option<&Source> {
        self.sources.get(link)
    }

    /// Changes a source, and the totals with it.
    #[inline]
    pub(super) fn update<R>(
        &mut self,
        link: LinkId,
        change: impl FnOnce(&mut Source) -> R,
    ) -> Option<R> {
        let source = self.sources.get_mut(link)?;
        self.totals.subtract(Totals::of(source));
        let result = change(source);
        self.totals.add(Totals::of(source));
        Some(result)
    }

    /// A link suggests a chunk.
    pub(super) fn suggest(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let Some(source) = self.sources.get_mut(link) {
            source.suggest(chunk);
        }
    }

    /// The next chunk that a link suggests, has, and that is `useful`. Drops the
    /// suggestions before.
    pub(super) fn next_suggestion(
        &mut self,
        link: LinkId,
        useful: impl Fn(ChunkIndex) -> bool,
    ) -> Option<ChunkIndex> {
        let source = self.sources.get_mut(link)?;
        while let Some(chunk) = source.next_suggestion() {
            if source.has_chunk(chunk) && useful(chunk) {
                return Some(chunk);
            }
        }
        None
    }

    /// A link asks for a chunk's blocks first from now on. Returns the chunk
    /// before.
    pub(super) fn set_lead(&mut self, link: LinkId, chunk: ChunkIndex) -> Option<ChunkIndex> {
        self.sources.get_mut(link)?.set_lead(chunk)
    }

    /// A link leads a chunk no longer, if it did.
    pub(super) fn drop_lead(&mut self, link: LinkId, chunk: ChunkIndex) {
        if let Some(source) = self.sources.get_mut(link) {
            source.drop_lead(chunk);
        }
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn contains(&self, link: LinkId) -> bool {
        self.sources.contains(link)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Source)> {
        self.sources.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Source> {
        self.sources.values()
    }

    /// The links of the sources that have everything.
    pub(super) fn seeders(&self) -> impl Iterator<Item = LinkId> {
        let seeders = self.iter().filter(|(_, source)| source.is_seeder());
        seeders.map(|(link, _)| link)
    }

    /// Whether all near links that have something missing have sent something, and all of them
    /// together are slower than this, in bytes per second. `false` as long as there is none.
    /// O(links).
    pub(super) fn near_are_slower(&self, now: Instant, far: f64) -> bool {
        let useful = |s: &&Source| !s.is_far() && (s.is_seeder() || s.wanted() > 0);
        let mut all = None;
        for source in self.values().filter(useful) {
            match source.rate(now) {
                Some(near) => all = Some(all.unwrap_or(0.0) + near),
                None => return false,
            }
        }
        all.is_some_and(|all| all < far)
    }

    /// The mean of the rates that blocks have [shown](Source::shown_rate), or of all that
    /// are known, and the shortest round trip. As long as nothing is known, a link is taken
    /// to need no time but that for which it is waited for.
    pub(super) fn shown_typical(&self, now: Instant) -> Typical {
        let mean = |rates: &mut dyn Iterator<Item = f64>| {
            let (count, sum) = rates.fold((0, 0.0), |(n, sum), rate| (n + 1, sum + rate));
            (count > 0).then(|| sum / f64::from(count))
        };
        let shown = mean(
            &mut self
                .values()
                .filter_map(|source| source.shown_rate(now, PAUSE)),
        );
        let known = || mean(&mut self.values().filter_map(|source| source.rate(now)));
        let round_trip = self.values().filter_map(Source::round_trip).min();
        Typical {
            rate: shown.or_else(known).unwrap_or(f64::INFINITY),
            travel: round_trip.unwrap_or_default().as_secs_f64(),
        }
    }

    /// What is assumed of a link of which nothing is known: the mean of all known rates,
    /// and the shortest travel. As long as nothing is known, all links count as equally fast.
    pub(super) fn typical(&self, now: Instant, block_len: u64) -> Typical {
        // One block of a link says little: the wait for it counts as well.
        let some_show = self.values().any(Source::shows_rate);
        let telling = self.values().filter(|s| s.shows_rate() || !some_show);
        let known = telling.filter_map(|source| {
            let rate = source.line_rate(now)?;
            Some((rate, source.travel(block_len as f64, rate)))
        });
        let none = (0.0, 0.0, f64::INFINITY);
        let (count, sum, travel) = known.fold(none, |(count, sum, least), (rate, travel)| {
            (count + 1.0, sum + rate, travel.min(least))
        });
        match sum > count {
            true => Typical {
                rate: sum / count,
                travel,
            },
            false => Typical {
                rate: 1.0,
                travel: 0.0,
            },
        }
    }

    #[inline]
    pub(super) fn has(&self, link: LinkId) -> &ChunkSet {
        self.get(link).map_or(&ChunkSet::Nothing, Source::has)
    }

    /// A chunk began to wait to be asked for. O(links).
    pub(super) fn chunk_waits(&mut self, chunk: ChunkIndex) {
        let sources = self.sources.values_mut();
        sources.for_each(|source| source.chunk_waits(chunk));
    }

    /// A chunk no longer waits to be asked for. O(links).
    pub(super) fn chunk_taken(&mut self, chunk: ChunkIndex) {
        let sources = self.sources.values_mut();
        sources.for_each(|source| source.chunk_taken(chunk));
    }

    /// A chunk is stored, or nobody wants it. O(links).
    pub(super) fn chunk_unwanted(&mut self, chunk: ChunkIndex) {
        let sources = self.sources.values_mut();
        sources.for_each(|source| source.chunk_unwanted(chunk));
    }

    /// A chunk that nobody wanted is wanted again. O(links).
    pub(super) fn chunk_wanted(&mut self, chunk: ChunkIndex) {
        let sources = self.sources.values_mut();
        sources.for_each(|source| source.chunk_wanted(chunk));
    }

    /// Panics if a total is wrong. For tests.
    pub(super) fn check_invariants(&self) {
        let mut totals = Totals::default();
        for source in self.values() {
            totals.add(Totals::of(source));
            let live = source.live_asks().map(|ask| u64::from(ask.block.len));
            assert_eq!(live.sum::<u64>(), source.live_bytes());
        }
        assert_eq!(totals, self.totals);
    }
}
