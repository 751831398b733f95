//! The errors of the TLS library as errors of this crate, and back.

use std::io;
use std::sync::Arc;

#[cfg(feature = "_tls")]
use rustls::InvalidMessage;
use rustls::{AlertDescription, CertificateError, Error, OtherError};

use crate::transport::auth_error::AuthError;

/// Both sides name what they speak, with its version.
const OTHER_PROTOCOL: &str = "the other side speaks another version of the protocol, or another \
                              one: bring both to the same version";

/// What the library tells the other side of this, as far as it has a word for it.
pub(super) fn to_rustls(error: AuthError) -> Error {
    match error {
        AuthError::Expired => CertificateError::Expired,
        AuthError::NotYetValid => CertificateError::NotValidYet,
        AuthError::Revoked => CertificateError::Revoked,
        AuthError::UnknownAuthority => CertificateError::UnknownIssuer,
        AuthError::WrongUse => CertificateError::InvalidPurpose,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    }
    .into()
}

/// What an error of the library means here.
pub(in crate::transport) fn from_rustls(error: &Error) -> AuthError {
    match error {
        Error::InvalidCertificate(error) => from_certificate_error(error),
        Error::NoCertificatesPresented => AuthError::Missing,
        Error::AlertReceived(alert) if is_refusal(*alert) => refused(*alert),
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            AuthError::handshake(
                "the two sides have no version or algorithm of TLS in common; this side speaks \
                 TLS 1.3 alone",
            )
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | Error::NoApplicationProtocol => AuthError::handshake(OTHER_PROTOCOL),
        error => AuthError::handshake(error),
    }
}

/// What an error of the library means before the other side has sent anything of TLS.
#[cfg(feature = "_tls")]
fn from_first(error: &Error) -> AuthError {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::InvalidEmptyPayload,
        ) => AuthError::NotTls,
        error => from_rustls(error),
    }
}

/// Why a handshake has failed.
#[cfg(feature = "_tls")]
pub(in crate::transport) fn handshake_failed(error: &io::Error) -> AuthError {
    let of_library = error.get_ref().and_then(|inner| inner.downcast_ref());
    of_library.map_or_else(|| broken(error), from_first)
}

/// Reading or writing has failed during a handshake. The text of the library for this is
/// for those who program with it.
#[cfg(feature = "_tls")]
fn broken(error: &io::Error) -> AuthError {
    AuthError::Handshake {
        reason: match error.kind() {
            io::ErrorKind::UnexpectedEof => "the other side has ended the connection".into(),
            kind => kind.to_string(),
        },
    }
}

/// The same for an error of reading or writing that has one of the library inside.
pub(in crate::transport) fn from_io(error: &io::Error) -> Option<AuthError> {
    error.get_ref()?.downcast_ref().map(from_rustls)
}

fn from_certificate_error(error: &CertificateError) -> AuthError {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => AuthError::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            AuthError::NotYetValid
        }
        CertificateError::Revoked => AuthError::Revoked,
        CertificateError::UnknownIssuer => AuthError::UnknownAuthority,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            AuthError::WrongUse
        }
        CertificateError::Other(OtherError(inner)) if inner.is::<AuthError>() => {
            let error = inner.downcast_ref().cloned();
            error.unwrap_or(AuthError::Missing)
        }
        error => AuthError::handshake(format_args!("its certificate cannot be used: {error}")),
    }
}

/// What an alert says, given as its number, if it says that this side is not let in.
#[cfg(feature = "_quic")]
pub(in crate::transport) fn refusal(alert: u8) -> Option<AuthError> {
    let alert = AlertDescription::from(alert);
    match alert {
        AlertDescription::NoApplicationProtocol => Some(AuthError::handshake(OTHER_PROTOCOL)),
        alert => is_refusal(alert).then(|| refused(alert)),
    }
}

fn refused(alert: AlertDescription) -> AuthError {
    let reason = match alert {
        AlertDescription::CertificateExpired => {
            "the certificate of this side has expired, or is not valid yet, or the clock of one \
             of the sides is wrong"
        }
        AlertDescription::CertificateRevoked => "the certificate of this side was revoked",
        AlertDescription::UnknownCA => {
            "no authority that it trusts has signed the certificate of this side"
        }
        AlertDescription::UnsupportedCertificate => {
            "the certificate of this side is not for this use: it needs the extended key usage \
             clientAuth where it connects, and serverAuth where it accepts"
        }
        AlertDescription::CertificateRequired => "it needs a certificate of this side",
        AlertDescription::AccessDenied => "it does not let this side in",
        _ => {
            "the key or the certificate of this side is none that it allows, or the certificate \
             of its authority has expired there"
        }
    };
    AuthError::Refused {
        reason: reason.to_owned(),
    }
}

/// Whether the other side says by this alert that it does not let this side in.
fn is_refusal(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}
