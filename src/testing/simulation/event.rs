//! The events of a simulation, and the queue that orders them in virtual time.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::adversary::Adversary;
use super::member::Member;
use crate::peer::swarm::LinkId;
use crate::protocol::{Addr, PeerMessage, Zone};

/// Something that happens to a member.
#[derive(Debug)]
pub(super) enum Event {
    /// A message arrives.
    Deliver {
        to: Member,
        link: LinkId,
        message: PeerMessage,
    },
    /// The uplink has sent its first message, if this plan is still valid.
    Sent { from: Member, plan: u64 },
    /// The timer of a member fires.
    Timer(Member),
    /// A dial arrives.
    Dial { from: Member, to: Member },
    /// A dial failed, because nobody answered.
    Unanswered { from: Member, addr: Addr },
    /// The upload rate of a member changes.
    Rate { of: Member, upload: f64 },
    /// A member joins.
    Join(Box<Newcomer>),
    /// The download of a member is paused, and others are still served or not; or it goes
    /// on.
    Pause { of: Member, serve: Option<bool> },
    /// A member leaves.
    Leave(Member),
    /// The tracker's list of owners arrives.
    Owners(Member),
    /// The other side has closed a link.
    Down { of: Member, link: LinkId },
}

/// A member that joins. Rates are in bytes per second.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) upload: f64,
    pub(super) download: f64,
    pub(super) zone: Option<Zone>,
    pub(super) role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Seeder,
    Leecher,
    /// A leecher that nobody can dial.
    DeafLeecher,
    Adversary(Adversary),
}

/// The clock of a simulation, and the events to come.
#[derive(Debug)]
pub(super) struct EventQueue {
    /// The instant at which the simulation starts.
    epoch: Instant,
    /// The time since then.
    now: Duration,
    later: BinaryHeap<ScheduledEvent>,
    /// Events of this moment, in their order.
    immediate: VecDeque<Event>,
    /// Orders events of the same time.
    sequence: u64,
}

#[derive(Debug)]
struct ScheduledEvent {
    at: Duration,
    sequence: u64,
    event: Event,
}

impl PartialEq for ScheduledEvent {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ScheduledEvent {}

impl PartialOrd for ScheduledEvent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ScheduledEvent {
    /// The earliest event is the greatest, because the heap gives the greatest
    /// first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl EventQueue {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            now: Duration::ZERO,
            later: BinaryHeap::new(),
            immediate: VecDeque::new(),
            sequence: 0,
        }
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The same time, as the machines take it.
    pub(super) fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    /// The time from the start to an instant, but at least the present time.
    pub(super) fn time_of(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.epoch).max(self.now)
    }

    /// Adds an event. An event that is due already happens after those that are.
    pub(super) fn schedule(&mut self, at: Duration, event: Event) {
        if at <= self.now {
            self.immediate.push_back(event);
            return;
        }
        self.sequence += 1;
        self.later.push(ScheduledEvent {
            at,
            sequence: self.sequence,
            event,
        });
    }

    /// Takes the next event, and sets the clock to its time.
    pub(super) fn pop(&mut self) -> Option<Event> {
        if let Some(event) = self.immediate.pop_front() {
            return Some(event);
        }
        let next = self.later.pop()?;
        self.now = next.at;
        Some(next.event)
    }

    /// Whether a member will still join.
    pub(super) fn has_joins(&self) -> bool {
        let later = self.later.iter().map(|scheduled| &scheduled.event);
        let mut events = self.immediate.iter().chain(later);
        events.any(|event| matches!(event, Event::Join(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_scheduling() {
        let mut queue = EventQueue::new();
        for (at, member) in [(2, 0), (1, 1), (2, 2), (0, 3), (1, 4)] {
            queue.schedule(secs(at), Event::Timer(Member(member)));
        }
        let order = std::iter::from_fn(|| match queue.pop()? {
            Event::Timer(member) => Some((member.0, queue.now())),
            other => panic!("{other:?}"),
        });
        let expected = [(3, 0), (1, 1), (4, 1), (0, 2), (2, 2)];
        let expected = expected.map(|(member, at)| (member, secs(at)));
        assert_eq!(order.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn joins_are_seen_until_they_happen() {
        let newcomer = || {
            Box::new(Newcomer {
                upload: 1.0,
                download: 1.0,
                zone: None,
                role: Role::Leecher,
            })
        };
        let mut queue = EventQueue::new();
        assert!(!queue.has_joins());
        for at in [0, 1] {
            queue.schedule(secs(at), Event::Join(newcomer()));
            assert!(queue.has_joins());
            queue.pop();
            assert!(!queue.has_joins());
        }
    }
}
