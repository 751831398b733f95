//! Why a link is not asked at present, though it would answer: enough is asked for where
//! links take turns, others were silent, or nothing is known of it yet.

use std::time::{Duration, Instant};

use super::super::LinkId;
use super::budget::{MAX_TURNS, RequestBudget};
use super::config::PlannerConfig;
use super::doubts::{Doubts, Group};
use super::ledger::Ledger;

/// Why a link is not asked at present, though it would answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restraint {
    /// Others have been asked for enough, until something comes.
    UntilArrival,
    /// Others have been asked only now, and may well answer by then.
    Until(Instant),
}

/// What bounds the requests of all links together.
#[derive(Debug)]
pub(super) struct Restraints {
    slack: Duration,
    silence: Duration,
    block_len: u64,
    budget: RequestBudget,
    doubts: Doubts,
}

impl Restraints {
    pub(super) fn new(config: &PlannerConfig, block_len: u64) -> Self {
        Self {
            slack: config.slack,
            silence: config.silence,
            block_len,
            budget: RequestBudget::default(),
            doubts: Doubts::default(),
        }
    }

    /// Something was asked for.
    pub(super) fn asked(&mut self, now: Instant) {
        self.budget.asked(now);
    }

    /// A block arrived, `took` after it had been asked for.
    pub(super) fn delivered(&mut self, now: Instant, bytes: u64, took: Duration) {
        self.budget.delivered(now, bytes, took);
    }

    /// An answer came, of any kind.
    pub(super) fn answered(&mut self, now: Instant, ledger: &Ledger) {
        if ledger.sources().totals().live == 0 {
            self.budget.rested(now);
        }
    }

    /// Why a link is not asked for anything at present, though it would answer.
    pub(super) fn assess(
        &mut self,
        now: Instant,
        ledger: &Ledger,
        link: LinkId,
    ) -> Option<Restraint> {
        let source = ledger.sources().get(link)?;
        let takes_turns = source.takes_turns();
        if source.is_snubbed() && ledger.sources().totals().live > 0 {
            return Some(Restraint::UntilArrival);
        }
        if source.is_proven() {
            let spent = takes_turns && self.spends_budget(now, ledger);
            return spent.then_some(Restraint::UntilArrival);
        }
        let until = self.waits_for_doubtful(now, ledger, Group::of(takes_turns));
        until.map(Restraint::Until)
    }

    /// If so much is asked for at present that no link is asked for more: when that may
    /// change even if nothing comes.
    pub(super) fn holds_all_back(&mut self, now: Instant, ledger: &Ledger) -> Option<HeldBack> {
        let all_take_turns = ledger.sources().totals().turn_takers >= ledger.sources().len();
        if !all_take_turns || !self.spends_budget(now, ledger) {
            return None;
        }
        let until = self.waits_for_doubtful(now, ledger, Group::TakesTurns);
        let all = ledger.sources().totals().unproven == 0 || until.is_some();
        Some(HeldBack { all, until })
    }

    /// Measures the budget, and returns whether so much is asked for that links
    /// which take turns are not asked as well.
    pub(super) fn spends_budget(&mut self, now: Instant, ledger: &Ledger) -> bool {
        let chunk_len = ledger.layout().geometry().chunk_len();
        let least = RequestBudget::least(ledger.picker().held_in_part(), chunk_len);
        let promised = ledger.sources().totals().promised();
        if promised < least {
            return false;
        }
        self.budget.refresh(now, self.slack);
        promised >= self.budget.pipe()
    }

    /// Looks at what was asked of unproven links, and returns until when no
    /// more is asked of those of a group. Where nobody takes turns, all are
    /// tried at once.
    fn waits_for_doubtful(
        &mut self,
        now: Instant,
        ledger: &Ledger,
        group: Group,
    ) -> Option<Instant> {
        let enough = u64::from(MAX_TURNS) * ledger.layout().geometry().chunk_len();
        let totals = ledger.sources().totals();
        if totals.turn_takers == 0 || totals.doubtful < enough {
            return None;
        }
        if !self.doubts.is_fresh(now, group, totals.doubtful) {
            let patience = self.patience();
            self.doubts
                .refresh(now, group, ledger.sources(), enough, patience);
        }
        self.doubts.until(group)
    }

    /// How long a link that has sent nothing yet may take.
    pub(super) fn first_silence(&self) -> Duration {
        self.budget.first_silence(self.block_len, self.silence)
    }

    /// How long a link that has sent nothing yet may take before others are
    /// tried as well.
    pub(super) fn patience(&self) -> Duration {
        Doubts::patience(self.first_silence())
    }
}

/// Links that take turns are not asked for more at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldBack {
    /// Neither are those that have sent nothing yet.
    pub(super) all: bool,
    /// Those are asked from then on.
    pub(super) until: Option<Instant>,
}
