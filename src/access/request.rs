//! A question, and its answer.

use std::time::Duration;

use crate::content::{ContentId, ContentName};
use crate::protocol::Addr;
use crate::transport::PeerIdentity;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessAction {
    /// To have a connection with this peer, whichever of the two has dialled it.
    Connect,
    /// To fetch a content from this peer. A link serves both ways, so this peer fetches a
    /// content only from those that may fetch it here.
    Fetch,
    /// To register with this tracker.
    Register,
    /// To be listed by this tracker as an owner of a content.
    Own,
    /// To be told by this tracker who owns a content, and that it exists.
    List,
}

/// A content that somebody wants something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessContent<'a> {
    /// Its id. With [`AccessAction::Fetch`] of a file of a folder, that of the folder.
    pub id: ContentId,
    /// Its name, if there is one to tell. At a peer it is the first name that the content
    /// has here. At a tracker it is the name that is asked for or announced, and without
    /// that the one that most owners use: a claim of those who announce, so that only
    /// ids tell contents apart for certain.
    pub name: Option<&'a ContentName>,
}

impl<'a> AccessContent<'a> {
    /// Makes it of its fields.
    pub fn new(id: ContentId, name: Option<&'a ContentName>) -> Self {
        Self { id, name }
    }
}

/// A question: who wants to do what, with which content.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AccessRequest<'a> {
    /// Who it is, if the transport has it prove that.
    pub identity: Option<PeerIdentity>,
    /// Where it is. The port of a connection that it has dialled tells nothing.
    pub remote: &'a Addr,
    /// What it wants.
    pub action: AccessAction,
    /// Of which content. Nothing with [`AccessAction::Connect`] and
    /// [`AccessAction::Register`].
    pub content: Option<AccessContent<'a>>,
}

impl<'a> AccessRequest<'a> {
    /// Makes it of its fields.
    pub fn new(
        identity: Option<PeerIdentity>,
        remote: &'a Addr,
        action: AccessAction,
        content: Option<AccessContent<'a>>,
    ) -> Self {
        Self {
            identity,
            remote,
            action,
            content,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// It may.
    Allow {
        /// How long this counts, unless something changes. Then it is asked again, also
        /// about what is open (every half second at most), which goes on if the policy says
        /// so, or for a while if it cannot tell. Without one, and never for longer,
        /// [`AccessConfig::cache_lifetime`](super::AccessConfig::cache_lifetime).
        valid_for: Option<Duration>,
    },
    /// It may not. Counts for
    /// [`AccessConfig::cache_lifetime`](super::AccessConfig::cache_lifetime), unless
    /// something changes.
    Deny,
    /// The policy cannot tell now: what it has to ask is down, say. Nobody is let in by
    /// that. What is open goes on for [`AccessConfig::grace`](super::AccessConfig::grace),
    /// and is asked about each second. Is never kept, so whoever comes next is asked about
    /// anew.
    Unknown,
}

impl Access {
    /// It may, for the usual time.
    pub fn allow() -> Self {
        Self::Allow { valid_for: None }
    }

    /// It may or it may not, for the usual time.
    pub fn allow_if(allowed: bool) -> Self {
        match allowed {
            true => Self::allow(),
            false => Self::Deny,
        }
    }
}
