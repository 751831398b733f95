//! Keeping what has come: written, made durable in time, and looked at again
//! when it was left behind by an earlier download.

use std::time::Instant;

use super::transfer::{Commit, Stage};
use super::{Output, Phase, Swarm};
use crate::content::{Bitfield, ChunkIndex};

/// How many chunks of an earlier download are read at a time: one is hashed
/// while the next is read, and the disk is left to what comes.
const MAX_RECHECKS: usize = 2;

impl Swarm {
    /// What was stored before the commit began is durable.
    pub fn committed(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.commit.running = None;
        }
        self.settle(now);
    }

    /// A chunk that an earlier download left behind was read and hashed. A good
    /// one is offered from now on, and a bad one is missing, which is blamed on
    /// nobody.
    pub fn chunk_rechecked(&mut self, now: Instant, chunk: ChunkIndex, good: bool) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if chunk.0 >= transfer.recheck_from || !transfer.unchecked.remove(chunk) {
            return;
        }
        self.last_gain = now;
        if good {
            self.offer(now, chunk);
        } else {
            // Somebody has touched it after all.
            transfer.untouched = false;
            transfer.planner.chunk_failed(chunk);
            self.wake_hungry = true;
        }
        self.settle(now);
    }

    /// What an earlier download left behind is as it was recorded, as far as the
    /// storage can tell. So when the rest has come, the content is published
    /// without a look at every chunk of it; whoever reads one that
    /// [`chunk_rechecked`](Self::chunk_rechecked) was not called for verifies it
    /// before it is served.
    pub fn left_untouched(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            transfer.untouched = true;
        }
        self.settle(now);
    }

    /// The download stops here: from now on nothing comes out but what keeps
    /// that which has come, until [`is_saved`](Self::is_saved).
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.settle(now);
    }

    /// Whether all whole chunks that have come are durable.
    pub fn is_saved(&self) -> bool {
        match &self.phase {
            Phase::Transfer(transfer) => {
                transfer.checking.is_empty() && transfer.commit.at_risk() == 0
            }
            _ => true,
        }
    }

    /// Looks at what an earlier download left behind, a little at a time.
    pub(super) fn recheck(&mut self) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        if transfer.unchecked.is_empty() || transfer.is_whole_untouched() {
            return;
        }
        let mut running = transfer.rechecking();
        while running < MAX_RECHECKS {
            let mut rest = transfer.unchecked.iter_from(transfer.recheck_from);
            let Some(chunk) = rest.next() else {
                return;
            };
            transfer.recheck_from = chunk.0 + 1;
            running += 1;
            self.outputs.push_back(Output::Recheck { chunk });
        }
    }

    /// Writes what is verified, as far as a kill may cost.
    pub(super) fn store(&mut self) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        let commit = &mut transfer.commit;
        while let Some(&chunk) = transfer.unwritten.front() {
            let len = transfer.manifest.geometry().len_of(chunk);
            let at_risk = commit.at_risk();
            if at_risk > 0 && at_risk + len > self.config.commit_bytes {
                return;
            }
            transfer.unwritten.pop_front();
            if let Some(checking) = transfer.checking.get_mut(&chunk) {
                checking.stage = Stage::Writing;
                commit.writing += len;
                let pieces = checking.assembled.pieces.clone();
                self.outputs.push_back(Output::Store { chunk, pieces });
            }
        }
    }

    /// Takes what was left untouched for stored, when nothing else is missing.
    fn trust_untouched(&mut self, now: Instant) {
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        // Those that are being looked at may prove bad in a moment.
        if !transfer.is_whole_untouched() || transfer.rechecking() > 0 || self.stopping {
            return;
        }
        let chunks = transfer.unchecked.chunks();
        let trusted = std::mem::replace(&mut transfer.unchecked, Bitfield::none(chunks));
        for chunk in trusted.iter() {
            self.offer(now, chunk);
        }
    }

    pub(super) fn finish_or_commit(&mut self, now: Instant) {
        self.trust_untouched(now);
        let Phase::Transfer(transfer) = &mut self.phase else {
            return;
        };
        let commit = &transfer.commit;
        if transfer.finishing || commit.running.is_some() {
            return;
        }
        if transfer.planner.is_done() && !self.stopping {
            transfer.finishing = true;
            transfer.commit = Commit::default();
            self.outputs.push_back(Output::Finish);
            return;
        }
        let due = commit.due(&self.config).is_some_and(|due| due <= now);
        let full = commit.bytes >= self.config.commit_bytes.div_ceil(2);
        let held_back = !transfer.unwritten.is_empty() && commit.writing == 0;
        let last = self.stopping && transfer.checking.is_empty();
        if due || commit.bytes > 0 && (full || held_back || last) {
            transfer.commit = Commit {
                writing: commit.writing,
                running: Some(commit.bytes),
                ..Commit::default()
            };
            self.outputs.push_back(Output::Commit {
                verified: transfer.kept(),
            });
        }
    }
}
