//! Asks the policy: within bounds of time and number, and with answers that are kept.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::config::AccessConfig;
use super::policy::AccessPolicy;
use super::request::{Access, AccessAction, AccessContent, AccessRequest};
use super::turns::Turns;
use super::who::Who;
use crate::content::{ContentId, ContentName};
use crate::protocol::Addr;
use crate::transport::PeerIdentity;

/// How often each who waits for changes is told of one at most: a policy that changes with
/// each answer must not be asked all the time. Short, as a change is to count within a
/// second.
const CHANGE_PAUSE: Duration = Duration::from_millis(100);

/// What an answer means to those who have asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may. It is to be asked about again then.
    Allowed(Instant),
    Denied,
    /// The policy cannot tell, or has not in time. Nobody is let in by that, and what is
    /// open goes on for a while ([`Standing`](super::Standing)).
    Unknown,
}

impl Verdict {
    pub(crate) fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// The policy of a peer or a tracker, as it is asked.
pub(crate) struct AccessGate {
    policy: Box<dyn AccessPolicy>,
    config: AccessConfig,
    told: Mutex<Told>,
    /// The changes that the program tells of.
    refreshed: watch::Sender<u64>,
    turns: Turns,
    cache: Mutex<Cache>,
    /// The last question had no answer.
    failing: AtomicBool,
}

/// The changes that the policy tells of. They are counted here: what the policy sends with
/// each is its own business, and may be the same number each time.
struct Told {
    changes: Option<watch::Receiver<u64>>,
    times: u64,
}

/// How often something has changed: as the policy and as the program say.
type Generation = (u64, u64);

/// Tells of changes.
pub(crate) struct Changes {
    policy: Option<watch::Receiver<u64>>,
    refreshed: watch::Receiver<u64>,
    /// Something has changed that was not told.
    untold: bool,
    /// When the next change may be told.
    next: Instant,
}

/// The answers of one generation.
#[derive(Default)]
struct Cache {
    generation: Generation,
    answers: HashMap<Question, Answer>,
    /// The oldest first. Each is once in it.
    order: VecDeque<Question>,
}

/// All that an answer may depend on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    identity: Option<PeerIdentity>,
    host: Host,
    action: AccessAction,
    content: Option<(ContentId, Option<ContentName>)>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Host {
    Ip(IpAddr),
    Other(Addr),
}

#[derive(Clone, Copy)]
struct Answer {
    allowed: bool,
    until: Instant,
}

impl AccessGate {
    pub(crate) fn new(policy: Box<dyn AccessPolicy>, config: AccessConfig) -> Arc<Self> {
        Arc::new(Self {
            told: Mutex::new(Told {
                changes: policy.changes(),
                times: 0,
            }),
            turns: Turns::new(config.max_questions, config.max_questions_per_host),
            policy,
            config,
            refreshed: watch::Sender::new(0),
            cache: Mutex::default(),
            failing: AtomicBool::new(false),
        })
    }

    /// Has everything asked again.
    pub(crate) fn refresh(&self) {
        self.refreshed.send_modify(|times| *times += 1);
    }

    /// How often something has changed. Whoever acts on an answer and finds another
    /// generation after that has to ask again.
    pub(crate) fn generation(&self) -> Generation {
        let Told { changes, times } = &mut *self.told();
        if let Some(changes) = changes
            && changes.borrow_and_update().has_changed()
        {
            *times += 1;
        }
        (*times, *self.refreshed.borrow())
    }

    /// For how long what is open goes on while the policy cannot tell.
    pub(crate) fn grace(&self) -> Duration {
        self.config.grace
    }

    /// Tells of changes from here on.
    pub(crate) fn changes(&self) -> Changes {
        let mut policy = self.told().changes.clone();
        if let Some(policy) = &mut policy {
            policy.mark_unchanged();
        }
        Changes {
            policy,
            refreshed: self.refreshed.subscribe(),
            untold: false,
            next: Instant::now(),
        }
    }

    /// Asks whether somebody may do something.
    ///
    /// Cancel safe.
    pub(crate) async fn check(
        &self,
        who: &Who,
        action: AccessAction,
        content: Option<AccessContent<'_>>,
    ) -> Verdict {
        let request = AccessRequest::new(who.identity, &who.remote, action, content);
        let question = Question::of(&request);
        let generation = self.generation();
        let kept = self.cache().get(generation, &question);
        let answer = match kept {
            Some(answer) => Some(answer),
            None => {
                let end = Instant::now().checked_add(self.config.answer_timeout);
                let end = end.unwrap_or_else(forever);
                let asked = self.ask((who, &request), end, generation, question);
                timeout_at(end, asked).await.unwrap_or_else(|_| {
                    self.note_failure(&request, "no answer in time");
                    None
                })
            }
        };
        match answer {
            Some(answer) if answer.allowed => Verdict::Allowed(answer.until),
            Some(_) => Verdict::Denied,
            None => Verdict::Unknown,
        }
    }

    /// Returns nothing if the policy cannot tell. That is not kept, so the next one who
    /// wants to know asks again.
    async fn ask(
        &self,
        (who, request): (&Who, &AccessRequest<'_>),
        end: Instant,
        generation: Generation,
        question: Question,
    ) -> Option<Answer> {
        let _turn = self.turns.turn(who).await;
        if Instant::now() >= end {
            // Nobody waits for the answer any more.
            return std::future::pending().await;
        }
        // Another may have asked the same meanwhile.
        if let Some(answer) = self.cache().get(generation, &question) {
            return Some(answer);
        }
        let asked = AssertUnwindSafe(async { self.policy.check(request).await });
        let access = asked.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(action = ?request.action, "the access policy has panicked");
            Access::Unknown
        });
        let longest = self.config.cache_lifetime;
        let (allowed, lifetime) = match access {
            Access::Allow { valid_for } => (true, valid_for.map_or(longest, |d| d.min(longest))),
            Access::Deny => (false, longest),
            Access::Unknown => {
                self.note_failure(request, "the access policy cannot tell");
                return None;
            }
        };
        self.failing.store(false, Ordering::Relaxed);
        let now = Instant::now();
        let answer = Answer {
            allowed,
            until: now.checked_add(lifetime).unwrap_or_else(forever),
        };
        // An answer that may be out of date already is not kept.
        if !lifetime.is_zero() && self.generation() == generation {
            let max = self.config.max_cached;
            self.cache().put(generation, question, answer, max);
        }
        Some(answer)
    }

    /// Logs that a question has no answer, loudly if it is the first one in a row.
    fn note_failure(&self, request: &AccessRequest<'_>, why: &'static str) {
        let (action, remote) = (request.action, request.remote);
        match self.failing.swap(true, Ordering::Relaxed) {
            false => tracing::warn!(?action, %remote, why, "nobody is let in without an answer"),
            true => tracing::debug!(?action, %remote, why, "still no answer"),
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many answers are kept.
    #[cfg(test)]
    fn cached(&self) -> usize {
        let cache = self.cache();
        assert_eq!(cache.answers.len(), cache.order.len());
        cache.answers.len()
    }
}

/// A time at which no program runs any more.
fn forever() -> Instant {
    Instant::now() + Duration::from_secs(100 * 365 * 24 * 60 * 60)
}

impl Changes {
    /// Waits until something changes, and until [`CHANGE_PAUSE`] after the last change.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if !self.untold {
            self.seen().await;
            self.untold = true;
        }
        sleep_until(self.next).await;
        // What has changed until now is told by this.
        if let Some(policy) = &mut self.policy {
            policy.mark_unchanged();
        }
        self.refreshed.mark_unchanged();
        self.untold = false;
        self.next = Instant::now() + CHANGE_PAUSE;
    }

    /// Waits until something changes.
    async fn seen(&mut self) {
        let policy = async {
            let told = match &mut self.policy {
                Some(changes) => changes.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending().await
            }
        };
        let refreshed = async {
            if self.refreshed.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = policy => {}
            () = refreshed => {}
        }
    }
}

impl Question {
    fn of(request: &AccessRequest<'_>) -> Self {
        let remote = request.remote;
        let host = remote.socket_addr().map(|addr| Host::Ip(addr.ip()));
        let content = request.content;
        Self {
            identity: request.identity,
            host: host.unwrap_or_else(|| Host::Other(remote.clone())),
            action: request.action,
            content: content.map(|content| (content.id, content.name.cloned())),
        }
    }
}

impl Cache {
    /// An answer that still counts.
    fn get(&self, generation: Generation, question: &Question) -> Option<Answer> {
        if self.generation != generation {
            return None;
        }
        let answer = self.answers.get(question)?;
        (answer.until > Instant::now()).then_some(*answer)
    }

    fn put(&mut self, generation: Generation, question: Question, answer: Answer, max: usize) {
        if max == 0 {
            return;
        }
        if self.generation != generation {
            self.answers.clear();
            self.order.clear();
            self.generation = generation;
        }
        if self.answers.insert(question.clone(), answer).is_some() {
            return;
        }
        self.order.push_back(question);
        if self.order.len() > max
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use tokio::time::{advance, sleep};

    use super::*;

    /// Takes this long to allow everything.
    struct Slow {
        time: Duration,
        valid_for: Option<Duration>,
        at_a_time: AtomicUsize,
        most: AtomicUsize,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl AccessPolicy for Arc<Slow> {
        async fn check(&self, _request: &AccessRequest<'_>) -> Access {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let now = self.at_a_time.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            sleep(self.time).await;
            self.at_a_time.fetch_sub(1, Ordering::Relaxed);
            Access::Allow {
                valid_for: self.valid_for,
            }
        }
    }

    fn slow(millis: u64, valid_for: Option<Duration>) -> Arc<Slow> {
        Arc::new(Slow {
            time: Duration::from_millis(millis),
            valid_for,
            at_a_time: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        })
    }

    fn gate(policy: &Arc<Slow>, config: AccessConfig) -> Arc<AccessGate> {
        AccessGate::new(Box::new(Arc::clone(policy)), config)
    }

    fn who(addr: &str) -> Who {
        Who {
            identity: None,
            remote: addr.parse().unwrap(),
        }
    }

    async fn fetch(gate: &AccessGate, number: u32) -> Verdict {
        let id = ContentId::of(&number.to_le_bytes());
        let content = AccessContent::new(id, None);
        let who = who("10.0.0.1:1");
        gate.check(&who, AccessAction::Fetch, Some(content)).await
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_questions_keep_a_bounded_number_of_answers() {
        let policy = slow(0, None);
        let gate = gate(&policy, AccessConfig::default().max_cached(1000));
        for number in 0..10_000 {
            assert!(fetch(&gate, number).await.is_allowed());
        }
        assert_eq!(gate.cached(), 1000);
        // The newest are kept.
        let asked = policy.asked.load(Ordering::Relaxed);
        fetch(&gate, 9_999).await;
        assert_eq!(policy.asked.load(Ordering::Relaxed), asked);
        fetch(&gate, 0).await;
        assert_eq!(policy.asked.load(Ordering::Relaxed), asked + 1);
        gate.refresh();
        fetch(&gate, 9_999).await;
        assert_eq!(gate.cached(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_asked_at_a_time_and_who_waits_too_long_has_no_answer() {
        let policy = slow(100, None);
        let config = AccessConfig::default().max_questions(10);
        let gate = gate(&policy, config.answer_timeout(Duration::from_millis(500)));
        let verdicts = futures::future::join_all((0..100).map(|number| fetch(&gate, number)));
        let allowed = verdicts.await.into_iter().filter(|v| v.is_allowed());
        let allowed = allowed.count();
        // Four or five rounds within half a second.
        assert!((40..=50).contains(&allowed), "{allowed}");
        assert_eq!(policy.most.load(Ordering::Relaxed), 10);
        // Those that had no answer are asked about again.
        assert!(fetch(&gate, 99).await.is_allowed());
    }

    #[tokio::test(start_paused = true)]
    async fn answer_counts_as_long_as_it_says_and_no_longer_than_configured() {
        for (valid_for, counts) in [
            (None, 10),
            (Some(Duration::from_secs(3)), 3),
            (Some(Duration::MAX), 10),
        ] {
            let policy = slow(0, valid_for);
            let gate = gate(&policy, AccessConfig::default());
            let Verdict::Allowed(until) = fetch(&gate, 1).await else {
                panic!("it is allowed");
            };
            let counts = Duration::from_secs(counts);
            assert!(until <= Instant::now() + counts);
            advance(counts - Duration::from_millis(10)).await;
            fetch(&gate, 1).await;
            assert_eq!(policy.asked.load(Ordering::Relaxed), 1);
            advance(Duration::from_millis(20)).await;
            fetch(&gate, 1).await;
            assert_eq!(policy.asked.load(Ordering::Relaxed), 2);
        }
        let policy = slow(0, Some(Duration::ZERO));
        let gate = gate(&policy, AccessConfig::default());
        fetch(&gate, 1).await;
        fetch(&gate, 1).await;
        assert_eq!(policy.asked.load(Ordering::Relaxed), 2);
        assert_eq!(gate.cached(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_is_of_a_host_and_not_of_its_neighbours() {
        let policy = slow(0, None);
        let gate = gate(&policy, AccessConfig::default());
        let hosts = ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[2001:db8::1]:1"];
        for (addr, asked) in hosts
            .into_iter()
            .chain(["[2001:db8::2]:1"])
            .zip([1, 1, 2, 3, 4])
        {
            gate.check(&who(addr), AccessAction::Connect, None).await;
            assert_eq!(policy.asked.load(Ordering::Relaxed), asked, "{addr}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_comes_after_a_change_is_not_kept() {
        let policy = slow(100, None);
        let gate = gate(&policy, AccessConfig::default());
        let (_, ()) = tokio::join!(fetch(&gate, 1), async {
            sleep(Duration::from_millis(50)).await;
            gate.refresh();
        });
        assert_eq!(gate.cached(), 0);
        fetch(&gate, 1).await;
        assert_eq!(gate.cached(), 1);
    }

    /// Says this, and tells of changes with a number that is always the same.
    struct Says {
        answer: Mutex<Access>,
        asked: AtomicUsize,
        changes: watch::Sender<u64>,
    }

    impl Says {
        fn new(answer: Access) -> Arc<Self> {
            Arc::new(Self {
                answer: answer.into(),
                asked: AtomicUsize::new(0),
                changes: watch::Sender::new(7),
            })
        }
    }

    #[async_trait]
    impl AccessPolicy for Says {
        async fn check(&self, _request: &AccessRequest<'_>) -> Access {
            self.asked.fetch_add(1, Ordering::Relaxed);
            *self.answer.lock().unwrap()
        }

        fn changes(&self) -> Option<watch::Receiver<u64>> {
            Some(self.changes.subscribe())
        }
    }

    #[tokio::test]
    async fn change_counts_whatever_number_the_policy_sends_with_it() {
        let policy = Says::new(Access::allow());
        let gate = AccessGate::new(Box::new(Arc::clone(&policy)), AccessConfig::default());
        assert!(fetch(&gate, 1).await.is_allowed());
        *policy.answer.lock().unwrap() = Access::Deny;
        assert!(fetch(&gate, 1).await.is_allowed());
        policy.changes.send(7).unwrap();
        assert_eq!(fetch(&gate, 1).await, Verdict::Denied);
        *policy.answer.lock().unwrap() = Access::allow();
        policy.changes.send(7).unwrap();
        assert!(fetch(&gate, 1).await.is_allowed());
    }

    #[tokio::test]
    async fn what_the_policy_cannot_tell_is_asked_again_each_time() {
        let policy = Says::new(Access::Unknown);
        let gate = AccessGate::new(Box::new(Arc::clone(&policy)), AccessConfig::default());
        for asked in 1..4 {
            assert_eq!(fetch(&gate, 1).await, Verdict::Unknown);
            assert_eq!(policy.asked.load(Ordering::Relaxed), asked);
        }
        assert_eq!(gate.cached(), 0);
        *policy.answer.lock().unwrap() = Access::allow();
        assert!(fetch(&gate, 1).await.is_allowed());
    }

    #[tokio::test(start_paused = true)]
    async fn host_whose_questions_hang_holds_up_no_other_host() {
        let policy = slow(1000, None);
        let gate = gate(&policy, AccessConfig::default());
        let flood = futures::future::join_all((0..1000).map(|number| fetch(&gate, number)));
        let other = async {
            tokio::task::yield_now().await;
            let begun = Instant::now();
            let who = who("10.0.0.2:1");
            let verdict = gate.check(&who, AccessAction::Connect, None).await;
            (verdict, begun.elapsed())
        };
        let (_, (verdict, took)) = tokio::join!(flood, other);
        assert!(verdict.is_allowed());
        assert_eq!(
            took,
            Duration::from_secs(1),
            "no longer than its own answer takes"
        );
        assert_eq!(policy.most.load(Ordering::Relaxed), 17);
    }

    #[tokio::test]
    async fn two_policies_deny_what_one_denies_also_if_the_other_cannot_tell() {
        use super::super::and::AccessPolicyExt;

        let (yes, no, unknown) = (Access::allow(), Access::Deny, Access::Unknown);
        for (first, second, both) in [
            (yes, yes, yes),
            (no, unknown, no),
            (unknown, no, no),
            (unknown, yes, unknown),
            (yes, unknown, unknown),
        ] {
            let policy = Says::new(first).and(Says::new(second));
            let remote = "10.0.0.1:1".parse().unwrap();
            let request = AccessRequest::new(None, &remote, AccessAction::Connect, None);
            assert_eq!(policy.check(&request).await, both, "{first:?} {second:?}");
        }
    }
}
