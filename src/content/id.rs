//! The content id: the BLAKE3 hash of the bytes, or what stands for a torrent.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The identity of a content: the BLAKE3 hash of its bytes, as the `b3sum` tool
/// prints it.
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
#[cfg_attr(
    feature = "bittorrent",
    doc = "\nThat of a [torrent](Self::of_torrent_v1) follows from its info hash instead."
)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; Self::LEN]);

/// Why a text is not a valid [`ContentId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text does not have exactly 64 bytes.
    #[error("a content id must have {} hexadecimal digits, not {len}", 2 * ContentId::LEN)]
    Length {
        /// The length of the text in bytes.
        len: usize,
    },
    /// A byte is not a hexadecimal digit.
    #[error("byte {at} of the content id is not a hexadecimal digit")]
    Digit {
        /// The offset of the byte in the text.
        at: usize,
    },
}

/// What the ids of torrents are derived with, so that none is the hash of any bytes.
#[cfg(feature = "bittorrent")]
const TORRENT_V1: &str = "bt_lite torrent v1";
#[cfg(feature = "bittorrent")]
const TORRENT_V2: &str = "bt_lite torrent v2";

impl ContentId {
    /// The length of an id in bytes.
    pub const LEN: usize = 32;

    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The id by which this crate knows a torrent of version 1, with this info hash. A
    /// tracker of this crate knows all torrents so: those of version 2 by the first 20 bytes
    /// of their hash, as announces have them. Peers do not tell it each other.
    #[cfg(feature = "bittorrent")]
    pub fn of_torrent_v1(info_hash: &[u8; 20]) -> Self {
        Self(blake3::derive_key(TORRENT_V1, info_hash))
    }

    /// The id by which a peer knows a torrent of version 2, with the whole of its info hash.
    /// No other program sees it.
    #[cfg(feature = "bittorrent")]
    pub fn of_torrent_v2(info_hash: &[u8; 32]) -> Self {
        Self(blake3::derive_key(TORRENT_V2, info_hash))
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

impl From<&ContentId> for ContentId {
    fn from(id: &ContentId) -> Self {
        *id
    }
}

impl FromStr for ContentId {
    type Err = ParseIdError;

    /// Reads 64 hexadecimal digits, in upper or lower case.
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
    fn printed_id_is_parsed_in_upper_and_lower_case() {
        let id = ContentId::of(b"bt_lite");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn id_with_a_wrong_length_or_digit_is_invalid() {
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
        // 64 bytes of multi-byte characters must not be cut inside a character.
        assert!("é".repeat(32).parse::<ContentId>().is_err());
    }
}
