//! Peers that register, announce, ask and leave at the same time as leases run out, and as the
//! registry is counted and saved.

use std::sync::Arc;
use std::time::Duration;

use shuttle::thread;

use super::*;
use crate::protocol::{OwnEntry, OwnState};
use crate::sync::schedules::try_all;

/// More than there are places.
const PEERS: u8 = 4;
const MAX_PEERS: u32 = 3;

struct Tracker {
    registry: ShardedRegistry,
    start: Instant,
}

/// A peer that is registered, and whether it owns the content that all of them have.
#[derive(Clone, Copy)]
struct Peer {
    number: u8,
    token: Token,
    owns: bool,
}

fn addr(number: u8) -> Addr {
    format!("10.0.{number}.1:7000").parse().unwrap()
}

fn id(number: u8) -> ContentId {
    ContentId::from_bytes([number; 32])
}

/// A content of all, and one of each.
const COMMON: u8 = 100;

impl Tracker {
    fn new(shards: u32) -> Self {
        let mut config = RegistryConfig::default();
        config.max_peers = MAX_PEERS;
        let start = Instant::now();
        let registry = ShardedRegistry::new(config, [6; 32], 1, shards, start);
        Self { registry, start }
    }

    fn handle(&self, now: Instant, number: u8, request: &TrackerRequest) -> TrackerReply {
        self.registry.handle(now, &addr(number), request)
    }

    fn register(&self, now: Instant, number: u8, token: Option<Token>) -> Option<Token> {
        let listen = Some(addr(number));
        match self.handle(now, number, &TrackerRequest::Register { listen, token }) {
            TrackerReply::Registered(registered) => Some(registered.token),
            TrackerReply::Refused(Refusal::Peers { max: MAX_PEERS }) => None,
            other => panic!("{other:?}"),
        }
    }

    fn own(&self, now: Instant, peer: Peer, content: u8, state: OwnState) -> TrackerReply {
        let name = format!("content-{content}").parse().unwrap();
        let entries = vec![OwnEntry::new(id(content), name, 1, state)];
        let token = peer.token;
        self.handle(now, peer.number, &TrackerRequest::Own { token, entries })
    }

    /// The others that own the content of all.
    fn need(&self, now: Instant, peer: Peer) -> Vec<Addr> {
        let request = TrackerRequest::Need {
            token: peer.token,
            key: id(COMMON).into(),
            max_owners: 50,
        };
        match self.handle(now, peer.number, &request) {
            TrackerReply::Found(found) => found.owners.into_iter().map(|o| o.addr).collect(),
            TrackerReply::Refused(Refusal::UnknownContent) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    /// All that a peer does. Returns it as long as it is registered.
    fn live(&self, number: u8) -> Option<Peer> {
        let now = self.start;
        let token = self.register(now, number, None)?;
        let owns = number != 1;
        let peer = Peer {
            number,
            token,
            owns,
        };
        for content in [number, COMMON] {
            let reply = self.own(now, peer, content, OwnState::Complete);
            assert_eq!(reply, TrackerReply::Done);
        }
        assert!(!self.need(now, peer).contains(&addr(number)));
        match number {
            0 => {
                let request = TrackerRequest::Exit { token };
                assert_eq!(self.handle(now, number, &request), TrackerReply::Done);
                return None;
            }
            1 => {
                let reply = self.own(now, peer, COMMON, OwnState::Gone);
                assert_eq!(reply, TrackerReply::Done);
            }
            _ => {
                let again = self.register(now, number, Some(token));
                assert_eq!(again, Some(token), "it has been forgotten");
            }
        }
        Some(peer)
    }

    /// What is counted and saved while others change it.
    fn look(&self) {
        for _ in 0..2 {
            let stats = self.registry.stats();
            assert!(stats.peers <= MAX_PEERS.into());
            let saved = self.registry.snapshot(self.start);
            assert!(saved.contents.is_sorted_by(|a, b| a.id < b.id));
            let other = Self::new(2);
            other.registry.restore(self.start, &saved);
            other.registry.check_invariants();
        }
    }

    fn expire(&self, now: Instant) {
        while self.registry.poll_timeout().is_some_and(|at| at <= now) {
            self.registry.handle_timeout(now);
        }
    }

    /// What there is of the peers that are there, and nothing else.
    fn check(&self, now: Instant, peers: &[Peer]) {
        self.registry.check_invariants();
        let stats = self.registry.stats();
        assert_eq!(stats.peers, peers.len() as u64);
        let owners: Vec<Addr> = peers
            .iter()
            .filter(|p| p.owns)
            .map(|p| addr(p.number))
            .collect();
        assert_eq!(stats.ownerships as usize, peers.len() + owners.len());
        for peer in peers {
            let mut others = self.need(now, *peer);
            others.sort();
            let expected = owners.iter().filter(|owner| **owner != addr(peer.number));
            assert!(others.iter().eq(expected), "{others:?}");
        }
    }
}

fn run(shards: u32) {
    let tracker = Arc::new(Tracker::new(shards));
    let spawn = |number: u8| {
        let tracker = Arc::clone(&tracker);
        thread::spawn(move || tracker.live(number))
    };
    let living: Vec<_> = (0..PEERS).map(spawn).collect();
    let looking = thread::spawn({
        let tracker = Arc::clone(&tracker);
        move || tracker.look()
    });
    let peers = living.into_iter().filter_map(|peer| peer.join().unwrap());
    let peers: Vec<Peer> = peers.collect();
    looking.join().unwrap();
    tracker.check(tracker.start, &peers);

    // Their leases run out. Some are heard at that moment.
    let config = RegistryConfig::default();
    let now = tracker.start + config.lease() + Duration::from_secs(1);
    let late = now + config.lease() / 64 + Duration::from_secs(1);
    let expiring = thread::spawn({
        let tracker = Arc::clone(&tracker);
        move || tracker.expire(late)
    });
    let heard: Vec<_> = peers
        .iter()
        .map(|&peer| {
            let tracker = Arc::clone(&tracker);
            thread::spawn(move || match peer.number {
                1 => None,
                2 => {
                    let reply = tracker.own(late, peer, peer.number, OwnState::Complete);
                    let unknown = TrackerReply::Refused(Refusal::UnknownToken);
                    assert!(
                        [TrackerReply::Done, unknown.clone()].contains(&reply),
                        "{reply:?}"
                    );
                    (reply != unknown).then_some(peer)
                }
                number => {
                    let token = tracker.register(late, number, Some(peer.token));
                    // A new one owns nothing, and there may be no place for it yet.
                    token.filter(|token| *token == peer.token).map(|_| peer)
                }
            })
        })
        .collect();
    expiring.join().unwrap();
    let heard: Vec<Option<Peer>> = heard.into_iter().map(|peer| peer.join().unwrap()).collect();
    tracker.expire(late);
    tracker.registry.check_invariants();
    let kept = heard.iter().flatten().count() as u64;
    let stats = tracker.registry.stats();
    assert!(stats.peers >= kept && stats.ownerships == 2 * kept);

    // In the end nothing is left.
    let end = late + 2 * config.lease();
    tracker.expire(end);
    tracker.check(end, &[]);
    assert_eq!(tracker.registry.poll_timeout(), None);
}

#[test]
fn registry_agrees_with_its_peers_in_any_order_of_threads() {
    for shards in [1, 4] {
        try_all(move || run(shards));
    }
}
