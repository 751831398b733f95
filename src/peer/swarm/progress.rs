//! How far a content is, as users are told; and what is counted for it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::BannedPeer;
use super::rate::RateMeter;
use super::throughput::Throughput;
use crate::protocol::PeerId;

/// How many contributors are counted at most.
const MAX_CONTRIBUTORS: usize = 4096;

/// How many peers that were banned are remembered for those who ask.
const MAX_BANNED: usize = 32;

/// How far a content is.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Progress {
    /// The content's length in bytes, once it is known. Of a torrent of which only some files
    /// are wanted this, and all that counts what is here, is about the pieces that have bytes
    /// of these files.
    pub length: Option<u64>,
    /// Its number of chunks, once it is known.
    pub chunks: Option<u32>,
    /// Bytes that are verified and stored.
    pub verified_bytes: u64,
    /// Chunks that are verified and stored.
    pub verified_chunks: u32,
    /// Bytes that are verified and stored beside those, of pieces that are not wanted.
    pub unwanted_bytes: u64,
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
    /// Whether a limit of this side
    /// ([`Peer::set_rate_limits`](crate::Peer::set_rate_limits) and the like) bounds how fast the
    /// content arrives: requests waited for it for most of the last seconds. Otherwise the
    /// others, or the lines, do. `false` if the download is paused or complete.
    pub limited: bool,
}

/// Bytes of blocks that arrived in vain. Together they are
/// [`Progress::wasted`], as long as the content has a task; one
/// that is asleep has forgotten how it was wasted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Waste {
    /// Blocks that were here already, or are not wanted any more.
    pub late: u64,
    /// Chunks whose hash was wrong.
    pub bad: u64,
    /// Blocks of chunks that were given up before they were whole, and blocks that were
    /// asked for by a length that turned out to be wrong.
    pub dropped: u64,
}

impl Waste {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.late + self.bad + self.dropped
    }

    /// What came since it was `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            late: self.late - before.late,
            bad: self.bad - before.bad,
            dropped: self.dropped - before.dropped,
        }
    }

    /// Adds more.
    pub(crate) fn add(&mut self, more: &Self) {
        self.late += more.late;
        self.bad += more.bad;
        self.dropped += more.dropped;
    }
}

/// Bytes of blocks that went from one zone to another: over links on which both sides have
/// said that they are in different [zones](crate::Zone).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct FarBytes {
    /// Those that arrived, used or not.
    pub downloaded: u64,
    /// Those that were sent.
    pub uploaded: u64,
}

impl FarBytes {
    /// What came since it was `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            downloaded: self.downloaded - before.downloaded,
            uploaded: self.uploaded - before.uploaded,
        }
    }

    /// Adds more.
    pub(crate) fn add(&mut self, more: &Self) {
        self.downloaded += more.downloaded;
        self.uploaded += more.uploaded;
    }
}

/// What the machine counts about its content.
#[derive(Debug)]
pub(super) struct Counters {
    downloaded: u64,
    uploaded: u64,
    pub(super) waste: Waste,
    pub(super) far: FarBytes,
    /// Requests of this side that were rejected.
    pub(super) rejected: u64,
    pub(super) rate: RateMeter,
    down: Throughput,
    up: Throughput,
    /// The peers that were banned last.
    banned: VecDeque<BannedPeer>,
    /// Peers that sent something of what is stored.
    contributors: BTreeSet<PeerId>,
}

impl Counters {
    pub(super) fn new(now: Instant) -> Self {
        let mut counters = Self {
            downloaded: 0,
            uploaded: 0,
            waste: Waste::default(),
            far: FarBytes::default(),
            rejected: 0,
            rate: RateMeter::default(),
            down: Throughput::new(now),
            up: Throughput::new(now),
            banned: VecDeque::new(),
            contributors: BTreeSet::new(),
        };
        counters.rate.began(now);
        counters
    }

    /// Bytes of blocks arrived, used or not.
    pub(super) fn downloaded(&mut self, now: Instant, bytes: u64) {
        self.downloaded += bytes;
        self.down.add(now, bytes);
    }

    /// Bytes of blocks were sent.
    pub(super) fn uploaded(&mut self, now: Instant, bytes: u64) {
        self.uploaded += bytes;
        self.up.add(now, bytes);
    }

    /// A peer was banned. Returns whether that is new: of what it sent before, more may
    /// turn out to be wrong.
    pub(super) fn banned(&mut self, peer: &BannedPeer) -> bool {
        if self.banned.iter().any(|banned| banned.peer == peer.peer) {
            return false;
        }
        if self.banned.len() >= MAX_BANNED {
            self.banned.pop_front();
        }
        self.banned.push_back(peer.clone());
        true
    }

    /// How many bytes of blocks have arrived, and were sent.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.downloaded, self.uploaded)
    }

    /// The rates of late, in bytes per second that arrive and that are sent.
    pub(super) fn rates(&self, now: Instant) -> (u64, u64) {
        (self.down.rate(now), self.up.rate(now))
    }

    /// The peers that were banned last.
    pub(super) fn last_banned(&self) -> Vec<BannedPeer> {
        self.banned.iter().cloned().collect()
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
            wasted: self.waste.total(),
            rate: self.rate.rate(now).unwrap_or(0.0),
            senders: self.contributors.len() as u32,
            ..Progress::default()
        }
    }
}
