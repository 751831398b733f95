//! Runs file operations on threads that may block.

use std::io;

use crate::storage::StorageError;

/// Runs file operations on one of tokio's blocking threads, and always to their
/// end, even if the future is dropped.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StorageError::io(
                "using a file",
                io::Error::other("the runtime is shutting down"),
            )),
        },
    }
}
