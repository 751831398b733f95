//! What is done for the files of a folder at this moment, and how far that is.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::content::ContentId;
use crate::peer::contents::status::ContentStatus;
use crate::peer::swarm::StallReason;

/// What is done for one folder.
#[derive(Default)]
pub(super) struct Board(Mutex<Running>);

#[derive(Default)]
struct Running {
    /// In an order, so that the same state always shows the same reason.
    downloads: BTreeMap<ContentId, watch::Receiver<ContentStatus>>,
    /// How many files are read or copied here.
    local: usize,
}

/// A download on the board. It leaves when it is dropped.
pub(super) struct Posted<'a> {
    board: &'a Board,
    id: ContentId,
}

/// A file that is read or copied here, until this is dropped.
pub(super) struct LocalWork<'a>(&'a Board);

impl Board {
    pub(super) fn post(&self, id: ContentId, status: watch::Receiver<ContentStatus>) -> Posted<'_> {
        self.running().downloads.insert(id, status);
        Posted { board: self, id }
    }

    /// A file is read or copied here.
    pub(super) fn local(&self) -> LocalWork<'_> {
        self.running().local += 1;
        LocalWork(self)
    }

    /// How many bytes of the downloads are verified. O(downloads that run).
    pub(super) fn verified_bytes(&self) -> u64 {
        let running = self.running();
        let each = running
            .downloads
            .values()
            .map(|status| status.borrow().progress().verified_bytes);
        each.sum()
    }

    /// Why nothing arrives for any file that is under way; `None` if something does, or
    /// all wait for others to end. If there are several reasons, it is the one of the most
    /// files. O(downloads that run).
    pub(super) fn stall(&self) -> Option<StallReason> {
        let running = self.running();
        if running.local > 0 {
            return None;
        }
        let mut reasons: Vec<(StallReason, usize)> = Vec::new();
        for status in running.downloads.values() {
            let status = status.borrow();
            if status.is_queued() {
                continue;
            }
            let reason = status.stall()?;
            let kind = discriminant(&reason);
            match reasons.iter_mut().find(|(r, _)| discriminant(r) == kind) {
                Some((_, files)) => *files += 1,
                None => reasons.push((reason, 1)),
            }
        }
        // Of equals the first one.
        let most = reasons.iter().rev().max_by_key(|(_, files)| *files);
        most.map(|(reason, _)| *reason)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        self.board.running().downloads.remove(&self.id);
    }
}

impl Drop for LocalWork<'_> {
    fn drop(&mut self) {
        self.0.running().local -= 1;
    }
}
