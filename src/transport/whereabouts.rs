//! Where the other side of a connection is, which may move.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::protocol::Addr;

/// How often it is looked whether the other side has moved. No transport tells of it. Short
/// enough that whoever may not be where it is now is gone within a second.
const MOVE_CHECK: Duration = Duration::from_millis(500);

/// Where the other side of a connection is.
#[derive(Clone)]
pub(crate) struct Whereabouts {
    first: Addr,
    /// Tells where it is by now, if the connection outlives a move.
    now: Option<Now>,
}

/// Tells where the other side is by now.
pub(super) type Now = Arc<dyn Fn() -> Addr + Send + Sync>;

impl Whereabouts {
    pub(super) fn new(first: Addr, now: Option<Now>) -> Self {
        Self { first, now }
    }

    /// Where it is now.
    pub(crate) fn now(&self) -> Addr {
        self.now
            .as_ref()
            .map_or_else(|| self.first.clone(), |now| now())
    }

    /// Whether it may be elsewhere by now.
    pub(crate) fn may_move(&self) -> bool {
        self.now.is_some()
    }

    /// Returns once it is not there any more.
    ///
    /// Cancel safe.
    pub(crate) async fn moved_from(&self, there: &Addr) {
        let Some(now) = &self.now else {
            return std::future::pending().await;
        };
        while now() == *there {
            sleep(MOVE_CHECK).await;
        }
    }
}

impl fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}
