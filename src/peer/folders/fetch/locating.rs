//! What a download of a folder is of: where the folder is found, whether it is here already,
//! and which download fetches it.

use std::sync::Arc;

use super::super::error::FolderError;
use super::super::here::{intact, read_index};
use super::super::status::Folder;
use super::files::Done;
use super::homes::Homes;
use super::naming::has_name;
use super::{Claimed, FolderRequest, FolderTask, Located};
use crate::content::{ContentId, FolderIndexError, MAX_INDEX_LEN};
use crate::error::DownloadError;
use crate::peer::downloads::search::{Missed, Search};
use crate::protocol::{ContentKey, Found};
use crate::storage::{Folders, PlacedFiles};

impl FolderTask {
    /// Finds the folder, and claims it.
    pub(super) async fn locate(
        &self,
        key: &ContentKey,
        homes: &Homes,
        request: &FolderRequest,
    ) -> Result<Located, FolderError> {
        if let ContentKey::Id(id) = key
            && let Some(outcome) = self.claim(*id, homes, request).await
        {
            return outcome.map(Located::Here);
        }
        let mut search = Search::new(&self.shared, key.clone(), &[]);
        let found = loop {
            let mut changes = self.unpaused().await;
            let found = Box::pin(self.find(&mut search));
            if let Some(found) = self.until_paused(&mut changes, found).await {
                break found?;
            }
        };
        if let ContentKey::Name(_) = key
            && let Some(outcome) = self.claim(found.id, homes, request).await
        {
            return outcome.map(Located::Here);
        }
        match found.length > MAX_INDEX_LEN {
            true => Err(FolderIndexError::TooLong { len: found.length }.into()),
            false => Ok(Located::Elsewhere(found)),
        }
    }

    /// Where the folder is to go.
    pub(super) async fn homes(
        &self,
        main: Folders,
        request: &FolderRequest,
    ) -> Result<Homes, FolderError> {
        let Some(path) = &request.directory else {
            let target = main.clone();
            return Ok(Homes {
                main,
                target,
                is_elsewhere: false,
            });
        };
        let storage = self.shared.storage.in_directory(path).await;
        let storage = storage.map_err(|source| {
            let path = path.clone();
            DownloadError::Directory { path, source }
        })?;
        let target = storage.folders().ok_or(FolderError::Unsupported)?;
        Ok(Homes {
            is_elsewhere: target.path() != main.path(),
            main,
            target,
        })
    }

    /// From now on this download fetches the folder. Something if there is nothing to
    /// fetch: it is here, or another download has fetched it.
    async fn claim(
        &self,
        id: ContentId,
        homes: &Homes,
        request: &FolderRequest,
    ) -> Option<Result<Folder, FolderError>> {
        self.limit(id);
        let (name, directory) = (request.name.as_ref(), request.directory.as_deref());
        loop {
            match self.registered.claim(id) {
                Ok(()) => {
                    // Nobody else sets them.
                    let _ = self.registered.found.set(id);
                    let _ = self.claimed.set(Claimed {
                        id,
                        homes: homes.clone(),
                    });
                    let here = intact(&self.shared, &id).await;
                    let here = here.map_err(FolderError::from).transpose()?;
                    let named = here.and_then(|folder| has_name(folder, request.name.as_ref()));
                    return Some(match named {
                        // Wherever it is, another content may have its files.
                        Ok(folder)
                            if request.common.is_none() && !self.is_in(&folder, homes, request) =>
                        {
                            Err(FolderError::AlreadyHere { id })
                        }
                        Ok(folder) => self.show_here(folder).await,
                        Err(error) => Err(error),
                    });
                }
                Err(other) => {
                    let joined = match other.holders.join() {
                        Some(_) if !other.goes_to(name, directory) => {
                            return Some(Err(FolderError::AlreadyHere { id }));
                        }
                        Some(part) => {
                            self.joins(&other, part);
                            self.follow(&other, request).await
                        }
                        None => {
                            other.ended().await;
                            None
                        }
                    };
                    if let Some(joined) = joined {
                        return Some(
                            joined.and_then(|folder| has_name(folder, request.name.as_ref())),
                        );
                    }
                }
            }
        }
    }

    /// Whether a folder that is here is in the directory that is wanted.
    fn is_in(&self, folder: &Folder, homes: &Homes, request: &FolderRequest) -> bool {
        let wanted = homes.target.root(&folder.name).path();
        let placed = self.shared.folders.placed(&folder.id);
        request.directory.is_none()
            || placed.is_some_and(|placed| {
                // One outside of the storage is found by its absolute path.
                let [wanted, placed] = [wanted, placed.root().path()].map(std::path::absolute);
                wanted.is_ok() && wanted.ok() == placed.ok()
            })
    }

    /// Shows what is wanted of a folder of which all is here.
    async fn show_here(&self, folder: Folder) -> Result<Folder, FolderError> {
        let whole = read_index(&self.shared, &folder.id).await?;
        self.leave_out_missing(&whole);
        let part = self.selected(&whole)?;
        let mut done = Done::new(self.status.borrow().files.clone());
        done.want(&whole, (&part, &part.only(|_| false)));
        self.status.send_modify(|status| status.index = Some(whole));
        self.show_folder(folder.id, &part, &folder.name);
        self.show(&done);
        Ok(folder)
    }

    /// The part of the folder that is here, if there is one.
    pub(super) fn here(
        &self,
        id: ContentId,
        homes: &Homes,
        request: &FolderRequest,
    ) -> Result<Option<(Folder, Arc<PlacedFiles>)>, FolderError> {
        let folders = &self.shared.folders;
        let (Some((folder, _)), Some(placed)) = (folders.get(&id), folders.placed(&id)) else {
            return Ok(None);
        };
        // What the user has shared is not changed.
        let is_there = homes.target.root(&folder.name).path() == placed.root().path();
        let fits = request
            .name
            .as_ref()
            .is_none_or(|name| *name == folder.name);
        match is_there && fits {
            true => Ok(Some((folder, placed))),
            false => Err(FolderError::AlreadyHere { id }),
        }
    }

    /// Finds the folder, and says so when no tracker answers.
    async fn find(&self, search: &mut Search<'_>) -> Result<Found, FolderError> {
        let mut changes = self.control().changes();
        loop {
            changes.mark_unchanged();
            search.set(&self.control().settings());
            match search.ask().await {
                Ok(found) => {
                    self.show_stall(None);
                    return Ok(found);
                }
                Err(Missed::Finally(error)) => return Err(error.into()),
                Err(Missed::Yet(reason)) => self.show_stall(Some(reason)),
            }
            tokio::select! {
                biased;
                waited = search.wait() => waited?,
                // Perhaps there is an owner now.
                Ok(()) = changes.changed() => {}
            }
        }
    }
}
