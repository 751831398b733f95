//! The downloads of folders that have not ended, and which of them fetches a folder.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::control::FolderControl;
use super::status::FolderStatus;
use crate::content::{ContentId, ContentName};
use crate::peer::downloads::holders::{Hold, Holders};
use crate::protocol::ContentKey;

/// The downloads of folders of one peer, in the order in which they were asked for.
#[derive(Default)]
pub(in crate::peer) struct RunningFolders(Mutex<Table>);

#[derive(Default)]
struct Table {
    downloads: BTreeMap<u64, Entry>,
    /// Those that fetch a folder: one for each.
    claims: HashMap<ContentId, Arc<RunningFolder>>,
    next: u64,
}

struct Entry {
    running: Arc<RunningFolder>,
    /// Whether it has an entry of its own: it has joined no other one.
    is_listed: bool,
}

/// A download of a folder that runs, waits, or is paused.
pub(in crate::peer) struct RunningFolder {
    /// What it was asked for by; `None` if nothing can come of it.
    pub(in crate::peer) key: Option<ContentKey>,
    /// The name that it was asked for by, also before a restart.
    asked: Option<ContentName>,
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
        (key, asked): (Option<ContentKey>, Option<ContentName>),
        (name, directory): (Option<ContentName>, Option<PathBuf>),
        (control, holders): (Arc<FolderControl>, Arc<Holders>),
        status: watch::Receiver<FolderStatus>,
    ) -> Self {
        Self {
            key,
            asked,
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

    /// Whether it is that of a folder which is asked for by this.
    fn is_of(&self, key: &ContentKey) -> bool {
        match key {
            ContentKey::Id(id) => self.id() == Some(*id),
            ContentKey::Name(name) => self.asked.as_ref() == Some(name),
        }
    }

    /// Whether it goes there, as far as that is known. A folder has one name and one place.
    pub(super) fn goes_to(&self, name: Option<&ContentName>, directory: Option<&Path>) -> bool {
        let has_name = |name| self.name.as_ref().is_none_or(|own| own == name);
        let is_there = |directory| self.directory.as_deref() == Some(directory);
        name.is_none_or(has_name) && directory.is_none_or(is_there)
    }

    /// Whether it has this name here, or was asked for by it.
    fn is_called(&self, name: &ContentName) -> bool {
        let status = self.status.borrow();
        let found = status.folder.as_ref().map(|folder| &folder.name);
        [found, self.name.as_ref(), self.asked.as_ref()].contains(&Some(name))
    }

    fn runs(&self) -> bool {
        self.status.borrow().outcome.is_none()
    }

    /// Waits until the download has ended, and fetches nothing any more.
    ///
    /// Cancel safe.
    pub(super) async fn ended(&self) {
        let mut status = self.status.clone();
        // An error says that it has ended without an outcome.
        let _ = status.wait_for(|status| status.outcome.is_some()).await;
    }
}

impl RunningFolders {
    /// One more download, and the one that it joins, with a part in it: one of the same
    /// folder that goes to the same place. It may not have found it yet, and others join it
    /// also if it has joined one itself.
    pub(super) fn add(
        self: &Arc<Self>,
        running: RunningFolder,
        (name, directory): (Option<&ContentName>, Option<&Path>),
    ) -> (Registered, Option<(Arc<RunningFolder>, Hold)>) {
        let running = Arc::new(running);
        let mut table = self.table();
        let other = running.key.as_ref().and_then(|key| {
            let others = table.downloads.values().map(|entry| &entry.running);
            let mut others = others.filter(|other| {
                other.key.is_some()
                    && other.runs()
                    && other.is_of(key)
                    && other.goes_to(name, directory)
            });
            // One that is cancelled gives no part.
            others.find_map(|other| Some((Arc::clone(other), other.holders.join()?)))
        });
        let number = table.next;
        table.next += 1;
        let entry = Entry {
            running: Arc::clone(&running),
            is_listed: other.is_none(),
        };
        table.downloads.insert(number, entry);
        drop(table);
        let registered = Registered {
            table: Arc::clone(self),
            number,
            running,
        };
        (registered, other)
    }

    /// All of them, without those that have ended or have joined another one.
    pub(in crate::peer) fn all(&self) -> Vec<Arc<RunningFolder>> {
        let table = self.table();
        let listed = table.downloads.values().filter(|entry| entry.is_listed);
        let mut all: Vec<_> = listed.map(|entry| Arc::clone(&entry.running)).collect();
        drop(table);
        all.retain(|running| running.runs());
        all
    }

    /// The download that a key stands for. A name stands for the only folder that has it
    /// here, or, if none has, for the first download that was asked for by it and has not
    /// found its folder yet.
    pub(in crate::peer) fn find(&self, key: &ContentKey) -> Option<Arc<RunningFolder>> {
        let all = self.all();
        let id = match key {
            ContentKey::Id(id) => *id,
            ContentKey::Name(name) => {
                let every: Vec<_> = {
                    let table = self.table();
                    let every = table.downloads.values();
                    every.map(|entry| Arc::clone(&entry.running)).collect()
                };
                let called = every.iter().filter(|one| one.runs() && one.is_called(name));
                let mut ids: Vec<_> = called.filter_map(|one| one.id()).collect();
                ids.sort_unstable();
                ids.dedup();
                match ids[..] {
                    [] => {
                        let is_asked = |one: &Arc<RunningFolder>| one.is_of(key);
                        return all.into_iter().find(is_asked);
                    }
                    [id] => id,
                    _ => return None,
                }
            }
        };
        all.into_iter().find(|running| running.id() == Some(id))
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
        self.set_listed(true);
    }

    /// It is not listed any more: it has joined another one, which is.
    pub(super) fn unlist(&self) {
        self.set_listed(false);
    }

    fn set_listed(&self, is_listed: bool) {
        if let Some(entry) = self.table.table().downloads.get_mut(&self.number) {
            entry.is_listed = is_listed;
        }
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
        self.table.table().downloads.remove(&self.number);
        self.release();
    }
}
