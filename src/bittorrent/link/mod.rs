//! One BitTorrent connection, translated for the swarm machine.
//!
//! To the machine, a connection with a client of another maker is a link like any other:
//! it hears and says [`PeerMessage`](crate::protocol::PeerMessage)s. [`BitTorrentLink`]
//! makes these of the messages on the wire, and the other way round. It is pure: no bytes
//! are moved here, and the time is told to it.
//!
//! Before a torrent is known, of which there is only a magnet link, a connection is a
//! [`MagnetLink`], and [`MetadataFetch`] asks over several of them; for the hashes of v2,
//! which are no part of the info dictionary, [`LayerFetch`] does.

mod asks;
mod error;
mod event;
mod facts;
mod hash_service;
mod hash_trees;
mod layer_fetch;
mod magnet;
mod metadata_fetch;
mod metadata_service;
mod padding;
mod pulse;
mod remote;
mod serves;
mod translator;

pub use error::{LinkEnd, Violation};
pub use event::LinkEvent;
pub use facts::LinkFacts;
pub use hash_trees::HashTrees;
pub use layer_fetch::{LayerFetch, LayerOutput};
pub use magnet::MagnetLink;
pub use metadata_fetch::{FetchOutput, MetadataFetch, MetadataHash, SourceId};
pub use padding::Padding;
pub use serves::{MAX_SERVED_LEN, OWN_REQQ};
pub use translator::{BitTorrentLink, LinkFigures, Outgoing};
