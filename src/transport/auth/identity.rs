//! The key pair of a program, and the certificate that carries its public key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::chain::{MAX_CERTIFICATES, MAX_CHAIN_BYTES, size};
use super::error::AuthSetupError;
use super::pem::Pem;
use super::private_file::create_private;
use super::provider::provider;
use super::trust::identity_of;
use super::validity::Validity;
use crate::transport::identity::PeerIdentity;

/// The key pair of a peer or a tracker, with its certificate. No two programs share one:
/// they would take each other for themselves.
#[derive(Clone)]
pub struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    identity: PeerIdentity,
    /// Where the certificate and the key are, if they are in files.
    files: Option<(Pem, Pem)>,
}

impl Identity {
    /// A new key pair (Ed25519) with a self-signed certificate, which has no name and
    /// never expires. It is gone with the process.
    ///
    /// # Errors
    /// [`AuthSetupError::Key`] if the operating system has no random bytes.
    pub fn generate() -> Result<Self, AuthSetupError> {
        Self::self_signed(&new_key()?)
    }

    /// The key pair in a file, or a new one that is put there if there is no file. It
    /// stays the same from start to start, and so does the id of the peer. Blocks.
    ///
    /// The file has the private key in PEM (PKCS #8), and the mode 600. It must be of the
    /// user that runs this program, or of root. Who owns a file and who can read it is
    /// looked at on Unix alone: elsewhere the log says at each reading that it is not. Of a
    /// file 1 MiB is read at most.
    ///
    /// # Errors
    /// [`AuthSetupError`]: the file cannot be read or made, it is no file (but a pipe, for
    /// instance) or too long, others can read it, it is of somebody else, or there is no key
    /// in it.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, AuthSetupError> {
        let path = path.as_ref();
        if !path.exists() {
            create_private(path, new_key()?.serialize_pem().as_bytes())?;
        }
        let pem = Pem::File(path.to_owned());
        let key = pem.key()?;
        let key = KeyPair::try_from(&key).map_err(|error| {
            let reason = "the library of certificates cannot use it";
            pem.broken("private key", &format!("{reason} ({error})"))
        })?;
        Self::self_signed(&key)
    }

    /// A certificate, with those between it and its authority behind it, and its private
    /// key, both in PEM.
    ///
    /// # Errors
    /// [`AuthSetupError`]: one is missing or broken, they do not belong together, or they
    /// are more than others look at: 6 certificates, and 16 KiB.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, AuthSetupError> {
        let value = |text: &str| Pem::Value(text.as_bytes().into());
        Self::load(&value(certificates), &value(key))
    }

    /// The same from two files. [`Authenticator::reload`](super::Authenticator::reload)
    /// reads them again. Blocks.
    ///
    /// # Errors
    /// As those of [`from_pem`](Self::from_pem); and the files cannot be read, are no files
    /// or longer than 1 MiB, or others can read that of the key, or own it (on Unix alone).
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, AuthSetupError> {
        let file = |path: &Path| Pem::File(path.to_owned());
        let files = (file(certificates.as_ref()), file(key.as_ref()));
        let mut identity = Self::load(&files.0, &files.1)?;
        identity.files = Some(files);
        Ok(identity)
    }

    /// Who this is to others.
    pub fn identity(&self) -> PeerIdentity {
        self.identity
    }

    /// When the first of its certificates expires, if that can be told.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let chain = self.certified.cert.iter();
        let until = chain.filter_map(|certificate| Some(Validity::of(certificate)?.until));
        until.min()
    }

    /// Refuses one that has expired.
    pub(super) fn check_expiry(&self) -> Result<(), AuthSetupError> {
        let Some(at) = self.expires_at().filter(|at| *at <= SystemTime::now()) else {
            return Ok(());
        };
        let what = match &self.files {
            Some((certificates, _)) => certificates.at("the own certificate"),
            None => "the own certificate".to_owned(),
        };
        Err(AuthSetupError::Expired { what, at })
    }

    /// Reads the files again. Nothing if there are none.
    pub(super) fn reloaded(&self) -> Result<Option<Self>, AuthSetupError> {
        let Some((certificates, key)) = &self.files else {
            return Ok(None);
        };
        let mut new = Self::load(certificates, key)?;
        if new.identity != self.identity {
            return Err(AuthSetupError::KeyChanged);
        }
        new.files = self.files.clone();
        Ok(Some(new))
    }

    fn load(certificates: &Pem, key: &Pem) -> Result<Self, AuthSetupError> {
        let chain = certificates.certificates()?;
        if let Err((count, bytes)) = size(&chain) {
            let reason = format!(
                "it has {count} certificates of {bytes} bytes, and others look at \
                 {MAX_CERTIFICATES} of {MAX_CHAIN_BYTES} bytes at most: leave only the own one \
                 and those between it and its authority"
            );
            return Err(certificates.broken("certificate", &reason));
        }
        for (at, certificate) in chain.iter().enumerate() {
            if let Err(error) = EndEntityCert::try_from(certificate) {
                let what = format!("certificate {}", at + 1);
                return Err(certificates.broken(&what, &unreadable(&error)));
            }
        }
        let private = key.key()?;
        let of_this = |error: rustls::Error| {
            let (key, certificate) = (key.at("private key"), certificates.at("certificate"));
            AuthSetupError::Key {
                reason: match error {
                    rustls::Error::InconsistentKeys(_) => format!(
                        "the {key} is not that of the {certificate}, which must be the first: \
                         take the two that belong together"
                    ),
                    error => format!(
                        "the {key} cannot be used ({error}): take one of Ed25519, of ECDSA \
                         (P-256 or P-384), or of RSA with 2048 to 4096 bits"
                    ),
                },
            }
        };
        Self::with(chain, private, of_this)
    }

    fn self_signed(key: &KeyPair) -> Result<Self, AuthSetupError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(key).map_err(unusable)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Self::with(vec![certificate.der().clone()], key.into(), unusable)
    }

    fn with(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        unusable: impl Fn(rustls::Error) -> AuthSetupError,
    ) -> Result<Self, AuthSetupError> {
        let first = chain.first().ok_or(rustls::Error::NoCertificatesPresented);
        let identity = identity_of(first.map_err(&unusable)?).map_err(self::unusable)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(unusable)?;
        Ok(Self {
            certified: Arc::new(certified),
            identity,
            files: None,
        })
    }
}

impl fmt::Debug for Identity {
    /// Does not show the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.identity).finish()
    }
}

/// Why a certificate cannot be read.
fn unreadable(error: &webpki::Error) -> String {
    let what_to_do = match error {
        // What OpenSSL makes by itself up to its version 3.1.
        webpki::Error::UnsupportedCertVersion => {
            ": it is of an older one; with OpenSSL, have it signed with a file of extensions \
             (openssl x509 -req -extfile)"
        }
        _ => "",
    };
    format!("it is none of X.509 version 3 ({error}){what_to_do}")
}

fn new_key() -> Result<KeyPair, AuthSetupError> {
    KeyPair::generate_for(&PKCS_ED25519).map_err(unusable)
}

fn unusable(error: impl fmt::Display) -> AuthSetupError {
    AuthSetupError::Key {
        reason: error.to_string(),
    }
}
