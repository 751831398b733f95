//! Downloads that join another one of the same folder.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::super::error::FolderError;
use super::super::running::RunningFolder;
use super::super::selection::Selection;
use super::super::status::{Folder, FolderStatus};
use super::{FolderRequest, FolderTask};
use crate::content::ContentId;
use crate::error::DownloadError;
use crate::peer::downloads::holders::Hold;
use crate::storage::StorageError;

impl FolderTask {
    /// Joins another download of the folder, which does from now on what is wanted of this
    /// one.
    pub(super) fn joins(&self, other: &Arc<RunningFolder>, part: Hold) {
        self.registered.unlist();
        self.control().join(&other.control);
        *self.joined() = Some(Arc::clone(other));
        self.registered.holders.joins(part);
        self.show_joined(other.status.borrow().clone());
    }

    /// The download that this one has joined.
    pub(super) fn has_joined(&self) -> Option<Arc<RunningFolder>> {
        self.joined().clone()
    }

    /// Shows what the other download does, until it ends. Nothing if that was too late for
    /// what is wanted here, or it has failed by what only it wanted: then this one goes on by
    /// itself.
    pub(super) async fn follow(
        &self,
        other: &RunningFolder,
        request: &FolderRequest,
    ) -> Option<Result<Folder, FolderError>> {
        // It is recorded as one with the other.
        self.record.write(None, None).await;
        let outcome = self.watch(other, request).await;
        if outcome.is_none() {
            *self.joined() = None;
            self.registered.holders.parts();
            self.control().part();
            self.registered.list();
        }
        outcome
    }

    /// This download has ended, by itself or with its handles, and had joined another one
    /// until then. That one goes on for others, or ends as well, and has deleted what has
    /// arrived if that is wanted.
    pub(super) async fn leave(
        &self,
        other: &RunningFolder,
        outcome: Result<Folder, FolderError>,
    ) -> Result<Folder, FolderError> {
        let holders = &self.registered.holders;
        if holders.discards() && !holders.leaves_others() {
            other.ended().await;
            if let Some(Err(error @ FolderError::Storage(_))) = &other.status.borrow().outcome {
                return Err(error.clone());
            }
        }
        holders.parts();
        outcome
    }

    async fn watch(
        &self,
        other: &RunningFolder,
        request: &FolderRequest,
    ) -> Option<Result<Folder, FolderError>> {
        let (paths, name) = (&request.paths, request.name.as_ref());
        let mut running = other.status.clone();
        // Until it is part of what the other one wants.
        let mut wish = Some(other.control.wish(paths.clone()));
        loop {
            let seen = running.borrow_and_update().clone();
            if let Some(id) = other.id()
                && self.registered.found.set(id).is_ok()
            {
                self.limit(id);
            }
            if let (Some(index), Some(folder), Some(_)) = (&seen.index, &seen.folder, &wish) {
                if name.is_some_and(|name| *name != folder.name) {
                    let id = folder.id;
                    return Some(Err(FolderError::AlreadyHere { id }));
                }
                if let Err(path) = Selection::new(paths.clone()).of(index) {
                    return Some(Err(FolderError::NoSuchPath { path }));
                }
                if !other.control.want(paths) {
                    other.ended().await;
                    return None;
                }
                wish = None;
            }
            match &seen.outcome {
                Some(Err(error)) if wish.is_some() && is_its_own(error) => return None,
                Some(Err(error)) => return Some(Err(error.clone())),
                Some(Ok(folder)) => {
                    let folder = folder.clone();
                    self.show_joined(seen);
                    return Some(Ok(folder));
                }
                None => self.show_joined(seen),
            }
            if running.changed().await.is_err() {
                return Some(Err(DownloadError::ShutDown.into()));
            }
        }
    }

    /// Limits the folder as it is wanted for this download.
    pub(super) fn limit(&self, id: ContentId) {
        if let Some(limits) = self.control().settings().limits {
            self.shared.limit_content(id, limits);
        }
    }

    /// Shows what the other download does. Its end is not the end of this one.
    fn show_joined(&self, seen: FolderStatus) {
        let outcome = None;
        self.status
            .send_modify(|status| *status = FolderStatus { outcome, ..seen });
    }

    /// Ignores poison: no change under this lock is left half done.
    fn joined(&self) -> MutexGuard<'_, Option<Arc<RunningFolder>>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a download that has not found the index has failed by what only it wanted: by
/// another one of the folder that says nothing.
fn is_its_own(error: &FolderError) -> bool {
    matches!(
        error,
        FolderError::NoSuchPath { .. }
            | FolderError::AlreadyHere { .. }
            | FolderError::TargetExists { .. }
            | FolderError::Download(DownloadError::Directory { .. })
            | FolderError::Storage(StorageError::UnsafeName { .. })
    )
}
