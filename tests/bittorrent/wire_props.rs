//! Encoding and decoding over arbitrary input.

use bt_lite::bittorrent::wire::{
    ExtendedHandshake, HandshakeHead, HashRange, Message, MetadataMessage, PexMessage, WireLimits,
    WireReader,
};
use bt_lite::content::{BlockRange, ChunkIndex};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

/// As many chunks as fit into the bitfields below.
const CHUNKS: u32 = 30;

fn block() -> impl Strategy<Value = BlockRange> {
    any::<(u32, u32, u32)>().prop_map(|(chunk, offset, len)| BlockRange {
        chunk: ChunkIndex(chunk),
        offset,
        len,
    })
}

fn hash_range() -> impl Strategy<Value = HashRange> {
    any::<([u8; 32], u32, u32, u32, u32)>().prop_map(
        |(root, base_layer, index, length, proof_layers)| HashRange {
            root,
            base_layer,
            index,
            length,
            proof_layers,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let chunk = || any::<u32>().prop_map(ChunkIndex);
    let bytes = |len| vec(any::<u8>(), len).prop_map(Bytes::from);
    prop_oneof![
        Just(Message::KeepAlive),
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        Just(Message::HaveAll),
        Just(Message::HaveNone),
        chunk().prop_map(Message::Have),
        chunk().prop_map(Message::Suggest),
        chunk().prop_map(Message::AllowedFast),
        bytes(4..5).prop_map(Message::Bitfield),
        block().prop_map(Message::Request),
        block().prop_map(Message::Cancel),
        block().prop_map(Message::Reject),
        any::<u16>().prop_map(Message::Port),
        (chunk(), any::<u32>(), bytes(0..300)).prop_map(|(chunk, offset, data)| Message::Block {
            chunk,
            offset,
            data
        }),
        (any::<u8>(), bytes(0..300)).prop_map(|(id, payload)| Message::Extended { id, payload }),
        hash_range().prop_map(Message::HashRequest),
        hash_range().prop_map(Message::HashReject),
        (hash_range(), bytes(0..300)).prop_map(|(range, hashes)| Message::Hashes { range, hashes }),
        (30_u8..).prop_map(|id| Message::Unknown { id }),
    ]
}

fn reader() -> WireReader {
    WireReader::new(WireLimits {
        chunks: Some(CHUNKS),
    })
}

proptest! {
    #[test]
    fn messages_are_the_same_after_the_wire_wherever_it_is_cut(
        messages in vec(message(), 1..8),
        cuts in vec(1..400_usize, 1..20),
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            let frame = message.clone().encode();
            prop_assert_eq!(frame.len(), frame.head.len() + frame.body.len());
            bytes.extend([frame.head, frame.body].concat());
        }
        let (mut input, mut read, mut rest) = (BytesMut::new(), Vec::new(), &bytes[..]);
        for cut in cuts.into_iter().cycle() {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            input.extend_from_slice(piece);
            while let Some(message) = reader().next(&mut input).unwrap() {
                read.push(message);
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(read, messages);
        prop_assert!(input.is_empty());
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..2000)) {
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = reader().next(&mut input) {}
        prop_assert!(input.capacity() < 64 << 10);
        let _ = HandshakeHead::take(&mut BytesMut::from(&bytes[..]));
        let _ = ExtendedHandshake::decode(&bytes);
        let _ = PexMessage::decode(&bytes);
        let _ = MetadataMessage::decode(&Bytes::from(bytes));
    }

    #[test]
    fn dictionaries_with_a_wrong_byte_are_read_or_refused(
        at in 0..120_usize,
        byte in any::<u8>(),
        cut in 0..120_usize,
    ) {
        let payload = b"d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e\
            4:reqqi500e8:msg_typei1e5:piecei0e5:added6:abcdef7:added.f1:xe";
        let mut bytes = payload.to_vec();
        bytes[at] = byte;
        for bytes in [&bytes[..], &payload[..cut]] {
            let _ = ExtendedHandshake::decode(bytes);
            let _ = PexMessage::decode(bytes);
            let _ = MetadataMessage::decode(&Bytes::copy_from_slice(bytes));
        }
    }
}
