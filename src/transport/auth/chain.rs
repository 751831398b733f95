//! How much a chain of certificates may cost: bounds that are checked before anything that
//! is in it.
//!
//! Whoever connects may show whatever he likes, and the search for a way from his
//! certificate to an authority grows with the factorial of the number of certificates, if
//! they have the same name. It is done in the task that accepts, so it must be short.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::transport::auth_error::AuthError;

/// How many certificates a chain may have: that of the member, three of authorities between,
/// one of those twice (signed by an old and by a new authority), and the authority itself,
/// which many send and nobody needs.
pub(super) const MAX_CERTIFICATES: usize = 6;

/// How many bytes they may have together: with keys and signatures of RSA 4096 and some
/// names, six have 12 KiB.
pub(super) const MAX_CHAIN_BYTES: usize = 16 << 10;

/// How many times the search may go from a certificate to one that may have signed it. Each
/// may cost a check of a signature, some tenths of a millisecond. A chain in a line has one
/// for each certificate, and one with an authority twice has no more than twice as many.
const MAX_STEPS: usize = 2 * MAX_CERTIFICATES;

/// How many certificates a chain has, and how many bytes. It looks into none of them.
pub(super) fn size<'a>(
    chain: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Result<(), (usize, usize)> {
    let (mut certificates, mut bytes) = (0, 0);
    for certificate in chain {
        certificates += 1;
        bytes += certificate.len();
    }
    match certificates <= MAX_CERTIFICATES && bytes <= MAX_CHAIN_BYTES {
        true => Ok(()),
        false => Err((certificates, bytes)),
    }
}

/// Refuses a chain that is too large to be looked at.
pub(super) fn check_size(
    first: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
) -> Result<(), AuthError> {
    size(std::iter::once(first).chain(between)).map_err(|(certificates, bytes)| {
        AuthError::ChainTooLarge {
            certificates,
            bytes,
        }
    })
}

/// Refuses certificates between a member and its authority that fit together in too many
/// ways. It goes by the names, and checks no signature.
pub(super) fn check_ways(
    first: &EndEntityCert<'_>,
    between: &[CertificateDer<'_>],
) -> Result<(), AuthError> {
    // Those that cannot be read are left out by the search as well.
    let between: Vec<_> = between
        .iter()
        .filter_map(|certificate| EndEntityCert::try_from(certificate).ok())
        .collect();
    let mut used = vec![false; between.len()];
    let mut left = MAX_STEPS;
    match walk(first.issuer(), &between, &mut used, &mut left) {
        Some(()) => Ok(()),
        None => Err(AuthError::ChainAmbiguous),
    }
}

/// Goes on from a certificate with this issuer. Nothing if that takes too many steps.
fn walk(
    issuer: &[u8],
    between: &[EndEntityCert<'_>],
    used: &mut [bool],
    left: &mut usize,
) -> Option<()> {
    for (at, next) in between.iter().enumerate() {
        if used[at] || next.subject() != issuer {
            continue;
        }
        *left = left.checked_sub(1)?;
        used[at] = true;
        walk(next.issuer(), between, used, left)?;
        used[at] = false;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// A certificate with this name that one with that name has signed.
    fn certificate(name: &str, issuer: &str) -> CertificateDer<'static> {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let issuer = Issuer::new(params(issuer), KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let made = params(name).signed_by(&key, &issuer).unwrap();
        made.der().clone()
    }

    fn ways(chain: &[CertificateDer<'_>]) -> Result<(), AuthError> {
        let first = EndEntityCert::try_from(&chain[0]).unwrap();
        check_ways(&first, &chain[1..])
    }

    #[test]
    fn chain_in_a_line_and_one_with_an_authority_twice_pass() {
        let line = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "e")];
        let line: Vec<_> = line
            .map(|(name, issuer)| certificate(name, issuer))
            .to_vec();
        assert_eq!(ways(&line), Ok(()));
        let mut twice = line[..3].to_vec();
        twice.push(certificate("c", "other"));
        twice.push(line[3].clone());
        twice.push(certificate("other", "other"));
        assert_eq!(ways(&twice), Ok(()));
        let nonsense = [line[0].clone(), vec![1, 2, 3].into(), line[1].clone()];
        assert_eq!(ways(&nonsense), Ok(()));
    }

    #[test]
    fn chain_whose_certificates_all_fit_each_other_is_refused() {
        let same: Vec<_> = (0..MAX_CERTIFICATES)
            .map(|_| certificate("a", "a"))
            .collect();
        assert_eq!(ways(&same), Err(AuthError::ChainAmbiguous));
        assert_eq!(ways(&same[..3]), Ok(()));
    }

    #[test]
    fn size_is_bounded_in_certificates_and_in_bytes() {
        let of = |count, len| {
            let certificate = CertificateDer::from(vec![0; len]);
            check_size(&certificate.clone(), &vec![certificate; count - 1])
        };
        assert_eq!(of(MAX_CERTIFICATES, 1), Ok(()));
        assert_eq!(of(1, MAX_CHAIN_BYTES), Ok(()));
        let certificates = MAX_CERTIFICATES + 1;
        assert_eq!(
            of(certificates, 1),
            Err(AuthError::ChainTooLarge {
                certificates,
                bytes: certificates
            })
        );
        assert!(of(2, MAX_CHAIN_BYTES / 2 + 1).is_err());
    }
}
