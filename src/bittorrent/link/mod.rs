//! One BitTorrent connection, translated for the swarm machine.
//!
//! To the machine, a connection with a client of another maker is a link like any other:
//! it hears and says [`PeerMessage`](crate::protocol::PeerMessage)s. [`BitTorrentLink`]
//! makes these of the messages on the wire, and the other way round. It is pure: no bytes
//! are moved here, and the time is told to it.

mod asks;
mod config;
mod error;
mod metadata_fetch;
mod metadata_service;
mod padding;
mod remote;
mod serves;
mod translator;

pub use config::LinkConfig;
pub use error::{LinkEnd, Violation};
pub use metadata_fetch::{FetchOutput, MetadataFetch, MetadataHash, SourceId};
pub use padding::Padding;
pub use serves::{MAX_SERVED_LEN, OWN_REQQ};
pub use translator::{BitTorrentLink, LinkEvent, LinkFigures, Outgoing};
