//! What a driver does when the content that has its bytes in the same place has news.

use super::{Driver, now};
use crate::content::ChunkIndex;
use crate::peer::swarm::{ChunkBytes, Swarm};

impl Driver {
    /// The content beside this one has something new.
    pub(super) fn hear_of_sibling(&mut self) {
        if let Some(evicted) = self.beside.eviction() {
            return self.storage_failed(None, evicted);
        }
        let is_missing = |swarm: &Swarm, chunk: &ChunkIndex| {
            matches!(swarm.chunk_bytes(*chunk), ChunkBytes::Missing)
        };
        let mut found = self.beside.take_found();
        found.retain(|chunk| is_missing(&self.swarm, chunk));
        self.swarm.chunks_found(now(), &found);
        // Those that are being hashed or written go on.
        found.retain(|chunk| !is_missing(&self.swarm, chunk));
        let geometry = self.swarm.manifest().map(|manifest| manifest.geometry());
        let chunks = geometry.map_or(0, |geometry| geometry.chunks());
        for chunk in found {
            self.checks.distrust_more(chunk, chunks);
        }
        let elsewhere = self.beside.elsewhere();
        self.swarm.set_elsewhere(now(), elsewhere);
    }
}
