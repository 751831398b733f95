//! What a stranger that keeps to the protocol cannot take from others: names,
//! places, time, and credit. And that no figure of a configuration breaks it.

use std::time::{Duration, Instant};

use bt_lite::protocol::{
    ContentKey, Found, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry, Token, TrackerReply,
    TrackerRequest, Upload,
};
use bt_lite::tracker::registry::Registry;
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
use bt_lite::{Addr, ContentId};

/// A peer as itself sees it.
#[derive(Clone)]
struct Peer {
    addr: Addr,
    token: Token,
}

struct World {
    registry: Registry,
    now: Instant,
}

fn id(number: u32) -> ContentId {
    ContentId::of(&number.to_le_bytes())
}

fn addr(host: u8, port: u16) -> Addr {
    format!("10.0.0.{host}:{port}").parse().unwrap()
}

fn entry(number: u32, name: &str) -> OwnEntry {
    OwnEntry {
        id: id(number),
        name: name.parse().unwrap(),
        length: 1,
        state: OwnState::Complete,
    }
}

/// How many entries one OWN has.
const BATCH: u32 = 100;

impl World {
    fn new(config: RegistryConfig) -> Self {
        Self {
            registry: Registry::new(config, [4; 32], 1),
            now: Instant::now(),
        }
    }

    fn handle(&mut self, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        self.registry.handle(self.now, source, request)
    }

    fn register(&mut self, host: u8, port: u16) -> Peer {
        let addr = addr(host, port);
        let request = TrackerRequest::Register {
            listen: Some(addr.clone()),
            token: None,
        };
        match self.handle(&addr, &request) {
            TrackerReply::Registered(registered) => Peer {
                addr,
                token: registered.token,
            },
            other => panic!("{other:?}"),
        }
    }

    /// A heartbeat, from here on at this port.
    fn heartbeat(&mut self, peer: &Peer, port: u16) {
        let listen = format!("0.0.0.0:{port}").parse().unwrap();
        let request = TrackerRequest::Register {
            listen: Some(listen),
            token: Some(peer.token),
        };
        let reply = self.handle(&peer.addr, &request);
        assert!(matches!(reply, TrackerReply::Registered(r) if r.token == peer.token));
    }

    fn own_all(&mut self, peer: &Peer, entries: Vec<OwnEntry>) -> Vec<RefusedEntry> {
        let token = peer.token;
        match self.handle(&peer.addr, &TrackerRequest::Own { token, entries }) {
            TrackerReply::Done => Vec::new(),
            TrackerReply::Partly(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    fn own(&mut self, peer: &Peer, number: u32, name: &str) -> Result<(), Refusal> {
        let refused = self.own_all(peer, vec![entry(number, name)]);
        refused
            .into_iter()
            .next()
            .map_or(Ok(()), |refused| Err(refused.refusal))
    }

    /// Contents by names of their own; returns how many were taken.
    fn own_many(&mut self, peer: &Peer, numbers: std::ops::Range<u32>) -> u32 {
        let mut taken = 0;
        let numbers: Vec<u32> = numbers.collect();
        for batch in numbers.chunks(BATCH as usize) {
            let entries = batch.iter().map(|n| entry(*n, &format!("name-{n}")));
            let refused = self.own_all(peer, entries.collect());
            taken += (batch.len() - refused.len()) as u32;
        }
        taken
    }

    fn need(&mut self, peer: &Peer, key: ContentKey) -> TrackerReply {
        let request = TrackerRequest::Need {
            token: peer.token,
            key,
            max_owners: 50,
        };
        self.handle(&peer.addr, &request)
    }

    fn found(&mut self, peer: &Peer, number: u32) -> Found {
        match self.need(peer, id(number).into()) {
            TrackerReply::Found(found) => found,
            other => panic!("{other:?}"),
        }
    }

    /// The contents of a name.
    fn named(&mut self, peer: &Peer, name: &str) -> Vec<ContentId> {
        let key = ContentKey::Name(name.parse().unwrap());
        match self.need(peer, key) {
            TrackerReply::Found(found) => vec![found.id],
            TrackerReply::Ambiguous(contents) => contents.into_iter().map(|(id, _)| id).collect(),
            TrackerReply::Refused(Refusal::UnknownContent) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    fn owner_ref(&mut self, asker: &Peer, number: u32, owner: &Peer) -> OwnerRef {
        let owners = self.found(asker, number).owners;
        let owner = owners.into_iter().find(|listed| listed.addr == owner.addr);
        owner.expect("it is listed").owner
    }

    fn report(&mut self, peer: &Peer, owner: OwnerRef, bytes: u64) {
        let uploads = vec![Upload { owner, bytes }];
        let token = peer.token;
        let reply = self.handle(&peer.addr, &TrackerRequest::Update { token, uploads });
        assert_eq!(reply, TrackerReply::Done);
    }

    /// Does whatever is due, each step of it bounded.
    fn catch_up(&mut self) {
        while self
            .registry
            .poll_timeout()
            .is_some_and(|at| at <= self.now)
        {
            let before = self.registry.steps();
            self.registry.handle_timeout(self.now);
            assert!(self.registry.steps() - before <= STEP);
        }
    }

    fn exit(&mut self, peer: &Peer) {
        let token = peer.token;
        let reply = self.handle(&peer.addr, &TrackerRequest::Exit { token });
        assert_eq!(reply, TrackerReply::Done);
    }
}

#[test]
fn name_that_one_host_took_for_made_up_contents_is_the_honest_owners_too() {
    let mut world = World::new(RegistryConfig::default());
    // With one peer, and with as many as one host may have.
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
fn two_hosts_that_took_all_places_of_a_name_share_them_with_whoever_comes() {
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
fn id_to_which_one_host_gave_all_names_gets_the_honest_one() {
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
    // And of two hosts that have all of them.
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
fn content_is_found_by_its_id_though_its_name_finds_no_place() {
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
    assert_eq!(refused, [RefusedEntry { at: 1, refusal }]);
    for (number, name) in [(2, "other"), (3, &*id(3).to_string()), (4, "more")] {
        let found = world.found(&asker, number);
        assert_eq!(found.owners[0].addr, honest.addr);
        assert_eq!(found.name.as_str(), name);
    }
    // A name that finds no place leaves the one before, and what else was said.
    let mut again = entry(2, "name");
    (again.length, again.state) = (77, OwnState::Complete);
    assert_eq!(world.own_all(&honest, vec![again]).len(), 1);
    let found = world.found(&asker, 2);
    assert_eq!((found.name.as_str(), found.length), ("other", 77));
    // Once there is a place, it is there for whoever asks again.
    world.exit(&first);
    assert_eq!(world.own(&honest, 3, "name"), Ok(()));
    assert_eq!(world.named(&asker, "name"), [id(3)]);
    // Another name takes the place of the one that a peer had.
    assert_eq!(world.own(&honest, 3, "new"), Ok(()));
    assert_eq!(world.named(&asker, "name"), []);
    assert_eq!(world.named(&asker, "new"), [id(3)]);
    world.registry.check_invariants();
}

#[test]
fn name_that_others_fetched_by_gives_way_to_nobody() {
    let mut config = RegistryConfig::default();
    config.max_contents_per_name = 3;
    for fetched in [false, true] {
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
        if fetched {
            world.now += Duration::from_secs(1);
            let owner = world.owner_ref(&other, 1, &one);
            world.report(&other, owner, 1000);
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
    // One host each: the one that was there first.
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
    // And what is kept names it first.
    assert_eq!(
        world.registry.snapshot(world.now).contents[0].names[0].as_str(),
        "true"
    );
    world.registry.check_invariants();
}

/// The default limits, a hundredth of each.
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
    // Peers of other hosts find place for all that one may have.
    for host in 2..10 {
        let honest = world.register(host, 7);
        let from = u32::from(host) * 1000;
        assert_eq!(world.own_many(&honest, from..from + per_peer), per_peer);
    }
    assert_eq!(world.registry.stats().refusals.contents, 0);
    // Of what others own, the host may still own more, up to a bound of its own.
    let taken: u32 = greedy
        .iter()
        .map(|peer| world.own_many(peer, 2000..2500))
        .sum();
    assert_eq!(taken, 10_000 - 1000);
    assert!(world.registry.stats().refusals.ownerships_per_host > 0);
    world.registry.check_invariants();
    // What is given back can be taken again.
    for peer in &greedy {
        world.exit(peer);
    }
    world.catch_up();
    let again = world.register(1, 1000);
    assert_eq!(world.own_many(&again, 50_000..51_000), per_peer);
    world.registry.check_invariants();
}

#[test]
fn one_host_cannot_take_all_ownerships_and_there_are_no_more_than_the_total() {
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

/// How many ownerships one step of expiry touches at the most.
const STEP: u64 = 128;

/// How many one request touches that is no OWN or EXIT, for each peer in it.
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
    // Where it stays, it is found in the end, in all that it owns.
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
fn speed_of_who_owns_much_is_seen_to_in_bounded_steps() {
    let mut world = World::new(RegistryConfig::default());
    let (fast, asker) = (world.register(1, 1), world.register(2, 7));
    let slow: Vec<Peer> = (0..30).map(|n| world.register(3, 1000 + n)).collect();
    for peer in slow.iter().chain([&fast]) {
        world.own_many(peer, 0..100);
    }
    world.own_many(&fast, 100..MANY);
    let owner = world.owner_ref(&asker, 200, &fast);
    let begun = world.registry.steps();
    // Twice as much each time, which is another level each time.
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
fn exit_of_who_owns_much_is_done_in_bounded_steps_and_counts_at_once() {
    let mut world = World::new(RegistryConfig::default());
    let (leaver, asker) = (world.register(1, 1), world.register(2, 7));
    assert_eq!(world.own_many(&leaver, 0..MANY), MANY);
    let before = world.registry.steps();
    world.exit(&leaver);
    assert!(world.registry.steps() - before <= STEP);
    world.registry.check_invariants();
    // The token is worth nothing from here on.
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
    // Whoever has got hold of the token.
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

/// `max_credit_rate` bounds what all peers of one host can move together, and
/// others are heard beside them.
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
        // Who leaves and comes again has received nothing more.
        for liar in &liars {
            world.exit(liar);
        }
        lied
    });
    for lied in rates {
        assert!((0.9..1.1).contains(&lied), "{lied} of the bound");
    }
}

type Set = fn(&mut RegistryConfig, u64);

fn duration(extreme: u64) -> Duration {
    match extreme {
        u64::MAX => Duration::MAX,
        seconds => Duration::from_secs(seconds),
    }
}

#[test]
fn no_figure_of_a_registry_breaks_it() {
    let fields: [(&str, Set); 18] = [
        ("heartbeat", |c, x| c.heartbeat = duration(x)),
        ("grace", |c, x| c.grace = duration(x)),
        ("max_owners", |c, x| c.max_owners = x as u16),
        ("random_percent", |c, x| c.random_percent = x as u8),
        ("half_life", |c, x| c.half_life = duration(x)),
        ("max_credit_rate", |c, x| c.max_credit_rate = x),
        ("max_peers", |c, x| c.max_peers = x as u32),
        ("max_peers_per_host", |c, x| c.max_peers_per_host = x as u32),
        ("max_contents", |c, x| c.max_contents = x as u32),
        ("max_contents_per_peer", |c, x| {
            c.max_contents_per_peer = x as u32
        }),
        ("max_contents_per_host", |c, x| {
            c.max_contents_per_host = x as u32
        }),
        ("max_ownerships_per_host", |c, x| {
            c.max_ownerships_per_host = x as u32
        }),
        ("max_ownerships", |c, x| c.max_ownerships = x as u32),
        ("max_owners_per_content", |c, x| {
            c.max_owners_per_content = x as u32
        }),
        ("max_names_per_content", |c, x| {
            c.max_names_per_content = x as u8
        }),
        ("max_contents_per_name", |c, x| {
            c.max_contents_per_name = x as u32
        }),
        ("heartbeat and grace", |c, x| {
            (c.heartbeat, c.grace) = (duration(x), duration(x));
        }),
        ("all", |c, x| {
            (c.heartbeat, c.grace, c.half_life) = (duration(x), duration(x), duration(x));
            (c.max_credit_rate, c.max_owners) = (x, x as u16);
        }),
    ];
    for (field, set) in fields {
        for extreme in [0, 1, u64::MAX] {
            let mut config = RegistryConfig::default();
            set(&mut config, extreme);
            println!("{field} {extreme}");
            survives(&config);
        }
    }
}

/// A bit of everything, which must come to an answer that can be encoded.
fn survives(config: &RegistryConfig) {
    let start = Instant::now();
    let one = std::cell::RefCell::new(Registry::new(config.clone(), [1; 32], 1));
    let sharded = ShardedRegistry::new(config.clone(), [1; 32], 1, 8, start);
    let mut tokens = Vec::new();
    for step in 0..40_u32 {
        let now = start + Duration::from_secs(5 * u64::from(step));
        let source = addr(1 + (step % 3) as u8, 1000 + step as u16);
        let mut requests = vec![TrackerRequest::Register {
            listen: Some(source.clone()),
            token: None,
        }];
        for &token in &tokens {
            let entries = (0..12).map(|n| entry(n + step % 4, &format!("name-{}", n % 3)));
            let entries = entries.collect();
            requests.push(TrackerRequest::Own { token, entries });
            let key = id(step % 12).into();
            requests.push(TrackerRequest::Need {
                token,
                key,
                max_owners: u16::MAX,
            });
            let uploads = (0..3).map(|n| Upload {
                owner: OwnerRef(n),
                bytes: u64::MAX,
            });
            let uploads = uploads.collect();
            requests.push(TrackerRequest::Update { token, uploads });
        }
        if step % 7 == 6
            && let Some(token) = tokens.pop()
        {
            requests.push(TrackerRequest::Exit { token });
        }
        for request in requests {
            let reply = one.borrow_mut().handle(now, &source, &request);
            reply.encode().unwrap();
            if let TrackerReply::Registered(registered) = reply {
                tokens.push(registered.token);
            }
            sharded.handle(now, &source, &request).encode().unwrap();
        }
        for _ in 0..100 {
            one.borrow_mut().handle_timeout(now);
            sharded.handle_timeout(now);
        }
        let turns = (one.borrow().poll_timeout(), sharded.poll_timeout());
        assert!([turns.0, turns.1].iter().flatten().all(|turn| *turn > now));
        one.borrow().check_invariants();
        sharded.check_invariants();
        let snapshot = one.borrow_mut().snapshot(now);
        let mut again = Registry::new(config.clone(), [2; 32], 2);
        again.restore(now, &snapshot);
        again.snapshot(now);
    }
}
