//! A bounded log of what happened on a network, for tests to look at and to
//! compare.

use std::time::Duration;

use crate::transport::Addr;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TraceKind {
    /// A connection was made: `from` dialled, `to` listened.
    Connected,
    /// Nobody listened, or the listener refused.
    Refused,
    /// A sink took a frame.
    Sent,
    /// A bit of a frame's body was flipped, just before it was sent.
    Corrupted,
    /// A frame arrived.
    Delivered,
    /// The end arrived, behind the last frame.
    Closed,
    /// A fault tore this direction of a connection.
    Reset,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TraceEvent {
    /// When, since the network was first used.
    pub at: Duration,
    /// Whose frame or connection it was.
    pub from: Addr,
    /// The other side.
    pub to: Addr,
    /// What happened.
    pub kind: TraceKind,
    /// The length of the frame, head and body, in bytes.
    pub bytes: usize,
}

/// What was recorded, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The first events, up to the capacity of the log.
    pub events: Vec<TraceEvent>,
    /// How many events came after the log was full.
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
