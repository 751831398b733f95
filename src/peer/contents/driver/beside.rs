//! What a driver has of the content that has its bytes in the same place.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::content::{Bitfield, ChunkIndex};
use crate::peer::swarm::Swarm;
use crate::storage::StorageError;
use crate::storage::sibling::Sibling;

/// For how long a chunk is left to the other one that has begun to fetch it. A network that
/// takes longer for it is slow, and need not be waited for.
const LEFT_TO_OTHER: Duration = Duration::from_secs(2);

/// What a driver has of that content, if there is one.
#[derive(Default)]
pub(super) struct Beside {
    sibling: Option<Arc<dyn Sibling>>,
    /// What it was told last.
    told: Vec<ChunkIndex>,
    /// When the other one is to be looked at again.
    look: Option<Instant>,
}

impl Beside {
    pub(super) fn new(sibling: Option<Arc<dyn Sibling>>) -> Self {
        Self {
            sibling,
            told: Vec::new(),
            look: None,
        }
    }

    /// Whether there is one at present.
    pub(super) fn is_any(&self) -> bool {
        let sibling = self.sibling.as_ref();
        sibling.is_some_and(|sibling| !sibling.is_alone())
    }

    /// Waits until there is something new.
    ///
    /// Cancel safe.
    pub(super) async fn changed(&self) {
        let Some(sibling) = &self.sibling else {
            return std::future::pending().await;
        };
        match self.look {
            None => sibling.changed().await,
            Some(look) => tokio::select! {
                biased;
                () = sibling.changed() => {}
                () = sleep_until(look) => {}
            },
        }
    }

    /// Tells what is fetched at present, if that is new.
    pub(super) fn tell(&mut self, swarm: &Swarm) {
        let Some(sibling) = self.sibling.as_ref().filter(|sibling| !sibling.is_alone()) else {
            return;
        };
        let mut fetched = swarm.under_way();
        fetched.sort_unstable();
        if fetched != self.told {
            sibling.fetches(Instant::now().into_std(), &fetched);
            self.told = fetched;
        }
    }

    /// A chunk was read where it lies, and is good or bad. Returns which of both.
    pub(super) fn checked(&self, chunk: ChunkIndex, good: bool) -> bool {
        let sibling = self.sibling.as_ref();
        sibling.map_or(good, |sibling| sibling.checked(chunk, good))
    }

    /// Why the content cannot have its bytes there any more.
    pub(super) fn eviction(&self) -> Option<StorageError> {
        self.sibling.as_ref()?.eviction()
    }

    /// The chunks of which the other one has verified all bytes, as far as that is new.
    pub(super) fn take_found(&self) -> Vec<ChunkIndex> {
        let found = self.sibling.as_ref().map(|sibling| sibling.take_found());
        found.unwrap_or_default()
    }

    /// The chunks that are left to the other one at present.
    pub(super) fn elsewhere(&mut self) -> Option<Bitfield> {
        let sibling = self.sibling.as_ref()?;
        let since = Instant::now().into_std().checked_sub(LEFT_TO_OTHER);
        let (elsewhere, first) = sibling.elsewhere(since);
        self.look = first.map(|first| Instant::from_std(first + LEFT_TO_OTHER));
        Some(elsewhere)
    }
}
