//! Whole swarms of the shipped state machine in virtual time: how close they come
//! to the best possible time. The seed decides everything, so each figure is exact.
//! The bounds only leave room for changes in the order of events.

use std::time::Duration;

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::{Member, Simulation};

const CHUNK: u64 = 16 << 10;
/// A chunk takes a tenth of a second on an uplink.
const UPLOAD: f64 = CHUNK as f64 * 10.0;

struct Crowd {
    leechers: usize,
    chunks: u64,
    /// How many leechers never upload.
    riders: usize,
    round_trip: Duration,
    /// How many leechers leave, one after the other. Each is replaced by another
    /// one.
    leavers: usize,
}

impl Crowd {
    fn new(leechers: usize, chunks: u64) -> Self {
        Self {
            leechers,
            chunks,
            riders: 0,
            round_trip: Duration::ZERO,
            leavers: 0,
        }
    }

    /// The lower bound in seconds; see `examples/flash_crowd.rs`.
    fn bound(&self) -> f64 {
        let uplinks = self.leechers - self.riders + 1;
        let load = (self.leechers as f64 / uplinks as f64).max(1.0);
        (self.chunks as f64 * load + f64::from(self.leechers.ilog2())) / 10.0
    }

    /// Starts the crowd. Free riders join first, right after the seeder.
    fn start(&self, seed: u64) -> Simulation {
        let mut swarm = Simulation::new(self.chunks * CHUNK, SwarmConfig::default(), seed);
        swarm.set_latency(self.round_trip / 2);
        swarm.seeder(UPLOAD, 2.0 * UPLOAD);
        for i in 0..self.leechers {
            let upload = if i < self.riders { 0.0 } else { UPLOAD };
            swarm.leecher(upload, 2.0 * UPLOAD);
        }
        for i in 0..self.leavers {
            let share = (i + 1) as f64 / (self.leavers + 1) as f64;
            let at = Duration::from_secs_f64(self.bound() * share);
            swarm.leave_at(at, Member(1 + i));
            swarm.leecher_at(at / 10, UPLOAD, 2.0 * UPLOAD);
        }
        swarm
    }

    /// When the last leecher that uploads finishes, as a multiple of the bound.
    fn ratio(&self, seed: u64) -> f64 {
        let mut swarm = self.start(seed);
        assert!(swarm.run(Duration::from_secs(10_000)), "all complete");
        let uploaders = (1 + self.riders..swarm.members()).map(Member);
        let times = uploaders.filter_map(|member| swarm.finished(member));
        let last = times.max().expect("someone has finished").as_secs_f64();
        last / self.bound()
    }
}

#[test]
fn same_seed_gives_the_same_crowd_event_for_event() {
    let trace = |seed| {
        let crowd = Crowd {
            leavers: 3,
            round_trip: Duration::from_millis(10),
            ..Crowd::new(20, 20)
        };
        let mut swarm = crowd.start(seed);
        swarm.record_trace();
        assert!(swarm.run(Duration::from_secs(10_000)), "all complete");
        assert!(swarm.steps() > 1000);
        swarm.trace()
    };
    let first = trace(1);
    assert!(first.is_some());
    assert!(first == trace(1), "the same seed");
    assert!(first != trace(2), "another seed");
}

#[test]
fn crowd_finishes_near_the_lower_bound() {
    let ratio = Crowd::new(40, 80).ratio(1);
    assert!(ratio < 1.12, "{ratio}");
}

#[test]
fn crowd_with_latency_finishes_near_the_lower_bound() {
    let crowd = Crowd {
        round_trip: Duration::from_millis(10),
        ..Crowd::new(40, 80)
    };
    let ratio = crowd.ratio(1);
    assert!(ratio < 1.15, "{ratio}");
}

#[test]
fn crowd_with_churn_finishes_near_the_lower_bound() {
    let crowd = Crowd {
        leavers: 4,
        ..Crowd::new(40, 80)
    };
    let ratio = crowd.ratio(1);
    assert!(ratio < 1.2, "{ratio}");
}

#[test]
fn free_riders_do_not_delay_leechers_that_upload() {
    // The order of events makes a large difference here, so several runs are
    // averaged.
    const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;
    let crowd = Crowd {
        riders: 12,
        ..Crowd::new(40, 80)
    };
    let ratios: Vec<f64> = SEEDS.map(|seed| crowd.ratio(seed)).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(mean < 1.16, "{mean} of {ratios:?}");
}

/// One leecher and several seeders with these rates, in units of 10 MiB/s. Returns
/// the time as a multiple of the time that all seeders together need, and the share
/// of bytes that were received twice.
fn from_seeders(rates: &[f64], latency: Duration, drop: Option<(usize, f64)>) -> (f64, f64) {
    const UNIT: f64 = 10.0 * 1024.0 * 1024.0;
    let length = 1000 * (64 << 10);
    let mut swarm = Simulation::new(length, SwarmConfig::default(), 1);
    swarm.set_latency(latency);
    let join = |rate: &f64| swarm.seeder(rate * UNIT, f64::MAX);
    let owners: Vec<Member> = rates.iter().map(join).collect();
    let leecher = swarm.leecher(UNIT, f64::MAX);
    let sum = rates.iter().sum::<f64>() * UNIT;
    let mut ideal = length as f64 / sum;
    if let Some((owner, to)) = drop {
        // The drop is midway, so that the second half takes longer.
        let at = Duration::from_secs_f64(ideal / 2.0);
        let before = rates[owner] * UNIT;
        swarm.set_upload_at(at, owners[owner], to * before);
        ideal = ideal / 2.0 + length as f64 / 2.0 / (sum - before * (1.0 - to));
    }
    assert!(swarm.run(Duration::from_secs(1000)));
    let time = swarm
        .finished(leecher)
        .expect("it has finished")
        .as_secs_f64();
    let progress = swarm.progress(leecher);
    let twice = progress.wasted as f64 / progress.downloaded as f64;
    (time / ideal, twice)
}

#[test]
fn download_does_not_wait_for_the_slowest_owner() {
    for rates in [
        &[1.0, 1.0, 1.0, 0.1][..],
        &[1.0, 1.0, 1.0, 0.01],
        &[0.03, 1.0],
        &[0.1, 0.2, 0.3, 0.4, 0.5],
    ] {
        let (ratio, twice) = from_seeders(rates, Duration::ZERO, None);
        assert!(ratio < 1.01 && twice < 0.005, "{rates:?}: {ratio}, {twice}");
    }
}

#[test]
fn download_does_not_wait_for_an_owner_that_slows_down_or_stops() {
    for to in [0.5, 0.01, 0.0] {
        let (ratio, _) = from_seeders(&[1.0; 4], Duration::ZERO, Some((2, to)));
        assert!(ratio < 1.03, "{to}: {ratio}");
    }
}

#[test]
fn small_chunks_fill_a_link_with_a_long_round_trip_and_arrive_once() {
    // With a round trip of 100 ms and 40 MiB/s, 4 MiB (64 chunks) are on their way
    // at any time. The first few round trips are needed to grow to that.
    let (ratio, twice) = from_seeders(&[1.0; 4], Duration::from_millis(50), None);
    assert!(ratio < 1.7 && twice < 0.005, "{ratio}, {twice}");
}
