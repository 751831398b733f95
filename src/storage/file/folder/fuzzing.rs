//! The records of folders, for the fuzz targets. No part of the crate's surface.

use bytes::Bytes;

use super::paused::{PausedFolder, PausedForm, encode};
use super::record::FolderRecord;
use crate::content::FolderIndex;

/// Reads the record of a folder, and writes it again.
///
/// # Panics
/// If it is another one when that is read.
pub(in crate::storage::file) fn record(bytes: &[u8], index: &FolderIndex) -> Option<Vec<u8>> {
    let read = |bytes| FolderRecord::decode(bytes, index.id(), index);
    let record = read(Bytes::copy_from_slice(bytes))?;
    let written = record.encode(index.id()).expect("it was read");
    assert_eq!(read(written.clone().into()), Some(record));
    Some(written)
}

/// Reads the file of a download of a folder that is paused.
///
/// # Panics
/// If it is another one when it is written and read again.
pub(in crate::storage::file) fn paused(bytes: &[u8]) -> Option<()> {
    let paused = PausedFolder::decode(Bytes::copy_from_slice(bytes))?;
    if let PausedForm::Bytes(form) = &paused.form {
        assert_eq!(encode(paused.id, form), bytes);
    }
    Some(())
}
