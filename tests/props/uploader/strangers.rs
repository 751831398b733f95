//! Strangers at one uploader over virtual minutes: who gives, who does not, and what each
//! gets.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::LinkId;
use bt_lite::testing::machine::{Turn, UploadLimits, Uploader};
use proptest::prelude::*;

use super::script::{block, host};

const BLOCK: u64 = 16 << 10;
const CHUNK: u64 = 256 << 10;
/// Bytes that the uplink sends in a second.
const UPLINK: f64 = 250e3;
const SLOTS: usize = 4;
/// How many requests a client has waiting.
const PIPELINE: usize = 16;

const MINUTE: Duration = Duration::from_secs(60);

/// A client that wants everything.
#[derive(Debug, Default)]
struct Client {
    /// Bytes that it gives in a second.
    gives: f64,
    /// What of that has not made a block yet.
    gathered: f64,
    /// It speaks the protocol of this crate.
    is_own: bool,
    asks: bool,
    waiting: usize,
    got: u64,
    /// Since when it may ask.
    turn: Option<Instant>,
    /// When it could ask for the last time, or since when it waits.
    waits_since: Option<Instant>,
    longest_wait: Duration,
    shortest_turn: Option<Duration>,
}

struct World {
    now: Instant,
    uploader: Uploader,
    clients: BTreeMap<u64, Client>,
    uplink: VecDeque<(u64, u64)>,
}

impl World {
    fn new() -> Self {
        let limits = UploadLimits::new(4 << 20, 500, 3).strangers(SLOTS, 1);
        let mut uploader = Uploader::new(limits, 1);
        uploader.set_lengths(BLOCK, CHUNK);
        Self {
            now: Instant::now(),
            uploader,
            clients: BTreeMap::new(),
            uplink: VecDeque::new(),
        }
    }

    /// Clients that give so much each, from a host of their own. Returns their links.
    fn join(&mut self, gives: &[f64]) -> Vec<u64> {
        let links = gives.iter().map(|gives| {
            let link = self.clients.len() as u64 + 1;
            self.join_from(link, *gives, &format!("host{link}"));
            link
        });
        links.collect()
    }

    fn join_from(&mut self, link: u64, gives: f64, from: &str) {
        let client = Client {
            gives,
            asks: true,
            waits_since: Some(self.now),
            ..Client::default()
        };
        self.clients.insert(link, client);
        self.uploader.stranger_added(LinkId(link), &host(from));
        self.uploader.link_has(LinkId(link), 1, 1000);
        self.settle();
        assert!(
            self.clients[&link].turn.is_none(),
            "it has not said that it wants anything"
        );
        self.uploader.link_declined(LinkId(link), false);
        self.settle();
    }

    fn leaves(&mut self, link: u64) {
        self.clients.remove(&link);
        self.uplink.retain(|(other, _)| *other != link);
        self.uploader.link_removed(self.now, LinkId(link));
        self.settle();
    }

    /// Takes all turns, asks for what may be asked for, and fills the uplink.
    fn settle(&mut self) {
        loop {
            while let Some(turn) = self.uploader.next_turn(self.now) {
                self.take(turn);
            }
            self.uploader.check_invariants();
            let clients = self.clients.values().filter(|client| !client.is_own);
            let turns = clients.filter(|client| client.turn.is_some());
            assert!(turns.count() <= SLOTS);
            for (link, client) in &mut self.clients {
                while client.asks && client.turn.is_some() && client.waiting < PIPELINE {
                    let asked = block(BLOCK as u32);
                    assert!(self.uploader.requested(LinkId(*link), asked));
                    client.waiting += 1;
                }
            }
            let Some((link, block)) = self.uploader.next_block(self.now) else {
                return;
            };
            self.uplink.push_back((link.0, block.len.into()));
        }
    }

    fn take(&mut self, turn: Turn) {
        let now = self.now;
        match turn {
            Turn::Choke { link, rejected } => {
                let client = self.clients.get_mut(&link.0).expect("it is there");
                client.waiting -= rejected.len();
                client.waits_since = Some(now);
                let turn = now - client.turn.take().expect("it had its turn");
                let shortest = client.shortest_turn.into_iter().chain([turn]).min();
                client.shortest_turn = shortest;
            }
            Turn::Unchoke { link } => {
                let client = self.clients.get_mut(&link.0).expect("it is there");
                assert!(client.turn.replace(now).is_none());
                client.note_wait(now);
            }
        }
    }

    /// Time passes until `end`, and blocks arrive.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            let step = match self.uplink.front() {
                Some((_, len)) => Duration::from_secs_f64(*len as f64 / UPLINK),
                None => Duration::from_millis(100),
            };
            self.now += step;
            for (link, client) in &mut self.clients {
                client.gathered += client.gives * step.as_secs_f64();
                let given = (client.gathered / BLOCK as f64) as u64 * BLOCK;
                client.gathered -= given as f64;
                self.uploader.gave(LinkId(*link), given);
            }
            if let Some((link, len)) = self.uplink.pop_front() {
                let client = self.clients.get_mut(&link).expect("it is there");
                (client.got, client.waiting) = (client.got + len, client.waiting - 1);
                self.uploader.sent(self.now, LinkId(link), len);
            }
        }
        for client in self.clients.values_mut() {
            client.note_wait(end);
        }
    }

    fn got(&self, links: &[u64]) -> u64 {
        links.iter().map(|link| self.clients[link].got).sum()
    }

    /// What part of all that was sent these got.
    fn share(&self, links: &[u64]) -> f64 {
        let all: u64 = self.clients.values().map(|client| client.got).sum();
        self.got(links) as f64 / all as f64
    }
}

impl Client {
    fn note_wait(&mut self, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            self.longest_wait = self.longest_wait.max(now - since);
        }
    }
}

#[test]
fn free_riders_among_strangers_get_no_more_than_the_optimistic_share() {
    for givers in [1, 2, 3, 6] {
        let mut world = World::new();
        let riders = world.join(&[0.0; 8]);
        world.join(&vec![100e3; givers]);
        // Before anybody has given anything, they are all the same.
        world.run(MINUTE);
        let before = world.got(&riders);
        world.clients.values_mut().for_each(|client| client.got = 0);
        world.run(20 * MINUTE);
        let share = world.share(&riders);
        assert!(share <= 1.01 / SLOTS as f64, "{givers} givers: {share}");
        assert!(before > 0 && share > 0.05, "{givers} givers: {share}");
    }
}

#[test]
fn stranger_that_gives_more_gets_more() {
    let mut world = World::new();
    let links = world.join(&[20e3, 50e3, 100e3, 200e3, 400e3]);
    world.run(20 * MINUTE);
    let got: Vec<f64> = links.iter().map(|link| world.share(&[*link])).collect();
    // Those that give least have the slot on trust in turns.
    assert!(
        got[2..].windows(2).all(|two| two[1] > 1.2 * two[0]),
        "{got:?}"
    );
    assert!(got[2] > got[0] && got[2] > got[1], "{got:?}");
    assert!(got.iter().all(|got| *got > 0.05), "{got:?}");
}

#[test]
fn stranger_that_gives_no_more_has_soon_earned_nothing() {
    let mut world = World::new();
    let links = world.join(&[200e3, 100e3, 100e3, 100e3, 0.0]);
    world.run(MINUTE);
    assert!(world.share(&links[..1]) > 0.2);
    // It snubs this side.
    world.clients.get_mut(&links[0]).expect("it is there").gives = 0.0;
    world.run(MINUTE / 2);
    world.clients.values_mut().for_each(|client| client.got = 0);
    world.run(10 * MINUTE);
    let share = world.share(&[links[0], links[4]]);
    assert!(share <= 1.01 / SLOTS as f64, "{share}");
}

#[test]
fn no_stranger_starves_and_no_turn_is_cut_short() {
    let mut world = World::new();
    let riders = world.join(&[0.0; 12]);
    world.join(&[100e3; 6]);
    world.run(60 * MINUTE);
    // Fifteen of them share the slot on trust, for three rounds each.
    let longest = Duration::from_secs(16 * 30 + 10);
    for client in world.clients.values() {
        assert!(client.longest_wait <= longest, "{client:?}");
        let shortest = client.shortest_turn.unwrap_or(MINUTE);
        assert!(shortest >= Duration::from_secs(10), "{client:?}");
    }
    let got = riders.iter().map(|link| world.got(&[*link]));
    let (least, most) = (got.clone().min(), got.max());
    assert!(3 * least.unwrap() > 2 * most.unwrap(), "{least:?} {most:?}");
}

#[test]
fn complete_content_is_given_to_all_strangers_alike() {
    let mut world = World::new();
    world.uploader.set_seeding(true);
    // What they gave before does not count any more.
    let links = world.join(&[0.0, 500e3, 0.0, 100e3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    world.run(60 * MINUTE);
    let shares: Vec<f64> = links.iter().map(|link| world.share(&[*link])).collect();
    let is_fair = |share: &f64| (share - 0.1).abs() < 0.02;
    assert!(shares.iter().all(is_fair), "{shares:?}");
}

#[test]
fn host_gains_nothing_by_more_links_or_by_coming_again() {
    let mut world = World::new();
    world.join(&[100e3; 3]);
    let alone = world.join(&[0.0; 4]);
    let crowd: Vec<u64> = (100..120).collect();
    for link in &crowd {
        world.join_from(*link, 0.0, "crowd");
    }
    world.run(MINUTE);
    world.clients.values_mut().for_each(|client| client.got = 0);
    world.run(30 * MINUTE);
    let (one, many) = (world.got(&alone) as f64 / 4.0, world.got(&crowd) as f64);
    assert!(many < 1.3 * one && many > 0.5 * one, "{one} {many}");
    for link in crowd {
        world.leaves(link);
    }
    // One that comes anew each time is no newcomer.
    world.clients.values_mut().for_each(|client| client.got = 0);
    let mut many = 0;
    for again in 200..320 {
        world.join_from(again, 0.0, "crowd");
        world.run(MINUTE / 4);
        many += world.got(&[again]);
        world.leaves(again);
    }
    let one = world.got(&alone) as f64 / 4.0;
    assert!((many as f64) < 1.3 * one, "{one} {many}");
}

#[test]
fn slot_that_is_not_used_goes_to_others() {
    let mut world = World::new();
    let links = world.join(&[0.0; 5]);
    for link in &links[..4] {
        assert!(
            world.clients[link].turn.is_some(),
            "free slots are given at once"
        );
        world.clients.get_mut(link).expect("it is there").asks = false;
    }
    assert!(world.clients[&links[4]].turn.is_none());
    world.run(Duration::from_secs(25));
    assert!(world.clients[&links[4]].turn.is_some());
    let others = links[..4]
        .iter()
        .filter(|link| world.clients[link].turn.is_some());
    assert_eq!(others.count(), 3);
    // Who says that it wants nothing gives its slot to one that waits, and keeps it as long
    // as nobody does.
    world.uploader.link_declined(LinkId(links[4]), true);
    world.settle();
    let has_turn = |world: &World, link: &u64| world.clients[link].turn.is_some();
    assert!(!has_turn(&world, &links[4]));
    assert!(links[..4].iter().all(|link| has_turn(&world, link)));
    world.uploader.link_declined(LinkId(links[3]), true);
    world.settle();
    assert!(has_turn(&world, &links[3]));
}

#[test]
fn own_links_and_strangers_share_what_is_sent() {
    let mut world = World::new();
    let strangers = world.join(&[100e3; 6]);
    let own = 77;
    world.clients.insert(
        own,
        Client {
            is_own: true,
            asks: true,
            turn: Some(world.now),
            ..Client::default()
        },
    );
    world
        .uploader
        .link_added(world.now, LinkId(own), &host("own"));
    world.uploader.link_has(LinkId(own), 1, 100_000);
    // Its own way to take turns would need more of the protocol than there is here: it
    // tells of each chunk.
    for _ in 0..600 {
        world.run(Duration::from_millis(500));
        for _ in 0..4 {
            world.uploader.link_gained(LinkId(own), true);
        }
    }
    let share = world.share(&strangers);
    assert!((0.4..0.7).contains(&share), "{share}");
}

#[derive(Debug, Clone)]
enum Op {
    Add(u64, bool),
    Remove(u64),
    Has(u64, u32),
    Lacks(u64),
    Declined(u64, bool),
    Request(u64, u32),
    Gave(u64, u64),
    Next,
    Sent(u64),
    Wait(u64),
    Seeds,
}

fn op() -> impl Strategy<Value = Op> {
    let link = || 0..12_u64;
    prop_oneof![
        4 => (link(), prop::bool::weighted(0.8)).prop_map(|(l, s)| Op::Add(l, s)),
        1 => link().prop_map(Op::Remove),
        4 => (link(), 0..3_u32).prop_map(|(l, lacks)| Op::Has(l, lacks)),
        1 => link().prop_map(Op::Lacks),
        4 => (link(), prop::bool::weighted(0.2)).prop_map(|(l, d)| Op::Declined(l, d)),
        8 => (link(), 1..100_u32).prop_map(|(l, n)| Op::Request(l, n)),
        4 => (link(), 1..100_000_u64).prop_map(|(l, n)| Op::Gave(l, n)),
        8 => Just(Op::Next),
        6 => link().prop_map(Op::Sent),
        4 => (1..40_000_u64).prop_map(Op::Wait),
        1 => Just(Op::Seeds),
    ]
}

proptest! {
    #[test]
    fn slots_are_kept_and_given_whatever_happens(ops in prop::collection::vec(op(), 0..200)) {
        let limits = UploadLimits::new(1200, 4, 2).strangers(3, 1);
        let mut uploader = Uploader::new(limits, 1);
        uploader.set_lengths(100, 400);
        let mut now = Instant::now();
        // Whether a link is a stranger, and may ask.
        let mut links: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
        let mut under_way: Vec<(u64, u64)> = Vec::new();
        for op in ops {
            match op {
                Op::Add(link, is_stranger) => {
                    if links.contains_key(&link) {
                        continue;
                    }
                    links.insert(link, (is_stranger, !is_stranger));
                    let host = host(&format!("host{}", link / 2));
                    match is_stranger {
                        true => uploader.stranger_added(LinkId(link), &host),
                        false => uploader.link_added(now, LinkId(link), &host),
                    }
                }
                Op::Remove(link) => {
                    links.remove(&link);
                    under_way.retain(|(of, _)| *of != link);
                    uploader.link_removed(now, LinkId(link));
                }
                Op::Has(link, lacks) => uploader.link_has(LinkId(link), 1, lacks),
                Op::Lacks(link) => uploader.link_lacks(LinkId(link)),
                Op::Declined(link, declined) => uploader.link_declined(LinkId(link), declined),
                Op::Request(link, len) => {
                    let taken = uploader.requested(LinkId(link), block(len));
                    let may = links.get(&link).is_some_and(|(_, may_ask)| *may_ask);
                    prop_assert!(may || !taken);
                }
                Op::Gave(link, bytes) => uploader.gave(LinkId(link), bytes),
                Op::Next => {
                    if let Some((link, block)) = uploader.next_block(now) {
                        under_way.push((link.0, block.len.into()));
                    }
                }
                Op::Sent(link) => {
                    if let Some(at) = under_way.iter().position(|(of, _)| *of == link) {
                        let (_, bytes) = under_way.remove(at);
                        uploader.sent(now, LinkId(link), bytes);
                    }
                }
                Op::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    // Time that passes may be what a block waits for: it is looked for.
                    if let Some((link, block)) = uploader.next_block(now) {
                        under_way.push((link.0, block.len.into()));
                    }
                }
                Op::Seeds => uploader.set_seeding(true),
            }
            for turns in 0.. {
                prop_assert!(turns < 100, "turns change without end");
                let (link, may_ask) = match uploader.next_turn(now) {
                    None => break,
                    Some(Turn::Choke { link, .. }) => (link, false),
                    Some(Turn::Unchoke { link }) => (link, true),
                };
                let (_, before) = links.get_mut(&link.0).expect("it is there");
                prop_assert!(*before != may_ask, "told twice");
                *before = may_ask;
            }
            uploader.check_invariants();
            let strangers = links.values().filter(|(is_stranger, _)| *is_stranger);
            let slots = strangers.filter(|(_, may_ask)| *may_ask).count();
            prop_assert!(slots <= 3);
            if links.values().all(|(is_stranger, _)| *is_stranger) {
                prop_assert!(uploader.poll_timeout().is_none_or(|due| due > now));
            }
        }
    }
}
