//! Why there is no identity, no trust, or no secret: mistakes of the set-up, found before
//! anything is sent.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::der::Day;
use crate::advice::Advice;
use crate::io_error::IoError;

/// Why an identity, a trust or a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthSetupError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: IoError,
    },
    /// What should be a file is something else. It is not opened.
    #[error("{path} is {found}, not a file")]
    NotAFile {
        /// Its path.
        path: PathBuf,
        /// What it is, in words.
        found: &'static str,
    },
    /// A file is longer than those that are read.
    #[error("{path} is longer than the {max} bytes that are read of such a file")]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// The longest that is read, in bytes.
        max: u64,
    },
    /// Others on this machine can read a file that must be private.
    #[error(
        "{path} is private, and others can read it: its mode is {mode:o}, not 600; \
         run chmod 600 {path}"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file that must be private is of another user, who can read and change it.
    #[error(
        "{path} is private, and is of user {owner}, not of user {user}, which runs this \
         program, or of root; run chown {user} {path}"
    )]
    ForeignOwner {
        /// Which file.
        path: PathBuf,
        /// The number of the user whose it is.
        owner: u32,
        /// The number of the user that runs this program.
        user: u32,
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
    #[error(
        "the files of the own certificate hold another key than before, and a peer is its key: \
         renew the certificate for the same key, or start the program anew to be another peer"
    )]
    KeyChanged,
    /// The own certificate is not valid any more, or that of no authority is.
    #[error(
        "{what} has expired on {}: renew it, or set the clock of this machine if that is wrong",
        Day(*at)
    )]
    Expired {
        /// Which certificate, and where it is.
        what: String,
        /// Until when it was valid.
        at: SystemTime,
    },
    /// A secret is too short not to be guessed.
    #[error(
        "a secret has at least {min} random bytes, not {len}: \
         make one with openssl rand -hex 32"
    )]
    ShortSecret {
        /// How many bytes it has.
        len: usize,
        /// How many it must have.
        min: usize,
    },
    /// A secret is written as hexadecimal digits, two for each byte.
    #[error(
        "a secret is written as hexadecimal digits, two for each byte, and is no password: \
         make one with openssl rand -hex 32"
    )]
    SecretText,
    /// What a file holds cannot be used.
    #[error("{path}: {source}")]
    InFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<AuthSetupError>,
    },
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

    /// Whether there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
