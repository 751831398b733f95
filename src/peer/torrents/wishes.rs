//! What the driver of a torrent wants of its announces, and hears of them.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

/// How much a torrent has sent and received so far, and how much it lacks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) uploaded: u64,
    pub(super) downloaded: u64,
    pub(super) left: u64,
}

/// What is wanted of the announces of a torrent.
#[derive(Debug)]
pub(super) struct AnnounceWishes {
    /// Whether a tracker has answered, or none will.
    pub(super) answered: watch::Sender<bool>,
    /// The torrent was completed here, and no tracker knows yet.
    pub(super) completed: AtomicBool,
    /// Trackers may believe that something is missing, or wanted, and it is not: all was here
    /// from the start, or all is that is wanted.
    pub(super) is_settled: AtomicBool,
    /// The driver knows nobody more to ask.
    pub(super) wants_peers: AtomicBool,
    /// How often it has said so.
    wanted: watch::Sender<u64>,
    pub(super) changed: Notify,
}

impl Default for AnnounceWishes {
    fn default() -> Self {
        Self {
            answered: watch::Sender::new(false),
            completed: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            wants_peers: AtomicBool::new(false),
            wanted: watch::Sender::new(0),
            changed: Notify::new(),
        }
    }
}

impl AnnounceWishes {
    /// There are no trackers.
    pub(super) fn has_no_tracker(&self) {
        self.answered.send_replace(true);
    }

    /// Waits until a tracker has answered for the first time, or all have failed.
    ///
    /// Cancel safe.
    pub(super) async fn answered(&self) {
        // The sender is here.
        let _ = self
            .answered
            .subscribe()
            .wait_for(|answered| *answered)
            .await;
    }

    /// The torrent was completed here.
    pub(super) fn completed(&self) {
        self.completed.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// What was here is verified, and nothing is missing, or nothing that is wanted.
    pub(super) fn settles(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Changes whenever more peers are needed.
    pub(super) fn wanted(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// More peers are needed as soon as the trackers permit it.
    pub(super) fn wants_peers(&self) {
        self.wanted.send_modify(|times| *times += 1);
        self.wants_peers.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}
