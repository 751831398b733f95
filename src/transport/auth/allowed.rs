//! The keys that are let in, which may change while connections are open.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use super::live::Live;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;

/// The keys of [`Trust::Keys`](super::Trust::Keys): those of all peers and trackers of the
/// swarm. A clone is a handle to the same set. Whoever is taken out of it is let in no
/// more, and its open connections end.
#[derive(Clone, Default)]
pub struct AllowedKeys(Arc<Allowed>);

#[derive(Default)]
struct Allowed {
    keys: RwLock<HashSet<PeerIdentity>>,
    /// The connections that depend on the set.
    live: Mutex<Vec<Weak<Live>>>,
}

impl AllowedKeys {
    /// Nobody, until keys are put in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a key in. Returns whether it was not before.
    pub fn insert(&self, key: PeerIdentity) -> bool {
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key)
    }

    /// Lets a key in no more. Returns whether it was before.
    pub fn remove(&self, key: &PeerIdentity) -> bool {
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        let removed = keys.remove(key);
        drop(keys);
        self.recheck();
        removed
    }

    /// Lets these keys in, and no others.
    pub fn replace(&self, new: impl IntoIterator<Item = PeerIdentity>) {
        let new = new.into_iter().collect();
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.recheck();
    }

    /// Whether a key is let in.
    pub fn contains(&self, key: &PeerIdentity) -> bool {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.contains(key)
    }

    pub(super) fn check(&self, key: PeerIdentity) -> Result<(), AuthError> {
        match self.contains(&key) {
            true => Ok(()),
            false => Err(AuthError::UnknownKey(key)),
        }
    }

    /// Ends these connections when their keys are taken out.
    pub(super) fn watch(&self, live: &Arc<Live>) {
        let mut watched = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|live| live.strong_count() > 0);
        watched.push(Arc::downgrade(live));
    }

    fn recheck(&self) {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<_> = live.iter().filter_map(Weak::upgrade).collect();
        for live in live {
            live.recheck(|member| self.check(member.identity));
        }
    }
}

impl FromIterator<PeerIdentity> for AllowedKeys {
    fn from_iter<I: IntoIterator<Item = PeerIdentity>>(keys: I) -> Self {
        let allowed = Self::new();
        allowed.replace(keys);
        allowed
    }
}

impl fmt::Debug for AllowedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(keys.iter()).finish()
    }
}
