//! The steps of folders: directories within the directory. They keep its rules:
//! each step is relative to an open directory, and follows no link.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::super::super::disk::{EntryKind, Looked, Refused};
use super::super::syncs;
use super::{CAREFUL, DataFile, Dir, examined, regular};

/// The bit of a file's mode that lets its owner run it, and all such bits.
const RUNS: Mode = Mode::XUSR;
const ALL_RUN: u32 = 0o111;
/// The bits that let somebody read it. Who may read a file may run it.
const ALL_READ: u32 = 0o444;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(CAREFUL);

impl Dir {
    /// Another handle of the same directory.
    pub(in super::super::super) fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Opens a directory in this one.
    pub(in super::super::super) fn enter(&self, name: &OsStr) -> Result<Self, Refused> {
        match retry_on_intr(|| fs::openat(&self.0, name, DIRECTORY, Mode::empty())) {
            Ok(fd) => Ok(Self(fd.into())),
            Err(error) => Err(self.not_entered(name, error)),
        }
    }

    /// Why something was not entered: a link is one reason of several for one error.
    fn not_entered(&self, name: &OsStr, error: Errno) -> Refused {
        match self.look(name) {
            Ok(Some(looked)) if looked.kind != EntryKind::Directory => Refused::Kind(looked.kind),
            _ => error.into(),
        }
    }

    /// Opens a file at a path in this directory, for reading.
    pub(in super::super::super) fn open_within(&self, path: &str) -> Result<DataFile, Refused> {
        #[cfg(target_os = "linux")]
        {
            // In one step, if the system has it.
            let resolve = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::RDONLY | CAREFUL;
            match fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Ok(fd) => return regular(fd.into()),
                Err(Errno::LOOP) => return Err(Refused::Kind(EntryKind::Link)),
                // Not there, forbidden by a sandbox, or disturbed.
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.open_step_by_step(path)
    }

    fn open_step_by_step(&self, path: &str) -> Result<DataFile, Refused> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = self.again()?;
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            at = at.enter(folder.as_ref())?;
        }
        match at.look(name.as_ref())? {
            Some(looked) if looked.kind != EntryKind::File => Err(Refused::Kind(looked.kind)),
            Some(_) => at.open_at(name, OFlags::RDONLY),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// All names, also those that are not UTF-8, but for the directory itself and
    /// the one above. At most `max` and one more.
    pub(in super::super::super) fn all_names(&self, max: usize) -> io::Result<Vec<OsString>> {
        let entries = fs::Dir::read_from(&self.0)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
            if names.len() > max {
                break;
            }
        }
        Ok(names)
    }

    /// What is known about an entry without opening it.
    pub(in super::super::super) fn look(&self, name: &OsStr) -> io::Result<Option<Looked>> {
        let stat = match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (kind, examined) = examined(&stat);
        Ok(Some(Looked {
            kind,
            stat: examined,
            executable: Mode::from_raw_mode(stat.st_mode).contains(RUNS),
        }))
    }

    /// What a symbolic link refers to.
    pub(in super::super::super) fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let target = fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
    }

    pub(in super::super::super) fn make_link(&self, name: &str, target: &str) -> io::Result<()> {
        syncs::changed(&self.0);
        Ok(fs::symlinkat(target, &self.0, name)?)
    }

    pub(in super::super::super) fn make_dir(&self, name: &str) -> io::Result<()> {
        syncs::changed(&self.0);
        Ok(fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777))?)
    }

    /// Gives a file of this directory a second name in another.
    pub(in super::super::super) fn link_into(
        &self,
        name: &str,
        to: &Self,
        new: &str,
    ) -> io::Result<()> {
        syncs::changed(&to.0);
        Ok(fs::linkat(&self.0, name, &to.0, new, AtFlags::empty())?)
    }

    /// Creates a file that was not there.
    pub(in super::super::super) fn create_new(&self, name: &str) -> Result<DataFile, Refused> {
        self.open_at(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Renames a file, and replaces what has the new name.
    pub(in super::super::super) fn replace(&self, name: &str, new: &str) -> io::Result<()> {
        syncs::changed(&self.0);
        Ok(fs::renameat(&self.0, name, &self.0, new)?)
    }

    /// Moves a directory into another one, under a new name, and replaces nothing
    /// there. Where the system cannot promise that, an empty directory that appears
    /// at this very moment is replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`].
    pub(in super::super::super) fn move_dir(
        &self,
        name: &str,
        to: &Self,
        new: &str,
    ) -> io::Result<()> {
        syncs::changed(&self.0);
        syncs::changed(&to.0);
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        match fs::renameat_with(&self.0, name, &to.0, new, fs::RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return Ok(done?),
        }
        if to.look(new.as_ref())?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(fs::renameat(&self.0, name, &to.0, new)?)
    }

    /// Moves a file or a link into another directory, in one step that replaces a file or a
    /// link there.
    pub(in super::super::super) fn replace_in(
        &self,
        name: &str,
        to: &Self,
        new: &str,
    ) -> io::Result<()> {
        syncs::changed(&self.0);
        syncs::changed(&to.0);
        Ok(fs::renameat(&self.0, name, &to.0, new)?)
    }

    pub(in super::super::super) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        syncs::changed(&self.0);
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    pub(in super::super::super) fn remove_entry(&self, name: &OsStr) -> io::Result<()> {
        syncs::changed(&self.0);
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }
}

impl DataFile {
    /// Lets those run the file who may read it, or nobody.
    pub(in super::super::super) fn set_executable(&self, executable: bool) -> io::Result<()> {
        let mode = fs::fstat(&self.0)?.st_mode & 0o777;
        let wanted = match executable {
            true => mode | (mode & ALL_READ) >> 2,
            false => mode & !ALL_RUN,
        };
        if wanted != mode {
            syncs::changed(&self.0);
            fs::fchmod(&self.0, Mode::from_raw_mode(wanted))?;
        }
        Ok(())
    }

    /// Makes this file share the bytes of another one, if the file system can do
    /// that. Returns whether it could.
    pub(in super::super::super) fn share_bytes_of(&self, source: &Self) -> bool {
        syncs::changed(&self.0);
        #[cfg(target_os = "linux")]
        return fs::ioctl_ficlone(&self.0, &source.0).is_ok();
        #[cfg(not(target_os = "linux"))]
        {
            let _ = source;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_by_step_leads_where_one_step_does() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/c"), "x").unwrap();
        std::os::unix::fs::symlink("b", root.path().join("a/l")).unwrap();
        std::os::unix::fs::symlink("c", root.path().join("a/b/l")).unwrap();
        let dir = Dir::open(root.path()).unwrap();
        for (path, found) in [
            ("a/b/c", true),
            ("a/l/c", false),
            ("a/b/l", false),
            ("a/b", false),
            ("a/b/d", false),
            ("../x", false),
        ] {
            if path != "../x" {
                assert_eq!(dir.open_step_by_step(path).is_ok(), found, "{path}");
            }
            assert_eq!(dir.open_within(path).is_ok(), found, "{path}");
        }
    }
}
