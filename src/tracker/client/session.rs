//! The task of one tracker, which owns the connection. NEEDs and OWNs are pipelined
//! ([`pipeline`](super::pipeline)). All other requests are sent one at a time.
//!
//! ```text
//! connect and register ──▶ serve ──▶ say EXIT
//!     ▲        │ failed      │ lost       ▲
//!     └── pause ◀────────────┘            │ told to leave, from anywhere
//! ```

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info, warn};

use super::config::{self, ClientConfig};
use super::connection::TrackerConnection;
use super::error::{Outcome, TrackerError};
use super::events::{OwnEvent, RefusedOwn};
use super::fleet::Fleet;
use super::lately::Lately;
use super::other_family::Registered;
use super::pipeline::{Attempt, Caller, Need, Pipeline, Request, Sent, Waiting};
use super::state::{ClientState, Fill, Verdict};
use crate::content::{ContentId, ContentName};
use crate::protocol::{
    Addr, Frame, OwnEntry, Refusal, RefusedEntry, Token, TrackerReply, TrackerRequest, Zone,
};
use crate::transport::Transport;

/// The shortest interval of heartbeats, whatever the tracker asks for.
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);

/// The shortest interval of reports, whatever is configured.
const MIN_REPORT: Duration = Duration::from_millis(10);

/// How often each tracker of a store is asked the same, at most, if the connection ends before
/// it is answered: once more than once, as one that has shut down may be back by then.
const ROUNDS: usize = 2;

/// How often a session that waits checks whether there is a command.
const COMMAND_CHECK: Duration = Duration::from_millis(50);

/// What the client asks of a session.
pub(super) enum Command {
    /// Announces what the state says about this content, or about all.
    Own {
        id: Option<ContentId>,
        done: Caller,
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
    /// The tracker, or several that know the same.
    pub(super) fleet: Arc<Fleet>,
    /// One of them.
    pub(super) first: Addr,
    pub(super) listen: Option<Addr>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) config: ClientConfig,
    pub(super) state: Arc<ClientState>,
    /// For each tracker, the outcome of the last attempt, or the first success.
    pub(super) status: Arc<watch::Sender<Vec<Option<Outcome<()>>>>>,
    /// How often a tracker was reached after a failure.
    pub(super) recoveries: Arc<watch::Sender<u64>>,
    pub(super) events: broadcast::Sender<OwnEvent>,
    pub(super) leave: CancellationToken,
    pub(super) seed: u64,
    /// The present registration, for the other family of addresses.
    pub(super) registered: watch::Sender<Option<Registered>>,
    /// The tracker was added when the client was running: when it is reached, it may know
    /// what the others do not.
    pub(super) is_late: bool,
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
    /// Where the peer listens, as this tracker is told.
    listen: Option<Addr>,
    registration: Option<Registration>,
    /// When the next heartbeat is due.
    heartbeat: Instant,
    pipeline: Pipeline,
    waiting: Waiting,
    /// A token with which an OWN was sent, and that the tracker has forgotten.
    forgotten: Option<Token>,
    lately: Lately,
    /// Since when callers wait until a content is announced, while one tracker after the other
    /// was lost.
    held_since: Option<Instant>,
    /// Whether anything was answered in this session but a heartbeat.
    was_of_use: bool,
}

impl Session {
    pub(super) fn new(setup: Setup) -> Self {
        let connection = TrackerConnection::new(
            (Arc::clone(&setup.fleet), setup.first.clone()),
            setup.transport.clone(),
            setup.config.request_timeout,
        );
        Self {
            rng: Rng::with_seed(setup.seed),
            connection,
            listen: setup.listen.clone(),
            registration: None,
            heartbeat: Instant::now(),
            pipeline: Pipeline::default(),
            waiting: Waiting::default(),
            forgotten: None,
            lately: Lately::default(),
            held_since: None,
            was_of_use: false,
            setup,
        }
    }

    /// Keeps the tracker up to date until told to leave, and then says EXIT.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.keep_up_to_date(&mut commands).await;
        if self.pipeline.is_waiting() {
            // The next reply would be to another request, and not to EXIT.
            self.connection.abandon();
        }
        // The callers are told at once, before EXIT is said.
        self.fail(&TrackerError::Closed);
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
            let error = match connected {
                Ok(()) => {
                    self.note(Ok(()));
                    if failures > 0 || std::mem::take(&mut self.setup.is_late) {
                        self.setup.recoveries.send_modify(|times| *times += 1);
                    }
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
            let (_, longest) = self.setup.config.backoff;
            // A session that has lasted begins a new series of failures, and so does one of
            // several trackers that was of use: they may be replaced one after the other.
            let was_of_use = std::mem::take(&mut self.was_of_use) && self.setup.fleet.len() > 1;
            let has_lasted = was_of_use || begun.elapsed() >= longest;
            if matches!(reach, Reach::Possible) && has_lasted {
                failures = 0;
            }
            let moves = self.has_next(failures);
            match (moves, &reach) {
                (true, _) => {
                    self.interrupt(&error);
                    reach = Reach::Possible;
                }
                // One that was lost before may be back by now.
                (false, Reach::Possible) if self.setup.fleet.len() > 1 => self.interrupt(&error),
                (false, Reach::Possible) => self.fail(&error),
                (false, Reach::Failed(_)) => {
                    self.note(Err(error.clone()));
                    self.fail(&error);
                }
            }
            self.connection.abandon();
            let pause = match moves {
                true => self.pause_before_next(),
                false => self.pause(&reach, failures),
            };
            failures = failures.saturating_add(1);
            match &error {
                TrackerError::Refused {
                    refusal: Refusal::ShuttingDown,
                    tracker,
                } => info!(%tracker, "the tracker shuts down"),
                // It may be something that the user must act on.
                TrackerError::Refused { tracker, .. } => {
                    warn!(%tracker, %error, pause = ?pause.fixed, "the tracker refuses this peer");
                }
                _ => debug!(%error, pause = ?pause.fixed, "tracker session failed"),
            }
            if !wait(&pause, &self.setup.leave, commands, &reach).await {
                return;
            }
        }
    }

    /// Whether there is another tracker, which knows the same and was not tried yet after
    /// this number of failures in a row.
    fn has_next(&self, failures: u32) -> bool {
        let others = self.setup.fleet.len().saturating_sub(1);
        // If none could be connected to, all were tried.
        self.connection.was_open() && usize::try_from(failures).is_ok_and(|times| times < others)
    }

    /// Keeps what callers wait for, to be asked of another tracker: for as long as one request
    /// may take, and of each of them twice at most, as one that has shut down may be back.
    fn interrupt(&mut self, error: &TrackerError) {
        let (now, patience) = (Instant::now(), self.setup.config.request_timeout);
        let most = ROUNDS * self.setup.fleet.len();
        let unanswered = self.pipeline.interrupt(now, (most, patience), error);
        self.setup.state.untold_again(self.setup.index, unanswered);
        if !self.waiting.is_any() {
            self.held_since = None;
        } else if *self.held_since.get_or_insert(now) + patience <= now {
            self.waiting.fail(error);
            self.held_since = None;
        }
    }

    /// Whether somebody waits for an answer.
    fn is_asked(&self) -> bool {
        self.pipeline.has_repeats() || self.waiting.is_any()
    }

    /// How long to wait before another tracker of the store is used. Clients that have lost
    /// one come to the others one by one, but each before its next heartbeat is due.
    fn pause_before_next(&mut self) -> Pause {
        let due = self.heartbeat.saturating_duration_since(Instant::now());
        let spread = self.setup.config.return_spread.min(due);
        Pause {
            fixed: Duration::ZERO,
            spread: match self.is_asked() {
                true => Duration::ZERO,
                false => spread.mul_f64(self.rng.f64()),
            },
        }
    }

    /// Tells all callers that an error has ended what they wait for.
    fn fail(&mut self, error: &TrackerError) {
        let unanswered = self.pipeline.fail(error);
        self.setup.state.untold_again(self.setup.index, unanswered);
        self.waiting.fail(error);
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
        self.resolve_listen().await;
        self.register().await
    }

    /// Looks up where the peer listens, if that is a name: a tracker can compare only an
    /// IP with where the peer speaks from. An address of the family in which the tracker
    /// was reached is preferred.
    async fn resolve_listen(&mut self) {
        let Some(listen) = self.setup.listen.as_ref() else {
            return;
        };
        if listen.socket_addr().is_some() {
            return;
        }
        let resolve = self.setup.transport.resolve(listen);
        let found = match timeout(self.setup.config.request_timeout, resolve).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return warn!(%listen, %error, "the advertised name has no address"),
            Err(_) => return warn!(%listen, "the advertised name was not looked up in time"),
        };
        let is_v6 = |addr: &Addr| addr.socket_addr().is_some_and(|addr| addr.is_ipv6());
        let over_v6 = self.connection.remote().is_some_and(is_v6);
        let fits = found.iter().find(|addr| is_v6(addr) == over_v6);
        self.listen = fits.or(found.first()).cloned();
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
                spread: match self.is_asked() {
                    true => Duration::ZERO,
                    false => return_spread.mul_f64(self.rng.f64()),
                },
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
            let owed = self.pipeline.deadline();
            let has_room = self.pipeline.has_room_for_need() && self.waiting.has_room();
            let retry = self.setup.state.next_retry(self.setup.index);
            tokio::select! {
                biased;
                () = leave.cancelled() => return Ok(()),
                () = sleep_until(heartbeat) => self.register().await?,
                _ = reports.tick() => self.report().await?,
                () = sleep_until(retry.unwrap_or(heartbeat)), if retry.is_some() => {
                    self.setup.state.retry(self.setup.index, Instant::now());
                }
                command = commands.recv(), if has_room => match command {
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
                Command::Own { id, done } => self.announced(id, done),
                Command::Need(need) => self.send_need(need, Attempt::First).await?,
            }
            if self.pipeline.has_room_for_need() && self.waiting.has_room() {
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
            listen: self.listen.clone(),
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
        let before = self.registration.replace(registration);
        if before == Some(registration) {
            self.lately.heard(Instant::now());
        } else {
            info!(
                tracker = %self.connection.tracker(),
                epoch = registered.epoch,
                listed = ?registered.listed,
                "registered",
            );
            let listens = self.listen.as_ref().and_then(Addr::socket_addr);
            if registered.listed.is_none() && listens.is_some_and(|addr| addr.port() != 0) {
                let (tracker, listen) = (self.connection.tracker(), &self.listen);
                warn!(%tracker, ?listen, "the tracker reaches this peer over another family of \
                    addresses than it listens at, and does not list it");
            }
            self.announce_again(before, registration);
            self.say_zone().await?;
        }
        let heartbeat = registered.heartbeat.max(MIN_HEARTBEAT);
        self.show_registration(heartbeat);
        // Up to a tenth early, so that peers which began together drift apart.
        self.heartbeat = Instant::now() + heartbeat.mul_f64(1.0 - self.rng.f64() / 10.0);
        Ok(())
    }

    /// What the tracker has forgotten is to be told again.
    fn announce_again(&mut self, before: Option<Registration>, now: Registration) {
        let (state, index) = (&self.setup.state, self.setup.index);
        let lately = self.lately.take();
        // With the same token the store has another history, and lacks the last moments at
        // most. Of other trackers nobody knows that.
        let is_known = before.is_some_and(|before| before.token == now.token);
        let is_known = is_known && self.setup.config.one_store;
        match lately.filter(|_| is_known) {
            Some(lately) => state.untold_again(index, lately),
            None => state.registered_anew(index),
        }
    }

    /// ZONE, if the peer is in one. A tracker that does not know this request refuses it and
    /// closes the connection, and then names owners of all zones alike.
    async fn say_zone(&mut self) -> Outcome<()> {
        let zone = self.setup.config.zone.as_ref().map(Zone::tag);
        let Some((token, zone)) = self.token().zip(zone) else {
            return Ok(());
        };
        let request = TrackerRequest::Zone { token, zone };
        match self.connection.request(&request).await? {
            TrackerReply::Done => Ok(()),
            TrackerReply::Refused(Refusal::Malformed) => {
                debug!(tracker = %self.connection.tracker(), "the tracker knows no zones");
                self.connection.abandon();
                self.connection.open().await
            }
            other => Err(self.connection.refused(other)),
        }
    }

    /// Tells the task of the other family of addresses.
    fn show_registration(&self, heartbeat: Duration) {
        let token = self.token();
        let registered = token
            .zip(self.connection.remote())
            .map(|(token, remote)| Registered {
                token,
                tracker: self.connection.tracker().clone(),
                remote: remote.clone(),
                identity: self.connection.identity(),
                heartbeat,
            });
        self.setup.registered.send_if_modified(|shown| {
            let changed = *shown != registered;
            *shown = registered;
            changed
        });
    }

    fn token(&self) -> Option<Token> {
        self.registration.map(|registration| registration.token)
    }

    /// Announces what the tracker has not been told yet: as much as may be under way.
    async fn announce_untold(&mut self) -> Outcome<()> {
        let mut attempt = Attempt::First;
        if let Some(forgotten) = self.forgotten.take() {
            if self.token() == Some(forgotten) {
                self.register().await?;
            }
            attempt = Attempt::Second;
        }
        let mut any = false;
        while self.pipeline.has_room_for_own() {
            let fill = match self.pipeline.is_announcing() {
                true => Fill::Full,
                false => Fill::Any,
            };
            let entries = self.setup.state.take_untold(self.setup.index, fill);
            if entries.is_empty() {
                break;
            }
            any = true;
            let count = entries.len();
            let span = debug_span!("announce", request = "OWN", entries = count);
            self.send_own(entries, attempt).instrument(span).await?;
        }
        match any {
            true => self.connection.flush().await,
            false => Ok(()),
        }
    }

    /// Sends an OWN without waiting for the answer.
    async fn send_own(&mut self, entries: Vec<OwnEntry>, attempt: Attempt) -> Outcome<()> {
        let sent = match self.token() {
            Some(token) => {
                let entries = entries.clone();
                let request = TrackerRequest::Own { token, entries };
                self.connection.feed(&request).await.map(|()| token)
            }
            None => Err(self.connection.unexpected()),
        };
        match sent {
            Ok(token) => {
                self.sent(Request::Own(entries), token, attempt);
                Ok(())
            }
            Err(error) => {
                self.setup.state.untold_again(self.setup.index, entries);
                Err(error)
            }
        }
    }

    /// Notes that a request is under way.
    fn sent(&mut self, request: Request, token: Token, attempt: Attempt) {
        let deadline = Instant::now() + self.setup.config.request_timeout;
        self.pipeline.push(Sent {
            request,
            token,
            deadline,
            attempt,
        });
    }

    /// Tells a caller when a content is announced, or all are.
    fn announced(&mut self, id: Option<ContentId>, caller: Caller) {
        self.waiting.push(id, caller);
        match id {
            Some(id) => self.tell_announced(&id),
            None => self.tell_all_announced(),
        }
    }

    /// Tells those who wait for a content, if it is announced as it is by now.
    fn tell_announced(&mut self, id: &ContentId) {
        let (state, index) = (&self.setup.state, self.setup.index);
        if !self.waiting.is_for(id) || !state.is_told(index, id) || self.pipeline.announces(id) {
            return;
        }
        let outcome = match state.unlisted(index, id) {
            Some(refusal) => Err(self.connection.refused(TrackerReply::Refused(refusal))),
            None => Ok(()),
        };
        self.waiting.tell(id, &outcome);
    }

    fn tell_all_announced(&mut self) {
        if !self.pipeline.is_announcing() && self.setup.state.is_all_told(self.setup.index) {
            self.waiting.tell_all();
        }
    }

    /// Takes the answer to an OWN. The entries count as told, even if some of them are
    /// refused.
    fn own_answered(
        &mut self,
        entries: Vec<OwnEntry>,
        (token, attempt): (Token, Attempt),
        reply: TrackerReply,
    ) -> Outcome<()> {
        let (index, now) = (self.setup.index, Instant::now());
        let refused = match reply {
            TrackerReply::Done => Vec::new(),
            TrackerReply::Partly(refused) => refused,
            TrackerReply::Refused(Refusal::UnknownToken) if attempt == Attempt::First => {
                self.setup.state.untold_again(index, entries);
                self.forgotten = Some(token);
                return Ok(());
            }
            TrackerReply::Refused(refusal) if !ends_session(&refusal) => {
                let each = (0..entries.len() as u16).map(|at| RefusedEntry {
                    at,
                    refusal: refusal.clone(),
                });
                each.collect()
            }
            other => {
                self.setup.state.untold_again(index, entries);
                return Err(self.connection.refused(other));
            }
        };
        (self.held_since, self.was_of_use) = (None, true);
        let pauses = self.setup.config.own_retry;
        let rng = &mut self.rng;
        let pause = |times| config::pause(pauses, times).mul_f64(1.0 - rng.f64() / 2.0);
        self.lately.told(now, &entries);
        let verdicts = self.setup.state.told(index, &entries, &refused, now, pause);
        for (id, name, verdict) in verdicts {
            self.publish(id, name, verdict);
        }
        for entry in &entries {
            self.tell_announced(&entry.id);
        }
        self.tell_all_announced();
        Ok(())
    }

    /// Logs what the tracker has decided about a content, and sends the event.
    fn publish(&self, id: ContentId, name: ContentName, verdict: Verdict) {
        let tracker = self.connection.tracker().clone();
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
            // Nothing is taken out before it can be sent.
            self.receive_owed().await?;
            let uploads = self.setup.state.take_credits(self.setup.index);
            if uploads.is_empty() {
                break;
            }
            let request = TrackerRequest::Update {
                token,
                uploads: uploads.clone(),
            };
            match self.connection.request(&request).await? {
                TrackerReply::Done => {}
                TrackerReply::Refused(Refusal::UnknownToken) => return self.register().await,
                other => {
                    // It was not carried out, and another tracker of the store may do it.
                    let (state, index) = (&self.setup.state, self.setup.index);
                    state.give_back_credits(index, uploads);
                    return Err(self.connection.refused(other));
                }
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

    /// Sends a request and waits for its reply, after those to all that were sent before.
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
                self.sent(Request::Need(need), token, attempt);
                Ok(())
            }
            Err(error) => {
                self.ask_next(need, &error);
                Err(error)
            }
        }
    }

    /// Keeps a NEED whose session ends with this error for another tracker, if there is one,
    /// and tells its caller otherwise.
    fn ask_next(&mut self, mut need: Need, error: &TrackerError) {
        let trackers = self.setup.fleet.len();
        // Those that refuse have answered, and each is asked once.
        let rounds = match error {
            TrackerError::Refused { refusal, .. } if *refusal != Refusal::ShuttingDown => 1,
            _ => ROUNDS,
        };
        let within = (rounds * trackers, self.setup.config.request_timeout);
        match trackers > 1 && need.goes_on(Instant::now(), within) {
            // No tracker has forgotten this token.
            true => self.pipeline.repeat(need, Token([0; 16])),
            false => need.finish(Err(error.clone())),
        }
    }

    /// Takes the answer to what was sent first, and tells its caller.
    ///
    /// # Errors
    /// The error after which the connection must be given up.
    fn answered(&mut self, frame: Frame) -> Outcome<()> {
        let Some(sent) = self.pipeline.pop() else {
            // A tracker that has no room, or ends, says so without being asked.
            return Err(match TrackerReply::decode(frame) {
                Ok(TrackerReply::Refused(refusal)) if ends_session(&refusal) => {
                    self.connection.refused(TrackerReply::Refused(refusal))
                }
                _ => self.connection.unexpected(),
            });
        };
        let reply = TrackerReply::decode(frame).map_err(|source| TrackerError::Protocol {
            tracker: self.connection.tracker().clone(),
            source,
        });
        match (sent.request, reply) {
            (Request::Need(need), reply) => {
                self.need_answered(need, (sent.token, sent.attempt), reply)
            }
            (Request::Own(entries), Ok(reply)) => {
                self.own_answered(entries, (sent.token, sent.attempt), reply)
            }
            (Request::Own(entries), Err(error)) => {
                self.setup.state.untold_again(self.setup.index, entries);
                Err(error)
            }
        }
    }

    fn need_answered(
        &mut self,
        need: Need,
        (token, attempt): (Token, Attempt),
        reply: Outcome<TrackerReply>,
    ) -> Outcome<()> {
        let error = match reply {
            Ok(TrackerReply::Found(mut found)) => {
                if let Some(remote) = self.connection.remote() {
                    // What is on the same link as the tracker is reached over it.
                    for owner in &mut found.owners {
                        owner.addr = owner.addr.scoped_as(remote);
                    }
                }
                self.setup
                    .state
                    .remember_owners(self.setup.index, &found.owners);
                need.finish(Ok(found));
                self.was_of_use = true;
                return Ok(());
            }
            Ok(TrackerReply::Ambiguous(candidates)) => TrackerError::Ambiguous { candidates },
            Ok(TrackerReply::Refused(Refusal::UnknownToken)) if attempt == Attempt::First => {
                self.pipeline.repeat(need, token);
                return Ok(());
            }
            Ok(other) => self.connection.refused(other),
            Err(error) => error,
        };
        let goes_on = match &error {
            TrackerError::Ambiguous { .. } => true,
            TrackerError::Refused { refusal, .. } => !ends_session(refusal),
            _ => false,
        };
        match goes_on {
            true => {
                need.finish(Err(error));
                self.was_of_use = true;
                Ok(())
            }
            false => {
                self.ask_next(need, &error);
                Err(error)
            }
        }
    }

    /// Waits for the answers to all that was sent, before something else is sent.
    async fn receive_owed(&mut self) -> Outcome<()> {
        if !self.pipeline.is_waiting() {
            return Ok(());
        }
        self.connection.flush().await?;
        while let Some(deadline) = self.pipeline.deadline() {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.connection.next_within(left).await?;
            self.answered(frame)?;
        }
        Ok(())
    }

    /// Sends those NEEDs again whose token the tracker had forgotten, after one
    /// registration for all of them.
    async fn repeat_needs(&mut self) -> Outcome<()> {
        let Some(forgotten) = self.pipeline.forgotten_token() else {
            return Ok(());
        };
        if self.token().is_none_or(|token| token == forgotten) {
            self.register().await?;
        }
        while let Some(need) = self.pipeline.pop_repeat() {
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
