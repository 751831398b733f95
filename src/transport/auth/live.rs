//! The open connections with those that were let in, so that they end when that is no
//! longer so: a key is taken out, a certificate is revoked or expires.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;

use super::proof::Side;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;

/// All open connections of one authenticator. There are as many as there are
/// connections, which are bounded by those that hold them.
#[derive(Default)]
pub(super) struct Live(Mutex<LiveState>);

#[derive(Default)]
struct LiveState {
    next: u64,
    members: HashMap<u64, (Arc<LiveMember>, oneshot::Sender<AuthError>)>,
}

/// What the other side of a connection has shown.
pub(super) struct LiveMember {
    pub(super) identity: PeerIdentity,
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The side of the connection that it has.
    pub(super) side: Side,
}

/// Tells a connection that it must end. As long as it is held, the connection is among
/// the open ones.
pub(in crate::transport) struct Ended {
    live: Arc<Live>,
    number: u64,
    receiver: oneshot::Receiver<AuthError>,
    error: Option<AuthError>,
}

impl Live {
    /// Adds a connection. What it was let in by must be checked once more after this, as
    /// that may have changed meanwhile.
    pub(super) fn add(self: &Arc<Self>, member: LiveMember) -> Ended {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.members.insert(number, (Arc::new(member), sender));
        drop(state);
        Ended {
            live: Arc::clone(self),
            number,
            receiver,
            error: None,
        }
    }

    /// Ends the connections that do not pass this check any more. Those that come and go
    /// meanwhile do not wait for it: the signatures of a thousand members take a while.
    pub(super) fn recheck(&self, check: impl Fn(&LiveMember) -> Result<(), AuthError>) {
        let members: Vec<_> = self
            .state()
            .members
            .iter()
            .map(|(number, (member, _))| (*number, Arc::clone(member)))
            .collect();
        for (number, member) in members {
            let Err(error) = check(&member) else {
                continue;
            };
            let ended = self.state().members.remove(&number);
            if let Some((_, sender)) = ended {
                // When the connection is gone already, that is fine.
                let _ = sender.send(error);
            }
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.live.state().members.remove(&self.number);
    }
}
