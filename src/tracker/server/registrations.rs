//! Who has registered: for when somebody may do that no more.
//!
//! The registry knows no identities, and a registration outlives the connection that it came
//! over. What is noted here is only used to find registrations; whether one still exists is
//! for the registry to say.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::access::{Standing, Verdict, Who};
use crate::protocol::{Addr, Token};

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
    /// From where it has registered over the other family of addresses.
    also: Option<Addr>,
    heard: Instant,
    lease: Duration,
    registered: Standing,
    owned: Standing,
}

/// A registration, as it is asked about.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) token: Token,
    pub(super) who: Who,
    pub(super) also: Option<Addr>,
}

/// What of a registration is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// That it is there.
    Registered,
    /// What it owns.
    Owned,
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
        self.registered_for(now, token, who, self.lease);
    }

    /// The same, with a lease of its own.
    pub(super) fn registered_for(&self, now: Instant, token: Token, who: &Who, lease: Duration) {
        let mut state = self.state();
        let registration = state.by_token.entry(token).or_insert_with(|| Registration {
            who: who.clone(),
            also: None,
            heard: now,
            lease,
            registered: Standing::default(),
            owned: Standing::default(),
        });
        (registration.who, registration.heard) = (who.clone(), now);
        if state.by_token.len() >= state.prune_at {
            let lives = |registration: &mut Registration| {
                now.saturating_duration_since(registration.heard) <= registration.lease
            };
            state.by_token.retain(|_, registration| lives(registration));
            state.prune_at = (2 * state.by_token.len()).max(FIRST_PRUNE);
        }
    }

    /// Somebody has registered over the other family of addresses, or does so no more.
    pub(super) fn registered_also(&self, token: &Token, from: Option<Addr>) {
        if let Some(registration) = self.state().by_token.get_mut(token) {
            registration.also = from;
        }
    }

    /// Whether somebody has this registration, and keeps it by what the policy says now.
    pub(super) fn keeps(
        &self,
        (token, who): (&Token, &Who),
        part: Part,
        verdict: Verdict,
        grace: Duration,
    ) -> bool {
        let mut state = self.state();
        let registration = state.by_token.get_mut(token);
        let Some(registration) = registration.filter(|known| is_same(&known.who, who)) else {
            return false;
        };
        let standing = match part {
            Part::Registered => &mut registration.registered,
            Part::Owned => &mut registration.owned,
        };
        standing.judge(verdict, grace).is_some()
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
    pub(super) fn all(&self) -> Vec<Registered> {
        let state = self.state();
        let all = state.by_token.iter();
        all.map(|(token, registration)| Registered {
            token: *token,
            who: registration.who.clone(),
            also: registration.also.clone(),
        })
        .collect()
    }

    /// Those of somebody.
    pub(super) fn of(&self, who: &Who) -> Vec<Token> {
        let state = self.state();
        let of_it = state.by_token.iter();
        of_it
            .filter(|(_, registration)| is_same(who, &registration.who))
            .map(|(token, _)| *token)
            .collect()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether both have the same identity, or without one the same host.
fn is_same(one: &Who, other: &Who) -> bool {
    match (one.identity, other.identity) {
        (None, None) => one.remote.same_host(&other.remote),
        (one, other) => one == other,
    }
}
