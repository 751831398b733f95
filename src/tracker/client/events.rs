//! What a program can hear of contents that a tracker does not list as it was
//! told: nobody waits for that, for it may be refused, and taken, much later.

use tokio::sync::broadcast::{self, error::RecvError};

use crate::content::ContentId;
use crate::protocol::{Addr, Refusal};

/// How many events a listener may be behind. Past them it is told how many it
/// has missed.
pub(super) const BEHIND: usize = 256;

/// A content that a tracker does not list, or not by its name
/// ([`Refusal::is_of_name`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedOwn {
    /// Which tracker.
    pub tracker: Addr,
    /// Which content.
    pub id: ContentId,
    /// Why.
    pub refusal: Refusal,
}

/// Something that has become of a content that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnEvent {
    /// A tracker has refused it, or its name, and is told again every now and
    /// then ([`ClientConfig::own_retry`](super::ClientConfig::own_retry)). Said
    /// once for each reason.
    Refused(RefusedOwn),
    /// A tracker that had refused it lists it now, by its name.
    Taken {
        /// Which tracker.
        tracker: Addr,
        /// Which content.
        id: ContentId,
    },
    /// Whoever listens was too slow for so many events; what is refused at
    /// present says [`TrackerClient::refused`](super::TrackerClient::refused).
    Missed {
        /// How many.
        count: u64,
    },
}

/// The events of a client from the moment on at which it was asked for them.
#[derive(Debug)]
pub struct OwnEvents(pub(super) broadcast::Receiver<OwnEvent>);

impl OwnEvents {
    /// The next event, or `None` once the client has ended.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<OwnEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(OwnEvent::Missed { count }),
            Err(RecvError::Closed) => None,
        }
    }
}
