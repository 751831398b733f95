//! Two policies that must both agree.

use async_trait::async_trait;
use tokio::sync::watch;

use super::policy::AccessPolicy;
use super::request::{Access, AccessRequest};

/// Joins policies.
pub trait AccessPolicyExt: AccessPolicy + Sized {
    /// Allows what both allow, as long as both do. The second one is not asked about what
    /// the first denies. What one of them denies is denied, also if the other cannot tell.
    ///
    /// Must be called inside a tokio runtime if both tell of changes: a task joins these.
    fn and<P: AccessPolicy>(self, other: P) -> And<Self, P>;
}

impl<A: AccessPolicy> AccessPolicyExt for A {
    fn and<P: AccessPolicy>(self, other: P) -> And<Self, P> {
        And {
            first: self,
            second: other,
        }
    }
}

/// What [`AccessPolicyExt::and`] makes.
#[derive(Debug, Clone)]
pub struct And<A, B> {
    first: A,
    second: B,
}

#[async_trait]
impl<A: AccessPolicy, B: AccessPolicy> AccessPolicy for And<A, B> {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        let first = self.first.check(request).await;
        if first == Access::Deny {
            return Access::Deny;
        }
        match (first, self.second.check(request).await) {
            (_, Access::Deny) => Access::Deny,
            (Access::Allow { valid_for: first }, Access::Allow { valid_for: second }) => {
                Access::Allow {
                    valid_for: first.into_iter().chain(second).min(),
                }
            }
            _ => Access::Unknown,
        }
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        match (self.first.changes(), self.second.changes()) {
            (Some(first), Some(second)) => Some(joined(first, second)),
            (one, None) | (None, one) => one,
        }
    }
}

/// Changes when one of the two does, as long as somebody listens.
fn joined(
    mut first: watch::Receiver<u64>,
    mut second: watch::Receiver<u64>,
) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                Ok(()) = first.changed() => {}
                Ok(()) = second.changed() => {}
            }
            sender.send_modify(|changes| *changes += 1);
        }
    });
    receiver
}
