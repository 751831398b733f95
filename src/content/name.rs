//! The name people give to a content: validated once, here.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest name, in bytes of UTF-8: what every common file system takes.
pub const MAX_NAME_LEN: usize = 255;

/// A name under which a content is known to people.
///
/// 1 to [`MAX_NAME_LEN`] bytes of UTF-8, with no path separator (`/`, `\`), no
/// NUL and no control character, and neither `.` nor `..`. So a name is always
/// a plain file name and never a path.
///
/// ```
/// use bt_lite::{ContentName, NameError};
///
/// let name: ContentName = "ubuntu.iso".parse()?;
/// assert_eq!(name.as_str(), "ubuntu.iso");
/// assert_eq!("..".parse::<ContentName>(), Err(NameError::Dots));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentName(Arc<str>);

/// Why a text is no [`ContentName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// A name has at least one byte.
    #[error("a content name is not empty")]
    Empty,
    /// A name has at most [`MAX_NAME_LEN`] bytes.
    #[error("a content name has at most {MAX_NAME_LEN} bytes, not {len}")]
    TooLong {
        /// How many bytes the text has.
        len: usize,
    },
    /// `.` and `..` mean directories.
    #[error("a content name is neither `.` nor `..`")]
    Dots,
    /// A separator, NUL, or another control character.
    #[error("a content name has no separator or control character, and this one has {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
    /// The bytes are no UTF-8.
    #[error("a content name is UTF-8")]
    Encoding,
}

impl ContentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(text: &str) -> Result<(), NameError> {
        match text {
            "" => return Err(NameError::Empty),
            "." | ".." => return Err(NameError::Dots),
            _ => {}
        }
        if text.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong { len: text.len() });
        }
        match text
            .chars()
            .find(|&c| c == '/' || c == '\\' || c.is_control())
        {
            Some(found) => Err(NameError::Character { found }),
            None => Ok(()),
        }
    }
}

impl FromStr for ContentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<&str> for ContentName {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for ContentName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<&[u8]> for ContentName {
    type Error = NameError;

    fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
        std::str::from_utf8(bytes)
            .map_err(|_| NameError::Encoding)?
            .parse()
    }
}

impl AsRef<str> for ContentName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ContentName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_at_each_bound_is_taken_or_refused() {
        for good in [
            "a",
            "...",
            "a b",
            "ubuntu-26.04.iso",
            ".hidden",
            "文件",
            "a:b",
        ] {
            assert_eq!(good.parse::<ContentName>().unwrap().as_str(), good);
        }
        assert!("x".repeat(MAX_NAME_LEN).parse::<ContentName>().is_ok());
        assert_eq!(
            "x".repeat(MAX_NAME_LEN + 1).parse::<ContentName>(),
            Err(NameError::TooLong { len: 256 })
        );
        assert_eq!("".parse::<ContentName>(), Err(NameError::Empty));
        for dots in [".", ".."] {
            assert_eq!(dots.parse::<ContentName>(), Err(NameError::Dots));
        }
        for found in ['/', '\\', '\0', '\n', '\u{7f}', '\u{85}'] {
            assert_eq!(
                format!("a{found}b").parse::<ContentName>(),
                Err(NameError::Character { found })
            );
        }
        assert_eq!(
            ContentName::try_from(&[0xff, 0xfe][..]),
            Err(NameError::Encoding)
        );
    }
}
