//! The downloads of folders that were paused when the peer was last stopped.

use std::sync::Arc;

use super::fetch::FolderTask;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::handles::folder::FolderOptions;
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::storage::{StorageError, paused_folders};

/// Starts the downloads that the storage has recorded as paused. They stay paused, and
/// need no handle.
pub(in crate::peer) async fn restore_paused_folders(
    shared: &Arc<PeerShared>,
) -> Result<(), StorageError> {
    let Some(folders) = shared.storage.folders() else {
        return Ok(());
    };
    for paused in paused_folders(&folders).await? {
        let pause = PauseOptions::new().serve(paused.serve);
        let mut options = FolderOptions::new().seed(paused.seed).paused(pause);
        options.name = paused.name;
        options.paths = paused.paths;
        options.directory = paused.directory;
        let key = DownloadKey::from(paused.id);
        let parent = &shared.tasks.span;
        let span = tracing::info_span!(parent: parent, "download", %key, folder = true);
        let (task, request, download) = FolderTask::new(shared, key, options, true);
        shared.tasks.spawn(span, task.run(request));
        download.detach();
    }
    Ok(())
}
