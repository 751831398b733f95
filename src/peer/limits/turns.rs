//! Who may send or ask next: what waits for the limits of one direction, and in which order
//! it passes.
//!
//! Each host of each content is a *flow*, and has at most one turn in the queue. Turns are
//! ordered by the start times of start-time fair queueing (Goyal, Vin and Cheng, 1996): a
//! flow that was given more bytes comes later. A turn that a limit of its own content or
//! host holds up is passed over; the first one that waits for nothing but the limit of the
//! whole peer is not, or short blocks would keep a long one waiting forever.
//!
//! Pure: it is told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use crate::content::ContentId;
use crate::protocol::HostKey;

/// So many flows and hosts are kept, with those in the queue, before those that make no
/// difference any more are looked for.
const MIN_KEPT: usize = 64;

/// So many bytes of a content, from or to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) content: ContentId,
    pub(super) host: HostKey,
    pub(super) bytes: u64,
}

/// When a flow has its turn: its start in virtual time, and the order of asking.
type Place = (u64, u64);

#[derive(Debug, Default)]
struct Flow {
    /// The virtual time at which its last turn ends.
    finish: u64,
    /// Its place in the queue, if it waits.
    place: Option<Place>,
}

/// What the queue allows at a moment.
enum Look {
    /// The turn at this place passes.
    Pass(Place),
    /// None does before this long.
    Wait(Duration),
    /// None waits.
    Empty,
}

/// The limits of one direction, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Turns {
    peer: Option<Bucket>,
    /// The limit of each host, in bytes per second.
    per_host: Option<u64>,
    hosts: BTreeMap<HostKey, Bucket>,
    contents: BTreeMap<ContentId, Bucket>,
    queue: BTreeMap<Place, Turn>,
    flows: BTreeMap<(ContentId, HostKey), Flow>,
    virtual_time: u64,
    asked: u64,
    /// When there are so many flows or hosts, the superfluous ones are forgotten.
    prune_at: usize,
}

impl Turns {
    // Limits, in bytes per second. `None` is no limit.

    pub(super) fn set_peer(&mut self, now: Instant, rate: Option<u64>) {
        set(&mut self.peer, now, rate);
    }

    pub(super) fn set_per_host(&mut self, now: Instant, rate: Option<u64>) {
        self.per_host = rate;
        match rate {
            None => self.hosts.clear(),
            Some(rate) => self.hosts.values_mut().for_each(|b| b.set_rate(now, rate)),
        }
    }

    pub(super) fn set_content(&mut self, now: Instant, content: ContentId, rate: Option<u64>) {
        let mut bucket = self.contents.remove(&content);
        set(&mut bucket, now, rate);
        self.contents.extend(bucket.map(|bucket| (content, bucket)));
    }

    /// Whether anything limits a content.
    pub(super) fn limits(&self, content: &ContentId) -> bool {
        self.peer.is_some() || self.per_host.is_some() || self.contents.contains_key(content)
    }

    // The queue.

    /// A flow wants so many bytes. If it waits already, it waits for as many more.
    pub(super) fn ask(&mut self, now: Instant, turn: Turn) {
        let key = (turn.content, turn.host.clone());
        self.prune(now);
        if self.per_host.is_some() && !self.hosts.contains_key(&turn.host) {
            let bucket = self.per_host.map(|rate| Bucket::new(now, rate));
            self.hosts.extend(bucket.map(|b| (turn.host.clone(), b)));
        }
        let flow = self.flows.entry(key).or_default();
        if let Some(waiting) = flow.place.and_then(|place| self.queue.get_mut(&place)) {
            waiting.bytes += turn.bytes;
            flow.finish += turn.bytes;
            return;
        }
        let place = (self.virtual_time.max(flow.finish), self.asked);
        flow.finish = place.0 + turn.bytes;
        flow.place = Some(place);
        self.asked += 1;
        self.queue.insert(place, turn);
    }

    /// The next turn that passes now; `None` if none does.
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn> {
        let Look::Pass(place) = self.look(now) else {
            return None;
        };
        let turn = self.queue.remove(&place)?;
        self.virtual_time = place.0;
        if let Some(flow) = self.flows.get_mut(&(turn.content, turn.host.clone())) {
            flow.place = None;
        }
        for bucket in self.buckets(&turn.content, &turn.host) {
            bucket.take(now, turn.bytes);
        }
        if self.queue.is_empty() {
            self.flows.clear();
            self.virtual_time = 0;
        }
        Some(turn)
    }

    /// When the next turn may pass; `None` if none waits.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match self.look(now) {
            Look::Pass(_) => Some(now),
            Look::Wait(wait) => now.checked_add(wait),
            Look::Empty => None,
        }
    }

    /// O(turns that a limit of their content or host holds up).
    fn look(&self, now: Instant) -> Look {
        let mut shortest: Option<Duration> = None;
        for (place, turn) in &self.queue {
            let content = self.contents.get(&turn.content);
            let own = content.into_iter().chain(self.hosts.get(&turn.host));
            let own = own.map(|bucket| bucket.wait(now, turn.bytes)).max();
            let own = own.unwrap_or_default();
            let peer = self.peer.as_ref();
            let peer = peer.map_or(Duration::ZERO, |bucket| bucket.wait(now, turn.bytes));
            let wait = own.max(peer);
            if wait.is_zero() {
                return Look::Pass(*place);
            }
            shortest = Some(shortest.map_or(wait, |shortest| shortest.min(wait)));
            if own.is_zero() {
                break;
            }
        }
        shortest.map_or(Look::Empty, Look::Wait)
    }

    /// Bytes that were given will not pass.
    pub(super) fn give_back(&mut self, now: Instant, turn: &Turn) {
        for bucket in self.buckets(&turn.content, &turn.host) {
            bucket.give_back(now, turn.bytes);
        }
    }

    /// Nothing of a content waits any more.
    pub(super) fn forget(&mut self, content: &ContentId) {
        self.queue.retain(|_, turn| turn.content != *content);
        self.flows.retain(|(of, _), _| of != content);
    }

    fn buckets(&mut self, content: &ContentId, host: &HostKey) -> impl Iterator<Item = &mut Bucket> {
        let content = self.contents.get_mut(content).into_iter();
        let host = self.hosts.get_mut(host).into_iter();
        content.chain(host).chain(&mut self.peer)
    }

    /// Forgets the flows and hosts that make no difference, when there are many.
    fn prune(&mut self, now: Instant) {
        let count = self.flows.len().max(self.hosts.len());
        if count < self.prune_at.max(MIN_KEPT) {
            return;
        }
        let virtual_time = self.virtual_time;
        self.flows
            .retain(|_, flow| flow.place.is_some() || flow.finish > virtual_time);
        let waiting: BTreeSet<&HostKey> = self.queue.values().map(|turn| &turn.host).collect();
        self.hosts
            .retain(|host, bucket| waiting.contains(host) || !bucket.is_full(now));
        self.prune_at = 2 * self.flows.len().max(self.hosts.len());
    }
}

fn set(bucket: &mut Option<Bucket>, now: Instant, rate: Option<u64>) {
    match (bucket.as_mut(), rate) {
        (Some(bucket), Some(rate)) => bucket.set_rate(now, rate),
        _ => *bucket = rate.map(|rate| Bucket::new(now, rate)),
    }
}
