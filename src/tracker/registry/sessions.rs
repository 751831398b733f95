//! The peers of one shard: their tokens and leases, where they listen, how fast
//! they upload and, as numbers, what they own.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::addrs::{ListenAddr, PackedAddr, TextAddrs, V4Text};
#[cfg(feature = "bittorrent")]
use super::announcers::Announcers;
use super::backlog::{Backlog, Job};
use super::catalog::Asker;
use super::config::{AddressRule, RegistryConfig};
use super::decay::{self, RateDecay};
use super::host_counts::HostCounts;
use super::keyed::{self, Keyed, TokenIssuer};
use super::listing::PeerListing;
use super::owner::SHOWN_GENERATION;
use super::peers::{Holding, Peer, Peers, SlotState};
use super::request_rates::RequestRates;
use super::settings::Settings;
use super::snapshot::Credit;
use super::stats::{KINDS, RefusalCounts, RegistryStats, RequestCounts};
use super::table::Table;
use super::timer_wheel::{Tick, TimerWheel};
use crate::protocol::{Addr, OwnerRef, Refusal, Token, TrackerRequest, Upload, ZoneTag};

#[cfg(feature = "bittorrent")]
mod announcing;

/// One in this number of slots of the tables of hosts stays empty.
const HOST_CROWD: usize = 8;

/// The highest port, as text. Of texts of equal length, the order is that of the numbers.
const MAX_PORT: &[u8; 5] = b"65535";

/// The peers of one shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    shard: u32,
    bits: u32,
    issuer: TokenIssuer,
    decay: RateDecay,
    wheel: TimerWheel,
    peers: Peers,
    texts: TextAddrs,
    /// Where peers listen for their other family of IP addresses as well.
    also: BTreeMap<u32, AlsoListens>,
    /// The zones of peers that have said it.
    zones: BTreeMap<u32, ZoneTag>,
    /// How many peers each host has, by the host's hash.
    hosts: HostCounts,
    #[cfg(feature = "bittorrent")]
    announcers: Announcers,
    /// How many contents the peers of each host own beyond the first one of each
    /// peer, where that is more than zero.
    extra_contents: Table,
    /// Until when the reports of each host have used up what the host can have
    /// received, in wrapping milliseconds. Only for hosts with several peers.
    reports: Table,
    backlog: Backlog,
    /// How many ownerships were touched for a request or a job.
    #[cfg(any(test, feature = "testing"))]
    steps: u64,
    expired: u64,
    requests: RequestCounts,
    /// Entries of OWN.
    announced: u64,
    refusals: RefusalCounts,
    rates: RequestRates,
    /// The scores of peers of an earlier tracker, until they register again.
    remembered: HashMap<Addr, f32, Keyed>,
    /// When all of them are forgotten. `None`: never.
    remembered_until: Option<Instant>,
}

/// A second address of a peer.
#[derive(Debug)]
struct AlsoListens {
    addr: ListenAddr,
    /// When it counts no more, unless the peer says it again.
    until: Tick,
}

/// What REGISTER with a token comes to.
#[derive(Debug)]
pub(crate) enum Heartbeat {
    /// The token is not of a peer here, or counts as such.
    Unknown,
    /// The lease is extended.
    Known {
        index: u32,
        listed: Option<ListenAddr>,
        /// Whether its address has changed.
        moved: bool,
    },
}

/// An UPDATE that was accepted.
#[derive(Debug)]
pub(crate) struct UploadReport {
    /// The number of the reporter.
    peer: u32,
    /// The host of the reporter.
    pub(crate) host: u32,
    /// How many bytes the reporter can have received.
    pub(crate) plausible: u64,
}

impl UploadReport {
    /// Whether an upload is by another peer than the reporter.
    pub(crate) fn is_of_other(&self, upload: &Upload) -> bool {
        upload.owner.0 as u32 != self.peer
    }
}

impl Sessions {
    /// An empty shard. No later call may come from before `now`.
    pub(crate) fn new(settings: &Settings, key: &[u8; 32], shard: u32, now: Instant) -> Self {
        let Settings { config, epoch, .. } = settings;
        let bits = settings.bits();
        let first_generation = Keyed::derive(key, "bt_lite owners").seed() as u32 ^ *epoch as u32;
        Self {
            shard,
            bits,
            issuer: TokenIssuer::new(key, *epoch),
            decay: RateDecay::new(config.half_life),
            wheel: TimerWheel::new(config.lease(), now),
            peers: Peers::new(first_generation),
            texts: TextAddrs::default(),
            also: BTreeMap::new(),
            zones: BTreeMap::new(),
            hosts: HostCounts::new(bits, shard),
            #[cfg(feature = "bittorrent")]
            announcers: Announcers::new(key, bits, shard),
            extra_contents: Table::new(HOST_CROWD, bits),
            reports: Table::new(HOST_CROWD, bits),
            backlog: Backlog::default(),
            #[cfg(any(test, feature = "testing"))]
            steps: 0,
            expired: 0,
            requests: RequestCounts::default(),
            announced: 0,
            refusals: RefusalCounts::default(),
            rates: RequestRates::default(),
            remembered: HashMap::with_hasher(Keyed::derive(key, "bt_lite remembered")),
            remembered_until: None,
        }
    }

    /// The number of a peer outside of this shard.
    fn outward(&self, index: u32) -> u32 {
        index << self.bits | self.shard
    }

    /// Counts a request that came at `now`.
    pub(crate) fn count(&mut self, now: Instant, request: &TrackerRequest) {
        self.requests.count(request);
        if let TrackerRequest::Own { entries, .. } = request {
            self.announced += entries.len() as u64;
        }
        self.counted(now);
    }

    /// Brings the rates up to date after a request that came at `now`.
    fn counted(&mut self, now: Instant) {
        let tick = self.wheel.tick_at(now);
        if self.rates.is_due(tick) {
            let elapsed = self.wheel.elapsed(now);
            self.rates.update(tick, elapsed, &self.requests);
        }
    }

    /// A peer asks for owners: counts the request, which came at `now`, and extends the lease.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub(crate) fn asks(&mut self, now: Instant, token: &Token) -> Result<Asker, Refusal> {
        self.requests.need += 1;
        self.counted(now);
        let index = self.heard(now, token)?;
        Ok(self.asker(index))
    }

    /// Counts a refusal.
    pub(crate) fn count_refusal(&mut self, refusal: &Refusal) {
        self.refusals.count(refusal);
    }

    /// Adds the counts of this shard. Those of peers, contents and ownerships are
    /// kept for all shards together.
    pub(crate) fn add_to(&self, stats: &mut RegistryStats) {
        stats.expired += self.expired;
        stats.announced += self.announced;
        stats.requests.add(&self.requests);
        stats.refusals.add(&self.refusals);
    }

    /// How many requests of each kind arrive in a second.
    pub(crate) fn requests_per_second(&self) -> [f64; KINDS] {
        self.rates.per_second()
    }

    /// The peer of a token. A lease that has run out counts as such even before
    /// the wheel has come to it.
    pub(crate) fn authenticate(&mut self, now: Instant, token: &Token) -> Result<u32, Refusal> {
        let tick = self.wheel.tick_at(now);
        let [number, generation, low, high] = keyed::words(token);
        // Computed first, while the memory fetches the slot.
        let proof = self.issuer.proof(number, generation);
        // This takes the same time wherever the proof differs.
        let is_proven = (low ^ proof[0]) | (high ^ proof[1]) == 0;
        let index = number >> self.bits;
        let is_meant =
            |peer: &Peer| peer.generation == generation && peer.deadline > tick && is_proven;
        match self.peers.live(index).is_some_and(is_meant) {
            true if number & ((1 << self.bits) - 1) == self.shard => Ok(index),
            _ => Err(Refusal::UnknownToken),
        }
    }

    /// Reads the slot that a token names. Returns a number of it, for nothing but that.
    pub(crate) fn touch(&self, token: &Token) -> u32 {
        let [peer, ..] = keyed::words(token);
        self.peers.touch(peer >> self.bits)
    }

    /// The peer of a token, whose request extends its lease.
    pub(crate) fn heard(&mut self, now: Instant, token: &Token) -> Result<u32, Refusal> {
        let index = self.authenticate(now, token)?;
        self.extend(now, index);
        Ok(index)
    }

    /// REGISTER with a token: extends the lease, and notes where the peer listens
    /// now. If the peer has moved, its entries must be refreshed.
    ///
    /// # Errors
    /// [`Refusal::ForeignAddress`].
    pub(crate) fn heartbeat(
        &mut self,
        settings: &Settings,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
        token: &Token,
    ) -> Result<Heartbeat, Refusal> {
        let Ok(index) = self.authenticate(now, token) else {
            return Ok(Heartbeat::Unknown);
        };
        // With a token of another host the peer counts as a new one, so that a
        // stolen token cannot move a peer to an address that it does not speak
        // from.
        if settings.config.addresses == AddressRule::SourceHost
            && !self.is_at(index, source)
            && settings.host(source) != self.host(index)
        {
            return Ok(Heartbeat::Unknown);
        }
        let lapsed = self.also_lapsed(now, index);
        if self.is_unmoved(index, source, listen) {
            self.extend(now, index);
            return Ok(Heartbeat::Known {
                index,
                listed: self.listen_addr(index),
                moved: lapsed,
            });
        }
        let listed = settings.listed(source, listen)?;
        self.extend(now, index);
        let moved = self.set_listen_addr(index, listed.as_ref());
        Ok(Heartbeat::Known {
            index,
            listed,
            moved: moved || lapsed,
        })
    }

    /// REGISTER over the other family: notes where the peer listens for that as well. The
    /// token proves that it is the same peer, which speaks from another host here. Returns
    /// its number, and the address if it is listed there, and whether that has changed.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`] and [`Refusal::ForeignAddress`].
    pub(crate) fn also(
        &mut self,
        settings: &Settings,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
        token: &Token,
    ) -> Result<(u32, Option<ListenAddr>, bool), Refusal> {
        let index = self.authenticate(now, token)?;
        let listed = settings.listed(source, listen)?;
        let first = self.listen_addr(index);
        let first = first.as_ref().and_then(ListenAddr::family);
        let is_other = |addr: &ListenAddr| {
            let family = addr.family();
            first.is_some() && family.is_some() && family != first
        };
        let until = self.wheel.deadline(now);
        let Some(addr) = listed.filter(is_other) else {
            let moved = self.also.remove(&index).is_some();
            return Ok((index, None, moved));
        };
        let also = AlsoListens {
            addr: addr.clone(),
            until,
        };
        let before = self.also.insert(index, also);
        let moved = before.is_none_or(|before| before.addr != addr);
        Ok((index, Some(addr), moved))
    }

    /// Forgets the second address of a peer that has not repeated it. Returns whether it
    /// has.
    fn also_lapsed(&mut self, now: Instant, index: u32) -> bool {
        let tick = self.wheel.tick_at(now);
        let also = self.also.get(&index);
        also.is_some_and(|also| also.until <= tick) && self.also.remove(&index).is_some()
    }

    /// A peer, as one who asks for owners.
    pub(crate) fn asker(&self, index: u32) -> Asker {
        Asker {
            listens: self.listen_addr(index),
            has_both: self.also.contains_key(&index),
            zone: self.zone(index),
        }
    }

    /// ZONE: notes in which zone a peer is, and extends its lease. Returns its number, and
    /// whether that is news.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub(crate) fn set_zone(
        &mut self,
        now: Instant,
        token: &Token,
        zone: ZoneTag,
    ) -> Result<(u32, bool), Refusal> {
        let index = self.heard(now, token)?;
        let before = self.zones.insert(index, zone);
        Ok((index, before != Some(zone)))
    }

    /// The zone of a peer, if it has said it.
    pub(crate) fn zone(&self, index: u32) -> Option<ZoneTag> {
        match self.zones.is_empty() {
            true => None,
            false => self.zones.get(&index).copied(),
        }
    }

    /// Whether a peer is listed on the host that it speaks from. That holds for
    /// most peers, and is found out without parsing the addresses.
    fn is_at(&self, index: u32, source: &Addr) -> bool {
        let PackedAddr::V4(ip, port) = self.peers[index].addr else {
            return false;
        };
        let text = V4Text::new(ip, port);
        let port = source.as_str().as_bytes().strip_prefix(text.host());
        port.is_some_and(|port| match port.len() {
            1..5 => port.iter().all(u8::is_ascii_digit),
            5 => port.iter().all(u8::is_ascii_digit) && port <= MAX_PORT.as_slice(),
            _ => false,
        })
    }

    /// Whether a peer is listed where it says to listen, on the host that it
    /// speaks from. That holds for most heartbeats.
    fn is_unmoved(&self, index: u32, source: &Addr, listen: Option<&Addr>) -> bool {
        match (self.peers[index].addr, listen) {
            (PackedAddr::None, None) => true,
            (PackedAddr::V4(ip, port), Some(listen)) => {
                let text = V4Text::new(ip, port);
                listen.as_str().as_bytes() == text.as_bytes() && self.is_at(index, source)
            }
            _ => false,
        }
    }

    /// Whether a host may register one more peer.
    ///
    /// # Errors
    /// [`Refusal::PeersPerHost`].
    pub(crate) fn check_host(&self, host: u32, config: &RegistryConfig) -> Result<(), Refusal> {
        let max = config.max_peers_per_host;
        match self.hosts.of(host) >= max {
            true => Err(Refusal::PeersPerHost { max }),
            false => Ok(()),
        }
    }

    /// Registers a new peer of this host, whose score may be known from an earlier
    /// tracker, and begins its lease. Returns its token.
    pub(crate) fn register(
        &mut self,
        now: Instant,
        host: u32,
        score: Option<f32>,
        listed: Option<&ListenAddr>,
    ) -> Token {
        self.hosts.add(host);
        let index = self.peers.claim();
        let reported = self.wheel.elapsed(now).as_millis() as u32;
        let number = self.outward(index);
        let rest = self.peers.rest_mut(index);
        rest.host = host;
        rest.reported = reported;
        if let Some(score) = score {
            rest.score = score;
        }
        let generation = self.peers[index].generation;
        let proof = self.issuer.proof(number, generation);
        let token = keyed::token(number, generation, proof);
        self.extend(now, index);
        self.set_listen_addr(index, listed);
        token
    }

    /// Begins a lease: writes the deadline, and nothing else if the wheel already
    /// has an entry of the slot.
    fn extend(&mut self, now: Instant, index: u32) {
        let deadline = self.wheel.deadline(now);
        let peer = &mut self.peers[index];
        peer.deadline = deadline;
        if !peer.state.is_live()
            && std::mem::replace(&mut peer.state, SlotState::Live) == SlotState::Free
        {
            self.enter(index, deadline);
        }
    }

    /// Enters a slot into the wheel, which must have no entry of it.
    fn enter(&mut self, index: u32, deadline: Tick) {
        self.peers.rest_mut(index).next = self.wheel.insert(index, deadline);
    }

    /// Sets where a peer listens. Returns whether the address has changed.
    fn set_listen_addr(&mut self, index: u32, addr: Option<&ListenAddr>) -> bool {
        let old = self.peers[index].addr;
        if self.texts.load(old).as_ref() == addr {
            return false;
        }
        self.texts.remove(old);
        // Its other family may be another one from now on. It is said again soon.
        self.also.remove(&index);
        self.peers[index].addr = self.texts.insert(addr);
        true
    }

    /// Where a peer listens, if it does.
    pub(crate) fn listen_addr(&self, index: u32) -> Option<ListenAddr> {
        self.texts.load(self.peers[index].addr)
    }

    /// A peer, as the lists of contents should show it.
    pub(crate) fn listing(&self, index: u32) -> PeerListing {
        let (peer, rest) = (&self.peers[index], self.peers.rest(index));
        PeerListing {
            peer: self.outward(index),
            generation: peer.generation,
            level: decay::level(rest.score),
            host: rest.host,
            credited: peer.state == SlotState::Credited,
            addr: self.texts.load(peer.addr),
            also: self.also.get(&index).map(|also| also.addr.clone()),
            zone: self.zone(index),
        }
    }

    /// The host that registered a peer.
    pub(crate) fn host(&self, index: u32) -> u32 {
        self.peers.rest(index).host
    }

    /// The peer that an [`OwnerRef`] names, if it is still registered.
    pub(crate) fn by_ref(&self, owner: OwnerRef) -> Option<u32> {
        let index = owner.0 as u32 >> self.bits;
        let generation = (owner.0 >> 32) as u32;
        let shown = |peer: &Peer| peer.generation & SHOWN_GENERATION == generation;
        self.peers.live(index).is_some_and(shown).then_some(index)
    }

    /// Whether a peer may own one more content, which may be new to the registry.
    ///
    /// # Errors
    /// [`Refusal::ContentsPerPeer`] and [`Refusal::OwnershipsPerHost`], and for a
    /// new content [`Refusal::ContentsPerHost`].
    pub(crate) fn check_quota(
        &self,
        index: u32,
        new: bool,
        config: &RegistryConfig,
    ) -> Result<(), Refusal> {
        let owned = self.peers.owned_len(index);
        let max = config.max_contents_per_peer;
        if owned >= max as usize {
            return Err(Refusal::ContentsPerPeer { max });
        }
        // The first content of a peer does not count for its host.
        if owned == 0 {
            return Ok(());
        }
        let extra = self.extra_contents_of(self.host(index));
        let max = config.max_ownerships_per_host;
        if extra >= max {
            return Err(Refusal::OwnershipsPerHost { max });
        }
        let max = config.max_contents_per_host;
        match new && extra >= max {
            true => Err(Refusal::ContentsPerHost { max }),
            false => Ok(()),
        }
    }

    /// How many contents the peers of a host own beyond the first one of each.
    fn extra_contents_of(&self, host: u32) -> u32 {
        self.extra_contents.find(host, |_| true).unwrap_or(0)
    }

    /// Accepts a report of uploads. Each must then be credited by
    /// [`credit`](Self::credit) in the shard of its owner.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub(crate) fn report(
        &mut self,
        now: Instant,
        token: &Token,
        uploads: &[Upload],
        config: &RegistryConfig,
    ) -> Result<UploadReport, Refusal> {
        let index = self.heard(now, token)?;
        let mut report = UploadReport {
            peer: self.outward(index),
            host: self.host(index),
            plausible: 0,
        };
        let others = uploads.iter().filter(|upload| report.is_of_other(upload));
        let bytes = others.fold(0, |sum: u64, upload| sum.saturating_add(upload.bytes));
        report.plausible = self.plausible(now, index, bytes, config);
        Ok(report)
    }

    /// Of the bytes that a peer reports now, how many it can have received since
    /// its last report, and its host since the last report of its peers.
    fn plausible(&mut self, now: Instant, index: u32, bytes: u64, config: &RegistryConfig) -> u64 {
        let millis = self.wheel.elapsed(now).as_millis() as u32;
        let lease = u32::try_from(config.lease().as_millis()).unwrap_or(u32::MAX);
        let rate = u128::from(config.max_credit_rate);
        let within = |millis: u32| u64::try_from(u128::from(millis.min(lease)) * rate / 1000);
        let rest = self.peers.rest_mut(index);
        let since = millis.wrapping_sub(std::mem::replace(&mut rest.reported, millis));
        let host = rest.host;
        let bytes = bytes.min(within(since).unwrap_or(u64::MAX));
        // A host with one peer needs no entry: the peer's own reports bound it.
        let several = self.hosts.of(host) > 1;
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
        // A table holds no zero. One millisecond more favours nobody.
        let used = if used == 0 { 1 } else { used };
        match self.reports.find_mut(host, |_| true) {
            Some(before) => *before = used,
            None => self.reports.insert(host, used),
        }
        bytes
    }

    /// Credits an upload that a peer of this host has reported. Returns whether
    /// the entries of the credited peer must be refreshed.
    pub(crate) fn credit(&mut self, now: Instant, index: u32, bytes: u64, host: u32) -> bool {
        if bytes == 0 {
            return false;
        }
        let elapsed = self.wheel.elapsed(now);
        let rest = self.peers.rest_mut(index);
        let old = rest.score;
        rest.score = self.decay.credited(old, bytes, elapsed);
        let is_new_level = decay::level(old) != decay::level(rest.score);
        let is_of_other = rest.host != host;
        let peer = &mut self.peers[index];
        let first = peer.state == SlotState::Live && is_of_other;
        if first {
            peer.state = SlotState::Credited;
        }
        first || is_new_level
    }

    /// Counts one ownership that is touched.
    pub(crate) fn step(&mut self) {
        #[cfg(any(test, feature = "testing"))]
        {
            self.steps += 1;
        }
    }

    /// How many ownerships were touched so far.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// How many contents a peer owns.
    pub(crate) fn owned_len(&self, index: u32) -> usize {
        self.peers.owned_len(index)
    }

    /// What a peer owns, from the content of this number on.
    pub(crate) fn owned_from(&self, index: u32, from: u32) -> impl Iterator<Item = Holding> {
        self.peers.owned_from(index, from)
    }

    /// The first content that a peer owns, if there is one.
    pub(crate) fn any_owned(&self, index: u32) -> Option<Holding> {
        self.peers.any_owned(index)
    }

    /// A content, if the peer owns it.
    pub(crate) fn holding(&self, index: u32, content: u32) -> Option<Holding> {
        let ownership = self.peers.ownership(index, content)?;
        Some(Holding { content, ownership })
    }

    /// Adds a content to those that a peer owns.
    pub(crate) fn hold(&mut self, index: u32, holding: Holding) {
        if self.peers.owned_len(index) > 0 {
            let host = self.host(index);
            match self.extra_contents.find_mut(host, |_| true) {
                Some(count) => *count += 1,
                None => self.extra_contents.insert(host, 1),
            }
        }
        self.peers.hold(index, holding);
    }

    /// Reverts [`hold`](Self::hold).
    pub(crate) fn drop_holding(&mut self, index: u32, content: u32) {
        self.peers.drop_holding(index, content);
        if self.peers.owned_len(index) > 0 {
            let host = self.host(index);
            match self.extra_contents.find_mut(host, |_| true) {
                Some(count) if *count > 1 => *count -= 1,
                _ => self.extra_contents.remove(host, |_| true),
            }
        }
    }

    /// Leaves it to later calls to refresh the entries of a peer.
    pub(crate) fn refresh_later(&mut self, now: Instant, index: u32) {
        let tick = self.wheel.tick_at(now);
        self.backlog.refresh(index, tick);
    }

    /// Ends the session of a peer that still owns something. Its token is invalid
    /// from here on, and later calls remove its entries.
    pub(crate) fn leave(&mut self, now: Instant, index: u32) {
        self.peers[index].deadline = 0;
        self.backlog.leave(index, self.wheel.tick_at(now));
    }

    /// A job of the backlog that is due. [`refreshed`](Self::refreshed) or
    /// [`release`](Self::release) must follow, unless a part of
    /// [`Job::Leave`] is left.
    pub(crate) fn due_job(&mut self, now: Instant) -> Option<(u32, Job)> {
        let tick = self.wheel.tick_at(now);
        self.backlog.due(tick)
    }

    /// Entries of a peer were refreshed: all of them, or those before the content
    /// `next`.
    pub(crate) fn refreshed(&mut self, index: u32, next: Option<u32>) {
        match next {
            Some(next) => self.backlog.continue_at(index, next),
            None => {
                let pace = self.wheel.lease_ticks();
                self.backlog.round_over(index, pace);
            }
        }
    }

    /// Forgets a peer that has said EXIT and owns nothing any more.
    pub(crate) fn release(&mut self, index: u32) {
        self.release_as(index, SlotState::Left);
    }

    /// Forgets a peer that [`pop_expired`](Self::pop_expired) returned and that
    /// owns nothing any more.
    pub(crate) fn release_expired(&mut self, index: u32) {
        self.expired += u64::from(!self.backlog.is_leaving(index));
        self.release_as(index, SlotState::Free);
    }

    fn release_as(&mut self, index: u32, state: SlotState) {
        let host = self.host(index);
        let addr = std::mem::take(&mut self.peers[index].addr);
        self.texts.remove(addr);
        self.also.remove(&index);
        self.zones.remove(&index);
        self.leave_host(index, host);
        self.backlog.end(index);
        self.peers.release(index, state);
    }

    /// A host has one peer less: this one.
    fn leave_host(&mut self, index: u32, host: u32) {
        #[cfg(feature = "bittorrent")]
        if self.peers[index].state == SlotState::Announcer {
            self.announcers.remove(index, host);
            return;
        }
        let _ = index;
        if self.hosts.sub(host) == 0 {
            self.reports.remove(host, |_| true);
        }
    }

    /// The next peer whose lease has run out. Each look costs one of `budget`.
    /// [`release_expired`](Self::release_expired) or
    /// [`expire_again`](Self::expire_again) must follow.
    pub(crate) fn pop_expired(&mut self, now: Instant, budget: &mut usize) -> Option<u32> {
        let tick = self.wheel.tick_at(now);
        while *budget > 0
            && let Some(index) = self.wheel.pop(tick, |slot| self.peers.rest(slot).next)
        {
            *budget -= 1;
            let peer = &mut self.peers[index];
            if !peer.state.is_live() {
                peer.state = SlotState::Free;
            } else if peer.deadline > tick {
                // One that is further off has more turns before.
                let turn = peer.deadline.min(tick + self.wheel.lease_ticks());
                self.enter(index, turn);
            } else {
                return Some(index);
            }
        }
        None
    }

    /// The peer still owns something: it has another turn.
    pub(crate) fn expire_again(&mut self, index: u32) {
        let deadline = self.peers[index].deadline;
        self.enter(index, deadline);
    }

    /// The upload rates of all peers that listen and were ever credited, and of
    /// those that are remembered.
    pub(crate) fn credits(&mut self, now: Instant) -> impl Iterator<Item = Credit> {
        self.expire_remembered(now);
        let age = self.wheel.elapsed(now);
        let this = &*self;
        let peers = this.peers.iter().filter_map(|(index, peer)| {
            let addr = this.texts.load(peer.addr)?;
            Some((addr.addr(), this.peers.rest(index).score))
        });
        let remembered = this.remembered.iter();
        let all = peers.chain(remembered.map(|(addr, score)| (addr.clone(), *score)));
        let rated = all.map(move |(addr, score)| {
            let rate = this.decay.bytes_per_second(score, age);
            (addr, rate)
        });
        let rated = rated.filter(|(_, rate)| *rate >= 1.0);
        rated.map(|(addr, rate)| Credit {
            addr,
            // Casts of floats saturate.
            bytes_per_second: rate.round() as u64,
        })
    }

    /// Remembers the upload rate of a peer until it registers, at most until
    /// `until`.
    pub(crate) fn remember(
        &mut self,
        now: Instant,
        credit: &Credit,
        config: &RegistryConfig,
        until: Option<Instant>,
    ) {
        let age = self.wheel.elapsed(now);
        let rate = credit.bytes_per_second.min(config.max_credit_rate);
        let score = self.decay.score(rate as f64, age);
        self.remembered.insert(credit.addr.clone(), score);
        self.remembered_until = until;
    }

    /// Takes out the score that is remembered of the peer that listens here.
    pub(crate) fn recall(&mut self, now: Instant, addr: &ListenAddr) -> Option<f32> {
        self.expire_remembered(now);
        if self.remembered.is_empty() {
            return None;
        }
        self.remembered.remove(&addr.addr())
    }

    /// Forgets all remembered scores once their time is over.
    fn expire_remembered(&mut self, now: Instant) {
        if self.remembered_until.is_some_and(|until| until <= now) {
            self.remembered.clear();
            self.remembered.shrink_to_fit();
            self.remembered_until = None;
        }
    }

    /// When the next lease may end, or the next job is due.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        let due = self.backlog.next_due();
        let due = due.and_then(|tick| self.wheel.time_of(tick));
        self.wheel.next_turn().into_iter().chain(due).min()
    }

    /// The score of a peer.
    #[cfg(test)]
    pub(crate) fn score(&self, index: u32) -> f32 {
        self.peers.rest(index).score
    }

    /// Everything that the peers own, with their listings, and whether that must
    /// be up to date by now.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn holdings(&self) -> impl Iterator<Item = (Holding, PeerListing, bool)> {
        self.peers.iter().flat_map(move |(index, _)| {
            let settled = self.backlog.is_settled(index);
            let owned = self.peers.owned(index);
            owned.map(move |held| (held, self.listing(index), settled))
        })
    }

    /// Checks the parts of this shard against each other, and returns how many
    /// peers it has.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self) -> usize {
        let mut hosts = BTreeMap::<u32, u32>::new();
        let mut extra = BTreeMap::<u32, u32>::new();
        let (mut texts, mut in_wheel) = (0, Vec::new());
        #[cfg(feature = "bittorrent")]
        let (mut announcing, mut announcers) = (BTreeMap::<u32, u32>::new(), Vec::new());
        for (index, peer) in self.peers.check() {
            if peer.state != SlotState::Free {
                in_wheel.push(index);
            }
            if peer.state.is_live() {
                let more = self.peers.owned_len(index).saturating_sub(1) as u32;
                *extra.entry(self.host(index)).or_default() += more;
                #[cfg(feature = "bittorrent")]
                if peer.state == SlotState::Announcer {
                    announcers.push(index);
                    *announcing.entry(self.host(index)).or_default() += 1;
                    texts += usize::from(matches!(peer.addr, PackedAddr::Text(_)));
                    continue;
                }
                *hosts.entry(self.host(index)).or_default() += 1;
                texts += usize::from(matches!(peer.addr, PackedAddr::Text(_)));
            }
        }
        assert!(
            self.reports
                .iter()
                .all(|(host, _)| hosts.contains_key(&host))
        );
        assert_eq!(hosts, self.hosts.iter().collect());
        #[cfg(feature = "bittorrent")]
        {
            assert_eq!(announcing, self.announcers.hosts().collect());
            let mut known: Vec<_> = self.announcers.check().collect();
            known.sort_unstable();
            assert_eq!(announcers, known);
        }
        extra.retain(|_, count| *count > 0);
        assert_eq!(extra, self.extra_contents.iter().collect());
        assert!(self.backlog.len() <= in_wheel.len());
        assert_eq!(texts, self.texts.len());
        for index in self.zones.keys() {
            assert!(self.peers.live(*index).is_some());
        }
        for (index, also) in &self.also {
            assert!(self.peers.live(*index).is_some());
            let first = self.listen_addr(*index).and_then(|addr| addr.family());
            assert!(first.is_some_and(|first| also.addr.family().is_some_and(|f| f != first)));
        }
        let mut entries = self.wheel.entries(|slot| self.peers.rest(slot).next);
        entries.sort_unstable();
        assert_eq!(entries, in_wheel);
        self.peers.iter().count()
    }
}
