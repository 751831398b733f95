//! What is no longer served when a folder, or a file of one, is gone.

use crate::content::ContentId;
use crate::peer::contents::table::Taken;
use crate::peer::shared::PeerShared;

/// Stops serving a file that no folder needs, unless it is here by itself.
pub(super) fn stop_serving(shared: &PeerShared, file: &ContentId) {
    if !shared.contents.is_alone(file) {
        take(shared, file);
    }
}

/// Stops serving a content.
pub(super) fn take(shared: &PeerShared, id: &ContentId) {
    if let Some(Taken::Awake(driver)) = shared.contents.take(id) {
        driver.stop.cancel();
    }
}

/// Removes a folder from the table, and stops serving those of its files that nobody
/// else needs. Returns whether its index is not needed either.
pub(super) fn release_files(shared: &PeerShared, id: &ContentId) -> bool {
    let Some(unused) = shared.folders.remove(id) else {
        return false;
    };
    for file in &unused.files {
        stop_serving(shared, file);
    }
    unused.index
}
