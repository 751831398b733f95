//! Several contents over the same bytes, as each of them sees the others.

use std::time::Instant;

use async_trait::async_trait;

use super::StorageError;
use crate::content::{Bitfield, ChunkIndex};

/// The other contents that have their bytes in the same place, as one of them sees them. All
/// chunks are chunks of this one. What others have verified is only worth a look: they have
/// other digests, and nothing proves that these are of the same bytes.
#[async_trait]
#[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
pub(crate) trait Sibling: Send + Sync {
    /// Whether there are no others at present.
    fn is_alone(&self) -> bool;

    /// Waits until there is something new. One waits at a time.
    ///
    /// Cancel safe.
    async fn changed(&self);

    /// The chunks of which others have verified and written all bytes, as far as that is new.
    fn take_found(&self) -> Vec<ChunkIndex>;

    /// The chunks that others have begun to fetch since then, or parts of them, and when they
    /// have begun with the first of them.
    fn elsewhere(&self, since: Option<Instant>) -> (Bitfield, Option<Instant>);

    /// From now on this content fetches these chunks, and no others.
    fn fetches(&self, now: Instant, chunks: &[ChunkIndex]);

    /// A chunk was read and hashed, and is good or bad. Returns whether it is there and good:
    /// not if somebody else may have written over it meanwhile.
    fn checked(&self, chunk: ChunkIndex, good: bool) -> bool;

    /// Why this content cannot have its bytes there any more.
    fn eviction(&self) -> Option<StorageError>;
}
