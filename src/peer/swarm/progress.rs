//! How far a content is, as users are told; and what is counted for it.

use std::collections::BTreeSet;
use std::time::Instant;

use super::rate::RateMeter;
use crate::protocol::PeerId;

/// How many contributors are counted at most.
const MAX_CONTRIBUTORS: usize = 4096;

/// How far a content is.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The content's length in bytes, once it is known.
    pub length: Option<u64>,
    /// Its number of chunks, once it is known.
    pub chunks: Option<u32>,
    /// Bytes that are verified and stored.
    pub verified_bytes: u64,
    /// Chunks that are verified and stored.
    pub verified_chunks: u32,
    /// Bytes of blocks that arrived, used or not.
    pub downloaded: u64,
    /// Bytes of blocks that were sent.
    pub uploaded: u64,
    /// Bytes that arrived twice, too late, or bad.
    pub wasted: u64,
    /// Bytes per second that arrive at present.
    pub rate: f64,
    /// Owners that are sending at present.
    pub owners: u32,
    /// Peers that sent something of what is stored.
    pub senders: u32,
    /// Links that are up, without those that wait for a place.
    pub links: u32,
    /// If busy owners let this peer wait for a place: how many get one there until this
    /// peer does, itself included, at the owner where they are fewest. `None` if it waits
    /// nowhere. Other owners may be serving it meanwhile.
    pub place_in_line: Option<u32>,
}

/// What the machine counts about its content.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) downloaded: u64,
    pub(super) uploaded: u64,
    pub(super) wasted: u64,
    pub(super) rate: RateMeter,
    /// Peers that sent something of what is stored.
    contributors: BTreeSet<PeerId>,
}

impl Counters {
    pub(super) fn new(now: Instant) -> Self {
        let mut counters = Self::default();
        counters.rate.began(now);
        counters
    }

    /// A peer sent something of what is stored.
    pub(super) fn contributed(&mut self, peer: PeerId) {
        if self.contributors.len() < MAX_CONTRIBUTORS {
            self.contributors.insert(peer);
        }
    }

    /// The progress, as far as it is counted here.
    pub(super) fn progress(&self, now: Instant) -> Progress {
        Progress {
            downloaded: self.downloaded,
            uploaded: self.uploaded,
            wasted: self.wasted,
            rate: self.rate.rate(now).unwrap_or(0.0),
            senders: self.contributors.len() as u32,
            ..Progress::default()
        }
    }
}
