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

/// A complete content whose bytes cannot be read where they were, as it sleeps at another
/// place, if it has one.
pub(in crate::peer) async fn elsewhere(
    shared: &PeerShared,
    asleep: &Asleep,
    error: &StorageError,
) -> Option<Asleep> {
    let Content { id, name, .. } = &asleep.content;
    if let (StorageError::Altered { .. }, Role::Alone) = (error, asleep.role) {
        // Its file looks as if it had not changed.
        shared.forget(name, id).await;
    }
    let place = shared.next_place(id).await?;
    tracing::warn!(content = %id, %error, name = %place.name, "served from another place");
    Some(asleep.at(place))
}

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
        _ => None,
    };
    let thing = match &of_folder {
        Some(lost) => LostThing::FolderFile(lost.folder),
        None => LostThing::Content,
    };
    // What looks as if it had not changed is forgotten, so as not to be offered again.
    let is_forgotten = matches!((&error, role), (StorageError::Altered { .. }, Role::Alone));
    let recorded = !is_forgotten && has_record(shared, content, role).await;
    let lost = Lost::new(id, content.name.clone(), error).recorded(recorded);
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
        #[cfg(feature = "bittorrent")]
        Role::Torrent => None,
    };
    let content = Content::new(id, id.into(), content.length);
    rest.map(|blob| Asleep::of_folder(content, Role::File, blob, None))
}

/// Whether the storage still has a record of a content. That of a file of a folder is the
/// record of the folder.
async fn has_record(shared: &PeerShared, content: &Content, role: Role) -> bool {
    let recorded = async { shared.storage.manifest(&content.name, &content.id).await };
    // A record that cannot be read is one.
    #[cfg(feature = "bittorrent")]
    if role == Role::Torrent {
        return false;
    }
    shared.share_stored && (role != Role::Alone || !matches!(recorded.await, Ok(None)))
}
