//! When a download may ask others for something.
//!
//! ```text
//!            pause            resume             a place is free
//!   active ─────────▶ paused ─────────▶ waiting ────────────────▶ active
//!                        ▲       pause     │
//!                        └────────────────┘
//! ```
//! Only an active download has a place among the [active](ActivePlace) ones. One that rests
//! has none until more is wanted; then it is as if it had been paused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::queue::{ActivePlace, Asking};
use crate::peer::downloads::running::{Registered, Running};
use crate::peer::downloads::settings::Settings;
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::Strategy;
use crate::protocol::Addr;

/// Tells a driver whether its download may go on.
pub(in crate::peer) struct DownloadTurn {
    control: Arc<DownloadControl>,
    pauses: watch::Receiver<Option<PauseOptions>>,
    settings: watch::Receiver<Settings>,
    /// Which version of them the machine is set to.
    version: u64,
    /// How many of the owners that the user has named the machine knows.
    owners_seen: u64,
    state: State,
    /// As long as the download has not ended, the peer lists it.
    registered: Option<Registered>,
}

enum State {
    /// Keeps its place.
    Active(#[expect(dead_code, reason = "it is given back when it is dropped")] ActivePlace),
    Paused(PauseOptions),
    /// It is to go on, and waits for a place. The driver looks only now and then, so what
    /// asks for it stays.
    Waiting(Asking),
    /// All that is wanted is here.
    Resting,
}

/// What a driver has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnChange {
    /// Ask nobody for anything.
    Paused(PauseOptions),
    /// The same, but it goes on as soon as others have ended.
    Queued,
    /// Go on.
    Begun,
    /// Do it as the [settings](DownloadTurn::settings) say.
    Settings,
}

/// What a machine is set to.
pub(super) struct NewSettings {
    pub(super) strategy: Option<Strategy>,
    pub(super) patience: Option<Option<Duration>>,
    pub(super) limits: Option<ContentLimits>,
    /// The owners that were added since the last time.
    pub(super) owners: Vec<Addr>,
}

impl DownloadTurn {
    /// That of a download which is active.
    pub(in crate::peer) fn new(
        control: Arc<DownloadControl>,
        place: ActivePlace,
        registered: Option<Registered>,
    ) -> Self {
        let mut settings = control.settings();
        // The driver has seen none of them.
        settings.mark_changed();
        Self {
            pauses: control.pauses(),
            settings,
            version: 0,
            owners_seen: 0,
            control,
            state: State::Active(place),
            registered,
        }
    }

    /// Whether the content is shared when it is complete.
    pub(super) fn seeds(&self) -> bool {
        self.control.seeds()
    }

    /// The download.
    pub(super) fn running(&self) -> Option<&Running> {
        self.registered.as_deref()
    }

    /// How it is paused, if it is.
    pub(super) fn pause(&self) -> Option<PauseOptions> {
        match self.state {
            State::Paused(options) => Some(options),
            State::Active(_) | State::Waiting(_) | State::Resting => None,
        }
    }

    /// All that is wanted is here. Returns whether that is news.
    pub(super) fn rests(&mut self) -> bool {
        let is_news = matches!(self.state, State::Active(_) | State::Waiting(_));
        if is_news {
            self.control.ticket().leave();
            self.state = State::Resting;
        }
        is_news
    }

    /// More is wanted. Returns what to do, if it rested.
    pub(super) fn wakes(&mut self) -> Option<TurnChange> {
        matches!(self.state, State::Resting).then(|| self.enter())
    }

    /// Takes a place, or asks for one.
    fn enter(&mut self) -> TurnChange {
        let ticket = self.control.ticket();
        ticket.enter();
        let (state, change) = match ticket.try_begin() {
            Some(place) => (State::Active(place), TurnChange::Begun),
            None => (State::Waiting(ticket.ask()), TurnChange::Queued),
        };
        self.state = state;
        change
    }

    /// Whether what has arrived is to be deleted.
    pub(super) fn discards(&self) -> bool {
        let running = self.running();
        running.is_some_and(|running| running.handle.holders.discards())
    }

    /// Whether anything has changed by now.
    pub(super) fn has_news(&self) -> bool {
        let paused = self.pauses.has_changed().unwrap_or(false);
        paused || self.settings.has_changed().unwrap_or(false)
    }

    /// What the machine is to be set to.
    pub(super) fn settings(&mut self) -> NewSettings {
        let settings = self.settings.borrow_and_update();
        let (owners, seen) = settings.owners_since(self.owners_seen);
        self.owners_seen = seen;
        self.version = settings.version();
        NewSettings {
            strategy: settings.strategy,
            patience: settings.patience,
            limits: settings.limits,
            owners,
        }
    }

    /// Says that the settings which were seen last are in effect. Whoever changes those of a
    /// download that waits does not wait for that.
    pub(super) fn in_effect(&self) {
        let active = matches!(self.state, State::Active(_));
        self.control.set_in_effect(active.then_some(self.version));
    }

    /// What has changed by now.
    pub(super) fn change(&mut self) -> Option<TurnChange> {
        let wanted = *self.pauses.borrow_and_update();
        match (wanted, &self.state) {
            (Some(options), State::Paused(before)) if options == *before => None,
            (Some(options), _) => {
                self.control.ticket().leave();
                self.state = State::Paused(options);
                Some(TurnChange::Paused(options))
            }
            (None, State::Paused(_)) => Some(self.enter()),
            (None, State::Active(_) | State::Waiting(_) | State::Resting) => None,
        }
    }

    /// The next change.
    ///
    /// Cancel safe.
    pub(super) async fn changed(&mut self) -> TurnChange {
        loop {
            if let Some(change) = self.change() {
                return change;
            }
            let asking = match &mut self.state {
                State::Waiting(asking) => Some(asking),
                State::Active(_) | State::Paused(_) | State::Resting => None,
            };
            // They never end: the senders are in the control.
            let changed = self.pauses.changed();
            tokio::select! {
                biased;
                _ = changed => {}
                _ = self.settings.changed() => return TurnChange::Settings,
                Some(place) = place(asking) => {
                    self.state = State::Active(place);
                    return TurnChange::Begun;
                }
            }
        }
    }
}

/// The place that is asked for, if one is.
///
/// Cancel safe.
async fn place(asking: Option<&mut Asking>) -> Option<ActivePlace> {
    asking?.place().await
}

impl Drop for DownloadTurn {
    /// Nobody waits for settings of a download that has ended, and it waits for no place.
    fn drop(&mut self) {
        self.control.ticket().leave();
        self.control.set_in_effect(None);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::peer::downloads::queue::DownloadQueue;

    /// A driver looks at its turn only between two other things.
    #[test]
    fn place_of_a_download_that_is_busy_goes_to_nobody_else() {
        let queue = Arc::new(DownloadQueue::new(1));
        let (first, second, third) = (queue.enter(), queue.enter(), queue.enter());
        let control = DownloadControl::new(first.clone());
        let place = first.try_begin().unwrap();
        let mut turn = DownloadTurn::new(Arc::clone(&control), place, None);
        turn.settings();
        control.set_pause(Some(PauseOptions::default()));
        assert!(matches!(turn.change(), Some(TurnChange::Paused(_))));
        let active = second.try_begin().unwrap();
        let mut waits = Box::pin(third.begin());
        assert!(waits.as_mut().now_or_never().is_none());
        control.set_pause(None);
        assert_eq!(turn.change(), Some(TurnChange::Queued));
        assert_eq!(turn.changed().now_or_never(), None);
        assert_eq!((first.position(), third.position()), (Some(0), Some(1)));
        drop(active);
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(turn.changed().now_or_never(), Some(TurnChange::Begun));
        assert_eq!(queue.counts(), (1, 1));
        // It waits again, and ends before it has seen its place.
        control.set_pause(Some(PauseOptions::default()));
        assert!(matches!(turn.change(), Some(TurnChange::Paused(_))));
        let place = waits.now_or_never().unwrap();
        control.set_pause(None);
        assert_eq!(turn.change(), Some(TurnChange::Queued));
        drop(place);
        drop(turn);
        assert_eq!(queue.counts(), (0, 0));
    }
}
