//! Every limit of the protocol, in one place.

use std::time::Duration;

use super::FrameLimits;
use crate::content::MAX_CHUNKS;

/// The version of the peer and the tracker protocol.
pub const VERSION: u8 = 2;

/// What an opening message (Hello, REGISTER) starts with behind its type, in
/// every version: the mark of this protocol.
pub const MAGIC: [u8; 7] = *b"bt_lite";

/// The longest block, in bytes: the unit of transfer.
pub const MAX_BLOCK_LEN: u32 = 256 << 10;

/// Frames on a link between two peers: the longest body is a block.
pub const LINK_FRAMES: FrameLimits = FrameLimits {
    head: 1 << 10,
    body: MAX_BLOCK_LEN,
};

/// Frames to and from a tracker: all is in the head, in bytes.
pub const TRACKER_FRAMES: FrameLimits = FrameLimits {
    head: 64_000,
    body: 0,
};

/// The most any transport must carry in one frame.
pub const MAX_FRAMES: FrameLimits = FrameLimits {
    head: u16::MAX,
    body: MAX_BLOCK_LEN,
};

/// How many chunk hashes one manifest part carries at the most: what fits a
/// frame's body.
pub const HASHES_PER_PART: u32 = MAX_BLOCK_LEN / 32;

/// The last part of the longest manifest; part 0 is the length with its proof.
pub const MAX_MANIFEST_PART: u32 = MAX_CHUNKS.div_ceil(HASHES_PER_PART);

/// How many requests may be outstanding on a link in one direction.
pub const MAX_REQUESTS: usize = 512;

/// How many owners a tracker names in one reply at the most.
pub const MAX_OWNERS: u16 = 50;

/// How many contents one OWN, or uploads one UPDATE, lists at the most.
pub const MAX_BATCH: usize = 200;

/// How many ids a tracker lists for a name that several contents bear.
pub const MAX_AMBIGUOUS: usize = 32;

/// The longest heartbeat interval that a tracker may ask for; the shortest is
/// a millisecond.
pub const MAX_HEARTBEAT: Duration = Duration::from_secs(24 * 60 * 60);

/// From the connection to the last byte of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// From a frame's first byte to its last: absolute, so that a byte a second
/// does not hold a slot.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be silent.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a link that has nothing to say says so, to stay clear of
/// [`IDLE_TIMEOUT`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(45);
