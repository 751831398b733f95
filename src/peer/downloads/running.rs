//! The downloads of a peer that have not ended.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::content::{ContentId, ContentName};
use crate::peer::contents::table::DriverHandle;
use crate::peer::downloads::asked::Asked;
use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::settings::MAX_ADDED_OWNERS;
use crate::peer::events::topic::Topic;
use crate::protocol::{Addr, ContentKey};
use crate::storage::{PausedDownload, PausedId};

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
    /// How it was asked for, if a pause of it is recorded.
    pub(in crate::peer) asked: OnceLock<Box<Asked>>,
    /// The name that trackers have for the content.
    pub(in crate::peer) listed_as: OnceLock<ContentName>,
    /// The owners that trackers have named of late, each once.
    owners: Mutex<VecDeque<Addr>>,
    record: Mutex<Record>,
    /// It was paused when the peer was last stopped, and nobody has asked for it since.
    restored: AtomicBool,
}

/// What the storage has recorded of a download.
#[derive(Default)]
struct Record {
    /// Set from before it is written until it is removed.
    id: Option<PausedId>,
    /// What is in it, as far as that is known.
    written: Option<Bytes>,
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
            asked: OnceLock::new(),
            listed_as: OnceLock::new(),
            owners: Mutex::default(),
            handle,
            control,
            ended,
            topic,
            record: Mutex::default(),
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
            Some(key @ ContentKey::Name(name)) => {
                other.key.get() == Some(key) || other.name.get() == Some(name)
            }
            None => false,
        }
    }

    /// The storage had this record of the download when the peer was started.
    pub(in crate::peer) fn restored(&self, record: &PausedDownload) {
        let mut has = self.record();
        has.id = Some(record.id);
        has.written = Some(record.bytes.clone());
        self.restored.store(true, Ordering::Relaxed);
    }

    /// Another download takes its place, and its record, if it was restored and nobody has
    /// asked for it since. One that goes somewhere else would not find what is here, and
    /// one that wants another name is not the same.
    pub(in crate::peer) fn give_way_to(&self, other: &Self) {
        let directory = |running: &Self| running.asked.get().map(|asked| asked.directory.clone());
        let is_paused = self.control.pauses().borrow().is_some();
        let is_same = directory(self) == directory(other)
            && (other.name.get().is_none() || other.name.get() == self.name.get());
        let is_free = other.asked.get().is_some() && !other.has_record();
        if is_paused && is_same && is_free && self.handle.holders.abandon() {
            other.control.inherit(&self.control);
            let record = std::mem::take(&mut *self.record());
            *other.record() = record;
        }
    }

    /// Whether it is still as it was restored.
    pub(in crate::peer) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    /// Trackers have named these owners.
    pub(in crate::peer) fn named(&self, owners: impl IntoIterator<Item = Addr>) {
        let mut known = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for owner in owners {
            known.retain(|other| *other != owner);
            if known.len() == MAX_ADDED_OWNERS {
                known.pop_front();
            }
            known.push_back(owner);
        }
    }

    /// The owners that trackers and the user have named, those of the user at the end.
    pub(in crate::peer) fn owners(&self) -> Vec<Addr> {
        let settings = self.control.settings().borrow().clone();
        let added: HashSet<&Addr> = settings.owners().collect();
        let known = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let named = known.iter().filter(|owner| !added.contains(owner));
        named.chain(settings.owners()).cloned().collect()
    }

    /// Whether the storage has a record of it, or will have.
    pub(in crate::peer) fn has_record(&self) -> bool {
        self.record().id.is_some()
    }

    /// The record to write so that it has these bytes; `new` gives the id of a new one.
    /// Nothing if it has them.
    pub(in crate::peer) fn record_with(
        &self,
        bytes: Bytes,
        new: impl FnOnce() -> PausedId,
    ) -> Option<PausedDownload> {
        let mut has = self.record();
        if has.written.as_ref() == Some(&bytes) {
            return None;
        }
        has.written = None;
        // Also if it is not written in the end: then there is nothing to remove.
        let id = *has.id.get_or_insert_with(new);
        Some(PausedDownload::new(id, bytes))
    }

    /// The record is written.
    pub(in crate::peer) fn is_recorded(&self, record: PausedDownload) {
        let mut has = self.record();
        if has.id == Some(record.id) {
            has.written = Some(record.bytes);
        }
    }

    /// The storage has no record any more. Returns which one it had.
    pub(in crate::peer) fn take_record(&self) -> Option<PausedId> {
        std::mem::take(&mut *self.record()).id
    }

    /// Ignores poison: no change under this lock is left half done.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
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
