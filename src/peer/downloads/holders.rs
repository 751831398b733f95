//! Who wants a running download: one handle or several, or nobody in particular.
//!
//! ```text
//!   handles > 0 ──last one dropped──▶ detached? ──yes──▶ goes on without handles
//!        │                               └─────no───┐
//!        └──────last one cancels────────────────────┴──▶ cancelled
//! ```

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

    /// Cancels a download that goes on without handles. Returns whether it does.
    pub(in crate::peer) fn abandon(&self) -> bool {
        let wanted = self.wanted();
        let is_abandoned = wanted.handles == 0;
        if is_abandoned {
            self.cancelled.cancel();
        }
        is_abandoned
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
        self.give_back(|wanted| {
            wanted.explicitly = wanted.handles == 0;
            wanted.explicitly
        })
    }

    /// Cancels the download as [`cancel`](Self::cancel) does, and has what has arrived
    /// deleted.
    pub(in crate::peer) fn discard(&self) -> bool {
        self.give_back(|wanted| {
            wanted.explicitly = wanted.handles == 0;
            wanted.discards = wanted.explicitly;
            wanted.explicitly
        })
    }

    /// The download goes on without this handle, and without any.
    pub(in crate::peer) fn detach(self) {
        self.give_back(|wanted| {
            wanted.detached = true;
            false
        });
    }

    /// Gives the part back, once. `ends` says whether that ends the download. Returns
    /// whether others hold it.
    fn give_back(&self, ends: impl FnOnce(&mut Wanted) -> bool) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = self.holders.wanted();
        if std::mem::replace(&mut *counts, false) {
            wanted.handles -= 1;
            if ends(&mut wanted) {
                self.holders.cancelled.cancel();
            }
        }
        wanted.handles > 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back(|wanted| wanted.handles == 0 && !wanted.detached);
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
}
