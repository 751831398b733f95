//! The index of a folder: what is in it.

use std::sync::Arc;

use bytes::Bytes;

use super::check::check;
use super::codec::{decode, encode};
use super::entry::{FolderEntry, FolderItem};
use super::error::FolderIndexError;
use super::path::FolderPath;
use crate::content::ContentId;

/// The maximum number of entries of a folder. A peer remembers about half a KiB
/// for each file that it shares.
pub const MAX_FOLDER_ENTRIES: usize = 1 << 18;

/// The maximum length of an index in bytes. An index is read into memory as a
/// whole.
pub const MAX_INDEX_LEN: u64 = 64 << 20;

/// What is in a folder: its files, symbolic links and empty folders, sorted by
/// path. A clone is cheap.
///
/// It can be one folder on every system: see [`FolderPath`] for the names. No two
/// paths differ only in case, and nothing lies in what is no folder. (Two that differ only in
/// how Unicode writes the same letters are not found out. They are one name on macOS, where
/// such a folder cannot be made.) A symbolic
/// link is relative and stays in the folder, and its target leads through folders
/// only; the target itself may be another link, or missing.
///
/// ```
/// use bt_lite::{ContentId, FolderEntry, FolderIndex};
///
/// let index = FolderIndex::new(vec![
///     FolderEntry::symlink("latest".parse()?, "logs/2.txt"),
///     FolderEntry::file("logs/2.txt".parse()?, ContentId::of(b"two"), 3),
/// ])?;
/// let bytes = index.encode();
/// assert_eq!(FolderIndex::decode(&bytes)?, index);
/// assert_eq!(index.id(), ContentId::of(&bytes));
///
/// let outside = FolderEntry::symlink("latest".parse()?, "../logs/2.txt");
/// assert!(FolderIndex::new(vec![outside]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderIndex {
    entries: Arc<[FolderEntry]>,
}

impl FolderIndex {
    /// The index of these entries, which may come in any order.
    ///
    /// # Errors
    /// [`FolderIndexError`]: they cannot be one folder on every system, or are
    /// too many.
    pub fn new(mut entries: Vec<FolderEntry>) -> Result<Self, FolderIndexError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let index = Self::checked(entries)?;
        let len = index.encode().len() as u64;
        match len > MAX_INDEX_LEN {
            true => Err(FolderIndexError::TooLong { len }),
            false => Ok(index),
        }
    }

    /// Reads an index. Its own [`encode`](Self::encode) gives the same bytes
    /// again.
    ///
    /// # Errors
    /// [`FolderIndexError`]. [`FolderIndexError::NotAFolder`] if the bytes are
    /// something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FolderIndexError> {
        let len = bytes.len() as u64;
        if len > MAX_INDEX_LEN {
            return Err(FolderIndexError::TooLong { len });
        }
        Self::checked(decode(bytes, MAX_FOLDER_ENTRIES)?)
    }

    fn checked(entries: Vec<FolderEntry>) -> Result<Self, FolderIndexError> {
        if entries.len() > MAX_FOLDER_ENTRIES {
            let found = entries.len() as u64;
            return Err(FolderIndexError::TooManyEntries { found });
        }
        check(&entries)?;
        let entries = entries.into();
        Ok(Self { entries })
    }

    /// Its bytes, which are the content that is shared.
    pub fn encode(&self) -> Bytes {
        encode(&self.entries)
    }

    /// The id of the folder: the content id of [`encode`](Self::encode). It is
    /// computed anew each time.
    pub fn id(&self) -> ContentId {
        ContentId::of(&self.encode())
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[FolderEntry] {
        &self.entries
    }

    /// How many files there are, and how many bytes they have together.
    pub fn size(&self) -> (usize, u64) {
        let lengths = self.entries.iter().filter_map(|entry| match entry.item {
            FolderItem::File { length, .. } => Some(length),
            _ => None,
        });
        lengths.fold((0, 0), |(files, bytes), length| (files + 1, bytes + length))
    }

    /// The part of the folder that is at these paths, or within them. A symbolic
    /// link may refer to something that is not a part of it.
    ///
    /// # Errors
    /// The first path at which the folder has nothing.
    pub fn select(&self, paths: &[FolderPath]) -> Result<Self, FolderPath> {
        let mut chosen = vec![false; self.entries.len()];
        for path in paths {
            let start = self.first_at(path);
            let within = self.entries[start..].iter();
            let within = within
                .take_while(|entry| entry.path.is_within(path))
                .count();
            if within == 0 {
                return Err(path.clone());
            }
            chosen[start..start + within].fill(true);
        }
        let entries = self.entries.iter().zip(chosen);
        let entries = entries.filter(|(_, chosen)| *chosen);
        Ok(Self {
            entries: entries.map(|(entry, _)| entry.clone()).collect(),
        })
    }

    /// Where the entries at a path begin, or within it: they come right behind it.
    fn first_at(&self, path: &FolderPath) -> usize {
        self.entries.partition_point(|entry| entry.path < *path)
    }

    /// Whether there is something at a path, or within it.
    #[cfg(feature = "file-storage")]
    pub(crate) fn has(&self, path: &FolderPath) -> bool {
        let first = self.entries.get(self.first_at(path));
        first.is_some_and(|entry| entry.path.is_within(path))
    }

    /// The entries of which this is true for their numbers.
    #[cfg(feature = "file-storage")]
    pub(crate) fn only(&self, keep: impl Fn(u32) -> bool) -> Self {
        let entries = (0..).zip(self.entries.iter());
        let kept = entries.filter(|(number, _)| keep(*number));
        Self {
            entries: kept.map(|(_, entry)| entry.clone()).collect(),
        }
    }
}
