//! What the property tests against a model do not show: rates, many owners, and
//! how much one step does.

use std::time::{Duration, Instant};

use super::*;
use crate::protocol::{Found, OwnEntry, OwnState, OwnerRef, Refusal, Token, Upload};
use crate::tracker::AddressRule;

struct World {
    registry: ShardedRegistry,
    now: Instant,
}

impl World {
    fn new(config: RegistryConfig) -> Self {
        let now = Instant::now();
        Self {
            registry: ShardedRegistry::new(config, [9; 32], 1, 1, now),
            now,
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn handle(&mut self, request: &TrackerRequest) -> TrackerReply {
        let source = "10.0.0.1:1".parse().unwrap();
        self.registry.handle(self.now, &source, request)
    }

    fn register(&mut self, listen: &str) -> Token {
        let request = TrackerRequest::Register {
            listen: Some(listen.parse().unwrap()),
            token: None,
        };
        match self.handle(&request) {
            TrackerReply::Registered(registered) => registered.token,
            other => panic!("{other:?}"),
        }
    }

    fn expire(&mut self) {
        let due = |at: Instant| at <= self.now;
        while self.registry.poll_timeout().is_some_and(due) {
            self.registry.handle_timeout(self.now);
        }
    }

    fn own(&mut self, token: Token) {
        let entries = vec![OwnEntry {
            id: crate::ContentId::from_bytes([1; 32]),
            name: "name".parse().unwrap(),
            length: 1,
            state: OwnState::Complete,
        }];
        let reply = self.handle(&TrackerRequest::Own { token, entries });
        assert_eq!(reply, TrackerReply::Done);
    }

    fn need(&mut self, token: Token, max_owners: u16) -> Found {
        let key = crate::ContentId::from_bytes([1; 32]).into();
        let request = TrackerRequest::Need {
            token,
            key,
            max_owners,
        };
        match self.handle(&request) {
            TrackerReply::Found(found) => found,
            other => panic!("{other:?}"),
        }
    }

    fn update(&mut self, token: Token, owner: OwnerRef, bytes: u64) {
        let uploads = vec![Upload { owner, bytes }];
        let reply = self.handle(&TrackerRequest::Update { token, uploads });
        assert_eq!(reply, TrackerReply::Done);
    }

    /// This many owners, each on its own port, and a peer that asks for them.
    fn swarm(owners: u16) -> (Self, Vec<Token>, Token) {
        let mut world = Self::new(RegistryConfig {
            max_peers_per_host: u32::MAX,
            ..RegistryConfig::default()
        });
        let asker = world.register("10.0.0.1:9");
        let owners = (0..owners).map(|number| {
            let token = world.register(&format!("10.0.0.1:{}", 1000 + number));
            world.own(token);
            token
        });
        let owners = owners.collect();
        (world, owners, asker)
    }

    fn score(&self, owner: OwnerRef) -> f64 {
        let sessions = self.registry.handler.sessions.lock(0);
        let index = sessions.by_ref(owner).unwrap();
        sessions.score(index).into()
    }
}

#[test]
fn credited_owners_are_named_first_among_few_and_many() {
    for count in [10, 63, 64, 300] {
        let (mut world, _, asker) = World::swarm(count);
        let fast: Vec<OwnerRef> = world
            .need(asker, 3)
            .owners
            .iter()
            .map(|o| o.owner)
            .collect();
        for (owner, rate) in fast.iter().zip([1_000, 100_000, 10_000_000]) {
            world.wait(1);
            world.update(asker, *owner, rate);
            world.registry.check_invariants();
        }
        for _ in 0..50 {
            let found = world.need(asker, 4);
            let named: Vec<OwnerRef> = found.owners.iter().map(|o| o.owner).collect();
            assert_eq!(named.len(), 4);
            assert!(named[..3].iter().eq(fast.iter().rev()), "of {count}");
        }
        // Silence does not change the order, but a new upload does.
        world.wait(10);
        world.update(asker, fast[0], 100_000_000);
        assert_eq!(world.need(asker, 1).owners[0].owner, fast[0]);
        world.registry.check_invariants();
    }
}

#[test]
fn credit_is_bounded_by_what_can_have_been_received() {
    let (mut world, _, asker) = World::swarm(2);
    let found = world.need(asker, 2);
    let (honest, liar) = (found.owners[0].owner, found.owners[1].owner);
    world.wait(2);
    world.update(
        asker,
        honest,
        2 * world.registry.handler.settings.config.max_credit_rate,
    );
    let full = world.score(honest);
    world.wait(2);
    world.update(asker, liar, u64::MAX);
    let tenth_of_half_life = 0.1;
    assert!((world.score(liar) - full - tenth_of_half_life).abs() < 1e-4);
    // No time has passed, so nothing can have been received.
    world.update(asker, honest, u64::MAX);
    assert_eq!(world.score(honest), full);
    // A long silence counts as one lease.
    world.wait(15);
    let listen = Some("10.0.0.1:9".parse().unwrap());
    let token = Some(asker);
    world.handle(&TrackerRequest::Register { listen, token });
    world.wait(15);
    world.update(asker, liar, u64::MAX);
    let lease = world.registry.handler.settings.config.lease().as_secs_f64();
    let most = lease * world.registry.handler.settings.config.max_credit_rate as f64;
    let rate = (most * std::f64::consts::LN_2 / 20.0).log2() + 34.0 / 20.0;
    assert!((world.score(liar) - rate).abs() < 0.2);
}

#[test]
fn nobody_credits_itself() {
    let (mut world, owners, asker) = World::swarm(1);
    let owner = world.need(asker, 1).owners[0].owner;
    world.wait(1);
    world.update(owners[0], owner, 1000);
    assert_eq!(world.score(owner), f64::NEG_INFINITY);
    world.update(asker, owner, 1000);
    assert!(world.score(owner).is_finite());
}

#[test]
fn owner_is_not_named_after_its_lease_has_expired() {
    for count in [5, 100] {
        let (mut world, _, asker) = World::swarm(count);
        world.wait(15);
        let listen = Some("10.0.0.1:9".parse().unwrap());
        let token = Some(asker);
        world.handle(&TrackerRequest::Register { listen, token });
        assert!(!world.need(asker, 5).owners.is_empty());
        world.wait(8);
        world.expire();
        assert_eq!(world.registry.stats().peers, 1);
        let key = crate::ContentId::from_bytes([1; 32]).into();
        let need = TrackerRequest::Need {
            token: asker,
            key,
            max_owners: 5,
        };
        let unknown = TrackerReply::Refused(Refusal::UnknownContent);
        assert_eq!(world.handle(&need), unknown);
    }
}

/// How many leases end in one step at most.
const STEP: u64 = 128;

#[test]
fn many_leases_end_in_bounded_steps() {
    let (mut world, _, _) = World::swarm(5000);
    world.wait(60);
    let mut steps = 0;
    let mut before = world.registry.stats().peers;
    while let Some(at) = world.registry.poll_timeout() {
        assert!(at <= world.now);
        world.registry.handle_timeout(world.now);
        let after = world.registry.stats().peers;
        assert!(before - after <= STEP);
        (before, steps) = (after, steps + 1);
    }
    assert_eq!(before, 0);
    assert!(steps >= 5000 / STEP);
    world.registry.check_invariants();
}

#[test]
fn peer_that_stops_listening_is_unlisted_and_listed_again_later() {
    let (mut world, owners, asker) = World::swarm(100);
    for token in &owners {
        let token = Some(*token);
        world.handle(&TrackerRequest::Register {
            listen: None,
            token,
        });
        world.registry.check_invariants();
    }
    assert!(world.need(asker, 50).owners.is_empty());
    assert_eq!(world.registry.stats().ownerships, 100);
    let listen = Some("10.0.0.1:77".parse().unwrap());
    let token = Some(owners[3]);
    world.handle(&TrackerRequest::Register { listen, token });
    let found = world.need(asker, 50);
    assert_eq!(found.owners[0].addr.as_str(), "10.0.0.1:77");
    world.registry.check_invariants();
}

#[test]
fn registry_that_was_empty_for_long_forgets_on_time_again() {
    let mut world = World::new(RegistryConfig::default());
    world.register("10.0.0.1:1");
    world.wait(30 * 24 * 3600);
    world.registry.handle_timeout(world.now);
    assert_eq!(world.registry.poll_timeout(), None);
    world.wait(30 * 24 * 3600);
    world.register("10.0.0.1:2");
    let turn = world.registry.poll_timeout().unwrap();
    let late = turn - world.now - world.registry.handler.settings.config.lease();
    assert!(late <= Duration::from_millis(350), "{late:?}");
    world.registry.handle_timeout(turn);
    assert_eq!(world.registry.stats().peers, 0);
}

#[test]
fn peer_with_more_contents_than_one_step_ends_in_several() {
    let mut world = World::new(RegistryConfig::default());
    let token = world.register("10.0.0.1:1");
    for batch in 0..10_u8 {
        let entries = (0..100).map(|number| OwnEntry {
            id: crate::ContentId::of(&[batch, number]),
            name: "name".parse().unwrap(),
            length: 1,
            state: OwnState::Complete,
        });
        let entries = entries.collect();
        world.handle(&TrackerRequest::Own { token, entries });
    }
    // All of them are owned, though one host may use the name for a few only.
    assert_eq!(world.registry.stats().ownerships, 1000);
    for number in 0..1000_u32 {
        let entries = vec![OwnEntry {
            id: crate::ContentId::of(&number.to_le_bytes()),
            name: format!("name-{number}").parse().unwrap(),
            length: 1,
            state: OwnState::Complete,
        }];
        world.handle(&TrackerRequest::Own { token, entries });
    }
    world.wait(23);
    let mut before = world.registry.stats().ownerships;
    assert_eq!(before, 2000);
    while before > 0 {
        assert!(world.registry.poll_timeout().unwrap() <= world.now);
        world.registry.handle_timeout(world.now);
        let after = world.registry.stats().ownerships;
        assert!(after < before && before - after <= STEP, "{before} {after}");
        before = after;
    }
    assert_eq!(world.registry.stats().peers, 0);
    assert_eq!(world.registry.stats().expired, 1);
}

#[test]
fn reply_in_bytes_is_the_reply_as_a_value() {
    let mut rng = fastrand::Rng::with_seed(1);
    for owners in [0, 1, 5, 64, 65, 200] {
        let (mut one, tokens, asker) = World::swarm(owners);
        let (other, _, _) = World::swarm(owners);
        let mut requests = vec![
            TrackerRequest::Register {
                listen: Some("10.0.0.1:9".parse().unwrap()),
                token: Some(asker),
            },
            TrackerRequest::Register {
                listen: Some("[::]:9".parse().unwrap()),
                token: None,
            },
            TrackerRequest::Register {
                listen: Some("8.8.8.8:9".parse().unwrap()),
                token: None,
            },
            TrackerRequest::Exit {
                token: Token([9; 16]),
            },
        ];
        for token in tokens {
            let key: crate::ContentKey = match rng.u8(..3) {
                0 => crate::ContentId::from_bytes([1; 32]).into(),
                1 => crate::ContentName::try_from("name").unwrap().into(),
                _ => crate::ContentName::try_from("none").unwrap().into(),
            };
            let max_owners = rng.u16(..99);
            requests.push(TrackerRequest::Need {
                token,
                key,
                max_owners,
            });
        }
        for request in requests {
            let value = one.handle(&request);
            let mut bytes = vec![1, 2];
            let source = "10.0.0.1:1".parse().unwrap();
            let registry = &other.registry;
            let outcome = registry.handle_into(other.now, &source, &request, &mut bytes);
            let refused = matches!(value, TrackerReply::Refused(_));
            assert_eq!(outcome.is_err(), refused);
            assert_eq!(bytes[..2], [1, 2]);
            assert_eq!(bytes[2..], value.encode().unwrap().head[..]);
        }
    }
}

#[test]
fn owners_of_all_kinds_of_addresses_are_written_as_they_are_read() {
    let config = RegistryConfig {
        addresses: AddressRule::Any,
        max_peers_per_host: u32::MAX,
        ..RegistryConfig::default()
    };
    let (mut one, mut other) = (World::new(config.clone()), World::new(config));
    let mut asker = None;
    for number in 0..40 {
        for world in [&mut one, &mut other] {
            let token = world.register(&match number % 4 {
                0 => format!("10.0.0.{number}:{number}0"),
                1 => format!("memory:{number}"),
                2 => format!("[2001:db8::{number}]:{number}"),
                _ => format!("[::ffff:10.0.1.{number}]:7"),
            });
            world.own(token);
            asker = Some(token);
        }
    }
    for max_owners in 0..50 {
        let request = TrackerRequest::Need {
            token: asker.unwrap(),
            key: crate::ContentId::from_bytes([1; 32]).into(),
            max_owners,
        };
        let value = one.handle(&request);
        let mut bytes = Vec::new();
        let source = "10.0.0.1:1".parse().unwrap();
        let registry = &other.registry;
        let outcome = registry.handle_into(other.now, &source, &request, &mut bytes);
        assert_eq!(outcome, Ok(()));
        assert_eq!(bytes, value.encode().unwrap().head);
        let read = TrackerReply::decode(crate::protocol::Frame::head(bytes));
        assert_eq!(read, Ok(value));
    }
}
