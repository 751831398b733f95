//! A download that is paused again and again, in virtual time: what is on its way when it is
//! paused is not lost, and what is lost is counted.

use std::time::Duration;

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::{Member, Simulation};

const MIB: u64 = 1 << 20;
/// The shortest content with chunks of 1 MiB, nearly.
const LEN: u64 = 513 * MIB;
/// A quarter of a chunk.
const BLOCK: u64 = 256 << 10;
const OWNERS: usize = 3;
const PAUSES: u64 = 10;
/// Each owner sends 4 MiB a second.
const UPLOAD: f64 = (4 * MIB) as f64;

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

/// Pauses of this length, and what is left of the links in the middle of each.
fn run(pause: f64, serve: bool) -> (Simulation, Member) {
    let mut swarm = Simulation::new(LEN, SwarmConfig::default(), 7);
    swarm.set_latency(Duration::from_millis(20));
    for _ in 0..OWNERS {
        swarm.seeder(UPLOAD, 1e9);
    }
    let leecher = swarm.leecher(UPLOAD, 1e9);
    for at in 1..=PAUSES {
        let at = secs(at as f64 * (3.0 + pause) - pause);
        swarm.pause_at(at, leecher, serve);
        swarm.resume_at(at + secs(pause), leecher);
    }
    (swarm, leecher)
}

#[test]
fn pauses_waste_no_more_than_a_block_of_each_owner_and_all_of_it_is_counted() {
    for (pause, serve) in [(5.0, true), (5.0, false), (0.3, true), (0.01, false)] {
        let (mut swarm, leecher) = run(pause, serve);
        assert!(swarm.run(Duration::from_secs(3600)), "it completes");
        let progress = swarm.progress(leecher);
        let most = PAUSES * OWNERS as u64 * BLOCK;
        let what = format!("{pause} {serve} {progress:?}");
        assert_eq!(progress.downloaded, LEN + progress.wasted, "{what}");
        assert!(progress.wasted <= most, "{what}");
        let sent = (0..OWNERS).map(|owner| swarm.progress(Member(owner)).uploaded);
        let sent: u64 = sent.sum();
        // What was cut off on its way is not known here.
        assert!(sent - LEN <= most, "{sent} {what}");
    }
}

#[test]
fn paused_download_rests_after_two_seconds() {
    let (mut swarm, leecher) = run(60.0, false);
    let at = |swarm: &mut Simulation, time: f64| {
        swarm.run(secs(time));
        swarm.progress(leecher)
    };
    let paused = at(&mut swarm, 3.0);
    assert!(paused.links > 0 && paused.downloaded > 0, "{paused:?}");
    let rests = at(&mut swarm, 5.1);
    assert_eq!(rests.links, 0, "{rests:?}");
    // Something was on its way, and all of it has come.
    assert!(rests.downloaded > paused.downloaded);
    assert_eq!(rests.wasted, 0);
    let later = at(&mut swarm, 60.0);
    assert_eq!(later.downloaded, rests.downloaded);
}
