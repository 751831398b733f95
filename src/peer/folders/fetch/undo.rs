//! What is taken back when a folder is not here after all.

use std::sync::Arc;

use super::super::release::{release_files, stop_serving};
use crate::content::ContentId;
use crate::peer::contents::serve::unshare;
use crate::peer::shared::PeerShared;

/// Removes a folder that is not here after all, or what has come to one that was.
pub(super) struct Undo<'a> {
    /// `None` if it is here.
    pub(super) shared: Option<&'a Arc<PeerShared>>,
    pub(super) id: ContentId,
    /// The files that it had before, if it was here.
    pub(super) kept: Option<Vec<ContentId>>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        if let Some(kept) = self.kept.take() {
            let kept = kept.into_iter().collect();
            for file in shared.folders.keep_only(&self.id, &kept) {
                stop_serving(shared, &file);
            }
        } else if release_files(shared, &self.id) {
            let (shared, index) = (Arc::clone(shared), self.id);
            let (span, tasks) = (shared.tasks.span.clone(), Arc::clone(&shared.tasks));
            tasks.spawn(span, async move {
                unshare(&shared, &index).await;
            });
        }
    }
}
