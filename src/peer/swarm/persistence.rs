//! When verified chunks are written and made durable.
//!
//! Invariant: at most `SwarmConfig::commit_bytes` are written, or being written, and not
//! durable yet; a single chunk may always be. This is what a kill of the process costs.

use std::collections::VecDeque;
use std::time::Instant;

use super::SwarmConfig;
use crate::content::ChunkIndex;

/// What is verified and not durable yet.
#[derive(Debug, Default)]
pub(super) struct Persistence {
    /// Verified chunks that wait to be written.
    unwritten: VecDeque<ChunkIndex>,
    /// Bytes that are being written, or will be if they are good.
    writing: u64,
    /// Bytes that were written since the last commit began, and when the first were.
    written: u64,
    since: Option<Instant>,
    /// The bytes of the commit that is under way.
    committing: Option<u64>,
}

impl Persistence {
    /// A chunk is verified.
    pub(super) fn verified(&mut self, chunk: ChunkIndex) {
        self.unwritten.push_back(chunk);
    }

    /// Whether a chunk that is about to be verified may be written at once, if it is good.
    /// From now on it counts as being written, until it is [written](Self::written) or this
    /// is [taken back](Self::unreserve).
    pub(super) fn reserve(&mut self, config: &SwarmConfig, len: u64) -> bool {
        let may_write = self.unwritten.is_empty() && self.has_room(config, len);
        if may_write {
            self.writing += len;
        }
        may_write
    }

    /// The chunk is bad, or is not written yet.
    pub(super) fn unreserve(&mut self, len: u64) {
        self.writing -= len;
    }

    /// The next chunk to write, if one may be written now.
    pub(super) fn next_write(
        &mut self,
        config: &SwarmConfig,
        len_of: impl Fn(ChunkIndex) -> u64,
    ) -> Option<ChunkIndex> {
        let &chunk = self.unwritten.front()?;
        let len = len_of(chunk);
        if !self.has_room(config, len) {
            return None;
        }
        self.unwritten.pop_front();
        self.writing += len;
        Some(chunk)
    }

    /// Whether so many bytes more may be at risk.
    fn has_room(&self, config: &SwarmConfig, len: u64) -> bool {
        let at_risk = self.at_risk();
        at_risk == 0 || at_risk + len <= config.commit_bytes
    }

    /// A chunk of `len` bytes was written.
    pub(super) fn written(&mut self, now: Instant, len: u64) {
        self.writing -= len;
        self.written += len;
        self.since.get_or_insert(now);
    }

    /// Begins a commit, if one is due. `last` says that nothing more will be written.
    pub(super) fn begin_commit(&mut self, now: Instant, config: &SwarmConfig, last: bool) -> bool {
        let due = self.due(config).is_some_and(|due| due <= now);
        let full = self.written >= config.commit_bytes.div_ceil(2);
        let held_back = !self.unwritten.is_empty() && self.writing == 0;
        let begins = due || self.written > 0 && (full || held_back || last);
        if begins {
            self.committing = Some(std::mem::take(&mut self.written));
            self.since = None;
        }
        begins
    }

    /// The commit that was under way is durable.
    pub(super) fn committed(&mut self) {
        self.committing = None;
    }

    /// Publishing makes everything durable.
    pub(super) fn publishes(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// When the next commit begins at the latest.
    pub(super) fn due(&self, config: &SwarmConfig) -> Option<Instant> {
        let since = self.since.filter(|_| self.committing.is_none())?;
        since.checked_add(config.commit_interval)
    }

    /// Bytes that are written, or being written, and not known to be durable.
    pub(super) fn at_risk(&self) -> u64 {
        self.writing + self.written + self.committing.unwrap_or(0)
    }
}
