//! Errors of the file system as errors of the storage: with the action, and
//! with the path.

use std::io;
use std::path::Path;

use super::disk::Refused;
use crate::storage::StorageError;

/// An action on a path failed.
pub(super) fn failed(action: &str, path: &Path, error: io::Error) -> StorageError {
    failed_to_store(action, path, 0, error)
}

/// An action that needed space for `needed` bytes failed.
pub(super) fn failed_to_store(
    action: &str,
    path: &Path,
    needed: u64,
    error: io::Error,
) -> StorageError {
    let what = format!("{action} {}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full {
            what,
            needed,
            available: None,
            path: Some(path.to_path_buf()),
            source: Some(error.into()),
        },
        _ => StorageError::io(what, error).at(path),
    }
}

/// A directory entry was not opened.
pub(super) fn refused(action: &str, path: &Path, error: Refused) -> StorageError {
    match error {
        Refused::Kind(kind) => StorageError::NotAFile {
            path: path.to_path_buf(),
            found: kind.describe(),
        },
        Refused::Io(error) => failed(action, path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_and_used_up_quota_are_told_apart_from_other_failures() {
        let path = Path::new("p");
        let expected = |source| StorageError::Full {
            what: "writing p".into(),
            needed: 7,
            available: None,
            path: Some(path.into()),
            source: Some(source),
        };
        #[cfg(unix)]
        for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            let error = failed_to_store("writing", path, 7, errno.into());
            assert_eq!(error, expected(io::Error::from(errno).into()));
            let kept = error.io_error().unwrap();
            assert_eq!(kept.raw_os_error(), Some(errno.raw_os_error()));
        }
        let kind = io::ErrorKind::StorageFull;
        let full = |needed| failed_to_store("writing", path, needed, kind.into());
        assert_eq!(full(7), expected(kind.into()));
        assert_eq!(
            full(7).to_string(),
            "writing p: not enough space (7 bytes needed)"
        );
        assert_eq!(full(0).to_string(), "writing p: not enough space");
        assert_eq!(
            failed("writing", path, io::ErrorKind::PermissionDenied.into()),
            StorageError::io("writing p", io::ErrorKind::PermissionDenied).at(path)
        );
    }
}
