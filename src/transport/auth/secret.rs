//! The one secret of a swarm.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::error::AuthSetupError;
use super::private_file::{create_private, read_private};
use crate::io_error::IoError;

/// The fewest bytes of a secret: 128 bits, which nobody can guess. Who takes the place
/// of a member sees a proof that he can compare with guesses for as long as he likes, so
/// a password would be found.
pub const MIN_SECRET_LEN: usize = 16;

/// The bytes of a secret that is generated.
const GENERATED_LEN: usize = 32;

/// The longest secret, in bytes.
const MAX_SECRET_LEN: usize = 1024;

/// Tells the keys that come from secrets apart from all others.
const CONTEXT: &str = "bt_lite 2026 secret of a swarm";

/// The secret that all members of a swarm know, trackers and peers.
///
/// It is random bytes, not a password: let [`generate`](Self::generate) or
/// [`load_or_generate`](Self::load_or_generate) make it, or
/// `(umask 077; openssl rand -hex 32 > FILE)`, as nobody else may read the file. As text it
/// is hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    key: blake3::Hash,
}

impl Secret {
    /// A new secret of 32 random bytes.
    ///
    /// # Errors
    /// [`AuthSetupError::Entropy`].
    pub fn generate() -> Result<Self, AuthSetupError> {
        let mut bytes = [0; GENERATED_LEN];
        getrandom::fill(&mut bytes).map_err(|error| AuthSetupError::Entropy {
            source: IoError::random(error),
        })?;
        Self::from_bytes(&bytes)
    }

    /// The secret that consists of these bytes, which must be random.
    ///
    /// # Errors
    /// [`AuthSetupError::ShortSecret`] below [`MIN_SECRET_LEN`] bytes, and
    /// [`AuthSetupError::SecretText`] above 1024, which no file of a secret can have.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuthSetupError> {
        let len = bytes.len();
        if len < MIN_SECRET_LEN {
            let min = MIN_SECRET_LEN;
            return Err(AuthSetupError::ShortSecret { len, min });
        }
        if len > MAX_SECRET_LEN {
            return Err(AuthSetupError::SecretText);
        }
        Ok(Self {
            text: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            key: blake3::derive_key(CONTEXT, bytes).into(),
        })
    }

    /// Reads a secret from a file that only its owner can read, who is the user that runs
    /// this program, or root. Both are looked at on Unix alone: elsewhere the log says at
    /// each reading that they are not. Blocks, but does not wait for what is no file, as a
    /// pipe: that is an error.
    ///
    /// # Errors
    /// [`AuthSetupError`]: the file cannot be read, it is no file or longer than 1 MiB, others
    /// can read it, it is of somebody else, or there is no secret in it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, AuthSetupError> {
        let path = path.as_ref();
        let bytes = read_private(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| AuthSetupError::SecretText);
        text.and_then(str::parse)
            .map_err(|source| AuthSetupError::InFile {
                path: path.to_owned(),
                source: Box::new(source),
            })
    }

    /// Reads a secret from a file, or generates one and puts it there if there is no
    /// file. Blocks.
    ///
    /// # Errors
    /// [`AuthSetupError`].
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, AuthSetupError> {
        let path = path.as_ref();
        if !path.exists() {
            let secret = Self::generate()?;
            create_private(path, format!("{}\n", secret.text).as_bytes())?;
        }
        Self::from_file(path)
    }

    /// The secret as text, to bring it to other members. Whoever sees it is one.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The key of the proofs.
    pub(super) fn key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }
}

impl FromStr for Secret {
    type Err = AuthSetupError;

    /// Reads hexadecimal digits, with white space around them.
    fn from_str(text: &str) -> Result<Self, AuthSetupError> {
        let digits: Option<Vec<u32>> = text.trim().chars().map(|c| c.to_digit(16)).collect();
        let digits = digits.ok_or(AuthSetupError::SecretText)?;
        if digits.len() % 2 != 0 || digits.len() > 2 * MAX_SECRET_LEN {
            return Err(AuthSetupError::SecretText);
        }
        let byte = |pair: &[u32]| (pair[0] << 4 | pair[1]) as u8;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(byte).collect();
        Self::from_bytes(&bytes)
    }
}

impl fmt::Debug for Secret {
    /// Does not show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_the_text_that_it_exposes_and_is_not_shown() {
        let secret = Secret::generate().unwrap();
        assert_eq!(secret.expose().len(), 2 * GENERATED_LEN);
        let again = format!(" {}\r\n", secret.expose().to_uppercase());
        assert_eq!(again.parse::<Secret>().unwrap(), secret);
        assert_ne!(Secret::generate().unwrap(), secret);
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn short_secret_and_password_are_refused() {
        let short = "ab".repeat(MIN_SECRET_LEN - 1).parse::<Secret>();
        assert_eq!(short, Err(AuthSetupError::ShortSecret { len: 15, min: 16 }));
        assert!("ab".repeat(MIN_SECRET_LEN).parse::<Secret>().is_ok());
        for text in ["correct horse battery staple, and more", "abc", "ä"] {
            assert_eq!(text.parse::<Secret>(), Err(AuthSetupError::SecretText));
        }
    }

    #[cfg(unix)]
    #[test]
    fn file_is_made_once_and_must_be_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let made = Secret::load_or_generate(&path).unwrap();
        assert_eq!(Secret::load_or_generate(&path).unwrap(), made);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 1, "nothing else is left behind");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let exposed = AuthSetupError::Exposed { path, mode: 0o640 };
        assert_eq!(
            Secret::from_file(dir.path().join("secret")),
            Err(exposed.clone())
        );
        assert_eq!(
            Secret::load_or_generate(dir.path().join("secret")),
            Err(exposed)
        );
    }
}
