//! The formats of BitTorrent.

use bt_lite::bittorrent::bencode::MAX_BENCODE_DEPTH;
use bt_lite::bittorrent::tracker::http::{
    AnnounceAnswer, AnnounceQuery, AnswerError, MAX_ANSWER_PEERS, MAX_TEXT_LEN, PeersForm,
    ScrapeAnswer, ScrapeQuery, scrape_url, with_query,
};
use bt_lite::bittorrent::tracker::udp::{MAX_ERROR_LEN, MAX_PACKET_LEN, UdpRequest, UdpResponse};
use bt_lite::bittorrent::wire::{
    ClientId, ExtendedHandshake, HANDSHAKE_LEN, Handshake, HandshakeHead, MAX_ASKED_LEN,
    MAX_EXTENDED_LEN, MAX_PEX_PEERS, Message, MetadataMessage, PexMessage, WireLimits, WireReader,
};
use bt_lite::bittorrent::{InfoHashV1, InfoHashV2, Magnet, Metainfo};
use bt_lite::content::MAX_CHUNKS;
use bt_lite::{FolderPath, fuzzing};
use bytes::{Bytes, BytesMut};

use crate::input::Input;
use crate::memory::Bound;

/// What the reader of the crate `bendy` makes room for at once, however short the input is:
/// 2048 levels of 72 bytes, of which it may use as many as `MAX_BENCODE_DEPTH`.
const READER: usize = 144 << 10;
/// The form in order is built beside the one that came, and values that are taken out of it
/// have texts of their own.
const BENCODE_MEMORY: Bound = Bound::new(64, READER + (16 << 10));
/// A file of some ten bytes has two paths, which are compared without upper and lower case.
const METAINFO_MEMORY: Bound = Bound::new(128, READER + (32 << 10));
/// A byte may become three where it is no UTF-8, and some become a text of their own.
const TEXT_MEMORY: Bound = Bound::new(64, 16 << 10);
/// What a message announces is made room for: no more than its type may have. The longest is
/// the bitfield of a torrent that is not known. Each message has a fixed size besides, and
/// the shortest has four bytes.
const WIRE_MEMORY: Bound = Bound::new(
    4 + 2 * size_of::<Message>() / 4,
    (MAX_CHUNKS as usize / 8) + (MAX_EXTENDED_LEN + MAX_ASKED_LEN) as usize,
);

/// Bencode. What the strict reader accepts is in canonical form; what is put in order is
/// accepted, and is in order already.
pub fn bencode(data: &[u8]) {
    let is_strict = BENCODE_MEMORY.of(data.len(), || fuzzing::bencode_is_strict(data));
    let canonical = BENCODE_MEMORY.of(data.len(), || fuzzing::bencode_canonical(data));
    let sorted = BENCODE_MEMORY.of(data.len(), || fuzzing::bencode_sorted(data));
    if is_strict {
        match &canonical {
            Some((value, taken)) => assert!(value == data && *taken == data.len()),
            // What nobody asks for may be an integer of more than 64 bits.
            None => assert!(
                data.windows(19)
                    .any(|part| part.iter().all(u8::is_ascii_digit))
            ),
        }
        assert_eq!(sorted.as_deref(), Some(data));
    }
    if let Some((value, taken)) = canonical {
        assert!(value.len() <= taken && taken <= data.len());
        assert!(fuzzing::bencode_is_strict(&value));
        assert_eq!(
            fuzzing::bencode_canonical(&value),
            Some((value.clone(), value.len()))
        );
        let depth = value.iter().take_while(|byte| b"ld".contains(byte)).count();
        assert!(depth <= MAX_BENCODE_DEPTH);
    }
    if let Some(sorted) = sorted {
        assert_eq!(sorted.len(), data.len());
        assert!(fuzzing::bencode_is_strict(&sorted));
    }
    // The value of a key is what is written there.
    for key in [&b"info"[..], b"a", b""] {
        if let Some(value) = fuzzing::bencode_written_value(data, key) {
            let at = value.as_ptr() as usize - data.as_ptr() as usize;
            assert_eq!(&data[at..at + value.len()], value);
            assert!(fuzzing::bencode_canonical(value).is_some_and(|(_, len)| len == value.len()));
        }
    }
}

/// Torrent files, whole and as the info dictionary that peers give. What is accepted can be
/// built inside a folder, its numbers fit each other, and it is the same when it is written.
pub fn metainfo(data: &[u8]) {
    let whole = METAINFO_MEMORY.of(data.len(), || Metainfo::from_bytes(data));
    let bare = METAINFO_MEMORY.of(data.len(), || Metainfo::from_info(data));
    [whole, bare].iter().flatten().for_each(check_torrent);
}

fn check_torrent(torrent: &Metainfo) {
    let mut end = 0;
    for file in torrent.files() {
        assert_eq!(file.offset(), end);
        end += file.length();
        assert_eq!(
            file.path().as_str().parse::<FolderPath>().as_ref(),
            Ok(file.path())
        );
    }
    assert_eq!(torrent.total_length(), end);
    assert!(torrent.data_length() <= end && torrent.pieces() > 0);
    let v1 = torrent.info_hash_v1();
    assert!(v1.is_none_or(|hash| hash == InfoHashV1::of(torrent.info_bytes())));
    let v2 = torrent.info_hash_v2();
    assert!(v2.is_none_or(|hash| hash == InfoHashV2::of(torrent.info_bytes())));
    assert!(v1.is_some() || v2.is_some());
    let few = torrent.pieces().min(1000);
    let (mut all, mut with_data) = (0, 0);
    for piece in 0..few {
        let len = torrent.len_of_piece(piece);
        let data_len = torrent.data_len_of_piece(piece);
        assert!(data_len <= len && len > 0 && len <= torrent.piece_length());
        (all, with_data) = (all + u64::from(len), with_data + u64::from(data_len));
        if let Some(root) = torrent.piece_root(piece) {
            assert!(root.leaves.is_power_of_two() && root.data_len == data_len);
            assert!(u64::from(root.leaves) * 16_384 >= u64::from(data_len));
        }
        assert_eq!(torrent.piece_hash_v1(piece).is_some(), v1.is_some());
    }
    if few == torrent.pieces() {
        assert!(all == end && with_data >= torrent.data_length());
    }
    assert_eq!(
        Metainfo::from_bytes(&torrent.to_bytes()).as_ref(),
        Ok(torrent)
    );
    let bare = Metainfo::from_info(torrent.info_bytes()).expect("it was read");
    assert_eq!((bare.info_hash_v1(), bare.info_hash_v2()), (v1, v2));
    let magnet = Magnet::of(torrent);
    assert_eq!(magnet.info_hash(), v1.or(v2.map(|hash| hash.truncated())));
}

/// Magnet links and info hashes. What is read is the same when it is written and read again.
pub fn magnets(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(magnet) = TEXT_MEMORY.of(text.len(), || text.parse::<Magnet>()) {
        let written = magnet.to_string();
        // What is escaped takes three bytes, so the text may have become too long.
        match written.parse::<Magnet>() {
            Ok(again) => assert_eq!(again, magnet),
            Err(error) => assert!(written.len() > 32 << 10, "{error}"),
        }
        assert!(magnet.info_hash().is_some());
        let first = magnet.selected.as_ref().and_then(|ranges| ranges.first());
        assert!(first.is_none_or(|range| magnet.selects(*range.start())));
    }
    if let Ok(hash) = text.parse::<InfoHashV1>() {
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }
    if let Ok(hash) = text.parse::<InfoHashV2>() {
        assert_eq!(hash.to_string(), text.to_ascii_lowercase());
    }
}

/// Messages and handshakes between two clients, which come in any pieces. They are what they
/// would be at once, and are written as the same bytes.
pub fn wire(data: &[u8]) {
    let mut input = Input::new(data);
    let chunks = match input.u8() {
        0 => None,
        chunks => Some(u32::from(chunks)),
    };
    let cuts = usize::from(input.below(16));
    let cuts = input.bytes(cuts);
    let bytes = input.rest();
    handshake(bytes, cuts);
    let reader = WireReader::new(WireLimits { chunks });
    let read_all = |cuts: &[u8]| {
        let (mut buffer, mut rest) = (BytesMut::new(), bytes);
        let mut messages = Vec::new();
        for at in 0.. {
            let cut = match cuts.get(at) {
                Some(cut) => usize::from(*cut).min(rest.len()),
                None => rest.len(),
            };
            let (piece, after) = rest.split_at(cut);
            buffer.extend_from_slice(piece);
            rest = after;
            loop {
                match reader.next(&mut buffer) {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Err(error), buffer.len() + rest.len()),
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        (messages, Ok(()), buffer.len())
    };
    let (read, end, left) = WIRE_MEMORY.of(bytes.len(), || read_all(cuts));
    if !cuts.is_empty() {
        let whole = read_all(&[]);
        assert_eq!((&read, end), (&whole.0, whole.1));
    }
    let written: Vec<u8> = read
        .iter()
        .cloned()
        .flat_map(|message| {
            let frame = message.encode();
            [frame.head, frame.body].concat()
        })
        .collect();
    // Nothing is kept of messages of unknown types but the type.
    if !read
        .iter()
        .any(|message| matches!(message, Message::Unknown { .. }))
    {
        assert_eq!(written, bytes[..bytes.len() - left]);
    }
}

fn handshake(bytes: &[u8], cuts: &[u8]) {
    let mut buffer = BytesMut::new();
    let (mut rest, mut head) = (bytes, None);
    for at in 0.. {
        let cut = cuts.get(at).map_or(rest.len(), |cut| usize::from(*cut));
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = after;
        if head.is_none() {
            match HandshakeHead::take(&mut buffer) {
                Ok(taken) => head = taken,
                Err(_) => break,
            }
        }
        if let Some(head) = head
            && let Some(peer_id) = ClientId::take(&mut buffer)
        {
            let handshake = Handshake { head, peer_id };
            assert_eq!(handshake.encode()[..], bytes[..HANDSHAKE_LEN]);
            assert!(
                peer_id
                    .client()
                    .is_none_or(|client| client.version.len() <= 80)
            );
            break;
        }
        if rest.is_empty() {
            break;
        }
    }
}

/// Queries to trackers over HTTP, and their answers.
pub fn http_trackers(data: &[u8]) {
    let read = || AnnounceAnswer::decode(data);
    match BENCODE_MEMORY.of(data.len(), read) {
        Ok(answer) => {
            assert!(answer.peers.len() <= MAX_ANSWER_PEERS);
            assert!(answer.peers.iter().all(|peer| peer.addr.port() > 0));
            // What is no UTF-8 becomes longer, and then it may be too long.
            let is_short =
                |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= MAX_TEXT_LEN);
            if is_short(&answer.warning) {
                let again = AnnounceAnswer::decode(&answer.encode(PeersForm::Full));
                assert_eq!(again.as_ref(), Ok(&answer));
                let compact = AnnounceAnswer::decode(&answer.encode(PeersForm::Compact));
                let mut expected = answer;
                expected.peers.sort_by_key(|peer| peer.addr.is_ipv6());
                expected
                    .peers
                    .iter_mut()
                    .for_each(|peer| peer.peer_id = None);
                assert_eq!(compact, Ok(expected));
            }
        }
        Err(AnswerError::Refused(refusal)) if refusal.reason.len() <= MAX_TEXT_LEN => {
            let again = AnnounceAnswer::decode(&refusal.encode());
            assert_eq!(again, Err(AnswerError::Refused(refusal)));
        }
        Err(_) => {}
    }
    if let Ok(answer) = BENCODE_MEMORY.of(data.len(), || ScrapeAnswer::decode(data)) {
        assert_eq!(ScrapeAnswer::decode(&answer.encode()).as_ref(), Ok(&answer));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(query) = TEXT_MEMORY.of(text.len(), || AnnounceQuery::from_query(text)) {
        let written = query.to_query();
        assert_eq!(AnnounceQuery::from_query(&written).as_ref(), Ok(&query));
    }
    if let Ok(query) = TEXT_MEMORY.of(text.len(), || ScrapeQuery::from_query(text)) {
        assert_eq!(
            ScrapeQuery::from_query(&query.to_query()).as_ref(),
            Ok(&query)
        );
    }
    assert!(scrape_url(text).is_none_or(|url| url.contains("/scrape")));
    assert!(with_query(text, "left=0").contains("left=0"));
}

/// Packets of trackers over UDP, both ways.
pub fn udp_trackers(data: &[u8]) {
    if let Ok(request) = TEXT_MEMORY.of(data.len(), || UdpRequest::decode(data)) {
        let written = request.encode();
        assert_eq!(UdpRequest::decode(&written).as_ref(), Ok(&request));
    }
    for is_v6 in [false, true] {
        let read = || UdpResponse::decode(data, is_v6);
        if let Ok(response) = TEXT_MEMORY.of(data.len(), read) {
            let written = response.encode();
            assert!(written[4..8] == response.transaction_id().to_be_bytes());
            let again = UdpResponse::decode(&written, is_v6).expect("it was written");
            match &response {
                // What is no UTF-8 becomes longer, and then it may be too long.
                UdpResponse::Error { message, .. } if message.len() > MAX_ERROR_LEN => {}
                // As many peers as a packet has room for.
                UdpResponse::Announce { peers, .. } if peers.len() > 60 => {
                    assert!(written.len() <= MAX_PACKET_LEN);
                }
                _ => assert_eq!(again, response),
            }
        }
    }
}

/// The extensions of BitTorrent: what is said of pieces of the info dictionary, of other
/// peers, and of oneself.
pub fn extensions(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let read = || MetadataMessage::decode(&payload);
    if let Ok(message) = BENCODE_MEMORY.of(data.len(), read) {
        assert_eq!(
            MetadataMessage::decode(&message.encode()).as_ref(),
            Ok(&message)
        );
    }
    if let Ok(message) = BENCODE_MEMORY.of(data.len(), || PexMessage::decode(data)) {
        assert!(message.added.len() <= 2 * MAX_PEX_PEERS);
        assert!(message.dropped.len() <= 2 * MAX_PEX_PEERS);
        assert_eq!(PexMessage::decode(&message.encode()).as_ref(), Ok(&message));
    }
    if let Ok(about) = BENCODE_MEMORY.of(data.len(), || ExtendedHandshake::decode(data)) {
        assert_eq!(
            ExtendedHandshake::decode(&about.encode()).as_ref(),
            Ok(&about)
        );
    }
}
