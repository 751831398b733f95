//! The digests of a torrent: pieces of version 1 and 2, against values that others have
//! computed.

use std::num::ParseIntError;

use bt_lite::content::{PieceDigests, PieceDigestsError, PieceRoot};
use bt_lite::{ChunkIndex, ContentId, Geometry, Manifest};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::Sample;

/// The length of the pieces of the files below.
const PIECE: u64 = 64 << 10;

/// The bytes of a file: 0, 1, ... 250, repeated.
fn file(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let digit = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16);
    let bytes: Result<Vec<u8>, ParseIntError> = (0..text.len() / 2).map(digit).collect();
    bytes.unwrap().try_into().unwrap()
}

/// A hybrid torrent of five files, as libtorrent 2.1.1 makes it: the length of each file,
/// and of each of its pieces the leaves of its tree and the root. That of a file of one
/// piece is the file's `pieces root`, the others are in the `piece layers`. (Python:
/// `list_files`, `create_torrent` with `piece_size=65536`, `set_piece_hashes`,
/// `generate`.)
const FILES: &[(usize, &[(u32, &str)])] = &[
    (
        100_000,
        &[
            (
                4,
                "2d6b546231225a7132a38ab354f03e9132e4b9141da89f1784b71ab2fb34fae3",
            ),
            (
                4,
                "7dce88ae5df0fc3365824283648ddc110b979be8fcbe5e7bcf50848bc4d93053",
            ),
        ],
    ),
    (
        5,
        &[(
            1,
            "08bb5e5d6eaac1049ede0893d30ed022b1a4d9b5b48db414871f51c9cb35283d",
        )],
    ),
    (
        65_536,
        &[(
            4,
            "2d6b546231225a7132a38ab354f03e9132e4b9141da89f1784b71ab2fb34fae3",
        )],
    ),
    (
        49_153,
        &[(
            4,
            "6b89f318fea750cf67e57b363445ebce1fef3958f2d8a82247d477ecb6890df4",
        )],
    ),
    (
        171_072,
        &[
            (
                4,
                "2d6b546231225a7132a38ab354f03e9132e4b9141da89f1784b71ab2fb34fae3",
            ),
            (
                4,
                "347329e2865f2a179248dbb364cc0593cc7cf5fdfec22ebd59caea32bb5af9fd",
            ),
            (
                4,
                "fdc5452a236eb864b3e37530e937e89971f6dcadc62df54792a67c5e54e3ec13",
            ),
        ],
    ),
];

/// The SHA-1 hashes of the same pieces: `pieces` of that torrent, in which a padding file
/// follows each file. (`hashlib.sha1` over the pieces says the same.)
const SHA1: [&str; 8] = [
    "fefb71740a82b94a2da3bcd2fd72fc64a7fb8666",
    "8c0446b0e642aafeb6ce12e6191d3e9594963486",
    "a01593d7a8e2fea463455c954bf631bda19ade0b",
    "fefb71740a82b94a2da3bcd2fd72fc64a7fb8666",
    "a0d428c6e037aaf30212c32bac17f49534273c59",
    "fefb71740a82b94a2da3bcd2fd72fc64a7fb8666",
    "45352f2fb884847dd3c2eab39ac24b7c0b1f2f3a",
    "90a106a1d818a9f83d0c2ea02f7e7c12b0c78652",
];

/// The bytes of those files, each with zeros up to the next piece.
fn padded() -> Vec<u8> {
    let mut content = Vec::new();
    for &(len, _) in FILES {
        content.extend(file(len));
        content.resize(content.len().next_multiple_of(PIECE as usize), 0);
    }
    content
}

fn roots() -> Vec<PieceRoot> {
    let mut roots = Vec::new();
    for &(len, pieces) in FILES {
        for (at, &(leaves, root)) in pieces.iter().enumerate() {
            let left = len as u64 - at as u64 * PIECE;
            roots.push(PieceRoot {
                root: hex(root),
                data_len: left.min(PIECE) as u32,
                leaves,
            });
        }
    }
    roots
}

fn id() -> ContentId {
    ContentId::of_torrent_v2(&[7; 32])
}

/// The torrent above in each version.
fn versions() -> [Manifest; 3] {
    let hashes = || SHA1.map(hex).to_vec();
    let digests = [
        PieceDigests::v1(hashes()),
        PieceDigests::v2(roots()),
        PieceDigests::hybrid(hashes(), roots()),
    ];
    let geometry = Geometry::of_torrent(8 * PIECE, PIECE).unwrap();
    digests.map(|digests| Manifest::torrent(id(), geometry, digests).unwrap())
}

#[test]
fn pieces_of_a_real_torrent_are_right_in_each_version() {
    let content = padded();
    for manifest in versions() {
        assert!(manifest.is_torrent() && manifest.id() == id());
        assert!(manifest.hashes().is_empty());
        let mut data = 0;
        for chunk in manifest.geometry().indices() {
            let range = manifest.geometry().range_of(chunk);
            let piece = &content[range.start as usize..range.end as usize];
            assert!(manifest.verify(chunk, [piece]), "piece {chunk}");
            assert!(manifest.verify(chunk, piece.chunks(16 << 10)));
            assert!(manifest.verify(chunk, piece.chunks(4099)));
            assert!(!manifest.verify(chunk, [piece, &[0]]));
            assert!(!manifest.verify(chunk, [&piece[1..]]));
            assert!(!manifest.verify(chunk, [&piece[..piece.len() - 1]]));
            assert!(!manifest.verify(chunk, []));
            data += manifest.data_len(chunk);
        }
        let files = FILES.iter().map(|(len, _)| *len as u64).sum();
        let is_v1 = manifest == versions()[0];
        assert_eq!(data, if is_v1 { 8 * PIECE } else { files });
        assert!(!manifest.verify(ChunkIndex(8), []));
    }
}

#[test]
fn pieces_of_version_1_may_have_any_length() {
    // `hashlib.sha1` of the pieces of 100,000 bytes of a file of 250,000.
    let hashes = [
        "23a1065a0f6a485119049bf2799179dd0154efbb",
        "2f554358d73d1983a5b5a25c9498241e5919c28c",
        "084c49072fcdd5a3b2ff2bd22129a1bcfe05a188",
    ];
    let geometry = Geometry::of_torrent(250_000, 100_000).unwrap();
    let digests = PieceDigests::v1(hashes.map(hex).to_vec());
    let manifest = Manifest::torrent(id(), geometry, digests).unwrap();
    let content = file(250_000);
    for (chunk, piece) in geometry.indices().zip(content.chunks(100_000)) {
        assert!(manifest.verify(chunk, piece.chunks(16 << 10)));
        let other = ChunkIndex((chunk.0 + 1) % 3);
        assert!(!manifest.verify(other, [piece]));
    }
}

#[test]
fn every_bad_byte_of_the_data_and_behind_it_is_caught() {
    let content = padded();
    let mut checked = 0;
    for manifest in versions() {
        for chunk in manifest.geometry().indices() {
            let range = manifest.geometry().range_of(chunk);
            let mut piece = content[range.start as usize..range.end as usize].to_vec();
            let len = piece.len();
            let data = roots()[chunk.as_usize()].data_len as usize;
            let edges = [
                0,
                16 << 10,
                32 << 10,
                data,
                (data + 1).next_multiple_of(16 << 10),
                len,
            ];
            for at in edges
                .into_iter()
                .flat_map(|edge| [edge.wrapping_sub(1), edge])
            {
                if let Some(byte) = piece.get_mut(at) {
                    *byte ^= 0x40;
                    assert!(
                        !manifest.verify(chunk, [&piece[..]]),
                        "byte {at} of {chunk}"
                    );
                    piece[at] ^= 0x40;
                    checked += 1;
                }
            }
            assert!(manifest.verify(chunk, [&piece[..]]));
        }
    }
    assert!(checked > 200);
}

#[test]
fn piece_of_a_hybrid_torrent_must_be_right_in_both_versions() {
    let (content, geometry) = (padded(), versions()[0].geometry());
    let mut hashes = SHA1.map(hex).to_vec();
    let mut pieces = roots();
    hashes[0][19] ^= 1;
    pieces[1].root[31] ^= 1;
    let digests = PieceDigests::hybrid(hashes, pieces);
    let manifest = Manifest::torrent(id(), geometry, digests).unwrap();
    let good = geometry.indices().zip(content.chunks(PIECE as usize));
    let good: Vec<bool> = good
        .map(|(chunk, piece)| manifest.verify(chunk, [piece]))
        .collect();
    assert_eq!(good, [false, false, true, true, true, true, true, true]);
}

#[test]
fn digests_that_do_not_fit_the_pieces_are_refused() {
    let geometry = |piece_len| Geometry::of_torrent(8 * PIECE, piece_len).unwrap();
    let check = |piece_len, digests| Manifest::torrent(id(), geometry(piece_len), digests).err();
    let v1 = |count| PieceDigests::v1(vec![[0; 20]; count]);
    let wrong = |found| Some(PieceDigestsError::Pieces { found, expected: 8 });
    assert_eq!(check(PIECE, v1(8)), None);
    assert_eq!(check(PIECE, v1(7)), wrong(7));
    assert_eq!(check(PIECE, v1(9)), wrong(9));
    assert_eq!(
        check(PIECE, PieceDigests::v2(roots()[..7].to_vec())),
        wrong(7)
    );
    let hybrid = PieceDigests::hybrid(vec![[0; 20]; 3], roots());
    assert_eq!(check(PIECE, hybrid), wrong(3));

    // Pieces of version 2 are whole trees.
    for (piece_len, pieces) in [(8 << 10, 64), (100_000, 6), (96 << 10, 6)] {
        let root = PieceRoot {
            root: [0; 32],
            data_len: 5,
            leaves: 1,
        };
        let refused = check(piece_len, PieceDigests::v2(vec![root; pieces]));
        assert_eq!(refused, Some(PieceDigestsError::Length { piece_len }));
    }
    let changed = |change: fn(&mut PieceRoot)| {
        let mut pieces = roots();
        change(&mut pieces[4]);
        check(PIECE, PieceDigests::v2(pieces))
    };
    let piece = ChunkIndex(4);
    let data = |data_len| Some(PieceDigestsError::Data { piece, data_len });
    let leaves = |leaves| Some(PieceDigestsError::Leaves { piece, leaves });
    assert_eq!(changed(|piece| piece.data_len = 0), data(0));
    assert_eq!(changed(|piece| piece.data_len = 65_537), data(65_537));
    assert_eq!(changed(|piece| piece.leaves = 0), leaves(0));
    assert_eq!(changed(|piece| piece.leaves = 3), leaves(3));
    assert_eq!(changed(|piece| piece.leaves = 2), leaves(2));
    assert_eq!(changed(|piece| piece.leaves = 8), leaves(8));
    assert_eq!(changed(|piece| piece.leaves = u32::MAX), leaves(u32::MAX));
}

#[test]
fn id_of_a_torrent_is_no_hash_of_bytes_and_differs_by_version() {
    let (v1, v2) = (
        ContentId::of_torrent_v1(&[1; 20]),
        ContentId::of_torrent_v2(&[1; 32]),
    );
    let of_bytes = [ContentId::of(&[1; 20]), ContentId::of(&[1; 32])];
    assert!(v1 != v2 && !of_bytes.contains(&v1) && !of_bytes.contains(&v2));
    assert_ne!(v1, ContentId::of_torrent_v1(&[2; 20]));
    let derived = blake3::derive_key("bt_lite torrent v1", &[1; 20]);
    assert_eq!(v1, ContentId::from_bytes(derived));
}

proptest! {
    #[test]
    fn torrent_of_any_files_is_verified_whatever_the_parts_are(
        files in vec(1usize..150_000, 1..5),
        log in 14u32..18,
        kind in 0..3,
        at: prop::sample::Index,
        bit in 0u8..8,
        part in 1usize..40_000,
    ) {
        let piece_len = 1u64 << log;
        let sample = match kind {
            0 => Sample::torrent_v1(files.iter().sum(), piece_len - u64::from(bit)),
            kind => Sample::torrent_v2(&files, piece_len, kind == 1),
        };
        let manifest = &sample.manifest;
        for chunk in manifest.geometry().indices() {
            let piece = sample.chunk(chunk);
            prop_assert!(manifest.verify(chunk, piece.chunks(part)));
        }
        let at = at.index(sample.content.len());
        let chunk_len = manifest.geometry().chunk_len() as usize;
        let chunk = ChunkIndex((at / chunk_len) as u32);
        let mut piece = sample.chunk(chunk).to_vec();
        piece[at % chunk_len] ^= 1 << bit;
        prop_assert!(!manifest.verify(chunk, piece.chunks(part)));
    }
}
