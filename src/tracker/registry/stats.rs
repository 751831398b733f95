//! What a registry counts.

use crate::protocol::{Refusal, TrackerRequest};

/// What a registry holds, and what it was asked and refused since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryStats {
    /// How many peers are registered.
    pub peers: u64,
    /// How many contents have an owner.
    pub contents: u64,
    /// How many pairs of a peer and a content there are.
    pub ownerships: u64,
    /// How many peers were forgotten for their silence.
    pub expired: u64,
    /// How many requests of each kind were answered.
    pub requests: RequestCounts,
    /// How many of them were refused, by reason.
    pub refusals: RefusalCounts,
}

/// Requests by kind, refused ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestCounts {
    /// REGISTER, heartbeats included.
    pub register: u64,
    /// OWN.
    pub own: u64,
    /// NEED.
    pub need: u64,
    /// UPDATE.
    pub update: u64,
    /// EXIT.
    pub exit: u64,
}

impl RequestCounts {
    pub(crate) fn count(&mut self, request: &TrackerRequest) {
        *match request {
            TrackerRequest::Register { .. } => &mut self.register,
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
    pub malformed: u64,
    pub busy: u64,
    pub shutting_down: u64,
}

impl RefusalCounts {
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
            Refusal::Malformed => &mut self.malformed,
            Refusal::Busy => &mut self.busy,
            Refusal::ShuttingDown => &mut self.shutting_down,
        } += 1;
    }
}
