//! The directory on systems other than Unix, with nothing but the standard
//! library: paths, and a check before each step.

mod tree;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::super::disk::{Disk, DiskFile, EntryKind, FileStat, Refused, too_short};
use super::super::timestamp::Timestamp;
use crate::buffers::Buffer;
use crate::content::{ContentName, UnsafeName};

#[derive(Debug)]
pub(in super::super) struct Dir(PathBuf);

impl Dir {
    pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        if !path.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(path))
    }

    /// Fails for a name that is not a plain file name: on Windows some names
    /// refer to devices, to streams of other files, or to a shorter name.
    pub(in super::super) fn check_readable(name: &ContentName) -> Result<(), UnsafeName> {
        match name.check_file_name() {
            Err(UnsafeName::Hidden | UnsafeName::Invisible { .. }) => Ok(()),
            checked => checked,
        }
    }

    /// What is known about the entry under a name without opening it; a link counts
    /// as a link.
    pub(in super::super) fn examine(
        &self,
        name: &str,
    ) -> io::Result<Option<(EntryKind, FileStat)>> {
        examined(fs::symlink_metadata(self.0.join(name)))
    }
}

/// What is known about any file without opening it, following links.
pub(in super::super) fn examine_path(path: &Path) -> io::Result<Option<(EntryKind, FileStat)>> {
    examined(fs::metadata(path))
}

fn examined(found: io::Result<fs::Metadata>) -> io::Result<Option<(EntryKind, FileStat)>> {
    match found {
        Ok(metadata) => Ok(Some((metadata.file_type().into(), stat_of(&metadata)?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn stat_of(metadata: &fs::Metadata) -> io::Result<FileStat> {
    Ok(FileStat {
        len: metadata.len(),
        // The standard library does not provide it.
        allocated: 0,
        modified: Timestamp::from(metadata.modified()?),
        // The standard library does not tell.
        linked: true,
    })
}

impl Disk for Dir {
    type File = DataFile;

    fn kind(&self, name: &str) -> io::Result<Option<EntryKind>> {
        match fs::symlink_metadata(self.0.join(name)) {
            Ok(metadata) => Ok(Some(metadata.file_type().into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn open_existing(&self, name: &str) -> Result<DataFile, Refused> {
        match self.kind(name)? {
            Some(EntryKind::File) | None => Ok(DataFile::new(File::open(self.0.join(name))?)),
            Some(other) => Err(Refused::Kind(other)),
        }
    }

    fn open_or_create(&self, name: &str) -> Result<DataFile, Refused> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match self.kind(name)? {
            Some(EntryKind::File) => options.create(false),
            // Fails if a link has appeared since the check.
            None => options.create_new(true),
            Some(other) => return Err(Refused::Kind(other)),
        };
        Ok(DataFile::new(options.open(self.0.join(name))?))
    }

    /// Whether the name refers to any file: the standard library cannot tell
    /// whether two files are the same.
    fn is_at(&self, name: &str, _file: &DataFile) -> Result<bool, Refused> {
        match self.kind(name)? {
            Some(EntryKind::File) => Ok(true),
            Some(other) => Err(Refused::Kind(other)),
            None => Ok(false),
        }
    }

    /// Not supported: the standard library has no rename that replaces nothing.
    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        use io::ErrorKind::{AlreadyExists, NotFound, Unsupported};
        let linked = fs::hard_link(self.0.join(from), self.0.join(to));
        // Systems have many words for a file system without hard links.
        linked.map_err(|error| match error.kind() {
            AlreadyExists | NotFound => error,
            _ => Unsupported.into(),
        })
    }

    fn create_new(&self, name: &str) -> io::Result<DataFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(DataFile::new(options.open(self.0.join(name))?))
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    /// Does nothing: not every system can sync a directory.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_parent(&self) -> io::Result<()> {
        Ok(())
    }

    fn available(&self) -> Option<u64> {
        None
    }
}

/// Opens any file for reading, following links.
pub(in super::super) fn open_path(path: &Path) -> Result<DataFile, Refused> {
    match fs::metadata(path)?.file_type().into() {
        EntryKind::File => Ok(DataFile::new(File::open(path)?)),
        other => Err(Refused::Kind(other)),
    }
}

/// An open file with positional reads and writes, one at a time because the
/// file has one cursor.
#[derive(Debug)]
pub(in super::super) struct DataFile {
    file: File,
    cursor: Mutex<()>,
}

impl DataFile {
    fn new(file: File) -> Self {
        Self {
            file,
            cursor: Mutex::new(()),
        }
    }

    fn seek(&self, offset: u64) -> io::Result<MutexGuard<'_, ()>> {
        let guard = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.file).seek(SeekFrom::Start(offset))?;
        Ok(guard)
    }
}

impl DiskFile for DataFile {
    fn stat(&self) -> io::Result<FileStat> {
        stat_of(&self.file.metadata()?)
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        self.file.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let _guard = self.seek(offset)?;
        let mut buffer = Buffer::with_room(len);
        let read = (&self.file).take(len as u64).read_to_end(&mut buffer)?;
        if read < len {
            return Err(too_short());
        }
        Ok(buffer.freeze())
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let _guard = self.seek(offset)?;
        pieces
            .iter()
            .try_for_each(|piece| (&self.file).write_all(piece))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Does nothing: the file stays sparse, if it is.
    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.file.set_modified(time)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_another_meaning_on_windows_is_refused() {
        let check = |name: &str| Dir::check_readable(&name.parse().unwrap());
        for bad in ["NUL", ".a:b", "a.", "a "] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["a", "null", ".hidden", "a\u{200b}"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }
}
