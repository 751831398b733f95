//! What a driver does as its download is set to, and has recorded of it.

use tokio::time::timeout;

use super::Driver;
use super::download_turn::{DownloadTurn, NewSettings, TurnChange};
use super::now;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::pause_record::{forget, record, record_at_shutdown};

impl Driver {
    /// Does what is wanted by now.
    pub(super) fn follow_turn(&mut self) {
        while let Some(change) = self.turn.as_mut().and_then(DownloadTurn::change) {
            self.turn_changed(change);
        }
        self.follow_settings();
    }

    /// Whether something else is wanted than before.
    pub(super) fn has_news(&self) -> bool {
        self.turn.as_ref().is_some_and(DownloadTurn::has_news)
    }

    /// The download has to wait, or may go on, or is set to something.
    pub(super) fn turn_changed(&mut self, change: TurnChange) {
        self.is_record_due = true;
        match change {
            TurnChange::Paused(PauseOptions { serve }) => {
                self.swarm.pause(now(), serve);
                if self.swarm.is_paused() {
                    self.show_progress();
                }
            }
            TurnChange::Queued => {
                self.show_paused(false);
                self.status.send_modify(|status| status.set_queued(true));
            }
            TurnChange::Begun => {
                self.swarm.resume(now());
                self.show_paused(false);
                self.status.send_modify(|status| status.set_queued(false));
            }
            TurnChange::Settings => return self.follow_settings(),
        }
        if let Some(turn) = &self.turn {
            turn.in_effect();
        }
    }

    /// Sets the machine to what the user wants.
    fn follow_settings(&mut self) {
        let Some(turn) = &mut self.turn else {
            return;
        };
        let NewSettings {
            strategy,
            patience,
            limits,
            owners,
        } = turn.settings();
        self.limits.follow(&mut self.swarm);
        if let Some(strategy) = strategy {
            self.swarm.set_strategy(strategy);
        }
        if let Some(patience) = patience {
            self.swarm.set_patience(now(), patience);
        }
        let id = self.swarm.id();
        if let Some(limits) = limits.filter(|new| *new != self.shared.limiter.content(&id)) {
            self.shared.limit_content(id, limits);
        }
        if !owners.is_empty() {
            self.owners_found(owners.into_iter().map(|addr| (addr, false)).collect());
        }
        if let Some(turn) = &self.turn {
            turn.in_effect();
        }
        self.is_record_due = true;
    }

    /// Has the storage record how the download is paused, or that it goes on, if something
    /// of that is new. Whoever is told that it is paused knows that this is recorded,
    /// however long that takes.
    pub(super) async fn write_record(&mut self) {
        if !std::mem::replace(&mut self.is_record_due, false) {
            return;
        }
        let Some(turn) = &self.turn else {
            return;
        };
        let pause = turn.pause().filter(|_| self.swarm.is_paused());
        if let Some(running) = turn.running() {
            record(&self.shared, running, pause).await;
        }
        if pause.is_some() {
            self.show_paused(true);
        }
    }

    /// Something is durable that was not before.
    pub(super) fn note_durable(&mut self) {
        self.is_record_due |= self.swarm.is_paused();
    }

    /// A download that ends is not recorded any more, unless the peer is shut down.
    pub(super) async fn record_end(&mut self, published: bool) {
        let Some(running) = self.turn.as_ref().and_then(DownloadTurn::running) else {
            return;
        };
        let stops = self.shared.tasks.stop.is_cancelled() && !published;
        let recorded = async {
            match stops {
                true => record_at_shutdown(&self.shared, running).await,
                false => forget(&self.shared, running).await,
            }
        };
        // At worst the record is that of before.
        let patience = self.shared.config.shutdown_timeout / 2;
        let _ = timeout(patience, recorded).await;
    }

    fn show_paused(&self, paused: bool) {
        let changed = self
            .status
            .send_if_modified(|status| status.set_paused(paused));
        if changed {
            self.watchers.paused(paused);
        }
    }
}
