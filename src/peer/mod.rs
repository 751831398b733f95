//! The peer: shares, downloads, and serves while it downloads.
//!
//! [`Peer`] is the handle that programs hold. Behind it, each content has a
//! task that drives the pure machine in [`swarm`], each link has a task that
//! carries its messages, and one task accepts links. They decide nothing: what
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
//! | `download` | `key`: what was asked for | `peer` |
//! | `content` | `id` | `peer` |
//! | `link` | `id`, `peer`: the other one's id, `remote`: its address | `content` |
//! | `announce` | `state`: what the trackers are told | `content` |
//! | `handshake` | `remote`: the address of an accepted connection | `peer` |

mod accept;
mod admission;
mod config;
mod download;
mod download_task;
mod driver;
mod drivers;
mod handle;
mod handshake;
mod hashing;
mod hello;
mod inbox;
mod key;
mod link;
mod listing;
mod serve;
mod share;
mod shared;
mod status;
pub mod swarm;

pub use config::PeerConfig;
pub use download::{Download, DownloadEvent, DownloadEvents, DownloadOptions};
pub use handle::{Peer, PeerBuilder};
pub use key::DownloadKey;
pub use share::ShareSource;
