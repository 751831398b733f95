//! Registers over the other family of IP addresses as well, so that others of both
//! families reach this peer: a tracker lists an address only when it was spoken to from
//! there.
//!
//! It is a task of its own beside the [`session`](super::session) with the tracker, which
//! has nothing to wait for if the other family does not work here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::connection::TrackerConnection;
use super::error::{Outcome, TrackerError};
use super::fleet::Fleet;
use crate::protocol::{Addr, Refusal, Token, TrackerReply, TrackerRequest};
use crate::transport::{PeerIdentity, Transport};

/// How long to wait after a failure. Often a machine has one family only, and then there
/// is nothing to be had for long.
const RETRY: Duration = Duration::from_secs(300);

/// A registration, as the session with the tracker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) token: Token,
    /// The tracker.
    pub(super) tracker: Addr,
    /// Where it is, as it was reached.
    pub(super) remote: Addr,
    /// Who it has proven to be there. Nobody else is told the token.
    pub(super) identity: Option<PeerIdentity>,
    /// How often to register.
    pub(super) heartbeat: Duration,
}

/// The task of one tracker.
pub(super) struct OtherFamily {
    /// Where the peer listens, if it does.
    pub(super) listen: Option<Addr>,
    pub(super) transport: Arc<dyn Transport>,
    /// How long connecting and each exchange may take.
    pub(super) patience: Duration,
    /// The present registration.
    pub(super) registered: watch::Receiver<Option<Registered>>,
}

/// Why there is nothing to do until the next registration.
enum Attempt {
    /// The tracker lists the peer for this family.
    Listed,
    /// It does not, and will not.
    Never,
}

impl OtherFamily {
    /// Runs until it is dropped, as nobody waits for it.
    pub(super) async fn run(mut self) {
        loop {
            let registered = self.registered.borrow_and_update().clone();
            let pause = match &registered {
                None => None,
                Some(registered) => match self.register(registered).await {
                    Ok(Attempt::Listed) => Some(registered.heartbeat),
                    Ok(Attempt::Never) => None,
                    Err(error @ TrackerError::Refused { .. }) => {
                        let tracker = &registered.tracker;
                        debug!(%tracker, %error, "refused for the other family");
                        Some(registered.heartbeat)
                    }
                    Err(error) => {
                        let tracker = &registered.tracker;
                        debug!(%tracker, %error, "not listed for both families");
                        Some(RETRY.max(registered.heartbeat))
                    }
                },
            };
            let again = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = self.registered.changed() => {}
                () = again => {}
            }
        }
    }

    /// Registers once.
    async fn register(&self, registered: &Registered) -> Outcome<Attempt> {
        let (Some(over), Some(listen)) = (family(&registered.remote), &self.listen) else {
            return Ok(Attempt::Never);
        };
        let is_other = |addr: &&Addr| family(addr).is_some_and(|family| family != over);
        let trackers = self
            .resolve(&registered.tracker, &registered.tracker)
            .await?;
        let Some(tracker) = trackers.iter().find(is_other) else {
            return Ok(Attempt::Never);
        };
        let listen = match family(listen) {
            // A name, which may have an address of each family.
            None => self
                .resolve(&registered.tracker, listen)
                .await?
                .into_iter()
                .find(|a| is_other(&a)),
            Some(_) => Some(listen.clone()),
        };
        let Some(listen) = listen.filter(|listen| may_listen(listen, tracker)) else {
            return Ok(Attempt::Never);
        };
        let transport = Arc::clone(&self.transport);
        let alone = Arc::new(Fleet::of_one(tracker.clone()));
        let at = (alone, tracker.clone());
        let mut connection = TrackerConnection::new(at, transport, self.patience);
        connection.open().await?;
        if connection.identity() != registered.identity {
            return Err(connection.is_another());
        }
        let request = TrackerRequest::RegisterAlso {
            listen: Some(listen),
            token: registered.token,
        };
        let reply = connection.request(&request).await?;
        match reply {
            TrackerReply::Registered(also) => {
                debug!(%tracker, listed = ?also.listed, "registered over the other family");
                match also.listed {
                    Some(_) => Ok(Attempt::Listed),
                    None => Ok(Attempt::Never),
                }
            }
            // It does not know of that, or the address is of another host.
            TrackerReply::Refused(Refusal::Malformed | Refusal::ForeignAddress { .. }) => {
                Ok(Attempt::Never)
            }
            other => Err(connection.refused(other)),
        }
    }

    async fn resolve(&self, tracker: &Addr, addr: &Addr) -> Outcome<Vec<Addr>> {
        let resolved = timeout(self.patience, self.transport.resolve(addr)).await;
        let tracker = tracker.clone();
        match resolved {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(source)) => Err(TrackerError::Unreachable { tracker, source }),
            Err(_) => Err(TrackerError::TimedOut { tracker }),
        }
    }
}

/// Whether an address is of IPv6, if it is of IP.
fn family(addr: &Addr) -> Option<bool> {
    let socket = addr.socket_addr()?;
    Some(socket.ip().to_canonical().is_ipv6())
}

/// Whether a peer that listens here can be reached over the family of the tracker.
fn may_listen(listen: &Addr, tracker: &Addr) -> bool {
    match listen.socket_addr() {
        Some(SocketAddr::V6(v6)) if v6.ip().is_unspecified() => true,
        Some(_) => family(listen) == family(tracker),
        None => false,
    }
}
