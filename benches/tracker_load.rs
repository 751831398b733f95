//! The load that a tracker's registry bears: announces per second on one core and on
//! two, bytes per peer, how both grow, and the longest pause of expiry.
//!
//! `cargo bench --bench tracker_load -- --peers 1000000 --contents 10000`
//!
//! One **announce** is what a peer of a BitTorrent tracker repeats: "I am still
//! here; who else has this?", one request and one reply. Here that is NEED of the
//! content that the peer owns, by its id and with K = 16. It checks the token,
//! extends the lease, leaves the asker out, and names 16 owners, written as bytes
//! into a buffer that is reused. Requests that a peer sends once, or every 20 s, are
//! not part of it and have their own figures: REGISTER with a token (the heartbeat
//! of a peer that needs nothing) and OWN. A **round** is all three, one after the
//! other, with three replies.
//!
//! A tracker that is loaded finds several requests whenever it looks, so the main figure
//! is that of announces in batches of 64 (`ShardedRegistry::handle_batch`). The single
//! calls (`handle_into`) are measured in turns with them, and the fastest round of each
//! counts: other work of the machine makes both slower. The latency of a batch is the
//! time from its first request to its last reply.
//!
//! The requests are values; the time to decode a NEED is printed separately. There
//! is no I/O. Peers take turns at random, so that nearly every announce finds its
//! peer outside of the processor's caches. Times are those of the median batch.
//!
//! Memory is the limit. With everything in the caches (`--peers 1000 --contents
//! 10`), half of an announce is choosing 16 owners and writing them. With a million
//! peers it also waits for memory: for the peer's slot, the table of ids, two lines of
//! the content, one or two lines of its fastest owners, and three lines of others at
//! random, most of them after a TLB miss. Where glibc asks for large pages
//! (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`), there are fewer such misses.
//!
//! On one core the registry has one shard, whose locks are taken without contention.
//! The scaling is that of two threads on one registry with many shards. For
//! comparison, the scaling of two threads that compute and share nothing is printed.
//! On a busy machine, or with one core for two threads, it is less than two.
//!
//! The longest pause of expiry is that of a call of `handle_timeout` while the leases
//! of all peers run out at once. The same registry makes the same calls each time, so
//! this is repeated three times, and the shortest time of each call counts.
//!
//! Every peer has its own IPv4 host and owns one content. A tenth of the owners of
//! each content have uploaded, at different rates. Bytes are those requested from the
//! allocator, including the reserve of arrays.

use std::alloc::System;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bt_lite::protocol::{OwnEntry, OwnState, Token, TrackerReply, TrackerRequest, Upload};
use bt_lite::tracker::{Asked, RegistryConfig, Replies, ShardedRegistry};
use bt_lite::{Addr, ContentId};
use fastrand::Rng;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many owners a NEED asks for.
const K: u16 = 16;

/// The index of the announce among the requests of a peer.
const NEED: usize = 2;

/// How many announces are prepared, and then timed, at a time.
const BATCH: usize = 256;

/// How many announces are answered together.
const TOGETHER: usize = 64;

/// The same where there are many shards: some of each batch should need the same one.
const TOGETHER_SHARED: usize = 256;

/// How many rounds there are of single announces and of batches, in turns.
const ROUNDS: usize = 8;

/// How often expiry is measured.
const EXPIRIES: usize = 3;

/// How many shards the shared registry has.
const SHARDS: u32 = 16;

struct Setting {
    peers: u32,
    contents: u32,
    announces: usize,
}

impl Setting {
    fn from_args() -> Self {
        let args: Vec<String> = std::env::args().collect();
        let number = |name: &str| {
            let at = args.iter().position(|arg| arg == name)?;
            args.get(at + 1)?.parse::<u32>().ok()
        };
        let small = args.iter().any(|arg| arg == "--test");
        let (peers, contents) = if small {
            (1_000, 10)
        } else {
            (1_000_000, 10_000)
        };
        Self {
            peers: number("--peers").unwrap_or(peers).max(1_000),
            contents: number("--contents").unwrap_or(contents).max(1),
            announces: if small { BATCH } else { 2_000_000 },
        }
    }
}

/// An empty registry that begins at this time.
fn empty_registry(shards: u32, now: Instant) -> ShardedRegistry {
    ShardedRegistry::new(RegistryConfig::default(), [1; 32], 1, shards, now)
}

fn answer(
    registry: &ShardedRegistry,
    now: Instant,
    source: &Addr,
    request: &TrackerRequest,
    out: &mut Vec<u8>,
) {
    registry
        .handle_into(now, source, request, out)
        .expect("no request is refused here");
}

/// The requests of one peer.
struct Announce {
    source: Addr,
    requests: [TrackerRequest; 3],
}

impl Announce {
    fn need(&self) -> Asked<'_> {
        Asked {
            source: &self.source,
            local: None,
            request: &self.requests[NEED],
        }
    }
}

struct World {
    now: Instant,
    contents: Vec<OwnEntry>,
    tokens: Vec<Token>,
}

fn source(peer: usize) -> Addr {
    let ip = Ipv4Addr::from_bits(0x0a00_0000 + peer as u32);
    format!("{ip}:4000").parse().expect("an address")
}

impl World {
    fn new(contents: u32) -> Self {
        let entry = |number: u32| {
            OwnEntry::new(
                ContentId::of(&number.to_le_bytes()),
                format!("content-{number}").parse().expect("a name"),
                1 << 30,
                OwnState::Complete,
            )
        };
        Self {
            now: Instant::now(),
            contents: (0..contents).map(entry).collect(),
            tokens: Vec::new(),
        }
    }

    fn entry(&self, peer: usize) -> &OwnEntry {
        &self.contents[peer % self.contents.len()]
    }

    /// Registers all peers, at steady times over one heartbeat.
    fn populate(&mut self, peers: u32, registry: &ShardedRegistry) {
        self.tokens.reserve_exact(peers as usize);
        let start = self.now;
        let heartbeat = RegistryConfig::default().heartbeat;
        let mut out = Vec::with_capacity(4096);
        for peer in 0..peers as usize {
            self.now = start + heartbeat * peer as u32 / peers;
            let source = source(peer);
            out.clear();
            let request = TrackerRequest::Register {
                listen: Some(source.clone()),
                token: None,
            };
            answer(registry, self.now, &source, &request, &mut out);
            let token = Token(out[1..17].try_into().expect("16 bytes"));
            self.tokens.push(token);
            let entries = vec![self.entry(peer).clone()];
            let request = TrackerRequest::Own { token, entries };
            answer(registry, self.now, &source, &request, &mut out);
        }
        // A tenth of the peers report uploads, each of an owner that was named.
        let contents = self.contents.len();
        for peer in (0..peers as usize).filter(|peer| (peer + peer / contents).is_multiple_of(10)) {
            let announce = self.announce(peer);
            out.clear();
            let need = &announce.requests[NEED];
            answer(registry, self.now, &announce.source, need, &mut out);
            let reply = TrackerReply::decode(bt_lite::protocol::Frame::head(out.clone()));
            if let Ok(TrackerReply::Found(found)) = reply
                && let Some(owner) = found.owners.last()
            {
                let token = self.tokens[peer];
                let bytes = 1000 * (peer as u64 + 1);
                let uploads = vec![Upload::new(owner.owner, bytes)];
                let request = TrackerRequest::Update { token, uploads };
                answer(registry, self.now, &announce.source, &request, &mut out);
            }
        }
    }

    fn announce(&self, peer: usize) -> Announce {
        let (token, entry) = (self.tokens[peer], self.entry(peer));
        let source = source(peer);
        let register = TrackerRequest::Register {
            listen: Some(source.clone()),
            token: Some(token),
        };
        let own = TrackerRequest::Own {
            token,
            entries: vec![entry.clone()],
        };
        let need = TrackerRequest::Need {
            token,
            key: entry.id.into(),
            max_owners: K,
        };
        Announce {
            source,
            requests: [register, own, need],
        }
    }

    /// The time to decode a NEED, in nanoseconds.
    fn decoding(&self, announces: usize) -> f64 {
        let request = &self.announce(0).requests[NEED];
        let frame = request.encode().expect("it fits");
        let mut times = Vec::new();
        for _ in 0..announces.div_ceil(4 * BATCH) {
            let start = Instant::now();
            for _ in 0..BATCH {
                black_box(TrackerRequest::decode(frame.clone())).expect("a request");
            }
            times.push(start.elapsed());
        }
        median(times)
    }

    fn batch(&self, rng: &mut Rng, len: usize) -> Vec<Announce> {
        let random = |_| self.announce(rng.usize(..self.tokens.len()));
        (0..len).map(random).collect()
    }

    /// The time to answer announces in batches, in nanoseconds for each, in the median of
    /// what is prepared at a time.
    fn time_batches(&self, registry: &ShardedRegistry, announces: usize) -> f64 {
        let mut rng = Rng::with_seed(2);
        let mut replies = Replies::new();
        let mut times = Vec::new();
        for _ in 0..announces.div_ceil(BATCH) {
            let batch = self.batch(&mut rng, BATCH);
            let batch: Vec<Asked<'_>> = batch.iter().map(Announce::need).collect();
            let start = Instant::now();
            for together in batch.chunks(TOGETHER) {
                registry.handle_batch(self.now, together, &mut replies);
                black_box(&replies);
            }
            times.push(start.elapsed());
            assert!(replies.iter().all(|(outcome, _)| outcome.is_ok()));
        }
        median(times)
    }

    /// Nanoseconds for one announce in a single call, and in a batch: the best of several
    /// rounds in turns.
    fn compare(&self, registry: &ShardedRegistry, announces: usize) -> (f64, f64) {
        let share = announces / ROUNDS;
        let rounds = (0..ROUNDS).map(|_| {
            let single = self.time(registry, NEED..3, share);
            (single, self.time_batches(registry, share))
        });
        rounds.fold((f64::MAX, f64::MAX), |best, round| {
            (best.0.min(round.0), best.1.min(round.1))
        })
    }

    /// The time to answer these requests, in nanoseconds per announce, in the median
    /// batch. Other work of the machine affects only a few batches.
    fn time(&self, registry: &ShardedRegistry, asked: Range<usize>, announces: usize) -> f64 {
        let mut rng = Rng::with_seed(1);
        let mut out = Vec::with_capacity(4096);
        let mut times = Vec::new();
        for _ in 0..announces.div_ceil(BATCH) {
            let batch = self.batch(&mut rng, BATCH);
            let start = Instant::now();
            for announce in &batch {
                out.clear();
                for request in &announce.requests[asked.clone()] {
                    answer(registry, self.now, &announce.source, request, &mut out);
                }
                black_box(&out);
            }
            times.push(start.elapsed());
        }
        median(times)
    }
}

/// Nanoseconds for each of a batch, in the median batch.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / BATCH as f64
}

fn per_second(announces: usize, time: Duration) -> f64 {
    announces as f64 / time.as_secs_f64()
}

/// How many announces per second this number of threads makes on one registry.
fn shared(world: &World, registry: &ShardedRegistry, threads: usize, announces: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let work = |thread: usize| {
        let mut rng = Rng::with_seed(thread as u64);
        let batch = world.batch(&mut rng, announces.div_ceil(32).max(1));
        let batch: Vec<Asked<'_>> = batch.iter().map(Announce::need).collect();
        let mut replies = Replies::new();
        barrier.wait();
        let start = Instant::now();
        let mut count = 0;
        for _ in 0..16 {
            for together in batch.chunks(TOGETHER_SHARED) {
                registry.handle_batch(world.now, together, &mut replies);
                black_box(&replies);
                count += together.len();
            }
        }
        (count, start, Instant::now())
    };
    let outcomes: Vec<(usize, Instant, Instant)> = std::thread::scope(|scope| {
        let spawn = |thread| scope.spawn(move || work(thread));
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined.map(|outcome| outcome.expect("it ends")).collect()
    });
    let count: usize = outcomes.iter().map(|outcome| outcome.0).sum();
    let first = outcomes.iter().map(|outcome| outcome.1).min();
    let last = outcomes.iter().map(|outcome| outcome.2).max();
    let (first, last) = first.zip(last).expect("there are threads");
    per_second(count, last - first)
}

/// How many steps per second this number of threads makes that share nothing.
fn alone_together(threads: usize) -> f64 {
    const STEPS: u32 = 30_000_000;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(thread as u64);
                (0..STEPS).fold(0, |sum: u64, _| black_box(sum ^ rng.u64(..)))
            });
        }
    });
    per_second(threads * STEPS as usize, start.elapsed())
}

/// Nanoseconds for one announce in a swarm of this many peers.
fn in_one_swarm(peers: u32, announces: usize) -> f64 {
    let mut world = World::new(1);
    let registry = empty_registry(1, world.now);
    world.populate(peers, &registry);
    world.time(&registry, NEED..3, announces / 4);
    world.time(&registry, NEED..3, announces)
}

/// Lets all leases run out, and returns the time of each step. The same registry
/// takes the same steps each time. The shortest time of each step counts, because it
/// contains the least of what else the machine did.
fn expire(peers: u32, contents: u32) -> Vec<Duration> {
    let mut shortest: Vec<Duration> = Vec::new();
    for _ in 0..EXPIRIES {
        let mut world = World::new(contents);
        let registry = empty_registry(1, world.now);
        world.populate(peers, &registry);
        let now = world.now + 2 * RegistryConfig::default().lease();
        let mut steps = Vec::new();
        while registry.poll_timeout().is_some_and(|turn| turn <= now) {
            let start = Instant::now();
            registry.handle_timeout(now);
            steps.push(start.elapsed());
        }
        assert_eq!(registry.stats().peers, 0);
        shortest.resize(steps.len(), Duration::MAX);
        for (shortest, step) in shortest.iter_mut().zip(steps) {
            *shortest = step.min(*shortest);
        }
    }
    shortest.sort_unstable();
    shortest
}

fn main() {
    let setting = Setting::from_args();
    let Setting {
        peers,
        contents,
        announces,
    } = setting;
    println!(
        "setting: {peers} peers in turns at random, {contents} contents, {announces} announces; \
         an announce is one NEED by id with K = {K}, which extends the lease, with its reply \
         in bytes; no I/O"
    );

    let mut world = World::new(contents);
    world.tokens.reserve_exact(peers as usize);
    let before = ALLOCATOR.stats();
    let registry = empty_registry(1, world.now);
    world.populate(peers, &registry);
    let used = ALLOCATOR.stats() - before;
    let grown = i64::try_from(used.bytes_allocated).unwrap_or(i64::MAX)
        - i64::try_from(used.bytes_deallocated).unwrap_or(0);
    let bytes_per_peer = grown as f64 / f64::from(peers);
    assert_eq!(registry.stats().peers, u64::from(peers));

    world.time(&registry, NEED..3, announces / 4);
    let (announce, batched) = world.compare(&registry, announces);
    let round = world.time(&registry, 0..3, announces / 4);
    let [register, own] = [0..1, 1..2].map(|part| world.time(&registry, part, announces / 4));
    let decoding = world.decoding(announces);
    println!(
        "one core: announce (NEED) {announce:.0} ns, in a batch {batched:.0} ns, and {decoding:.0} ns to decode it; \
         REGISTER {register:.0} ns, OWN {own:.0} ns, a round of all three {round:.0} ns"
    );
    drop(registry);
    let steps = expire(peers, contents);
    let longest = steps[steps.len() - 1];
    println!(
        "expiry of all, {EXPIRIES} times: {} steps, median {:?}, longest {longest:?}",
        steps.len(),
        steps[steps.len() / 2]
    );

    let mut world = World::new(contents);
    let sharded = empty_registry(SHARDS, world.now);
    world.populate(peers, &sharded);
    shared(&world, &sharded, 1, announces / 4);
    // In turns, and the best of each, because of the other work of the machine.
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| [1, 2].map(|threads| shared(&world, &sharded, threads, announces / 4)))
        .collect();
    let [one, two] = [0, 1].map(|at| rounds.iter().map(|round| round[at]).fold(0.0, f64::max));
    println!("in {SHARDS} shards: one thread {one:.0}, two threads {two:.0} announces a second");
    let computing = alone_together(2) / alone_together(1);
    println!("two threads that share nothing: {computing:.2} times one");
    drop(sharded);

    let many = in_one_swarm(peers, announces);
    let few = in_one_swarm(1_000, announces);
    println!(
        "one swarm: {:.0} ns with 1000 peers, {:.0} ns with {peers}",
        few, many
    );

    println!("announces_per_s_core {:.0}", 1e9 / batched);
    println!("single_per_s_core {:.0}", 1e9 / announce);
    println!("batch_over_single {:.2}", announce / batched);
    println!("batch_size {TOGETHER}");
    println!("batch_latency_us {:.1}", batched * TOGETHER as f64 / 1e3);
    println!("rounds_per_second_per_core {:.0}", 1e9 / round);
    println!("two_core_scaling {:.2}", two / one);
    println!("bytes_per_peer {bytes_per_peer:.1}");
    println!("growth_1k_to_1m {:.2}", many / few);
    println!("longest_expiry_pause_us {}", longest.as_micros());
}
