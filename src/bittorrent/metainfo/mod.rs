//! Torrent files: what is in a torrent, and the hashes of its pieces.
//!
//! [`Metainfo`] reads the three kinds: v1 (BEP 3), v2 (BEP 52), and hybrids of both. The
//! bytes of the `info` dictionary are kept exactly as they came, and the info hashes are of
//! those. What is accepted can be built nowhere but inside its folder, on every system,
//! exactly as the crate's own folders; its lengths and the numbers of its pieces and
//! hashes fit each other.
//!
//! A torrent is one sequence of bytes: its files one after the other, with padding between
//! them where each begins with a piece of its own (always in v2; in v1 by BEP 47).

mod builder;
mod error;
mod file;
mod layout;
mod outer;
mod reader;
mod tree;
mod v1;

pub use builder::{BuildError, MetainfoBuilder, MetainfoFormat, default_piece_length};
pub use error::MetainfoError;
pub use file::TorrentFile;
pub use reader::Metainfo;

use crate::content::{MAX_CHUNKS, MAX_FOLDER_ENTRIES};

/// The maximum length of a torrent file in bytes. The hashes of [`MAX_PIECES`] pieces in
/// both forms have 52 MiB.
pub const MAX_METAINFO_LEN: usize = 64 << 20;

/// The maximum length of an `info` dictionary in bytes. The hashes of [`MAX_PIECES`] pieces
/// have 20 MiB. libtorrent takes 30 MiB from a peer.
pub const MAX_INFO_LEN: usize = 32 << 20;

/// The maximum number of pieces: the same as that of chunks, which pieces become.
pub const MAX_PIECES: u32 = MAX_CHUNKS;

/// The maximum length of a piece in bytes: what libtorrent loads and qBittorrent makes. In
/// v1 a piece may be as short as one byte, as everywhere. A peer holds whole pieces in
/// memory, and takes shorter ones only.
pub const MAX_PIECE_LEN: u32 = 256 << 20;

/// The maximum number of files and symbolic links. More could not be a folder of this
/// crate either.
pub const MAX_FILES: usize = MAX_FOLDER_ENTRIES;
