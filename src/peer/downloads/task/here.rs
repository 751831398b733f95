//! Contents that are here already, complete or on their way.

use std::sync::Arc;

use super::{DownloadTask, Join, Start, await_part};
use crate::content::{Content, ContentId};
use crate::error::{DownloadError, ReaderError};
use crate::peer::contents::complete_bytes::CompleteBytes;
use crate::peer::contents::readers::ReaderBoard;
use crate::peer::contents::reading::readers;
use crate::peer::contents::role::Role;
use crate::peer::contents::status::ContentStatus;
use crate::peer::contents::table::Settled;
use crate::peer::downloads::local::{
    ATTEMPTS, Here, WantedNames, complete_here, copy_stored, find_stored, open_stored, recall,
    remembered, storage_error,
};
use crate::peer::handles::download::DownloadOptions;
use crate::protocol::ContentKey;
use crate::storage::{Blob, Remembered, Storage};

impl DownloadTask {
    pub(super) async fn is_complete(&self, here: Here) {
        let Here { content, blob } = here;
        let id = content.id;
        self.topic.complete(&self.shared.events, &content);
        let board = readers(&self.shared, &id).await;
        let uploads = self.shared.contents.watch_uploads(&id);
        let complete = ContentStatus::shared(content.clone(), uploads);
        self.status.send_modify(|status| *status = complete);
        match board {
            Ok(board) => self.readers.moved(board),
            Err(ReaderError::NotHere { .. } | ReaderError::Passing { .. }) => {
                self.read_stored(&content, blob).await;
            }
            Err(error) => self.readers.end(gone(error)),
        }
    }

    /// Readers get a content that is in the storage, where this download wants it, and is not
    /// shared.
    async fn read_stored(&self, content: &Content, blob: Option<Arc<dyn Blob>>) {
        let opened = match blob {
            Some(blob) => Ok(blob),
            // It was shared a moment ago.
            None => match self.storage_in(self.control.directory()).await {
                Ok(storage) => open_stored(&*storage, content).await,
                Err(error) => Err(error),
            },
        };
        match opened {
            Ok(blob) => {
                let board = ReaderBoard::complete(CompleteBytes::new(content.id, blob));
                self.readers.moved(Arc::new(board));
            }
            Err(error) => self.readers.end(storage_error(content.id, error)),
        }
    }

    /// What to do about a content that is here: it is complete, or this download joins
    /// another one. Nothing if it has to be fetched.
    pub(super) async fn is_here(
        &self,
        settled: Settled,
        id: ContentId,
        wanted: &WantedNames,
    ) -> Result<Option<Start>, DownloadError> {
        let shared = &self.shared;
        if !matches!(settled, Settled::Ended) {
            self.limit(id);
        }
        match settled {
            Settled::Ended => Ok(None),
            Settled::Complete if wanted.target.is_private => {
                // It is read where it is.
                let here = shared.contents.names(&id);
                Ok(here.map(|(content, _)| Start::Complete(content.into())))
            }
            Settled::Complete => {
                let complete = Box::pin(complete_here(shared, id, wanted)).await?;
                Ok(complete.map(|content| Start::Complete(content.into())))
            }
            // It will not be here when it has ended.
            Settled::Downloading(running) if running.is_passing => {
                await_part(shared, id, running, &self.owners()).await;
                Ok(None)
            }
            // It goes to the folder, or to one caller: to be copied when it is there.
            Settled::Downloading(running)
                if running.role != Role::Alone
                    || (running.is_private && !wanted.target.is_private) =>
            {
                await_part(shared, id, running, &self.owners()).await;
                let complete = Box::pin(complete_here(shared, id, wanted)).await?;
                Ok(complete.map(|content| Start::Complete(content.into())))
            }
            Settled::Downloading(running) => {
                if let Some(name) = &wanted.stored {
                    let valid = wanted.target.storage.check_name(name);
                    valid.map_err(|source| storage_error(id, source))?;
                }
                let Some(hold) = running.holders.join() else {
                    return Ok(None);
                };
                let wanted = wanted.clone();
                Ok(Some(Start::Join(Join {
                    running,
                    hold,
                    topic: None,
                    wanted,
                })))
            }
        }
    }

    /// Looks for a content that no tracker finds: among those that are complete here, in
    /// what the storage remembers, and under its name in the storage.
    pub(super) async fn stored(
        &self,
        key: &ContentKey,
        wanted: &WantedNames,
        options: &DownloadOptions,
    ) -> Result<Option<Start>, DownloadError> {
        let shared = &self.shared;
        let remembered = remembered(shared).await;
        let id = match key {
            ContentKey::Id(id) => *id,
            ContentKey::Name(name) => {
                let has_name = |r: &&Remembered| r.name == *name || r.listed_as == *name;
                let of_storage = remembered.iter().filter(has_name).map(|r| r.id);
                let mut ids: Vec<ContentId> = shared.contents.named(name);
                ids.extend(of_storage);
                ids.sort_unstable();
                ids.dedup();
                let [id] = ids[..] else {
                    return Ok(None);
                };
                id
            }
        };
        if let Some(join) = self.leader(id, wanted, false)? {
            return Ok(Some(Start::Join(join)));
        }
        for _ in 0..ATTEMPTS {
            let settled = match shared.contents.claim(id, &self.handle).await {
                Err(settled) => settled,
                Ok(claim) => {
                    let seeds = options.seed;
                    let claim = match recall(shared, claim, id, &remembered, seeds).await? {
                        Err(claim) => claim,
                        // It is complete now.
                        Ok(_) if seeds => continue,
                        Ok(here) => {
                            let is_elsewhere = wanted.is_elsewhere;
                            let from = (&*shared.storage, is_elsewhere);
                            return Ok(Some(self.unshared(here, from, wanted).await?));
                        }
                    };
                    let by_id = id.into();
                    let names: Vec<_> = wanted.stored.iter().chain([&by_id]).cloned().collect();
                    let listed_as = wanted.asked.as_ref().unwrap_or(&by_id);
                    let listed = (listed_as, None);
                    let storage = &*wanted.target.storage;
                    let found = find_stored(shared, storage, claim, id, &names, listed, seeds);
                    match found.await? {
                        Ok(_) if seeds => continue,
                        Ok(here) => {
                            let from = (storage, false);
                            return Ok(Some(self.unshared(here, from, wanted).await?));
                        }
                        Err(_) => return Ok(None),
                    }
                }
            };
            if let Some(start) = Box::pin(self.is_here(settled, id, wanted)).await? {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }

    /// A content that is complete in a storage, and is not to be shared. `is_elsewhere`
    /// says that it is wanted in another storage.
    pub(super) async fn unshared(
        &self,
        here: Here,
        (from, is_elsewhere): (&dyn Storage, bool),
        wanted: &WantedNames,
    ) -> Result<Start, DownloadError> {
        let content = &here.content;
        let name = wanted.stored.as_ref().unwrap_or(&content.name);
        // What is for one caller is read where it is.
        if wanted.target.is_private || *name == content.name && !is_elsewhere {
            return Ok(Start::Complete(here));
        }
        let copied = copy_stored(&self.shared, from, content, name, wanted).await?;
        Ok(Start::Complete(copied))
    }
}

/// What the readers of a content hear that was complete here, and is gone already.
fn gone(error: ReaderError) -> DownloadError {
    match error {
        ReaderError::Storage { id, source } => DownloadError::Storage {
            id,
            chunk: None,
            source,
        },
        ReaderError::ShutDown => DownloadError::ShutDown,
        ReaderError::Unknown { .. } | ReaderError::NotHere { .. } | ReaderError::Passing { .. } => {
            DownloadError::Cancelled
        }
    }
}
