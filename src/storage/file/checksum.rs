//! The checksum of what a storage writes for itself.

/// Its length in bytes: enough that nobody's bytes match by chance.
pub(super) const CHECKSUM_LEN: usize = 16;

/// The first bytes of the BLAKE3 hash of all parts together.
pub(super) type Checksum = [u8; CHECKSUM_LEN];

/// The checksum of these parts, one after the other.
pub(super) fn checksum(parts: &[&[u8]]) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_LEN]);
    checksum
}
