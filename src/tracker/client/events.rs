//! Events about contents that a tracker does not list as announced. They are not
//! outcomes of a call, because a tracker may refuse or accept a content much
//! later.

use tokio::sync::broadcast::{self, error::RecvError};

use crate::content::{ContentId, ContentName};
use crate::protocol::{Addr, Refusal};

/// How many events a receiver may be behind. If it falls further behind, it is
/// told how many it has missed.
pub(super) const BEHIND: usize = 256;

/// A content that a tracker does not list, or that it does not list by its name
/// ([`Refusal::is_of_name`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedOwn {
    /// Which tracker.
    pub tracker: Addr,
    /// Which content.
    pub id: ContentId,
    /// Under which of its names.
    pub name: ContentName,
    /// Why.
    pub refusal: Refusal,
}

/// Something that happened to an announced content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnEvent {
    /// A tracker has refused the content or its name. It is announced again after
    /// pauses ([`ClientConfig::own_retry`](super::ClientConfig::own_retry)). The
    /// event comes once for each reason.
    Refused(RefusedOwn),
    /// A tracker that had refused the content lists it now, by its name.
    Taken {
        /// Which tracker.
        tracker: Addr,
        /// Which content.
        id: ContentId,
        /// Under which of its names.
        name: ContentName,
    },
    /// The receiver was too slow, and has missed events.
    /// [`TrackerClient::refused`](super::TrackerClient::refused) tells what is
    /// currently refused.
    Missed {
        /// How many events.
        count: u64,
    },
}

/// The events of a client, from the call of
/// [`TrackerClient::events`](super::TrackerClient::events) on.
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
