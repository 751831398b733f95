//! Certificates, keys and revocation lists, from files or as values.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::error::AuthSetupError;
use super::private_file::{read, read_private};

/// Where a text in PEM is.
#[derive(Debug, Clone)]
pub(super) enum Pem {
    Value(Arc<[u8]>),
    File(PathBuf),
}

impl Pem {
    /// The certificates, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, AuthSetupError> {
        let bytes = self.bytes()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(self.broken("certificate", "there is none"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.broken("certificate", &error.to_string())),
        }
    }

    /// The first private key.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, AuthSetupError> {
        let bytes = match self {
            Self::Value(bytes) => bytes.to_vec(),
            Self::File(path) => read_private(path)?,
        };
        PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|error| self.broken("private key", &error.to_string()))
    }

    /// The revocation lists, at least one.
    pub(super) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, AuthSetupError> {
        let bytes = self.bytes()?;
        let lists = CertificateRevocationListDer::pem_slice_iter(&bytes);
        match lists.collect::<Result<Vec<_>, _>>() {
            Ok(lists) if lists.is_empty() => Err(self.broken("revocation list", "there is none")),
            Ok(lists) => Ok(lists),
            Err(error) => Err(self.broken("revocation list", &error.to_string())),
        }
    }

    pub(super) fn broken(&self, what: &str, reason: &str) -> AuthSetupError {
        let place = match self {
            Self::Value(_) => String::new(),
            Self::File(path) => format!(" in {}", path.display()),
        };
        AuthSetupError::Pem {
            what: format!("{what}{place}"),
            reason: reason.to_owned(),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, AuthSetupError> {
        match self {
            Self::Value(bytes) => Ok(bytes.to_vec()),
            Self::File(path) => read(path),
        }
    }
}
