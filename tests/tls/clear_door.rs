//! A private tracker that serves BitTorrent clients: what it opens to strangers, and that it
//! says so.

use std::sync::Arc;

use bt_lite::access::AllowIdentities;
use bt_lite::protocol::{OwnEntry, OwnState};
use bt_lite::tracker::ClientConfig;
use bt_lite::transport::TlsTransport;
use bt_lite::transport::auth::{AllowedKeys, Authenticator, Identity, Trust};
use bt_lite::{Addr, ContentId, TcpTransport, Tracker, TrackerClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::warnings::Warnings;

/// The hash of a torrent, as it is written in a query.
const HASH: &[u8; 20] = b"aaaaaaaaaaaaaaaaaaaa";

/// Where the member is listed, and the same as clients are told of it.
const MEMBER: (&str, &[u8]) = ("127.0.0.1:7777", &[127, 0, 0, 1, 0x1e, 0x61]);

/// What a stranger is told of the torrent.
async fn announced(addr: &Addr) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr.as_str()).await.unwrap();
    let hash = std::str::from_utf8(HASH).unwrap();
    let query = format!(
        "GET /announce?info_hash={hash}&peer_id=bbbbbbbbbbbbbbbbbbbb&port=9&uploaded=0\
         &downloaded=0&left=1&compact=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(query.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn private_tracker_tells_strangers_of_a_torrent_aloud_and_not_if_a_policy_lists_members() {
    for is_listed in [false, true] {
        let [tracker, member] = [(); 2].map(|()| Identity::generate().unwrap());
        let ids = [tracker.identity(), member.identity()];
        let keys = AllowedKeys::from_iter(ids);
        let tls = |identity| {
            let auth = Authenticator::new(identity, Trust::Keys(keys.clone())).unwrap();
            TlsTransport::new(TcpTransport::new(), auth)
        };
        let mut builder = Tracker::builder(tls(tracker));
        if is_listed {
            builder = builder.access(AllowIdentities::from_iter(ids));
        }
        let tracker = builder.bind("127.0.0.1:0").await.unwrap();
        let warnings = Warnings::default();
        let recording = warnings.record();
        let http = tracker.serve_http("127.0.0.1:0").await.unwrap();
        tracker.serve_udp("127.0.0.1:0").await.unwrap();
        drop(recording);
        let told = warnings.said();
        assert_eq!(told.len(), if is_listed { 0 } else { 2 }, "{told:?}");
        assert!(
            told.iter().all(|told| told.contains("strangers")),
            "{told:?}"
        );

        let client = TrackerClient::start(
            Arc::new(tls(member)),
            vec![tracker.local_addr().clone()],
            Some(MEMBER.0.parse().unwrap()),
            ClientConfig::default(),
        );
        let (id, name) = (ContentId::of_torrent_v1(HASH), "a torrent".parse().unwrap());
        let entry = OwnEntry::new(id, name, 1, OwnState::Complete);
        client.own(entry).await.unwrap();
        client.announced().await.unwrap();
        let answer = announced(&http).await;
        let is_told = answer.windows(6).any(|window| window == MEMBER.1);
        assert_eq!(is_told, !is_listed, "{}", String::from_utf8_lossy(&answer));
        client.shutdown().await;
        tracker.shutdown().await;
    }
}
