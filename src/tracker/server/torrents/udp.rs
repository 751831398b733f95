//! BitTorrent clients over UDP (BEP 15).
//!
//! Whoever has not proven its address, by a connection id that was sent there, is answered
//! with no more bytes than it has sent. So nobody makes this tracker send much to a third
//! party. Nothing is remembered until an announce with such an id.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::net::UdpSocket;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::super::service::Service;
use super::answers::Source;
use crate::bittorrent::tracker::udp::{UdpRequest, UdpResponse};
use crate::bittorrent::tracker::{ConnectionIds, ScrapeFigures};
use crate::protocol::{Addr, Refusal};
use crate::tracker::registry::{TorrentAnnounce, TorrentAnswer};

/// How many packets are read before other tasks have their turn.
const BATCH: usize = 64;

/// How many requests may wait for a policy. Further ones are not answered, and come again:
/// over UDP a client repeats what is not answered.
const MAX_WAITING: usize = 256;

/// The most bytes that are read of a packet: a scrape of as many torrents as can be asked
/// about, or an announce with its options.
const MAX_REQUEST_LEN: usize = 2048;

/// The length of what every request begins with.
const HEAD_LEN: usize = 16;

/// The length of an error without its text.
const ERROR_HEAD_LEN: usize = 8;

/// The pause after a socket has failed, so that a lasting error costs next to nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// An answer that waits for a policy.
type Waiting<'a> = BoxFuture<'a, (SocketAddr, Option<UdpResponse>)>;

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
    let mut waiting: FuturesUnordered<Waiting<'_>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = server.service.stop.cancelled() => return,
            Some((to, response)) = waiting.next() => {
                if let Some(response) = response {
                    server.send(&response.encode(), to);
                }
            }
            ready = server.socket.readable() => {
                if let Err(error) = ready.and_then(|()| server.read(&mut waiting)) {
                    warn!(%error, "cannot read packets");
                    sleep(PAUSE).await;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Server {
    /// Reads some of the packets that have come, and answers them.
    fn read<'a>(&'a self, waiting: &mut FuturesUnordered<Waiting<'a>>) -> io::Result<()> {
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
                Step::Ask(source, request) if self.service.access.is_none() => {
                    let response = self.answer_unasked(&source, request);
                    response.inspect(|response| self.send(&response.encode(), from));
                }
                Step::Ask(source, request) if waiting.len() < MAX_WAITING => {
                    waiting.push(Box::pin(async move {
                        (from, self.answer(&source, request).await)
                    }));
                }
                Step::Ask(..) => debug!("too many requests wait for the policy"),
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

    fn answer_unasked(&self, source: &Source, request: UdpRequest) -> Option<UdpResponse> {
        match request {
            UdpRequest::Announce {
                transaction_id,
                announce,
                ..
            } => {
                let announce = TorrentAnnounce::from(&announce);
                let outcome = self.service.announce_unasked(source, &announce);
                Some(announced(transaction_id, outcome))
            }
            UdpRequest::Scrape {
                transaction_id,
                info_hashes,
                ..
            } => {
                let figures = self.service.scrape_unasked(source, &info_hashes);
                Some(scraped(transaction_id, figures))
            }
            UdpRequest::Connect { .. } => None,
        }
    }

    /// The same, if somebody is asked about it.
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
