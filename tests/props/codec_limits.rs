//! The bounds of the codec, each from both sides.

use std::time::Duration;

use bt_lite::content::{
    Bitfield, BlockRange, ChunkIndex, ContentId, ContentName, MAX_CHUNK_LEN, MAX_CHUNKS,
    MAX_CONTENT_LEN, NameError,
};
use bt_lite::protocol::limits::{
    HASHES_PER_PAGE, LINK_FRAMES, MAX_AMBIGUOUS, MAX_BATCH, MAX_BLOCK_LEN, MAX_FRAMES,
    MAX_HEARTBEAT, MAX_MANIFEST_PAGE, MAX_OWNERS, TRACKER_FRAMES, VERSION,
};
use bt_lite::protocol::{
    Addr, AddrError, ChannelId, Found, Frame, Hello, LinkCookie, ListedOwner, OwnEntry, OwnState,
    OwnerRef, PeerId, PeerMessage, ProtocolError, Refusal, RefusedEntry, Registered, Token,
    TrackerReply, TrackerRequest, Upload, ZoneTag,
};
use bytes::Bytes;

const TOKEN: Token = Token([9; 16]);

fn longest_addr() -> Addr {
    "a".repeat(255).parse().unwrap()
}

fn longest_name() -> ContentName {
    "n".repeat(255).parse().unwrap()
}

fn id() -> ContentId {
    ContentId::of(b"")
}

fn own(count: usize, length: u64) -> TrackerRequest {
    let entry = OwnEntry::new(id(), longest_name(), length, OwnState::Complete);
    TrackerRequest::Own {
        token: TOKEN,
        entries: vec![entry; count],
    }
}

fn update(count: usize) -> TrackerRequest {
    let upload = Upload::new(OwnerRef(u64::MAX), u64::MAX);
    TrackerRequest::Update {
        token: TOKEN,
        uploads: vec![upload; count],
    }
}

fn found(count: usize, length: u64) -> TrackerReply {
    let owner = ListedOwner::new(OwnerRef(u64::MAX), longest_addr(), true);
    TrackerReply::Found(Found::new(id(), longest_name(), length, vec![owner; count]))
}

fn found_by_importer(owners: usize, importers: u16) -> TrackerReply {
    let TrackerReply::Found(mut found) = found(owners, 0) else {
        unreachable!("it is made so");
    };
    found.importers = Some(importers);
    TrackerReply::Found(found)
}

fn registered(heartbeat: Duration) -> TrackerReply {
    TrackerReply::Registered(Registered::new(
        TOKEN,
        u64::MAX,
        heartbeat,
        Some(longest_addr()),
    ))
}

fn range_field<T>(result: Result<T, ProtocolError>) -> Option<&'static str> {
    match result {
        Err(ProtocolError::Range { field, .. }) => Some(field),
        _ => None,
    }
}

/// A frame with a type, its fields, and a body of `body` bytes.
fn frame(kind: u8, fields: &[&[u8]], body: usize) -> Frame {
    Frame {
        head: [&[kind], &fields.concat()[..]].concat().into(),
        body: vec![0; body].into(),
    }
}

/// The same on channel 0 of a session.
fn on_session(kind: u8, fields: &[&[u8]], body: usize) -> Frame {
    frame(kind, &[&[0; 4][..], &fields.concat()], body)
}

fn peer(kind: u8, fields: &[u32], body: usize) -> Result<PeerMessage, ProtocolError> {
    let fields: Vec<[u8; 4]> = fields.iter().map(|field| field.to_be_bytes()).collect();
    let fields: Vec<&[u8]> = fields.iter().map(|field| &field[..]).collect();
    on_channel(on_session(kind, &fields, body))
}

/// The message of a frame, on whatever channel.
fn on_channel(frame: Frame) -> Result<PeerMessage, ProtocolError> {
    PeerMessage::decode(frame).map(|(_, message)| message)
}

fn partly(places: impl IntoIterator<Item = u16>) -> TrackerReply {
    let refused = places.into_iter().map(|at| {
        RefusedEntry::new(
            at,
            Refusal::ForeignAddress {
                addr: longest_addr(),
            },
        )
    });
    TrackerReply::Partly(refused.collect())
}

#[test]
fn refused_entries_must_not_be_empty_and_must_be_in_order() {
    let most = MAX_BATCH as u16;
    for places in [
        vec![],
        vec![1, 1],
        vec![1, 0],
        vec![0, most],
        (0..=most).collect(),
    ] {
        let encoded = partly(places).encode();
        assert!(matches!(encoded, Err(ProtocolError::Range { .. })));
    }
    let head = |places: &[u16]| {
        let count = (places.len() as u16).to_be_bytes();
        let entries = places.iter().flat_map(|at| {
            let [high, low] = at.to_be_bytes();
            [high, low, 10]
        });
        frame(0x55, &[&count, &entries.collect::<Vec<_>>()], 0)
    };
    let busy = |places: &[u16]| {
        let refused = places
            .iter()
            .map(|&at| RefusedEntry::new(at, Refusal::Busy));
        TrackerReply::Partly(refused.collect())
    };
    assert_eq!(TrackerReply::decode(head(&[0, 7])), Ok(busy(&[0, 7])));
    for places in [&[][..], &[1, 1], &[1, 0], &[0, most]] {
        let decoded = TrackerReply::decode(head(places));
        assert!(matches!(decoded, Err(ProtocolError::Range { .. })));
    }
}

#[test]
fn importers_are_no_more_than_the_owners() {
    for importers in [0, 3] {
        let frame = found_by_importer(3, importers).encode().unwrap();
        let decoded = TrackerReply::decode(frame);
        assert_eq!(decoded, Ok(found_by_importer(3, importers)));
    }
    let encoded = found_by_importer(3, 4).encode();
    assert_eq!(range_field(encoded), Some("importers"));
    let mut head = found_by_importer(3, 3).encode().unwrap().head.to_vec();
    head[1..3].copy_from_slice(&4u16.to_be_bytes());
    let decoded = TrackerReply::decode(Frame::head(head));
    assert_eq!(range_field(decoded), Some("importers"));
}

#[test]
fn zone_tags_have_23_bits() {
    let most = ZoneTag::from_number(ZoneTag::MAX).unwrap();
    let request = TrackerRequest::Zone {
        token: TOKEN,
        zone: most,
    };
    let frame = request.encode().unwrap();
    let mut head = frame.head.to_vec();
    assert_eq!(TrackerRequest::decode(frame), Ok(request));
    let beyond = (ZoneTag::MAX + 1).to_be_bytes();
    head[17..].copy_from_slice(&beyond);
    let decoded = TrackerRequest::decode(Frame::head(head));
    assert_eq!(range_field(decoded), Some("zone"));
    assert_eq!(ZoneTag::from_number(ZoneTag::MAX + 1), None);
}

#[test]
fn longest_tracker_messages_fit_into_their_frames() {
    let requests = [
        own(MAX_BATCH, MAX_CONTENT_LEN),
        update(MAX_BATCH),
        TrackerRequest::Register {
            listen: Some(longest_addr()),
            token: Some(TOKEN),
        },
        TrackerRequest::Need {
            token: TOKEN,
            key: longest_name().into(),
            max_owners: u16::MAX,
        },
    ];
    let replies = [
        found(MAX_OWNERS.into(), MAX_CONTENT_LEN),
        found_by_importer(MAX_OWNERS.into(), MAX_OWNERS),
        registered(MAX_HEARTBEAT),
        TrackerReply::Ambiguous(vec![(id(), 0); MAX_AMBIGUOUS]),
        TrackerReply::Refused(Refusal::ForeignAddress {
            addr: longest_addr(),
        }),
        partly(0..MAX_BATCH as u16),
    ];
    let most = usize::from(TRACKER_FRAMES.head);
    for request in requests {
        let frame = request.encode().unwrap();
        assert!(frame.head.len() <= most && frame.body.is_empty());
        assert_eq!(TrackerRequest::decode(frame), Ok(request));
    }
    for reply in replies {
        let frame = reply.encode().unwrap();
        assert!(frame.head.len() <= most && frame.body.is_empty());
        assert_eq!(TrackerReply::decode(frame), Ok(reply));
    }
    const { assert!(LINK_FRAMES.body <= MAX_FRAMES.body) };
}

#[test]
fn list_with_too_many_entries_is_not_encoded() {
    let listed = [
        (own(MAX_BATCH + 1, 0).encode(), MAX_BATCH),
        (own(1 << 16, 0).encode(), MAX_BATCH),
        (update((1 << 16) + 1).encode(), MAX_BATCH),
        (
            found(usize::from(MAX_OWNERS) + 1, 0).encode(),
            MAX_OWNERS.into(),
        ),
        (
            TrackerReply::Ambiguous(vec![(id(), 0); MAX_AMBIGUOUS + 1]).encode(),
            MAX_AMBIGUOUS,
        ),
    ];
    for (encoded, most) in listed {
        assert!(matches!(
            encoded,
            Err(ProtocolError::Range { found, min: 0, max, .. })
                if found > max && max == most as u64
        ));
    }
}

#[test]
fn content_or_heartbeat_out_of_bounds_is_not_encoded() {
    let length = MAX_CONTENT_LEN + 1;
    assert_eq!(range_field(own(1, length).encode()), Some("content length"));
    assert_eq!(
        range_field(found(1, length).encode()),
        Some("content length")
    );
    let ambiguous = TrackerReply::Ambiguous(vec![(id(), length)]);
    assert_eq!(range_field(ambiguous.encode()), Some("content length"));
    for odd in [
        Duration::ZERO,
        Duration::from_micros(999),
        MAX_HEARTBEAT + Duration::from_millis(1),
        Duration::MAX,
    ] {
        assert_eq!(range_field(registered(odd).encode()), Some("heartbeat"));
    }
}

#[test]
fn list_that_claims_more_entries_than_it_has_bytes_for_is_refused_before_memory_is_reserved() {
    let token = [9; 16];
    let most = (MAX_BATCH as u16).to_be_bytes();
    for (kind, least) in [(0x41, 43), (0x43, 16)] {
        let claimed =
            |count: &[u8]| TrackerRequest::decode(frame(kind, &[&token, count, b"few"], 0));
        assert!(range_field(claimed(&[0xff, 0xff])).is_some());
        assert_eq!(
            claimed(&most),
            Err(ProtocolError::Truncated {
                needed: MAX_BATCH * least,
                left: 3
            })
        );
    }
    let claimed =
        |count: u16| TrackerReply::decode(frame(0x53, &[&count.to_be_bytes(), b"few"], 0));
    assert!(range_field(claimed(u16::MAX)).is_some());
    assert!(matches!(
        claimed(MAX_AMBIGUOUS as u16),
        Err(ProtocolError::Truncated { left: 3, .. })
    ));
}

#[test]
fn hello_and_register_of_another_version_or_protocol_are_recognized() {
    for found in [0, VERSION + 1, 0xff] {
        let fields: [&[u8]; 3] = [b"bt_lite", &[found], b"anything else"];
        let version = ProtocolError::Version { found };
        let hello = PeerMessage::decode(on_session(0x20, &fields, 3));
        assert_eq!(hello.unwrap_err(), version);
        let register = TrackerRequest::decode(frame(0x40, &fields, 0));
        assert_eq!(register.unwrap_err(), version);
    }
    let fields: [&[u8]; 2] = [b"bt_Lite", &[VERSION]];
    let hello = PeerMessage::decode(on_session(0x20, &fields, 0));
    assert_eq!(hello, Err(ProtocolError::Magic));
    let register = TrackerRequest::decode(frame(0x40, &fields, 0));
    assert_eq!(register, Err(ProtocolError::Magic));
}

#[test]
fn unknown_types_and_empty_frames_are_refused() {
    for found in [0x09, 0x11, 0x2d, 0x3f, 0x40, 0x50, 0xff] {
        let decoded = PeerMessage::decode(on_session(found, &[], 5));
        assert_eq!(decoded, Err(ProtocolError::Type { found }));
    }
    for found in [0x00, 0x20, 0x46, 0x50] {
        let decoded = TrackerRequest::decode(frame(found, &[], 0));
        assert_eq!(decoded, Err(ProtocolError::Type { found }));
    }
    for found in [0x00, 0x40, 0x4f, 0x57] {
        let decoded = TrackerReply::decode(frame(found, &[], 0));
        assert_eq!(decoded, Err(ProtocolError::Type { found }));
    }
    let empty = Frame::default();
    let early = ProtocolError::Truncated { needed: 1, left: 0 };
    assert_eq!(PeerMessage::decode(empty.clone()).unwrap_err(), early);
    assert_eq!(TrackerRequest::decode(empty.clone()).unwrap_err(), early);
    assert_eq!(TrackerReply::decode(empty).unwrap_err(), early);
}

#[test]
fn block_at_each_bound_is_accepted_or_refused() {
    let longest = MAX_CHUNK_LEN as u32;
    for kind in [0x06, 0x08, 0x10] {
        let block = |chunk, offset, len| range_field(peer(kind, &[chunk, offset, len], 0));
        assert_eq!(block(0, 0, 0), None);
        assert_eq!(block(0, 0, MAX_BLOCK_LEN), None);
        assert_eq!(block(MAX_CHUNKS - 1, longest - 1, 1), None);
        assert_eq!(block(0, 1, 0), Some("block length"));
        assert_eq!(block(1, 0, 0), Some("block length"));
        assert_eq!(block(0, 0, MAX_BLOCK_LEN + 1), Some("block length"));
        assert_eq!(block(0, 0, u32::MAX), Some("block length"));
        assert_eq!(block(0, longest, 1), Some("block offset"));
        assert_eq!(block(0, u32::MAX, MAX_BLOCK_LEN), Some("block offset"));
        assert_eq!(block(MAX_CHUNKS, 0, 1), Some("chunk index"));
    }
    let block = |chunk, offset, len| range_field(peer(0x07, &[chunk, offset], len));
    assert_eq!(block(0, 0, 0), None);
    assert_eq!(block(MAX_CHUNKS - 1, longest - 1, 1), None);
    assert_eq!(block(0, 0, MAX_BLOCK_LEN as usize), None);
    assert_eq!(
        block(0, 0, MAX_BLOCK_LEN as usize + 1),
        Some("block length")
    );
    assert_eq!(block(7, 0, 0), Some("block length"));
    assert_eq!(block(0, 7, 0), Some("block length"));
    assert_eq!(block(0, longest, 1), Some("block offset"));
    assert_eq!(block(MAX_CHUNKS, 0, 1), Some("chunk index"));
    for kind in [0x04, 0x0d] {
        assert!(peer(kind, &[MAX_CHUNKS - 1], 0).is_ok());
        assert_eq!(
            range_field(peer(kind, &[MAX_CHUNKS], 0)),
            Some("chunk index")
        );
    }
}

#[test]
fn bitfield_at_each_bound_is_accepted_or_refused() {
    let most = Bitfield::byte_len(MAX_CHUNKS);
    assert!(most <= LINK_FRAMES.body as usize);
    for (len, accepted) in [(0, false), (1, true), (most, true), (most + 1, false)] {
        assert_eq!(peer(0x05, &[], len).is_ok(), accepted, "{len} bytes");
    }
}

#[test]
fn manifest_page_at_each_bound_is_accepted_or_refused() {
    let page = |kind, page, body| range_field(peer(kind, &[page], body));
    for kind in [0x23, 0x26] {
        assert_eq!(page(kind, 0, 0), None);
        assert_eq!(page(kind, MAX_MANIFEST_PAGE, 0), None);
        assert_eq!(page(kind, MAX_MANIFEST_PAGE + 1, 0), Some("manifest page"));
    }
    assert_eq!(page(0x25, 0, 32), Some("manifest page"));
    assert_eq!(page(0x25, MAX_MANIFEST_PAGE + 1, 32), Some("manifest page"));
    assert_eq!(page(0x25, MAX_MANIFEST_PAGE, 32), None);
    let most = HASHES_PER_PAGE as usize * 32;
    assert_eq!(page(0x25, 1, most), None);
    assert_eq!(page(0x25, 1, most + 32), Some("hashes in a page"));
    assert_eq!(page(0x25, 1, 0), Some("hashes in a page"));
    for len in [1, 31, 33, most - 1] {
        let ragged = peer(0x25, &[1], len);
        assert_eq!(ragged, Err(ProtocolError::Hashes { len }));
    }
}

#[test]
fn length_proof_must_have_the_shape_that_the_length_requires() {
    let length = |length: u64, body| {
        let fields = length.to_be_bytes();
        range_field(PeerMessage::decode(on_session(0x24, &[&fields], body)))
    };
    for (content, len) in [
        (0, 0),
        (1, 1),
        (1024, 1024),
        (1025, 32 + 1),
        (16 << 10, 4 * 32 + 1024),
        (MAX_CONTENT_LEN, 14 * 32 + 1024),
    ] {
        assert_eq!(length(content, len), None);
        assert_eq!(length(content, len + 1), Some("length proof length"));
        if len > 0 {
            assert_eq!(length(content, len - 1), Some("length proof length"));
        }
    }
    for content in [MAX_CONTENT_LEN + 1, u64::MAX] {
        assert_eq!(length(content, 1024), Some("content length"));
    }
}

#[test]
fn unknown_choices_are_refused() {
    let token = [9; 16];
    let choice = |error: ProtocolError, found| {
        assert!(matches!(error, ProtocolError::Choice { found: f, .. } if f == found));
    };
    for found in [0, 11, 0xff] {
        choice(
            PeerMessage::decode(on_session(0x21, &[&[found]], 0)).unwrap_err(),
            found,
        );
    }
    for found in [0, 18, 0xff] {
        choice(
            TrackerReply::decode(frame(0x54, &[&[found]], 0)).unwrap_err(),
            found,
        );
    }
    let register = frame(0x40, &[b"bt_lite", &[VERSION], &[0], &[3], &token], 0);
    choice(TrackerRequest::decode(register).unwrap_err(), 3);
    let need = frame(0x42, &[&token, &[0, 9], &[2]], 0);
    choice(TrackerRequest::decode(need).unwrap_err(), 2);
    let entry: [&[u8]; 6] = [&token, &[0, 1], &[0; 32], &[3], &[0; 8], &[1, b'n']];
    choice(
        TrackerRequest::decode(frame(0x41, &entry, 0)).unwrap_err(),
        3,
    );
    let found = |flags: u8, addr: &[u8]| {
        let head: [&[u8]; 7] = [
            &[0; 32],
            &[0; 8],
            b"\x01n",
            &[0, 1],
            &[0; 8],
            &[flags],
            addr,
        ];
        TrackerReply::decode(frame(0x52, &head, 0))
    };
    choice(found(4, b"\x01a").unwrap_err(), 4);
    assert!(found(3, &[10, 0, 0, 7, 1, 1]).is_ok());
    // An address that fits into six bytes must not be sent as a text.
    choice(found(1, b"\x0a10.0.0.7:1").unwrap_err(), 1);
    assert!(found(1, b"\x0b10.0.0.7:01").is_ok());
}

#[test]
fn names_and_addresses_are_validated_when_they_are_read() {
    let token = [9; 16];
    let need = |name: &[u8]| {
        let len = [name.len() as u8];
        TrackerRequest::decode(frame(0x42, &[&token, &[0, 9], &[1], &len, name], 0)).unwrap_err()
    };
    assert_eq!(need(b""), ProtocolError::Name(NameError::Empty));
    assert_eq!(need(b".."), ProtocolError::Name(NameError::Dots));
    assert_eq!(need(b"\xff"), ProtocolError::Name(NameError::Encoding));
    assert_eq!(
        need(b"a/b"),
        ProtocolError::Name(NameError::Character { found: '/' })
    );
    let foreign = |addr: &[u8]| {
        let len = [addr.len() as u8];
        TrackerReply::decode(frame(0x54, &[&[3], &len, addr], 0)).unwrap_err()
    };
    assert_eq!(
        foreign(b""),
        ProtocolError::Addr(AddrError::Length { len: 0 })
    );
    assert_eq!(
        foreign(b"a b"),
        ProtocolError::Addr(AddrError::Character { at: 1 })
    );
    assert_eq!(
        foreign(b"ab\xff"),
        ProtocolError::Addr(AddrError::Character { at: 2 })
    );
}

#[test]
fn bodies_are_never_copied() {
    let received = Bytes::from(vec![5; 4096]);
    let data = received.slice(96..96 + 1024);
    let sent = PeerMessage::Block {
        chunk: ChunkIndex(0),
        offset: 0,
        data: data.clone(),
    };
    let frame = sent.encode(ChannelId(1));
    assert_eq!(frame.body.as_ptr(), data.as_ptr());
    let Ok(PeerMessage::Block { data: decoded, .. }) = on_channel(frame) else {
        panic!("a block");
    };
    assert_eq!(decoded.as_ptr(), data.as_ptr());

    for message in [
        PeerMessage::Bitfield(data.clone()),
        PeerMessage::ManifestHashes {
            page: 1,
            hashes: data.clone(),
        },
        PeerMessage::ManifestLength {
            length: 1024,
            proof: data.clone(),
        },
    ] {
        let frame = message.encode(ChannelId(1));
        assert_eq!(frame.body.as_ptr(), data.as_ptr());
        match on_channel(frame).unwrap() {
            PeerMessage::Bitfield(bytes)
            | PeerMessage::ManifestHashes { hashes: bytes, .. }
            | PeerMessage::ManifestLength { proof: bytes, .. } => {
                assert_eq!(bytes.as_ptr(), data.as_ptr());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn longest_link_messages_fit_into_their_frames() {
    let block = BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len: MAX_BLOCK_LEN,
    };
    for message in [
        PeerMessage::Hello(Hello::new(
            PeerId([1; 16]),
            Some(longest_addr()),
            LinkCookie([1; 16]),
        )),
        PeerMessage::Block {
            chunk: block.chunk,
            offset: block.offset,
            data: vec![0; block.len as usize].into(),
        },
        PeerMessage::ManifestHashes {
            page: 1,
            hashes: vec![0; HASHES_PER_PAGE as usize * 32].into(),
        },
        PeerMessage::Request(block),
    ] {
        let frame = message.encode(ChannelId(1));
        assert!(frame.head.len() <= LINK_FRAMES.head.into());
        assert!(frame.body.len() <= LINK_FRAMES.body as usize);
    }
}
