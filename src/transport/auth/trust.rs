//! Whom to let in.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::allowed::AllowedKeys;
use super::ca::{Ca, LoadedCa};
use super::chain::check_size;
use super::checked::Checked;
use super::error::AuthSetupError;
use super::notice::Notice;
use super::proof::Side;
use super::secret::Secret;
use super::validity::Validity;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;

/// Whom a program lets in, and whom it speaks to. All members of a swarm have the same.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Whoever has a certificate of an authority. Spawn
    /// [`Authenticator::watch`](super::Authenticator::watch) with this one: what is in files
    /// is read again by that, and connections with those whose certificates have expired end.
    Ca(Ca),
    /// Whoever has one of these keys.
    Keys(AllowedKeys),
    /// Whoever knows this secret, whatever its key is.
    Secret(Secret),
}

/// The same, ready to be asked.
pub(super) enum TrustState {
    Ca(Ca, RwLock<Loaded>),
    Keys(AllowedKeys),
    Secret(Secret),
}

/// Authorities as they were last read, and how often they were others than before.
#[derive(Clone)]
pub(super) struct Loaded {
    ca: Arc<LoadedCa>,
    times: u64,
}

impl TrustState {
    pub(super) fn new(trust: Trust) -> Result<Self, AuthSetupError> {
        Ok(match trust {
            Trust::Ca(ca) => {
                let loaded = Loaded {
                    ca: Arc::new(ca.load()?),
                    times: 0,
                };
                Self::Ca(ca, RwLock::new(loaded))
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
        let before = now_loaded(current);
        let (loaded, errors) = ca.reload(&before.ca);
        if loaded != *before.ca {
            let mut current = current.write().unwrap_or_else(PoisonError::into_inner);
            current.ca = Arc::new(loaded);
            current.times += 1;
        }
        errors
    }

    /// What a person should look at.
    pub(super) fn notices(&self, now: SystemTime) -> Vec<Notice> {
        let Self::Ca(_, current) = self else {
            return Vec::new();
        };
        now_loaded(current).ca.notices(now)
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
                now_loaded(current).ca.check(first, between, side, now)?;
            }
            Self::Keys(keys) => keys.check(identity)?,
            Self::Secret(_) => {}
        }
        Ok(identity)
    }

    /// Whether somebody that was let in still would be. `chain` is what it has shown, where
    /// certificates count.
    pub(super) fn check_again(
        &self,
        identity: PeerIdentity,
        (chain, side): (&[CertificateDer<'_>], Side),
        checked: &Checked,
        now: SystemTime,
    ) -> Result<(), AuthError> {
        let current = match self {
            Self::Ca(_, current) => now_loaded(current),
            Self::Keys(keys) => return keys.check(identity),
            Self::Secret(_) => return Ok(()),
        };
        let (first, between) = chain.split_first().ok_or(AuthError::Missing)?;
        let version = (current.times, current.ca.begun_and_over(now));
        let is_now = |certificate: &CertificateDer<'_>| {
            Validity::of(certificate).is_some_and(|validity| validity.is_now(now))
        };
        if checked.has_passed(version) && chain.iter().all(is_now) {
            return Ok(());
        }
        let time = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = UnixTime::since_unix_epoch(time);
        current.ca.check(first, between, side, time)?;
        checked.passed(version);
        Ok(())
    }
}

/// The authorities as they are now.
fn now_loaded(current: &RwLock<Loaded>) -> Loaded {
    let current = current.read().unwrap_or_else(PoisonError::into_inner);
    current.clone()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rcgen::{KeyUsagePurpose, date_time_ymd};

    use super::*;

    fn params(name: &str, [from, until]: [i32; 2]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params
    }

    fn authority(name: &str, years: [i32; 2]) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = params(name, years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn member_goes_with_its_authority_also_when_another_one_begins_meanwhile() {
        let (old, new) = (
            authority("old", [2020, 2150]),
            authority("new", [2150, 2200]),
        );
        let key = KeyPair::generate().unwrap();
        let member = params("member", [2020, 2200])
            .signed_by(&key, &old)
            .unwrap();
        let chain = [member.der().clone()];
        let trust = Trust::Ca(Ca::from_pem(&(old.pem() + &new.pem())));
        let (trust, identity) = (
            TrustState::new(trust).unwrap(),
            identity_of(&chain[0]).unwrap(),
        );
        let (checked, year) = (Checked::default(), Duration::from_secs(365 * 24 * 60 * 60));
        let check = |years: u32| {
            let now = SystemTime::UNIX_EPOCH + years * year;
            trust.check_again(identity, (&chain, Side::Client), &checked, now)
        };
        for years in [60, 150] {
            assert_eq!(check(years), Ok(()));
        }
        let over = check(190);
        assert!(
            matches!(over, Err(AuthError::AuthorityExpired { .. })),
            "{over:?}"
        );
        // The clock was wrong.
        assert_eq!(check(150), Ok(()));
    }
}
