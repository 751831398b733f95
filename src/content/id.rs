//! The content id: the BLAKE3 hash of the bytes, and nothing else.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The identity of a content: the BLAKE3 hash of its bytes, exactly what the
/// `b3sum` tool prints for them.
///
/// ```
/// use bt_lite::ContentId;
///
/// let id = ContentId::of(b"");
/// assert_eq!(
///     id.to_string(),
///     "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
/// );
/// assert_eq!(id.to_string().parse(), Ok(id));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; Self::LEN]);

/// Why a text is no [`ContentId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// An id has exactly 64 hexadecimal digits.
    #[error("a content id has {} hexadecimal digits, not {len}", 2 * ContentId::LEN)]
    Length {
        /// How many bytes the text has.
        len: usize,
    },
    /// Something that is no hexadecimal digit.
    #[error("byte {at} of a content id is no hexadecimal digit")]
    Digit {
        /// Its offset in the text, in bytes.
        at: usize,
    },
}

impl ContentId {
    /// The length of an id in bytes.
    pub const LEN: usize = 32;

    /// The id of content that is at hand as a whole.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// An id from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

impl FromStr for ContentId {
    type Err = ParseIdError;

    /// Reads 64 hexadecimal digits in either case.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::LEN {
            return Err(ParseIdError::Length { len: digits.len() });
        }
        let digit = |at: usize| match (digits[at] as char).to_digit(16) {
            Some(value) => Ok(value as u8),
            None => Err(ParseIdError::Digit { at }),
        };
        let mut bytes = [0; Self::LEN];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = digit(2 * i)? << 4 | digit(2 * i + 1)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_parses_what_it_prints_in_either_case() {
        let id = ContentId::of(b"bt_lite");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn id_with_a_wrong_length_or_digit_is_refused() {
        let text = ContentId::of(b"x").to_string();
        assert_eq!(
            text[1..].parse::<ContentId>(),
            Err(ParseIdError::Length { len: 63 })
        );
        let bad = text.replace(&text[5..6], "g");
        assert!(matches!(
            bad.parse::<ContentId>(),
            Err(ParseIdError::Digit { .. })
        ));
        // 64 bytes of multi-byte characters must not be sliced apart.
        assert!("é".repeat(32).parse::<ContentId>().is_err());
    }
}
