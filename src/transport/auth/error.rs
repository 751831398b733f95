//! Why there is no identity, no trust, or no secret: mistakes of the set-up, found before
//! anything is sent.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::advice::Advice;
use crate::io_error::IoError;

/// Why an identity, a trust or a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthSetupError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: IoError,
    },
    /// Others on this machine can read a file that must be private.
    #[error("{path} is private, and others can read it: its mode is {mode:o}, not 600")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is no certificate, key or revocation list in it, or a broken one.
    #[error("{what}: {reason}")]
    Pem {
        /// What was looked for, and where.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A private key cannot be used, or is not that of the certificate.
    #[error("unusable key: {reason}")]
    Key {
        /// What is wrong with it.
        reason: String,
    },
    /// The files of an identity hold another key than before. A peer is its key: start
    /// anew to be another peer, or renew the certificate for the same key.
    #[error("the new certificate is for another key")]
    KeyChanged,
    /// The own certificate is not valid any more.
    #[error("the own certificate has expired")]
    Expired {
        /// Until when it was valid.
        at: SystemTime,
    },
    /// A secret is too short not to be guessed.
    #[error("a secret has at least {min} random bytes, not {len}")]
    ShortSecret {
        /// How many bytes it has.
        len: usize,
        /// How many it must have.
        min: usize,
    },
    /// A secret is written as hexadecimal digits, two for each byte.
    #[error("a secret is written as hexadecimal digits, two for each byte")]
    SecretText,
    /// The operating system has no random bytes.
    #[error("cannot get random bytes from the operating system: {source}")]
    Entropy {
        /// The error of the operating system.
        source: IoError,
    },
}

impl AuthSetupError {
    /// What to do about it: [`Advice::AskUser`].
    pub fn advice(&self) -> Advice {
        Advice::AskUser
    }
}
