//! Whole swarms of strangers in virtual time: BitTorrent clients, as far as their choking
//! goes. Nobody waits for ever, and to give is worth while.

use std::time::Duration;

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::{Member, Simulation};

const CHUNK: u64 = 16 << 10;
const CHUNKS: u64 = 200;
/// A chunk takes a second on an uplink, so that there are many rounds of ten seconds.
const UPLOAD: f64 = CHUNK as f64;

/// A seeder with some uplinks together, and leechers that upload so much of one each.
fn swarm(
    uplinks: f64,
    uploads: &[f64],
    config: SwarmConfig,
    seed: u64,
) -> (Simulation, Vec<Member>) {
    let mut swarm = Simulation::new(CHUNKS * CHUNK, config, seed);
    swarm.set_latency(Duration::from_millis(10));
    swarm.make_strangers();
    swarm.seeder(uplinks * UPLOAD, UPLOAD);
    let leechers = uploads.iter();
    let leechers = leechers.map(|upload| swarm.leecher(upload * UPLOAD, 4.0 * UPLOAD));
    let leechers = leechers.collect();
    (swarm, leechers)
}

/// When each is complete, in seconds, in the mean of a few seeds.
fn finish(uplinks: f64, uploads: &[f64], config: &SwarmConfig) -> Vec<f64> {
    const SEEDS: u64 = 3;
    let mut times = vec![0.0; uploads.len()];
    for seed in 1..=SEEDS {
        let (mut swarm, leechers) = swarm(uplinks, uploads, config.clone(), seed);
        assert!(swarm.run(Duration::from_secs(10_000)), "somebody starves");
        for (time, leecher) in times.iter_mut().zip(leechers) {
            let finished = swarm.finished(leecher).expect("all are complete");
            *time += finished.as_secs_f64() / SEEDS as f64;
        }
    }
    times
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

#[test]
fn swarm_of_strangers_finishes_near_the_lower_bound() {
    let times = finish(1.0, &[1.0; 16], &SwarmConfig::default());
    // The seeder sends everything once, and the last chunk travels on.
    let bound = CHUNKS as f64 + 4.0;
    let last = times.iter().copied().fold(0.0, f64::max);
    assert!(last < 2.0 * bound, "{last} of {bound}: {times:?}");
}

#[test]
fn strangers_that_give_are_done_before_those_that_do_not() {
    let mut uploads = vec![1.0; 12];
    uploads.extend([0.0; 12]);
    // Of what a seeder gives, it cannot see who passes it on. So there is enough of it.
    let times = finish(6.0, &uploads, &SwarmConfig::default());
    let (givers, riders) = (mean(&times[..12]), mean(&times[12..]));
    assert!(1.2 * givers < riders, "{givers} {riders}: {times:?}");
}

#[test]
fn strangers_that_give_more_are_done_sooner() {
    let mut uploads = vec![0.25; 12];
    uploads.extend([1.0; 12]);
    let config = SwarmConfig::default().stranger_slots(5);
    let times = finish(6.0, &uploads, &config);
    let (slow, fast) = (mean(&times[..12]), mean(&times[12..]));
    assert!(1.1 * fast < slow, "{fast} {slow}: {times:?}");
}
