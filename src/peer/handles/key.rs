//! What a download is asked for by.

use std::fmt;

use crate::content::{Content, ContentId, ContentName};
use crate::error::DownloadError;
use crate::protocol::ContentKey;

/// What to download: a content id or a content name.
///
/// Made from a [`ContentId`], a [`ContentName`], or a [`Content`], which counts as its
/// id. Text does not tell which of the two it is, since 64 hexadecimal digits are a name
/// as well: say it with [`id`](Self::id) or [`name`](Self::name). Text that is not
/// valid is kept until the download fails with [`DownloadError::Id`] or
/// [`DownloadError::Name`].
///
/// ```
/// use bt_lite::{ContentId, ContentKey, DownloadKey};
///
/// let id = ContentId::of(b"");
/// assert_eq!(DownloadKey::id(id.to_string()), DownloadKey::from(id));
/// assert_eq!(DownloadKey::name("film").check()?, ContentKey::Name("film".parse()?));
/// assert!(DownloadKey::name("no/path").check().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadKey(Result<ContentKey, Invalid>);

/// Text that is not an id, or not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invalid {
    text: String,
    error: DownloadError,
}

impl DownloadKey {
    /// The content with this id: 64 hexadecimal digits, as `b3sum` prints them.
    pub fn id(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        Self(text.parse().map(ContentKey::Id).map_err(|source| {
            let text = text.to_owned();
            let error = DownloadError::Id {
                text: text.clone(),
                source,
            };
            Invalid { text, error }
        }))
    }

    /// The content with this name.
    pub fn name(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        Self(text.parse().map(ContentKey::Name).map_err(|source| {
            let text = text.to_owned();
            let error = DownloadError::Name {
                name: text.clone(),
                source,
            };
            Invalid { text, error }
        }))
    }

    /// The id or name.
    ///
    /// # Errors
    /// [`DownloadError::Id`] or [`DownloadError::Name`] if it was made from text that is
    /// not valid.
    pub fn check(self) -> Result<ContentKey, DownloadError> {
        self.0.map_err(|invalid| invalid.error)
    }
}

impl fmt::Display for DownloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(key) => key.fmt(f),
            Err(invalid) => invalid.text.fmt(f),
        }
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

impl From<Content> for DownloadKey {
    fn from(content: Content) -> Self {
        content.id.into()
    }
}

impl From<&Content> for DownloadKey {
    fn from(content: &Content) -> Self {
        content.id.into()
    }
}
