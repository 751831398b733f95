//! What a tracker knows and decides. A pure machine: requests and the time go
//! in, replies come out; it knows no socket, task, clock or ambient
//! randomness. The same key, epoch and calls give the same replies.
//!
//! What it promises: only the token moves what a peer has; no peer is named to
//! itself; nothing of a peer stays behind once it has left or its lease has
//! run out; memory is bounded by the quotas of [`RegistryConfig`].
//!
//! A peer with one content takes about 90 bytes (its slot 64, its places in the
//! content's list and in the wheel 12, its host's count the rest), before what
//! growing arrays hold in reserve; a further ownership about 40.

#[cfg(any(test, feature = "testing"))]
mod check;
mod compact;
mod config;
mod contents;
mod keyed;
mod own;
mod owners;
mod peers;
mod rate;
mod select;
mod stats;
#[cfg(test)]
mod tests;
mod wheel;

use std::collections::HashMap;
use std::time::Instant;

use fastrand::Rng;

use crate::protocol::{
    Addr, ContentKey, Refusal, Registered, Token, TrackerReply, TrackerRequest, Upload,
};
use compact::{Compact, Texts};
use contents::Contents;
use keyed::{Keyed, Mint};
use owners::{Book, Owner};
use peers::{Peers, UNLISTED};
use rate::Clockwork;
use wheel::Wheel;

pub use config::{AddressRule, RegistryConfig};
pub use stats::{RefusalCounts, RegistryStats, RequestCounts};

/// How many leases one [`Registry::handle_timeout`] looks at.
const EXPIRE_BATCH: usize = 1024;

/// Who is there, who owns what, and how fast each owner uploads.
///
/// ```
/// use std::time::Instant;
/// use bt_lite::protocol::{TrackerReply, TrackerRequest};
/// use bt_lite::tracker::{RegistryConfig, registry::Registry};
///
/// let mut registry = Registry::new(RegistryConfig::default(), [7; 32], 1);
/// let request = TrackerRequest::Register {
///     listen: Some("0.0.0.0:7000".parse()?),
///     token: None,
/// };
/// let reply = registry.handle(Instant::now(), &"10.0.0.1:4000".parse()?, &request);
/// let TrackerReply::Registered(registered) = reply else {
///     panic!("{reply:?}");
/// };
/// assert_eq!(registered.listed, Some("10.0.0.1:7000".parse()?));
/// # Ok::<(), bt_lite::AddrError>(())
/// ```
#[derive(Debug)]
pub struct Registry {
    config: RegistryConfig,
    epoch: u64,
    mint: Mint,
    keyed: Keyed,
    rng: Rng,
    clockwork: Clockwork,
    wheel: Wheel,
    peers: Peers,
    texts: Texts,
    contents: Contents,
    ownerships: usize,
    hosts: HashMap<u32, u32, Keyed>,
    requests: RequestCounts,
    refusals: RefusalCounts,
    expired: u64,
}

impl Registry {
    /// An empty registry. The key must be secret and random: tokens are made
    /// with it, and hash maps and draws are seeded from it. The epoch tells
    /// peers one start of a tracker from the next.
    pub fn new(config: RegistryConfig, key: [u8; 32], epoch: u64) -> Self {
        let keyed = Keyed::derive(&key, "bt_lite registry maps");
        Self {
            epoch,
            mint: Mint::new(&key, epoch),
            rng: Rng::with_seed(Keyed::derive(&key, "bt_lite registry draws").seed()),
            clockwork: Clockwork::new(config.half_life),
            wheel: Wheel::new(config.lease()),
            peers: Peers::new(Keyed::derive(&key, "bt_lite owners").seed() as u32 ^ epoch as u32),
            texts: Texts::default(),
            contents: Contents::new(keyed.clone()),
            ownerships: 0,
            hosts: HashMap::with_hasher(keyed.clone()),
            requests: RequestCounts::default(),
            refusals: RefusalCounts::default(),
            expired: 0,
            keyed,
            config,
        }
    }

    /// Answers one request, which came from `source` at `now`. Time must not
    /// go backwards from call to call.
    ///
    /// Costs, beside a keyed hash that checks the token: REGISTER, constant,
    /// and one step per content owned when the peer starts or stops to listen;
    /// OWN, constant per entry; NEED, the number of owners wanted; UPDATE,
    /// constant per entry, and one step per content of more than 64 owners
    /// that the credited owner has; EXIT, one step per content owned.
    ///
    /// - REGISTER with a token that is unknown here counts as one without. A
    ///   listening address of port 0 counts as none. A peer may change its
    ///   source address: the token proves who it is; it stays counted under
    ///   the host that it registered from first.
    /// - OWN is applied entry by entry. A refused entry changes nothing, all
    ///   others are applied, and the reply is the first refusal. The length
    ///   listed is the one that a seeder said last.
    /// - NEED leaves out the asker, whoever has the asker's listening address,
    ///   and all but one of the owners that share an address. A known content
    ///   without any other owner is found with an empty list.
    /// - UPDATE credits no more than the reporter can have received since its
    ///   last one (or, at the most, within one lease); owners that are gone,
    ///   and the reporter itself, are passed over.
    pub fn handle(
        &mut self,
        now: Instant,
        source: &Addr,
        request: &TrackerRequest,
    ) -> TrackerReply {
        self.requests.count(request);
        let outcome = match request {
            TrackerRequest::Register { listen, token } => {
                self.register(now, source, listen.as_ref(), token.as_ref())
            }
            TrackerRequest::Own { token, entries } => self.own(now, token, entries),
            TrackerRequest::Need {
                token,
                key,
                max_owners,
            } => self.need(now, token, key, (*max_owners).into()),
            TrackerRequest::Update { token, uploads } => self.update(now, token, uploads),
            TrackerRequest::Exit { token } => self.authenticate(now, token).map(|peer| {
                self.forget(peer);
                TrackerReply::Done
            }),
        };
        outcome.unwrap_or_else(|refusal| {
            self.refusals.count(&refusal);
            TrackerReply::Refused(refusal)
        })
    }

    /// Forgets peers whose lease has run out by `now`: a bounded number of
    /// them, so that no call takes long. Call it again while
    /// [`poll_timeout`](Self::poll_timeout) lies in the past.
    pub fn handle_timeout(&mut self, now: Instant) {
        let tick = self.wheel.tick_at(now);
        let mut work = 0;
        while work < EXPIRE_BATCH
            && let Some(slot) = self.wheel.pop(tick)
        {
            work += 1;
            let peer = &mut self.peers[slot];
            peer.in_wheel = false;
            if !peer.live {
                continue;
            }
            if peer.deadline > tick {
                peer.in_wheel = true;
                self.wheel.insert(slot, peer.deadline);
            } else {
                work += peer.owned.as_slice().len();
                self.expired += 1;
                self.forget(slot);
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next; in the past
    /// while it has more to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next_turn()
    }

    /// What there is, and what was asked and refused so far.
    pub fn stats(&self) -> RegistryStats {
        RegistryStats {
            peers: self.peers.len() as u64,
            contents: self.contents.len() as u64,
            ownerships: self.ownerships as u64,
            expired: self.expired,
            requests: self.requests,
            refusals: self.refusals,
        }
    }

    /// Whose token this is. The lease counts here even before
    /// [`handle_timeout`](Self::handle_timeout) comes by.
    fn authenticate(&mut self, now: Instant, token: &Token) -> Result<u32, Refusal> {
        let tick = self.wheel.tick_at(now);
        let slot = Mint::slot(token);
        match self.peers.live(slot) {
            Some(peer)
                if self.mint.matches(token, slot, peer.generation) && peer.deadline > tick =>
            {
                Ok(slot)
            }
            _ => Err(Refusal::UnknownToken),
        }
    }

    fn register(
        &mut self,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
        token: Option<&Token>,
    ) -> Result<TrackerReply, Refusal> {
        let listen = self.listed_addr(source, listen)?;
        let known = token.and_then(|token| self.authenticate(now, token).ok());
        let slot = match known {
            Some(slot) => slot,
            None => self.admit(now, source)?,
        };
        self.extend(now, slot);
        self.list_at(slot, listen.as_ref());
        let peer = &self.peers[slot];
        Ok(TrackerReply::Registered(Registered {
            token: self.mint.token(slot, peer.generation),
            epoch: self.epoch,
            heartbeat: self.config.heartbeat,
            listed: self.texts.addr(peer.addr),
        }))
    }

    fn listed_addr(&self, source: &Addr, listen: Option<&Addr>) -> Result<Option<Addr>, Refusal> {
        let Some(listen) = listen else {
            return Ok(None);
        };
        if listen.socket_addr().is_some_and(|addr| addr.port() == 0) {
            return Ok(None);
        }
        let addr = listen.filled_in_from(source);
        if self.config.addresses == AddressRule::SourceHost && !addr.same_host(source) {
            return Err(Refusal::ForeignAddress { addr });
        }
        Ok(Some(addr))
    }

    fn admit(&mut self, now: Instant, source: &Addr) -> Result<u32, Refusal> {
        let max = self.config.max_peers;
        if self.peers.len() >= max as usize {
            return Err(Refusal::Peers { max });
        }
        let max = self.config.max_peers_per_host;
        let host = self.keyed.host(source);
        if self.hosts.get(&host).is_some_and(|&count| count >= max) || max == 0 {
            return Err(Refusal::PeersPerHost { max });
        }
        *self.hosts.entry(host).or_default() += 1;
        let slot = self.peers.claim();
        let reported = self.wheel.elapsed(now).as_millis() as u32;
        let peer = &mut self.peers[slot];
        peer.host = host;
        peer.reported = reported;
        Ok(slot)
    }

    /// Begins a lease: writes the deadline, and no more where the wheel knows
    /// the slot already.
    fn extend(&mut self, now: Instant, slot: u32) {
        let deadline = self.wheel.deadline(now);
        let peer = &mut self.peers[slot];
        peer.deadline = deadline;
        if !std::mem::replace(&mut peer.in_wheel, true) {
            self.wheel.insert(slot, deadline);
        }
    }

    /// Sets where a peer listens, and lists or unlists it accordingly.
    fn list_at(&mut self, slot: u32, listen: Option<&Addr>) {
        let old = self.peers[slot].addr;
        let new = listen.map_or(Compact::None, |addr| self.texts.insert(addr));
        self.texts.remove(old);
        self.peers[slot].addr = new;
        let (was, is) = (old != Compact::None, new != Compact::None);
        if was == is {
            return;
        }
        for place in 0..self.peers[slot].owned.as_slice().len() {
            if is {
                self.list(slot, place as u32);
            } else {
                self.unlist(slot, place as u32);
            }
        }
    }

    /// The one place where a peer ends.
    fn forget(&mut self, slot: u32) {
        while let Some(last) = self.peers[slot].owned.as_slice().len().checked_sub(1) {
            self.disown(slot, last as u32);
        }
        let peer = &mut self.peers[slot];
        self.texts.remove(std::mem::take(&mut peer.addr));
        let host = peer.host;
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
        self.peers.release(slot);
    }

    fn need(
        &mut self,
        now: Instant,
        token: &Token,
        key: &ContentKey,
        max_owners: usize,
    ) -> Result<TrackerReply, Refusal> {
        let asker = self.authenticate(now, token)?;
        let content = match key {
            ContentKey::Id(id) => self.contents.by_id(id),
            ContentKey::Name(name) => match self.contents.by_name(name) {
                [] => None,
                [one] => Some(*one),
                several => return Ok(self.ambiguous(several)),
            },
        };
        let content = content.ok_or(Refusal::UnknownContent)?;
        Ok(TrackerReply::Found(
            self.found(now, asker, content, key, max_owners),
        ))
    }

    fn update(
        &mut self,
        now: Instant,
        token: &Token,
        uploads: &[Upload],
    ) -> Result<TrackerReply, Refusal> {
        let reporter = self.authenticate(now, token)?;
        let elapsed = self.wheel.elapsed(now);
        let millis = elapsed.as_millis() as u32;
        let since = millis.wrapping_sub(self.peers[reporter].reported);
        self.peers[reporter].reported = millis;
        let since = u128::from(since).min(self.config.lease().as_millis());
        let plausible = since * u128::from(self.config.max_credit_rate) / 1000;
        let mut left = u64::try_from(plausible).unwrap_or(u64::MAX);
        for upload in uploads {
            let Some(owner) = self.peers.by_ref(upload.owner) else {
                continue;
            };
            if owner == reporter {
                continue;
            }
            let bytes = upload.bytes.min(left);
            left -= bytes;
            let old = self.peers[owner].score;
            let new = self.clockwork.credited(old, bytes, elapsed);
            self.peers[owner].score = new;
            if rate::level(old) != rate::level(new) {
                self.relevel(owner);
            }
        }
        Ok(TrackerReply::Done)
    }

    /// Puts an owner of another level where it belongs in all of its contents.
    fn relevel(&mut self, slot: u32) {
        let level = rate::level(self.peers[slot].score);
        for place in 0..self.peers[slot].owned.as_slice().len() {
            let ownership = self.peers[slot].owned.as_slice()[place];
            let owners = &mut self.contents[ownership.content].owners;
            if ownership.pos != UNLISTED && owners.is_ordered() {
                owners.relevel(ownership.pos, level, &mut self.peers);
            }
        }
    }
}

impl Book for Peers {
    fn level(&self, peer: u32) -> i32 {
        rate::level(self[peer].score)
    }

    fn moved(&mut self, owner: Owner, pos: u32) {
        self[owner.peer].owned.as_mut_slice()[owner.place as usize].pos = pos;
    }
}
