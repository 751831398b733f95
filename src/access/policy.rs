//! The hook.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::request::{Access, AccessRequest};

/// Decides who may do what.
#[async_trait]
pub trait AccessPolicy: Send + Sync + 'static {
    /// Answers a question. Must not block the thread. The answer may be kept for other
    /// questions of the same identity from the same host.
    ///
    /// An answer that takes longer than
    /// [`AccessConfig::answer_timeout`](super::AccessConfig::answer_timeout) is
    /// [`Unknown`](Access::Unknown), and so is a panic. No more than
    /// [`AccessConfig::max_questions`](super::AccessConfig::max_questions) are asked at a
    /// time, and fewer about one host. A slow answer holds up what it is about, and at a
    /// tracker the later replies on the same connection, as they come in their order.
    ///
    /// Cancel safe it must be: when the time is over, the future is dropped.
    async fn check(&self, request: &AccessRequest<'_>) -> Access;

    /// Changes whenever an answer may have become another one. By default there is nothing
    /// to tell that. Asked for once, at the start. The number may be the same each time.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

#[async_trait]
impl<P: AccessPolicy + ?Sized> AccessPolicy for Arc<P> {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        (**self).check(request).await
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        (**self).changes()
    }
}

#[async_trait]
impl<P: AccessPolicy + ?Sized> AccessPolicy for Box<P> {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        (**self).check(request).await
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        (**self).changes()
    }
}

/// Lets everybody do everything, as it is without a policy.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl AccessPolicy for AllowAll {
    async fn check(&self, _request: &AccessRequest<'_>) -> Access {
        Access::allow()
    }
}
