//! Access policies of tests: what they were asked is counted, and they may misbehave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bt_lite::ContentId;
use bt_lite::access::{Access, AccessAction, AccessPolicy, AccessRequest};
use bt_lite::transport::PeerIdentity;

/// How a policy answers about one identity, or about everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Allows,
    Denies,
    Panics,
    /// It never answers.
    Hangs,
    /// It says that it cannot tell.
    CannotTell,
    /// It allows, after this time.
    AllowsAfter(Duration),
}

/// A policy that cannot tell of changes.
#[derive(Debug, Clone)]
pub(crate) struct Scripted(Arc<Script>);

#[derive(Debug)]
struct Script {
    about: Option<PeerIdentity>,
    action: AccessAction,
    /// Gives the answer only about this content.
    content: Mutex<Option<ContentId>>,
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

impl Scripted {
    /// Gives this answer about one identity, or without one about everybody, when it wants
    /// to do this; and allows everything else.
    pub(crate) fn new(about: Option<PeerIdentity>, action: AccessAction, answer: Answer) -> Self {
        Self(Arc::new(Script {
            about,
            action,
            content: Mutex::default(),
            answer: answer.into(),
            asked: AtomicUsize::new(0),
        }))
    }

    /// Gives the answer about one content only.
    #[allow(dead_code)] // Not every test binary does.
    pub(crate) fn only_about(&self, content: ContentId) {
        *self.0.content.lock().expect("nobody panics here") = Some(content);
    }

    pub(crate) fn set(&self, answer: Answer) {
        *self.0.answer.lock().expect("nobody panics here") = answer;
    }

    /// How often it was asked about that.
    #[allow(dead_code)] // Not every test binary asks.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl AccessPolicy for Scripted {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        let script = &self.0;
        let is_about = script.about.is_none() || script.about == request.identity;
        let only = *script.content.lock().expect("nobody panics here");
        let is_about =
            is_about && (only.is_none() || only == request.content.map(|content| content.id));
        if !is_about || script.action != request.action {
            return Access::allow();
        }
        script.asked.fetch_add(1, Ordering::Relaxed);
        let answer = *script.answer.lock().expect("nobody panics here");
        match answer {
            Answer::Allows => Access::allow(),
            Answer::Denies => Access::Deny,
            Answer::Panics => panic!("the policy fails"),
            Answer::Hangs => std::future::pending().await,
            Answer::CannotTell => Access::Unknown,
            Answer::AllowsAfter(time) => {
                tokio::time::sleep(time).await;
                Access::allow()
            }
        }
    }
}
