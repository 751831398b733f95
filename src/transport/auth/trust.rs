//! Whom to let in.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::allowed::AllowedKeys;
use super::ca::{Ca, LoadedCa};
use super::chain::check_size;
use super::error::AuthSetupError;
use super::notice::Notice;
use super::proof::Side;
use super::secret::Secret;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;

/// Whom a program lets in, and whom it speaks to. All members of a swarm have the same.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Whoever has a certificate of an authority.
    Ca(Ca),
    /// Whoever has one of these keys.
    Keys(AllowedKeys),
    /// Whoever knows this secret, whatever its key is.
    Secret(Secret),
}

/// The same, ready to be asked.
pub(super) enum TrustState {
    Ca(Ca, RwLock<Arc<LoadedCa>>),
    Keys(AllowedKeys),
    Secret(Secret),
}

impl TrustState {
    pub(super) fn new(trust: Trust) -> Result<Self, AuthSetupError> {
        Ok(match trust {
            Trust::Ca(ca) => {
                let loaded = ca.load()?;
                Self::Ca(ca, RwLock::new(Arc::new(loaded)))
            }
            Trust::Keys(keys) => Self::Keys(keys),
            Trust::Secret(secret) => Self::Secret(secret),
        })
    }

    /// Reads the files of the authorities again. What cannot be read stays as it was, and
    /// why is in the list.
    pub(super) fn reload(&self) -> Vec<AuthSetupError> {
        let Self::Ca(ca, current) = self else {
            return Vec::new();
        };
        let before = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
        let (loaded, errors) = ca.reload(&before);
        *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        errors
    }

    /// What a person should look at.
    pub(super) fn notices(&self, now: SystemTime) -> Vec<Notice> {
        let Self::Ca(_, current) = self else {
            return Vec::new();
        };
        let current = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
        current.notices(now)
    }

    /// Who the other side is, if its certificates are enough to let it in (or as far as
    /// they are, where there is a secret to prove). Whether it has the private key is
    /// checked elsewhere. A chain that is too large is not looked at.
    pub(super) fn check(
        &self,
        first: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<PeerIdentity, AuthError> {
        check_size(first, between)?;
        let identity = identity_of(first)?;
        match self {
            Self::Ca(_, current) => {
                let current = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
                current.check(first, between, side, now)?;
            }
            Self::Keys(keys) => keys.check(identity)?,
            Self::Secret(_) => {}
        }
        Ok(identity)
    }
}

/// Whose certificate this is.
pub(super) fn identity_of(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, AuthError> {
    let broken = |error: webpki::Error| {
        AuthError::handshake(format_args!("its certificate cannot be read: {error}"))
    };
    let certificate = EndEntityCert::try_from(certificate).map_err(broken)?;
    let key = certificate.subject_public_key_info();
    Ok(PeerIdentity::of_public_key(&key))
}
