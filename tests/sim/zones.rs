//! Crowds in several zones: how often a content crosses the lines between them, and what that
//! costs. The seed decides everything, so each figure is exact.

use std::time::Duration;

use bt_lite::Zone;
use bt_lite::peer::swarm::{PlannerConfig, SwarmConfig};
use bt_lite::testing::simulation::{Member, Simulation};

const CHUNK: u64 = 16 << 10;
/// A chunk takes a tenth of a second on an uplink.
const UPLOAD: f64 = CHUNK as f64 * 10.0;
const LIMIT: Duration = Duration::from_secs(10_000);

fn zone(number: usize) -> Zone {
    format!("zone-{number}").parse().unwrap()
}

struct Crowd {
    zones: usize,
    leechers_of_zone: usize,
    chunks: u64,
    hide: bool,
    round_trip: Duration,
    /// How many leechers of each zone leave, one after the other. Each is replaced.
    leavers: usize,
    /// How many uplinks a line between two zones carries.
    line: f64,
}

impl Crowd {
    fn new(zones: usize, leechers_of_zone: usize, chunks: u64) -> Self {
        Self {
            zones,
            leechers_of_zone,
            chunks,
            hide: false,
            round_trip: Duration::ZERO,
            leavers: 0,
            line: 2.0,
        }
    }

    /// The lower bound in seconds: that of a crowd in one place, as the lines are not narrower.
    fn bound(&self) -> f64 {
        let leechers = self.zones * self.leechers_of_zone;
        (self.chunks + u64::from(leechers.ilog2())) as f64 / 10.0
    }

    /// Runs it with lines between zones that carry two uplinks. Returns when the last one has
    /// finished, as a multiple of the bound, and how many contents came into each zone.
    fn run(&self, seed: u64) -> (f64, Vec<f64>) {
        let length = self.chunks * CHUNK;
        let mut swarm = Simulation::new(length, SwarmConfig::default(), seed);
        swarm.set_latency(self.round_trip / 2);
        swarm.set_zone_lines(self.line * UPLOAD);
        if self.hide {
            swarm.hide_zones();
        }
        swarm.enter_zone(Some(zone(0)));
        swarm.seeder(UPLOAD, 2.0 * UPLOAD);
        for i in 0..self.zones * self.leechers_of_zone {
            swarm.enter_zone(Some(zone(i % self.zones)));
            swarm.leecher(UPLOAD, 2.0 * UPLOAD);
        }
        let leavers = self.leavers * self.zones;
        for i in 0..leavers {
            let share = (i + 1) as f64 / (leavers + 1) as f64;
            let at = Duration::from_secs_f64(self.bound() * share);
            swarm.leave_at(at, Member(1 + i));
            swarm.enter_zone(Some(zone(i % self.zones)));
            swarm.leecher_at(at / 10, UPLOAD, 2.0 * UPLOAD);
        }
        assert!(swarm.run(LIMIT), "all complete");
        let members = (1..swarm.members()).map(Member);
        let times = members.filter_map(|member| swarm.finished(member));
        let last = times.max().unwrap().as_secs_f64();
        let copies = |number| swarm.imported(&zone(number)) as f64 / length as f64;
        (last / self.bound(), (0..self.zones).map(copies).collect())
    }
}

#[test]
fn content_comes_into_each_zone_about_once() {
    let (ratio, copies) = Crowd::new(3, 20, 100).run(1);
    let most = copies.iter().copied().fold(0.0, f64::max);
    assert!(most <= 1.2, "{copies:?}");
    assert!(ratio < 1.3, "{ratio}");
    let hidden = Crowd {
        hide: true,
        ..Crowd::new(3, 20, 100)
    };
    let (_, copies) = hidden.run(1);
    let most = copies.into_iter().fold(0.0, f64::max);
    assert!(most > 4.0, "{most}");
}

#[test]
fn zone_whose_importers_die_gets_others() {
    let length = 100 * CHUNK;
    let mut swarm = Simulation::new(length, SwarmConfig::default(), 1);
    swarm.enter_zone(Some(zone(0)));
    swarm.seeder(UPLOAD, 2.0 * UPLOAD);
    let mut gone = 0;
    for i in 0..60 {
        swarm.enter_zone(Some(zone(i % 3)));
        let leecher = swarm.leecher(UPLOAD, 2.0 * UPLOAD);
        // The first ones of a zone fetch for it.
        if i % 3 == 1 && gone < 8 {
            swarm.leave_at(Duration::from_secs(3), leecher);
            gone += 1;
        }
    }
    assert!(swarm.run(LIMIT), "all complete");
    let took = swarm.now().as_secs_f64();
    assert!(took < 40.0, "{took}");
    let copies = swarm.imported(&zone(1)) as f64 / length as f64;
    assert!(copies < 2.0, "{copies}");
}

#[test]
fn few_slow_importers_hold_a_zone_up_for_little() {
    let mut swarm = Simulation::new(100 * CHUNK, SwarmConfig::default(), 1);
    swarm.enter_zone(Some(zone(0)));
    swarm.seeder(UPLOAD, 2.0 * UPLOAD);
    let mut others = Vec::new();
    for i in 0..60 {
        swarm.enter_zone(Some(zone(i % 3)));
        // The first eight of a zone fetch for it.
        let is_slow = i % 3 == 1 && i < 6;
        let rate = if is_slow { UPLOAD / 20.0 } else { UPLOAD };
        let leecher = swarm.leecher(rate, 2.0 * rate);
        if !is_slow {
            others.push(leecher);
        }
    }
    assert!(swarm.run(LIMIT), "all complete");
    let times = others.iter().filter_map(|leecher| swarm.finished(*leecher));
    let took = times.max().unwrap().as_secs_f64();
    assert!(took < 20.0, "{took}");
}

#[test]
fn seeder_may_leave_when_little_more_than_one_copy_is_out() {
    let length = 100 * CHUNK;
    let mut swarm = Simulation::new(length, SwarmConfig::default(), 1);
    swarm.set_zone_lines(2.0 * UPLOAD);
    swarm.enter_zone(Some(zone(0)));
    let seeder = swarm.seeder(UPLOAD, 2.0 * UPLOAD);
    for i in 0..60 {
        swarm.enter_zone(Some(zone(i % 3)));
        swarm.leecher(UPLOAD, 2.0 * UPLOAD);
    }
    while swarm.progress(seeder).uploaded < length * 11 / 10 {
        assert!(swarm.step(), "it goes on");
    }
    swarm.leave_at(swarm.now(), seeder);
    assert!(swarm.run(LIMIT), "all complete");
    let took = swarm.now().as_secs_f64();
    assert!(took < 16.0, "{took}");
}

#[test]
fn everybody_in_a_zone_of_its_own_loses_little() {
    let crowd = |hide| Crowd {
        hide,
        line: 100.0,
        ..Crowd::new(40, 1, 100)
    };
    let (ratio, _) = crowd(false).run(1);
    let (without, _) = crowd(true).run(1);
    assert!(ratio < 1.1 * without, "{ratio} instead of {without}");
}

#[test]
fn zone_of_one_loses_nothing() {
    let length = 100 * CHUNK;
    let mut swarm = Simulation::new(length, SwarmConfig::default(), 1);
    swarm.enter_zone(Some(zone(0)));
    swarm.seeder(UPLOAD, 2.0 * UPLOAD);
    for _ in 0..20 {
        swarm.leecher(UPLOAD, 2.0 * UPLOAD);
    }
    swarm.enter_zone(Some(zone(1)));
    let single = swarm.leecher(UPLOAD, 2.0 * UPLOAD);
    assert!(swarm.run(LIMIT), "all complete");
    let took = swarm.finished(single).unwrap().as_secs_f64();
    assert!(took < 13.0, "{took}");
}

#[test]
fn crowd_completes_with_latency_and_though_some_leave_with_what_only_they_have() {
    let crowd = Crowd {
        leavers: 3,
        round_trip: Duration::from_millis(20),
        ..Crowd::new(3, 12, 40)
    };
    let (ratio, _) = crowd.run(1);
    assert!(ratio < 5.0, "{ratio}");
}

/// Little is asked for before it is known who is near.
fn careful() -> SwarmConfig {
    SwarmConfig::default().planner(PlannerConfig::default().first_window(4 * CHUNK))
}

/// A leecher and one or two seeders: one of its zone, and one of another zone, if they have
/// an upload rate. Returns how long it takes, and how many contents came from far.
fn alone(near: f64, far: f64, chunks: u64) -> (f64, f64) {
    let length = chunks * CHUNK;
    let mut swarm = Simulation::new(length, careful(), 1);
    for (number, rate) in [(0, near), (1, far)] {
        if rate > 0.0 {
            swarm.enter_zone(Some(zone(number)));
            swarm.seeder(rate, rate);
        }
    }
    swarm.enter_zone(Some(zone(0)));
    let leecher = swarm.leecher(UPLOAD, 10.0 * UPLOAD);
    assert!(swarm.run(LIMIT), "it completes");
    let took = swarm.finished(leecher).unwrap().as_secs_f64();
    (took, swarm.imported(&zone(0)) as f64 / length as f64)
}

#[test]
fn what_is_near_comes_from_there() {
    let (took, far) = alone(UPLOAD, UPLOAD, 100);
    assert!(far < 0.1, "{far}");
    assert!(took < 11.0, "{took}");
}

#[test]
fn slower_near_owner_does_not_hold_a_download_up() {
    let (took, _) = alone(UPLOAD / 20.0, UPLOAD, 100);
    let best = 100.0 / (10.0 + 0.5);
    assert!(took < 1.3 * best, "{took} instead of {best}");
}

#[test]
fn near_owner_that_sends_nothing_does_not_hold_a_download_up() {
    let length = 100 * CHUNK;
    let mut swarm = Simulation::new(length, SwarmConfig::default(), 1);
    swarm.enter_zone(Some(zone(0)));
    let near = swarm.seeder(UPLOAD, UPLOAD);
    swarm.set_upload_at(Duration::from_secs(1), near, 0.0);
    swarm.enter_zone(Some(zone(1)));
    swarm.seeder(UPLOAD, UPLOAD);
    swarm.enter_zone(Some(zone(0)));
    let leecher = swarm.leecher(UPLOAD, 10.0 * UPLOAD);
    assert!(swarm.run(LIMIT), "it completes");
    let took = swarm.finished(leecher).unwrap().as_secs_f64();
    assert!(took < 18.0, "{took}");
}

#[test]
fn owner_of_another_zone_is_enough() {
    let (took, far) = alone(0.0, UPLOAD, 100);
    assert_eq!(far, 1.0);
    assert!(took < 10.5, "{took}");
}

#[test]
fn members_that_say_no_zone_are_near_everybody() {
    let length = 60 * CHUNK;
    let mut swarm = Simulation::new(length, SwarmConfig::default(), 1);
    swarm.enter_zone(Some(zone(0)));
    swarm.seeder(UPLOAD, UPLOAD);
    for i in 0..30 {
        swarm.enter_zone(Some(zone(i % 2)).filter(|_| i % 3 > 0));
        swarm.leecher(UPLOAD, 2.0 * UPLOAD);
    }
    assert!(swarm.run(LIMIT), "all complete");
    let took = swarm.now().as_secs_f64();
    assert!(took < 1.3 * 6.4, "{took}");
}

#[test]
fn narrow_lines_are_not_taken_for_importers_that_fail() {
    let crowd = Crowd {
        line: 0.5,
        ..Crowd::new(4, 30, 200)
    };
    let (ratio, copies) = crowd.run(1);
    let most = copies.iter().copied().fold(0.0, f64::max);
    assert!(most < 1.4, "{copies:?}");
    assert!(ratio < 1.75, "{ratio}");
}
