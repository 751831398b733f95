//! Hears what others in the local network announce (BEP 14).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::local_socket::LocalSocket;
use crate::peer::torrents::begun::Begun;
use crate::peer::torrents::links::accept_link;
use crate::peer::torrents::table::{Found, TorrentTable};
use crate::protocol::Addr;

/// The pause after receiving has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the torrents of announces until the session ends.
pub(in crate::peer::torrents) async fn hear(
    local: &LocalSocket,
    torrents: &TorrentTable,
    stop: &CancellationToken,
) {
    while let Some(heard) = stop.run_until_cancelled(local.heard()).await {
        match heard {
            Ok(Some((peer, hashes))) => {
                for found in hashes.iter().filter_map(|hash| torrents.find(hash)) {
                    if found.meeting().is_public() {
                        meet(local, found, peer).await;
                    }
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "the local network is not heard");
                stop.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }
}

/// A torrent has this peer. Who has all of it dials nobody, and is told of by the next
/// announce only, so that the peer is dialled here.
async fn meet(local: &LocalSocket, found: Found, peer: SocketAddr) {
    let torrent = match found {
        Found::Known(torrent) if torrent.meeting.is_complete() => torrent,
        found => return found.meeting().found(vec![peer]).await,
    };
    if torrent.meeting.peers.found([peer]).is_empty() {
        return;
    }
    let Some(dials) = local.dial() else {
        return;
    };
    let tasks = &torrent.meeting.session.shared.tasks;
    let span = tracing::info_span!(parent: &tasks.span, "session", remote = %peer);
    tasks.clone().spawn(span, async move {
        let meeting = &torrent.meeting;
        let addr = Addr::from(peer);
        let dial = Begun::dialled(meeting, torrent.wire_hashes(), &addr);
        let begun = tokio::select! {
            biased;
            () = meeting.not_public() => return,
            begun = dial => begun,
        };
        drop(dials);
        match begun {
            Ok(begun) => accept_link(torrent, begun).await,
            Err(error) => tracing::debug!(%error, "a neighbour is not reached"),
        }
    });
}
