//! Who has registered: for when somebody may do that no more.
//!
//! The registry knows no identities, and a registration outlives the connection that it came
//! over. What is noted here is only used to find registrations; whether one still exists is
//! for the registry to say.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::access::{Standing, Verdict, Who};
use crate::protocol::{Addr, Host, Token};
use crate::transport::{Membership, PeerIdentity};

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
    /// The same, by whose they are: who is denied has few, and all others many.
    by_holder: HashMap<Holder, HashSet<Token>>,
    /// When there are so many, those are forgotten whose lease has run out.
    prune_at: usize,
}

struct Registration {
    who: Who,
    /// Tells whether the transport still lets it in, if it tells that.
    membership: Option<Membership>,
    /// From where it has registered over the other family of addresses.
    also: Option<Addr>,
    heard: Instant,
    lease: Duration,
    registered: Standing,
    owned: Standing,
}

/// Whose registrations are: of an identity, or without one of a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    Identity(PeerIdentity),
    Ip(IpAddr),
    Text(Box<str>),
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

impl Holder {
    fn of(who: &Who) -> Self {
        match (who.identity, who.remote.host()) {
            (Some(identity), _) => Self::Identity(identity),
            (None, Host::Ip(ip)) => Self::Ip(ip),
            (None, Host::Text(text)) => Self::Text(text.into()),
        }
    }
}

impl Registrations {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            lease,
            state: Mutex::new(State {
                by_token: HashMap::new(),
                by_holder: HashMap::new(),
                prune_at: FIRST_PRUNE,
            }),
        }
    }

    /// Somebody has registered, for the first time or again.
    pub(super) fn registered(
        &self,
        now: Instant,
        token: Token,
        (who, membership): (&Who, Option<&Membership>),
    ) {
        self.registered_for(now, token, (who, membership), self.lease);
    }

    /// The same, with a lease of its own.
    pub(super) fn registered_for(
        &self,
        now: Instant,
        token: Token,
        (who, membership): (&Who, Option<&Membership>),
        lease: Duration,
    ) {
        let mut state = self.state();
        let known = state.by_token.get(&token);
        if known.is_none_or(|known| !is_same(&known.who, who)) {
            state.forget_holder(&token);
            let tokens = state.by_holder.entry(Holder::of(who)).or_default();
            tokens.insert(token);
        }
        let registration = state.by_token.entry(token).or_insert_with(|| Registration {
            who: who.clone(),
            membership: None,
            also: None,
            heard: now,
            lease,
            registered: Standing::default(),
            owned: Standing::default(),
        });
        (registration.who, registration.heard) = (who.clone(), now);
        registration.membership = membership.cloned();
        if state.by_token.len() >= state.prune_at {
            state.prune(now);
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
        let mut state = self.state();
        state.forget_holder(token);
        state.by_token.remove(token);
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

    /// Those of whom the transport lets in no more, connected or not.
    pub(super) fn outsiders(&self) -> Vec<(Token, Who)> {
        let state = self.state();
        let is_out = |(_, registration): &(&Token, &Registration)| {
            let membership = registration.membership.as_ref();
            membership.is_some_and(|membership| !membership.is_valid())
        };
        let outsiders = state.by_token.iter().filter(is_out);
        let outsiders = outsiders.map(|(token, of)| (*token, of.who.clone()));
        outsiders.collect()
    }

    /// Those of somebody. Takes no longer if others have more.
    pub(super) fn of(&self, who: &Who) -> Vec<Token> {
        let state = self.state();
        let of_it = state.by_holder.get(&Holder::of(who));
        of_it.into_iter().flatten().copied().collect()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets whose a registration is, before it ends or has another holder.
    fn forget_holder(&mut self, token: &Token) {
        let Some(registration) = self.by_token.get(token) else {
            return;
        };
        let holder = Holder::of(&registration.who);
        if let Some(tokens) = self.by_holder.get_mut(&holder) {
            tokens.remove(token);
            if tokens.is_empty() {
                self.by_holder.remove(&holder);
            }
        }
    }

    /// Forgets those whose lease has run out.
    fn prune(&mut self, now: Instant) {
        let is_over = |registration: &Registration| {
            now.saturating_duration_since(registration.heard) > registration.lease
        };
        let over = self.by_token.iter().filter(|(_, of)| is_over(of));
        let over: Vec<Token> = over.map(|(token, _)| *token).collect();
        for token in over {
            self.forget_holder(&token);
            self.by_token.remove(&token);
        }
        self.prune_at = (2 * self.by_token.len()).max(FIRST_PRUNE);
    }
}

/// Whether both have the same identity, or without one the same host.
fn is_same(one: &Who, other: &Who) -> bool {
    Holder::of(one) == Holder::of(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn token(number: u32) -> Token {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        Token(bytes)
    }

    fn who(identity: Option<u8>, remote: &str) -> Who {
        Who {
            identity: identity.map(|of| PeerIdentity::of_public_key(&[of])),
            remote: remote.parse().unwrap(),
        }
    }

    /// Asserts that each registration is found by its holder, and nothing else is.
    fn check(registrations: &Registrations) -> usize {
        let state = registrations.state();
        for (token, registration) in &state.by_token {
            let tokens = &state.by_holder[&Holder::of(&registration.who)];
            assert!(tokens.contains(token));
        }
        let by_holder: usize = state.by_holder.values().map(HashSet::len).sum();
        assert_eq!(by_holder, state.by_token.len());
        assert!(state.by_holder.values().all(|tokens| !tokens.is_empty()));
        by_holder
    }

    fn of(registrations: &Registrations, who: &Who) -> Vec<Token> {
        let mut of = registrations.of(who);
        of.sort_by_key(|token| token.0);
        of
    }

    #[test]
    fn registrations_are_found_by_identity_or_without_one_by_host() {
        let registrations = Registrations::new(LEASE);
        let now = Instant::now();
        let holders = [
            who(Some(1), "10.0.0.1:1"),
            who(Some(2), "10.0.0.1:2"),
            who(None, "10.0.0.1:3"),
            who(None, "[::ffff:10.0.0.1]:4"),
            who(None, "10.0.0.2:5"),
            who(None, "memory:a"),
        ];
        for (number, holder) in (0..).zip(&holders) {
            registrations.registered(now, token(number), (holder, None));
        }
        assert_eq!(check(&registrations), 6);
        assert_eq!(of(&registrations, &who(Some(1), "10.9.9.9:9")), [token(0)]);
        let of_host = of(&registrations, &who(None, "10.0.0.1:9"));
        assert_eq!(of_host, [token(2), token(3)]);
        assert_eq!(of(&registrations, &who(None, "memory:a:7")), [token(5)]);
        assert!(of(&registrations, &who(Some(3), "10.0.0.1:1")).is_empty());
        // Whoever registers with a token again has it.
        registrations.registered(now, token(2), (&holders[4], None));
        assert_eq!(of(&registrations, &holders[4]), [token(2), token(4)]);
        for number in 0..6 {
            assert_eq!(check(&registrations), 6 - number as usize);
            registrations.ended(&token(number));
            registrations.ended(&token(number));
        }
        let state = registrations.state();
        assert!(state.by_token.is_empty() && state.by_holder.is_empty());
    }

    #[test]
    fn registrations_whose_lease_is_over_are_forgotten_when_there_are_many() {
        let registrations = Registrations::new(LEASE);
        let begun = Instant::now();
        let many = FIRST_PRUNE as u32 - 1;
        for number in 0..many {
            registrations.registered(begun, token(number), (&who(Some(1), "10.0.0.1:1"), None));
        }
        let later = begun + 2 * LEASE;
        registrations.heard(later, &token(7));
        registrations.registered(later, token(many), (&who(Some(2), "10.0.0.1:1"), None));
        assert_eq!(check(&registrations), 2);
        let left = of(&registrations, &who(Some(1), "10.0.0.1:1"));
        assert_eq!(left, [token(7)]);
    }

    #[test]
    fn registration_that_is_renewed_is_as_fresh_and_as_valid_as_its_last_connection() {
        let registrations = Registrations::new(LEASE);
        let holder = who(Some(1), "10.0.0.1:1");
        let begun = Instant::now();
        let outsider = Membership::new(|| false);
        registrations.registered(begun, token(0), (&holder, Some(&outsider)));
        assert_eq!(registrations.outsiders(), [(token(0), holder.clone())]);
        let member = Membership::new(|| true);
        registrations.registered(begun + LEASE, token(0), (&holder, Some(&member)));
        assert_eq!(registrations.outsiders(), []);
        registrations.registered(begun + LEASE, token(0), (&holder, None));
        assert_eq!(registrations.outsiders(), []);
        for number in 1..FIRST_PRUNE as u32 {
            let other = who(Some(2), "10.0.0.1:1");
            registrations.registered(begun + LEASE, token(number), (&other, None));
        }
        registrations.state().prune(begun + 2 * LEASE);
        assert_eq!(of(&registrations, &holder), [token(0)]);
        registrations
            .state()
            .prune(begun + 2 * LEASE + Duration::from_secs(1));
        assert_eq!(check(&registrations), 0);
    }
}
