//! What peers and trackers say to each other: the messages, the codec between
//! messages and frames, and every limit of it. The bytes are described in
//! PROTOCOL.md.
//!
//! Everything here is pure. Decoding checks every length against its limit
//! before it allocates, and never panics, whatever the bytes are.

mod addr;
mod codec;
mod frame;
pub mod limits;
mod peer;
mod tracker;

pub use addr::{Addr, AddrError, Host, HostKey, MAX_ADDR_LEN};
pub use codec::ProtocolError;
pub use frame::{Frame, FrameLimits};
pub use peer::{Hello, LinkCookie, LinkProof, PeerId, PeerMessage, RefuseReason};
pub use tracker::{
    ContentKey, Found, ListedOwner, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry,
    Registered, Token, TrackerReply, TrackerRequest, Upload,
};
