//! The registry, compared with a naive one of lists and linear scans.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bt_lite::protocol::{
    ContentKey, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry, Token, TrackerReply,
    TrackerRequest, Upload,
};
use bt_lite::tracker::ShardedRegistry;
use bt_lite::{ContentId, ContentName};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::registry_model::config;
use crate::registry_model::{LEASE_SECONDS, Model, ModelPeer, SOURCES};

pub(crate) const LISTENS: [Option<&str>; 8] = [
    None,
    Some("0.0.0.0:1"),
    Some("[::]:2"),
    Some("10.0.0.1:1"),
    Some("10.0.0.2:0"),
    Some("10.0.0.2:3"),
    Some("[2001:db8::1]:4"),
    Some("memory:a"),
];

#[derive(Debug, Clone)]
pub(crate) enum Proof {
    None,
    /// A token that was issued, however long ago.
    Issued(prop::sample::Index),
    /// A token that was issued, with one bit flipped.
    Forged(prop::sample::Index, u8),
    Random([u8; 16]),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) content: u8,
    pub(crate) name: u8,
    pub(crate) length: u64,
    pub(crate) state: OwnState,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Register(usize, usize, Proof),
    Own(Proof, Vec<Entry>),
    NeedId(Proof, u8, u16),
    NeedName(Proof, u8, u16),
    Update(Proof, Vec<prop::sample::Index>),
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
        2 => (proof(), vec(any::<prop::sample::Index>(), 0..4))
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

struct Rig {
    registry: ShardedRegistry,
    model: Model,
    start: Instant,
    issued: Vec<Token>,
    refs: Vec<OwnerRef>,
    /// The token of the owner that each reference names.
    owners: BTreeMap<OwnerRef, Token>,
}

impl Rig {
    fn new(start: Instant, shards: u32) -> Self {
        Self {
            registry: ShardedRegistry::new(config(), [3; 32], 1, shards, start),
            model: Model::default(),
            start,
            issued: Vec::new(),
            refs: vec![OwnerRef(u64::MAX)],
            owners: BTreeMap::new(),
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
        self.apply(op);
        self.registry.check_invariants();
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Wait(seconds) => self.wait(*seconds),
            Op::Register(source, listen, proof) => self.register(*source, *listen, proof),
            Op::Own(proof, entries) => self.own(proof, entries),
            Op::NeedId(proof, id, max) => self.need(proof, content_id(*id).into(), *max),
            Op::NeedName(proof, name, max) => self.need(proof, content_name(*name).into(), *max),
            Op::Update(proof, uploads) => {
                let token = self.token(proof).expect("a token");
                let uploads = uploads
                    .iter()
                    .map(|index| Upload::new(*index.get(&self.refs), u64::MAX));
                let uploads: Vec<Upload> = uploads.collect();
                let owners = uploads.iter().map(|upload| upload.owner);
                // A peer credits neither itself nor earlier peers in its slot.
                let [a, b, c, d, ..] = token.0;
                let own = u32::from_le_bytes([a, b, c, d]);
                let owners = owners.filter(|owner| owner.0 as u32 != own);
                let owners = owners.map(|owner| self.owners.get(&owner).copied());
                let owners: Vec<Option<Token>> = owners.collect();
                let reply = self.handle(0, &TrackerRequest::Update { token, uploads });
                self.expect_done(token, &reply);
                self.model.heard(token);
                if let Some(reporter) = self.model.peer(Some(token)) {
                    self.model.update(reporter, &owners);
                }
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
        let known = self.model.registering(source, token);
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
            assert!(
                !self.issued.contains(&registered.token),
                "a token was issued twice"
            );
            self.issued.push(registered.token);
            self.model.peers.push(ModelPeer {
                token: registered.token,
                host: source,
                listed,
                since,
                owned: Vec::new(),
                credited: false,
                reported: since,
            });
        }
    }

    fn own(&mut self, proof: &Proof, entries: &[Entry]) {
        let token = self.token(proof).expect("a token");
        let entries: Vec<OwnEntry> = entries
            .iter()
            .map(|entry| {
                OwnEntry::new(
                    content_id(entry.content),
                    content_name(entry.name),
                    entry.length,
                    entry.state,
                )
            })
            .collect();
        let expected = match self.model.peer(Some(token)) {
            None => Err(Refusal::UnknownToken),
            Some(peer) => {
                let model = &mut self.model;
                let outcomes = (0..).zip(&entries).filter_map(|(at, entry)| {
                    let refusal = model.own(peer, entry).err()?;
                    Some(RefusedEntry::new(at, refusal))
                });
                Ok(outcomes.collect::<Vec<_>>())
            }
        };
        self.model.heard(token);
        let reply = self.handle(2, &TrackerRequest::Own { token, entries });
        match expected {
            Ok(none) if none.is_empty() => assert_eq!(reply, TrackerReply::Done),
            Ok(refused) => assert_eq!(reply, TrackerReply::Partly(refused)),
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
        self.model.heard(token);
        match self.model.peer(Some(token)) {
            None => assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken)),
            Some(asker) => self.model.check_need(asker, &key, max_owners, &reply),
        }
        if let TrackerReply::Found(found) = reply {
            for owner in found.owners {
                self.refs.push(owner.owner);
                // If two peers listen at one address, either may be meant.
                let listed = |peer: &&ModelPeer| peer.listed.as_ref() == Some(&owner.addr);
                let mut peers = self.model.peers.iter().filter(listed);
                match (peers.next(), peers.next()) {
                    (Some(peer), None) => drop(self.owners.insert(owner.owner, peer.token)),
                    _ => drop(self.refs.pop()),
                }
            }
        }
    }
}

/// Runs a sequence of requests. Its parts are looked at after those that are `checked`, by their
/// numbers, and at the end.
pub(crate) fn run(shards: u32, ops: &[Op], checked: fn(usize) -> bool) {
    let mut rig = Rig::new(Instant::now(), shards);
    for (number, op) in ops.iter().enumerate() {
        match checked(number) {
            true => rig.step(op),
            false => rig.apply(op),
        }
    }
    rig.registry.check_invariants();
    // Nothing is left once all peers have been silent.
    rig.wait(LEASE_SECONDS);
    assert_eq!(rig.model.counts(), (0, 0, 0));
    assert_eq!(rig.registry.stats().peers, 0);
    assert_eq!(rig.registry.poll_timeout(), None);
    rig.registry.check_invariants();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 8,
        ..ProptestConfig::default()
    })]

    /// `PROPTEST_CASES=125000 cargo test --release --test props registry_agrees`
    /// runs a million sequences.
    #[test]
    fn registry_agrees_with_lists_and_scans(
        shards in prop_oneof![2 => Just(1), 1 => 1u32..9],
        ops in vec(op(), 1..120),
    ) {
        run(shards, &ops, |_| true);
    }
}

proptest! {
    #[test]
    fn registry_with_the_same_key_and_calls_gives_the_same_replies(ops in vec(op(), 1..60)) {
        let start = Instant::now();
        let (mut one, mut two) = (Rig::new(start, 1), Rig::new(start, 1));
        for op in &ops {
            one.step(op);
            two.step(op);
        }
        prop_assert_eq!(one.registry.stats(), two.registry.stats());
        prop_assert_eq!(one.issued, two.issued);
        prop_assert_eq!(one.refs, two.refs);
    }

    #[test]
    fn token_that_was_not_issued_changes_nothing(
        forgeries in vec((proof(), op()), 1..30),
    ) {
        let mut rig = Rig::new(Instant::now(), 1);
        // Two peers that see each other, and one that has left.
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
            let entries = vec![OwnEntry::new(content_id(1), content_name(1), 1, OwnState::Complete)];
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
                        .map(|entry| OwnEntry::new(content_id(entry.content), content_name(entry.name), entry.length, OwnState::Gone))
                        .collect(),
                },
                Op::Update(..) => TrackerRequest::Update {
                    token,
                    uploads: vec![Upload::new(OwnerRef(1 << 32), 1 << 40)],
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
