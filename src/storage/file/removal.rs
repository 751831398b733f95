//! Removes contents from a directory: finished ones, and what is left of unfinished
//! ones. Everything here blocks.
//!
//! Nothing that somebody else has put under a name is removed, and a removal that was
//! reported survives a crash.

use std::io;

use super::disk::{Disk, EntryKind, Refused};
use super::failure::{failed, refused};
use super::names::PartialNames;
use super::storage_dir::{LockAttempt, StorageDir};
use crate::content::{ContentId, ContentName};
use crate::storage::StorageError;

/// How often an unfinished file is looked for again because another process has just
/// published it.
const ATTEMPTS: u32 = 8;

/// Removes a finished file under its name, durably. `file` is what was found there and
/// examined.
///
/// # Errors
/// [`StorageError::Changed`] if the name refers to something else by now.
pub(super) fn remove_file<D: Disk>(
    dir: &StorageDir<D>,
    name: &ContentName,
    id: ContentId,
    file: &D::File,
) -> Result<(), StorageError> {
    let path = dir.path_of(name.as_str());
    match dir.disk.is_at(name.as_str(), file) {
        // A second name of the file is somebody else's, and stays.
        Ok(true) | Err(Refused::Kind(EntryKind::SharedFile)) => {}
        Ok(false) | Err(Refused::Kind(_)) => return Err(StorageError::Changed { path }),
        Err(error) => return Err(refused("examining", &path, error)),
    }
    // The journal of its download was removed without a sync, and may still be on the
    // disk. It must not outlive the bytes that it vouches for.
    dir.drop_orphaned_journal(id);
    let synced = dir.sync(dir.mark());
    synced.map_err(|e| failed("syncing", dir.path(), e))?;
    remove_name(dir, name.as_str())
}

/// Removes what is left of an unfinished content, durably. Returns whether there was
/// anything.
///
/// The journal goes first: an unfinished file without one is not trusted, whereas a
/// journal without its file could be taken for that of the next one.
///
/// # Errors
/// [`StorageError::Locked`] while another process writes it.
pub(super) fn discard<D: Disk>(dir: &StorageDir<D>, id: ContentId) -> Result<bool, StorageError> {
    let names = PartialNames::of(id);
    for _ in 0..ATTEMPTS {
        if dir.kind(&names.data)?.is_none() {
            // A crash may have left one.
            dir.drop_orphaned_journal(id);
            dir.drop_probes(id);
            return Ok(false);
        }
        let _data = match dir.open_locked(&names.data)? {
            LockAttempt::Acquired(file) => file,
            LockAttempt::Held => break,
            LockAttempt::Replaced => continue,
        };
        let _journal = match dir.kind(&names.journal)? {
            None => None,
            Some(_) => match dir.open_locked(&names.journal)? {
                LockAttempt::Acquired(journal) => Some(journal),
                LockAttempt::Held | LockAttempt::Replaced => continue,
            },
        };
        remove_name(dir, &names.journal)?;
        remove_name(dir, &names.data)?;
        dir.drop_probes(id);
        return Ok(true);
    }
    Err(dir.locked(id))
}

/// Removes a name, and makes that durable. It may be gone already.
fn remove_name<D: Disk>(dir: &StorageDir<D>, name: &str) -> Result<(), StorageError> {
    let mark = dir.mark();
    match dir.remove(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(failed("removing", &dir.path_of(name), e));
        }
        _ => {}
    }
    let synced = dir.sync(mark);
    synced.map_err(|e| failed("syncing", dir.path(), e))
}

#[cfg(test)]
mod tests {
    use super::super::dir::Dir;
    use super::super::names::probe_names;
    use super::*;

    fn dir(root: &tempfile::TempDir) -> StorageDir<Dir> {
        StorageDir::new(Dir::open(root.path()).unwrap(), root.path().into())
    }

    fn left(root: &tempfile::TempDir) -> usize {
        std::fs::read_dir(root.path()).unwrap().count()
    }

    #[test]
    fn journal_that_a_crash_has_left_goes_with_the_finished_file() {
        let root = tempfile::tempdir().unwrap();
        let (dir, id) = (dir(&root), ContentId::of(b"x"));
        let name: ContentName = "x".parse().unwrap();
        for name in [name.as_str(), &PartialNames::of(id).journal] {
            std::fs::write(root.path().join(name), b"x").unwrap();
        }
        let file = dir.disk.open_existing(name.as_str()).unwrap();
        remove_file(&dir, &name, id, &file).unwrap();
        assert_eq!(left(&root), 0);
    }

    #[test]
    fn what_a_crash_has_left_of_a_probe_goes_with_the_unfinished_file() {
        let root = tempfile::tempdir().unwrap();
        let (dir, id) = (dir(&root), ContentId::of(b"x"));
        let names = PartialNames::of(id);
        let [probe, probed] = probe_names(id);
        for name in [&names.data, &names.journal, &probe, &probed] {
            std::fs::write(root.path().join(name), b"").unwrap();
        }
        assert_eq!(discard(&dir, id), Ok(true));
        assert_eq!(left(&root), 0);
    }
}
