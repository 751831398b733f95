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

mod announcer;
mod connection;
mod error;
mod handshake;
mod known_peers;
mod links;
mod options;
mod outgoing;
mod session;
mod shared;
mod torrent;
mod tracker;
mod wishes;

pub use error::TorrentError;
pub use options::{TorrentOptions, TorrentSessionConfig};
pub use session::TorrentSession;
