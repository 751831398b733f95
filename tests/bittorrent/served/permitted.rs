//! Who may announce what: the policy of a tracker, asked over HTTP and UDP.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bt_lite::ContentId;
use bt_lite::access::{Access, AccessAction, AccessPolicy, AccessRequest};
use bt_lite::bittorrent::tracker::http::{AnnounceAnswer, AnswerError, ScrapeAnswer, ScrapeQuery};
use bt_lite::bittorrent::tracker::udp::{UdpRequest, UdpResponse};
use tokio::sync::watch;

use super::{Http, Udp, announce, builder, info_hash, over_http, over_udp, query};

/// Serves these torrents only, and says when that changes.
struct Whitelist {
    allowed: Mutex<BTreeSet<ContentId>>,
    changes: watch::Sender<u64>,
}

impl Whitelist {
    fn of(torrents: &[u8]) -> Arc<Self> {
        let whitelist = Self {
            allowed: Mutex::default(),
            changes: watch::Sender::default(),
        };
        whitelist.set(torrents);
        Arc::new(whitelist)
    }

    fn set(&self, torrents: &[u8]) {
        let ids = torrents.iter().map(|torrent| info_hash(*torrent));
        let ids = ids.map(|hash| ContentId::of_torrent_v1(hash.as_bytes()));
        *self.allowed.lock().unwrap() = ids.collect();
        self.changes.send_modify(|change| *change += 1);
    }
}

#[async_trait]
impl AccessPolicy for Whitelist {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        let allowed = self.allowed.lock().unwrap();
        Access::allow_if(match request.content {
            None => request.action == AccessAction::Register,
            Some(content) => allowed.contains(&content.id),
        })
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }
}

async fn is_refused(client: &mut Http, torrent: u8) -> bool {
    let (_, body) = client
        .get(&format!("/announce?{}", query(torrent, 1).to_query()))
        .await;
    matches!(AnnounceAnswer::decode(&body), Err(AnswerError::Refused(_)))
}

#[tokio::test]
async fn torrents_that_are_not_on_the_list_are_refused_over_http() {
    let (tracker, addr) = over_http(builder().access(Whitelist::of(&[1])), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    assert!(!is_refused(&mut client, 1).await);
    assert!(is_refused(&mut client, 2).await);
    let registry = tracker.stats().registry;
    assert_eq!((registry.peers, registry.refusals.denied), (1, 1));
    let info_hashes = [1, 2].map(info_hash).to_vec();
    let target = format!("/scrape?{}", ScrapeQuery { info_hashes }.to_query());
    let (_, body) = client.get(&target).await;
    let answer = ScrapeAnswer::decode(&body).unwrap();
    assert!(answer.files.keys().eq([info_hash(1)].iter()));
}

#[tokio::test]
async fn torrents_that_are_not_on_the_list_are_refused_over_udp() {
    let (tracker, addr) = over_udp(builder().access(Whitelist::of(&[1])), "127.0.0.1").await;
    let client = Udp::connect(addr).await;
    let answer = client.announce(1, 1).await;
    assert!(matches!(answer, UdpResponse::Announce { .. }));
    let answer = client.announce(2, 1).await;
    assert!(matches!(answer, UdpResponse::Error { .. }), "{answer:?}");
    let request = UdpRequest::Scrape {
        connection_id: client.connection_id().await,
        transaction_id: 1,
        info_hashes: [1, 2].map(info_hash).to_vec(),
    };
    let UdpResponse::Scrape { figures, .. } = client.ask(&request).await else {
        panic!("it is answered");
    };
    let leechers: Vec<u32> = figures.iter().map(|of| of.incomplete).collect();
    assert_eq!(leechers, [1, 0]);
    assert_eq!(tracker.stats().registry.peers, 1);
}

/// Never answers about the host 127.0.0.2.
struct Silent;

#[async_trait]
impl AccessPolicy for Silent {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        if request.remote.as_str().starts_with("127.0.0.2:") {
            std::future::pending::<()>().await;
        }
        Access::allow()
    }
}

#[tokio::test]
async fn host_that_waits_for_the_policy_holds_up_nobody_else() {
    let (tracker, addr) = over_udp(builder().access(Silent), "127.0.0.1").await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.2:0").await.unwrap();
    socket.connect(addr).await.unwrap();
    let waits = Udp {
        socket,
        is_v6: false,
    };
    let connection_id = waits.connection_id().await;
    for port in 1..=600 {
        let request = UdpRequest::Announce {
            connection_id,
            transaction_id: 1,
            announce: announce(1, port),
        };
        waits.send(&request.encode()).await;
        if port % 50 == 0 {
            // The answer to this tells that the tracker has read them.
            let connect = UdpRequest::Connect { transaction_id: 1 };
            waits.send(&connect.encode()).await;
            let is_answer = |packet: &[u8]| packet[..4] == [0; 4];
            while !is_answer(&waits.receive().await) {}
        }
    }
    let client = Udp::connect(addr).await;
    let answer = client.announce(1, 1000).await;
    assert!(matches!(answer, UdpResponse::Announce { leechers: 1, .. }));
    assert_eq!(tracker.stats().registry.requests.announce, 1);
}

#[tokio::test]
async fn torrent_that_is_taken_off_the_list_is_forgotten_at_once() {
    let policy = Whitelist::of(&[1, 2]);
    let (tracker, addr) = over_http(builder().access(policy.clone()), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    for torrent in [1, 2] {
        assert!(!is_refused(&mut client, torrent).await);
    }
    policy.set(&[2]);
    while tracker.stats().registry.peers > 1 {
        tokio::task::yield_now().await;
    }
    assert!(is_refused(&mut client, 1).await);
    assert!(!is_refused(&mut client, 2).await);
    policy.set(&[1, 2]);
    assert!(!is_refused(&mut client, 1).await);
    assert_eq!(tracker.stats().registry.peers, 2);
}
