//! Those that were let in, as long as they are connected or somebody keeps them in mind, so
//! that their connections and all else of them end when that is no longer so: a key is taken
//! out, a certificate is revoked or expires.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::sync::{oneshot, watch};

use super::checked::Checked;
use super::proof::Side;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;
use crate::transport::membership::Membership;

/// All that one authenticator has let in. There are as many as there are connections, and
/// memberships that somebody keeps; both are bounded by those that hold them. Each chain of
/// certificates is kept once, so there are at most as many as the authority has issued.
#[derive(Default)]
pub(super) struct Live {
    state: Mutex<LiveState>,
    /// How often somebody was let in no more.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct LiveState {
    next: u64,
    members: HashMap<u64, (Weak<Admitted>, oneshot::Sender<AuthError>)>,
    /// The chains of all members, by their hashes.
    chains: HashMap<[u8; 32], Weak<Chain>>,
}

/// The certificates of a member, its own first. Nothing where only the key counts: there may
/// be very many.
type Chain = Vec<CertificateDer<'static>>;

/// What the other side of a connection has shown.
pub(super) struct LiveMember {
    pub(super) identity: PeerIdentity,
    pub(super) chain: Arc<Chain>,
    /// The side of the connection that it has.
    pub(super) side: Side,
    /// What it has passed last.
    pub(super) checked: Checked,
}

/// Somebody that was let in. As long as this is held, it is checked again when something
/// changes.
struct Admitted {
    live: Arc<Live>,
    number: u64,
    member: LiveMember,
    is_out: AtomicBool,
}

/// Tells a connection that it must end.
pub(in crate::transport) struct Ended {
    admitted: Arc<Admitted>,
    receiver: oneshot::Receiver<AuthError>,
    error: Option<AuthError>,
}

impl Live {
    /// Adds a connection. What it was let in by must be checked once more after this, as
    /// that may have changed meanwhile.
    pub(super) fn add(self: &Arc<Self>, mut member: LiveMember) -> Ended {
        let (sender, receiver) = oneshot::channel();
        let hash = hash_of(&member.chain);
        let mut state = self.state();
        match state.chains.get(&hash).and_then(Weak::upgrade) {
            Some(chain) => member.chain = chain,
            None => drop(state.chains.insert(hash, Arc::downgrade(&member.chain))),
        }
        let number = state.next;
        state.next += 1;
        let admitted = Arc::new(Admitted {
            live: Arc::clone(self),
            number,
            member,
            is_out: AtomicBool::new(false),
        });
        let member = (Arc::downgrade(&admitted), sender);
        state.members.insert(number, member);
        drop(state);
        Ended {
            admitted,
            receiver,
            error: None,
        }
    }

    /// Ends what is left of those that do not pass this check any more. Those that come and
    /// go meanwhile do not wait for it: the signatures of a thousand members take a while.
    pub(super) fn recheck(&self, check: impl Fn(&LiveMember) -> Result<(), AuthError>) {
        let state = self.state();
        let members = state.members.values();
        let members: Vec<_> = members.filter_map(|(member, _)| member.upgrade()).collect();
        drop(state);
        let mut has_changed = false;
        for admitted in members {
            let Err(error) = check(&admitted.member) else {
                continue;
            };
            admitted.is_out.store(true, Ordering::Release);
            has_changed = true;
            let ended = self.state().members.remove(&admitted.number);
            if let Some((_, sender)) = ended {
                // When the connection is gone already, that is fine.
                let _ = sender.send(error);
            }
        }
        if has_changed {
            self.changes.send_modify(|times| *times += 1);
        }
    }

    /// Changes when somebody is let in no more.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    /// Whether the connection must end, and why. The last task that has asked is woken
    /// when it must.
    pub(in crate::transport) fn poll(&mut self, cx: &mut Context<'_>) -> Option<AuthError> {
        if self.error.is_none()
            && let Poll::Ready(Ok(error)) = Pin::new(&mut self.receiver).poll(cx)
        {
            self.error = Some(error);
        }
        self.error.clone()
    }

    /// The same, without being woken.
    pub(in crate::transport) fn now(&mut self) -> Option<AuthError> {
        if self.error.is_none() {
            self.error = self.receiver.try_recv().ok();
        }
        self.error.clone()
    }

    /// Tells the same of the other side when the connection is gone.
    pub(in crate::transport) fn membership(&self) -> Membership {
        let admitted = Arc::clone(&self.admitted);
        Membership::new(move || !admitted.is_out.load(Ordering::Acquire))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let hash = hash_of(&self.member.chain);
        let mut state = self.live.state();
        state.members.remove(&self.number);
        // Under the lock: of two that go at once, one is the last.
        drop(std::mem::take(&mut self.member.chain));
        let is_gone = |chain: &Weak<Chain>| chain.strong_count() == 0;
        if state.chains.get(&hash).is_some_and(is_gone) {
            state.chains.remove(&hash);
        }
    }
}

/// Tells chains apart.
fn hash_of(chain: &Chain) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for certificate in chain {
        hasher.update(&(certificate.len() as u64).to_le_bytes());
        hasher.update(certificate);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(key: &[u8]) -> LiveMember {
        LiveMember {
            identity: PeerIdentity::of_public_key(key),
            chain: Arc::default(),
            side: Side::Client,
            checked: Checked::default(),
        }
    }

    #[test]
    fn chain_is_kept_once_as_long_as_somebody_has_it() {
        let live = Arc::<Live>::default();
        let shows = |certificates: &[&'static [u8]]| {
            let chain = certificates.iter().map(|der| CertificateDer::from(*der));
            let member = LiveMember {
                chain: Arc::new(chain.collect()),
                ..member(b"member")
            };
            live.add(member)
        };
        let chains = || live.state().chains.len();
        let kept = |ended: &Ended| Arc::as_ptr(&ended.admitted.member.chain);
        let (one, again) = (
            shows(&[b"one", b"authority"]),
            shows(&[b"one", b"authority"]),
        );
        // The same bytes, cut elsewhere.
        let other = shows(&[b"onea", b"uthority"]);
        assert_eq!((kept(&one), chains()), (kept(&again), 2));
        assert_ne!(kept(&one), kept(&other));
        drop((one, other));
        assert_eq!(chains(), 1);
        let membership = again.membership();
        drop(again);
        assert_eq!(chains(), 1);
        let back = shows(&[b"one", b"authority"]);
        drop(membership);
        assert_eq!(chains(), 1);
        drop(back);
        assert_eq!(chains(), 0);
    }

    #[test]
    fn membership_outlives_its_connection_and_ends_with_the_last_handle() {
        let live = Arc::<Live>::default();
        let mut changes = live.changes();
        let (away, here) = (live.add(member(b"away")), live.add(member(b"here")));
        let (is_away, is_here) = (away.membership(), here.membership());
        drop(away);
        live.recheck(|_| Ok(()));
        assert!(is_away.is_valid() && is_here.is_valid());
        assert!(!changes.has_changed().unwrap());
        let of_away = PeerIdentity::of_public_key(b"away");
        live.recheck(|member| match member.identity == of_away {
            true => Err(AuthError::UnknownKey(of_away)),
            false => Ok(()),
        });
        assert!(!is_away.is_valid() && is_here.is_valid());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        // Whoever is out is so once.
        live.recheck(|member| match member.identity == of_away {
            true => Err(AuthError::UnknownKey(of_away)),
            false => Ok(()),
        });
        assert!(!changes.has_changed().unwrap());
        assert_eq!(live.state().members.len(), 1);
        drop((is_here.clone(), here));
        assert_eq!(live.state().members.len(), 1);
        drop(is_here);
        assert!(live.state().members.is_empty());
    }
}
