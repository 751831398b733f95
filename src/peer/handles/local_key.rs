//! Which content of this peer a key stands for.

use std::collections::BTreeSet;

use crate::content::{ContentId, ContentName};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::peer::Peer;
use crate::peer::shared::PeerShared;
use crate::protocol::ContentKey;

impl Peer {
    /// The id that a key stands for here: its own, or that of the only content here that
    /// has the name.
    pub(super) fn id_of(&self, key: DownloadKey) -> Option<ContentId> {
        match key.check().ok()? {
            ContentKey::Id(id) => Some(id),
            ContentKey::Name(name) => {
                let named = named(self.shared(), &name);
                let mut ids = named.into_iter();
                let id = ids.next();
                id.filter(|_| ids.next().is_none())
            }
        }
    }
}

/// The contents that are here or are being downloaded, and have this name.
fn named(shared: &PeerShared, name: &ContentName) -> BTreeSet<ContentId> {
    let mut ids: BTreeSet<_> = shared.contents.named(name).into_iter().collect();
    let folders = shared.folders.all();
    ids.extend(folders.iter().filter(|f| f.name == *name).map(|f| f.id));
    for running in shared.running.all() {
        let asked = matches!(running.key.get(), Some(ContentKey::Name(asked)) if asked == name);
        let status = running.handle.status.borrow();
        let found = status.content().is_some_and(|found| found.name == *name);
        if asked || found || running.name.get() == Some(name) {
            ids.extend(running.id());
        }
    }
    ids
}
