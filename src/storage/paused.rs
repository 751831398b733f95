//! A download that was paused, as a storage remembers it.

use crate::content::{ContentId, ContentName};

/// A download that was paused, so that it can be shown after a restart; see
/// [`Storage::remember_paused`](crate::Storage::remember_paused).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedDownload {
    /// The content.
    pub id: ContentId,
    /// The name that the user wants it stored under, if any.
    pub name: Option<ContentName>,
    /// Whether other peers get what is here while it is paused.
    pub serve: bool,
    /// Whether the content is shared when it is complete.
    pub seed: bool,
}

impl PausedDownload {
    /// A download that serves what it has, and shares its content in the end.
    pub const fn new(id: ContentId, name: Option<ContentName>) -> Self {
        Self {
            id,
            name,
            serve: true,
            seed: true,
        }
    }

    /// Sets whether other peers get what is here while it is paused.
    #[must_use]
    pub fn serve(mut self, serve: bool) -> Self {
        self.serve = serve;
        self
    }

    /// Sets whether the content is shared when it is complete.
    #[must_use]
    pub fn seed(mut self, seed: bool) -> Self {
        self.seed = seed;
        self
    }
}
