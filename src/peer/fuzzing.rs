//! The forms of downloads that were paused, for the fuzz targets. No part of the crate's
//! surface.

use bytes::Bytes;

use super::downloads::paused_form::{ReadRecord, read};
use super::folders::paused_form::FolderForm;

/// Reads the form of a download, and writes it again, as far as its paths can be.
///
/// # Panics
/// If it is another one when that is read.
pub fn paused_download(bytes: &[u8]) -> Option<Vec<u8>> {
    let ReadRecord::Content(record) = read(Bytes::copy_from_slice(bytes)) else {
        return None;
    };
    let written = record.encode()?;
    assert_eq!(read(written.clone()), ReadRecord::Content(record));
    Some(written.into())
}

/// The same of a folder.
///
/// # Panics
/// If it is another one when that is read.
pub fn paused_folder(bytes: &[u8]) -> Option<Vec<u8>> {
    let form = FolderForm::decode(Bytes::copy_from_slice(bytes))?;
    let written = form.encode()?;
    assert_eq!(FolderForm::decode(written.clone()), Some(form));
    Some(written.into())
}
