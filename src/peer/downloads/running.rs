//! The downloads of a peer that have not ended, and which of them others join.
//!
//! Of all downloads that are known to be of the same content, or that were asked for by the
//! same name to go to the same file, one leads: the first one. Those that come later join
//! it, whatever it does at that moment, and are not in this table. What is for one caller
//! only leads nobody.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::content::{ContentId, ContentName};
use crate::peer::contents::table::DriverHandle;
use crate::peer::downloads::asked::Asked;
use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::holders::Hold;
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
    /// Which download others join.
    leaders: HashMap<Lead, u64>,
    next: u64,
}

/// What downloads have in common that are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::peer) enum Lead {
    /// It is this content.
    Content(ContentId),
    /// Whatever content this is, it goes there.
    Asked {
        name: ContentName,
        stored_as: ContentName,
        directory: Option<PathBuf>,
    },
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
    /// What it leads in.
    leads: Mutex<Vec<Lead>>,
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
            leads: Mutex::default(),
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
        let mut all: Vec<_> = self.table().downloads.values().cloned().collect();
        all.retain(|running| running.runs());
        all
    }

    /// All of them that were asked for, each content once.
    pub(in crate::peer) fn listed(&self) -> Vec<Arc<Running>> {
        let mut all = self.all();
        all.retain(|running| running.key.get().is_some());
        let mut chosen: HashMap<ContentId, *const Running> = HashMap::new();
        for leads in [true, false] {
            for running in all.iter().filter(|running| running.leads() == leads) {
                if let Some(id) = running.id() {
                    chosen.entry(id).or_insert(Arc::as_ptr(running));
                }
            }
        }
        all.retain(|running| {
            let id = running.id();
            id.is_none_or(|id| chosen.get(&id) == Some(&Arc::as_ptr(running)))
        });
        all
    }

    /// The download that leads in this, and a part in it.
    pub(in crate::peer) fn leader(&self, lead: &Lead) -> Option<(Arc<Running>, Hold)> {
        let table = self.table();
        let leader = table.downloads.get(table.leaders.get(lead)?)?;
        // One that is cancelled gives none.
        let part = leader.handle.holders.join().filter(|_| leader.runs())?;
        Some((Arc::clone(leader), part))
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

    fn runs(&self) -> bool {
        self.handle.status.borrow().outcome().is_none()
    }

    /// Whether others join it.
    fn leads(&self) -> bool {
        !self.lock_leads().is_empty()
    }

    /// The storage had this record of the download when the peer was started.
    pub(in crate::peer) fn restored(&self, record: &PausedDownload) {
        let mut has = self.record();
        has.id = Some(record.id);
        has.written = Some(record.bytes.clone());
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

    /// Ignores poison: no change under this lock is left half done.
    fn lock_leads(&self) -> MutexGuard<'_, Vec<Lead>> {
        self.leads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// Leads in this from now on, unless another download does: that one, and a part in it.
    pub(in crate::peer) fn lead(&self, lead: Lead) -> Option<(Arc<Running>, Hold)> {
        let mut table = self.table.table();
        if let Some(leader) = table.leaders.get(&lead)
            && *leader != self.number
            && let Some(leader) = table.downloads.get(leader)
            // One that is cancelled gives none.
            && let Some(part) = leader.handle.holders.join().filter(|_| leader.runs())
        {
            return Some((Arc::clone(leader), part));
        }
        self.running.lock_leads().push(lead.clone());
        table.leaders.insert(lead, self.number);
        None
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
        let mut table = self.table.table();
        table.downloads.remove(&self.number);
        for lead in self.running.lock_leads().drain(..) {
            if table.leaders.get(&lead) == Some(&self.number) {
                table.leaders.remove(&lead);
            }
        }
    }
}
