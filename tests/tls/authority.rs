//! An authority of a cluster, and what it signs.

use std::time::SystemTime;

use bt_lite::transport::auth::{Ca, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// How long a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Over,
    NotYet,
    Until(SystemTime),
}

impl Validity {
    fn write(self, params: &mut CertificateParams) {
        (params.not_before, params.not_after) = match self {
            Self::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2200, 1, 1)),
            Self::Over => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Self::NotYet => (date_time_ymd(2199, 1, 1), date_time_ymd(2200, 1, 1)),
            Self::Until(until) => (date_time_ymd(2020, 1, 1), until.into()),
        };
    }
}

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(Self::params(name), key).unwrap())
    }

    /// One whose own certificate is valid for that long.
    pub(crate) fn valid(name: &str, validity: Validity) -> Self {
        let mut params = Self::params(name);
        validity.write(&mut params);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// One that this one has signed.
    pub(crate) fn below(&self, name: &str) -> Self {
        let mut params = Self::params(name);
        params.serial_number = Some(SerialNumber::from(1000));
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn ca(&self) -> Ca {
        Ca::from_pem(&self.pem())
    }

    /// A certificate with this serial number for a key, in PEM.
    pub(crate) fn sign(&self, key: &KeyPair, serial: u64, validity: Validity) -> String {
        let both = [
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        self.sign_for(key, serial, validity, &both)
    }

    /// The same, for these uses.
    pub(crate) fn sign_for(
        &self,
        key: &KeyPair,
        serial: u64,
        validity: Validity,
        uses: &[ExtendedKeyUsagePurpose],
    ) -> String {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = uses.to_vec();
        validity.write(&mut params);
        params.signed_by(key, &self.0).unwrap().pem()
    }

    /// A member with a new key.
    pub(crate) fn member(&self, serial: u64, validity: Validity) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = self.sign(&key, serial, validity);
        Identity::from_pem(&certificate, &key.serialize_pem()).unwrap()
    }

    /// The list of what is revoked, in PEM.
    pub(crate) fn revocation_list(&self, serials: &[u64]) -> String {
        self.revocation_list_until(serials, 2200)
    }

    /// The same, which should be replaced in this year.
    pub(crate) fn revocation_list_until(&self, serials: &[u64], year: i32) -> String {
        self.revocation_list_of(serials, (2021, 1), year, None)
    }

    /// The list of this year and with this number.
    pub(crate) fn revocation_list_numbered(&self, serials: &[u64], of: (i32, u64)) -> String {
        self.revocation_list_of(serials, of, 2200, None)
    }

    /// The list of one part of what is revoked.
    pub(crate) fn revocation_list_in_part(
        &self,
        serials: &[u64],
        of: (i32, u64),
        part: &str,
    ) -> String {
        self.revocation_list_of(serials, of, 2200, Some(part))
    }

    fn revocation_list_of(
        &self,
        serials: &[u64],
        (year, number): (i32, u64),
        next: i32,
        part: Option<&str>,
    ) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: part.map(|part| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec![format!("http://lists.example/{part}")],
                },
                scope: None,
            }),
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}
