//! What a download finds on this side: contents that are complete here, and files that
//! lie in the storage. A content that is here and not under the name that the user
//! wants gets that name by a copy of its bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::content::{ChunkIndex, Content, ContentId, ContentName, Manifest};
use crate::error::DownloadError;
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::hashing::{HashError, hash, manifest_of};
use crate::peer::contents::place::{Place, check_present};
use crate::peer::contents::replaced::retire_replaced;
use crate::peer::contents::serve::{NotAdded, Telling, add_place, adopt, manifest};
use crate::peer::contents::table::DriverClaim;
use crate::peer::shared::PeerShared;
use crate::peer::tasks::Decision;
use crate::storage::{Blob, Partial, Remembered, Storage, StorageError};

/// How often it is looked again because something has changed meanwhile.
pub(super) const ATTEMPTS: usize = 4;

/// Where a download wants its content, and under which names.
#[derive(Clone)]
pub(super) struct WantedNames {
    /// Where it goes.
    pub(super) target: TargetOptions,
    /// Whether that is not the storage of the peer.
    pub(super) is_elsewhere: bool,
    /// The name that the user wants it stored under, if that matters.
    pub(super) stored: Option<ContentName>,
    /// The name that it was asked for by, if it was not asked for by id.
    pub(super) asked: Option<ContentName>,
}

/// A content that is complete here.
pub(super) struct Here {
    pub(super) content: Content,
    /// Its bytes as they were verified, if it may not be shared.
    pub(super) blob: Option<Arc<dyn Blob>>,
}

impl From<Content> for Here {
    /// One that is shared.
    fn from(content: Content) -> Self {
        let blob = None;
        Self { content, blob }
    }
}

/// What has a name in the storage.
enum AtName {
    /// The content, and its manifest if it was hashed.
    Same(Arc<dyn Blob>, Option<Arc<Manifest>>),
    Nothing,
    Other,
}

/// Has a content that is complete here under the wanted name, or under any name if none
/// is wanted. Returns nothing if its bytes are not here any more; then it is no longer
/// shared, and has to be fetched.
pub(super) async fn complete_here(
    shared: &Arc<PeerShared>,
    id: ContentId,
    wanted: &WantedNames,
) -> Result<Option<Content>, DownloadError> {
    let failed = |source| storage_error(id, source);
    let (storage, overwrites) = (&*wanted.target.storage, wanted.target.overwrites);
    if let Some(name) = &wanted.stored {
        storage.check_name(name).map_err(failed)?;
    }
    let mut taken = None;
    for _ in 0..ATTEMPTS {
        let Some((main, more)) = shared.contents.places(&id).await else {
            return Ok(None);
        };
        let places: Vec<Place> = std::iter::once(main.place()).chain(more).collect();
        let (name, found) = match &wanted.stored {
            Some(name) => {
                let found = at_name(storage, name, id, &places).await;
                (name.clone(), found.map_err(failed)?)
            }
            None => {
                let stored = stored_anywhere(storage, id, &places).await;
                if let Some((place, manifest)) = stored.map_err(failed)? {
                    let content = Content::new(id, place.name.clone(), place.blob.length());
                    note_place(shared, id, place, &places, manifest).await?;
                    return Ok(Some(content));
                }
                (free_name(storage, id, &places).await, AtName::Nothing)
            }
        };
        let (blob, manifest, written_here) = match found {
            AtName::Same(blob, manifest) => (blob, manifest, false),
            AtName::Other if !overwrites => return Err(target_exists(storage, id, name).await),
            AtName::Nothing | AtName::Other => {
                match copy(shared, wanted, &main, &places, &name).await {
                    Ok(Some((blob, manifest))) => (blob, Some(manifest), true),
                    // It is not shared any more, or from somewhere else.
                    Ok(None) => continue,
                    // Somebody else may have just made it.
                    Err(StorageError::Exists { name, path }) => {
                        taken = Some(DownloadError::TargetExists { name, id, path });
                        continue;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        };
        let length = blob.length();
        let asked = wanted.asked.clone();
        let place = Place {
            listed_as: asked.unwrap_or_else(|| main.place().listed_as),
            name: name.clone(),
            blob,
            written_here,
        };
        note_place(shared, id, place, &places, manifest).await?;
        if overwrites {
            retire_replaced(shared, &name).await;
        }
        return Ok(Some(Content::new(id, name, length)));
    }
    // What has the name cannot be opened, or comes and goes.
    taken.map_or(Ok(None), Err)
}

/// Adds the place at which a download has found or copied its content, if it is not
/// known. The content is there, whatever comes of that.
async fn note_place(
    shared: &Arc<PeerShared>,
    id: ContentId,
    place: Place,
    places: &[Place],
    manifest: Option<Arc<Manifest>>,
) -> Result<(), DownloadError> {
    if places.iter().any(|other| other.is_same(&place)) {
        return Ok(());
    }
    let manifest = match manifest {
        Some(manifest) => manifest,
        None => match manifest_of(&*place.blob).await {
            Ok(manifest) if manifest.id() == id => Arc::new(manifest),
            Ok(_) | Err(HashError::Manifest(_)) => {
                let path = place.name.as_str().into();
                return Err(storage_error(id, StorageError::Changed { path }));
            }
            Err(HashError::Storage(error)) => return Err(storage_error(id, error)),
        },
    };
    place.blob.release();
    let decided = Decision::default();
    let awaited = (Telling::Awaited, &decided);
    let added = add_place(shared, &id, place.clone(), &manifest, awaited).await;
    let added = match added {
        Err(NotAdded::Tracker(error)) => {
            tracing::debug!(content = %id, %error, "the name is announced later");
            let later = (Telling::Later, &decided);
            add_place(shared, &id, place.clone(), &manifest, later).await
        }
        added => added,
    };
    match added {
        Ok(()) => {}
        Err(NotAdded::NotHere | NotAdded::Full | NotAdded::ShutDown) => {
            tracing::debug!(content = %id, "the name is not shared");
        }
        Err(NotAdded::Storage(error)) => {
            tracing::warn!(content = %id, %error, "the name will not be shared after a restart");
            shared.contents.add_place(&id, &places[0], place);
        }
        Err(NotAdded::Tracker(error)) => {
            tracing::debug!(content = %id, %error, "the name is not announced");
        }
    }
    Ok(())
}

/// A place of the content in the storage, under one of the names that it has, and its
/// manifest if it was hashed.
async fn stored_anywhere(
    storage: &dyn Storage,
    id: ContentId,
    places: &[Place],
) -> Result<Option<(Place, Option<Arc<Manifest>>)>, StorageError> {
    for place in places {
        if let AtName::Same(blob, manifest) = at_name(storage, &place.name, id, places).await? {
            let (name, listed_as) = (place.name.clone(), place.listed_as.clone());
            let found = Place {
                name,
                listed_as,
                blob,
                written_here: false,
            };
            return Ok(Some((found, manifest)));
        }
    }
    Ok(None)
}

/// A name for a content that is here and not in the storage: one that it has, or its id.
async fn free_name(storage: &dyn Storage, id: ContentId, places: &[Place]) -> ContentName {
    for place in places {
        if storage.check_name(&place.name).is_ok()
            && let Ok(AtName::Nothing) = at_name(storage, &place.name, id, places).await
        {
            return place.name.clone();
        }
    }
    id.into()
}

/// Looks what has a name in the storage. The file of a place that has not changed is
/// not read.
async fn at_name(
    storage: &dyn Storage,
    name: &ContentName,
    id: ContentId,
    places: &[Place],
) -> Result<AtName, StorageError> {
    let blob = match storage.open(name).await {
        Ok(blob) => blob,
        Err(StorageError::NotFound { .. }) => return Ok(AtName::Nothing),
        Err(error @ StorageError::Io { .. }) => return Err(error),
        Err(_) => return Ok(AtName::Other),
    };
    if places.iter().any(|place| place.is_file_of(&*blob)) {
        return Ok(AtName::Same(blob, None));
    }
    if places
        .iter()
        .any(|place| place.blob.length() != blob.length())
    {
        return Ok(AtName::Other);
    }
    match manifest_of(&*blob).await {
        Ok(found) if found.id() == id => Ok(AtName::Same(blob, Some(Arc::new(found)))),
        Err(HashError::Storage(error)) if !error.is_gone() => Err(error),
        Ok(_) | Err(_) => Ok(AtName::Other),
    }
}

/// Has a content that is in the storage, and is not shared, under another name as well.
pub(super) async fn copy_stored(
    shared: &PeerShared,
    from: &dyn Storage,
    content: &Content,
    name: &ContentName,
    wanted: &WantedNames,
) -> Result<Here, DownloadError> {
    let id = content.id;
    let failed = |source| storage_error(id, source);
    let target = &wanted.target;
    target.storage.check_name(name).map_err(failed)?;
    let blob = from.open(&content.name).await.map_err(failed)?;
    let manifest = match manifest_of(&*blob).await {
        // Nobody watches over it: another file may have its name by now.
        Ok(manifest) if manifest.id() == id => Arc::new(manifest),
        Err(HashError::Storage(error)) => return Err(failed(error)),
        Ok(_) | Err(HashError::Manifest(_)) => return Err(failed(gone(&content.name))),
    };
    let place = Place {
        name: content.name.clone(),
        listed_as: id.into(),
        blob,
        written_here: false,
    };
    let source = Asleep::new(id, place, &manifest, false);
    let places = [source.place()];
    let mut taken = None;
    for _ in 0..ATTEMPTS {
        let there = at_name(&*target.storage, name, id, &places).await;
        let blob = match there.map_err(failed)? {
            AtName::Same(blob, _) => blob,
            AtName::Other if !target.overwrites => {
                return Err(target_exists(&*target.storage, id, name.clone()).await);
            }
            AtName::Nothing | AtName::Other => {
                match copy(shared, wanted, &source, &places, name).await {
                    Ok(Some((blob, _))) => blob,
                    Ok(None) => break,
                    // Somebody else may have just made it.
                    Err(StorageError::Exists { name, path }) => {
                        taken = Some(DownloadError::TargetExists { name, id, path });
                        continue;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        };
        if target.overwrites {
            retire_replaced(shared, name).await;
        }
        let content = Content::new(id, name.clone(), blob.length());
        let blob = Some(blob);
        return Ok(Here { content, blob });
    }
    // It is not there any more, or what has the name comes and goes.
    Err(taken.unwrap_or_else(|| failed(gone(&content.name))))
}

/// Opens a content that is in a storage and is not shared, if it is there.
pub(super) async fn open_stored(
    storage: &dyn Storage,
    content: &Content,
) -> Result<Arc<dyn Blob>, StorageError> {
    let blob = storage.open(&content.name).await?;
    match manifest_of(&*blob).await {
        Ok(manifest) if manifest.id() == content.id => Ok(blob),
        Err(HashError::Storage(error)) => Err(error),
        // Nobody watches over it: another file may have its name by now.
        Ok(_) | Err(HashError::Manifest(_)) => Err(gone(&content.name)),
    }
}

fn gone(name: &ContentName) -> StorageError {
    StorageError::NotFound { name: name.clone() }
}

/// Why a copy was not made.
enum CopyError {
    /// The bytes cannot be read, or are not right.
    Source(StorageError),
    Target(StorageError),
}

/// Copies a content to a name of the storage, from the first of its places where the
/// bytes are right. It is not served any more from those where they are not. Returns
/// nothing if they are right nowhere.
///
/// Cancel safe: the name has all of it or nothing.
async fn copy(
    shared: &PeerShared,
    wanted: &WantedNames,
    main: &Asleep,
    places: &[Place],
    name: &ContentName,
) -> Result<Option<(Arc<dyn Blob>, Arc<Manifest>)>, StorageError> {
    let id = main.content.id;
    let _turn = shared.copies.turn(id).await;
    for place in places {
        let source = main.at(place.clone());
        let copied = async {
            let manifest = manifest(shared, &source).await;
            let manifest = manifest.map_err(CopyError::Source)?;
            copy_from(&wanted.target, &source, &manifest, name).await?;
            Ok::<_, CopyError>(manifest)
        };
        match copied.await {
            Ok(manifest) => {
                let blob = wanted.target.storage.open(name).await?;
                return Ok(Some((blob, manifest)));
            }
            Err(CopyError::Source(error)) if error.is_loss() => {
                tracing::warn!(name = %place.name, %error, "not copied from there");
                let blob = Arc::clone(&place.blob);
                shared.read_faults.unreadable(id, blob, error).await;
            }
            Err(CopyError::Source(error) | CopyError::Target(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Copies a content chunk by chunk, each verified, and publishes it.
async fn copy_from(
    to: &TargetOptions,
    source: &Asleep,
    manifest: &Arc<Manifest>,
    name: &ContentName,
) -> Result<(), CopyError> {
    let created = match to.storage.create(name, manifest).await {
        Err(StorageError::Exists { .. }) if to.overwrites => {
            to.storage.create_replacing(name, manifest).await
        }
        created => created,
    };
    let Partial {
        blob: target,
        present,
        ..
    } = created.map_err(CopyError::Target)?;
    let geometry = manifest.geometry();
    let is_whole = async {
        let is_new = present.is_empty();
        Ok(is_new && target.copy_from(&*source.blob).await?)
    };
    let whole = is_whole.await.map_err(CopyError::Target)?;
    for chunk in geometry.indices().filter(|chunk| !present.contains(*chunk)) {
        // What the storage has copied by itself is verified in its place.
        if whole {
            let copied = verified(&*target, manifest, chunk).await;
            if copied.map_err(CopyError::Target)?.is_some() {
                continue;
            }
        }
        let read = verified(&*source.blob, manifest, chunk).await;
        let Some(bytes) = read.map_err(CopyError::Source)? else {
            let path = source.content.name.as_str().into();
            return Err(CopyError::Source(StorageError::Altered { path, chunk }));
        };
        let offset = geometry.offset_of(chunk);
        let written = target.write_at(offset, vec![bytes]).await;
        written.map_err(CopyError::Target)?;
    }
    target.finish().await.map_err(CopyError::Target)
}

/// A chunk of a blob, if it is right.
async fn verified(
    blob: &dyn Blob,
    manifest: &Arc<Manifest>,
    chunk: ChunkIndex,
) -> Result<Option<Bytes>, StorageError> {
    let range = manifest.geometry().range_of(chunk);
    let len = (range.end - range.start) as usize;
    let bytes = blob.read_at(range.start, len).await?;
    let (manifest, read) = (Arc::clone(manifest), bytes.clone());
    let good = hash(len, move || manifest.verify(chunk, [&read[..]])).await;
    Ok(good.then_some(bytes))
}

/// Looks for a content that is not shared here: in the storage under these names, and
/// among what the storage remembers. Shares it if it is there, and is to be shared, and
/// otherwise gives the claim back.
pub(super) async fn find_stored(
    shared: &Arc<PeerShared>,
    storage: &dyn Storage,
    claim: DriverClaim,
    id: ContentId,
    names: &[ContentName],
    (listed_as, length): (&ContentName, Option<u64>),
    seeds: bool,
) -> Result<Result<Here, DriverClaim>, DownloadError> {
    for name in names {
        let Ok(blob) = storage.open(name).await else {
            continue;
        };
        if length.is_some_and(|length| length != blob.length()) {
            continue;
        }
        if let Ok(manifest) = manifest_of(&*blob).await
            && manifest.id() == id
        {
            let place = Place {
                name: name.clone(),
                listed_as: listed_as.clone(),
                blob: Arc::clone(&blob),
                written_here: false,
            };
            let adopted = adopt(shared, claim, id, place, manifest, seeds).await;
            return here(id, adopted, blob).map(Ok);
        }
    }
    Ok(Err(claim))
}

/// Shares a content again that the storage remembers, if its bytes are there and it is to
/// be shared, and otherwise gives the claim back.
pub(super) async fn recall(
    shared: &Arc<PeerShared>,
    claim: DriverClaim,
    id: ContentId,
    remembered: &[Remembered],
    seeds: bool,
) -> Result<Result<Here, DriverClaim>, DownloadError> {
    for entry in remembered.iter().filter(|entry| entry.id == id) {
        if check_present(&*entry.blob).await.is_err() {
            continue;
        }
        let asleep = Asleep::remembered(entry.clone());
        if let Ok(manifest) = manifest(shared, &asleep).await {
            let manifest = Manifest::clone(&manifest);
            let adopted = adopt(shared, claim, id, asleep.place(), manifest, seeds).await;
            return here(id, adopted, Arc::clone(&entry.blob)).map(Ok);
        }
    }
    Ok(Err(claim))
}

fn here(
    id: ContentId,
    adopted: Result<Content, StorageError>,
    blob: Arc<dyn Blob>,
) -> Result<Here, DownloadError> {
    let content = adopted.map_err(|source| storage_error(id, source))?;
    let blob = Some(blob);
    Ok(Here { content, blob })
}

/// What the storage remembers, unless that is shared anyway. It is read only when no
/// tracker knows an owner.
pub(super) async fn remembered(shared: &PeerShared) -> Vec<Remembered> {
    if shared.share_stored {
        return Vec::new();
    }
    match shared.storage.catalogue().await {
        Ok(catalogue) => catalogue.remembered,
        Err(error) => {
            tracing::warn!(%error, "the storage cannot list what it remembers");
            Vec::new()
        }
    }
}

pub(super) fn storage_error(id: ContentId, source: StorageError) -> DownloadError {
    DownloadError::Storage {
        id,
        chunk: None,
        source,
    }
}

/// The error of a name that something else has.
async fn target_exists(storage: &dyn Storage, id: ContentId, name: ContentName) -> DownloadError {
    let file = storage.open(&name).await.ok().and_then(|blob| blob.file());
    let path = file.map(|file| file.path().to_path_buf());
    let path = path.or_else(|| storage.path(&name));
    DownloadError::TargetExists { name, path, id }
}
