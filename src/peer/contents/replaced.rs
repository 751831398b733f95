//! What follows when a download has replaced a file: the contents that had a place there
//! have one less, and what had no other is no longer shared.

use std::sync::Arc;

use crate::content::{ContentId, ContentName};
use crate::peer::contents::place::{Place, check_present};
use crate::peer::shared::PeerShared;

/// A file with this name was replaced. Returns when nobody finds here any more what was
/// there. O(contents).
///
/// Cancel safe: some of these contents may stay until they are read.
pub(in crate::peer) async fn retire_replaced(shared: &PeerShared, name: &ContentName) {
    for id in shared.contents.may_lie_at(name) {
        let Some((asleep, others)) = shared.contents.places(&id).await else {
            continue;
        };
        let places: Vec<Place> = std::iter::once(asleep.place()).chain(others).collect();
        for place in &places {
            if place.may_lie_at(name) {
                retire_if_replaced(shared, id, place, &places).await;
            }
        }
    }
}

async fn retire_if_replaced(shared: &PeerShared, id: ContentId, place: &Place, all: &[Place]) {
    let error = match check_present(&*place.blob).await {
        Err(error) if error.is_loss() => error,
        Ok(()) | Err(_) => return,
    };
    if all.iter().filter(|other| other.name == place.name).count() == 1 {
        // Nothing of it comes back.
        shared.forget(&place.name, &id).await;
    }
    let blob = Arc::clone(&place.blob);
    shared.read_faults.unreadable(id, blob, error).await;
}
