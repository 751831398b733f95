//! Complete contents: shared, or found in the storage. They sleep until somebody
//! asks for them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::content::{Content, ContentId, Manifest};
use crate::error::ShareError;
use crate::peer::contents::driver::{Driver, OpenContent};
use crate::peer::contents::hashing::{HashError, manifest_of};
use crate::peer::contents::inbox::Inbox;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::table::{
    Asleep, DriverClaim, DriverHandle, KeptManifest, Settled, Taken, Waker, Waking,
};
use crate::peer::handles::share::ShareSource;
use crate::peer::session::outlet::LinkEnd;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::Swarm;
use crate::protocol::{OwnEntry, OwnState, RefuseReason};
use crate::storage::{StorageError, Stored};
use crate::tracker::TrackerError;

/// How long optional trackers are waited for when a content is shared. They are told
/// later in any case.
const TRACKER_GRACE: Duration = Duration::from_secs(2);

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
        Err(Settled::Complete(content)) => return Ok(content),
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
    tell_trackers(shared, complete).await?;
    let stored = || Stored::new(name, (*manifest).clone(), blob);
    if shared.remember(stored).await? {
        shared.contents.recorded(&id);
    }
    shared.losses.found(&id);
    undo.shared = None;
    shared.contents.announced(&id);
    Ok(content)
}

/// Announces a content that is shared. Trackers that are optional, and cannot be reached
/// or refuse for now, are told later.
async fn tell_trackers(shared: &PeerShared, entry: OwnEntry) -> Result<(), TrackerError> {
    let told = shared.trackers.own(entry);
    if !shared.trackers_optional {
        return told.await;
    }
    match timeout(TRACKER_GRACE, told).await {
        Ok(Err(
            error @ (TrackerError::Invalid(_)
            | TrackerError::TooManyContents { .. }
            | TrackerError::Closed),
        )) => Err(error),
        Ok(Err(error)) => {
            tracing::warn!(%error, "shared, though no tracker lists it yet");
            Ok(())
        }
        Ok(Ok(())) => Ok(()),
        Err(_) => {
            tracing::warn!("shared, though no tracker has answered yet");
            Ok(())
        }
    }
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
            withdraw(shared, &asleep, Record::Dropped).await;
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

/// What becomes of the storage's record of a content that is no longer shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Dropped,
    /// It may be readable after a restart.
    Kept,
}

/// Tells the trackers and the storage that a content is no longer here.
async fn withdraw(shared: &PeerShared, asleep: &Asleep, record: Record) {
    let told = shared
        .trackers
        .own(listing(asleep).announce(OwnState::Gone));
    let told = async {
        if let Err(error) = told.await {
            tracing::debug!(content = %asleep.content.id, %error, "withdrawing failed");
        }
    };
    let forgotten = async {
        if record == Record::Dropped {
            shared.forget(&asleep.content).await;
        }
    };
    let both = futures::future::join(told, forgotten);
    shared.tasks.stop.run_until_cancelled(both).await;
}

fn listing(asleep: &Asleep) -> Listing {
    let content = asleep.content.clone();
    let listed_as = asleep.listed_as.as_ref().unwrap_or(&content.name).clone();
    Listing::new(content, listed_as)
}

/// Adds all contents that the storage remembers, without reading them, and has the
/// trackers told of them.
pub(in crate::peer) async fn serve_stored(shared: &Arc<PeerShared>) -> Result<(), StorageError> {
    let catalogue = shared.storage.catalogue().await?;
    if !catalogue.lost.is_empty() {
        let (lost, remembered) = (catalogue.lost.len(), catalogue.remembered.len());
        tracing::warn!(lost, remembered, "some contents are not shared again");
    }
    for lost in &catalogue.lost {
        tracing::warn!(content = %lost.id, name = %lost.name, error = %lost.error, "not shared");
        shared.losses.insert(lost.clone());
    }
    let entries = catalogue.remembered.into_iter().filter_map(|remembered| {
        let asleep = Asleep::remembered(remembered);
        let entry = listing(&asleep).announce(OwnState::Complete);
        // A content with two names is served under the first.
        shared.contents.add_stored(asleep).then_some(entry)
    });
    let left_out = shared.trackers.own_all(entries);
    if left_out > 0 {
        tracing::warn!(left_out, "some contents are not announced");
    }
    Ok(())
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
    let awake = Awake::of(&shared, &waking.content).await;
    let Waking {
        content,
        claim,
        inbox,
        status,
        handle,
    } = waking;
    let Awake { manifest, bytes } = match awake {
        Ok(awake) => awake,
        Err(error) => return cannot_serve(&shared, content, claim, inbox, error).await,
    };
    let now = tokio::time::Instant::now().into_std();
    let config = shared.swarm_config();
    let swarm = Swarm::seeder(now, config, shared.identity.id, Arc::clone(&manifest));
    let blob = Arc::clone(&content.blob);
    let unchecked = content.unchecked.as_deref().cloned();
    let recorded = matches!(content.manifest, KeptManifest::Recorded);
    let listing = listing(&content).announced();
    drop(content);
    let driver = Driver::new(shared, claim, swarm, listing, inbox, status);
    let driver = driver.serving(OpenContent::new(manifest, blob).with_bytes(bytes), recorded);
    let driver = driver.unchecked(unchecked);
    Box::pin(driver.run(handle.stop, handle.cancel)).await;
}

/// Ends the links of a content that cannot be served now. If that will not pass, it is
/// not offered any more.
async fn cannot_serve(
    shared: &PeerShared,
    content: Arc<Asleep>,
    claim: DriverClaim,
    mut inbox: Inbox,
    error: StorageError,
) {
    tracing::warn!(content = %content.content.id, %error, "the content cannot be served");
    let (lost, record) = match error.is_gone() {
        true => (true, Record::Dropped),
        false => (error.is_loss(), Record::Kept),
    };
    let reason = match lost {
        true => RefuseReason::UnknownContent,
        false => RefuseReason::Busy,
    };
    while let Some(link) = inbox.next_link() {
        link.outlet.end(LinkEnd::Refused(reason));
    }
    if !lost {
        return claim.sleep_again(content);
    }
    shared.losses.add(&content.content, error);
    drop(claim);
    withdraw(shared, &content, record).await;
}

/// What a content that wakes up is served from.
struct Awake {
    manifest: Arc<Manifest>,
    /// All of it, if it has a single chunk: it was read for the manifest.
    bytes: Option<Bytes>,
}

impl Awake {
    async fn of(shared: &PeerShared, asleep: &Asleep) -> Result<Self, StorageError> {
        let content = &asleep.content;
        match &asleep.manifest {
            KeptManifest::Here(manifest) => return Ok(Self::without_bytes(Arc::clone(manifest))),
            KeptManifest::Recorded => {
                let recorded = shared.storage.manifest(&content.name, &content.id);
                if let Some(manifest) = recorded.await? {
                    return Ok(Self::without_bytes(Arc::new(manifest)));
                }
            }
            KeptManifest::Derived => return Self::read(asleep).await,
        }
        match manifest_of(&*asleep.blob).await {
            Ok(manifest) if manifest.id() == content.id => {
                Ok(Self::without_bytes(Arc::new(manifest)))
            }
            Err(HashError::Storage(error)) => Err(error),
            Ok(_) | Err(HashError::Manifest(_)) => Err(changed(asleep)),
        }
    }

    fn without_bytes(manifest: Arc<Manifest>) -> Self {
        Self {
            manifest,
            bytes: None,
        }
    }

    /// Reads a content of a single chunk.
    async fn read(asleep: &Asleep) -> Result<Self, StorageError> {
        let bytes = asleep.blob.read_at(0, asleep.blob.length() as usize);
        let bytes = bytes.await?;
        match Manifest::of(&bytes) {
            Ok(manifest) if manifest.id() == asleep.content.id => Ok(Self {
                manifest: Arc::new(manifest),
                bytes: Some(bytes),
            }),
            Ok(_) | Err(_) => Err(changed(asleep)),
        }
    }
}

fn changed(asleep: &Asleep) -> StorageError {
    let file = asleep.blob.file().map(|file| file.path().to_path_buf());
    let path = file.unwrap_or_else(|| asleep.content.name.as_str().into());
    StorageError::Changed { path }
}
