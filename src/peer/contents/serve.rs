//! Complete contents: shared, or found in the storage. They sleep until somebody
//! asks for them.

use std::sync::{Arc, Weak};

use futures::future::join_all;

use crate::content::{Content, ContentId, Manifest};
use crate::error::ShareError;
use crate::peer::contents::driver::{Driver, OpenContent};
use crate::peer::contents::hashing::{HashError, manifest_of};
use crate::peer::contents::listing::Listing;
use crate::peer::contents::role::Role;
use crate::peer::contents::table::{
    Asleep, DriverHandle, KeptManifest, Settled, Taken, Waker, Waking,
};
use crate::peer::handles::share::ShareSource;
use crate::peer::session::outlet::LinkEnd;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::Swarm;
use crate::protocol::{OwnEntry, OwnState, RefuseReason};
use crate::storage::{StorageError, Stored};

/// Hashes a content, tells the trackers, and serves it.
pub(in crate::peer) async fn share(
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
    let manifest = Arc::new(manifest);
    let asleep = Asleep::new(
        content.clone(),
        name.clone(),
        blob.clone(),
        &manifest,
        false,
    );
    match shared.contents.add(asleep).await {
        Ok(()) => {}
        Err(Settled::Complete(here)) if !shared.folders.shared_alone(&content) => {
            return Ok(here);
        }
        Err(Settled::Complete(_)) => {
            let stored = Stored::new(name, (*manifest).clone(), blob);
            return share_file_of_folder(shared, content, stored).await;
        }
        Err(Settled::Downloading | Settled::Ended) => {
            return Err(ShareError::Downloading { id });
        }
    }
    // If this future is dropped, or the trackers refuse: not shared.
    let mut undo = Undo {
        shared: Some(shared),
        id,
    };
    let mut listing = Listing::new(content.clone(), name.clone());
    let complete = listing.announce(OwnState::Complete);
    shared.trackers.own(complete).await?;
    let stored = || Stored::new(name, (*manifest).clone(), blob);
    if shared.remember(stored).await? {
        shared.contents.recorded(&id);
    }
    undo.shared = None;
    shared.contents.announced(&id);
    Ok(content)
}

/// Shares a file by itself that is served already, as a file of a folder.
async fn share_file_of_folder(
    shared: &Arc<PeerShared>,
    content: Content,
    stored: Stored,
) -> Result<Content, ShareError> {
    let mut listing = Listing::new(content.clone(), content.name.clone());
    let told = async {
        let complete = listing.announce(OwnState::Complete);
        shared.trackers.own(complete).await?;
        shared.remember(|| stored).await?;
        Ok(content)
    };
    let told = told.await;
    if told.is_err() {
        shared.folders.unshared_alone(&listing.content.id);
    }
    told
}

/// Removes a content that could not be shared after all.
struct Undo<'a> {
    /// `None` if it is shared.
    shared: Option<&'a PeerShared>,
    id: ContentId,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(shared) = self.shared else {
            return;
        };
        if let Some(Taken::Awake(driver)) = shared.contents.take(&self.id) {
            driver.stop.cancel();
        }
        shared.contents.announced(&self.id);
    }
}

/// Ends the serving of a content, and waits until the trackers were told.
/// Returns `false` if it is not complete here.
pub(in crate::peer) async fn unshare(shared: &PeerShared, id: &ContentId) -> bool {
    if shared.contents.is_announcing(id) {
        return false;
    }
    match shared.contents.take(id) {
        None => false,
        Some(Taken::Asleep(asleep)) => {
            withdraw(shared, &asleep).await;
            true
        }
        Some(Taken::Awake(DriverHandle {
            mut status, stop, ..
        })) => {
            let complete = status.borrow().complete().is_some();
            if complete {
                stop.cancel();
                // The driver drops the other side when the trackers were told.
                while status.changed().await.is_ok() {}
            }
            complete
        }
    }
}

/// Tells the trackers and the storage that a content is no longer here.
async fn withdraw(shared: &PeerShared, asleep: &Asleep) {
    if asleep.role == Role::File {
        return;
    }
    let told = shared
        .trackers
        .own(listing(asleep).announce(OwnState::Gone));
    let told = async {
        if let Err(error) = told.await {
            tracing::debug!(content = %asleep.content.id, %error, "withdrawing failed");
        }
    };
    let forgotten = async {
        if asleep.role == Role::Alone {
            shared.forget(&asleep.content).await;
        }
    };
    let both = futures::future::join(told, forgotten);
    shared.tasks.stop.run_until_cancelled(both).await;
}

fn listing(asleep: &Asleep) -> Listing {
    let content = asleep.content.clone();
    let listed_as = asleep.listed_as.as_ref().unwrap_or(&content.name).clone();
    Listing::new(content, listed_as).role(asleep.role)
}

/// Adds all contents that the storage remembers, without reading them. Returns
/// what to tell the trackers.
pub(in crate::peer) async fn serve_stored(
    shared: &Arc<PeerShared>,
) -> Result<Vec<OwnEntry>, StorageError> {
    let mut entries = Vec::new();
    let catalogue = shared.storage.catalogue().await?;
    if !catalogue.lost.is_empty() {
        let (lost, remembered) = (catalogue.lost.len(), catalogue.remembered.len());
        tracing::warn!(lost, remembered, "some contents are not shared again");
    }
    for lost in &catalogue.lost {
        tracing::warn!(content = %lost.id, name = %lost.name, error = %lost.error, "not shared");
    }
    for remembered in catalogue.remembered {
        let asleep = Asleep::remembered(remembered);
        let entry = listing(&asleep).announce(OwnState::Complete);
        // A content with two names is served under the first.
        if shared.contents.add_stored(asleep) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Tells the trackers, all at once: the client makes batches of it.
pub(in crate::peer) async fn announce(shared: Arc<PeerShared>, entries: Vec<OwnEntry>) {
    let told = entries.into_iter().map(|entry| async {
        let id = entry.id;
        if let Err(error) = shared.trackers.own(entry).await {
            tracing::warn!(content = %id, %error, "announcing failed");
        }
    });
    shared.tasks.stop.run_until_cancelled(join_all(told)).await;
}

/// Starts drivers of contents that were asleep.
pub(in crate::peer) struct DriverWaker(pub(in crate::peer) Weak<PeerShared>);

impl Waker for DriverWaker {
    fn wake(&self, waking: Waking) {
        if let Some(shared) = self.0.upgrade() {
            let span = shared.tasks.span.clone();
            let serving = serve(Arc::clone(&shared), waking);
            shared.tasks.spawn(span, serving);
        }
    }
}

/// Serves a content that has woken up, until it falls asleep again.
async fn serve(shared: Arc<PeerShared>, waking: Waking) {
    let manifest = manifest(&shared, &waking.content).await;
    let Waking {
        content,
        claim,
        mut inbox,
        status,
        handle,
    } = waking;
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            tracing::warn!(content = %content.content.id, %error, "the content cannot be served");
            let gone = matches!(
                error,
                StorageError::Changed { .. } | StorageError::NotFound { .. }
            );
            let reason = match gone {
                true => RefuseReason::UnknownContent,
                false => RefuseReason::Busy,
            };
            while let Some(link) = inbox.next_link() {
                link.outlet.end(LinkEnd::Refused(reason));
            }
            match gone {
                true => {
                    drop(claim);
                    withdraw(&shared, &content).await;
                }
                // It may be served another time.
                false => claim.sleep_again(content),
            }
            return;
        }
    };
    let now = tokio::time::Instant::now().into_std();
    let config = shared.swarm_config();
    let swarm = Swarm::seeder(now, config, shared.identity.id, Arc::clone(&manifest));
    let blob = Arc::clone(&content.blob);
    let unchecked = content.unchecked.as_deref().cloned();
    let recorded = matches!(content.manifest, KeptManifest::Recorded);
    let role = content.role;
    let listing = listing(&content);
    let listing = match role {
        Role::File => listing,
        Role::Alone | Role::Index => listing.announced(),
    };
    drop(content);
    let driver = Driver::new(shared, claim, swarm, listing, inbox, status);
    let driver = driver.serving(OpenContent::new(manifest, blob), recorded);
    let driver = driver.unchecked(unchecked);
    Box::pin(driver.run(handle.stop, handle.cancel)).await;
}

/// The manifest of a content that wakes up.
async fn manifest(shared: &PeerShared, asleep: &Asleep) -> Result<Arc<Manifest>, StorageError> {
    let content = &asleep.content;
    match &asleep.manifest {
        KeptManifest::Here(manifest) => return Ok(Arc::clone(manifest)),
        KeptManifest::Recorded => {
            let recorded = shared.storage.manifest(&content.name, &content.id);
            if let Some(manifest) = recorded.await? {
                return Ok(Arc::new(manifest));
            }
        }
        KeptManifest::Derived => {}
    }
    match manifest_of(&*asleep.blob).await {
        Ok(manifest) if manifest.id() == asleep.content.id => Ok(Arc::new(manifest)),
        Err(HashError::Storage(error)) => Err(error),
        Ok(_) | Err(HashError::Manifest(_)) => {
            let file = asleep.blob.file().map(|file| file.path().to_path_buf());
            let path = file.unwrap_or_else(|| asleep.content.name.as_str().into());
            Err(StorageError::Changed { path })
        }
    }
}
