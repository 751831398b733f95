//! The end of the download of a folder: what nobody needs any more is removed.

use super::super::error::FolderError;
use super::super::pause_record::open_when_free;
use super::super::status::Folder;
use super::homes::{log_failed, try_remove};
use super::{Claimed, FolderRequest, FolderTask};
use crate::error::DownloadError;
use crate::peer::contents::role::Role;
use crate::peer::contents::serve::unshare;
use crate::protocol::ContentKey;
use crate::storage::{FolderHome, StorageError};

impl FolderTask {
    /// The download has ended: what nobody needs any more is removed.
    pub(super) async fn wind_up(
        &self,
        outcome: Result<Folder, FolderError>,
        request: &FolderRequest,
    ) -> Result<Folder, FolderError> {
        if let Some(other) = self.has_joined() {
            // What is left, and what is recorded, is that of the other one.
            return self.leave(&other, outcome).await;
        }
        let cancelled: FolderError = DownloadError::Cancelled.into();
        if outcome.as_ref().err() == Some(&cancelled) {
            self.claim_late(request).await;
        }
        let stop = &self.shared.tasks.stop;
        let holders = &self.registered.holders;
        if stop.is_cancelled() && outcome.is_err() {
            let has_ended = holders.was_explicit() && !holders.discards();
            let pause = *self.control().pauses().borrow();
            if has_ended {
                self.record.write(self.record_place(None), None).await;
            } else if pause.is_some() || self.record.is_there() {
                self.record_pause(None).await;
            }
            return outcome;
        }
        let (Some(claimed), Err(error)) = (self.claimed.get(), &outcome) else {
            self.record.write(self.record_place(None), None).await;
            return outcome;
        };
        if matches!(error, FolderError::Storage(StorageError::Locked { .. })) {
            // It is somebody else's.
            return outcome;
        }
        let cancelled = matches!(error, FolderError::Download(DownloadError::Cancelled));
        let discards = cancelled && holders.discards();
        let removed = self.remove_rest(claimed, discards);
        match stop.run_until_cancelled(removed).await {
            Some(Ok(())) => {}
            Some(Err(error)) if discards => return Err(error.into()),
            Some(Err(error)) => log_failed(Err(error)),
            None => return Err(DownloadError::ShutDown.into()),
        }
        outcome
    }

    /// A download by id that was cancelled before it could claim anything: what an earlier
    /// one has left, and its record, are removed as well.
    async fn claim_late(&self, request: &FolderRequest) {
        let (None, Some(ContentKey::Id(id)), Some(main)) = (
            self.claimed.get(),
            &self.registered.key,
            self.shared.storage.folders(),
        ) else {
            return;
        };
        if let Ok(homes) = self.homes(main, request).await
            && self.registered.claim(*id).is_ok()
        {
            // Nobody else sets it.
            let _ = self.claimed.set(Claimed { id: *id, homes });
        }
    }

    async fn remove_rest(&self, claimed: &Claimed, discards: bool) -> Result<(), StorageError> {
        let (shared, id) = (&self.shared, claimed.id);
        self.control().board.ended().await;
        // What is recorded at this moment is to be removed as well.
        self.record.write(self.record_place(None), None).await;
        if shared.folders.get(&id).is_none()
            && shared.contents.role(&id) == Some(Role::Index)
            && !shared.contents.is_alone(&id)
        {
            unshare(shared, &id).await;
        }
        let homes = &claimed.homes;
        let mut folders = vec![&homes.target];
        folders.extend(Some(&homes.main).filter(|_| homes.is_elsewhere));
        for folders in folders {
            if !FolderHome::is_there(folders, id).await? {
                continue;
            }
            let home = open_when_free(folders, id).await?;
            home.record_paused(None).await?;
            if home.is_recorded().await? {
                if discards {
                    home.clear().await?;
                }
            } else if discards || !home.holds_anything().await? {
                try_remove(&home).await?;
            }
        }
        Ok(())
    }
}
