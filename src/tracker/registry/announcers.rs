//! What is known of the peers that announce torrents as BitTorrent clients do, beside what
//! is in the slot of each peer.
//!
//! Such a peer has no token. It is known by its torrent and the address at which it is
//! listed, so a client with a hundred torrents is a hundred peers, each with a lease of its
//! own. This module knows peers as numbers of slots only.

use std::hash::BuildHasher;

use super::addrs::ListenAddr;
use super::host_counts::HostCounts;
use super::keyed::Keyed;
use super::table::Table;

/// One in this number of slots of the table stays empty.
const CROWD: usize = 8;

/// What is known of one announcer.
#[derive(Debug, Clone, Copy, Default)]
struct Announcer {
    /// The hash of its torrent and its address.
    hash: u32,
    /// What it calls itself.
    peer_id: [u8; 20],
}

/// The announcers of one shard.
#[derive(Debug)]
pub(super) struct Announcers {
    keyed: Keyed,
    /// How many each host has.
    hosts: HostCounts,
    /// One more than the number of each, by its hash. (The table holds no zero.)
    by_hash: Table,
    /// By number. Those of other peers are not used.
    known: Vec<Announcer>,
}

impl Announcers {
    /// Nobody, in this one of `1 << bits` shards.
    pub(super) fn new(key: &[u8; 32], bits: u32, shard: u32) -> Self {
        Self {
            keyed: Keyed::derive(key, "bt_lite announcers"),
            hosts: HostCounts::new(bits, shard),
            by_hash: Table::new(CROWD, bits),
            known: Vec::new(),
        }
    }

    /// The hash of a torrent, which has this hash, and of an address.
    pub(super) fn hash(&self, torrent: u64, addr: &ListenAddr) -> u32 {
        let hash = match addr {
            ListenAddr::V4(ip, port) => self.keyed.hash_one((torrent, ip, port)),
            ListenAddr::Text(addr) => self.keyed.hash_one((torrent, addr.as_str())),
        };
        hash as u32
    }

    /// The announcer with this hash that `fits`.
    pub(super) fn find(&self, hash: u32, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let number = self.by_hash.find(hash, |number| fits(number - 1));
        number.map(|number| number - 1)
    }

    /// How many a host has.
    pub(super) fn of_host(&self, host: u32) -> u32 {
        self.hosts.of(host)
    }

    /// Adds one. [`remove`](Self::remove) must follow.
    pub(super) fn add(&mut self, index: u32, hash: u32, host: u32) {
        self.hosts.add(host);
        self.by_hash.insert(hash, index + 1);
        let at = index as usize;
        if at >= self.known.len() {
            if at >= self.known.capacity() {
                let more = at - self.known.len() + (at / 16).max(16);
                self.known.reserve_exact(more);
            }
            self.known.resize(at + 1, Announcer::default());
        }
        self.known[at].hash = hash;
    }

    pub(super) fn remove(&mut self, index: u32, host: u32) {
        self.hosts.sub(host);
        let hash = self.known[index as usize].hash;
        self.by_hash.remove(hash, |number| number == index + 1);
    }

    /// What an announcer calls itself.
    pub(super) fn peer_id(&self, index: u32) -> &[u8; 20] {
        &self.known[index as usize].peer_id
    }

    pub(super) fn set_peer_id(&mut self, index: u32, peer_id: [u8; 20]) {
        self.known[index as usize].peer_id = peer_id;
    }

    /// All hosts with their numbers, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn hosts(&self) -> impl Iterator<Item = (u32, u32)> {
        self.hosts.iter()
    }

    /// All numbers with their hashes, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self) -> impl Iterator<Item = u32> {
        self.by_hash.iter().map(|(hash, number)| {
            assert_eq!(self.known[number as usize - 1].hash, hash);
            number - 1
        })
    }
}
