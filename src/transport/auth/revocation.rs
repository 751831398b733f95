//! What an authority has revoked.
//!
//! The TLS library looks at one list of each authority and no more, and takes one that
//! another authority of the same name has signed for a fault of the certificate. So the
//! lists are looked through here: a certificate is revoked if any list names it that the
//! issuer of the certificate has signed.

use std::time::SystemTime;

use rustls::pki_types::CertificateRevocationListDer;
use webpki::{Cert, CertRevocationList, OwnedCertRevocationList, VerifiedPath, spki_for_anchor};

use super::der::{self, BIT_STRING, GENERALIZED_TIME, SEQUENCE, UTC_TIME};
use super::provider::provider;

const INTEGER: u8 = 0x02;

/// One list.
#[derive(Debug)]
pub(super) struct RevocationList {
    list: CertRevocationList<'static>,
    /// The name of its authority, for people.
    pub(super) name: String,
    /// When the next one should be there.
    pub(super) next: Option<SystemTime>,
    signed: Signed,
}

impl PartialEq for RevocationList {
    fn eq(&self, other: &Self) -> bool {
        // All else follows from that.
        self.signed == other.signed
    }
}

/// What is signed, by which algorithm, and the signature.
#[derive(Debug, PartialEq)]
struct Signed {
    message: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl RevocationList {
    /// Reads one. The error is for people.
    pub(super) fn read(list: &CertificateRevocationListDer<'_>) -> Result<Self, String> {
        let broken = |error: webpki::Error| format!("it cannot be used ({error})");
        let read = OwnedCertRevocationList::from_der(list).map_err(broken)?;
        let read = CertRevocationList::Owned(read);
        let signed = Signed::read(list).ok_or("it cannot be read")?;
        Ok(Self {
            name: der::name(read.issuer()),
            next: signed.next_update(),
            list: read,
            signed,
        })
    }

    /// The name of its authority, as it is compared.
    pub(super) fn issuer(&self) -> &[u8] {
        self.list.issuer()
    }

    /// Whether the holder of this public key has signed it.
    pub(super) fn is_signed_by(&self, public_key: &[u8]) -> bool {
        self.signed.is_by(public_key).unwrap_or(false)
    }

    /// Whether the next one should be there by now.
    pub(super) fn is_late(&self, now: SystemTime) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Whether it revokes a certificate that the holder of this public key has signed.
    fn revokes(&self, certificate: &Cert<'_>, public_key: &[u8]) -> bool {
        // The signature is looked at last: it costs most, and few are ever named.
        self.issuer() == certificate.issuer()
            && !matches!(self.list.find_serial(certificate.serial()), Ok(None))
            && self.is_signed_by(public_key)
    }
}

/// Whether one of these lists revokes a certificate on the way to the authority.
pub(super) fn is_revoked<'a>(
    lists: impl Iterator<Item = &'a RevocationList> + Clone,
    path: &VerifiedPath<'_>,
) -> bool {
    let mut public_key = spki_for_anchor(path.anchor());
    let certificates = path.intermediate_certificates().rev();
    for certificate in certificates.chain([&**path.end_entity()]) {
        let mut lists = lists.clone();
        if lists.any(|list| list.revokes(certificate, &public_key)) {
            return true;
        }
        public_key = certificate.subject_public_key_info();
    }
    false
}

impl Signed {
    /// That of `SEQUENCE { SEQUENCE, SEQUENCE, BIT STRING }` (RFC 5280, 5.1).
    fn read(list: &[u8]) -> Option<Self> {
        let mut list = der::take(&mut &*list, SEQUENCE)?;
        let message = der::whole(&mut list, SEQUENCE)?;
        let algorithm = der::take(&mut list, SEQUENCE)?;
        let signature = bits(der::take(&mut list, BIT_STRING)?)?;
        Some(Self {
            message: message.to_vec(),
            algorithm: algorithm.to_vec(),
            signature: signature.to_vec(),
        })
    }

    fn next_update(&self) -> Option<SystemTime> {
        let mut fields = der::take(&mut &*self.message, SEQUENCE)?;
        if fields.first() == Some(&INTEGER) {
            der::any(&mut fields)?;
        }
        // The algorithm, the issuer, and the time of this one.
        for _ in 0..3 {
            der::any(&mut fields)?;
        }
        let next = der::any(&mut fields)?;
        matches!(next.0, UTC_TIME | GENERALIZED_TIME)
            .then(|| der::time(next))
            .flatten()
    }

    fn is_by(&self, public_key: &[u8]) -> Option<bool> {
        let mut public_key = der::take(&mut &*public_key, SEQUENCE)?;
        let kind = der::take(&mut public_key, SEQUENCE)?;
        let key = bits(der::take(&mut public_key, BIT_STRING)?)?;
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms.all.iter();
        let mut fitting = algorithms.filter(|algorithm| {
            *algorithm.signature_alg_id() == *self.algorithm
                && *algorithm.public_key_alg_id() == *kind
        });
        Some(fitting.any(|algorithm| {
            let verified = algorithm.verify_signature(key, &self.message, &self.signature);
            verified.is_ok()
        }))
    }
}

/// The bytes of a string of bits that has whole ones.
fn bits(string: &[u8]) -> Option<&[u8]> {
    string.strip_prefix(&[0])
}
