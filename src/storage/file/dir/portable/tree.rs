//! The steps of folders, with nothing but the standard library: a check before
//! each step.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::super::super::disk::{EntryKind, Looked, Refused};
use super::{DataFile, Dir, stat_of};

impl Dir {
    /// Another handle of the same directory.
    pub(in super::super::super) fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.clone()))
    }

    /// Opens a directory in this one.
    pub(in super::super::super) fn enter(&self, name: &OsStr) -> Result<Self, Refused> {
        match self.look(name)? {
            Some(looked) if looked.kind != EntryKind::Directory => Err(Refused::Kind(looked.kind)),
            Some(_) => Ok(Self(self.0.join(name))),
            None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }

    /// Opens a file at a path in this directory, for reading.
    pub(in super::super::super) fn open_within(&self, path: &str) -> Result<DataFile, Refused> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = self.again()?;
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            at = at.enter(folder.as_ref())?;
        }
        match at.look(name.as_ref())? {
            Some(looked) if looked.kind != EntryKind::File => Err(Refused::Kind(looked.kind)),
            _ => Ok(DataFile::new(fs::File::open(at.0.join(name))?)),
        }
    }

    /// All names, also those that are not UTF-8. At most `max` and one more.
    pub(in super::super::super) fn all_names(&self, max: usize) -> io::Result<Vec<OsString>> {
        let names = fs::read_dir(&self.0)?.take(max.saturating_add(1));
        names.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// What is known about an entry without opening it.
    pub(in super::super::super) fn look(&self, name: &OsStr) -> io::Result<Option<Looked>> {
        match fs::symlink_metadata(self.0.join(name)) {
            Ok(metadata) => Ok(Some(Looked {
                kind: metadata.file_type().into(),
                stat: stat_of(&metadata)?,
                executable: false,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a symbolic link refers to.
    pub(in super::super::super) fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        Ok(fs::read_link(self.0.join(name))?.into_os_string())
    }

    pub(in super::super::super) fn make_link(&self, name: &str, target: &str) -> io::Result<()> {
        let path = self.0.join(name);
        #[cfg(unix)]
        return std::os::unix::fs::symlink(target, path);
        #[cfg(windows)]
        {
            // A link says whether it refers to a directory.
            let target = target.replace('/', "\\");
            return match self.0.join(&target).is_dir() {
                true => std::os::windows::fs::symlink_dir(target, path),
                false => std::os::windows::fs::symlink_file(target, path),
            };
        }
        #[cfg(not(any(unix, windows)))]
        {
            let _ = (path, target);
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    pub(in super::super::super) fn make_dir(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.0.join(name))
    }

    /// Gives a file of this directory a second name in another.
    pub(in super::super::super) fn link_into(
        &self,
        name: &str,
        to: &Self,
        new: &str,
    ) -> io::Result<()> {
        fs::hard_link(self.0.join(name), to.0.join(new))
    }

    /// Creates a file that was not there.
    pub(in super::super::super) fn create_new(&self, name: &str) -> Result<DataFile, Refused> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(DataFile::new(options.open(self.0.join(name))?))
    }

    /// Renames a file, and replaces what has the new name.
    pub(in super::super::super) fn replace(&self, name: &str, new: &str) -> io::Result<()> {
        fs::rename(self.0.join(name), self.0.join(new))
    }

    /// Moves a directory into another one, under a new name, and replaces nothing
    /// there but, where the system allows it, an empty directory that appears at
    /// this very moment.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`].
    pub(in super::super::super) fn move_dir(
        &self,
        name: &str,
        to: &Self,
        new: &str,
    ) -> io::Result<()> {
        if to.look(new.as_ref())?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(self.0.join(name), to.0.join(new))
    }

    /// Moves a file or a link into another directory, in one step that replaces a file or a
    /// link there.
    pub(in super::super::super) fn replace_in(
        &self,
        name: &str,
        to: &Self,
        new: &str,
    ) -> io::Result<()> {
        fs::rename(self.0.join(name), to.0.join(new))
    }

    pub(in super::super::super) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_dir(self.0.join(name))
    }

    pub(in super::super::super) fn remove_entry(&self, name: &OsStr) -> io::Result<()> {
        remove(&self.0.join(name))
    }
}

/// Removes a file or a link. A link to a directory is removed like one on Windows.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(_) if cfg!(windows) && path.is_symlink() => fs::remove_dir(path),
        done => done,
    }
}

impl DataFile {
    /// Does nothing: who may run a file is known on Unix only.
    pub(in super::super::super) fn set_executable(&self, _executable: bool) -> io::Result<()> {
        Ok(())
    }

    /// The standard library does not have that.
    pub(in super::super::super) fn share_bytes_of(&self, _source: &Self) -> bool {
        false
    }
}
