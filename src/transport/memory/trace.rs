//! A bounded log of the events on a network, for tests to inspect and compare.

use std::time::Duration;

use crate::protocol::Addr;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TraceKind {
    /// A connection was made from `from`, to the listener `to`.
    Connected,
    /// Nobody listened, or the endpoint refused connections.
    Refused,
    /// A sink accepted a frame.
    Sent,
    /// A bit of a frame's body was flipped, just before it was sent.
    Corrupted,
    /// A frame arrived.
    Delivered,
    /// The end of a direction arrived, after its last frame.
    Closed,
    /// A fault reset this direction of a connection.
    Reset,
    /// The receiver closed before the end: what was on its way is lost.
    Abandoned,
}

/// One event on a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TraceEvent {
    /// The time since the network was first used.
    pub at: Duration,
    /// The sender of the frame, or the side that connected.
    pub from: Addr,
    /// The other side.
    pub to: Addr,
    /// What happened.
    pub kind: TraceKind,
    /// The length of the frame, head and body, in bytes; 0 for other events.
    pub bytes: usize,
}

/// The recorded events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The first events, up to the capacity of the log, oldest first.
    pub events: Vec<TraceEvent>,
    /// How many events happened after the log was full.
    pub missed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    capacity: usize,
    trace: Trace,
}

impl Log {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            trace: Trace::default(),
        }
    }

    pub(super) fn push(&mut self, event: TraceEvent) {
        if self.trace.events.len() < self.capacity {
            self.trace.events.push(event);
        } else {
            self.trace.missed += 1;
        }
    }

    pub(super) fn trace(&self) -> Trace {
        self.trace.clone()
    }
}
