//! The file tree of v2 (BEP 52).

use super::MAX_FILES;
use super::error::MetainfoError;
use super::file::{Attributes, TorrentFile, path_of, read_path};
use super::layout::Entry;
use crate::bittorrent::bencode::{BencodeError, DictWriter, Value, list_of_bytes};
use crate::content::MAX_PATH_DEPTH;

/// Reads `file tree`: its files in the order of the tree, which is that of their bytes.
pub(super) fn read_tree(value: Value<'_, '_>) -> Result<Vec<Entry>, MetainfoError> {
    let (mut path, mut entries) = (Vec::new(), Vec::new());
    read_folder(value, &mut path, &mut entries)?;
    Ok(entries)
}

fn read_folder(
    value: Value<'_, '_>,
    path: &mut Vec<String>,
    entries: &mut Vec<Entry>,
) -> Result<(), MetainfoError> {
    if path.len() > MAX_PATH_DEPTH {
        return Err(MetainfoError::TooDeep);
    }
    let (mut file, mut items) = (false, 0);
    value.dict("file tree", |name, value| {
        items += 1;
        // The key of a file's own properties. It is empty, so it is the first.
        if name.is_empty() {
            file = true;
            if entries.len() == MAX_FILES {
                return Err(MetainfoError::TooManyFiles);
            }
            entries.push(read_file(value, path)?);
            return Ok(());
        }
        if file {
            let path = path.join("/");
            return Err(MetainfoError::FileAndFolder { path });
        }
        let key = "file tree";
        let name = std::str::from_utf8(name).map_err(|_| BencodeError::Encoding { key })?;
        path.push(name.to_owned());
        read_folder(value, path, entries)?;
        path.pop();
        Ok(())
    })?;
    match items {
        0 => Err(MetainfoError::EmptyFolder {
            path: path.join("/"),
        }),
        _ => Ok(()),
    }
}

fn read_file(value: Value<'_, '_>, path: &[String]) -> Result<Entry, MetainfoError> {
    let (mut length, mut pieces_root, mut symlink) = (None, None, None);
    let mut attributes = Attributes::default();
    value.dict("file tree", |key, value| {
        match key {
            b"attr" => attributes = Attributes::read(value)?,
            b"length" => length = Some(value.unsigned("length")?),
            b"pieces root" => pieces_root = Some(value.array("pieces root")?),
            b"symlink path" => symlink = Some(read_path(value, "symlink path")?),
            _ => {}
        }
        Ok::<_, MetainfoError>(())
    })?;
    let length: u64 = match attributes.symlink {
        true => length.unwrap_or(0),
        false => length.ok_or(BencodeError::Missing { key: "length" })?,
    };
    if attributes.padding {
        let path = path.join("/");
        return Err(MetainfoError::Padding { path });
    }
    if pieces_root.is_some() != (length > 0) {
        let path = path.join("/");
        return Err(MetainfoError::PiecesRoot { path });
    }
    let path = path_of(path)?;
    let entry = Entry {
        path,
        length,
        attributes,
        symlink,
        pieces_root,
    };
    entry.checked()
}

/// Writes `file tree`. The files are sorted by path, and nothing lies in a file.
pub(super) fn write_tree(files: &[&TorrentFile]) -> Vec<u8> {
    write_folder(files, 0)
}

fn write_folder(files: &[&TorrentFile], depth: usize) -> Vec<u8> {
    let mut dict = DictWriter::new();
    let name_of = |file: &&TorrentFile| file.path.elements().nth(depth).map(str::to_owned);
    for group in files.chunk_by(|a, b| name_of(a) == name_of(b)) {
        let name = name_of(&group[0]).unwrap_or_default();
        let is_file = group[0].path.elements().count() == depth + 1;
        match is_file {
            true => dict.raw(name, write_file(group[0])),
            false => dict.raw(name, write_folder(group, depth + 1)),
        }
    }
    dict.finish()
}

fn write_file(file: &TorrentFile) -> Vec<u8> {
    let mut dict = DictWriter::new();
    let attributes = file.attributes.letters();
    if !attributes.is_empty() {
        dict.bytes("attr", attributes);
    }
    match &file.symlink {
        // Without a length, as libtorrent writes it.
        Some(target) => dict.raw("symlink path", list_of_bytes(target.elements())),
        None => dict.int("length", file.length as i64),
    }
    if let Some(root) = &file.pieces_root {
        dict.bytes("pieces root", root);
    }
    let mut entry = DictWriter::new();
    entry.raw("", dict.finish());
    entry.finish()
}
