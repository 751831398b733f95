//! The sockets of a transport: as few as will do.
//!
//! A listener has one, and what is dialled goes out through it where it can, so that others
//! see the address that they could dial, and routers on the way keep one flow. Who does not
//! listen has one socket for all that it dials. A socket lives as long as anything uses it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quinn::{Endpoint, ServerConfig};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::socket::{endpoint, socket};

/// How long to wait for an address that is in use. A socket is free only when the last of
/// its connections has told the other side of its end, some round trips after that.
const BIND_PATIENCE: Duration = Duration::from_secs(1);

/// How often to try within that time.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// The sockets of one transport.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bound: Vec<Weak<Bound>>,
    /// What is dialled through it goes out from no listener.
    dialler: Option<Endpoint>,
}

/// A socket that was bound to listen.
#[derive(Debug)]
struct Bound {
    endpoint: Endpoint,
    local: SocketAddr,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
enum Phase {
    Listening,
    /// It has connections, and a task refuses new ones.
    Refusing(Option<Refusing>),
}

/// The task that refuses what comes to a socket.
#[derive(Debug)]
struct Refusing {
    until: CancellationToken,
    task: JoinHandle<()>,
}

/// The right to accept what comes to a socket. Dropped, the socket refuses it.
#[derive(Debug)]
pub(super) struct Listening(Arc<Bound>);

impl Endpoints {
    /// Listens at an address.
    pub(super) async fn listen(
        &self,
        target: SocketAddr,
        config: ServerConfig,
    ) -> io::Result<Listening> {
        let give_up = Instant::now() + BIND_PATIENCE;
        loop {
            if let Some(listening) = self.take_over(target).await {
                return Ok(listening);
            }
            match bind_with_fallback(target) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up =>
                {
                    if self.is_listening(target) {
                        return Err(error);
                    }
                    sleep(BIND_PAUSE).await;
                }
                Err(error) => return Err(error),
                Ok(endpoint) => {
                    endpoint.set_server_config(Some(config));
                    return self.add(endpoint);
                }
            }
        }
    }

    fn add(&self, endpoint: Endpoint) -> io::Result<Listening> {
        let bound = Arc::new(Bound {
            local: endpoint.local_addr()?,
            endpoint,
            phase: Mutex::new(Phase::Listening),
        });
        let mut state = self.state();
        state.bound.retain(|bound| bound.strong_count() > 0);
        state.bound.push(Arc::downgrade(&bound));
        Ok(Listening(bound))
    }

    /// Listens again at a socket that still has connections.
    async fn take_over(&self, target: SocketAddr) -> Option<Listening> {
        let bound = self.bound_at(target)?;
        let refusing = match std::mem::replace(&mut *bound.phase(), Phase::Listening) {
            Phase::Listening => return None,
            Phase::Refusing(refusing) => refusing,
        };
        let listening = Listening(bound);
        if let Some(Refusing { until, task }) = refusing {
            until.cancel();
            // It may be about to refuse one. When its runtime has ended, so has it.
            let _ = task.await;
        }
        Some(listening)
    }

    fn is_listening(&self, target: SocketAddr) -> bool {
        let bound = self.bound_at(target);
        bound.is_some_and(|bound| matches!(*bound.phase(), Phase::Listening))
    }

    fn bound_at(&self, target: SocketAddr) -> Option<Arc<Bound>> {
        let state = self.state();
        let mut bound = state.bound.iter().filter_map(Weak::upgrade);
        bound.find(|bound| bound.local == target)
    }

    /// The socket to dial an address from.
    pub(super) fn dial_from(&self, target: SocketAddr) -> io::Result<Endpoint> {
        let mut state = self.state();
        let mut bound = state.bound.iter().filter_map(Weak::upgrade);
        let listener = bound.find(|bound| reaches(bound.local, target));
        if let Some(bound) = listener {
            return Ok(bound.endpoint.clone());
        }
        drop(bound);
        if let Some(dialler) = &state.dialler {
            return Ok(dialler.clone());
        }
        let dialler = bind_with_fallback(ANY)?;
        state.dialler = Some(dialler.clone());
        Ok(dialler)
    }

    /// The socket that `dial_from` has returned is of no use any more: the runtime that it
    /// was bound in has ended.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.dialler = None;
        state.bound.clear();
    }

    /// Dials from another port, and moves what was dialled there.
    pub(super) fn rebind(&self) -> io::Result<()> {
        let Some(dialler) = self.state().dialler.clone() else {
            return Ok(());
        };
        let any = match dialler.local_addr()? {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => ANY,
        };
        dialler.rebind(socket(any)?)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bound {
    /// Ignores poison, for the same reason.
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.0.local
    }
}

impl Drop for Listening {
    /// Connections outlive the listener, and the socket lives as long as they do.
    fn drop(&mut self) {
        let refusing = Handle::try_current().ok().map(|runtime| {
            let until = CancellationToken::new();
            let task = runtime.spawn(refuse(Arc::clone(&self.0), until.clone()));
            Refusing { until, task }
        });
        *self.0.phase() = Phase::Refusing(refusing);
    }
}

/// Refuses what comes to a socket, as long as it has connections and nobody listens again.
async fn refuse(bound: Arc<Bound>, until: CancellationToken) {
    let refuse = async {
        while let Some(incoming) = bound.endpoint.accept().await {
            incoming.refuse();
        }
    };
    tokio::select! {
        biased;
        () = until.cancelled() => {}
        () = bound.endpoint.wait_idle() => {}
        () = refuse => {}
    }
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Binds an address; `[::]` serves IPv4 as well, where the system can do that. `0.0.0.0`
/// takes its place on a machine without IPv6.
fn bind_with_fallback(target: SocketAddr) -> io::Result<Endpoint> {
    let is_any = target.is_ipv6() && target.ip().is_unspecified();
    match endpoint(target) {
        Err(error)
            if is_any
                && !matches!(
                    error.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                ) =>
        {
            endpoint((Ipv4Addr::UNSPECIFIED, target.port()).into())
        }
        bound => bound,
    }
}

/// Whether a socket with this address can send to that one.
fn reaches(local: SocketAddr, target: SocketAddr) -> bool {
    match local.ip().is_unspecified() {
        true => local.is_ipv6() || target.is_ipv4(),
        false => {
            local.is_ipv4() == target.is_ipv4()
                && local.ip().is_loopback() == target.ip().is_loopback()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_is_dialled_from_if_it_reaches_the_target() {
        let reaches =
            |local: &str, target: &str| reaches(local.parse().unwrap(), target.parse().unwrap());
        for (local, target) in [
            ("[::]:1", "192.0.2.1:2"),
            ("[::]:1", "[2001:db8::1]:2"),
            ("0.0.0.0:1", "192.0.2.1:2"),
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("192.0.2.7:1", "198.51.100.1:2"),
        ] {
            assert!(reaches(local, target), "{local} to {target}");
        }
        for (local, target) in [
            ("0.0.0.0:1", "[::1]:2"),
            ("127.0.0.1:1", "192.0.2.1:2"),
            ("192.0.2.7:1", "127.0.0.1:2"),
            ("[::1]:1", "127.0.0.1:2"),
        ] {
            assert!(!reaches(local, target), "{local} to {target}");
        }
    }
}
