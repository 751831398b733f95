//! How much there may be in the storage of a peer, and who has reserved a part of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::content::ContentId;

/// The bound of the storage of a peer, and who has reserved a part of it.
pub(in crate::peer) struct Room {
    /// In bytes.
    max: Option<u64>,
    /// Held while room is made: two downloads must not count on the same.
    making: tokio::sync::Mutex<()>,
    reserved: Mutex<HashMap<ContentId, u64>>,
}

/// What a driver has reserved; given back when this is dropped.
pub(in crate::peer) struct Reservation {
    room: Arc<Room>,
    id: ContentId,
}

impl Room {
    /// For at most so many bytes.
    pub(in crate::peer) fn new(max: Option<u64>) -> Self {
        Self {
            max,
            making: tokio::sync::Mutex::default(),
            reserved: Mutex::default(),
        }
    }

    /// In bytes, if there is a bound.
    pub(in crate::peer) fn max(&self) -> Option<u64> {
        self.max
    }

    /// Waits until nobody else makes room.
    pub(in crate::peer) async fn making(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.making.lock().await
    }

    /// Reserves so many bytes for a content, until its [`Reservation`] is dropped.
    pub(in crate::peer) fn reserve(&self, id: ContentId, bytes: u64) {
        self.reserved().insert(id, bytes);
    }

    /// Ignores poison: no change under this lock is left half done.
    fn reserved(&self) -> MutexGuard<'_, HashMap<ContentId, u64>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of what is `stored` and of what is reserved, without this content.
    pub(in crate::peer) fn taken(
        &self,
        stored: impl IntoIterator<Item = (ContentId, u64)>,
        without: &ContentId,
    ) -> u64 {
        let mut all = self.reserved().clone();
        for (id, stored) in stored {
            let bytes = all.entry(id).or_default();
            *bytes = stored.max(*bytes);
        }
        all.remove(without);
        all.values()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

impl Reservation {
    /// Nothing yet, for a driver of this content.
    pub(in crate::peer) fn none(room: &Arc<Room>, id: ContentId) -> Self {
        let room = Arc::clone(room);
        Self { room, id }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.reserved().remove(&self.id);
    }
}
