//! What is said on a connection before its torrent is known, until it becomes a link of that.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::begun::Begun;
use super::links::accept_link;
use super::sought::{Dialling, Seat, Sought};
use super::sought_link::SoughtLink;
use super::torrent::Torrent;
use crate::bittorrent::link::{LinkEvent, MagnetLink};
use crate::bittorrent::wire::{Reserved, WireLimits, WireReader};
use crate::protocol::Addr;
use crate::protocol::limits::FRAME_TIMEOUT;

/// How much is received with one call at least, in bytes: a piece of an info dictionary.
const READ_LEN: usize = 20 << 10;

/// How long a connection that was dialled waits for the driver to take it. A driver dials as
/// soon as it begins, and some seconds later if it has enough links.
const READY: Duration = Duration::from_secs(60);

/// Dials those that are to be dialled now.
pub(super) fn dial(sought: &Arc<Sought>) {
    let tasks = &sought.meeting.session.shared.tasks;
    for (dialling, open) in sought.to_dial() {
        let addr = dialling.addr();
        let span = tracing::info_span!(parent: &tasks.span, "session", remote = %addr);
        let dialled = async move {
            if let Some(Some((torrent, begun, seat))) =
                open.run_until_cancelled(dialled(&dialling)).await
            {
                drop(dialling);
                wait_for_taker(&torrent, begun, seat).await;
            }
        };
        tasks.spawn(span, dialled);
    }
}

async fn dialled(dialling: &Dialling) -> Option<(Arc<Torrent>, Begun, Seat)> {
    let sought = dialling.sought();
    let addr = Addr::from(dialling.addr());
    let begun = Begun::dialled(&sought.meeting, sought.wire_hashes(), &addr).await;
    let begun = begun
        .inspect_err(|error| tracing::debug!(%error, "dial failed"))
        .ok()?;
    talk(sought, begun, true).await
}

/// Takes a connection that others have opened.
pub(super) async fn accept_sought(sought: Arc<Sought>, begun: Begun) {
    if let Some((torrent, begun, seat)) = talk(&sought, begun, false).await {
        drop((seat, sought));
        accept_link(torrent, begun).await;
    }
}

/// Holds a connection for the driver, which dials its address.
async fn wait_for_taker(torrent: &Arc<Torrent>, begun: Begun, mut seat: Seat) {
    let Some(asked) = seat.asked.take() else {
        return;
    };
    drop(seat);
    let taker = tokio::select! {
        biased;
        taker = asked => taker,
        () = begun.place.cut() => return,
        () = torrent.meeting.stopped() => return,
        () = sleep(READY) => return,
    };
    if let Ok(taker) = taker {
        // Fails if the driver has ended.
        let _ = taker.send(begun);
    }
}

/// Exchanges messages until the torrent is known. Returns nothing if the connection ends.
async fn talk(
    sought: &Arc<Sought>,
    mut begun: Begun,
    dialled: bool,
) -> Option<(Arc<Torrent>, Begun, Seat)> {
    let about = begun.about(&sought.meeting);
    let agreed = begun.shaken.agreed;
    let now = Instant::now().into_std();
    let link = Arc::new(SoughtLink::new(MagnetLink::new(now, agreed, about)));
    let addr = dialled.then_some(begun.remote);
    let seat = sought.enter(&link, begun.shaken.is_v2, addr)?;
    let end = seat.end.clone();
    let torrent = {
        let Begun {
            shaken,
            place,
            connected,
            remote,
            ..
        } = &mut begun;
        let mut known = sought.torrent();
        let exchange = async {
            let wire = WireReader::new(WireLimits { chunks: None });
            let mut out = BytesMut::new();
            loop {
                loop {
                    while let Some(event) = link.event() {
                        match event {
                            LinkEvent::End(end) => {
                                tracing::debug!(%end, "connection ended");
                                return None;
                            }
                            LinkEvent::Peers(peers) => {
                                let found = peers.added.into_iter().map(|peer| peer.addr);
                                sought.meeting.found(found.collect()).await;
                            }
                            LinkEvent::About(about) => {
                                if let Some(port) = about.port {
                                    connected.listens_at((remote.ip(), port).into());
                                }
                                seat.heard(LinkEvent::About(about));
                            }
                            other => seat.heard(other),
                        }
                    }
                    match wire.next(&mut shaken.input).ok()? {
                        Some(message) => link.handle_message(message),
                        None => break,
                    }
                }
                link.outgoing(&mut out);
                if !out.is_empty() {
                    let sent = timeout(FRAME_TIMEOUT, shaken.io.write_all(&out)).await;
                    sent.ok()?.ok()?;
                    out.clear();
                    continue;
                }
                if let Some(torrent) = &*known.borrow_and_update() {
                    return Some(Arc::clone(torrent));
                }
                let due = link.poll_timeout();
                shaken.input.reserve(READ_LEN);
                tokio::select! {
                    biased;
                    changed = known.changed() => changed.ok()?,
                    () = link.work() => {}
                    read = shaken.io.read_buf(&mut shaken.input) => {
                        read.ok().filter(|read| *read > 0)?;
                    }
                    () = until(due) => link.handle_timeout(),
                }
            }
        };
        tokio::select! {
            biased;
            () = end.cancelled() => None,
            () = place.cut() => None,
            torrent = exchange => torrent,
        }
    }?;
    begun.heard = link.take_heard()?;
    begun.said_none = agreed.has(Reserved::FAST);
    Some((torrent, begun, seat))
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
