//! Deleting what a download has left, when nobody wants it any more.

use std::time::Duration;

use tokio::time::sleep;

use crate::content::ContentId;
use crate::error::DownloadError;
use crate::storage::{Storage, StorageError};

/// How often it is tried again because a write that was under way holds the file still.
const ATTEMPTS: u32 = 20;

/// The pause before that.
const PAUSE: Duration = Duration::from_millis(50);

/// Deletes what has arrived, in the storage that it went to, of a content whose download
/// has ended. Nobody else may have claimed the content.
pub(in crate::peer) async fn discard_partial(
    storage: &dyn Storage,
    id: ContentId,
) -> Result<(), DownloadError> {
    let mut attempts = 0;
    loop {
        match storage.discard_partial(&id).await {
            Ok(_) => return Ok(()),
            Err(StorageError::Locked { .. }) if attempts < ATTEMPTS => {
                attempts += 1;
                sleep(PAUSE).await;
            }
            Err(source) => {
                tracing::warn!(content = %id, error = %source, "what has arrived is not deleted");
                let chunk = None;
                return Err(DownloadError::Storage { id, chunk, source });
            }
        }
    }
}
