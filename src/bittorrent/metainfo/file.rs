//! One file of a torrent.

use crate::bittorrent::bencode::{BencodeError, Value};
use crate::bittorrent::metainfo::error::MetainfoError;
use crate::content::{ContentName, FolderPath, FolderPathError};

/// A file of a torrent, a symbolic link, or padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentFile {
    pub(super) path: FolderPath,
    pub(super) length: u64,
    pub(super) offset: u64,
    pub(super) attributes: Attributes,
    pub(super) symlink: Option<FolderPath>,
    pub(super) pieces_root: Option<[u8; 32]>,
}

impl TorrentFile {
    /// Where it is: from the folder that has the name of the torrent; or, if the torrent is
    /// a single file, the name itself. Padding has a path of no meaning.
    pub fn path(&self) -> &FolderPath {
        &self.path
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where its first byte is among those of the whole torrent, padding included.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it is padding (BEP 47): zeros, which are not stored.
    pub fn is_padding(&self) -> bool {
        self.attributes.padding
    }

    /// Whether its owner may run it (BEP 47).
    pub fn is_executable(&self) -> bool {
        self.attributes.executable
    }

    /// Whether it is hidden where the system knows that as an attribute (BEP 47).
    pub fn is_hidden(&self) -> bool {
        self.attributes.hidden
    }

    /// If it is a symbolic link (BEP 47): the path that it refers to, from the same folder
    /// as [`path`](Self::path).
    pub fn symlink_target(&self) -> Option<&FolderPath> {
        self.symlink.as_ref()
    }

    /// What a symbolic link says: its target, from the folder that the link lies in.
    pub(crate) fn link_text(&self) -> Option<String> {
        let up = self.path.elements().count() - 1;
        let target = self.symlink.as_ref()?;
        Some("../".repeat(up) + target.as_str())
    }

    /// The root of the Merkle tree over its blocks, in v2 and hybrids, if it has data.
    pub fn pieces_root(&self) -> Option<&[u8; 32]> {
        self.pieces_root.as_ref()
    }

    /// Padding of this length at this place.
    pub(super) fn padding(offset: u64, length: u64) -> Result<Self, MetainfoError> {
        Ok(Self {
            path: path_of(&[".pad".to_owned(), length.to_string()])?,
            length,
            offset,
            attributes: Attributes {
                padding: true,
                ..Attributes::default()
            },
            symlink: None,
            pieces_root: None,
        })
    }
}

/// The attributes of a file (BEP 47, `attr`). Unknown letters are ignored, as it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) padding: bool,
    pub(super) executable: bool,
    pub(super) hidden: bool,
    pub(super) symlink: bool,
}

impl Attributes {
    pub(super) fn read(value: Value<'_, '_>) -> Result<Self, BencodeError> {
        let letters = value.bytes("attr")?;
        let has = |letter: u8| letters.contains(&letter);
        Ok(Self {
            padding: has(b'p'),
            executable: has(b'x'),
            hidden: has(b'h'),
            symlink: has(b'l'),
        })
    }

    pub(super) fn letters(self) -> String {
        let letters = [
            (self.padding, 'p'),
            (self.hidden, 'h'),
            (self.executable, 'x'),
            (self.symlink, 'l'),
        ];
        let letters = letters.into_iter().filter(|(has, _)| *has);
        letters.map(|(_, letter)| letter).collect()
    }
}

/// A path of these elements. Each must be a name by itself: `a/b` is none.
pub(super) fn path_of(elements: &[String]) -> Result<FolderPath, MetainfoError> {
    let error = |path: String, source| MetainfoError::Path { path, source };
    for element in elements {
        if let Err(source) = element.parse::<ContentName>() {
            let element = element.clone();
            let source = FolderPathError::Name {
                element: element.clone(),
                source,
            };
            return Err(error(element, source));
        }
    }
    let path = elements.join("/");
    path.parse().map_err(|source| error(path, source))
}

/// The elements of a path as they stand there.
pub(super) fn read_path(
    value: Value<'_, '_>,
    key: &'static str,
) -> Result<FolderPath, MetainfoError> {
    let mut elements = Vec::new();
    value.list(key, |element| {
        elements.push(element.text(key)?.to_owned());
        Ok::<_, BencodeError>(())
    })?;
    path_of(&elements)
}
