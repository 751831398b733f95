//! What the status of the download of a folder says while it runs.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::super::status::Folder;
use super::FolderTask;
use super::files::Done;
use crate::content::{ContentId, ContentName, FolderIndex};
use crate::peer::swarm::StallReason;

/// How often it is looked whether anything arrives. A download finds out for itself only
/// after seconds.
const STALL_INTERVAL: Duration = Duration::from_secs(1);

impl FolderTask {
    /// Shows why nothing arrives for any of the files, when that is so.
    pub(super) async fn follow_stalls(&self) -> Infallible {
        let board = &self.control().board;
        let mut ticks = tokio::time::interval(STALL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.show_stall(board.stall());
        }
    }

    pub(super) fn show_stall(&self, stall: Option<StallReason>) {
        let queued = self.control().board.is_queued();
        self.status.send_if_modified(|status| {
            let stall = stall.filter(|_| !status.paused);
            let changed = status.stall != stall || status.queued != queued;
            status.stall = stall;
            status.queued = queued;
            changed
        });
    }

    pub(super) fn show_folder(&self, id: ContentId, part: &FolderIndex, name: &ContentName) {
        let (files, length) = part.size();
        let folder = Folder {
            id,
            name: name.clone(),
            files,
            length,
        };
        self.status
            .send_modify(|status| status.folder = Some(folder));
    }

    pub(super) fn show(&self, done: &Done) {
        let board = &self.control().board;
        let (running, totals) = (board.verified_bytes(), board.totals());
        self.status.send_if_modified(|status| {
            let mut next = done.progress;
            next.verified_bytes += running;
            let changed = status.progress != next || status.totals != totals;
            status.progress = next;
            status.totals = totals;
            changed
        });
    }
}
