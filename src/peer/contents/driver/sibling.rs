//! The content that has its bytes in the same place as this one: each hears what the other
//! one has verified there, and what it fetches.

use std::sync::Arc;

use super::{Driver, now};
use crate::content::ChunkIndex;
use crate::peer::swarm::{ChunkBytes, Swarm};
use crate::storage::StorageError;
use crate::storage::sibling::Sibling;

/// What a driver has of that content, if there is one.
#[derive(Default)]
pub(super) struct Beside {
    sibling: Option<Arc<dyn Sibling>>,
    /// What it was told last.
    told: Vec<ChunkIndex>,
}

impl Beside {
    pub(super) fn new(sibling: Option<Arc<dyn Sibling>>) -> Self {
        Self {
            sibling,
            told: Vec::new(),
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
        match &self.sibling {
            Some(sibling) => sibling.changed().await,
            None => std::future::pending().await,
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
            sibling.fetches(&fetched);
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
        self.swarm.set_elsewhere(Some(sibling.elsewhere()));
    }
}
