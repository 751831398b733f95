//! The blocking steps in the home of a folder: copies of files, the tree, and its
//! final name. Everything here blocks.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::super::dir::{DataFile, Dir};
use super::super::disk::{Disk, DiskFile, EntryKind, Refused};
use super::super::failure::{failed, failed_to_store, refused};
use super::super::stamp::Stamp;
use super::super::storage_dir::StorageDir;
use super::super::timestamp::Timestamp;
use crate::content::{
    ContentId, ContentName, FolderEntry, FolderIndex, FolderItem, FolderPath, MAX_FOLDER_ENTRIES,
    MAX_PATH_DEPTH,
};
use crate::storage::StorageError;

/// How many bytes are copied at a time.
pub(super) const COPY_LEN: u64 = 1 << 20;
/// The name of a file while it is copied for a tree that is in its place.
const COPY: &str = "copy";
/// The name of the tree while it is built.
pub(super) const TREE: &str = "tree";

/// Makes a file durable. Returns its stamp.
pub(super) fn make_durable(file: &DataFile) -> io::Result<Stamp> {
    let stamp = stamped(file)?;
    file.sync_all()?;
    Ok(stamp)
}

/// The stamp of a file that was written, which every later change alters.
fn stamped(file: &DataFile) -> io::Result<Stamp> {
    // An explicit time lies between two ticks of the clock of the file system.
    let now = SystemTime::now();
    let stamped = file.set_modified(now).is_ok();
    let stat = file.stat()?;
    Ok(Stamp {
        len: stat.len,
        modified: stat.modified,
        settled: stamped && stat.modified == Timestamp::from(now),
    })
}

/// Writes a file that is not there yet.
pub(super) fn write_new(
    dir: &StorageDir<Dir>,
    name: &str,
    bytes: Bytes,
) -> Result<DataFile, StorageError> {
    let path = dir.path_of(name);
    let file = dir.disk.create_new(name);
    let file = file.map_err(|e| refused("creating", &path, e))?;
    let len = bytes.len() as u64;
    let written = file.write_at(0, &[bytes]);
    written.map_err(|e| failed_to_store("writing", &path, len, e))?;
    Ok(file)
}

/// Removes a file, if it is there.
pub(super) fn remove(dir: &StorageDir<Dir>, name: &str) -> Result<(), StorageError> {
    match dir.disk.remove_entry(name.as_ref()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|e| failed("removing", &dir.path_of(name), e)),
    }
}

/// Removes an entry and, if it is a directory, all that is in it. Follows no link.
/// Gives up below `depth` directories: no folder is that deep.
pub(super) fn remove_all(dir: &Dir, name: &OsStr, depth: usize) -> Result<(), Refused> {
    match dir.look(name)? {
        None => return Ok(()),
        Some(looked) if looked.kind != EntryKind::Directory => {
            return Ok(dir.remove_entry(name)?);
        }
        Some(_) if depth == 0 => return Err(Refused::Kind(EntryKind::Directory)),
        Some(_) => {}
    }
    let inner = dir.enter(name)?;
    loop {
        let names = inner.all_names(MAX_FOLDER_ENTRIES)?;
        if names.is_empty() {
            break;
        }
        for name in &names {
            remove_all(&inner, name, depth - 1)?;
        }
    }
    Ok(dir.remove_dir(name)?)
}

/// Removes what an attempt to build the tree left behind.
pub(super) fn remove_tree(home: &StorageDir<Dir>) -> Result<(), StorageError> {
    let removed = remove_all(&home.disk, TREE.as_ref(), MAX_PATH_DEPTH + 1);
    removed.map_err(|e| refused("removing", &home.path_of(TREE), e))
}

/// Builds the tree of a folder in its home.
pub(super) struct TreeBuilder<'a> {
    home: &'a StorageDir<Dir>,
    tree: Dir,
    /// The path of the tree, for messages.
    path: PathBuf,
    /// The folders on the way to the present entry, with their paths.
    open: Vec<(String, Dir)>,
    folders: BTreeSet<String>,
    /// Files that have a second name in the tree.
    linked: HashSet<ContentId>,
    /// Files of the tree that are not durable.
    unsynced: Vec<FolderPath>,
    /// Whether the tree is in its place already, so that what comes to it is seen.
    in_place: bool,
}

impl<'a> TreeBuilder<'a> {
    /// Builds all of it, and makes it durable. `stamp` gives the stamp of each file
    /// in the home. Returns those of the files of the tree, in the order of the
    /// index.
    ///
    /// # Errors
    /// [`StorageError::Changed`] if a file in the home is not the one with the
    /// stamp any more.
    pub(super) fn build(
        home: &'a StorageDir<Dir>,
        index: &FolderIndex,
        stamp: impl Fn(&ContentId) -> Option<Stamp>,
    ) -> Result<Vec<Stamp>, StorageError> {
        remove_tree(home)?;
        let made = home.disk.make_dir(TREE).map_err(Refused::from);
        let tree = made.and_then(|()| home.disk.enter(TREE.as_ref()));
        let tree = tree.map_err(|e| refused("creating", &home.path_of(TREE), e))?;
        Self::new(home, (tree, home.path_of(TREE)), false).add_all(index, stamp)
    }

    /// Adds these entries to a tree that is in its place, with its path. Each appears there when it is
    /// whole and durable. Folders that are there stay, and so do the same links.
    ///
    /// # Errors
    /// As [`build`](Self::build), and [`StorageError::Io`] if something has the path of an
    /// entry.
    pub(super) fn extend(
        home: &'a StorageDir<Dir>,
        tree: (Dir, PathBuf),
        index: &FolderIndex,
        stamp: impl Fn(&ContentId) -> Option<Stamp>,
    ) -> Result<Vec<Stamp>, StorageError> {
        Self::new(home, tree, true).add_all(index, stamp)
    }

    fn new(home: &'a StorageDir<Dir>, (tree, path): (Dir, PathBuf), in_place: bool) -> Self {
        Self {
            home,
            tree,
            path,
            open: Vec::new(),
            folders: BTreeSet::new(),
            linked: HashSet::new(),
            unsynced: Vec::new(),
            in_place,
        }
    }

    fn add_all(
        mut self,
        index: &FolderIndex,
        stamp: impl Fn(&ContentId) -> Option<Stamp>,
    ) -> Result<Vec<Stamp>, StorageError> {
        let mut stamps = Vec::new();
        for entry in index.entries() {
            stamps.extend(self.add(entry, &stamp)?);
        }
        self.sync()?;
        Ok(stamps)
    }

    fn add(
        &mut self,
        entry: &FolderEntry,
        stamp: impl Fn(&ContentId) -> Option<Stamp>,
    ) -> Result<Option<Stamp>, StorageError> {
        let shown = self.path.join(entry.path.as_str());
        match &entry.item {
            FolderItem::File { id, executable, .. } => {
                let name = id.to_string();
                let stamp = self.checked(&name, stamp(id))?;
                let placed = self.place(&entry.path, (*id, &name), stamp, *executable)?;
                return Ok(Some(placed));
            }
            FolderItem::Symlink { target } => {
                let dir = self.folder(entry.path.parent().as_ref())?;
                let name = entry.path.name();
                let is_same = || dir.read_link(name.as_ref()).is_ok_and(|t| t == **target);
                let made = match dir.make_link(name, target) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_same() => Ok(()),
                    made => made,
                };
                made.map_err(|e| failed("creating", &shown, e))?;
            }
            FolderItem::EmptyFolder => {
                self.folder(Some(&entry.path))?;
            }
        }
        Ok(None)
    }

    /// The stamp of a file in the home, if that is still the same file.
    fn checked(&self, name: &str, stamp: Option<Stamp>) -> Result<Stamp, StorageError> {
        let path = || self.home.path_of(name);
        let found = self.home.disk.look(name.as_ref());
        let found = found.map_err(|e| failed("examining", &path(), e))?;
        let same = |stamp: &Stamp| found.is_some_and(|found| stamp.is_of(&found.stat));
        stamp
            .filter(same)
            .ok_or_else(|| StorageError::Changed { path: path() })
    }

    /// Puts a file into the tree: as a second name of that in the home, if it has none
    /// yet, and otherwise as a copy.
    fn place(
        &mut self,
        path: &FolderPath,
        (id, name): (ContentId, &str),
        stamp: Stamp,
        executable: bool,
    ) -> Result<Stamp, StorageError> {
        let home = self.home;
        let shown = self.path.join(path.as_str());
        let is_first = self.linked.insert(id);
        let in_place = self.in_place;
        let dir = self.folder(path.parent().as_ref())?;
        let is_linked = is_first && link(home, name, dir, path.name())?;
        if is_linked && !executable {
            // It is durable already.
            return Ok(stamp);
        }
        let source = home.disk.open_existing(name);
        let source = source.map_err(|e| refused("opening", &home.path_of(name), e))?;
        let placed = match is_linked {
            true => source.set_executable(true).map(|()| stamp),
            false if in_place => {
                let copied = copy_whole(home, &source, stamp, executable);
                copied.and_then(|copied| {
                    home.disk.move_dir(COPY, dir, path.name())?;
                    Ok(copied)
                })
            }
            false => copy(&source, stamp, dir, path.name(), executable),
        };
        let placed = placed.map_err(|e| failed_to_store("creating", &shown, stamp.len, e))?;
        self.unsynced.push(path.clone());
        Ok(placed)
    }

    /// The folder with this path, which is made if it is not there. Entries come in
    /// order, so one that was left does not come again.
    fn folder(&mut self, path: Option<&FolderPath>) -> Result<&Dir, StorageError> {
        let path = path.map_or("", FolderPath::as_str);
        let is_on_the_way = |folder: &str| {
            let rest = path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        while self
            .open
            .last()
            .is_some_and(|(open, _)| !is_on_the_way(open))
        {
            self.open.pop();
        }
        let mut at = self.open.last().map_or(0, |(open, _)| open.len() + 1);
        while at < path.len() {
            let end = path[at..].find('/').map_or(path.len(), |len| at + len);
            let name = &path[at..end];
            let dir = self.open.last().map_or(&self.tree, |(_, dir)| dir);
            let made = match dir.make_dir(name) {
                Err(e) if self.in_place && e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                made => made.map_err(Refused::from),
            };
            let made = made.and_then(|()| dir.enter(name.as_ref()));
            let shown = || self.path.join(&path[..end]);
            let made = made.map_err(|e| refused("creating", &shown(), e))?;
            self.folders.insert(path[..end].to_owned());
            self.open.push((path[..end].to_owned(), made));
            at = end + 1;
        }
        Ok(self.open.last().map_or(&self.tree, |(_, dir)| dir))
    }

    /// Makes everything durable. That comes last, so that file systems which keep a log
    /// write it once for all names.
    fn sync(&mut self) -> Result<(), StorageError> {
        self.open.clear();
        for path in &self.unsynced {
            let synced =
                || -> Result<(), Refused> { Ok(self.tree.open_within(path.as_str())?.sync_all()?) };
            let shown = || self.path.join(path.as_str());
            synced().map_err(|e| refused("syncing", &shown(), e))?;
        }
        for folder in self.folders.iter().rev() {
            let synced = || -> Result<(), Refused> {
                let mut dir = self.tree.again()?;
                for name in folder.split('/') {
                    dir = dir.enter(name.as_ref())?;
                }
                Ok(dir.sync()?)
            };
            let shown = || self.path.join(folder);
            synced().map_err(|e| refused("syncing", &shown(), e))?;
        }
        let synced = self.tree.sync();
        synced.map_err(|e| failed("syncing", &self.path, e))
    }
}

/// Gives a file a second name in the tree. Returns whether the file system can do
/// that.
fn link(home: &StorageDir<Dir>, name: &str, dir: &Dir, new: &str) -> Result<bool, StorageError> {
    match home.disk.link_into(name, dir, new) {
        Ok(()) => Ok(true),
        Err(e) => match e.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotFound => Err(failed("linking", &home.path_of(name), e)),
            _ => Ok(false),
        },
    }
}

/// Copies a file under another name in the home, and makes the copy durable. Returns its
/// stamp.
fn copy_whole(
    home: &StorageDir<Dir>,
    source: &DataFile,
    original: Stamp,
    executable: bool,
) -> io::Result<Stamp> {
    match home.disk.remove_entry(COPY.as_ref()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let stamp = copy(source, original, &home.disk, COPY, executable)?;
    let copied = home.disk.open_existing(COPY).map_err(io_error)?;
    copied.sync_all()?;
    Ok(stamp)
}

fn io_error(refused: Refused) -> io::Error {
    match refused {
        Refused::Io(e) => e,
        Refused::Kind(kind) => io::Error::other(kind.describe()),
    }
}

/// Copies a file into the tree. Returns the stamp of the copy, which is not durable.
fn copy(
    source: &DataFile,
    original: Stamp,
    dir: &Dir,
    name: &str,
    executable: bool,
) -> io::Result<Stamp> {
    let target = dir.create_new(name).map_err(io_error)?;
    copy_bytes(source, &target, original.len)?;
    target.set_executable(executable)?;
    stamped_as(&target, original)
}

/// The stamp of a copy, which has the time of the original: so it is known again as one, if
/// nobody comes to record it. A later change alters the one as it alters the other.
fn stamped_as(copy: &DataFile, original: Stamp) -> io::Result<Stamp> {
    let time = SystemTime::try_from(original.modified).ok();
    if let Some(time) = time.filter(|_| original.settled)
        && copy.set_modified(time).is_ok()
        && copy.stat()?.modified == original.modified
    {
        return Ok(original);
    }
    stamped(copy)
}

fn copy_bytes(source: &DataFile, target: &DataFile, len: u64) -> io::Result<()> {
    if target.share_bytes_of(source) {
        return Ok(());
    }
    let mut at = 0;
    while at < len {
        let piece = source.read_at(at, COPY_LEN.min(len - at) as usize)?;
        let next = at + piece.len() as u64;
        target.write_at(at, &[piece])?;
        at = next;
    }
    Ok(())
}

/// Moves the tree to its final name, and makes that durable.
///
/// # Errors
/// [`StorageError::Exists`].
pub(super) fn publish(
    home: &StorageDir<Dir>,
    root: &Arc<StorageDir<Dir>>,
    name: &ContentName,
) -> Result<(), StorageError> {
    let mark = root.mark();
    match home.disk.move_dir(TREE, &root.disk, name.as_str()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(root.exists(name)),
        done => done.map_err(|e| failed("publishing", &root.path_of(name.as_str()), e))?,
    }
    let Err(error) = root.sync(mark) else {
        return Ok(());
    };
    // After a failed sync the name may never reach the disk.
    if let Err(error) = root.disk.move_dir(name.as_str(), &home.disk, TREE) {
        tracing::debug!(%name, %error, "failed to take the name back");
    }
    Err(failed("syncing", root.path(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_in_the_place_of_a_folder_is_told_with_its_path_there() {
        let dir = tempfile::tempdir().unwrap();
        let (home, place) = (dir.path().join("home"), dir.path().join("place"));
        for path in [&home, &place] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(place.join("a"), "in the way").unwrap();
        let home = StorageDir::new(Dir::open(&home).unwrap(), home);
        let tree = (Dir::open(&place).unwrap(), place.clone());
        let index = FolderIndex::new(vec![FolderEntry::empty_folder("a/b".parse().unwrap())]);
        let error = TreeBuilder::extend(&home, tree, &index.unwrap(), |_| None).unwrap_err();
        let there = place.join("a").display().to_string();
        assert!(error.to_string().contains(&there), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn folder_is_durable_where_it_is_built_named_and_replaced() {
        use super::super::super::dir::times;
        use super::super::replacing::replace_tree;
        use super::super::tree_root::TreeRoot;

        let temp = tempfile::tempdir().unwrap();
        let (at, place) = (temp.path().join("home"), temp.path().join("place"));
        let [home, root] = [&at, &place].map(|path| {
            std::fs::create_dir(path).unwrap();
            StorageDir::new(Dir::open(path).unwrap(), path.clone())
        });
        let (root, name) = (Arc::new(root), "f".parse().unwrap());
        for bytes in [&b"first"[..], b"second"] {
            let id = ContentId::of(bytes);
            let file = write_new(&home, &id.to_string(), bytes.into()).unwrap();
            let stamp = make_durable(&file).unwrap();
            let path = |path: &str| path.parse::<FolderPath>().unwrap();
            let index = FolderIndex::new(vec![
                FolderEntry::file(path("a/b/linked"), id, stamp.len),
                FolderEntry::executable(path("copied"), id, stamp.len),
                FolderEntry::file(path("a/copied"), id, stamp.len),
                FolderEntry::empty_folder(path("empty/folder")),
                FolderEntry::symlink(path("link"), "copied"),
            ]);
            let index = index.unwrap();
            TreeBuilder::build(&home, &index, |_| Some(stamp)).unwrap();
            let all_durable = |tree: PathBuf, paths: &[&str]| {
                let paths = paths.iter().map(|path| tree.join(path));
                let not = paths.filter(|path| !times(path).is_durable());
                assert_eq!(not.collect::<Vec<_>>(), Vec::<PathBuf>::new());
            };
            let files = ["a/b/linked", "a/copied", "copied"];
            let folders = ["", "a", "a/b", "empty"];
            all_durable(at.join(TREE), &[&files[..], &folders].concat());
            if bytes == b"first" {
                publish(&home, &root, &name).unwrap();
                all_durable(place.clone(), &[""]);
            } else {
                // A folder that is new there.
                std::fs::remove_dir(place.join("f/empty/folder")).unwrap();
                std::fs::remove_dir(place.join("f/empty")).unwrap();
                let tree = TreeRoot::stored(Arc::clone(&root), name.clone());
                replace_tree(&home, &tree, &index).unwrap();
                let read = std::fs::read(place.join("f/a/copied")).unwrap();
                assert_eq!(read, bytes);
            }
            all_durable(place.join("f"), &[&files[..], &folders].concat());
        }
    }
}
