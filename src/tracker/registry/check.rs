//! Whether all parts of a registry agree with each other, for tests.

use std::collections::BTreeMap;

use super::Registry;
use super::compact::Compact;
use super::owners::Owner;
use super::peers::UNLISTED;

impl Registry {
    /// Checks that all parts agree with each other.
    ///
    /// # Panics
    /// When they do not.
    pub fn check_invariants(&self) {
        self.contents.check();
        let mut hosts = BTreeMap::<u32, u32>::new();
        let (mut ownerships, mut listed, mut unlisted) = (0, 0, 0);
        for (slot, peer) in self.peers.iter() {
            assert!(peer.in_wheel, "a peer without an end of its lease");
            *hosts.entry(peer.host).or_default() += 1;
            peer.owned.check();
            for (place, ownership) in (0..).zip(peer.owned.as_slice()) {
                ownerships += 1;
                let owners = self.contents[ownership.content].owners.as_slice();
                if peer.addr == Compact::None {
                    assert_eq!(ownership.pos, UNLISTED);
                    unlisted += 1;
                } else {
                    let owner = Owner { peer: slot, place };
                    assert_eq!(owners[ownership.pos as usize], owner);
                    listed += 1;
                }
            }
        }
        assert_eq!(ownerships, self.ownerships);
        assert_eq!(hosts.len(), self.hosts.len());
        for (host, count) in hosts {
            assert_eq!(self.hosts.get(&host), Some(&count));
        }
        let (mut in_lists, mut not_listening, mut name_uses) = (0, 0, 0);
        for (_, content) in self.contents.iter() {
            assert!(content.owner_count() > 0, "a content without owners");
            content.owners.check(&self.peers);
            in_lists += content.owners.len();
            not_listening += content.unlisted as usize;
            name_uses += content.name_uses().sum::<u32>() as usize;
        }
        assert_eq!((in_lists, not_listening), (listed, unlisted));
        assert_eq!(name_uses, ownerships);
        let texts = self.peers.iter().map(|(_, peer)| peer.addr);
        let texts = texts.filter(|addr| matches!(addr, Compact::Text(_)));
        assert_eq!(texts.count(), self.texts.len());
        let mut entries: Vec<u32> = self.wheel.entries().collect();
        entries.sort_unstable();
        let in_wheel = self.peers.slots().iter().zip(0..);
        let in_wheel = in_wheel.filter(|(peer, _)| peer.in_wheel);
        assert!(entries.into_iter().eq(in_wheel.map(|(_, slot)| slot)));
    }
}
