//! What a download is asked for by.

use std::fmt;

use crate::content::{ContentId, ContentName, NameError};
use crate::error::DownloadError;
use crate::protocol::ContentKey;

/// What to download: a content id or a content name.
///
/// Made from either of them, or from text. 64 hexadecimal digits are an id,
/// and any other text is a name. Text that is neither is kept until the
/// download reports it as [`DownloadError::Name`].
///
/// ```
/// use bt_lite::{ContentId, ContentKey, DownloadKey};
///
/// let id = ContentId::of(b"");
/// assert_eq!(DownloadKey::from(id.to_string()), DownloadKey::from(id));
/// assert_eq!(DownloadKey::from("film").check()?, ContentKey::Name("film".parse()?));
/// assert!(DownloadKey::from("no/path").check().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadKey(Result<ContentKey, Invalid>);

/// Text that is neither an id nor a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invalid {
    text: String,
    source: NameError,
}

impl DownloadKey {
    /// The id or name.
    ///
    /// # Errors
    /// [`DownloadError::Name`] if it was made from text that is neither.
    pub fn check(self) -> Result<ContentKey, DownloadError> {
        self.0
            .map_err(|Invalid { text, source }| DownloadError::Name { name: text, source })
    }
}

impl fmt::Display for DownloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(key) => key.fmt(f),
            Err(Invalid { text, .. }) => text.fmt(f),
        }
    }
}

impl From<&str> for DownloadKey {
    fn from(text: &str) -> Self {
        Self(text.parse().map_err(|source| Invalid {
            text: text.into(),
            source,
        }))
    }
}

impl From<&String> for DownloadKey {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for DownloadKey {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<ContentKey> for DownloadKey {
    fn from(key: ContentKey) -> Self {
        Self(Ok(key))
    }
}

impl From<ContentId> for DownloadKey {
    fn from(id: ContentId) -> Self {
        ContentKey::from(id).into()
    }
}

impl From<&ContentId> for DownloadKey {
    fn from(id: &ContentId) -> Self {
        (*id).into()
    }
}

impl From<ContentName> for DownloadKey {
    fn from(name: ContentName) -> Self {
        ContentKey::from(name).into()
    }
}

impl From<&ContentName> for DownloadKey {
    fn from(name: &ContentName) -> Self {
        name.clone().into()
    }
}
