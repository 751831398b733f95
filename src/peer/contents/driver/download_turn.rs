//! When a download may ask others for something.
//!
//! ```text
//!            pause            resume             a place is free
//!   active ─────────▶ paused ─────────▶ waiting ────────────────▶ active
//!                        ▲       pause     │
//!                        └────────────────┘
//! ```
//! Only an active download has a place among the [active](ActivePlace) ones.

use std::sync::Arc;

use tokio::sync::watch;

use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::queue::ActivePlace;
use crate::peer::downloads::running::{Registered, Running};

/// Tells a driver whether its download may go on.
pub(in crate::peer) struct DownloadTurn {
    control: Arc<DownloadControl>,
    pauses: watch::Receiver<Option<PauseOptions>>,
    state: State,
    /// As long as the download has not ended, the peer lists it.
    registered: Option<Registered>,
}

enum State {
    /// Keeps its place.
    Active(#[expect(dead_code, reason = "it is given back when it is dropped")] ActivePlace),
    Paused(PauseOptions),
    /// It is to go on, and waits for a place.
    Waiting,
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
}

impl DownloadTurn {
    /// That of a download which is active.
    pub(in crate::peer) fn new(
        control: Arc<DownloadControl>,
        place: ActivePlace,
        registered: Option<Registered>,
    ) -> Self {
        Self {
            pauses: control.pauses(),
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
            State::Active(_) | State::Waiting => None,
        }
    }

    /// Whether what has arrived is to be deleted.
    pub(super) fn discards(&self) -> bool {
        let running = self.running();
        running.is_some_and(|running| running.handle.holders.discards())
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
            (None, State::Paused(_)) => {
                let ticket = self.control.ticket();
                ticket.enter();
                let place = ticket.try_begin();
                let begins = place.is_some();
                self.state = place.map_or(State::Waiting, State::Active);
                Some(match begins {
                    true => TurnChange::Begun,
                    false => TurnChange::Queued,
                })
            }
            (None, State::Active(_) | State::Waiting) => None,
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
            let ticket = self.control.ticket();
            let waits = matches!(self.state, State::Waiting);
            // It never ends: the sender is in the control.
            let changed = self.pauses.changed();
            tokio::select! {
                biased;
                _ = changed => {}
                Some(place) = ticket.begin(), if waits => {
                    self.state = State::Active(place);
                    return TurnChange::Begun;
                }
            }
        }
    }
}
