//! What a program holds of a tracker client.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use super::config::ClientConfig;
use super::error::{Outcome, TrackerError};
use super::events::{self, OwnEvent, OwnEvents, RefusedOwn};
use super::fleet::Fleet;
use super::merge::Answers;
use super::other_family::OtherFamily;
use super::pipeline::{Caller, Need};
use super::session::{Command, Session, Setup};
use super::state::{ClientState, MAX_NAMES, OwnOutcome};
use crate::content::MAX_CONTENT_LEN;
use crate::protocol::{Addr, ContentKey, Found, OwnEntry, Token, TrackerRequest};
use crate::transport::Transport;

/// How long [`TrackerClient::shutdown`] waits until all trackers have been told.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many commands may wait for one tracker. When there are more, their callers
/// wait to be let in.
const QUEUE: usize = 64;

/// A peer's side of all its trackers. Clones are handles to the same client. It
/// ends with [`shutdown`](Self::shutdown), or, without EXIT, once the last handle
/// is dropped. No call waits longer than twice [`ClientConfig::request_timeout`]
/// for trackers that do not answer.
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
    handle: Arc<ClientHandle>,
}

/// Ends the tasks when it is dropped.
struct ClientHandle {
    trackers: Mutex<Vec<Slot>>,
    transport: Arc<dyn Transport>,
    /// Where the peer listens.
    listen: Option<Addr>,
    state: Arc<ClientState>,
    status: Arc<watch::Sender<Vec<Option<Outcome<()>>>>>,
    /// How often a tracker was reached after a failure.
    recoveries: Arc<watch::Sender<u64>>,
    /// The sender of events. It is weak, so that the events end with the
    /// sessions, which have the strong ones.
    events: Mutex<broadcast::WeakSender<OwnEvent>>,
    config: ClientConfig,
    seed: u64,
    leave: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

/// A tracker, or several that share a store, and the session with it.
struct Slot {
    fleet: Arc<Fleet>,
    /// Its number in the state and the status.
    index: usize,
    sender: mpsc::Sender<Command>,
    /// Has the session say EXIT and end.
    leave: CancellationToken,
}

impl ClientHandle {
    /// Starts the session with some more trackers that know the same, of which `first` is
    /// one.
    fn launch(
        &self,
        (fleet, first): (Arc<Fleet>, Addr),
        events: broadcast::Sender<OwnEvent>,
        is_late: bool,
    ) -> Slot {
        let (sender, commands) = mpsc::channel(QUEUE);
        let (state, index) = (Arc::clone(&self.state), self.state.add_tracker());
        self.status.send_modify(|status| {
            status.resize(status.len().max(index + 1), None);
            status[index] = None;
        });
        let leave = self.leave.child_token();
        let (registered, shown) = watch::channel(None);
        let session = Session::new(Setup {
            index,
            fleet: Arc::clone(&fleet),
            first: first.clone(),
            listen: self.listen.clone(),
            transport: self.transport.clone(),
            config: self.config.clone(),
            state: state.clone(),
            status: self.status.clone(),
            recoveries: self.recoveries.clone(),
            events,
            leave: leave.clone(),
            seed: self.seed.wrapping_add(index as u64),
            registered,
            is_late,
        });
        let other_family = OtherFamily {
            listen: self.listen.clone(),
            transport: self.transport.clone(),
            patience: self.config.request_timeout,
            registered: shown,
        };
        let abort = self.abort.clone();
        let run = async move {
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                () = session.run(commands) => {}
                () = other_family.run() => {}
            }
            state.tracker_gone(index);
        };
        let span = info_span!("tracker_session", tracker = %first);
        self.tasks.spawn(run.instrument(span));
        Slot {
            fleet,
            index,
            sender,
            leave,
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn trackers(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.trackers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of all trackers.
    fn indices(&self) -> Vec<usize> {
        self.trackers().iter().map(|slot| slot.index).collect()
    }

    /// Ignores poison as well.
    fn events(&self) -> MutexGuard<'_, broadcast::WeakSender<OwnEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

impl fmt::Debug for TrackerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerClient")
            .field("trackers", &self.trackers())
            .finish_non_exhaustive()
    }
}

impl TrackerClient {
    /// Starts to register with these trackers and returns at once. A tracker that
    /// is listed twice counts once. `listen` is where the peer listens, as far as
    /// it knows its own address: the tracker fills in an unspecified IP. A client
    /// without trackers is valid and finds nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        transport: Arc<dyn Transport>,
        trackers: Vec<Addr>,
        listen: Option<Addr>,
        config: ClientConfig,
    ) -> Self {
        let trackers = without_duplicates(trackers);
        let config = config.within_limits();
        let state = ClientState::new(0, config.max_contents, config.max_known_owners);
        let (events, _) = broadcast::channel(events::BEHIND);
        // Only jitter depends on it, so any seed is good enough.
        let seed = config.seed.or_else(|| getrandom::u64().ok()).unwrap_or(0);
        let handle = ClientHandle {
            trackers: Mutex::default(),
            transport,
            listen,
            state: Arc::new(state),
            status: Arc::new(watch::Sender::new(Vec::new())),
            recoveries: Arc::new(watch::Sender::new(0)),
            events: Mutex::new(events.downgrade()),
            config,
            seed,
            leave: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let fleets: Vec<Vec<Addr>> = match handle.config.one_store && !trackers.is_empty() {
            true => vec![trackers],
            false => trackers.into_iter().map(|tracker| vec![tracker]).collect(),
        };
        let slots = fleets.into_iter().filter_map(|trackers| {
            let fleet = Arc::new(Fleet::new(trackers, seed));
            let first = fleet.current()?;
            Some(handle.launch((fleet, first), events.clone(), false))
        });
        let slots = slots.collect();
        *handle.trackers() = slots;
        Self {
            handle: Arc::new(handle),
        }
    }

    /// The trackers, in the order in which they were added.
    pub fn trackers(&self) -> Vec<Addr> {
        let trackers = self.handle.trackers();
        trackers.iter().flat_map(|slot| slot.fleet.all()).collect()
    }

    /// Registers with one more tracker, in the background, and announces everything there
    /// that is announced. Returns `false` if it is one of the trackers already.
    ///
    /// # Errors
    /// [`TrackerError::Closed`] after a shutdown.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn add_tracker(&self, tracker: Addr) -> Result<bool, TrackerError> {
        self.open()?;
        let handle = &self.handle;
        let mut trackers = handle.trackers();
        if trackers
            .iter()
            .any(|slot| slot.fleet.all().contains(&tracker))
        {
            return Ok(false);
        }
        if handle.config.one_store
            && let Some(slot) = trackers.first()
        {
            return Ok(slot.fleet.add(tracker));
        }
        let events = {
            let mut weak = handle.events();
            // Without sessions there is no sender.
            let sender = weak.upgrade();
            let sender = sender.unwrap_or_else(|| broadcast::channel(events::BEHIND).0);
            *weak = sender.downgrade();
            sender
        };
        let fleet = Arc::new(Fleet::of_one(tracker.clone()));
        trackers.push(handle.launch((fleet, tracker), events, true));
        Ok(true)
    }

    /// Leaves a tracker: says EXIT in the background, so that it no longer lists this
    /// peer, and asks it for nothing more. Calls that wait for it alone fail with
    /// [`TrackerError::Closed`]. Returns `false` if it is none of the trackers.
    pub fn remove_tracker(&self, tracker: &Addr) -> bool {
        let mut trackers = self.handle.trackers();
        let has_it = |slot: &Slot| slot.fleet.all().contains(tracker);
        let Some(at) = trackers.iter().position(has_it) else {
            return false;
        };
        if trackers[at].fleet.len() > 1 {
            trackers[at].fleet.remove(tracker);
            return true;
        }
        let slot = trackers.remove(at);
        self.handle.state.tracker_leaves(slot.index);
        slot.leave.cancel();
        true
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
        let indices = self.handle.indices();
        if indices.is_empty() {
            return Ok(());
        }
        let mut status = self.handle.status.subscribe();
        let of_these = |all: &Vec<Option<Outcome<()>>>| {
            let each = indices.iter().map(|&index| all[index].clone());
            each.collect::<Vec<_>>()
        };
        let decided = status.wait_for(|all| {
            let all = of_these(all);
            let one = all.iter().any(|status| matches!(status, Some(Ok(()))));
            one || all.iter().all(Option::is_some)
        });
        let all = tokio::select! {
            biased;
            // The sender is in the handle.
            Ok(all) = decided => of_these(&all),
            () = self.handle.leave.cancelled() => return Err(TrackerError::Closed),
        };
        let mut all = all.iter().flatten();
        match all.clone().find_map(|status| status.as_ref().ok()) {
            Some(()) => Ok(()),
            None => all.next().cloned().unwrap_or(Ok(())),
        }
    }

    /// Announces a content to every tracker: now, again whenever a tracker has
    /// forgotten it, and again after a pause when a tracker has refused it. An entry
    /// with another name adds that: a content has up to eight. An entry with
    /// [`OwnState::Gone`](crate::protocol::OwnState) ends all of them. Returns
    /// once one tracker has accepted the content, even if not its name, and at
    /// once without trackers. [`events`](Self::events) tell what happens later.
    ///
    /// Cancel safe: the content is announced even if the future is dropped after
    /// its first poll.
    ///
    /// # Errors
    /// The first tracker's error if none has accepted the content at this attempt.
    /// Trackers out of reach are told later, and those that refused it are told
    /// again. After [`TrackerError::Invalid`], [`TrackerError::TooManyContents`] and
    /// [`TrackerError::TooManyNames`] no tracker will be told.
    pub async fn own(&self, entry: OwnEntry) -> Result<(), TrackerError> {
        self.open()?;
        let proof = TrackerRequest::Own {
            token: Token([0; 16]),
            entries: vec![entry.clone()],
        };
        proof.encode().map_err(TrackerError::Invalid)?;
        match self.handle.state.own(&entry) {
            OwnOutcome::Changed => {}
            OwnOutcome::Unchanged => return Ok(()),
            OwnOutcome::Full => {
                return Err(TrackerError::TooManyContents {
                    max: self.handle.config.max_contents,
                });
            }
            OwnOutcome::TooManyNames => return Err(TrackerError::TooManyNames { max: MAX_NAMES }),
        }
        let id = Some(entry.id);
        self.first_told(|done| Command::Own { id, done }).await
    }

    /// Announces many contents as [`own`](Self::own) does, and returns at once: the
    /// trackers are told in the background. Returns how many no tracker will be told
    /// of, because there are too many, or the protocol cannot express them.
    pub(crate) fn own_all(&self, entries: impl IntoIterator<Item = OwnEntry>) -> usize {
        let mut left_out = 0;
        for entry in entries {
            let is_valid = entry.length <= MAX_CONTENT_LEN;
            if !is_valid || self.handle.state.own(&entry) == OwnOutcome::Full {
                left_out += 1;
            }
        }
        for slot in &*self.handle.trackers() {
            let (done, _) = oneshot::channel();
            // If there is no room, another command makes the session look what is new.
            drop(slot.sender.try_send(Command::Own { id: None, done }));
        }
        left_out
    }

    /// Waits until one tracker has been told of all contents that are owned. At once
    /// without trackers.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The first tracker's error if none was told: the session with it has ended, or
    /// telling takes longer than twice [`ClientConfig::request_timeout`]. It goes on in
    /// any case.
    pub async fn announced(&self) -> Result<(), TrackerError> {
        self.open()?;
        self.first_told(|done| Command::Own { id: None, done })
            .await
    }

    /// Gives each tracker's task a command, and waits for the first success.
    async fn first_told(&self, command: impl Fn(Caller) -> Command) -> Outcome<()> {
        let mut told = self.tell_all(command);
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

    /// How many trackers there are.
    pub(crate) fn count(&self) -> usize {
        self.handle.trackers().len()
    }

    /// Changes whenever a tracker is reached after a failure.
    pub(crate) fn recoveries(&self) -> watch::Receiver<u64> {
        self.handle.recoveries.subscribe()
    }

    /// What happens to the announced contents from now on: which of them, or of
    /// their names, a tracker refuses, and when it accepts them after all. Nothing
    /// depends on these events being read.
    pub fn events(&self) -> OwnEvents {
        let sender = self.handle.events().upgrade();
        // Without sessions there are no events: the receiver ends at once.
        let sender = sender.unwrap_or_else(|| broadcast::channel(1).0);
        OwnEvents(sender.subscribe())
    }

    /// The announced contents that a tracker currently refuses, or whose names it
    /// refuses.
    pub fn refused(&self) -> Vec<RefusedOwn> {
        let trackers = self.handle.trackers();
        let refused = trackers.iter().flat_map(|slot| {
            let tracker = slot.fleet.current();
            let refused = self.handle.state.refused(slot.index).into_iter();
            refused.filter_map(move |(id, name, refusal)| {
                Some(RefusedOwn {
                    tracker: tracker.clone()?,
                    id,
                    name,
                    refusal,
                })
            })
        });
        refused.collect()
    }

    /// Asks all trackers at once for owners of a content, and merges their answers:
    /// each address once, at most `max_owners` of them. Returns as soon as all
    /// trackers have answered or failed. After one has named owners, the others
    /// have [`ClientConfig::need_grace`] to add theirs. A tracker that is known to
    /// be out of reach is not waited for.
    ///
    /// Concurrent calls do not wait for each other: up to 32 requests are under
    /// way at a tracker, on one connection.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`TrackerError::NoTracker`]; [`TrackerError::Ambiguous`] if several contents
    /// have the name, over all trackers; [`TrackerError::NotFound`] if no tracker
    /// that answered knows the content; if none answered, the first one's error.
    pub async fn need(&self, key: ContentKey, max_owners: u16) -> Result<Found, TrackerError> {
        self.open()?;
        if self.handle.trackers().is_empty() {
            return Err(TrackerError::NoTracker);
        }
        let mut asked = self.tell_all(|done| {
            let key = key.clone();
            Command::Need(Need::new(key, max_owners, done))
        });
        let mut answers = Answers::new(key.clone());
        let mut until = Instant::now() + self.patience();
        loop {
            tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some(answer) => {
                        answers.add(answer);
                        if answers.are_useful() {
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

    /// Notes that `bytes` verified bytes came from this owner. They are reported
    /// every [`ClientConfig::report_interval`] to the trackers that named it. For
    /// other owners nothing happens.
    pub fn credit(&self, owner: &Addr, bytes: u64) {
        self.handle.state.credit(owner, bytes);
    }

    /// Ends the client: reports the last credits, says EXIT to each tracker,
    /// closes the connections, and returns once all tasks have ended. Tasks that
    /// take longer than five seconds are aborted. Every other call fails from here
    /// on.
    ///
    /// Cancel safe: the client ends even if the future is dropped after its
    /// first poll.
    pub async fn shutdown(&self) {
        let handle = &self.handle;
        handle.leave.cancel();
        handle.tasks.close();
        if timeout(EXIT_TIMEOUT, handle.tasks.wait()).await.is_err() {
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

    /// Gives each tracker's task a command. The outcomes come in the order in
    /// which they are there.
    fn tell_all<T>(
        &self,
        command: impl Fn(oneshot::Sender<Outcome<T>>) -> Command,
    ) -> FuturesUnordered<impl Future<Output = Outcome<T>>> {
        let tell = |slot: &Slot| {
            let (done, outcome) = oneshot::channel();
            let (sender, command) = (slot.sender.clone(), command(done));
            async move {
                let told = sender.send(command).await;
                told.map_err(|_| TrackerError::Closed)?;
                outcome.await.unwrap_or(Err(TrackerError::Closed))
            }
        };
        self.handle.trackers().iter().map(tell).collect()
    }

    /// How long a call waits at most: for a connection and for an answer.
    fn patience(&self) -> Duration {
        2 * self.handle.config.request_timeout
    }

    fn timed_out(&self) -> TrackerError {
        match self.handle.trackers().first() {
            Some(slot) => match slot.fleet.current() {
                Some(tracker) => TrackerError::TimedOut { tracker },
                None => TrackerError::NoTracker,
            },
            None => TrackerError::NoTracker,
        }
    }
}

/// The same addresses in their order, each once.
fn without_duplicates(trackers: Vec<Addr>) -> Vec<Addr> {
    let mut different: Vec<Addr> = Vec::with_capacity(trackers.len());
    for tracker in trackers {
        if !different.contains(&tracker) {
            different.push(tracker);
        }
    }
    different
}
