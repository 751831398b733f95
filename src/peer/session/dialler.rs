//! Sessions that this peer opens: one for each address, however many contents
//! are there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::channels::{Channels, Receiver};
use super::guard::{Guard, MayOpen, SessionGuard};
use super::handshake::{HandshakeError, say};
use super::task::SessionTask;
use crate::access::Verdict;
use crate::content::ContentId;
use crate::peer::contents::inbox::{DriverInput, NewLink};
use crate::peer::contents::table::Contents;
use crate::peer::session::admission::{Admission, ConnectionPlace};
use crate::peer::session::identity::Identity;
use crate::peer::swarm::LinkInfo;
use crate::peer::tasks::Tasks;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, LinkCookie, PeerMessage};
use crate::transport::{Connection, Transport, TransportError};

/// How often those that this peer did not dial are dialled again at most, if what it allows
/// keeps changing: as often as an address is dialled that has failed once.
const ACCESS_PAUSE: Duration = Duration::from_secs(1);

/// Opens sessions, and links by them.
pub(in crate::peer) struct Dialler {
    transport: Arc<dyn Transport>,
    identity: Arc<Identity>,
    admission: Arc<Admission>,
    contents: Arc<Contents>,
    tasks: Arc<Tasks>,
    guard: Arc<Guard>,
    sessions: Mutex<HashMap<Addr, Arc<Dial>>>,
    /// Whether the last dial failed.
    failing: AtomicBool,
    /// How often a dial succeeded right after one that failed.
    recoveries: watch::Sender<u64>,
}

/// A connection, on which this side has said Hello with this cookie.
type Dialled = (
    Connection,
    LinkCookie,
    ConnectionPlace,
    Option<SessionGuard>,
);

/// A session that is being dialled, or is up. Those that wait for it go on in the
/// order in which they came.
#[derive(Default)]
struct Dial {
    /// The channels, once the Hello of this side is sent.
    outcome: OnceLock<Result<Arc<Channels>, HandshakeError>>,
    /// Cancelled when there is an outcome, or will be none.
    settled: CancellationToken,
}

impl Dialler {
    pub(in crate::peer) fn new(
        transport: Arc<dyn Transport>,
        identity: Arc<Identity>,
        admission: Arc<Admission>,
        (contents, guard): (Arc<Contents>, Arc<Guard>),
        tasks: Arc<Tasks>,
    ) -> Self {
        Self {
            transport,
            identity,
            admission,
            contents,
            tasks,
            guard,
            sessions: Mutex::default(),
            failing: AtomicBool::new(false),
            recoveries: watch::Sender::new(0),
        }
    }

    /// Changes whenever a peer answers after another did not.
    pub(in crate::peer) fn recoveries(&self) -> watch::Receiver<u64> {
        self.recoveries.subscribe()
    }

    /// Tells of each change of what this peer allows as of a recovery, until it stops: those
    /// that it did not dial for that may be dialled again.
    pub(in crate::peer) fn follow_access(self: &Arc<Self>) {
        let Some(mut changes) = self.guard.changes() else {
            return;
        };
        let own = Arc::clone(self);
        let follow = async move {
            let stop = own.tasks.stop.clone();
            while stop.run_until_cancelled(changes.changed()).await.is_some() {
                own.recoveries.send_modify(|times| *times += 1);
                stop.run_until_cancelled(sleep(ACCESS_PAUSE)).await;
            }
        };
        self.tasks.spawn(self.tasks.span.clone(), follow);
    }

    /// Notes whether a peer could be reached.
    fn note(&self, reached: bool) {
        if self.failing.swap(!reached, Ordering::Relaxed) && reached {
            self.recoveries.send_modify(|times| *times += 1);
        }
    }

    /// Opens a link about a content with the peer at an address: by the session
    /// with that address, or by a new one.
    ///
    /// Cancel safe: there is a link, or there is none.
    pub(in crate::peer) async fn open(
        self: &Arc<Self>,
        addr: Addr,
        content: ContentId,
        inbox: mpsc::Sender<DriverInput>,
    ) -> Result<NewLink, HandshakeError> {
        loop {
            let channels = self.session(&addr).await?;
            // What is linked is served as well.
            if let Some(guard) = &channels.guard {
                match guard.may_open(&content).await {
                    MayOpen::Yes => {}
                    MayOpen::No => return Err(HandshakeError::Denied),
                    MayOpen::Unknown => return Err(HandshakeError::Unsure),
                }
            }
            let id = self.contents.next_link();
            let receiver = Receiver {
                inbox: inbox.clone(),
                link: id,
            };
            if let Some((outlet, met)) = channels.open(content, receiver) {
                if let Some(guard) = &channels.guard {
                    guard.opened();
                }
                let mut info = LinkInfo::unmet(addr.clone());
                if let Some((peer, cookies)) = met {
                    (info.peer, info.cookies) = (Some(peer), Some(cookies));
                }
                return Ok(NewLink {
                    id,
                    info,
                    remote: addr,
                    outlet: Box::new(outlet),
                });
            }
            // It has ended at this moment.
            self.forget(&addr, &channels);
        }
    }

    /// The session with an address, which others may be dialling already.
    async fn session(self: &Arc<Self>, addr: &Addr) -> Result<Arc<Channels>, HandshakeError> {
        let dial = self.dial(addr);
        dial.settled.cancelled().await;
        match dial.outcome.get() {
            Some(outcome) => outcome.clone(),
            // The task was ended.
            None => Err(HandshakeError::ShutDown),
        }
    }

    /// Dials an address in a task of its own, unless that is done or under way.
    fn dial(self: &Arc<Self>, addr: &Addr) -> Arc<Dial> {
        let mut sessions = self.sessions();
        if let Some(dial) = sessions.get(addr) {
            return Arc::clone(dial);
        }
        let dial: Arc<Dial> = Arc::default();
        sessions.insert(addr.clone(), Arc::clone(&dial));
        drop(sessions);
        let span = tracing::info_span!(parent: &self.tasks.span, "session", remote = %addr);
        let (own, addr) = (Arc::clone(self), addr.clone());
        let (run, settled) = (Arc::clone(&dial), dial.settled.clone().drop_guard());
        self.tasks.spawn(span, async move {
            own.run(addr, &run).await;
            drop(settled);
        });
        dial
    }

    /// The life of a session, from the dial on.
    async fn run(&self, addr: Addr, dial: &Dial) {
        let stop = &self.tasks.stop;
        let shaken = stop.run_until_cancelled(self.connect(&addr)).await;
        let (connection, cookie, place, guard) =
            match shaken.unwrap_or(Err(HandshakeError::ShutDown)) {
                Ok(shaken) => shaken,
                Err(error) => {
                    self.sessions().remove(&addr);
                    // This is the only one that sets it.
                    let _ = dial.outcome.set(Err(error));
                    dial.settled.cancel();
                    return;
                }
            };
        let channels = Arc::new(Channels::new(true, guard));
        let _ = dial.outcome.set(Ok(Arc::clone(&channels)));
        dial.settled.cancel();
        let task = SessionTask {
            contents: Arc::clone(&self.contents),
            channels: Arc::clone(&channels),
            info: LinkInfo::unmet(addr.clone()),
            remote: addr.clone(),
            awaits: Some(cookie),
            stop: stop.clone(),
        };
        task.run(connection, place).await;
        self.forget(&addr, &channels);
    }

    /// Connects, and says Hello.
    async fn connect(&self, addr: &Addr) -> Result<Dialled, HandshakeError> {
        let place = timeout(HANDSHAKE_TIMEOUT, self.admission.dial_when_free()).await;
        let place = place.map_err(|_| HandshakeError::Full)?;
        let shake = async {
            let connected = self.transport.connect(addr).await;
            self.note(connected.is_ok());
            let mut connection = connected?;
            let promised = self.transport.identity().is_some();
            let known = connection.check_identity(promised);
            known.map_err(TransportError::from)?;
            let guard = self.guard.of(&connection);
            if let Some(guard) = &guard {
                match guard.may_connect().await {
                    Verdict::Allowed(_) => {}
                    Verdict::Denied => return Err(HandshakeError::Denied),
                    Verdict::Unknown => return Err(HandshakeError::Unsure),
                }
            }
            let said = self.identity.hello();
            let cookie = said.cookie;
            say(&mut connection, PeerMessage::Hello(said)).await?;
            Ok((connection, cookie, guard))
        };
        let shaken = timeout(HANDSHAKE_TIMEOUT, shake).await;
        let shaken = shaken.inspect_err(|_| self.note(false));
        let (connection, cookie, guard) = shaken.unwrap_or(Err(HandshakeError::TimedOut))?;
        Ok((connection, cookie, place, guard))
    }

    /// Forgets a session that has ended.
    fn forget(&self, addr: &Addr, ended: &Arc<Channels>) {
        let mut sessions = self.sessions();
        let same = |dial: &Arc<Dial>| match dial.outcome.get() {
            Some(Ok(channels)) => Arc::ptr_eq(channels, ended),
            Some(Err(_)) | None => false,
        };
        if sessions.get(addr).is_some_and(same) {
            sessions.remove(addr);
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn sessions(&self) -> MutexGuard<'_, HashMap<Addr, Arc<Dial>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
