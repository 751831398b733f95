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
    #[error(
        "the other side does not speak TLS, and this side does: set both to the same transport, \
         or look whether this is its address"
    )]
    NotTls,
    /// Its key is not among the allowed ones.
    #[error("the key of the other side is not allowed: {0}; add it to the keys if it should be")]
    UnknownKey(PeerIdentity),
    /// No trusted authority has signed its certificate.
    #[error(
        "no trusted authority has signed the certificate of the other side: it is of another \
         swarm, or it does not send the certificates of the authorities between"
    )]
    UnknownAuthority,
    /// The authority that has signed its certificate has expired, or is not valid yet.
    #[error(
        "the authority {authority}, which has signed the certificate of the other side, is not \
         valid any more, or not yet: renew it at both sides, or set the clock if that is wrong"
    )]
    AuthorityExpired {
        /// The name of the authority.
        authority: String,
    },
    /// Its certificate is not valid any more.
    #[error(
        "the certificate of the other side has expired: it must be renewed there, or the clock \
         of this machine is wrong"
    )]
    Expired,
    /// Its certificate is not valid yet.
    #[error(
        "the certificate of the other side is not valid yet: the clock of one of the machines \
         may be wrong"
    )]
    NotYetValid,
    /// Its certificate is for another use.
    #[error(
        "the certificate of the other side is not for this use: it needs the extended key usage \
         clientAuth where it connects, and serverAuth where it accepts"
    )]
    WrongUse,
    /// It has shown more certificates than are looked at.
    #[error(
        "the other side has shown {certificates} certificates of {bytes} bytes, which is more \
         than is looked at"
    )]
    ChainTooLarge {
        /// How many it has shown.
        certificates: usize,
        /// How many bytes they have together.
        bytes: usize,
    },
    /// The certificates that it has shown fit together in more ways than are looked at.
    #[error("the certificates of the other side fit together in too many ways")]
    ChainAmbiguous,
    /// Its certificate was revoked.
    #[error("the certificate of the other side was revoked")]
    Revoked,
    /// It does not know the secret of the swarm.
    #[error("the other side has another secret: compare the files of both")]
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

/// The longest reason for a failed handshake, in characters: whoever connects may have
/// written a part of it, and it goes to logs.
#[cfg(feature = "_auth")]
const MAX_REASON: usize = 300;

impl AuthError {
    /// A handshake that has failed for a reason that may have words of the other side.
    #[cfg(feature = "_auth")]
    pub(in crate::transport) fn handshake(reason: impl std::fmt::Display) -> Self {
        let reason = super::auth::printable(&reason.to_string(), MAX_REASON);
        Self::Handshake { reason }
    }

    /// Whether it is the other side that is not let in, or no longer.
    pub(crate) fn is_of_other_side(&self) -> bool {
        match self {
            Self::Missing
            | Self::UnknownKey(_)
            | Self::UnknownAuthority
            | Self::AuthorityExpired { .. }
            | Self::Expired
            | Self::NotYetValid
            | Self::WrongUse
            | Self::ChainTooLarge { .. }
            | Self::ChainAmbiguous
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
