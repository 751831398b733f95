//! The errors of a transport.

use std::io;

use super::auth_error::AuthError;
use crate::advice::Advice;
use crate::io_error::IoError;
use crate::protocol::Addr;

/// A failure between two programs. Trying again, now or later, may succeed,
/// except after [`Address`](Self::Address), [`SpeaksTls`](Self::SpeaksTls) and most kinds of
/// [`Auth`](Self::Auth).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// This transport cannot read the address.
    #[error("invalid address {addr} for this transport: {reason}")]
    Address {
        /// The address.
        addr: Addr,
        /// What is wrong with it.
        reason: String,
    },
    /// The network or the operating system failed.
    #[error("{source}")]
    Io {
        /// The kind of failure.
        kind: io::ErrorKind,
        /// The error itself, with the number that the operating system gave it.
        source: IoError,
    },
    /// A head or a body is longer than its limit.
    #[error("part of a frame is {len} bytes long; the limit is {max}")]
    FrameTooLarge {
        /// The announced length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The connection ended in the middle of a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The rest of a frame did not arrive in time after its first byte.
    #[error("timed out in the middle of a frame")]
    FrameTimeout,
    /// The other side speaks TLS, and this side does not. It needs a transport that does,
    /// with an identity of that swarm (`TlsTransport`, feature `tls`).
    #[error("the other side speaks TLS, and this side does not")]
    SpeaksTls,
    /// One side does not accept the other.
    #[error("{0}")]
    Auth(#[from] AuthError),
    /// The connection is already closed.
    #[error("the connection is closed")]
    Closed,
}

impl TransportError {
    /// What to do about it. [`Advice::AskUser`] for an address that can never be used,
    /// where one side speaks TLS and the other does not, where one does not accept the
    /// other, and where the system forbids or does not offer what was asked for; otherwise
    /// [`Advice::Retry`], with a new connection.
    pub fn advice(&self) -> Advice {
        let Self::Io { kind, .. } = self else {
            return match self {
                Self::Address { .. } | Self::SpeaksTls => Advice::AskUser,
                Self::Auth(error) => error.advice(),
                _ => Advice::Retry,
            };
        };
        match kind {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported => Advice::AskUser,
            _ => Advice::Retry,
        }
    }
}

is_transient!(TransportError);

impl From<io::Error> for TransportError {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(auth) = inner.and_then(|inner| inner.downcast_ref::<AuthError>()) {
            return Self::Auth(auth.clone());
        }
        Self::Io {
            kind: error.kind(),
            source: error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn io_error_keeps_its_kind_number_and_source() {
        let refused = io::Error::from_raw_os_error(2);
        let (kind, text) = (refused.kind(), refused.to_string());
        let error = TransportError::from(refused);
        assert_eq!(error.to_string(), text);
        let source = error.source().expect("it has a source");
        let source = source.downcast_ref::<IoError>().expect("an IoError");
        assert_eq!(source.kind(), kind);
        assert_eq!(source.raw_os_error(), Some(2));
    }

    #[test]
    fn io_errors_are_compared_by_kind_number_and_text() {
        let error = |kind, text: &str| TransportError::from(io::Error::new(kind, text));
        let reset = io::ErrorKind::ConnectionReset;
        assert_eq!(error(reset, "a"), error(reset, "a"));
        assert_ne!(error(reset, "a"), error(reset, "b"));
        assert_ne!(error(reset, "a"), error(io::ErrorKind::TimedOut, "a"));
        let number = |number| TransportError::from(io::Error::from_raw_os_error(number));
        assert_eq!(number(2), number(2));
        assert_ne!(number(2), number(3));
    }
}
