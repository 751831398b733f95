//! The peer: shares, downloads, and serves while it downloads.
//!
//! [`Peer`] is the handle that programs hold. Behind it, each content has a
//! task that drives the pure machine in [`swarm`] while somebody asks for it, each
//! connection has a task that carries the messages of all contents, and one task
//! accepts connections. They decide nothing: what
//! is requested from which peer, what is served, and which peers are trusted is
//! decided in [`swarm`].
//!
//! # Logs
//! What a peer logs with `tracing` lies in spans, so that a log can be filtered
//! by one of them:
//!
//! | span | fields | inside |
//! |---|---|---|
//! | `peer` | `id` | |
//! | `download` | `key`: what was asked for; `folder`, if it is one | `peer` |
//! | `content` | `id` | `peer` |
//! | `announce` | `state`: what the trackers are told | `content` |
//! | `chunk` | `chunk`: its index; at the level `trace` | `content` |
//! | `link` | `id`, `peer`: the other one's id, `remote`: its address | `content` |
//! | `session` | `remote`: the address of the other side | `peer` |

mod config;
mod contents;
mod downloads;
mod events;
mod folders;
#[cfg(feature = "_fuzzing")]
pub(crate) mod fuzzing;
mod handles;
mod limits;
mod session;
mod shared;
mod stats;
pub mod swarm;
mod tasks;
#[cfg(feature = "bittorrent")]
mod torrents;
mod traffic;

pub use config::PeerConfig;
pub use contents::losses::LostContents;
pub use downloads::pause::PauseOptions;
pub use downloads::priority::Priority;
pub use events::download_event::DownloadEvent;
pub use events::event::PeerEvent;
#[cfg(feature = "file-storage")]
pub use folders::error::FolderError;
pub use folders::status::FolderProgress;
#[cfg(feature = "file-storage")]
pub use folders::status::{Folder, FolderFile};
pub use handles::download::{Download, DownloadEvents, DownloadOptions, IfTaken};
#[cfg(feature = "file-storage")]
pub use handles::folder::{FolderDownload, FolderEvent, FolderEvents, FolderOptions};
pub use handles::key::DownloadKey;
pub use handles::list::{ContentKind, ContentState, ListedContent};
pub use handles::peer::{Peer, PeerBuilder};
pub use handles::reader::{ContentReader, ReaderOptions};
pub use handles::removal::{FileFate, Removal, Removed, RemovedFile};
pub use handles::share::ShareSource;
pub use handles::stream::{ContentStream, StreamOptions};
pub use handles::verify::ExpectedContent;
pub use handles::watch::PeerEvents;
pub use limits::{ContentLimits, RateLimits};
pub use stats::{ContentStats, PeerStats};
#[cfg(feature = "bittorrent-dht")]
pub use torrents::DhtConfig;
#[cfg(feature = "bittorrent")]
pub use torrents::{
    FileChoice, MagnetDownload, TorrentError, TorrentFileProgress, TorrentFiles, TorrentOptions,
    TorrentSession, TorrentSessionConfig,
};
