//! What a client wants its trackers to know, and what each has yet to be told.
//! Every map here has a bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::content::ContentId;
use crate::protocol::limits::MAX_BATCH;
use crate::protocol::{Addr, Found, OwnEntry, OwnState, OwnerRef, Upload};

/// Shared by the client and its sessions. The lock is never held across an
/// await.
#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    max_contents: usize,
    max_known_owners: usize,
    owned: BTreeMap<ContentId, OwnEntry>,
    trackers: Vec<Notes>,
}

/// What concerns one tracker.
#[derive(Debug, Default)]
struct Notes {
    /// What it has yet to be told of what is owned, GONE included.
    untold: BTreeMap<ContentId, OwnEntry>,
    /// What was in an OWN that was refused, which may be for the sake of
    /// another entry. Only what is owned.
    doubtful: BTreeSet<ContentId>,
    /// Too much was untold: its registration is to be begun anew.
    renew: bool,
    /// The owners that it named, in two generations of which the older one is
    /// forgotten when the newer one is full.
    named: [HashMap<Addr, OwnerRef>; 2],
    credits: BTreeMap<OwnerRef, u64>,
}

/// What [`State::own`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// There is something to tell.
    News,
    /// It is as it was wanted already.
    Known,
    /// There are too many contents.
    Full,
}

impl State {
    pub(super) fn new(trackers: usize, max_contents: usize, max_known_owners: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                max_contents,
                max_known_owners,
                owned: BTreeMap::new(),
                trackers: (0..trackers).map(|_| Notes::default()).collect(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is owned from now on, for all trackers.
    pub(super) fn own(&self, entry: &OwnEntry) -> Noted {
        let inner = &mut *self.lock();
        if entry.state == OwnState::Gone {
            if inner.owned.remove(&entry.id).is_none() {
                return Noted::Known;
            }
        } else if !inner.owned.contains_key(&entry.id) && inner.owned.len() >= inner.max_contents {
            return Noted::Full;
        } else {
            inner.owned.insert(entry.id, entry.clone());
        }
        for notes in &mut inner.trackers {
            if entry.state == OwnState::Gone {
                notes.doubtful.remove(&entry.id);
            }
            notes.untold.insert(entry.id, entry.clone());
            if notes.untold.len() > 2 * inner.max_contents {
                notes.untold.clone_from(&inner.owned);
                notes.renew = true;
            }
        }
        Noted::News
    }

    /// What is to be told of this content by now, unless it was told together
    /// with others and taken.
    pub(super) fn to_tell(&self, tracker: usize, id: &ContentId) -> Option<OwnEntry> {
        let inner = self.lock();
        let notes = &inner.trackers[tracker];
        let untold = notes.untold.get(id);
        let doubtful = || inner.owned.get(id).filter(|_| notes.doubtful.contains(id));
        untold.or_else(doubtful).cloned()
    }

    /// A tracker that knows nothing is to be told everything.
    pub(super) fn registered_anew(&self, tracker: usize) {
        let inner = &mut *self.lock();
        let notes = &mut inner.trackers[tracker];
        *notes = Notes::default();
        notes.untold.clone_from(&inner.owned);
    }

    /// Whether the tracker is to be registered with as if for the first time.
    pub(super) fn renews(&self, tracker: usize) -> bool {
        self.lock().trackers[tracker].renew
    }

    /// Some of what a tracker has yet to be told: one OWN.
    pub(super) fn untold(&self, tracker: usize) -> Vec<OwnEntry> {
        let inner = self.lock();
        let untold = inner.trackers[tracker].untold.values();
        untold.take(MAX_BATCH).cloned().collect()
    }

    /// The tracker was told, and took all of it or refused some. What was
    /// wanted otherwise meanwhile stays untold.
    pub(super) fn told(&self, tracker: usize, entries: &[OwnEntry], taken: bool) {
        let inner = &mut *self.lock();
        let notes = &mut inner.trackers[tracker];
        for entry in entries {
            if notes.untold.get(&entry.id) == Some(entry) {
                notes.untold.remove(&entry.id);
            }
            if taken || !inner.owned.contains_key(&entry.id) {
                notes.doubtful.remove(&entry.id);
            } else {
                notes.doubtful.insert(entry.id);
            }
        }
    }

    /// Remembers how a tracker calls the owners that it named.
    pub(super) fn named(&self, tracker: usize, found: &Found) {
        let inner = &mut *self.lock();
        let half = (inner.max_known_owners / 2).max(1);
        let [new, old] = &mut inner.trackers[tracker].named;
        for owner in &found.owners {
            if new.len() >= half && !new.contains_key(&owner.addr) {
                *old = std::mem::take(new);
            }
            new.insert(owner.addr.clone(), owner.owner);
        }
    }

    /// Notes an upload for all trackers that named this owner.
    pub(super) fn credit(&self, owner: &Addr, bytes: u64) {
        let inner = &mut *self.lock();
        for notes in &mut inner.trackers {
            let [new, old] = &notes.named;
            let Some(&owner) = new.get(owner).or_else(|| old.get(owner)) else {
                continue;
            };
            let full = notes.credits.len() >= inner.max_known_owners;
            match notes.credits.get_mut(&owner) {
                Some(sum) => *sum = sum.saturating_add(bytes),
                None if full => {}
                None => {
                    notes.credits.insert(owner, bytes);
                }
            }
        }
    }

    /// Takes out some of the credits for a tracker: one UPDATE, or nothing.
    pub(super) fn take_credits(&self, tracker: usize) -> Vec<Upload> {
        let credits = &mut self.lock().trackers[tracker].credits;
        let next = std::iter::from_fn(|| credits.pop_first());
        next.take(MAX_BATCH)
            .map(|(owner, bytes)| Upload { owner, bytes })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ListedOwner;

    fn entry(number: u8, state: OwnState) -> OwnEntry {
        OwnEntry {
            id: ContentId::from_bytes([number; 32]),
            name: "name".parse().unwrap(),
            length: 1,
            state,
        }
    }

    fn named(count: u64) -> Found {
        let owners = (0..count).map(|number| ListedOwner {
            owner: OwnerRef(number),
            addr: format!("memory:{number}").parse().unwrap(),
            complete: true,
        });
        Found {
            id: ContentId::from_bytes([1; 32]),
            name: "name".parse().unwrap(),
            length: 1,
            owners: owners.collect(),
        }
    }

    #[test]
    fn each_tracker_is_told_once_and_everything_after_a_restart() {
        let state = State::new(2, 10, 10);
        let (one, two) = (entry(1, OwnState::Partial), entry(2, OwnState::Complete));
        assert_eq!(state.own(&one), Noted::News);
        assert_eq!(state.own(&two), Noted::News);
        assert_eq!(state.untold(0), [one.clone(), two.clone()]);
        state.told(0, &[one.clone(), two.clone()], true);
        assert_eq!((state.untold(0).len(), state.untold(1).len()), (0, 2));
        state.registered_anew(0);
        assert_eq!(state.untold(0), [one, two]);
    }

    #[test]
    fn news_that_came_while_a_tracker_was_told_are_told_too() {
        let state = State::new(1, 10, 10);
        let partial = entry(1, OwnState::Partial);
        state.own(&partial);
        let batch = state.untold(0);
        state.own(&entry(1, OwnState::Gone));
        state.told(0, &batch, true);
        assert_eq!(state.untold(0), [entry(1, OwnState::Gone)]);
        assert_eq!(state.own(&entry(1, OwnState::Gone)), Noted::Known);
    }

    #[test]
    fn entry_of_a_refused_batch_is_told_again_when_asked_for() {
        let state = State::new(1, 10, 10);
        let (one, two) = (entry(1, OwnState::Partial), entry(2, OwnState::Complete));
        state.own(&one);
        state.own(&two);
        state.told(0, &[one.clone(), two.clone()], false);
        assert!(state.untold(0).is_empty());
        assert_eq!(state.to_tell(0, &one.id), Some(one.clone()));
        state.told(0, std::slice::from_ref(&one), true);
        assert_eq!(state.to_tell(0, &one.id), None);
        state.own(&entry(2, OwnState::Gone));
        state.told(0, &[entry(2, OwnState::Gone)], true);
        assert_eq!(state.to_tell(0, &two.id), None);
    }

    #[test]
    fn contents_owners_and_what_is_untold_are_bounded() {
        let state = State::new(1, 2, 4);
        for number in 0..100 {
            assert_eq!(state.own(&entry(number, OwnState::Complete)), Noted::News);
            assert_eq!(state.own(&entry(number, OwnState::Gone)), Noted::News);
        }
        assert!(state.untold(0).len() <= 4);
        assert!(state.renews(0));
        state.own(&entry(1, OwnState::Complete));
        state.own(&entry(2, OwnState::Complete));
        assert_eq!(state.own(&entry(3, OwnState::Complete)), Noted::Full);

        state.named(0, &named(100));
        for owner in named(100).owners {
            state.credit(&owner.addr, 7);
        }
        let credited = state.take_credits(0);
        assert!((2..=4).contains(&credited.len()), "{credited:?}");
        assert!(credited.iter().all(|upload| upload.owner.0 >= 96));
    }

    #[test]
    fn credits_of_an_owner_add_up_until_they_are_taken() {
        let state = State::new(2, 2, 4);
        state.named(1, &named(2));
        let owner = "memory:1".parse().unwrap();
        state.credit(&owner, 7);
        state.credit(&owner, 8);
        state.credit(&"memory:9".parse().unwrap(), 8);
        assert_eq!(state.take_credits(0), []);
        let sum = Upload {
            owner: OwnerRef(1),
            bytes: 15,
        };
        assert_eq!(state.take_credits(1), [sum]);
        assert_eq!(state.take_credits(1), []);
    }
}
