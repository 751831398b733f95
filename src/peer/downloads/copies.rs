//! Who may copy a content within this peer: a few at a time, and one content once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard, Semaphore, SemaphorePermit};

use crate::content::ContentId;

/// How many contents are copied at a time: each has a chunk in memory, and a disk gains
/// little by more.
const MAX_COPIES: usize = 2;

/// The copies of one peer.
pub(in crate::peer) struct Copies {
    places: Semaphore,
    /// Those who copy a content or wait for that. As many as there are such downloads.
    turns: Mutex<HashMap<ContentId, Weak<Turn<()>>>>,
}

/// The right to copy one content, given back when it is dropped.
pub(super) struct CopyTurn<'a> {
    _turn: OwnedMutexGuard<()>,
    _place: Option<SemaphorePermit<'a>>,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            places: Semaphore::new(MAX_COPIES),
            turns: Mutex::default(),
        }
    }
}

impl Copies {
    /// Waits until this content may be copied. A storage takes one copy of it at a time.
    ///
    /// Cancel safe.
    pub(super) async fn turn(&self, id: ContentId) -> CopyTurn<'_> {
        let turn = self.turn_of(id);
        CopyTurn {
            _turn: turn.lock_owned().await,
            // Never closed.
            _place: self.places.acquire().await.ok(),
        }
    }

    fn turn_of(&self, id: ContentId) -> Arc<Turn<()>> {
        let mut turns = self.turns();
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(id, Arc::downgrade(&turn));
        turn
    }

    /// Ignores poison: no change under this lock is left half done.
    fn turns(&self) -> MutexGuard<'_, HashMap<ContentId, Weak<Turn<()>>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
