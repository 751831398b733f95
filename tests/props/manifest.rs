//! The manifest: its id, verification, and the proof of the length.

use std::io::{self, Read};

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root};
use bt_lite::content::{ChunkHash, LengthProof, ManifestError, ReadError};
use bt_lite::{ChunkIndex, ContentId, Geometry, Manifest};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::content::boundary_lengths;

/// The input of BLAKE3's published test vectors: 0, 1, ... 250, repeated.
fn vector_input(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// The boundary lengths that are quick to hash.
fn short_lengths() -> impl Iterator<Item = usize> {
    boundary_lengths()
        .into_iter()
        .filter(|&length| length <= 256 << 10)
        .map(|length| length as usize)
}

/// A reader that yields pieces of these sizes, cyclically, and is interrupted
/// before each piece.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    interrupted: bool,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], sizes: &'a [usize]) -> Self {
        Self {
            bytes,
            sizes: sizes.iter().cycle(),
            interrupted: false,
        }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size = self.sizes.next().unwrap();
        self.bytes.read(&mut buffer[..*size])
    }
}

#[test]
fn id_of_the_published_vectors_is_their_blake3_hash() {
    for (len, id) in [
        (
            0,
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        ),
        (
            1,
            "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        ),
        (
            1023,
            "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
        ),
        (
            1024,
            "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        ),
        (
            1025,
            "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
        ),
        (
            16384,
            "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4",
        ),
        (
            16385,
            "1dabe216be2578830263b049de1639f39f05a4da616b9b78c7a5e4e41662fd1f",
        ),
        (
            31744,
            "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
        ),
        (
            102400,
            "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
        ),
    ] {
        let content = vector_input(len);
        assert_eq!(Manifest::of(&content).unwrap().id().to_string(), id);
        assert_eq!(ContentId::of(&content).to_string(), id);
    }
}

#[test]
fn manifest_at_every_boundary_length_is_valid() {
    for length in short_lengths() {
        let content = vector_input(length);
        let manifest = Manifest::of(&content).unwrap();
        assert_eq!(manifest.id(), ContentId::of(&content), "length {length}");
        let geometry = manifest.geometry();
        assert_eq!(geometry, Geometry::of(length as u64).unwrap());
        let (siblings, leaf) = LengthProof::shape(&geometry);
        assert_eq!(manifest.proof().siblings.len(), siblings);
        assert_eq!(manifest.proof().leaf, content[length - leaf..]);
        let again = Manifest::check(
            manifest.id(),
            length as u64,
            manifest.hashes().to_vec(),
            manifest.proof().clone(),
        );
        assert_eq!(again.as_ref(), Ok(&manifest));
        for chunk in geometry.indices() {
            let range = geometry.range_of(chunk);
            let bytes = &content[range.start as usize..range.end as usize];
            assert!(
                manifest.verify(chunk, [bytes]),
                "{chunk} of length {length}"
            );
            assert!(!manifest.verify(chunk, [bytes, b"x"]));
            if let [shorter @ .., _] = bytes {
                assert!(!manifest.verify(chunk, [shorter]));
            }
        }
        assert!(!manifest.verify(ChunkIndex(geometry.chunks()), [&content[..]]));
        assert!(!manifest.verify(ChunkIndex(u32::MAX), []));
    }
}

#[test]
fn reader_that_ends_early_or_late_is_an_error() {
    let content = vector_input(50_000);
    for announced in [49_999, 49_000, 0] {
        let read = Manifest::from_reader(&content[..], announced);
        assert!(
            matches!(read, Err(ReadError::Manifest(ManifestError::Content { found, expected }))
                if found > announced && expected == announced)
        );
    }
    let short = Manifest::from_reader(&content[..], 50_001);
    assert!(matches!(
        short,
        Err(ReadError::Manifest(ManifestError::Content {
            found: 50_000,
            expected: 50_001
        }))
    ));
    let beyond = Manifest::from_reader(io::empty(), u64::MAX);
    assert!(matches!(
        beyond,
        Err(ReadError::Manifest(ManifestError::TooLong(_)))
    ));
}

#[test]
fn error_of_a_reader_is_passed_on() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let failed = Manifest::from_reader(Fails, 10);
    assert!(matches!(failed, Err(ReadError::Io(e)) if e.kind() == io::ErrorKind::PermissionDenied));
}

/// The hashes one level up in the tree: each pair of neighbours is merged.
fn merged(hashes: &[ChunkHash]) -> Vec<ChunkHash> {
    hashes
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
            _ => pair[0],
        })
        .collect()
}

/// Proofs that an attacker could make for a claimed length from the true proof:
/// the siblings and the leaf are truncated or extended to the right shape.
fn forged_proofs(manifest: &Manifest, claimed: &Geometry) -> Vec<LengthProof> {
    let (siblings, leaf) = LengthProof::shape(claimed);
    let LengthProof {
        leaf: true_leaf,
        siblings: true_siblings,
    } = manifest.proof();
    let pool: Vec<ChunkHash> = manifest
        .hashes()
        .iter()
        .chain(true_siblings)
        .copied()
        .cycle()
        .take(siblings + manifest.hashes().len() + true_siblings.len())
        .collect();
    let mut leaf_bytes = true_leaf.to_vec();
    leaf_bytes.resize(leaf, 0);
    let mut rotated = true_siblings.clone();
    rotated.extend(&pool);
    rotated.truncate(siblings);
    vec![
        manifest.proof().clone(),
        LengthProof {
            leaf: leaf_bytes.clone().into(),
            siblings: pool[pool.len() - siblings..].to_vec(),
        },
        LengthProof {
            leaf: leaf_bytes.clone().into(),
            siblings: pool[..siblings].to_vec(),
        },
        LengthProof {
            leaf: leaf_bytes.into(),
            siblings: rotated,
        },
    ]
}

/// Lengths with this number of chunks: the ends of each range of such lengths.
fn lengths_with(chunks: usize) -> Vec<u64> {
    let mut lengths: Vec<u64> = (14..=24)
        .map(|log| 1u64 << log)
        .flat_map(|chunk_len| {
            let (least, most) = (
                (chunks as u64 - 1) * chunk_len + 1,
                chunks as u64 * chunk_len,
            );
            [
                least,
                least + 1023,
                least + 1024,
                (least + most) / 2,
                most - 1,
                most,
            ]
        })
        .filter(|&length| Geometry::of(length).unwrap().chunks() as usize == chunks)
        .collect();
    lengths.dedup();
    lengths
}

/// Claims other lengths with hashes that merge to the id, and checks that all are
/// refused. Returns their number.
fn refuse_other_lengths(manifest: &Manifest, hashes: &[ChunkHash]) -> usize {
    let length = manifest.geometry().length();
    let near = [
        length.saturating_sub(1),
        length + 1,
        length + 1024,
        2 * length,
    ];
    let claims = lengths_with(hashes.len()).into_iter().chain(near);
    let mut refused = 0;
    for claim in claims.filter(|&claim| claim != length) {
        let geometry = Geometry::of(claim).unwrap();
        for proof in forged_proofs(manifest, &geometry) {
            let checked = Manifest::check(manifest.id(), claim, hashes.to_vec(), proof);
            if geometry.chunks() as usize == hashes.len() {
                assert_eq!(checked, Err(ManifestError::Length { length: claim }));
                refused += 1;
            } else {
                assert!(matches!(checked, Err(ManifestError::Chunks { .. })));
            }
        }
    }
    refused
}

#[test]
fn same_hashes_with_another_length_are_refused() {
    for length in short_lengths() {
        let manifest = Manifest::of(&vector_input(length)).unwrap();
        assert!(refuse_other_lengths(&manifest, manifest.hashes()) > 0);
    }
}

#[test]
fn inner_nodes_presented_as_chunks_are_refused() {
    for chunks in [4, 5, 8, 64] {
        let manifest = Manifest::of(&vector_input(chunks << 14)).unwrap();
        let mut hashes = merged(manifest.hashes());
        while hashes.len() > 1 {
            assert!(refuse_other_lengths(&manifest, &hashes) > 0);
            hashes = merged(&hashes);
        }
    }
}

#[test]
fn chunks_presented_as_twice_as_long_are_refused() {
    // 1024 chunks of the minimum length are claimed to be 1024 chunks of twice
    // that length. Then each pair is merged, and claimed to be one chunk of a
    // shorter length.
    let manifest = Manifest::of(&vector_input(16 << 20)).unwrap();
    assert_eq!(manifest.geometry().chunk_len(), 16 << 10);
    assert_eq!(Geometry::of(32 << 20).unwrap().chunk_len(), 32 << 10);
    assert!(refuse_other_lengths(&manifest, manifest.hashes()) > 8);
    assert!(refuse_other_lengths(&manifest, &merged(manifest.hashes())) > 8);
}

#[test]
fn inner_node_presented_as_a_leaf_is_refused() {
    // The last of three chunks is an inner node over two hashes. The 64 bytes of
    // these two hashes are not a leaf, although the node is hashed from the same
    // bytes.
    let content = vector_input(48 << 10);
    let manifest = Manifest::of(&content).unwrap();
    let left = manifest.proof().siblings[0];
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(40 << 10);
    let right = hasher.update(&content[40 << 10..]).finalize_non_root();
    assert_eq!(
        merge_subtrees_non_root(&left, &right, Mode::Hash),
        manifest.hashes()[2]
    );
    let length = (32 << 10) + 64;
    let proof = LengthProof {
        leaf: Bytes::from([left, right].concat()),
        siblings: Vec::new(),
    };
    let checked = Manifest::check(manifest.id(), length, manifest.hashes().to_vec(), proof);
    assert_eq!(checked, Err(ManifestError::Length { length }));
}

#[test]
fn proof_with_a_wrong_leaf_or_wrong_siblings_is_refused() {
    for length in [1, 1025, 3000, 16 << 10, (48 << 10) + 5000] {
        let manifest = Manifest::of(&vector_input(length)).unwrap();
        let refused = |change: &dyn Fn(&mut LengthProof)| {
            let mut proof = manifest.proof().clone();
            change(&mut proof);
            let hashes = manifest.hashes().to_vec();
            let checked = Manifest::check(manifest.id(), length as u64, hashes, proof);
            let length = length as u64;
            assert_eq!(checked, Err(ManifestError::Length { length }));
        };
        refused(&|proof| proof.leaf = [&[proof.leaf[0] ^ 1], &proof.leaf[1..]].concat().into());
        refused(&|proof| proof.leaf = [&proof.leaf[..], b"x"].concat().into());
        refused(&|proof| proof.leaf = proof.leaf.slice(1..));
        refused(&|proof| proof.siblings.push([0; 32]));
        if !manifest.proof().siblings.is_empty() {
            refused(&|proof| proof.siblings[0][31] ^= 0x80);
            refused(&|proof| proof.siblings.truncate(proof.siblings.len() - 1));
        }
        if manifest.proof().siblings.len() > 1 {
            refused(&|proof| proof.siblings.swap(0, 1));
        }
    }
}

#[test]
fn hashes_that_are_changed_swapped_missing_or_added_are_refused() {
    let manifest = Manifest::of(&vector_input(5 << 14)).unwrap();
    let check = |hashes: Vec<ChunkHash>| {
        Manifest::check(manifest.id(), 5 << 14, hashes, manifest.proof().clone())
    };
    let hashes = manifest.hashes();
    for i in 0..hashes.len() {
        let mut changed = hashes.to_vec();
        changed[i][i] ^= 1;
        assert_eq!(check(changed), Err(ManifestError::Mismatch));
        let mut swapped = hashes.to_vec();
        swapped.swap(i, (i + 1) % hashes.len());
        assert_eq!(check(swapped), Err(ManifestError::Mismatch));
    }
    for found in [0, 4, 6] {
        let other = hashes.iter().copied().cycle().take(found).collect();
        assert_eq!(
            check(other),
            Err(ManifestError::Chunks { found, expected: 5 })
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn manifest_does_not_depend_on_the_pieces_that_a_reader_yields(
        length in 0usize..200_000,
        sizes in vec(prop_oneof![1usize..100, 1usize..70_000], 1..8),
    ) {
        let content = vector_input(length);
        let whole = Manifest::of(&content).unwrap();
        let read = Manifest::from_reader(Pieces::new(&content, &sizes), length as u64).unwrap();
        prop_assert_eq!(read, whole);
    }

    #[test]
    fn correct_chunk_in_pieces_of_any_size_verifies_and_a_changed_chunk_does_not(
        length in 1usize..200_000,
        piece in 1usize..20_000,
        (at, bit) in (any::<prop::sample::Index>(), 0u32..8),
    ) {
        let mut content = vector_input(length);
        let manifest = Manifest::of(&content).unwrap();
        let geometry = manifest.geometry();
        let slice = |content: &[u8], chunk| {
            let range = geometry.range_of(chunk);
            content[range.start as usize..range.end as usize].to_vec()
        };
        for chunk in geometry.indices() {
            let bytes = slice(&content, chunk);
            prop_assert!(manifest.verify(chunk, bytes.chunks(piece)));
            for other in geometry.indices().filter(|&other| other != chunk) {
                prop_assert!(!manifest.verify(other, [&bytes[..]]));
            }
        }
        let at = at.index(length);
        content[at] ^= 1 << bit;
        for chunk in geometry.indices() {
            let untouched = !geometry.range_of(chunk).contains(&(at as u64));
            prop_assert_eq!(manifest.verify(chunk, slice(&content, chunk).chunks(piece)), untouched);
        }
    }
}
