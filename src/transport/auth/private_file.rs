//! Files that only their owner may read: keys and secrets.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::error::AuthSetupError;
use crate::io_error::IoError;

/// The longest file that is read, in bytes: many times a key with its certificates.
const MAX_LEN: u64 = 1 << 20;

/// Reads a file that may be public. Blocks.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, AuthSetupError> {
    read_from(path, File::open(path))
}

/// Reads a private file, and refuses one that others can read. Blocks.
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, AuthSetupError> {
    let file = File::open(path).map_err(|error| failed(path, error))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.metadata().map_err(|error| failed(path, error))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(AuthSetupError::Exposed { path, mode });
        }
    }
    read_from(path, Ok(file))
}

fn read_from(path: &Path, file: io::Result<File>) -> Result<Vec<u8>, AuthSetupError> {
    let mut bytes = Vec::new();
    let read = file.and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes));
    read.map_err(|error| failed(path, error))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(failed(path, io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Makes a private file, all of it or nothing. If there is one already, it stays, and
/// that is returned as `false`. Blocks.
pub(super) fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, AuthSetupError> {
    let temporary = temporary(path)?;
    let created = write_new(&temporary, bytes).and_then(|()| publish(&temporary, path));
    // It is gone already where it was renamed.
    let _ = fs::remove_file(&temporary);
    created.map_err(|error| failed(path, error))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a finished file its name, unless that is taken.
fn publish(temporary: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // The file system has no hard links.
        Err(_) if path.try_exists()? => Ok(false),
        Err(_) => fs::rename(temporary, path).map(|()| true),
    }
}

fn temporary(path: &Path) -> Result<PathBuf, AuthSetupError> {
    let Some(name) = path.file_name() else {
        return Err(failed(path, io::ErrorKind::InvalidInput.into()));
    };
    let mut name = name.to_owned();
    let number = getrandom::u64().map_err(|error| AuthSetupError::Entropy {
        source: IoError::random(error),
    })?;
    name.push(format!(".{number:016x}.new"));
    Ok(path.with_file_name(name))
}

fn failed(path: &Path, error: io::Error) -> AuthSetupError {
    AuthSetupError::File {
        path: path.to_owned(),
        source: error.into(),
    }
}
