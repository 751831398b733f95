//! Who may send or ask next: what waits for the limits of one direction, and in which order
//! it passes.
//!
//! Each host of each content is a *flow*, and has at most one turn in the queue. Turns are
//! ordered by the start times of start-time fair queueing (Goyal, Vin and Cheng, 1996): a
//! flow that was given more bytes comes later. A turn that a limit of its own content or
//! host holds up is passed over; the first one that waits for nothing but the limit of the
//! whole peer is not, or short blocks would keep a long one waiting forever.
//!
//! An invitation passes a little before its bytes could, and takes nothing. As many bytes
//! are promised to its flow as long as it has not used it, and other invitations wait
//! behind them.
//!
//! Pure: it is told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use crate::content::ContentId;
use crate::peer::swarm::AllowanceKind;
use crate::protocol::HostKey;

/// So many flows and hosts are kept, with those in the queue, before those that make no
/// difference any more are looked for.
const MIN_KEPT: usize = 64;

/// How long before its bytes an invitation passes: a round trip between most hosts, and
/// less than a request is held up without being rejected.
const LEAD: Duration = Duration::from_millis(150);

/// How long a promise holds.
const PROMISE: Duration = Duration::from_millis(500);

/// So many bytes of a content, from or to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) kind: AllowanceKind,
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
    /// That of its invitation.
    invitation: Option<Place>,
}

impl Flow {
    fn place(&mut self, kind: AllowanceKind) -> &mut Option<Place> {
        match kind {
            AllowanceKind::Bytes => &mut self.place,
            AllowanceKind::Invitation => &mut self.invitation,
        }
    }

    fn is_waiting(&self) -> bool {
        self.place.is_some() || self.invitation.is_some()
    }
}

/// Bytes that a flow was invited to.
#[derive(Debug)]
struct Promise {
    to: Turn,
    until: Instant,
}

impl Turn {
    fn is_same_flow(&self, other: &Self) -> bool {
        self.content == other.content && self.host == other.host
    }
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
    /// Contents whose bytes count for another one as well: files for their folder.
    groups: BTreeMap<ContentId, ContentId>,
    queue: BTreeMap<Place, Turn>,
    flows: BTreeMap<(ContentId, HostKey), Flow>,
    promises: Vec<Promise>,
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

    /// The bytes of a content count for another one as well, until it is
    /// [forgotten](Self::forget).
    pub(super) fn join(&mut self, content: ContentId, group: ContentId) {
        self.groups.insert(content, group);
    }

    /// Whether anything limits a content, or the one that its bytes count for.
    pub(super) fn limits(&self, content: &ContentId, group: Option<&ContentId>) -> bool {
        let limits = |id: &ContentId| self.contents.contains_key(id);
        self.peer.is_some()
            || self.per_host.is_some()
            || limits(content)
            || group.is_some_and(limits)
    }

    /// The bucket of what a content counts for, if it counts for something else.
    fn group(&self, content: &ContentId) -> Option<(&ContentId, &Bucket)> {
        let group = self.groups.get(content)?;
        Some((group, self.contents.get(group)?))
    }

    /// Whether the bytes of a content count for this one.
    fn counts_for(&self, content: &ContentId, id: &ContentId) -> bool {
        content == id || self.groups.get(content) == Some(id)
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
        let is_now = turn.kind == AllowanceKind::Bytes;
        let waiting = flow
            .place(turn.kind)
            .and_then(|place| self.queue.get_mut(&place));
        if let Some(waiting) = waiting {
            let more = if is_now { turn.bytes } else { 0 };
            waiting.bytes += more;
            flow.finish += more;
            return;
        }
        let place = (self.virtual_time.max(flow.finish), self.asked);
        flow.finish = place.0 + if is_now { turn.bytes } else { 0 };
        *flow.place(turn.kind) = Some(place);
        self.asked += 1;
        self.queue.insert(place, turn);
    }

    /// The next turn that passes now; `None` if none does.
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn> {
        let Look::Pass(place) = self.look(now) else {
            return None;
        };
        let turn = self.queue.remove(&place)?;
        self.virtual_time = self.virtual_time.max(place.0);
        if let Some(flow) = self.flows.get_mut(&(turn.content, turn.host.clone())) {
            *flow.place(turn.kind) = None;
        }
        self.promises
            .retain(|promise| promise.until > now && !promise.to.is_same_flow(&turn));
        match turn.kind {
            AllowanceKind::Bytes => {
                self.with_buckets(&turn.content, &turn.host, |bucket| {
                    bucket.take(now, turn.bytes);
                });
            }
            AllowanceKind::Invitation => self.promises.push(Promise {
                to: turn.clone(),
                until: now + PROMISE,
            }),
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

    /// O(turns that a limit of their content or host holds up, and invitations).
    fn look(&self, now: Instant) -> Look {
        let mut shortest: Option<Duration> = None;
        let mut ahead = Vec::new();
        for (place, turn) in &self.queue {
            let (own, peer) = match turn.kind {
                AllowanceKind::Bytes => self.wait(now, turn),
                AllowanceKind::Invitation => {
                    (self.wait_to_invite(now, turn, &ahead), Duration::ZERO)
                }
            };
            let wait = own.max(peer);
            if wait.is_zero() {
                return Look::Pass(*place);
            }
            shortest = Some(shortest.map_or(wait, |shortest| shortest.min(wait)));
            if turn.kind == AllowanceKind::Bytes {
                ahead.push(turn);
                if own.is_zero() {
                    break;
                }
            }
        }
        shortest.map_or(Look::Empty, Look::Wait)
    }

    /// How long a turn has to wait for the limits of its content and its host, and for that
    /// of the peer.
    fn wait(&self, now: Instant, turn: &Turn) -> (Duration, Duration) {
        let content = self.contents.get(&turn.content).into_iter();
        let group = self.group(&turn.content).map(|(_, bucket)| bucket);
        let own = content.chain(group).chain(self.hosts.get(&turn.host));
        let own = own.map(|bucket| bucket.wait(now, turn.bytes)).max();
        let peer = self.peer.as_ref();
        let peer = peer.map(|bucket| bucket.wait(now, turn.bytes));
        (own.unwrap_or_default(), peer.unwrap_or_default())
    }
    /// How long an invitation has to wait: until its bytes could nearly pass behind what was
    /// promised to others, and what waits before it.
    fn wait_to_invite(&self, now: Instant, turn: &Turn, ahead: &[&Turn]) -> Duration {
        let (own, peer) = self.wait(now, turn);
        let wait = own.max(peer).saturating_sub(LEAD);
        if !wait.is_zero() {
            return wait;
        }
        let content = self.contents.get(&turn.content);
        let (group, of_group) = self.group(&turn.content).unzip();
        let host = self.hosts.get(&turn.host);
        let scopes = [
            (content, Some(turn.content), None),
            (of_group, group.copied(), None),
            (host, None, Some(&turn.host)),
            (self.peer.as_ref(), None, None),
        ];
        let others = ahead.iter().copied().chain(
            self.promises
                .iter()
                .filter(|p| p.until > now)
                .map(|p| &p.to),
        );
        let others = others.filter(|other| !other.is_same_flow(turn));
        for (bucket, of, from) in scopes {
            let counts = |other: &&Turn| {
                of.is_none_or(|of| self.counts_for(&other.content, &of))
                    && from.is_none_or(|from| *from == other.host)
            };
            let before = others.clone().filter(counts).map(|other| other.bytes).sum();
            let is_late = |bucket: &Bucket| bucket.behind(now, before, turn.bytes) > LEAD;
            if before > 0 && bucket.is_some_and(is_late) {
                // It is looked at again when one of them passes, or the promise has ended.
                let ends = self.promises.iter().map(|promise| promise.until);
                let ends = ends.filter(|until| *until > now).min();
                let ends = ends.map(|until| until.saturating_duration_since(now));
                return ends.unwrap_or(PROMISE);
            }
        }
        Duration::ZERO
    }

    /// Bytes that were given will not pass.
    pub(super) fn give_back(&mut self, now: Instant, turn: &Turn) {
        if let Some(flow) = self.flows.get_mut(&(turn.content, turn.host.clone())) {
            // It was not given that.
            flow.finish = flow.finish.saturating_sub(turn.bytes);
        }
        self.with_buckets(&turn.content, &turn.host, |bucket| {
            bucket.give_back(now, turn.bytes);
        });
    }

    /// Nothing of a content waits any more.
    pub(super) fn forget(&mut self, content: &ContentId) {
        self.groups.remove(content);
        self.queue.retain(|_, turn| turn.content != *content);
        self.flows.retain(|(of, _), _| of != content);
        self.promises
            .retain(|promise| promise.to.content != *content);
    }

    /// Does something with each limit that holds for a content and a host.
    fn with_buckets(&mut self, content: &ContentId, host: &HostKey, with: impl Fn(&mut Bucket)) {
        let group = self.groups.get(content).filter(|group| *group != content);
        for id in std::iter::once(content).chain(group) {
            self.contents.get_mut(id).into_iter().for_each(&with);
        }
        let host = self.hosts.get_mut(host).into_iter();
        host.chain(&mut self.peer).for_each(&with);
    }

    /// Forgets the flows that do not wait, and hosts that make no difference, when there are
    /// many.
    fn prune(&mut self, now: Instant) {
        let count = self.flows.len().max(self.hosts.len());
        if count < self.prune_at.max(MIN_KEPT) {
            return;
        }
        // What the others were given of late is forgotten with them.
        self.flows.retain(|_, flow| flow.is_waiting());
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BURST: u64 = 64 << 10;

    fn id(number: u8) -> ContentId {
        ContentId::of(&[number])
    }

    fn host(number: u8) -> HostKey {
        HostKey::Text(number.to_string().into())
    }

    fn turn(content: u8, from: u8, bytes: u64) -> Turn {
        Turn {
            kind: AllowanceKind::Bytes,
            content: id(content),
            host: host(from),
            bytes,
        }
    }

    /// What passed, and when.
    type Passed = Vec<(Duration, Turn)>;

    /// Passes turns until so much time has gone, and puts each flow back in line.
    fn run(turns: &mut Turns, start: Instant, time: Duration, again: bool) -> Passed {
        let (mut now, mut passed) = (start, Vec::new());
        while now <= start + time {
            while let Some(turn) = turns.next(now) {
                if again {
                    turns.ask(now, turn.clone());
                }
                passed.push((now - start, turn));
            }
            let Some(due) = turns.due(now) else { break };
            assert!(due > now, "nothing passes, though it is time");
            now = due;
        }
        passed
    }

    /// Any stretch of time has at most what the rate allows, and a burst or a block.
    fn assert_within(passed: &[(Duration, &Turn)], rate: u64) {
        let longest = passed.iter().map(|(_, turn)| turn.bytes).max().unwrap_or(0);
        let burst = (rate / BURST_PART_OF_SECOND)
            .min(BURST.max(longest))
            .max(rate / 500);
        for (at, (first, _)) in passed.iter().enumerate() {
            let mut bytes = 0;
            for (then, turn) in &passed[at..] {
                bytes += turn.bytes;
                let allowed = rate as f64 * (*then - *first).as_secs_f64();
                let most = allowed + burst.max(longest) as f64 + longest as f64 + 1.0;
                assert!(bytes as f64 <= most, "{bytes} of {most}");
            }
        }
    }

    const BURST_PART_OF_SECOND: u64 = 20;

    #[test]
    fn bytes_of_a_content_count_for_its_group_as_well() {
        let (start, rate) = (Instant::now(), 1 << 20);
        let mut turns = Turns::default();
        turns.set_content(start, id(9), Some(rate));
        turns.set_content(start, id(2), Some(rate / 4));
        for content in [1, 2, 3] {
            turns.join(id(content), id(9));
            assert!(turns.limits(&id(content), Some(&id(9))));
            turns.ask(start, turn(content, content, BURST / 4));
        }
        let seconds = 10;
        let passed = run(&mut turns, start, Duration::from_secs(seconds), true);
        let bytes = |of: &[u8]| -> u64 {
            let of = passed
                .iter()
                .filter(|(_, t)| of.iter().any(|c| t.content == id(*c)));
            of.map(|(_, turn)| turn.bytes).sum()
        };
        let near = |bytes: u64, rate: u64| bytes.abs_diff(seconds * rate) < rate;
        assert!(near(bytes(&[1, 2, 3]), rate), "{}", bytes(&[1, 2, 3]));
        assert!(near(bytes(&[2]), rate / 4), "{}", bytes(&[2]));
        // What does not wait any more counts for nothing.
        turns.forget(&id(1));
        assert!(turns.group(&id(1)).is_none());
    }

    #[test]
    fn second_has_no_more_than_five_percent_and_a_block_too_much() {
        let start = Instant::now();
        for rate in [1, 1000, 100_000, 1 << 20, 10 << 20, 100 << 20] {
            for bytes in [1000, 16 << 10, 256 << 10] {
                let mut turns = Turns::default();
                turns.set_peer(start, Some(rate));
                turns.ask(start, turn(1, 1, bytes));
                let time = Duration::from_secs(2 + 3 * bytes / rate);
                let passed = run(&mut turns, start, time, true);
                let second = |from: &Duration| {
                    let end = *from + Duration::from_secs(1);
                    let within = passed.iter().filter(|(at, _)| at >= from && *at < end);
                    within.map(|(_, turn)| turn.bytes).sum::<u64>()
                };
                for (at, _) in passed.iter().step_by(passed.len().div_ceil(20)) {
                    let most = rate + rate / 20 + bytes;
                    assert!(second(at) <= most, "{} of {rate} at {at:?}", second(at));
                }
                let now = passed.iter().filter(|(at, _)| at.is_zero());
                let burst: u64 = now.map(|(_, turn)| turn.bytes).sum();
                assert!(burst <= bytes.max(BURST).max(rate / 500), "{burst} at once");
                if passed.len() > 1 {
                    let (last, _) = passed[passed.len() - 1];
                    let all = bytes * (passed.len() as u64 - 1);
                    let reached = all as f64 / last.as_secs_f64() / rate as f64;
                    assert!(reached > 0.99, "{reached} of {rate}");
                }
            }
        }
    }

    #[test]
    fn flows_have_equal_shares_in_bytes() {
        let start = Instant::now();
        let mut turns = Turns::default();
        turns.set_peer(start, Some(1 << 20));
        turns.ask(start, turn(1, 1, 256 << 10));
        turns.ask(start, turn(1, 2, 16 << 10));
        turns.ask(start, turn(2, 1, 16 << 10));
        let passed = run(&mut turns, start, Duration::from_secs(60), true);
        for (content, from) in [(1, 1), (1, 2), (2, 1)] {
            let of_flow = |turn: &&Turn| turn.content == id(content) && turn.host == host(from);
            let own = passed.iter().map(|(_, turn)| turn).filter(of_flow);
            let share = own.map(|turn| turn.bytes).sum::<u64>() as f64 / f64::from(20 << 20);
            assert!((0.97..1.03).contains(&share), "{share}");
        }
    }

    #[test]
    fn slow_content_or_host_holds_up_no_other() {
        let start = Instant::now();
        let mut turns = Turns::default();
        turns.set_peer(start, Some(1 << 20));
        turns.set_content(start, id(1), Some(1));
        turns.set_per_host(start, Some(1 << 19));
        for content in 1..=3 {
            turns.ask(start, turn(content, content, 16 << 10));
        }
        let passed = run(&mut turns, start, Duration::from_secs(60), true);
        let of = |content| {
            passed
                .iter()
                .filter(move |(_, turn)| turn.content == id(content))
        };
        assert_eq!(of(1).count(), 1);
        for content in [2, 3] {
            let bytes: u64 = of(content).map(|(_, turn)| turn.bytes).sum();
            assert!(bytes > 29 << 20, "{bytes}");
        }
    }

    #[test]
    fn raised_rate_shortens_the_wait_at_once() {
        let start = Instant::now();
        let mut turns = Turns::default();
        turns.set_peer(start, Some(1000));
        turns.ask(start, turn(1, 1, 100_000));
        assert!(turns.next(start).is_some());
        turns.ask(start, turn(1, 1, 100_000));
        let wait = turns.due(start).unwrap() - start;
        assert_eq!(wait, Duration::from_secs(100));
        let later = start + Duration::from_secs(1);
        turns.set_peer(later, Some(1_000_000));
        let wait = turns.due(later).unwrap() - later;
        assert!(wait < Duration::from_secs(1), "{wait:?}");
        turns.set_peer(later, None);
        assert!(turns.next(later).is_some());
        assert_eq!(turns.due(later), None);
    }

    #[test]
    fn what_is_given_back_may_pass_again() {
        let start = Instant::now();
        let mut turns = Turns::default();
        turns.set_peer(start, Some(10_000));
        turns.ask(start, turn(1, 1, 5000));
        let first = turns.next(start).unwrap();
        turns.ask(start, turn(1, 1, 5000));
        assert!(turns.next(start).is_none());
        turns.give_back(start, &first);
        assert!(turns.next(start).is_some());
        // But never more than a burst.
        turns.give_back(start, &turn(1, 1, 1 << 30));
        turns.ask(start, turn(1, 1, 500));
        turns.next(start).unwrap();
        turns.ask(start, turn(1, 1, 500));
        assert!(turns.next(start).is_none());
    }

    #[test]
    fn flow_that_gives_its_turns_back_has_not_used_them() {
        let start = Instant::now();
        let mut turns = Turns::default();
        turns.set_peer(start, Some(1 << 20));
        turns.ask(start, turn(1, 1, 16 << 10));
        turns.ask(start, turn(2, 2, 16 << 10));
        let (mut now, mut used) = (start, [0; 2]);
        for at in 0..2000 {
            let Some(passed) = turns.next(now) else {
                now = turns.due(now).unwrap();
                continue;
            };
            let first = passed.content == id(1);
            // At first the first one wants nothing after all.
            if first && at < 1000 {
                turns.give_back(now, &passed);
            } else if at >= 1000 {
                used[usize::from(!first)] += 1;
            }
            turns.ask(now, passed);
        }
        assert!(i32::abs(used[0] - used[1]) <= 2, "{used:?}");
    }

    #[test]
    fn invitations_pass_before_their_bytes_and_one_after_the_other() {
        const BYTES: u64 = 16 << 10;
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turns = Turns::default();
        // A block each second.
        turns.set_peer(start, Some(BYTES));
        turns.ask(start, turn(1, 1, BYTES));
        assert!(turns.next(start).is_some());
        let invitation = |from| Turn {
            kind: AllowanceKind::Invitation,
            ..turn(1, from, BYTES)
        };
        turns.ask(start, invitation(2));
        turns.ask(start, invitation(3));
        assert_eq!(turns.next(at(700)), None);
        assert_eq!(turns.due(start), Some(at(850)));
        assert_eq!(turns.next(at(850)), Some(invitation(2)));
        // The other one waits until this one is used, or for long enough.
        assert_eq!(turns.next(at(1000)), None);
        turns.ask(at(1000), turn(1, 2, BYTES));
        assert_eq!(turns.next(at(1000)), Some(turn(1, 2, BYTES)));
        assert_eq!(turns.due(at(1000)), Some(at(1850)));
        assert_eq!(turns.next(at(1850)), Some(invitation(3)));
        turns.ask(at(1850), invitation(2));
        assert_eq!(turns.due(at(1850)), Some(at(2350)));
        assert_eq!(turns.next(at(2350)), Some(invitation(2)));
    }

    #[test]
    fn flows_that_are_gone_are_forgotten() {
        let start = Instant::now();
        let mut turns = Turns::default();
        turns.set_per_host(start, Some(1 << 30));
        turns.ask(start, turn(0, 0, u64::MAX >> 20));
        turns.next(start).unwrap();
        // One that waits for long.
        turns.ask(start, turn(0, 0, 1000));
        for number in 1..10_000u32 {
            let now = start + Duration::from_millis(number.into());
            let from = HostKey::Text(number.to_string().into());
            turns.ask(
                now,
                Turn {
                    host: from,
                    ..turn(1, 0, 1000)
                },
            );
            turns.next(now).unwrap();
        }
        assert!(turns.flows.len() < 300, "{}", turns.flows.len());
        assert!(turns.hosts.len() < 300, "{}", turns.hosts.len());
    }

    /// A step of a test: a flow asks, or time passes.
    #[derive(Debug, Clone)]
    enum Step {
        Ask(u8, u8, u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8, 0..3u8, 1..300_000u64).prop_map(|(c, h, bytes)| Step::Ask(c, h, bytes)),
            (0..2000u64).prop_map(Step::Wait),
        ]
    }

    /// How many nanoseconds so many bytes have to wait behind what has passed, by a bucket
    /// that is filled from the start again each time.
    fn naive_wait(passed: &[(u64, u64)], rate: u64, at: u64, bytes: u64) -> u64 {
        let rate = i128::from(rate);
        let usual = (rate / 20).min((64 << 10).max(rate / 500)).max(1);
        let burst = |last: u64| {
            let longest = (64 << 10).max(i128::from(last)).max(rate / 500);
            (rate / 20).min(longest).max(1) * 1_000_000_000
        };
        let (mut level, mut time, mut last) = (burst(0), 0, 0);
        for (then, bytes) in passed {
            level = (level + rate * i128::from(then - time)).min(burst(last));
            level -= i128::from(*bytes) * 1_000_000_000;
            (time, last) = (*then, *bytes);
        }
        level = (level + rate * i128::from(at - time)).min(burst(last));
        let lacks = i128::from(bytes).min(usual) * 1_000_000_000 - level;
        u64::try_from((lacks.max(0) + rate - 1) / rate).unwrap()
    }

    proptest! {
        /// The queue agrees with a list that is searched from its beginning, and buckets
        /// that are filled from the start.
        #[test]
        fn agrees_with_a_naive_queue(
            rates in (1_000..10_000_000u64, 1_000..10_000_000u64, 1_000..10_000_000u64),
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let start = Instant::now();
            let mut turns = Turns::default();
            turns.set_peer(start, Some(rates.0));
            turns.set_per_host(start, Some(rates.1));
            turns.set_content(start, id(0), Some(rates.2));
            let mut waiting: Vec<(u64, Turn)> = Vec::new();
            let mut passed: Vec<(u64, Turn)> = Vec::new();
            let mut finish: BTreeMap<(ContentId, HostKey), u64> = BTreeMap::new();
            let (mut virtual_time, mut nanos) = (0, 0);
            for step in steps {
                match step {
                    Step::Wait(millis) => nanos += millis * 1_000_000,
                    Step::Ask(content, from, bytes) => {
                        let turn = turn(content, from, bytes);
                        let is_same = |other: &&(u64, Turn)| {
                            other.1.content == turn.content && other.1.host == turn.host
                        };
                        if waiting.iter().any(|other| is_same(&other)) {
                            continue;
                        }
                        let key = (turn.content, turn.host.clone());
                        let begins = finish.get(&key).copied().unwrap_or(0).max(virtual_time);
                        finish.insert(key, begins + bytes);
                        waiting.push((begins, turn.clone()));
                        turns.ask(start + Duration::from_nanos(nanos), turn);
                    }
                }
                let now = start + Duration::from_nanos(nanos);
                loop {
                    waiting.sort_by_key(|(begins, _)| *begins);
                    let history = |is_of: &dyn Fn(&Turn) -> bool| {
                        let of = passed.iter().filter(|(_, turn)| is_of(turn));
                        of.map(|(at, turn)| (*at, turn.bytes)).collect::<Vec<_>>()
                    };
                    let mut found = None;
                    for (at, (_, turn)) in waiting.iter().enumerate() {
                        let of_content = history(&|other| other.content == turn.content);
                        let of_host = history(&|other| other.host == turn.host);
                        let limited = turn.content == id(0);
                        let own = naive_wait(&of_host, rates.1, nanos, turn.bytes);
                        let own = match limited {
                            true => own.max(naive_wait(&of_content, rates.2, nanos, turn.bytes)),
                            false => own,
                        };
                        if own > 0 {
                            continue;
                        }
                        let peer = naive_wait(&history(&|_| true), rates.0, nanos, turn.bytes);
                        found = (peer == 0).then_some(at);
                        break;
                    }
                    let expected = found.map(|at| waiting.remove(at));
                    let got = turns.next(now);
                    prop_assert_eq!(&got, &expected.as_ref().map(|(_, turn)| turn.clone()));
                    let Some((begins, turn)) = expected else { break };
                    virtual_time = virtual_time.max(begins);
                    if waiting.is_empty() {
                        finish.clear();
                        virtual_time = 0;
                    }
                    passed.push((nanos, turn));
                }
                prop_assert_eq!(turns.due(now).is_some(), !waiting.is_empty());
            }
            let all: Vec<_> = passed.iter().map(|(at, t)| (Duration::from_nanos(*at), t)).collect();
            assert_within(&all, rates.0);
        }
    }
}
