//! What a process that is killed at this moment leaves.

use std::fs;
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// The files of a directory, as if the process had ended now. What goes away while they are
/// copied makes it begin anew: that would be a moment that there was not.
pub(crate) fn moment_of(dir: &Path) -> TempDir {
    loop {
        let to = tempfile::tempdir().unwrap();
        match copy(dir, to.path()) {
            Ok(()) => return to,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (at, kind) = (to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            copy(&entry.path(), &at)?;
        } else if kind.is_file() {
            let modified = entry.metadata()?.modified()?;
            fs::copy(entry.path(), &at)?;
            let file = fs::File::options().write(true).open(&at)?;
            file.set_modified(modified)?;
        }
    }
    Ok(())
}
