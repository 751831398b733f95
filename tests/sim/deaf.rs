//! Leechers that do not listen cannot help each other: one seeder serves all of them. Each
//! gets its turn, and none gives up.

use std::time::Duration;

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::{Member, Simulation};

const CHUNK: u64 = 16 << 10;

/// How many leechers the largest crowd has: more with the environment variable.
fn most() -> usize {
    let most = std::env::var("BT_LITE_DEAF").ok();
    most.map_or(500, |most| most.parse().expect("a number of leechers"))
}

/// A download gives up after a minute in which nothing arrives.
fn config() -> SwarmConfig {
    let mut config = SwarmConfig::default();
    config.patience = Some(Duration::from_secs(60));
    config
}

/// One seeder, and leechers of whom some do not listen. Its uplink sends a chunk in
/// `chunk_time`.
fn crowd(listening: usize, deaf: usize, chunks: u64, chunk_time: f64) -> Simulation {
    crowd_with(config(), listening, deaf, chunks, chunk_time)
}

fn crowd_with(
    config: SwarmConfig,
    listening: usize,
    deaf: usize,
    chunks: u64,
    chunk_time: f64,
) -> Simulation {
    let upload = CHUNK as f64 / chunk_time;
    let mut swarm = Simulation::new(chunks * CHUNK, config, 1);
    swarm.seeder(upload, 2.0 * upload);
    for _ in 0..listening {
        swarm.leecher(upload, 2.0 * upload);
    }
    for _ in 0..deaf {
        swarm.deaf_leecher(upload, 2.0 * upload);
    }
    swarm
}

/// When the last one finishes, in seconds. Nobody may give up.
fn last_finish(swarm: &mut Simulation, limit: f64) -> f64 {
    let complete = swarm.run(Duration::from_secs_f64(limit));
    let leechers = (1..swarm.members()).map(Member);
    let gave_up = leechers.clone().filter(|&member| swarm.gave_up(member));
    assert_eq!(gave_up.count(), 0, "of {} give up", swarm.members() - 1);
    let unfinished = leechers.clone().filter(|&m| swarm.finished(m).is_none());
    let unfinished = unfinished.count();
    assert!(complete, "{unfinished} did not complete");
    let times = leechers.filter_map(|member| swarm.finished(member));
    times.max().expect("all have finished").as_secs_f64()
}

/// The time of the last one, as a multiple of what the seeder's uplink needs.
fn ratio(deaf: usize, chunks: u64, chunk_time: f64) -> f64 {
    let bound = deaf as f64 * chunks as f64 * chunk_time;
    let mut swarm = crowd(0, deaf, chunks, chunk_time);
    last_finish(&mut swarm, 3.0 * bound) / bound
}

#[test]
fn seeder_serves_more_leechers_than_it_has_places_for() {
    for deaf in [60, 120] {
        // Four and eight minutes.
        let ratio = ratio(deaf, 40, 0.1);
        assert!(ratio <= 1.02, "{deaf}: {ratio}");
    }
}

#[test]
fn seeder_serves_hundreds_within_ten_minutes_of_its_uplink_and_none_gives_up() {
    let deaf = most();
    let ratio = ratio(deaf, 24, 600.0 / (24.0 * deaf as f64));
    assert!(ratio <= 1.02, "{ratio}");
}

#[test]
fn leechers_whose_turns_are_minutes_apart_do_not_give_up() {
    // The first round of turns takes five minutes.
    let ratio = ratio(300, 4, 1.0);
    assert!(ratio <= 1.02, "{ratio}");
}

#[test]
fn leechers_that_are_choked_for_minutes_do_not_give_up() {
    // All have a place, and a turn every hundred seconds.
    let mut config = config();
    config.max_links = 200;
    let mut swarm = crowd_with(config, 0, 200, 4, 0.5);
    let last = last_finish(&mut swarm, 1200.0);
    assert!(last <= 400.0 * 1.02, "{last}");
}

#[test]
fn everybody_has_something_long_before_the_last_one_is_done() {
    for deaf in [60, 120] {
        let mut swarm = crowd(0, deaf, 40, 0.1);
        while swarm.now() < Duration::from_secs(150) && swarm.step() {}
        let none = |m: &usize| swarm.progress(Member(*m)).verified_chunks == 0;
        let none = (1..swarm.members()).filter(none).count();
        assert_eq!(none, 0, "of {deaf} have nothing");
    }
}

#[test]
fn those_who_listen_do_not_wait_for_those_who_do_not() {
    let (listening, deaf, chunks) = (40, 40, 80);
    let mut swarm = crowd(listening, deaf, chunks, 0.1);
    let last = last_finish(&mut swarm, 1000.0);
    let bound = (chunks as f64 + f64::from((listening + deaf).ilog2())) / 10.0;
    assert!(last / bound < 1.2, "{}", last / bound);
}

#[test]
fn progress_shows_who_waits_and_where() {
    let mut swarm = crowd(0, 120, 40, 0.1);
    while swarm.now() < Duration::from_secs(30) && swarm.step() {}
    let queued = (1..swarm.members()).filter_map(|m| swarm.progress(Member(m)).place_in_line);
    let mut queued: Vec<u32> = queued.collect();
    queued.sort_unstable();
    assert!((70..=75).contains(&queued.len()), "{queued:?}");
    assert!(queued[0] >= 1 && queued[0] < 10, "{queued:?}");
    assert!(queued.last().is_some_and(|last| *last <= 75), "{queued:?}");
    last_finish(&mut swarm, 1000.0);
    let waits = |member| swarm.progress(Member(member)).place_in_line.is_some();
    assert!(!(1..swarm.members()).any(waits), "nobody waits in the end");
}
