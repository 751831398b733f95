//! Embed BitTorrent-style distribution in any program.

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
    Download, DownloadEvent, DownloadEvents, DownloadOptions, Peer, PeerBuilder, PeerConfig,
    ShareSource,
};
pub use protocol::{Addr, AddrError, ContentKey};
pub use storage::{Blob, FileStorage, MemoryStorage, Storage, StorageError};
pub use tracker::{BindError, Tracker, TrackerBuilder, TrackerClient, TrackerConfig, TrackerError};
pub use transport::{MemoryNetwork, MemoryTransport, TcpTransport, Transport, TransportError};
