//! What torrents are known by: the hashes of their `info` dictionary.

use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};
use sha2::Sha256;
use thiserror::Error;

/// Why a text is not an info hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseInfoHashError {
    /// The text has another length.
    #[error("an info hash cannot have {len} characters")]
    Length {
        /// The length of the text in bytes.
        len: usize,
    },
    /// A byte is not a digit of the base.
    #[error("byte {at} of the info hash is not a digit")]
    Digit {
        /// The offset of the byte in the text.
        at: usize,
    },
}

macro_rules! info_hash {
    ($name:ident, $len:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; Self::LEN]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// A hash from its bytes.
            pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Writes hexadecimal digits in lower case.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
                f.pad(&digits.collect::<String>())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

info_hash!(
    InfoHashV1,
    20,
    "The SHA-1 of the `info` dictionary (BEP 3), exactly as it is written; or the first 20 \
     bytes of an [`InfoHashV2`], which stand in its place on the wire.\n\n\
     ```\n\
     use bt_lite::bittorrent::InfoHashV1;\n\n\
     let hash: InfoHashV1 = \"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567\".parse()?;\n\
     assert_eq!(hash.to_string(), \"00443214c74254b635cf84653a56d7c675be77df\");\n\
     assert_eq!(hash.to_string().parse(), Ok(hash));\n\
     # Ok::<(), bt_lite::bittorrent::ParseInfoHashError>(())\n\
     ```"
);
info_hash!(
    InfoHashV2,
    32,
    "The SHA-256 of the `info` dictionary (BEP 52), exactly as it is written."
);

impl InfoHashV1 {
    /// The hash of these bytes of an `info` dictionary.
    pub fn of(info: &[u8]) -> Self {
        Self(Sha1::digest(info).into())
    }
}

impl InfoHashV2 {
    /// The hash of these bytes of an `info` dictionary.
    pub fn of(info: &[u8]) -> Self {
        Self(Sha256::digest(info).into())
    }

    /// Its first 20 bytes, by which handshakes and trackers know the torrent (BEP 52).
    pub fn truncated(&self) -> InfoHashV1 {
        let mut bytes = [0; InfoHashV1::LEN];
        bytes.copy_from_slice(&self.0[..InfoHashV1::LEN]);
        InfoHashV1(bytes)
    }
}

impl FromStr for InfoHashV1 {
    type Err = ParseInfoHashError;

    /// Reads 40 hexadecimal digits, or 32 of base 32 (RFC 4648) as old magnet links have
    /// them, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, ParseInfoHashError> {
        match text.len() {
            32 => base32(text.as_bytes()).map(Self),
            _ => hex(text).map(Self),
        }
    }
}

impl FromStr for InfoHashV2 {
    type Err = ParseInfoHashError;

    /// Reads 64 hexadecimal digits, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, ParseInfoHashError> {
        hex(text).map(Self)
    }
}

fn hex<const N: usize>(text: &str) -> Result<[u8; N], ParseInfoHashError> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(ParseInfoHashError::Length { len: digits.len() });
    }
    let digit = |at: usize| match (digits[at] as char).to_digit(16) {
        Some(value) => Ok(value as u8),
        None => Err(ParseInfoHashError::Digit { at }),
    };
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * i)? << 4 | digit(2 * i + 1)?;
    }
    Ok(bytes)
}

/// 32 digits of five bits are exactly 20 bytes.
fn base32(digits: &[u8]) -> Result<[u8; InfoHashV1::LEN], ParseInfoHashError> {
    let mut bytes = [0; InfoHashV1::LEN];
    for (part, (of, into)) in digits.chunks(8).zip(bytes.chunks_mut(5)).enumerate() {
        let mut bits = 0_u64;
        for (i, byte) in of.iter().enumerate() {
            let digit = match byte.to_ascii_uppercase() {
                byte @ b'A'..=b'Z' => byte - b'A',
                byte @ b'2'..=b'7' => byte - b'2' + 26,
                _ => return Err(ParseInfoHashError::Digit { at: 8 * part + i }),
            };
            bits = bits << 5 | u64::from(digit);
        }
        into.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        let v1 = InfoHashV1::of(b"abc");
        assert_eq!(v1.to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!("VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE5".parse(), Ok(v1));
        assert_eq!("vgmt4nsha2awvor6evyxqugcnsonbwe5".parse(), Ok(v1));
        let v2 = InfoHashV2::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((v2.to_string().as_str(), text.parse()), (text, Ok(v2)));
        assert_eq!(v2.truncated().to_string(), text[..40]);
    }

    #[test]
    fn text_that_is_no_hash_is_refused() {
        let v1 = |text: &str| text.parse::<InfoHashV1>();
        for len in [0, 31, 33, 39, 41, 64] {
            assert_eq!(
                v1(&"a".repeat(len)),
                Err(ParseInfoHashError::Length { len })
            );
        }
        let digit = |at| Err(ParseInfoHashError::Digit { at });
        assert_eq!(v1(&("a".repeat(39) + "g")), digit(39));
        assert_eq!(v1(&("a".repeat(20) + "1" + &"a".repeat(11))), digit(20));
        assert!(v1(&"é".repeat(20)).is_err() && v1(&"é".repeat(16)).is_err());
    }
}
