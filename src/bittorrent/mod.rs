//! BitTorrent itself, as its many clients speak it (feature `bittorrent`).
//!
//! So far these are its data formats, in pure code: torrent files, magnet links, and what
//! is said to trackers over HTTP and UDP. Each item names the BEP (BitTorrent Enhancement
//! Proposal) that it is from.

pub mod bencode;
mod info_hash;
pub mod magnet;
pub mod metainfo;
mod percent;
pub mod tracker;

pub use info_hash::{InfoHashV1, InfoHashV2, ParseInfoHashError};
pub use magnet::{Magnet, MagnetError};
pub use metainfo::{Metainfo, MetainfoBuilder, MetainfoError, MetainfoFormat, TorrentFile};
