//! Asks the policy: within bounds of time and number, and with answers that are kept.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::config::AccessConfig;
use super::policy::AccessPolicy;
use super::request::{Access, AccessAction, AccessContent, AccessRequest};
use crate::content::{ContentId, ContentName};
use crate::protocol::Addr;
use crate::transport::PeerIdentity;

/// How often what is open is asked about at most, as long as nothing changes.
const MIN_RECHECK: Duration = Duration::from_millis(500);

/// Somebody: at the other end of a connection, or registered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Who {
    pub(crate) identity: Option<PeerIdentity>,
    pub(crate) remote: Addr,
}

/// What an answer means to those who have asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may. It is to be asked about again then.
    Allowed(Instant),
    Denied,
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
    /// The changes that the policy tells of.
    changes: Option<watch::Receiver<u64>>,
    /// The changes that the program tells of.
    refreshed: watch::Sender<u64>,
    questions: Semaphore,
    cache: Mutex<Cache>,
}

/// How often something has changed: as the policy and as the program say.
type Generation = (u64, u64);

/// Tells of changes.
pub(crate) struct Changes {
    policy: Option<watch::Receiver<u64>>,
    refreshed: watch::Receiver<u64>,
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
            changes: policy.changes(),
            questions: Semaphore::new(config.max_questions.min(Semaphore::MAX_PERMITS)),
            policy,
            config,
            refreshed: watch::Sender::new(0),
            cache: Mutex::default(),
        })
    }

    /// Has everything asked again.
    pub(crate) fn refresh(&self) {
        self.refreshed.send_modify(|times| *times += 1);
    }

    /// How often something has changed. Whoever acts on an answer and finds another
    /// generation after that has to ask again.
    pub(crate) fn generation(&self) -> Generation {
        let told = self.changes.as_ref().map_or(0, |changes| *changes.borrow());
        (told, *self.refreshed.borrow())
    }

    /// Tells of changes from here on.
    pub(crate) fn changes(&self) -> Changes {
        let mut policy = self.changes.clone();
        if let Some(policy) = &mut policy {
            policy.mark_unchanged();
        }
        Changes {
            policy,
            refreshed: self.refreshed.subscribe(),
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
            Some(answer) => answer,
            None => {
                let end = Instant::now().checked_add(self.config.answer_timeout);
                let end = end.unwrap_or_else(forever);
                let asked = self.ask(&request, end, generation, question);
                let Ok(answer) = timeout_at(end, asked).await else {
                    tracing::warn!(?action, remote = %who.remote, "no answer in time: denied");
                    return Verdict::Denied;
                };
                answer
            }
        };
        match answer.allowed {
            true => Verdict::Allowed(answer.until),
            false => Verdict::Denied,
        }
    }

    async fn ask(
        &self,
        request: &AccessRequest<'_>,
        end: Instant,
        generation: Generation,
        question: Question,
    ) -> Answer {
        // It is never closed.
        let _turn = self.questions.acquire().await;
        if Instant::now() >= end {
            // Nobody waits for the answer any more.
            return std::future::pending().await;
        }
        // Another may have asked the same meanwhile.
        if let Some(answer) = self.cache().get(generation, &question) {
            return answer;
        }
        let asked = AssertUnwindSafe(async { self.policy.check(request).await });
        let access = asked.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(action = ?request.action, "the access policy has panicked: denied");
            Access::Deny
        });
        let longest = self.config.cache_lifetime;
        let (allowed, lifetime) = match access {
            Access::Allow { valid_for } => (true, valid_for.map_or(longest, |d| d.min(longest))),
            Access::Deny => (false, longest),
        };
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
        answer
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
    /// Waits until something changes, or until this time, but not for less than half a
    /// second then.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&mut self, until: Option<Instant>) {
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
        let over = async {
            match until {
                Some(until) => sleep_until(until.max(Instant::now() + MIN_RECHECK)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = policy => {}
            () = refreshed => {}
            () = over => {}
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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
    async fn few_are_asked_at_a_time_and_who_waits_too_long_is_denied() {
        let policy = slow(100, None);
        let gate = gate(&policy, AccessConfig::default().max_questions(10));
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
}
