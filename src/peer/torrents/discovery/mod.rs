//! How peers of a torrent are found without a tracker: by the distributed hash table (BEP 5),
//! and in the local network (BEP 14). Neither knows of private torrents (BEP 27).
//!
//! What a session has ([`dht_node`], [`local_socket`]) knows no torrents. The tasks of each
//! torrent look and announce; [`neighbours`] hears for all of them.

#[cfg(feature = "bittorrent-dht")]
mod dht;
#[cfg(feature = "bittorrent-dht")]
pub(super) mod dht_node;
mod local;
pub(super) mod local_socket;
pub(super) mod neighbours;
mod turns;

use std::sync::Arc;

use super::rendezvous::Rendezvous;

/// Looks for peers from now on, in the ways that the session has, until the torrent stops or
/// turns out to be private.
pub(super) fn discover(torrent: &Arc<Rendezvous>) {
    let session = &torrent.session;
    let tasks = &session.shared.tasks;
    let span = tracing::info_span!(parent: &tasks.span, "torrent", hash = %torrent.info_hash);
    #[cfg(feature = "bittorrent-dht")]
    if session.dht.is_some() {
        tasks.spawn(span.clone(), dht::look_up(Arc::clone(torrent)));
    }
    if session.local.is_some() {
        tasks.spawn(span, local::announce(Arc::clone(torrent)));
    }
}
