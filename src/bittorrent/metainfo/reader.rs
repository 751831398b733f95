//! A whole torrent file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use super::error::MetainfoError;
use super::file::{Attributes, TorrentFile, path_of};
use super::layout::{Entry, Layout, Padding};
use super::outer::Outer;
use super::tree::read_tree;
use super::v1::{read_files, single_file};
use super::{MAX_INFO_LEN, MAX_METAINFO_LEN, MAX_PIECE_LEN};
use crate::bittorrent::bencode::{BencodeError, read, sorted, written_value};
use crate::bittorrent::{InfoHashV1, InfoHashV2};
use crate::content::merkle::{Hash, leaves_of_piece, root_of_layer};
use crate::content::{PieceRoot, TORRENT_LEAF_LEN};

const HASH_V1_LEN: usize = InfoHashV1::LEN;
const HASH_V2_LEN: usize = 32;

/// A torrent: what is in a torrent file, or what peers gave for a magnet link.
///
/// ```
/// use bt_lite::bittorrent::{Metainfo, MetainfoBuilder};
///
/// let builder = MetainfoBuilder::folder("photos")?
///     .add("a.jpg".try_into()?, 5)
///     .add("b/c.jpg".try_into()?, 3)
///     .tracker("http://tracker.example/announce");
/// let made = builder.build(|path| {
///     Ok(match path.as_str() {
///         "a.jpg" => &b"hello"[..],
///         _ => &b"you"[..],
///     })
/// })?;
///
/// let torrent = Metainfo::from_bytes(&made.to_bytes())?;
/// assert_eq!(torrent.name(), "photos");
/// assert_eq!(torrent.info_hash_v1(), made.info_hash_v1());
/// let paths = torrent.files().iter().map(|file| file.path().as_str());
/// assert_eq!(paths.collect::<Vec<_>>()[0], "a.jpg");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Metainfo {
    info: Bytes,
    hash_v1: Option<InfoHashV1>,
    hash_v2: Option<InfoHashV2>,
    name: String,
    is_single_file: bool,
    is_private: bool,
    piece_length: u32,
    pieces: u32,
    total_length: u64,
    files: Vec<TorrentFile>,
    /// Which of the files have data, in order.
    with_data: Vec<u32>,
    hashes_v1: Option<Bytes>,
    outer: Outer,
}

impl Metainfo {
    /// Reads a torrent file. The keys of its dictionaries may come in any order, as every
    /// program reads them and some write them; the info hashes are of the bytes as they came.
    ///
    /// # Errors
    /// [`MetainfoError`]: it is not canonical otherwise, or unsafe, or does not fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let (mut info, mut outer) = (None, Outer::default());
        let in_order = sorted(bytes, MAX_METAINFO_LEN)?;
        read(&in_order, MAX_METAINFO_LEN, |value| {
            value.dict("torrent", |key, value| {
                let raw = value.raw()?;
                match key {
                    b"info" => {
                        let written = written_value(bytes, b"info").unwrap_or(&raw);
                        info = Some(Bytes::copy_from_slice(written));
                    }
                    _ => outer.keep(key, Bytes::copy_from_slice(&raw)),
                }
                Ok::<_, BencodeError>(())
            })
        })?;
        outer.understand()?;
        let info = info.ok_or(BencodeError::Missing { key: "info" })?;
        Self::new(info, outer)
    }

    /// Reads an `info` dictionary alone, as peers give it for a magnet link (BEP 9).
    ///
    /// # Errors
    /// [`MetainfoError`], as those of [`from_bytes`](Self::from_bytes).
    pub fn from_info(info: &[u8]) -> Result<Self, MetainfoError> {
        Self::new(Bytes::copy_from_slice(info), Outer::default())
    }

    fn new(bytes: Bytes, mut outer: Outer) -> Result<Self, MetainfoError> {
        let info = Info::read(&bytes)?;
        let has_v2 = info.tree.is_some();
        // They mean nothing in a torrent of v1.
        outer.piece_layers = outer.piece_layers.filter(|_| has_v2);
        let is_private = info.private;
        let hashes_v1 = info.hashes.clone();
        let piece_length = info.piece_length()?;
        let name = info.name.clone();
        let (layout, is_single_file) = info.layout(piece_length)?;
        layout.check_folder()?;
        let pieces = layout.pieces(piece_length)?;
        if let Some(hashes) = &hashes_v1 {
            let found = (hashes.len() / HASH_V1_LEN) as u64;
            if found != u64::from(pieces) {
                let expected = pieces.into();
                return Err(MetainfoError::HashCount { expected, found });
            }
        }
        let numbered = layout.files.iter().zip(0..);
        let with_data = numbered.filter(|(file, _)| !file.is_padding() && file.length > 0);
        let torrent = Self {
            hash_v1: hashes_v1.is_some().then(|| InfoHashV1::of(&bytes)),
            hash_v2: has_v2.then(|| InfoHashV2::of(&bytes)),
            info: bytes,
            name,
            is_single_file,
            is_private,
            piece_length,
            pieces,
            total_length: layout.length,
            with_data: with_data.map(|(_, number)| number).collect(),
            files: layout.files,
            hashes_v1,
            outer,
        };
        torrent.check_layers()?;
        Ok(torrent)
    }

    /// If there are hashes of the pieces of v2, they are those of each file with more than
    /// one piece, and they fit. Without any it is like a magnet link, and as good.
    fn check_layers(&self) -> Result<(), MetainfoError> {
        let Some(layers) = &self.outer.piece_layers else {
            return Ok(());
        };
        let mut checked = BTreeSet::new();
        for file in &self.files {
            let Some(root) = file.pieces_root.filter(|_| self.has_layer(file)) else {
                continue;
            };
            let path = || file.path.to_string();
            let layer = layers.get(&root);
            let layer = layer.ok_or_else(|| MetainfoError::LayerMissing { path: path() })?;
            let pieces = file.length.div_ceil(self.piece_length.into());
            let (hashes, rest) = layer.as_chunks::<HASH_V2_LEN>();
            let fits = rest.is_empty() && hashes.len() as u64 == pieces;
            // Equal files have one root, and are looked at once.
            if fits && !checked.insert(root) {
                continue;
            }
            if !fits || root_of_layer(hashes.to_vec(), self.piece_length) != root {
                return Err(MetainfoError::LayerWrong { path: path() });
            }
        }
        match checked.len() == layers.len() {
            true => Ok(()),
            false => Err(MetainfoError::LayerUnknown),
        }
    }

    fn has_layer(&self, file: &TorrentFile) -> bool {
        file.length > self.piece_length.into()
    }

    /// The torrent file: the entries as they came, in canonical form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.outer.write(&self.info)
    }

    /// The `info` dictionary, exactly as it came.
    pub fn info_bytes(&self) -> &Bytes {
        &self.info
    }

    /// The info hash of v1, unless it is a torrent of v2 alone.
    pub fn info_hash_v1(&self) -> Option<InfoHashV1> {
        self.hash_v1
    }

    /// The info hash of v2, if it is a torrent of v2 or a hybrid.
    pub fn info_hash_v2(&self) -> Option<InfoHashV2> {
        self.hash_v2
    }

    /// The name of the file, or of the folder that all files are in. It is a safe file
    /// name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a single file and not a folder.
    pub fn is_single_file(&self) -> bool {
        self.is_single_file
    }

    /// Whether peers may come from its trackers only (BEP 27).
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// The length of each piece except the last, in bytes.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces there are: at least one.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// How many bytes the pieces have together, padding included.
    pub fn total_length(&self) -> u64 {
        self.total_length
    }

    /// How many bytes the files have together.
    pub fn data_length(&self) -> u64 {
        let data = self.files.iter().filter(|file| !file.is_padding());
        data.map(|file| file.length).sum()
    }

    /// The files, links, and padding in the order of their bytes. They follow each other
    /// without a gap: where a torrent of v2 aligns files, there is padding as in a hybrid.
    pub fn files(&self) -> &[TorrentFile] {
        &self.files
    }

    /// How many bytes a piece has, padding included.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn len_of_piece(&self, piece: u32) -> u32 {
        let (start, end) = self.range_of_piece(piece);
        (end - start) as u32
    }

    /// How many bytes a piece has up to the last one that is not padding.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn data_len_of_piece(&self, piece: u32) -> u32 {
        let (start, end) = self.range_of_piece(piece);
        let before = |&number: &u32| self.files[number as usize].offset < end;
        let behind = self.with_data.partition_point(before);
        let last = behind.checked_sub(1).map(|at| self.with_data[at]);
        let end_of_data = last.map_or(0, |number| {
            let file = &self.files[number as usize];
            file.offset + file.length
        });
        end_of_data.clamp(start, end).abs_diff(start) as u32
    }

    fn range_of_piece(&self, piece: u32) -> (u64, u64) {
        assert!(piece < self.pieces, "piece {piece} of {}", self.pieces);
        let len = u64::from(self.piece_length);
        let start = u64::from(piece) * len;
        (start, self.total_length.min(start + len))
    }

    /// The SHA-1 of a piece, padding included, in v1 and hybrids.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn piece_hash_v1(&self, piece: u32) -> Option<[u8; 20]> {
        assert!(piece < self.pieces, "piece {piece} of {}", self.pieces);
        let (hashes, _) = self.hashes_v1.as_ref()?.as_chunks();
        Some(hashes[piece as usize])
    }

    /// What a piece is verified by in v2 and hybrids. Nothing if the hashes of its file are
    /// not there: a magnet link brings only those of files with a single piece.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn piece_root(&self, piece: u32) -> Option<PieceRoot> {
        let (start, _) = self.range_of_piece(piece);
        let before = |&number: &u32| self.files[number as usize].offset <= start;
        let at = self.with_data.partition_point(before).checked_sub(1)?;
        let file = &self.files[self.with_data[at] as usize];
        let root = file.pieces_root?;
        let data_len = self.data_len_of_piece(piece);
        if !self.has_layer(file) {
            let blocks = file.length.div_ceil(TORRENT_LEAF_LEN) as u32;
            let leaves = blocks.next_power_of_two();
            return Some(PieceRoot {
                root,
                data_len,
                leaves,
            });
        }
        let layer = self.outer.piece_layers.as_ref()?.get(&root)?;
        let number = (start - file.offset) / u64::from(self.piece_length);
        let (hashes, _) = layer.as_chunks::<HASH_V2_LEN>();
        Some(PieceRoot {
            root: *hashes.get(number as usize)?,
            data_len,
            leaves: leaves_of_piece(self.piece_length) as u32,
        })
    }

    /// The hashes of the pieces of a file with several, by the root of the file (BEP 52,
    /// `piece layers`), one after the other.
    pub fn piece_layer(&self, pieces_root: &[u8; 32]) -> Option<&Bytes> {
        self.outer.piece_layers.as_ref()?.get(pieces_root)
    }

    /// The files with several pieces whose hashes are missing, by their roots, each with the
    /// number of its pieces. Equal files are one.
    pub(crate) fn missing_layers(&self) -> BTreeMap<Hash, u32> {
        let files = self.files.iter().filter(|file| self.has_layer(file));
        let missing = files.filter_map(|file| {
            let root = file.pieces_root?;
            let pieces = file.length.div_ceil(self.piece_length.into()) as u32;
            self.piece_layer(&root).is_none().then_some((root, pieces))
        });
        missing.collect()
    }

    /// The same torrent with these hashes of pieces, by the roots of their files.
    pub(crate) fn with_layers(
        mut self,
        layers: BTreeMap<Hash, Bytes>,
    ) -> Result<Self, MetainfoError> {
        self.outer.set_layers(layers);
        self.check_layers()?;
        Ok(self)
    }

    /// The trackers in tiers, to be tried in this order (BEP 12).
    pub fn trackers(&self) -> &[Vec<String>] {
        &self.outer.trackers
    }

    /// Puts other trackers in their place. The info hashes stay the same.
    pub fn set_trackers(&mut self, tiers: Vec<Vec<String>>) {
        self.outer.set_trackers(tiers);
    }

    /// Puts other web servers in their place.
    pub(crate) fn set_web_seeds(&mut self, urls: Vec<String>) {
        self.outer.set_web_seeds(urls);
    }

    /// What its maker says about it.
    pub fn comment(&self) -> Option<&str> {
        self.outer.comment.as_deref()
    }

    /// The program that made it.
    pub fn created_by(&self) -> Option<&str> {
        self.outer.created_by.as_deref()
    }

    /// When it was made, in seconds since 1970.
    pub fn creation_date(&self) -> Option<i64> {
        self.outer.creation_date
    }

    /// Web servers with its files (BEP 19).
    pub fn web_seeds(&self) -> &[String] {
        &self.outer.web_seeds
    }

    /// Nodes of the DHT that may know peers (BEP 5): hosts and ports.
    pub fn nodes(&self) -> &[(String, u16)] {
        &self.outer.nodes
    }
}

impl fmt::Debug for Metainfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metainfo")
            .field("name", &self.name)
            .field("info_hash_v1", &self.hash_v1)
            .field("info_hash_v2", &self.hash_v2)
            .field("piece_length", &self.piece_length)
            .field("pieces", &self.pieces)
            .field("total_length", &self.total_length)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// The `info` dictionary before its parts are held against each other.
struct Info {
    name: String,
    piece_length: i64,
    private: bool,
    length: Option<u64>,
    attributes: Attributes,
    files: Option<Vec<Entry>>,
    hashes: Option<Bytes>,
    tree: Option<Vec<Entry>>,
}

impl Info {
    fn read(written: &Bytes) -> Result<Self, MetainfoError> {
        let bytes = &match sorted(written, MAX_INFO_LEN)? {
            Cow::Borrowed(_) => written.clone(),
            Cow::Owned(in_order) => in_order.into(),
        };
        let (mut name, mut name_utf8, mut piece_length) = (None, None, None);
        let (mut length, mut files, mut hashes, mut tree) = (None, None, None, None);
        let (mut private, mut version) = (0, 1);
        let mut attributes = Attributes::default();
        read(bytes, MAX_INFO_LEN, |value| {
            value.dict("info", |key, value| {
                match key {
                    b"attr" => attributes = Attributes::read(value)?,
                    b"file tree" => tree = Some(read_tree(value)?),
                    b"files" => files = Some(read_files(value)?),
                    b"length" => length = Some(value.unsigned("length")?),
                    b"meta version" => version = value.int("meta version")?,
                    // One in another encoding does not count if there is one in UTF-8.
                    b"name" => name = Some(value.text("name").map(str::to_owned)),
                    b"name.utf-8" => name_utf8 = Some(value.text("name.utf-8")?.to_owned()),
                    b"piece length" => piece_length = Some(value.int("piece length")?),
                    b"pieces" => hashes = Some(bytes.slice_ref(value.bytes("pieces")?)),
                    b"private" => private = value.int("private")?,
                    _ => {}
                }
                Ok::<_, MetainfoError>(())
            })
        })?;
        match version {
            // A file tree means nothing in a torrent of v1.
            1 => tree = None,
            2 => {
                _ = tree
                    .as_ref()
                    .ok_or(BencodeError::Missing { key: "file tree" })?
            }
            found => return Err(MetainfoError::Version { found }),
        }
        if hashes.is_none() && tree.is_none() {
            return Err(MetainfoError::NoHashes);
        }
        let missing = |key| BencodeError::Missing { key };
        let name = name_utf8.map(Ok).or(name).ok_or(missing("name"))??;
        path_of(std::slice::from_ref(&name))?;
        Ok(Self {
            name,
            piece_length: piece_length.ok_or(missing("piece length"))?,
            private: private != 0,
            length,
            attributes,
            files,
            hashes,
            tree,
        })
    }

    fn piece_length(&self) -> Result<u32, MetainfoError> {
        let found = self.piece_length;
        let length = u32::try_from(found).ok();
        let length = length.filter(|&length| (1..=MAX_PIECE_LEN).contains(&length));
        let fits = |length: &u32| {
            self.tree.is_none()
                || length.is_power_of_two() && u64::from(*length) >= TORRENT_LEAF_LEN
        };
        length
            .filter(fits)
            .ok_or(MetainfoError::PieceLength { found })
    }

    /// Where the files lie, and whether there is one only that is no folder.
    fn layout(self, piece_length: u32) -> Result<(Layout, bool), MetainfoError> {
        let Some(hashes) = &self.hashes else {
            let tree = self.tree.unwrap_or_default();
            let is_single = tree.len() == 1 && tree[0].path.as_str() == self.name;
            let layout = Layout::new(tree, Padding::Between(piece_length))?;
            return Ok((layout, is_single));
        };
        if hashes.len() % HASH_V1_LEN != 0 {
            let len = hashes.len();
            return Err(MetainfoError::HashesLength { len });
        }
        let (entries, is_single) = match (self.length, self.files) {
            (Some(length), None) => (
                vec![single_file(&self.name, length, self.attributes)?],
                true,
            ),
            (None, Some(files)) => (files, false),
            _ => return Err(MetainfoError::FileOrFiles),
        };
        let mut layout = Layout::new(entries, Padding::None)?;
        if let Some(tree) = self.tree {
            let tree = Layout::new(tree, Padding::Between(piece_length))?;
            unite(&mut layout, tree, piece_length)?;
        }
        Ok((layout, is_single))
    }
}

/// Checks that both descriptions of a hybrid are of the same files in the same places, and
/// takes the roots of v2 over. The order and the padding are those of v1.
fn unite(v1: &mut Layout, v2: Layout, piece_length: u32) -> Result<(), MetainfoError> {
    let differs = |what: String| Err(MetainfoError::HybridDiffers { what });
    let mut files = v2.files.into_iter().filter(|file| !file.is_padding());
    for file in v1.files.iter_mut().filter(|file| !file.is_padding()) {
        let Some(other) = files.next() else {
            return differs(format!("{} is in v1 only", file.path));
        };
        // A file without data lies anywhere between the others.
        let same_place = file.offset == other.offset || file.length == 0;
        let same = file.path == other.path
            && file.length == other.length
            && file.attributes == other.attributes
            && file.symlink == other.symlink;
        if !same || !same_place {
            return differs(format!("{} in v1, {} in v2", file.path, other.path));
        }
        file.pieces_root = other.pieces_root;
    }
    if let Some(file) = files.next() {
        return differs(format!("{} is in v2 only", file.path));
    }
    // There may be padding behind the last file, up to the end of its piece.
    match v1.pieces(piece_length)? == v2_pieces(v2.length, piece_length) {
        true => Ok(()),
        false => differs("the number of pieces".to_owned()),
    }
}

fn v2_pieces(length: u64, piece_length: u32) -> u32 {
    u32::try_from(length.div_ceil(piece_length.into())).unwrap_or(u32::MAX)
}

/// The hash of v2 has the length of a root.
const _: () = assert!(HASH_V2_LEN == size_of::<Hash>());
