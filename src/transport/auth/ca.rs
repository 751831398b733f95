//! The authorities of a swarm, and what they have revoked.

use std::path::Path;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::error::AuthSetupError;
use super::pem::Pem;
use super::proof::Side;
use super::provider::provider;
use crate::transport::auth_error::AuthError;

/// The authorities whose signature makes somebody a member
/// ([`Trust::Ca`](super::Trust::Ca)).
///
/// A certificate counts from its first day to its last, if it is for clients (where it
/// connects) and for servers (where it accepts) or says nothing of its use, and as long as
/// no revocation list names it or one between it and the authority. A list that is older
/// than it should be counts all the same.
#[derive(Debug, Clone)]
pub struct Ca {
    authorities: Pem,
    revoked: Vec<Pem>,
}

/// The same, as it was last read.
pub(super) struct LoadedCa {
    authorities: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
}

impl Ca {
    /// The certificates of the authorities in PEM.
    pub fn from_pem(certificates: &str) -> Self {
        Self::new(Pem::Value(certificates.as_bytes().into()))
    }

    /// The same in a file. [`Authenticator::reload`](super::Authenticator::reload) reads it
    /// again.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Self {
        Self::new(Pem::File(path.as_ref().to_owned()))
    }

    fn new(authorities: Pem) -> Self {
        let revoked = Vec::new();
        Self {
            authorities,
            revoked,
        }
    }

    /// Refuses what these revocation lists name. They are in PEM, and signed by the
    /// authorities.
    #[must_use]
    pub fn revoked_pem(mut self, lists: &str) -> Self {
        self.revoked.push(Pem::Value(lists.as_bytes().into()));
        self
    }

    /// The same in a file, which must be there.
    /// [`Authenticator::reload`](super::Authenticator::reload) reads it again.
    #[must_use]
    pub fn revoked_pem_file(mut self, path: impl AsRef<Path>) -> Self {
        self.revoked.push(Pem::File(path.as_ref().to_owned()));
        self
    }

    pub(super) fn load(&self) -> Result<LoadedCa, AuthSetupError> {
        let broken = |pem: &Pem, error: webpki::Error| pem.broken("authority", &format!("{error}"));
        let authorities = self.authorities.certificates()?;
        let authorities = authorities
            .iter()
            .map(
                |certificate| match webpki::anchor_from_trusted_cert(certificate) {
                    Ok(anchor) => Ok(anchor.to_owned()),
                    Err(error) => Err(broken(&self.authorities, error)),
                },
            )
            .collect::<Result<_, _>>()?;
        let mut revoked = Vec::new();
        for pem in &self.revoked {
            for list in pem.revocation_lists()? {
                match OwnedCertRevocationList::from_der(&list) {
                    Ok(list) => revoked.push(CertRevocationList::Owned(list)),
                    Err(error) => return Err(pem.broken("revocation list", &format!("{error}"))),
                }
            }
        }
        Ok(LoadedCa {
            authorities,
            revoked,
        })
    }
}

impl LoadedCa {
    /// Checks the certificate of the other side, which has this side of the connection.
    pub(super) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), AuthError> {
        let (first, between) = chain.split_first().ok_or(AuthError::Missing)?;
        let end = EndEntityCert::try_from(first).map_err(refusal)?;
        let usage = match side {
            Side::Client => KeyUsage::client_auth(),
            Side::Server => KeyUsage::server_auth(),
        };
        let lists: Vec<_> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let algorithms = provider().signature_verification_algorithms.all;
        let anchors = &self.authorities;
        end.verify_for_usage(algorithms, anchors, between, now, usage, revocation, None)
            .map(drop)
            .map_err(refusal)
    }
}

fn refusal(error: webpki::Error) -> AuthError {
    match error {
        webpki::Error::CertExpired { .. } => AuthError::Expired,
        webpki::Error::CertNotValidYet { .. } => AuthError::NotYetValid,
        webpki::Error::CertRevoked => AuthError::Revoked,
        webpki::Error::UnknownIssuer => AuthError::UnknownAuthority,
        error => AuthError::Handshake {
            reason: format!("its certificate cannot be used: {error}"),
        },
    }
}
