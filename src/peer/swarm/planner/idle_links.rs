//! Links that found nothing to ask for, and when they look again.

use std::time::Instant;

use super::super::LinkId;
use super::super::link_map::LinkSet;

/// The links that found nothing to ask for.
#[derive(Debug, Default)]
pub(super) struct IdleLinks {
    links: LinkSet,
    /// When they look again, even if nothing happens before.
    retry: Option<Instant>,
    /// Whether some link was passed over, because others had been asked for
    /// enough.
    passed_over: bool,
}

impl IdleLinks {
    pub(super) fn add(&mut self, link: LinkId) {
        self.links.add(link);
    }

    pub(super) fn remove(&mut self, link: LinkId) {
        self.links.remove(link);
    }

    /// The first idle link at or after `from`.
    pub(super) fn next_from(&self, from: LinkId) -> Option<LinkId> {
        self.links.next_from(from)
    }

    /// The idle links look again at that time, or earlier.
    pub(super) fn look_again(&mut self, at: Option<Instant>) {
        self.retry = self.retry.into_iter().chain(at).min();
    }

    /// When the idle links look again.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.retry = self.retry.filter(|&retry| retry > now);
    }

    /// Remembers that some link was passed over. It may be asked as soon as
    /// something has come.
    pub(super) fn pass_over(&mut self) {
        self.passed_over = true;
    }

    /// Whether some link was passed over since the last call.
    pub(super) fn take_passed_over(&mut self) -> bool {
        std::mem::take(&mut self.passed_over)
    }
}
