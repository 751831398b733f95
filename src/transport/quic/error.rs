//! The errors of the QUIC library as errors of this crate.

use std::io;

use quinn::ConnectionError;

use crate::transport::auth::{printable, refusal};
use crate::transport::auth_error::AuthError;

/// The codes of QUIC that carry an alert of TLS in their last byte (RFC 9001, 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// QUIC's code for a listener that takes no connection (RFC 9000, 20.1).
const CONNECTION_REFUSED: u64 = 0x02;

/// The longest text of an error, in characters.
const MAX_TEXT: usize = 300;

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
        error => refused(error).unwrap_or_else(|| AuthError::handshake(reason(error))),
    }
}

/// The text of an error without the words of the other side, which nobody knows yet.
fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionClosed(close) => {
            format!("the other side has ended it: {}", close.error_code)
        }
        ConnectionError::ApplicationClosed(close) => {
            format!("the other side has ended it (code {})", close.error_code)
        }
        error => error.to_string(),
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
    io::Error::new(kind, printable(&reason(error), MAX_TEXT))
}

/// What it means that nobody listens there, or that nothing comes back; nothing if the
/// connection has ended for another reason.
pub(super) fn unreachable(error: &ConnectionError) -> Option<io::Error> {
    let kind = ended(error).kind();
    let text = match kind {
        io::ErrorKind::TimedOut => {
            "no answer over QUIC: nobody is there, UDP does not get through, or the other side \
             speaks TLS over TCP"
        }
        io::ErrorKind::ConnectionRefused => {
            "it takes no connection over QUIC from here at present: it does not listen, or too \
             many from this address have failed"
        }
        _ => return None,
    };
    Some(io::Error::new(kind, text))
}
