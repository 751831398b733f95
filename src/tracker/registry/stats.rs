//! What a registry counts.

use crate::protocol::{Refusal, TrackerRequest};

/// What a registry holds, and how many requests it has answered and refused
/// since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct RegistryStats {
    /// How many peers are registered.
    pub peers: u64,
    /// How many contents have an owner.
    pub contents: u64,
    /// How many pairs of a peer and a content there are.
    pub ownerships: u64,
    /// How many peers were forgotten because their lease ran out.
    pub expired: u64,
    /// How many times a peer told what it has of a content: the entries of all OWN
    /// requests, withdrawn and refused ones included.
    pub announced: u64,
    /// How many requests of each kind were answered.
    pub requests: RequestCounts,
    /// How many requests of each kind arrive in a second: an average that
    /// halves every five seconds, as of the last request.
    pub rates: RequestsPerSecond,
    /// Refusals by reason. A refused entry of OWN counts like a refused
    /// request.
    pub refusals: RefusalCounts,
}

/// How many kinds of requests there are.
pub(crate) const KINDS: usize = 7;

/// Requests by kind, including refused ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct RequestCounts {
    /// REGISTER, heartbeats included, and ZONE.
    pub register: u64,
    /// OWN.
    pub own: u64,
    /// NEED.
    pub need: u64,
    /// UPDATE.
    pub update: u64,
    /// EXIT.
    pub exit: u64,
    /// Announces of BitTorrent clients, over HTTP and UDP.
    pub announce: u64,
    /// Scrapes of BitTorrent clients, over HTTP and UDP.
    pub scrape: u64,
}

/// Requests per second, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct RequestsPerSecond {
    /// REGISTER, heartbeats included, and ZONE.
    pub register: u64,
    /// OWN.
    pub own: u64,
    /// NEED.
    pub need: u64,
    /// UPDATE.
    pub update: u64,
    /// EXIT.
    pub exit: u64,
    /// Announces of BitTorrent clients, over HTTP and UDP.
    pub announce: u64,
    /// Scrapes of BitTorrent clients, over HTTP and UDP.
    pub scrape: u64,
}

impl RequestsPerSecond {
    /// Adds up the rates of all shards, each in the order of the fields.
    pub(crate) fn sum(shards: impl Iterator<Item = [f64; KINDS]>) -> Self {
        let mut sum = [0.0; KINDS];
        for rates in shards {
            sum.iter_mut()
                .zip(rates)
                .for_each(|(sum, rate)| *sum += rate);
        }
        let [register, own, need, update, exit, announce, scrape] =
            sum.map(|rate| rate.round() as u64);
        Self {
            register,
            own,
            need,
            update,
            exit,
            announce,
            scrape,
        }
    }
}

impl RequestCounts {
    /// The counts in the order of the fields.
    pub(super) fn values(&self) -> [u64; KINDS] {
        [
            self.register,
            self.own,
            self.need,
            self.update,
            self.exit,
            self.announce,
            self.scrape,
        ]
    }

    /// Adds the counts of another shard.
    pub(super) fn add(&mut self, other: &Self) {
        self.register += other.register;
        self.own += other.own;
        self.need += other.need;
        self.update += other.update;
        self.exit += other.exit;
        self.announce += other.announce;
        self.scrape += other.scrape;
    }

    /// Counts one request.
    pub(crate) fn count(&mut self, request: &TrackerRequest) {
        *match request {
            TrackerRequest::Register { .. }
            | TrackerRequest::RegisterAlso { .. }
            | TrackerRequest::Zone { .. } => &mut self.register,
            TrackerRequest::Own { .. } => &mut self.own,
            TrackerRequest::Need { .. } => &mut self.need,
            TrackerRequest::Update { .. } => &mut self.update,
            TrackerRequest::Exit { .. } => &mut self.exit,
        } += 1;
    }
}

/// Refusals by reason: one field for each [`Refusal`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
#[expect(missing_docs, reason = "each field is named like its `Refusal`")]
pub struct RefusalCounts {
    pub unknown_token: u64,
    pub unknown_content: u64,
    pub foreign_address: u64,
    pub peers_per_host: u64,
    pub peers: u64,
    pub contents_per_peer: u64,
    pub owners_per_content: u64,
    pub contents: u64,
    pub names_per_content: u64,
    pub contents_per_name: u64,
    pub contents_per_host: u64,
    pub ownerships_per_host: u64,
    pub ownerships: u64,
    pub malformed: u64,
    pub busy: u64,
    pub shutting_down: u64,
    pub denied: u64,
}

impl RefusalCounts {
    /// Adds the counts of another shard.
    pub(super) fn add(&mut self, other: &Self) {
        self.unknown_token += other.unknown_token;
        self.unknown_content += other.unknown_content;
        self.foreign_address += other.foreign_address;
        self.peers_per_host += other.peers_per_host;
        self.peers += other.peers;
        self.contents_per_peer += other.contents_per_peer;
        self.owners_per_content += other.owners_per_content;
        self.contents += other.contents;
        self.names_per_content += other.names_per_content;
        self.contents_per_name += other.contents_per_name;
        self.contents_per_host += other.contents_per_host;
        self.ownerships_per_host += other.ownerships_per_host;
        self.ownerships += other.ownerships;
        self.malformed += other.malformed;
        self.busy += other.busy;
        self.shutting_down += other.shutting_down;
        self.denied += other.denied;
    }

    /// Counts one refusal.
    pub(crate) fn count(&mut self, refusal: &Refusal) {
        *match refusal {
            Refusal::UnknownToken => &mut self.unknown_token,
            Refusal::UnknownContent => &mut self.unknown_content,
            Refusal::ForeignAddress { .. } => &mut self.foreign_address,
            Refusal::PeersPerHost { .. } => &mut self.peers_per_host,
            Refusal::Peers { .. } => &mut self.peers,
            Refusal::ContentsPerPeer { .. } => &mut self.contents_per_peer,
            Refusal::OwnersPerContent { .. } => &mut self.owners_per_content,
            Refusal::Contents { .. } => &mut self.contents,
            Refusal::NamesPerContent { .. } => &mut self.names_per_content,
            Refusal::ContentsPerName { .. } => &mut self.contents_per_name,
            Refusal::ContentsPerHost { .. } => &mut self.contents_per_host,
            Refusal::OwnershipsPerHost { .. } => &mut self.ownerships_per_host,
            Refusal::Ownerships { .. } => &mut self.ownerships,
            Refusal::Malformed => &mut self.malformed,
            Refusal::Busy => &mut self.busy,
            Refusal::ShuttingDown => &mut self.shutting_down,
            Refusal::Denied => &mut self.denied,
        } += 1;
    }
}
