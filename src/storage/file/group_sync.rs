//! Syncs that many callers share, as a database commits its log in groups.
//!
//! One caller syncs at a time. Whoever wants to sync meanwhile waits, and one of
//! those who wait then syncs for all of them. So a caller is served by a sync that
//! began after it asked, and a burst of callers costs two syncs.
//!
//! A sync that fails fails all that may have lost something by it: those that it
//! served, those that were waiting, and those that had changed something before it
//! ended and ask later. The operating system may have dropped all of these changes,
//! and a later sync would not say so.

use std::io;
use std::sync::{Arc, OnceLock, PoisonError};

use crate::sync::{Condvar, Mutex, MutexGuard};

/// Shares the syncs of one directory or file.
#[derive(Debug, Default)]
pub(super) struct GroupSync {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a sync is running.
    running: bool,
    /// The sync that serves those who ask now.
    next: Arc<Round>,
    /// How many syncs have failed so far, and the error of the last one.
    failures: u64,
    failure: Option<io::Error>,
}

/// The outcome of one sync, once it has ended.
type Round = OnceLock<io::Result<()>>;

/// A moment. Whoever changes something that is to be synced takes a mark before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    failures: u64,
}

impl GroupSync {
    /// The mark of this moment.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            failures: self.state().failures,
        }
    }

    /// Makes durable what was changed before this call and after the mark. Blocks
    /// until `sync`, by this caller or another, has ended.
    ///
    /// # Errors
    /// The error of `sync`, or of one that failed since the mark.
    pub(super) fn sync(
        &self,
        since: Mark,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        if state.failures > since.failures
            && let Some(error) = &state.failure
        {
            return Err(copy(error));
        }
        let round = Arc::clone(&state.next);
        loop {
            if let Some(outcome) = round.get() {
                return copied(outcome);
            }
            if !state.running {
                break;
            }
            let waited = self.ended.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.running = true;
        state.next = Arc::default();
        drop(state);
        let outcome = sync();
        self.end(&round, copied(&outcome));
        outcome
    }

    fn end(&self, round: &Round, outcome: io::Result<()>) {
        let mut state = self.state();
        state.running = false;
        if let Err(error) = &outcome {
            state.failures += 1;
            state.failure = Some(copy(error));
            // Those who have come meanwhile.
            let waiting = std::mem::take(&mut state.next);
            let _ = waiting.set(Err(copy(error)));
        }
        let _ = round.set(outcome);
        drop(state);
        self.ended.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copied(outcome: &io::Result<()>) -> io::Result<()> {
    outcome.as_ref().copied().map_err(copy)
}

/// The same error for another caller.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(all(test, shuttle))]
#[path = "../../../tests/threads/group_sync.rs"]
mod schedules;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// How many callers wait for the next sync.
    fn waiting(group: &GroupSync) -> usize {
        Arc::strong_count(&group.state().next) - 1
    }

    /// Starts one sync, has `callers` others ask while it runs, and ends it with
    /// `first`. Returns the outcomes of the others, and how often they synced.
    fn burst(callers: usize, first: io::Result<()>) -> (Vec<io::Result<()>>, u32) {
        let (group, syncs) = (GroupSync::default(), AtomicU32::new(0));
        let (begun, began) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let outcomes = thread::scope(|scope| {
            let (group, syncs) = (&group, &syncs);
            scope.spawn(move || {
                let mark = group.mark();
                let _ = group.sync(mark, move || {
                    begun.send(()).unwrap();
                    ended.recv().unwrap();
                    first
                });
            });
            began.recv().unwrap();
            let callers: Vec<_> = (0..callers)
                .map(|_| {
                    scope.spawn(move || {
                        let mark = group.mark();
                        group.sync(mark, || {
                            syncs.fetch_add(1, Ordering::Relaxed);
                            Ok(())
                        })
                    })
                })
                .collect();
            while waiting(group) < callers.len() {
                thread::yield_now();
            }
            end.send(()).unwrap();
            let outcomes = callers.into_iter().map(|caller| caller.join().unwrap());
            outcomes.collect()
        });
        (outcomes, syncs.into_inner())
    }

    #[test]
    fn callers_that_wait_share_one_sync() {
        let (outcomes, syncs) = burst(16, Ok(()));
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(syncs, 1);
    }

    #[test]
    fn failed_sync_fails_those_who_wait_and_is_not_retried() {
        let (outcomes, syncs) = burst(16, Err(io::ErrorKind::StorageFull.into()));
        for outcome in outcomes {
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        assert_eq!(syncs, 0);
    }

    #[test]
    fn failed_sync_fails_what_was_changed_before_it_and_nothing_later() {
        let group = GroupSync::default();
        let before = group.mark();
        let failed = group.sync(group.mark(), || Err(io::Error::from_raw_os_error(5)));
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(5));
        let late = group.sync(before, || panic!("it must not be retried"));
        assert_eq!(late.unwrap_err().raw_os_error(), Some(5));
        assert!(group.sync(group.mark(), || Ok(())).is_ok());
    }
}
