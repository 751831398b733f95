//! How much of a content was sent, over all the times that it was awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter of the bytes of blocks that were sent. A clone is the same counter.
#[derive(Debug, Clone, Default)]
pub(in crate::peer) struct Uploads(Arc<AtomicU64>);

impl Uploads {
    pub(in crate::peer) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(in crate::peer) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
