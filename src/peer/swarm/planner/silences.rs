//! When a link that owes something counts as silent.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::answer::Released;
use super::config::PlannerConfig;
use super::ledger::Ledger;
use super::source::Source;

/// Finds silent links in time.
#[derive(Debug)]
pub(super) struct Silences {
    config: PlannerConfig,
    /// No link is silent before.
    next: Option<Instant>,
}

impl Silences {
    pub(super) fn new(config: PlannerConfig) -> Self {
        Self { config, next: None }
    }

    /// No link is silent before.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// A link was asked for something. `first` is the patience with one that has sent
    /// nothing yet.
    pub(super) fn asked(&mut self, now: Instant, first: Duration) {
        let earliest = now.checked_add(first.min(self.config.max_silence));
        self.next = self.next.into_iter().chain(earliest).min();
    }

    /// A link was asked for something by another plan, and for the last of it then.
    pub(super) fn owed(&mut self, last: Instant) {
        let due = last.checked_add(self.config.max_silence);
        self.next = self.next.into_iter().chain(due).min();
    }

    /// Takes the requests of silent links back. Returns these links, and what
    /// is given up.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        first: Duration,
    ) -> (Vec<LinkId>, Released) {
        let mut all = Released::default();
        if self.next.is_none_or(|next| next > now) {
            return (Vec::new(), all);
        }
        let deadline = |source: &Source| source.deadline(&self.config, first);
        let is_silent = |source: &Source| deadline(source).is_some_and(|at| at <= now);
        let sources = ledger.sources().iter();
        let silent = sources.filter(|(_, source)| is_silent(source));
        let silent: Vec<LinkId> = silent.map(|(link, _)| link).collect();
        for &link in &silent {
            all.add(ledger.link_silent(now, link));
        }
        self.next = ledger.sources().values().filter_map(deadline).min();
        (silent, all)
    }
}
