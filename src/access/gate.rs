//! Asks the policy: within bounds of time and number, and with answers that are kept.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

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
                let asked = self.ask(&request, generation, question);
                let Ok(answer) = timeout(self.config.answer_timeout, asked).await else {
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
        generation: Generation,
        question: Question,
    ) -> Answer {
        // It is never closed.
        let _turn = self.questions.acquire().await;
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
            // Never, if that is beyond all time.
            until: now.checked_add(lifetime).unwrap_or(now + FOREVER),
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

/// As long as no program runs.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

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
