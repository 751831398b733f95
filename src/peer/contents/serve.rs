//! Complete contents: shared, or found in the storage. They sleep until somebody
//! asks for them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::content::{Content, ContentId, ContentName, Geometry, Manifest};
use crate::error::{DownloadError, ShareError};
use crate::peer::contents::asleep::{Asleep, KeptManifest};
use crate::peer::contents::driver::{Driver, OpenContent};
use crate::peer::contents::hashing::{HashError, manifest_of};
use crate::peer::contents::inbox::Inbox;
use crate::peer::contents::losses::LostThing;
use crate::peer::contents::lost;
use crate::peer::contents::place::{MAX_PLACES, Place, check_present};
use crate::peer::contents::role::Role;
use crate::peer::contents::status::ContentStatus;
use crate::peer::contents::table::{
    AddedPlace, DriverClaim, DriverHandle, Settled, Taken, Waker, Waking,
};
use crate::peer::contents::withdrawal::{listing, tell_gone};
use crate::peer::events::event::PeerEvent;
use crate::peer::handles::share::ShareSource;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::Swarm;
use crate::peer::tasks::Decision;
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
    decided: &Decision,
) -> Result<Content, ShareError> {
    let (name, blob) = source.open(&*shared.storage).await?;
    let hashed = manifest_of(&*blob).await;
    let manifest = hashed.map_err(|error| not_hashed(&name, error))?;
    let telling = Telling::Awaited;
    let place = Place::of_user(name, blob);
    share_place(shared, place, manifest, (telling, decided)).await
}

/// Why what was to be shared under this name has no manifest.
pub(in crate::peer) fn not_hashed(name: &ContentName, error: HashError) -> ShareError {
    match error {
        HashError::Storage(error) => error.into(),
        HashError::Manifest(source) => {
            let name = name.clone();
            ShareError::Content { name, source }
        }
    }
}

/// When trackers are told of what is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peer) enum Telling {
    /// Before it counts as shared.
    Awaited,
    /// In the background.
    Later,
}

/// Tells the trackers of a content at this place that was hashed, and serves it. It is
/// `decided` when it is being recorded.
pub(in crate::peer) async fn share_place(
    shared: &Arc<PeerShared>,
    place: Place,
    manifest: Manifest,
    (telling, decided): (Telling, &Decision),
) -> Result<Content, ShareError> {
    place.blob.release();
    let content = Content::new(manifest.id(), place.name.clone(), place.blob.length());
    let manifest = Arc::new(manifest);
    loop {
        match share_at(shared, &content, &place, &manifest, (telling, decided)).await {
            Ok(true) => return Ok(content),
            // It went away meanwhile.
            Ok(false) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Serves a content from this place: as a new content, or as one more place of one that
/// is here. Returns `false` if that went away meanwhile.
async fn share_at(
    shared: &Arc<PeerShared>,
    content: &Content,
    place: &Place,
    manifest: &Arc<Manifest>,
    (telling, decided): (Telling, &Decision),
) -> Result<bool, ShareError> {
    let id = content.id;
    let asleep = Asleep::new(id, place.clone(), manifest, false);
    match shared.contents.add(asleep).await {
        Ok(()) => {}
        Err(Settled::Complete) => {
            let how = (telling, decided);
            let added = add_place(shared, &id, place.clone(), manifest, how);
            return match added.await {
                Ok(()) => Ok(true),
                Err(NotAdded::NotHere) => Ok(false),
                Err(NotAdded::Full) => Err(ShareError::TooManyNames {
                    id,
                    max: MAX_PLACES,
                }),
                Err(NotAdded::Storage(error)) => Err(error.into()),
                Err(NotAdded::Tracker(error)) => Err(error.into()),
                Err(NotAdded::ShutDown) => Err(ShareError::ShutDown),
            };
        }
        Err(Settled::Downloading(_) | Settled::Ended) => {
            return Err(ShareError::Downloading { id });
        }
    }
    // If this future is dropped, or the trackers refuse: not shared.
    let undo = Undo {
        shared: Some(Arc::clone(shared)),
        id,
    };
    tell(shared, place.entry(id), telling).await?;
    let (of, content) = (Arc::clone(shared), content.clone());
    let (place, manifest) = (place.clone(), Arc::clone(manifest));
    let recorded = async move {
        if of.remember(|| stored(&place, &manifest)).await? {
            of.contents.recorded(&id);
        }
        of.losses.found(&id);
        undo.keep();
        of.contents.announced(&id);
        of.events.publish(|| PeerEvent::ShareStarted { content });
        Ok(true)
    };
    let shut_down = ShareError::ShutDown;
    shared.tasks.decide(decided, recorded, shut_down).await
}

/// Announces a content that is shared. Trackers that are optional, and cannot be reached
/// or refuse for now, are told later.
pub(in crate::peer) async fn tell_trackers(
    shared: &PeerShared,
    entry: OwnEntry,
) -> Result<(), TrackerError> {
    let told = shared.trackers.own(entry);
    if !shared.trackers_optional {
        return told.await;
    }
    match timeout(TRACKER_GRACE, told).await {
        Ok(Err(
            error @ (TrackerError::Invalid(_)
            | TrackerError::TooManyContents { .. }
            | TrackerError::TooManyNames { .. }
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

/// Announces a content that is shared, now or in the background.
async fn tell(shared: &PeerShared, entry: OwnEntry, telling: Telling) -> Result<(), TrackerError> {
    match telling {
        Telling::Awaited => tell_trackers(shared, entry).await,
        Telling::Later => {
            let id = entry.id;
            if shared.trackers.own_all([entry]) > 0 {
                tracing::warn!(content = %id, "the content is not announced");
            }
            Ok(())
        }
    }
}

/// What the storage is to remember of a place.
fn stored(place: &Place, manifest: &Manifest) -> Stored {
    let (name, blob) = (place.name.clone(), Arc::clone(&place.blob));
    Stored::new(name, manifest.clone(), blob)
        .listed_as(place.listed_as.clone())
        .written_here(place.written_here)
}

/// Removes a content that could not be shared after all.
struct Undo {
    /// `None` if it is shared.
    shared: Option<Arc<PeerShared>>,
    id: ContentId,
}

impl Undo {
    fn keep(mut self) {
        self.shared = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        if let Some(Taken::Awake(driver)) = shared.contents.take(&self.id) {
            driver.stop.cancel();
        }
        shared.contents.announced(&self.id);
    }
}

/// Why a complete content did not get one more place.
pub(in crate::peer) enum NotAdded {
    /// It is not here any more.
    NotHere,
    /// It has too many.
    Full,
    Storage(StorageError),
    Tracker(TrackerError),
    ShutDown,
}

/// Gives a complete content one more place, and tells the trackers its name. Does
/// nothing if it has that place.
///
/// Cancel safe: the content has the place or not.
pub(in crate::peer) async fn add_place(
    shared: &Arc<PeerShared>,
    id: &ContentId,
    place: Place,
    manifest: &Arc<Manifest>,
    (telling, decided): (Telling, &Decision),
) -> Result<(), NotAdded> {
    let (asleep, places) = shared.contents.places(id).await.ok_or(NotAdded::NotHere)?;
    let main = asleep.place();
    // Trackers do not know what is only a file of a folder.
    let known = Some(&main).filter(|_| asleep.role != Role::File);
    let mut known = known.into_iter().chain(&places);
    let is_listed = known.any(|other| other.listed_as == place.listed_as);
    match shared.contents.add_place(id, &main, place.clone()) {
        AddedPlace::Added => {}
        AddedPlace::Known => return Ok(()),
        AddedPlace::Full => return Err(NotAdded::Full),
        AddedPlace::NotHere => return Err(NotAdded::NotHere),
    }
    let undo = UndoPlace {
        shared: Some(Arc::clone(shared)),
        id: *id,
        place: place.clone(),
    };
    if !is_listed {
        let mut entry = place.entry(*id);
        if asleep.role == Role::Index && !shared.folders.is_whole(id) {
            // It stands for the folder.
            entry.state = OwnState::Partial;
        }
        tell(shared, entry, telling)
            .await
            .map_err(NotAdded::Tracker)?;
    }
    let (of, manifest) = (Arc::clone(shared), Arc::clone(manifest));
    let recorded = async move {
        let recorded = of.remember(|| stored(&place, &manifest)).await;
        recorded.map_err(NotAdded::Storage)?;
        undo.keep();
        Ok(())
    };
    let shut_down = NotAdded::ShutDown;
    shared.tasks.decide(decided, recorded, shut_down).await
}

/// Removes a place that could not be added after all. Its name stays at trackers until
/// the content is withdrawn.
struct UndoPlace {
    /// `None` if it is added.
    shared: Option<Arc<PeerShared>>,
    id: ContentId,
    place: Place,
}

impl UndoPlace {
    fn keep(mut self) {
        self.shared = None;
    }
}

impl Drop for UndoPlace {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.contents.remove_place(&self.id, &self.place);
        }
    }
}

/// Ends the serving of a content under all its names, drops its records, and waits until
/// the trackers were told. A folder that has it as a file keeps that. Returns `false` if
/// it is not complete here by itself, and was not remembered either.
pub(in crate::peer) async fn unshare(shared: &Arc<PeerShared>, id: &ContentId) -> bool {
    if shared.contents.is_announcing(id) {
        return false;
    }
    let mut names = shared.losses.forget(id);
    let here = shared.contents.names(id);
    let content = here.as_ref().map(|(content, _)| content.clone());
    names.extend(here.into_iter().flat_map(|(_, names)| names));
    if names.is_empty() {
        return false;
    }
    let withdrawn = match shared.folders.blob(id) {
        Some(_) if shared.contents.role(id) == Some(Role::File) => unname(shared, id).boxed(),
        _ => withdraw(shared, id).boxed(),
    };
    let (id, of) = (*id, Arc::clone(shared));
    let forget = async move {
        for name in names {
            of.forget(&name, &id).await;
        }
    };
    if let Some(content) = content {
        shared.events.publish(|| PeerEvent::ShareEnded { content });
    }
    // Goes on if this future is dropped.
    let (done, heard) = oneshot::channel::<()>();
    let stop = shared.tasks.stop.clone();
    shared.tasks.spawn(shared.tasks.span.clone(), async move {
        stop.run_until_cancelled(futures::future::join(withdrawn, forget))
            .await;
        drop(done);
    });
    // It ends with an error when it is dropped.
    let _ = heard.await;
    true
}

/// Takes all names from a file of a folder, at once. The future tells the trackers.
fn unname(shared: &Arc<PeerShared>, id: &ContentId) -> impl Future<Output = ()> + use<> {
    shared.contents.remove_places(id);
    let (shared, id) = (Arc::clone(shared), *id);
    async move {
        if let Some((asleep, _)) = shared.contents.places(&id).await {
            tell_gone(&shared, &asleep).await;
        }
    }
}

/// Takes a complete content away, at once. The future tells the trackers, and then gives
/// a folder its file back. The records of the storage stay.
fn withdraw(shared: &Arc<PeerShared>, id: &ContentId) -> impl Future<Output = ()> + use<> {
    let id = *id;
    let was_alone = shared.contents.role(&id) == Some(Role::Alone);
    let taken = shared.contents.take(&id);
    if let Some(Taken::Awake(driver)) = &taken {
        driver.stop.cancel();
    }
    let shared = Arc::clone(shared);
    async move {
        match taken {
            None => {}
            Some(Taken::Asleep(asleep)) => tell_gone(&shared, &asleep).await,
            // The driver drops the other side when the trackers were told.
            Some(Taken::Awake(DriverHandle { mut status, .. })) => {
                while status.changed().await.is_ok() {}
            }
        }
        if let Some(blob) = shared.folders.blob(&id).filter(|_| was_alone) {
            let content = Content::new(id, id.into(), blob.length());
            let asleep = Asleep::of_folder(content, Role::File, blob, None);
            shared.contents.add_stored(asleep);
        }
    }
}

/// Withdraws a complete content whose bytes are gone. What the storage has recorded of
/// it stays: at the next start the storage sees what became of that.
pub(in crate::peer) async fn retire(shared: &Arc<PeerShared>, id: &ContentId) {
    tracing::warn!(content = %id, "the bytes of the content are gone");
    let Some((asleep, _)) = shared.contents.places(id).await else {
        return;
    };
    let error = match check_present(&*asleep.blob).await {
        Err(error) if error.is_loss() => error,
        _ => changed(&asleep),
    };
    // It tells who else has it; `withdraw` gives it back.
    lost::report(shared, &asleep.content, asleep.role, error).await;
    let withdrawn = withdraw(shared, id);
    shared.tasks.stop.run_until_cancelled(withdrawn).await;
}

/// Adds all contents that the storage remembers, without reading them, and announces
/// them.
pub(in crate::peer) async fn serve_stored(shared: &Arc<PeerShared>) -> Result<(), StorageError> {
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
        let (id, place) = (asleep.content.id, asleep.place());
        let entry = place.entry(id);
        if shared.contents.add_stored(asleep) {
            entries.push(entry);
        } else if let Some((main, _)) = shared.contents.places(&id).await {
            match shared.contents.add_place(&id, &main.place(), place) {
                AddedPlace::Added => entries.push(entry),
                AddedPlace::Known | AddedPlace::NotHere => {}
                AddedPlace::Full => {
                    tracing::warn!(content = %id, name = %entry.name, "too many names");
                }
            }
        }
    }
    for lost in catalogue.lost {
        let id = lost.id;
        shared.losses.insert(lost, LostThing::Content);
        if shared.contents.names(&id).is_some() {
            // It has another place.
            shared.losses.found(&id);
        }
    }
    let left_out = shared.trackers.own_all(entries);
    if left_out > 0 {
        tracing::warn!(left_out, "some contents are not announced");
    }
    Ok(())
}

/// Serves a content that this download has found complete in the storage, as a finished
/// download is served. One that is not to be shared is only made durable.
pub(in crate::peer) async fn adopt(
    shared: &Arc<PeerShared>,
    claim: DriverClaim,
    id: ContentId,
    place: Place,
    manifest: Manifest,
    seeds: bool,
) -> Result<Content, StorageError> {
    // Another program may have put it there a moment ago.
    place.blob.sync().await?;
    if !seeds {
        return Ok(Content::new(id, place.name, place.blob.length()));
    }
    let recorded = shared.remember(|| stored(&place, &manifest)).await;
    let recorded = recorded.unwrap_or_else(|error| {
        tracing::warn!(%error, "the content will not be shared after a restart");
        false
    });
    let content = Content::new(id, place.name.clone(), place.blob.length());
    let entry = place.entry(id);
    let asleep = Asleep::new(id, place, &Arc::new(manifest), recorded);
    claim.sleep_again(Arc::new(asleep));
    if shared.trackers.own_all([entry]) > 0 {
        tracing::warn!(content = %id, "the content is not announced");
    }
    shared.events.publish(|| PeerEvent::ShareStarted {
        content: content.clone(),
    });
    Ok(content)
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
    let Waking {
        content,
        claim,
        inbox,
        status,
        readers,
        handle,
    } = waking;
    let (content, Awake { manifest, bytes }) = match present(&shared, content).await {
        Ok(present) => present,
        Err((content, error)) => {
            readers.end(DownloadError::Storage {
                id: content.content.id,
                chunk: None,
                source: error.clone(),
            });
            return cannot_serve(&shared, content, claim, inbox, error).await;
        }
    };
    let now = tokio::time::Instant::now().into_std();
    let config = shared.swarm_config();
    let swarm = Swarm::seeder(now, config, shared.identity.id, Arc::clone(&manifest));
    let swarm = swarm.in_zone(shared.zone());
    let (blob, is_written) = (Arc::clone(&content.blob), content.place().written_here);
    let unchecked = content.unchecked().cloned();
    let recorded = matches!(content.manifest(), KeptManifest::Recorded);
    let listing = listing(&content).announced();
    let uploads = status.borrow().uploads().clone();
    let geometry = Some(manifest.geometry());
    let shared_as = ContentStatus::shared_in(geometry, content.content.clone(), uploads);
    status.send_modify(|status| *status = shared_as);
    drop(content);
    let driver = Driver::new(shared, claim, swarm, listing, inbox, status);
    let open = OpenContent::new(manifest, blob, is_written).with_bytes(bytes);
    let driver = driver.serving(open, recorded);
    let driver = driver.unchecked(unchecked).readers(readers);
    let cancelled = handle.holders.cancelled().clone();
    let stop = handle.stop.clone();
    // Only those who watch the content are to be counted.
    drop(handle);
    Box::pin(driver.run(stop, cancelled)).await;
}

/// Ends the links of a content that cannot be served now. If that will not pass, it is
/// not offered any more. What the storage has recorded of it stays.
async fn cannot_serve(
    shared: &Arc<PeerShared>,
    content: Arc<Asleep>,
    claim: DriverClaim,
    mut inbox: Inbox,
    error: StorageError,
) {
    tracing::warn!(content = %content.content.id, %error, "the content cannot be served");
    let is_lost = error.is_loss();
    let reason = match is_lost {
        true => RefuseReason::UnknownContent,
        false => RefuseReason::Busy,
    };
    inbox.refuse_links(reason);
    if !is_lost {
        return claim.sleep_again(content);
    }
    lose(shared, content, claim, error).await;
}

/// A content that is asleep, and claimed, cannot be read at any place. It is not offered
/// any more, and the trackers hear of it.
pub(in crate::peer) async fn lose(
    shared: &Arc<PeerShared>,
    content: Arc<Asleep>,
    claim: DriverClaim,
    error: StorageError,
) {
    let rest = lost::report(shared, &content.content, content.role, error).await;
    let (of, stop) = (Arc::clone(shared), shared.tasks.stop.clone());
    let mut told = Box::pin(async move {
        stop.run_until_cancelled(tell_gone(&of, &content)).await;
    });
    // Noted before anybody can share the content again.
    let is_told = futures::poll!(told.as_mut()).is_ready();
    drop(claim);
    if let Some(rest) = rest {
        shared.contents.add_stored(rest);
    }
    if !is_told {
        shared.tasks.spawn(shared.tasks.span.clone(), told);
    }
}

/// A content that wakes up, at the first place where its bytes are.
async fn present(
    shared: &PeerShared,
    mut content: Arc<Asleep>,
) -> Result<(Arc<Asleep>, Awake), (Arc<Asleep>, StorageError)> {
    loop {
        let error = match Awake::of(shared, &content).await {
            Ok(awake) => return Ok((content, awake)),
            Err(error) => error,
        };
        if !error.is_loss() {
            return Err((content, error));
        }
        match shared.next_place(&content.content.id).await {
            Some(place) => content = Arc::new(content.at(place)),
            None => return Err((content, error)),
        }
    }
}

/// The manifest of a complete content whose bytes are there.
pub(in crate::peer) async fn manifest(
    shared: &PeerShared,
    asleep: &Asleep,
) -> Result<Arc<Manifest>, StorageError> {
    let awake = Awake::of(shared, asleep).await?;
    Ok(awake.manifest)
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
        let is_single = Geometry::of(content.length).is_ok_and(|g| g.chunks() == 1);
        if let (KeptManifest::Derived, true) = (asleep.manifest(), is_single) {
            return Self::read(asleep).await;
        }
        check_present(&*asleep.blob).await?;
        if let KeptManifest::Here(manifest) = asleep.manifest() {
            return Ok(Self::without_bytes(Arc::clone(manifest)));
        }
        if let KeptManifest::Recorded = asleep.manifest() {
            let recorded = shared.storage.manifest(&content.name, &content.id);
            if let Some(manifest) = recorded.await? {
                return Ok(Self::without_bytes(Arc::new(manifest)));
            }
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

    /// Reads a content of a single chunk, from what has its path by now.
    async fn read(asleep: &Asleep) -> Result<Self, StorageError> {
        asleep.blob.release();
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
