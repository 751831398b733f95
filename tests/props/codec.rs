//! Every message is decoded from its own encoding, and arbitrary bytes are decoded
//! or refused.

use std::net::SocketAddr;
use std::time::Duration;

use bt_lite::Geometry;
use bt_lite::content::{
    Bitfield, BlockRange, ChunkIndex, ContentId, ContentName, LengthProof, MAX_CHUNK_LEN,
    MAX_CHUNKS, MAX_CONTENT_LEN,
};
use bt_lite::protocol::limits::{
    HASHES_PER_PAGE, LINK_FRAMES, MAX_AMBIGUOUS, MAX_BATCH, MAX_BLOCK_LEN, MAX_HEARTBEAT,
    MAX_MANIFEST_PAGE, TRACKER_FRAMES,
};
use bt_lite::protocol::{
    Addr, ChannelId, ContentKey, Found, Frame, FrameLimits, Hello, LinkCookie, LinkProof,
    ListedOwner, OwnEntry, OwnState, OwnerRef, PeerId, PeerMessage, ProtocolError, Refusal,
    RefuseReason, RefusedEntry, Registered, Token, TrackerReply, TrackerRequest, Upload, ZoneTag,
};
use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn id() -> impl Strategy<Value = ContentId> {
    any::<[u8; 32]>().prop_map(ContentId::from_bytes)
}

fn token() -> impl Strategy<Value = Token> {
    any::<[u8; 16]>().prop_map(Token)
}

fn addr() -> impl Strategy<Value = Addr> {
    let text = vec(b'!'..=b'~', 1..=255).prop_map(|text| String::from_utf8(text).unwrap());
    let v4 = any::<(std::net::Ipv4Addr, u16)>().prop_map(|v4| SocketAddr::from(v4).to_string());
    let v6 = any::<(std::net::Ipv6Addr, u16)>().prop_map(|v6| SocketAddr::from(v6).to_string());
    // Almost an IPv4 address, with a leading zero in the port.
    let zeros = any::<(std::net::Ipv4Addr, u8)>().prop_map(|(ip, port)| format!("{ip}:0{port}"));
    let any = prop_oneof![3 => text, 2 => v4, 1 => v6, 1 => zeros];
    any.prop_map(|text| text.parse().unwrap())
}

fn name() -> impl Strategy<Value = ContentName> {
    let text = vec(
        select(vec!['a', 'Z', '0', '.', ' ', 'é', '文', '😀']),
        1..=63,
    );
    text.prop_filter_map("not . and not ..", |text| {
        text.into_iter().collect::<String>().parse().ok()
    })
}

fn content_len() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..=MAX_CONTENT_LEN,
        0..100_000u64,
        Just(0),
        Just(MAX_CONTENT_LEN)
    ]
}

fn chunk() -> impl Strategy<Value = ChunkIndex> {
    prop_oneof![0..MAX_CHUNKS, Just(0), Just(MAX_CHUNKS - 1)].prop_map(ChunkIndex)
}

fn bytes(len: impl Strategy<Value = usize>) -> impl Strategy<Value = Bytes> {
    (len, any::<u8>())
        .prop_map(|(len, first)| (first..=255).chain(0..=255).cycle().take(len).collect())
}

fn block() -> impl Strategy<Value = BlockRange> {
    let len = prop_oneof![1..=MAX_BLOCK_LEN, Just(1), Just(MAX_BLOCK_LEN)];
    let any_block = (chunk(), len, any::<Index>()).prop_map(|(chunk, len, offset)| BlockRange {
        chunk,
        offset: offset.index(MAX_CHUNK_LEN as usize - len as usize + 1) as u32,
        len,
    });
    let empty = BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len: 0,
    };
    prop_oneof![15 => any_block, 1 => Just(empty)]
}

fn reason() -> impl Strategy<Value = RefuseReason> {
    select(vec![
        RefuseReason::Version,
        RefuseReason::UnknownContent,
        RefuseReason::Busy,
        RefuseReason::SelfConnection,
        RefuseReason::Duplicate,
        RefuseReason::Banned,
        RefuseReason::NotNeeded,
        RefuseReason::ShuttingDown,
        RefuseReason::Identity,
        RefuseReason::Denied,
    ])
}

fn manifest_length() -> impl Strategy<Value = PeerMessage> {
    content_len().prop_flat_map(|length| {
        let (siblings, leaf) = LengthProof::shape(&Geometry::of(length).unwrap());
        bytes(Just(32 * siblings + leaf))
            .prop_map(move |proof| PeerMessage::ManifestLength { length, proof })
    })
}

fn manifest_hashes() -> impl Strategy<Value = PeerMessage> {
    let count = prop_oneof![9 => 1..100usize, 1 => Just(HASHES_PER_PAGE as usize)];
    (1..=MAX_MANIFEST_PAGE, bytes(count.prop_map(|n| 32 * n)))
        .prop_map(|(page, hashes)| PeerMessage::ManifestHashes { page, hashes })
}

fn channel() -> impl Strategy<Value = ChannelId> {
    any::<u32>().prop_map(ChannelId)
}

fn peer_message() -> impl Strategy<Value = PeerMessage> {
    let hello = (
        any::<[u8; 16]>(),
        proptest::option::of(addr()),
        any::<[u8; 16]>(),
    );
    let bitfield = prop_oneof![9 => 1..200usize, 1 => Just(Bitfield::byte_len(MAX_CHUNKS))];
    let page = || 0..=MAX_MANIFEST_PAGE;
    prop_oneof![
        hello.prop_map(|(peer, listen, cookie)| PeerMessage::Hello(Hello::new(
            PeerId(peer),
            listen,
            LinkCookie(cookie)
        ))),
        any::<[u8; 16]>().prop_map(|proof| PeerMessage::SamePeer(LinkProof(proof))),
        (1..=u32::MAX).prop_map(|position| PeerMessage::Queued { position }),
        reason().prop_map(PeerMessage::Refuse),
        select(vec![
            PeerMessage::KeepAlive,
            PeerMessage::HaveAll,
            PeerMessage::HaveNone,
            PeerMessage::Interested,
            PeerMessage::NotInterested,
            PeerMessage::Choke,
            PeerMessage::Unchoke,
        ]),
        bytes(bitfield).prop_map(PeerMessage::Bitfield),
        chunk().prop_map(PeerMessage::Have),
        chunk().prop_map(PeerMessage::Suggest),
        chunk().prop_map(PeerMessage::DontHave),
        chunk().prop_map(PeerMessage::Coming),
        Just(PeerMessage::Importing),
        block().prop_map(PeerMessage::Request),
        block().prop_map(PeerMessage::Cancel),
        block().prop_map(PeerMessage::Reject),
        block().prop_flat_map(
            |block| bytes(Just(block.len as usize)).prop_map(move |data| {
                PeerMessage::Block {
                    chunk: block.chunk,
                    offset: block.offset,
                    data,
                }
            })
        ),
        id().prop_map(PeerMessage::Open),
        page().prop_map(|page| PeerMessage::ManifestRequest { page }),
        page().prop_map(|page| PeerMessage::ManifestReject { page }),
        manifest_length(),
        manifest_hashes(),
    ]
}

fn own_entry() -> impl Strategy<Value = OwnEntry> {
    let states = vec![OwnState::Complete, OwnState::Partial, OwnState::Gone];
    (id(), name(), content_len(), select(states))
        .prop_map(|(id, name, length, state)| OwnEntry::new(id, name, length, state))
}

fn tracker_request() -> impl Strategy<Value = TrackerRequest> {
    let upload = any::<(u64, u64)>().prop_map(|(owner, bytes)| Upload::new(OwnerRef(owner), bytes));
    let key = prop_oneof![
        id().prop_map(ContentKey::Id),
        name().prop_map(ContentKey::Name)
    ];
    prop_oneof![
        (proptest::option::of(addr()), proptest::option::of(token()))
            .prop_map(|(listen, token)| TrackerRequest::Register { listen, token }),
        (token(), vec(own_entry(), 0..10))
            .prop_map(|(token, entries)| TrackerRequest::Own { token, entries }),
        (token(), key, any::<u16>()).prop_map(|(token, key, max_owners)| TrackerRequest::Need {
            token,
            key,
            max_owners
        }),
        (token(), vec(upload, 0..=MAX_BATCH))
            .prop_map(|(token, uploads)| TrackerRequest::Update { token, uploads }),
        token().prop_map(|token| TrackerRequest::Exit { token }),
        (token(), 0..=ZoneTag::MAX).prop_map(|(token, number)| TrackerRequest::Zone {
            token,
            zone: ZoneTag::from_number(number).unwrap(),
        }),
        (proptest::option::of(addr()), token())
            .prop_map(|(listen, token)| TrackerRequest::RegisterAlso { listen, token }),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let bounded = (0..10, any::<u32>()).prop_map(|(which, max)| match which {
        0 => Refusal::PeersPerHost { max },
        1 => Refusal::Peers { max },
        2 => Refusal::ContentsPerPeer { max },
        3 => Refusal::OwnersPerContent { max },
        4 => Refusal::NamesPerContent { max },
        5 => Refusal::ContentsPerName { max },
        6 => Refusal::ContentsPerHost { max },
        7 => Refusal::OwnershipsPerHost { max },
        8 => Refusal::Ownerships { max },
        _ => Refusal::Contents { max },
    });
    prop_oneof![
        bounded,
        addr().prop_map(|addr| Refusal::ForeignAddress { addr }),
        select(vec![
            Refusal::UnknownToken,
            Refusal::UnknownContent,
            Refusal::Malformed,
            Refusal::Busy,
            Refusal::ShuttingDown,
            Refusal::Denied,
        ]),
    ]
}

fn tracker_reply() -> impl Strategy<Value = TrackerReply> {
    let heartbeat = (1..=MAX_HEARTBEAT.as_millis() as u64).prop_map(Duration::from_millis);
    let listed = proptest::option::of(addr());
    let owner = (any::<u64>(), addr(), any::<bool>())
        .prop_map(|(owner, addr, complete)| ListedOwner::new(OwnerRef(owner), addr, complete));
    let owners = vec(owner, 0..=10);
    prop_oneof![
        (token(), any::<u64>(), heartbeat, listed).prop_map(|(token, epoch, heartbeat, listed)| {
            TrackerReply::Registered(Registered::new(token, epoch, heartbeat, listed))
        }),
        Just(TrackerReply::Done),
        (id(), name(), content_len(), owners, any::<(bool, u16)>()).prop_map(
            |(id, name, length, owners, (imports, importers))| {
                let most = owners.len() as u16;
                let mut found = Found::new(id, name, length, owners);
                found.importers = imports.then_some(importers % (most + 1));
                TrackerReply::Found(found)
            }
        ),
        vec((id(), content_len()), 0..=MAX_AMBIGUOUS).prop_map(TrackerReply::Ambiguous),
        refusal().prop_map(TrackerReply::Refused),
        btree_map(0..MAX_BATCH as u16, refusal(), 1..20).prop_map(|refused| {
            let refused = refused.into_iter();
            TrackerReply::Partly(
                refused
                    .map(|(at, refusal)| RefusedEntry::new(at, refusal))
                    .collect(),
            )
        }),
    ]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        2 => (peer_message(), channel()).prop_map(|(message, channel)| message.encode(channel)),
        1 => tracker_request().prop_map(|request| request.encode().unwrap()),
        1 => tracker_reply().prop_map(|reply| reply.encode().unwrap()),
    ]
}

fn fits(frame: &Frame, limits: FrameLimits) -> bool {
    frame.head.len() <= limits.head.into() && frame.body.len() <= limits.body as usize
}

/// Decodes a frame as each of the three kinds of messages. A message that is
/// decoded must encode to the same frame: no two frames mean the same.
fn decode_all(frame: &Frame) -> [Result<(), ProtocolError>; 3] {
    let same = |again: Frame| assert_eq!(&again, frame);
    [
        PeerMessage::decode(frame.clone()).map(|(channel, m)| same(m.encode(channel))),
        TrackerRequest::decode(frame.clone()).map(|m| same(m.encode().unwrap())),
        TrackerReply::decode(frame.clone()).map(|m| same(m.encode().unwrap())),
    ]
}

/// A change to a frame.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Remove(Index),
    Insert(Index, u8),
    Cut(Index),
    Splice(Index, Vec<u8>),
    Body(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = || prop_oneof![any::<u8>(), select(vec![0, 1, 0x7f, 0x80, 0xff])];
    prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        any::<Index>().prop_map(Mutation::Remove),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), vec(byte(), 1..9)).prop_map(|(at, bytes)| Mutation::Splice(at, bytes)),
        (0..=200usize).prop_map(Mutation::Body),
    ]
}

fn mutate(frame: Frame, mutations: Vec<Mutation>) -> Frame {
    let (mut head, mut body) = (frame.head.to_vec(), frame.body);
    for mutation in mutations {
        let len = head.len();
        match mutation {
            Mutation::Insert(at, byte) => head.insert(at.index(len + 1), byte),
            Mutation::Body(len) => body = vec![7; len].into(),
            _ if head.is_empty() => {}
            Mutation::Set(at, byte) => head[at.index(len)] = byte,
            Mutation::Remove(at) => {
                head.remove(at.index(len));
            }
            Mutation::Cut(at) => head.truncate(at.index(len)),
            Mutation::Splice(at, bytes) => {
                let at = at.index(len);
                head.splice(at..len.min(at + bytes.len()), bytes);
            }
        }
    }
    Frame {
        head: head.into(),
        body,
    }
}

/// All types of messages, and the numbers next to them.
fn kinds() -> impl Strategy<Value = u8> {
    prop_oneof![
        0x00..=0x11u8,
        0x1f..=0x2au8,
        0x3f..=0x45u8,
        0x4f..=0x55u8,
        any::<u8>()
    ]
}

proptest! {
    #[test]
    fn peer_message_comes_back_from_its_frame(
        message in peer_message(),
        channel in channel(),
    ) {
        let frame = message.clone().encode(channel);
        prop_assert!(fits(&frame, LINK_FRAMES));
        prop_assert_eq!(PeerMessage::decode(frame), Ok((channel, message)));
    }

    #[test]
    fn tracker_request_comes_back_from_its_frame(request in tracker_request()) {
        let frame = request.encode().unwrap();
        prop_assert!(fits(&frame, TRACKER_FRAMES));
        prop_assert_eq!(TrackerRequest::decode(frame), Ok(request));
    }

    #[test]
    fn tracker_reply_comes_back_from_its_frame(reply in tracker_reply()) {
        let frame = reply.encode().unwrap();
        prop_assert!(fits(&frame, TRACKER_FRAMES));
        prop_assert_eq!(TrackerReply::decode(frame), Ok(reply));
    }

    #[test]
    fn message_of_one_kind_is_not_of_another(frame in any_frame()) {
        prop_assert_eq!(decode_all(&frame).into_iter().filter(Result::is_ok).count(), 1);
    }

    #[test]
    fn message_that_is_cut_short_or_too_long_is_refused(
        frame in any_frame(),
        cut in any::<Index>(),
        more in vec(any::<u8>(), 1..40),
    ) {
        let short = Frame { head: frame.head.slice(..cut.index(frame.head.len())), ..frame.clone() };
        prop_assert!(decode_all(&short).iter().all(Result::is_err));
        let long = [&frame.head[..], &more].concat();
        let long = Frame { head: long.into(), ..frame };
        let trailing = Err(ProtocolError::Trailing { extra: more.len() });
        prop_assert!(decode_all(&long).contains(&trailing));
        prop_assert!(decode_all(&long).iter().all(Result::is_err));
    }

    #[test]
    fn unexpected_body_is_refused(frame in any_frame(), extra in 1usize..50) {
        let with_body = [0x05, 0x07, 0x24, 0x25];
        prop_assume!(!with_body.contains(&frame.head[0]));
        let frame = Frame { body: vec![0; extra].into(), ..frame };
        let trailing = Err(ProtocolError::Trailing { extra });
        prop_assert!(decode_all(&frame).contains(&trailing));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn arbitrary_bytes_decode_or_are_refused(
        kind in kinds(),
        rest in vec(prop_oneof![any::<u8>(), 0..4u8], 0..120),
        body in 0usize..100,
    ) {
        let head = [&[kind][..], &rest].concat();
        let _ = decode_all(&Frame { head: head.into(), body: vec![1; body].into() });
    }

    #[test]
    fn mutated_messages_decode_or_are_refused(
        frame in any_frame(),
        mutations in vec(mutation(), 1..4),
    ) {
        let _ = decode_all(&mutate(frame, mutations));
    }
}
