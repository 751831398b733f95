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
use super::super::place_turns::Turn;
use super::super::release::stop_serving;
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
use crate::storage::{Blob, FilePool, FolderHome, PlacedFiles, Staged};

/// How often the progress is published.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What was fetched.
struct Fetched {
    /// All that is wanted.
    part: FolderIndex,
    /// What of that is not in its place.
    missing: FolderIndex,
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
        let here = job.here.as_ref().map(|(folder, _)| &folder.name);
        let name = here.unwrap_or(&job.names.stored[0]);
        let place = job.homes.target.root(name).path();
        let place = self.shared.folder_places.place(place);
        let mut done = Done::new(self.status.borrow().files.clone());
        // Somebody else has changed the place before each turn of this loop but the first.
        let mut is_again = false;
        loop {
            let seen = place.seen();
            let mut base = self.base(job, &whole).await?;
            if std::mem::replace(&mut is_again, true) {
                self.forget_replaced(&whole, base.as_ref(), &done);
            }
            let fetched = self
                .all_files(job, &whole, name, &mut base, &mut done)
                .await?;
            obtain.copy_home(&fetched.missing, &mut done.blobs).await?;
            // Where nothing is to be replaced, it shows when the folder gets its name.
            let matters = base.is_some() || self.overwrites;
            let Some(turn) = place.turn(matters.then_some(seen)).await else {
                continue;
            };
            let put = self.put(job, &whole, (base, &fetched), &done.blobs, &turn);
            let Some((name, placed)) = put.await? else {
                continue;
            };
            let folder = Folder {
                id: obtain.source.index(),
                name,
                files: placed.len(),
                length: placed.length(),
            };
            let mut others = Vec::new();
            if self.overwrites {
                others = self.shared.folders.placed_at(&placed.root().path());
                others.retain(|(other, _)| *other != folder.id);
            }
            job.settle(&folder, (&whole, &fetched.part), bytes, placed)
                .await?;
            drop(turn);
            self.unshare_replaced(others).await;
            return Ok(folder);
        }
    }

    /// Folders that lay where this one lies now, unless they have come again since, or are
    /// about to: then their download looks at the place again.
    async fn unshare_replaced(&self, others: Vec<(ContentId, Arc<PlacedFiles>)>) {
        for (other, there) in others {
            let is_coming = self.shared.running_folders.claimed(&other).is_some();
            let now = self.shared.folders.placed(&other);
            if !is_coming && now.is_some_and(|now| Arc::ptr_eq(&now, &there)) {
                unshare_any(&self.shared, &other).await;
            }
        }
    }

    /// Serves no file any more that was found in the place, and that somebody has replaced
    /// there.
    fn forget_replaced(&self, whole: &FolderIndex, base: Option<&Base>, done: &Done) {
        let pool = FilePool::shared();
        let placed = base.map(|base| &base.placed).into_iter();
        let placed = placed.flat_map(|placed| placed.blobs(whole, &pool));
        let kept = placed.map(|(file, _)| file);
        let kept = kept.chain(done.blobs.keys().copied()).collect();
        for file in self.shared.folders.keep_only(&whole.id(), &kept) {
            stop_serving(&self.shared, &file);
        }
    }

    /// What is in the place of the folder.
    async fn base(&self, job: &Job, whole: &FolderIndex) -> Result<Option<Base>, FolderError> {
        let Some((folder, placed)) = &job.here else {
            if job.obtain.common.is_some() {
                return Ok(None);
            }
            let (shared, target) = (&self.shared, &job.homes.target);
            let (names, overwrites) = (&job.names.stored, self.overwrites);
            return existing(shared, target, &job.obtain.home, names, whole, overwrites).await;
        };
        Ok(Some(Base {
            name: folder.name.clone(),
            overwrites: self.overwrites,
            inherited: Staged::default(),
            placed: placed.present(whole).await?,
        }))
    }

    /// Gets all files. If another content has them in common, those come from there as well,
    /// and the place is that of the other one when that is done.
    async fn all_files(
        &self,
        job: &Job,
        whole: &FolderIndex,
        name: &ContentName,
        base: &mut Option<Base>,
        done: &mut Done,
    ) -> Result<Fetched, FolderError> {
        let obtain = &job.obtain;
        let show = || {
            self.status
                .send_modify(|status| status.index = Some(whole.clone()));
        };
        let Some(common) = &obtain.common else {
            show();
            return self.files(obtain, whole, name, base, done).await;
        };
        let place = || {
            let name = job.names.stored[0].clone();
            (job.homes.target.root(&name), name)
        };
        common.know(whole, &place().0)?;
        if !common.tree.is_under_way() {
            let part = self.selected(whole)?;
            *base = Some(obtain.beside(place(), (whole, &part)).await?.0);
        }
        show();
        let mut fetched = None;
        if base.is_none() {
            tokio::select! {
                biased;
                all = self.files(obtain, whole, name, base, done) => fetched = Some(all?),
                // What only the other content had is not fetched any more.
                true = common.tree.is_done() => {}
            }
            if common.tree.is_done().await {
                let part = self.selected(whole)?;
                let (beside, rest) = obtain.beside(place(), (whole, &part)).await?;
                *base = Some(beside);
                if let Some(fetched) = &mut fetched {
                    fetched.missing = rest;
                }
            }
        }
        match fetched {
            Some(fetched) => Ok(fetched),
            None => self.files(obtain, whole, name, base, done).await,
        }
    }

    /// Puts what was fetched into its place. Nothing if a directory has come there that is to
    /// be replaced.
    async fn put(
        &self,
        job: &Job,
        whole: &FolderIndex,
        (base, fetched): (Option<Base>, &Fetched),
        blobs: &HashMap<ContentId, Arc<dyn Blob>>,
        turn: &Turn,
    ) -> Result<Option<(ContentName, PlacedFiles)>, FolderError> {
        let Fetched { part, missing } = fetched;
        Ok(match base {
            None => {
                let published = publish(job, part, blobs, self.overwrites, turn).await?;
                published.map(|(name, placed)| (name, placed.within(part, whole)))
            }
            Some(Base { name, placed, .. }) if missing.entries().is_empty() => Some((name, placed)),
            Some(base) => {
                let (home, root) = (&job.obtain.home, base.placed.root());
                let held = Arc::clone(turn);
                let added = match base.overwrites {
                    true => home.replace(root, missing, blobs, held).await?,
                    false => home.extend(root, missing, blobs, held).await?,
                };
                let placed = base.placed.and(added.within(missing, whole));
                Some((base.name, placed))
            }
        })
    }

    /// What was recorded of a download before the peer was started is what all of its handles
    /// wanted. What one of them wanted in vain is no reason that the others get nothing.
    pub(super) fn leave_out_missing(&self, whole: &FolderIndex) {
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
    pub(super) fn selected(&self, whole: &FolderIndex) -> Result<FolderIndex, FolderError> {
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
        done: &mut Done,
    ) -> Result<Fetched, FolderError> {
        let id = obtain.source.index();
        // So many may be active, and as many wait in line: each that ends makes room for
        // another one of this folder, if its priority is higher than that of others.
        let at_a_time = 2 * self.shared.config.max_downloads.max(1);
        let mut selections = self.control().selections();
        let mut known: HashSet<ContentId> = done.blobs.keys().copied().collect();
        let mut queue: VecDeque<Wanted> = VecDeque::new();
        let mut running = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let selection = selections.borrow_and_update().clone();
            let (part, missing) = self.wanted(obtain, whole, name, base, done).await?;
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
                self.show(done);
            };
            if !more && self.control().seal(&selection) {
                return Ok(Fetched { part, missing });
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
