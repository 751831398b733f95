//! Certificates, keys and revocation lists, from files or as values.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::der::printable;
use super::error::AuthSetupError;
use super::private_file::{read, read_private};

/// The longest piece of a file that an error shows, in characters.
const MAX_SHOWN: usize = 80;

/// Where a text in PEM is.
#[derive(Debug, Clone)]
pub(super) enum Pem {
    Value(Arc<[u8]>),
    File(PathBuf),
}

/// What is looked for in it.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// For people.
    what: &'static str,
    /// The label of its blocks.
    label: &'static str,
    /// What makes PEM of it.
    tool: &'static str,
}

const CERTIFICATE: Wanted = Wanted {
    what: "certificate",
    label: "CERTIFICATE",
    tool: "openssl x509",
};

const KEY: Wanted = Wanted {
    what: "private key",
    label: "PRIVATE KEY",
    tool: "openssl pkey",
};

const REVOCATION_LIST: Wanted = Wanted {
    what: "revocation list",
    label: "X509 CRL",
    tool: "openssl crl",
};

impl Pem {
    /// The certificates, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, AuthSetupError> {
        self.all(&self.bytes()?, CERTIFICATE)
    }

    /// The first private key.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, AuthSetupError> {
        let bytes = match self {
            Self::Value(bytes) => bytes.to_vec(),
            Self::File(path) => read_private(path)?,
        };
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| self.wrong(&bytes, KEY, error))
    }

    /// The revocation lists, at least one.
    pub(super) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, AuthSetupError> {
        self.all(&self.bytes()?, REVOCATION_LIST)
    }

    fn all<T: PemObject>(&self, bytes: &[u8], wanted: Wanted) -> Result<Vec<T>, AuthSetupError> {
        let all = T::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
        match all {
            Ok(all) if all.is_empty() => Err(self.wrong(bytes, wanted, Error::NoItemsFound)),
            Ok(all) => Ok(all),
            Err(error) => Err(self.wrong(bytes, wanted, error)),
        }
    }

    /// What is wrong with it, in words for who has made the file.
    fn wrong(&self, bytes: &[u8], wanted: Wanted, error: Error) -> AuthSetupError {
        let reason = match error {
            Error::NoItemsFound => missing(bytes, wanted),
            Error::MissingSectionEnd { end_marker } => {
                let end = String::from_utf8_lossy(&end_marker);
                let end = end.trim_matches('-').trim_start_matches("END ");
                format!("the line -----END {end}----- is missing: it is cut off, copy all of it")
            }
            Error::IllegalSectionStart { line } => {
                let line = printable(&String::from_utf8_lossy(&line), MAX_SHOWN);
                format!("this line begins no block of PEM: {line}")
            }
            Error::Base64Decode(_) => {
                "a block is no base64: it was changed, copy it once more".to_owned()
            }
            error => error.to_string(),
        };
        self.broken(wanted.what, &reason)
    }

    pub(super) fn broken(&self, what: &str, reason: &str) -> AuthSetupError {
        AuthSetupError::Pem {
            what: self.at(what),
            reason: reason.to_owned(),
        }
    }

    /// Something of it, with the place.
    pub(super) fn at(&self, what: &str) -> String {
        match self {
            Self::Value(_) => what.to_owned(),
            Self::File(path) => format!("{what} in {}", path.display()),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, AuthSetupError> {
        match self {
            Self::Value(bytes) => Ok(bytes.to_vec()),
            Self::File(path) => read(path),
        }
    }
}

/// What is there instead.
fn missing(bytes: &[u8], Wanted { label, tool, .. }: Wanted) -> String {
    let text = String::from_utf8_lossy(bytes);
    let begin = |line: &str| {
        let label = line
            .trim()
            .strip_prefix("-----BEGIN ")?
            .strip_suffix("-----")?;
        Some(printable(label, MAX_SHOWN))
    };
    let mut labels: Vec<_> = text.lines().filter_map(begin).collect();
    labels.sort();
    labels.dedup();
    labels.truncate(4);
    if text.trim().is_empty() {
        return "it is empty".to_owned();
    }
    if labels.iter().any(|found| found == "ENCRYPTED PRIVATE KEY") && label == KEY.label {
        return format!(
            "it is locked with a passphrase, which nobody could enter: unlock it with \
             {tool} -in FILE -out NEW"
        );
    }
    if !labels.is_empty() {
        let labels = labels.join(", ");
        return format!("it has {labels}, and no {label}: it is another file than it should be");
    }
    // A sequence, which all of them are.
    if bytes.first() == Some(&super::der::SEQUENCE) && !bytes.is_ascii() {
        return format!(
            "it is DER, and should be PEM: convert it with {tool} -inform DER -in FILE -out NEW"
        );
    }
    format!("it is no PEM: it has no line -----BEGIN {label}-----")
}
