//! The peers of one torrent: those that somebody has named, and those that are connected.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bittorrent::wire::ClientId;

/// How many named peers are kept: several answers of a tracker. The oldest go first.
const MAX_NAMED: usize = 1000;

/// The peers of one torrent.
#[derive(Debug, Default)]
pub(super) struct KnownPeers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    named: VecDeque<SocketAddr>,
    /// Those that are connected, and where they can be dialled, if that is known. A client is
    /// told by its id and host: anybody can say that he is another one.
    connected: HashMap<(ClientId, IpAddr), Option<SocketAddr>>,
}

/// A connection, until it is dropped.
pub(super) struct ConnectedPeer {
    peers: Arc<KnownPeers>,
    client: (ClientId, IpAddr),
}

impl KnownPeers {
    /// Somebody has named these. Returns those that are new.
    pub(super) fn found(&self, peers: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let mut state = self.state();
        let mut new = Vec::new();
        for peer in peers {
            if peer.port() == 0 || peer.ip().is_unspecified() || peer.ip().is_multicast() {
                continue;
            }
            if !state.named.contains(&peer) {
                state.named.push_back(peer);
                new.push(peer);
            }
            if state.named.len() > MAX_NAMED {
                state.named.pop_front();
            }
        }
        new
    }

    /// All that were named.
    pub(super) fn named(&self) -> Vec<SocketAddr> {
        self.state().named.iter().copied().collect()
    }

    /// Notes a connection. `None` if there is one with this client on this host already.
    pub(super) fn connect(
        self: &Arc<Self>,
        client: (ClientId, IpAddr),
        listens: Option<SocketAddr>,
    ) -> Option<ConnectedPeer> {
        let mut state = self.state();
        if state.connected.contains_key(&client) {
            return None;
        }
        state.connected.insert(client, listens);
        drop(state);
        Some(ConnectedPeer {
            peers: Arc::clone(self),
            client,
        })
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectedPeer {
    /// Where the others that are connected can be dialled.
    pub(super) fn others(&self) -> BTreeSet<SocketAddr> {
        let state = self.peers.state();
        let others = state.connected.iter();
        let others = others.filter(|(client, _)| **client != self.client);
        others.filter_map(|(_, listens)| *listens).collect()
    }

    /// Where the client can be dialled, as it says itself. Nobody can be dialled at port 0.
    pub(super) fn listens_at(&self, addr: SocketAddr) {
        if addr.port() == 0 {
            return;
        }
        if let Some(listens) = self.peers.state().connected.get_mut(&self.client) {
            listens.get_or_insert(addr);
        }
    }
}

impl Drop for ConnectedPeer {
    fn drop(&mut self) {
        self.peers.state().connected.remove(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn peers_are_named_once_and_the_oldest_are_forgotten() {
        let peers = KnownPeers::default();
        assert_eq!(
            peers.found([addr(1), addr(0), addr(2), addr(1)]),
            [addr(1), addr(2)]
        );
        assert_eq!(
            peers.found([([0, 0, 0, 0], 5).into(), ([224, 0, 0, 1], 5).into()]),
            []
        );
        peers.found((3..=2000).map(addr));
        let named = peers.named();
        assert_eq!((named.len(), named[MAX_NAMED - 1]), (MAX_NAMED, addr(2000)));
        assert!(!named.contains(&addr(1)));
    }

    #[test]
    fn client_has_one_connection_and_is_told_of_others() {
        let peers = Arc::new(KnownPeers::default());
        let host = addr(1).ip();
        let [a, b] = [1, 2].map(|n| (ClientId([n; 20]), host));
        let first = peers.connect(a, Some(addr(1))).unwrap();
        assert!(peers.connect(a, None).is_none());
        let second = peers.connect(b, None).unwrap();
        // Somebody else who says that he is the first one keeps nobody away.
        let liar = (a.0, [192, 0, 2, 77].into());
        drop(peers.connect(liar, None).unwrap());
        assert_eq!(first.others(), BTreeSet::new());
        second.listens_at(addr(0));
        assert_eq!(first.others(), BTreeSet::new());
        second.listens_at(addr(2));
        assert_eq!(first.others(), BTreeSet::from([addr(2)]));
        assert_eq!(second.others(), BTreeSet::from([addr(1)]));
        drop(first);
        assert_eq!(second.others(), BTreeSet::new());
        assert!(peers.connect(a, None).is_some());
    }
}
