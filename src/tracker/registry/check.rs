//! Whether all parts of a registry agree with each other, for tests.

use std::collections::BTreeMap;

use super::compact::Compact;
use super::peers::State;
use super::{Catalog, Registry, Sessions};

impl Registry {
    /// Checks that all parts agree with each other.
    ///
    /// # Panics
    /// When they do not.
    pub fn check_invariants(&self) {
        let totals = (self.sessions.total[0], self.catalog.total[0]);
        check(&[&self.sessions.one], &[&self.catalog.one], totals);
    }

    /// How many ownerships have been touched since the start: the work that
    /// requests and expiry have made, in a unit that knows no clock.
    pub fn steps(&self) -> u64 {
        self.sessions.one.steps
    }
}

/// Checks all shards and the totals of peers and contents.
pub(crate) fn check(sessions: &[&Sessions], catalogs: &[&Catalog], (peers, contents): (u32, u32)) {
    let live = sessions
        .iter()
        .map(|sessions| sessions.check())
        .sum::<usize>();
    assert_eq!(live, peers as usize);
    let mut owned = 0;
    for (shard, catalog) in catalogs.iter().enumerate() {
        let held = sessions.iter().flat_map(|sessions| {
            sessions.peers.iter().flat_map(move |(index, _)| {
                let held = sessions.peers.owned(index);
                let settled = sessions.chores.is_settled(index);
                held.map(move |held| (held, sessions.card(index), settled))
            })
        });
        let mask = catalogs.len() - 1;
        owned += catalog.check(held.filter(|(held, ..)| held.content as usize & mask == shard));
    }
    let held = sessions.iter().flat_map(|sessions| {
        let peers = sessions.peers.iter();
        peers.map(|(index, _)| sessions.peers.owned_len(index))
    });
    assert_eq!(owned, held.sum::<usize>());
    let listed = catalogs.iter().map(|catalog| catalog.contents.len());
    assert_eq!(listed.sum::<usize>(), contents as usize);
}

impl Sessions {
    /// Checks one shard, and returns how many peers it has.
    fn check(&self) -> usize {
        let mut hosts = BTreeMap::<u32, u32>::new();
        let mut spare = BTreeMap::<u32, u32>::new();
        let (mut texts, mut in_wheel) = (0, Vec::new());
        for (index, peer) in self.peers.check() {
            if peer.state != State::Free {
                in_wheel.push(index);
            }
            if peer.state.is_live() {
                let more = self.peers.owned_len(index).saturating_sub(1) as u32;
                *spare.entry(peer.host).or_default() += more;
                *hosts.entry(peer.host).or_default() += 1;
                texts += usize::from(matches!(peer.addr, Compact::Text(_)));
            }
        }
        assert!(
            self.reports
                .iter()
                .all(|(host, _)| hosts.contains_key(&host))
        );
        assert_eq!(hosts, self.hosts.iter().collect());
        spare.retain(|_, count| *count > 0);
        assert_eq!(spare, self.spare.iter().collect());
        assert!(self.chores.len() <= in_wheel.len());
        assert_eq!(texts, self.texts.len());
        let mut entries = self.wheel.entries(|slot| self.peers[slot].next);
        entries.sort_unstable();
        assert_eq!(entries, in_wheel);
        self.peers.iter().count()
    }
}
