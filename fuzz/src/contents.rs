//! What says what a content is: manifests, proofs of lengths, and the indexes of folders.

use bt_lite::content::{LengthProof, PieceDigests};
use bt_lite::{ChunkIndex, ContentId, FolderIndex, FolderItem, FolderPath, Geometry, Manifest};
use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::input::Input;
use crate::memory::Bound;

/// The hashes are taken over, not copied.
const MANIFEST_MEMORY: Bound = Bound::new(4, 16 << 10);
/// An entry of four bytes becomes a value with two texts of their own, and each of its
/// letters may become three where upper and lower case are compared.
const INDEX_MEMORY: Bound = Bound::new(64, 4 << 10);

/// The longest content that is hashed here, in bytes: five chunks.
const MAX_LEN: u32 = 80 << 10;

/// Manifests: of bytes that come in any pieces, changed in any way, and of torrents. Only the
/// right one is accepted, and only the right bytes are verified by it.
pub fn manifests(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => arbitrary_manifest(&mut input),
        1 => changed_manifest(&mut input),
        _ => torrent_manifest(&mut input),
    }
}

/// Whoever gets one of these accepted has found a collision.
fn arbitrary_manifest(input: &mut Input<'_>) {
    let id = ContentId::from_bytes(input.array());
    let length = match input.flag() {
        true => input.u64(),
        false => input.u32().into(),
    };
    let count = usize::from(input.u8());
    let hashes = input.bytes(count * 32).as_chunks().0.to_vec();
    let siblings = usize::from(input.below(20));
    let siblings = input.bytes(siblings * 32).as_chunks().0.to_vec();
    let leaf = Bytes::copy_from_slice(input.rest());
    let len = 32 * (hashes.len() + siblings.len()) + leaf.len();
    let proof = LengthProof { leaf, siblings };
    let checked = MANIFEST_MEMORY.of(len, || Manifest::check(id, length, hashes, proof));
    assert!(checked.is_err());
}

fn changed_manifest(input: &mut Input<'_>) {
    let content: Vec<u8> = {
        let (len, step) = (input.u32() % MAX_LEN, u32::from(input.u8()));
        (0..len).map(|at| (at * step / 7) as u8).collect()
    };
    let manifest = Manifest::of(&content).expect("it is short");
    let mut builder =
        bt_lite::content::ManifestBuilder::new(content.len() as u64).expect("it is short");
    let mut rest = &content[..];
    while !rest.is_empty() {
        let piece = usize::from(input.u16()).clamp(1, rest.len());
        // What is left at the end of the input comes at once.
        let piece = if input.is_empty() { rest.len() } else { piece };
        builder
            .update(&rest[..piece])
            .expect("no more than announced");
        rest = &rest[piece..];
    }
    assert_eq!(builder.finish().as_ref(), Ok(&manifest));

    let geometry = manifest.geometry();
    let (mut length, mut hashes) = (geometry.length(), manifest.hashes().to_vec());
    let mut proof = manifest.proof().clone();
    match input.below(8) {
        0 => length = input.u64(),
        1 => length = length.wrapping_add_signed(i64::from(input.u8() as i8)),
        2 => hashes.truncate(usize::from(input.below(5))),
        3 => hashes.push(input.array()),
        4 => {
            let at = usize::from(input.u8()) % hashes.len();
            hashes[at][usize::from(input.below(32))] ^= input.u8();
        }
        5 => proof.leaf = Bytes::copy_from_slice(input.bytes(2000)),
        6 => proof.siblings.truncate(usize::from(input.below(5))),
        _ => proof.siblings.push(input.array()),
    }
    let is_same =
        length == geometry.length() && hashes == manifest.hashes() && proof == *manifest.proof();
    let checked = Manifest::check(manifest.id(), length, hashes, proof);
    assert_eq!(checked.is_ok(), is_same);

    let chunk = ChunkIndex(u32::from(input.u8()) % geometry.chunks());
    let range = geometry.range_of(chunk);
    let mut bytes = content[range.start as usize..range.end as usize].to_vec();
    assert!(manifest.verify(chunk, cut(&bytes, input)));
    if !bytes.is_empty() {
        let at = usize::from(input.u16()) % bytes.len();
        bytes[at] ^= 1 << input.below(8);
        assert!(!manifest.verify(chunk, cut(&bytes, input)));
        bytes.pop();
        assert!(!manifest.verify(chunk, [&bytes[..]]));
    }
}

/// These bytes in two pieces.
fn cut<'a>(bytes: &'a [u8], input: &mut Input<'_>) -> [&'a [u8]; 2] {
    let (one, two) = bytes.split_at(usize::from(input.u16()).min(bytes.len()));
    [one, two]
}

fn torrent_manifest(input: &mut Input<'_>) {
    let (length, piece_len) = match input.flag() {
        true => (input.u64(), input.u64()),
        false => (input.u16().into(), u64::from(input.u16())),
    };
    let Ok(geometry) = Geometry::of_torrent(length, piece_len) else {
        return;
    };
    assert_eq!(
        (geometry.length(), geometry.chunk_len()),
        (length, piece_len)
    );
    let content: Vec<u8> = match length < 1 << 16 {
        true => (0..length).map(|at| (at / 3) as u8).collect(),
        false => Vec::new(),
    };
    let pieces = content.chunks(piece_len.clamp(1, 1 << 16) as usize);
    let mut hashes: Vec<[u8; 20]> = pieces.map(|piece| Sha1::digest(piece).into()).collect();
    match input.below(3) {
        0 => {}
        1 => drop(hashes.pop()),
        _ => hashes.push(input.array()),
    }
    let id = ContentId::of_torrent_v1(&input.array());
    let fits = hashes.len() == geometry.chunks() as usize;
    let manifest = Manifest::torrent(id, geometry, PieceDigests::v1(hashes.clone()));
    assert_eq!(manifest.is_ok(), fits);
    let Some(manifest) = manifest.ok().filter(|_| length < 1 << 16) else {
        return;
    };
    for chunk in geometry.indices().take(8) {
        let range = geometry.range_of(chunk);
        let bytes = content.get(range.start as usize..range.end as usize);
        let bytes = bytes.expect("all of a short one is there");
        let is_right = <[u8; 20]>::from(Sha1::digest(bytes)) == hashes[chunk.as_usize()];
        assert_eq!(manifest.verify(chunk, cut(bytes, input)), is_right);
    }
}

/// The index of a folder. What is accepted is written as the same bytes, and leads nowhere
/// outside of the folder.
pub fn folder_indexes(data: &[u8]) {
    let Ok(index) = INDEX_MEMORY.of(data.len(), || FolderIndex::decode(data)) else {
        return;
    };
    assert_eq!(index.encode(), data);
    assert_eq!(index.id(), ContentId::of(data));
    let entries = index.entries();
    assert!(entries.is_sorted_by(|a, b| a.path < b.path));
    for entry in entries {
        assert_eq!(entry.path.as_str().parse().as_ref(), Ok(&entry.path));
        if let FolderItem::Symlink { target } = &entry.item {
            let mut depth = entry.path.elements().count() - 1;
            for element in target.split('/') {
                match element {
                    "" => panic!("an absolute target, or an empty element"),
                    "." => {}
                    ".." => depth = depth.checked_sub(1).expect("it stays in the folder"),
                    _ => depth += 1,
                }
            }
        }
    }
    let mut again = entries.to_vec();
    again.reverse();
    assert_eq!(FolderIndex::new(again).as_ref(), Ok(&index));
    let mut paths: Vec<FolderPath> = entries.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(index.select(&paths).as_ref(), Ok(&index));
    paths.truncate(1);
    if let Ok(part) = index.select(&paths) {
        assert_eq!(
            FolderIndex::decode(&part.encode()).is_ok(),
            part_holds(&part)
        );
        assert!(part.entries().len() <= entries.len());
    }
}

/// A link in a part may lead to what is not in the part, which is as if it were missing.
fn part_holds(part: &FolderIndex) -> bool {
    FolderIndex::new(part.entries().to_vec()).is_ok()
}
