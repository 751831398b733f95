//! Trackers over HTTP: both ends agree, and what real ones send is read.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bt_lite::bittorrent::InfoHashV1;
use bt_lite::bittorrent::tracker::http::{
    AnnounceAnswer, AnnounceQuery, AnswerError, DEFAULT_INTERVAL, HttpPeer, MAX_ANSWER_PEERS,
    MAX_QUERY_LEN, MAX_SCRAPE, MAX_TEXT_LEN, PeersForm, QueryError, Refusal, RetryIn, ScrapeAnswer,
    ScrapeQuery, scrape_url, with_query,
};
use bt_lite::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use proptest::option::of;
use proptest::prelude::*;

pub(crate) fn event() -> impl Strategy<Value = AnnounceEvent> {
    prop_oneof![
        Just(AnnounceEvent::Started),
        Just(AnnounceEvent::Stopped),
        Just(AnnounceEvent::Completed),
        Just(AnnounceEvent::Paused),
    ]
}

pub(crate) fn addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.into(), port.max(1))),
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.into(), port.max(1))),
    ]
}

fn form() -> impl Strategy<Value = PeersForm> {
    prop_oneof![
        Just(PeersForm::Compact),
        Just(PeersForm::Full),
        Just(PeersForm::FullWithoutIds),
    ]
}

prop_compose! {
    fn query()(
        (info_hash, peer_id, port) in any::<([u8; 20], [u8; 20], u16)>(),
        numbers in any::<[u64; 3]>(),
        event in of(event()),
        num_want in of(any::<u32>()),
        key in of("\\PC{1,20}"),
        tracker_id in of(prop::collection::vec(any::<u8>(), 1..20)),
        form in form(),
        ip in of(addr()),
        addrs in prop::collection::vec(addr(), 2),
    ) -> AnnounceQuery {
        let mut query = AnnounceQuery::new(InfoHashV1::from_bytes(info_hash), peer_id, port);
        [query.uploaded, query.downloaded, query.left] = numbers;
        (query.event, query.num_want, query.key) = (event, num_want, key);
        (query.tracker_id, query.form) = (tracker_id, form);
        query.ip = ip.map(|addr| addr.ip());
        for addr in addrs {
            match addr.is_ipv4() {
                true => query.ipv4 = Some(addr),
                false => query.ipv6 = Some(addr),
            }
        }
        query
    }
}

prop_compose! {
    fn answer()(
        interval: u32,
        numbers in prop::collection::vec(of(any::<u32>()), 4),
        tracker_id in of(prop::collection::vec(any::<u8>(), 0..20)),
        warning in of("\\PC{0,20}"),
        external_ip in of(addr()),
        peers in prop::collection::vec((addr(), of(any::<[u8; 20]>())), 0..20),
    ) -> AnnounceAnswer {
        let mut answer = AnnounceAnswer::default();
        answer.interval = interval;
        answer.min_interval = numbers[0];
        answer.complete = numbers[1];
        answer.incomplete = numbers[2];
        answer.downloaded = numbers[3];
        (answer.tracker_id, answer.warning) = (tracker_id, warning);
        answer.external_ip = external_ip.map(|addr| addr.ip());
        let peers = peers.into_iter().map(|(addr, peer_id)| HttpPeer { addr, peer_id });
        answer.peers = peers.collect();
        answer
    }
}

proptest! {
    #[test]
    fn announce_is_read_as_it_was_written(query in query()) {
        let text = query.to_query();
        prop_assert!(text.is_ascii() && !text.contains([' ', '#', '?']));
        prop_assert_eq!(AnnounceQuery::from_query(&text), Ok(query));
    }

    #[test]
    fn answer_is_read_as_it_was_written(answer in answer(), form in form()) {
        let mut expected = answer.clone();
        if form != PeersForm::Full {
            expected.peers.iter_mut().for_each(|peer| peer.peer_id = None);
        }
        if form == PeersForm::Compact {
            expected.peers.sort_by_key(|peer| peer.addr.is_ipv6());
        }
        let bytes = answer.encode(form);
        prop_assert_eq!(AnnounceAnswer::decode(&bytes), Ok(expected));
        for len in 0..bytes.len() {
            prop_assert!(AnnounceAnswer::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn scrape_is_read_as_it_was_written(
        hashes in prop::collection::vec(any::<[u8; 20]>(), 1..MAX_SCRAPE),
        interval in of(any::<u32>()),
        figures: (u32, u32, u32),
        cut: prop::sample::Index,
    ) {
        let info_hashes: Vec<_> = hashes.into_iter().map(InfoHashV1::from_bytes).collect();
        let query = ScrapeQuery { info_hashes };
        let text = query.to_query();
        prop_assert!(text.len() <= MAX_QUERY_LEN);
        prop_assert_eq!(ScrapeQuery::from_query(&text), Ok(query.clone()));
        let mut answer = ScrapeAnswer::default();
        answer.min_request_interval = interval;
        let (complete, downloaded, incomplete) = figures;
        let figures = ScrapeFigures { complete, downloaded, incomplete };
        answer.files = query.info_hashes.into_iter().map(|hash| (hash, figures)).collect();
        let bytes = answer.encode();
        prop_assert_eq!(ScrapeAnswer::decode(&bytes), Ok(answer));
        prop_assert!(ScrapeAnswer::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }
}

const HASH: &str = "%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A";

fn read(rest: &str) -> Result<AnnounceQuery, QueryError> {
    AnnounceQuery::from_query(&format!(
        "info_hash={HASH}&peer_id=-TR3000-abcdefghijkl&port=51413&left=0{rest}"
    ))
}

#[test]
fn queries_of_real_clients_are_read() {
    // Transmission, libtorrent, and aria2 each have their own order and additions.
    let query = read(
        "&uploaded=0&downloaded=5&numwant=80&key=4d2a6f17&compact=1&supportcrypto=1\
         &requirecrypto=1&event=started&corrupt=0&redundant=0&no_peer_id=1&trackerid=",
    );
    let query = query.unwrap();
    assert_eq!(
        query.info_hash.to_string(),
        "123456789abcdef123456789abcdef123456789a"
    );
    assert_eq!(&query.peer_id, b"-TR3000-abcdefghijkl");
    assert_eq!((query.downloaded, query.num_want), (5, Some(80)));
    assert_eq!(query.key.as_deref(), Some("4d2a6f17"));
    assert_eq!(
        (query.event, query.form),
        (Some(AnnounceEvent::Started), PeersForm::Compact)
    );
    assert_eq!(query.tracker_id, None);
    // What is not known says nothing.
    let query = read("&event=&numwant=-1&ipv6=nonsense&&x&port=1&compact=0").unwrap();
    assert_eq!(
        (query.event, query.num_want, query.ipv6),
        (None, None, None)
    );
    assert_eq!((query.port, query.form), (51413, PeersForm::Full));
    let query = read("&event=dancing&ipv6=2001%3Adb8%3A%3A1&ipv4=10.0.0.1%3A5").unwrap();
    assert_eq!(query.ipv6, "[2001:db8::1]:51413".parse().ok());
    assert_eq!((query.event, query.ipv4), (None, "10.0.0.1:5".parse().ok()));
}

#[test]
fn key_that_becomes_too_long_as_text_counts_as_missing() {
    // Each byte that is no UTF-8 becomes three.
    let longest = MAX_TEXT_LEN / 3;
    for (bytes, is_kept) in [(longest, true), (longest + 1, false)] {
        let query = read(&format!("&key={}", "%FF".repeat(bytes))).unwrap();
        assert_eq!(query.key.is_some(), is_kept);
        assert_eq!(AnnounceQuery::from_query(&query.to_query()), Ok(query));
    }
}

#[test]
fn texts_for_people_that_are_no_text_are_cut_as_text() {
    // Each byte that is no UTF-8 becomes three.
    let cut = "\u{fffd}".repeat(MAX_TEXT_LEN / 3);
    let body = |key: &str| {
        let head = format!("d{}:{key}{MAX_TEXT_LEN}:", key.len());
        [head.as_bytes(), &[0xff; MAX_TEXT_LEN], b"e"].concat()
    };
    let answer = AnnounceAnswer::decode(&body("warning message")).unwrap();
    assert_eq!(answer.warning.as_ref(), Some(&cut));
    let refused = body("failure reason");
    let reason = |error| match error {
        AnswerError::Refused(refusal) => refusal.reason,
        other => panic!("{other}"),
    };
    assert_eq!(
        AnnounceAnswer::decode(&refused).map_err(reason),
        Err(cut.clone())
    );
    assert_eq!(ScrapeAnswer::decode(&refused).map_err(reason), Err(cut));
}

#[test]
fn query_that_announces_nothing_is_refused() {
    let missing = |key| Err(QueryError::Missing { key });
    let invalid = |key| Err(QueryError::Invalid { key });
    assert_eq!(AnnounceQuery::from_query(""), missing("port"));
    let query = |text: &str| AnnounceQuery::from_query(text);
    let id = "peer_id=-TR3000-abcdefghijkl";
    assert_eq!(query(&format!("{id}&port=1&left=0")), missing("info_hash"));
    assert_eq!(
        query(&format!("info_hash=abc&{id}&port=1&left=0")),
        invalid("info_hash")
    );
    assert_eq!(
        query(&format!("info_hash={HASH}&port=1&left=0")),
        missing("peer_id")
    );
    assert_eq!(
        query(&format!("info_hash={HASH}&{id}&port=1")),
        missing("left")
    );
    for port in ["65536", "-1", "+1", "", "x"] {
        let found = query(&format!("info_hash={HASH}&{id}&port={port}&left=0"));
        assert_eq!(found, invalid("port"), "{port}");
    }
    assert!(matches!(
        query(&"&".repeat(MAX_QUERY_LEN + 1)),
        Err(QueryError::TooLong { .. })
    ));
    assert_eq!(
        ScrapeQuery::from_query(""),
        Err(QueryError::Missing { key: "info_hash" })
    );
    let found = ScrapeQuery::from_query("info_hash=%00");
    assert_eq!(found, Err(QueryError::Invalid { key: "info_hash" }));
}

fn peers(answer: &str) -> Vec<String> {
    let answer = AnnounceAnswer::decode(answer.as_bytes()).unwrap();
    answer
        .peers
        .iter()
        .map(|peer| peer.addr.to_string())
        .collect()
}

#[test]
fn answers_of_real_trackers_are_read() {
    // chihaya: out of order.
    let unsorted = b"d8:intervali1800e5:peers0:8:completei5e10:incompletei2ee";
    let answer = AnnounceAnswer::decode(unsorted).unwrap();
    assert_eq!(
        (answer.interval, answer.complete, answer.incomplete),
        (1800, Some(5), Some(2))
    );
    // A line break behind it, a key twice, and a piece of an address at the end.
    let text = "d5:peers8:abcdefgh5:peers0:e\r\n";
    assert_eq!(peers(text), ["97.98.99.100:25958"]);
    // Peers in full although nobody asked for that; those that cannot be dialled are left out.
    let text = "d8:intervali60e5:peersl\
        d2:ip9:10.0.0.174:porti80ee\
        d2:ip11:2001:db8::14:porti80ee\
        d2:ip9:localhost4:porti80ee\
        d2:ip8:10.0.0.24:porti0ee\
        d2:ip8:10.0.0.24:porti65536ee\
        d4:porti1ee\
        ee";
    assert_eq!(peers(text), ["10.0.0.17:80", "[2001:db8::1]:80"]);
    // Nonsense beside the peers.
    let text = "d8:completei-1e11:external ip3:abc10:incomplete1:x12:min intervali-5e5:peersle\
        8:intervali99999999999e15:warning messagei1ee";
    let answer = AnnounceAnswer::decode(text.as_bytes()).unwrap();
    let mut expected = AnnounceAnswer::default();
    expected.interval = DEFAULT_INTERVAL;
    assert_eq!(answer, expected);
    let text = b"d11:external ip4:\x01\x02\x03\x048:intervali5e6:peers618:aaaaaaaaaaaaaaaa\0\x50e";
    let answer = AnnounceAnswer::decode(text).unwrap();
    assert_eq!(answer.external_ip, "1.2.3.4".parse().ok());
    assert_eq!(answer.peers[0].addr.port(), 80);
    for body in ["", "<html>no</html>", "d", "le", "i1e", "d5:peersi1ee"] {
        let found = AnnounceAnswer::decode(body.as_bytes());
        assert!(
            matches!(found, Err(AnswerError::Bencode(_))),
            "{body}: {found:?}"
        );
    }
}

#[test]
fn refusal_says_why_and_for_how_long() {
    let refusal = |reason: &str, retry_in| Refusal {
        reason: reason.to_owned(),
        retry_in,
    };
    for refusal in [
        refusal("not on the list", None),
        refusal("", Some(RetryIn::Never)),
        refusal("full", Some(RetryIn::Minutes(30))),
    ] {
        let bytes = refusal.encode();
        let expected = AnswerError::Refused(refusal);
        assert_eq!(AnnounceAnswer::decode(&bytes), Err(expected.clone()));
        assert_eq!(ScrapeAnswer::decode(&bytes), Err(expected));
    }
    let body = b"d8:intervali5e14:failure reason2:no8:retry ini7ee";
    let found = AnnounceAnswer::decode(body);
    let expected = refusal("no", Some(RetryIn::Minutes(7)));
    assert_eq!(found, Err(AnswerError::Refused(expected)));
    let body = b"d14:failure reasoni1ee";
    let found = AnnounceAnswer::decode(body);
    assert_eq!(found, Err(AnswerError::Refused(refusal("", None))));
}

#[test]
fn scrape_of_unknown_torrents_is_empty() {
    assert_eq!(
        ScrapeAnswer::decode(b"d5:filesdee").unwrap().files,
        BTreeMap::new()
    );
    let body = b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei3e10:downloadedi-1eee\
        5:flagsd20:min_request_intervali900eee";
    for len in 0..body.len() {
        assert!(ScrapeAnswer::decode(&body[..len]).is_err());
    }
    let answer = ScrapeAnswer::decode(body).unwrap();
    let figures = answer.files[&InfoHashV1::from_bytes([b'a'; 20])];
    assert_eq!((figures.complete, figures.downloaded), (3, 0));
    assert_eq!(answer.min_request_interval, Some(900));
}

#[test]
fn query_is_put_where_the_url_has_room_for_it() {
    for (url, whole) in [
        ("http://t/a", "http://t/a?x=1"),
        ("http://t/a?", "http://t/a?x=1"),
        ("http://t/a?k=2", "http://t/a?k=2&x=1"),
        ("http://t/a?k=2&", "http://t/a?k=2&x=1"),
        ("http://t/a?k=2#part", "http://t/a?k=2&x=1"),
        ("http://t/a#part", "http://t/a?x=1"),
    ] {
        assert_eq!(with_query(url, "x=1"), whole);
    }
    // What is behind the path is none of it, also where it looks like one.
    for (url, scrape) in [
        ("http://t/announce?k=/b", Some("http://t/scrape?k=/b")),
        ("http://t/announce#/b", Some("http://t/scrape#/b")),
        ("http://t/a?k=/announce", None),
        ("http://t/a#/announce", None),
    ] {
        assert_eq!(scrape_url(url).as_deref(), scrape, "{url}");
    }
}

#[test]
fn answer_of_too_much_is_read_as_far_as_the_bounds_go() {
    let mut long = AnnounceAnswer::default();
    let addrs =
        (0..=MAX_ANSWER_PEERS as u32).map(|n| SocketAddr::new((n + 1).to_be_bytes().into(), 7));
    long.peers = addrs.map(HttpPeer::from).collect();
    for form in [PeersForm::Compact, PeersForm::Full] {
        let read = AnnounceAnswer::decode(&long.encode(form)).unwrap();
        assert_eq!(read.peers, long.peers[..MAX_ANSWER_PEERS]);
    }
    for (len, is_kept) in [(MAX_TEXT_LEN, true), (MAX_TEXT_LEN + 1, false)] {
        let mut answer = AnnounceAnswer::default();
        (answer.warning, answer.tracker_id) = (Some("w".repeat(len)), Some(vec![7; len]));
        let read = AnnounceAnswer::decode(&answer.encode(PeersForm::Compact)).unwrap();
        let kept = (read.warning.is_some(), read.tracker_id.is_some());
        assert_eq!(kept, (is_kept, is_kept));
    }
}
