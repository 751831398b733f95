//! Embed BitTorrent-style distribution in any program: a [`Tracker`], a
//! [`Peer`], or both, over any [`Transport`], into any [`Storage`].
//!
//! A **content** is an immutable sequence of bytes with a name (what people
//! type) and an id (what it is): the BLAKE3 hash of the bytes. It is cut into
//! **chunks**, each of which is verified by itself. Peers that have chunks of
//! it are its **owners**; a tracker knows who they are and how fast each
//! uploads, and never sees content.
//!
//! # The journey of a program
//! Start a tracker, or know one. Start a peer on it: with an address to listen
//! at, others can find it. Share, and download:
//!
//! ```
//! use bt_lite::{DownloadEvent, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
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
//! let source = ShareSource::bytes("numbers".parse()?, vec![7; 300_000]);
//! let shared = owner.share(source).await?;
//!
//! // Into files: FileStorage::open("downloads").
//! let storage = MemoryStorage::new();
//! let peer = Peer::builder(network.endpoint("peer"), storage.clone())
//!     .tracker(tracker.local_addr())
//!     .start()
//!     .await?;
//! let download = peer.download("numbers"); // or shared.id
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
//! | [`Tracker`], [`TrackerClient`] | a tracker, and how to ask one |
//! | [`transport`] | the seam to the network: [`TcpTransport`], [`MemoryNetwork`], [`framed`](transport::framed) for any byte stream |
//! | [`storage`] | the seam to where contents live: [`FileStorage`], [`MemoryStorage`] |
//! | [`content`] | ids, names, chunks, manifests |
//! | [`protocol`] | messages, their encoding, and every [limit](protocol::limits) |
//! | [`peer::swarm`], [`tracker::registry`] | the pure machines behind the two, for simulations and for drivers of your own |
//!
//! The front page is `README.md`, the walk through the house
//! `ARCHITECTURE.md`, and every byte on the wire `PROTOCOL.md`.
//!
//! # Contracts
//! - What a download ends with has the content id that it was asked by, or that
//!   the tracker gave for its name.
//! - A chunk is verified before it is written, offered to others, or counted;
//!   nothing is visible under its name before it is whole and durable.
//! - Handles are cheap clones or are awaited by reference; dropping the last
//!   one ends what it stands for. Each async method says what becomes of it
//!   when its future is dropped.
//! - Every queue, map, frame and wait has a bound: a named constant or a field
//!   of [`PeerConfig`] or [`TrackerConfig`].
//! - The pure part ([`content`], [`protocol`], [`tracker::registry`],
//!   [`peer::swarm`]) knows no I/O, clock, thread or ambient randomness: the
//!   same inputs give the same outputs.
//! - A panic is a bug of this crate, never the answer to input.
//!
//! All of it runs on tokio: start peers and trackers inside a runtime with time
//! and, for TCP, I/O enabled.
//!
//! # Features
//! `testing` (off by default): the conformance suites for transports and
//! storages, and whole swarms in virtual time, in `bt_lite::testing`.

pub mod content;
mod error;
pub mod peer;
pub mod protocol;
#[cfg(feature = "serde")]
mod serde;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tracker;
pub mod transport;

pub use content::{
    Bitfield, ChunkIndex, Content, ContentId, ContentName, Geometry, Manifest, NameError, TooLong,
    split_evenly,
};
pub use error::{ConfigError, DownloadError, ShareError, StartError};
pub use peer::swarm::{Progress, Strategy};
pub use peer::{
    Download, DownloadEvent, DownloadEvents, DownloadKey, DownloadOptions, Peer, PeerBuilder,
    PeerConfig, ShareSource,
};
pub use protocol::{Addr, AddrError, ContentKey};
pub use storage::{Blob, FileStorage, MemoryStorage, Storage, StorageError};
pub use tracker::{BindError, Tracker, TrackerBuilder, TrackerClient, TrackerConfig, TrackerError};
pub use transport::{MemoryNetwork, MemoryTransport, TcpTransport, Transport, TransportError};

/// Compiles what the front page shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
