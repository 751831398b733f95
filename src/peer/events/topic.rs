//! What a download is about: what was asked for, and which content that is.

use std::sync::{Arc, OnceLock, Weak};

use crate::content::{Content, ContentId, ContentName};
use crate::error::DownloadError;
use crate::error_kind::ErrorKind;
use crate::metrics;
use crate::peer::events::download_event::DownloadEvent;
use crate::peer::events::download_watchers::DownloadWatchers;
use crate::peer::events::event::PeerEvent;
use crate::peer::events::hub::{EventHub, Place, Subscribers};
use crate::peer::events::queue::EventQueue;
use crate::protocol::ContentKey;

/// What a download is about. Its task finds that out, and its handle watches it.
pub(in crate::peer) struct Topic {
    asked: OnceLock<ContentKey>,
    /// The name that the content gets here, if that was chosen or asked for.
    name: OnceLock<ContentName>,
    /// The content, if that is known before it is here.
    known: OnceLock<ContentId>,
    id: Arc<OnceLock<ContentId>>,
    subscribers: Weak<Subscribers>,
    watchers: Arc<DownloadWatchers>,
}

impl Topic {
    pub(in crate::peer) fn new(subscribers: Weak<Subscribers>) -> Self {
        Self {
            asked: OnceLock::new(),
            name: OnceLock::new(),
            known: OnceLock::new(),
            id: Arc::default(),
            subscribers,
            watchers: Arc::default(),
        }
    }

    /// This is asked for.
    pub(in crate::peer) fn asked(&self, key: &ContentKey) {
        // It is set once.
        let _ = self.asked.set(key.clone());
    }

    /// It is this content, and it is here or is being downloaded.
    pub(in crate::peer) fn found(&self, id: ContentId) {
        // It is set once.
        let _ = self.id.set(id);
    }

    /// It is this content, and nothing more is known.
    pub(in crate::peer) fn known(&self, id: ContentId) {
        // It is set once.
        let _ = self.known.set(id);
    }

    /// The content, if it is here or is being downloaded.
    pub(in crate::peer) fn found_id(&self) -> Option<ContentId> {
        self.id.get().copied()
    }

    /// The content, once that is known.
    pub(in crate::peer) fn id(&self) -> Option<ContentId> {
        match self.key()? {
            ContentKey::Id(id) => Some(id),
            ContentKey::Name(_) => None,
        }
    }

    /// The content gets this name here.
    pub(in crate::peer) fn named(&self, name: &ContentName) {
        // It is set once.
        let _ = self.name.set(name.clone());
    }

    /// The name that the content gets here, if that was chosen or asked for.
    pub(in crate::peer) fn name(&self) -> Option<&ContentName> {
        self.name.get()
    }

    /// Whether the content is here or is being downloaded.
    pub(in crate::peer) fn is_found(&self) -> bool {
        self.id.get().is_some()
    }

    /// Those who watch the download.
    pub(in crate::peer) fn watchers(&self) -> &Arc<DownloadWatchers> {
        &self.watchers
    }

    /// Brings what happens around the content to a reader, from the time on when it is
    /// found.
    pub(in crate::peer) fn add_details(&self, queue: &Arc<EventQueue<DownloadEvent>>) -> Place {
        Subscribers::add_details(&self.subscribers, &self.id, queue)
    }

    /// The download waits.
    pub(in crate::peer) fn queued(&self, events: &EventHub) {
        if let Some(key) = self.key() {
            events.publish(|| PeerEvent::Queued { key });
        }
    }

    /// The download was paused, or goes on.
    pub(in crate::peer) fn paused(&self, events: &EventHub, paused: bool) {
        if let Some(key) = self.key() {
            events.publish(|| match paused {
                true => PeerEvent::Paused { key },
                false => PeerEvent::Unpaused { key },
            });
        }
    }

    /// The content is complete: it was here, or is found to be.
    pub(in crate::peer) fn complete(&self, events: &EventHub, content: &Content) {
        self.found(content.id);
        metrics::count_as(metrics::DOWNLOADS, ("outcome", "complete"), 1);
        events.publish(|| PeerEvent::Complete {
            content: content.clone(),
        });
    }

    /// The download has failed. Nothing is told of one that was not asked for by a valid
    /// key.
    pub(in crate::peer) fn failed(&self, events: &EventHub, error: &DownloadError) {
        metrics::count_as(metrics::DOWNLOADS, ("outcome", error.kind()), 1);
        if let Some(key) = self.key() {
            events.publish(|| PeerEvent::Failed {
                key,
                error: error.clone(),
            });
        }
    }

    fn key(&self) -> Option<ContentKey> {
        let id = self.id.get().or(self.known.get()).map(|id| (*id).into());
        id.or_else(|| self.asked.get().cloned())
    }
}
