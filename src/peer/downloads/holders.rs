//! Who wants a running download: one handle or several, or nobody in particular.
//!
//! The last handle decides:
//!
//! | it is | the download | what has arrived |
//! |---|---|---|
//! | dropped, and none was detached before | ends | is kept |
//! | dropped, and one was detached before | goes on | |
//! | detached | goes on | |
//! | cancelled | ends | is kept |
//! | discarded | ends | is deleted |
//!
//! What an earlier one did counts for nothing, except that it was detached.
//!
//! The handles of a download that has joined another one have one part in that together.
//! Whatever the last of them does is done to that part at once, before anybody can do
//! something else: so the order among handles of both is the one in which users did it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The handles of one download.
pub(in crate::peer) struct Holders {
    wanted: Mutex<Wanted>,
    cancelled: CancellationToken,
}

#[derive(Default)]
struct Wanted {
    handles: usize,
    /// The download goes on without handles.
    detached: bool,
    /// The last handle has cancelled it, and was not just dropped.
    explicitly: bool,
    /// The last handle wants nothing of it to be kept.
    discards: bool,
    /// The part of these handles in the download that this one has joined.
    joined: Option<Hold>,
    /// When that part was given back, others wanted that download still.
    others: bool,
}

/// How a handle leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Dropped,
    Detached,
    Cancelled,
    Discarded,
}

/// The part of one handle. Dropping it gives the part back.
pub(in crate::peer) struct Hold {
    holders: Arc<Holders>,
    /// Whether this part is still counted.
    counts: Mutex<bool>,
}

impl Holders {
    /// Those of a new download, with the part of its first handle.
    pub(in crate::peer) fn new() -> (Arc<Self>, Hold) {
        let holders = Arc::new(Self {
            wanted: Mutex::default(),
            cancelled: CancellationToken::new(),
        });
        let hold = Hold::new(&holders, &mut holders.wanted());
        (holders, hold)
    }

    /// One more handle; nothing if the download is cancelled already.
    pub(in crate::peer) fn join(self: &Arc<Self>) -> Option<Hold> {
        let mut wanted = self.wanted();
        let joined = !self.cancelled.is_cancelled();
        joined.then(|| Hold::new(self, &mut wanted))
    }

    /// Cancelled when nobody wants the download any more.
    pub(in crate::peer) fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// This download joins another one, with this part in it.
    pub(in crate::peer) fn joins(&self, part: Hold) {
        let mut wanted = self.wanted();
        if wanted.handles > 0 {
            wanted.joined = Some(part);
            return;
        }
        // They have left meanwhile.
        wanted.others = part.give_back(match (wanted.discards, wanted.explicitly) {
            (true, _) => Leaving::Discarded,
            (false, true) => Leaving::Cancelled,
            (false, false) if wanted.detached => Leaving::Detached,
            (false, false) => Leaving::Dropped,
        });
    }

    /// This download has nothing to do with the one that it had joined any more.
    pub(in crate::peer) fn parts(&self) {
        let part = self.wanted().joined.take();
        drop(part);
    }

    /// From now on the download goes on without handles: what they wanted is here.
    pub(in crate::peer) fn goes_on_alone(&self) {
        self.wanted().detached = true;
    }

    /// Whether others want the download that this one had joined, when nobody wants this
    /// one any more.
    pub(in crate::peer) fn leaves_others(&self) -> bool {
        self.wanted().others
    }

    /// Whether the last handle has cancelled it, and was not just dropped.
    pub(in crate::peer) fn was_explicit(&self) -> bool {
        self.wanted().explicitly
    }

    /// Whether what has arrived is to be deleted: the last handle wants that.
    pub(in crate::peer) fn discards(&self) -> bool {
        self.wanted().discards
    }

    /// Ignores poison: no change under this lock is left half done.
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    fn new(holders: &Arc<Holders>, wanted: &mut Wanted) -> Self {
        wanted.handles += 1;
        Self {
            holders: Arc::clone(holders),
            counts: Mutex::new(true),
        }
    }

    /// Cancels the download, unless there are other handles. Returns whether there
    /// are.
    pub(in crate::peer) fn cancel(&self) -> bool {
        self.give_back(Leaving::Cancelled)
    }

    /// Cancels the download as [`cancel`](Self::cancel) does, and has what has arrived
    /// deleted.
    pub(in crate::peer) fn discard(&self) -> bool {
        self.give_back(Leaving::Discarded)
    }

    /// The download goes on without this handle, and without any.
    pub(in crate::peer) fn detach(self) {
        self.give_back(Leaving::Detached);
    }

    /// Gives the part back, once. Returns whether others hold the download.
    fn give_back(&self, leaving: Leaving) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = self.holders.wanted();
        if std::mem::replace(&mut *counts, false) {
            wanted.handles -= 1;
            wanted.detached |= leaving == Leaving::Detached;
            if wanted.handles == 0 {
                self.holders.last_left(&mut wanted, leaving);
            }
        }
        wanted.handles > 0
    }
}

impl Holders {
    fn last_left(&self, wanted: &mut Wanted, leaving: Leaving) {
        wanted.explicitly = matches!(leaving, Leaving::Cancelled | Leaving::Discarded);
        wanted.discards = leaving == Leaving::Discarded;
        let ends = wanted.explicitly || !wanted.detached;
        if let Some(part) = wanted.joined.take() {
            // The locks are taken in the order in which downloads have joined.
            wanted.others = part.give_back(match ends {
                true => leaving,
                false => Leaving::Detached,
            });
        }
        if ends {
            self.cancelled.cancel();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back(Leaving::Dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn download_is_cancelled_with_its_last_handle_unless_it_is_detached() {
        let (holders, first) = Holders::new();
        let second = holders.join().unwrap();
        drop(first);
        assert!(!holders.cancelled().is_cancelled());
        drop(second);
        assert!(holders.cancelled().is_cancelled() && !holders.was_explicit());
        assert!(holders.join().is_none());

        let (holders, first) = Holders::new();
        first.detach();
        let second = holders.join().unwrap();
        drop(second);
        assert!(!holders.cancelled().is_cancelled());
        let (third, fourth) = (holders.join().unwrap(), holders.join().unwrap());
        assert!(third.cancel());
        // Once.
        assert!(third.cancel());
        assert!(!holders.cancelled().is_cancelled());
        assert!(!fourth.cancel());
        assert!(holders.cancelled().is_cancelled() && holders.was_explicit());
        assert!(!holders.discards());
    }

    #[test]
    fn last_handle_decides_whether_anything_is_kept() {
        for last_discards in [true, false] {
            let (holders, first) = Holders::new();
            let second = holders.join().unwrap();
            assert!(first.discard());
            assert!(!holders.cancelled().is_cancelled() && !holders.discards());
            let more = match last_discards {
                true => second.discard(),
                false => second.cancel(),
            };
            assert!(!more && holders.cancelled().is_cancelled() && holders.was_explicit());
            assert_eq!(holders.discards(), last_discards);
        }
    }

    const LEAVINGS: [Leaving; 4] = [
        Leaving::Dropped,
        Leaving::Detached,
        Leaving::Cancelled,
        Leaving::Discarded,
    ];

    fn leave(hold: Hold, how: Leaving) {
        hold.give_back(how);
    }

    /// The table above, for two handles of one download and for one of each of two that
    /// have joined, whichever leaves first.
    #[test]
    fn last_handle_decides_whoever_it_is_and_whatever_the_others_did() {
        for joins in [false, true] {
            for first_is_last in [false, true] {
                for (early, late) in LEAVINGS.iter().flat_map(|e| LEAVINGS.map(|l| (*e, l))) {
                    let (holders, first) = Holders::new();
                    let part = holders.join().unwrap();
                    let (joined, second) = match joins {
                        false => (None, part),
                        true => {
                            let (joined, second) = Holders::new();
                            joined.joins(part);
                            (Some(joined), second)
                        }
                    };
                    let mut order = [first, second];
                    if first_is_last {
                        order.reverse();
                    }
                    let [one, other] = order;
                    leave(one, early);
                    assert!(!holders.cancelled().is_cancelled());
                    leave(other, late);
                    let is_detached = [early, late].contains(&Leaving::Detached);
                    let is_explicit = matches!(late, Leaving::Cancelled | Leaving::Discarded);
                    let seen = (
                        holders.cancelled().is_cancelled(),
                        holders.was_explicit(),
                        holders.discards(),
                    );
                    let discards = late == Leaving::Discarded;
                    let expected = (is_explicit || !is_detached, is_explicit, discards);
                    assert_eq!(seen, expected, "{joins} {first_is_last} {early:?} {late:?}");
                    if let Some(joined) = joined {
                        assert_eq!(joined.leaves_others(), first_is_last, "{early:?} {late:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn handle_that_left_before_its_download_joined_another_has_left_that_as_well() {
        for how in LEAVINGS {
            let (holders, first) = Holders::new();
            let (joined, second) = Holders::new();
            leave(second, how);
            joined.joins(holders.join().unwrap());
            assert!(joined.leaves_others());
            drop(first);
            let goes_on = how == Leaving::Detached;
            assert_eq!(holders.cancelled().is_cancelled(), !goes_on, "{how:?}");
        }
    }
}
