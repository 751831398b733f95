//! All limits of the protocol.

use std::time::Duration;

use super::frame::FrameLimits;
use crate::content::MAX_CHUNKS;

/// The version of the peer and the tracker protocol.
pub const VERSION: u8 = 2;

/// The magic bytes of this protocol. In every version, an opening message (Hello,
/// REGISTER) has them right after its type.
pub const MAGIC: [u8; 7] = *b"bt_lite";

/// The longest block, in bytes: the unit of transfer.
pub const MAX_BLOCK_LEN: u32 = 256 << 10;

/// Frames on a link between two peers. The longest body is a block.
pub const LINK_FRAMES: FrameLimits = FrameLimits {
    head: 1 << 10,
    body: MAX_BLOCK_LEN,
};

/// Frames to and from a tracker. They have no body.
pub const TRACKER_FRAMES: FrameLimits = FrameLimits {
    head: 64_000,
    body: 0,
};

/// The longest frame that a transport must be able to carry.
pub const MAX_FRAMES: FrameLimits = FrameLimits {
    head: u16::MAX,
    body: MAX_BLOCK_LEN,
};

/// How many chunk hashes one manifest page holds: as many as fit into the body of
/// a frame.
pub const HASHES_PER_PAGE: u32 = MAX_BLOCK_LEN / 32;

/// The last page of the longest manifest. Page 0 is the length with its proof.
pub const MAX_MANIFEST_PAGE: u32 = MAX_CHUNKS.div_ceil(HASHES_PER_PAGE);

/// How many requests may be outstanding on a link in one direction.
pub const MAX_REQUESTS: usize = 512;

/// How many owners a tracker may name in one reply.
pub const MAX_OWNERS: u16 = 50;

/// How many contents one OWN may list, and how many uploads one UPDATE.
pub const MAX_BATCH: usize = 200;

/// How many ids a tracker may list for a name that several contents have.
pub const MAX_AMBIGUOUS: usize = 32;

/// The longest heartbeat interval that a tracker may ask for. The shortest is one
/// millisecond.
pub const MAX_HEARTBEAT: Duration = Duration::from_secs(24 * 60 * 60);

/// The time from the connection to the last byte of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time from a frame's first byte to its last. It is absolute: a sender cannot
/// hold a slot by sending a byte per second.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be silent.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How often an idle link sends a KeepAlive, so that [`IDLE_TIMEOUT`] does not
/// end it.
pub const KEEP_ALIVE: Duration = Duration::from_secs(45);
