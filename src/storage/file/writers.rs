//! Who writes which content, inside one file storage and its clones.
//!
//! A blob that is dropped while one of its operations still runs on a blocking
//! thread keeps the file locked until that ends. Whoever opens the content
//! next in this storage must not be told that somebody else writes it, but
//! wait that moment. So there are two things to hold: the [`Claim`], which goes
//! with the blob, and the [`Turn`], which goes with the last operation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content::ContentId;

/// The contents that are being written. An entry lives as long as somebody
/// holds its claim or its turn.
#[derive(Debug, Default)]
pub(super) struct Writers(Mutex<HashMap<ContentId, Weak<Slot>>>);

#[derive(Debug)]
struct Slot {
    claimed: AtomicBool,
    turn: Arc<Semaphore>,
}

/// The right to write one content. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Claim(Arc<Slot>);

/// Held by whatever uses the file of a content; one at a time.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    _slot: Arc<Slot>,
}

impl Writers {
    /// Claims a content, unless somebody has done so already.
    pub(super) fn claim(&self, id: ContentId) -> Option<Claim> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = slots.get(&id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let slot = Arc::new(Slot {
                claimed: AtomicBool::new(false),
                turn: Arc::new(Semaphore::new(1)),
            });
            slots.insert(id, Arc::downgrade(&slot));
            slot
        });
        (!slot.claimed.swap(true, Ordering::AcqRel)).then(|| Claim(slot))
    }
}

impl Claim {
    /// Waits until the operations of an earlier claim have ended.
    pub(super) async fn turn(&self) -> Turn {
        let permit = self.0.turn.clone().acquire_owned().await;
        Turn {
            _permit: permit.expect("nobody closes the semaphore"),
            _slot: self.0.clone(),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn claim_is_free_again_at_once_and_its_turn_after_the_last_operation() {
        let writers = Writers::default();
        let id = ContentId::of(b"a");
        let first = writers.claim(id).unwrap();
        assert!(writers.claim(id).is_none());
        assert!(writers.claim(ContentId::of(b"b")).is_some());
        let running = first.turn().now_or_never().unwrap();

        drop(first);
        let second = writers.claim(id).unwrap();
        assert!(second.turn().now_or_never().is_none());
        drop(running);
        let turn = second.turn().now_or_never().unwrap();

        drop((second, turn));
        let third = writers.claim(ContentId::of(b"c")).unwrap();
        assert_eq!(writers.0.lock().unwrap().len(), 1);
        drop(third);
    }
}
