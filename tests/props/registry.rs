//! The registry against a naive one of lists and linear scans.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bt_lite::protocol::{
    ContentKey, Found, ListedOwner, OwnEntry, OwnState, OwnerRef, Refusal, Token, TrackerReply,
    TrackerRequest, Upload,
};
use bt_lite::tracker::ShardedRegistry;
use bt_lite::tracker::registry::Registry;
use bt_lite::{Addr, ContentId, ContentName};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::subject::{Subject, config};

/// Three hosts that tell IP from IP, and one of another transport.
const SOURCES: [&str; 4] = [
    "10.0.0.1:999",
    "10.0.0.2:999",
    "[2001:db8::1]:999",
    "memory:a:17",
];

const LISTENS: [Option<&str>; 8] = [
    None,
    Some("0.0.0.0:1"),
    Some("[::]:2"),
    Some("10.0.0.1:1"),
    Some("10.0.0.2:0"),
    Some("10.0.0.2:3"),
    Some("[2001:db8::1]:4"),
    Some("memory:a"),
];

/// A lease of 22.5 s ends between two of the whole seconds in which the test
/// counts, wherever its last tick ends.
const LEASE_SECONDS: u64 = 23;

#[derive(Debug, Clone)]
enum Proof {
    None,
    /// One that was issued, however long ago.
    Issued(prop::sample::Index),
    /// One that was issued, with a bit turned.
    Forged(prop::sample::Index, u8),
    Random([u8; 16]),
}

#[derive(Debug, Clone)]
struct Entry {
    content: u8,
    name: u8,
    length: u64,
    state: OwnState,
}

#[derive(Debug, Clone)]
enum Op {
    Register(usize, usize, Proof),
    Own(Proof, Vec<Entry>),
    NeedId(Proof, u8, u16),
    NeedName(Proof, u8, u16),
    Update(Proof, Vec<(prop::sample::Index, u64)>),
    Exit(Proof),
    Wait(u64),
}

fn proof() -> impl Strategy<Value = Proof> {
    prop_oneof![
        12 => any::<prop::sample::Index>().prop_map(Proof::Issued),
        1 => (any::<prop::sample::Index>(), 0u8..128).prop_map(|(i, bit)| Proof::Forged(i, bit)),
        1 => any::<[u8; 16]>().prop_map(Proof::Random),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let state = prop_oneof![
        3 => Just(OwnState::Complete),
        3 => Just(OwnState::Partial),
        2 => Just(OwnState::Gone),
    ];
    (0u8..7, 0u8..4, 0u64..3, state).prop_map(|(content, name, length, state)| Entry {
        content,
        name,
        length,
        state,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let register = prop_oneof![2 => Just(Proof::None), 3 => proof()];
    prop_oneof![
        5 => (0..SOURCES.len(), 0..LISTENS.len(), register)
            .prop_map(|(source, listen, proof)| Op::Register(source, listen, proof)),
        8 => (proof(), vec(entry(), 0..4)).prop_map(|(proof, entries)| Op::Own(proof, entries)),
        4 => (proof(), 0u8..7, 0u16..7).prop_map(|(proof, id, max)| Op::NeedId(proof, id, max)),
        3 => (proof(), 0u8..4, 0u16..7).prop_map(|(proof, name, max)| Op::NeedName(proof, name, max)),
        2 => (proof(), vec((any::<prop::sample::Index>(), any::<u64>()), 0..4))
            .prop_map(|(proof, uploads)| Op::Update(proof, uploads)),
        1 => proof().prop_map(Op::Exit),
        2 => (1u64..14).prop_map(Op::Wait),
    ]
}

fn content_id(number: u8) -> ContentId {
    ContentId::from_bytes([number; 32])
}

fn content_name(number: u8) -> ContentName {
    format!("name-{number}").parse().expect("valid")
}

struct Owning {
    id: ContentId,
    name: ContentName,
    complete: bool,
}

struct ModelPeer {
    token: Token,
    host: usize,
    listed: Option<Addr>,
    since: u64,
    owned: Vec<Owning>,
}

#[derive(Default)]
struct Model {
    now: u64,
    peers: Vec<ModelPeer>,
    lengths: Vec<(ContentId, u64)>,
}

impl Model {
    fn expire(&mut self) {
        let now = self.now;
        self.peers.retain(|peer| now - peer.since < LEASE_SECONDS);
        self.prune();
    }

    fn prune(&mut self) {
        let owned: BTreeSet<ContentId> = self.owned().map(|(_, owning)| owning.id).collect();
        self.lengths.retain(|(id, _)| owned.contains(id));
    }

    fn owned(&self) -> impl Iterator<Item = (&ModelPeer, &Owning)> {
        let peers = self.peers.iter();
        peers.flat_map(|peer| peer.owned.iter().map(move |owning| (peer, owning)))
    }

    fn peer(&self, token: Option<Token>) -> Option<usize> {
        self.peers.iter().position(|peer| Some(peer.token) == token)
    }

    /// What REGISTER must come to: the listed address, or the refusal.
    fn register(
        &self,
        host: usize,
        listen: Option<&str>,
        known: Option<usize>,
    ) -> Result<Option<Addr>, Refusal> {
        let source: Addr = SOURCES[host].parse().expect("valid");
        let listen = listen.map(|listen| listen.parse::<Addr>().expect("valid"));
        let listen = listen.filter(|addr| !addr.as_str().ends_with(":0"));
        let listen = listen.map(|addr| addr.filled_in_from(&source));
        if let Some(addr) = &listen
            && !addr.same_host(&source)
        {
            return Err(Refusal::ForeignAddress { addr: addr.clone() });
        }
        if known.is_none() {
            if self.peers.len() >= 7 {
                return Err(Refusal::Peers { max: 7 });
            }
            if self.peers.iter().filter(|peer| peer.host == host).count() >= 3 {
                return Err(Refusal::PeersPerHost { max: 3 });
            }
        }
        Ok(listen)
    }

    fn own(&mut self, peer: usize, entry: &OwnEntry) -> Result<(), Refusal> {
        let held = self.peers[peer].owned.iter().position(|o| o.id == entry.id);
        if entry.state == OwnState::Gone {
            if let Some(held) = held {
                self.peers[peer].owned.remove(held);
            }
            self.prune();
            return Ok(());
        }
        let owners = self.owned().filter(|(_, o)| o.id == entry.id).count();
        if held.is_none() {
            if self.peers[peer].owned.len() >= 3 {
                return Err(Refusal::ContentsPerPeer { max: 3 });
            }
            if owners >= 4 {
                return Err(Refusal::OwnersPerContent { max: 4 });
            }
            if owners == 0 && self.lengths.len() >= 5 {
                return Err(Refusal::Contents { max: 5 });
            }
        }
        let of_content = self.owned().filter(|(_, o)| o.id == entry.id);
        let names: BTreeSet<_> = of_content.map(|(_, o)| &o.name).collect();
        if !names.contains(&entry.name) {
            if names.len() >= 2 {
                return Err(Refusal::NamesPerContent { max: 2 });
            }
            if self.named(&entry.name).len() >= 2 {
                return Err(Refusal::ContentsPerName { max: 2 });
            }
        }
        let complete = entry.state == OwnState::Complete;
        match self.lengths.iter_mut().find(|(id, _)| *id == entry.id) {
            Some((_, length)) if complete => *length = entry.length,
            Some(_) => {}
            None => self.lengths.push((entry.id, entry.length)),
        }
        let owning = Owning {
            id: entry.id,
            name: entry.name.clone(),
            complete,
        };
        match held {
            Some(held) => self.peers[peer].owned[held] = owning,
            None => self.peers[peer].owned.push(owning),
        }
        Ok(())
    }

    fn named(&self, name: &ContentName) -> BTreeSet<ContentId> {
        let named = self.owned().filter(|(_, o)| o.name == *name);
        named.map(|(_, o)| o.id).collect()
    }

    fn check_need(&self, asker: usize, key: &ContentKey, max: u16, reply: &TrackerReply) {
        let ids = match key {
            ContentKey::Id(id) => self
                .lengths
                .iter()
                .map(|l| l.0)
                .filter(|i| i == id)
                .collect(),
            ContentKey::Name(name) => self.named(name),
        };
        let length = |id| self.lengths.iter().find(|l| l.0 == id).map(|l| l.1);
        let mut ids = ids.into_iter();
        match (ids.next(), ids.next()) {
            (None, _) => {
                assert_eq!(*reply, TrackerReply::Refused(Refusal::UnknownContent));
            }
            (Some(id), None) => {
                let TrackerReply::Found(found) = reply else {
                    panic!("{reply:?}, and {id} is owned");
                };
                assert_eq!(found.id, id);
                assert_eq!(Some(found.length), length(id));
                self.check_found(asker, key, max, found);
            }
            (Some(first), Some(second)) => {
                let TrackerReply::Ambiguous(listed) = reply else {
                    panic!("{reply:?}, and there are several");
                };
                let expected: BTreeSet<_> = [first, second]
                    .into_iter()
                    .chain(ids)
                    .map(|id| (id, length(id).expect("owned")))
                    .collect();
                assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), expected);
                assert_eq!(listed.len(), expected.len());
            }
        }
    }

    fn check_found(&self, asker: usize, key: &ContentKey, max: u16, found: &Found) {
        match key {
            ContentKey::Name(name) => assert_eq!(found.name, *name),
            ContentKey::Id(_) => assert!(self.named(&found.name).contains(&found.id)),
        }
        let asker = &self.peers[asker];
        let fit: Vec<(&Addr, bool)> = self
            .owned()
            .filter(|(peer, o)| o.id == found.id && peer.token != asker.token)
            .filter_map(|(peer, o)| Some((peer.listed.as_ref()?, o.complete)))
            .filter(|(addr, _)| Some(*addr) != asker.listed.as_ref())
            .collect();
        for ListedOwner { addr, complete, .. } in &found.owners {
            assert!(
                fit.contains(&(addr, *complete)),
                "{addr} is not to be named"
            );
        }
        let named: BTreeSet<_> = found.owners.iter().map(|owner| &owner.addr).collect();
        assert_eq!(named.len(), found.owners.len(), "an address twice");
        let all: BTreeSet<_> = fit.iter().map(|(addr, _)| addr).collect();
        assert_eq!(named.len(), all.len().min(max.into()).min(5));
    }

    fn counts(&self) -> (u64, u64, u64) {
        let contents = self.lengths.len();
        let owned = self.owned().count();
        (self.peers.len() as u64, contents as u64, owned as u64)
    }
}

struct Rig {
    registry: Subject,
    model: Model,
    start: Instant,
    issued: Vec<Token>,
    refs: Vec<OwnerRef>,
}

impl Rig {
    fn new(shards: Option<u32>) -> Self {
        let start = Instant::now();
        Self {
            registry: match shards {
                None => Subject::One(Registry::new(config(), [3; 32], 1).into()),
                Some(shards) => {
                    let sharded = ShardedRegistry::new(config(), [3; 32], 1, shards, start);
                    Subject::Sharded(sharded.into())
                }
            },
            model: Model::default(),
            start,
            issued: Vec::new(),
            refs: vec![OwnerRef(0), OwnerRef(u64::MAX)],
        }
    }

    fn token(&self, proof: &Proof) -> Option<Token> {
        match proof {
            Proof::None => None,
            Proof::Random(bytes) => Some(Token(*bytes)),
            Proof::Issued(_) | Proof::Forged(..) if self.issued.is_empty() => Some(Token([0; 16])),
            Proof::Issued(index) => Some(*index.get(&self.issued)),
            Proof::Forged(index, bit) => {
                let mut token = *index.get(&self.issued);
                token.0[usize::from(bit / 8)] ^= 1 << (bit % 8);
                Some(token)
            }
        }
    }

    fn handle(&mut self, source: usize, request: &TrackerRequest) -> TrackerReply {
        let now = self.start + Duration::from_secs(self.model.now);
        let source = SOURCES[source].parse().expect("valid");
        self.registry.handle(now, &source, request)
    }

    fn wait(&mut self, seconds: u64) {
        self.model.now += seconds;
        self.model.expire();
        let now = self.start + Duration::from_secs(self.model.now);
        while self.registry.poll_timeout().is_some_and(|at| at <= now) {
            self.registry.handle_timeout(now);
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Wait(seconds) => self.wait(*seconds),
            Op::Register(source, listen, proof) => self.register(*source, *listen, proof),
            Op::Own(proof, entries) => self.own(proof, entries),
            Op::NeedId(proof, id, max) => self.need(proof, content_id(*id).into(), *max),
            Op::NeedName(proof, name, max) => self.need(proof, content_name(*name).into(), *max),
            Op::Update(proof, uploads) => {
                let token = self.token(proof).expect("a token");
                let uploads = uploads.iter().map(|(index, bytes)| Upload {
                    owner: *index.get(&self.refs),
                    bytes: *bytes,
                });
                let uploads = uploads.collect();
                let reply = self.handle(0, &TrackerRequest::Update { token, uploads });
                self.expect_done(token, &reply);
            }
            Op::Exit(proof) => {
                let token = self.token(proof).expect("a token");
                let reply = self.handle(1, &TrackerRequest::Exit { token });
                self.expect_done(token, &reply);
                self.model.peers.retain(|peer| peer.token != token);
                self.model.prune();
            }
        }
        let stats = self.registry.stats();
        let counts = (stats.peers, stats.contents, stats.ownerships);
        assert_eq!(counts, self.model.counts());
        self.registry.check_invariants();
    }

    fn expect_done(&self, token: Token, reply: &TrackerReply) {
        let expected = match self.model.peer(Some(token)) {
            Some(_) => TrackerReply::Done,
            None => TrackerReply::Refused(Refusal::UnknownToken),
        };
        assert_eq!(*reply, expected);
    }

    fn register(&mut self, source: usize, listen: usize, proof: &Proof) {
        let token = self.token(proof);
        let listen = LISTENS[listen];
        let known = self.model.peer(token);
        let expected = self.model.register(source, listen, known);
        let request = TrackerRequest::Register {
            listen: listen.map(|listen| listen.parse().expect("valid")),
            token,
        };
        let reply = self.handle(source, &request);
        let listed = match expected {
            Ok(listed) => listed,
            Err(refusal) => {
                assert_eq!(reply, TrackerReply::Refused(refusal));
                return;
            }
        };
        let TrackerReply::Registered(registered) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(registered.listed, listed);
        let since = self.model.now;
        if let Some(known) = known {
            assert_eq!(Some(registered.token), token);
            let peer = &mut self.model.peers[known];
            (peer.listed, peer.since) = (listed, since);
        } else {
            assert!(!self.issued.contains(&registered.token), "a token again");
            self.issued.push(registered.token);
            self.model.peers.push(ModelPeer {
                token: registered.token,
                host: source,
                listed,
                since,
                owned: Vec::new(),
            });
        }
    }

    fn own(&mut self, proof: &Proof, entries: &[Entry]) {
        let token = self.token(proof).expect("a token");
        let entries: Vec<OwnEntry> = entries
            .iter()
            .map(|entry| OwnEntry {
                id: content_id(entry.content),
                name: content_name(entry.name),
                length: entry.length,
                state: entry.state,
            })
            .collect();
        let expected = match self.model.peer(Some(token)) {
            None => Err(Refusal::UnknownToken),
            Some(peer) => {
                let model = &mut self.model;
                let outcomes = entries.iter().map(|entry| model.own(peer, entry));
                let outcomes: Vec<_> = outcomes.collect();
                outcomes.into_iter().find(Result::is_err).unwrap_or(Ok(()))
            }
        };
        let reply = self.handle(2, &TrackerRequest::Own { token, entries });
        match expected {
            Ok(()) => assert_eq!(reply, TrackerReply::Done),
            Err(refusal) => assert_eq!(reply, TrackerReply::Refused(refusal)),
        }
    }

    fn need(&mut self, proof: &Proof, key: ContentKey, max_owners: u16) {
        let token = self.token(proof).expect("a token");
        let request = TrackerRequest::Need {
            token,
            key: key.clone(),
            max_owners,
        };
        let reply = self.handle(3, &request);
        match self.model.peer(Some(token)) {
            None => assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken)),
            Some(asker) => self.model.check_need(asker, &key, max_owners, &reply),
        }
        if let TrackerReply::Found(found) = reply {
            self.refs
                .extend(found.owners.iter().map(|owner| owner.owner));
        }
    }
}

proptest! {
    #[test]
    fn registry_agrees_with_lists_and_scans(
        shards in prop_oneof![2 => Just(None), 1 => (1u32..9).prop_map(Some)],
        ops in vec(op(), 1..120),
    ) {
        let mut rig = Rig::new(shards);
        for op in &ops {
            rig.step(op);
        }
        // Nothing stays behind once all have been silent.
        rig.wait(LEASE_SECONDS);
        prop_assert_eq!(rig.model.counts(), (0, 0, 0));
        prop_assert_eq!(rig.registry.stats().peers, 0);
        prop_assert_eq!(rig.registry.poll_timeout(), None);
        rig.registry.check_invariants();
    }

    #[test]
    fn registry_with_the_same_key_and_calls_gives_the_same_replies(ops in vec(op(), 1..60)) {
        let (mut one, mut two) = (Rig::new(None), Rig::new(None));
        two.start = one.start;
        for op in &ops {
            one.step(op);
            two.step(op);
        }
        prop_assert_eq!(one.registry.stats(), two.registry.stats());
        prop_assert_eq!(one.issued, two.issued);
        prop_assert_eq!(one.refs, two.refs);
    }

    #[test]
    fn token_that_was_not_issued_changes_nothing_of_anybody(
        forgeries in vec((proof(), op()), 1..30),
    ) {
        let mut rig = Rig::new(None);
        // Two peers that know of each other, and one that has left.
        for op in [
            Op::Register(0, 3, Proof::None),
            Op::Register(1, 5, Proof::None),
            Op::Register(2, 6, Proof::None),
        ] {
            rig.step(&op);
        }
        let gone = rig.issued.pop().unwrap();
        rig.handle(2, &TrackerRequest::Exit { token: gone });
        let tokens = rig.issued.clone();
        for &token in &tokens {
            let entries = vec![OwnEntry {
                id: content_id(1),
                name: content_name(1),
                length: 1,
                state: OwnState::Complete,
            }];
            let reply = rig.handle(0, &TrackerRequest::Own { token, entries });
            prop_assert_eq!(reply, TrackerReply::Done);
        }
        let before = rig.registry.stats();
        for (proof, op) in &forgeries {
            let token = match proof {
                Proof::None | Proof::Issued(_) => gone,
                forged => rig.token(forged).unwrap(),
            };
            let request = match op {
                Op::Own(_, entries) => TrackerRequest::Own {
                    token,
                    entries: entries
                        .iter()
                        .map(|entry| OwnEntry {
                            id: content_id(entry.content),
                            name: content_name(entry.name),
                            length: entry.length,
                            state: OwnState::Gone,
                        })
                        .collect(),
                },
                Op::Update(..) => TrackerRequest::Update {
                    token,
                    uploads: vec![Upload { owner: OwnerRef(1 << 32), bytes: 1 << 40 }],
                },
                Op::NeedId(..) | Op::NeedName(..) => TrackerRequest::Need {
                    token,
                    key: content_id(1).into(),
                    max_owners: 5,
                },
                _ => TrackerRequest::Exit { token },
            };
            let reply = rig.handle(3, &request);
            prop_assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken));
        }
        let after = rig.registry.stats();
        prop_assert_eq!(
            (after.peers, after.contents, after.ownerships),
            (before.peers, before.contents, before.ownerships)
        );
        // Both still see each other.
        for (&token, other) in tokens.iter().zip(["10.0.0.2:3", "10.0.0.1:1"]) {
            let key = content_id(1).into();
            let reply = rig.handle(0, &TrackerRequest::Need { token, key, max_owners: 5 });
            let TrackerReply::Found(found) = reply else {
                panic!("{reply:?}");
            };
            let addrs: Vec<_> = found.owners.iter().map(|owner| owner.addr.as_str()).collect();
            prop_assert_eq!(addrs, vec![other]);
        }
    }
}
