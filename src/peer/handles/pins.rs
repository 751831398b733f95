//! What is kept when the storage of a peer has a bound.

use crate::content::ContentId;
use crate::peer::handles::peer::{Peer, PeerBuilder};

impl PeerBuilder {
    /// Sets how many bytes the contents in the storage may have in all
    /// ([`PeerConfig::max_stored`](crate::peer::PeerConfig::max_stored)); `None` for any.
    pub fn max_stored(self, max: Option<u64>) -> Self {
        self.map_config(|config| config.max_stored(max))
    }
}

impl Peer {
    /// Keeps a content from being evicted, or no longer does. Nothing is evicted unless
    /// [`PeerConfig::max_stored`](crate::peer::PeerConfig::max_stored) is set and a download
    /// needs room. Then the contents that were used least recently are removed as
    /// [`remove`](Self::remove) does with [`DeleteFile`](crate::Removal::DeleteFile), as
    /// many as it takes: trackers list this peer for them no more, and
    /// [`PeerEvent::Evicted`](crate::PeerEvent::Evicted) tells of each.
    ///
    /// A content is used when it is shared, downloaded, asked for by a download, read by
    /// a reader, or served; those of the last start count as used when the peer began. Only
    /// contents that lie in the peer's own storage are counted and evicted. Not evicted is what
    /// is pinned; what is being read or served at that moment; what is being downloaded; what
    /// lies elsewhere as well; what was in the storage before and was only shared from there
    /// or found ([`FileFate::WasThere`](crate::peer::FileFate::WasThere)); and what belongs to
    /// a folder. Room is made for downloads only: what is shared
    /// out of a reader, or copied here to another name, is counted and evicts nothing, and
    /// what unfinished downloads have left is not counted.
    ///
    /// A content may be pinned before it is here, so it is named by its id, or by a
    /// [`Content`](crate::Content). Pins last as long as the peer, and are
    /// not there after a restart.
    pub fn set_pinned(&self, id: impl Into<ContentId>, pinned: bool) {
        self.shared().contents.set_pinned(id.into(), pinned);
    }

    /// Whether a content is [pinned](Self::set_pinned).
    pub fn is_pinned(&self, id: impl Into<ContentId>) -> bool {
        self.shared().contents.is_pinned(&id.into())
    }
}
