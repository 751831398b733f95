//! One file of a folder that is being fetched: left behind by an earlier download,
//! here in another place, or at the owners.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;

use crate::content::{
    Content, ContentId, ContentName, FolderIndexError, MAX_INDEX_LEN, MIN_CHUNK_LEN, Manifest,
};
use crate::error::DownloadError;
use crate::peer::contents::common_place::CommonPlace;
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::hashing::manifest_of;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::pour::pour;
use crate::peer::contents::role::Role;
use crate::peer::contents::serve::retire;
use crate::peer::downloads::task::DownloadTask;
use crate::peer::downloads::task::parts::FolderPart;
use crate::peer::folders::board::FileDownload;
use crate::peer::folders::common_files::{CommonFiles, target_of};
use crate::peer::folders::control::FolderControl;
use crate::peer::folders::error::FolderError;
use crate::peer::folders::move_blob::MoveBlob;
use crate::peer::folders::share::in_memory;
use crate::peer::folders::target::FolderTarget;
use crate::peer::shared::PeerShared;
use crate::protocol::Addr;
use crate::storage::{Blob, FolderHome, Storage, StorageError};

/// How often a file is looked for anew, when it is here in another place and then is
/// not.
const MAX_ATTEMPTS: usize = 8;

/// How many owners are asked at first for a file of one chunk.
const SHORT_OWNERS: usize = 3;

/// The download of one folder, as its files see it.
pub(super) struct Obtain {
    pub(super) shared: Arc<PeerShared>,
    pub(super) home: Arc<FolderHome>,
    pub(super) target: Arc<FolderTarget>,
    pub(super) source: Arc<FolderSource>,
    pub(super) control: Arc<FolderControl>,
    /// The files of another content that some of the folder lie in.
    pub(super) common: Option<CommonFiles>,
}

/// A file of a folder, complete and durable in the home.
pub(super) struct Obtained {
    pub(super) blob: Arc<MoveBlob>,
    /// Its manifest, if nothing had to be fetched.
    pub(super) found: Option<Manifest>,
}

impl Obtain {
    /// Gets one file, or the index, whose length may not be known. Trackers list the
    /// index under this name.
    ///
    /// Cancel safe: what has arrived is kept.
    pub(super) async fn get(
        &self,
        (id, role): (ContentId, Role),
        listed_as: &ContentName,
        length: Option<u64>,
    ) -> Result<Obtained, FolderError> {
        let failed = |source| DownloadError::Storage {
            id,
            chunk: None,
            source,
        };
        self.control.unpaused().await;
        let before = self.common.as_ref().filter(|files| files.has_at_home(&id));
        if let Some(blob) = before.and_then(|_| self.target.opened(&id)) {
            return Ok(Obtained { blob, found: None });
        }
        let local = self.control.board.local();
        if let Some(found) = self.staged(id, length).await.map_err(failed)? {
            return Ok(self.poured(id, found).await);
        }
        drop(local);
        for _ in 0..MAX_ATTEMPTS {
            let local = self.control.board.local();
            if let Some(found) = self.here(id, length).await.map_err(failed)? {
                return Ok(self.poured(id, found).await);
            }
            drop(local);
            let content = Content::new(id, id.into(), length.unwrap_or(0));
            let listing = Listing::new(content, listed_as.clone()).role(role);
            self.download(listing).await?;
            if let Some(blob) = self.target.opened(&id) {
                return Ok(Obtained { blob, found: None });
            }
            // It turned out to be here in another place.
        }
        let error = StorageError::io("looking for the content", ErrorKind::Interrupted);
        Err(failed(error).into())
    }

    /// The place of a file in another content, if it has one.
    fn common_place(&self, id: &ContentId) -> Option<CommonPlace> {
        self.common.as_ref()?.place(id)
    }

    /// The other content gets the bytes of a file that is here already.
    async fn poured(&self, id: ContentId, found: Obtained) -> Obtained {
        if let Some(place) = self.common_place(&id)
            && let Err(error) = pour(&*found.blob, id, &*place.storage).await
        {
            // Then it is fetched there. If the two differ, the folder finds no place.
            tracing::warn!(%id, %error, "the other content does not get what is here");
        }
        found
    }

    /// Downloads something of the folder.
    ///
    /// Cancel safe: the download is cancelled.
    async fn download(&self, listing: Listing) -> Result<Content, FolderError> {
        let shared = &self.shared;
        let wanted = shared.config.owners_wanted;
        let (mut owners, _) = self.source.owners(&shared.trackers, wanted).await;
        let named = self.control.owners().into_iter();
        owners.extend(named.map(|addr| (addr, false)));
        let (id, role) = (listing.content.id, listing.its_role());
        if role == Role::File && listing.content.length <= MIN_CHUNK_LEN {
            let seed = shared.swarm_config().planner.seed;
            choose(&mut owners, &mut fastrand::Rng::with_seed(seed));
        }
        let parent = &shared.tasks.span;
        let span = tracing::info_span!(parent: parent, "download", key = %id);
        let (task, download) = DownloadTask::new(Arc::clone(shared));
        let file = FileDownload {
            status: task.status(),
            control: Arc::clone(download.control()),
        };
        let _posted = self.control.post(id, file);
        let mut status = task.status();
        let common = self.common_place(&id).filter(|_| role == Role::File);
        let part = FolderPart {
            listing,
            owners,
            source: Arc::clone(&self.source),
            target: common.as_ref().map(|place| target_of(place, &self.target)),
            turn: self.common.as_ref().map(|files| files.tree.turn().clone()),
        };
        shared.tasks.spawn(span, task.run_part(part));
        let is_too_long = |content: &Content| content.length > MAX_INDEX_LEN;
        let too_long = status.wait_for(|status| status.content().is_some_and(is_too_long));
        tokio::select! {
            outcome = download => {
                let content = outcome?;
                match (&self.common, &common) {
                    (Some(files), Some(_)) => files.fetched(id),
                    (Some(files), None) => files.is_at_home(id),
                    (None, _) => {}
                }
                Ok(content)
            }
            // No index is that long, whatever a tracker said of it.
            Ok(status) = too_long, if role == Role::Index => {
                let len = status.content().map_or(0, |content| content.length);
                Err(FolderIndexError::TooLong { len }.into())
            }
        }
    }

    /// What an earlier download has left behind, if its bytes are right.
    async fn staged(
        &self,
        id: ContentId,
        length: Option<u64>,
    ) -> Result<Option<Obtained>, StorageError> {
        if !self.home.had(&id) {
            return Ok(None);
        }
        let blob = match self.home.files().open(&id.into()).await {
            Ok(blob) => blob,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let manifest = match length.is_none_or(|length| blob.length() == length) {
            true => manifest_of(&*blob).await.ok(),
            false => None,
        };
        blob.release();
        match manifest.filter(|manifest| manifest.id() == id) {
            Some(manifest) => {
                // It may have been put there a moment before the power went.
                blob.sync().await?;
                Ok(Some(self.obtained(id, blob, manifest)))
            }
            None => {
                self.home.discard(id).await?;
                Ok(None)
            }
        }
    }

    /// A copy of what this peer has in another place. A content of which no place has
    /// the bytes any more is no longer shared.
    async fn here(
        &self,
        id: ContentId,
        length: Option<u64>,
    ) -> Result<Option<Obtained>, StorageError> {
        if length == Some(0) {
            return self.copy(id, &*in_memory(id, Bytes::new()).await?).await;
        }
        let mut blobs: Vec<_> = self.shared.folders.blob(&id).into_iter().collect();
        let here = self.shared.contents.places(&id).await;
        let is_here = here.is_some();
        if let Some((asleep, places)) = here {
            blobs.push(Arc::clone(&asleep.blob));
            blobs.extend(places.into_iter().map(|place| place.blob));
        }
        let fits = |blob: &Arc<dyn Blob>| length.is_none_or(|length| blob.length() == length);
        if !blobs.iter().all(fits) {
            // The index is wrong about its length.
            return Ok(None);
        }
        for blob in blobs {
            if let Some(copy) = self.copy(id, &*blob).await? {
                return Ok(Some(copy));
            }
        }
        if is_here {
            retire(&self.shared, &id).await;
        }
        Ok(None)
    }

    /// A copy of this blob, unless it cannot be read any more, or is something else.
    async fn copy(
        &self,
        id: ContentId,
        original: &dyn Blob,
    ) -> Result<Option<Obtained>, StorageError> {
        match self.home.adopt(id, original).await {
            Ok(copy) => Ok(copy.map(|(blob, manifest)| self.obtained(id, blob, manifest))),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn obtained(&self, id: ContentId, blob: Arc<dyn Blob>, manifest: Manifest) -> Obtained {
        Obtained {
            blob: self.target.add(id, blob),
            found: Some(manifest),
        }
    }
}

/// The owners to ask for a short file at first: a few, as each is asked in vain but one.
/// Those that should have it come first. If none of them has it, the others are found by
/// the search for more owners.
fn choose(owners: &mut Vec<(Addr, bool)>, random: &mut fastrand::Rng) {
    random.shuffle(owners);
    owners.sort_by_key(|(_, complete)| !complete);
    owners.truncate(SHORT_OWNERS);
}
