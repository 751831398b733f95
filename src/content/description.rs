//! What a user learns about one content.

use super::{ContentId, ContentName};

/// The description of one content: what a share or a finished download returns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Content {
    /// The BLAKE3 hash of its bytes.
    pub id: ContentId,
    /// Its name.
    pub name: ContentName,
    /// Its length in bytes.
    pub length: u64,
}

impl From<Content> for ContentId {
    fn from(content: Content) -> Self {
        content.id
    }
}

impl From<&Content> for ContentId {
    fn from(content: &Content) -> Self {
        content.id
    }
}

impl Content {
    /// A content with this id, this name, and a length in bytes.
    pub fn new(id: ContentId, name: ContentName, length: u64) -> Self {
        Self { id, name, length }
    }
}
