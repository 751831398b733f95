//! What fuzz targets reach of formats that are private. No part of the crate's surface: it
//! may change at any time.

use crate::bittorrent::bencode::{BencodeError, canonical, read, sorted, written_value};

pub use crate::peer::fuzzing::{paused_download, paused_folder};
pub use crate::storage::fuzzing::{
    folder_record, folder_record_sealed, journal, journal_of, journal_sealed, old_record,
    old_record_sealed, paused_file, paused_file_sealed, segment, segment_sealed,
};

/// Whether the bytes are one value of bencode in canonical form.
pub fn bencode_is_strict(bytes: &[u8]) -> bool {
    read(bytes, bytes.len(), |_| Ok::<_, BencodeError>(())).is_ok()
}

/// The first value in canonical form, and of how many bytes it was read.
pub fn bencode_canonical(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (value, rest) = canonical(bytes, bytes.len()).ok()?;
    Some((value.into_owned(), bytes.len() - rest.len()))
}

/// The only value with its keys in order.
pub fn bencode_sorted(bytes: &[u8]) -> Option<Vec<u8>> {
    let sorted = sorted(bytes, bytes.len()).ok()?;
    Some(sorted.into_owned())
}

/// The value of a key in a dictionary, as it is written there.
pub fn bencode_written_value<'a>(dict: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    written_value(dict, key)
}
