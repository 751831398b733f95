//! The errors of the QUIC library as errors of this crate.

use std::io;

use quinn::ConnectionError;

use crate::transport::auth::refusal;
use crate::transport::auth_error::AuthError;

/// The codes of QUIC that carry an alert of TLS in their last byte (RFC 9001, 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// QUIC's code for a listener that takes no connection (RFC 9000, 20.1).
const CONNECTION_REFUSED: u64 = 0x02;

/// Why the other side does not let this one in, if that is why the connection has ended.
fn refused(error: &ConnectionError) -> Option<AuthError> {
    let ConnectionError::ConnectionClosed(close) = error else {
        return None;
    };
    let code = u64::from(close.error_code);
    let alert = CRYPTO_ERRORS.contains(&code).then_some(code as u8)?;
    refusal(alert)
}

/// Why a handshake has failed.
pub(super) fn failed(error: &ConnectionError) -> AuthError {
    match error {
        ConnectionError::TimedOut => AuthError::TimedOut,
        error => refused(error).unwrap_or_else(|| AuthError::Handshake {
            reason: error.to_string(),
        }),
    }
}

/// What the end of a connection means to who reads or writes.
pub(super) fn ended(error: &ConnectionError) -> io::Error {
    if let Some(auth) = refused(error) {
        return io::Error::new(io::ErrorKind::PermissionDenied, auth);
    }
    let kind = match error {
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        ConnectionError::ConnectionClosed(close)
            if u64::from(close.error_code) == CONNECTION_REFUSED =>
        {
            io::ErrorKind::ConnectionRefused
        }
        ConnectionError::LocallyClosed => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error.to_string())
}

/// Whether nobody listens there, or nothing comes back.
pub(super) fn is_unreachable(error: &ConnectionError) -> bool {
    let kind = ended(error).kind();
    matches!(
        kind,
        io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
    )
}
