//! The two lines of a member: its uplink and its downlink.

use std::collections::VecDeque;
use std::time::Duration;

use crate::peer::swarm::LinkId;
use crate::protocol::PeerMessage;

/// A message that waits for an uplink.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) link: LinkId,
    pub(super) message: PeerMessage,
    /// The length of its block; 0 without one.
    pub(super) bytes: u64,
}

/// When an uplink has sent its first message, and the number of this plan.
#[derive(Debug)]
pub(super) struct SendPlan {
    pub(super) at: Duration,
    pub(super) number: u64,
}

/// Sends the messages of a member, one after the other.
#[derive(Debug)]
pub(super) struct Uplink {
    /// In bytes per second.
    rate: f64,
    /// Messages without a block do not wait behind blocks. Set for a member that
    /// joins without an upload rate, until it gets one: it never sends the blocks.
    lets_messages_pass: bool,
    /// The first message is being sent.
    queue: VecDeque<Outgoing>,
    /// How many bytes of the first message were left at the time `since`.
    remaining: f64,
    since: Duration,
    /// The number of the last plan. Earlier plans are void.
    plan: u64,
}

impl Uplink {
    /// The uplink of a member that joins. `sends` tells whether it joins with an
    /// upload rate.
    pub(super) fn new(now: Duration, rate: f64, sends: bool) -> Self {
        Self {
            rate,
            lets_messages_pass: !sends,
            queue: VecDeque::new(),
            remaining: 0.0,
            since: now,
            plan: 0,
        }
    }

    /// Whether messages without a block do not wait behind blocks.
    pub(super) fn lets_messages_pass(&self) -> bool {
        self.lets_messages_pass
    }

    /// Whether it is sending at this moment.
    pub(super) fn is_sending(&self) -> bool {
        self.rate > 0.0 && !self.queue.is_empty()
    }

    /// Whether this is the number of the last plan.
    pub(super) fn is_valid(&self, plan: u64) -> bool {
        self.plan == plan
    }

    /// Adds a message. If it is the only one, the uplink starts sending it.
    pub(super) fn push(&mut self, now: Duration, outgoing: Outgoing) -> Option<SendPlan> {
        self.queue.push_back(outgoing);
        if self.queue.len() > 1 {
            return None;
        }
        self.start_first(now);
        self.plan(now)
    }

    /// Takes the first message, which is sent. Call [`plan`](Self::plan) for the
    /// next one.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Outgoing> {
        let sent = self.queue.pop_front()?;
        self.start_first(now);
        Some(sent)
    }

    fn start_first(&mut self, now: Duration) {
        self.remaining = self.queue.front().map_or(0.0, |first| first.bytes as f64);
        self.since = now;
    }

    /// Changes the rate.
    pub(super) fn set_rate(&mut self, now: Duration, rate: f64) -> Option<SendPlan> {
        let time = (now - self.since).as_secs_f64();
        self.remaining = (self.remaining - time * self.rate).max(0.0);
        self.since = now;
        self.rate = rate;
        self.lets_messages_pass = false;
        self.plan(now)
    }

    /// Plans the end of the first message. Earlier plans become void.
    pub(super) fn plan(&mut self, now: Duration) -> Option<SendPlan> {
        self.plan += 1;
        if !self.is_sending() {
            return None;
        }
        Some(SendPlan {
            at: now + Duration::from_secs_f64(self.remaining / self.rate),
            number: self.plan,
        })
    }

    /// Drops all messages.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}

/// Receives the blocks for a member, one after the other.
#[derive(Debug)]
pub(super) struct Downlink {
    /// In bytes per second.
    rate: f64,
    /// When the last block has arrived.
    free: Duration,
}

impl Downlink {
    pub(super) fn new(rate: f64) -> Self {
        Self {
            rate,
            free: Duration::ZERO,
        }
    }

    /// When a message has arrived that cannot arrive before `earliest`.
    pub(super) fn receive(&mut self, earliest: Duration, bytes: u64) -> Duration {
        let received = self.free + Duration::from_secs_f64(bytes as f64 / self.rate);
        let at = earliest.max(received);
        if bytes > 0 {
            self.free = at;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ChunkIndex;

    fn outgoing(bytes: u64) -> Outgoing {
        Outgoing {
            link: LinkId(1),
            message: PeerMessage::Have(ChunkIndex(0)),
            bytes,
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn uplink_sends_one_message_after_the_other() {
        let mut uplink = Uplink::new(secs(0), 10.0, true);
        assert!(!uplink.is_sending());
        let plan = uplink.push(secs(0), outgoing(20)).expect("it starts");
        assert_eq!(plan.at, secs(2));
        assert!(uplink.push(secs(1), outgoing(30)).is_none(), "it waits");
        assert_eq!(uplink.pop(secs(2)).expect("the first").bytes, 20);
        let plan = uplink.plan(secs(2)).expect("the second starts");
        assert_eq!(plan.at, secs(5));
        assert!(uplink.is_valid(plan.number));
    }

    #[test]
    fn changed_rate_applies_to_the_rest_of_a_message() {
        let mut uplink = Uplink::new(secs(0), 10.0, true);
        let first = uplink.push(secs(0), outgoing(40)).expect("it starts");
        assert!(uplink.set_rate(secs(2), 0.0).is_none(), "it stops");
        assert!(!uplink.is_valid(first.number));
        assert!(!uplink.is_sending());
        let plan = uplink.set_rate(secs(10), 5.0).expect("it goes on");
        assert_eq!(plan.at, secs(14), "20 bytes are left");
    }

    #[test]
    fn messages_pass_only_until_there_is_an_upload_rate() {
        let mut uplink = Uplink::new(secs(0), 0.0, false);
        assert!(uplink.lets_messages_pass());
        uplink.set_rate(secs(1), 10.0);
        assert!(!uplink.lets_messages_pass());
        assert!(!Uplink::new(secs(0), 10.0, true).lets_messages_pass());
    }

    #[test]
    fn downlink_receives_one_block_after_the_other() {
        let mut downlink = Downlink::new(10.0);
        assert_eq!(downlink.receive(secs(1), 20), secs(2));
        assert_eq!(downlink.receive(secs(1), 20), secs(4));
        // A message without a block takes no time, but stays behind the blocks.
        assert_eq!(downlink.receive(secs(1), 0), secs(4));
        assert_eq!(downlink.receive(secs(9), 20), secs(9), "it was idle");
    }
}
