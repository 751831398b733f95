//! The downloads that were paused when the peer was last stopped, or went on after a pause.

use std::sync::Arc;

use crate::peer::downloads::asked::Earlier;
use crate::peer::downloads::paused_form::{PausedRecord, ReadRecord, RecordedState, read};
use crate::peer::downloads::task::DownloadTask;
use crate::peer::handles::download::{DownloadOptions, IfTaken};
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::protocol::{Addr, ContentKey};
use crate::storage::{PausedDownload, StorageError};

/// Starts the downloads that the storage has recorded, in the order in which they were.
/// Those that are paused stay paused. None needs a handle. A record that cannot be read is
/// reported, and left alone.
pub(in crate::peer) async fn restore_paused(shared: &Arc<PeerShared>) -> Result<(), StorageError> {
    let mut all = Vec::new();
    for paused in shared.storage.paused().await? {
        match read(paused.bytes.clone()) {
            ReadRecord::Content(record) => all.push((*record, paused)),
            ReadRecord::Foreign => {
                tracing::debug!(record = %paused.id, "a record of another kind or version");
            }
            ReadRecord::Damaged => {
                tracing::warn!(record = %paused.id, "the record of a paused download is damaged");
            }
        }
    }
    // Without a place, by the id of the record.
    all.sort_by_key(|(record, paused)| (record.place, paused.id));
    for (record, paused) in all {
        if !is_complete(shared, &record) {
            restore(shared, record, &paused);
        } else if let Err(error) = shared.storage.forget_paused(&paused.id).await {
            // It was completed, and the record was left by a crash.
            tracing::warn!(record = %paused.id, %error, "a record is left");
        }
    }
    Ok(())
}

/// Whether the content is here as it was wanted.
fn is_complete(shared: &PeerShared, record: &PausedRecord) -> bool {
    let Some(known) = &record.known else {
        return false;
    };
    let here = shared.contents.names(&known.content.id);
    let has_name = here.is_some_and(|(_, names)| names.contains(&known.content.name));
    has_name && record.asked.directory.is_none()
}

fn restore(shared: &Arc<PeerShared>, record: PausedRecord, paused: &PausedDownload) {
    let key = match (record.id, &record.key) {
        (Some(id), _) => DownloadKey::from(id),
        (None, ContentKey::Name(name)) => DownloadKey::from(name.clone()),
        (None, ContentKey::Id(id)) => DownloadKey::from(*id),
    };
    let span = tracing::info_span!(parent: &shared.tasks.span, "download", %key);
    let options = options(shared, &record);
    let (task, download) = DownloadTask::new(Arc::clone(shared));
    task.restored(&record, &options, paused);
    shared.tasks.spawn(span, task.run(key, options));
    download.detach();
}

/// The options that the download was asked for with, as far as they count.
fn options(shared: &PeerShared, record: &PausedRecord) -> DownloadOptions {
    let mut options = DownloadOptions::new().seed(record.seeds);
    options.paused = match record.state {
        RecordedState::Paused(pause) => Some(pause),
        RecordedState::Resumed => None,
    };
    let asked = record.asked.clone();
    options.name = asked.name;
    options.directory = asked.directory;
    options.existing = asked.existing;
    options.if_taken = match asked.overwrites {
        true => IfTaken::Overwrite,
        false => IfTaken::Fail,
    };
    options.strategy = asked.strategy;
    options.limits = asked.limits;
    options.priority = record.priority;
    options.owners = record.owners.clone();
    // Those that this transport cannot reach are no reason to fail.
    let can_reach = |owner: &Addr| shared.transport.check(owner).is_ok();
    options.owners.retain(can_reach);
    options.earlier = Some(Box::new(Earlier {
        asked: match &record.key {
            ContentKey::Name(name) => Some(name.clone()),
            ContentKey::Id(_) => None,
        },
        listed_as: record.listed_as.clone(),
        content: record.known.as_ref().map(|known| known.content.clone()),
    }));
    options
}
