//! A folder that is fetched, and what follows when it is in its place: it is served from
//! there, recorded and announced.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::error::FolderError;
use super::super::obtain::Obtain;
use super::super::place_turns::Turn;
use super::super::release::{release_files, stop_serving};
use super::super::share::in_memory;
use super::super::status::Folder;
use super::homes::{Homes, log_failed, remove_home};
use super::naming::Names;
use crate::content::{Content, ContentId, ContentName, FolderIndex};
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::role::Role;
use crate::peer::contents::serve::unshare;
use crate::peer::contents::table::Taken;
use crate::peer::contents::withdrawal::tell_gone;
use crate::protocol::{OwnEntry, OwnState};
use crate::storage::{Blob, FolderHome, PlacedFiles, StorageError, is_folder};

/// A folder that is fetched.
pub(super) struct Job {
    pub(super) homes: Homes,
    pub(super) obtain: Obtain,
    pub(super) names: Names,
    /// The part that was here before.
    pub(super) here: Option<(Folder, Arc<PlacedFiles>)>,
}

impl Job {
    /// Serves nothing of the folder any more.
    pub(super) async fn hide(&self) {
        let shared = &self.obtain.shared;
        let id = self.obtain.source.index();
        for (file, _) in shared.folders.own_files(&id) {
            stop_serving(shared, &file);
        }
        if !shared.contents.is_alone(&id) {
            match shared.contents.take(&id) {
                Some(Taken::Awake(driver)) => driver.stop.cancel(),
                Some(Taken::Asleep(asleep)) => tell_gone(shared, &asleep).await,
                None => {}
            }
        }
    }

    /// Serves again what is here of the folder.
    pub(super) fn unhide(&self) {
        let shared = &self.obtain.shared;
        let id = self.obtain.source.index();
        for (file, blob) in shared.folders.own_files(&id) {
            let content = Content::new(file, file.into(), blob.length());
            let asleep = Asleep::of_folder(content, Role::File, blob, None);
            shared.contents.add_stored(asleep);
        }
        if let Some(blob) = self.obtain.target.opened(&id) {
            let listed = self.names.listed.clone();
            let content = Content::new(id, listed.clone(), blob.length());
            let entry = OwnEntry::new(id, listed, content.length, OwnState::Partial);
            let asleep = Asleep::of_folder(content, Role::Index, blob, None);
            if shared.contents.add_stored(asleep) {
                self.tell(entry);
            }
        }
    }

    /// The folder is in its place: it is served from there, recorded and announced, unless
    /// it is not to be shared.
    pub(super) async fn settle(
        &self,
        folder: &Folder,
        (whole, part): (&FolderIndex, &FolderIndex),
        bytes: Bytes,
        placed: PlacedFiles,
    ) -> Result<(), FolderError> {
        let (shared, obtain, id) = (&self.obtain.shared, &self.obtain, folder.id);
        // A part that was here may have been withdrawn meanwhile.
        let is_shared = match self.here {
            None => self.obtain.control.seeds(),
            Some(_) => shared.folders.get(&id).is_some(),
        };
        if !is_shared {
            if release_files(shared, &id) {
                unshare(shared, &id).await;
            }
            remove_home(&obtain.home).await;
            return Ok(());
        }
        let placed = match self.homes.is_elsewhere {
            // The storage finds it by its path, and deletes nothing there.
            true => placed.by_path(),
            false => placed,
        };
        let pool = self.homes.target.pool();
        for (file, place) in placed.blobs(whole, pool) {
            if let Some(fetched) = obtain.target.opened(&file) {
                fetched.move_to(place);
            }
        }
        shared.folders.moved(&id, placed.blobs(whole, pool));
        let index = obtain.target.opened(&id);
        if shared.share_stored {
            if let Err(error) = self.record(folder, whole, &bytes, placed.clone()).await {
                tracing::warn!(folder = %id, %error, "not shared after a restart");
            }
        } else {
            if let Some(index) = &index {
                // Nothing of the home is needed any more.
                index.move_to(in_memory(id, bytes).await?);
            }
            remove_home(&obtain.home).await;
        }
        let is_whole = is_whole(whole, part, &placed);
        shared.losses.found(&id);
        shared.folders.complete(folder.clone(), is_whole, placed);
        if let Some(index) = index.filter(|_| is_whole) {
            let listed = self.names.listed.clone();
            self.tell(OwnEntry::new(
                id,
                listed,
                index.length(),
                OwnState::Complete,
            ));
        }
        Ok(())
    }

    /// Records where the folder lies, and removes what is left of the fetching.
    async fn record(
        &self,
        folder: &Folder,
        whole: &FolderIndex,
        bytes: &Bytes,
        placed: PlacedFiles,
    ) -> Result<(), StorageError> {
        let obtain = &self.obtain;
        let manifest = |id: &ContentId| self.obtain.shared.contents.kept_manifest(id);
        let names = (&folder.name, &self.names.listed);
        let index = obtain.target.opened(&folder.id);
        if self.homes.is_elsewhere {
            let home = FolderHome::open(&self.homes.main, folder.id).await?;
            let blob = home.keep_index(bytes.clone()).await?;
            let recorded = home.record(names, whole, &placed, manifest).await;
            log_failed(home.clear().await);
            if let Some(index) = index {
                index.move_to(blob);
            }
            remove_home(&obtain.home).await;
            return recorded;
        }
        let recorded = obtain.home.record(names, whole, &placed, manifest).await;
        log_failed(obtain.home.clear().await);
        if let Some(index) = index
            && let Ok(blob) = obtain.home.index().await
        {
            // The home is not held open for it.
            index.move_to(blob);
        }
        recorded
    }

    /// Tells the trackers what is here. Nobody waits for that.
    fn tell(&self, entry: OwnEntry) {
        let shared = Arc::clone(&self.obtain.shared);
        let told = async move {
            let told = shared.trackers.own(entry);
            if let Some(Err(error)) = shared.tasks.stop.run_until_cancelled(told).await {
                tracing::warn!(%error, "announcing the folder failed");
            }
        };
        let span = self.obtain.shared.tasks.span.clone();
        self.obtain.shared.tasks.spawn(span, told);
    }
}

/// Whether all of a folder is here: what was wanted now, and what was here before.
fn is_whole(whole: &FolderIndex, part: &FolderIndex, placed: &PlacedFiles) -> bool {
    let placed = placed.entries();
    let mut entries = (0..).zip(whole.entries());
    entries.all(|(number, entry)| {
        let of_part = || part.entries().binary_search_by(|e| e.path.cmp(&entry.path));
        placed.contains(&number) || of_part().is_ok()
    })
}

/// Gives the folder the first of its names that is free. Nothing if a directory has one of them
/// by now, and is to be replaced.
pub(super) async fn publish(
    job: &Job,
    part: &FolderIndex,
    blobs: &HashMap<ContentId, Arc<dyn Blob>>,
    overwrites: bool,
    turn: &Turn,
) -> Result<Option<(ContentName, PlacedFiles)>, FolderError> {
    let id = job.obtain.source.index();
    let mut taken = FolderError::AlreadyHere { id };
    for name in &job.names.stored {
        let held = Arc::clone(turn);
        match job.obtain.home.publish(name, part, blobs, held).await {
            Ok(placed) => return Ok(Some((name.clone(), placed))),
            Err(StorageError::Exists {
                name,
                path: Some(path),
            }) => {
                if overwrites && is_folder(&job.homes.target.root(&name)).await? {
                    return Ok(None);
                }
                taken = FolderError::TargetExists { name, path, id };
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(taken)
}
