//! Files that the user has named: certificates, lists, keys and secrets. They are read whole,
//! up to a bound, and nothing but a file is opened: a pipe would hold up the start.
//!
//! Keys and secrets are of the user that runs the program, or of root, and only he may read
//! them: anybody else could change them. Where there is no such thing as an owner and a mode,
//! neither is looked at.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::error::AuthSetupError;
use crate::io_error::IoError;

/// The longest file that is read, in bytes: many times a key with its certificates.
const MAX_LEN: u64 = 1 << 20;

/// Reads a file that may be public. Blocks.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, AuthSetupError> {
    let (file, _) = open(path)?;
    read_from(path, file)
}

/// Reads a private file, and refuses one that others can read or own. Blocks.
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, AuthSetupError> {
    let (file, _metadata) = open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let metadata = _metadata;
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
    read_from(path, file)
}

/// Whether a private file may be of this owner, in the eyes of that user.
#[cfg(unix)]
fn may_own(owner: u32, user: u32) -> bool {
    /// Who can read and change everything anyway.
    const ROOT: u32 = 0;
    owner == ROOT || owner == user
}

/// Opens a file, and nothing else, without waiting for anybody. A link to one is one: that is
/// how the secrets of containers are laid out.
fn open(path: &Path) -> Result<(File, Metadata), AuthSetupError> {
    // Opening a device can have side effects, so its kind is checked first.
    plain(path, fs::metadata(path))?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        // A pipe that appeared since the check cannot block the thread.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits() as i32);
    }
    let file = options.open(path).map_err(|error| failed(path, error))?;
    let metadata = plain(path, file.metadata())?;
    Ok((file, metadata))
}

/// What is known of a file, if it is one.
fn plain(path: &Path, metadata: io::Result<Metadata>) -> Result<Metadata, AuthSetupError> {
    let metadata = metadata.map_err(|error| failed(path, error))?;
    match metadata.is_file() {
        true => Ok(metadata),
        false => Err(AuthSetupError::NotAFile {
            path: path.to_owned(),
            found: words(metadata.file_type()),
        }),
    }
}

/// What is no file, in words.
fn words(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    match kind.is_dir() {
        true => "a directory",
        false => "no file",
    }
}

fn read_from(path: &Path, file: File) -> Result<Vec<u8>, AuthSetupError> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_LEN + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(path, error))?;
    if bytes.len() as u64 > MAX_LEN {
        let path = path.to_owned();
        return Err(AuthSetupError::TooLong { path, max: MAX_LEN });
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

    fn opened(path: &Path) -> [Result<Vec<u8>, AuthSetupError>; 2] {
        [read(path), read_private(path)]
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let made = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink(at("pipe"), at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, found) in [
            (at("pipe"), "a pipe"),
            (at("link"), "a pipe"),
            (at("socket"), "a socket"),
            (dir.path().to_owned(), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            for read in opened(&path) {
                let path = path.clone();
                assert_eq!(read, Err(AuthSetupError::NotAFile { path, found }));
            }
        }
        // A link to a file is as good as the file.
        write_new(&at("file"), b"key").unwrap();
        std::os::unix::fs::symlink(at("file"), at("to file")).unwrap();
        for read in opened(&at("to file")) {
            assert_eq!(read, Ok(b"key".to_vec()));
        }
        assert!(opened(&at("none")).iter().all(|read| {
            let error = read.as_ref().unwrap_err();
            error.is_missing()
        }));
    }

    #[test]
    fn file_is_read_whole_up_to_the_bound_that_is_documented() {
        assert_eq!(MAX_LEN, 1 << 20);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let mut bytes = vec![b'x'; MAX_LEN as usize];
        write_new(&path, &bytes).unwrap();
        for read in opened(&path) {
            assert_eq!(read.as_ref(), Ok(&bytes));
        }
        bytes.push(b'x');
        fs::write(&path, &bytes).unwrap();
        for read in opened(&path) {
            let (path, max) = (path.clone(), MAX_LEN);
            assert_eq!(read, Err(AuthSetupError::TooLong { path, max }));
        }
    }

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
