//! Who has registered: for when somebody may do that no more.
//!
//! The registry knows no identities, and a registration outlives the connection that it came
//! over. What is noted here is only used to find registrations; whether one still exists is
//! for the registry to say.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::access::Who;
use crate::protocol::Token;

/// How many registrations are noted before those whose lease has run out are looked for.
const FIRST_PRUNE: usize = 1024;

/// The registrations of a tracker, by their tokens. There are at most twice as many as the
/// registry has live ones, or as [`FIRST_PRUNE`].
pub(super) struct Registrations {
    lease: Duration,
    state: Mutex<State>,
}

struct State {
    by_token: HashMap<Token, Registration>,
    /// When there are so many, those are forgotten whose lease has run out.
    prune_at: usize,
}

struct Registration {
    who: Who,
    heard: Instant,
}

impl Registrations {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            lease,
            state: Mutex::new(State {
                by_token: HashMap::new(),
                prune_at: FIRST_PRUNE,
            }),
        }
    }

    /// Somebody has registered, for the first time or again.
    pub(super) fn registered(&self, now: Instant, token: Token, who: &Who) {
        let mut state = self.state();
        let who = who.clone();
        let registration = Registration { who, heard: now };
        state.by_token.insert(token, registration);
        if state.by_token.len() >= state.prune_at {
            let lives = |registration: &mut Registration| {
                now.saturating_duration_since(registration.heard) <= self.lease
            };
            state.by_token.retain(|_, registration| lives(registration));
            state.prune_at = (2 * state.by_token.len()).max(FIRST_PRUNE);
        }
    }

    /// Another request with a token was answered.
    pub(super) fn heard(&self, now: Instant, token: &Token) {
        if let Some(registration) = self.state().by_token.get_mut(token) {
            registration.heard = now;
        }
    }

    /// A registration has ended.
    pub(super) fn ended(&self, token: &Token) {
        self.state().by_token.remove(token);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(Token, Who)> {
        let state = self.state();
        let all = state.by_token.iter();
        all.map(|(token, registration)| (*token, registration.who.clone()))
            .collect()
    }

    /// Those of somebody: of the same identity, or without one of the same host.
    pub(super) fn of(&self, who: &Who) -> Vec<Token> {
        let is_same = |other: &Who| match (who.identity, other.identity) {
            (None, None) => who.remote.same_host(&other.remote),
            (one, other) => one == other,
        };
        let state = self.state();
        let of_it = state.by_token.iter();
        of_it
            .filter(|(_, registration)| is_same(&registration.who))
            .map(|(token, _)| *token)
            .collect()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
