//! The bytes of an index. PROTOCOL.md specifies them.

use bytes::{BufMut, Bytes, BytesMut};

use super::entry::{FolderEntry, FolderItem};
use super::error::FolderIndexError;
use super::path::{FolderPath, FolderPathError};
use crate::content::ContentId;

/// How an index begins.
const MAGIC: [u8; 8] = *b"btl.fldr";
const VERSION: u32 = 1;

const FILE: u8 = 0;
const EXECUTABLE: u8 = 1;
const SYMLINK: u8 = 2;
const EMPTY_FOLDER: u8 = 3;

/// The length of the shortest entry: its kind, and a path of one byte.
const MIN_ENTRY_LEN: usize = 1 + 2 + 1;

pub(super) fn encode(entries: &[FolderEntry]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&MAGIC);
    bytes.put_u32(VERSION);
    bytes.put_u32(entries.len() as u32);
    for FolderEntry { path, item } in entries {
        bytes.put_u8(match item {
            FolderItem::File { executable, .. } => [FILE, EXECUTABLE][usize::from(*executable)],
            FolderItem::Symlink { .. } => SYMLINK,
            FolderItem::EmptyFolder => EMPTY_FOLDER,
        });
        put_text(&mut bytes, path.as_str());
        match item {
            FolderItem::File { id, length, .. } => {
                bytes.put_u64(*length);
                bytes.put_slice(id.as_bytes());
            }
            FolderItem::Symlink { target } => put_text(&mut bytes, target),
            FolderItem::EmptyFolder => {}
        }
    }
    bytes.freeze()
}

/// A text whose length has two bytes, which a checked path and target always
/// fit in.
fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_u16(text.len() as u16);
    bytes.put_slice(text.as_bytes());
}

/// The entries as they stand there. `max` is the bound of their number.
pub(super) fn decode(bytes: &[u8], max: usize) -> Result<Vec<FolderEntry>, FolderIndexError> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take::<8>().ok() != Some(MAGIC) {
        return Err(FolderIndexError::NotAFolder);
    }
    let version = u32::from_be_bytes(reader.take()?);
    if version != VERSION {
        return Err(FolderIndexError::Version { found: version });
    }
    let count = u32::from_be_bytes(reader.take()?);
    if count as usize > max {
        let found = count.into();
        return Err(FolderIndexError::TooManyEntries { found });
    }
    if reader.left() / MIN_ENTRY_LEN < count as usize {
        return Err(reader.damaged("there are fewer entries than announced"));
    }
    let mut entries = Vec::with_capacity(count as usize);
    for _ in 0..count {
        entries.push(reader.entry()?);
    }
    match reader.left() {
        0 => Ok(entries),
        _ => Err(reader.damaged("something follows the last entry")),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn damaged(&self, what: &'static str) -> FolderIndexError {
        FolderIndexError::Damaged { at: self.at, what }
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], FolderIndexError> {
        let rest = &self.bytes[self.at..];
        let Some((slice, _)) = rest.split_at_checked(len) else {
            return Err(self.damaged("the bytes end within an entry"));
        };
        self.at += len;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FolderIndexError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn text(&mut self) -> Result<&'a str, FolderIndexError> {
        let len = u16::from_be_bytes(self.take()?);
        let slice = self.slice(len.into())?;
        std::str::from_utf8(slice).map_err(|_| FolderIndexError::Path {
            path: String::from_utf8_lossy(slice).into_owned(),
            source: FolderPathError::Encoding,
        })
    }

    fn entry(&mut self) -> Result<FolderEntry, FolderIndexError> {
        let [kind] = self.take()?;
        if kind > EMPTY_FOLDER {
            self.at -= 1;
            return Err(self.damaged("the kind of the entry is unknown"));
        }
        let text = self.text()?;
        let path: FolderPath = text.parse().map_err(|source| FolderIndexError::Path {
            path: text.to_owned(),
            source,
        })?;
        let item = match kind {
            SYMLINK => FolderItem::Symlink {
                target: self.text()?.to_owned(),
            },
            EMPTY_FOLDER => FolderItem::EmptyFolder,
            _ => FolderItem::File {
                length: u64::from_be_bytes(self.take()?),
                id: ContentId::from_bytes(self.take()?),
                executable: kind == EXECUTABLE,
            },
        };
        Ok(FolderEntry { path, item })
    }
}
