//! Complete contents: shared, or found in the storage, and served by a driver.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, OpenContent};
use super::drivers::{DriverHandle, Settled};
use super::hashing::{HashError, manifest_of};
use super::inbox::Inbox;
use super::listing::Listing;
use super::share::ShareSource;
use super::shared::PeerShared;
use super::status::ContentStatus;
use super::swarm::Swarm;
use crate::content::{Content, ContentId};
use crate::error::ShareError;
use crate::protocol::{OwnEntry, OwnState};
use crate::storage::{Remembered, StorageError, Stored};

/// Hashes a content, tells the trackers, and serves it.
pub(super) async fn share(
    shared: &Arc<PeerShared>,
    source: ShareSource,
) -> Result<Content, ShareError> {
    let (name, blob) = source.open(&*shared.storage).await?;
    let manifest = match manifest_of(&*blob).await {
        Ok(manifest) => manifest,
        Err(HashError::Storage(error)) => return Err(error.into()),
        Err(HashError::Manifest(source)) => return Err(ShareError::Content { name, source }),
    };
    blob.release();
    let id = manifest.id();
    let content = Content::new(id, name.clone(), blob.length());
    let stored = Stored::new(name, manifest, blob);
    let (status, watched) = watch::channel(ContentStatus::announcing(content.clone()));
    let serving = serve(shared, stored.clone(), (status.clone(), watched)).await;
    let (stop, complete) = match serving {
        Ok(Serving { stop, entry }) => (stop, entry),
        Err(Settled::Complete(content)) => return Ok(content),
        Err(Settled::Downloading | Settled::Ended) => {
            return Err(ShareError::Downloading { id });
        }
    };
    // If this future is dropped, or the trackers refuse: not shared.
    let undo = stop.drop_guard();
    shared.trackers.own(complete).await?;
    shared.remember(&stored).await?;
    undo.disarm();
    status.send_modify(|status| status.end(Ok(content.clone())));
    Ok(content)
}

/// Ends the serving of a content, and waits until the trackers were told.
/// Returns `false` if it is not complete here.
pub(super) async fn unshare(shared: &PeerShared, id: &ContentId) -> bool {
    let Some(DriverHandle {
        mut status, stop, ..
    }) = shared.drivers.get(id)
    else {
        return false;
    };
    let complete = status.borrow().complete().is_some();
    if complete {
        stop.cancel();
        // The driver drops the other side when the trackers were told.
        while status.changed().await.is_ok() {}
    }
    complete
}

/// A content that is being served.
struct Serving {
    /// Ends that.
    stop: CancellationToken,
    /// What the trackers are still to be told.
    entry: OwnEntry,
}

/// Starts a driver that serves a content, unless the content has a driver.
async fn serve(
    shared: &Arc<PeerShared>,
    stored: Stored,
    (status, watched): (watch::Sender<ContentStatus>, watch::Receiver<ContentStatus>),
) -> Result<Serving, Settled> {
    let Stored {
        name,
        listed_as,
        manifest,
        blob,
        ..
    } = stored;
    let content = Content::new(manifest.id(), name, blob.length());
    let inbox = Inbox::new();
    let handle = DriverHandle {
        inbox: inbox.sender(),
        status: watched,
        stop: shared.stop.child_token(),
        cancel: CancellationToken::new(),
    };
    let claim = shared.drivers.claim(content.id, &handle).await?;
    let mut listing = Listing::new(content, listed_as);
    let entry = listing.announce(OwnState::Complete);
    let manifest = Arc::new(manifest);
    let now = tokio::time::Instant::now().into_std();
    let config = shared.swarm_config();
    let swarm = Swarm::seeder(now, config, shared.id, Arc::clone(&manifest));
    let driver = Driver::new(Arc::clone(shared), claim, swarm, listing, inbox, status)
        .serving(OpenContent::new(manifest, blob));
    let stop = handle.stop.clone();
    shared.spawn(shared.span.clone(), driver.run(handle.stop, handle.cancel));
    Ok(Serving { stop, entry })
}

/// Serves all contents that the storage remembers, without reading them.
/// Returns what to tell the trackers.
pub(super) async fn serve_stored(shared: &Arc<PeerShared>) -> Result<Vec<OwnEntry>, StorageError> {
    let catalogue = shared.storage.catalogue().await?;
    if !catalogue.lost.is_empty() {
        let (lost, remembered) = (catalogue.lost.len(), catalogue.remembered.len());
        tracing::warn!(lost, remembered, "some contents are not shared again");
    }
    for lost in &catalogue.lost {
        tracing::warn!(content = %lost.id, name = %lost.name, error = %lost.error, "not shared");
    }
    let mut entries = Vec::new();
    for remembered in catalogue.remembered {
        let Remembered {
            id,
            name,
            listed_as,
            blob,
            ..
        } = remembered;
        let manifest = match shared.storage.manifest(&name, &id).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => {
                tracing::warn!(content = %id, %name, "not shared: it is forgotten by now");
                continue;
            }
            Err(error) => {
                tracing::warn!(content = %id, %name, %error, "not shared");
                continue;
            }
        };
        let content = Content::new(id, name.clone(), blob.length());
        let status = watch::channel(ContentStatus::shared(content));
        let stored = Stored::new(name, manifest, blob).listed_as(listed_as);
        // A content with two names is served under the first.
        if let Ok(serving) = serve(shared, stored, status).await {
            entries.push(serving.entry);
        }
    }
    Ok(entries)
}

/// Tells the trackers, all at once: the client makes batches of it.
pub(super) async fn announce(shared: Arc<PeerShared>, entries: Vec<OwnEntry>) {
    let told = entries.into_iter().map(|entry| async {
        let id = entry.id;
        if let Err(error) = shared.trackers.own(entry).await {
            tracing::warn!(content = %id, %error, "announcing failed");
        }
    });
    shared.stop.run_until_cancelled(join_all(told)).await;
}
