//! A content as trackers list it.

use crate::content::{Content, ContentName};
use crate::peer::contents::role::Role;
use crate::protocol::{OwnEntry, OwnState};

/// A content, the name by which trackers list it, and what they were told.
///
/// The name that it has here may be the user's own, and stays here.
pub(in crate::peer) struct Listing {
    pub(in crate::peer) content: Content,
    listed_as: ContentName,
    is_announced: bool,
    role: Role,
}

impl Listing {
    /// A content that no tracker was told of.
    pub(in crate::peer) fn new(content: Content, listed_as: ContentName) -> Self {
        Self {
            content,
            listed_as,
            is_announced: false,
            role: Role::Alone,
        }
    }

    /// Sets what the content is.
    pub(in crate::peer) fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    pub(in crate::peer) fn its_role(&self) -> Role {
        self.role
    }

    /// The same, and the trackers were told.
    pub(in crate::peer) fn announced(mut self) -> Self {
        self.is_announced = true;
        self
    }

    pub(in crate::peer) fn listed_as(&self) -> &ContentName {
        &self.listed_as
    }

    /// What to tell the trackers: how much of it this peer has.
    pub(in crate::peer) fn announce(&mut self, state: OwnState) -> OwnEntry {
        self.is_announced = true;
        self.entry(state)
    }

    /// What to tell the trackers at the end; nothing if they know nothing.
    pub(in crate::peer) fn withdraw(&self) -> Option<OwnEntry> {
        self.is_announced.then(|| self.entry(OwnState::Gone))
    }

    fn entry(&self, state: OwnState) -> OwnEntry {
        OwnEntry {
            id: self.content.id,
            name: self.listed_as.clone(),
            length: self.content.length,
            state,
        }
    }
}
