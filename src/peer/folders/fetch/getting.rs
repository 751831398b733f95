//! The index of a folder, then its files, several at a time, then all of it at once to its
//! final name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::MissedTickBehavior;

use super::super::common_files::CommonFiles;
use super::super::error::FolderError;
use super::super::obtain::Obtain;
use super::super::place::{Base, existing, missing};
use super::super::share::{is_long, serve_file, unshare_any};
use super::super::status::Folder;
use super::super::target::FolderTarget;
use super::FolderTask;
use super::files::{Done, Wanted, check_room, get, index, wanted};
use super::homes::Homes;
use super::job::{Job, publish};
use crate::content::{ContentId, ContentName, FolderIndex};
use crate::peer::contents::common_place::CommonFolder;
use crate::peer::contents::folder_source::FolderSource;
use crate::protocol::Found;
use crate::storage::{Blob, FolderHome, Staged};

/// How often the progress is published.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What was fetched.
struct Fetched {
    /// All that is wanted.
    part: FolderIndex,
    /// What of that is not in its place.
    missing: FolderIndex,
    blobs: HashMap<ContentId, Arc<dyn Blob>>,
}

impl FolderTask {
    pub(super) async fn begin(
        &self,
        homes: &Homes,
        found: &Found,
        common: Option<&CommonFolder>,
    ) -> Result<Obtain, FolderError> {
        let home = Arc::new(FolderHome::open(&homes.target, found.id).await?);
        let target = FolderTarget::new(home.files().clone());
        let owners = found.owners.iter();
        let owners = owners.map(|owner| (owner.addr.clone(), owner.complete));
        let owners = Some(owners.collect::<Vec<_>>());
        let source = FolderSource::new(found.id, target.clone(), Vec::new(), owners);
        Ok(Obtain {
            shared: Arc::clone(&self.shared),
            home,
            target,
            source: Arc::new(source),
            control: Arc::clone(self.control()),
            common: common.map(|CommonFolder(tree)| CommonFiles::new(Arc::clone(tree))),
        })
    }

    /// Fetches the folder, puts it in its place, and shares it if that is wanted.
    pub(super) async fn fetch_into(&self, job: &Job, length: u64) -> Result<Folder, FolderError> {
        let obtain = &job.obtain;
        let (whole, bytes) = index(obtain, &job.names.listed, length).await?;
        self.leave_out_missing(&whole);
        // Before anything is looked for.
        self.selected(&whole)?;
        let mut base = match &job.here {
            Some((folder, placed)) => Some(Base {
                name: folder.name.clone(),
                overwrites: self.overwrites,
                inherited: Staged::default(),
                placed: placed.present(&whole).await?,
            }),
            None if obtain.common.is_some() => None,
            None => {
                let (shared, target) = (&self.shared, &job.homes.target);
                let (names, overwrites) = (&job.names.stored, self.overwrites);
                existing(shared, target, &obtain.home, names, &whole, overwrites).await?
            }
        };
        let place = || {
            let name = job.names.stored[0].clone();
            (job.homes.target.root(&name), name)
        };
        if let Some(common) = &obtain.common {
            common.know(&whole, &place().0)?;
            if !common.tree.is_under_way() {
                let part = self.selected(&whole)?;
                base = Some(obtain.beside(place(), (&whole, &part)).await?.0);
            }
        }
        self.status
            .send_modify(|status| status.index = Some(whole.clone()));
        let name = &job.names.stored[0];
        let mut fetched = None;
        if let (None, Some(common)) = (&base, &obtain.common) {
            tokio::select! {
                biased;
                all = self.files(obtain, &whole, name, &mut base) => fetched = Some(all?),
                // What only the other content had is not fetched any more.
                true = common.tree.is_done() => {}
            }
            if common.tree.is_done().await {
                let part = self.selected(&whole)?;
                let (beside, rest) = obtain.beside(place(), (&whole, &part)).await?;
                base = Some(beside);
                if let Some(fetched) = &mut fetched {
                    fetched.missing = rest;
                }
            }
        }
        let fetched = match fetched {
            Some(fetched) => fetched,
            None => self.files(obtain, &whole, name, &mut base).await?,
        };
        let Fetched {
            part,
            missing,
            mut blobs,
        } = fetched;
        obtain.copy_home(&missing, &mut blobs).await?;
        let (name, placed) = match base {
            None => {
                let (name, placed) = publish(obtain, &job.names.stored, &part, &blobs).await?;
                (name, placed.within(&part, &whole))
            }
            Some(Base { name, placed, .. }) if missing.entries().is_empty() => (name, placed),
            Some(base) => {
                let (home, root) = (&obtain.home, base.placed.root());
                let added = match base.overwrites {
                    true => home.replace(root, &missing, &blobs).await?,
                    false => home.extend(root, &missing, &blobs).await?,
                };
                let placed = base.placed.and(added.within(&missing, &whole));
                (base.name, placed)
            }
        };
        let root = placed.root().path();
        let folder = Folder {
            id: obtain.source.index(),
            name,
            files: placed.len(),
            length: placed.length(),
        };
        job.settle(&folder, (&whole, &part), bytes, placed).await?;
        if self.overwrites {
            for (other, _) in self.shared.folders.placed_at(&root) {
                if other != folder.id {
                    // This one lies in its place.
                    unshare_any(&self.shared, &other).await;
                }
            }
        }
        Ok(folder)
    }

    /// What was recorded of a download before the peer was started is what all of its handles
    /// wanted. What one of them wanted in vain is no reason that the others get nothing.
    fn leave_out_missing(&self, whole: &FolderIndex) {
        if !self.is_restored {
            return;
        }
        let missing = self.control().leave_out_missing(whole);
        for path in &missing {
            tracing::warn!(%path, "the folder has nothing at a path that was wanted");
        }
        if !missing.is_empty() {
            self.status
                .send_modify(|status| status.missing.extend(missing));
        }
    }

    /// What is wanted now.
    fn selected(&self, whole: &FolderIndex) -> Result<FolderIndex, FolderError> {
        let part = self.control().selections().borrow().of(whole);
        part.map_err(|path| FolderError::NoSuchPath { path })
    }

    /// Gets all files, several at a time, also those that are wanted later.
    async fn files(
        &self,
        obtain: &Obtain,
        whole: &FolderIndex,
        name: &ContentName,
        base: &mut Option<Base>,
    ) -> Result<Fetched, FolderError> {
        let id = obtain.source.index();
        // So many may be active, and as many wait in line: each that ends makes room for
        // another one of this folder, if its priority is higher than that of others.
        let at_a_time = 2 * self.shared.config.max_downloads.max(1);
        let mut selections = self.control().selections();
        let mut done = Done::new(self.status.borrow().files.clone());
        let mut known = HashSet::new();
        let mut queue: VecDeque<Wanted> = VecDeque::new();
        let mut running = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let selection = selections.borrow_and_update().clone();
            let (part, missing) = self.wanted(obtain, whole, name, base, &mut done).await?;
            let wanted = wanted(&self.shared, &missing);
            self.shared
                .folders
                .expect(&id, wanted.iter().map(|file| file.id));
            queue.extend(wanted.into_iter().filter(|file| known.insert(file.id)));
            let more = loop {
                while running.len() < at_a_time
                    && let Some(file) = queue.pop_front()
                {
                    running.push(get(obtain, file));
                }
                if running.is_empty() {
                    break false;
                }
                tokio::select! {
                    biased;
                    Some((file, result)) = running.next() => {
                        let got = result.map_err(|error| error.at(&file.entry.path))?;
                        done.got(&file, &got);
                        let found = got.found.filter(|_| is_long(file.length));
                        serve_file(&self.shared, id, got.blob, file.entry, found);
                    }
                    Ok(()) = selections.changed() => break true,
                    _ = ticks.tick() => {}
                }
                self.show(&done);
            };
            if !more && self.control().seal(&selection) {
                return Ok(Fetched {
                    part,
                    missing,
                    blobs: done.blobs,
                });
            }
        }
    }

    /// What is wanted now, and what of that is not in its place.
    async fn wanted(
        &self,
        obtain: &Obtain,
        whole: &FolderIndex,
        name: &ContentName,
        base: &mut Option<Base>,
        done: &mut Done,
    ) -> Result<(FolderIndex, FolderIndex), FolderError> {
        let id = obtain.source.index();
        let part = self.selected(whole)?;
        let missing = missing(&self.shared, &obtain.home, whole, &part, base).await?;
        check_room(obtain, &missing).await?;
        done.want(whole, (&part, &missing));
        let name = base.as_ref().map_or(name, |base| &base.name);
        self.show_folder(id, &part, name);
        self.show(done);
        Ok((part, missing))
    }
}
