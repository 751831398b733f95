//! The downloads of a peer that have not ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::content::{ContentId, ContentName};
use crate::peer::contents::table::DriverHandle;
use crate::peer::downloads::control::DownloadControl;
use crate::peer::events::topic::Topic;
use crate::protocol::ContentKey;

/// The downloads of one peer, in the order in which they were asked for.
#[derive(Default)]
pub(in crate::peer) struct RunningDownloads(Mutex<Table>);

#[derive(Default)]
struct Table {
    downloads: BTreeMap<u64, Arc<Running>>,
    next: u64,
}

/// A download that runs, waits, or is paused.
pub(in crate::peer) struct Running {
    /// What it was asked for by. Parts of folders are not asked for.
    pub(in crate::peer) key: OnceLock<ContentKey>,
    /// Set when it was found.
    pub(in crate::peer) found: OnceLock<ContentId>,
    /// The name that the user wants it stored under.
    pub(in crate::peer) name: OnceLock<ContentName>,
    pub(in crate::peer) handle: DriverHandle,
    pub(in crate::peer) control: Arc<DownloadControl>,
    /// Cancelled when it has ended.
    pub(in crate::peer) ended: CancellationToken,
    pub(in crate::peer) topic: Arc<Topic>,
    /// Set if a pause of it is not recorded: the record would not say where it goes.
    pub(in crate::peer) unrecorded: OnceLock<()>,
    /// Whether the storage has recorded that it is paused.
    recorded: AtomicBool,
    /// It was paused when the peer was last stopped, and nobody has asked for it since.
    restored: AtomicBool,
}

/// Keeps a download in the table until it is dropped.
pub(in crate::peer) struct Registered {
    table: Arc<RunningDownloads>,
    number: u64,
    running: Arc<Running>,
}

impl RunningDownloads {
    /// One more download.
    pub(in crate::peer) fn add(
        self: &Arc<Self>,
        handle: DriverHandle,
        control: Arc<DownloadControl>,
        (topic, ended): (Arc<Topic>, CancellationToken),
    ) -> Registered {
        let running = Arc::new(Running {
            key: OnceLock::new(),
            found: OnceLock::new(),
            name: OnceLock::new(),
            unrecorded: OnceLock::new(),
            handle,
            control,
            ended,
            topic,
            recorded: AtomicBool::new(false),
            restored: AtomicBool::new(false),
        });
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        table.downloads.insert(number, Arc::clone(&running));
        drop(table);
        Registered {
            table: Arc::clone(self),
            number,
            running,
        }
    }

    /// All of them, without those that have ended.
    pub(in crate::peer) fn all(&self) -> Vec<Arc<Running>> {
        let all: Vec<_> = self.table().downloads.values().cloned().collect();
        let runs = |running: &Arc<Running>| {
            let status = running.handle.status.borrow();
            status.outcome().is_none()
        };
        all.into_iter().filter(runs).collect()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// The content, once that is known.
    pub(in crate::peer) fn id(&self) -> Option<ContentId> {
        match (self.found.get(), self.key.get()) {
            (Some(id), _) | (None, Some(ContentKey::Id(id))) => Some(*id),
            _ => None,
        }
    }

    /// Whether two downloads are of the same content, as far as that is known.
    pub(in crate::peer) fn wants_same(&self, other: &Self) -> bool {
        match self.key.get() {
            Some(ContentKey::Id(id)) => other.id() == Some(*id),
            Some(ContentKey::Name(name)) => other.name.get() == Some(name),
            None => false,
        }
    }

    /// The download was paused when the peer was last stopped, and the storage has
    /// recorded that.
    pub(in crate::peer) fn restored(&self) {
        self.is_recorded();
        self.restored.store(true, Ordering::Relaxed);
    }

    /// Another download takes its place, and its record, if it was restored and nobody has
    /// asked for it since.
    pub(in crate::peer) fn give_way_to(&self, other: &Self) {
        let is_paused = self.control.pauses().borrow().is_some();
        if is_paused && self.handle.holders.abandon() && self.take_recorded() {
            other.is_recorded();
        }
    }

    /// Whether it is still as it was restored.
    pub(in crate::peer) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    /// The storage has a record of the pause from now on, or will have.
    pub(in crate::peer) fn is_recorded(&self) {
        self.recorded.store(true, Ordering::Relaxed);
    }

    /// Whether the storage has a record of the pause.
    pub(in crate::peer) fn has_record(&self) -> bool {
        self.recorded.load(Ordering::Relaxed)
    }

    /// The storage has no record any more. Returns whether it had one.
    pub(in crate::peer) fn take_recorded(&self) -> bool {
        self.recorded.swap(false, Ordering::Relaxed)
    }
}

impl std::ops::Deref for Registered {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.table.table().downloads.remove(&self.number);
    }
}
