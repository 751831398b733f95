//! The registry that is kept in a shared store, as one tracker uses it.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use redis::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::answers::Chooser;
use super::config::{RedisConfig, StoreError, StoreStats};
use super::known::Known;
use super::link::{Link, Lost};
use super::plan::{AT_ONCE, Effects, Plan, Rules, id_of, ids_of_name};
use super::schema::{
    CONTENT_SHARDS, Keys, PEER_SHARD_BITS, PEER_SHARDS, PeerRef, UNMEASURED, entry_of_peer,
};
use super::scripts::{Call, Script};
use super::sweep::keep_sweeping;
use super::values::{bytes, number, parts, text};
use crate::content::{ContentId, ContentName};
use crate::metrics;
use crate::protocol::{
    Addr, ContentKey, Refusal, RefusedEntry, Token, TrackerReply, TrackerRequest,
};
use crate::tracker::batch::{Asked, Replies};
use crate::tracker::registry::{
    Asker, Owned, Permits, RefusalCounts, RegistryConfig, RegistryStats, RequestCounts, Settings,
    TokenIssuer,
};

/// How often a tracker looks after the store: whose lease is over, how much there is, and
/// whether it is still the primary. Short, as nobody is to be listed long after a lease.
const TICK: Duration = Duration::from_secs(1);

/// The first and the longest pause before the store is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How many peers are forgotten, or brought up to date, in the same round trips.
const ROUND: usize = 64;

/// How many reports and farewells wait while the store is away. What more there is is
/// dropped: a report costs an owner a little of its rate, and who leaves unsaid is forgotten
/// after its lease. They take some 10 MB.
const MAX_DEFERRED: usize = 10_000;

/// How many peers wait to be brought up to date in the lists of what they own. Those beyond
/// are listed as they were, until they change again.
const MAX_MOVED: usize = 100_000;

/// How many ids are asked about in one round trip, where there may be very many.
const IDS: usize = 1000;

/// The peers and contents of a store that several trackers share.
#[derive(Debug)]
pub(crate) struct RedisRegistry {
    pub(super) rules: Rules,
    pub(super) link: Link,
    /// What the references of BitTorrent clients are made with.
    #[cfg(feature = "bittorrent")]
    pub(super) announcers: [u8; 32],
    answers_without: Duration,
    known: Mutex<Known>,
    pub(super) rng: Mutex<Rng>,
    pub(super) counts: Mutex<Counts>,
    moved: Mutex<Moved>,
    /// Notified when there is something in `moved`.
    has_moved: Notify,
    deferred: Mutex<VecDeque<Deferred>>,
    sums: Mutex<Sums>,
    /// Until when nobody of each shard of peers is forgotten.
    spared: Mutex<Vec<Option<tokio::time::Instant>>>,
    dropped: AtomicU64,
    answered_without: AtomicU64,
    expired: AtomicU64,
}

/// What this tracker was asked.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: RequestCounts,
    announced: u64,
    pub(super) refusals: RefusalCounts,
}

/// What each shard has had last.
#[derive(Debug)]
struct Sums {
    /// Peers, and what they own.
    peers: [[u64; 2]; PEER_SHARDS as usize],
    /// Contents, and BitTorrent clients, each of which is a peer that owns one content.
    contents: [[u64; 2]; CONTENT_SHARDS as usize],
}

impl Sums {
    /// How many peers, contents and ownerships there are.
    fn totals(&self) -> [u64; 3] {
        let sum = |sums: &[[u64; 2]], at: usize| sums.iter().map(|sum| sum[at]).sum::<u64>();
        let announcers = sum(&self.contents, 1);
        [
            sum(&self.peers, 0) + announcers,
            sum(&self.contents, 0),
            sum(&self.peers, 1) + announcers,
        ]
    }
}

/// Peers whose contents list them as they were, and where to go on with each.
#[derive(Debug, Default)]
struct Moved {
    queue: VecDeque<(PeerRef, String)>,
    /// Those that are in the queue from the beginning.
    fresh: HashSet<PeerRef>,
}

/// A request that is carried out when the store is back.
#[derive(Debug, Clone)]
struct Deferred {
    request: TrackerRequest,
    source: Addr,
    /// The number of its plan, by which the store knows whether it was carried out.
    number: u64,
}

impl RedisRegistry {
    /// Connects to the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn connect(
        config: &RedisConfig,
        registry: RegistryConfig,
    ) -> Result<Self, StoreError> {
        let keys = Keys::new(&config.prefix);
        let link = Link::new(config, keys.clone())?;
        link.connect().await?;
        let seed = getrandom::u64().map_err(|error| StoreError::Unreachable {
            message: error.to_string(),
        })?;
        Ok(Self {
            rules: Rules {
                keys,
                settings: Settings::new(registry.clone(), &config.key, 0, PEER_SHARD_BITS),
                issuer: TokenIssuer::new(&config.key, 0),
                chooser: Chooser::new(registry, &config.key),
            },
            link,
            #[cfg(feature = "bittorrent")]
            announcers: blake3::derive_key("bt_lite 2026 announcers of a store", &config.key),
            answers_without: config.answers_without,
            known: Mutex::default(),
            rng: Mutex::new(Rng::with_seed(seed)),
            counts: Mutex::default(),
            moved: Mutex::default(),
            has_moved: Notify::new(),
            deferred: Mutex::default(),
            sums: Mutex::new(Sums {
                peers: [[0; 2]; PEER_SHARDS as usize],
                contents: [[0; 2]; CONTENT_SHARDS as usize],
            }),
            spared: Mutex::new(vec![None; PEER_SHARDS as usize]),
            dropped: AtomicU64::new(0),
            answered_without: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        })
    }

    /// Answers requests that came together, in their order. Everything is permitted.
    pub(crate) async fn handle_batch(
        &self,
        now: Instant,
        batch: &[Asked<'_>],
        replies: &mut Replies,
    ) {
        replies.clear();
        let mut has_own = false;
        let mut asked = Vec::with_capacity(batch.len());
        for one in batch {
            asked.push((*one, Permits::All, has_own));
            has_own |= matches!(one.request, TrackerRequest::Own { .. });
        }
        for (outcome, reply) in self.carry_out(now, asked).await {
            replies.push(outcome, &reply);
        }
    }

    /// Does what is permitted of one request.
    pub(crate) async fn handle_permitted(
        &self,
        now: Instant,
        (source, local): (&Addr, Option<&Addr>),
        request: &TrackerRequest,
        permits: Permits<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let asked = Asked {
            source,
            local,
            request,
        };
        let answered = self.carry_out(now, vec![(asked, permits, false)]).await;
        let answered = answered.into_iter().next();
        let (outcome, bytes) = answered.unwrap_or((Err(Refusal::Busy), Vec::new()));
        reply.extend_from_slice(&bytes);
        outcome
    }

    async fn carry_out(
        &self,
        now: Instant,
        asked: Vec<(Asked<'_>, Permits<'_>, bool)>,
    ) -> Vec<(Result<(), Refusal>, Vec<u8>)> {
        let plan = |(asked, permits, follows_own)| {
            let number = lock(&self.rng).u64(..);
            Plan::new(&self.rules, asked, permits, (number, follows_own))
        };
        let mut plans: Vec<Plan<'_>> = asked.into_iter().map(plan).collect();
        let lost = self.take_steps(now, &mut plans).await;
        for (plan, _) in plans.iter_mut().zip(lost).filter(|(_, is_lost)| *is_lost) {
            self.end_without(now, plan);
        }
        let ended = plans.into_iter().map(|plan| {
            let (request, entries) = (plan.request(), plan.refused_entries().to_vec());
            let (outcome, reply) = plan.into_reply();
            self.count(request, &outcome, &entries);
            (outcome, reply)
        });
        ended.collect()
    }

    /// Has all plans take their steps together until they are done, or a part of the store
    /// that they need is lost. Returns for which of them it is.
    async fn take_steps(&self, now: Instant, plans: &mut [Plan<'_>]) -> Vec<bool> {
        let mut answers: Vec<Vec<Value>> = vec![Vec::new(); plans.len()];
        let mut lost = vec![false; plans.len()];
        loop {
            let (mut effects, present) = (Effects::default(), self.link.present());
            let (mut calls, mut ends) = (Vec::new(), Vec::with_capacity(plans.len()));
            for ((plan, answers), is_lost) in plans.iter_mut().zip(&answers).zip(&lost) {
                if !plan.is_done() && !is_lost {
                    calls.extend(plan.step(now, &present, answers, &mut effects));
                }
                ends.push(calls.len());
            }
            self.note(effects);
            if calls.is_empty() {
                return lost;
            }
            let mut values = self.link.run(&calls).await.into_iter();
            let mut from = 0;
            for ((answers, end), is_lost) in answers.iter_mut().zip(ends).zip(&mut lost) {
                let of_plan: Vec<_> = values.by_ref().take(end - from).collect();
                let of_plan: Result<_, Lost> = of_plan.into_iter().collect();
                *is_lost |= of_plan.is_err();
                *answers = of_plan.unwrap_or_default();
                from = end;
            }
        }
    }

    fn note(&self, effects: Effects) {
        if !effects.drawn.is_empty() {
            let mut known = lock(&self.known);
            for (id, name, drawn) in effects.drawn {
                known.learn(id, name, drawn);
            }
        }
        if !effects.moved.is_empty() {
            let moved = &mut *lock(&self.moved);
            for peer in effects.moved {
                if moved.queue.len() < MAX_MOVED && moved.fresh.insert(peer) {
                    moved.queue.push_back((peer, "0".into()));
                }
            }
            self.has_moved.notify_one();
        }
    }

    fn count(
        &self,
        request: &TrackerRequest,
        outcome: &Result<(), Refusal>,
        refused: &[RefusedEntry],
    ) {
        let counts = &mut *lock(&self.counts);
        counts.requests.count(request);
        if let TrackerRequest::Own { entries, .. } = request {
            counts.announced += entries.len() as u64;
        }
        if let Err(refusal) = outcome {
            counts.refusals.count(refusal);
        }
        let refused = refused.iter();
        refused.for_each(|refused| counts.refusals.count(&refused.refusal));
    }

    /// Answers from what is known, as the store is away.
    fn end_without(&self, now: Instant, plan: &mut Plan<'_>) {
        self.answered_without.fetch_add(1, Ordering::Relaxed);
        metrics::count(metrics::store::WITHOUT, 1);
        let away = self.link.away();
        if away.is_some_and(|away| away > self.answers_without) {
            plan.refuse(Refusal::Busy);
            return;
        }
        let (request, asked, rules) = (plan.request(), plan.asked(), &self.rules);
        let peer = request.token().and_then(|token| rules.peer_of(token));
        if let Some(peer) = peer {
            self.spare(peer.shard());
        }
        if let TrackerRequest::Register { listen, .. } = request {
            let listed = match rules.settings.listed(asked.source, listen.as_ref()) {
                Ok(listed) => listed,
                Err(refusal) => {
                    plan.refuse(refusal);
                    return;
                }
            };
            // A new one is told that it is unknown when the store is back, and registers.
            let peer = peer.unwrap_or_else(|| {
                let shard = rules.settings.shard_of_addr(asked.source);
                PeerRef::of(plan.number(), shard)
            });
            plan.end_registered(peer, self.link.present().epoch, listed.as_ref());
            return;
        }
        let Some(peer) = peer else {
            plan.refuse(Refusal::UnknownToken);
            return;
        };
        match request {
            TrackerRequest::Register { .. }
            | TrackerRequest::RegisterAlso { .. }
            | TrackerRequest::Zone { .. } => {
                plan.refuse(Refusal::Busy);
            }
            // It comes again after a while.
            TrackerRequest::Own { entries, .. } => {
                let refusal = Refusal::Busy;
                let refused = (0..).zip(entries).map(|(at, _)| RefusedEntry {
                    at,
                    refusal: refusal.clone(),
                });
                let refused: Vec<_> = refused.collect();
                plan.end(match refused.is_empty() {
                    true => TrackerReply::Done,
                    false => TrackerReply::Partly(refused),
                });
            }
            TrackerRequest::Need { key, .. } => {
                let known = {
                    let known = lock(&self.known);
                    let id = match key {
                        ContentKey::Id(id) => Some(*id),
                        ContentKey::Name(name) => known.named(name),
                    };
                    let id = id.filter(|id| plan.permits().content(id));
                    id.and_then(|id| Some((id, known.of(&id)?)))
                };
                let Some((id, drawn)) = known else {
                    plan.refuse(Refusal::Busy);
                    return;
                };
                let asker = Asker {
                    listens: None,
                    has_both: false,
                    zone: None,
                };
                let left = self.left();
                let is_left_out = |owner| left.contains(&owner);
                plan.end_found(now, (peer, &asker), (&id, &drawn), is_left_out);
            }
            TrackerRequest::Update { .. } | TrackerRequest::Exit { .. } => {
                let mut deferred = lock(&self.deferred);
                if deferred.len() < MAX_DEFERRED {
                    deferred.push_back(Deferred {
                        request: request.clone(),
                        source: asked.source.clone(),
                        number: plan.number(),
                    });
                } else {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                metrics::set(metrics::store::DEFERRED, deferred.len() as u64);
                drop(deferred);
                plan.end(TrackerReply::Done);
            }
        }
    }

    /// Those who have said farewell while the store is away.
    fn left(&self) -> HashSet<PeerRef> {
        let deferred = lock(&self.deferred);
        let left = deferred
            .iter()
            .filter_map(|deferred| match &deferred.request {
                TrackerRequest::Exit { token } => self.rules.peer_of(token),
                _ => None,
            });
        left.collect()
    }

    /// The contents that a NEED is about, each with a name that it has.
    pub(crate) async fn asked_for(
        &self,
        key: &ContentKey,
    ) -> Vec<(ContentId, Option<ContentName>)> {
        match key {
            ContentKey::Id(id) => {
                let names = self.rules.keys.content(id, ":names");
                let call = Call::command("ZREVRANGE", &names).number(0).number(0);
                let answers = self.link.run_all(&[call]).await.unwrap_or_default();
                let name = answers.first().map_or(&[][..], parts).first();
                let name = name.and_then(text).and_then(|name| name.parse().ok());
                vec![(*id, name)]
            }
            ContentKey::Name(name) => {
                let ids = match self.link.run_all(&self.rules.calls_by_name(name)).await {
                    Ok(answers) => ids_of_name(&answers),
                    Err(Lost) => lock(&self.known).named(name).into_iter().collect(),
                };
                ids.into_iter().map(|id| (id, Some(name.clone()))).collect()
            }
        }
    }

    /// Everything that a peer owns, under each of its names.
    pub(crate) async fn owned(&self, token: &Token) -> Vec<Owned> {
        let Some(peer) = self.rules.peer_of(token) else {
            return Vec::new();
        };
        let all = Call::command("SMEMBERS", &self.rules.keys.own(peer));
        let Ok(all) = self.link.run_all(&[all]).await else {
            return Vec::new();
        };
        let ids = all.first().map_or(&[][..], parts).iter();
        let ids: Vec<ContentId> = ids.filter_map(id_of).collect();
        let mut owned = Vec::new();
        for ids in ids.chunks(IDS) {
            let used = |id| {
                let key = self.rules.keys.content(id, ":used");
                Call::command("HGET", &key).arg(peer.text())
            };
            let used: Vec<Call> = ids.iter().map(used).collect();
            let Ok(used) = self.link.run_all(&used).await else {
                break;
            };
            for (id, used) in ids.iter().zip(&used) {
                let names = text(used).unwrap_or_default().split('/');
                let mut names = names.filter_map(|name| name.parse().ok()).peekable();
                if names.peek().is_none() {
                    owned.push((*id, None));
                }
                owned.extend(names.map(|name| (*id, Some(name))));
            }
        }
        owned
    }

    /// Ends what a peer owns of these contents under these names.
    pub(crate) async fn disown_all(&self, token: &Token, owned: &[Owned]) {
        let Some(peer) = self.rules.peer_of(token) else {
            return;
        };
        for owned in owned.chunks(IDS) {
            let calls = owned.iter().map(|(id, name)| {
                let call = self.rules.disown_call(peer, id);
                match name {
                    Some(name) => call.arg(name.as_str()).arg("0"),
                    None => call,
                }
            });
            let calls: Vec<Call> = calls.collect();
            let ended = owned.iter().zip(self.link.run(&calls).await);
            let ended = ended.filter(|(_, ended)| ended.as_ref().is_ok_and(is_one));
            let ended: Vec<ContentId> = ended.map(|((id, _), _)| *id).collect();
            let drop = [self.rules.drop_call(peer, &ended)];
            if self.link.run_all(&drop).await.is_err() {
                return;
            }
        }
    }

    /// What the store holds, as of a second ago, and what this tracker was asked.
    pub(crate) fn stats(&self) -> RegistryStats {
        let [peers, contents, ownerships] = self.counts();
        let counts = lock(&self.counts);
        RegistryStats {
            peers,
            contents,
            ownerships,
            expired: self.expired.load(Ordering::Relaxed),
            announced: counts.announced,
            requests: counts.requests,
            refusals: counts.refusals,
            ..RegistryStats::default()
        }
    }

    /// How many peers, contents and ownerships there are, as of a second ago.
    pub(crate) fn counts(&self) -> [u64; 3] {
        self.link.present().totals
    }

    /// How this tracker stands with the store.
    pub(crate) fn store_stats(&self) -> StoreStats {
        let [losses, round_trips, calls] = self.link.counts();
        StoreStats {
            away: self.link.away(),
            losses,
            answered_without: self.answered_without.load(Ordering::Relaxed),
            deferred: lock(&self.deferred).len() as u64,
            dropped: self.dropped.load(Ordering::Relaxed),
            round_trips,
            calls,
        }
    }

    /// Looks after the store until the tracker stops: finds it again, forgets whose lease is
    /// over, brings lists up to date, and carries out what had to wait.
    pub(crate) async fn look_after(&self, stop: &CancellationToken) {
        let lot = lock(&self.rng).f64();
        let look = futures::future::join(
            self.keep_looking(),
            keep_sweeping(&self.link, &self.rules, lot),
        );
        stop.run_until_cancelled(look).await;
    }

    async fn keep_looking(&self) {
        let mut pause = PAUSES.0;
        let mut next = tokio::time::Instant::now();
        let mut last_error = None;
        // Who was there when nobody looked has a lease to come back in.
        (0..PEER_SHARDS).for_each(|shard| self.spare(shard));
        loop {
            if !self.link.is_whole() {
                match self.link.connect().await {
                    Ok(()) => {
                        last_error = None;
                        next = tokio::time::Instant::now();
                    }
                    Err(error) => {
                        if last_error.as_ref() != Some(&error) {
                            warn!(%error, "the store is away, or a part of it");
                            last_error = Some(error);
                        }
                    }
                }
            }
            let looked = self.look(&mut next).await;
            if looked.is_err() || !self.link.is_whole() {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(PAUSES.1);
                continue;
            }
            pause = PAUSES.0;
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.has_moved.notified() => {}
                () = self.link.lost.notified() => {}
            }
        }
    }

    /// Forgets nobody of a shard for one lease: some may have been heard of whom the store was
    /// not told about.
    fn spare(&self, shard: u32) {
        let until = tokio::time::Instant::now() + self.rules.settings.config.lease();
        if let Some(spared) = lock(&self.spared).get_mut(shard as usize) {
            *spared = Some(until);
        }
    }

    /// Does what there is to do. What needs a part of the store that is lost waits.
    async fn look(&self, next: &mut tokio::time::Instant) -> Result<(), Lost> {
        let mut done = self.carry_out_deferred().await;
        let now = tokio::time::Instant::now();
        if *next <= now {
            let (due, departing) = self.tick().await;
            done = done.and(self.forget(due).await);
            done = done.and(self.forget_announcers(departing).await);
            *next = now + TICK;
        }
        done.and(self.bring_up_to_date().await)
    }

    /// Looks what there is, and whose lease is over.
    async fn tick(&self) -> (Vec<PeerRef>, Vec<(ContentId, PeerRef)>) {
        let keys = &self.rules.keys;
        let (serials, mut calls) = self.link.info_calls();
        let infos = calls.len();
        for shard in 0..PEER_SHARDS {
            let due = keys.of_peers(shard, "due");
            let sum = keys.of_peers(shard, "sum");
            calls.push(Call::command("ZCARD", &due));
            calls.push(Call::command("HGET", &sum).arg("owned"));
            calls.push(Call::new(Script::Due, &[due]).number(AT_ONCE));
        }
        for shard in 0..CONTENT_SHARDS {
            let sum = keys.of_contents(shard, "sum");
            let due = keys.of_contents(shard, "due");
            calls.push(Call::command("HGET", &sum).arg("contents"));
            calls.push(Call::command("ZCARD", &due));
            calls.push(Call::new(Script::Due, &[due]).number(AT_ONCE));
        }
        let answers = self.link.run(&calls).await;
        let (infos, rest) = answers.split_at(infos.min(answers.len()));
        self.link.check(&serials, infos);
        let (of_peers, of_contents) = rest.split_at((3 * PEER_SHARDS as usize).min(rest.len()));
        let mut due = Vec::new();
        // What is out of reach is as it was.
        let mut sums = lock(&self.sums);
        for (shard, of_shard) in (0..).zip(of_peers.chunks(3)) {
            let [Ok(peers), Ok(owned), Ok(over)] = of_shard else {
                self.spare(shard);
                continue;
            };
            sums.peers[shard as usize] = [peers, owned].map(|sum| number(sum).unwrap_or(0));
            let over = parts(over).iter();
            due.extend(over.filter_map(|of| PeerRef::parse(bytes(of)?)));
        }
        let mut departing = Vec::new();
        for (shard, of_shard) in of_contents.chunks(3).enumerate() {
            let [Ok(contents), Ok(announcers), Ok(over)] = of_shard else {
                continue;
            };
            sums.contents[shard] = [contents, announcers].map(|sum| number(sum).unwrap_or(0));
            departing.extend(parts(over).iter().filter_map(announcer_of));
        }
        self.link.set_totals(sums.totals());
        (due, departing)
    }

    /// Forgets BitTorrent clients that have not come for too long. All that is known of each is
    /// with its torrent, so that one step ends it.
    async fn forget_announcers(&self, departing: Vec<(ContentId, PeerRef)>) -> Result<(), Lost> {
        let departs = departing.iter().map(|(id, announcer)| {
            let call = Call::new(Script::Depart, &self.rules.keys.of_departing(id));
            call.arg(announcer.text()).arg(id.to_string())
        });
        let calls: Vec<Call> = departs.collect();
        let mut outcome = Ok(());
        for calls in calls.chunks(ROUND) {
            for departed in self.link.run(calls).await {
                match departed {
                    Ok(departed) if is_one(&departed) => {
                        self.expired.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(lost) => outcome = Err(lost),
                }
            }
        }
        outcome
    }

    /// Forgets peers whose lease is over, unless they have been heard of meanwhile. Each
    /// step can be done again, by any tracker: what a peer owns is known until all of it has
    /// ended.
    async fn forget(&self, mut due: Vec<PeerRef>) -> Result<(), Lost> {
        let keys = &self.rules.keys;
        let now = tokio::time::Instant::now();
        let spared = lock(&self.spared).clone();
        let is_spared = |shard| spared[shard as usize].is_some_and(|until| until > now);
        due.retain(|peer| !is_spared(peer.shard()));
        let mut outcome = Ok(());
        while !due.is_empty() {
            let round = due.split_off(due.len().saturating_sub(ROUND));
            let die = |peer: &PeerRef| {
                let shard = peer.shard();
                let keys = [
                    keys.peer(*peer),
                    keys.own(*peer),
                    keys.of_peers(shard, "due"),
                ];
                let call = Call::new(Script::Die, &keys).arg(peer.text());
                call.number(AT_ONCE)
            };
            let calls: Vec<Call> = round.iter().map(die).collect();
            let owned = self.link.run(&calls).await;
            let (mut ends, mut dying) = (Vec::new(), Vec::new());
            for (peer, owned) in round.iter().zip(&owned) {
                let Ok(owned @ (Value::Array(_) | Value::Set(_))) = owned else {
                    outcome = outcome.and(owned.as_ref().map(|_| ()).map_err(|lost| *lost));
                    continue;
                };
                let ids: Vec<ContentId> = parts(owned).iter().filter_map(id_of).collect();
                ends.extend(ids.iter().map(|id| self.rules.disown_call(*peer, id)));
                dying.push((*peer, ids));
            }
            let mut ended = self.link.run(&ends).await.into_iter();
            let (mut drops, mut more) = (Vec::new(), Vec::new());
            for (peer, ids) in &dying {
                let ended: Vec<_> = ended.by_ref().take(ids.len()).collect();
                let all = ended.iter().all(Result::is_ok);
                let ended = ids.iter().zip(&ended).filter(|(_, ended)| ended.is_ok());
                let ended: Vec<ContentId> = ended.map(|(id, _)| *id).collect();
                // What has not ended is done on another day, and known until then.
                if !all {
                    outcome = Err(Lost);
                }
                more.push(all && ids.len() as u64 == AT_ONCE);
                drops.push(self.rules.drop_call(*peer, &ended));
            }
            let forgotten = self.link.run(&drops).await;
            for (((peer, _), has_more), forgotten) in dying.iter().zip(more).zip(&forgotten) {
                match forgotten.as_ref().map(number) {
                    Err(lost) => outcome = Err(*lost),
                    Ok(Some(0)) if has_more => due.push(*peer),
                    Ok(Some(1)) => {
                        self.expired.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                }
            }
            // So that requests have their turn.
            tokio::task::yield_now().await;
        }
        outcome
    }

    /// Brings what lists peers up to date: some contents of each in turn.
    async fn bring_up_to_date(&self) -> Result<(), Lost> {
        let mut lost = Vec::new();
        loop {
            let round = {
                let moved = &mut *lock(&self.moved);
                let len = moved.queue.len().min(ROUND);
                let round: Vec<_> = moved.queue.drain(..len).collect();
                for (peer, from) in &round {
                    // What changes from here on begins anew.
                    if from == "0" {
                        moved.fresh.remove(peer);
                    }
                }
                round
            };
            if round.is_empty() {
                break;
            }
            lost.extend(self.refresh(&round).await);
        }
        let moved = &mut *lock(&self.moved);
        let outcome = if lost.is_empty() { Ok(()) } else { Err(Lost) };
        for peer in lost {
            if moved.fresh.insert(peer) {
                moved.queue.push_back((peer, "0".into()));
            }
        }
        outcome
    }

    /// Returns for whom a part of the store is lost.
    async fn refresh(&self, round: &[(PeerRef, String)]) -> Vec<PeerRef> {
        let keys = &self.rules.keys;
        let look = |(peer, from): &(PeerRef, String)| {
            let call = Call::new(Script::Peer, &[keys.peer(*peer), keys.own(*peer)]);
            call.arg(from).number(AT_ONCE)
        };
        let calls: Vec<Call> = round.iter().map(look).collect();
        let answers = self.link.run(&calls).await;
        let (mut calls, mut of, mut more, mut lost) = (vec![], vec![], vec![], vec![]);
        for ((peer, _), answer) in round.iter().zip(&answers) {
            let Ok(answer) = answer else {
                lost.push(*peer);
                continue;
            };
            let [addr, also, score, revision, from, ids] = parts(answer) else {
                continue;
            };
            let (Some(addr), Some(also)) = (bytes(addr), bytes(also)) else {
                continue;
            };
            let entry = entry_of_peer(number(revision).unwrap_or(0), addr, also);
            let score = match (addr, text(score)) {
                ([], _) => String::new(),
                (_, None | Some("")) => UNMEASURED.to_string(),
                (_, Some(score)) => score.to_owned(),
            };
            for id in parts(ids).iter().filter_map(id_of) {
                let keys = [keys.content(&id, ":rate"), keys.content(&id, ":own")];
                let call = Call::new(Script::ContentRefresh, &keys).arg(peer.text());
                calls.push(call.arg(&entry).arg(&score));
                of.push(*peer);
            }
            match text(from) {
                None | Some("0") => {}
                Some(from) => more.push((*peer, from.to_owned())),
            }
        }
        let refreshed = self.link.run(&calls).await;
        let refreshed = of.iter().zip(&refreshed);
        lost.extend(refreshed.filter_map(|(peer, done)| done.is_err().then_some(*peer)));
        lock(&self.moved).queue.extend(more);
        lost
    }

    /// Carries out what had to wait for the store. What was carried out already counts once.
    async fn carry_out_deferred(&self) -> Result<(), Lost> {
        // How many are passed over, as a part of the store is lost.
        let mut left = 0;
        loop {
            // They stay where they are until they are done: others look there who has left.
            let round: Vec<Deferred> = {
                let deferred = lock(&self.deferred);
                deferred.iter().skip(left).take(ROUND).cloned().collect()
            };
            if round.is_empty() {
                return if left == 0 { Ok(()) } else { Err(Lost) };
            }
            debug!(
                requests = round.len(),
                "carrying out what had to wait for the store"
            );
            let mut plans: Vec<Plan<'_>> = Vec::with_capacity(round.len());
            for deferred in &round {
                let asked = Asked {
                    source: &deferred.source,
                    local: None,
                    request: &deferred.request,
                };
                let own = (deferred.number, false);
                plans.push(Plan::new(&self.rules, asked, Permits::All, own));
            }
            let lost = self.take_steps(Instant::now(), &mut plans).await;
            left += lost.iter().filter(|is_lost| **is_lost).count();
            let done = round.iter().zip(lost).filter(|(_, is_lost)| !is_lost);
            let done: HashSet<u64> = done.map(|(deferred, _)| deferred.number).collect();
            let mut deferred = lock(&self.deferred);
            deferred.retain(|one| !done.contains(&one.number));
            metrics::set(metrics::store::DEFERRED, deferred.len() as u64);
        }
    }
}

/// A BitTorrent client, and its torrent.
fn announcer_of(member: &Value) -> Option<(ContentId, PeerRef)> {
    let (id, announcer) = text(member)?.split_once('/')?;
    Some((id.parse().ok()?, PeerRef::parse(announcer.as_bytes())?))
}

fn is_one(answer: &Value) -> bool {
    number(answer) == Some(1)
}

/// Ignores poison: no change under these locks is left half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
