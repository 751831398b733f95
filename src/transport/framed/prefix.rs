//! The prefix of a frame on a byte stream.

use bytes::{Buf, BufMut};

use crate::protocol::Frame;

/// The length of the prefix before each head, in bytes: the length of the head
/// (`u16`) and of the body (`u32`), both big-endian.
pub const PREFIX_LEN: usize = 6;

/// Writes the prefix of a frame. The lengths must be within
/// [`MAX_FRAMES`](crate::protocol::limits::MAX_FRAMES).
pub(super) fn put(buf: &mut impl BufMut, frame: &Frame) {
    buf.put_u16(frame.head.len() as u16);
    buf.put_u32(frame.body.len() as u32);
}

/// Whether these lengths are none, but the beginning of a record of TLS (RFC 8446, 5.1):
/// a handshake or an alert, and the version. No frame has a body that long.
pub(super) fn is_tls(head: usize, body: usize) -> bool {
    /// The content types of a handshake and of an alert, and the first byte of all versions.
    const FIRST: [usize; 2] = [0x1603, 0x1503];
    /// The second byte of all versions that anybody speaks.
    const VERSIONS: std::ops::RangeInclusive<usize> = 0..=4;
    FIRST.contains(&head) && VERSIONS.contains(&(body >> 24))
}

/// Reads the lengths of head and body, in bytes, if all of the prefix is there.
pub(super) fn take(buf: &mut impl Buf) -> Option<(usize, usize)> {
    if buf.remaining() < PREFIX_LEN {
        return None;
    }
    let head = usize::from(buf.get_u16());
    let body = buf.get_u32() as usize;
    Some((head, body))
}
