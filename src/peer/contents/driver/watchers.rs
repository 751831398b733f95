//! What a driver tells of its content: to those who watch the peer, to metrics, and in
//! logs.

use std::sync::Arc;

use crate::content::{ChunkIndex, Content, ContentId};
use crate::error::DownloadError;
use crate::error_kind::ErrorKind;
use crate::metrics;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::role::Role;
use crate::peer::events::event::PeerEvent;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::{BanReason, StallReason, SwarmEvent};

/// Those who watch one content.
pub(super) struct Watchers {
    shared: Arc<PeerShared>,
    id: ContentId,
}

impl Watchers {
    pub(super) fn new(shared: &Arc<PeerShared>, id: ContentId) -> Self {
        let shared = Arc::clone(shared);
        Self { shared, id }
    }

    pub(super) fn happened(&self, event: SwarmEvent) {
        let id = self.id;
        if let SwarmEvent::Banned(banned) = &event {
            let (peer, why) = (banned.peer.peer, banned.why);
            tracing::info!(%peer, %why, "peer banned");
            let label = match why {
                BanReason::BadChunk { .. } => "bad_chunk",
                BanReason::BadManifest => "bad_manifest",
            };
            metrics::count_as(metrics::BANNED, ("why", label), 1);
        }
        self.shared.events.publish(|| match event {
            SwarmEvent::OwnerJoined(owner) => PeerEvent::OwnerJoined { id, owner },
            SwarmEvent::OwnerLeft { owner, why } => PeerEvent::OwnerLeft { id, owner, why },
            SwarmEvent::Banned(banned) => PeerEvent::Banned { id, banned },
        });
    }

    /// A chunk was hashed.
    pub(super) fn hashed(&self, chunk: ChunkIndex, good: bool) {
        let id = self.id;
        let result = match good {
            true => "good",
            false => "bad",
        };
        metrics::count_as(metrics::CHUNKS, ("result", result), 1);
        if !good {
            return tracing::debug!(%chunk, "chunk is bad");
        }
        tracing::trace!(%chunk, "chunk verified");
        let event = || PeerEvent::ChunkVerified { id, chunk };
        self.shared.events.publish(event);
    }

    /// The content has this name and length.
    pub(super) fn found(&self, content: &Content) {
        self.shared.events.publish(|| PeerEvent::Found {
            content: content.clone(),
        });
    }

    /// Nothing arrives. It may be for another reason than before.
    pub(super) fn stalled(&self, reason: StallReason, is_first: bool) {
        let id = self.id;
        tracing::info!(%reason, "download stalled");
        if is_first {
            metrics::count(metrics::STALLS, 1);
        }
        let event = || PeerEvent::Stalled { id, reason };
        self.shared.events.publish(event);
    }

    pub(super) fn paused(&self, paused: bool) {
        let key = self.id.into();
        self.shared.events.publish(|| match paused {
            true => PeerEvent::Paused { key },
            false => PeerEvent::Unpaused { key },
        });
    }

    pub(super) fn resumed(&self) {
        let id = self.id;
        tracing::info!("download resumed");
        self.shared.events.publish(|| PeerEvent::Resumed { id });
    }

    /// The download has succeeded, and whether the content is shared now.
    pub(super) fn complete(&self, listing: &Listing, is_shared: bool) {
        let (content, events) = (&listing.content, &self.shared.events);
        tracing::debug!(name = %content.name, length = content.length, "download complete");
        metrics::count_as(metrics::DOWNLOADS, ("outcome", "complete"), 1);
        events.publish(|| PeerEvent::Complete {
            content: content.clone(),
        });
        if is_shared && listing.its_role() != Role::File {
            events.publish(|| PeerEvent::ShareStarted {
                content: content.clone(),
            });
        }
    }

    fn failed(&self, reason: &DownloadError) {
        let key = self.id.into();
        metrics::count_as(metrics::DOWNLOADS, ("outcome", reason.kind()), 1);
        self.shared.events.publish(|| PeerEvent::Failed {
            key,
            error: reason.clone(),
        });
    }

    /// The driver ends: it was seeding, or the content was published at the last moment,
    /// or the download has failed. Of a content that is no longer shared, others tell.
    pub(super) fn ended(
        &self,
        listing: &Listing,
        reason: &DownloadError,
        (seeding, published): (bool, bool),
    ) {
        match seeding {
            true => {}
            // It is not shared any more, or never was.
            false if published => self.complete(listing, false),
            false => self.failed(reason),
        }
    }
}
