//! Certificates, keys and revocation lists, from files or as values.
//!
//! No block is passed over in silence because its line has something else in it: a list that
//! is not read revokes nobody. And nothing of a block is shown but its label: it may be a key.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::error::AuthSetupError;
use super::private_file::{read, read_private};

/// What a block begins with, before its label.
const BEGIN: &str = "-----BEGIN ";

/// What is behind the label.
const DASHES: &str = "-----";

/// The longest label that an error shows, in bytes: longer than all that are in use.
const MAX_LABEL: usize = 32;

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
        self.check_lines(&bytes, KEY)?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| self.wrong(&bytes, KEY, error))
    }

    /// The revocation lists, at least one.
    pub(super) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, AuthSetupError> {
        self.all(&self.bytes()?, REVOCATION_LIST)
    }

    fn all<T: PemObject>(&self, bytes: &[u8], wanted: Wanted) -> Result<Vec<T>, AuthSetupError> {
        self.check_lines(bytes, wanted)?;
        let all = T::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
        match all {
            Ok(all) if all.is_empty() => Err(self.wrong(bytes, wanted, Error::NoItemsFound)),
            Ok(all) => Ok(all),
            Err(error) => Err(self.wrong(bytes, wanted, error)),
        }
    }

    /// Refuses a block that does not begin on its own line, which the library passes over:
    /// such are joined files of which one has no end of its last line.
    fn check_lines(&self, bytes: &[u8], wanted: Wanted) -> Result<(), AuthSetupError> {
        let text = String::from_utf8_lossy(bytes);
        let Some(begin) = text.split(['\n', '\r']).find_map(crowded) else {
            return Ok(());
        };
        let reason = match label_of(begin) {
            Some(label) => format!(
                "{BEGIN}{label}{DASHES} is not alone on its own line: put it there, without \
                 spaces or a byte order mark before it"
            ),
            None => NOT_ALONE.to_owned(),
        };
        Err(self.broken(wanted.what, &reason))
    }

    /// What is wrong with it, in words for who has made the file.
    fn wrong(&self, bytes: &[u8], wanted: Wanted, error: Error) -> AuthSetupError {
        let reason = match error {
            Error::NoItemsFound => missing(bytes, wanted),
            Error::MissingSectionEnd { end_marker } => {
                let end = String::from_utf8_lossy(&end_marker);
                let end = end.trim_matches('-').trim_start_matches("END ");
                let end = if is_label(end) { end } else { wanted.label };
                format!("the line -----END {end}----- is missing: it is cut off, copy all of it")
            }
            Error::IllegalSectionStart { .. } => NOT_ALONE.to_owned(),
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

const NOT_ALONE: &str = "what begins a block of PEM is not alone on its own line: put it there";

/// What begins a block in this line, with all behind it, if it is not alone there.
fn crowded(line: &str) -> Option<&str> {
    let begin = &line[line.find(BEGIN)?..];
    let label = begin.trim_end_matches(' ').strip_suffix(DASHES);
    let label = label.and_then(|label| label.strip_prefix(BEGIN));
    let is_alone = begin.len() == line.len() && label.is_some_and(|label| !label.contains(DASHES));
    (!is_alone).then_some(begin)
}

/// The label of the block that begins here, if it is one.
fn label_of(begin: &str) -> Option<&str> {
    let (label, _) = begin.strip_prefix(BEGIN)?.split_once(DASHES)?;
    is_label(label).then_some(label)
}

/// Whether this is a label, and no part of a key: that has small letters.
fn is_label(text: &str) -> bool {
    let of_label = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ';
    text.len() <= MAX_LABEL && text.bytes().all(of_label)
}

/// What is there instead.
fn missing(bytes: &[u8], Wanted { label, tool, .. }: Wanted) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut labels: Vec<_> = text.split(['\n', '\r']).filter_map(label_of).collect();
    labels.sort();
    labels.dedup();
    labels.truncate(4);
    if text.trim().is_empty() {
        return "it is empty".to_owned();
    }
    if labels.contains(&"ENCRYPTED PRIVATE KEY") && label == KEY.label {
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
