//! Cuts fields of a file off the front of its bytes.

use bytes::{Buf, Bytes};

/// The next `N` bytes.
pub(super) fn take<const N: usize>(bytes: &mut Bytes) -> Option<[u8; N]> {
    let mut array = [0; N];
    bytes.try_copy_to_slice(&mut array).ok()?;
    Some(array)
}

/// The next `len` bytes.
pub(super) fn split(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.len()).then(|| bytes.split_to(len))
}
