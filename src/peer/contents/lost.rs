//! What follows when the bytes of a complete content are gone: the user hears of it, and
//! a folder that has it as a file is no longer whole.

use crate::content::Content;
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::losses::LostThing;
use crate::peer::contents::role::Role;
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
    let thing = match role {
        Role::File => LostThing::FolderFile,
        Role::Alone | Role::Index => LostThing::Content,
    };
    // What looks as if it had not changed is forgotten, so as not to be offered again.
    let is_forgotten = matches!((&error, role), (StorageError::Altered { .. }, Role::Alone));
    let lost = Lost::new(id, content.name.clone(), error);
    let lost = lost.recorded(shared.share_stored && !is_forgotten);
    shared.losses.insert(lost, thing);
    let rest = match role {
        Role::File => {
            let (rest, folder) = shared.folders.lose_file(content);
            if let Some(folder) = folder
                && let Some((index, _)) = shared.contents.places(&folder).await
            {
                let mut entry = index.place().entry(folder);
                entry.state = OwnState::Partial;
                shared.trackers.own_all([entry]);
            }
            rest
        }
        Role::Alone => shared.folders.blob(&id),
        Role::Index => None,
    };
    let content = Content::new(id, id.into(), content.length);
    rest.map(|blob| Asleep::of_folder(content, Role::File, blob, None))
}
