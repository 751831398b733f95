//! Files that only their owner may read: keys and secrets. They are of the user that runs the
//! program, or of root: anybody else could change them. Where there is no such thing as an
//! owner and a mode, neither is looked at.

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

/// Reads a private file, and refuses one that others can read or own. Blocks.
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, AuthSetupError> {
    let file = File::open(path).map_err(|error| failed(path, error))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let metadata = file.metadata().map_err(|error| failed(path, error))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(AuthSetupError::Exposed { path, mode });
        }
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if !may_own(owner, user) {
            let path = path.to_owned();
            return Err(AuthSetupError::ForeignOwner { path, owner, user });
        }
    }
    #[cfg(not(unix))]
    tracing::info!(
        path = %path.display(),
        "who owns this private file and who can read it is not looked at on this platform"
    );
    read_from(path, Ok(file))
}

/// Whether a private file may be of this owner, in the eyes of that user.
#[cfg(unix)]
fn may_own(owner: u32, user: u32) -> bool {
    /// Who can read and change everything anyway.
    const ROOT: u32 = 0;
    owner == ROOT || owner == user
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn private_file_is_of_its_user_or_of_root() {
        for (owner, user, may) in [
            (0, 0, true),
            (0, 1000, true),
            (1000, 1000, true),
            (1001, 1000, false),
            // Who owns it can change it, whoever reads it.
            (1000, 0, false),
        ] {
            assert_eq!(may_own(owner, user), may, "{owner} for {user}");
        }
    }
}
