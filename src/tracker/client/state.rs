//! What the trackers of a client must know, and what each of them has not been
//! told yet. Every map here has a limit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::content::{ContentId, ContentName};
use crate::protocol::limits::MAX_BATCH;
use crate::protocol::{
    Addr, ListedOwner, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry, Upload,
};

/// How many names a client announces for one content: as many as a tracker takes from
/// one peer.
pub(super) const MAX_NAMES: usize = 8;

/// What a tracker has not been told yet of each content, in the order in which it must
/// hear it: that the content was gone, if it was, and then its names. At most one entry
/// more than there are names.
type Untold = BTreeMap<ContentId, Vec<OwnEntry>>;

/// The state that a client and its sessions share. The lock is never held across
/// an await.
#[derive(Debug)]
pub(super) struct ClientState {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    max_contents: usize,
    max_known_owners: usize,
    /// The owned contents, each under its first name.
    owned: BTreeMap<ContentId, Owned>,
    /// The other names, of contents that have several.
    more_names: BTreeMap<ContentId, Vec<ContentName>>,
    /// By their numbers.
    trackers: Vec<TrackerNotes>,
    /// Those that were removed and whose sessions have not ended, and those that a new
    /// tracker may have. They are told nothing.
    leaving: BTreeSet<usize>,
    free: BTreeSet<usize>,
}

/// What an [`OwnEntry`] says of its content. There may be very many, so the id is not
/// in it.
#[derive(Debug)]
struct Owned {
    name: ContentName,
    length: u64,
    state: OwnState,
}

impl Owned {
    fn of(entry: &OwnEntry) -> Self {
        Self {
            name: entry.name.clone(),
            length: entry.length,
            state: entry.state,
        }
    }

    fn entry(&self, id: ContentId, name: &ContentName) -> OwnEntry {
        OwnEntry::new(id, name.clone(), self.length, self.state)
    }
}

/// What one tracker knows and does not know.
#[derive(Debug, Default)]
struct TrackerNotes {
    /// What it has not been told yet, including GONE.
    untold: Untold,
    /// The owned contents that it has refused, or whose names it has refused.
    refused: BTreeMap<ContentId, BTreeMap<ContentName, Refused>>,
    /// When they must be announced again.
    retries: BTreeSet<(Instant, ContentId, ContentName)>,
    next_registration: NextRegistration,
    /// The owners that it has named, in two generations. When the newer one is
    /// full, the older one is forgotten.
    known_owners: [HashMap<Addr, OwnerRef>; 2],
    credits: BTreeMap<OwnerRef, u64>,
}

/// With what the next REGISTER is sent.
#[derive(Debug, Default, PartialEq, Eq)]
enum NextRegistration {
    /// With the token, if there is one.
    #[default]
    Continued,
    /// Without the token. So much was untold that the tracker is to forget
    /// everything and to be told anew.
    Anew,
}

/// A content that a tracker has refused.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    /// How often in a row it was refused.
    times: u32,
    /// When the content must be announced again.
    due: Option<Instant>,
}

/// What a tracker has decided about an announced content, if that is news.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is refused, for a reason that is new.
    Refused(Refusal),
    /// It was refused before, and is listed now.
    Taken,
}

impl TrackerNotes {
    /// Forgets the refusal of a content under a name, and returns it, if there was one.
    fn forget_refusal(&mut self, id: &ContentId, name: &ContentName) -> Option<Refused> {
        let names = self.refused.get_mut(id)?;
        let refused = names.remove(name);
        if names.is_empty() {
            self.refused.remove(id);
        }
        if let Some(due) = refused.as_ref().and_then(|refused| refused.due) {
            self.retries.remove(&(due, *id, name.clone()));
        }
        refused
    }

    /// Forgets all refusals of a content.
    fn forget_refusals(&mut self, id: &ContentId) {
        for (name, refused) in self.refused.remove(id).unwrap_or_default() {
            if let Some(due) = refused.due {
                self.retries.remove(&(due, *id, name));
            }
        }
    }

    /// Notes an entry that the tracker must be told.
    fn tell(&mut self, entry: &OwnEntry) {
        let untold = self.untold.entry(entry.id).or_default();
        if entry.state == OwnState::Gone {
            untold.clear();
        }
        let mut known = false;
        for other in untold
            .iter_mut()
            .filter(|other| other.state != OwnState::Gone)
        {
            // The state is that of the content, under all names.
            (other.state, other.length) = (entry.state, entry.length);
            known |= other.name == entry.name;
        }
        if !known {
            untold.push(entry.clone());
        }
    }
}

/// How many entries an OWN is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// As many as fit. Others are under way, and what comes until these are answered
    /// travels together.
    Full,
    /// As many as there are.
    Any,
}

/// What [`ClientState::own`] has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OwnOutcome {
    /// Something that the trackers must be told.
    Changed,
    /// Nothing.
    Unchanged,
    /// Nothing, because there are too many contents.
    Full,
    /// Nothing, because the content has [`MAX_NAMES`] names.
    TooManyNames,
}

impl Inner {
    /// Everything that is owned.
    fn all_entries(&self) -> Untold {
        let all = self
            .owned
            .keys()
            .map(|id| (*id, self.entries(id).collect()));
        all.collect()
    }

    /// The entries of an owned content, one for each of its names.
    fn entries(&self, id: &ContentId) -> impl Iterator<Item = OwnEntry> {
        let (id, first) = (*id, self.owned.get(id));
        let more = self.more_names.get(&id).into_iter().flatten();
        first.into_iter().flat_map(move |first| {
            let names = std::iter::once(&first.name).chain(more.clone());
            names.map(move |name| first.entry(id, name))
        })
    }

    /// The entry of an owned content under one of its names.
    fn entry(&self, id: &ContentId, name: &ContentName) -> Option<OwnEntry> {
        let first = self.owned.get(id)?;
        let more = self.more_names.get(id);
        let has_name = first.name == *name || more.is_some_and(|more| more.contains(name));
        has_name.then(|| first.entry(*id, name))
    }

    /// Adds a content, or a name to one, and sets its state.
    fn add(&mut self, entry: &OwnEntry) -> OwnOutcome {
        let is_known = self.entry(&entry.id, &entry.name).is_some();
        let Some(first) = self.owned.get_mut(&entry.id) else {
            if self.owned.len() >= self.max_contents {
                return OwnOutcome::Full;
            }
            self.owned.insert(entry.id, Owned::of(entry));
            return OwnOutcome::Changed;
        };
        if !is_known {
            let more = self.more_names.entry(entry.id).or_default();
            if more.len() + 1 >= MAX_NAMES {
                return OwnOutcome::TooManyNames;
            }
            more.push(entry.name.clone());
        }
        (first.state, first.length) = (entry.state, entry.length);
        OwnOutcome::Changed
    }
}

impl ClientState {
    pub(super) fn new(trackers: usize, max_contents: usize, max_known_owners: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                max_contents,
                max_known_owners,
                owned: BTreeMap::new(),
                more_names: BTreeMap::new(),
                trackers: (0..trackers).map(|_| TrackerNotes::default()).collect(),
                leaving: BTreeSet::new(),
                free: BTreeSet::new(),
            }),
        }
    }

    /// One more tracker, which has to be told everything when it is registered with.
    /// Returns its number.
    pub(super) fn add_tracker(&self) -> usize {
        let inner = &mut *self.lock();
        if let Some(number) = inner.free.pop_first() {
            return number;
        }
        inner.trackers.push(TrackerNotes::default());
        inner.trackers.len() - 1
    }

    /// A tracker is told nothing more.
    pub(super) fn tracker_leaves(&self, tracker: usize) {
        let inner = &mut *self.lock();
        inner.leaving.insert(tracker);
        let notes = &mut inner.trackers[tracker];
        notes.untold.clear();
        notes.refused.clear();
        notes.retries.clear();
    }

    /// The session of a tracker has ended. A new one may have its number.
    pub(super) fn tracker_gone(&self, tracker: usize) {
        let inner = &mut *self.lock();
        inner.leaving.remove(&tracker);
        inner.trackers[tracker] = TrackerNotes::default();
        inner.free.insert(tracker);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a content is owned from now on under this name as well, or no longer
    /// under any, for all trackers.
    pub(super) fn own(&self, entry: &OwnEntry) -> OwnOutcome {
        let inner = &mut *self.lock();
        if entry.state == OwnState::Gone {
            if inner.owned.remove(&entry.id).is_none() {
                return OwnOutcome::Unchanged;
            }
            inner.more_names.remove(&entry.id);
        } else {
            match inner.add(entry) {
                OwnOutcome::Changed => {}
                refused => return refused,
            }
        }
        let mut all = None;
        for tracker in 0..inner.trackers.len() {
            if inner.leaving.contains(&tracker) || inner.free.contains(&tracker) {
                continue;
            }
            let notes = &mut inner.trackers[tracker];
            if entry.state == OwnState::Gone {
                notes.forget_refusals(&entry.id);
            }
            notes.tell(entry);
            if notes.untold.len() > inner.max_contents.saturating_mul(2) {
                let all = all.get_or_insert_with(|| inner.all_entries());
                let notes = &mut inner.trackers[tracker];
                notes.untold.clone_from(all);
                notes.next_registration = NextRegistration::Anew;
            }
        }
        OwnOutcome::Changed
    }

    /// Why a tracker does not list a content that is owned, if it does not.
    pub(super) fn unlisted(&self, tracker: usize, id: &ContentId) -> Option<Refusal> {
        let inner = self.lock();
        let mut refused = inner.trackers[tracker].refused.get(id)?.values();
        let refused = refused.find(|refused| !refused.refusal.is_of_name())?;
        Some(refused.refusal.clone())
    }

    /// The contents that a tracker currently refuses, with the reasons.
    pub(super) fn refused(&self, tracker: usize) -> Vec<(ContentId, ContentName, Refusal)> {
        let inner = self.lock();
        let refused = inner.trackers[tracker].refused.iter();
        let refused = refused.flat_map(|(id, names)| {
            let each = names.iter();
            each.map(|(name, refused)| (*id, name.clone(), refused.refusal.clone()))
        });
        refused.collect()
    }

    /// The tracker knows nothing and must be told everything.
    pub(super) fn registered_anew(&self, tracker: usize) {
        let inner = &mut *self.lock();
        let untold = inner.all_entries();
        let notes = &mut inner.trackers[tracker];
        let mut refused = std::mem::take(&mut notes.refused);
        for refused in refused.values_mut().flat_map(BTreeMap::values_mut) {
            (refused.times, refused.due) = (0, None);
        }
        *notes = TrackerNotes {
            untold,
            // Kept so that the same refusal is not reported a second time.
            refused,
            ..TrackerNotes::default()
        };
    }

    /// Whether the next REGISTER must be sent without the token.
    pub(super) fn must_renew(&self, tracker: usize) -> bool {
        self.lock().trackers[tracker].next_registration == NextRegistration::Anew
    }

    /// Takes out some of what a tracker has not been told yet: as much as fits into
    /// one OWN, or nothing if it would not be full and has to be. Report its end with
    /// [`told`](Self::told) or [`untold_again`](Self::untold_again), in the order in
    /// which it was taken.
    pub(super) fn take_untold(&self, tracker: usize, fill: Fill) -> Vec<OwnEntry> {
        let untold = &mut self.lock().trackers[tracker].untold;
        let mut taken = Vec::new();
        if fill == Fill::Full && untold.len() < MAX_BATCH {
            return taken;
        }
        while taken.len() < MAX_BATCH
            && let Some(mut first) = untold.first_entry()
        {
            let entries = first.get_mut();
            let fit = entries.len().min(MAX_BATCH - taken.len());
            taken.extend(entries.drain(..fit));
            if entries.is_empty() {
                first.remove();
            }
        }
        taken
    }

    /// Whether a tracker has been told of a content, or is being told right now.
    pub(super) fn is_told(&self, tracker: usize, id: &ContentId) -> bool {
        !self.lock().trackers[tracker].untold.contains_key(id)
    }

    /// Whether a tracker has been told of everything, or is being told right now.
    pub(super) fn is_all_told(&self, tracker: usize) -> bool {
        self.lock().trackers[tracker].untold.is_empty()
    }

    /// The tracker may not have heard of these entries. It is to be told what is true
    /// of them by now.
    pub(super) fn untold_again(&self, tracker: usize, entries: Vec<OwnEntry>) {
        let inner = &mut *self.lock();
        for entry in entries {
            let id = entry.id;
            let now = inner.entry(&id, &entry.name);
            let now = now.filter(|_| entry.state != OwnState::Gone);
            let again = match now {
                Some(now) => vec![now],
                // It was gone meanwhile, and may be back.
                None => {
                    let gone = OwnEntry {
                        state: OwnState::Gone,
                        ..entry
                    };
                    std::iter::once(gone).chain(inner.entries(&id)).collect()
                }
            };
            let notes = &mut inner.trackers[tracker];
            again.iter().for_each(|entry| notes.tell(entry));
        }
    }

    /// The tracker was told of these entries, and has refused some of them. A refused
    /// entry is announced again after a pause; `pause` tells its length after a number of
    /// refusals in a row. Returns the verdicts that are news, with the names.
    pub(super) fn told(
        &self,
        tracker: usize,
        entries: &[OwnEntry],
        refused: &[RefusedEntry],
        now: Instant,
        mut pause: impl FnMut(u32) -> Duration,
    ) -> Vec<(ContentId, ContentName, Verdict)> {
        let inner = &mut *self.lock();
        let notes = &mut inner.trackers[tracker];
        let mut verdicts = Vec::new();
        let mut refused = refused.iter().peekable();
        for (at, entry) in entries.iter().enumerate() {
            let refused = refused.next_if(|refused| usize::from(refused.at) == at);
            let before = notes.forget_refusal(&entry.id, &entry.name);
            let (id, name) = (entry.id, &entry.name);
            let Some(RefusedEntry { refusal, .. }) = refused else {
                if before.is_some() && entry.state != OwnState::Gone {
                    verdicts.push((id, name.clone(), Verdict::Taken));
                }
                continue;
            };
            if !inner.owned.contains_key(&entry.id) {
                continue;
            }
            let times = before.as_ref().map_or(0, |before| before.times);
            // A malformed entry will not become valid.
            let passes = *refusal != Refusal::Malformed;
            let due = passes.then(|| now + pause(times));
            let retry = due.map(|due| (due, id, name.clone()));
            notes.retries.extend(retry);
            if before.is_none_or(|before| before.refusal != *refusal) {
                verdicts.push((id, name.clone(), Verdict::Refused(refusal.clone())));
            }
            let refused = Refused {
                refusal: refusal.clone(),
                times: times.saturating_add(1),
                due,
            };
            let names = notes.refused.entry(id).or_default();
            names.insert(name.clone(), refused);
        }
        verdicts
    }

    /// When something that a tracker has refused must be announced again.
    pub(super) fn next_retry(&self, tracker: usize) -> Option<Instant> {
        let inner = self.lock();
        inner.trackers[tracker]
            .retries
            .first()
            .map(|(due, ..)| *due)
    }

    /// Marks as untold what must be announced again by now.
    pub(super) fn retry(&self, tracker: usize, now: Instant) {
        let inner = &mut *self.lock();
        let is_due = |(due, ..): &&(Instant, ContentId, ContentName)| *due <= now;
        while let Some(retry) = inner.trackers[tracker]
            .retries
            .first()
            .filter(is_due)
            .cloned()
        {
            let (_, id, name) = &retry;
            let entry = inner.entry(id, name);
            let notes = &mut inner.trackers[tracker];
            notes.retries.remove(&retry);
            let names = notes.refused.get_mut(id);
            if let Some(refused) = names.and_then(|names| names.get_mut(name)) {
                refused.due = None;
            }
            if let Some(entry) = entry {
                notes.tell(&entry);
            }
        }
    }

    /// Remembers a tracker's references to the owners that it has named.
    pub(super) fn remember_owners(&self, tracker: usize, owners: &[ListedOwner]) {
        let inner = &mut *self.lock();
        let half = (inner.max_known_owners / 2).max(1);
        let [new, old] = &mut inner.trackers[tracker].known_owners;
        for owner in owners {
            if new.len() >= half && !new.contains_key(&owner.addr) {
                *old = std::mem::take(new);
            }
            new.insert(owner.addr.clone(), owner.owner);
        }
    }

    /// Notes an upload for all trackers that have named this owner.
    pub(super) fn credit(&self, owner: &Addr, bytes: u64) {
        let inner = &mut *self.lock();
        for notes in &mut inner.trackers {
            let [new, old] = &notes.known_owners;
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

    /// Takes out some of the credits for a tracker: as many as fit into one
    /// UPDATE.
    pub(super) fn take_credits(&self, tracker: usize) -> Vec<Upload> {
        let credits = &mut self.lock().trackers[tracker].credits;
        let next = std::iter::from_fn(|| credits.pop_first());
        next.take(MAX_BATCH)
            .map(|(owner, bytes)| Upload { owner, bytes })
            .collect()
    }

    /// Puts back what was taken out and not reported.
    pub(super) fn give_back_credits(&self, tracker: usize, uploads: Vec<Upload>) {
        let credits = &mut self.lock().trackers[tracker].credits;
        for Upload { owner, bytes } in uploads {
            let sum = credits.entry(owner).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8, state: OwnState) -> OwnEntry {
        OwnEntry {
            id: ContentId::from_bytes([number; 32]),
            name: "name".parse().unwrap(),
            length: 1,
            state,
        }
    }

    /// What a tracker has not been told yet.
    fn untold(state: &ClientState, tracker: usize) -> Vec<OwnEntry> {
        let untold = state.lock().trackers[tracker].untold.clone();
        untold.into_values().flatten().collect()
    }

    fn owners(count: u64) -> Vec<ListedOwner> {
        let owners = (0..count).map(|number| ListedOwner {
            owner: OwnerRef(number),
            addr: format!("memory:{number}").parse().unwrap(),
            complete: true,
        });
        owners.collect()
    }

    /// A tracker accepts all entries.
    fn take(state: &ClientState, tracker: usize, entries: &[OwnEntry]) {
        refuse(state, tracker, entries, &[], Instant::now());
    }

    fn refuse(
        state: &ClientState,
        tracker: usize,
        entries: &[OwnEntry],
        places: &[(u16, Refusal)],
        now: Instant,
    ) -> Vec<(ContentId, ContentName, Verdict)> {
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
        let state = ClientState::new(2, 10, 10);
        let (one, two) = (entry(1, OwnState::Partial), entry(2, OwnState::Complete));
        assert_eq!(state.own(&one), OwnOutcome::Changed);
        assert_eq!(state.own(&two), OwnOutcome::Changed);
        assert_eq!(untold(&state, 0), [one.clone(), two.clone()]);
        take(&state, 0, &state.take_untold(0, Fill::Any));
        assert_eq!((untold(&state, 0).len(), untold(&state, 1).len()), (0, 2));
        state.registered_anew(0);
        assert_eq!(untold(&state, 0), [one, two]);
    }

    #[test]
    fn change_during_an_announcement_is_announced_too() {
        let state = ClientState::new(1, 10, 10);
        let partial = entry(1, OwnState::Partial);
        state.own(&partial);
        let batch = state.take_untold(0, Fill::Any);
        assert!(state.is_all_told(0));
        state.own(&entry(1, OwnState::Gone));
        take(&state, 0, &batch);
        assert_eq!(untold(&state, 0), [entry(1, OwnState::Gone)]);
        // What the tracker may not have heard is told as it is by now.
        let gone = state.take_untold(0, Fill::Any);
        state.untold_again(0, batch);
        assert_eq!(untold(&state, 0), gone);
        state.own(&partial);
        state.untold_again(0, gone.clone());
        assert_eq!(untold(&state, 0), [gone[0].clone(), partial]);
        state.own(&entry(1, OwnState::Gone));
        assert_eq!(state.own(&entry(1, OwnState::Gone)), OwnOutcome::Unchanged);
    }

    #[test]
    fn content_has_several_names_which_share_its_state_and_end_together() {
        let state = ClientState::new(1, 10, 10);
        let named = |name: &str, of: OwnState| OwnEntry {
            name: name.parse().unwrap(),
            ..entry(1, of)
        };
        use OwnState::{Complete, Gone, Partial};
        state.own(&named("a", Partial));
        state.own(&named("b", Partial));
        state.own(&named("a", Complete));
        let both = [named("a", Complete), named("b", Complete)];
        assert_eq!(untold(&state, 0), both);
        // One name is refused, the other is not.
        let now = Instant::now();
        let full = Refusal::NamesPerContent { max: 1 };
        assert_eq!(state.take_untold(0, Fill::Any), both);
        let verdicts = refuse(&state, 0, &both, &[(1, full.clone())], now);
        let name = both[1].name.clone();
        assert_eq!(
            verdicts,
            [(both[1].id, name.clone(), Verdict::Refused(full.clone()))]
        );
        assert_eq!(refuse(&state, 0, &both[..1], &[], now), []);
        assert_eq!(state.refused(0), [(both[1].id, name, full)]);
        state.retry(0, state.next_retry(0).unwrap());
        assert_eq!(untold(&state, 0), both[1..]);
        state.registered_anew(0);
        assert_eq!(untold(&state, 0), both);
        // It is gone and comes back while the tracker is told of what it was before.
        let before = state.take_untold(0, Fill::Any);
        assert_eq!(state.own(&named("b", Gone)), OwnOutcome::Changed);
        state.own(&named("a", Complete));
        take(&state, 0, &before);
        let last = [named("b", Gone), named("a", Complete)];
        assert_eq!(untold(&state, 0), last);
        // Should the tracker not have heard of it, that is told first.
        let untold_last = state.take_untold(0, Fill::Any);
        state.untold_again(0, before);
        state.untold_again(0, untold_last);
        assert_eq!(untold(&state, 0), last);
        take(&state, 0, &state.take_untold(0, Fill::Any));
        assert_eq!((untold(&state, 0), state.refused(0)), (vec![], vec![]));
        for n in 2..=MAX_NAMES {
            assert_eq!(
                state.own(&named(&n.to_string(), Complete)),
                OwnOutcome::Changed
            );
        }
        assert_eq!(
            state.own(&named("more", Complete)),
            OwnOutcome::TooManyNames
        );
        assert_eq!(state.own(&named("a", Partial)), OwnOutcome::Changed);
    }

    #[test]
    fn refused_entry_is_announced_again_ever_more_rarely_until_it_is_accepted() {
        let state = ClientState::new(1, 10, 10);
        let (one, two) = (entry(1, OwnState::Partial), entry(2, OwnState::Complete));
        state.own(&one);
        state.own(&two);
        let mut now = Instant::now();
        let both = state.take_untold(0, Fill::Any);
        let full = Refusal::Contents { max: 1 };
        let verdicts = refuse(&state, 0, &both, &[(1, full.clone())], now);
        assert_eq!(
            verdicts,
            [(two.id, two.name.clone(), Verdict::Refused(full.clone()))]
        );
        for times in 0..5 {
            assert!(untold(&state, 0).is_empty());
            assert_eq!(state.unlisted(0, &one.id), None);
            assert_eq!(state.unlisted(0, &two.id), Some(full.clone()));
            let due = state.next_retry(0).unwrap();
            assert_eq!(due - now, Duration::from_secs(1 << times));
            state.retry(0, due - Duration::from_millis(1));
            assert!(untold(&state, 0).is_empty());
            state.retry(0, due);
            assert_eq!(untold(&state, 0), std::slice::from_ref(&two));
            now = due;
            // The same reason is news only once.
            let again = refuse(
                &state,
                0,
                &state.take_untold(0, Fill::Any),
                &[(0, full.clone())],
                now,
            );
            assert_eq!(again, []);
        }
        let named = Refusal::NamesPerContent { max: 1 };
        state.retry(0, now + Duration::from_secs(99));
        let verdicts = refuse(
            &state,
            0,
            &state.take_untold(0, Fill::Any),
            &[(0, named.clone())],
            now,
        );
        assert_eq!(
            verdicts,
            [(two.id, two.name.clone(), Verdict::Refused(named.clone()))]
        );
        // It is listed, though without its name.
        assert_eq!(state.unlisted(0, &two.id), None);
        assert_eq!(state.refused(0), [(two.id, two.name.clone(), named)]);
        let verdicts = refuse(&state, 0, std::slice::from_ref(&two), &[], now);
        assert_eq!(verdicts, [(two.id, two.name.clone(), Verdict::Taken)]);
        assert_eq!((state.refused(0), state.next_retry(0)), (vec![], None));
    }

    #[test]
    fn refusal_is_forgotten_when_the_content_is_gone_and_not_retried_when_malformed() {
        let state = ClientState::new(1, 10, 10);
        let now = Instant::now();
        let two = entry(2, OwnState::Complete);
        state.own(&two);
        let malformed = [(0, Refusal::Malformed)];
        refuse(&state, 0, &state.take_untold(0, Fill::Any), &malformed, now);
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
        // A tracker that knows nothing is told of it together with the rest, and the pauses
        // begin anew.
        state.registered_anew(0);
        let again = state.take_untold(0, Fill::Any);
        refuse(&state, 0, &again, &[(0, Refusal::Busy)], now);
        assert_eq!(state.next_retry(0), Some(now + Duration::from_secs(1)));
        state.registered_anew(0);
        assert_eq!((state.next_retry(0), untold(&state, 0).len()), (None, 1));
        state.own(&entry(2, OwnState::Gone));
        assert_eq!((state.refused(0), state.next_retry(0)), (vec![], None));
        let gone = state.take_untold(0, Fill::Any);
        assert_eq!(refuse(&state, 0, &gone, &[], now), []);
    }

    #[test]
    fn contents_owners_and_untold_entries_are_bounded() {
        let state = ClientState::new(1, 2, 4);
        for number in 0..100 {
            assert_eq!(
                state.own(&entry(number, OwnState::Complete)),
                OwnOutcome::Changed
            );
            assert_eq!(
                state.own(&entry(number, OwnState::Gone)),
                OwnOutcome::Changed
            );
        }
        assert!(untold(&state, 0).len() <= 4);
        assert!(state.must_renew(0));
        state.own(&entry(1, OwnState::Complete));
        state.own(&entry(2, OwnState::Complete));
        assert_eq!(state.own(&entry(3, OwnState::Complete)), OwnOutcome::Full);

        state.remember_owners(0, &owners(100));
        for owner in owners(100) {
            state.credit(&owner.addr, 7);
        }
        let credited = state.take_credits(0);
        assert!((2..=4).contains(&credited.len()), "{credited:?}");
        assert!(credited.iter().all(|upload| upload.owner.0 >= 96));
    }

    #[test]
    fn credits_of_an_owner_add_up_until_they_are_taken() {
        let state = ClientState::new(2, 2, 4);
        state.remember_owners(1, &owners(2));
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
        state.credit(&owner, 1);
        state.give_back_credits(1, vec![sum]);
        let sum = Upload { bytes: 16, ..sum };
        assert_eq!(state.take_credits(1), [sum]);
    }
}
