//! BitTorrent itself, as its many clients speak it (feature `bittorrent`).
//!
//! A [`TorrentSession`] fetches and shares torrents beside the other contents of a peer. The
//! rest are the formats, in pure code: torrent files ([`metainfo`]), [`magnet`] links, what
//! is said to trackers over HTTP and UDP ([`tracker`]) and in the local network
//! ([`local_discovery`]), and what is said on a connection
//! between two peers ([`wire`]), which is translated for the swarm machine by the module
//! `link`. Each item names the BEP (BitTorrent Enhancement Proposal) that it is from.

pub mod bencode;
mod compact;
mod info_hash;
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, unused_imports, unreachable_pub)
)]
pub(crate) mod link;
pub mod local_discovery;
pub mod magnet;
pub mod metainfo;
mod percent;
mod text;
pub mod tracker;
pub mod wire;

#[cfg(feature = "bittorrent-dht")]
pub use crate::peer::DhtConfig;
pub use crate::peer::{
    FileChoice, MagnetDownload, TorrentError, TorrentFileProgress, TorrentFiles, TorrentOptions,
    TorrentSession, TorrentSessionConfig,
};
pub use info_hash::{InfoHashV1, InfoHashV2, ParseInfoHashError};
pub use magnet::{Magnet, MagnetError};
pub use metainfo::{Metainfo, MetainfoBuilder, MetainfoError, MetainfoFormat, TorrentFile};
