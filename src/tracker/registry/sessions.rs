//! The half that knows the peers: who they are, until when, where they listen,
//! how fast they upload, and, as numbers, what they own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::catalog::Card;
use super::chores::Chores;
use super::compact::{Compact, Place, Texts, V4Text};
use super::config::RegistryConfig;
use super::half::{Counted, Total};
use super::keyed::{self, Keyed, Mint};
use super::meter::Meter;
use super::peers::{Holding, Peer, Peers, SHOWN_GENERATION, State};
use super::rate::{self, Clockwork};
use super::stats::{RefusalCounts, RequestCounts};
use super::table::Table;
use super::wheel::{Tick, Wheel};
use crate::protocol::{Addr, OwnerRef, Refusal, Token, TrackerRequest};

/// How many places the table of hosts has for an empty one.
const HOST_CROWD: usize = 8;

/// The peers of one shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    shard: u32,
    bits: u32,
    mint: Mint,
    clockwork: Clockwork,
    pub(super) wheel: Wheel,
    pub(super) peers: Peers,
    pub(super) texts: Texts,
    /// How many peers each host has, by the host's hash.
    pub(super) hosts: Table,
    /// How much the peers of each host own beyond the first content of each,
    /// where they do.
    pub(super) spare: Table,
    /// Up to when the reports of each host have used what it can have received,
    /// in wrapping milliseconds, where several of its peers report.
    pub(super) reports: Table,
    pub(super) chores: Chores,
    /// How many ownerships were touched for a request or a chore.
    #[cfg(any(test, feature = "testing"))]
    pub(super) steps: u64,
    pub(super) expired: u64,
    pub(super) requests: RequestCounts,
    pub(super) refusals: RefusalCounts,
    pub(super) meter: Meter,
    /// The scores of peers of an earlier tracker, until they come back.
    remembered: HashMap<Addr, f32, Keyed>,
    /// Until when, at the latest.
    remembered_until: Option<Instant>,
}

/// What [`Sessions::heartbeat`] and [`Sessions::register`] answer.
pub(super) struct Standing {
    pub(super) token: Token,
    pub(super) listed: Option<Place>,
}

impl Sessions {
    pub(super) fn new(
        config: &RegistryConfig,
        key: &[u8; 32],
        epoch: u64,
        (shard, bits): (u32, u32),
        base: Option<Instant>,
    ) -> Self {
        let first_generation = Keyed::derive(key, "bt_lite owners").seed() as u32 ^ epoch as u32;
        Self {
            shard,
            bits,
            mint: Mint::new(key, epoch),
            clockwork: Clockwork::new(config.half_life),
            wheel: Wheel::new(config.lease(), base),
            peers: Peers::new(first_generation),
            texts: Texts::default(),
            hosts: Table::new(HOST_CROWD, bits),
            spare: Table::new(HOST_CROWD, bits),
            reports: Table::new(HOST_CROWD, bits),
            chores: Chores::default(),
            #[cfg(any(test, feature = "testing"))]
            steps: 0,
            expired: 0,
            requests: RequestCounts::default(),
            refusals: RefusalCounts::default(),
            meter: Meter::default(),
            remembered: HashMap::with_hasher(Keyed::derive(key, "bt_lite remembered")),
            remembered_until: None,
        }
    }

    /// How others call a peer of this shard.
    fn outward(&self, index: u32) -> u32 {
        index << self.bits | self.shard
    }

    /// Counts a request, which came at `now`.
    pub(super) fn count(&mut self, now: Instant, request: &TrackerRequest) {
        self.requests.count(request);
        let tick = self.wheel.tick_at(now);
        if self.meter.is_due(tick) {
            let elapsed = self.wheel.elapsed(now);
            self.meter.turn(tick, elapsed, &self.requests);
        }
    }

    /// Whose token this is. The lease counts here even before the wheel comes
    /// by.
    pub(super) fn authenticate(&mut self, now: Instant, token: &Token) -> Result<u32, Refusal> {
        let tick = self.wheel.tick_at(now);
        let [peer, generation, low, high] = keyed::words(token);
        let index = peer >> self.bits;
        let live = self.peers.live(index).filter(|peer| {
            // Takes the same time wherever the proof differs.
            let differing = (low ^ peer.proof[0]) | (high ^ peer.proof[1]);
            differing | (generation ^ peer.generation) == 0 && peer.deadline > tick
        });
        match live {
            Some(_) if peer & ((1 << self.bits) - 1) == self.shard => Ok(index),
            _ => Err(Refusal::UnknownToken),
        }
    }

    /// Whose token this is, and extends the lease: who asks for something is
    /// there.
    pub(super) fn heard(&mut self, now: Instant, token: &Token) -> Result<u32, Refusal> {
        let index = self.authenticate(now, token)?;
        self.extend(now, index);
        Ok(index)
    }

    /// Whether a peer is listed on the host that it speaks from: what holds for
    /// most, found out without reading the addresses.
    pub(super) fn is_at(&self, index: u32, source: &Addr) -> bool {
        let Compact::V4(ip, port) = self.peers[index].addr else {
            return false;
        };
        let text = V4Text::new(ip, port);
        let port = source.as_str().as_bytes().strip_prefix(text.host());
        port.is_some_and(|port| port.iter().all(u8::is_ascii_digit))
    }

    /// Whether a peer listens already where it says to, and does so on the host
    /// that it speaks from: what most heartbeats say.
    pub(super) fn is_as_before(&self, index: u32, source: &Addr, listen: Option<&Addr>) -> bool {
        match (self.peers[index].addr, listen) {
            (Compact::None, None) => true,
            (Compact::V4(ip, port), Some(listen)) => {
                let text = V4Text::new(ip, port);
                listen.as_str().as_bytes() == text.as_bytes() && self.is_at(index, source)
            }
            _ => false,
        }
    }

    /// Why a peer may own nothing more, and why nothing that nobody owns, if so.
    pub(super) fn full(
        &self,
        index: u32,
        config: &RegistryConfig,
    ) -> (Option<Refusal>, Option<Refusal>) {
        let owned = self.peers.owned_len(index);
        let max = config.max_contents_per_peer;
        if owned >= max as usize {
            return (Some(Refusal::ContentsPerPeer { max }), None);
        }
        if owned == 0 {
            return (None, None);
        }
        let spare = self.spare_of_host(index);
        let max = config.max_ownerships_per_host;
        let full = (spare >= max).then_some(Refusal::OwnershipsPerHost { max });
        let max = config.max_contents_per_host;
        let full_of_new = (spare >= max).then_some(Refusal::ContentsPerHost { max });
        (full, full_of_new)
    }

    /// A new peer, unless there are too many. Its lease has not begun.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        host: u32,
        config: &RegistryConfig,
        total: &mut impl Total,
    ) -> Result<u32, Refusal> {
        let full = Refusal::Peers {
            max: config.max_peers,
        };
        if total.count(Counted::Entries) >= config.max_peers {
            return Err(full);
        }
        let max = config.max_peers_per_host;
        if self.hosts.find(host, |_| true).unwrap_or(0) >= max {
            return Err(Refusal::PeersPerHost { max });
        }
        if !total.add(Counted::Entries, config.max_peers) {
            return Err(full);
        }
        match self.hosts.find_mut(host, |_| true) {
            Some(count) => *count += 1,
            None => self.hosts.insert(host, 1),
        }
        let index = self.peers.claim();
        let reported = self.wheel.elapsed(now).as_millis() as u32;
        let number = self.outward(index);
        let peer = &mut self.peers[index];
        peer.proof = self.mint.proof(number, peer.generation);
        peer.host = host;
        peer.reported = reported;
        Ok(index)
    }

    /// Begins a lease: writes the deadline, and no more where the wheel knows
    /// the slot already.
    pub(super) fn extend(&mut self, now: Instant, index: u32) {
        let deadline = self.wheel.deadline(now);
        let peer = &mut self.peers[index];
        peer.deadline = deadline;
        if !peer.state.is_live() && std::mem::replace(&mut peer.state, State::Live) == State::Free {
            self.enter(index, deadline);
        }
    }

    /// Enters a slot into the wheel, which has no entry of it.
    pub(super) fn enter(&mut self, index: u32, deadline: Tick) {
        self.peers[index].next = self.wheel.insert(index, deadline);
    }

    /// Sets where a peer listens. Returns whether that is another place.
    pub(super) fn listen_at(&mut self, index: u32, place: Option<&Place>) -> bool {
        let old = self.peers[index].addr;
        if self.texts.place(old).as_ref() == place {
            return false;
        }
        self.texts.remove(old);
        self.peers[index].addr = self.texts.insert(place);
        true
    }

    pub(super) fn standing(&self, index: u32) -> Standing {
        let peer = &self.peers[index];
        Standing {
            token: keyed::token(self.outward(index), peer.generation, peer.proof),
            listed: self.texts.place(peer.addr),
        }
    }

    /// What the lists of contents must know of a peer.
    pub(super) fn card(&self, index: u32) -> Card {
        let peer = &self.peers[index];
        Card {
            peer: self.outward(index),
            generation: peer.generation,
            level: rate::level(peer.score),
            host: peer.host,
            credited: peer.state == State::Credited,
            place: self.texts.place(peer.addr),
        }
    }

    /// Where a peer listens, if it does.
    pub(super) fn place(&self, index: u32) -> Option<Place> {
        self.texts.place(self.peers[index].addr)
    }

    /// The peer that an [`OwnerRef`] names, while it is there.
    pub(super) fn by_ref(&self, owner: OwnerRef) -> Option<u32> {
        let index = owner.0 as u32 >> self.bits;
        let generation = (owner.0 >> 32) as u32;
        let shown = |peer: &Peer| peer.generation & SHOWN_GENERATION == generation;
        self.peers.live(index).is_some_and(shown).then_some(index)
    }

    /// Of so many bytes that a peer says to have received, how many it can have
    /// received since it last reported, and its host since its peers did; it
    /// reports them now.
    pub(super) fn plausible(
        &mut self,
        now: Instant,
        index: u32,
        bytes: u64,
        config: &RegistryConfig,
    ) -> u64 {
        let millis = self.wheel.elapsed(now).as_millis() as u32;
        let lease = u32::try_from(config.lease().as_millis()).unwrap_or(u32::MAX);
        let rate = u128::from(config.max_credit_rate);
        let within = |millis: u32| u64::try_from(u128::from(millis.min(lease)) * rate / 1000);
        let peer = &mut self.peers[index];
        let since = millis.wrapping_sub(std::mem::replace(&mut peer.reported, millis));
        let host = peer.host;
        let bytes = bytes.min(within(since).unwrap_or(u64::MAX));
        // What a lone peer reports is bounded by its own reports.
        let several = self.hosts.find(host, |_| true).unwrap_or(0) > 1;
        let Some(used) = self.reports.find(host, |_| true).or_else(|| {
            let used = millis.wrapping_sub(lease);
            several.then_some(used)
        }) else {
            return bytes;
        };
        let since = millis.wrapping_sub(used).min(lease);
        let bytes = bytes.min(within(since).unwrap_or(u64::MAX));
        let spent = match rate {
            0 => 0,
            _ => (u128::from(bytes) * 1000).div_ceil(rate) as u32,
        };
        let used = millis.wrapping_sub(since).wrapping_add(spent);
        // A table holds no zero: a millisecond less, which is nobody's gain.
        let used = if used == 0 { 1 } else { used };
        match self.reports.find_mut(host, |_| true) {
            Some(before) => *before = used,
            None => self.reports.insert(host, used),
        }
        bytes
    }

    /// Credits an upload, which a peer of this host reports. Returns whether the
    /// entries of the peer are to be changed for it.
    pub(super) fn credit(&mut self, now: Instant, index: u32, bytes: u64, host: u32) -> bool {
        if bytes == 0 {
            return false;
        }
        let elapsed = self.wheel.elapsed(now);
        let peer = &mut self.peers[index];
        let old = peer.score;
        peer.score = self.clockwork.credited(old, bytes, elapsed);
        let first = peer.state == State::Live && peer.host != host;
        if first {
            peer.state = State::Credited;
        }
        first || rate::level(old) != rate::level(peer.score)
    }

    /// Counts one ownership that is touched.
    pub(super) fn step(&mut self) {
        #[cfg(any(test, feature = "testing"))]
        {
            self.steps += 1;
        }
    }

    /// How much the peers of a peer's host own beyond the first content of each.
    pub(super) fn spare_of_host(&self, index: u32) -> u32 {
        self.spare
            .find(self.peers[index].host, |_| true)
            .unwrap_or(0)
    }

    /// Notes what a peer owns from now on.
    pub(super) fn hold(&mut self, index: u32, holding: Holding) {
        if self.peers.owned_len(index) > 0 {
            let host = self.peers[index].host;
            match self.spare.find_mut(host, |_| true) {
                Some(count) => *count += 1,
                None => self.spare.insert(host, 1),
            }
        }
        self.peers.hold(index, holding);
    }

    /// The opposite of [`hold`](Self::hold).
    pub(super) fn drop_holding(&mut self, index: u32, content: u32) {
        self.peers.drop_holding(index, content);
        if self.peers.owned_len(index) > 0 {
            let host = self.peers[index].host;
            match self.spare.find_mut(host, |_| true) {
                Some(count) if *count > 1 => *count -= 1,
                _ => self.spare.remove(host, |_| true),
            }
        }
    }

    /// Ends a peer's session, though it still owns something: its token is worth
    /// nothing from here on, and all that it owns is taken away in steps.
    pub(super) fn leave(&mut self, now: Instant, index: u32) {
        self.peers[index].deadline = 0;
        self.chores.leave(index, self.wheel.tick_at(now));
    }

    /// Forgets a peer that owns nothing any more. Afterwards its slot is in
    /// this state.
    pub(super) fn release(&mut self, index: u32, state: State, total: &mut impl Total) {
        let peer = &mut self.peers[index];
        let (addr, host) = (std::mem::take(&mut peer.addr), peer.host);
        self.texts.remove(addr);
        match self.hosts.find_mut(host, |_| true) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.hosts.remove(host, |_| true);
                self.reports.remove(host, |_| true);
            }
        }
        self.chores.end(index);
        self.peers.release(index, state);
        total.sub(Counted::Entries);
    }

    /// The next peer whose lease has run out. Each look costs one of `budget`.
    pub(super) fn pop_expired(&mut self, now: Instant, budget: &mut usize) -> Option<u32> {
        let tick = self.wheel.tick_at(now);
        while *budget > 0
            && let Some(index) = self.wheel.pop(tick, |slot| self.peers[slot].next)
        {
            *budget -= 1;
            let peer = &mut self.peers[index];
            if !peer.state.is_live() {
                peer.state = State::Free;
            } else if peer.deadline > tick {
                let deadline = peer.deadline;
                self.enter(index, deadline);
            } else {
                return Some(index);
            }
        }
        None
    }

    /// The upload rates of those that listen and were ever credited, and of
    /// those that have not come back yet, in bytes per second.
    pub(super) fn credits(&self, age: Duration) -> impl Iterator<Item = (Addr, f64)> {
        let peers = self.peers.iter().filter_map(|(_, peer)| {
            let place = self.texts.place(peer.addr)?;
            Some((place.addr(), peer.score))
        });
        let remembered = self.remembered.iter();
        let all = peers.chain(remembered.map(|(addr, score)| (addr.clone(), *score)));
        let rated = all.map(move |(addr, score)| {
            let rate = self.clockwork.bytes_per_second(score, age);
            (addr, rate)
        });
        rated.filter(|(_, rate)| *rate >= 1.0)
    }

    /// Remembers the upload rate of a peer until it registers, or until then.
    pub(super) fn remember(
        &mut self,
        addr: Addr,
        bytes_per_second: f64,
        age: Duration,
        until: Option<Instant>,
    ) {
        let score = self.clockwork.score(bytes_per_second, age);
        self.remembered.insert(addr, score);
        self.remembered_until = until;
    }

    /// The score that is remembered of whoever listens here, who is back.
    pub(super) fn recall(&mut self, now: Instant, place: &Place) -> Option<f32> {
        self.tick_remembered(now);
        if self.remembered.is_empty() {
            return None;
        }
        self.remembered.remove(&place.addr())
    }

    /// Forgets all that is remembered when its time is over.
    pub(super) fn tick_remembered(&mut self, now: Instant) {
        if self.remembered_until.is_some_and(|until| until <= now) {
            self.remembered.clear();
            self.remembered.shrink_to_fit();
            self.remembered_until = None;
        }
    }

    /// When the next lease may end, or something else is to be done.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        let due = self.chores.next_due();
        let due = due.and_then(|tick| self.wheel.time_of(tick));
        self.wheel.next_turn().into_iter().chain(due).min()
    }
}
