//! What follows when the bytes of a complete content are gone: the user hears of it, and
//! a folder that has it as a file is no longer whole.

use crate::content::Content;
use crate::metrics;
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::losses::LostThing;
use crate::peer::contents::role::Role;
use crate::peer::events::event::PeerEvent;
use crate::peer::shared::PeerShared;
use crate::protocol::OwnState;
use crate::storage::{Lost, StorageError};

/// A content is no longer served. Tells the user, and the trackers of the folders that
/// are no longer whole. Returns the content as a folder has it in another place, to be
/// served as soon as its former driver has given it up.
///
/// Cancel safe, except that trackers may not hear of it.
pub(in crate::peer) async fn report(
    shared: &PeerShared,
    content: &Content,
    role: Role,
    error: StorageError,
) -> Option<Asleep> {
    let id = content.id;
    metrics::count(metrics::WITHDRAWN, 1);
    shared.events.publish(|| PeerEvent::Withdrawn {
        content: content.clone(),
        error: error.clone(),
    });
    let of_folder = match role {
        Role::File => shared.folders.lose_file(content),
        Role::Alone | Role::Index => None,
    };
    let thing = match &of_folder {
        Some(lost) => LostThing::FolderFile(lost.folder),
        None => LostThing::Content,
    };
    // What looks as if it had not changed is forgotten, so as not to be offered again.
    let is_forgotten = matches!((&error, role), (StorageError::Altered { .. }, Role::Alone));
    let lost = Lost::new(id, content.name.clone(), error);
    let lost = lost.recorded(shared.share_stored && !is_forgotten);
    shared.losses.insert(lost, thing);
    if let Some(lost) = &of_folder
        && lost.was_whole
        && let Some((index, _)) = shared.contents.places(&lost.folder).await
    {
        let mut entry = index.place().entry(lost.folder);
        entry.state = OwnState::Partial;
        shared.trackers.own_all([entry]);
    }
    let rest = match role {
        Role::Alone => shared.folders.blob(&id),
        Role::File | Role::Index => of_folder.and_then(|lost| lost.rest),
    };
    let content = Content::new(id, id.into(), content.length);
    rest.map(|blob| Asleep::of_folder(content, Role::File, blob, None))
}
