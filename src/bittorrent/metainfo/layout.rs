//! Where the files of a torrent lie: one after the other, and whether they can be one
//! folder.

use super::error::MetainfoError;
use super::file::{Attributes, TorrentFile};
use super::{MAX_FILES, MAX_PIECES};
use crate::content::{ContentId, FolderEntry, FolderIndex, FolderPath, MAX_CONTENT_LEN};

/// A file before its place is known.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: FolderPath,
    pub(super) length: u64,
    pub(super) attributes: Attributes,
    pub(super) symlink: Option<FolderPath>,
    pub(super) pieces_root: Option<[u8; 32]>,
}

impl Entry {
    /// Whether it is a symbolic link exactly if it says so, and has no data then.
    pub(super) fn checked(self) -> Result<Self, MetainfoError> {
        let is_link = self.attributes.symlink;
        match is_link == self.symlink.is_some() && !(is_link && self.length > 0) {
            true => Ok(self),
            false => Err(MetainfoError::Symlink {
                path: self.path.to_string(),
            }),
        }
    }

    fn at(self, offset: u64) -> TorrentFile {
        TorrentFile {
            path: self.path,
            length: self.length,
            offset,
            attributes: self.attributes,
            symlink: self.symlink,
            pieces_root: self.pieces_root,
        }
    }
}

/// Where padding goes that the entries do not list themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// Nowhere: the entries follow each other.
    None,
    /// Before each file with data, up to the next piece.
    Between(u32),
    /// Right behind each file with data, the last one too, as libtorrent makes hybrids.
    Behind(u32),
}

/// Files that follow each other without a gap.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) files: Vec<TorrentFile>,
    pub(super) length: u64,
}

impl Layout {
    /// Lays out these entries in their order.
    pub(super) fn new(entries: Vec<Entry>, padding: Padding) -> Result<Self, MetainfoError> {
        let mut layout = Self {
            files: Vec::with_capacity(entries.len()),
            length: 0,
        };
        for entry in entries {
            let has_data = entry.length > 0;
            if let (Padding::Between(piece), true) = (padding, has_data) {
                layout.pad(piece)?;
            }
            let file = entry.at(layout.length);
            layout.push(file)?;
            if let (Padding::Behind(piece), true) = (padding, has_data) {
                layout.pad(piece)?;
            }
        }
        match layout.length {
            0 => Err(MetainfoError::NoData),
            _ => Ok(layout),
        }
    }

    fn pad(&mut self, piece: u32) -> Result<(), MetainfoError> {
        let end = self.length.next_multiple_of(piece.into());
        match end - self.length {
            0 => Ok(()),
            length => self.push(TorrentFile::padding(self.length, length)?),
        }
    }

    fn push(&mut self, file: TorrentFile) -> Result<(), MetainfoError> {
        let end = self.length.checked_add(file.length);
        let end = end.filter(|&end| end <= MAX_CONTENT_LEN);
        self.length = end.ok_or(MetainfoError::TooLong)?;
        self.files.push(file);
        Ok(())
    }

    /// How many pieces it has.
    pub(super) fn pieces(&self, piece_length: u32) -> Result<u32, MetainfoError> {
        let found = self.length.div_ceil(piece_length.into());
        let pieces = u32::try_from(found).ok().filter(|&n| n <= MAX_PIECES);
        pieces.ok_or(MetainfoError::TooManyPieces { found })
    }

    /// Refuses what cannot be one folder on every system: what the crate's own folders
    /// refuse.
    pub(super) fn check_folder(&self) -> Result<(), MetainfoError> {
        let files = self.files.iter().filter(|file| !file.is_padding());
        let entries = files.zip(0_u64..).map(|(file, number)| {
            let path = file.path.clone();
            match file.link_text() {
                Some(target) => FolderEntry::symlink(path, target),
                // Files of one id must have one length, and ids are not known here.
                None => {
                    let mut id = [0; 32];
                    id[..8].copy_from_slice(&number.to_be_bytes());
                    FolderEntry::file(path, ContentId::from_bytes(id), file.length)
                }
            }
        });
        let entries: Vec<FolderEntry> = entries.collect();
        if entries.len() > MAX_FILES {
            return Err(MetainfoError::TooManyFiles);
        }
        FolderIndex::new(entries)?;
        Ok(())
    }
}
