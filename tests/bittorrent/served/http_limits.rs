//! Over HTTP: requests that mean harm, and proxies.

use bt_lite::bittorrent::tracker::http::{AnnounceAnswer, AnswerError, RetryIn, ScrapeAnswer};
use bt_lite::tracker::{RegistryConfig, TrackerConfig};
use tokio::io::AsyncReadExt;

use super::{Http, addrs, builder, over_http, query};

const HASH: &str = "%01%02%03%04%05%06%07%08%09%0a%0b%0c%0d%0e%0f%10%11%12%13%14";

#[tokio::test]
async fn requests_that_lack_something_are_refused_with_a_reason() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    let rest = "peer_id=aaaaaaaaaaaaaaaaaaaa&port=1&left=0";
    let short = &HASH[3..];
    let targets = [
        format!("/announce?{rest}"),
        "/announce".to_owned(),
        "/announce?".to_owned(),
        format!("/announce?info_hash=&{rest}"),
        format!("/announce?info_hash={short}&{rest}"),
        format!("/announce?info_hash={HASH}%00&{rest}"),
        // What is no escape stands for itself, and makes it too long.
        format!("/announce?info_hash=%zz{short}&{rest}"),
        format!("/announce?info_hash={HASH}%&{rest}"),
        format!("/announce?info_hash={HASH}&port=1&left=0"),
        format!("/announce?info_hash={HASH}&peer_id=short&port=1&left=0"),
        format!("/announce?info_hash={HASH}&peer_id=aaaaaaaaaaaaaaaaaaaa&left=0"),
        format!("/announce?info_hash={HASH}&peer_id=aaaaaaaaaaaaaaaaaaaa&port=65536&left=0"),
        format!("/announce?info_hash={HASH}&peer_id=aaaaaaaaaaaaaaaaaaaa&port=-1&left=0"),
        format!("/announce?info_hash={HASH}&peer_id=aaaaaaaaaaaaaaaaaaaa&port=1"),
        format!("/announce?info_hash={HASH}&peer_id=aaaaaaaaaaaaaaaaaaaa&port=1&left=-1"),
        "/scrape".to_owned(),
        format!("/scrape?info_hash={short}"),
        format!("/scrape?info_hash={HASH}&info_hash={short}"),
    ];
    for target in &targets {
        let (status, body) = client.get(target).await;
        assert_eq!(status, 200, "{target}");
        let answer = AnnounceAnswer::decode(&body);
        let Err(AnswerError::Refused(refusal)) = answer else {
            panic!("{target}: {answer:?}");
        };
        assert!(!refusal.reason.is_empty());
        assert_eq!(refusal.retry_in, Some(RetryIn::Never), "{target}");
    }
    let registry = tracker.stats().registry;
    assert_eq!(registry.refusals.malformed, targets.len() as u64);
    assert_eq!((registry.peers, registry.contents), (0, 0));
    // The connection is as good as before.
    client.announce(&query(1, 1)).await;
}

#[tokio::test]
async fn what_is_no_request_to_a_tracker_ends_with_a_status() {
    let (_tracker, addr) = over_http(builder(), "127.0.0.1").await;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("GET /announce/x HTTP/1.1\r\n\r\n".to_owned(), 404),
        (
            "POST /announce HTTP/1.1\r\nContent-Length: 9\r\n\r\nsomething".to_owned(),
            405,
        ),
        ("HEAD /announce HTTP/1.1\r\n\r\n".to_owned(), 405),
        ("\x16\x03\x01\x02\r\n\r\n".to_owned(), 400),
        ("GET /announce?a=\x7f\u{1} HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            format!("GET /announce?a={} HTTP/1.1\r\n\r\n", "a".repeat(40_000)),
            431,
        ),
        (
            format!(
                "GET /announce HTTP/1.1\r\nA: {}\r\n\r\n",
                "a".repeat(40_000)
            ),
            431,
        ),
        (
            format!("GET /announce HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)),
            431,
        ),
    ] {
        let mut client = Http::connect(addr).await;
        client.send(&request).await;
        let (status, _, body) = client.response().await.unwrap();
        assert_eq!(status, expected, "{request:.60}");
        assert_eq!(body, []);
    }
}

#[tokio::test]
async fn query_that_is_too_long_is_refused() {
    let (_tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    let target = format!(
        "/announce?{}&x={}",
        query(1, 1).to_query(),
        "x".repeat(16 << 10)
    );
    let (_, body) = client.get(&target).await;
    assert!(matches!(
        AnnounceAnswer::decode(&body),
        Err(AnswerError::Refused(_))
    ));
}

#[tokio::test]
async fn no_more_peers_are_named_than_a_tracker_names() {
    let (_tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    for port in 1..=300 {
        let mut query = query(1, port);
        query.num_want = Some(0);
        assert_eq!(client.announce(&query).await.peers.len(), 0);
    }
    for (wanted, named) in [(None, 50), (Some(7), 7), (Some(u32::MAX), 200)] {
        let mut query = query(1, 1);
        query.num_want = wanted;
        let answer = client.announce(&query).await;
        assert_eq!(answer.peers.len(), named);
        assert!(addrs(&answer).iter().all(|addr| addr.port() != 1));
    }
}

#[tokio::test]
async fn host_that_asks_too_much_is_refused_for_a_while() {
    let config = TrackerConfig::default().max_announces_per_host(1);
    let (tracker, addr) = over_http(builder().config(config), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    let mut refused = None;
    // Ten in ten seconds are allowed, and a new ten seconds may begin meanwhile.
    for port in 1..=30 {
        let target = format!("/announce?{}", query(1, port).to_query());
        let (_, body) = client.get(&target).await;
        if let Err(AnswerError::Refused(refusal)) = AnnounceAnswer::decode(&body) {
            refused = Some(refusal);
        }
    }
    assert_eq!(refused.unwrap().retry_in, Some(RetryIn::Minutes(1)));
    let registry = tracker.stats().registry;
    assert!(registry.refusals.busy >= 10 && registry.peers <= 20);
    let (_, body) = client.get(&format!("/scrape?info_hash={HASH}")).await;
    assert!(matches!(
        ScrapeAnswer::decode(&body),
        Err(AnswerError::Refused(_))
    ));
}

#[tokio::test]
async fn host_with_too_many_torrents_is_told_so() {
    let registry = RegistryConfig::default().max_announcers_per_host(2);
    let (tracker, addr) = over_http(builder().registry(registry), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    for torrent in [1, 2, 1, 2] {
        client.announce(&query(torrent, 1)).await;
    }
    let (_, body) = client
        .get(&format!("/announce?{}", query(3, 1).to_query()))
        .await;
    let Err(AnswerError::Refused(refusal)) = AnnounceAnswer::decode(&body) else {
        panic!("it is refused");
    };
    assert!(refusal.reason.contains('2'), "{}", refusal.reason);
    assert_eq!(tracker.stats().registry.refusals.peers_per_host, 1);
}

#[tokio::test]
async fn silent_connection_gives_way_and_one_that_has_asked_stays() {
    let builder = builder().max_connections_per_host(2);
    let (tracker, addr) = over_http(builder, "127.0.0.1").await;
    let mut asks = Http::connect(addr).await;
    asks.announce(&query(1, 1)).await;
    let mut silent = Http::connect(addr).await;
    silent.send("GET /announce?info").await;
    let mut third = Http::connect(addr).await;
    third.announce(&query(1, 2)).await;
    assert_eq!(silent.0.read(&mut [0; 9]).await.unwrap_or(0), 0);
    // Both have asked, so there is no room for another one.
    let mut fourth = Http::connect(addr).await;
    fourth.send("GET /announce HTTP/1.1\r\n\r\n").await;
    assert!(fourth.response().await.is_none());
    asks.announce(&query(1, 1)).await;
    let stats = tracker.stats();
    assert_eq!(
        (stats.connections, stats.gave_way, stats.refused),
        (2, 1, 1)
    );
}

/// The clock stands still as long as anything moves, and then goes to what is due.
#[tokio::test]
async fn connection_that_asks_nothing_more_is_closed() {
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut asked = Http::connect(addr).await;
    asked.announce(&query(1, 1)).await;
    asked.send("GET /announce?no-more").await;
    tokio::time::pause();
    assert_eq!(asked.0.read(&mut [0; 9]).await.unwrap_or(0), 0);
    let mut silent = Http::connect(addr).await;
    assert_eq!(silent.0.read(&mut [0; 9]).await.unwrap_or(0), 0);
    assert_eq!(tracker.stats().registry.peers, 1);
}

fn forwarded(query: &str, fields: &[&str]) -> String {
    let fields: String = fields
        .iter()
        .map(|field| format!("X-Forwarded-For: {field}\r\n"))
        .collect();
    format!("GET /announce?{query} HTTP/1.1\r\n{fields}\r\n")
}

#[tokio::test]
async fn only_a_trusted_proxy_tells_for_whom_it_asks() {
    let trusted = TrackerConfig::default().trusted_proxies(vec!["127.0.0.1".parse().unwrap()]);
    // Many clients come from one proxy.
    let trusted = trusted.max_connections_per_host(1);
    let (_tracker, addr) = over_http(builder().config(trusted), "127.0.0.1").await;
    let ask = async |fields: &[&str], port| {
        let mut client = Http::connect(addr).await;
        client
            .send(forwarded(&query(1, port).to_query(), fields))
            .await;
        let (status, _, body) = client.response().await.unwrap();
        (status, AnnounceAnswer::decode(&body).ok(), client)
    };
    let (_, first, _open) = ask(&["198.51.100.1, 192.0.2.1"], 1).await;
    assert_eq!(
        first.unwrap().external_ip,
        Some("192.0.2.1".parse().unwrap())
    );
    let (_, second, _open) = ask(&["192.0.2.2"], 2).await;
    assert_eq!(addrs(&second.unwrap()), ["192.0.2.1:1".parse().unwrap()]);
    // A proxy that does not say for whom it asks is set up wrongly.
    for fields in [&[][..], &["somebody"]] {
        assert_eq!(ask(fields, 3).await.0, 502);
    }
    let (tracker, addr) = over_http(builder(), "127.0.0.1").await;
    let mut client = Http::connect(addr).await;
    client
        .send(forwarded(&query(1, 1).to_query(), &["192.0.2.1"]))
        .await;
    let (_, _, body) = client.response().await.unwrap();
    let answer = AnnounceAnswer::decode(&body).unwrap();
    assert_eq!(answer.external_ip, Some("127.0.0.1".parse().unwrap()));
    tracker.shutdown().await;
}
