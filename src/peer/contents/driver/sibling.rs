//! The content that has its bytes in the same place as this one: each hears what the other
//! one has verified there, and what it fetches.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Driver, now};
use crate::content::ChunkIndex;
use crate::peer::swarm::{ChunkBytes, Swarm};
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

    /// Whether there is one.
    pub(super) fn is_any(&self) -> bool {
        self.sibling.is_some()
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
        let Some(sibling) = &self.sibling else {
            return;
        };
        let mut fetched = swarm.under_way();
        fetched.sort_unstable();
        if fetched != self.told {
            sibling.fetches(now(), &fetched);
            self.told = fetched;
        }
    }

    /// A chunk was read where it lies, and is good or bad. Returns which of both.
    pub(super) fn checked(&self, chunk: ChunkIndex, good: bool) -> bool {
        let sibling = self.sibling.as_ref();
        sibling.map_or(good, |sibling| sibling.checked(chunk, good))
    }

    fn eviction(&self) -> Option<StorageError> {
        self.sibling.as_ref()?.eviction()
    }
}

impl Driver {
    /// The content beside this one has something new.
    pub(super) fn hear_of_sibling(&mut self) {
        if let Some(evicted) = self.beside.eviction() {
            return self.storage_failed(None, evicted);
        }
        let Some(sibling) = self.beside.sibling.clone() else {
            return;
        };
        let is_missing = |swarm: &Swarm, chunk: &ChunkIndex| {
            matches!(swarm.chunk_bytes(*chunk), ChunkBytes::Missing)
        };
        let mut found = sibling.take_found();
        found.retain(|chunk| is_missing(&self.swarm, chunk));
        self.swarm.chunks_found(now(), &found);
        // Those that are being hashed or written go on.
        found.retain(|chunk| !is_missing(&self.swarm, chunk));
        let geometry = self.swarm.manifest().map(|manifest| manifest.geometry());
        let chunks = geometry.map_or(0, |geometry| geometry.chunks());
        for chunk in found {
            self.checks.distrust_more(chunk, chunks);
        }
        let since = now().checked_sub(LEFT_TO_OTHER);
        let (elsewhere, first) = sibling.elsewhere(since);
        self.beside.look = first.map(|first| Instant::from_std(first + LEFT_TO_OTHER));
        self.swarm.set_elsewhere(now(), Some(elsewhere));
    }
}
