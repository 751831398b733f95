//! What can go wrong with trackers.

use thiserror::Error;

use crate::advice::Advice;
use crate::content::ContentId;
use crate::protocol::{Addr, ProtocolError, Refusal};
use crate::transport::TransportError;

/// The outcome of a request to a tracker.
pub(super) type Outcome<T> = Result<T, TrackerError>;

/// Why a request to a tracker, or to all trackers, has failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// The tracker could not be reached, or the connection was lost.
    #[error("cannot reach tracker {tracker}: {source}")]
    Unreachable {
        /// Which tracker.
        tracker: Addr,
        /// The error of the transport.
        source: TransportError,
    },
    /// The tracker did not connect or answer in time.
    #[error("tracker {tracker} did not answer in time")]
    TimedOut {
        /// Which tracker.
        tracker: Addr,
    },
    /// The tracker has refused the request.
    #[error("tracker {tracker} refused the request: {refusal}")]
    Refused {
        /// Which tracker.
        tracker: Addr,
        /// Why.
        refusal: Refusal,
    },
    /// The tracker sent a message that is not valid.
    #[error("invalid message from tracker {tracker}: {source}")]
    Protocol {
        /// Which tracker.
        tracker: Addr,
        /// What is wrong with it.
        source: ProtocolError,
    },
    /// The tracker's answer does not fit the request.
    #[error("unexpected answer from tracker {tracker}")]
    Unexpected {
        /// Which tracker.
        tracker: Addr,
    },
    /// Several contents have this name. Use one of the ids.
    #[error("{} contents have this name; use an id instead", candidates.len())]
    Ambiguous {
        /// Their ids and lengths in bytes, by id.
        candidates: Vec<(ContentId, u64)>,
    },
    /// None of the trackers that answered knows the content.
    #[error("no tracker knows this content")]
    NotFound,
    /// The client has no trackers.
    #[error("no tracker is configured")]
    NoTracker,
    /// The protocol cannot express the request.
    #[error("cannot encode the request: {0}")]
    Invalid(#[source] ProtocolError),
    /// The client owns [`ClientConfig::max_contents`](super::ClientConfig)
    /// contents already.
    #[error("already sharing {max} contents, the configured maximum")]
    TooManyContents {
        /// The limit.
        max: usize,
    },
    /// The client announces this content under that many names already.
    #[error("the content has {max} names already")]
    TooManyNames {
        /// The limit.
        max: usize,
    },
    /// The client has been shut down.
    #[error("the tracker client is shut down")]
    Closed,
}

impl TrackerError {
    /// Whether the same request may succeed as soon as the tracker is back, or has room.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Unreachable { source, .. } => !matches!(source, TransportError::Address { .. }),
            Self::Refused { .. } => self.advice() == Advice::Retry,
            _ => false,
        }
    }

    /// What to do about it. [`Advice::Retry`] where the tracker or somebody else may
    /// change: it is down or full, or nobody shares the content at present.
    /// [`Advice::AskUser`] where the request, the configuration or the tracker's version
    /// is wrong. [`Advice::GiveUp`] after a shutdown.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unreachable { source, .. } => source.advice(),
            Self::Refused { refusal, .. } => match refusal {
                Refusal::ForeignAddress { .. }
                | Refusal::ContentsPerPeer { .. }
                | Refusal::Malformed
                | Refusal::Denied => Advice::AskUser,
                _ => Advice::Retry,
            },
            Self::TimedOut { .. } | Self::NotFound => Advice::Retry,
            Self::Protocol { .. }
            | Self::Unexpected { .. }
            | Self::Ambiguous { .. }
            | Self::NoTracker
            | Self::Invalid(_)
            | Self::TooManyContents { .. }
            | Self::TooManyNames { .. } => Advice::AskUser,
            Self::Closed => Advice::GiveUp,
        }
    }
}

is_transient!(TrackerError);
