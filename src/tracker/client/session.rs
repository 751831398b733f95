//! One tracker's task: it owns the connection. NEEDs are pipelined
//! ([`needs`](super::needs)); everything else is asked one at a time.
//!
//! ```text
//! connect and register ──▶ serve ──▶ farewell
//!     ▲        │ failed      │ lost       ▲
//!     └── pause ◀────────────┘            │ told to leave, from anywhere
//! ```

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::{SinkExt, StreamExt};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::events::{OwnEvent, RefusedOwn};
use super::needs::{Need, Needs};
use super::state::{State, Verdict};
use super::{ClientConfig, TrackerError, config};
use crate::content::ContentId;
use crate::protocol::limits::TRACKER_FRAMES;
use crate::protocol::{Addr, OwnEntry, Refusal, RefusedEntry, Token, TrackerReply, TrackerRequest};
use crate::transport::{Connection, Transport, TransportError};

pub(super) type Outcome<T> = Result<T, TrackerError>;

/// No tracker makes a client send heartbeats more often than this.
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);

/// What the client asks of a session.
pub(super) enum Command {
    /// Tells what stands in the state about this content.
    Own {
        id: ContentId,
        done: oneshot::Sender<Outcome<()>>,
    },
    Need(Need),
}

impl Command {
    /// Whoever asked may have gone; then nobody is told.
    fn fail(self, error: TrackerError) {
        match self {
            Self::Own { done, .. } => drop(done.send(Err(error))),
            Self::Need(need) => need.end(Err(error)),
        }
    }
}

/// What a session is made of.
pub(super) struct Setup {
    pub(super) index: usize,
    pub(super) tracker: Addr,
    pub(super) listen: Option<Addr>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) config: ClientConfig,
    pub(super) state: Arc<State>,
    /// The outcome of the last attempt, or the first success.
    pub(super) status: Arc<watch::Sender<Vec<Option<Outcome<()>>>>>,
    pub(super) events: broadcast::Sender<OwnEvent>,
    pub(super) leave: CancellationToken,
    pub(super) seed: u64,
}

pub(super) struct Session {
    pub(super) setup: Setup,
    rng: Rng,
    pub(super) connection: Option<Connection>,
    pub(super) token: Option<Token>,
    /// The tracker's start that the token is of.
    epoch: Option<u64>,
    heartbeat: Instant,
    pub(super) needs: Needs,
}

impl Session {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            rng: Rng::with_seed(setup.seed),
            setup,
            connection: None,
            token: None,
            epoch: None,
            heartbeat: Instant::now(),
            needs: Needs::default(),
        }
    }

    /// Keeps the tracker up to date until told to leave.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let leave = self.setup.leave.clone();
        let mut failures = 0_u32;
        let mut last_error = None;
        loop {
            let connected = tokio::select! {
                biased;
                () = leave.cancelled() => None,
                connected = self.connect() => Some(connected),
                () = fail_all(&mut commands, last_error.as_ref()) => None,
            };
            let Some(connected) = connected else {
                // The answer to what was being asked is not to be mistaken.
                self.connection = None;
                break;
            };
            let begun = Instant::now();
            let served = match connected {
                Ok(()) => {
                    self.note(Ok(()));
                    last_error = None;
                    self.serve(&mut commands).await
                }
                Err(error) => {
                    self.note(Err(error.clone()));
                    last_error = Some(error.clone());
                    Err(error)
                }
            };
            let Err(error) = served else {
                break;
            };
            self.needs.fail(&error);
            self.connection = None;
            let (first, longest) = self.setup.config.backoff;
            if last_error.is_none() && begun.elapsed() >= longest {
                failures = 0;
            }
            let pause = config::pause(self.setup.config.backoff, failures);
            // Whoever was registered lost the tracker together with others, and
            // is not to come back together with them.
            let away = self.setup.config.return_spread;
            let (pause, spread) = match last_error {
                Some(_) if self.token.is_some() => {
                    let most = pause.max(away);
                    (first.max(most.mul_f64(self.rng.f64())), Duration::ZERO)
                }
                Some(_) => (pause.mul_f64(1.0 - self.rng.f64() / 2.0), Duration::ZERO),
                None => {
                    let pause = pause.mul_f64(1.0 - self.rng.f64() / 2.0);
                    (pause, away.mul_f64(self.rng.f64()))
                }
            };
            failures = failures.saturating_add(1);
            let tracker = &self.setup.tracker;
            // Whoever is refused may have to do something about it.
            if matches!(error, TrackerError::Refused { .. }) {
                warn!(%tracker, %error, ?pause, "the tracker refuses this peer");
            } else {
                debug!(%tracker, %error, ?pause, "tracker session failed");
            }
            tokio::select! {
                biased;
                () = leave.cancelled() => break,
                () = sleep_until(Instant::now() + pause) => {}
                () = fail_all(&mut commands, last_error.as_ref()) => break,
            }
            tokio::select! {
                biased;
                () = leave.cancelled() => break,
                () = sleep_until(Instant::now() + spread) => {}
                () = asked_for(&commands), if !spread.is_zero() => {}
            }
        }
        // Nobody is kept waiting for what will not be done any more.
        if !self.needs.is_empty() {
            // The answers that are owed are not to be mistaken for others.
            self.connection = None;
        }
        self.needs.fail(&TrackerError::Closed);
        commands.close();
        while let Ok(command) = commands.try_recv() {
            command.fail(TrackerError::Closed);
        }
        if let Err(error) = self.say_farewell().await {
            debug!(tracker = %self.setup.tracker, %error, "no farewell");
        }
    }

    fn note(&self, outcome: Outcome<()>) {
        self.setup.status.send_modify(|all| {
            if let Some(status) = all.get_mut(self.setup.index)
                && !matches!(status, Some(Ok(())))
            {
                *status = Some(outcome);
            }
        });
    }

    async fn connect(&mut self) -> Outcome<()> {
        self.open().await?;
        self.register().await
    }

    async fn open(&mut self) -> Outcome<()> {
        let connect = self.setup.transport.connect(&self.setup.tracker);
        let connection = match timeout(self.setup.config.request_timeout, connect).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(source)) => return Err(self.unreachable(source)),
            Err(_) => return Err(self.timed_out()),
        };
        connection.limits.set(TRACKER_FRAMES);
        self.connection = Some(connection);
        Ok(())
    }

    /// Does what there is to do until told to leave (`Ok`) or until the
    /// connection is of no more use.
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Outcome<()> {
        let leave = self.setup.leave.clone();
        let mut reports = interval(self.setup.config.report_interval.max(MIN_REPORT));
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.ask_again().await?;
            self.tell_untold().await?;
            let heartbeat = self.heartbeat;
            let owed = self.needs.deadline();
            let retry = self.setup.state.next_retry(self.setup.index);
            let Some(connection) = &mut self.connection else {
                return Err(self.unreachable(TransportError::Closed));
            };
            tokio::select! {
                biased;
                () = leave.cancelled() => return Ok(()),
                () = sleep_until(heartbeat) => self.register().await?,
                _ = reports.tick() => self.report().await?,
                () = sleep_until(retry.unwrap_or(heartbeat)), if retry.is_some() => {
                    self.setup.state.retry(self.setup.index, Instant::now());
                }
                command = commands.recv(), if self.needs.has_room() => match command {
                    Some(command) => self.obey(command, commands).await?,
                    None => return Ok(()),
                },
                // Where nothing was asked, whatever comes is the end, or wrong.
                item = connection.stream.next() => match item {
                    Some(Ok(frame)) => self.answered(frame)?,
                    Some(Err(source)) => return Err(self.unreachable(source)),
                    None => return Err(self.unreachable(TransportError::Closed)),
                },
                () = sleep_until(owed.unwrap_or(heartbeat)), if owed.is_some() => {
                    return Err(self.timed_out());
                }
            }
        }
    }

    /// REGISTER, which is the heartbeat as well.
    pub(super) async fn register(&mut self) -> Outcome<()> {
        if self.setup.state.renews(self.setup.index) {
            self.token = None;
        }
        let request = TrackerRequest::Register {
            listen: self.setup.listen.clone(),
            token: self.token,
        };
        let registered = match self.request(&request).await? {
            TrackerReply::Registered(registered) => registered,
            other => return Err(self.refused(other)),
        };
        // A tracker that started again knows nothing of before, whatever its
        // tokens are made of.
        let anew = (Some(registered.token), Some(registered.epoch)) != (self.token, self.epoch);
        if anew {
            info!(
                tracker = %self.setup.tracker,
                epoch = registered.epoch,
                listed = ?registered.listed,
                "registered",
            );
            self.setup.state.registered_anew(self.setup.index);
            (self.token, self.epoch) = (Some(registered.token), Some(registered.epoch));
        }
        let heartbeat = registered.heartbeat.max(MIN_HEARTBEAT);
        // Early by up to a tenth, so that peers which began together part.
        self.heartbeat = Instant::now() + heartbeat.mul_f64(1.0 - self.rng.f64() / 10.0);
        Ok(())
    }

    async fn tell_untold(&mut self) -> Outcome<()> {
        loop {
            let entries = self.setup.state.untold(self.setup.index);
            if entries.is_empty() {
                return Ok(());
            }
            self.tell(&entries).await?;
        }
    }

    /// Tells about one content together with whatever else is untold.
    async fn tell_one(&mut self, id: &ContentId) -> Outcome<()> {
        self.tell_untold().await?;
        match self.setup.state.unlisted(self.setup.index, id) {
            Some(refusal) => Err(self.refused(TrackerReply::Refused(refusal))),
            None => Ok(()),
        }
    }

    /// OWN. Told is told, even if some of it was refused.
    async fn tell(&mut self, entries: &[OwnEntry]) -> Outcome<()> {
        let request = |token| TrackerRequest::Own {
            token,
            entries: entries.to_vec(),
        };
        let refused = match self.ask(request).await? {
            TrackerReply::Done => Vec::new(),
            TrackerReply::Partly(refused) => refused,
            TrackerReply::Refused(refusal) if !ends_session(&refusal) => {
                let each = (0..entries.len() as u16).map(|at| RefusedEntry {
                    at,
                    refusal: refusal.clone(),
                });
                each.collect()
            }
            other => return Err(self.refused(other)),
        };
        let pauses = self.setup.config.own_retry;
        let rng = &mut self.rng;
        let pause = |times| config::pause(pauses, times).mul_f64(1.0 - rng.f64() / 2.0);
        let (index, now) = (self.setup.index, Instant::now());
        let verdicts = self.setup.state.told(index, entries, &refused, now, pause);
        for (id, verdict) in verdicts {
            let tracker = self.setup.tracker.clone();
            let event = match verdict {
                Verdict::Refused(refusal) => {
                    let listed = refusal.is_of_name();
                    warn!(%tracker, content = %id, %refusal, listed, "a content is refused");
                    OwnEvent::Refused(RefusedOwn {
                        tracker,
                        id,
                        refusal,
                    })
                }
                Verdict::Taken => {
                    info!(%tracker, content = %id, "a content that was refused is listed");
                    OwnEvent::Taken { tracker, id }
                }
            };
            // Nobody need listen.
            drop(self.setup.events.send(event));
        }
        Ok(())
    }

    /// Does what is asked for, and what else is by then: NEEDs that were asked
    /// for together travel together.
    async fn obey(
        &mut self,
        first: Command,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Outcome<()> {
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Own { id, done } => {
                    let outcome = self.tell_one(&id).await;
                    let failure = outcome.clone().err();
                    drop(done.send(outcome));
                    match failure {
                        Some(TrackerError::Refused { refusal, .. }) if !ends_session(&refusal) => {}
                        Some(error) => return Err(error),
                        None => {}
                    }
                }
                Command::Need(need) => self.ask_for(need).await?,
            }
            if self.needs.has_room() {
                next = commands.try_recv().ok();
            }
        }
        self.flush().await
    }

    /// UPDATE, with all that was credited. Not asked again after a new
    /// registration: a tracker that has forgotten this peer has forgotten how
    /// it called the others.
    async fn report(&mut self) -> Outcome<()> {
        while let Some(token) = self.token {
            let uploads = self.setup.state.take_credits(self.setup.index);
            if uploads.is_empty() {
                break;
            }
            match self
                .request(&TrackerRequest::Update { token, uploads })
                .await?
            {
                TrackerReply::Done => {}
                TrackerReply::Refused(Refusal::UnknownToken) => return self.register().await,
                other => return Err(self.refused(other)),
            }
        }
        Ok(())
    }

    /// Tells the tracker that this peer leaves, if it ever came.
    async fn say_farewell(&mut self) -> Outcome<()> {
        if self.token.is_some() && self.connection.is_none() {
            self.open().await?;
        }
        self.report().await?;
        if let Some(token) = self.token {
            self.request(&TrackerRequest::Exit { token }).await?;
        }
        if let Some(mut connection) = self.connection.take() {
            let closed = connection.sink.close().await;
            closed.map_err(|source| self.unreachable(source))?;
        }
        Ok(())
    }

    /// Asks with the token; if it has been forgotten, registers and asks once
    /// more.
    async fn ask(&mut self, request: impl Fn(Token) -> TrackerRequest) -> Outcome<TrackerReply> {
        for last in [false, true] {
            let Some(token) = self.token else {
                self.register().await?;
                continue;
            };
            match self.request(&request(token)).await? {
                TrackerReply::Refused(Refusal::UnknownToken) if !last => self.register().await?,
                reply => return Ok(reply),
            }
        }
        Err(self.unexpected())
    }

    async fn request(&mut self, request: &TrackerRequest) -> Outcome<TrackerReply> {
        self.settle().await?;
        let frame = request.encode().map_err(TrackerError::Invalid)?;
        let Some(connection) = &mut self.connection else {
            return Err(self.unreachable(TransportError::Closed));
        };
        let patience = self.setup.config.request_timeout;
        let exchange = async {
            connection.sink.send(frame).await?;
            let reply = connection.stream.next().await;
            reply.unwrap_or(Err(TransportError::Closed))
        };
        let exchanged = timeout(patience, exchange).await;
        let frame = self.in_time(exchanged)?;
        TrackerReply::decode(frame).map_err(|source| TrackerError::Protocol {
            tracker: self.setup.tracker.clone(),
            source,
        })
    }

    /// What a reply means that is not the one hoped for.
    pub(super) fn refused(&self, reply: TrackerReply) -> TrackerError {
        match reply {
            TrackerReply::Refused(refusal) => TrackerError::Refused {
                tracker: self.setup.tracker.clone(),
                refusal,
            },
            _ => self.unexpected(),
        }
    }

    pub(super) fn unexpected(&self) -> TrackerError {
        TrackerError::Unexpected {
            tracker: self.setup.tracker.clone(),
        }
    }

    pub(super) fn unreachable(&self, source: TransportError) -> TrackerError {
        TrackerError::Unreachable {
            tracker: self.setup.tracker.clone(),
            source,
        }
    }

    pub(super) fn timed_out(&self) -> TrackerError {
        TrackerError::TimedOut {
            tracker: self.setup.tracker.clone(),
        }
    }
}

/// Reports are not sent more often than this, whatever is configured.
const MIN_REPORT: Duration = Duration::from_millis(10);

/// Whether the tracker closes the connection with this refusal, or has said
/// twice that it does not know this peer.
pub(super) fn ends_session(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::UnknownToken | Refusal::Malformed | Refusal::Busy | Refusal::ShuttingDown
    )
}

/// How often a session that waits looks whether it is asked for something.
const LOOK: Duration = Duration::from_millis(50);

/// Returns once a command is waiting.
async fn asked_for(commands: &mpsc::Receiver<Command>) {
    while commands.is_empty() {
        sleep_until(Instant::now() + LOOK).await;
    }
}

/// Fails all commands, as long as the tracker is known to be out of reach.
/// Ends when there will be no more of them.
async fn fail_all(commands: &mut mpsc::Receiver<Command>, error: Option<&TrackerError>) {
    let Some(error) = error else {
        return std::future::pending().await;
    };
    while let Some(command) = commands.recv().await {
        command.fail(error.clone());
    }
}
