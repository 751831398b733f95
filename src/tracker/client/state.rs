//! What a client wants its trackers to know, and what each has yet to be told.
//! Every map here has a bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::content::ContentId;
use crate::protocol::limits::MAX_BATCH;
use crate::protocol::{Addr, Found, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry, Upload};

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
    /// What it has refused of what is owned, or the name of which it has.
    refused: BTreeMap<ContentId, Refused>,
    /// When it is to be told of which of that again.
    retries: BTreeSet<(Instant, ContentId)>,
    /// Too much was untold: its registration is to be begun anew.
    renew: bool,
    /// The owners that it named, in two generations of which the older one is
    /// forgotten when the newer one is full.
    named: [HashMap<Addr, OwnerRef>; 2],
    credits: BTreeMap<OwnerRef, u64>,
}

/// A content that a tracker has refused.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    /// How often in a row.
    times: u32,
    /// When it is to be told again, if it has not been told of anything else
    /// meanwhile.
    due: Option<Instant>,
}

/// What has become of a content that a tracker was told of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is refused, for another reason than before.
    Refused(Refusal),
    /// It was refused, and is taken now.
    Taken,
}

impl Notes {
    /// What was refused of a content is of no interest any more. Returns whether
    /// there was something.
    fn forgive(&mut self, id: &ContentId) -> bool {
        let refused = self.refused.remove(id);
        if let Some(due) = refused.as_ref().and_then(|refused| refused.due) {
            self.retries.remove(&(due, *id));
        }
        refused.is_some()
    }
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
                notes.forgive(&entry.id);
            }
            notes.untold.insert(entry.id, entry.clone());
            if notes.untold.len() > inner.max_contents.saturating_mul(2) {
                notes.untold.clone_from(&inner.owned);
                notes.renew = true;
            }
        }
        Noted::News
    }

    /// Why a tracker does not list a content that is owned, if it does not.
    pub(super) fn unlisted(&self, tracker: usize, id: &ContentId) -> Option<Refusal> {
        let inner = self.lock();
        let refused = inner.trackers[tracker].refused.get(id)?;
        let refusal = Some(&refused.refusal).filter(|refusal| !refusal.is_of_name());
        refusal.cloned()
    }

    /// What a tracker refuses at present, with the reasons.
    pub(super) fn refused(&self, tracker: usize) -> Vec<(ContentId, Refusal)> {
        let inner = self.lock();
        let refused = inner.trackers[tracker].refused.iter();
        let refused = refused.map(|(id, refused)| (*id, refused.refusal.clone()));
        refused.collect()
    }

    /// A tracker that knows nothing is to be told everything.
    pub(super) fn registered_anew(&self, tracker: usize) {
        let inner = &mut *self.lock();
        let notes = &mut inner.trackers[tracker];
        let mut refused = std::mem::take(&mut notes.refused);
        for refused in refused.values_mut() {
            (refused.times, refused.due) = (0, None);
        }
        *notes = Notes {
            untold: inner.owned.clone(),
            // To be told whether that is still so.
            refused,
            ..Notes::default()
        };
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

    /// The tracker was told, and has refused some of it. What was wanted
    /// otherwise meanwhile stays untold; what was refused is told again after a
    /// pause, of which `pause` says how long it is after so many times. Returns
    /// what has changed for which entries.
    pub(super) fn told(
        &self,
        tracker: usize,
        entries: &[OwnEntry],
        refused: &[RefusedEntry],
        now: Instant,
        mut pause: impl FnMut(u32) -> Duration,
    ) -> Vec<(ContentId, Verdict)> {
        let inner = &mut *self.lock();
        let notes = &mut inner.trackers[tracker];
        let mut verdicts = Vec::new();
        let mut refused = refused.iter().peekable();
        for (at, entry) in entries.iter().enumerate() {
            if notes.untold.get(&entry.id) == Some(entry) {
                notes.untold.remove(&entry.id);
            }
            let refused = refused.next_if(|refused| usize::from(refused.at) == at);
            let before = notes.refused.get(&entry.id);
            let before = before.map(|before| (before.refusal.clone(), before.times));
            notes.forgive(&entry.id);
            let Some(RefusedEntry { refusal, .. }) = refused else {
                if before.is_some() && entry.state != OwnState::Gone {
                    verdicts.push((entry.id, Verdict::Taken));
                }
                continue;
            };
            if !inner.owned.contains_key(&entry.id) {
                continue;
            }
            let times = before.as_ref().map_or(0, |(_, times)| *times);
            // What cannot be read will not be readable later.
            let passes = *refusal != Refusal::Malformed;
            let due = passes.then(|| now + pause(times));
            notes.retries.extend(due.map(|due| (due, entry.id)));
            if before.is_none_or(|(before, _)| before != *refusal) {
                verdicts.push((entry.id, Verdict::Refused(refusal.clone())));
            }
            let refused = Refused {
                refusal: refusal.clone(),
                times: times.saturating_add(1),
                due,
            };
            notes.refused.insert(entry.id, refused);
        }
        verdicts
    }

    /// When a tracker is to be told again of something that it has refused.
    pub(super) fn next_retry(&self, tracker: usize) -> Option<Instant> {
        let inner = self.lock();
        inner.trackers[tracker].retries.first().map(|(due, _)| *due)
    }

    /// What is due by now is to be told again.
    pub(super) fn retry(&self, tracker: usize, now: Instant) {
        let inner = &mut *self.lock();
        let notes = &mut inner.trackers[tracker];
        while let Some(&(due, id)) = notes.retries.first().filter(|(due, _)| *due <= now) {
            notes.retries.remove(&(due, id));
            if let Some(refused) = notes.refused.get_mut(&id) {
                refused.due = None;
            }
            if let Some(entry) = inner.owned.get(&id) {
                notes.untold.entry(id).or_insert_with(|| entry.clone());
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

    /// A tracker takes all of it.
    fn take(state: &State, tracker: usize, entries: &[OwnEntry]) {
        refuse(state, tracker, entries, &[], Instant::now());
    }

    fn refuse(
        state: &State,
        tracker: usize,
        entries: &[OwnEntry],
        places: &[(u16, Refusal)],
        now: Instant,
    ) -> Vec<(ContentId, Verdict)> {
        let refused = places.iter().map(|(at, refusal)| RefusedEntry {
            at: *at,
            refusal: refusal.clone(),
        });
        let refused: Vec<_> = refused.collect();
        let pause = |times| Duration::from_secs(1_u64 << times);
        state.told(tracker, entries, &refused, now, pause)
    }

    #[test]
    fn each_tracker_is_told_once_and_everything_after_a_restart() {
        let state = State::new(2, 10, 10);
        let (one, two) = (entry(1, OwnState::Partial), entry(2, OwnState::Complete));
        assert_eq!(state.own(&one), Noted::News);
        assert_eq!(state.own(&two), Noted::News);
        assert_eq!(state.untold(0), [one.clone(), two.clone()]);
        take(&state, 0, &[one.clone(), two.clone()]);
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
        take(&state, 0, &batch);
        assert_eq!(state.untold(0), [entry(1, OwnState::Gone)]);
        assert_eq!(state.own(&entry(1, OwnState::Gone)), Noted::Known);
    }

    #[test]
    fn refused_entry_is_told_again_ever_more_rarely_until_it_is_taken() {
        let state = State::new(1, 10, 10);
        let (one, two) = (entry(1, OwnState::Partial), entry(2, OwnState::Complete));
        state.own(&one);
        state.own(&two);
        let mut now = Instant::now();
        let both = [one.clone(), two.clone()];
        let full = Refusal::Contents { max: 1 };
        let verdicts = refuse(&state, 0, &both, &[(1, full.clone())], now);
        assert_eq!(verdicts, [(two.id, Verdict::Refused(full.clone()))]);
        for times in 0..5 {
            assert!(state.untold(0).is_empty());
            assert_eq!(state.unlisted(0, &one.id), None);
            assert_eq!(state.unlisted(0, &two.id), Some(full.clone()));
            let due = state.next_retry(0).unwrap();
            assert_eq!(due - now, Duration::from_secs(1 << times));
            state.retry(0, due - Duration::from_millis(1));
            assert!(state.untold(0).is_empty());
            state.retry(0, due);
            assert_eq!(state.untold(0), std::slice::from_ref(&two));
            now = due;
            // The same reason is news once.
            let again = refuse(&state, 0, &state.untold(0), &[(0, full.clone())], now);
            assert_eq!(again, []);
        }
        let named = Refusal::NamesPerContent { max: 1 };
        state.retry(0, now + Duration::from_secs(99));
        let verdicts = refuse(&state, 0, &state.untold(0), &[(0, named.clone())], now);
        assert_eq!(verdicts, [(two.id, Verdict::Refused(named.clone()))]);
        // Without a name it is listed all the same.
        assert_eq!(state.unlisted(0, &two.id), None);
        assert_eq!(state.refused(0), [(two.id, named)]);
        let verdicts = refuse(&state, 0, std::slice::from_ref(&two), &[], now);
        assert_eq!(verdicts, [(two.id, Verdict::Taken)]);
        assert_eq!((state.refused(0), state.next_retry(0)), (vec![], None));
    }

    #[test]
    fn nothing_is_left_of_a_refusal_when_the_content_is_gone_or_cannot_be_taken() {
        let state = State::new(1, 10, 10);
        let now = Instant::now();
        let two = entry(2, OwnState::Complete);
        state.own(&two);
        let malformed = [(0, Refusal::Malformed)];
        refuse(&state, 0, std::slice::from_ref(&two), &malformed, now);
        assert_eq!(state.next_retry(0), None);
        assert_eq!(state.refused(0).len(), 1);
        refuse(
            &state,
            0,
            std::slice::from_ref(&two),
            &[(0, Refusal::Busy)],
            now,
        );
        assert!(state.next_retry(0).is_some());
        // A tracker that knows nothing is told of it with all else.
        state.registered_anew(0);
        assert_eq!((state.next_retry(0), state.untold(0).len()), (None, 1));
        state.own(&entry(2, OwnState::Gone));
        assert_eq!((state.refused(0), state.next_retry(0)), (vec![], None));
        let gone = state.untold(0);
        assert_eq!(refuse(&state, 0, &gone, &[], now), []);
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
