//! Links with a side that says whatever it likes.

use std::time::Duration;

use bt_lite::bittorrent::wire::{
    ExtendedHandshake, HashRange, Message, MetadataMessage, OWN_EXTENSIONS, PexMessage,
};
use bt_lite::content::{Bitfield, BlockRange, ChunkIndex};
use bt_lite::protocol::PeerMessage;
use bt_lite::testing::bittorrent::{LinkFacts, MagnetLink};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::link_desk::{Desk, FAST, NOT_FAST, block, config, geometry, padded};

#[derive(Debug, Clone)]
enum Input {
    Wire(Message),
    Machine(PeerMessage),
    Complete,
    AskMetadata(u32),
    TellPeers,
    Wait(u64),
}

/// Blocks of the torrent, or a little beyond it.
fn any_block() -> impl Strategy<Value = BlockRange> {
    let len = prop_oneof![9 => 1..16_384_u32, 1 => Just(0), 1 => any::<u32>()];
    (0..21_u32, prop_oneof![Just(0), 0..16_384_u32], len)
        .prop_map(|(chunk, offset, len)| block(chunk, offset, len))
}

fn real_block() -> impl Strategy<Value = BlockRange> {
    (0..19_u32, 0..4_u32).prop_map(|(chunk, quarter)| block(chunk, quarter * 4096, 4096))
}

fn data(block: BlockRange) -> (ChunkIndex, u32, Bytes) {
    (
        block.chunk,
        block.offset,
        vec![1; block.len.min(20_000) as usize].into(),
    )
}

fn message() -> impl Strategy<Value = Message> {
    let chunk = || (0..21_u32).prop_map(ChunkIndex);
    let bytes = |len| vec(any::<u8>(), len).prop_map(Bytes::from);
    let bits = prop_oneof![
        4 => vec(any::<bool>(), 20).prop_map(|bits| {
            let mut field = Bitfield::none(20);
            let set = (0..).zip(bits).filter(|(_, set)| *set);
            set.for_each(|(chunk, _)| { field.insert(ChunkIndex(chunk)); });
            field.to_bytes()
        }),
        1 => bytes(0..5),
    ];
    let payload = prop_oneof![
        bytes(0..40),
        Just(MetadataMessage::Request { piece: 0 }.encode()),
        Just(PexMessage::default().encode()),
        any::<(u8, Option<bool>, Option<u32>)>().prop_map(|(id, upload_only, reqq)| {
            let mut about = ExtendedHandshake::default();
            about.extensions = OWN_EXTENSIONS;
            about.extensions.lt_donthave = Some(id);
            (about.upload_only, about.reqq) = (upload_only, reqq);
            about.encode()
        }),
    ];
    let block = || prop_oneof![4 => real_block(), 1 => any_block()];
    let range = HashRange {
        root: [0; 32],
        base_layer: 0,
        index: 0,
        length: 0,
        proof_layers: 0,
    };
    prop_oneof![
        1 => Just(Message::KeepAlive),
        1 => Just(Message::Choke),
        2 => Just(Message::Unchoke),
        1 => Just(Message::Interested),
        1 => Just(Message::NotInterested),
        1 => Just(Message::HaveAll),
        1 => Just(Message::HaveNone),
        1 => chunk().prop_map(Message::Have),
        1 => chunk().prop_map(Message::Suggest),
        1 => chunk().prop_map(Message::AllowedFast),
        1 => bits.prop_map(Message::Bitfield),
        3 => block().prop_map(Message::Request),
        2 => block().prop_map(Message::Cancel),
        2 => block().prop_map(Message::Reject),
        3 => block().prop_map(|block| {
            let (chunk, offset, data) = data(block);
            Message::Block { chunk, offset, data }
        }),
        2 => (0..8_u8, payload).prop_map(|(id, payload)| Message::Extended { id, payload }),
        1 => Just(Message::HashRequest(range)),
        1 => Just(Message::HashReject(range)),
        1 => any::<u8>().prop_map(|id| Message::Unknown { id }),
        1 => any::<u16>().prop_map(Message::Port),
    ]
}

fn peer_message() -> impl Strategy<Value = PeerMessage> {
    let chunk = || (0..20_u32).prop_map(ChunkIndex);
    prop_oneof![
        1 => Just(PeerMessage::Choke),
        1 => Just(PeerMessage::Unchoke),
        1 => Just(PeerMessage::Interested),
        1 => Just(PeerMessage::NotInterested),
        1 => Just(PeerMessage::HaveNone),
        1 => Just(PeerMessage::HaveAll),
        1 => chunk().prop_map(PeerMessage::Have),
        1 => chunk().prop_map(PeerMessage::DontHave),
        1 => chunk().prop_map(PeerMessage::Suggest),
        3 => real_block().prop_map(PeerMessage::Request),
        1 => real_block().prop_map(PeerMessage::Cancel),
        2 => real_block().prop_map(PeerMessage::Reject),
        2 => real_block().prop_map(|block| {
            let (chunk, offset, data) = data(block);
            PeerMessage::Block { chunk, offset, data }
        }),
        1 => any_block().prop_map(PeerMessage::Request),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        12 => message().prop_map(Input::Wire),
        6 => peer_message().prop_map(Input::Machine),
        1 => Just(Input::Complete),
        1 => any::<u32>().prop_map(Input::AskMetadata),
        1 => Just(Input::TellPeers),
        1 => (0..150_u64).prop_map(Input::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_is_said_breaks_no_link(
        fast in any::<bool>(),
        is_padded in any::<bool>(),
        inputs in vec(input(), 0..120),
    ) {
        let agreed = if fast { FAST } else { NOT_FAST };
        let config = match is_padded {
            true => padded(agreed, &[5_000..6_000, 20_000..60_000]),
            false => config(agreed),
        };
        let mut desk = Desk::fresh(LinkFacts {
            info: Some(Bytes::from_static(b"de")),
            ..config
        });
        for input in inputs {
            match input {
                Input::Wire(message) => drop(desk.hears(message)),
                Input::Machine(message) => drop(desk.says(message)),
                Input::Complete => desk.link.handle_complete(),
                Input::AskMetadata(piece) => {
                    desk.link.ask_metadata(piece);
                }
                Input::TellPeers => {
                    desk.link.tell_peers(desk.now, &PexMessage::default());
                }
                Input::Wait(seconds) => drop(desk.waits(Duration::from_secs(seconds))),
            }
            let (heard, _) = desk.follows();
            for message in heard {
                if let PeerMessage::Request(block) = message {
                    prop_assert!(geometry().contains_block(block));
                }
            }
        }
    }

    #[test]
    fn whatever_is_said_breaks_no_connection_about_an_unknown_torrent(
        messages in vec(message(), 0..120),
    ) {
        let mut desk = Desk::new(config(FAST));
        let now = desk.now;
        let mut link = MagnetLink::new(now, config(FAST).agreed, ExtendedHandshake::default());
        for message in messages {
            link.handle_message(now, message);
            link.handle_timeout(now);
        }
        for message in link.into_heard() {
            desk.hears(message);
        }
    }
}
