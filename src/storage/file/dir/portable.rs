//! The directory where the standard library is all there is: paths, and
//! checks before each step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Kind, Refused, too_short};

/// Characters that mean something else than themselves in a Windows path.
const SPECIAL: [char; 7] = ['<', '>', ':', '"', '|', '?', '*'];

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

    /// Whether the name is a plain file name: on Windows some stand for
    /// devices, for streams of other files, or for a shorter name.
    pub(in super::super) fn allows(name: &str) -> bool {
        let stem = name.split('.').next().unwrap_or(name).trim_end();
        let stem = stem.to_ascii_uppercase();
        let device = match stem.strip_prefix("COM").or(stem.strip_prefix("LPT")) {
            Some(port) => port.chars().count() == 1,
            None => ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str()),
        };
        !device && !name.contains(SPECIAL) && !name.ends_with(['.', ' '])
    }

    /// What stands under a name; a link counts as itself.
    pub(in super::super) fn kind(&self, name: &str) -> io::Result<Option<Kind>> {
        match fs::symlink_metadata(self.0.join(name)) {
            Ok(metadata) => Ok(Some(metadata.file_type().into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a file for reading.
    pub(in super::super) fn open_existing(&self, name: &str) -> Result<File, Refused> {
        match self.kind(name)? {
            Some(Kind::File) | None => Ok(File::open(self.0.join(name))?),
            Some(other) => Err(Refused::Kind(other)),
        }
    }

    /// Opens a file for reading and writing, or creates it.
    pub(in super::super) fn open_part(&self, name: &str) -> Result<File, Refused> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match self.kind(name)? {
            Some(Kind::File) => options.create(false),
            // Never through a link that appeared meanwhile.
            None => options.create_new(true),
            Some(other) => return Err(Refused::Kind(other)),
        };
        Ok(options.open(self.0.join(name))?)
    }

    /// Whether the name stands for a file, which then is taken to be this one:
    /// the standard library cannot tell two files apart.
    pub(in super::super) fn is_at(&self, name: &str, _file: &File) -> Result<bool, Refused> {
        match self.kind(name)? {
            Some(Kind::File) => Ok(true),
            Some(other) => Err(Refused::Kind(other)),
            None => Ok(false),
        }
    }

    /// Gives the file, which stands under `part`, the name `name` instead.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has that name.
    pub(in super::super) fn publish(&self, part: &str, name: &str, _file: &File) -> io::Result<()> {
        // A rename would replace what is there.
        fs::hard_link(self.0.join(part), self.0.join(name))?;
        fs::remove_file(self.0.join(part))
    }

    /// Names are as durable as the file system makes them by itself: a
    /// directory cannot be synced everywhere.
    pub(in super::super) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a file anywhere for reading, following links.
pub(in super::super) fn open_path(path: &Path) -> Result<File, Refused> {
    match fs::metadata(path)?.file_type().into() {
        Kind::File => Ok(File::open(path)?),
        other => Err(Refused::Kind(other)),
    }
}

/// An open file that is read and written by position, one at a time: the file
/// has one cursor.
#[derive(Debug)]
pub(in super::super) struct DataFile {
    file: File,
    cursor: Mutex<()>,
}

impl DataFile {
    pub(in super::super) fn new(file: File) -> Self {
        Self {
            file,
            cursor: Mutex::new(()),
        }
    }

    pub(in super::super) fn file(&self) -> &File {
        &self.file
    }

    /// Reads exactly `len` bytes.
    pub(in super::super) fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let _turn = self.seek(offset)?;
        let mut buffer = Vec::with_capacity(len);
        let read = (&self.file).take(len as u64).read_to_end(&mut buffer)?;
        if read < len {
            return Err(too_short());
        }
        Ok(buffer.into())
    }

    /// Writes all pieces one behind the other.
    pub(in super::super) fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let _turn = self.seek(offset)?;
        pieces
            .iter()
            .try_for_each(|piece| (&self.file).write_all(piece))
    }

    fn seek(&self, offset: u64) -> io::Result<MutexGuard<'_, ()>> {
        let turn = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.file).seek(SeekFrom::Start(offset))?;
        Ok(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_windows_reads_differently_is_not_allowed() {
        for bad in [
            "NUL", "con.txt", "Lpt1", "a:b", "a.", "a ", "what?", "AUX .x",
        ] {
            assert!(!Dir::allows(bad), "{bad}");
        }
        for good in ["a", "a b", "null", "COM", "com10", "文件", ".hidden"] {
            assert!(Dir::allows(good), "{good}");
        }
    }
}
