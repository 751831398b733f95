//! Torrents of a peer: contents that BitTorrent clients have.
//!
//! A [`TorrentSession`] listens for BitTorrent connections beside a peer. Each torrent is a
//! content of that peer, driven by the same machine as all others; only its links
//! are [connections](connection) of another protocol, and its owners are found by
//! [announcing](announcer) to other trackers.
//!
//! ```text
//!  TorrentSession ── accepts, dials ──▶ handshake ──▶ connection ──▶ the driver of a content
//!        │                                              ▲
//!        └── Torrent: its owners, its announcer ────────┘
//! ```

mod adding;
mod also;
mod also_folder;
mod announcer;
mod begun;
mod beside;
mod choosing;
mod connection;
mod discovery;
mod error;
mod file_choice;
mod file_list;
mod files;
mod handshake;
mod identity;
mod known_peers;
mod layers;
mod links;
mod magnet_download;
mod options;
mod outgoing;
mod rendezvous;
mod seeker;
mod session;
mod shared;
mod sought;
mod sought_link;
mod sought_talk;
mod table;
mod torrent;
mod tracker;
mod wishes;

pub use error::TorrentError;
pub use file_choice::FileChoice;
pub use files::{TorrentFileProgress, TorrentFiles};
pub use magnet_download::MagnetDownload;
#[cfg(feature = "bittorrent-dht")]
pub use options::DhtConfig;
pub use options::{TorrentOptions, TorrentSessionConfig};
pub use session::TorrentSession;
