//! Embed BitTorrent-style distribution in any program: a [`Tracker`], a
//! [`Peer`], or both, over any [`Transport`], into any [`Storage`].
//!
//! A **content** is an immutable sequence of bytes. Its name is what people
//! type. Its id is the BLAKE3 hash of the bytes. It is cut into **chunks**, each
//! of which is verified by itself. Peers that have chunks of it are its
//! **owners**. A tracker knows the owners and how fast each of them uploads; it
//! never sees the bytes.
//!
//! # A whole program
//! Start a tracker, or use one that runs. Start a peer with its address; if the
//! peer listens, others can find it. Then share and download:
//!
//! ```
//! use bt_lite::{
//!     DownloadEvent, DownloadKey, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker,
//! };
//! use futures::StreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Over TCP: TcpTransport::new(), and addresses such as "127.0.0.1:7000".
//! let network = MemoryNetwork::new(1);
//! let tracker = Tracker::builder(network.endpoint("tracker"))
//!     .bind("memory:tracker")
//!     .await?;
//!
//! let owner = Peer::builder(network.endpoint("owner"), MemoryStorage::new())
//!     .tracker(tracker.local_addr())
//!     .listen("memory:owner")
//!     .start()
//!     .await?;
//! // A file: owner.share("ubuntu.iso").
//! let source = ShareSource::bytes("numbers", vec![7; 300_000]);
//! let shared = owner.share(source).await?;
//!
//! // Into files: FileStorage::open("downloads").
//! let storage = MemoryStorage::new();
//! let peer = Peer::builder(network.endpoint("peer"), storage.clone())
//!     .tracker(tracker.local_addr())
//!     .start()
//!     .await?;
//! let download = peer.download(DownloadKey::name("numbers")); // or shared.id
//! let mut events = download.events();
//! while let Some(event) = events.next().await {
//!     if let DownloadEvent::Progress(progress) = event {
//!         println!("{} bytes are verified", progress.verified_bytes);
//!     }
//! }
//! let content = download.await?;
//! assert_eq!(content, shared);
//! assert_eq!(storage.bytes(&content.name).unwrap(), vec![7; 300_000]);
//!
//! peer.shutdown().await;
//! owner.shutdown().await;
//! tracker.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to find what
//! | | |
//! |---|---|
//! | [`Peer`], [`Download`], [`ShareSource`] | what most programs need |
//! | [`RateLimits`], [`ContentLimits`] | how fast a peer may send and receive |
//! | [`Peer::share_folder`], [`Peer::download_folder`] | whole folders, or parts of them |
//! | [`Tracker`], [`TrackerClient`] | a tracker, and how to ask one |
//! | [`access`] | who may do what, asked at peers and trackers |
//! | [`transport`] | the seam to the network: [`TcpTransport`], [`MemoryNetwork`], [`framed`](transport::framed) for any byte stream, TLS |
//! | [`storage`] | the seam to where contents live: [`FileStorage`], [`MemoryStorage`] |
//! | [`content`] | ids, names, chunks, manifests |
//! | [`protocol`] | messages, their encoding, and every [limit](protocol::limits) |
//! | [`guide`] | how to do the usual things, how to write a transport or a storage, what is promised |
//! | [`peer::swarm`], [`tracker::ShardedRegistry`] | the pure machines behind the two, for simulations and for your own drivers |
//!
//! `README.md` is the front page, `ARCHITECTURE.md` explains how the crate is
//! built, and `PROTOCOL.md` specifies every byte on the wire.
//!
//! # Contracts
//! - A finished download has the content id that was asked for, or the id that
//!   the tracker has for the name.
//! - A chunk is verified before it is written, offered to others, or counted. A
//!   content is visible under its name only when it is complete and durable.
//! - Handles are cheap to clone, or are awaited by reference. Dropping the last
//!   handle ends what it stands for. Async methods document what happens when
//!   their future is dropped.
//! - Every queue, map, frame and wait has a bound: a named constant or a field
//!   of [`PeerConfig`] or [`TrackerConfig`].
//! - The pure part ([`content`], [`protocol`], `tracker::registry`,
//!   [`peer::swarm`]) uses no I/O, clock, thread or ambient randomness: the same
//!   inputs give the same outputs.
//! - Errors are plain values. That of each call has an [`Advice`] for programs, and its
//!   causes in its chain of sources, down to the `io::Error`.
//! - No input of users, other peers, trackers or files leads to a panic.
//!
//! Everything runs on tokio: start peers and trackers inside a runtime with time
//! and, for TCP, I/O enabled. Both log with [`tracing`]; see
//! [`peer`](peer#logs) for the spans.
//!
//! # Features
//! On by default:
//!
//! - `tcp`: [`TcpTransport`].
//! - `file-storage`: [`FileStorage`], and what only files have: folders
//!   ([`Peer::share_folder`], [`Peer::download_folder`]), and [sharing](ShareSource::file)
//!   a file by its path.
//!
//! Without them (`default-features = false`) there are [`MemoryTransport`],
//! [`MemoryStorage`], the pure machines, and what you write for the two seams; the crate
//! then opens no file and no socket, and is not built with what does.
//!
//! Off by default:
//!
//! - `testing`: the conformance suites for transports and storages, and whole
//!   swarms in virtual time, in `bt_lite::testing`.
//! - `serde`: saving and loading of ids, names and addresses as text, of a tracker's
//!   snapshot, and of configurations: what a file leaves out has its default, an unknown
//!   field is an error, durations are text (`"1m 30s"`), and bytes are numbers or text
//!   (`"64 MiB"`). Events, figures and errors are saved as well, for logs and other
//!   programs; see [`PeerEvent`], [`DownloadEvent`] and [`ErrorKind`].
//! - `redis`: several trackers that share what they remember, in Redis or Valkey
//!   (`TrackerBuilder::redis`).
//! - `metrics`: counters, gauges and histograms of peers and trackers, for whatever recorder
//!   the program installs; see `bt_lite::metrics`.
//! - `tls`: private swarms, by TLS 1.3 over any transport of byte streams
//!   (`bt_lite::transport::auth`), with the cryptography of ring. `tls-aws-lc-rs` has that
//!   of aws-lc-rs in its place.
//! - `quic`: private swarms over QUIC (`bt_lite::transport::QuicTransport`), with a stream for
//!   each content. `quic-aws-lc-rs` has the other cryptography.
//! - `bittorrent`: torrents, fetched from and shared with BitTorrent clients beside the other
//!   contents of a peer; a tracker that serves those clients (`Tracker::serve_http`,
//!   `serve_udp`); and the formats of BitTorrent: see `bt_lite::bittorrent`.
//! - `bittorrent-tls`: trackers over HTTPS as well, with `bittorrent` and `tls`.
//!   `bittorrent-tls-aws-lc-rs` has the other cryptography.

// A build without one of these lacks what some links lead to, and leaves unused what
// only the missing part uses. Both are checked in the whole build.
#![cfg_attr(
    not(all(feature = "tcp", feature = "file-storage")),
    allow(dead_code, unreachable_pub, rustdoc::broken_intra_doc_links)
)]

#[macro_use]
mod setters;

#[macro_use]
mod advice;
pub mod access;
#[cfg(feature = "bittorrent")]
pub mod bittorrent;
mod buffers;
pub mod content;
mod descriptors;
mod error;
mod error_kind;
#[cfg(feature = "serde")]
mod forms;
#[cfg(feature = "_fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod io_error;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
mod metrics;
pub mod peer;
pub mod protocol;
#[cfg(feature = "serde")]
mod serde;
pub mod storage;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tracker;
pub mod transport;

pub use advice::Advice;
pub use content::{
    Bitfield, ChunkIndex, Content, ContentId, ContentName, FolderEntry, FolderIndex, FolderItem,
    FolderPath, Geometry, Manifest, NameError, TooLong, split_evenly,
};
pub use error::{ConfigError, DownloadError, ReaderError, RemoveError, ShareError, StartError};
pub use error_kind::ErrorKind;
pub use io_error::IoError;
pub use peer::swarm::{Progress, StallReason, Strategy};
pub use peer::{
    ContentKind, ContentLimits, ContentReader, ContentState, ContentStream, Download,
    DownloadEvent, DownloadEvents, DownloadKey, DownloadOptions, FolderProgress, IfTaken,
    ListedContent, PauseOptions, Peer, PeerBuilder, PeerConfig, PeerEvent, PeerEvents, Priority,
    RateLimits, ReaderOptions, Removal, ShareSource, StreamOptions,
};
#[cfg(feature = "file-storage")]
pub use peer::{
    Folder, FolderDownload, FolderError, FolderEvent, FolderEvents, FolderFile, FolderOptions,
};
pub use protocol::{Addr, AddrError, ContentKey, Zone, ZoneError};
#[cfg(feature = "file-storage")]
pub use storage::FileStorage;
pub use storage::{Blob, MemoryStorage, Storage, StorageError};
pub use tracker::{BindError, Tracker, TrackerBuilder, TrackerClient, TrackerConfig, TrackerError};
#[cfg(feature = "tcp")]
pub use transport::TcpTransport;
pub use transport::{MemoryNetwork, MemoryTransport, Transport, TransportError};

/// Compiles the examples of the front page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
