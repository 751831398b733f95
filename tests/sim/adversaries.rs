//! Crowds with adversaries: peers that keep to the protocol and do harm (see
//! [`Adversary`]). The honest members finish all the same.

use std::time::Duration;

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::{Adversary, Member, Simulation};

const CHUNK: u64 = 16 << 10;
const CHUNKS: u64 = 80;
/// A chunk takes a tenth of a second on an uplink.
const UPLOAD: f64 = CHUNK as f64 * 10.0;
const HONEST: usize = 32;
const ADVERSARIES: usize = 8;

/// The last honest member must finish within this multiple of the lower bound,
/// which is what their own uplinks and the seeder's could do for them alone.
const BOUNDS: [(Adversary, f64); 8] = [
    (Adversary::Silent, 1.1),
    (Adversary::Impostor, 1.1),
    (Adversary::Squatter, 1.1),
    (Adversary::Sybil, 1.3),
    (Adversary::Taker, 1.2),
    (Adversary::Hider, 2.5),
    (Adversary::Flapper, 1.1),
    (Adversary::Liar, 1.2),
];

/// One seeder, adversaries of these kinds in turn, and then the honest leechers.
fn start(kinds: &[Adversary], seed: u64) -> Simulation {
    let mut swarm = Simulation::new(CHUNKS * CHUNK, SwarmConfig::default(), seed);
    swarm.seeder(UPLOAD, 2.0 * UPLOAD);
    for &kind in kinds.iter().cycle().take(ADVERSARIES) {
        swarm.adversary(kind, UPLOAD, 2.0 * UPLOAD);
    }
    for _ in 0..HONEST {
        swarm.leecher(UPLOAD, 2.0 * UPLOAD);
    }
    swarm
}

/// The lower bound for the honest leechers, in seconds; see
/// `examples/flash_crowd.rs`.
fn bound() -> f64 {
    (CHUNKS as f64 + f64::from(HONEST.ilog2())) / 10.0
}

fn honest() -> impl Iterator<Item = Member> {
    (1 + ADVERSARIES..=ADVERSARIES + HONEST).map(Member)
}

fn finishes_in_time(kind: Adversary) {
    let (_, most) = BOUNDS
        .into_iter()
        .find(|(bounded, _)| *bounded == kind)
        .expect("every kind has a bound");
    let mut swarm = start(&[kind], 1);
    let complete = swarm.run(Duration::from_secs_f64(20.0 * bound()));
    let unfinished = honest().filter(|&member| swarm.finished(member).is_none());
    let unfinished = unfinished.count();
    assert!(
        complete,
        "{kind}: {unfinished} honest leechers did not complete"
    );
    let times = honest().filter_map(|member| swarm.finished(member));
    let ratio = times.max().expect("all have finished").as_secs_f64() / bound();
    assert!(ratio < most, "{kind}: {ratio} should be below {most}");
}

#[test]
fn crowd_with_silent_peers_finishes_in_time() {
    finishes_in_time(Adversary::Silent);
}

#[test]
fn crowd_with_impostors_finishes_in_time() {
    finishes_in_time(Adversary::Impostor);
}

#[test]
fn crowd_with_squatters_finishes_in_time() {
    finishes_in_time(Adversary::Squatter);
}

#[test]
fn crowd_with_sybils_finishes_in_time() {
    finishes_in_time(Adversary::Sybil);
}

#[test]
fn crowd_with_takers_finishes_in_time() {
    finishes_in_time(Adversary::Taker);
}

#[test]
fn crowd_with_hiders_finishes_in_time() {
    finishes_in_time(Adversary::Hider);
}

#[test]
fn crowd_with_flappers_finishes_in_time() {
    finishes_in_time(Adversary::Flapper);
}

#[test]
fn crowd_with_liars_finishes_in_time() {
    finishes_in_time(Adversary::Liar);
}

#[test]
fn every_kind_of_adversary_has_a_bound() {
    assert_eq!(BOUNDS.map(|(kind, _)| kind), Adversary::ALL);
}

#[test]
fn adversaries_download_and_upload_according_to_their_kind() {
    for kind in Adversary::ALL {
        let mut swarm = start(&[kind], 1);
        let until = 5;
        // Some links come and go.
        let mut is_linked = false;
        while swarm.now() < Duration::from_secs(until) && swarm.step() {
            is_linked |= swarm.progress(Member(1)).links > 0;
        }
        let (mut taken, mut sent) = (0, 0);
        for member in (1..=ADVERSARIES).map(Member) {
            assert_eq!(swarm.adversary_kind(member), Some(kind));
            let progress = swarm.progress(member);
            taken += progress.downloaded;
            sent += progress.uploaded;
        }
        assert!(honest().all(|member| swarm.adversary_kind(member).is_none()));
        let takes = [Adversary::Sybil, Adversary::Taker, Adversary::Hider].contains(&kind);
        assert_eq!(taken > 0, takes, "{kind} downloaded {taken} bytes");
        let sends = kind == Adversary::Liar;
        assert_eq!(sent > 0, sends, "{kind} sent {sent} bytes");
        assert_eq!(is_linked, kind != Adversary::Squatter, "{kind}");
    }
}

#[test]
fn same_seed_gives_the_same_crowd_with_adversaries_event_for_event() {
    let trace = |seed| {
        let mut swarm = start(&Adversary::ALL, seed);
        swarm.set_latency(Duration::from_millis(5));
        let mut trace = Vec::new();
        while trace.len() < 50_000 && swarm.leeching() > 0 && swarm.step() {
            let taken = |member| swarm.progress(Member(member)).downloaded;
            let taken: u64 = (0..swarm.members()).map(taken).sum();
            trace.push((swarm.now(), swarm.sending(), taken));
        }
        trace
    };
    let first = trace(1);
    assert!(first.len() > 1000);
    assert!(first == trace(1), "the same seed");
    assert!(first != trace(2), "another seed");
}
