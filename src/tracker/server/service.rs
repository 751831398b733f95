//! What all tasks of a tracker share.

use std::borrow::Cow;
#[cfg(feature = "bittorrent")]
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::admission::Admission;
use super::permission::{Permission, ask};
use super::recording::{count_refusal, count_refused_reply, count_reply, kind_of};
use super::registrations::{Part, Registrations};
use super::token_binding::{TOKEN_IN_REPLY, TokenBinding};
#[cfg(feature = "bittorrent")]
use super::torrents::Pace;
use crate::access::{AccessGate, Verdict, Who};
use crate::metrics::{self, Timer};
use crate::protocol::limits::MAX_OWNERS;
use crate::protocol::{Addr, Refusal, Token, TrackerReply, TrackerRequest};
use crate::tracker::batch::{self, Replies};
use crate::tracker::registry::{Permits, RegistryStats, ReplyWriter};
use crate::tracker::store::Store;
use crate::transport::{Connection, Membership, TransportError, Whereabouts};

/// How long a stopping tracker gives its connections to write pending replies.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The first and the longest pause after accepting has failed, so that a lasting
/// error (no more file descriptors, say) costs next to nothing.
pub(super) const ACCEPT_PAUSES: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(1));

/// The usual length of a reply without owners, and of each owner, in bytes.
const REPLY_LEN: usize = 96;
const OWNER_LEN: usize = 16;

/// Who asks, and where: what a connection tells of it.
pub(super) struct Asker {
    /// Who it was when the connection was made.
    first: Who,
    /// Where it is by now.
    pub(super) whereabouts: Whereabouts,
    /// Where the requests reach the tracker.
    local: Option<Addr>,
    /// Tells whether the transport still lets it in.
    membership: Option<Membership>,
}

impl Asker {
    pub(super) fn of(connection: &Connection) -> Self {
        Self {
            first: Who {
                identity: connection.identity,
                remote: connection.remote.clone(),
            },
            whereabouts: connection.whereabouts(),
            local: connection.local.clone(),
            membership: connection.membership(),
        }
    }

    /// Who it is, and where by now.
    pub(super) fn who(&self) -> Cow<'_, Who> {
        match self.whereabouts.may_move() {
            true => Cow::Owned(Who {
                identity: self.first.identity,
                remote: self.whereabouts.now(),
            }),
            false => Cow::Borrowed(&self.first),
        }
    }
}

/// A request, and what of it is permitted.
pub(super) struct Asked<'a> {
    pub(super) request: TrackerRequest,
    who: Cow<'a, Who>,
    permission: Permission,
    /// The state of affairs in which the policy has answered, if there is one.
    generation: Option<(u64, u64)>,
}

/// A reply, and whether the connection ends after it.
pub(super) struct Reply {
    pub(super) head: Vec<u8>,
    pub(super) ends: bool,
}

/// The registry, and what the tasks around it need.
pub(super) struct Service {
    pub(super) registry: Store,
    pub(super) admission: Arc<Admission>,
    /// Who may do what, if that is asked.
    pub(super) access: Option<Arc<AccessGate>>,
    pub(super) registrations: Registrations,
    /// Notified when all registrations have to be asked about.
    pub(super) sweep: Notify,
    tokens: TokenBinding,
    /// Whether the transport promises to tell who is at the other end.
    pub(super) authenticates: bool,
    /// What BitTorrent clients need besides.
    #[cfg(feature = "bittorrent")]
    pub(super) torrents: ForTorrents,
    malformed: AtomicU64,
    shutting_down: AtomicU64,
    denied: AtomicU64,
    /// Who was not let in because the policy could not tell, or has asked too often.
    unsure: AtomicU64,
    /// Notified when a peer has registered, so that a lease may end some day.
    pub(super) registered: Notify,
    /// No more clients are taken, and those who are here are to go. So it is also when the
    /// tracker stops.
    pub(super) draining: CancellationToken,
    pub(super) stop: CancellationToken,
    /// The tasks that end once all clients have gone: connections, and what accepts them.
    pub(super) connections: TaskTracker,
    /// The others, which end when the tracker stops.
    pub(super) tasks: TaskTracker,
    pub(super) started: Instant,
}

/// What is set up for BitTorrent clients.
#[cfg(feature = "bittorrent")]
pub(super) struct ForTorrents {
    pub(super) pace: Pace,
    pub(super) trusted_proxies: Vec<IpAddr>,
    /// How long one who has announced is known.
    pub(super) lease: Duration,
}

impl Service {
    pub(super) fn new(
        registry: Store,
        admission: Admission,
        access: Option<Arc<AccessGate>>,
        (tokens, lease): (TokenBinding, Duration),
        authenticates: bool,
        #[cfg(feature = "bittorrent")] torrents: ForTorrents,
    ) -> Self {
        let stop = CancellationToken::new();
        Self {
            registry,
            admission: Arc::new(admission),
            access,
            registrations: Registrations::new(lease),
            tokens,
            authenticates,
            #[cfg(feature = "bittorrent")]
            torrents,
            malformed: AtomicU64::new(0),
            shutting_down: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            unsure: AtomicU64::new(0),
            sweep: Notify::new(),
            registered: Notify::new(),
            draining: stop.child_token(),
            stop,
            connections: TaskTracker::new(),
            tasks: TaskTracker::new(),
            started: now(),
        }
    }

    /// Checks that the other side is known, if the transport promises that.
    pub(super) fn check(&self, connection: &Connection) -> Result<(), TransportError> {
        Ok(connection.check_identity(self.authenticates)?)
    }

    /// Takes a request about which nobody is asked.
    pub(super) fn unasked<'a>(&self, from: &'a Asker, mut request: TrackerRequest) -> Asked<'a> {
        let who = from.who();
        if let Some(identity) = &who.identity {
            self.tokens.open(identity, &mut request);
        }
        Asked {
            request,
            who,
            permission: Permission::Whole,
            generation: None,
        }
    }

    /// Answers requests that came together on a connection and about which nobody is asked,
    /// in their order, with the heads of frames.
    pub(super) async fn answer_all(
        &self,
        from: &Asker,
        mut requests: Vec<TrackerRequest>,
    ) -> Vec<Bytes> {
        if !requests.is_empty() {
            metrics::observe(metrics::TRACKER_BATCH, requests.len());
        }
        if requests.len() < 2 {
            let mut heads = Vec::new();
            for request in requests {
                let asked = self.unasked(from, request);
                heads.push(self.answer(from, asked).await.head.into());
            }
            return heads;
        }
        let who = from.who();
        if let Some(identity) = &who.identity {
            for request in &mut requests {
                self.tokens.open(identity, request);
            }
        }
        let timer = Timer::start();
        let now = now();
        let asked = |request| batch::Asked {
            source: &who.remote,
            local: from.local.as_ref(),
            request,
        };
        let asked: Vec<batch::Asked<'_>> = requests.iter().map(asked).collect();
        let mut replies = Replies::new();
        self.registry.handle_batch(now, &asked, &mut replies).await;
        for (request, (outcome, reply)) in requests.iter().zip(replies.each_mut()) {
            self.settle((from, &who), now, request, outcome, reply)
                .await;
            self.record(timer, kind_of(request));
        }
        replies.into_each()
    }

    /// Asks what of a request is permitted. Nothing has changed after that, here nor in the
    /// registry.
    ///
    /// Cancel safe.
    pub(super) async fn ask<'a>(&self, from: &'a Asker, request: TrackerRequest) -> Asked<'a> {
        let mut asked = self.unasked(from, request);
        let Some(gate) = &self.access else {
            return asked;
        };
        let Asked { request, who, .. } = &asked;
        let asked_for = async || match request {
            TrackerRequest::Need { key, .. } => self.registry.asked_for(now(), key).await,
            _ => Vec::new(),
        };
        let mut generation = gate.generation();
        let mut permission = ask(gate, who, request, asked_for()).await;
        if gate.generation() != generation {
            // Once more is enough: what changes all the time is swept up.
            generation = gate.generation();
            permission = ask(gate, who, request, asked_for()).await;
        }
        (asked.permission, asked.generation) = (permission, Some(generation));
        asked
    }

    /// Answers a request.
    pub(super) async fn answer(&self, from: &Asker, asked: Asked<'_>) -> Reply {
        let Asked {
            request,
            who,
            permission,
            generation,
        } = asked;
        let permission = match &self.access {
            Some(gate) => self.continued(gate, &who, &request, permission),
            None => permission,
        };
        let head = match (&permission, permission.permits()) {
            (_, Some(permits)) => self.carry_out((from, &who), &request, permits).await,
            (Permission::Unsure, None) => {
                let head = self.refuse(Refusal::Busy);
                return Reply { head, ends: true };
            }
            (_, None) => self.deny(&who, &request).await,
        };
        if let (Some(gate), Some(generation)) = (&self.access, generation)
            && gate.generation() != generation
        {
            // It may be what was swept already.
            self.sweep.notify_one();
        }
        Reply { head, ends: false }
    }

    /// Who is registered goes on for a while if the policy cannot tell, and no longer.
    fn continued(
        &self,
        gate: &AccessGate,
        who: &Who,
        request: &TrackerRequest,
        permission: Permission,
    ) -> Permission {
        let TrackerRequest::Register {
            token: Some(token), ..
        } = request
        else {
            return permission;
        };
        let verdict = match permission {
            Permission::Whole => Verdict::Allowed(tokio::time::Instant::now()),
            Permission::Unsure => Verdict::Unknown,
            other => return other,
        };
        let registration = (token, who);
        let keeps = self
            .registrations
            .keeps(registration, Part::Registered, verdict, gate.grace());
        match permission {
            Permission::Unsure if keeps => Permission::Whole,
            other => other,
        }
    }

    async fn carry_out(
        &self,
        (from, who): (&Asker, &Who),
        request: &TrackerRequest,
        permits: Permits<'_>,
    ) -> Vec<u8> {
        let owners = match request {
            TrackerRequest::Need { max_owners, .. } => (*max_owners).min(MAX_OWNERS),
            _ => 0,
        };
        let timer = Timer::start();
        let mut reply = Vec::with_capacity(REPLY_LEN + OWNER_LEN * usize::from(owners));
        let (now, at) = (now(), (&who.remote, from.local.as_ref()));
        let outcome = self
            .registry
            .handle_permitted(now, at, request, permits, &mut reply)
            .await;
        self.settle(
            (from, who),
            now,
            request,
            outcome.as_ref().copied(),
            &mut reply,
        )
        .await;
        self.record(timer, kind_of(request));
        reply
    }

    /// What follows from a request that the registry has answered.
    async fn settle(
        &self,
        (from, who): (&Asker, &Who),
        now: Instant,
        request: &TrackerRequest,
        outcome: Result<(), &Refusal>,
        reply: &mut [u8],
    ) {
        count_reply(reply);
        if let Err(refusal) = outcome {
            debug!(%refusal, "request refused");
            count_refusal(refusal);
            return;
        }
        if self.access.is_some() || who.identity.is_some() {
            self.note(now, (from, who), request, reply).await;
        }
        if matches!(request, TrackerRequest::Register { .. }) {
            self.registered.notify_one();
            if let Some(identity) = &who.identity {
                self.tokens.seal(identity, reply);
            }
        }
    }

    /// Records an answer, and what the registry holds after it.
    pub(super) fn record(&self, timer: Timer, kind: &'static str) {
        if cfg!(feature = "metrics") {
            metrics::count_as(metrics::TRACKER_REQUESTS, ("kind", kind), 1);
            timer.record_as(metrics::TRACKER_ANSWER, ("kind", kind));
            self.record_counts();
        }
    }

    /// Records what the registry holds.
    pub(super) fn record_counts(&self) {
        if cfg!(feature = "metrics") {
            let [peers, contents, ownerships] = self.registry.counts();
            metrics::set(metrics::TRACKER_PEERS, peers);
            metrics::set(metrics::TRACKER_CONTENTS, contents);
            metrics::set(metrics::TRACKER_OWNERSHIPS, ownerships);
        }
    }

    /// Notes whose registrations there are, after a request that was not refused.
    async fn note(
        &self,
        now: Instant,
        (from, who): (&Asker, &Who),
        request: &TrackerRequest,
        reply: &[u8],
    ) {
        match request {
            TrackerRequest::Register { .. } => {
                let token = reply.get(TOKEN_IN_REPLY);
                if let Some(token) = token.and_then(|token| token.try_into().ok()) {
                    let (token, membership) = (Token(token), from.membership.as_ref());
                    let registered = (who, membership);
                    self.registrations.registered(now, token, registered);
                    // What has changed before is not told any more.
                    if membership.is_some_and(|membership| !membership.is_valid()) {
                        self.forget(&token, who).await;
                    }
                }
            }
            TrackerRequest::RegisterAlso { listen, token } => {
                let from = listen.is_some().then(|| who.remote.clone());
                self.registrations.registered_also(token, from);
            }
            TrackerRequest::Own { token, .. }
            | TrackerRequest::Need { token, .. }
            | TrackerRequest::Update { token, .. }
            | TrackerRequest::Zone { token, .. } => self.registrations.heard(now, token),
            TrackerRequest::Exit { token } => self.registrations.ended(token),
        }
    }

    /// Refuses a whole request, which is a REGISTER. If it was a heartbeat, the
    /// registration ends.
    async fn deny(&self, who: &Who, request: &TrackerRequest) -> Vec<u8> {
        match request {
            TrackerRequest::Register {
                token: Some(token), ..
            } => self.forget(token, who).await,
            TrackerRequest::RegisterAlso { token, .. } => self.forget_also(token, who).await,
            _ => {}
        }
        self.refuse(Refusal::Denied)
    }

    /// Counts the refusal of a request that does not come to the registry, as it is denied,
    /// or cannot be answered now.
    pub(super) fn count_unanswered(&self, refusal: &Refusal) {
        let count = match refusal {
            Refusal::Denied => &self.denied,
            _ => &self.unsure,
        };
        count.fetch_add(1, Ordering::Relaxed);
        count_refusal(refusal);
    }

    /// Refuses a REGISTER that does not come to the registry.
    fn refuse(&self, refusal: Refusal) -> Vec<u8> {
        self.count_unanswered(&refusal);
        let mut reply = Vec::with_capacity(REPLY_LEN);
        ReplyWriter::reply(&mut reply, TrackerReply::Refused(refusal));
        count_reply(&reply);
        reply
    }

    /// Ends what somebody has registered from here over the other family of addresses.
    pub(super) async fn forget_also(&self, token: &Token, who: &Who) {
        self.registrations.registered_also(token, None);
        let nowhere = TrackerRequest::RegisterAlso {
            listen: None,
            token: *token,
        };
        self.carry_out_own(&nowhere, who).await;
    }

    /// Ends a registration, with all that the peer owns.
    pub(super) async fn forget(&self, token: &Token, who: &Who) {
        self.registrations.ended(token);
        let exit = TrackerRequest::Exit { token: *token };
        self.carry_out_own(&exit, who).await;
    }

    /// Does what the tracker itself asks in somebody's place.
    async fn carry_out_own(&self, request: &TrackerRequest, who: &Who) {
        let (from, mut reply) = ((&who.remote, None), Vec::new());
        let store = &self.registry;
        // If the registration is gone already, that is fine.
        let _ = store
            .handle_permitted(now(), from, request, Permits::All, &mut reply)
            .await;
    }

    /// Ends all registrations of somebody.
    pub(super) async fn forget_all(&self, who: &Who) {
        for token in self.registrations.of(who) {
            self.forget(&token, who).await;
        }
    }

    /// Refuses a message that is not a valid request.
    pub(super) fn refuse_malformed(&self) -> TrackerReply {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        metrics::count_as(metrics::TRACKER_REQUESTS, ("kind", "malformed"), 1);
        count_refusal(&Refusal::Malformed);
        count_refused_reply();
        TrackerReply::Refused(Refusal::Malformed)
    }

    /// Refuses a request because the tracker is stopping.
    pub(super) fn refuse_shutting_down(&self) -> TrackerReply {
        self.shutting_down.fetch_add(1, Ordering::Relaxed);
        count_refusal(&Refusal::ShuttingDown);
        count_refused_reply();
        TrackerReply::Refused(Refusal::ShuttingDown)
    }

    /// The counts of the registry, including the refusals of the server.
    pub(super) fn registry_stats(&self) -> RegistryStats {
        let mut stats = self.registry.stats();
        stats.refusals.malformed += self.malformed.load(Ordering::Relaxed);
        stats.refusals.shutting_down += self.shutting_down.load(Ordering::Relaxed);
        stats.refusals.denied += self.denied.load(Ordering::Relaxed);
        stats.refusals.busy += self.admission.refused() + self.unsure.load(Ordering::Relaxed);
        stats
    }
}

/// The time as the runtime has it, which a test may set.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
