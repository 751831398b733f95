//! The downloads of folders that have not ended, and which of them fetches a folder.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::control::FolderControl;
use super::status::FolderStatus;
use crate::content::{ContentId, ContentName};
use crate::peer::downloads::holders::Holders;
use crate::protocol::ContentKey;

/// The downloads of folders of one peer, in the order in which they were asked for.
#[derive(Default)]
pub(in crate::peer) struct RunningFolders(Mutex<Table>);

#[derive(Default)]
struct Table {
    downloads: BTreeMap<u64, Arc<RunningFolder>>,
    /// Those that fetch a folder: one for each.
    claims: HashMap<ContentId, Arc<RunningFolder>>,
    next: u64,
}

/// A download of a folder that runs, waits, or is paused.
pub(in crate::peer) struct RunningFolder {
    /// What it was asked for by; `None` if that is no key.
    pub(in crate::peer) key: Option<ContentKey>,
    /// Set when it was found.
    pub(super) found: OnceLock<ContentId>,
    /// The name that the user wants it stored under, or it was asked for by.
    pub(in crate::peer) name: Option<ContentName>,
    /// The directory that it goes to, if it is another one.
    pub(super) directory: Option<PathBuf>,
    pub(in crate::peer) control: Arc<FolderControl>,
    pub(in crate::peer) holders: Arc<Holders>,
    pub(in crate::peer) status: watch::Receiver<FolderStatus>,
}

/// Keeps a download in the table, with its claim, until it is dropped.
pub(super) struct Registered {
    table: Arc<RunningFolders>,
    number: u64,
    running: Arc<RunningFolder>,
}

impl RunningFolder {
    pub(super) fn new(
        key: Option<ContentKey>,
        (name, directory): (Option<ContentName>, Option<PathBuf>),
        (control, holders): (Arc<FolderControl>, Arc<Holders>),
        status: watch::Receiver<FolderStatus>,
    ) -> Self {
        Self {
            key,
            found: OnceLock::new(),
            name,
            directory,
            control,
            holders,
            status,
        }
    }

    /// The folder, once that is known.
    pub(in crate::peer) fn id(&self) -> Option<ContentId> {
        match (self.found.get(), &self.key) {
            (Some(id), _) | (None, Some(ContentKey::Id(id))) => Some(*id),
            _ => None,
        }
    }
}

impl RunningFolders {
    /// One more download.
    pub(super) fn add(self: &Arc<Self>, running: RunningFolder) -> Registered {
        let running = Arc::new(running);
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
    pub(in crate::peer) fn all(&self) -> Vec<Arc<RunningFolder>> {
        let all: Vec<_> = self.table().downloads.values().cloned().collect();
        let runs = |running: &Arc<RunningFolder>| running.status.borrow().outcome.is_none();
        all.into_iter().filter(runs).collect()
    }

    /// The download that fetches a folder.
    pub(in crate::peer) fn claimed(&self, id: &ContentId) -> Option<Arc<RunningFolder>> {
        self.table().claims.get(id).cloned()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// This download fetches a folder, until it [gives that back](Self::release). The one
    /// that does already, if there is one.
    pub(super) fn claim(&self, id: ContentId) -> Result<(), Arc<RunningFolder>> {
        let mut table = self.table.table();
        if let Some(other) = table.claims.get(&id) {
            return Err(Arc::clone(other));
        }
        table.claims.insert(id, Arc::clone(&self.running));
        Ok(())
    }

    /// It fetches nothing any more.
    pub(super) fn release(&self) {
        let mut table = self.table.table();
        let own = |claim: &Arc<RunningFolder>| Arc::ptr_eq(claim, &self.running);
        table.claims.retain(|_, claim| !own(claim));
    }

    /// It is listed, also if it was not for a while.
    pub(super) fn list(&self) {
        let mut table = self.table.table();
        table
            .downloads
            .insert(self.number, Arc::clone(&self.running));
    }

    /// It is not listed any more: it has joined another one, which is.
    pub(super) fn unlist(&self) {
        self.table.table().downloads.remove(&self.number);
    }
}

impl std::ops::Deref for Registered {
    type Target = RunningFolder;

    fn deref(&self) -> &RunningFolder {
        &self.running
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.unlist();
        self.release();
    }
}
