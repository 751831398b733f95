//! Makes room in the storage of a peer: contents that were used least recently give way to
//! downloads.

use std::collections::HashSet;
use std::sync::Arc;

use crate::content::{Content, ContentId};
use crate::peer::contents::table::{Evicting, Kept};
use crate::peer::contents::withdrawal::tell_gone;
use crate::peer::events::event::PeerEvent;
use crate::peer::shared::PeerShared;
use crate::protocol::RefuseReason;
use crate::storage::{Storage, StorageError};

/// A content in the storage, and whether it may be evicted.
struct InStorage {
    kept: Kept,
    /// What it takes under all its names.
    bytes: u64,
}

/// Makes room for a content of this length in the storage that it goes to, and reserves
/// that until the reservation of its driver is dropped. Does nothing for another storage than that
/// of the peer, or if that has no bound. O(contents).
///
/// Cancel safe: what is being evicted at that moment is evicted or not.
///
/// # Errors
/// [`StorageError::Full`] if it cannot fit. Nothing is evicted then.
pub(in crate::peer) async fn make_room(
    shared: &Arc<PeerShared>,
    storage: &Arc<dyn Storage>,
    content: &Content,
) -> Result<(), StorageError> {
    let room = &shared.room;
    let Some(max) = room.max().filter(|_| Arc::ptr_eq(storage, &shared.storage)) else {
        return Ok(());
    };
    let _making = room.making().await;
    let mut refused = HashSet::new();
    loop {
        let stored = in_storage(shared).await;
        let bytes = stored.iter().map(|stored| (stored.kept.id, stored.bytes));
        let taken = room.taken(bytes, &content.id);
        let excess = taken.saturating_add(content.length).saturating_sub(max);
        if excess == 0 {
            room.reserve(content.id, content.length);
            return Ok(());
        }
        let mut idle: Vec<(u32, ContentId, u64)> = stored
            .iter()
            .filter(|stored| stored.kept.id != content.id && !refused.contains(&stored.kept.id))
            .filter_map(|stored| Some((stored.kept.idle?, stored.kept.id, stored.bytes)))
            .collect();
        idle.sort_unstable();
        let evictable: u64 = idle.iter().map(|(_, _, bytes)| bytes).sum();
        if evictable < excess {
            let available = max.saturating_sub(taken - evictable);
            let name = content.name.as_str();
            return Err(StorageError::full(name, content.length, Some(available)));
        }
        let mut freed = 0;
        for (_, id, bytes) in idle {
            if freed >= excess {
                break;
            }
            match evict(shared, &id).await {
                true => freed += bytes,
                false => _ = refused.insert(id),
            }
        }
    }
}

/// The complete contents that lie in the storage of the peer, with one place at least.
async fn in_storage(shared: &PeerShared) -> Vec<InStorage> {
    let mut stored = Vec::new();
    for mut kept in shared.contents.kept() {
        let Some((asleep, places)) = shared.contents.places(&kept.id).await else {
            continue;
        };
        let mut here = 0;
        for place in std::iter::once(&asleep.place()).chain(&places) {
            let is_here = place.is_in(&*shared.storage).await;
            here += u64::from(is_here);
            if !is_here || !place.written_here {
                // It is shared from elsewhere as well, or is not this peer's to remove.
                kept.idle = None;
            }
        }
        if here > 0 {
            let bytes = kept.length.saturating_mul(here);
            stored.push(InStorage { kept, bytes });
        }
    }
    stored
}

/// Removes a content that nobody uses at this moment, and tells the trackers. Returns
/// whether it is gone.
async fn evict(shared: &Arc<PeerShared>, id: &ContentId) -> bool {
    let Some(evicting) = shared.contents.take_idle(id) else {
        return false;
    };
    let Evicting {
        asleep,
        places,
        claim,
        mut inbox,
        ..
    } = evicting;
    let mut any = false;
    for place in std::iter::once(&asleep.place()).chain(&places) {
        let file = place.blob.file();
        place.blob.release();
        let removed = shared.storage.remove(&place.name, id, file.as_ref()).await;
        match removed {
            Ok(()) => any = true,
            Err(error) => tracing::warn!(content = %id, name = %place.name, %error, "not evicted"),
        }
        if !any {
            // It stays, and is served as before.
            claim.sleep_again(asleep);
            inbox.refuse_links(RefuseReason::Busy);
            return false;
        }
        shared.forget(&place.name, id).await;
    }
    tracing::info!(content = %id, name = %asleep.content.name, "evicted");
    let content = asleep.content.clone();
    let told = {
        let (shared, stop) = (Arc::clone(shared), shared.tasks.stop.clone());
        async move {
            stop.run_until_cancelled(tell_gone(&shared, &asleep)).await;
        }
    };
    // Noted before anybody can share the content again.
    let mut told = Box::pin(told);
    let is_told = futures::poll!(told.as_mut()).is_ready();
    drop(claim);
    inbox.refuse_links(RefuseReason::UnknownContent);
    shared.events.publish(|| PeerEvent::Evicted { content });
    if !is_told {
        shared.tasks.spawn(shared.tasks.span.clone(), told);
    }
    true
}
