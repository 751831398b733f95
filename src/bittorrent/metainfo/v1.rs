//! The list of files of v1 (BEP 3, BEP 47).

use super::MAX_FILES;
use super::error::MetainfoError;
use super::file::{Attributes, TorrentFile, path_of, read_path};
use super::layout::Entry;
use crate::bittorrent::bencode::{BencodeError, DictWriter, Value, list, list_of_bytes};

/// The most entries of a list: each file may have padding behind it.
const MAX_ENTRIES: usize = 2 * MAX_FILES;

/// Reads `files`.
pub(super) fn read_files(value: Value<'_, '_>) -> Result<Vec<Entry>, MetainfoError> {
    let mut entries = Vec::new();
    value.list("files", |file| {
        if entries.len() == MAX_ENTRIES {
            return Err(MetainfoError::TooManyFiles);
        }
        entries.push(read_file(file)?);
        Ok(())
    })?;
    Ok(entries)
}

fn read_file(value: Value<'_, '_>) -> Result<Entry, MetainfoError> {
    let (mut length, mut path, mut path_utf8, mut symlink) = (None, None, None, None);
    let mut attributes = Attributes::default();
    value.dict("files", |key, value| {
        match key {
            b"attr" => attributes = Attributes::read(value)?,
            b"length" => length = Some(value.unsigned("length")?),
            // A path in another encoding counts if there is none in UTF-8. Which of both it
            // is, and whether padding has a path at all, is known at the end only.
            b"path" => path = Some(read_path(value, "path")),
            b"path.utf-8" => path_utf8 = Some(read_path(value, "path.utf-8")),
            b"symlink path" => symlink = Some(read_path(value, "symlink path")?),
            _ => {}
        }
        Ok::<_, MetainfoError>(())
    })?;
    let missing = |key| BencodeError::Missing { key };
    // A link has no length where libtorrent makes v2 torrents, and zero in v1.
    let length = match attributes.symlink {
        true => length.unwrap_or(0),
        false => length.ok_or(missing("length"))?,
    };
    if attributes.padding {
        let path = TorrentFile::padding(0, length)?.path;
        let symlink = None;
        attributes = Attributes {
            padding: true,
            ..Attributes::default()
        };
        return Ok(Entry {
            path,
            length,
            attributes,
            symlink,
            pieces_root: None,
        });
    }
    let path = path_utf8.or(path).ok_or(missing("path"))??;
    let entry = Entry {
        path,
        length,
        attributes,
        symlink,
        pieces_root: None,
    };
    entry.checked()
}

/// The only file of a torrent that has its name.
pub(super) fn single_file(
    name: &str,
    length: u64,
    attributes: Attributes,
) -> Result<Entry, MetainfoError> {
    let path = path_of(&[name.to_owned()])?;
    let entry = Entry {
        path,
        length,
        attributes,
        symlink: None,
        pieces_root: None,
    };
    entry.checked()
}

/// Writes `files`.
pub(super) fn write_files(files: &[TorrentFile]) -> Vec<u8> {
    list(files.iter().map(|file| {
        let mut dict = DictWriter::new();
        let attributes = file.attributes.letters();
        if !attributes.is_empty() {
            dict.bytes("attr", attributes);
        }
        dict.int("length", file.length as i64);
        dict.raw("path", list_of_bytes(file.path.elements()));
        if let Some(target) = &file.symlink {
            dict.raw("symlink path", list_of_bytes(target.elements()));
        }
        dict.finish()
    }))
}
