//! How frames travel between two programs: the traits of a transport, and the
//! transports that come with the crate.
//!
//! A transport moves [`Frame`]s and knows nothing about their meaning. To write
//! your own, implement [`Transport`] and [`Listener`]. Over any byte stream,
//! [`framed::from_io`] makes the [`Connection`], so that little is left to do.
//! A [`StreamTransport`] carries bytes; what is wrapped around it, as TLS is (feature
//! `tls`), makes a `Transport` of it. Check your transport with the conformance suite
//! `bt_lite::testing::transport` (feature `testing`).

#[cfg(feature = "_auth")]
pub mod auth;
mod auth_error;
mod connection;
mod error;
pub mod framed;
mod identity;
mod membership;
pub mod memory;
#[cfg(feature = "_quic")]
pub mod quic;
mod stream;
#[cfg(feature = "tcp")]
mod tcp;
#[cfg(feature = "_tls")]
pub mod tls;
mod traits;
mod whereabouts;

pub use crate::io_error::IoError;
pub use crate::protocol::{Addr, Frame, FrameLimits};
pub use auth_error::AuthError;
pub use connection::{Connection, FrameSink, FrameStream, LimitHandle};
pub use error::TransportError;
pub use identity::{ParseIdentityError, PeerIdentity};
pub use membership::Membership;
pub use memory::{MemoryNetwork, MemoryTransport};
#[cfg(feature = "_quic")]
pub use quic::QuicTransport;
pub use stream::{ByteStream, StreamListener, StreamTransport};
#[cfg(feature = "tcp")]
pub use tcp::{TcpAcceptor, TcpTransport};
#[cfg(feature = "_tls")]
pub use tls::TlsTransport;
pub use traits::{Listener, Transport};
pub(crate) use whereabouts::Whereabouts;
