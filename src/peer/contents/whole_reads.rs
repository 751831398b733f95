//! Reads that give all that was asked for.

use std::io;

use bytes::Bytes;

use crate::storage::{Blob, StorageError};

/// Reads exactly `len` bytes of a blob from a position on.
///
/// # Errors
/// Those of [`Blob::read_at`], and [`StorageError::Io`] when that returns another number
/// of bytes than it was asked for.
pub(in crate::peer) async fn read_whole(
    blob: &dyn Blob,
    from: u64,
    len: usize,
) -> Result<Bytes, StorageError> {
    let bytes = blob.read_at(from, len).await?;
    if bytes.len() == len {
        return Ok(bytes);
    }
    let what = format!("reading {len} bytes from position {from} on");
    let error = StorageError::io(what, io::ErrorKind::UnexpectedEof);
    Err(match blob.path() {
        Some(path) => error.at(path),
        None => error,
    })
}
