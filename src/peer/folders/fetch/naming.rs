//! The names of a folder: here, and at trackers.

use crate::content::{ContentId, ContentName};
use crate::peer::folders::error::FolderError;
use crate::peer::folders::status::Folder;
use crate::peer::shared::PeerShared;
use crate::protocol::Found;

/// The names of a folder.
pub(super) struct Names {
    /// Those to store it under, if they are free. There is a second one if the user has
    /// not asked for the first.
    pub(super) stored: Vec<ContentName>,
    /// The one at trackers.
    pub(super) listed: ContentName,
}

/// The names of a folder that was found. The one that it is stored under must be one
/// that the storage accepts.
pub(super) fn names(
    shared: &PeerShared,
    own: Option<ContentName>,
    asked: Option<ContentName>,
    found: &Found,
) -> Result<Names, FolderError> {
    let listed = asked.clone().unwrap_or_else(|| found.name.clone());
    let stored = match own.or(asked) {
        Some(wanted) => {
            shared.storage.check_name(&wanted)?;
            vec![wanted]
        }
        None => {
            let is_id = found.name.as_str().parse::<ContentId>().is_ok();
            let is_usable = !is_id && shared.storage.check_name(&found.name).is_ok();
            let first = is_usable.then(|| found.name.clone());
            first.into_iter().chain([found.id.into()]).collect()
        }
    };
    Ok(Names { stored, listed })
}

/// The folder, if it has the name that is wanted: it has one name here, and is not copied
/// to another.
pub(super) fn has_name(
    folder: Folder,
    wanted: Option<&ContentName>,
) -> Result<Folder, FolderError> {
    match wanted {
        Some(name) if *name != folder.name => Err(FolderError::AlreadyHere { id: folder.id }),
        _ => Ok(folder),
    }
}
