//! The downloads that were paused when the peer was last stopped.

use std::sync::Arc;

use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::task::DownloadTask;
use crate::peer::handles::download::DownloadOptions;
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::storage::StorageError;

/// Starts the downloads that the storage has recorded as paused. They stay paused, and
/// need no handle.
pub(in crate::peer) async fn restore_paused(shared: &Arc<PeerShared>) -> Result<(), StorageError> {
    for paused in shared.storage.paused().await? {
        if shared.contents.role(&paused.id).is_some() {
            // It was completed, and the record was left by a crash.
            if let Err(error) = shared.storage.forget_paused(&paused.id).await {
                tracing::warn!(content = %paused.id, %error, "a record is left");
            }
            continue;
        }
        let key = DownloadKey::from(paused.id);
        let span = tracing::info_span!(parent: &shared.tasks.span, "download", %key);
        let options = PauseOptions::new().serve(paused.serve);
        let mut options = DownloadOptions::new().seed(paused.seed).paused(options);
        options.name = paused.name;
        let (task, download) = DownloadTask::new(Arc::clone(shared));
        task.asked_for(&key, &options);
        task.restored();
        shared.tasks.spawn(span, task.run(key, options));
        download.detach();
    }
    Ok(())
}
