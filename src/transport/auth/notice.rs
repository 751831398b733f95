//! What is wrong or about to be, and keeps nobody from starting: the log says it to a person.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::der::Day;
use super::validity::Validity;
use crate::transport::auth_error::AuthError;

/// How long before the end of a certificate it is told: time enough for a person to renew
/// it.
const EXPIRY_NOTICE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// This certificate expires at that time.
    Soon(String, SystemTime),
    /// It has expired.
    Expired(String, SystemTime),
    /// It is not valid before that time.
    NotYet(String, SystemTime),
    /// Others that trust the same will refuse the own certificate.
    Refused(AuthError),
    /// There is no file of revocation lists.
    MissingList(String),
    /// A revocation list of this authority should have been replaced at that time.
    LateList(String, SystemTime),
    /// A revocation list of an authority that is not here.
    ForeignList(String),
    /// A revocation list of this authority that is not in its place any more.
    KeptList(String),
}

impl Notice {
    /// What the time of this certificate gives cause for.
    pub(super) fn of_validity(what: String, validity: &Validity, now: SystemTime) -> Option<Self> {
        let Validity { from, until } = *validity;
        if !validity.has_begun(now) {
            return Some(Self::NotYet(what, from));
        }
        match until.duration_since(now) {
            Err(_) => Some(Self::Expired(what, until)),
            Ok(left) if left <= EXPIRY_NOTICE => Some(Self::Soon(what, until)),
            Ok(_) => None,
        }
    }

    /// Says it in the log.
    pub(super) fn log(&self, now: SystemTime) {
        match self {
            Self::Soon(what, until) => {
                let left = until.duration_since(now).unwrap_or_default();
                let hours = left.as_secs() / 3600;
                tracing::warn!(hours, "{what} expires soon: renew it");
            }
            Self::Expired(..) | Self::Refused(_) => tracing::error!("{self}"),
            _ => tracing::warn!("{self}"),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Soon(what, until) => {
                write!(f, "{what} expires soon, on {}: renew it", Day(*until))
            }
            Self::Expired(what, until) => write!(
                f,
                "{what} has expired on {}, and counts no more: renew it, or set the clock of \
                 this machine if that is wrong",
                Day(*until)
            ),
            Self::NotYet(what, from) => write!(
                f,
                "{what} is not valid yet, but from {} on: wait, or set the clock of this \
                 machine if that is wrong",
                Day(*from)
            ),
            Self::Refused(error) => {
                f.write_str("others will refuse the own certificate: ")?;
                f.write_str(match error {
                    AuthError::UnknownAuthority => {
                        "none of the authorities here has signed it, or its file lacks the \
                         certificates of those between"
                    }
                    AuthError::NotYetValid => {
                        "it is not valid yet, or the clock of this machine is wrong"
                    }
                    AuthError::Expired => "it has expired, or the clock of this machine is wrong",
                    AuthError::Revoked => "it was revoked",
                    AuthError::WrongUse => {
                        "it needs the extended key usage clientAuth where it connects, and \
                         serverAuth where it accepts"
                    }
                    other => return write!(f, "{other}"),
                })
            }
            Self::MissingList(place) => write!(
                f,
                "there is no {place}: nothing is revoked by it until there is"
            ),
            Self::LateList(name, next) => write!(
                f,
                "the newest revocation list of {name} should have been replaced on {}; it \
                 counts until it is",
                Day(*next)
            ),
            Self::ForeignList(name) => write!(
                f,
                "a revocation list is of {name}, which is none of the authorities here: it \
                 counts only if that is one between them and a member"
            ),
            Self::KeptList(name) => write!(
                f,
                "the revocation list of {name} is not in its place any more: it counts until a \
                 newer one is there, or the program ends"
            ),
        }
    }
}
