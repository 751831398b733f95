//! A registry, and peers of several hosts that follow the protocol.

use std::time::Instant;

use bt_lite::protocol::{
    ContentKey, Found, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry, Token, TrackerReply,
    TrackerRequest, Upload,
};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
use bt_lite::{Addr, ContentId};

/// A peer, as it sees itself.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) addr: Addr,
    pub(crate) token: Token,
}

pub(crate) struct World {
    pub(crate) registry: ShardedRegistry,
    pub(crate) now: Instant,
}

pub(crate) fn id(number: u32) -> ContentId {
    ContentId::of(&number.to_le_bytes())
}

pub(crate) fn addr(host: u8, port: u16) -> Addr {
    format!("10.0.0.{host}:{port}").parse().unwrap()
}

pub(crate) fn entry(number: u32, name: &str) -> OwnEntry {
    OwnEntry::new(id(number), name.parse().unwrap(), 1, OwnState::Complete)
}

/// How many ownerships one step of expiry touches at most.
pub(crate) const STEP: u64 = 128;

/// How many entries one OWN has.
const BATCH: u32 = 100;

impl World {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let now = Instant::now();
        Self {
            registry: ShardedRegistry::new(config, [4; 32], 1, 1, now),
            now,
        }
    }

    pub(crate) fn handle(&mut self, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        self.registry.handle(self.now, source, request)
    }

    pub(crate) fn register(&mut self, host: u8, port: u16) -> Peer {
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

    /// A heartbeat of a peer that listens at this port from here on.
    pub(crate) fn heartbeat(&mut self, peer: &Peer, port: u16) {
        let listen = format!("0.0.0.0:{port}").parse().unwrap();
        let request = TrackerRequest::Register {
            listen: Some(listen),
            token: Some(peer.token),
        };
        let reply = self.handle(&peer.addr, &request);
        assert!(matches!(reply, TrackerReply::Registered(r) if r.token == peer.token));
    }

    pub(crate) fn own_all(&mut self, peer: &Peer, entries: Vec<OwnEntry>) -> Vec<RefusedEntry> {
        let token = peer.token;
        match self.handle(&peer.addr, &TrackerRequest::Own { token, entries }) {
            TrackerReply::Done => Vec::new(),
            TrackerReply::Partly(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn own(&mut self, peer: &Peer, number: u32, name: &str) -> Result<(), Refusal> {
        let refused = self.own_all(peer, vec![entry(number, name)]);
        refused
            .into_iter()
            .next()
            .map_or(Ok(()), |refused| Err(refused.refusal))
    }

    /// Owns contents, each by its own name. Returns how many were accepted.
    pub(crate) fn own_many(&mut self, peer: &Peer, numbers: std::ops::Range<u32>) -> u32 {
        let mut taken = 0;
        let numbers: Vec<u32> = numbers.collect();
        for batch in numbers.chunks(BATCH as usize) {
            let entries = batch.iter().map(|n| entry(*n, &format!("name-{n}")));
            let refused = self.own_all(peer, entries.collect());
            taken += (batch.len() - refused.len()) as u32;
        }
        taken
    }

    pub(crate) fn need(&mut self, peer: &Peer, key: ContentKey) -> TrackerReply {
        let request = TrackerRequest::Need {
            token: peer.token,
            key,
            max_owners: 50,
        };
        self.handle(&peer.addr, &request)
    }

    pub(crate) fn found(&mut self, peer: &Peer, number: u32) -> Found {
        match self.need(peer, id(number).into()) {
            TrackerReply::Found(found) => found,
            other => panic!("{other:?}"),
        }
    }

    /// The contents of a name.
    pub(crate) fn named(&mut self, peer: &Peer, name: &str) -> Vec<ContentId> {
        let key = ContentKey::Name(name.parse().unwrap());
        match self.need(peer, key) {
            TrackerReply::Found(found) => vec![found.id],
            TrackerReply::Ambiguous(contents) => contents.into_iter().map(|(id, _)| id).collect(),
            TrackerReply::Refused(Refusal::UnknownContent) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn owner_ref(&mut self, asker: &Peer, number: u32, owner: &Peer) -> OwnerRef {
        let owners = self.found(asker, number).owners;
        let owner = owners.into_iter().find(|listed| listed.addr == owner.addr);
        owner.expect("it is listed").owner
    }

    pub(crate) fn report(&mut self, peer: &Peer, owner: OwnerRef, bytes: u64) {
        let uploads = vec![Upload::new(owner, bytes)];
        let token = peer.token;
        let reply = self.handle(&peer.addr, &TrackerRequest::Update { token, uploads });
        assert_eq!(reply, TrackerReply::Done);
    }

    /// Does whatever is due, and checks that each step is bounded.
    pub(crate) fn catch_up(&mut self) {
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

    pub(crate) fn exit(&mut self, peer: &Peer) {
        let token = peer.token;
        let reply = self.handle(&peer.addr, &TrackerRequest::Exit { token });
        assert_eq!(reply, TrackerReply::Done);
    }
}
