//! PROTOCOL.md agrees with the codec: its worked examples, its tables of types, and
//! its limits.

use std::collections::BTreeMap;

use bt_lite::content::{BlockRange, ChunkIndex, ContentId, Manifest};
use bt_lite::peer::swarm::LinkCookies;
use bt_lite::protocol::{
    ChannelId, ContentKey, Found, Frame, FrameLimits, Hello, LinkCookie, LinkProof, ListedOwner,
    OwnEntry, OwnState, OwnerRef, PeerId, PeerMessage, Refusal, Token, TrackerReply,
    TrackerRequest, limits,
};
use bt_lite::{Bitfield, FolderEntry, FolderIndex};

const PAGE: &str = include_str!("../../PROTOCOL.md");

/// The worked examples, as bytes, by their names.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    PAGE.split("```hex ")
        .skip(1)
        .map(|rest| {
            let (name, rest) = rest.split_once('\n').unwrap();
            let (hex, _) = rest.split_once("```").unwrap();
            let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
            let bytes = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8);
            (name, bytes.collect())
        })
        .collect()
}

/// The bytes of a frame on a byte stream.
fn on_a_stream(frame: &Frame) -> Vec<u8> {
    let mut bytes = (frame.head.len() as u16).to_be_bytes().to_vec();
    bytes.extend((frame.body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&frame.head);
    bytes.extend_from_slice(&frame.body);
    bytes
}

/// The proof of the worked example.
fn proof() -> LinkProof {
    let cookie = |from: u8| LinkCookie(std::array::from_fn(|i| from + i as u8));
    let cookies = |said, heard| LinkCookies {
        said: cookie(said),
        heard: cookie(heard),
    };
    let (older, newer) = (cookies(0, 0x10), cookies(0x20, 0x30));
    let proof = newer.proof(&older);
    let far_end = |cookies: LinkCookies| LinkCookies {
        said: cookies.heard,
        heard: cookies.said,
    };
    assert_eq!(far_end(newer).expected(&far_end(older)), proof);
    assert_ne!(
        newer.expected(&older),
        proof,
        "a proof that is sent back proves nothing"
    );
    proof
}

fn peer_messages() -> Vec<(&'static str, PeerMessage)> {
    let mut bits = Bitfield::none(10);
    for chunk in [0, 2, 9] {
        bits.insert(ChunkIndex(chunk));
    }
    let manifest = Manifest::of(b"hello").unwrap();
    assert!(manifest.proof().siblings.is_empty());
    vec![
        (
            "request",
            PeerMessage::Request(BlockRange {
                chunk: ChunkIndex(5),
                offset: 32_768,
                len: 16_384,
            }),
        ),
        (
            "block",
            PeerMessage::Block {
                chunk: ChunkIndex(1),
                offset: 0,
                data: "data".into(),
            },
        ),
        ("have", PeerMessage::Have(ChunkIndex(258))),
        ("bitfield", PeerMessage::Bitfield(bits.to_bytes())),
        (
            "hello",
            PeerMessage::Hello(Hello::new(
                PeerId(std::array::from_fn(|i| i as u8)),
                Some("[::]:7000".parse().unwrap()),
                LinkCookie(std::array::from_fn(|i| 0xf0 + i as u8)),
            )),
        ),
        ("open", PeerMessage::Open(ContentId::of(b""))),
        ("queued", PeerMessage::Queued { position: 37 }),
        ("same-peer", PeerMessage::SamePeer(proof())),
        (
            "manifest-length",
            PeerMessage::ManifestLength {
                length: 5,
                proof: manifest.proof().leaf.clone(),
            },
        ),
    ]
}

fn requests() -> Vec<(&'static str, TrackerRequest)> {
    let token = Token(std::array::from_fn(|i| 0x10 + i as u8));
    let name = || "greeting".parse().unwrap();
    vec![
        (
            "register",
            TrackerRequest::Register {
                listen: None,
                token: None,
            },
        ),
        (
            "own",
            TrackerRequest::Own {
                token,
                entries: vec![OwnEntry::new(
                    ContentId::of(b"hello"),
                    name(),
                    5,
                    OwnState::Complete,
                )],
            },
        ),
        (
            "need",
            TrackerRequest::Need {
                token,
                key: ContentKey::Name(name()),
                max_owners: 30,
            },
        ),
    ]
}

fn replies() -> Vec<(&'static str, TrackerReply)> {
    vec![
        (
            "found",
            TrackerReply::Found(Found::new(
                ContentId::of(b"hello"),
                "greeting".parse().unwrap(),
                5,
                vec![ListedOwner::new(
                    OwnerRef(1),
                    "10.0.0.7:7000".parse().unwrap(),
                    true,
                )],
            )),
        ),
        (
            "refused",
            TrackerReply::Refused(Refusal::PeersPerHost { max: 1000 }),
        ),
    ]
}

#[test]
fn worked_examples_agree_with_the_codec() {
    let mut examples = examples();
    let mut check = |name, frame: &Frame| {
        assert_eq!(examples.remove(name), Some(on_a_stream(frame)), "{name}");
    };
    for (name, message) in peer_messages() {
        let channel = match message {
            PeerMessage::Hello(_) => ChannelId::SESSION,
            _ => ChannelId(7),
        };
        let frame = message.clone().encode(channel);
        check(name, &frame);
        assert_eq!(PeerMessage::decode(frame), Ok((channel, message)));
    }
    for (name, request) in requests() {
        let frame = request.encode().unwrap();
        check(name, &frame);
        assert_eq!(TrackerRequest::decode(frame), Ok(request));
    }
    for (name, reply) in replies() {
        let frame = reply.encode().unwrap();
        check(name, &frame);
        assert_eq!(TrackerReply::decode(frame), Ok(reply));
    }
    let entry = |path: &str| path.parse().unwrap();
    let index = FolderIndex::new(vec![
        FolderEntry::executable(entry("bin/hi"), ContentId::of(b"hello"), 5),
        FolderEntry::symlink(entry("hi"), "bin/hi"),
        FolderEntry::empty_folder(entry("log")),
    ]);
    let bytes = index.unwrap().encode().to_vec();
    assert_eq!(examples.remove("folder"), Some(bytes));
    assert!(
        examples.is_empty(),
        "these examples have no message: {examples:?}"
    );
}

/// The types in the tables of the document, with the names of their messages.
fn types() -> BTreeMap<u8, &'static str> {
    PAGE.lines()
        .filter_map(|line| line.strip_prefix("| 0x"))
        .map(|row| {
            let mut cells = row.split(" | ");
            let kind = u8::from_str_radix(cells.next().unwrap(), 16).unwrap();
            (kind, cells.next().unwrap())
        })
        .collect()
}

#[test]
fn tables_have_exactly_the_types_of_the_codec() {
    use bt_lite::protocol::ProtocolError::Type;
    let known = |kind: u8| {
        let frame = || Frame::head(vec![kind, 0, 0, 0, 0]);
        !matches!(PeerMessage::decode(frame()), Err(Type { .. }))
            || !matches!(TrackerRequest::decode(frame()), Err(Type { .. }))
            || !matches!(TrackerReply::decode(frame()), Err(Type { .. }))
    };
    let of_codec: Vec<u8> = (0..=u8::MAX).filter(|&kind| known(kind)).collect();
    assert_eq!(types().into_keys().collect::<Vec<_>>(), of_codec);
}

#[test]
fn limits_in_the_document_are_those_of_the_code() {
    let row = |what: &str| {
        let row = PAGE
            .lines()
            .find(|line| line.starts_with(&format!("| {what}")));
        row.unwrap_or_else(|| panic!("no row for {what}"))
            .to_owned()
    };
    let says = |what: &str, figure: String| {
        let row = row(what);
        assert!(row.contains(&figure), "{row} does not contain {figure}");
    };
    let thousands = |n: u32| match n {
        1000.. => format!("{},{:03}", n / 1000, n % 1000),
        _ => n.to_string(),
    };
    let frames = |limits: FrameLimits| {
        format!(
            "| {} | {} |",
            thousands(limits.head.into()),
            thousands(limits.body)
        )
    };
    says("link between peers", frames(limits::LINK_FRAMES));
    says("to or from a tracker", frames(limits::TRACKER_FRAMES));
    says("block |", format!("{} KiB", limits::MAX_BLOCK_LEN >> 10));
    says("hashes in one", thousands(limits::HASHES_PER_PAGE));
    says("requests outstanding", limits::MAX_REQUESTS.to_string());
    says("entries of one OWN", limits::MAX_BATCH.to_string());
    says("owners in one", limits::MAX_OWNERS.to_string());
    says("contents in one", limits::MAX_AMBIGUOUS.to_string());
    let hours = limits::MAX_HEARTBEAT.as_secs() / 3600;
    says("heartbeat |", format!("{hours} h"));
    for (what, timeout) in [
        ("handshake,", limits::HANDSHAKE_TIMEOUT),
        ("a frame,", limits::FRAME_TIMEOUT),
        ("silence", limits::IDLE_TIMEOUT),
        ("KeepAlive,", limits::KEEP_ALIVE),
    ] {
        says(what, format!("{} s |", timeout.as_secs()));
    }
    let title = format!("# The protocol of bt_lite, version {}\n", limits::VERSION);
    assert!(PAGE.starts_with(&title));
}
