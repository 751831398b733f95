//! Brings what happens to one download to those who watch it.
//!
//! What it promises: each change of the status becomes an event for each reader, in order.
//! Readers of a download that has joined another one hear of each change of that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::content::{Content, ContentName};
use crate::error::DownloadError;
use crate::peer::contents::status::{ContentStatus, StatusWatcher};
use crate::peer::events::download_event::DownloadEvent;
use crate::peer::events::queue::EventQueue;
use crate::peer::swarm::{Progress, StallReason};

type Queue = Arc<EventQueue<DownloadEvent>>;

/// Those who watch one download.
#[derive(Default)]
pub(in crate::peer) struct DownloadWatchers(Mutex<List>);

#[derive(Default)]
struct List {
    readers: Vec<Reader>,
    /// The downloads that have joined this one.
    joined: Vec<Joined>,
    /// What the download that this one has joined was like at last.
    followed: Option<ContentStatus>,
    /// The status changes no more.
    closed: bool,
}

/// A download that has joined another one.
struct Joined {
    watchers: Arc<DownloadWatchers>,
    /// The name that the content gets there.
    name: Option<ContentName>,
}

/// A reader, and what was told to it.
struct Reader {
    queue: Queue,
    found: Option<Content>,
    shown: Option<Progress>,
    /// The last reason that was told, until the download resumed.
    stall: Option<StallReason>,
    was_queued: bool,
    pauses: PausesTold,
}

/// Which pauses were told.
#[derive(Debug, Clone, Copy)]
struct PausesTold {
    /// How often the download was paused or resumed by then.
    count: u64,
    is_paused: bool,
}

impl DownloadWatchers {
    /// Brings all that is known to a new reader, and everything that happens from now on.
    /// `status` is that of the download.
    pub(in crate::peer) fn add(
        self: &Arc<Self>,
        queue: &Queue,
        status: &watch::Receiver<ContentStatus>,
    ) -> ReaderPlace {
        let mut list = self.list();
        let status = status.borrow();
        let followed = list
            .followed
            .as_ref()
            .filter(|_| status.outcome().is_none());
        let status = followed.unwrap_or(&status);
        let mut reader = Reader::new(Arc::clone(queue), status);
        reader.tell(status);
        if list.closed {
            reader.end();
        } else {
            list.readers.push(reader);
        }
        ReaderPlace {
            of: Arc::clone(self),
            queue: Arc::clone(queue),
        }
    }

    /// Brings what happens here to those who watch another download, until it is dropped.
    /// `status` is that of this one.
    pub(in crate::peer) fn followed_by(
        self: &Arc<Self>,
        other: &Arc<Self>,
        name: Option<ContentName>,
        status: &watch::Receiver<ContentStatus>,
    ) -> Following {
        let mut list = self.list();
        let joined = Joined {
            watchers: Arc::clone(other),
            name,
        };
        joined.tell(&status.borrow());
        list.joined.push(joined);
        Following {
            of: Arc::clone(self),
            to: Arc::clone(other),
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusWatcher for DownloadWatchers {
    fn changed(&self, status: &ContentStatus) {
        let mut list = self.list();
        for reader in &mut list.readers {
            reader.tell(status);
        }
        for joined in &list.joined {
            joined.tell(status);
        }
    }

    fn closed(&self) {
        let mut list = self.list();
        list.closed = true;
        for mut reader in list.readers.drain(..) {
            reader.end();
        }
    }
}

impl Joined {
    fn tell(&self, status: &ContentStatus) {
        if status.outcome().is_some() {
            // The other download decides how it ends itself.
            return;
        }
        let mut status = status.clone();
        status.rename(self.name.as_ref());
        let mut list = self.watchers.list();
        for reader in &mut list.readers {
            reader.tell(&status);
        }
        list.followed = Some(status);
    }
}

impl Reader {
    fn new(queue: Queue, status: &ContentStatus) -> Self {
        Self {
            queue,
            found: None,
            shown: None,
            stall: None,
            was_queued: false,
            pauses: PausesTold::before(status.pauses()),
        }
    }

    fn tell(&mut self, status: &ContentStatus) {
        while let Some(event) = self.news(status) {
            self.queue.push(event);
        }
        let resting = status.resting().filter(|_| status.outcome().is_none());
        if let Some(content) = resting {
            self.queue.push(DownloadEvent::Finished(content.clone()));
            self.queue.close();
        }
        if let Some(outcome) = status.outcome() {
            self.queue.push(match outcome.clone() {
                Ok(content) => DownloadEvent::Finished(content),
                Err(error) => DownloadEvent::Failed(error),
            });
            self.queue.close();
        }
    }

    /// The status changes no more. A task that was ended at once has set no outcome.
    fn end(&mut self) {
        let error = DownloadError::ShutDown;
        // It has no effect after the outcome.
        self.queue.push(DownloadEvent::Failed(error));
        self.queue.close();
    }

    /// What is new in a status, beside its outcome.
    fn news(&mut self, status: &ContentStatus) -> Option<DownloadEvent> {
        if let Some(content) = status.content()
            && self.found.as_ref() != Some(content)
        {
            self.found = Some(content.clone());
            return Some(DownloadEvent::Found(content.clone()));
        }
        if let Some(event) = self.pauses.next(status.pauses()) {
            // What was told of a stall is outdated.
            self.stall = None;
            return Some(event);
        }
        let queued = status.is_queued();
        if queued && !std::mem::replace(&mut self.was_queued, queued) {
            return Some(DownloadEvent::Queued);
        }
        self.was_queued = queued;
        let stall = status.stall();
        if stall != self.stall && status.outcome().is_none() {
            self.stall = stall;
            return Some(stall.map_or(DownloadEvent::Resumed, DownloadEvent::Stalled));
        }
        let progress = status.progress();
        if self.found.is_some()
            && self.shown.as_ref() != Some(progress)
            && !matches!(status.outcome(), Some(Err(_)))
        {
            self.shown = Some(progress.clone());
            return Some(DownloadEvent::Progress(progress.clone()));
        }
        None
    }
}

impl PausesTold {
    /// Nothing was told of a download that was paused or resumed so often, except that it
    /// was not paused first.
    fn before(count: u64) -> Self {
        Self {
            count: count - count % 2,
            is_paused: false,
        }
    }

    /// The next event, when the download was paused or resumed so often.
    fn next(&mut self, count: u64) -> Option<DownloadEvent> {
        if self.count == count {
            return None;
        }
        let is_paused = count % 2 == 1;
        if self.is_paused != is_paused {
            self.count = count;
        }
        self.is_paused = !self.is_paused;
        Some(match self.is_paused {
            true => DownloadEvent::Paused,
            false => DownloadEvent::Unpaused,
        })
    }
}

/// The place of a reader among the others. Dropping it gives it back.
pub(in crate::peer) struct ReaderPlace {
    of: Arc<DownloadWatchers>,
    queue: Queue,
}

impl Drop for ReaderPlace {
    fn drop(&mut self) {
        let is_other = |reader: &Reader| !Arc::ptr_eq(&reader.queue, &self.queue);
        self.of.list().readers.retain(is_other);
    }
}

/// A download follows another one, until this is dropped.
pub(in crate::peer) struct Following {
    of: Arc<DownloadWatchers>,
    to: Arc<DownloadWatchers>,
}

impl Drop for Following {
    fn drop(&mut self) {
        let is_other = |joined: &Joined| !Arc::ptr_eq(&joined.watchers, &self.to);
        self.of.list().joined.retain(is_other);
        self.to.list().followed = None;
    }
}
