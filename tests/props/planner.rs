//! The planner under arbitrary scripts. Its own invariants are checked, and it is
//! compared with a naive record of every request and its outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, PlannerConfig, ReadWindow, Strategy as Order};
use bt_lite::testing::machine::{Arrival, BlockLayout, ChunkSet, Planner, Released};
use bt_lite::{Bitfield, ChunkIndex, Geometry};
use proptest::collection::vec;
use proptest::prelude::*;

const LINKS: u64 = 5;

#[derive(Debug, Clone)]
enum Op {
    Added(u64, Option<Vec<bool>>),
    Removed(u64),
    Gained(u64, u32),
    Choked(u64, bool),
    Next(u64, u8),
    /// A link answers any one of its outstanding requests.
    Arrived(u64, prop::sample::Index),
    Rejected(u64, prop::sample::Index),
    Unasked(u64, BlockRange),
    Verified(prop::sample::Index, bool),
    Wait(u64),
    Timeout,
    Strategy(bool),
    /// Readers at these chunks, with a readahead in chunks and a rate in chunks per second.
    Windows(Vec<(u64, u64, Option<u8>)>),
    /// Whether this chunk is wanted.
    Wanted(u32, bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let link = 0..LINKS;
    let index = any::<prop::sample::Index>();
    let block = (any::<u32>(), any::<u32>(), any::<u32>());
    let block = block.prop_map(|(chunk, offset, len)| BlockRange {
        chunk: ChunkIndex(chunk % 12),
        offset: offset & 0x1ffff,
        len,
    });
    let has = prop::option::of(vec(any::<bool>(), 12));
    let op = prop_oneof![
        4 => (link.clone(), has).prop_map(|(l, has)| Op::Added(l, has)),
        1 => link.clone().prop_map(Op::Removed),
        2 => (link.clone(), 0u32..12).prop_map(|(l, c)| Op::Gained(l, c)),
        1 => (link.clone(), any::<bool>()).prop_map(|(l, c)| Op::Choked(l, c)),
        8 => (link.clone(), 1u8..6).prop_map(|(l, n)| Op::Next(l, n)),
        12 => (link.clone(), index.clone()).prop_map(|(l, i)| Op::Arrived(l, i)),
        2 => (link.clone(), index.clone()).prop_map(|(l, i)| Op::Rejected(l, i)),
        1 => (link, block).prop_map(|(l, b)| Op::Unasked(l, b)),
        6 => (index, prop::bool::weighted(0.7)).prop_map(|(i, good)| Op::Verified(i, good)),
        4 => (0u64..3000).prop_map(Op::Wait),
        2 => Just(Op::Timeout),
        1 => any::<bool>().prop_map(Op::Strategy),
        2 => vec((0u64..14, 0u64..6, prop::option::of(1u8..20)), 0..3).prop_map(Op::Windows),
        3 => (0u32..12, prop::bool::weighted(0.6)).prop_map(|(c, wanted)| Op::Wanted(c, wanted)),
    ];
    vec(op, 0..250)
}

/// A planner, and a record of every block: which link was asked for it, and which
/// blocks have arrived.
struct World {
    layout: BlockLayout,
    planner: Planner,
    now: Instant,
    /// Unanswered requests by link.
    owed: BTreeMap<u64, Vec<BlockRange>>,
    here: BTreeMap<ChunkIndex, BTreeMap<u32, u64>>,
    complete: BTreeMap<ChunkIndex, BTreeSet<u64>>,
    stored: BTreeSet<ChunkIndex>,
    failed: BTreeSet<ChunkIndex>,
    shelved: BTreeSet<ChunkIndex>,
    has: BTreeMap<u64, BTreeSet<u32>>,
    max_open: usize,
    /// Whether there was a reader at any time.
    was_read: bool,
}

impl World {
    fn new(geometry: Geometry, config: PlannerConfig) -> Self {
        let layout = BlockLayout::of(geometry);
        let max_open = config.max_open;
        Self {
            layout,
            planner: Planner::new(layout, &Bitfield::none(geometry.chunks()), config),
            now: Instant::now(),
            owed: BTreeMap::new(),
            here: BTreeMap::new(),
            complete: BTreeMap::new(),
            stored: BTreeSet::new(),
            failed: BTreeSet::new(),
            shelved: BTreeSet::new(),
            has: BTreeMap::new(),
            max_open,
            was_read: false,
        }
    }

    fn chunks(&self) -> u32 {
        self.layout.geometry().chunks()
    }

    fn added(&mut self, link: u64, has: Option<Vec<bool>>) {
        if self.has.contains_key(&link) {
            return;
        }
        self.planner.link_added(LinkId(link));
        let chunks = self.chunks();
        let mut bits = Bitfield::none(chunks);
        for chunk in (0..chunks).map(ChunkIndex) {
            if has.as_ref().is_none_or(|has| has[chunk.as_usize() % 12]) {
                bits.insert(chunk);
            }
        }
        let open = bits.iter().filter(|chunk| !self.stored.contains(chunk));
        self.has.insert(link, open.map(|c| c.0).collect());
        let has = if has.is_none() {
            ChunkSet::All
        } else {
            ChunkSet::Some(bits)
        };
        self.planner.link_has(LinkId(link), has);
        self.owed.insert(link, Vec::new());
    }

    fn released(&mut self, released: Released) {
        for chunk in released.forgotten {
            assert!(!self.stored.contains(&chunk) && !self.complete.contains_key(&chunk));
            self.here.remove(&chunk);
        }
        for (link, block) in released.cancelled {
            assert!(
                self.owed[&link.0].contains(&block),
                "a request that was never sent is cancelled"
            );
        }
    }

    fn next(&mut self, link: u64) -> bool {
        let Some(request) = self.planner.next_request(self.now, LinkId(link)) else {
            return false;
        };
        let block = request.block;
        assert!(
            self.has[&link].contains(&block.chunk.0),
            "a link is asked for a chunk that it lacks"
        );
        assert!(!self.shelved.contains(&block.chunk), "nobody wants it");
        let position = self.layout.position(block).unwrap();
        assert!(!self.stored.contains(&block.chunk) && !self.complete.contains_key(&block.chunk));
        let here = self.here.get(&block.chunk);
        assert!(
            here.is_none_or(|here| !here.contains_key(&position)),
            "a block that is already here is requested"
        );
        if let Some(other) = request.overtaken {
            assert_ne!(other.0, link);
            assert!(self.owed[&other.0].contains(&block));
        }
        self.owed.get_mut(&link).unwrap().push(block);
        true
    }

    fn arrived(&mut self, link: u64, block: BlockRange) {
        let asked = self.owed.get_mut(&link).and_then(|owed| {
            let at = owed.iter().position(|b| *b == block)?;
            Some(owed.remove(at))
        });
        let arrival = self.planner.block_arrived(self.now, LinkId(link), block);
        assert_eq!(asked.is_none(), arrival == Arrival::Unasked);
        let Arrival::Wanted { overtaken } = arrival else {
            return;
        };
        if let Some(other) = overtaken {
            assert!(self.owed[&other.0].contains(&block));
        }
        let chunk = block.chunk;
        let here = self.here.entry(chunk).or_default();
        let before = here.insert(self.layout.position(block).unwrap(), link);
        assert_eq!(
            before, None,
            "a block that has already arrived is wanted again"
        );
        if here.len() == self.layout.blocks(chunk) as usize {
            let senders: BTreeSet<u64> = here.values().copied().collect();
            assert!(
                !self.failed.contains(&chunk) || senders.len() == 1,
                "a second copy has several senders"
            );
            self.here.remove(&chunk);
            self.complete.insert(chunk, senders);
            self.planner.chunk_complete(chunk);
        }
    }

    fn verified(&mut self, chunk: ChunkIndex, good: bool) {
        self.complete.remove(&chunk);
        if good {
            self.planner.chunk_stored(chunk);
            self.stored.insert(chunk);
        } else {
            self.planner.chunk_failed(chunk);
            self.failed.insert(chunk);
        }
    }

    fn removed(&mut self, link: u64) {
        self.has.remove(&link);
        self.owed.remove(&link);
        let released = self.planner.link_removed(LinkId(link));
        self.released(released);
    }

    fn gained(&mut self, link: u64, chunk: u32) {
        if let Some(has) = self.has.get_mut(&link) {
            has.insert(chunk);
        }
        self.planner.link_gained(LinkId(link), ChunkIndex(chunk));
    }

    fn rejected(&mut self, link: u64, block: BlockRange) {
        let rejected = self.planner.rejected(self.now, LinkId(link), block);
        self.released(rejected.unwrap());
        for (&link, has) in &mut self.has {
            let said = self.planner.has(LinkId(link));
            has.retain(|&chunk| said.contains(ChunkIndex(chunk)));
        }
    }

    /// A link answers a request that was never made.
    fn unasked(&mut self, link: u64, block: BlockRange) {
        let arrival = self.planner.block_arrived(self.now, LinkId(link), block);
        assert_eq!(arrival, Arrival::Unasked);
        let rejected = self.planner.rejected(self.now, LinkId(link), block);
        assert_eq!(rejected, None);
    }

    fn windows(&mut self, readers: Vec<(u64, u64, Option<u8>)>) {
        let chunk_len = self.layout.geometry().chunk_len();
        let window = |(chunk, readahead, rate): (u64, u64, Option<u8>)| {
            let rate = rate.map(|rate| f64::from(rate) * chunk_len as f64);
            ReadWindow::new(chunk * chunk_len + 1, readahead * chunk_len, rate)
        };
        let windows: Vec<ReadWindow> = readers.into_iter().map(window).collect();
        self.was_read |= !windows.is_empty();
        let released = self.planner.set_windows(self.now, &windows);
        self.released(released);
    }

    fn timeout(&mut self) {
        if let Some(at) = self.planner.poll_timeout() {
            self.now = self.now.max(at);
        }
        let (_, released) = self.planner.handle_timeout(self.now);
        self.released(released);
        let at = self.planner.poll_timeout();
        assert!(
            at.is_none_or(|at| at > self.now),
            "the next timeout is in the past"
        );
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Added(link, has) => self.added(link, has),
            Op::Removed(link) => self.removed(link),
            Op::Gained(link, chunk) => self.gained(link, chunk % self.chunks()),
            Op::Choked(link, choked) => {
                let released = self.planner.link_choked(LinkId(link), choked);
                self.released(released);
            }
            Op::Next(link, times) => {
                for _ in 0..times {
                    if !self.next(link) {
                        break;
                    }
                }
            }
            Op::Arrived(link, index) => {
                if let Some(owed) = self.owed.get(&link).filter(|owed| !owed.is_empty()) {
                    self.arrived(link, *index.get(owed));
                }
            }
            Op::Rejected(link, index) => {
                if let Some(owed) = self.owed.get_mut(&link).filter(|owed| !owed.is_empty()) {
                    let block = owed.remove(index.index(owed.len()));
                    self.rejected(link, block);
                }
            }
            Op::Unasked(link, block) => {
                let owed = self.owed.get(&link);
                if owed.is_none_or(|owed| !owed.contains(&block)) {
                    self.unasked(link, block);
                }
            }
            Op::Verified(index, good) => {
                if !self.complete.is_empty() {
                    let complete: Vec<ChunkIndex> = self.complete.keys().copied().collect();
                    self.verified(*index.get(&complete), good);
                }
            }
            Op::Wait(ms) => self.now += Duration::from_millis(ms),
            Op::Timeout => self.timeout(),
            Op::Strategy(sequential) => self.planner.set_strategy(match sequential {
                true => Order::Sequential,
                false => Order::RarestFirst,
            }),
            Op::Windows(readers) => self.windows(readers),
            Op::Wanted(chunk, wanted) => self.wanted(ChunkIndex(chunk % self.chunks()), wanted),
        }
        self.check();
    }

    /// Compares the planner's answers with the record.
    fn check(&self) {
        self.planner.check_invariants();
        // One chunk more for a reader.
        let max_open = self.max_open + usize::from(self.was_read);
        assert!(self.here.len() + self.complete.len() <= max_open);
        for (&link, owed) in &self.owed {
            assert_eq!(self.planner.unanswered(LinkId(link)), owed.len());
            let useful = self.has[&link]
                .iter()
                .any(|&c| !self.is_settled(ChunkIndex(c)));
            assert_eq!(self.planner.is_useful(LinkId(link)), useful);
        }
        assert_eq!(
            self.planner.is_done(),
            self.stored.len() == self.chunks() as usize
        );
        let settled = (0..self.chunks()).all(|chunk| self.is_settled(ChunkIndex(chunk)));
        assert_eq!(self.planner.wants_nothing(), settled);
    }

    fn is_settled(&self, chunk: ChunkIndex) -> bool {
        self.stored.contains(&chunk) || self.shelved.contains(&chunk)
    }

    fn wanted(&mut self, chunk: ChunkIndex, wanted: bool) {
        if wanted {
            self.planner.unshelve(chunk);
            self.shelved.remove(&chunk);
            return;
        }
        let shelved = self.planner.shelve(chunk);
        let is_here = self.complete.contains_key(&chunk) || self.is_settled(chunk);
        assert_eq!(shelved.is_none(), is_here);
        if let Some(released) = shelved {
            self.released(released);
            self.shelved.insert(chunk);
        }
    }

    /// All links go, and a new seeder delivers everything that is missing.
    fn drain(&mut self) {
        for link in 0..LINKS {
            self.apply(Op::Removed(link));
        }
        self.added(LINKS, None);
        for chunk in std::mem::take(&mut self.shelved) {
            self.planner.unshelve(chunk);
        }
        for _ in 0..10_000 {
            if self.planner.is_done() {
                return;
            }
            let asked = self.next(LINKS);
            self.now += Duration::from_millis(1);
            match self.owed[&LINKS].first().copied() {
                Some(block) if !asked => self.arrived(LINKS, block),
                _ => {}
            }
            if let Some((&chunk, _)) = self.complete.first_key_value() {
                self.verified(chunk, true);
            }
            if !asked && self.owed[&LINKS].is_empty() {
                self.apply(Op::Timeout);
            }
            self.planner.check_invariants();
        }
        panic!("a single seeder does not deliver the rest");
    }
}

proptest! {
    #[test]
    fn planner_after_any_script_keeps_its_promises(
        ops in ops(),
        chunks in 1u64..13,
        max_open in 2usize..6,
        max_requests in 1usize..8,
        seed: u64,
    ) {
        let geometry = Geometry::of(chunks * (16 << 10) - 1).unwrap();
        let mut config = PlannerConfig::default();
        config.max_open = max_open;
        config.max_requests = max_requests;
        config.seed = seed;
        let mut world = World::new(geometry, config);
        for op in ops {
            world.apply(op);
        }
        world.drain();
    }

}

proptest! {
    // The shortest content with several blocks per chunk has 513 chunks, so each
    // case takes long.
    #![proptest_config(ProptestConfig {
        cases: (ProptestConfig::default().cases / 8).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn planner_of_many_blocks_per_chunk_keeps_its_promises(
        ops in ops(),
        chunks in 1040u32..1052,
        max_open in 2usize..6,
        max_requests in 1usize..12,
        seed: u64,
    ) {
        let length = (u64::from(chunks) - 512) * (128 << 10) - 1;
        let geometry = Geometry::of(length).unwrap();
        let layout = BlockLayout::of(geometry);
        let mut present = Bitfield::all(geometry.chunks());
        for chunk in 0..12 {
            present.remove(ChunkIndex(chunk));
        }
        let mut config = PlannerConfig::default();
        config.max_open = max_open;
        config.max_requests = max_requests;
        config.seed = seed;
        let mut world = World::new(geometry, config.clone());
        world.planner = Planner::new(layout, &present, config);
        world.stored = present.iter().collect();
        for op in ops {
            match op {
                Op::Gained(link, chunk) => world.apply(Op::Gained(link, chunk % 12)),
                op => world.apply(op),
            }
        }
        world.drain();
    }

}

proptest! {
    #[test]
    fn seeders_alone_start_with_their_own_contiguous_parts(
        chunks in 1u32..3000, seeders in 1u64..17, seed: u64,
    ) {
        let geometry = Geometry::of(u64::from(chunks.min(1024)) * (16 << 10)).unwrap();
        let layout = BlockLayout::of(geometry);
        let mut config = PlannerConfig::default();
        config.max_open = geometry.chunks() as usize;
        config.seed = seed;
        let mut planner = Planner::new(layout, &Bitfield::none(geometry.chunks()), config);
        let now = Instant::now();
        for link in (0..seeders).map(LinkId) {
            planner.link_added(link);
            planner.link_has(link, ChunkSet::All);
        }
        let total = u64::from(geometry.chunks());
        let homes: Vec<_> = bt_lite::split_evenly(total, seeders as u32).collect();
        let mut seen = BTreeSet::new();
        let mut expected: Vec<u64> = homes.iter().map(|home| home.start).collect();
        let mut now = now;
        let mut turn = 0;
        while seen.len() < total as usize {
            // All links answer at the same speed.
            for link in 0..seeders {
                let mut asked = Vec::new();
                while let Some(request) = planner.next_request(now, LinkId(link)) {
                    prop_assert_eq!(request.overtaken, None, "no link is slow");
                    let chunk = u64::from(request.block.chunk.0);
                    let home = &homes[link as usize];
                    if expected[link as usize] < home.end {
                        prop_assert_eq!(chunk, expected[link as usize]);
                        expected[link as usize] += 1;
                    }
                    prop_assert!(seen.insert(request.block), "a block is requested twice");
                    asked.push(request.block);
                    if asked.len() == 2 {
                        break;
                    }
                }
                now += Duration::from_micros(1);
                for block in asked {
                    let arrival = planner.block_arrived(now, LinkId(link), block);
                    prop_assert_eq!(arrival, Arrival::Wanted { overtaken: None });
                    planner.chunk_complete(block.chunk);
                    planner.chunk_stored(block.chunk);
                }
            }
            turn += 1;
            prop_assert!(turn <= total, "no progress");
        }
        prop_assert!(planner.is_done());
        let bytes: u64 = seen.iter().map(|block| u64::from(block.len)).sum();
        prop_assert_eq!(bytes, geometry.length());
    }
}

/// A planner of 64 chunks with 4 blocks each, and seeders that were not asked yet.
fn read_by(links: u64) -> (Planner, Instant) {
    let geometry = Geometry::of(64 << 20).unwrap();
    let layout = BlockLayout::of(geometry);
    let mut present = Bitfield::all(geometry.chunks());
    (0..64).for_each(|chunk| _ = present.remove(ChunkIndex(chunk)));
    let mut config = PlannerConfig::default();
    config.first_window = 256 << 10;
    let mut planner = Planner::new(layout, &present, config);
    for link in (0..links).map(LinkId) {
        planner.link_added(link);
        planner.link_has(link, ChunkSet::All);
    }
    (planner, Instant::now())
}

/// The next requests to a link.
fn requests(planner: &mut Planner, now: Instant, link: u64) -> Vec<BlockRange> {
    let next = || planner.next_request(now, LinkId(link));
    std::iter::from_fn(next)
        .map(|request| request.block)
        .collect()
}

fn window(chunk: u64) -> [ReadWindow; 1] {
    [ReadWindow::new(chunk * (64 << 10), 256 << 10, None)]
}

/// Answers everything that a link was asked for, in order, one block in this many ms.
fn answer(planner: &mut Planner, now: &mut Instant, link: u64, ms: u64) {
    let mut owed = planner.unanswered_asks(LinkId(link));
    for (block, _) in owed.drain(..) {
        *now += Duration::from_millis(ms);
        planner.block_arrived(*now, LinkId(link), block);
    }
}

#[test]
fn chunk_that_a_reader_waits_for_is_split_over_equal_links() {
    let (mut planner, now) = read_by(4);
    planner.set_owners_alone(Some(4));
    assert_eq!(planner.set_windows(now, &window(20)), Released::default());
    let firsts: BTreeSet<u32> = (0..4)
        .map(|link| {
            let first = requests(&mut planner, now, link)[0];
            assert_eq!(first.chunk, ChunkIndex(20));
            first.offset
        })
        .collect();
    assert_eq!(firsts.len(), 4, "a link is asked for a block twice");
    planner.check_invariants();
}

#[test]
fn seek_gives_up_what_is_far_and_asks_for_what_is_near() {
    let (mut planner, now) = read_by(1);
    planner.set_owners_alone(Some(1));
    let far = requests(&mut planner, now, 0);
    assert!(far.len() > 4 && far.iter().all(|block| block.chunk.0 < 40));
    let released = planner.set_windows(now, &window(40));
    // The first block is probably on its way.
    let cancelled: Vec<BlockRange> = released.cancelled.iter().map(|(_, b)| *b).collect();
    assert_eq!(cancelled, far[1..]);
    let near = requests(&mut planner, now, 0);
    let order: Vec<u32> = near.iter().map(|block| block.chunk.0).collect();
    assert_eq!(order[..4], [40; 4]);
    assert!(order.is_sorted());
    planner.check_invariants();
    // Without the reader, the usual order is back.
    assert_eq!(planner.set_windows(now, &[]), Released::default());
    planner.check_invariants();
}

#[test]
fn slow_link_leaves_what_is_due_to_a_fast_one() {
    let (mut planner, mut now) = read_by(2);
    // Each has shown its rate, one after the other.
    for (link, ms) in [(0, 1), (1, 100)] {
        requests(&mut planner, now, link);
        answer(&mut planner, &mut now, link, ms);
    }
    planner.set_windows(now, &window(30));
    let slow = requests(&mut planner, now, 1);
    assert!(!slow.is_empty());
    assert!(
        slow.iter().all(|block| !(30..34).contains(&block.chunk.0)),
        "{slow:?}"
    );
    let fast = requests(&mut planner, now, 0);
    assert!(
        fast.iter()
            .take(2)
            .all(|block| block.chunk == ChunkIndex(30))
    );
    planner.check_invariants();
}

#[test]
fn only_link_is_asked_for_what_a_reader_wants_though_it_was_silent() {
    let (mut planner, mut now) = read_by(1);
    planner.set_windows(now, &[ReadWindow::new(0, 4 << 20, None)]);
    assert!(!requests(&mut planner, now, 0).is_empty());
    while planner.snubs(LinkId(0)) == 0 {
        now = planner.poll_timeout().unwrap();
        planner.handle_timeout(now);
    }
    // All that is missing lies in the window.
    let again = requests(&mut planner, now, 0);
    assert_eq!(again.len(), 1, "one block at a time, until it answers");
    assert_eq!(again[0].chunk, ChunkIndex(0));
    planner.check_invariants();
}

#[test]
fn no_chunk_is_opened_while_many_wait_to_be_hashed() {
    // The longest chunks: two may wait.
    let geometry = Geometry::of(16 << 30).unwrap();
    let layout = BlockLayout::of(geometry);
    let none = Bitfield::none(geometry.chunks());
    let mut planner = Planner::new(layout, &none, PlannerConfig::default());
    let (now, link) = (Instant::now(), LinkId(1));
    planner.link_added(link);
    planner.link_has(link, ChunkSet::All);
    planner.hashing_began();
    assert!(planner.next_request(now, link).is_some());
    planner.hashing_began();
    // What is open already goes on.
    let open = planner.next_request(now, link).unwrap().block;
    assert_eq!(open.chunk, ChunkIndex(0));
    for position in 2..layout.blocks(open.chunk) {
        planner.block_arrived(now, link, layout.block(open.chunk, position - 2));
        let next = planner.next_request(now, link).unwrap().block;
        assert_eq!(next, layout.block(open.chunk, position));
    }
    let before_last = layout.blocks(open.chunk) - 2;
    planner.block_arrived(now, link, layout.block(open.chunk, before_last));
    assert!(planner.next_request(now, link).is_none());
    assert!(planner.hashing_ended());
    let next = planner.next_request(now, link).unwrap().block;
    assert_eq!(next.chunk, ChunkIndex(1));
}
