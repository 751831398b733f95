//! Names: what a stranger cannot take from others by using their names, and which
//! name a tracker tells.

use std::time::{Duration, Instant};

use bt_lite::ContentId;
use bt_lite::protocol::limits::MAX_AMBIGUOUS;
use bt_lite::protocol::{OwnState, Refusal, RefusedEntry};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};

use crate::tracker_world::{Peer, World, entry, id};

#[test]
fn honest_owner_gets_a_name_that_one_host_took_for_made_up_contents() {
    let mut world = World::new(RegistryConfig::default());
    // Once with one peer, and once with as many as a host may have.
    for peers in [1, 256] {
        let squatters: Vec<Peer> = (0..peers).map(|n| world.register(1, 1000 + n)).collect();
        for number in 0..64 {
            let at = number as usize % squatters.len();
            let _full = world.own(&squatters[at], number, "wanted");
        }
        let honest = world.register(2, 7);
        let asker = world.register(3, 7);
        assert_eq!(world.own(&honest, 1000, "wanted"), Ok(()));
        let named = world.named(&asker, "wanted");
        assert!(named.contains(&id(1000)) && named.len() <= 32);
        assert_eq!(world.found(&asker, 1000).owners[0].addr, honest.addr);
        assert_eq!(world.found(&asker, 1000).name.as_str(), "wanted");
        world.registry.check_invariants();
        squatters
            .iter()
            .chain([&honest, &asker])
            .for_each(|peer| world.exit(peer));
    }
}

#[test]
fn two_hosts_that_took_all_places_of_a_name_share_them_with_newcomers() {
    let mut world = World::new(RegistryConfig::default());
    for host in [1, 2] {
        let squatter = world.register(host, 7);
        for number in 0..16 {
            let made_up = 100 * u32::from(host) + number;
            assert_eq!(world.own(&squatter, made_up, "wanted"), Ok(()));
        }
        let full = Err(Refusal::ContentsPerName { max: 16 });
        assert_eq!(
            world.own(&squatter, 100 * u32::from(host) + 99, "wanted"),
            full
        );
    }
    let asker = world.register(99, 7);
    assert_eq!(world.named(&asker, "wanted").len(), 32);
    for host in 3..20 {
        let honest = world.register(host, 7);
        assert_eq!(world.own(&honest, host.into(), "wanted"), Ok(()));
        let named = world.named(&asker, "wanted");
        assert_eq!(named.len(), 32);
        assert!((3..=host).all(|number| named.contains(&id(number.into()))));
        world.registry.check_invariants();
    }
}

#[test]
fn content_whose_names_all_came_from_one_host_gets_the_honest_name() {
    let mut world = World::new(RegistryConfig::default());
    let squatters: Vec<Peer> = (0..40).map(|n| world.register(1, 1000 + n)).collect();
    for (number, squatter) in squatters.iter().enumerate() {
        let _full = world.own(squatter, 1, &format!("false-{number}"));
    }
    let (two, three, asker) = (
        world.register(2, 7),
        world.register(3, 7),
        world.register(9, 7),
    );
    assert_eq!(world.own(&two, 1, "true"), Ok(()));
    assert_eq!(world.named(&asker, "true"), [id(1)]);
    // The same when two hosts have brought all names.
    let others: Vec<Peer> = (0..8).map(|n| world.register(4, 1000 + n)).collect();
    for (number, other) in others.iter().enumerate() {
        let _full = world.own(other, 1, &format!("wrong-{number}"));
    }
    assert_eq!(world.own(&three, 1, "true, too"), Ok(()));
    assert_eq!(world.named(&asker, "true, too"), [id(1)]);
    assert_eq!(world.named(&asker, "true"), [id(1)]);
    world.registry.check_invariants();
    for peer in squatters.iter().chain(&others) {
        world.exit(peer);
        world.registry.check_invariants();
    }
    assert_eq!(world.found(&asker, 1).owners.len(), 2);
}

#[test]
fn content_is_found_by_its_id_if_its_name_has_no_place() {
    let mut config = RegistryConfig::default();
    config.max_contents_per_name = 1;
    let mut world = World::new(config);
    let (first, honest, asker) = (
        world.register(1, 7),
        world.register(2, 7),
        world.register(3, 7),
    );
    assert_eq!(world.own(&first, 1, "name"), Ok(()));
    let entries = vec![entry(2, "other"), entry(3, "name"), entry(4, "more")];
    let refusal = Refusal::ContentsPerName { max: 1 };
    assert!(refusal.is_of_name());
    let refused = world.own_all(&honest, entries);
    assert_eq!(refused, [RefusedEntry::new(1, refusal)]);
    for (number, name) in [(2, "other"), (3, &*id(3).to_string()), (4, "more")] {
        let found = world.found(&asker, number);
        assert_eq!(found.owners[0].addr, honest.addr);
        assert_eq!(found.name.as_str(), name);
    }
    // If a name has no place, the old name stays, and the rest is applied.
    let mut again = entry(2, "name");
    (again.length, again.state) = (77, OwnState::Complete);
    assert_eq!(world.own_all(&honest, vec![again]).len(), 1);
    let found = world.found(&asker, 2);
    assert_eq!((found.name.as_str(), found.length), ("other", 77));
    // Once a place is free, a peer that announces again gets it.
    world.exit(&first);
    assert_eq!(world.own(&honest, 3, "name"), Ok(()));
    assert_eq!(world.named(&asker, "name"), [id(3)]);
    world.registry.check_invariants();
}

#[test]
fn peer_has_several_names_for_a_content_and_loses_them_together() {
    let mut world = World::new(RegistryConfig::default());
    let (owner, other, asker) = (
        world.register(1, 7),
        world.register(2, 7),
        world.register(3, 7),
    );
    let name = |number: usize| format!("name-{number}");
    for number in 0..8 {
        for _again in 0..2 {
            assert_eq!(world.own(&owner, 1, &name(number)), Ok(()));
        }
    }
    assert_eq!(world.own(&other, 1, "other"), Ok(()));
    // As many as one host may bring; also of those that others brought.
    let full = Err(Refusal::NamesPerContent { max: 8 });
    assert_eq!(world.own(&owner, 1, "one more"), full);
    assert_eq!(world.own(&owner, 1, "other"), full);
    for number in 0..8 {
        assert_eq!(world.named(&asker, &name(number)), [id(1)]);
    }
    // The other owner takes two of them over.
    assert_eq!(world.own(&other, 1, &name(0)), Ok(()));
    assert_eq!(world.own(&other, 1, &name(7)), Ok(()));
    world.registry.check_invariants();
    let mut gone = entry(1, "name-3");
    gone.state = OwnState::Gone;
    assert_eq!(world.own_all(&owner, vec![gone]), []);
    world.registry.check_invariants();
    for number in 0..8 {
        let left: &[ContentId] = match number {
            0 | 7 => &[id(1)],
            _ => &[],
        };
        assert_eq!(world.named(&asker, &name(number)), left, "{number}");
    }
    // There is room for other names now.
    assert_eq!(world.own(&owner, 1, "one more"), Ok(()));
    assert_eq!(world.own(&owner, 2, "name-3"), Ok(()));
    world.exit(&other);
    assert_eq!(world.named(&asker, "other"), []);
    world.registry.check_invariants();
}

#[test]
fn name_that_others_fetched_by_does_not_give_way() {
    let mut config = RegistryConfig::default();
    config.max_contents_per_name = 3;
    // Nobody makes a name worth more from its own host.
    for reporter in [None, Some(1), Some(2)] {
        let fetched = reporter == Some(2);
        let mut world = World::new(config.clone());
        let (one, two, other) = (
            world.register(1, 7),
            world.register(1, 8),
            world.register(2, 7),
        );
        for number in [1, 2] {
            assert_eq!(world.own(&one, number, "name"), Ok(()));
            assert_eq!(world.own(&two, number, "name"), Ok(()));
        }
        assert_eq!(world.own(&other, 3, "name"), Ok(()));
        if let Some(host) = reporter {
            world.now += Duration::from_secs(1);
            let reporter = if host == 1 { &two } else { &other };
            let owner = world.owner_ref(reporter, 1, &one);
            world.report(reporter, owner, 1000);
        }
        let newcomer = world.register(3, 7);
        let outcome = world.own(&newcomer, 4, "name");
        let full = Err(Refusal::ContentsPerName { max: 3 });
        assert_eq!(outcome, if fetched { full } else { Ok(()) });
        world.registry.check_invariants();
    }
}

#[test]
fn name_that_is_told_is_the_one_that_most_hosts_use() {
    let mut world = World::new(RegistryConfig::default());
    let asker = world.register(99, 7);
    let told = |world: &mut World| world.found(&asker, 1).name.as_str().to_owned();
    let liars: Vec<Peer> = (0..200).map(|n| world.register(1, 1000 + n)).collect();
    for liar in &liars {
        assert_eq!(world.own(liar, 1, "false"), Ok(()));
    }
    let two = world.register(2, 7);
    assert_eq!(world.own(&two, 1, "true"), Ok(()));
    // One host each, so the first name counts.
    assert_eq!(told(&mut world), "false");
    let three = world.register(3, 7);
    assert_eq!(world.own(&three, 1, "true"), Ok(()));
    assert_eq!(told(&mut world), "true");
    world.exit(&two);
    assert_eq!(told(&mut world), "false");
    for liar in &liars {
        world.exit(liar);
    }
    assert_eq!(told(&mut world), "true");
    // It comes first in a snapshot as well.
    assert_eq!(
        world.registry.snapshot(world.now).contents[0].names[0].as_str(),
        "true"
    );
    world.registry.check_invariants();
}

#[test]
fn no_more_contents_of_a_name_are_told_than_fit_in_an_answer() {
    let max = MAX_AMBIGUOUS as u32;
    let sharded = || {
        let now = Instant::now();
        let registry = ShardedRegistry::new(RegistryConfig::default(), [4; 32], 1, 4, now);
        World { registry, now }
    };
    let mut world = sharded();
    let own = |world: &mut World, from: u32| {
        for number in 0..max {
            let peer = world.register(1 + number as u8, 7);
            assert_eq!(world.own(&peer, from + number, "name"), Ok(()));
        }
    };
    own(&mut world, 0);
    let snapshot = world.registry.snapshot(world.now);
    let mut world = sharded();
    world.registry.restore(world.now, &snapshot);
    own(&mut world, max);
    let asker = world.register(99, 7);
    assert_eq!(world.named(&asker, "name").len(), MAX_AMBIGUOUS);
}
