//! The record of the storage that a download is paused.

use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::running::Running;
use crate::peer::shared::PeerShared;
use crate::storage::PausedDownload;

/// The peer is shut down: a pause is recorded that nobody has seen to yet.
pub(in crate::peer) async fn record_at_shutdown(shared: &PeerShared, running: &Running) {
    let pause = *running.control.pauses().borrow();
    if pause.is_some() && !running.has_record() {
        record_pause(shared, running, pause).await;
    }
}

/// Has the storage record how a download is paused, or drops that record. Only a content
/// that is known has one.
pub(in crate::peer) async fn record_pause(
    shared: &PeerShared,
    running: &Running,
    pause: Option<PauseOptions>,
) {
    let Some(id) = running.id() else {
        return;
    };
    match pause {
        Some(PauseOptions { serve })
            if shared.share_stored && running.unrecorded.get().is_none() =>
        {
            let paused = PausedDownload::new(id, running.name.get().cloned());
            let paused = paused.serve(serve).seed(running.control.seeds());
            // Also if this future is dropped meanwhile.
            running.is_recorded();
            if let Err(error) = shared.storage.remember_paused(&paused).await {
                tracing::warn!(content = %id, %error, "it will not be listed after a restart");
            }
        }
        Some(_) => {}
        None => {
            if running.take_recorded()
                && let Err(error) = shared.storage.forget_paused(&id).await
            {
                tracing::warn!(content = %id, %error, "it will be listed after a restart");
            }
        }
    }
}
