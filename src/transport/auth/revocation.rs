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

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const EXTENSIONS: u8 = 0xa0;

/// The number of a list, and the part of all that it is about (RFC 5280, 5.2.3 and 5.2.5).
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
const DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];

/// One list.
#[derive(Debug)]
pub(super) struct RevocationList {
    list: CertRevocationList<'static>,
    /// The name of its authority, for people.
    pub(super) name: String,
    /// When the next one should be there.
    pub(super) next: Option<SystemTime>,
    age: Age,
    /// What the list says of the part of all that it is about. Nothing if it is about all.
    part: Vec<u8>,
    signed: Signed,
}

/// When a list was made, and as which one: the greater is the newer. Its number counts only
/// within a second, as many authorities begin anew with it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    made: Option<SystemTime>,
    /// How many bytes the number has without zeros in front, and those.
    number: (usize, Vec<u8>),
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
        let name = der::name(read.issuer());
        if !signed.is_checkable() {
            return Err(format!(
                "that of {name} is signed by an algorithm that is not used here, and would \
                 revoke nobody: have it signed anew with SHA-256 or better, and a key of ECDSA \
                 (P-256 or P-384), Ed25519 or RSA"
            ));
        }
        let Fields {
            made,
            next,
            number,
            part,
        } = Fields::read(&signed.message).ok_or("it cannot be read")?;
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number[zeros..].to_vec();
        Ok(Self {
            name,
            next,
            age: Age {
                made,
                number: (number.len(), number),
            },
            part: part.to_vec(),
            list: read,
            signed,
        })
    }

    /// Whether it is of the same authority by name and about the same part, and not older.
    pub(super) fn may_replace(&self, old: &Self) -> bool {
        self.issuer() == old.issuer() && self.part == old.part && self.age >= old.age
    }

    /// Whether it was made after that one.
    pub(super) fn is_newer(&self, old: &Self) -> bool {
        self.age > old.age
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

    /// Whether there is an algorithm here that it may be signed by.
    fn is_checkable(&self) -> bool {
        let provider = provider();
        let mut algorithms = provider.signature_verification_algorithms.all.iter();
        algorithms.any(|algorithm| *algorithm.signature_alg_id() == *self.algorithm)
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

/// What a list says of itself. The rest is read by the TLS library.
#[derive(Default)]
struct Fields<'a> {
    made: Option<SystemTime>,
    next: Option<SystemTime>,
    number: &'a [u8],
    part: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Those of what is signed (RFC 5280, 5.1.2).
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut read = Self::default();
        let mut fields = der::take(&mut &*message, SEQUENCE)?;
        if fields.first() == Some(&INTEGER) {
            der::any(&mut fields)?;
        }
        // The algorithm and the issuer.
        for _ in 0..2 {
            der::any(&mut fields)?;
        }
        read.made = der::time(der::any(&mut fields)?);
        if matches!(fields.first(), Some(&(UTC_TIME | GENERALIZED_TIME))) {
            read.next = der::time(der::any(&mut fields)?);
        }
        // Those that are revoked.
        if fields.first() == Some(&SEQUENCE) {
            der::any(&mut fields)?;
        }
        if fields.is_empty() {
            return Some(read);
        }
        let mut extensions = der::take(&mut fields, EXTENSIONS)?;
        let mut extensions = der::take(&mut extensions, SEQUENCE)?;
        while !extensions.is_empty() {
            let mut extension = der::take(&mut extensions, SEQUENCE)?;
            let kind = der::take(&mut extension, OBJECT_IDENTIFIER)?;
            if extension.first() == Some(&BOOLEAN) {
                der::any(&mut extension)?;
            }
            let value = der::take(&mut extension, OCTET_STRING)?;
            match kind {
                CRL_NUMBER => read.number = der::take(&mut &*value, INTEGER)?,
                DISTRIBUTION_POINT => read.part = value,
                _ => {}
            }
        }
        Some(read)
    }
}

/// The bytes of a string of bits that has whole ones.
fn bits(string: &[u8]) -> Option<&[u8]> {
    string.strip_prefix(&[0])
}
