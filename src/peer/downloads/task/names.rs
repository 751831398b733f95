//! The names that a download may get.

use crate::content::{ContentId, ContentName};
use crate::error::DownloadError;
use crate::storage::Storage;

/// The names that a download may get.
pub(super) struct Names {
    /// The name that the user wants it stored under.
    pub(super) own: Option<ContentName>,
    /// The name that it was asked for by, if it was not asked for by id.
    pub(super) asked: Option<ContentName>,
    /// A name that a tracker has for it, which anybody may have chosen; its id
    /// if there is none.
    pub(super) found: ContentName,
    /// The name that it had here before the peer was started again.
    pub(super) kept: Option<ContentName>,
}

impl Names {
    /// The name that the user wants, if any.
    pub(super) fn wanted(&self) -> Option<&ContentName> {
        self.own.as_ref().or(self.asked.as_ref())
    }

    /// The name to store it under: the one that the user wants, or one that
    /// others have and that the storage accepts.
    pub(super) fn stored(
        &self,
        storage: &dyn Storage,
        id: ContentId,
    ) -> Result<ContentName, DownloadError> {
        if let Some(kept) = &self.kept
            && storage.check_name(kept).is_ok()
        {
            return Ok(kept.clone());
        }
        if let Some(wanted) = self.wanted() {
            return match storage.check_name(wanted) {
                Ok(()) => Ok(wanted.clone()),
                Err(source) => Err(DownloadError::Storage {
                    id,
                    chunk: None,
                    source,
                }),
            };
        }
        if self.found.as_str().parse::<ContentId>().is_ok() {
            // It may be the id of another content.
            return Ok(id.into());
        }
        match storage.check_name(&self.found) {
            Ok(()) => Ok(self.found.clone()),
            Err(error) => {
                tracing::debug!(content = %id, %error, "stored under its id");
                Ok(id.into())
            }
        }
    }

    /// The name to store it under if something else has the first one. Only a
    /// name that the user does not want is replaced.
    pub(super) fn fallback(&self, id: ContentId) -> Option<ContentName> {
        self.wanted().is_none().then(|| id.into())
    }

    /// The name to announce it by: one that trackers know, never the user's
    /// own.
    pub(super) fn listed(self) -> ContentName {
        self.asked.unwrap_or(self.found)
    }
}
