//! Trackers over UDP (BEP 15).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout};

use super::announce::{Announce, Announced, NotAnnounced};
use crate::bittorrent::tracker::udp::{
    self, MAX_PACKET_LEN, UdpAnnounce, UdpPacketError, UdpRequest, UdpResponse,
};

pub(super) async fn announce(
    url: &Url,
    announce: &Announce,
    patience: Duration,
) -> Result<Announced, NotAnnounced> {
    let host = url.host_str().ok_or(NotAnnounced::Url)?;
    let port = url.port().ok_or(NotAnnounced::Url)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addrs: Vec<_> = lookup_host((host, port)).await?.collect();
    announce_at(&addrs, url, announce, patience).await
}

/// Announces at the addresses of a tracker in turn, each of which has its share of the time.
async fn announce_at(
    addrs: &[SocketAddr],
    url: &Url,
    announce: &Announce,
    patience: Duration,
) -> Result<Announced, NotAnnounced> {
    let (begun, mut last) = (Instant::now(), NotAnnounced::Url);
    for (addr, left) in addrs.iter().zip((1..=addrs.len() as u32).rev()) {
        let share = patience.saturating_sub(begun.elapsed()) / left;
        let asked = timeout(share, ask(*addr, url, announce)).await;
        match asked.unwrap_or(Err(NotAnnounced::TimedOut)) {
            Ok(announced) => return Ok(announced),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(addr: SocketAddr, url: &Url, announce: &Announce) -> Result<Announced, NotAnnounced> {
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    let asked = |transaction_id| UdpRequest::Connect { transaction_id };
    let connection_id = match exchange(&socket, addr, asked).await? {
        UdpResponse::Connect { connection_id, .. } => connection_id,
        other => return Err(unexpected(other)),
    };
    let mut path = url.path().to_owned();
    if let Some(query) = url.query() {
        path = format!("{path}?{query}");
    }
    let asked = |transaction_id| UdpRequest::Announce {
        connection_id,
        transaction_id,
        announce: UdpAnnounce {
            info_hash: announce.info_hash,
            peer_id: announce.client.0,
            downloaded: announce.downloaded,
            left: announce.left,
            uploaded: announce.uploaded,
            event: announce.event,
            ip: 0,
            key: announce.key,
            num_want: Some(announce.wanted),
            port: announce.port,
            url_data: path.clone().into_bytes(),
        },
    };
    match exchange(&socket, addr, asked).await? {
        UdpResponse::Announce {
            interval, peers, ..
        } => Ok(Announced::new(peers, interval, None)),
        other => Err(unexpected(other)),
    }
}

fn unexpected(response: UdpResponse) -> NotAnnounced {
    match response {
        UdpResponse::Error { message, .. } => NotAnnounced::Refused(message),
        _ => NotAnnounced::Answer("it answers something else".into()),
    }
}

/// Sends a request, again and again, until its answer comes. Whatever is not the answer is
/// passed over: anybody can send to a port.
async fn exchange(
    socket: &UdpSocket,
    addr: SocketAddr,
    request: impl Fn(u32) -> UdpRequest,
) -> Result<UdpResponse, NotAnnounced> {
    // Nobody else is to guess it.
    let transaction_id = getrandom::u32().map_err(std::io::Error::other)?;
    let packet = request(transaction_id).encode();
    let mut buffer = [0; MAX_PACKET_LEN];
    for sent in 0.. {
        let Some(patience) = udp::timeout(sent) else {
            break;
        };
        socket.send(&packet).await?;
        let answer = async {
            loop {
                let len = socket.recv(&mut buffer).await?;
                match UdpResponse::decode(&buffer[..len], addr.is_ipv6()) {
                    Ok(answer) if answer.transaction_id() == transaction_id => {
                        return Ok::<_, NotAnnounced>(answer);
                    }
                    Ok(_) => {}
                    Err(error) => log(error),
                }
            }
        };
        if let Ok(answer) = timeout(patience, answer).await {
            return answer;
        }
    }
    Err(NotAnnounced::TimedOut)
}

fn log(error: UdpPacketError) {
    tracing::debug!(%error, "a packet is passed over");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittorrent::tracker::AnnounceEvent;

    #[tokio::test(start_paused = true)]
    async fn silent_address_leaves_time_for_the_next_one() {
        let [silent, tracker] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0"));
        let (silent, tracker) = (silent.await.unwrap(), tracker.await.unwrap());
        let addrs = [&silent, &tracker].map(|socket| socket.local_addr().unwrap());
        let peer: SocketAddr = ([192, 0, 2, 1], 7).into();
        let answering = async {
            let mut buffer = [0; MAX_PACKET_LEN];
            loop {
                let (len, from) = tracker.recv_from(&mut buffer).await.unwrap();
                let answer = match UdpRequest::decode(&buffer[..len]).unwrap() {
                    UdpRequest::Connect { transaction_id } => UdpResponse::Connect {
                        transaction_id,
                        connection_id: 9,
                    },
                    UdpRequest::Announce { transaction_id, .. } => UdpResponse::Announce {
                        transaction_id,
                        interval: 60,
                        leechers: 0,
                        seeders: 1,
                        peers: vec![peer],
                    },
                    other => panic!("{other:?}"),
                };
                tracker.send_to(&answer.encode(), from).await.unwrap();
            }
        };
        let announce = Announce::sample();
        let url = "udp://tracker.invalid:1/announce".parse().unwrap();
        let announced = announce_at(&addrs, &url, &announce, Duration::from_secs(30));
        tokio::select! {
            announced = announced => assert_eq!(announced.unwrap().peers, [peer]),
            () = answering => {}
        }
    }

    #[tokio::test]
    async fn whatever_is_not_the_answer_is_passed_over() {
        let tracker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = tracker.local_addr().unwrap();
        let answering = async {
            let mut buffer = [0; MAX_PACKET_LEN];
            loop {
                let (len, from) = tracker.recv_from(&mut buffer).await.unwrap();
                let request = UdpRequest::decode(&buffer[..len]).unwrap();
                // Somebody else guesses, and is the first to answer.
                let answer = |guessed: u16| match &request {
                    UdpRequest::Connect { transaction_id } => UdpResponse::Connect {
                        transaction_id: transaction_id ^ u32::from(guessed),
                        connection_id: 9 + u64::from(guessed),
                    },
                    UdpRequest::Announce {
                        transaction_id,
                        connection_id: 9,
                        announce,
                    } => {
                        let sample = Announce::sample();
                        assert_eq!((announce.key, announce.port), (sample.key, sample.port));
                        assert_eq!(announce.left, sample.left);
                        // There is no word for a pause.
                        assert_eq!(announce.event, None);
                        UdpResponse::Announce {
                            transaction_id: transaction_id ^ u32::from(guessed),
                            interval: 60,
                            leechers: 0,
                            seeders: 1,
                            peers: vec![([192, 0, 2, 1], 7 + guessed).into()],
                        }
                    }
                    other => panic!("{other:?}"),
                };
                for packet in [vec![0xff; 3], answer(1).encode(), answer(0).encode()] {
                    tracker.send_to(&packet, from).await.unwrap();
                }
            }
        };
        let mut announce = Announce::sample();
        announce.event = Some(AnnounceEvent::Paused);
        let url = "udp://tracker.invalid:1/announce".parse().unwrap();
        let addrs = [addr];
        let announced = announce_at(&addrs, &url, &announce, Duration::from_secs(60));
        tokio::select! {
            announced = announced => {
                assert_eq!(announced.unwrap().peers, [([192, 0, 2, 1], 7).into()]);
            }
            () = answering => {}
        }
    }
}
