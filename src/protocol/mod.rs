//! The messages of peers and trackers, their encoding in frames, and all limits.
//! PROTOCOL.md describes the bytes.
//!
//! Everything here is pure. Decoding gives back what was encoded. It checks every
//! length against its limit before it allocates memory, it never copies a body,
//! and it never panics, whatever the bytes are. It does not know what a message
//! means for a link or a content, for example whether a chunk exists.

mod addr;
mod error;
mod feature;
mod frame;
pub mod limits;
mod peer;
#[cfg(feature = "_quic")]
mod place;
mod tracker;
mod wire;
mod zone;

pub use addr::{Addr, AddrError, Host, HostKey, MAX_ADDR_LEN};
pub use error::ProtocolError;
pub use feature::DONT_HAVE_MARK;
pub use frame::{Frame, FrameLimits};
pub use peer::{ChannelId, Hello, LinkCookie, LinkProof, PeerId, PeerMessage, RefuseReason};
#[cfg(feature = "_quic")]
pub(crate) use place::FramePlace;
pub use tracker::{
    ContentKey, Found, ListedOwner, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry,
    Registered, Token, TrackerReply, TrackerRequest, Upload,
};
pub use zone::{MAX_ZONE_LEN, Zone, ZoneError, ZoneTag};
