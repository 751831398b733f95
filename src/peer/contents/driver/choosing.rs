//! What a driver does as only a part of its content is wanted, and all of that is here.

use super::download_turn::TurnChange;
use super::{Driver, now};
use crate::content::Bitfield;
use crate::storage::StorageError;

impl Driver {
    /// Has the machine want what is wanted by now.
    pub(super) fn follow_choice(&mut self) {
        let Some(followed) = &mut self.choice else {
            return;
        };
        if let Some(wanted) = followed.follower.news() {
            self.swarm.set_wanted(now(), wanted);
            self.show_progress();
        }
        match self.swarm.is_resting() {
            true => self.rest(),
            false => self.wake(),
        }
    }

    /// All that is wanted is here: others may fetch.
    fn rest(&mut self) {
        let Some(turn) = &mut self.turn else {
            return;
        };
        if turn.rests() {
            // It waited for its turn only. Whoever asks is served.
            self.swarm.resume(now());
            self.status.send_if_modified(|status| {
                let was_queued = status.is_queued();
                if was_queued {
                    status.set_queued(false);
                }
                was_queued
            });
        }
    }

    /// More is wanted.
    fn wake(&mut self) {
        self.tell_outside(false);
        let Some(change) = self.turn.as_mut().and_then(|turn| turn.wakes()) else {
            return;
        };
        if change == TurnChange::Queued {
            self.swarm.pause(now(), true);
        }
        self.turn_changed(change);
    }

    fn tell_outside(&mut self, rests: bool) {
        if let Some(followed) = &mut self.choice
            && std::mem::replace(&mut followed.rests, rests) != rests
        {
            self.jobs.rests_outside(rests);
        }
    }

    /// Publishes what is wanted.
    pub(super) fn publish_part(&mut self, verified: Bitfield) {
        if let Some(followed) = &mut self.choice {
            followed.publishes = true;
            self.jobs.finish_part(verified, followed.follower.version());
        }
    }

    /// What was wanted is published.
    pub(super) fn part_published(&mut self, version: u64, result: Result<(), StorageError>) {
        if let Some(followed) = &mut self.choice {
            followed.publishes = false;
        }
        if let Err(source) = result {
            return self.storage_failed(None, source);
        }
        self.swarm.part_finished(now());
        let progress = self.swarm.progress(now());
        self.set_durable_bytes(progress.verified_bytes);
        self.show_progress();
        let rests = self.swarm.is_resting();
        let Some(followed) = self.choice.as_ref().filter(|_| rests) else {
            return;
        };
        let is_news = followed.choice.is_here(version);
        if !followed.choice.rests() {
            return;
        }
        self.tell_outside(true);
        if !is_news {
            return;
        }
        self.stays = true;
        if let Some(turn) = &self.turn {
            self.stays = turn.seeds();
            if let Some(running) = turn.running() {
                running.handle.holders.goes_on_alone();
            }
        }
        // Whoever looks sees that it rests.
        self.status.send_modify(|_| {});
        self.watchers.complete(&self.listing, self.stays);
    }

    /// Whether the storage publishes a part at this moment.
    pub(super) fn publishes_part(&self) -> bool {
        let choice = self.choice.as_ref();
        choice.is_some_and(|followed| followed.publishes)
    }

    /// Whether all that is wanted is here, and the choice is still the same.
    pub(super) fn is_resting(&self) -> bool {
        let choice = self.choice.as_ref();
        choice.is_some_and(|followed| followed.choice.rests())
    }
}
