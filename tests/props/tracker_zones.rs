//! A tracker names owners of the asker's zone first, and never only those.

use std::time::Duration;

use bt_lite::protocol::{Found, OwnState, Refusal, Token, TrackerReply, TrackerRequest, ZoneTag};
use bt_lite::tracker::RegistryConfig;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::tracker_world::{Peer, World};

const CONTENT: u32 = 1;

fn zone(number: u32) -> ZoneTag {
    ZoneTag::from_number(number).unwrap()
}

fn config() -> RegistryConfig {
    RegistryConfig::default()
}

fn enter(world: &mut World, peer: &Peer, number: u32) {
    let request = TrackerRequest::Zone {
        token: peer.token,
        zone: zone(number),
    };
    assert_eq!(world.handle(&peer.addr, &request), TrackerReply::Done);
}

/// An owner on a host that tells its zone.
fn owner(world: &mut World, host: u8, port: u16) -> Peer {
    let peer = world.register(host, port);
    world.own(&peer, CONTENT, "name").unwrap();
    peer
}

/// How many owners of the answer are on this host; and of all.
fn named(world: &mut World, asker: &Peer, host: u8) -> (Vec<bool>, usize) {
    let found = world.found(asker, CONTENT).owners;
    let start = format!("10.0.0.{host}:");
    let near = found.iter().map(|o| o.addr.as_str().starts_with(&start));
    (near.collect(), found.len())
}

#[test]
fn three_of_four_owners_are_near_and_a_far_one_follows_each_few() {
    let mut world = World::new(config());
    for port in 0..200 {
        for host in [1, 2] {
            let peer = owner(&mut world, host, 1000 + port);
            enter(&mut world, &peer, host.into());
        }
    }
    let asker = world.register(3, 1);
    let (_, all) = named(&mut world, &asker, 1);
    assert_eq!(all, 50);
    for port in 0..8 {
        // As many as fetch for the zone have asked before.
        let other = world.register(3, 100 + port);
        enter(&mut world, &other, 1);
        world.found(&other, CONTENT);
    }
    enter(&mut world, &asker, 1);
    let mut far = 0;
    for _ in 0..20 {
        let (near, all) = named(&mut world, &asker, 1);
        assert_eq!(all, 50);
        let nears = near.iter().filter(|near| **near).count();
        assert!((38..50).contains(&nears), "{nears}");
        far += all - nears;
        assert!(near[..3].iter().all(|near| *near));
        let fourths = near.iter().skip(3).step_by(4).filter(|near| !**near);
        assert!(fourths.count() >= 1, "some of those between are far");
    }
    assert!(far > 20 * 3, "{far}");
}

#[test]
fn small_zone_is_found_among_many_and_the_rest_is_filled_up() {
    let mut world = World::new(config());
    for port in 0..200 {
        owner(&mut world, 2, 1000 + port);
    }
    for port in 0..3 {
        let peer = owner(&mut world, 1, 1000 + port);
        enter(&mut world, &peer, 7);
    }
    let asker = world.register(3, 1);
    enter(&mut world, &asker, 7);
    for _ in 0..20 {
        let (near, all) = named(&mut world, &asker, 1);
        assert_eq!(all, 50);
        assert!(near[..3].iter().all(|near| *near), "{near:?}");
    }
    enter(&mut world, &asker, 8);
    assert_eq!(named(&mut world, &asker, 1).1, 50, "a zone where nobody is");
}

#[test]
fn owner_that_moves_or_leaves_is_in_its_old_zone_no_more() {
    let mut world = World::new(config());
    for port in 0..100 {
        owner(&mut world, 2, 1000 + port);
    }
    let moving = owner(&mut world, 1, 1);
    enter(&mut world, &moving, 7);
    let asker = world.register(3, 1);
    enter(&mut world, &asker, 7);
    assert!(named(&mut world, &asker, 1).0[0]);
    enter(&mut world, &moving, 8);
    let firsts = (0..20)
        .filter(|_| named(&mut world, &asker, 1).0[0])
        .count();
    assert!(firsts < 20, "it is one of many");
    enter(&mut world, &moving, 7);
    assert!(named(&mut world, &asker, 1).0[0]);
    world.exit(&moving);
    world.catch_up();
    assert_eq!(
        named(&mut world, &asker, 1)
            .0
            .iter()
            .filter(|n| **n)
            .count(),
        0
    );
    world.registry.check_invariants();
}

#[test]
fn zone_of_a_token_that_is_unknown_is_refused() {
    let mut world = World::new(config());
    let peer = world.register(1, 1);
    let request = TrackerRequest::Zone {
        token: Token([9; 16]),
        zone: zone(1),
    };
    let reply = world.handle(&peer.addr, &request);
    assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken));
}

/// A peer of zone 7 that wants the content.
fn leecher(world: &mut World, port: u16) -> Peer {
    let peer = world.register(1, port);
    enter(world, &peer, 7);
    peer
}

/// It has got the manifest, and is listed.
fn announce(world: &mut World, peer: &Peer) {
    let mut entry = crate::tracker_world::entry(CONTENT, "name");
    entry.state = OwnState::Partial;
    assert!(world.own_all(peer, vec![entry]).is_empty());
}

/// How many importers of its zone a peer is told of, if it is one.
fn importers(world: &mut World, peer: &Peer) -> Option<u16> {
    let found: Found = world.found(peer, CONTENT);
    let named = usize::from(found.importers.unwrap_or(0));
    let near = |addr: &str| addr.starts_with("10.0.0.1:");
    let first = found.owners.iter().take(named);
    assert!(first.clone().all(|o| near(o.addr.as_str()) && !o.complete));
    found.importers
}

#[test]
fn first_who_ask_are_importers_at_once_and_named_to_each_other_when_listed() {
    let mut world = World::new(config());
    owner(&mut world, 2, 1);
    let peers: Vec<Peer> = (0..20).map(|port| leecher(&mut world, 1 + port)).collect();
    let told = peers.iter().map(|peer| importers(&mut world, peer));
    let told: Vec<Option<u16>> = told.collect();
    assert_eq!(told[..8], [Some(0); 8]);
    assert_eq!(told[8..], [None; 12]);
    // Those that asked last are listed first.
    peers
        .iter()
        .rev()
        .for_each(|peer| announce(&mut world, peer));
    let told = peers.iter().map(|peer| importers(&mut world, peer));
    let told: Vec<Option<u16>> = told.collect();
    assert_eq!(told[..8], [Some(7); 8]);
    assert_eq!(told[8..], [None; 12]);
    world.exit(&peers[0]);
    let successors = peers[1..].iter().map(|peer| importers(&mut world, peer));
    assert_eq!(successors.flatten().count(), 8);
    world.registry.check_invariants();
}

#[test]
fn answer_to_an_importer_is_written_as_the_codec_writes_it() {
    let [mut one, mut other] = [0; 2].map(|_| World::new(config()));
    for world in [&mut one, &mut other] {
        owner(world, 2, 1);
        for port in 1..4 {
            let peer = leecher(world, port);
            announce(world, &peer);
        }
    }
    for name in [false, true] {
        let asker = leecher(&mut one, 9 + u16::from(name));
        assert_eq!(leecher(&mut other, 9 + u16::from(name)).token, asker.token);
        let request = TrackerRequest::Need {
            token: asker.token,
            key: match name {
                true => bt_lite::protocol::ContentKey::Name("name".parse().unwrap()),
                false => crate::tracker_world::id(CONTENT).into(),
            },
            max_owners: 50,
        };
        let reply = one.handle(&asker.addr, &request);
        assert!(matches!(&reply, TrackerReply::Found(found) if found.importers == Some(3)));
        let mut bytes = Vec::new();
        let (now, addr) = (other.now, &asker.addr);
        let handled = other.registry.handle_into(now, addr, &request, &mut bytes);
        assert!(handled.is_ok());
        assert_eq!(bytes, reply.encode().unwrap().head.to_vec());
    }
}

#[derive(Debug, Clone)]
enum Op {
    Register(u8),
    Zone(usize, u32),
    Own(usize, u32),
    Move(usize, u16),
    Exit(usize),
    Need(usize, u32),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..12usize;
    prop_oneof![
        3 => (1..4u8).prop_map(Op::Register),
        4 => (at.clone(), 0..3u32).prop_map(|(at, zone)| Op::Zone(at, zone)),
        4 => (at.clone(), 0..3u32).prop_map(|(at, content)| Op::Own(at, content)),
        1 => (at.clone(), 1..5u16).prop_map(|(at, port)| Op::Move(at, port)),
        1 => at.clone().prop_map(Op::Exit),
        3 => (at, 0..3u32).prop_map(|(at, content)| Op::Need(at, content)),
        1 => (1..60u64).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever peers do, the lists of zones are those of the peers that are there, and an
    /// answer names each address once and never the asker.
    #[test]
    fn lists_of_zones_follow_the_peers(ops in vec(op(), 0..60)) {
        let mut world = World::new(config());
        let mut peers: Vec<Peer> = Vec::new();
        for (at, op) in ops.into_iter().enumerate() {
            let port = 100 + at as u16;
            match op {
                Op::Register(host) => peers.push(world.register(host, port)),
                Op::Zone(at, number) if at < peers.len() => {
                    let request = TrackerRequest::Zone {
                        token: peers[at].token,
                        zone: zone(number),
                    };
                    world.handle(&peers[at].addr.clone(), &request);
                }
                Op::Own(at, content) if at < peers.len() => {
                    let request = TrackerRequest::Own {
                        token: peers[at].token,
                        entries: vec![crate::tracker_world::entry(content, "name")],
                    };
                    world.handle(&peers[at].addr.clone(), &request);
                }
                Op::Move(at, port) if at < peers.len() => {
                    let request = TrackerRequest::Register {
                        listen: Some(format!("0.0.0.0:{port}").parse().unwrap()),
                        token: Some(peers[at].token),
                    };
                    world.handle(&peers[at].addr.clone(), &request);
                }
                Op::Exit(at) if at < peers.len() => {
                    let peer = peers.remove(at);
                    let request = TrackerRequest::Exit { token: peer.token };
                    world.handle(&peer.addr, &request);
                }
                Op::Need(at, content) if at < peers.len() => {
                    let peer = peers[at].clone();
                    let key = crate::tracker_world::id(content).into();
                    if let TrackerReply::Found(found) = world.need(&peer, key) {
                        let mut addrs: Vec<_> = found.owners.iter().map(|o| &o.addr).collect();
                        addrs.sort();
                        let all = addrs.len();
                        addrs.dedup();
                        prop_assert_eq!(addrs.len(), all);
                    }
                }
                Op::Wait(seconds) => {
                    world.now += Duration::from_secs(seconds);
                    world.catch_up();
                }
                _ => {}
            }
            world.registry.check_invariants();
        }
    }
}
