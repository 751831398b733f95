//! A manifest as it is written to disk: the hashes of the chunks, and the proof of
//! the length. What else it takes is recorded elsewhere. This module does no I/O.

use bytes::{Buf, Bytes};

use super::fields::split;
use crate::content::{ChunkHash, ChunkIndex, ContentId, LengthProof, MAX_CHUNKS, Manifest};

const HASH_LEN: usize = 32;
/// The maximum length of a manifest, in bytes: the hashes of the longest content,
/// and room for the proof.
pub(super) const MAX_MANIFEST_LEN: usize = MAX_CHUNKS as usize * HASH_LEN + (32 << 10);

/// Appends a manifest; nothing if it is that of a torrent, which is in its metainfo, or if
/// its proof is too long, which none is.
pub(super) fn put_manifest(bytes: &mut Vec<u8>, manifest: &Manifest) -> Option<()> {
    if manifest.is_torrent() {
        return None;
    }
    let (chunks, proof) = (manifest.geometry().chunks(), manifest.proof());
    let leaf_len = u16::try_from(proof.leaf.len()).ok()?;
    let siblings = u8::try_from(proof.siblings.len()).ok()?;
    bytes.extend(chunks.to_le_bytes());
    bytes.extend(manifest.hash_bytes(ChunkIndex(0)..ChunkIndex(chunks)));
    bytes.extend(leaf_len.to_le_bytes());
    bytes.extend(&proof.leaf);
    bytes.push(siblings);
    bytes.extend(proof.siblings.as_flattened());
    Some(())
}

/// Reads the manifest of a content; nothing if it is not one.
pub(super) fn take_manifest(bytes: &mut Bytes, id: ContentId, len: u64) -> Option<Manifest> {
    let count = bytes.try_get_u32_le().ok()? as usize;
    let chunk_hashes = hashes(bytes, count)?;
    let leaf_len = bytes.try_get_u16_le().ok()?;
    let leaf = split(bytes, leaf_len.into())?;
    let count = bytes.try_get_u8().ok()?.into();
    let siblings = hashes(bytes, count)?;
    Manifest::check(id, len, chunk_hashes, LengthProof { leaf, siblings }).ok()
}

fn hashes(bytes: &mut Bytes, count: usize) -> Option<Vec<ChunkHash>> {
    let flat = split(bytes, count.checked_mul(HASH_LEN)?)?;
    let hash = |hash: &[u8]| hash.try_into().expect("cut to its length");
    Some(flat.chunks_exact(HASH_LEN).map(hash).collect())
}

#[cfg(all(test, feature = "bittorrent"))]
mod tests {
    use super::*;
    use crate::content::{Geometry, PieceDigests};

    #[test]
    fn manifest_of_a_torrent_is_not_written() {
        let geometry = Geometry::of_torrent(250, 100).unwrap();
        let digests = PieceDigests::v1(vec![[0; 20]; 3]);
        let id = ContentId::of_torrent_v1(&[0; 20]);
        let manifest = Manifest::torrent(id, geometry, digests).unwrap();
        let mut bytes = Vec::new();
        assert_eq!(put_manifest(&mut bytes, &manifest), None);
        assert!(bytes.is_empty());
    }
}
