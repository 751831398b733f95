//! Several threads use one registry. Each thread has peers of its own and an exact
//! model of them, and all threads send requests for a few common peers. Whatever
//! the other threads do, each must see its own peers as its model says. Whenever
//! all threads pause, all parts of the registry must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use bt_lite::protocol::{
    ContentKey, OwnEntry, OwnState, OwnerRef, Refusal, Token, TrackerReply, TrackerRequest, Upload,
};
use bt_lite::tracker::{RegistryConfig, RequestCounts, ShardedRegistry};
use bt_lite::{Addr, ContentId};
use fastrand::Rng;

const THREADS: usize = 4;

/// How many peers a thread has at most, and how many common peers there are: so
/// few that one reply can name all owners of a content.
const OWN_PEERS: usize = 9;
const COMMON_PEERS: usize = 2;

const CONTENTS: u8 = 12;

/// Fewer than the threads want, so that they compete for places.
const MAX_PEERS: u32 = (THREADS * OWN_PEERS) as u32;

/// How many requests a thread makes in one round. The time stands still in it.
const REQUESTS: usize = 250;

/// The time between two rounds. A lease of 22 s is a bit more than four rounds.
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS_PER_LEASE: u32 = 5;

struct Peer {
    addr: Addr,
    token: Token,
    heard: u32,
    /// What it owns, and whether it has all of it.
    owned: BTreeMap<u8, bool>,
}

/// What all threads share.
struct Stage {
    registry: ShardedRegistry,
    start: Instant,
    barrier: Barrier,
    common: Mutex<Vec<(Addr, Token)>>,
    /// For each content, its owners among the peers of all threads, as of a pause.
    owners: Mutex<BTreeMap<u8, BTreeSet<(Addr, bool)>>>,
    /// The tokens that were issued, and how many EXITs of each were accepted.
    tokens: Mutex<BTreeMap<[u8; 16], u32>>,
    peers: Mutex<usize>,
}

struct Actor<'a> {
    stage: &'a Stage,
    number: usize,
    rng: Rng,
    round: u32,
    born: u32,
    peers: Vec<Peer>,
    refs: Vec<OwnerRef>,
    asked: RequestCounts,
}

fn id(number: u8) -> ContentId {
    ContentId::from_bytes([number; 32])
}

fn entry(number: u8, state: OwnState) -> OwnEntry {
    OwnEntry::new(
        id(number),
        format!("content-{number}").parse().unwrap(),
        1,
        state,
    )
}

impl Actor<'_> {
    fn now(&self) -> Instant {
        self.stage.start + ROUND * self.round
    }

    fn ask(&mut self, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        *match request {
            TrackerRequest::Register { .. } => &mut self.asked.register,
            TrackerRequest::Own { .. } => &mut self.asked.own,
            TrackerRequest::Need { .. } => &mut self.asked.need,
            TrackerRequest::Update { .. } => &mut self.asked.update,
            _ => &mut self.asked.exit,
        } += 1;
        self.stage.registry.handle(self.now(), source, request)
    }

    fn register(&mut self, addr: Addr) -> Option<Token> {
        let request = TrackerRequest::Register {
            listen: Some(addr.clone()),
            token: None,
        };
        match self.ask(&addr, &request) {
            TrackerReply::Registered(registered) => {
                let token = registered.token;
                let before = self.stage.tokens.lock().unwrap().insert(token.0, 0);
                assert_eq!(before, None, "a token was issued twice");
                Some(token)
            }
            TrackerReply::Refused(Refusal::Peers { max: MAX_PEERS }) => None,
            other => panic!("{other:?}"),
        }
    }

    fn new_addr(&mut self) -> Addr {
        self.born += 1;
        let [_, high, mid, low] = self.born.to_be_bytes();
        let network = 10 + 16 * self.number + usize::from(high);
        format!("{network}.{mid}.{low}.1:7000").parse().unwrap()
    }

    /// One request of a peer of this thread. Its answer is known, except for the
    /// owners of other threads.
    fn step(&mut self) {
        if self.peers.is_empty() || self.rng.u8(..3) == 0 && self.peers.len() < OWN_PEERS {
            let addr = self.new_addr();
            if let Some(token) = self.register(addr.clone()) {
                self.peers.push(Peer {
                    addr,
                    token,
                    heard: self.round,
                    owned: BTreeMap::new(),
                });
            }
            return;
        }
        let at = self.rng.usize(..self.peers.len());
        let (addr, token) = (self.peers[at].addr.clone(), self.peers[at].token);
        let content = self.rng.u8(..CONTENTS);
        let kind = self.rng.u8(..18);
        // Peer 0 is silent, and is forgotten in time.
        if kind < 15 && at > 0 {
            self.peers[at].heard = self.round;
        } else if kind < 15 {
            return;
        }
        match kind {
            0..2 => {
                let request = TrackerRequest::Register {
                    listen: Some(addr.clone()),
                    token: Some(token),
                };
                let reply = self.ask(&addr, &request);
                let TrackerReply::Registered(registered) = reply else {
                    panic!("{reply:?}");
                };
                assert_eq!(registered.token, token, "the token was forgotten");
            }
            2..8 => {
                let owned = &mut self.peers[at].owned;
                let state = match self.rng.u8(..4) {
                    0 => OwnState::Gone,
                    1 => OwnState::Partial,
                    _ => OwnState::Complete,
                };
                match state {
                    OwnState::Gone => owned.remove(&content),
                    state => owned.insert(content, state == OwnState::Complete),
                };
                let entries = vec![entry(content, state)];
                let reply = self.ask(&addr, &TrackerRequest::Own { token, entries });
                assert_eq!(reply, TrackerReply::Done);
            }
            8..14 => self.need(&addr, token, content),
            14 => {
                let refs = (0..3).filter_map(|_| self.rng.choice(&self.refs).copied());
                let uploads: Vec<_> = refs.map(|owner| (owner, 1 << 20)).collect();
                let uploads = uploads.into_iter();
                let uploads = uploads.map(|(owner, bytes)| Upload::new(owner, bytes));
                let uploads = uploads.collect();
                let reply = self.ask(&addr, &TrackerRequest::Update { token, uploads });
                assert_eq!(reply, TrackerReply::Done);
            }
            _ => {
                let reply = self.ask(&addr, &TrackerRequest::Exit { token });
                assert_eq!(reply, TrackerReply::Done);
                self.peers.swap_remove(at);
            }
        }
    }

    fn need(&mut self, addr: &Addr, token: Token, content: u8) {
        let key: ContentKey = match self.rng.bool() {
            true => id(content).into(),
            false => entry(content, OwnState::Gone).name.into(),
        };
        let max_owners = self.rng.u16(..60);
        let request = TrackerRequest::Need {
            token,
            key,
            max_owners,
        };
        let owned = self.peers.iter().any(|p| p.owned.contains_key(&content));
        let found = match self.ask(addr, &request) {
            TrackerReply::Found(found) => found,
            TrackerReply::Refused(Refusal::UnknownContent) if !owned => return,
            other => panic!("{other:?}"),
        };
        assert_eq!(found.id, id(content));
        assert!(found.owners.len() <= max_owners.into());
        let named: BTreeSet<&Addr> = found.owners.iter().map(|owner| &owner.addr).collect();
        assert_eq!(named.len(), found.owners.len(), "an address is named twice");
        assert!(!named.contains(addr), "the asker is named to itself");
        for peer in &self.peers {
            let listed = found.owners.iter().find(|owner| owner.addr == peer.addr);
            let complete = listed.map(|owner| owner.complete);
            let owned = peer.owned.get(&content).copied();
            assert!(
                complete.is_none() || complete == owned,
                "{complete:?} {owned:?}"
            );
            if max_owners >= 50 && peer.addr != *addr {
                assert_eq!(complete, owned, "the reply has room for all");
            }
        }
        self.refs
            .extend(found.owners.iter().map(|owner| owner.owner));
        let extra = self.refs.len().saturating_sub(50);
        self.refs.drain(..extra);
    }

    /// One request for a common peer, which other threads may use at the same time.
    fn meddle(&mut self) {
        let common = self.stage.common.lock().unwrap().clone();
        let Some((addr, token)) = self.rng.choice(common) else {
            return;
        };
        // Of few contents, so that the threads meet.
        let content = self.rng.u8(..2);
        let state = match self.rng.bool() {
            true => OwnState::Complete,
            false => OwnState::Gone,
        };
        let request = match self.rng.u8(..40) {
            0 => TrackerRequest::Exit { token },
            1..25 => TrackerRequest::Own {
                token,
                entries: vec![entry(content, state)],
            },
            _ => TrackerRequest::Update {
                token,
                uploads: Vec::new(),
            },
        };
        match self.ask(&addr, &request) {
            TrackerReply::Done => {
                if let TrackerRequest::Exit { token } = request {
                    let mut tokens = self.stage.tokens.lock().unwrap();
                    *tokens.get_mut(&token.0).unwrap() += 1;
                }
            }
            TrackerReply::Refused(Refusal::UnknownToken) => {}
            other => panic!("{other:?}"),
        }
    }

    fn expire(&mut self) {
        let (registry, now) = (&self.stage.registry, self.now());
        while registry.poll_timeout().is_some_and(|at| at <= now) {
            registry.handle_timeout(now);
        }
        let due = self.round.saturating_sub(ROUNDS_PER_LEASE);
        let starts = self.round < ROUNDS_PER_LEASE;
        self.peers.retain(|peer| starts || peer.heard > due);
    }

    fn run(mut self, rounds: u32) -> RequestCounts {
        for round in 0..rounds {
            self.round = round;
            self.expire();
            self.stage.barrier.wait();
            for _ in 0..REQUESTS {
                match self.rng.bool() {
                    true => self.meddle(),
                    false => self.step(),
                }
            }
            self.tell();
            self.stage.barrier.wait();
            if self.number == 0 {
                self.check();
            }
            self.stage.barrier.wait();
        }
        self.asked
    }

    fn tell(&self) {
        *self.stage.peers.lock().unwrap() += self.peers.len();
        let mut owners = self.stage.owners.lock().unwrap();
        for peer in &self.peers {
            for (content, complete) in &peer.owned {
                let listed = owners.entry(*content).or_default();
                listed.insert((peer.addr.clone(), *complete));
            }
        }
    }

    /// Checks everything while all other threads pause.
    fn check(&mut self) {
        self.stage.registry.check_invariants();
        let known = std::mem::take(&mut *self.stage.owners.lock().unwrap());
        let peers = std::mem::take(&mut *self.stage.peers.lock().unwrap());
        let common = std::mem::take(&mut *self.stage.common.lock().unwrap());
        let exits = |token: &Token| self.stage.tokens.lock().unwrap()[&token.0];
        assert!(
            common.iter().all(|(_, token)| exits(token) <= 1),
            "a token has left twice"
        );
        // The common peers leave now, so that all listed owners are in a model, and
        // new ones take their places.
        let mut left = 0;
        for (addr, token) in common {
            let gone = exits(&token) > 0;
            let reply = self.ask(&addr, &TrackerRequest::Exit { token });
            let unknown = reply == TrackerReply::Refused(Refusal::UnknownToken);
            assert!(unknown || !gone, "it had left, but is still registered");
            left += u32::from(!unknown);
        }
        let stats = self.stage.registry.stats();
        assert_eq!(stats.peers, peers as u64, "{left} have just left");
        let owned: usize = known.values().map(BTreeSet::len).sum();
        assert_eq!(stats.ownerships, owned as u64);
        assert_eq!(stats.contents, known.len() as u64);
        for _ in 0..COMMON_PEERS {
            let addr = self.new_addr();
            if let Some(token) = self.register(addr.clone()) {
                self.stage.common.lock().unwrap().push((addr, token));
            }
        }
        let common = self.stage.common.lock().unwrap().first().cloned();
        if let Some((addr, token)) = common {
            for content in 0..CONTENTS {
                let request = TrackerRequest::Need {
                    token,
                    key: id(content).into(),
                    max_owners: 50,
                };
                let listed = match self.ask(&addr, &request) {
                    TrackerReply::Found(found) => found.owners,
                    _ => Vec::new(),
                };
                let listed = listed.into_iter().map(|owner| (owner.addr, owner.complete));
                let expected = known.get(&content).cloned().unwrap_or_default();
                assert_eq!(listed.collect::<BTreeSet<_>>(), expected);
            }
        }
    }
}

/// `REGISTRY_ROUNDS=2000 cargo test --release --test props threads` makes more than
/// a million requests with each number of shards.
#[test]
fn threads_on_one_registry_see_their_own_peers_as_they_are() {
    let rounds = std::env::var("REGISTRY_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    for shards in [1, 4, 64] {
        let start = Instant::now();
        let mut config = RegistryConfig::default();
        config.max_peers = MAX_PEERS;
        let stage = Stage {
            registry: ShardedRegistry::new(config, [6; 32], 1, shards, start).yielding(),
            start,
            barrier: Barrier::new(THREADS),
            common: Mutex::default(),
            owners: Mutex::default(),
            tokens: Mutex::default(),
            peers: Mutex::default(),
        };
        let act = |number: usize| {
            let actor = Actor {
                stage: &stage,
                number,
                rng: Rng::with_seed(number as u64 + u64::from(shards)),
                round: 0,
                born: 0,
                peers: Vec::new(),
                refs: Vec::new(),
                asked: RequestCounts::default(),
            };
            let run = std::panic::AssertUnwindSafe(|| actor.run(rounds));
            std::panic::catch_unwind(run).unwrap_or_else(|why| {
                // The other threads would wait at the barrier for ever, and the test
                // harness would not show their output.
                let why = why.downcast_ref::<String>();
                let _ = writeln!(std::io::stderr(), "with {shards} shards: {why:?}");
                std::process::exit(101)
            })
        };
        let act = &act;
        let asked: Vec<RequestCounts> = std::thread::scope(|scope| {
            let threads = (0..THREADS).map(|number| scope.spawn(move || act(number)));
            let threads: Vec<_> = threads.collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap());
            ended.collect()
        });
        let counted = stage.registry.stats().requests;
        let sum = |of: fn(&RequestCounts) -> u64| asked.iter().map(of).sum::<u64>();
        assert_eq!(counted.register, sum(|asked| asked.register));
        assert_eq!(counted.own, sum(|asked| asked.own));
        assert_eq!(counted.need, sum(|asked| asked.need));
        assert_eq!(counted.update, sum(|asked| asked.update));
        assert_eq!(counted.exit, sum(|asked| asked.exit));
        // Nothing is left once all peers have been silent.
        let end = start + ROUND * (rounds + 2 * ROUNDS_PER_LEASE);
        while stage.registry.poll_timeout().is_some_and(|at| at <= end) {
            stage.registry.handle_timeout(end);
        }
        stage.registry.check_invariants();
        let stats = stage.registry.stats();
        assert_eq!((stats.peers, stats.contents, stats.ownerships), (0, 0, 0));
    }
}
