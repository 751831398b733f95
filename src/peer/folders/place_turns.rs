//! Which download puts its folder in a place at the moment.
//!
//! Two downloads may go to one place: two versions of a folder, of which each is to replace
//! what is there. What it promises: one of them at a time changes the place, and whoever has
//! looked at it before learns that another one has changed it since.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places that downloads of one peer go to.
#[derive(Default)]
pub(in crate::peer) struct PlaceTurns(Mutex<HashMap<PathBuf, Weak<Place>>>);

/// One place. It is forgotten when nobody has it any more.
pub(super) struct Place {
    turn: Arc<Semaphore>,
    /// How often somebody has begun to change it.
    changes: AtomicU64,
}

/// The right to change a place, as long as it is kept: a step on the disk that goes on when
/// its future is dropped keeps it as well.
pub(super) type Turn = Arc<OwnedSemaphorePermit>;

impl PlaceTurns {
    /// The place with this path.
    pub(super) fn place(&self, path: PathBuf) -> Arc<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&path).and_then(Weak::upgrade) {
            return place;
        }
        places.retain(|_, place| place.strong_count() > 0);
        let place = Arc::new(Place {
            turn: Arc::new(Semaphore::new(1)),
            changes: AtomicU64::new(0),
        });
        places.insert(path, Arc::downgrade(&place));
        place
    }
}

impl Place {
    /// A number that is another one when somebody has begun to change the place.
    pub(super) fn seen(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Waits until nobody else changes the place. Nothing if somebody has changed it since it
    /// was `seen`, if that matters. Otherwise the caller does, from now on.
    ///
    /// Cancel safe.
    pub(super) async fn turn(&self, seen: Option<u64>) -> Option<Turn> {
        // Nobody closes it.
        let permit = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        if seen.is_some_and(|seen| seen != self.seen()) {
            return None;
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        Some(Arc::new(permit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_second_learns_that_the_place_has_changed() {
        let turns = PlaceTurns::default();
        let (one, other) = (turns.place("a".into()), turns.place("a".into()));
        let (seen, also_seen) = (Some(one.seen()), Some(other.seen()));
        let turn = one.turn(seen).await.unwrap();
        let mut waits = Box::pin(other.turn(also_seen));
        assert!(futures::poll!(&mut waits).is_pending());
        let elsewhere = turns.place("b".into());
        assert!(elsewhere.turn(Some(elsewhere.seen())).await.is_some());
        // A step that goes on keeps the turn.
        let step = Arc::clone(&turn);
        drop(turn);
        assert!(futures::poll!(&mut waits).is_pending());
        drop(step);
        assert!(waits.await.is_none());
        assert!(other.turn(Some(other.seen())).await.is_some());
        assert!(one.turn(None).await.is_some());
    }

    #[test]
    fn places_that_nobody_has_are_forgotten() {
        let turns = PlaceTurns::default();
        for number in 0..100 {
            drop(turns.place(number.to_string().into()));
        }
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
