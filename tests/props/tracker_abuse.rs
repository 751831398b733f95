//! What strangers, liars and crowds can and cannot do to a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bt_lite::protocol::{
    Found, Frame, OwnEntry, OwnState, OwnerRef, Refusal, Token, TrackerReply, TrackerRequest,
    Upload,
};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry, Snapshot};
use bt_lite::{Addr, ContentId};
use fastrand::Rng;

struct World {
    registry: ShardedRegistry,
    now: Instant,
}

fn id(number: u32) -> ContentId {
    ContentId::of(&number.to_le_bytes())
}

fn host(number: u32) -> Addr {
    let [_, a, b, c] = number.to_be_bytes();
    format!("10.{a}.{b}.{c}:7000").parse().unwrap()
}

impl World {
    fn new(config: RegistryConfig, epoch: u64) -> Self {
        let now = Instant::now();
        Self {
            registry: ShardedRegistry::new(config, [4; 32], epoch, 1, now),
            now,
        }
    }

    fn handle(&mut self, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        self.registry.handle(self.now, source, request)
    }

    fn register(&mut self, addr: &Addr) -> Token {
        let request = TrackerRequest::Register {
            listen: Some(addr.clone()),
            token: None,
        };
        match self.handle(addr, &request) {
            TrackerReply::Registered(registered) => registered.token,
            other => panic!("{other:?}"),
        }
    }

    fn own(&mut self, addr: &Addr, token: Token, number: u32) -> TrackerReply {
        let request = own(token, number, OwnState::Complete);
        self.handle(addr, &request)
    }

    fn need(&mut self, addr: &Addr, token: Token, number: u32, max_owners: u16) -> Found {
        let key = id(number).into();
        let request = TrackerRequest::Need {
            token,
            key,
            max_owners,
        };
        match self.handle(addr, &request) {
            TrackerReply::Found(found) => found,
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, addr: &Addr, token: Token, owner: OwnerRef, bytes: u64) {
        let uploads = vec![Upload::new(owner, bytes)];
        let request = TrackerRequest::Update { token, uploads };
        assert_eq!(self.handle(addr, &request), TrackerReply::Done);
    }
}

fn own(token: Token, number: u32, state: OwnState) -> TrackerRequest {
    TrackerRequest::Own {
        token,
        entries: vec![OwnEntry::new(
            id(number),
            format!("name-{number}").parse().unwrap(),
            1,
            state,
        )],
    }
}

/// What can be seen of the known peers: where each is listed, and in which order of
/// speed.
fn seen(world: &mut World, known: &[(Addr, Token)]) -> Vec<(u32, Vec<(Addr, bool)>)> {
    let addrs: BTreeSet<&Addr> = known.iter().map(|(addr, _)| addr).collect();
    let (addr, token) = &known[0];
    let contents = 0..4;
    let listed = contents.map(|number| {
        let found = world.need(addr, *token, number, 50);
        let owners = found.owners.into_iter();
        let mut owners: Vec<_> = owners
            .filter(|owner| addrs.contains(&owner.addr))
            .map(|owner| (owner.addr, owner.complete))
            .collect();
        owners.sort();
        (number, owners)
    });
    listed.collect()
}

/// A message that claims to be from another peer.
fn forged(rng: &mut Rng, known: &[(Addr, Token)], gone: &[Token]) -> Frame {
    let one = known[rng.usize(..known.len())].1;
    let other = known[rng.usize(..known.len())].1;
    let mut token = one;
    match rng.u8(..5) {
        0 => token.0[rng.usize(..16)] ^= 1 << rng.u8(..8),
        1 => {
            let from = rng.usize(..16);
            rng.fill(&mut token.0[from..]);
        }
        // The number of one peer with the proof of another.
        2 => token.0[8..].copy_from_slice(&other.0[8..]),
        3 => token.0[..4].copy_from_slice(&other.0[..4]),
        _ => token = gone[rng.usize(..gone.len())],
    }
    let number = rng.u32(..5);
    let request = match rng.u8(..6) {
        0 => TrackerRequest::Register {
            listen: Some(known[rng.usize(..known.len())].0.clone()),
            token: Some(token),
        },
        1 => own(token, number, OwnState::Gone),
        2 => own(token, number, OwnState::Partial),
        3 => TrackerRequest::Update {
            token,
            uploads: vec![Upload::new(OwnerRef(rng.u64(..)), rng.u64(..))],
        },
        4 => TrackerRequest::Need {
            token,
            key: id(number).into(),
            max_owners: 50,
        },
        _ => TrackerRequest::Exit { token },
    };
    let frame = request.encode().unwrap();
    let mut head = frame.head.to_vec();
    match rng.u8(..6) {
        0 => head.truncate(rng.usize(..head.len())),
        1 => head.extend((0..rng.usize(1..9)).map(|_| rng.u8(..))),
        2 | 3 => {
            for _ in 0..rng.usize(1..4) {
                head[rng.usize(..frame.head.len())] ^= 1 << rng.u8(..8);
            }
        }
        _ => {}
    }
    Frame::head(head)
}

/// The token that a request carries.
fn token_of(request: &TrackerRequest) -> Option<Token> {
    match request {
        TrackerRequest::Register { token, .. } => *token,
        TrackerRequest::Own { token, .. }
        | TrackerRequest::Need { token, .. }
        | TrackerRequest::Update { token, .. }
        | TrackerRequest::Exit { token } => Some(*token),
        _ => None,
    }
}

/// `FORGERIES=1000000 cargo test --release --test props forged` for a million.
#[test]
fn forged_messages_change_nothing_of_known_peers() {
    let count = std::env::var("FORGERIES").map_or(20_000, |count| count.parse().unwrap());
    let mut rng = Rng::with_seed(11);
    // Tokens of an earlier start with the same key are replayed as well.
    let mut earlier = World::new(RegistryConfig::default(), 1);
    let mut gone: Vec<Token> = (0..20).map(|n| earlier.register(&host(n))).collect();
    let mut config = RegistryConfig::default();
    config.max_peers_per_host = 8;
    let mut world = World::new(config, 2);
    let known: Vec<(Addr, Token)> = (0..24)
        .map(|number| {
            let addr = host(number);
            let token = world.register(&addr);
            assert_eq!(world.own(&addr, token, number % 4), TrackerReply::Done);
            (addr, token)
        })
        .collect();
    for number in 100..110 {
        let token = world.register(&host(number));
        world.handle(&host(number), &TrackerRequest::Exit { token });
        gone.push(token);
    }
    let before = seen(&mut world, &known);
    assert!(before.iter().all(|(_, owners)| owners.len() >= 5));
    let attacker: Addr = "192.0.2.66:9".parse().unwrap();
    let (mut handled, mut intruders) = (0, 0);
    for round in 0..count {
        let frame = forged(&mut rng, &known, &gone);
        let Ok(request) = TrackerRequest::decode(frame) else {
            continue;
        };
        let token = token_of(&request);
        if known.iter().any(|(_, real)| Some(*real) == token) {
            // By chance it is not forged.
            continue;
        }
        handled += 1;
        let reply = world.handle(&attacker, &request);
        // REGISTER without a valid token registers a new peer of the attacker, which
        // must listen on the attacker's host, if at all.
        match (&request, reply) {
            (TrackerRequest::Register { listen: None, .. }, TrackerReply::Registered(new)) => {
                assert!(known.iter().all(|(_, real)| *real != new.token));
                intruders += 1;
            }
            (
                TrackerRequest::Register { .. },
                TrackerReply::Refused(
                    Refusal::ForeignAddress { .. } | Refusal::PeersPerHost { .. },
                ),
            ) => {}
            (TrackerRequest::Register { .. }, reply) => panic!("{request:?}: {reply:?}"),
            (_, reply) => assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken)),
        }
        if round % 1000 == 0 {
            assert_eq!(seen(&mut world, &known), before);
            world.registry.check_invariants();
        }
    }
    assert!(handled > count / 3, "{handled} of {count} could be read");
    assert_eq!(seen(&mut world, &known), before);
    assert!(intruders <= 8);
    assert_eq!(world.registry.stats().peers, 24 + intruders);
    assert_eq!(world.registry.stats().ownerships, 24);
    for (addr, token) in &known {
        let request = TrackerRequest::Register {
            listen: Some(addr.clone()),
            token: Some(*token),
        };
        let TrackerReply::Registered(registered) = world.handle(addr, &request) else {
            panic!("a heartbeat is refused");
        };
        assert_eq!(registered.token, *token);
    }
}

#[test]
fn quotas_hold_back_the_attacker_alone() {
    let mut config = RegistryConfig::default();
    config.max_peers_per_host = 8;
    config.max_contents_per_peer = 10;
    let mut world = World::new(config, 1);
    let (victim, attacker) = (host(1), "192.0.2.66:9".parse::<Addr>().unwrap());
    let token = world.register(&victim);
    assert_eq!(world.own(&victim, token, 1), TrackerReply::Done);
    let mut refused = BTreeMap::<String, u32>::new();
    let mut tokens = Vec::new();
    for _ in 0..1000 {
        let request = TrackerRequest::Register {
            listen: None,
            token: None,
        };
        match world.handle(&attacker, &request) {
            TrackerReply::Registered(registered) => tokens.push(registered.token),
            TrackerReply::Refused(refusal) => *refused.entry(refusal.to_string()).or_default() += 1,
            other => panic!("{other:?}"),
        }
    }
    for (at, token) in (0..).zip(&tokens) {
        for number in 0..100 {
            world.own(&attacker, *token, 100 * at + number);
        }
    }
    assert_eq!(tokens.len(), 8);
    assert_eq!(refused.values().sum::<u32>(), 992);
    let stats = world.registry.stats();
    assert_eq!((stats.peers, stats.refusals.peers_per_host), (9, 992));
    assert_eq!(stats.refusals.contents_per_peer, 8 * 90);
    // The victim and later peers notice nothing.
    assert_eq!(world.own(&victim, token, 5000), TrackerReply::Done);
    let other = world.register(&host(2));
    let found = world.need(&host(2), other, 1, 50);
    assert_eq!(found.owners.len(), 1);
    assert_eq!(found.owners[0].addr, victim);
}

/// A liar's report counts for at most what one peer can have received
/// (`max_credit_rate`) since its last report. So an owner that a liar praises all
/// the time gets at most that rate, and does not overtake one that really uploads
/// as much. Once the liar stops, its owner falls behind an honest one with a 2^n-th
/// of that rate within n half-lives.
#[test]
fn liar_moves_an_owner_by_a_bounded_amount() {
    let mut config = RegistryConfig::default();
    config.max_credit_rate = 1 << 20;
    config.random_percent = 0;
    let half_life = config.half_life;
    let mut world = World::new(config, 1);
    let peers: Vec<(Addr, Token)> = (0..4)
        .map(|n| (host(n), world.register(&host(n))))
        .collect();
    let [praised, honest, liar, receiver] = [0, 1, 2, 3].map(|n: usize| peers[n].clone());
    for (addr, token) in &peers[..2] {
        assert_eq!(world.own(addr, *token, 1), TrackerReply::Done);
    }
    let refs = |world: &mut World| -> BTreeMap<Addr, OwnerRef> {
        let found = world.need(&liar.0, liar.1, 1, 9);
        let owners = found.owners.into_iter();
        owners.map(|owner| (owner.addr, owner.owner)).collect()
    };
    let refs = refs(&mut world);
    let rates = |world: &mut World| -> BTreeMap<Addr, u64> {
        let credits = world.registry.snapshot(world.now).credits.into_iter();
        credits.map(|c| (c.addr, c.bytes_per_second)).collect()
    };
    for second in 0..200 {
        world.now += Duration::from_secs(1);
        for (addr, token) in &peers {
            let request = TrackerRequest::Register {
                listen: Some(addr.clone()),
                token: Some(*token),
            };
            world.handle(addr, &request);
        }
        // One lie per second has the same effect as many at once.
        for _ in 0..1 + second % 3 {
            world.report(&liar.0, liar.1, refs[&praised.0], u64::MAX);
        }
        // The honest one uploads a sixteenth of the limit.
        world.report(&receiver.0, receiver.1, refs[&honest.0], 1 << 16);
    }
    let now = rates(&mut world);
    let lied = now[&praised.0] as f64 / (1u64 << 20) as f64;
    assert!((0.9..=1.05).contains(&lied), "{lied} of the limit");
    // Five half-lives later, the praise is worth a 32nd of it.
    let mut passed = Duration::ZERO;
    while passed < 5 * half_life {
        world.now += Duration::from_secs(1);
        passed += Duration::from_secs(1);
        for (addr, token) in &peers {
            let request = TrackerRequest::Register {
                listen: Some(addr.clone()),
                token: Some(*token),
            };
            world.handle(addr, &request);
        }
        world.report(&receiver.0, receiver.1, refs[&honest.0], 1 << 16);
    }
    let now = rates(&mut world);
    assert!(now[&praised.0] < now[&honest.0], "{now:?}");
    let first = world.need(&liar.0, liar.1, 1, 1).owners[0].addr.clone();
    assert_eq!(first, honest.0);
}

/// `cargo test --test props thousand_askers -- --nocapture` prints the shares.
#[test]
fn thousand_askers_in_a_second_spread_over_the_owners() {
    for (owners, credited) in [(50, 0), (200, 0), (200, 20), (1000, 20)] {
        let k = 16;
        let mut world = World::new(RegistryConfig::default(), 1);
        let all: Vec<(Addr, Token)> = (0..owners)
            .map(|n| (host(n), world.register(&host(n))))
            .collect();
        for (addr, token) in &all {
            assert_eq!(world.own(addr, *token, 1), TrackerReply::Done);
        }
        world.now += Duration::from_secs(1);
        // The fast owners are all on one level of speed.
        let found = world.need(&all[0].0, all[0].1, 1, 50).owners;
        let fast: Vec<OwnerRef> = found.iter().take(credited).map(|o| o.owner).collect();
        let uploads = fast.into_iter().map(|owner| {
            let bytes = 10_000_000;
            Upload::new(owner, bytes)
        });
        let report = TrackerRequest::Update {
            token: all[0].1,
            uploads: uploads.collect(),
        };
        assert_eq!(world.handle(&all[0].0, &report), TrackerReply::Done);
        let mut named = BTreeMap::<OwnerRef, u32>::new();
        for number in 0..1000 {
            world.now += Duration::from_millis(1);
            let asker = host(100_000 + number);
            let token = world.register(&asker);
            for owner in world.need(&asker, token, 1, k).owners {
                *named.entry(owner.owner).or_default() += 1;
            }
        }
        let total: u32 = named.values().sum();
        assert_eq!(total, 1000 * u32::from(k));
        let share = |count: u32| f64::from(count) / f64::from(total) * 100.0;
        let mut counts: Vec<u32> = named.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let at = |part: usize| share(counts[(counts.len() - 1) * part / 4]);
        println!(
            "{owners} owners, {credited} of them fast, 1000 askers, K = {k}: {} are named; \
             shares in percent: most {:.2}, quarters {:.2} {:.2} {:.2}, least {:.2}",
            counts.len(),
            at(0),
            at(1),
            at(2),
            at(3),
            at(4)
        );
        // Of equal owners none is named more than twice as often as the average. The
        // fast ones share their three quarters of the places in the same way.
        let equal = if credited == 0 {
            100.0 / f64::from(owners)
        } else {
            75.0 / credited as f64 + 25.0 / f64::from(owners)
        };
        assert!(at(0) < 2.0 * equal, "{} percent, not {equal}", at(0));
        // All owners are named sometimes.
        let chances = if credited == 0 { 1.0 } else { 0.95 };
        assert!(counts.len() as f64 >= chances * f64::from(owners));
    }
}

#[test]
fn restart_keeps_the_ranking_and_the_names() {
    let mut config = RegistryConfig::default();
    config.random_percent = 0;
    let mut first = World::new(config.clone(), 1);
    let owners: Vec<(Addr, Token)> = (0..6)
        .map(|n| (host(n), first.register(&host(n))))
        .collect();
    for (addr, token) in &owners {
        assert_eq!(first.own(addr, *token, 1), TrackerReply::Done);
    }
    let asker = (host(99), first.register(&host(99)));
    first.now += Duration::from_secs(5);
    let found = first.need(&asker.0, asker.1, 1, 9).owners;
    for (at, owner) in (1..).zip(&found) {
        first.now += Duration::from_secs(1);
        first.report(&asker.0, asker.1, owner.owner, 1000 << (2 * at));
    }
    let order = |world: &mut World, asker: &(Addr, Token)| -> Vec<Addr> {
        let found = world.need(&asker.0, asker.1, 1, 9).owners;
        found.into_iter().map(|owner| owner.addr).collect()
    };
    let before = order(&mut first, &asker);
    let saved = serde_json::to_string_pretty(&first.registry.snapshot(first.now)).unwrap();
    assert!(saved.contains("\"addr\": \"10.0.0."), "{saved}");
    assert!(saved.contains("\"name-1\""), "{saved}");
    assert!(saved.contains(&id(1).to_string()), "{saved}");

    let mut second = World::new(config, 2);
    let snapshot: Snapshot = serde_json::from_str(&saved).unwrap();
    second.registry.restore(second.now, &snapshot);
    assert_eq!(second.registry.snapshot(second.now), snapshot);
    // The content is known by name before any owner is back.
    let asker = (host(99), second.register(&host(99)));
    let request = TrackerRequest::Need {
        token: asker.1,
        key: bt_lite::ContentName::try_from("name-1").unwrap().into(),
        max_owners: 9,
    };
    let TrackerReply::Found(found) = second.handle(&asker.0, &request) else {
        panic!("it is not known");
    };
    assert_eq!((found.id, found.owners.len()), (id(1), 0));
    // Tokens of the earlier start are invalid, and peers return in another order.
    let old = second.own(&owners[0].0, owners[0].1, 1);
    assert_eq!(old, TrackerReply::Refused(Refusal::UnknownToken));
    for number in [3, 5, 1, 0, 2, 4] {
        let addr = host(number);
        let token = second.register(&addr);
        assert_eq!(second.own(&addr, token, 1), TrackerReply::Done);
    }
    assert_eq!(order(&mut second, &asker), before);
    second.registry.check_invariants();
    // What no peer has come back for is forgotten in time.
    let mut third = World::new(RegistryConfig::default(), 3);
    third.registry.restore(third.now, &snapshot);
    third.now += 11 * RegistryConfig::default().lease();
    let token = third.register(&host(0));
    let gone = third.handle(
        &host(0),
        &TrackerRequest::Need {
            token,
            key: id(1).into(),
            max_owners: 1,
        },
    );
    assert_eq!(gone, TrackerReply::Refused(Refusal::UnknownContent));
    assert!(third.registry.snapshot(third.now).contents.is_empty());
}

#[test]
fn invalid_snapshot_is_refused() {
    for bad in [
        r#"{"credits": [{"addr": "no address", "bytes_per_second": 1}]}"#,
        r#"{"contents": [{"id": "abc", "length": 1, "names": ["a"]}]}"#,
        r#"{"contents": [{"id": "ID", "length": 1, "names": ["a/b"]}]}"#,
    ] {
        let bad = bad.replace("ID", &id(1).to_string());
        assert!(serde_json::from_str::<Snapshot>(&bad).is_err(), "{bad}");
    }
    let empty: Snapshot = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, Snapshot::default());
}

#[test]
fn snapshot_gives_no_more_credit_than_anybody_can_have() {
    let mut config = RegistryConfig::default();
    config.max_credit_rate = 1000;
    let world = World::new(config, 1);
    let credit = |rate: u64| format!(r#"{{"addr": "10.0.0.1:7000", "bytes_per_second": {rate}}}"#);
    for (rate, kept) in [(u64::MAX, Some(1000)), (1000, Some(1000)), (0, None)] {
        let text = format!(r#"{{"credits": [{}]}}"#, credit(rate));
        let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
        world.registry.restore(world.now, &snapshot);
        let credits = world.registry.snapshot(world.now).credits;
        let found = credits.first().map(|credit| credit.bytes_per_second);
        assert_eq!(found, kept, "{rate}");
    }
}
