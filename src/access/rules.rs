//! Who may do something with which content.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use tokio::sync::watch;

use super::policy::AccessPolicy;
use super::request::{Access, AccessContent, AccessRequest};
use crate::content::{ContentId, ContentName};
use crate::protocol::ContentKey;
use crate::transport::PeerIdentity;

/// Says for each content who may do something with it: own, list and fetch it. Whoever may
/// do something with any content, and everybody else, may connect and register;
/// [`and`](super::AccessPolicyExt::and) joins this with an
/// [`AllowIdentities`](super::AllowIdentities) that says who may do that.
///
/// A rule for the id of a content counts before one for its name. A content without a rule
/// is everybody's or nobody's, as was said at first ([`open`](Self::open),
/// [`closed`](Self::closed)). Names are what owners say: whoever may own a content can give
/// it a name that others may list, so protect what matters by its id.
///
/// A clone is a handle to the same rules, which may change while peers and trackers run.
#[derive(Clone)]
pub struct ContentRules(Arc<Shared>);

struct Shared {
    rules: RwLock<Rules>,
    /// Whether somebody may do something with a content that has no rule.
    default: bool,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Rules {
    ids: HashMap<ContentId, HashSet<PeerIdentity>>,
    names: HashMap<ContentName, HashSet<PeerIdentity>>,
}

impl ContentRules {
    /// What has no rule is everybody's.
    pub fn open() -> Self {
        Self::new(true)
    }

    /// What has no rule is nobody's.
    pub fn closed() -> Self {
        Self::new(false)
    }

    fn new(default: bool) -> Self {
        Self(Arc::new(Shared {
            rules: RwLock::default(),
            default,
            changes: watch::Sender::new(0),
        }))
    }

    /// Sets the rule of a content: these may do something with it, and nobody else.
    pub fn set(
        &self,
        content: impl Into<ContentKey>,
        identities: impl IntoIterator<Item = PeerIdentity>,
    ) {
        let identities = identities.into_iter().collect();
        self.change(content.into(), |rule| *rule = Some(identities));
    }

    /// Adds somebody to the rule of a content, which is made if there is none.
    pub fn grant(&self, content: impl Into<ContentKey>, identity: PeerIdentity) {
        self.change(content.into(), |rule| {
            rule.get_or_insert_default().insert(identity);
        });
    }

    /// Takes somebody out of the rule of a content, if there is one. What is open about it
    /// ends within a second.
    pub fn revoke(&self, content: impl Into<ContentKey>, identity: &PeerIdentity) {
        self.change(content.into(), |rule| {
            if let Some(rule) = rule {
                rule.remove(identity);
            }
        });
    }

    /// Drops the rule of a content.
    pub fn clear(&self, content: impl Into<ContentKey>) {
        self.change(content.into(), |rule| *rule = None);
    }

    /// Tells of the change after it is made, so that nobody asks too early.
    fn change(&self, content: ContentKey, change: impl FnOnce(&mut Option<HashSet<PeerIdentity>>)) {
        let mut rules = self.0.rules.write().unwrap_or_else(PoisonError::into_inner);
        match content {
            ContentKey::Id(id) => alter(&mut rules.ids, id, change),
            ContentKey::Name(name) => alter(&mut rules.names, name, change),
        }
        drop(rules);
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    fn allows(&self, identity: Option<PeerIdentity>, content: &AccessContent<'_>) -> bool {
        let rules = self.rules();
        let by_name = || content.name.and_then(|name| rules.names.get(name));
        match rules.ids.get(&content.id).or_else(by_name) {
            Some(rule) => identity.is_some_and(|identity| rule.contains(&identity)),
            None => self.0.default,
        }
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.0.rules.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes one entry, which may be missing before or after.
fn alter<K: std::hash::Hash + Eq, V>(
    map: &mut HashMap<K, V>,
    key: K,
    change: impl FnOnce(&mut Option<V>),
) {
    let mut value = map.remove(&key);
    change(&mut value);
    if let Some(value) = value {
        map.insert(key, value);
    }
}

impl fmt::Debug for ContentRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentRules")
            .field("rules", &*self.rules())
            .field("default", &self.0.default)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl AccessPolicy for ContentRules {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        let allowed = match &request.content {
            Some(content) => self.allows(request.identity, content),
            None => true,
        };
        Access::allow_if(allowed)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.changes.subscribe())
    }
}
