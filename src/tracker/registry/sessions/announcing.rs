//! The peers that announce torrents as BitTorrent clients do: one for each torrent and
//! address, without a token of its own.

use std::time::Instant;

use super::Sessions;
use crate::protocol::{Refusal, Token};
use crate::tracker::registry::addrs::ListenAddr;
use crate::tracker::registry::config::RegistryConfig;
use crate::tracker::registry::keyed;
use crate::tracker::registry::peers::SlotState;

impl Sessions {
    /// Counts an announce that came at `now`.
    pub(crate) fn count_announce(&mut self, now: Instant) {
        self.requests.announce += 1;
        self.counted(now);
    }

    /// Counts a scrape that came at `now`.
    pub(crate) fn count_scrape(&mut self, now: Instant) {
        self.requests.scrape += 1;
        self.counted(now);
    }

    /// The peer that has announced this content from this address, if there is one.
    /// `torrent` is the hash of the content's id.
    pub(crate) fn announcer(&self, torrent: u64, content: u32, addr: &ListenAddr) -> Option<u32> {
        let hash = self.announcers.hash(torrent, addr);
        self.announcers.find(hash, |index| {
            self.peers.ownership(index, content).is_some()
                && self.listen_addr(index).as_ref() == Some(addr)
        })
    }

    /// Whether a host may announce one more torrent.
    ///
    /// # Errors
    /// [`Refusal::PeersPerHost`].
    pub(crate) fn check_announcers(
        &self,
        host: u32,
        config: &RegistryConfig,
    ) -> Result<(), Refusal> {
        let max = config.max_announcers_per_host;
        match self.announcers.of_host(host) >= max {
            true => Err(Refusal::PeersPerHost { max }),
            false => Ok(()),
        }
    }

    /// Adds a peer of this host that announces from this address.
    /// [`announced`](Self::announced) must follow.
    pub(crate) fn add_announcer(&mut self, torrent: u64, host: u32, listed: &ListenAddr) -> u32 {
        let index = self.peers.claim();
        let hash = self.announcers.hash(torrent, listed);
        self.announcers.add(index, hash, host);
        self.peers.rest_mut(index).host = host;
        self.set_listen_addr(index, Some(listed));
        index
    }

    /// A peer has announced: its lease begins, and it has this id from now on.
    pub(crate) fn announced(
        &mut self,
        now: Instant,
        index: u32,
        peer_id: [u8; 20],
        config: &RegistryConfig,
    ) {
        self.announcers.set_peer_id(index, peer_id);
        let deadline = self.wheel.deadline_after(now, config.announce_lease());
        let turn = self.wheel.deadline(now).min(deadline);
        let peer = &mut self.peers[index];
        peer.deadline = deadline;
        let before = std::mem::replace(&mut peer.state, SlotState::Announcer);
        if before == SlotState::Free {
            self.enter(index, turn);
        }
    }

    /// Whether this peer announces.
    pub(crate) fn is_announcer(&self, index: u32) -> bool {
        self.peers[index].state == SlotState::Announcer
    }

    /// What a peer calls itself, if it announces.
    pub(crate) fn announced_id(&self, index: u32) -> Option<[u8; 20]> {
        let announces = self.is_announcer(index);
        announces.then(|| *self.announcers.peer_id(index))
    }

    /// The token of a peer, as if it had registered.
    pub(crate) fn token(&self, index: u32) -> Token {
        let (number, generation) = (self.outward(index), self.peers[index].generation);
        keyed::token(number, generation, self.issuer.proof(number, generation))
    }
}
