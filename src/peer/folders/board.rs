//! What is done for the files of a folder at this moment, and how far that is.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::content::ContentId;
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::control::DownloadControl;
use crate::peer::swarm::{Progress, StallReason};

/// What is done for one folder.
#[derive(Default)]
pub(in crate::peer) struct Board(Mutex<Running>);

#[derive(Default)]
struct Running {
    /// In an order, so that the same state always shows the same reason.
    downloads: BTreeMap<ContentId, FileDownload>,
    /// How many files are read or copied here.
    local: usize,
    /// What arrived for those that have left.
    left: Progress,
    /// Those that have left before they had ended.
    ending: Vec<watch::Receiver<ContentStatus>>,
}

/// The download of a file of a folder.
pub(super) struct FileDownload {
    pub(super) status: watch::Receiver<ContentStatus>,
    pub(super) control: Arc<DownloadControl>,
}

/// A download on the board. It leaves when it is dropped.
pub(super) struct Posted<'a> {
    board: &'a Board,
    id: ContentId,
}

/// A file that is read or copied here, until this is dropped.
pub(super) struct LocalWork<'a>(&'a Board);

impl Board {
    pub(super) fn post(&self, id: ContentId, file: FileDownload) -> Posted<'_> {
        self.running().downloads.insert(id, file);
        Posted { board: self, id }
    }

    /// A file is read or copied here.
    pub(super) fn local(&self) -> LocalWork<'_> {
        self.running().local += 1;
        LocalWork(self)
    }

    /// Does something with each download that runs.
    pub(super) fn each(&self, with: impl Fn(&FileDownload)) {
        self.running().downloads.values().for_each(with);
    }

    /// How many bytes of the downloads are verified. O(downloads that run).
    pub(super) fn verified_bytes(&self) -> u64 {
        let running = self.running();
        let each = running
            .downloads
            .values()
            .map(|file| file.status.borrow().progress().verified_bytes);
        each.sum()
    }

    /// How many bytes of one file are verified; none if it is not under way.
    pub(in crate::peer) fn verified_bytes_of(&self, id: &ContentId) -> u64 {
        let running = self.running();
        let file = running.downloads.get(id);
        file.map_or(0, |file| file.status.borrow().progress().verified_bytes)
    }

    /// Whether all downloads that run wait until others have ended, and there is one.
    pub(super) fn is_queued(&self) -> bool {
        let running = self.running();
        let mut downloads = running.downloads.values();
        running.local == 0
            && !running.downloads.is_empty()
            && downloads.all(|file| file.status.borrow().is_queued())
    }

    /// How many downloads of this peer begin before the first file that waits.
    /// O(downloads that run or wait).
    pub(in crate::peer) fn position(&self) -> Option<usize> {
        let running = self.running();
        let files = running.downloads.values();
        files
            .filter_map(|file| file.control.ticket().position())
            .min()
    }

    /// What has arrived for all files together, and at which rate. Owners and links are
    /// those of the file that has most. O(downloads that run).
    pub(super) fn totals(&self) -> Progress {
        let running = self.running();
        let mut totals = running.left.clone();
        for file in running.downloads.values() {
            let status = file.status.borrow();
            let progress = status.progress();
            add(&mut totals, progress);
            totals.rate += progress.rate;
            totals.owners = totals.owners.max(progress.owners);
            totals.links = totals.links.max(progress.links);
        }
        totals
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
        for file in running.downloads.values() {
            let status = file.status.borrow();
            if status.is_queued() || status.is_paused() {
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

    /// Waits until all downloads that have left have ended: nothing is written any more.
    pub(super) async fn ended(&self) {
        let ending = std::mem::take(&mut self.running().ending);
        for mut status in ending {
            // The sender is dropped at the end.
            while status.changed().await.is_ok() {}
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(totals: &mut Progress, more: &Progress) {
    totals.downloaded += more.downloaded;
    totals.wasted += more.wasted;
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        let mut running = self.board.running();
        if let Some(file) = running.downloads.remove(&self.id) {
            add(&mut running.left, file.status.borrow().progress());
            running.ending.retain(|status| status.has_changed().is_ok());
            if file.status.borrow().outcome().is_none() {
                running.ending.push(file.status);
            }
        }
    }
}

impl Drop for LocalWork<'_> {
    fn drop(&mut self) {
        self.0.running().local -= 1;
    }
}
