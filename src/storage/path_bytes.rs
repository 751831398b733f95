//! Paths in files that are read again by this system only.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The bytes of a path; nothing if they could not be read back.
#[cfg(unix)]
pub(crate) fn path_bytes(path: &Path) -> Option<&[u8]> {
    Some(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

/// The path with these bytes.
#[cfg(unix)]
pub(crate) fn bytes_path(bytes: &[u8]) -> Option<PathBuf> {
    let path: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(bytes);
    Some(OsString::from(path).into())
}

/// The bytes of a path; nothing if they could not be read back.
#[cfg(not(unix))]
pub(crate) fn path_bytes(path: &Path) -> Option<&[u8]> {
    let path: &OsStr = path.as_os_str();
    path.to_str().map(str::as_bytes)
}

/// The path with these bytes.
#[cfg(not(unix))]
pub(crate) fn bytes_path(bytes: &[u8]) -> Option<PathBuf> {
    let path = OsString::from(std::str::from_utf8(bytes).ok()?);
    Some(path.into())
}
