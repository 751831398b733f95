//! The record of the storage that the download of a folder was paused: in the home of the
//! folder, or, as long as that is not found, among those of contents.
//!
//! ```text
//!            pause                resume               a change
//!   (none) ────────▶ a paused one ───────▶ a resumed one ──────▶ a new one …
//!     ▲                                         │
//!     └── complete, failed, cancelled, discarded ┴── from any of them
//! ```
//! Each step replaces the record at once, so a crash leaves the one before or the one after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::sleep;

use super::paused_form::FolderForm;
use crate::content::ContentId;
use crate::peer::shared::PeerShared;
use crate::storage::{FolderHome, Folders, PausedDownload, PausedId, StorageError};

/// How often it is tried again to open a home that a step which was under way holds still.
const OPEN_ATTEMPTS: u32 = 20;

/// The pause before that.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// The record of one download.
pub(super) struct PauseRecord {
    shared: Arc<PeerShared>,
    /// Whether there is one, or will be.
    is_there: AtomicBool,
    /// Held while it is written.
    written: Arc<Mutex<Written>>,
}

/// What was written.
#[derive(Default)]
struct Written {
    /// The bytes in the home.
    bytes: Option<Bytes>,
    /// The record of a download that has not found its folder.
    unfound: Option<PausedId>,
}

/// The home that the record goes to.
pub(super) struct RecordPlace {
    pub(super) id: ContentId,
    pub(super) folders: Folders,
    /// If it is open.
    pub(super) home: Option<Arc<FolderHome>>,
}

impl PauseRecord {
    /// That of a new download, or of one that was `restored`: with its record, if that is
    /// not in the home.
    pub(super) fn new(shared: &Arc<PeerShared>, restored: Option<Option<PausedId>>) -> Self {
        let written = Written {
            bytes: None,
            unfound: restored.flatten(),
        };
        Self {
            shared: Arc::clone(shared),
            is_there: AtomicBool::new(restored.is_some()),
            written: Arc::new(Mutex::new(written)),
        }
    }

    /// Whether there is one, or will be.
    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    /// Has the storage record this, or drop what is recorded. Without a place, the folder is
    /// not found.
    pub(super) async fn write(&self, place: Option<RecordPlace>, form: Option<FolderForm>) {
        if !self.shared.share_stored {
            return;
        }
        let was_there = self.is_there.swap(form.is_some(), Ordering::Relaxed);
        if !was_there && form.is_none() {
            return self.at_rest().await;
        }
        let bytes = match form.map(|form| form.encode()) {
            Some(None) => {
                tracing::warn!("a folder with such paths will not be listed after a restart");
                return;
            }
            Some(bytes) => bytes,
            None => None,
        };
        let written = Arc::clone(&self.written).lock_owned().await;
        let is_same = bytes.is_some() && written.bytes == bytes;
        if is_same && (written.unfound.is_some() != place.is_some()) {
            return;
        }
        let (done, heard) = oneshot::channel::<()>();
        // Goes on if this future is dropped: whoever removes the record waits for it.
        let (shared, span) = (Arc::clone(&self.shared), self.shared.tasks.span.clone());
        self.shared.tasks.spawn(span, async move {
            if let Err(error) = replace(&shared, written, place, bytes).await {
                tracing::warn!(%error, "the pause of a folder is not recorded");
            }
            drop(done);
        });
        // It ends with an error when it is dropped.
        let _ = heard.await;
    }

    /// Waits until what is being written is there.
    pub(super) async fn at_rest(&self) {
        drop(self.written.lock().await);
    }
}

async fn replace(
    shared: &PeerShared,
    mut written: OwnedMutexGuard<Written>,
    place: Option<RecordPlace>,
    bytes: Option<Bytes>,
) -> Result<(), StorageError> {
    written.bytes = None;
    match (place, &bytes) {
        (Some(place), _) => {
            in_home(place, bytes.clone()).await?;
            // It is found.
            if let Some(id) = written.unfound.take() {
                shared.storage.forget_paused(&id).await?;
            }
        }
        (None, None) => {
            if let Some(id) = written.unfound.take() {
                shared.storage.forget_paused(&id).await?;
            }
        }
        (None, Some(form)) if form.len() <= PausedDownload::MAX_LEN => {
            let id = match written.unfound {
                Some(id) => id,
                None => *written.unfound.insert(new_id()?),
            };
            let record = PausedDownload::new(id, form.clone());
            shared.storage.remember_paused(&record).await?;
        }
        (None, Some(_)) => {
            let error = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
            return Err(StorageError::io("recording the paths", error));
        }
    }
    written.bytes = bytes;
    Ok(())
}

/// Records in the home of a folder that its download is paused, or drops that.
async fn in_home(place: RecordPlace, bytes: Option<Bytes>) -> Result<(), StorageError> {
    let RecordPlace { id, folders, home } = place;
    if let Some(home) = home {
        return home.record_paused(bytes).await;
    }
    let is_over = bytes.is_none();
    if is_over && !FolderHome::is_there(&folders, id).await? {
        return Ok(());
    }
    let home = open_when_free(&folders, id).await?;
    home.record_paused(bytes).await?;
    match is_over && !home.holds_anything().await? {
        true => home.remove().await,
        false => Ok(()),
    }
}

/// Opens a home that a step which was under way may hold still.
pub(super) async fn open_when_free(
    folders: &Folders,
    id: ContentId,
) -> Result<FolderHome, StorageError> {
    let mut attempts = 0;
    loop {
        match FolderHome::open(folders, id).await {
            Err(StorageError::Locked { .. }) if attempts < OPEN_ATTEMPTS => {
                attempts += 1;
                sleep(OPEN_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// A number that no other record has.
fn new_id() -> Result<PausedId, StorageError> {
    let mut id = [0; 32];
    let filled = getrandom::fill(&mut id).map_err(std::io::Error::other);
    filled.map_err(|error| StorageError::io("choosing the number of a record", error))?;
    Ok(PausedId(id))
}
