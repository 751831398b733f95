//! BitTorrent clients over UDP (BEP 15).
//!
//! Whoever has not proven its address, by a connection id that was sent there, is answered
//! with no more bytes than it has sent. So nobody makes this tracker send much to a third
//! party. Nothing is remembered until an announce with such an id.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::net::UdpSocket;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::super::service::{ACCEPT_PAUSES, Service};
use super::answers::Source;
use crate::bittorrent::tracker::udp::{UdpRequest, UdpResponse};
use crate::bittorrent::tracker::{ConnectionIds, ScrapeFigures};
use crate::protocol::{Addr, HostKey, Refusal};
use crate::tracker::registry::{TorrentAnnounce, TorrentAnswer};

/// How many packets are read before other tasks have their turn.
const BATCH: usize = 64;

/// How many requests may wait for a policy or a shared store, and how many of one host. Further ones are not
/// answered, and come again: over UDP a client repeats what is not answered.
const MAX_WAITING: usize = 256;
const MAX_WAITING_OF_HOST: u32 = 16;

/// The most bytes that are read of a packet: a scrape of as many torrents as can be asked
/// about, or an announce with its options.
const MAX_REQUEST_LEN: usize = 2048;

/// The length of what every request begins with.
const HEAD_LEN: usize = 16;

/// The length of an error without its text.
const ERROR_HEAD_LEN: usize = 8;

/// An answer that waits for a policy or a store, and whom it is for.
type Answer<'a> = BoxFuture<'a, (SocketAddr, HostKey, Option<UdpResponse>)>;

/// What waits for a policy or a store.
#[derive(Default)]
struct Waiting<'a> {
    answers: FuturesUnordered<Answer<'a>>,
    /// How many there are for each host, where there are any.
    hosts: HashMap<HostKey, u32>,
}

/// Serves one socket.
struct Server {
    service: Arc<Service>,
    socket: UdpSocket,
    ids: ConnectionIds,
    /// Where requests reach it, if it listens at one address.
    local: Option<Addr>,
}

/// What becomes of a packet.
enum Step {
    /// It is answered with these bytes.
    Answer(Vec<u8>),
    /// Its address is proven, and it is to be answered.
    Ask(Source, UdpRequest),
    Ignore,
}

/// Answers packets until the tracker stops.
pub(super) async fn serve(
    service: Arc<Service>,
    socket: UdpSocket,
    local: Addr,
    ids: ConnectionIds,
) {
    let ip = local.socket_addr().map(|addr| addr.ip());
    let local = Some(local).filter(|_| ip.is_some_and(|ip| !ip.is_unspecified()));
    let server = Server {
        service,
        socket,
        ids,
        local,
    };
    let mut waiting = Waiting::default();
    let mut pause = ACCEPT_PAUSES.0;
    loop {
        tokio::select! {
            () = server.service.stop.cancelled() => return,
            Some((to, host, response)) = waiting.answers.next() => {
                waiting.is_over(&host);
                if let Some(response) = response {
                    server.send(&response.encode(), to);
                }
            }
            ready = server.socket.readable() => {
                match ready.and_then(|()| server.read(&mut waiting)) {
                    Ok(()) => pause = ACCEPT_PAUSES.0,
                    // A lasting error is to cost next to nothing.
                    Err(error) => {
                        warn!(%error, ?pause, "cannot read packets");
                        tokio::select! {
                            () = server.service.stop.cancelled() => return,
                            () = sleep(pause) => {}
                        }
                        pause = (2 * pause).min(ACCEPT_PAUSES.1);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Waiting<'_> {
    /// Counts one more of a host. Returns whether there is room for it.
    fn begins(&mut self, host: &HostKey) -> bool {
        let of_host = self.hosts.get(host).copied().unwrap_or(0);
        let has_room = self.answers.len() < MAX_WAITING && of_host < MAX_WAITING_OF_HOST;
        if has_room {
            self.hosts.insert(host.clone(), of_host + 1);
        }
        has_room
    }

    /// Reverts [`begins`](Self::begins).
    fn is_over(&mut self, host: &HostKey) {
        match self.hosts.get_mut(host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.hosts.remove(host)),
        }
    }
}

impl Server {
    /// Reads some of the packets that have come, and answers them.
    fn read<'a>(&'a self, waiting: &mut Waiting<'a>) -> io::Result<()> {
        let mut packet = [0; MAX_REQUEST_LEN];
        for _ in 0..BATCH {
            let (len, from) = match self.socket.try_recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) => {
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => Ok(()),
                        // What was sent before has not arrived: some systems tell so here.
                        io::ErrorKind::ConnectionReset => continue,
                        _ => Err(error),
                    };
                }
            };
            match self.step(&packet[..len], from) {
                Step::Answer(answer) => self.send(&answer, from),
                Step::Ignore => {}
                Step::Ask(source, request) if self.service.answers_at_once() => {
                    let response = self.answer(&source, request).now_or_never();
                    if let Some(response) = response.flatten() {
                        self.send(&response.encode(), from);
                    }
                }
                Step::Ask(source, request) => {
                    let host = HostKey::of(&source.remote);
                    if !waiting.begins(&host) {
                        debug!("too many requests wait");
                        continue;
                    }
                    waiting.answers.push(Box::pin(async move {
                        let response = self.answer(&source, request).await;
                        (from, host, response)
                    }));
                }
            }
        }
        Ok(())
    }

    /// If the network takes it. Otherwise the client asks again.
    fn send(&self, answer: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.try_send_to(answer, to) {
            debug!(%error, "an answer is not sent");
        }
    }

    /// Reads a packet, and looks whether its address is proven.
    fn step(&self, packet: &[u8], from: SocketAddr) -> Step {
        let Some(head) = packet.first_chunk::<HEAD_LEN>() else {
            return Step::Ignore;
        };
        let [.., a, b, c, d] = *head;
        let transaction_id = u32::from_be_bytes([a, b, c, d]);
        let ip = from.ip().to_canonical();
        let refused = |message: &str| {
            let message = fitting(message, packet.len());
            let error = UdpResponse::Error {
                transaction_id,
                message,
            };
            Step::Answer(error.encode())
        };
        let request = UdpRequest::decode(packet);
        let proof = match &request {
            Ok(UdpRequest::Connect { transaction_id }) => {
                let answer = UdpResponse::Connect {
                    transaction_id: *transaction_id,
                    connection_id: self.ids.issue(ip, self.service.uptime()),
                };
                return Step::Answer(answer.encode());
            }
            Ok(UdpRequest::Announce { connection_id, .. })
            | Ok(UdpRequest::Scrape { connection_id, .. }) => *connection_id,
            Err(_) => {
                let [a, b, c, d, e, f, g, h, ..] = *head;
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
        };
        let is_proven = self.ids.is_valid(proof, ip, self.service.uptime());
        match request {
            // It may be of another protocol, or of another one's making.
            Err(error) if !is_proven => {
                debug!(%error, "a packet is passed over");
                Step::Ignore
            }
            // An id is good for two minutes, and for no longer than the tracker runs.
            Ok(_) if !is_proven => refused("connection id is not valid, connect again"),
            request => {
                let source = Source {
                    remote: SocketAddr::new(ip, from.port()).into(),
                    local: self.local.clone(),
                };
                if !self.service.is_in_pace(&source) {
                    return Step::Ignore;
                }
                match request {
                    Ok(request) => Step::Ask(source, request),
                    Err(error) => {
                        self.service.refuse_malformed();
                        refused(&error.to_string())
                    }
                }
            }
        }
    }

    async fn answer(&self, source: &Source, request: UdpRequest) -> Option<UdpResponse> {
        match request {
            UdpRequest::Announce {
                transaction_id,
                announce,
                ..
            } => {
                let announce = TorrentAnnounce::from(&announce);
                let outcome = self.service.announce(source, &announce).await;
                Some(announced(transaction_id, outcome))
            }
            UdpRequest::Scrape {
                transaction_id,
                info_hashes,
                ..
            } => {
                let figures = self.service.scrape(source, &info_hashes).await;
                Some(scraped(transaction_id, figures))
            }
            UdpRequest::Connect { .. } => None,
        }
    }
}

fn announced(transaction_id: u32, outcome: Result<TorrentAnswer, Refusal>) -> UdpResponse {
    match outcome {
        Ok(answer) => UdpResponse::Announce {
            transaction_id,
            interval: answer.interval,
            leechers: answer.figures.incomplete,
            seeders: answer.figures.complete,
            peers: answer.peers.iter().map(|peer| peer.addr).collect(),
        },
        Err(refusal) => UdpResponse::Error {
            transaction_id,
            message: refusal.to_string(),
        },
    }
}

fn scraped(transaction_id: u32, figures: Vec<Option<ScrapeFigures>>) -> UdpResponse {
    let figures = figures.into_iter().map(Option::unwrap_or_default).collect();
    UdpResponse::Scrape {
        transaction_id,
        figures,
    }
}

/// As much of a message as makes an error no longer than what it answers.
fn fitting(message: &str, asked: usize) -> String {
    let room = asked.saturating_sub(ERROR_HEAD_LEN);
    message.chars().take(room).collect()
}
