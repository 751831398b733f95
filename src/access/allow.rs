//! A list of those who may do everything.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::watch;

use super::policy::AccessPolicy;
use super::request::{Access, AccessRequest};
use crate::transport::PeerIdentity;

/// Lets these identities do everything, and nobody else anything. A clone is a handle to
/// the same list, which may change while peers and trackers run. Somebody without an
/// identity is not on it.
#[derive(Clone, Default)]
pub struct AllowIdentities(Arc<List>);

struct List {
    allowed: RwLock<HashSet<PeerIdentity>>,
    changes: watch::Sender<u64>,
}

impl Default for List {
    fn default() -> Self {
        Self {
            allowed: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl AllowIdentities {
    /// Nobody, until identities are put in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows an identity. Returns whether it was not allowed before.
    pub fn insert(&self, identity: PeerIdentity) -> bool {
        self.change(|allowed| allowed.insert(identity))
    }

    /// Allows an identity no more. Returns whether it was allowed before. What it has open
    /// ends within a second.
    pub fn remove(&self, identity: &PeerIdentity) -> bool {
        self.change(|allowed| allowed.remove(identity))
    }

    /// Allows these, and no others.
    pub fn replace(&self, identities: impl IntoIterator<Item = PeerIdentity>) {
        let new: HashSet<_> = identities.into_iter().collect();
        self.change(|allowed| {
            let changes = *allowed != new;
            *allowed = new;
            changes
        });
    }

    /// Whether an identity is allowed.
    pub fn contains(&self, identity: &PeerIdentity) -> bool {
        let allowed = self.0.allowed.read();
        let allowed = allowed.unwrap_or_else(PoisonError::into_inner);
        allowed.contains(identity)
    }

    /// Tells of the change after it is made, so that nobody asks too early.
    fn change(&self, change: impl FnOnce(&mut HashSet<PeerIdentity>) -> bool) -> bool {
        let mut allowed = self
            .0
            .allowed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut allowed);
        drop(allowed);
        if changed {
            self.0.changes.send_modify(|changes| *changes += 1);
        }
        changed
    }
}

impl FromIterator<PeerIdentity> for AllowIdentities {
    fn from_iter<I: IntoIterator<Item = PeerIdentity>>(identities: I) -> Self {
        let allowed = Self::new();
        allowed.replace(identities);
        allowed
    }
}

impl fmt::Debug for AllowIdentities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = self.0.allowed.read();
        let allowed = allowed.unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(allowed.iter()).finish()
    }
}

#[async_trait]
impl AccessPolicy for AllowIdentities {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        let allowed = request
            .identity
            .is_some_and(|identity| self.contains(&identity));
        Access::allow_if(allowed)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.changes.subscribe())
    }
}
