//! Serves BitTorrent clients from the same registry: over HTTP ([`http`]) and over UDP
//! ([`udp`]).
//!
//! What is asked is read by the pure part ([`crate::bittorrent::tracker`]), and answered by
//! the registry, after the policy and the pace of the host have been asked ([`answers`]).
//! Nothing of a client is remembered here but how often its host has asked lately
//! ([`pace`]).

mod answers;
mod forwarded;
mod http;
mod pace;
mod udp;

use std::sync::Arc;

use tokio::net::UdpSocket;
use tracing::{info, warn};

use super::config::BindError;
use super::service::Service;
use crate::bittorrent::tracker::ConnectionIds;
use crate::protocol::Addr;
use crate::transport::{StreamListener, StreamTransport, TcpTransport, TransportError};

pub(super) use pace::Pace;

/// Listens for clients over HTTP, and serves them until the tracker stops.
pub(super) async fn serve_http(service: &Arc<Service>, addr: Addr) -> Result<Addr, BindError> {
    let bound = TcpTransport::new().listen_for_streams(&addr).await;
    let listener = match unless_stopped(service, bound) {
        Ok(listener) => listener,
        Err(source) => return Err(BindError::Listen { addr, source }),
    };
    let local = listener.local_addr().clone();
    service
        .connections
        .spawn(http::accept(service.clone(), listener));
    info!(addr = %local, "BitTorrent clients are served over HTTP");
    warn_of_strangers(service, &local);
    Ok(local)
}

/// Listens for clients over UDP, and serves them until the tracker stops. With a key that
/// nobody knows.
pub(super) async fn serve_udp(
    service: &Arc<Service>,
    addr: Addr,
    key: [u8; 32],
) -> Result<Addr, BindError> {
    let bound = bind_udp(&addr).await;
    let bound = bound.and_then(|socket| Ok((Addr::from(socket.local_addr()?), socket)));
    let (local, socket) = match unless_stopped(service, bound) {
        Ok(bound) => bound,
        Err(source) => return Err(BindError::Listen { addr, source }),
    };
    let ids = ConnectionIds::new(key);
    service
        .tasks
        .spawn(udp::serve(service.clone(), socket, local.clone(), ids));
    info!(addr = %local, "BitTorrent clients are served over UDP");
    warn_of_strangers(service, &local);
    Ok(local)
}

/// The transport of a private tracker keeps strangers out, and this lets them in.
fn warn_of_strangers(service: &Service, addr: &Addr) {
    if service.authenticates && service.access.is_none() {
        warn!(
            %addr,
            "strangers are served in the clear by a private tracker without an access policy: \
             who knows the hash of a torrent is told which members have it"
        );
    }
}

/// A tracker that stops serves nobody any more.
fn unless_stopped<T>(
    service: &Service,
    bound: Result<T, TransportError>,
) -> Result<T, TransportError> {
    match service.draining.is_cancelled() {
        true => Err(TransportError::Closed),
        false => bound,
    }
}

/// Binds the first address of the host that can be bound.
async fn bind_udp(addr: &Addr) -> Result<UdpSocket, TransportError> {
    let targets = TcpTransport::new().resolve_addr(addr).await?;
    let mut failed = TransportError::Address {
        addr: addr.clone(),
        reason: "it is no IP address and port".into(),
    };
    for target in targets.iter().filter_map(Addr::socket_addr) {
        match UdpSocket::bind(target).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}
