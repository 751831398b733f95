//! What can be wrong with a torrent file.

use thiserror::Error;

use super::{MAX_FILES, MAX_PIECE_LEN, MAX_PIECES};
use crate::bittorrent::bencode::BencodeError;
use crate::content::{FolderIndexError, FolderPathError, MAX_CONTENT_LEN, MAX_PATH_DEPTH};

/// Why bytes are not a [`Metainfo`](super::Metainfo).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// The bytes are not bencode, or a value is missing or has the wrong type.
    #[error(transparent)]
    Bencode(#[from] BencodeError),
    /// It is of a later version of BitTorrent.
    #[error("the torrent has the unknown version {found}")]
    Version {
        /// Its `meta version`.
        found: i64,
    },
    /// It has neither the hashes of v1 nor those of v2.
    #[error("the torrent has neither pieces nor a file tree")]
    NoHashes,
    /// There is not a single byte of data.
    #[error("the torrent has no data")]
    NoData,
    /// The length of a piece is refused: it is 0, or longer than [`MAX_PIECE_LEN`]; or, in
    /// v2, no power of two, or shorter than a block.
    #[error("a piece cannot have {found} bytes (at most {MAX_PIECE_LEN}; in v2 a power of two)")]
    PieceLength {
        /// The length in bytes.
        found: i64,
    },
    /// The length of the hashes of all pieces is no multiple of that of one.
    #[error("{len} bytes are not a whole number of hashes")]
    HashesLength {
        /// How many bytes there are.
        len: usize,
    },
    /// There are more or fewer hashes than pieces.
    #[error("there are {found} hashes of {expected} pieces")]
    HashCount {
        /// How many pieces there are.
        expected: u64,
        /// How many hashes.
        found: u64,
    },
    /// There are more pieces than [`MAX_PIECES`].
    #[error("a torrent cannot have {found} pieces (at most {MAX_PIECES})")]
    TooManyPieces {
        /// How many there are.
        found: u64,
    },
    /// There are more files than [`MAX_FILES`].
    #[error("a torrent can have at most {MAX_FILES} files")]
    TooManyFiles,
    /// All files together are too long.
    #[error("a torrent can have at most {MAX_CONTENT_LEN} bytes")]
    TooLong,
    /// Both a single file and a list of files are there, or neither.
    #[error("a torrent has either a length or a list of files")]
    FileOrFiles,
    /// A name or a path is not safe as one on every system.
    #[error("{path:?}: {source}")]
    Path {
        /// The text.
        path: String,
        /// What is wrong with it.
        source: FolderPathError,
    },
    /// A path occurs twice, in another case too, or leads through a file; or a symbolic
    /// link leads out of the torrent.
    #[error(transparent)]
    Folder(#[from] FolderIndexError),
    /// Something in the file tree is both a file and a folder.
    #[error("{path:?} is both a file and a folder")]
    FileAndFolder {
        /// Its path.
        path: String,
    },
    /// A folder of the file tree has nothing in it.
    #[error("{path:?} is an empty folder")]
    EmptyFolder {
        /// Its path.
        path: String,
    },
    /// The file tree is deeper than [`MAX_PATH_DEPTH`].
    #[error("the file tree is deeper than {MAX_PATH_DEPTH} folders")]
    TooDeep,
    /// A file of v2 has data and no `pieces root`, or the other way round.
    #[error("{path:?} lacks its root of hashes, or has one without data")]
    PiecesRoot {
        /// The path of the file.
        path: String,
    },
    /// A symbolic link has data, or no target; or what is none has a target.
    #[error("{path:?} is not a symbolic link as it should be")]
    Symlink {
        /// Its path.
        path: String,
    },
    /// The file tree of v2 has padding, which only v1 has.
    #[error("{path:?} is padding in a file tree")]
    Padding {
        /// Its path.
        path: String,
    },
    /// The two descriptions in a hybrid torrent are of different files.
    #[error("the two descriptions in the torrent differ: {what}")]
    HybridDiffers {
        /// Where.
        what: String,
    },
    /// The hashes of the pieces of a file (BEP 52, `piece layers`) are missing.
    #[error("the hashes of the pieces of {path:?} are missing")]
    LayerMissing {
        /// The path of the file.
        path: String,
    },
    /// There are hashes of pieces that belong to no file.
    #[error("there are hashes of pieces that belong to no file")]
    LayerUnknown,
    /// The hashes of the pieces of a file do not have the root that the file has.
    #[error("the hashes of the pieces of {path:?} do not fit its root")]
    LayerWrong {
        /// The path of the file.
        path: String,
    },
}
