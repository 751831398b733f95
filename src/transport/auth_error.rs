//! Why the other side of a connection was not let in, or did not let this side in.

use super::identity::PeerIdentity;
use crate::advice::Advice;

/// Why two programs did not agree on who they are. Neither has told the other anything
/// but its public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The other side has shown no identity, where one is needed.
    #[error("the other side has not proven who it is")]
    Missing,
    /// The other side speaks in the clear, or something else than TLS.
    #[error("the other side does not speak TLS, and this side does")]
    NotTls,
    /// Its key is not among the allowed ones.
    #[error("the key of the other side is not allowed: {0}")]
    UnknownKey(PeerIdentity),
    /// No trusted authority has signed its certificate.
    #[error("no trusted authority has signed the certificate of the other side")]
    UnknownAuthority,
    /// Its certificate is not valid any more.
    #[error("the certificate of the other side has expired")]
    Expired,
    /// Its certificate is not valid yet.
    #[error("the certificate of the other side is not valid yet")]
    NotYetValid,
    /// Its certificate was revoked.
    #[error("the certificate of the other side was revoked")]
    Revoked,
    /// It does not know the secret of the swarm.
    #[error("the other side does not know the secret")]
    WrongSecret,
    /// It does not accept this side.
    #[error("the other side does not accept this one: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// What it sent is no proof of anything: another protocol, another version, or
    /// nonsense.
    #[error("the handshake failed: {reason}")]
    Handshake {
        /// What is wrong with it.
        reason: String,
    },
    /// It did not finish in time.
    #[error("the handshake took too long")]
    TimedOut,
}

impl AuthError {
    /// Whether it is the other side that is not let in, or no longer.
    pub(crate) fn is_of_other_side(&self) -> bool {
        match self {
            Self::Missing
            | Self::UnknownKey(_)
            | Self::UnknownAuthority
            | Self::Expired
            | Self::NotYetValid
            | Self::Revoked
            | Self::WrongSecret => true,
            Self::NotTls | Self::Refused { .. } | Self::Handshake { .. } | Self::TimedOut => false,
        }
    }

    /// What to do about it: [`Advice::Retry`] if the handshake was cut short, and
    /// otherwise [`Advice::AskUser`], as the keys or the clocks have to change.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Handshake { .. } | Self::TimedOut => Advice::Retry,
            _ => Advice::AskUser,
        }
    }
}
