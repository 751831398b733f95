//! The downloads of folders that were paused when the peer was last stopped, or went on after
//! a pause.

use std::sync::Arc;

use super::fetch::{FolderTask, RestoredFolder};
use super::paused_form::FolderForm;
use crate::content::ContentId;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::paused_form::RecordedState;
use crate::peer::handles::download::IfTaken;
use crate::peer::handles::folder::FolderOptions;
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::protocol::{Addr, ContentKey};
use crate::storage::{PausedFolder, PausedForm, PausedId, StorageError, paused_folders};

/// Starts the downloads that the storage has recorded. Those that are paused stay paused.
/// None needs a handle.
pub(in crate::peer) async fn restore_paused_folders(
    shared: &Arc<PeerShared>,
) -> Result<(), StorageError> {
    let Some(folders) = shared.storage.folders() else {
        return Ok(());
    };
    for paused in paused_folders(&folders).await? {
        let id = paused.id;
        let Some(form) = form_of(paused) else {
            tracing::warn!(folder = %id, "the record of a paused download is damaged");
            continue;
        };
        restore(shared, form, Some(id), None);
    }
    // Those that have not found their folder.
    for paused in shared.storage.paused().await? {
        if let Some(form) = FolderForm::decode(paused.bytes) {
            restore(shared, form, None, Some(paused.id));
        }
    }
    Ok(())
}

fn form_of(paused: PausedFolder) -> Option<FolderForm> {
    let first = match paused.form {
        PausedForm::Bytes(bytes) => return FolderForm::decode(bytes),
        PausedForm::First(first) => first,
    };
    let mut form = FolderForm::first(paused.id, PauseOptions::new().serve(first.serve));
    form.name = first.name;
    form.paths = first.paths;
    form.directory = first.directory;
    form.seeds = first.seed;
    Some(form)
}

/// Starts one. A record that is not in the home of a folder is at `record`.
fn restore(
    shared: &Arc<PeerShared>,
    form: FolderForm,
    id: Option<ContentId>,
    record: Option<PausedId>,
) {
    let mut options = FolderOptions::new()
        .seed(form.seeds)
        .priority(form.priority);
    options.paused = match form.state {
        RecordedState::Paused(pause) => Some(pause),
        RecordedState::Resumed => None,
    };
    if form.overwrites {
        options.if_taken = IfTaken::Overwrite;
    }
    options.name = form.name;
    options.paths = form.paths;
    options.directory = form.directory;
    options.limits = form.limits;
    options.owners = form.owners;
    // Those that this transport cannot reach are no reason to fail.
    let can_reach = |owner: &Addr| shared.transport.check(owner).is_ok();
    options.owners.retain(can_reach);
    if let (Some(id), Some(limits)) = (id, form.limits) {
        // They hold from the start on.
        shared.limit_content(id, limits);
    }
    let (asked, key) = match (form.key, id) {
        (ContentKey::Name(name), Some(id)) => (Some(name), DownloadKey::from(id)),
        (ContentKey::Name(name), None) => (Some(name.clone()), DownloadKey::from(name)),
        (ContentKey::Id(id), _) => (None, DownloadKey::from(id)),
    };
    let restored = RestoredFolder {
        asked,
        known: form.known,
        patience: form.patience,
        record,
    };
    let parent = &shared.tasks.span;
    let span = tracing::info_span!(parent: parent, "download", %key, folder = true);
    let (task, request, download) = FolderTask::new(shared, key, options, Some(restored));
    shared.tasks.spawn(span, task.run(request));
    download.detach();
}
