//! How frames travel between two programs: the traits of a transport, and the
//! transports that come with the crate.
//!
//! A transport moves [`Frame`]s and knows nothing about their meaning. To write
//! your own, implement [`Transport`] and [`Listener`]. Over any byte stream,
//! [`framed::from_io`] makes the [`Connection`], so that little is left to do.
//! Check your transport with the conformance suite
//! `bt_lite::testing::transport` (feature `testing`).

mod connection;
mod error;
pub mod framed;
pub mod memory;
#[cfg(feature = "tcp")]
mod tcp;
mod traits;

pub use crate::io_error::IoError;
pub use crate::protocol::{Addr, Frame, FrameLimits};
pub use connection::{Connection, FrameSink, FrameStream, LimitHandle};
pub use error::TransportError;
pub use memory::{MemoryNetwork, MemoryTransport};
#[cfg(feature = "tcp")]
pub use tcp::TcpTransport;
pub use traits::{Listener, Transport};
