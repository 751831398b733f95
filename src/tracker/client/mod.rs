//! What a peer asks its trackers with; other programs may, too.
//!
//! A [`TrackerClient`] keeps one task per tracker, which owns the connection:
//! it registers, sends heartbeats, connects again after a failure, and brings
//! a restarted tracker up to date. What the client wants to be known stands in
//! one shared place, so that nothing is lost with a connection.

mod config;
mod events;
mod merge;
mod needs;
mod session;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::protocol::{Addr, ContentKey, Found, OwnEntry, Token, TrackerRequest};
use crate::transport::Transport;
use merge::Answers;
use needs::Need;
use session::{Command, Outcome, Session};
use state::{Noted, State};

pub use config::{ClientConfig, TrackerError};
pub use events::{OwnEvent, OwnEvents, RefusedOwn};

/// How long [`TrackerClient::shutdown`] waits for its farewells.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How many commands wait for one tracker at the most; whoever comes later
/// waits to be let in.
const QUEUE: usize = 64;

/// A peer's side of all its trackers. Clones are handles to the same client;
/// it ends with [`shutdown`](Self::shutdown), or, without a farewell, once the
/// last handle is dropped. No call waits longer than twice
/// [`ClientConfig::request_timeout`] for trackers that do not answer.
///
/// ```
/// use std::sync::Arc;
/// use bt_lite::protocol::{OwnEntry, OwnState};
/// use bt_lite::tracker::{ClientConfig, Tracker, TrackerClient};
/// use bt_lite::{ContentId, MemoryNetwork};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new(1);
/// let tracker = Tracker::builder(network.endpoint("t")).bind("memory:t").await?;
/// let client = |name: &str, listen: Option<&str>| {
///     TrackerClient::start(
///         Arc::new(network.endpoint(name)),
///         vec![tracker.local_addr().clone()],
///         listen.map(|addr| addr.parse().expect("an address")),
///         ClientConfig::default(),
///     )
/// };
///
/// let owner = client("owner", Some("memory:owner"));
/// let id = ContentId::of(b"bytes");
/// owner.own(OwnEntry::new(id, "file".parse()?, 5, OwnState::Complete)).await?;
///
/// let asker = client("asker", None);
/// let found = asker.need(id.into(), 10).await?;
/// assert_eq!(found.owners[0].addr.as_str(), "memory:owner");
///
/// owner.shutdown().await;
/// assert!(asker.need(id.into(), 10).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TrackerClient {
    handle: Arc<Handle>,
}

/// Ends the tasks when it is dropped.
struct Handle {
    trackers: Vec<(Addr, mpsc::Sender<Command>)>,
    state: Arc<State>,
    status: watch::Receiver<Vec<Option<Outcome<()>>>>,
    /// Of which each session has the other side; weak, so that they end with
    /// the sessions.
    events: broadcast::WeakSender<OwnEvent>,
    config: ClientConfig,
    leave: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

impl fmt::Debug for TrackerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trackers = self.handle.trackers.iter().map(|(addr, _)| addr);
        f.debug_struct("TrackerClient")
            .field("trackers", &trackers.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl TrackerClient {
    /// Starts to register with these trackers, each counted once, and returns
    /// at once. `listen` is where the peer listens, as it knows its own
    /// address: a tracker fills an unspecified IP in. A client without trackers
    /// is valid and finds nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        transport: Arc<dyn Transport>,
        trackers: Vec<Addr>,
        listen: Option<Addr>,
        config: ClientConfig,
    ) -> Self {
        let mut different: Vec<Addr> = Vec::with_capacity(trackers.len());
        for tracker in trackers {
            if !different.contains(&tracker) {
                different.push(tracker);
            }
        }
        let config = config.put_right();
        let state = Arc::new(State::new(
            different.len(),
            config.max_contents,
            config.max_known_owners,
        ));
        let (status, watched) = watch::channel(vec![None; different.len()]);
        let status = Arc::new(status);
        let (events, _) = broadcast::channel(events::BEHIND);
        let (leave, abort) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        // Nothing but jitter hangs on it.
        let seed = config.seed.or_else(|| getrandom::u64().ok()).unwrap_or(0);
        let start = |(index, tracker): (usize, Addr)| {
            let (sender, commands) = mpsc::channel(QUEUE);
            let session = Session::new(session::Setup {
                index,
                tracker: tracker.clone(),
                listen: listen.clone(),
                transport: transport.clone(),
                config: config.clone(),
                state: state.clone(),
                status: status.clone(),
                events: events.clone(),
                leave: leave.clone(),
                seed: seed.wrapping_add(index as u64),
            });
            let abort = abort.clone();
            tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = abort.cancelled() => {}
                    () = session.run(commands) => {}
                }
            });
            (tracker, sender)
        };
        let trackers = different.into_iter().enumerate().map(start).collect();
        Self {
            handle: Arc::new(Handle {
                trackers,
                state,
                status: watched,
                events: events.downgrade(),
                config,
                leave,
                abort,
                tasks,
            }),
        }
    }

    /// Returns once one tracker has registered this peer, or at once without
    /// trackers.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The first tracker's error when all of them have failed at least once;
    /// the client goes on trying. [`TrackerError::Closed`] after a shutdown.
    pub async fn registered(&self) -> Result<(), TrackerError> {
        self.open()?;
        if self.handle.trackers.is_empty() {
            return Ok(());
        }
        let mut status = self.handle.status.clone();
        let decided = status.wait_for(|all| {
            let one = all.iter().any(|status| matches!(status, Some(Ok(()))));
            one || all.iter().all(Option::is_some)
        });
        let all = decided.await.map_err(|_| TrackerError::Closed)?;
        let mut all = all.iter().flatten();
        match all.clone().find_map(|status| status.as_ref().ok()) {
            Some(()) => Ok(()),
            None => all.next().cloned().unwrap_or(Ok(())),
        }
    }

    /// Announces a content, with every tracker: now, and again whenever a
    /// tracker has forgotten it, or, after a pause, has refused it.
    /// [`OwnState::Gone`](crate::protocol::OwnState) ends that. Returns once one
    /// tracker has taken it, be it without its name, and at once without
    /// trackers. What becomes of it later say [`events`](Self::events).
    ///
    /// Cancel safe in that the announcement is made all the same.
    ///
    /// # Errors
    /// The first tracker's error when none has taken it at this attempt; those
    /// out of reach are told later, and those that refused it are told again.
    /// [`TrackerError::Invalid`] and
    /// [`TrackerError::TooManyContents`] when nothing will be told to anybody.
    pub async fn own(&self, entry: OwnEntry) -> Result<(), TrackerError> {
        self.open()?;
        let proof = TrackerRequest::Own {
            token: Token([0; 16]),
            entries: vec![entry.clone()],
        };
        proof.encode().map_err(TrackerError::Invalid)?;
        match self.handle.state.own(&entry) {
            Noted::News => {}
            Noted::Known => return Ok(()),
            Noted::Full => {
                return Err(TrackerError::TooManyContents {
                    max: self.handle.config.max_contents,
                });
            }
        }
        let id = entry.id;
        let mut told = self.tell_all(|done| Command::Own { id, done });
        let mut error = None;
        let until = Instant::now() + self.patience();
        loop {
            let outcome = tokio::select! {
                outcome = told.next() => outcome,
                () = sleep_until(until) => Some(Err(self.timed_out())),
            };
            match outcome {
                Some(Ok(())) => return Ok(()),
                Some(Err(other)) => error = error.or(Some(other)),
                None => return error.map_or(Ok(()), Err),
            }
            if Instant::now() >= until {
                return error.map_or(Ok(()), Err);
            }
        }
    }

    /// What becomes of the contents that are announced, from now on: which of
    /// them a tracker refuses, or the name of which, and when it takes them after
    /// all. Whoever does not listen misses nothing but the events.
    pub fn events(&self) -> OwnEvents {
        let sender = self.handle.events.upgrade();
        // Without sessions there is nothing to hear: the end.
        let sender = sender.unwrap_or_else(|| broadcast::channel(1).0);
        OwnEvents(sender.subscribe())
    }

    /// What the trackers refuse at present, or the name of which they do, of
    /// what is announced.
    pub fn refused(&self) -> Vec<RefusedOwn> {
        let trackers = self.handle.trackers.iter().enumerate();
        let refused = trackers.flat_map(|(index, (tracker, _))| {
            let refused = self.handle.state.refused(index).into_iter();
            refused.map(|(id, refusal)| RefusedOwn {
                tracker: tracker.clone(),
                id,
                refusal,
            })
        });
        refused.collect()
    }

    /// Asks all trackers at once who owns a content, and merges their answers:
    /// each address once, at most `max_owners` of them. Returns as soon as all
    /// have answered or failed; once one has named owners, the others have
    /// [`ClientConfig::need_grace`] to add theirs. A tracker that is known to
    /// be out of reach is not waited for.
    ///
    /// Several calls at once do not wait for each other: up to 32 of them are
    /// under way at a tracker, on one connection.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`TrackerError::NoTracker`]; [`TrackerError::Ambiguous`] for a name of
    /// several contents, over all trackers; [`TrackerError::NotFound`] when all
    /// that answered know no such content; and when none answered, the first
    /// one's error.
    pub async fn need(&self, key: ContentKey, max_owners: u16) -> Result<Found, TrackerError> {
        self.open()?;
        if self.handle.trackers.is_empty() {
            return Err(TrackerError::NoTracker);
        }
        let mut asked = self.tell_all(|done| {
            let key = key.clone();
            Command::Need(Need {
                key,
                max_owners,
                done,
            })
        });
        let mut answers = Answers::new(key.clone());
        let mut until = Instant::now() + self.patience();
        loop {
            tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some(answer) => {
                        answers.add(answer);
                        if answers.useful() {
                            until = until.min(Instant::now() + self.handle.config.need_grace);
                        }
                    }
                    None => break,
                },
                () = sleep_until(until) => {
                    answers.add(Err(self.timed_out()));
                    break;
                }
            }
        }
        answers.merge(max_owners.into())
    }

    /// Notes that `bytes` verified bytes came from this owner. Reported every
    /// [`ClientConfig::report_interval`] to the trackers that named it; for
    /// other owners nothing happens.
    pub fn credit(&self, owner: &Addr, bytes: u64) {
        self.handle.state.credit(owner, bytes);
    }

    /// Ends the client: reports what is credited, says EXIT to each tracker,
    /// closes the connections, and returns once all tasks have ended. Bounded:
    /// what takes longer than five seconds is given up. Every other call fails
    /// from here on.
    ///
    /// Cancel safe: the client ends even if the future is dropped after its
    /// first poll.
    pub async fn shutdown(&self) {
        let handle = &self.handle;
        handle.leave.cancel();
        handle.tasks.close();
        if timeout(FAREWELL_TIMEOUT, handle.tasks.wait())
            .await
            .is_err()
        {
            handle.abort.cancel();
            handle.tasks.wait().await;
        }
    }

    fn open(&self) -> Outcome<()> {
        match self.handle.leave.is_cancelled() {
            true => Err(TrackerError::Closed),
            false => Ok(()),
        }
    }

    /// Gives each tracker's task a command. The outcomes come as they are
    /// there.
    fn tell_all<T>(
        &self,
        command: impl Fn(oneshot::Sender<Outcome<T>>) -> Command,
    ) -> FuturesUnordered<impl Future<Output = Outcome<T>>> {
        let tell = |(_, sender): &(Addr, mpsc::Sender<Command>)| {
            let (done, outcome) = oneshot::channel();
            let (sender, command) = (sender.clone(), command(done));
            async move {
                let told = sender.send(command).await;
                told.map_err(|_| TrackerError::Closed)?;
                outcome.await.unwrap_or(Err(TrackerError::Closed))
            }
        };
        self.handle.trackers.iter().map(tell).collect()
    }

    /// The most that any call waits: for a connection and an answer.
    fn patience(&self) -> Duration {
        2 * self.handle.config.request_timeout
    }

    fn timed_out(&self) -> TrackerError {
        match self.handle.trackers.first() {
            Some((tracker, _)) => TrackerError::TimedOut {
                tracker: tracker.clone(),
            },
            None => TrackerError::NoTracker,
        }
    }
}
