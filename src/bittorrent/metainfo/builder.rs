//! Making torrents.

use std::io::{self, ErrorKind, Read};

use sha1::{Digest, Sha1};
use thiserror::Error;

use super::error::MetainfoError;
use super::file::{Attributes, TorrentFile, path_of};
use super::layout::{Entry, Layout, Padding};
use super::outer::write_trackers;
use super::reader::Metainfo;
use super::tree::write_tree;
use super::v1::write_files;
use crate::bittorrent::bencode::{DictWriter, list_of_bytes};
use crate::content::TORRENT_LEAF_LEN;
use crate::content::merkle::{Hash, leaf, leaves_of_piece, root, root_of_layer};
use crate::content::{FolderPath, MAX_CHUNK_LEN};

/// The most pieces that [`default_piece_length`] aims at. With 1024 to 2048 of them a
/// torrent file is small, and a swarm has enough to exchange.
const MAX_DEFAULT_PIECES: u64 = 2048;

/// How much is read at a time, in bytes: whole blocks, and long enough for few calls.
const BUFFER_LEN: usize = 16 * TORRENT_LEAF_LEN as usize;

/// The kinds of torrents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetainfoFormat {
    /// BEP 3: SHA-1, and every client.
    #[default]
    V1,
    /// BEP 52: SHA-256, and files that are aligned to pieces.
    V2,
    /// Both in one, with padding between the files (BEP 47). Two swarms, one file.
    Hybrid,
}

/// Why a torrent could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There can be no such torrent.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// A file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: FolderPath,
        /// Why not.
        source: io::Error,
    },
    /// A file is shorter or longer than was said.
    #[error("{path} does not have {expected} bytes any more")]
    Length {
        /// The file.
        path: FolderPath,
        /// How many bytes were announced.
        expected: u64,
    },
}

/// Makes a torrent of files that are read once, piece by piece.
///
/// The info hashes are those that libtorrent gives the same files with the same settings.
#[derive(Debug, Clone)]
pub struct MetainfoBuilder {
    name: String,
    is_single_file: bool,
    entries: Vec<Entry>,
    format: MetainfoFormat,
    piece_length: Option<u32>,
    private: bool,
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    comment: Option<String>,
    created_by: Option<String>,
    creation_date: Option<i64>,
}

impl MetainfoBuilder {
    /// A torrent that is a single file.
    ///
    /// # Errors
    /// [`MetainfoError::Path`]: this is not a safe name.
    pub fn file(name: &str, length: u64) -> Result<Self, MetainfoError> {
        let mut builder = Self::folder(name)?;
        builder.is_single_file = true;
        let path = path_of(&[name.to_owned()])?;
        Ok(builder.add(path, length))
    }

    /// A torrent that is a folder of this name.
    ///
    /// # Errors
    /// [`MetainfoError::Path`]: this is not a safe name.
    pub fn folder(name: &str) -> Result<Self, MetainfoError> {
        path_of(&[name.to_owned()])?;
        Ok(Self {
            name: name.to_owned(),
            is_single_file: false,
            entries: Vec::new(),
            format: MetainfoFormat::default(),
            piece_length: None,
            private: false,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
        })
    }

    /// Adds a file with its path in the folder and its length in bytes. In v1 the files
    /// stay in this order; otherwise they are sorted by path, as v2 has it.
    #[must_use]
    pub fn add(self, path: FolderPath, length: u64) -> Self {
        self.entry(path, length, Attributes::default(), None)
    }

    /// Adds a file that can be run (BEP 47).
    #[must_use]
    pub fn add_executable(self, path: FolderPath, length: u64) -> Self {
        let attributes = Attributes {
            executable: true,
            ..Attributes::default()
        };
        self.entry(path, length, attributes, None)
    }

    /// Adds a symbolic link (BEP 47). Its target is a path in the same folder.
    #[must_use]
    pub fn add_symlink(self, path: FolderPath, target: FolderPath) -> Self {
        let attributes = Attributes {
            symlink: true,
            ..Attributes::default()
        };
        self.entry(path, 0, attributes, Some(target))
    }

    fn entry(
        mut self,
        path: FolderPath,
        length: u64,
        attributes: Attributes,
        symlink: Option<FolderPath>,
    ) -> Self {
        self.entries.push(Entry {
            path,
            length,
            attributes,
            symlink,
            pieces_root: None,
        });
        self
    }

    /// Sets the kind of torrent: v1 if this is not called.
    #[must_use]
    pub fn format(mut self, format: MetainfoFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets the length of a piece in bytes: [`default_piece_length`] if this is not called.
    #[must_use]
    pub fn piece_length(mut self, bytes: u32) -> Self {
        self.piece_length = Some(bytes);
        self
    }

    /// Whether peers may come from its trackers only (BEP 27).
    #[must_use]
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Adds a tracker in a tier of its own, behind those before (BEP 12).
    #[must_use]
    pub fn tracker(self, url: impl Into<String>) -> Self {
        self.tier([url.into()])
    }

    /// Adds trackers of equal rank, behind those before (BEP 12).
    #[must_use]
    pub fn tier(mut self, urls: impl IntoIterator<Item = String>) -> Self {
        let tier: Vec<String> = urls.into_iter().collect();
        self.trackers
            .extend(Some(tier).filter(|tier| !tier.is_empty()));
        self
    }

    /// Adds a web server with the files (BEP 19).
    #[must_use]
    pub fn web_seed(mut self, url: impl Into<String>) -> Self {
        self.web_seeds.push(url.into());
        self
    }

    /// Sets what there is to say about it.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Sets the program that makes it.
    #[must_use]
    pub fn created_by(mut self, program: impl Into<String>) -> Self {
        self.created_by = Some(program.into());
        self
    }

    /// Sets when it was made, in seconds since 1970.
    #[must_use]
    pub fn creation_date(mut self, seconds: i64) -> Self {
        self.creation_date = Some(seconds);
        self
    }

    /// Reads all files, each once and in the order of their bytes, and makes the torrent.
    /// `open` opens a file by its path; a file without data is not opened.
    ///
    /// It takes a quarter of a MiB and the hashes as memory.
    ///
    /// # Errors
    /// [`BuildError`]: what was added cannot be a torrent, which is known before anything
    /// is read; or a file could not be read, or has another length.
    pub fn build<R: Read>(
        mut self,
        mut open: impl FnMut(&FolderPath) -> io::Result<R>,
    ) -> Result<Metainfo, BuildError> {
        let total = self
            .entries
            .iter()
            .fold(0_u64, |sum, entry| sum.saturating_add(entry.length));
        let piece_length = self.piece_length.unwrap_or(default_piece_length(total));
        self.check_piece_length(piece_length)?;
        if self.format != MetainfoFormat::V1 {
            self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        }
        let padding = match self.format {
            MetainfoFormat::V1 => Padding::None,
            MetainfoFormat::Hybrid if !self.is_single_file => Padding::Behind(piece_length),
            _ => Padding::Between(piece_length),
        };
        let mut layout = Layout::new(std::mem::take(&mut self.entries), padding)?;
        layout.check_folder()?;
        layout.pieces(piece_length)?;
        let mut hashing = Hashing::new(self.format, piece_length);
        for file in &mut layout.files {
            hashing.file(file, &mut open)?;
        }
        Ok(Metainfo::from_bytes(&self.write(&layout, hashing))?)
    }

    /// What reading would refuse, before it is made.
    fn check_piece_length(&self, length: u32) -> Result<(), MetainfoError> {
        let is_aligned = length.is_power_of_two() && u64::from(length) >= TORRENT_LEAF_LEN;
        let is_possible = (1..=super::MAX_PIECE_LEN).contains(&length);
        match is_possible && (is_aligned || self.format == MetainfoFormat::V1) {
            true => Ok(()),
            false => Err(MetainfoError::PieceLength {
                found: length.into(),
            }),
        }
    }

    fn write(self, layout: &Layout, hashing: Hashing) -> Vec<u8> {
        let mut info = DictWriter::new();
        info.bytes("name", &self.name);
        info.int("piece length", hashing.piece_length.into());
        if self.private {
            info.int("private", 1);
        }
        let mut outer = DictWriter::new();
        if let Some(v1) = hashing.v1 {
            info.bytes("pieces", v1.finish());
            match &layout.files[..] {
                [file] if self.is_single_file => {
                    info.int("length", file.length as i64);
                }
                files => info.raw("files", write_files(files)),
            }
        }
        if let Some(layers) = hashing.layers {
            info.int("meta version", 2);
            let files = layout.files.iter().filter(|file| !file.is_padding());
            info.raw("file tree", write_tree(&files.collect::<Vec<_>>()));
            outer.raw("piece layers", layers.finish());
        }
        outer.raw("info", info.finish());
        write_trackers(&mut outer, &self.trackers);
        for (key, text) in [("comment", &self.comment), ("created by", &self.created_by)] {
            if let Some(text) = text {
                outer.bytes(key, text);
            }
        }
        if let Some(date) = self.creation_date {
            outer.int("creation date", date);
        }
        match &self.web_seeds[..] {
            [] => {}
            [url] => outer.bytes("url-list", url),
            urls => outer.raw("url-list", list_of_bytes(urls)),
        }
        outer.finish()
    }
}

/// The length of a piece for this many bytes, as usual: the shortest power of two that
/// makes at most 2048 pieces, but at least 16 KiB, and at most what a peer of this crate
/// takes.
///
/// ```
/// use bt_lite::bittorrent::metainfo::default_piece_length;
///
/// assert_eq!(default_piece_length(700 << 20), 512 << 10);
/// ```
pub fn default_piece_length(total: u64) -> u32 {
    let length = total.div_ceil(MAX_DEFAULT_PIECES);
    let max = MAX_CHUNK_LEN;
    let length = length.min(max).next_power_of_two();
    length.clamp(TORRENT_LEAF_LEN, max) as u32
}

/// What the files are hashed into.
struct Hashing {
    piece_length: u32,
    v1: Option<PiecesV1>,
    /// The hashes of the pieces of v2, by file.
    layers: Option<DictWriter>,
    buffer: Vec<u8>,
}

impl Hashing {
    fn new(format: MetainfoFormat, piece_length: u32) -> Self {
        let has_v1 = format != MetainfoFormat::V2;
        let has_v2 = format != MetainfoFormat::V1;
        Self {
            piece_length,
            v1: has_v1.then(|| PiecesV1::new(piece_length)),
            layers: has_v2.then(DictWriter::new),
            buffer: vec![0; BUFFER_LEN],
        }
    }

    fn file<R: Read>(
        &mut self,
        file: &mut TorrentFile,
        open: &mut impl FnMut(&FolderPath) -> io::Result<R>,
    ) -> Result<(), BuildError> {
        if file.is_padding() {
            self.zeros(file.length);
            return Ok(());
        }
        if file.length == 0 {
            return Ok(());
        }
        let error = |source| BuildError::Read {
            path: file.path.clone(),
            source,
        };
        let mut reader = open(&file.path).map_err(error)?;
        let mut tree = self
            .layers
            .is_some()
            .then(|| FileTree::new(self.piece_length));
        let mut left = file.length;
        while left > 0 {
            let len = left.min(BUFFER_LEN as u64) as usize;
            let part = &mut self.buffer[..len];
            reader.read_exact(part).map_err(|source| {
                let ended = source.kind() == ErrorKind::UnexpectedEof;
                match ended {
                    true => wrong_length(file),
                    false => error(source),
                }
            })?;
            if let Some(v1) = &mut self.v1 {
                v1.update(part);
            }
            if let Some(tree) = &mut tree {
                tree.update(part);
            }
            left -= len as u64;
        }
        if !is_at_end(&mut reader).map_err(error)? {
            return Err(wrong_length(file));
        }
        if let (Some(layers), Some(tree)) = (&mut self.layers, tree) {
            let (root, layer) = tree.finish();
            file.pieces_root = Some(root);
            if let Some(layer) = layer {
                layers.bytes(root, layer.as_flattened());
            }
        }
        Ok(())
    }

    fn zeros(&mut self, mut length: u64) {
        let Some(v1) = &mut self.v1 else { return };
        self.buffer.fill(0);
        while length > 0 {
            let len = length.min(BUFFER_LEN as u64) as usize;
            v1.update(&self.buffer[..len]);
            length -= len as u64;
        }
    }
}

fn wrong_length(file: &TorrentFile) -> BuildError {
    BuildError::Length {
        path: file.path.clone(),
        expected: file.length,
    }
}

fn is_at_end(reader: &mut impl Read) -> io::Result<bool> {
    loop {
        match reader.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return Ok(read? == 0),
        }
    }
}

/// The SHA-1 of piece after piece.
struct PiecesV1 {
    piece_length: usize,
    hasher: Sha1,
    filled: usize,
    hashes: Vec<u8>,
}

impl PiecesV1 {
    fn new(piece_length: u32) -> Self {
        Self {
            piece_length: piece_length as usize,
            hasher: Sha1::new(),
            filled: 0,
            hashes: Vec::new(),
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = bytes.len().min(self.piece_length - self.filled);
            let (part, rest) = bytes.split_at(len);
            self.hasher.update(part);
            self.filled += len;
            if self.filled == self.piece_length {
                self.end_piece();
            }
            bytes = rest;
        }
    }

    fn end_piece(&mut self) {
        self.hashes.extend(self.hasher.finalize_reset());
        self.filled = 0;
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.end_piece();
        }
        self.hashes
    }
}

/// The Merkle tree of one file. What is given to it begins at whole blocks.
struct FileTree {
    piece_length: u32,
    /// Of the piece under way.
    leaves: Vec<Hash>,
    /// Of the pieces before it.
    layer: Vec<Hash>,
}

impl FileTree {
    fn new(piece_length: u32) -> Self {
        Self {
            piece_length,
            leaves: Vec::new(),
            layer: Vec::new(),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(TORRENT_LEAF_LEN as usize) {
            // A piece ends when the next one begins: the only piece has a smaller tree.
            if self.leaves.len() == leaves_of_piece(self.piece_length) {
                self.end_piece();
            }
            self.leaves.push(leaf(block));
        }
    }

    fn end_piece(&mut self) {
        let leaves = std::mem::take(&mut self.leaves);
        let width = leaves_of_piece(self.piece_length);
        self.layer.push(root(leaves, width, [0; 32]));
    }

    /// The root of the file, and the hashes of its pieces if there are several.
    fn finish(mut self) -> (Hash, Option<Vec<Hash>>) {
        if self.layer.is_empty() {
            let width = self.leaves.len().next_power_of_two();
            return (root(self.leaves, width, [0; 32]), None);
        }
        self.end_piece();
        let root = root_of_layer(self.layer.clone(), self.piece_length);
        (root, Some(self.layer))
    }
}
