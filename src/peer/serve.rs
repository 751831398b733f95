//! Contents that are complete here, and get a driver that serves them.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::download::Status;
use super::driver::{Driver, INBOX_LEN};
use super::shared::{Settled, Shared, SwarmHandle};
use super::swarm::Swarm;
use crate::content::{Content, ContentName};
use crate::protocol::{OwnEntry, OwnState};
use crate::storage::{StorageError, Stored};

/// Serves a content from now on, unless it has a driver already. Cancelling
/// what is returned ends that.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    content: Content,
    stored: Stored,
    (status, watched): (watch::Sender<Status>, watch::Receiver<Status>),
) -> Result<CancellationToken, Settled> {
    let inbox = mpsc::channel(INBOX_LEN);
    let handle = SwarmHandle {
        inbox: inbox.0.clone(),
        status: watched,
        stop: shared.stop.child_token(),
        cancel: CancellationToken::new(),
    };
    let claim = shared.claim(content.id, &handle).await?;
    let Stored {
        listed_as,
        manifest,
        blob,
        ..
    } = stored;
    let now = tokio::time::Instant::now().into_std();
    let swarm = Swarm::seeder(now, shared.swarm_config(), shared.id, Arc::new(manifest));
    let driver = Driver::new(
        Arc::clone(shared),
        claim,
        swarm,
        (content, listed_as),
        Some(blob),
        inbox,
        status,
    );
    shared.spawn(driver.run(handle.stop.clone(), handle.cancel));
    Ok(handle.stop)
}

/// Serves all that the storage has kept in mind, without reading it. Gives
/// what the trackers are to be told.
pub(super) async fn serve_stored(shared: &Arc<Shared>) -> Result<Vec<OwnEntry>, StorageError> {
    let mut entries = Vec::new();
    for stored in shared.storage.catalogue().await? {
        let (id, length) = (stored.manifest.id(), stored.blob.length());
        let content = Content::new(id, stored.name.clone(), length);
        let status = watch::channel(Status::shared(content.clone()));
        let entry = entry(&content, &stored.listed_as, OwnState::Complete);
        // One content under two names is served under the first.
        if serve(shared, content, stored, status).await.is_ok() {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Tells the trackers, all at once: the client makes batches of it.
pub(super) async fn announce(shared: Arc<Shared>, entries: Vec<OwnEntry>) {
    let told = entries.into_iter().map(|entry| async {
        let id = entry.id;
        if let Err(error) = shared.trackers.own(entry).await {
            tracing::warn!(content = %id, %error, "announcing failed");
        }
    });
    shared.stop.run_until_cancelled(join_all(told)).await;
}

/// What trackers are told of a content. The name that it has here may be the
/// user's own, and is nobody else's business.
pub(super) fn entry(content: &Content, listed_as: &ContentName, state: OwnState) -> OwnEntry {
    OwnEntry {
        id: content.id,
        name: listed_as.clone(),
        length: content.length,
        state,
    }
}
