//! Announces of BitTorrent clients at the registry, beside peers of this crate that own the
//! same torrents, compared with a list.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bt_lite::bittorrent::InfoHashV1;
use bt_lite::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use bt_lite::protocol::{
    ContentKey, OwnEntry, OwnState, Refusal, Token, TrackerReply, TrackerRequest,
};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry, TorrentAnnounce};
use bt_lite::{Addr, ContentId};
use proptest::collection::vec;
use proptest::prelude::*;

const TORRENTS: u8 = 4;
const INTERVAL: u64 = 61;

/// One and a half intervals are 91.5 s: less than this many whole seconds, and more than one
/// less.
const LEASE_SECONDS: u64 = 92;

const SOURCES: [&str; 5] = [
    "10.0.0.1:999",
    "10.0.0.2:999",
    "[2001:db8::1]:999",
    "[2001:db8::2]:999",
    "127.0.0.1:999",
];

/// The same of heartbeats, which have a lease of 22.5 s.
const HEARTBEAT_SECONDS: u64 = 23;

/// Where announces over IPv4 reach the tracker.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn config() -> RegistryConfig {
    let config = RegistryConfig::default().grace(Duration::from_millis(2500));
    config
        .announce_interval(Duration::from_secs(INTERVAL))
        .max_announcers_per_host(4)
        .max_peers(9)
        .max_contents(3)
        .max_owners_per_content(5)
        .max_ownerships(8)
}

fn info_hash(torrent: u8) -> InfoHashV1 {
    InfoHashV1::from_bytes([torrent; 20])
}

fn id(torrent: u8) -> ContentId {
    ContentId::of_torrent_v1(info_hash(torrent).as_bytes())
}

#[derive(Debug, Clone)]
struct Announcing {
    source: usize,
    port: u16,
    torrent: u8,
    peer_id: u8,
    left: u64,
    event: Option<AnnounceEvent>,
    wanted: Option<u32>,
    ids: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Announce(Announcing),
    /// A peer of this crate registers, and owns a torrent.
    Join(usize, u16, u8, bool),
    Leave(prop::sample::Index),
    /// It sends no heartbeat any more.
    Silence(prop::sample::Index),
    Scrape(usize),
    Wait(u64),
}

fn announcing() -> impl Strategy<Value = Announcing> {
    let event = prop_oneof![
        4 => Just(None),
        2 => Just(Some(AnnounceEvent::Started)),
        2 => Just(Some(AnnounceEvent::Completed)),
        3 => Just(Some(AnnounceEvent::Stopped)),
        1 => Just(Some(AnnounceEvent::Paused)),
    ];
    let wanted =
        prop_oneof![2 => Just(None), 1 => (0u32..4).prop_map(Some), 1 => Just(Some(u32::MAX))];
    let who = (0..SOURCES.len(), 0u16..4, 0..TORRENTS, 0u8..3);
    (who, 0u64..2, event, wanted, any::<bool>()).prop_map(|(who, left, event, wanted, ids)| {
        let (source, port, torrent, peer_id) = who;
        Announcing {
            source,
            port,
            torrent,
            peer_id,
            left,
            event,
            wanted,
            ids,
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => announcing().prop_map(Op::Announce),
        2 => (0..SOURCES.len(), 1u16..4, 0..TORRENTS, any::<bool>())
            .prop_map(|(source, port, torrent, complete)| Op::Join(source, port, torrent, complete)),
        1 => any::<prop::sample::Index>().prop_map(Op::Leave),
        1 => any::<prop::sample::Index>().prop_map(Op::Silence),
        1 => (0..SOURCES.len()).prop_map(Op::Scrape),
        3 => (1u64..20).prop_map(Op::Wait),
    ]
}

/// One who announces, or a peer of this crate.
struct Member {
    torrent: u8,
    source: usize,
    listed: SocketAddr,
    complete: bool,
    /// When it has announced last, and what it calls itself.
    announced: Option<(u64, u8)>,
    token: Option<Token>,
    /// When a peer of this crate was heard last.
    heard: u64,
    silent: bool,
}

fn source_of(source: usize) -> SocketAddr {
    SOURCES[source].parse().unwrap()
}

/// Both of a /64 network are one host.
fn host_of(source: usize) -> usize {
    if source == 3 { 2 } else { source }
}

/// All addresses of one who comes from there.
fn any_of(source: usize, port: u16) -> Addr {
    let any = match source_of(source).is_ipv4() {
        true => format!("0.0.0.0:{port}"),
        false => format!("[::]:{port}"),
    };
    any.parse().unwrap()
}

/// Where one who comes from there is listed.
fn listed(source: usize, port: u16) -> SocketAddr {
    match source_of(source).ip() {
        ip if ip.is_loopback() => (Ipv4Addr::UNSPECIFIED, port).into(),
        ip => (ip, port).into(),
    }
}

struct Rig {
    registry: ShardedRegistry,
    start: Instant,
    now: u64,
    members: Vec<Member>,
    downloaded: BTreeMap<u8, u32>,
}

impl Rig {
    fn at(&self) -> Instant {
        self.start + Duration::from_secs(self.now)
    }

    fn handle(&self, source: usize, request: &TrackerRequest) -> TrackerReply {
        let source: Addr = SOURCES[source].parse().unwrap();
        self.registry.handle(self.at(), &source, request)
    }

    fn of(&self, torrent: u8) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |m| m.torrent == torrent)
    }

    /// What a new member would be refused for.
    fn refusal(&self, torrent: u8, source: usize, announces: bool) -> Option<Refusal> {
        let config = config();
        let of_host = self.members.iter().filter(|member| {
            member.announced.is_some() && host_of(member.source) == host_of(source)
        });
        let torrents: BTreeSet<u8> = self.members.iter().map(|member| member.torrent).collect();
        let all = self.members.len() as u32;
        let reached = |count: usize, max: u32| count as u32 >= max;
        let max = config.max_announcers_per_host;
        if announces && reached(of_host.count(), max) {
            return Some(Refusal::PeersPerHost { max });
        }
        let max = config.max_peers;
        if all >= max {
            return Some(Refusal::Peers { max });
        }
        let max = config.max_owners_per_content;
        if reached(self.of(torrent).count(), max) {
            return Some(Refusal::OwnersPerContent { max });
        }
        let max = config.max_ownerships;
        if all >= max {
            return Some(Refusal::Ownerships { max });
        }
        let max = config.max_contents;
        (!torrents.contains(&torrent) && reached(torrents.len(), max))
            .then_some(Refusal::Contents { max })
    }

    fn announce(&mut self, said: &Announcing) {
        let mut announce =
            TorrentAnnounce::new(info_hash(said.torrent), [said.peer_id; 20], said.port);
        (announce.left, announce.event) = (said.left, said.event);
        (announce.num_want, announce.wants_ids) = (said.wanted, said.ids);
        // Nobody asks for what he says of this.
        announce.ip = Some([8, 8, 8, 8].into());
        let source: Addr = SOURCES[said.source].parse().unwrap();
        let local = SocketAddr::from((HERE, 80)).into();
        let outcome = self
            .registry
            .announce(self.at(), &source, Some(&local), &announce);
        let addr = listed(said.source, said.port);
        let known = self.members.iter().position(|member| {
            member.announced.is_some() && member.torrent == said.torrent && member.listed == addr
        });
        let stops = said.event == Some(AnnounceEvent::Stopped);
        let complete = said.left == 0;
        let just_got = said.event == Some(AnnounceEvent::Completed) && complete;
        match known {
            _ if said.port == 0 => {}
            Some(at) if stops => {
                let (_, peer_id) = self.members[at].announced.unwrap();
                if peer_id == said.peer_id {
                    self.members.remove(at);
                }
            }
            None if stops => {}
            Some(at) => {
                let member = &mut self.members[at];
                if just_got && !member.complete {
                    *self.downloaded.entry(said.torrent).or_default() += 1;
                }
                member.complete = complete;
                member.announced = Some((self.now, said.peer_id));
            }
            None => {
                if let Some(refusal) = self.refusal(said.torrent, said.source, true) {
                    assert_eq!(outcome, Err(refusal));
                    return;
                }
                if just_got {
                    *self.downloaded.entry(said.torrent).or_default() += 1;
                }
                self.members.push(Member {
                    torrent: said.torrent,
                    source: said.source,
                    listed: addr,
                    complete,
                    announced: Some((self.now, said.peer_id)),
                    token: None,
                    heard: self.now,
                    silent: false,
                });
            }
        }
        self.prune();
        let answer = outcome.unwrap();
        assert!((55..=67).contains(&answer.interval), "{}", answer.interval);
        assert_eq!(answer.min_interval, answer.interval / 2);
        assert_eq!(
            answer.figures,
            self.figures(said.torrent).unwrap_or_default()
        );

        // Who can be named, and what each may be called.
        let here = match source_of(said.source).ip() {
            ip if ip.is_loopback() => ip,
            _ => HERE.into(),
        };
        let is_v4 = source_of(said.source).is_ipv4();
        let mut fit: BTreeMap<SocketAddr, BTreeSet<Option<[u8; 20]>>> = BTreeMap::new();
        for member in self.of(said.torrent) {
            let is_asker = said.port > 0 && member.listed == addr;
            let begins = said.event == Some(AnnounceEvent::Started);
            let is_useless = complete && !begins && member.complete;
            if member.listed.is_ipv4() == is_v4 && !is_asker && !is_useless {
                let seen = match member.listed.ip() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (here, member.listed.port()).into(),
                    _ => member.listed,
                };
                let id = member.announced.map(|(_, id)| [id; 20]);
                fit.entry(seen).or_default().insert(id.filter(|_| said.ids));
            }
        }
        let wanted = if stops {
            0
        } else {
            said.wanted.unwrap_or(50) as usize
        };
        assert_eq!(answer.peers.len(), fit.len().min(wanted));
        let named: BTreeSet<_> = answer.peers.iter().map(|peer| peer.addr).collect();
        assert_eq!(named.len(), answer.peers.len());
        for peer in &answer.peers {
            assert!(
                fit[&peer.addr].contains(&peer.peer_id),
                "{peer:?} of {fit:?}"
            );
        }
    }

    fn join(&mut self, source: usize, port: u16, torrent: u8, complete: bool) {
        let listen = Some(any_of(source, port));
        let token = None;
        let request = TrackerRequest::Register { listen, token };
        let TrackerReply::Registered(registered) = self.handle(source, &request) else {
            assert!(matches!(
                self.refusal(torrent, source, false),
                Some(Refusal::Peers { .. })
            ));
            return;
        };
        let token = registered.token;
        let state = if complete {
            OwnState::Complete
        } else {
            OwnState::Partial
        };
        let entry = OwnEntry::new(id(torrent), "torrent".parse().unwrap(), 7, state);
        let entries = vec![entry];
        let reply = self.handle(source, &TrackerRequest::Own { token, entries });
        if let Some(refusal) = self.refusal(torrent, source, false) {
            assert!(
                matches!(&reply, TrackerReply::Partly(refused) if refused[0].refusal == refusal)
            );
            self.handle(source, &TrackerRequest::Exit { token });
            return;
        }
        self.members.push(Member {
            torrent,
            source,
            listed: listed(source, port),
            complete,
            announced: None,
            token: Some(token),
            heard: self.now,
            silent: false,
        });
    }

    /// One of the peers of this crate, and its token.
    fn joined(&self, which: &prop::sample::Index) -> Option<(usize, Token)> {
        let joined = self.members.iter().enumerate();
        let joined: Vec<_> = joined.filter_map(|(at, m)| Some((at, m.token?))).collect();
        (!joined.is_empty()).then(|| *which.get(&joined))
    }

    fn leave(&mut self, which: &prop::sample::Index) {
        let Some((at, token)) = self.joined(which) else {
            return;
        };
        self.members.remove(at);
        self.handle(0, &TrackerRequest::Exit { token });
        self.prune();
    }

    /// What has nobody has no figures either.
    fn prune(&mut self) {
        let there: BTreeSet<u8> = self.members.iter().map(|member| member.torrent).collect();
        self.downloaded.retain(|torrent, _| there.contains(torrent));
    }

    fn figures(&self, torrent: u8) -> Option<ScrapeFigures> {
        let complete = self.of(torrent).filter(|member| member.complete).count() as u32;
        let all = self.of(torrent).count() as u32;
        (all > 0).then(|| ScrapeFigures {
            complete,
            downloaded: self.downloaded.get(&torrent).copied().unwrap_or(0),
            incomplete: all - complete,
        })
    }

    fn scrape(&self, source: usize) {
        let torrents: Vec<_> = (0..TORRENTS).map(info_hash).collect();
        let source = SOURCES[source].parse().unwrap();
        let figures = self.registry.scrape(self.at(), &source, &torrents);
        let expected: Vec<_> = (0..TORRENTS).map(|torrent| self.figures(torrent)).collect();
        assert_eq!(figures, expected);
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        let now = self.now;
        let mut beats = Vec::new();
        for member in self.members.iter_mut().filter(|member| !member.silent) {
            if let Some(token) = member.token {
                member.heard = now;
                let listen = Some(any_of(member.source, member.listed.port()));
                let token = Some(token);
                beats.push((member.source, TrackerRequest::Register { listen, token }));
            }
        }
        for (source, beat) in &beats {
            self.handle(*source, beat);
        }
        while self
            .registry
            .poll_timeout()
            .is_some_and(|due| due <= self.at())
        {
            self.registry.handle_timeout(self.at());
        }
        self.members.retain(|member| match member.announced {
            Some((since, _)) => now - since < LEASE_SECONDS,
            None => now - member.heard < HEARTBEAT_SECONDS,
        });
        self.prune();
    }
}

proptest! {
    #[test]
    fn announces_have_the_outcome_that_a_list_tells(
        ops in vec(op(), 1..120),
        shards in prop_oneof![Just(1u32), Just(4)],
    ) {
        let start = Instant::now();
        let mut rig = Rig {
            registry: ShardedRegistry::new(config(), [3; 32], 1, shards, start),
            start,
            now: 0,
            members: Vec::new(),
            downloaded: BTreeMap::new(),
        };
        for op in &ops {
            match op {
                Op::Announce(said) => rig.announce(said),
                Op::Join(source, port, torrent, complete) => {
                    rig.join(*source, *port, *torrent, *complete);
                }
                Op::Leave(which) => rig.leave(which),
                Op::Silence(which) => {
                    if let Some((at, _)) = rig.joined(which) {
                        rig.members[at].silent = true;
                    }
                }
                Op::Scrape(source) => rig.scrape(*source),
                Op::Wait(seconds) => rig.wait(*seconds),
            }
            rig.registry.check_invariants();
            prop_assert_eq!(rig.registry.stats().peers, rig.members.len() as u64);
        }
        // Nothing is left in the end.
        rig.members.iter_mut().for_each(|member| member.silent = true);
        rig.wait(LEASE_SECONDS);
        prop_assert!(rig.members.is_empty());
        let stats = rig.registry.stats();
        prop_assert_eq!((stats.peers, stats.contents, stats.ownerships), (0, 0, 0));
        rig.registry.check_invariants();
    }
}

/// A peer of this crate that asks for the id of a torrent is told of a client that has
/// announced it, and the client of the peer.
#[test]
fn both_protocols_name_each_others_peers() {
    let now = Instant::now();
    let registry = ShardedRegistry::new(RegistryConfig::default(), [3; 32], 1, 4, now);
    let source = |text: &str| -> Addr { text.parse().unwrap() };
    let mut announce = TorrentAnnounce::new(info_hash(1), [7; 20], 6881);
    let client = source("10.0.0.1:50000");
    registry.announce(now, &client, None, &announce).unwrap();
    let request = TrackerRequest::Register {
        listen: Some("0.0.0.0:7000".parse().unwrap()),
        token: None,
    };
    let peer = source("10.0.0.2:40000");
    let TrackerReply::Registered(registered) = registry.handle(now, &peer, &request) else {
        panic!("it is registered");
    };
    let token = registered.token;
    let entry = OwnEntry::new(id(1), "a torrent".parse().unwrap(), 9, OwnState::Complete);
    let entries = vec![entry];
    registry.handle(now, &peer, &TrackerRequest::Own { token, entries });
    let request = TrackerRequest::Need {
        token,
        key: ContentKey::Id(id(1)),
        max_owners: 50,
    };
    let TrackerReply::Found(found) = registry.handle(now, &peer, &request) else {
        panic!("it is found");
    };
    let named: Vec<_> = found
        .owners
        .iter()
        .map(|owner| owner.addr.as_str())
        .collect();
    assert_eq!(named, ["10.0.0.1:6881"]);
    assert!(found.owners[0].complete);
    announce.left = 1;
    let answer = registry.announce(now, &client, None, &announce).unwrap();
    let named: Vec<_> = answer.peers.iter().map(|peer| peer.addr).collect();
    assert_eq!(named, ["10.0.0.2:7000".parse().unwrap()]);
    assert_eq!((answer.figures.complete, answer.figures.incomplete), (1, 1));
}

/// A tracker that starts again remembers contents by name. Torrents have none.
#[test]
fn torrents_are_not_remembered_beyond_a_restart() {
    let now = Instant::now();
    let registry = ShardedRegistry::new(RegistryConfig::default(), [3; 32], 1, 4, now);
    let announce = TorrentAnnounce::new(info_hash(1), [7; 20], 6881);
    let source = "10.0.0.1:1".parse().unwrap();
    registry.announce(now, &source, None, &announce).unwrap();
    assert_eq!(registry.stats().contents, 1);
    assert_eq!(registry.snapshot(now).contents, []);
}

/// In a large swarm those are found that an announce can use, also if they are few.
#[test]
fn few_fit_peers_are_found_among_very_many() {
    let now = Instant::now();
    let config = RegistryConfig::default().max_announcers_per_host(u32::MAX);
    let registry = ShardedRegistry::new(config, [3; 32], 1, 4, now);
    for port in 1..=4000 {
        let mut announce = TorrentAnnounce::new(info_hash(1), [7; 20], port);
        announce.left = u64::from(port % 20 == 0);
        announce.num_want = Some(0);
        let source = "10.0.0.1:1".parse().unwrap();
        registry.announce(now, &source, None, &announce).unwrap();
    }
    let announce = TorrentAnnounce::new(info_hash(1), [8; 20], 6881);
    let source = "10.0.0.2:1".parse().unwrap();
    let mut least = usize::MAX;
    for _ in 0..50 {
        let answer = registry.announce(now, &source, None, &announce).unwrap();
        assert!(answer.peers.iter().all(|peer| peer.addr.port() % 20 == 0));
        assert_eq!(answer.figures.incomplete, 200);
        least = least.min(answer.peers.len());
    }
    assert!(least > 0);
}
