//! Whom to let in.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::allowed::AllowedKeys;
use super::ca::{Ca, LoadedCa};
use super::error::AuthSetupError;
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

    /// Reads the files of the authorities again. Nothing changes if they cannot be read.
    pub(super) fn reload(&self) -> Result<(), AuthSetupError> {
        if let Self::Ca(ca, current) = self {
            let loaded = ca.load()?;
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        }
        Ok(())
    }

    /// Who the other side is, if its certificates are enough to let it in (or as far as
    /// they are, where there is a secret to prove). Whether it has the private key is
    /// checked elsewhere.
    pub(super) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<PeerIdentity, AuthError> {
        let identity = identity_of(chain)?;
        match self {
            Self::Ca(_, current) => {
                let current = current.read().unwrap_or_else(PoisonError::into_inner);
                let current = Arc::clone(&current);
                current.check(chain, side, now)?;
            }
            Self::Keys(keys) => keys.check(identity)?,
            Self::Secret(_) => {}
        }
        Ok(identity)
    }
}

/// Whose certificate the first one is.
pub(super) fn identity_of(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, AuthError> {
    let first = chain.first().ok_or(AuthError::Missing)?;
    let broken = |error: webpki::Error| AuthError::Handshake {
        reason: format!("its certificate cannot be read: {error}"),
    };
    let certificate = EndEntityCert::try_from(first).map_err(broken)?;
    let key = certificate.subject_public_key_info();
    Ok(PeerIdentity::of_public_key(&key))
}
