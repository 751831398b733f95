//! Nothing that is read panics, whatever it is; and what is accepted keeps its promises.

use bt_lite::bittorrent::tracker::http::{
    AnnounceAnswer, AnnounceQuery, PeersForm, ScrapeAnswer, ScrapeQuery,
};
use bt_lite::bittorrent::tracker::udp::{UdpRequest, UdpResponse};
use bt_lite::bittorrent::{InfoHashV1, InfoHashV2, Magnet, Metainfo};
use proptest::prelude::*;

use crate::reference::TORRENTS;

/// Reads these bytes as everything that there is.
fn read_as_everything(bytes: &[u8]) {
    for torrent in [Metainfo::from_bytes(bytes), Metainfo::from_info(bytes)] {
        torrent.as_ref().map(check).unwrap_or_default();
    }
    _ = AnnounceAnswer::decode(bytes);
    _ = ScrapeAnswer::decode(bytes);
    _ = UdpRequest::decode(bytes);
    _ = UdpResponse::decode(bytes, false);
    _ = UdpResponse::decode(bytes, true);
    let text = String::from_utf8_lossy(bytes);
    _ = text.parse::<Magnet>();
    _ = text.parse::<InfoHashV1>();
    _ = text.parse::<InfoHashV2>();
    _ = AnnounceQuery::from_query(&text);
    _ = ScrapeQuery::from_query(&text);
}

/// What holds for every torrent that is accepted.
fn check(torrent: &Metainfo) {
    let mut end = 0;
    for file in torrent.files() {
        assert_eq!(file.offset(), end);
        end += file.length();
        let elements = file.path().elements();
        assert!(elements.clone().count() > 0);
        elements.for_each(|name| assert!(!["", ".", ".."].contains(&name)));
    }
    assert_eq!(torrent.total_length(), end);
    assert!(torrent.data_length() <= end && torrent.pieces() > 0);
    let (mut all, mut data) = (0, 0);
    for piece in 0..torrent.pieces().min(10_000) {
        let (len, data_len) = (
            torrent.len_of_piece(piece),
            torrent.data_len_of_piece(piece),
        );
        assert!(data_len <= len && len > 0);
        (all, data) = (all + u64::from(len), data + u64::from(data_len));
        if let Some(hash) = torrent.piece_root(piece) {
            assert!(hash.leaves.is_power_of_two() && hash.data_len == data_len);
            assert!(u64::from(hash.leaves) * 16384 >= u64::from(data_len));
        }
        assert_eq!(
            torrent.piece_hash_v1(piece).is_some(),
            torrent.info_hash_v1().is_some()
        );
    }
    if torrent.pieces() <= 10_000 {
        assert!(all == end && data >= torrent.data_length());
    }
    assert_eq!(
        Metainfo::from_bytes(&torrent.to_bytes()).as_ref(),
        Ok(torrent)
    );
}

/// Bencode, more or less.
fn almost_bencode() -> impl Strategy<Value = Vec<u8>> {
    const KEYS: [&str; 22] = [
        "info",
        "files",
        "length",
        "path",
        "name",
        "pieces",
        "piece length",
        "file tree",
        "attr",
        "meta version",
        "peers",
        "peers6",
        "interval",
        "failure reason",
        "retry in",
        "flags",
        "piece layers",
        "announce-list",
        "",
        "symlink path",
        "pieces root",
        "nodes",
    ];
    let key = prop::sample::select(&KEYS[..]).prop_map(|key| format!("{}:{key}", key.len()));
    let token = prop_oneof![
        3 => key.prop_map(String::into_bytes),
        1 => Just(b"d".to_vec()),
        1 => Just(b"l".to_vec()),
        2 => Just(b"e".to_vec()),
        1 => any::<i64>().prop_map(|n| format!("i{n}e").into_bytes()),
        1 => (0..9_i64).prop_map(|n| format!("i{n}e").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| [format!("{}:", bytes.len()).as_bytes(), &bytes].concat()),
        1 => any::<u64>().prop_map(|n| format!("{n}:").into_bytes()),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn what_looks_like_bencode_does_not_panic(bytes in almost_bencode()) {
        read_as_everything(&bytes);
    }

    #[test]
    fn changed_torrents_do_not_panic(
        which in 0..TORRENTS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of((any::<prop::sample::Index>(), 0..40_usize)),
    ) {
        let mut bytes = TORRENTS[which].1.to_vec();
        // Numbers and letters of the structure are changed to others of these.
        let structure: Vec<usize> = (0..bytes.len())
            .filter(|at| b"dlei:0123456789".contains(&bytes[*at]))
            .collect();
        for (at, byte) in changes {
            let byte = if byte < 128 { b"dlei:0123456789-"[usize::from(byte) % 16] } else { byte };
            bytes[*at.get(&structure)] = byte;
        }
        if let Some((at, len)) = cut {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + len);
            bytes.drain(at..end);
        }
        read_as_everything(&bytes);
    }
}

#[test]
fn claimed_lengths_take_no_memory() {
    // A reader that believed one of these would fail to allocate.
    for text in [
        "d4:info9223372036854775807:",
        "9999999999999:",
        "d5:peers4294967295:abce",
        "d8:intervali1e5:peers18446744073709551615:",
        "d4:infod6:lengthi9223372036854775807e4:name1:a12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaaee",
    ] {
        read_as_everything(text.as_bytes());
    }
    // Depth costs no stack.
    for text in [
        "l",
        "d0:",
        "d1:a",
        "d9:file tree",
        "d4:infod9:file treed1:a",
    ] {
        read_as_everything(text.repeat(200_000).as_bytes());
    }
    let answer = AnnounceAnswer::decode(&[b"d5:peers600000:", &[1; 600_000][..], b"e"].concat());
    assert_eq!(answer.unwrap().peers.len(), 4096);
    assert!(AnnounceAnswer::decode(&vec![b'd'; 2 << 20]).is_err());
}

#[test]
fn every_form_of_an_answer_may_be_cut_anywhere() {
    let answer = AnnounceAnswer::default();
    for form in [PeersForm::Compact, PeersForm::Full] {
        let bytes = answer.encode(form);
        for len in 0..bytes.len() {
            assert!(AnnounceAnswer::decode(&bytes[..len]).is_err());
        }
    }
}
