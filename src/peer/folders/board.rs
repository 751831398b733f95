//! How far the downloads of a folder are that run at this moment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::content::ContentId;
use crate::peer::contents::status::ContentStatus;

/// The downloads of one folder.
#[derive(Default)]
pub(super) struct Board(Mutex<HashMap<ContentId, watch::Receiver<ContentStatus>>>);

/// A download on the board. It leaves when it is dropped.
pub(super) struct Posted<'a> {
    board: &'a Board,
    id: ContentId,
}

impl Board {
    pub(super) fn post(&self, id: ContentId, status: watch::Receiver<ContentStatus>) -> Posted<'_> {
        self.running().insert(id, status);
        Posted { board: self, id }
    }

    /// How many bytes of them are verified. O(downloads that run).
    pub(super) fn verified_bytes(&self) -> u64 {
        let running = self.running();
        let each = running
            .values()
            .map(|status| status.borrow().progress().verified_bytes);
        each.sum()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn running(&self) -> MutexGuard<'_, HashMap<ContentId, watch::Receiver<ContentStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        self.board.running().remove(&self.id);
    }
}
