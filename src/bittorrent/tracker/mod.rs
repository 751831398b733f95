//! What is said to trackers and by them: pure encoding, both ways.
//!
//! [`http`] is the protocol over HTTP (BEP 3, 7, 23, 24, 31, 48), and [`udp`] that over UDP
//! (BEP 15, 41). Nothing here opens a socket or knows a clock.

mod connection_id;
pub mod http;
pub mod udp;

pub use connection_id::{CONNECTION_ID_LIFE, ConnectionIds};

/// What an announce is for. Most are for none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnnounceEvent {
    /// The first one.
    Started,
    /// The last one: the peer leaves.
    Stopped,
    /// The peer has just got all of it.
    Completed,
    /// The peer fetches some of it and wants no more (BEP 21). Over HTTP only.
    Paused,
}

/// The figures that a tracker has of one torrent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ScrapeFigures {
    /// How many peers have all of it.
    pub complete: u32,
    /// How many times it was fetched as a whole.
    pub downloaded: u32,
    /// How many peers do not have all of it.
    pub incomplete: u32,
}
