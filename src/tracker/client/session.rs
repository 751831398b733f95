//! The task of one tracker, which owns the connection. NEEDs are pipelined
//! ([`needs`](super::needs)). All other requests are sent one at a time.
//!
//! ```text
//! connect and register ──▶ serve ──▶ say EXIT
//!     ▲        │ failed      │ lost       ▲
//!     └── pause ◀────────────┘            │ told to leave, from anywhere
//! ```

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info, warn};

use super::config::{self, ClientConfig};
use super::connection::TrackerConnection;
use super::error::{Outcome, TrackerError};
use super::events::{OwnEvent, RefusedOwn};
use super::needs::{Attempt, Need, NeedQueue, SentNeed};
use super::state::{ClientState, Verdict};
use crate::content::{ContentId, ContentName};
use crate::protocol::{
    Addr, Frame, OwnEntry, Refusal, RefusedEntry, Token, TrackerReply, TrackerRequest,
};
use crate::transport::Transport;

/// The shortest interval of heartbeats, whatever the tracker asks for.
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);

/// The shortest interval of reports, whatever is configured.
const MIN_REPORT: Duration = Duration::from_millis(10);

/// How often a session that waits checks whether there is a command.
const COMMAND_CHECK: Duration = Duration::from_millis(50);

/// What the client asks of a session.
pub(super) enum Command {
    /// Announces what the state says about this content.
    Own {
        id: ContentId,
        done: oneshot::Sender<Outcome<()>>,
    },
    Need(Need),
}

impl Command {
    /// Tells the caller, unless it no longer waits.
    fn fail(self, error: TrackerError) {
        match self {
            Self::Own { done, .. } => drop(done.send(Err(error))),
            Self::Need(need) => need.finish(Err(error)),
        }
    }
}

/// What a session is made of.
pub(super) struct Setup {
    /// The number of the tracker in the state and the status.
    pub(super) index: usize,
    pub(super) tracker: Addr,
    pub(super) listen: Option<Addr>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) config: ClientConfig,
    pub(super) state: Arc<ClientState>,
    /// For each tracker, the outcome of the last attempt, or the first success.
    pub(super) status: Arc<watch::Sender<Vec<Option<Outcome<()>>>>>,
    pub(super) events: broadcast::Sender<OwnEvent>,
    pub(super) leave: CancellationToken,
    pub(super) seed: u64,
}

/// What a tracker has answered to REGISTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registration {
    token: Token,
    /// Which start of the tracker the token is from.
    epoch: u64,
}

/// The result of the last attempt to connect.
enum Reach {
    /// There was none yet, or it has succeeded.
    Possible,
    /// It has failed. Commands fail with this error until the next success.
    Failed(TrackerError),
}

/// A pause between two attempts.
struct Pause {
    /// This part is always waited.
    fixed: Duration,
    /// This part ends early when there is a command.
    spread: Duration,
}

/// The task of one tracker.
pub(super) struct Session {
    setup: Setup,
    rng: Rng,
    connection: TrackerConnection,
    registration: Option<Registration>,
    /// When the next heartbeat is due.
    heartbeat: Instant,
    needs: NeedQueue,
}

impl Session {
    pub(super) fn new(setup: Setup) -> Self {
        let connection = TrackerConnection::new(
            setup.tracker.clone(),
            setup.transport.clone(),
            setup.config.request_timeout,
        );
        Self {
            rng: Rng::with_seed(setup.seed),
            connection,
            registration: None,
            heartbeat: Instant::now(),
            needs: NeedQueue::default(),
            setup,
        }
    }

    /// Keeps the tracker up to date until told to leave, and then says EXIT.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.keep_up_to_date(&mut commands).await;
        if self.needs.is_waiting() {
            // The next reply would be to a NEED, and not to EXIT.
            self.connection.abandon();
        }
        // The callers are told at once, before EXIT is said.
        self.needs.fail(&TrackerError::Closed);
        commands.close();
        while let Ok(command) = commands.try_recv() {
            command.fail(TrackerError::Closed);
        }
        if let Err(error) = self.say_exit().await {
            debug!(%error, "could not say EXIT");
        }
    }

    /// Connects and serves, again and again, until told to leave.
    async fn keep_up_to_date(&mut self, commands: &mut mpsc::Receiver<Command>) {
        let mut failures = 0_u32;
        let mut reach = Reach::Possible;
        while let Some(connected) = self.try_connect(commands, &reach).await {
            let begun = Instant::now();
            self.note(connected.clone());
            let error = match connected {
                Ok(()) => {
                    reach = Reach::Possible;
                    match self.serve(commands).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => {
                    reach = Reach::Failed(error.clone());
                    error
                }
            };
            self.needs.fail(&error);
            self.connection.abandon();
            let (_, longest) = self.setup.config.backoff;
            // A session that has lasted begins a new series of failures.
            if matches!(reach, Reach::Possible) && begun.elapsed() >= longest {
                failures = 0;
            }
            let pause = self.pause(&reach, failures);
            failures = failures.saturating_add(1);
            // A refusal may be something that the user must act on.
            if matches!(error, TrackerError::Refused { .. }) {
                let tracker = &self.setup.tracker;
                warn!(%tracker, %error, pause = ?pause.fixed, "the tracker refuses this peer");
            } else {
                debug!(%error, pause = ?pause.fixed, "tracker session failed");
            }
            if !wait(&pause, &self.setup.leave, commands, &reach).await {
                return;
            }
        }
    }

    /// Connects and registers. Meanwhile commands fail, if the last attempt has
    /// failed. Returns `None` when told to leave.
    async fn try_connect(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        reach: &Reach,
    ) -> Option<Outcome<()>> {
        let leave = self.setup.leave.clone();
        let connected = tokio::select! {
            biased;
            () = leave.cancelled() => None,
            connected = self.connect() => Some(connected),
            () = fail_all(commands, reach) => None,
        };
        if connected.is_none() {
            // The reply to REGISTER may still come.
            self.connection.abandon();
        }
        connected
    }

    async fn connect(&mut self) -> Outcome<()> {
        self.connection.open().await?;
        self.register().await
    }

    /// How long to wait after this number of earlier failures in a row.
    fn pause(&mut self, reach: &Reach, failures: u32) -> Pause {
        let ClientConfig {
            backoff,
            return_spread,
            ..
        } = self.setup.config;
        let pause = config::pause(backoff, failures);
        match reach {
            // A peer that was registered has lost the tracker together with
            // others, and must not return at the same time as they do.
            Reach::Failed(_) if self.registration.is_some() => {
                let most = pause.max(return_spread);
                let (first, _) = backoff;
                Pause {
                    fixed: first.max(most.mul_f64(self.rng.f64())),
                    spread: Duration::ZERO,
                }
            }
            Reach::Failed(_) => Pause {
                fixed: pause.mul_f64(1.0 - self.rng.f64() / 2.0),
                spread: Duration::ZERO,
            },
            Reach::Possible => Pause {
                fixed: pause.mul_f64(1.0 - self.rng.f64() / 2.0),
                spread: return_spread.mul_f64(self.rng.f64()),
            },
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

    /// Does what there is to do until told to leave (`Ok`) or until the
    /// connection must be given up.
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Outcome<()> {
        let leave = self.setup.leave.clone();
        let mut reports = interval(self.setup.config.report_interval.max(MIN_REPORT));
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.repeat_needs().await?;
            self.announce_untold().await?;
            let heartbeat = self.heartbeat;
            let owed = self.needs.deadline();
            let retry = self.setup.state.next_retry(self.setup.index);
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
                // If no answer is owed, a frame is an error.
                frame = self.connection.next() => {
                    let frame = frame?;
                    self.answered(frame)?;
                }
                () = sleep_until(owed.unwrap_or(heartbeat)), if owed.is_some() => {
                    return Err(self.connection.timed_out());
                }
            }
        }
    }

    /// Obeys a command and all others that are there by then, so that NEEDs which
    /// were asked for together travel together.
    async fn obey(
        &mut self,
        first: Command,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Outcome<()> {
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Own { id, done } => {
                    let outcome = self.announce_one(&id).await;
                    let failure = outcome.clone().err();
                    drop(done.send(outcome));
                    match failure {
                        Some(TrackerError::Refused { refusal, .. }) if !ends_session(&refusal) => {}
                        Some(error) => return Err(error),
                        None => {}
                    }
                }
                Command::Need(need) => self.send_need(need, Attempt::First).await?,
            }
            if self.needs.has_room() {
                next = commands.try_recv().ok();
            }
        }
        self.connection.flush().await
    }

    /// REGISTER, which is the heartbeat as well.
    async fn register(&mut self) -> Outcome<()> {
        if self.setup.state.must_renew(self.setup.index) {
            self.registration = None;
        }
        let request = TrackerRequest::Register {
            listen: self.setup.listen.clone(),
            token: self.token(),
        };
        let registered = match self.request(&request).await? {
            TrackerReply::Registered(registered) => registered,
            other => return Err(self.connection.refused(other)),
        };
        let registration = Registration {
            token: registered.token,
            epoch: registered.epoch,
        };
        // A tracker that started again has forgotten everything, even if it still
        // accepts the token.
        if self.registration != Some(registration) {
            info!(
                tracker = %self.setup.tracker,
                epoch = registered.epoch,
                listed = ?registered.listed,
                "registered",
            );
            self.setup.state.registered_anew(self.setup.index);
            self.registration = Some(registration);
        }
        let heartbeat = registered.heartbeat.max(MIN_HEARTBEAT);
        // Up to a tenth early, so that peers which began together drift apart.
        self.heartbeat = Instant::now() + heartbeat.mul_f64(1.0 - self.rng.f64() / 10.0);
        Ok(())
    }

    fn token(&self) -> Option<Token> {
        self.registration.map(|registration| registration.token)
    }

    /// Announces everything that the tracker has not been told yet.
    async fn announce_untold(&mut self) -> Outcome<()> {
        loop {
            let entries = self.setup.state.untold(self.setup.index);
            if entries.is_empty() {
                return Ok(());
            }
            let span = debug_span!("announce", request = "OWN", entries = entries.len());
            self.announce(&entries).instrument(span).await?;
        }
    }

    /// Announces one content, together with everything else that the tracker
    /// has not been told yet.
    async fn announce_one(&mut self, id: &ContentId) -> Outcome<()> {
        self.announce_untold().await?;
        match self.setup.state.unlisted(self.setup.index, id) {
            Some(refusal) => Err(self.connection.refused(TrackerReply::Refused(refusal))),
            None => Ok(()),
        }
    }

    /// OWN. The entries count as told, even if some of them are refused.
    async fn announce(&mut self, entries: &[OwnEntry]) -> Outcome<()> {
        let request = |token| TrackerRequest::Own {
            token,
            entries: entries.to_vec(),
        };
        let refused = match self.request_with_token(request).await? {
            TrackerReply::Done => Vec::new(),
            TrackerReply::Partly(refused) => refused,
            TrackerReply::Refused(refusal) if !ends_session(&refusal) => {
                let each = (0..entries.len() as u16).map(|at| RefusedEntry {
                    at,
                    refusal: refusal.clone(),
                });
                each.collect()
            }
            other => return Err(self.connection.refused(other)),
        };
        let pauses = self.setup.config.own_retry;
        let rng = &mut self.rng;
        let pause = |times| config::pause(pauses, times).mul_f64(1.0 - rng.f64() / 2.0);
        let (index, now) = (self.setup.index, Instant::now());
        let verdicts = self.setup.state.told(index, entries, &refused, now, pause);
        for (id, name, verdict) in verdicts {
            self.publish(id, name, verdict);
        }
        Ok(())
    }

    /// Logs what the tracker has decided about a content, and sends the event.
    fn publish(&self, id: ContentId, name: ContentName, verdict: Verdict) {
        let tracker = self.setup.tracker.clone();
        let event = match verdict {
            Verdict::Refused(refusal) => {
                let listed = refusal.is_of_name();
                warn!(%tracker, content = %id, %name, %refusal, listed, "the tracker refuses a content");
                OwnEvent::Refused(RefusedOwn {
                    tracker,
                    id,
                    name,
                    refusal,
                })
            }
            Verdict::Taken => {
                info!(%tracker, content = %id, %name, "the tracker lists a content that it had refused");
                OwnEvent::Taken { tracker, id, name }
            }
        };
        // Sending fails if there is no receiver, which is fine.
        drop(self.setup.events.send(event));
    }

    /// UPDATE, with all credits. It is not sent again after a new registration,
    /// because a tracker that has forgotten this peer has also forgotten its
    /// references to the others.
    async fn report(&mut self) -> Outcome<()> {
        while let Some(token) = self.token() {
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
                other => return Err(self.connection.refused(other)),
            }
        }
        Ok(())
    }

    /// Reports the last credits and says EXIT, if this peer was registered.
    async fn say_exit(&mut self) -> Outcome<()> {
        if self.registration.is_some() && !self.connection.is_open() {
            self.connection.open().await?;
        }
        self.report().await?;
        if let Some(token) = self.token() {
            self.request(&TrackerRequest::Exit { token }).await?;
        }
        self.connection.close().await
    }

    /// Sends a request with the token and waits for its reply. If the tracker has
    /// forgotten the token, registers and tries once more.
    async fn request_with_token(
        &mut self,
        request: impl Fn(Token) -> TrackerRequest,
    ) -> Outcome<TrackerReply> {
        for attempt in [Attempt::First, Attempt::Second] {
            let Some(token) = self.token() else {
                self.register().await?;
                continue;
            };
            match self.request(&request(token)).await? {
                TrackerReply::Refused(Refusal::UnknownToken) if attempt == Attempt::First => {
                    self.register().await?;
                }
                reply => return Ok(reply),
            }
        }
        Err(self.connection.unexpected())
    }

    /// Sends a request and waits for its reply, after those to all NEEDs.
    async fn request(&mut self, request: &TrackerRequest) -> Outcome<TrackerReply> {
        self.receive_owed().await?;
        self.connection.request(request).await
    }

    /// Sends a NEED without waiting for the answer. It is under way once the
    /// connection is flushed.
    async fn send_need(&mut self, need: Need, attempt: Attempt) -> Outcome<()> {
        if need.done.is_closed() {
            return Ok(());
        }
        let sent = match self.token() {
            Some(token) => {
                let request = TrackerRequest::Need {
                    token,
                    key: need.key.clone(),
                    max_owners: need.max_owners,
                };
                let span = debug_span!("announce", request = "NEED", key = %need.key);
                let fed = self.connection.feed(&request).instrument(span).await;
                fed.map(|()| token)
            }
            None => Err(self.connection.unexpected()),
        };
        match sent {
            Ok(token) => {
                let deadline = Instant::now() + self.setup.config.request_timeout;
                self.needs.push(SentNeed {
                    need,
                    token,
                    deadline,
                    attempt,
                });
                Ok(())
            }
            Err(error) => {
                need.finish(Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Takes the answer to the NEED that was sent first, and tells its caller.
    ///
    /// # Errors
    /// The error after which the connection must be given up.
    fn answered(&mut self, frame: Frame) -> Outcome<()> {
        let Some(sent) = self.needs.pop() else {
            return Err(self.connection.unexpected());
        };
        let error = match TrackerReply::decode(frame) {
            Ok(TrackerReply::Found(found)) => {
                self.setup
                    .state
                    .remember_owners(self.setup.index, &found.owners);
                sent.need.finish(Ok(found));
                return Ok(());
            }
            Ok(TrackerReply::Ambiguous(candidates)) => TrackerError::Ambiguous { candidates },
            Ok(TrackerReply::Refused(Refusal::UnknownToken)) if sent.attempt == Attempt::First => {
                self.needs.repeat(sent);
                return Ok(());
            }
            Ok(other) => self.connection.refused(other),
            Err(source) => TrackerError::Protocol {
                tracker: self.setup.tracker.clone(),
                source,
            },
        };
        sent.need.finish(Err(error.clone()));
        match &error {
            TrackerError::Ambiguous { .. } => Ok(()),
            TrackerError::Refused { refusal, .. } if !ends_session(refusal) => Ok(()),
            _ => Err(error),
        }
    }

    /// Waits for the answers to all NEEDs, before something else is sent.
    async fn receive_owed(&mut self) -> Outcome<()> {
        if !self.needs.is_waiting() {
            return Ok(());
        }
        self.connection.flush().await?;
        while let Some(deadline) = self.needs.deadline() {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.connection.next_within(left).await?;
            self.answered(frame)?;
        }
        Ok(())
    }

    /// Sends those NEEDs again whose token the tracker had forgotten, after one
    /// registration for all of them.
    async fn repeat_needs(&mut self) -> Outcome<()> {
        let Some(forgotten) = self.needs.forgotten_token() else {
            return Ok(());
        };
        if self.token().is_none_or(|token| token == forgotten) {
            self.register().await?;
        }
        while let Some(need) = self.needs.pop_repeat() {
            self.send_need(need, Attempt::Second).await?;
        }
        self.connection.flush().await
    }
}

/// Whether the tracker closes the connection after this refusal, or has refused
/// the token of a new registration.
fn ends_session(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::UnknownToken | Refusal::Malformed | Refusal::Busy | Refusal::ShuttingDown
    )
}

/// Waits for a pause. Meanwhile commands fail, if the last attempt has failed.
/// Returns `false` when told to leave.
async fn wait(
    pause: &Pause,
    leave: &CancellationToken,
    commands: &mut mpsc::Receiver<Command>,
    reach: &Reach,
) -> bool {
    tokio::select! {
        biased;
        () = leave.cancelled() => return false,
        () = sleep_until(Instant::now() + pause.fixed) => {}
        () = fail_all(commands, reach) => return false,
    }
    tokio::select! {
        biased;
        () = leave.cancelled() => false,
        () = sleep_until(Instant::now() + pause.spread) => true,
        () = command_waiting(commands), if !pause.spread.is_zero() => true,
    }
}

/// Returns once a command is waiting.
async fn command_waiting(commands: &mpsc::Receiver<Command>) {
    while commands.is_empty() {
        sleep_until(Instant::now() + COMMAND_CHECK).await;
    }
}

/// Fails all commands, if the last attempt has failed. Ends when there will be no
/// more commands.
async fn fail_all(commands: &mut mpsc::Receiver<Command>, reach: &Reach) {
    let Reach::Failed(error) = reach else {
        return std::future::pending().await;
    };
    while let Some(command) = commands.recv().await {
        command.fail(error.clone());
    }
}
