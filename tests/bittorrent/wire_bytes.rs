//! Bytes of handshakes and messages, as BEP 3, 6, 10 and 52 have them.

use bt_lite::bittorrent::wire::{
    ClientId, HANDSHAKE_LEN, Handshake, HandshakeHead, MAX_ASKED_LEN, MAX_EXTENDED_LEN, Message,
    PROTOCOL, Reserved, WireError, WireLimits, WireReader,
};
use bt_lite::content::{BlockRange, ChunkIndex};
use bytes::BytesMut;

fn handshake() -> Handshake {
    Handshake {
        head: HandshakeHead {
            reserved: Reserved::EXTENDED.with(Reserved::FAST),
            info_hash: [7; 20],
        },
        peer_id: ClientId(*b"-TR3000-abcdefghijkl"),
    }
}

fn reader() -> WireReader {
    WireReader::new(WireLimits { chunks: Some(20) })
}

fn read(bytes: &[u8]) -> Result<Option<Message>, WireError> {
    reader().next(&mut BytesMut::from(bytes))
}

#[test]
fn handshake_has_the_bytes_of_bep_3() {
    let bytes = handshake().encode();
    let expected = [
        &b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04"[..],
        &[7; 20],
        b"-TR3000-abcdefghijkl",
    ];
    assert_eq!(bytes[..], expected.concat());
    assert_eq!(bytes.len(), HANDSHAKE_LEN);
}

#[test]
fn handshake_says_the_torrent_before_the_peer_id_has_come() {
    let bytes = handshake().encode();
    for cut in 0..48 {
        let mut input = BytesMut::from(&bytes[..cut]);
        assert_eq!(HandshakeHead::take(&mut input), Ok(None));
        assert_eq!(input.len(), cut);
    }
    let mut input = BytesMut::from(&bytes[..48]);
    assert_eq!(HandshakeHead::take(&mut input), Ok(Some(handshake().head)));
    for byte in &bytes[48..] {
        assert_eq!(ClientId::take(&mut input), None);
        input.extend_from_slice(&[*byte]);
    }
    assert_eq!(ClientId::take(&mut input), Some(handshake().peer_id));
    assert!(input.is_empty());
}

#[test]
fn what_is_no_handshake_is_known_by_its_first_wrong_byte() {
    for at in 0..PROTOCOL.len() {
        let mut bytes = PROTOCOL[..=at].to_vec();
        bytes[at] ^= 1;
        let mut input = BytesMut::from(&bytes[..]);
        assert_eq!(HandshakeHead::take(&mut input), Err(WireError::Protocol));
    }
}

#[test]
fn reserved_bits_that_are_unknown_mean_nothing() {
    let all = Reserved([0xff; 8]);
    for bits in [
        Reserved::EXTENDED,
        Reserved::FAST,
        Reserved::DHT,
        Reserved::V2,
    ] {
        assert!(all.has(bits) && !Reserved::default().has(bits) && bits.has(bits));
    }
    assert!(!Reserved::FAST.has(Reserved::DHT.with(Reserved::FAST)));
}

#[test]
fn messages_have_the_bytes_of_bep_3_and_6() {
    let block = BlockRange {
        chunk: ChunkIndex(1),
        offset: 2,
        len: 3,
    };
    let ints = b"\0\0\0\x01\0\0\0\x02\0\0\0\x03";
    let with = |head: &[u8]| [head, &ints[..]].concat();
    let data = bytes::Bytes::from_static(b"xyz");
    let piece = Message::Block {
        chunk: block.chunk,
        offset: 2,
        data,
    };
    let cases = [
        (Message::KeepAlive, b"\0\0\0\0".to_vec()),
        (Message::Choke, b"\0\0\0\x01\0".to_vec()),
        (
            Message::Have(ChunkIndex(1)),
            b"\0\0\0\x05\x04\0\0\0\x01".to_vec(),
        ),
        (Message::Request(block), with(b"\0\0\0\x0d\x06")),
        (piece, b"\0\0\0\x0c\x07\0\0\0\x01\0\0\0\x02xyz".to_vec()),
        (Message::Cancel(block), with(b"\0\0\0\x0d\x08")),
        (Message::Port(258), b"\0\0\0\x03\x09\x01\x02".to_vec()),
        (Message::HaveAll, b"\0\0\0\x01\x0e".to_vec()),
        (Message::HaveNone, b"\0\0\0\x01\x0f".to_vec()),
        (Message::Reject(block), with(b"\0\0\0\x0d\x10")),
        (
            Message::AllowedFast(ChunkIndex(1)),
            b"\0\0\0\x05\x11\0\0\0\x01".to_vec(),
        ),
    ];
    for (message, bytes) in cases {
        assert_eq!(read(&bytes), Ok(Some(message.clone())));
        let frame = message.encode();
        assert_eq!([frame.head, frame.body].concat(), bytes);
    }
}

#[test]
fn lengths_that_a_type_cannot_have_are_refused_at_its_first_bytes() {
    let refused = |len: u32, kind: u8| {
        let bytes = [&len.to_be_bytes()[..], &[kind]].concat();
        let mut input = BytesMut::from(&bytes[..]);
        let capacity = input.capacity();
        let refused = reader().next(&mut input).is_err();
        assert!(!refused || input.capacity() == capacity, "room was made");
        refused
    };
    for fixed in [0, 1, 2, 3, 14, 15] {
        assert!(!refused(1, fixed) && refused(2, fixed));
    }
    for fixed in [4, 13, 17] {
        assert!(!refused(5, fixed) && refused(4, fixed) && refused(6, fixed));
    }
    // A bitfield of 20 chunks has three bytes.
    assert!(!refused(4, 5) && refused(3, 5) && refused(5, 5));
    assert!(!refused(9 + MAX_ASKED_LEN, 7) && refused(10 + MAX_ASKED_LEN, 7) && refused(8, 7));
    assert!(!refused(1 + MAX_EXTENDED_LEN, 20) && refused(2 + MAX_EXTENDED_LEN, 20));
    assert!(!refused(1 + MAX_EXTENDED_LEN, 99) && refused(2 + MAX_EXTENDED_LEN, 99));
    // No type can have these, so the type is not waited for.
    for len in [1 << 20, u32::MAX] {
        let mut input = BytesMut::from(&len.to_be_bytes()[..]);
        assert!(reader().next(&mut input).is_err());
    }
}

#[test]
fn bitfield_of_an_unknown_torrent_has_the_bound_of_any_content() {
    let reader = WireReader::new(WireLimits { chunks: None });
    let length = |len: u32| {
        let bytes = [&len.to_be_bytes()[..], &[5]].concat();
        reader.next(&mut BytesMut::from(&bytes[..]))
    };
    assert_eq!(length(1 + (1 << 17)), Ok(None));
    assert!(length(2 + (1 << 17)).is_err());
}

#[test]
fn block_is_not_copied() {
    let message = b"\0\0\0\x0c\x07\0\0\0\x01\0\0\0\x02xyz";
    let mut input = BytesMut::from(&message[..]);
    let place = input.as_ptr() as usize + 13;
    let Ok(Some(Message::Block { data, .. })) = reader().next(&mut input) else {
        panic!("a block");
    };
    assert_eq!((data.as_ptr() as usize, &data[..]), (place, &b"xyz"[..]));
}

#[test]
fn unknown_types_are_passed_over() {
    let mut input = BytesMut::from(&b"\0\0\0\x03\x63ab\0\0\0\x01\x01"[..]);
    let next = reader().next(&mut input);
    assert_eq!(next, Ok(Some(Message::Unknown { id: 0x63 })));
    assert_eq!(reader().next(&mut input), Ok(Some(Message::Unchoke)));
}

#[test]
fn clients_are_named_by_their_peer_ids() {
    let name = |id: &[u8; 20]| ClientId(*id).client().map(|client| client.to_string());
    for (id, expected) in [
        (b"-TR3000-abcdefghijkl", "Transmission 3.0.0.0"),
        (b"-LT2110-abcdefghijkl", "libtorrent 2.1.1.0"),
        (b"A2-1-36-0-abcdefghij", "aria2 1.36.0"),
        (b"-rQ9010-abcdefghijkl", "rqbit 9.0.1.0"),
        (b"-ZZ1200-abcdefghijkl", "ZZ 1.2.0.0"),
    ] {
        assert_eq!(name(id).unwrap(), expected);
    }
    for id in [
        b"S58B-----abcdefghijk",
        &[0xff; 20],
        b"-\0\0\0\0\0\0-abcdefghijkl",
    ] {
        assert_eq!(name(id), None);
    }
    let own = ClientId::of_this_crate(*b"0123456789ab");
    assert_eq!(&own.0, b"-bl0100-0123456789ab");
    assert_eq!(name(&own.0).unwrap(), "bt_lite 0.1.0.0");
    assert_ne!(own.to_peer_id(), ClientId([0; 20]).to_peer_id());
}
