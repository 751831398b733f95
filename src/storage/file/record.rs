//! What is recorded about a finished content beside its manifest, and how it is
//! written. This module does no I/O.

use std::path::PathBuf;

use bytes::{Buf, Bytes};

use super::fields::{split, take};
use super::stamp::Stamp;
use super::timestamp::Timestamp;
use crate::content::{ContentId, ContentName};
pub(super) use crate::storage::{bytes_path, path_bytes};

/// What is recorded about one finished content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: ContentId,
    pub(super) name: ContentName,
    /// The name at trackers.
    pub(super) listed_as: ContentName,
    /// The path of the file; nothing if it is in the directory, under the name.
    pub(super) path: Option<PathBuf>,
    pub(super) stamp: Stamp,
    /// Whether the peer has written the file, as far as is known.
    pub(super) written_here: bool,
}

/// What is said of a file.
const SETTLED: u8 = 1;
const WRITTEN_HERE: u8 = 2;

/// The fields of a record in the order in which they are written. Version 1 of the
/// records that had a file each has no separate name for trackers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    One,
    Two,
}

impl Record {
    /// Appends the record; nothing if its path cannot be represented.
    pub(super) fn put(&self, bytes: &mut Vec<u8>) -> Option<()> {
        let path = match &self.path {
            None => &[][..],
            Some(path) => path_bytes(path)?,
        };
        let listed_as = match &self.listed_as {
            same if *same == self.name => "",
            other => other.as_str(),
        };
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.stamp.len.to_le_bytes());
        bytes.extend(self.stamp.modified.to_bytes());
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        bytes.push(flag(self.stamp.settled, SETTLED) | flag(self.written_here, WRITTEN_HERE));
        for name in [self.name.as_str(), listed_as] {
            bytes.extend(u16::try_from(name.len()).ok()?.to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        bytes.extend(u32::try_from(path.len()).ok()?.to_le_bytes());
        bytes.extend(path);
        Some(())
    }

    /// Reads a record; nothing if it is not one.
    pub(super) fn take(bytes: &mut Bytes, names: Names) -> Option<Self> {
        let id = ContentId::from_bytes(take(bytes)?);
        let len = bytes.try_get_u64_le().ok()?;
        let modified = Timestamp::from_bytes(take(bytes)?);
        let flags = bytes.try_get_u8().ok()?;
        if flags & !(SETTLED | WRITTEN_HERE) != 0 {
            return None;
        }
        let name_len = bytes.try_get_u16_le().ok()?;
        let name = ContentName::try_from(&split(bytes, name_len.into())?[..]).ok()?;
        let listed_len = match names {
            Names::One => 0,
            Names::Two => bytes.try_get_u16_le().ok()?,
        };
        let listed_as = match &split(bytes, listed_len.into())?[..] {
            [] => name.clone(),
            listed_as => ContentName::try_from(listed_as).ok()?,
        };
        let path_len = bytes.try_get_u32_le().ok()?;
        let path = match &split(bytes, path_len as usize)?[..] {
            [] => None,
            path => Some(bytes_path(path)?),
        };
        Some(Self {
            id,
            name,
            listed_as,
            path,
            stamp: Stamp {
                len,
                modified,
                settled: flags & SETTLED != 0,
            },
            written_here: flags & WRITTEN_HERE != 0,
        })
    }
}
