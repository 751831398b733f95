//! What a stranger that follows the protocol cannot take from others: places, time
//! and credit.

use std::time::Duration;

use bt_lite::protocol::{Refusal, TrackerReply, TrackerRequest};
use bt_lite::tracker::RegistryConfig;

use crate::tracker_world::{Peer, STEP, World, addr};

/// A hundredth of each default limit.
fn scaled() -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.max_peers /= 100;
    config.max_contents /= 100;
    config.max_contents_per_peer /= 100;
    config.max_contents_per_host /= 100;
    config.max_ownerships /= 100;
    config.max_ownerships_per_host /= 100;
    config
}

#[test]
fn one_host_cannot_fill_the_catalog() {
    let config = scaled();
    let per_peer = config.max_contents_per_peer;
    let mut world = World::new(config);
    let greedy: Vec<Peer> = (0..101).map(|n| world.register(1, 1000 + n)).collect();
    let mut taken = 0;
    for (at, peer) in (0..).zip(&greedy) {
        taken += world.own_many(peer, 10_000 + at * per_peer..10_000 + (at + 1) * per_peer);
    }
    assert_eq!(taken, 1000 + 101);
    let refusals = world.registry.stats().refusals;
    assert_eq!(refusals.contents_per_host, 101 * 1000 - 1101);
    // A peer of another host may still own as much as a peer may.
    for host in 2..10 {
        let honest = world.register(host, 7);
        let from = u32::from(host) * 1000;
        assert_eq!(world.own_many(&honest, from..from + per_peer), per_peer);
    }
    assert_eq!(world.registry.stats().refusals.contents, 0);
    // The host may still own contents of others, up to another limit.
    let taken: u32 = greedy
        .iter()
        .map(|peer| world.own_many(peer, 2000..2500))
        .sum();
    assert_eq!(taken, 10_000 - 1000);
    assert!(world.registry.stats().refusals.ownerships_per_host > 0);
    world.registry.check_invariants();
    // Places that are given back can be taken again.
    for peer in &greedy {
        world.exit(peer);
    }
    world.catch_up();
    let again = world.register(1, 1000);
    assert_eq!(world.own_many(&again, 50_000..51_000), per_peer);
    world.registry.check_invariants();
}

#[test]
fn one_host_cannot_take_all_ownerships_and_the_total_is_bounded() {
    let mut config = scaled();
    config.max_ownerships = 10_500;
    let mut world = World::new(config);
    let greedy: Vec<Peer> = (0..256).map(|n| world.register(1, 1000 + n)).collect();
    let taken: u32 = greedy
        .iter()
        .map(|peer| world.own_many(peer, 0..1000))
        .sum();
    assert_eq!(taken, 10_000 + greedy.len() as u32);
    let honest = world.register(2, 7);
    assert_eq!(world.own_many(&honest, 0..1000), 10_500 - taken);
    let stats = world.registry.stats();
    assert_eq!(stats.ownerships, 10_500);
    assert_eq!(
        stats.refusals.ownerships,
        u64::from(1000 - (10_500 - taken))
    );
    world.registry.check_invariants();
}

/// How many ownerships a request other than OWN and EXIT touches, for each peer in
/// it.
const AT_ONCE: u64 = 8;

const MANY: u32 = 10_000;

#[test]
fn address_that_changes_all_the_time_costs_little_more_than_one_that_stays() {
    let mut world = World::new(RegistryConfig::default());
    let restless = world.register(1, 1);
    assert_eq!(world.own_many(&restless, 0..MANY), MANY);
    let asker = world.register(2, 7);
    let begun = world.registry.steps();
    let seconds = 88;
    let lease = 22;
    for port in 1..=10 * seconds {
        world.now += Duration::from_millis(100);
        let before = world.registry.steps();
        world.heartbeat(&restless, port);
        world.heartbeat(&asker, 7);
        assert!(world.registry.steps() - before <= AT_ONCE);
        world.catch_up();
    }
    let steps = world.registry.steps() - begun;
    let rounds = u64::from(seconds / lease) + 1;
    assert!(steps <= rounds * u64::from(MANY), "{steps}");
    assert!(
        steps >= u64::from(MANY),
        "{steps}: it is listed where it is"
    );
    // Once the address stays, the peer is found there in everything that it owns.
    for _ in 0..2 * lease {
        world.now += Duration::from_secs(1);
        world.heartbeat(&restless, 10 * seconds);
        world.heartbeat(&asker, 7);
        world.catch_up();
    }
    for number in (0..MANY).step_by(97) {
        let found = world.found(&asker, number);
        assert_eq!(found.owners[0].addr, addr(1, 10 * seconds));
    }
    world.registry.check_invariants();
}

#[test]
fn speed_of_a_peer_with_many_contents_is_applied_in_bounded_steps() {
    let mut world = World::new(RegistryConfig::default());
    let (fast, asker) = (world.register(1, 1), world.register(2, 7));
    let slow: Vec<Peer> = (0..30).map(|n| world.register(3, 1000 + n)).collect();
    for peer in slow.iter().chain([&fast]) {
        world.own_many(peer, 0..100);
    }
    world.own_many(&fast, 100..MANY);
    let owner = world.owner_ref(&asker, 200, &fast);
    let begun = world.registry.steps();
    // Twice as much each time, so that the level changes each time.
    for power in 0..30 {
        world.now += Duration::from_secs(1);
        let before = world.registry.steps();
        world.report(&asker, owner, 1 << power);
        assert!(world.registry.steps() - before <= AT_ONCE);
        for peer in slow.iter().chain([&fast]) {
            let request = TrackerRequest::Register {
                listen: Some(peer.addr.clone()),
                token: Some(peer.token),
            };
            world.handle(&peer.addr, &request);
        }
        world.catch_up();
        world.registry.check_invariants();
    }
    assert!(world.registry.steps() - begun <= 3 * u64::from(MANY));
    for number in 0..100 {
        assert_eq!(world.found(&asker, number).owners[0].addr, fast.addr);
    }
}

#[test]
fn exit_of_a_peer_with_many_contents_takes_bounded_steps_and_counts_at_once() {
    let mut world = World::new(RegistryConfig::default());
    let (leaver, asker) = (world.register(1, 1), world.register(2, 7));
    assert_eq!(world.own_many(&leaver, 0..MANY), MANY);
    let before = world.registry.steps();
    world.exit(&leaver);
    assert!(world.registry.steps() - before <= STEP);
    world.registry.check_invariants();
    // The token is invalid from here on.
    let again = TrackerRequest::Exit {
        token: leaver.token,
    };
    let unknown = TrackerReply::Refused(Refusal::UnknownToken);
    assert_eq!(world.handle(&leaver.addr, &again), unknown);
    assert!(world.registry.poll_timeout().unwrap() <= world.now);
    world.catch_up();
    world.registry.check_invariants();
    let stats = world.registry.stats();
    assert_eq!((stats.peers, stats.ownerships, stats.expired), (1, 0, 0));
    assert_eq!(world.named(&asker, "name-1"), []);
}

#[test]
fn token_does_not_move_a_peer_to_another_host() {
    let mut world = World::new(RegistryConfig::default());
    let (victim, asker) = (world.register(1, 1), world.register(2, 7));
    assert_eq!(world.own(&victim, 1, "name"), Ok(()));
    // A thief that has the token.
    for listen in [Some(addr(66, 5)), None] {
        let request = TrackerRequest::Register {
            listen: listen.clone(),
            token: Some(victim.token),
        };
        let reply = world.handle(&addr(66, 5), &request);
        let TrackerReply::Registered(registered) = reply else {
            panic!("{reply:?}");
        };
        assert_ne!(registered.token, victim.token);
        assert_eq!(registered.listed, listen);
        let found = world.found(&asker, 1);
        assert_eq!(found.owners.len(), 1);
        assert_eq!(found.owners[0].addr, victim.addr);
    }
    // The peer itself may move on its own host.
    world.heartbeat(&victim, 2);
    assert_eq!(world.found(&asker, 1).owners[0].addr, addr(1, 2));
    world.registry.check_invariants();
}

/// `max_credit_rate` bounds what all peers of one host can credit together, and the
/// reports of others still count.
#[test]
fn liars_of_one_host_move_no_more_than_one_can_have_received() {
    let rate = 1 << 20;
    let mut config = RegistryConfig::default();
    config.max_credit_rate = rate;
    let rates = [1, 20].map(|count| {
        let mut world = World::new(config.clone());
        let (praised, honest, receiver) = (
            world.register(1, 1),
            world.register(2, 1),
            world.register(3, 1),
        );
        for peer in [&praised, &honest] {
            assert_eq!(world.own(peer, 1, "name"), Ok(()));
        }
        let liars: Vec<Peer> = (0..count).map(|n| world.register(4, 1000 + n)).collect();
        let praise = world.owner_ref(&receiver, 1, &praised);
        let merit = world.owner_ref(&receiver, 1, &honest);
        for _ in 0..200 {
            world.now += Duration::from_secs(1);
            world.heartbeat(&praised, 1);
            world.heartbeat(&honest, 1);
            for liar in &liars {
                world.report(liar, praise, u64::MAX);
            }
            world.report(&receiver, merit, rate);
        }
        let credits = world.registry.snapshot(world.now).credits;
        let of = |peer: &Peer| {
            let credit = credits.iter().find(|credit| credit.addr == peer.addr);
            credit.unwrap().bytes_per_second as f64 / rate as f64
        };
        let (lied, earned) = (of(&praised), of(&honest));
        assert!((0.9..1.05).contains(&earned), "{earned}");
        // A peer that leaves and registers again has not received more.
        for liar in &liars {
            world.exit(liar);
        }
        lied
    });
    for lied in rates {
        assert!((0.9..1.1).contains(&lied), "{lied} of the limit");
    }
}
