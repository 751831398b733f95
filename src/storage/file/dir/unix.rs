//! The directory on Unix: held open, and every step is relative to it.

mod tree;

use std::fs::{File, TryLockError};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::super::disk::{
    Disk, DiskFile, EntryKind, FileStat, Refused, available_bytes, too_short,
};
use super::super::timestamp::Timestamp;
use super::syncs;
use crate::buffers::Buffer;
use crate::content::{ContentName, UnsafeName};

/// How many pieces one system call accepts: `IOV_MAX` on Linux, macOS and the
/// BSDs.
const PIECES_PER_CALL: usize = 1024;

/// The unit in which a file's blocks are counted, in bytes.
const STAT_BLOCK_LEN: u64 = 512;

/// The length of the shortest page of a cache, in bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PAGE_LEN: u64 = 4096;

/// Flags for opening a file. With `NONBLOCK`, a pipe that appeared since the check
/// cannot block the thread.
const CAREFUL: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

#[derive(Debug)]
pub(in super::super) struct Dir(File);

impl Dir {
    pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(fs::open(path, flags, Mode::empty())?.into()))
    }

    /// Accepts every name: a content name is always a plain file name on Unix.
    pub(in super::super) fn check_readable(_name: &ContentName) -> Result<(), UnsafeName> {
        Ok(())
    }

    /// What is known about the entry under a name without opening it; a link counts
    /// as a link.
    pub(in super::super) fn examine(
        &self,
        name: &str,
    ) -> io::Result<Option<(EntryKind, FileStat)>> {
        Ok(self.stat(name)?.as_ref().map(examined))
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_at(&self, name: &str, flags: OFlags) -> Result<DataFile, Refused> {
        let mode = Mode::from_raw_mode(0o666);
        match retry_on_intr(|| fs::openat(&self.0, name, flags | CAREFUL, mode)) {
            Ok(fd) => regular(fd.into()),
            Err(Errno::LOOP) => Err(Refused::Kind(EntryKind::Link)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Disk for Dir {
    type File = DataFile;

    fn kind(&self, name: &str) -> io::Result<Option<EntryKind>> {
        Ok(self.stat(name)?.as_ref().map(kind_of))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    fn open_existing(&self, name: &str) -> Result<DataFile, Refused> {
        // Opening a device can have side effects, so its kind is checked first.
        match self.kind(name)? {
            Some(EntryKind::File) => self.open_at(name, OFlags::RDONLY),
            Some(other) => Err(Refused::Kind(other)),
            None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }

    fn open_or_create(&self, name: &str) -> Result<DataFile, Refused> {
        match self.kind(name)? {
            Some(EntryKind::File) | None => self.open_at(name, OFlags::RDWR | OFlags::CREATE),
            Some(other) => Err(Refused::Kind(other)),
        }
    }

    fn is_at(&self, name: &str, file: &DataFile) -> Result<bool, Refused> {
        let Some(there) = self.stat(name)? else {
            return Ok(false);
        };
        let here = fs::fstat(&file.0)?;
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
            return Ok(false);
        }
        if here.st_nlink > 1 {
            return Err(Refused::Kind(EntryKind::SharedFile));
        }
        Ok(true)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        syncs::changed(&self.0);
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        match fs::renameat_with(&self.0, from, &self.0, to, fs::RenameFlags::NOREPLACE) {
            // The file system or the kernel does not support the flag, or a
            // filter of system calls does not let it pass.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {}
            done => return Ok(done?),
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        syncs::changed(&self.0);
        match fs::linkat(&self.0, from, &self.0, to, AtFlags::empty()) {
            // What file systems without hard links say. Android answers with
            // `ACCESS`.
            Err(
                Errno::PERM
                | Errno::ACCESS
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::MLINK,
            ) => Err(io::ErrorKind::Unsupported.into()),
            done => Ok(done?),
        }
    }

    fn create_new(&self, name: &str) -> io::Result<DataFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CAREFUL;
        let mode = Mode::from_raw_mode(0o666);
        let fd = retry_on_intr(|| fs::openat(&self.0, name, flags, mode))?;
        Ok(DataFile(fd.into()))
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        syncs::changed(&self.0);
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        syncs::changed(&self.0);
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        sync_names(&self.0)
    }

    fn sync_parent(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::openat(&self.0, "..", flags, Mode::empty()) {
            Ok(above) => sync_names(&above.into()),
            // The parent may belong to another user, and be closed to this
            // process.
            Err(Errno::ACCESS | Errno::PERM | Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn available(&self) -> Option<u64> {
        let volume = fs::fstatvfs(&self.0).ok()?;
        available_bytes(volume.f_blocks, volume.f_bavail, volume.f_frsize)
    }
}

/// Syncs a directory. If the file system does not support this, there is nothing
/// more to do for its names.
fn sync_names(dir: &File) -> io::Result<()> {
    match dir.sync_all().map_err(|e| (e.kind(), e)) {
        Err((io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported, _)) => {}
        done => done.map_err(|(_, e)| e)?,
    }
    syncs::synced(dir);
    Ok(())
}

/// Opens any file for reading, following links.
pub(in super::super) fn open_path(path: &Path) -> Result<DataFile, Refused> {
    let kind = std::fs::metadata(path)?.file_type().into();
    if kind != EntryKind::File {
        return Err(Refused::Kind(kind));
    }
    let flags = OFlags::RDONLY | CAREFUL.difference(OFlags::NOFOLLOW);
    regular(fs::open(path, flags, Mode::empty())?.into())
}

/// What is known about any file without opening it, following links.
pub(in super::super) fn examine_path(path: &Path) -> io::Result<Option<(EntryKind, FileStat)>> {
    match fs::stat(path) {
        Ok(stat) => Ok(Some(examined(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn examined(stat: &Stat) -> (EntryKind, FileStat) {
    let file = FileStat {
        len: stat.st_size as u64,
        allocated: stat.st_blocks as u64 * STAT_BLOCK_LEN,
        modified: Timestamp {
            seconds: stat.st_mtime,
            nanos: stat.st_mtime_nsec as u32,
        },
        linked: stat.st_nlink > 0,
    };
    (kind_of(stat), file)
}

fn regular(file: File) -> Result<DataFile, Refused> {
    match kind_of(&fs::fstat(&file)?) {
        EntryKind::File => Ok(DataFile(file)),
        other => Err(Refused::Kind(other)),
    }
}

fn kind_of(stat: &Stat) -> EntryKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Symlink => EntryKind::Link,
        FileType::Directory => EntryKind::Directory,
        FileType::Fifo => EntryKind::Pipe,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice | FileType::BlockDevice => EntryKind::Device,
        _ => EntryKind::Other,
    }
}

/// An open file with positional reads and writes.
#[derive(Debug)]
pub(in super::super) struct DataFile(File);

impl DiskFile for DataFile {
    fn stat(&self) -> io::Result<FileStat> {
        let metadata = self.0.metadata()?;
        Ok(FileStat {
            len: metadata.len(),
            allocated: std::os::unix::fs::MetadataExt::blocks(&metadata) * STAT_BLOCK_LEN,
            modified: Timestamp::from(metadata.modified()?),
            linked: std::os::unix::fs::MetadataExt::nlink(&metadata) > 0,
        })
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        match self.0.try_lock() {
            // What network file systems say that were mounted without locks.
            Err(TryLockError::Error(e))
                if [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP]
                    .iter()
                    .any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) =>
            {
                let error = io::Error::new(io::ErrorKind::Unsupported, e);
                Err(TryLockError::Error(error))
            }
            done => done,
        }
    }

    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        // Reads into spare capacity, which need not be zeroed first.
        let mut buffer = Buffer::with_room(len);
        while buffer.len() < len {
            let at = offset + buffer.len() as u64;
            match rustix::io::pread(&self.0, spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(too_short()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The vector may have more capacity than requested.
        buffer.truncate(len);
        Ok(buffer.freeze())
    }

    #[cfg(target_os = "linux")]
    fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes> {
        // One byte tells cheaply of most files that are not in memory.
        let mut probe = [0];
        match read_without_waiting(&self.0, &mut probe, offset) {
            Ok(read) if read == probe.len().min(len) => {}
            Err(Errno::OPNOTSUPP) if lies_in_memory(&self.0) => {
                return self.read_at(offset, len).ok();
            }
            Ok(_) | Err(_) => return None,
        }
        let mut buffer = Buffer::with_room(len);
        buffer.resize(len, 0);
        let mut done = 0;
        while done < len {
            let read = read_without_waiting(&self.0, &mut buffer[done..], offset + done as u64);
            done += read.ok().filter(|&read| read > 0)?;
        }
        Some(buffer.freeze())
    }

    fn write_at(&self, mut offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        syncs::changed(&self.0);
        let mut slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .filter(|piece| !piece.is_empty())
            .map(|piece| IoSlice::new(piece))
            .collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let now = left.len().min(PIECES_PER_CALL);
            match rustix::io::pwritev(&self.0, &left[..now], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn copy_next(&self, source: &Self, len: u64) -> io::Result<bool> {
        syncs::changed(&self.0);
        // The system copies inside of the kernel if it can, or lets the two files share
        // their bytes.
        let mut source = io::Read::take(&source.0, len);
        Ok(io::copy(&mut source, &mut &self.0)? == len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        syncs::changed(&self.0);
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        #[cfg(any(
            target_os = "linux",
            target_os = "android",
            target_os = "freebsd",
            target_vendor = "apple"
        ))]
        if len > 0 {
            match retry_on_intr(|| fs::fallocate(&self.0, fs::FallocateFlags::empty(), 0, len)) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        syncs::changed(&self.0);
        self.0.set_modified(time)
    }

    fn start_sync(&self, len: u64) {
        // Linux begins to write what is said to be needed no more. It also drops from its
        // cache the whole pages of that range; so each range is a part of one page.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        for page in 0..len.div_ceil(PAGE_LEN) {
            let part = std::num::NonZero::new(1);
            // What is not begun here is done by the sync.
            let _ = fs::fadvise(&self.0, page * PAGE_LEN + 1, part, fs::Advice::DontNeed);
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = len;
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        syncs::synced(&self.0);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()?;
        syncs::synced(&self.0);
        Ok(())
    }
}

/// Reads what the cache of the system has.
#[cfg(target_os = "linux")]
fn read_without_waiting(file: &File, part: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    rustix::io::preadv2(file, &mut [io::IoSliceMut::new(part)], offset, flags)
}

/// Whether a file is in memory as a whole, and never on a device.
#[cfg(target_os = "linux")]
fn lies_in_memory(file: &File) -> bool {
    /// `TMPFS_MAGIC` of `linux/magic.h`.
    const TMPFS: fs::FsWord = 0x0102_1994;
    fs::fstatfs(file).is_ok_and(|volume| volume.f_type == TMPFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_with_two_hard_links_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let file = dir.open_or_create("p").unwrap();
        std::fs::hard_link(root.path().join("p"), root.path().join("other")).unwrap();
        assert!(matches!(
            dir.is_at("p", &file),
            Err(Refused::Kind(EntryKind::SharedFile))
        ));
    }
}
