//! Where a folder is fetched, where it lies in the end, and where that is recorded.

use std::time::Duration;

use tokio::time::sleep;

use crate::storage::{FolderHome, Folders, StorageError};

/// How often it is tried again to remove a home because a write that was under way has put
/// something there.
const REMOVE_ATTEMPTS: u32 = 20;

/// The pause before that.
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

/// Where folders are fetched and recorded.
#[derive(Clone)]
pub(super) struct Homes {
    /// Those of the storage of the peer, which records them.
    pub(super) main: Folders,
    /// Where this one is built, and lies in the end.
    pub(super) target: Folders,
    pub(super) is_elsewhere: bool,
}

/// Removes all of a home.
pub(super) async fn try_remove(home: &FolderHome) -> Result<(), StorageError> {
    let mut attempts = 0;
    loop {
        match home.remove().await {
            Err(error) if attempts == REMOVE_ATTEMPTS => return Err(error),
            Err(_) => {
                attempts += 1;
                sleep(REMOVE_PAUSE).await;
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Removes all of a home that nobody needs any more.
pub(super) async fn remove_home(home: &FolderHome) {
    log_failed(try_remove(home).await);
}

/// What could not be removed does no harm.
pub(super) fn log_failed(done: Result<(), StorageError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "the storage did not remove what it no longer needs");
    }
}
