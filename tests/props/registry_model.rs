//! A naive registry of lists and linear scans. It tells the outcome that each
//! request to the real one must have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bt_lite::protocol::{
    ContentKey, Found, ListedOwner, OwnEntry, OwnState, Refusal, Token, TrackerReply,
};
use bt_lite::tracker::RegistryConfig;
use bt_lite::{Addr, ContentId, ContentName};

/// Three IP hosts, and one of another transport.
pub(crate) const SOURCES: [&str; 4] = [
    "10.0.0.1:999",
    "10.0.0.2:999",
    "[2001:db8::1]:999",
    "memory:a:17",
];

/// The test counts in whole seconds. A lease of 22.5 s ends between two of them,
/// wherever its last tick ends.
pub(crate) const LEASE_SECONDS: u64 = 23;
const LEASE_MILLIS: u64 = 22_500;

/// Quotas so small that each is reached soon.
pub(crate) fn config() -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.grace = Duration::from_millis(2500);
    config.max_owners = 5;
    config.max_peers = 8;
    config.max_peers_per_host = 3;
    config.max_contents = 6;
    config.max_contents_per_peer = 4;
    config.max_contents_per_host = 3;
    config.max_ownerships_per_host = 5;
    config.max_ownerships = 14;
    config.max_owners_per_content = 5;
    config.max_names_per_content = 3;
    config.max_contents_per_name = 3;
    config
}

pub(crate) struct Owning {
    pub(crate) id: ContentId,
    /// Each [`Naming`] that it uses, of its names that have a place.
    pub(crate) namings: Vec<u32>,
    pub(crate) complete: bool,
}

/// A content's use of a name, from the first owner that uses it to the last one.
pub(crate) struct Naming {
    /// `None` once it has given way.
    pub(crate) name: Option<ContentName>,
    pub(crate) id: ContentId,
    /// In the order in which they came.
    pub(crate) number: u32,
    /// The host that brought it.
    pub(crate) host: usize,
    pub(crate) fetched: bool,
}

pub(crate) struct ModelPeer {
    pub(crate) token: Token,
    pub(crate) host: usize,
    pub(crate) listed: Option<Addr>,
    pub(crate) since: u64,
    pub(crate) owned: Vec<Owning>,
    /// Another host has credited it.
    pub(crate) credited: bool,
    /// When it last reported, in seconds.
    pub(crate) reported: u64,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) peers: Vec<ModelPeer>,
    pub(crate) lengths: Vec<(ContentId, u64)>,
    pub(crate) namings: Vec<Naming>,
    pub(crate) brought: u32,
    /// Until when the reports of each host with several peers have used up what the
    /// host can have received, in milliseconds since two leases before the start.
    pub(crate) host_reported: BTreeMap<usize, u64>,
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
        let used: BTreeSet<u32> = {
            let owned = self.owned();
            owned.flat_map(|(_, o)| o.namings.iter().copied()).collect()
        };
        self.namings.retain(|naming| used.contains(&naming.number));
        let hosts: BTreeSet<usize> = self.peers.iter().map(|peer| peer.host).collect();
        self.host_reported.retain(|host, _| hosts.contains(host));
    }

    pub(crate) fn owned(&self) -> impl Iterator<Item = (&ModelPeer, &Owning)> {
        let peers = self.peers.iter();
        peers.flat_map(|peer| peer.owned.iter().map(move |owning| (peer, owning)))
    }

    pub(crate) fn peer(&self, token: Option<Token>) -> Option<usize> {
        self.peers.iter().position(|peer| Some(peer.token) == token)
    }

    /// Any request extends the lease of its peer.
    pub(crate) fn heard(&mut self, token: Token) {
        if let Some(peer) = self.peer(Some(token)) {
            self.peers[peer].since = self.now;
        }
    }

    /// The peer of a token in REGISTER. The token is valid only on its host.
    pub(crate) fn registering(&self, host: usize, token: Option<Token>) -> Option<usize> {
        let known = self.peer(token)?;
        (self.peers[known].host == host).then_some(known)
    }

    /// The outcome that REGISTER must have: the listed address, or the refusal.
    pub(crate) fn register(
        &self,
        host: usize,
        listen: Option<&str>,
        known: Option<usize>,
    ) -> Result<Option<Addr>, Refusal> {
        let source: Addr = SOURCES[host].parse().expect("valid");
        let listen = listen.map(|listen| listen.parse::<Addr>().expect("valid"));
        let listen = listen.filter(|addr| !addr.as_str().ends_with(":0"));
        let listen = listen.filter(|addr| addr.serves_family_of(&source));
        let listen = listen.map(|addr| addr.filled_in_from(&source));
        if let Some(addr) = &listen
            && !addr.same_host(&source)
        {
            return Err(Refusal::ForeignAddress { addr: addr.clone() });
        }
        if known.is_none() {
            if self.peers.len() >= 8 {
                return Err(Refusal::Peers { max: 8 });
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
            let owned = self.peers[peer].owned.len();
            let host = self.peers[peer].host;
            let of_host = self.peers.iter().filter(|other| other.host == host);
            let spare: usize = of_host.map(|p| p.owned.len().saturating_sub(1)).sum();
            if owned >= 4 {
                return Err(Refusal::ContentsPerPeer { max: 4 });
            }
            if owned > 0 && spare >= 5 {
                return Err(Refusal::OwnershipsPerHost { max: 5 });
            }
            if owners >= 5 {
                return Err(Refusal::OwnersPerContent { max: 5 });
            }
            if owners == 0 && owned > 0 && spare >= 3 {
                return Err(Refusal::ContentsPerHost { max: 3 });
            }
            if self.owned().count() >= 14 {
                return Err(Refusal::Ownerships { max: 14 });
            }
            if owners == 0 && self.lengths.len() >= 6 {
                return Err(Refusal::Contents { max: 6 });
            }
        }
        let complete = entry.state == OwnState::Complete;
        match self.lengths.iter_mut().find(|(id, _)| *id == entry.id) {
            Some((_, length)) if complete => *length = entry.length,
            Some(_) => {}
            None => self.lengths.push((entry.id, entry.length)),
        }
        let owned = &mut self.peers[peer].owned;
        let held = held.unwrap_or_else(|| {
            owned.push(Owning {
                id: entry.id,
                namings: Vec::new(),
                complete,
            });
            owned.len() - 1
        });
        owned[held].complete = complete;
        let named = self.name(peer, entry);
        if let Ok(naming) = named {
            let live = |number: &u32| {
                let mut namings = self.namings.iter();
                namings.any(|n| n.number == *number && n.name.is_some())
            };
            let used = &mut self.peers[peer].owned[held].namings;
            if !used.contains(&naming) {
                used.retain(live);
                used.push(naming);
            }
            self.prune();
        }
        named.map(drop)
    }

    /// The naming that an owner uses from now on.
    fn name(&mut self, peer: usize, entry: &OwnEntry) -> Result<u32, Refusal> {
        let (host, credited) = (self.peers[peer].host, self.peers[peer].credited);
        let bears = |naming: &Naming, name| naming.name.as_ref() == Some(name);
        let owned = &self.peers[peer].owned;
        let owning = owned.iter().find(|owning| owning.id == entry.id);
        let used = owning.map_or(Vec::new(), |owning| owning.namings.clone());
        let uses = |naming: &&Naming| used.contains(&naming.number) && naming.name.is_some();
        let known = |naming: &Naming| naming.id == entry.id && bears(naming, &entry.name);
        let found = self.namings.iter().find(|naming| known(naming));
        // One peer uses at most half of the three names.
        if !found.as_ref().is_some_and(uses) && self.namings.iter().filter(uses).count() >= 2 {
            return Err(Refusal::NamesPerContent { max: 2 });
        }
        if let Some(naming) = self.namings.iter_mut().find(|naming| known(naming)) {
            naming.fetched |= credited;
            return Ok(naming.number);
        }
        // One host brings at most half of the three names, or contents.
        let of_content = |naming: &&Naming| naming.id == entry.id;
        let brought = self.namings.iter().filter(of_content);
        if brought.filter(|naming| naming.host == host).count() >= 2 {
            return Err(Refusal::NamesPerContent { max: 2 });
        }
        let live = |naming: &&Naming| naming.id == entry.id && naming.name.is_some();
        let names: Vec<&Naming> = self.namings.iter().filter(live).collect();
        let other_name = match names.len() {
            ..3 => None,
            _ => Some(
                self.gives_way(&names, host)
                    .ok_or(Refusal::NamesPerContent { max: 3 })?,
            ),
        };
        let mut contents: Vec<&Naming> = self.namings.iter().collect();
        contents.retain(|naming| bears(naming, &entry.name));
        contents.sort_by_key(|naming| naming.id);
        if contents.iter().filter(|naming| naming.host == host).count() >= 2 {
            return Err(Refusal::ContentsPerName { max: 2 });
        }
        let other_content = match contents.len() {
            ..3 => None,
            _ => Some(
                self.gives_way(&contents, host)
                    .ok_or(Refusal::ContentsPerName { max: 3 })?,
            ),
        };
        for naming in &mut self.namings {
            if [other_name, other_content].contains(&Some(naming.number)) {
                naming.name = None;
            }
        }
        self.brought += 1;
        self.namings.push(Naming {
            name: Some(entry.name.clone()),
            id: entry.id,
            number: self.brought,
            host,
            fetched: credited,
        });
        Ok(self.brought)
    }

    /// The naming that gives way to one more of a host, if another host has at least
    /// two more.
    fn gives_way(&self, namings: &[&Naming], host: usize) -> Option<u32> {
        let count = |host| namings.iter().filter(|naming| naming.host == host).count();
        let mut victim = None;
        for naming in namings {
            let uses = self
                .owned()
                .filter(|(_, o)| o.namings.contains(&naming.number));
            let uses = uses.count();
            if count(naming.host) < count(host) + 2 || naming.fetched && uses > 1 {
                continue;
            }
            let rank = (count(naming.host), !naming.fetched, std::cmp::Reverse(uses));
            if victim.is_none_or(|(other, _)| other <= rank) {
                victim = Some((rank, naming.number));
            }
        }
        victim.map(|(_, number)| number)
    }

    /// Applies a report. It claims that each owner has sent more than the reporter
    /// can have received in all, so the first owner that is registered is credited,
    /// if the reporter can have received anything.
    pub(crate) fn update(&mut self, reporter: usize, owners: &[Option<Token>]) {
        let (now, host) = (self.now * 1000, self.peers[reporter].host);
        let reported = std::mem::replace(&mut self.peers[reporter].reported, self.now);
        let own = if owners.is_empty() {
            0
        } else {
            (now - reported * 1000).min(LEASE_MILLIS)
        };
        let of_host = self.peers.iter().filter(|peer| peer.host == host);
        let received = if of_host.count() > 1 || self.host_reported.contains_key(&host) {
            let used = self.host_reported.entry(host).or_insert(0);
            let since = (now + 2 * LEASE_MILLIS - *used).min(LEASE_MILLIS);
            let received = own.min(since);
            *used = now + 2 * LEASE_MILLIS - since + received;
            received
        } else {
            own
        };
        let mut there = owners.iter().filter_map(|owner| self.peer(*owner));
        let Some(owner) = there.next().filter(|_| received > 0) else {
            return;
        };
        if self.peers[owner].host == host {
            return;
        }
        self.peers[owner].credited = true;
        for owning in &self.peers[owner].owned {
            for naming in &mut self.namings {
                naming.fetched |= owning.namings.contains(&naming.number);
            }
        }
    }

    pub(crate) fn named(&self, name: &ContentName) -> BTreeSet<ContentId> {
        let named = self.namings.iter();
        let named = named.filter(|naming| naming.name.as_ref() == Some(name));
        named.map(|naming| naming.id).collect()
    }

    /// The name that NEED by id is answered with.
    fn told(&self, id: ContentId) -> String {
        let live = |naming: &&Naming| naming.id == id && naming.name.is_some();
        let hosts = |naming: &&Naming| {
            let number = &naming.number;
            let users = self.owned().filter(|(_, o)| o.namings.contains(number));
            let hosts: BTreeSet<usize> = users.map(|(peer, _)| peer.host).collect();
            (hosts.len(), u32::MAX - naming.number)
        };
        let best = self.namings.iter().filter(live).max_by_key(hosts);
        let name = best.and_then(|naming| naming.name.as_ref());
        name.map_or(id.to_string(), ToString::to_string)
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
            ContentKey::Id(id) => assert_eq!(found.name.as_str(), self.told(*id)),
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
        assert_eq!(named.len(), found.owners.len(), "an address is named twice");
        let all: BTreeSet<_> = fit.iter().map(|(addr, _)| addr).collect();
        assert_eq!(named.len(), all.len().min(max.into()).min(5));
    }

    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let contents = self.lengths.len();
        let owned = self.owned().count();
        (self.peers.len() as u64, contents as u64, owned as u64)
    }
}
