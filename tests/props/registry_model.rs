//! A naive registry of lists and linear scans, which says what each request to
//! the real one must come to.

use std::collections::BTreeSet;

use bt_lite::protocol::{
    ContentKey, Found, ListedOwner, OwnEntry, OwnState, Refusal, Token, TrackerReply,
};
use bt_lite::{Addr, ContentId, ContentName};

/// Three hosts that tell IP from IP, and one of another transport.
pub(crate) const SOURCES: [&str; 4] = [
    "10.0.0.1:999",
    "10.0.0.2:999",
    "[2001:db8::1]:999",
    "memory:a:17",
];

/// A lease of 22.5 s ends between two of the whole seconds in which the test
/// counts, wherever its last tick ends.
pub(crate) const LEASE_SECONDS: u64 = 23;

pub(crate) struct Owning {
    pub(crate) id: ContentId,
    pub(crate) name: ContentName,
    pub(crate) complete: bool,
}

pub(crate) struct ModelPeer {
    pub(crate) token: Token,
    pub(crate) host: usize,
    pub(crate) listed: Option<Addr>,
    pub(crate) since: u64,
    pub(crate) owned: Vec<Owning>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) peers: Vec<ModelPeer>,
    pub(crate) lengths: Vec<(ContentId, u64)>,
}

impl Model {
    pub(crate) fn expire(&mut self) {
        let now = self.now;
        self.peers.retain(|peer| now - peer.since < LEASE_SECONDS);
        self.prune();
    }

    pub(crate) fn prune(&mut self) {
        let owned: BTreeSet<ContentId> = self.owned().map(|(_, owning)| owning.id).collect();
        self.lengths.retain(|(id, _)| owned.contains(id));
    }

    pub(crate) fn owned(&self) -> impl Iterator<Item = (&ModelPeer, &Owning)> {
        let peers = self.peers.iter();
        peers.flat_map(|peer| peer.owned.iter().map(move |owning| (peer, owning)))
    }

    pub(crate) fn peer(&self, token: Option<Token>) -> Option<usize> {
        self.peers.iter().position(|peer| Some(peer.token) == token)
    }

    /// Whatever a peer says, it is there.
    pub(crate) fn heard(&mut self, token: Token) {
        if let Some(peer) = self.peer(Some(token)) {
            self.peers[peer].since = self.now;
        }
    }

    /// What REGISTER must come to: the listed address, or the refusal.
    pub(crate) fn register(
        &self,
        host: usize,
        listen: Option<&str>,
        known: Option<usize>,
    ) -> Result<Option<Addr>, Refusal> {
        let source: Addr = SOURCES[host].parse().expect("valid");
        let listen = listen.map(|listen| listen.parse::<Addr>().expect("valid"));
        let listen = listen.filter(|addr| !addr.as_str().ends_with(":0"));
        let listen = listen.map(|addr| addr.filled_in_from(&source));
        if let Some(addr) = &listen
            && !addr.same_host(&source)
        {
            return Err(Refusal::ForeignAddress { addr: addr.clone() });
        }
        if known.is_none() {
            if self.peers.len() >= 7 {
                return Err(Refusal::Peers { max: 7 });
            }
            if self.peers.iter().filter(|peer| peer.host == host).count() >= 3 {
                return Err(Refusal::PeersPerHost { max: 3 });
            }
        }
        Ok(listen)
    }

    pub(crate) fn own(&mut self, peer: usize, entry: &OwnEntry) -> Result<(), Refusal> {
        let held = self.peers[peer].owned.iter().position(|o| o.id == entry.id);
        if entry.state == OwnState::Gone {
            if let Some(held) = held {
                self.peers[peer].owned.remove(held);
            }
            self.prune();
            return Ok(());
        }
        let owners = self.owned().filter(|(_, o)| o.id == entry.id).count();
        if held.is_none() {
            if self.peers[peer].owned.len() >= 3 {
                return Err(Refusal::ContentsPerPeer { max: 3 });
            }
            if owners >= 4 {
                return Err(Refusal::OwnersPerContent { max: 4 });
            }
            if owners == 0 && self.lengths.len() >= 5 {
                return Err(Refusal::Contents { max: 5 });
            }
        }
        let of_content = self.owned().filter(|(_, o)| o.id == entry.id);
        let names: BTreeSet<_> = of_content.map(|(_, o)| &o.name).collect();
        if !names.contains(&entry.name) {
            if names.len() >= 2 {
                return Err(Refusal::NamesPerContent { max: 2 });
            }
            if self.named(&entry.name).len() >= 2 {
                return Err(Refusal::ContentsPerName { max: 2 });
            }
        }
        let complete = entry.state == OwnState::Complete;
        match self.lengths.iter_mut().find(|(id, _)| *id == entry.id) {
            Some((_, length)) if complete => *length = entry.length,
            Some(_) => {}
            None => self.lengths.push((entry.id, entry.length)),
        }
        let owning = Owning {
            id: entry.id,
            name: entry.name.clone(),
            complete,
        };
        match held {
            Some(held) => self.peers[peer].owned[held] = owning,
            None => self.peers[peer].owned.push(owning),
        }
        Ok(())
    }

    pub(crate) fn named(&self, name: &ContentName) -> BTreeSet<ContentId> {
        let named = self.owned().filter(|(_, o)| o.name == *name);
        named.map(|(_, o)| o.id).collect()
    }

    pub(crate) fn check_need(
        &self,
        asker: usize,
        key: &ContentKey,
        max: u16,
        reply: &TrackerReply,
    ) {
        let ids = match key {
            ContentKey::Id(id) => self
                .lengths
                .iter()
                .map(|l| l.0)
                .filter(|i| i == id)
                .collect(),
            ContentKey::Name(name) => self.named(name),
        };
        let length = |id| self.lengths.iter().find(|l| l.0 == id).map(|l| l.1);
        let mut ids = ids.into_iter();
        match (ids.next(), ids.next()) {
            (None, _) => {
                assert_eq!(*reply, TrackerReply::Refused(Refusal::UnknownContent));
            }
            (Some(id), None) => {
                let TrackerReply::Found(found) = reply else {
                    panic!("{reply:?}, and {id} is owned");
                };
                assert_eq!(found.id, id);
                assert_eq!(Some(found.length), length(id));
                self.check_found(asker, key, max, found);
            }
            (Some(first), Some(second)) => {
                let TrackerReply::Ambiguous(listed) = reply else {
                    panic!("{reply:?}, and there are several");
                };
                let expected: BTreeSet<_> = [first, second]
                    .into_iter()
                    .chain(ids)
                    .map(|id| (id, length(id).expect("owned")))
                    .collect();
                assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), expected);
                assert_eq!(listed.len(), expected.len());
            }
        }
    }

    pub(crate) fn check_found(&self, asker: usize, key: &ContentKey, max: u16, found: &Found) {
        match key {
            ContentKey::Name(name) => assert_eq!(found.name, *name),
            ContentKey::Id(_) => assert!(self.named(&found.name).contains(&found.id)),
        }
        let asker = &self.peers[asker];
        let fit: Vec<(&Addr, bool)> = self
            .owned()
            .filter(|(peer, o)| o.id == found.id && peer.token != asker.token)
            .filter_map(|(peer, o)| Some((peer.listed.as_ref()?, o.complete)))
            .filter(|(addr, _)| Some(*addr) != asker.listed.as_ref())
            .collect();
        for ListedOwner { addr, complete, .. } in &found.owners {
            assert!(
                fit.contains(&(addr, *complete)),
                "{addr} is not to be named"
            );
        }
        let named: BTreeSet<_> = found.owners.iter().map(|owner| &owner.addr).collect();
        assert_eq!(named.len(), found.owners.len(), "an address twice");
        let all: BTreeSet<_> = fit.iter().map(|(addr, _)| addr).collect();
        assert_eq!(named.len(), all.len().min(max.into()).min(5));
    }

    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let contents = self.lengths.len();
        let owned = self.owned().count();
        (self.peers.len() as u64, contents as u64, owned as u64)
    }
}
