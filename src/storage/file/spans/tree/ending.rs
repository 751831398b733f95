//! How the files of a content get their names, or are given up.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::super::super::dir::Dir;
use super::super::super::disk::{Disk, DiskFile, Refused};
use super::super::super::failure::{failed, refused};
use super::super::super::stamp::Stamp;
use super::super::layout::{Layout, SpannedFile, SpannedLink, chunks_of};
use super::super::record;
use super::{SpannedTree, State, examined, is_as, part_name, says};
use crate::content::{Bitfield, ContentId, FolderPath};
use crate::storage::StorageError;

impl SpannedTree {
    /// Makes all files durable under their own names, and records that these chunks are right.
    pub(in super::super) fn finish(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.finish_some(verified, (|_| true, |_| true))?;
        let mut files = self.files();
        if !std::mem::replace(&mut files.has_apart, false) {
            return Ok(());
        }
        // Nothing lies apart any more.
        let apart = self.layout.files.len();
        files.open.retain(|(open, _)| *open != apart);
        files.apart.clear();
        files.displaced.clear();
        files.dirty.remove(&apart);
        drop(files);
        self.record(verified);
        match self.root()?.remove(&record::apart_name(self.id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing", &self.root, e)),
            _ => Ok(()),
        }
    }

    /// The same for those files that are wanted and of which all chunks are among these.
    pub(in super::super) fn finish_chosen(&self, verified: &Bitfield) -> Result<(), StorageError> {
        self.commit(verified)?;
        let is_here = |number: usize| {
            let range = &self.layout.files[number].range;
            let mut chunks = chunks_of(range, self.geometry);
            self.chosen.has_file(number) && chunks.all(|chunk| verified.contains(chunk))
        };
        self.finish_some(verified, (is_here, |link| self.chosen.has_link(link)))?;
        // What was locked may have its name now.
        self.lock_all()
    }

    fn finish_some(
        &self,
        verified: &Bitfield,
        (has_file, has_link): (impl Fn(usize) -> bool, impl Fn(usize) -> bool),
    ) -> Result<(), StorageError> {
        let mut folders = BTreeSet::new();
        let _syncing = self.syncing();
        for (number, file) in self.layout.files.iter().enumerate() {
            if !has_file(number) {
                continue;
            }
            let state = self.files().states[number];
            if let State::Finished(stamp) = state {
                self.is_still_there(file, stamp)?;
                continue;
            }
            if self.is_unsettled(number) {
                let moving = self.moving();
                if self.is_unsettled(number) {
                    self.settle(number, &moving)?;
                }
            }
            self.finish_file(number)?;
            put_parents(&mut folders, &file.path);
        }
        for (number, link) in self.layout.links.iter().enumerate() {
            if has_link(number) {
                self.finish_link(link)?;
                put_parents(&mut folders, &link.path);
            }
        }
        self.record(verified);
        let syncing =
            |path: &Path, done: io::Result<()>| done.map_err(|e| failed("syncing", path, e));
        for folder in folders.iter().rev() {
            let path = self.root.join(folder);
            let mut dir = self.root()?;
            for name in folder.split('/') {
                dir = self.enter(&dir, name, &path)?;
            }
            syncing(&path, dir.sync())?;
        }
        let root = self.root()?;
        syncing(&self.root, root.sync())?;
        syncing(&self.root, root.sync_parent())
    }

    /// Checks that a file which was finished is what it was.
    fn is_still_there(&self, file: &SpannedFile, stamp: Stamp) -> Result<(), StorageError> {
        let path = self.path_of(file);
        let found = match self.folder_of(&file.path, false) {
            Ok(dir) => dir.look(file.path.name().as_ref()),
            Err(_) => Ok(None),
        };
        match found.map_err(|e| failed("examining", &path, e))? {
            Some(found) if is_as(&found.stat, stamp) => Ok(()),
            _ => Err(StorageError::Changed { path }),
        }
    }

    fn finish_file(&self, number: usize) -> Result<(), StorageError> {
        let file = &self.layout.files[number];
        let path = self.path_of(file);
        let opened = self.file(number)?;
        let finishing = |e| failed("finishing", &path, e);
        let is_found = self.files().states[number] == State::Found;
        if let Some(known) = self.stamp_of(number) {
            // What was verified is what was there then.
            let stat = opened.stat().map_err(finishing)?;
            if !is_as(&stat, known) {
                return Err(StorageError::Changed { path });
            }
        }
        if !is_found && file.executable {
            opened.set_executable(true).map_err(finishing)?;
        }
        let mut stamp = None;
        if !is_found {
            stamp = Some(examined(&opened).map_err(finishing)?);
        }
        opened.sync_all().map_err(finishing)?;
        if !is_found {
            let dir = self.folder_of(&file.path, false)?;
            self.rename(&dir, number)?;
        }
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => Stamp::of(&opened.stat().map_err(finishing)?),
        };
        let mut files = self.files();
        let known = files.stamps[number].filter(|known| known.modified == stamp.modified);
        let settled = known.is_some_and(|known| known.settled);
        files.stamps[number] = Some(Stamp {
            settled: stamp.settled || settled,
            ..stamp
        });
        files.states[number] = State::Finished(stamp);
        // It is open for writing.
        files.open.retain(|(open, _)| *open != number);
        Ok(())
    }

    /// Gives a complete file its own name.
    fn rename(&self, dir: &Dir, number: usize) -> Result<(), StorageError> {
        let file = &self.layout.files[number];
        let (from, to) = (part_name(&file.path), file.path.name());
        let renamed = match dir.rename(&from, to) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                dir.link(&from, to).and_then(|()| dir.remove(&from))
            }
            renamed => renamed,
        };
        renamed.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => self.exists(&self.layout.files[number].path),
            _ => failed("finishing", &self.path_of(file), e),
        })
    }

    /// Makes a link, unless it is there.
    fn finish_link(&self, link: &SpannedLink) -> Result<(), StorageError> {
        let path = self.root.join(link.path.as_str());
        let finishing = |e| failed("creating", &path, e);
        self.check_link(link)?;
        let dir = self.folder_of(&link.path, true)?;
        if says(&dir, link) {
            return Ok(());
        }
        match dir.remove(link.path.name()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(finishing(e)),
            _ => {}
        }
        dir.make_link(link.path.name(), &link.target)
            .map_err(finishing)
    }

    /// Removes what is not complete, folders that are empty then, and the record.
    pub(in super::super) fn discard(
        root: &Path,
        layout: &Layout,
        id: ContentId,
    ) -> Result<bool, StorageError> {
        let failing = |e| failed("removing", root, e);
        let mut any = false;
        let mut folders = BTreeSet::new();
        let enter = |folder: Option<&FolderPath>| -> Result<Option<Dir>, StorageError> {
            let mut dir = match Dir::open(root) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                dir => dir.map_err(failing)?,
            };
            for name in folder.iter().flat_map(|folder| folder.elements()) {
                dir = match dir.enter(name.as_ref()) {
                    Ok(dir) => dir,
                    Err(Refused::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(refused("removing", root, e)),
                };
            }
            Ok(Some(dir))
        };
        for file in &layout.files {
            let parent = file.path.parent();
            if let Some(dir) = enter(parent.as_ref())? {
                match dir.remove(&part_name(&file.path)) {
                    Ok(()) => any = true,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failing(e)),
                }
            }
            put_parents(&mut folders, &file.path);
        }
        for link in &layout.links {
            put_parents(&mut folders, &link.path);
        }
        for folder in folders.iter().rev() {
            let (parent, name) = folder.rsplit_once('/').unwrap_or(("", folder));
            let parent = parent.parse().ok();
            if let Some(dir) = enter(parent.as_ref())? {
                // What is in use stays.
                let _ = dir.remove_dir(name.as_ref());
            }
        }
        if let Some(root) = enter(None)? {
            let [name, new] = record::names(id);
            let apart = record::apart_name(id);
            for name in [&name, &new, &apart] {
                match root.remove(name) {
                    // A record alone has no bytes of the content.
                    Ok(()) => any |= *name == apart,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failing(e)),
                }
            }
            root.sync().map_err(failing)?;
        }
        Ok(any)
    }
}

/// Notes all folders that something lies in.
fn put_parents(folders: &mut BTreeSet<String>, path: &FolderPath) {
    let mut folder = path.parent();
    while let Some(path) = folder {
        folder = path.parent();
        folders.insert(path.to_string());
    }
}
