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
    rules: Rules,
    link: Link,
    answers_without: Duration,
    known: Mutex<Known>,
    rng: Mutex<Rng>,
    counts: Mutex<Counts>,
    moved: Mutex<Moved>,
    /// Notified when there is something in `moved`.
    has_moved: Notify,
    deferred: Mutex<VecDeque<Deferred>>,
    dropped: AtomicU64,
    answered_without: AtomicU64,
    expired: AtomicU64,
}

/// What this tracker was asked.
#[derive(Debug, Default)]
struct Counts {
    requests: RequestCounts,
    announced: u64,
    refusals: RefusalCounts,
}

/// Peers whose contents list them as they were, and where to go on with each.
#[derive(Debug, Default)]
struct Moved {
    queue: VecDeque<(PeerRef, String)>,
    /// Those that are in the queue from the beginning.
    fresh: HashSet<PeerRef>,
}

/// A request that is carried out when the store is back.
#[derive(Debug)]
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
            answers_without: config.answers_without,
            known: Mutex::default(),
            rng: Mutex::new(Rng::with_seed(seed)),
            counts: Mutex::default(),
            moved: Mutex::default(),
            has_moved: Notify::new(),
            deferred: Mutex::default(),
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
        if self.take_steps(now, &mut plans).await.is_err() {
            for plan in plans.iter_mut().filter(|plan| !plan.is_done()) {
                self.end_without(now, plan);
            }
        }
        let ended = plans.into_iter().map(|plan| {
            let (request, entries) = (plan.request(), plan.refused_entries().to_vec());
            let (outcome, reply) = plan.into_reply();
            self.count(request, &outcome, &entries);
            (outcome, reply)
        });
        ended.collect()
    }

    /// Has all plans take their steps together until they are done, or the store is lost.
    async fn take_steps(&self, now: Instant, plans: &mut [Plan<'_>]) -> Result<(), Lost> {
        let mut answers: Vec<Vec<Value>> = vec![Vec::new(); plans.len()];
        loop {
            let (mut effects, present) = (Effects::default(), self.link.present());
            let (mut calls, mut ends) = (Vec::new(), Vec::with_capacity(plans.len()));
            for (plan, answers) in plans.iter_mut().zip(&answers) {
                if !plan.is_done() {
                    calls.extend(plan.step(now, &present, answers, &mut effects));
                }
                ends.push(calls.len());
            }
            self.note(effects);
            if calls.is_empty() {
                return Ok(());
            }
            let mut values = self.link.run(&calls).await?.into_iter();
            let mut from = 0;
            for (answers, end) in answers.iter_mut().zip(ends) {
                *answers = values.by_ref().take(end - from).collect();
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
                let call = Call::command("ZREVRANGE").arg(names).number(0).number(0);
                let answers = self.link.run(&[call]).await.unwrap_or_default();
                let name = answers.first().map_or(&[][..], parts).first();
                let name = name.and_then(text).and_then(|name| name.parse().ok());
                vec![(*id, name)]
            }
            ContentKey::Name(name) => {
                let ids = match self.link.run(&self.rules.calls_by_name(name)).await {
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
        let all = Call::command("SMEMBERS").arg(self.rules.keys.own(peer));
        let Ok(all) = self.link.run(&[all]).await else {
            return Vec::new();
        };
        let ids = all.first().map_or(&[][..], parts).iter();
        let ids: Vec<ContentId> = ids.filter_map(id_of).collect();
        let mut owned = Vec::new();
        for ids in ids.chunks(IDS) {
            let used = |id| {
                let key = self.rules.keys.content(id, ":used");
                Call::command("HGET").arg(key).arg(peer.text())
            };
            let used: Vec<Call> = ids.iter().map(used).collect();
            let Ok(used) = self.link.run(&used).await else {
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
            let Ok(ended) = self.link.run(&calls).await else {
                return;
            };
            let ended = owned.iter().zip(&ended);
            let ended = ended.filter(|(_, ended)| number(ended) == Some(1));
            let ended: Vec<ContentId> = ended.map(|((id, _), _)| *id).collect();
            if self
                .link
                .run(&[self.rules.drop_call(peer, &ended)])
                .await
                .is_err()
            {
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
        stop.run_until_cancelled(self.keep_looking()).await;
    }

    async fn keep_looking(&self) {
        let mut pause = PAUSES.0;
        // Who was there when nobody looked has a lease to come back in.
        let lease = self.rules.settings.config.lease();
        let mut forgets_from = tokio::time::Instant::now() + lease;
        let mut next = tokio::time::Instant::now();
        let mut last_error = None;
        loop {
            if !self.link.is_connected() {
                match self.link.connect().await {
                    Ok(()) => {
                        (pause, last_error) = (PAUSES.0, None);
                        forgets_from = tokio::time::Instant::now() + lease;
                        next = tokio::time::Instant::now();
                    }
                    Err(error) => {
                        if last_error.as_ref() != Some(&error) {
                            warn!(%error, "the store is away");
                            last_error = Some(error);
                        }
                        tokio::time::sleep(pause).await;
                        pause = (2 * pause).min(PAUSES.1);
                        continue;
                    }
                }
            }
            let done = self.look(&mut next, forgets_from).await;
            if done.is_err() {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.has_moved.notified() => {}
                () = self.link.lost.notified() => {}
            }
        }
    }

    async fn look(
        &self,
        next: &mut tokio::time::Instant,
        forgets_from: tokio::time::Instant,
    ) -> Result<(), Lost> {
        self.carry_out_deferred().await?;
        let now = tokio::time::Instant::now();
        if *next <= now {
            let due = self.tick().await?;
            if forgets_from <= now {
                self.forget(due).await?;
            }
            *next = now + TICK;
        }
        self.bring_up_to_date().await
    }

    /// What there is, and whose lease is over.
    async fn tick(&self) -> Result<Vec<PeerRef>, Lost> {
        let keys = &self.rules.keys;
        let mut calls = Link::info_calls().to_vec();
        for shard in 0..PEER_SHARDS {
            let due = keys.of_peers(shard, "due");
            let sum = keys.of_peers(shard, "sum");
            calls.push(Call::command("ZCARD").arg(&due));
            calls.push(Call::command("HGET").arg(sum).arg("owned"));
            calls.push(Call::new(Script::Due, &[due]).number(AT_ONCE));
        }
        for shard in 0..CONTENT_SHARDS {
            let sum = keys.of_contents(shard, "sum");
            calls.push(Call::command("HGET").arg(sum).arg("contents"));
        }
        let answers = self.link.run(&calls).await?;
        let (info, rest) = answers.split_at(2.min(answers.len()));
        self.link.check(info);
        let (of_peers, of_contents) = rest.split_at((3 * PEER_SHARDS as usize).min(rest.len()));
        let (mut totals, mut due) = ([0; 3], Vec::new());
        for of_shard in of_peers.chunks(3) {
            if let [peers, owned, over] = of_shard {
                totals[0] += number(peers).unwrap_or(0);
                totals[2] += number(owned).unwrap_or(0);
                due.extend(
                    parts(over)
                        .iter()
                        .filter_map(|of| PeerRef::parse(bytes(of)?)),
                );
            }
        }
        totals[1] = of_contents.iter().filter_map(number).sum();
        self.link.set_totals(totals);
        Ok(due)
    }

    /// Forgets peers whose lease is over, unless they have been heard of meanwhile. Each
    /// step can be done again, by any tracker: what a peer owns is known until all of it has
    /// ended.
    async fn forget(&self, mut due: Vec<PeerRef>) -> Result<(), Lost> {
        let keys = &self.rules.keys;
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
            let owned = self.link.run(&calls).await?;
            let (mut ends, mut drops, mut dying) = (Vec::new(), Vec::new(), Vec::new());
            for (peer, owned) in round.iter().zip(&owned) {
                if !matches!(owned, Value::Array(_) | Value::Set(_)) {
                    continue;
                }
                let ids: Vec<ContentId> = parts(owned).iter().filter_map(id_of).collect();
                ends.extend(ids.iter().map(|id| self.rules.disown_call(*peer, id)));
                drops.push(self.rules.drop_call(*peer, &ids));
                dying.push((*peer, ids.len() as u64 == AT_ONCE));
            }
            if !ends.is_empty() {
                self.link.run(&ends).await?;
            }
            if drops.is_empty() {
                continue;
            }
            let forgotten = self.link.run(&drops).await?;
            for ((peer, has_more), forgotten) in dying.into_iter().zip(&forgotten) {
                match number(forgotten) {
                    Some(0) if has_more => due.push(peer),
                    Some(1) => {
                        self.expired.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
            // So that requests have their turn.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Brings what lists peers up to date: some contents of each in turn.
    async fn bring_up_to_date(&self) -> Result<(), Lost> {
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
                return Ok(());
            }
            if let Err(lost) = self.refresh(&round).await {
                let moved = &mut *lock(&self.moved);
                for (peer, _) in round {
                    if moved.fresh.insert(peer) {
                        moved.queue.push_front((peer, "0".into()));
                    }
                }
                return Err(lost);
            }
        }
    }

    async fn refresh(&self, round: &[(PeerRef, String)]) -> Result<(), Lost> {
        let keys = &self.rules.keys;
        let look = |(peer, from): &(PeerRef, String)| {
            let call = Call::new(Script::Peer, &[keys.peer(*peer), keys.own(*peer)]);
            call.arg(from).number(AT_ONCE)
        };
        let calls: Vec<Call> = round.iter().map(look).collect();
        let answers = self.link.run(&calls).await?;
        let mut calls = Vec::new();
        let mut more = Vec::new();
        for ((peer, _), answer) in round.iter().zip(&answers) {
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
            }
            match text(from) {
                None | Some("0") => {}
                Some(from) => more.push((*peer, from.to_owned())),
            }
        }
        if !calls.is_empty() {
            self.link.run(&calls).await?;
        }
        lock(&self.moved).queue.extend(more);
        Ok(())
    }

    /// Carries out what had to wait for the store. What was carried out already counts once.
    async fn carry_out_deferred(&self) -> Result<(), Lost> {
        loop {
            let round: Vec<Deferred> = {
                let mut deferred = lock(&self.deferred);
                let len = deferred.len().min(ROUND);
                let round = deferred.drain(..len).collect();
                metrics::set(metrics::store::DEFERRED, deferred.len() as u64);
                round
            };
            if round.is_empty() {
                return Ok(());
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
            let now = Instant::now();
            if let Err(lost) = self.take_steps(now, &mut plans).await {
                let left: Vec<bool> = plans.iter().map(|plan| !plan.is_done()).collect();
                drop(plans);
                let left = round.into_iter().zip(left).rev();
                let left = left.filter_map(|(deferred, left)| left.then_some(deferred));
                let mut deferred = lock(&self.deferred);
                left.for_each(|one| deferred.push_front(one));
                metrics::set(metrics::store::DEFERRED, deferred.len() as u64);
                return Err(lost);
            }
        }
    }
}

/// Ignores poison: no change under these locks is left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
