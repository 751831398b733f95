//! Lists what is in a folder. Reads no file.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::blocking::run;
use super::super::dir::Dir;
use super::super::disk::{EntryKind, Refused};
use super::super::failure::{failed, refused};
use super::super::pool::FilePool;
use super::super::stamp::Stamp;
use super::tree_blob::tree_blob;
use super::tree_root::TreeRoot;
use crate::content::{FolderEntry, FolderPath, FolderPathError, MAX_FOLDER_ENTRIES};
use crate::storage::{Blob, StorageError};

/// Why a folder cannot be listed as one that others can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScanError {
    Storage(StorageError),
    /// The entry has a name, or refers to one, that is not valid in a folder.
    Path {
        path: PathBuf,
        source: FolderPathError,
    },
    TooManyEntries {
        found: u64,
    },
}

/// What is in a folder.
pub(crate) struct ScannedFolder {
    /// The symbolic links and the empty folders.
    pub(crate) others: Vec<FolderEntry>,
    pub(crate) files: Vec<ScannedFile>,
}

/// A file in a folder.
pub(crate) struct ScannedFile {
    pub(crate) path: FolderPath,
    pub(crate) executable: bool,
    /// Its bytes. Reads fail as soon as it has changed.
    pub(crate) blob: Arc<dyn Blob>,
}

impl From<StorageError> for ScanError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Whether something is where a folder may be, of whatever kind.
///
/// Cancel safe. Must be called inside a tokio runtime.
pub(crate) async fn is_taken(root: &TreeRoot) -> Result<bool, StorageError> {
    let root = root.clone();
    run(move || root.is_taken()).await
}

/// Whether a directory is where a folder may be.
///
/// Cancel safe. Must be called inside a tokio runtime.
pub(crate) async fn is_folder(root: &TreeRoot) -> Result<bool, StorageError> {
    let root = root.clone();
    run(move || Ok(root.open().is_ok())).await
}

/// Lists a folder. Follows no link in it.
///
/// Cancel safe. Must be called inside a tokio runtime.
pub(crate) async fn scan_folder(
    root: &TreeRoot,
    pool: &FilePool,
) -> Result<ScannedFolder, ScanError> {
    let (root, pool) = (root.clone(), pool.clone());
    run(move || Ok(scan(root, pool))).await?
}

fn scan(root: TreeRoot, pool: FilePool) -> Result<ScannedFolder, ScanError> {
    let opened = root.open();
    let dir = opened.map_err(|e| not_opened(&root.path(), e))?;
    let mut scan = Scan {
        path: root.path(),
        root,
        pool,
        seen: 0,
        found: ScannedFolder {
            others: Vec::new(),
            files: Vec::new(),
        },
    };
    scan.folder(&dir, "")?;
    Ok(scan.found)
}

/// The error of what should be a folder and could not be opened as one.
fn not_opened(path: &Path, error: Refused) -> StorageError {
    match error {
        Refused::Io(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let path = path.to_path_buf();
            StorageError::NotADirectory { path }
        }
        error => refused("opening", path, error),
    }
}

struct Scan {
    root: TreeRoot,
    path: PathBuf,
    pool: FilePool,
    /// How many entries were seen, folders as well.
    seen: usize,
    found: ScannedFolder,
}

impl Scan {
    /// Lists one folder; `at` is its path with a `/` behind it. A path has a bounded
    /// number of elements, and so this has a bounded depth.
    fn folder(&mut self, dir: &Dir, at: &str) -> Result<(), ScanError> {
        let path = self.path.join(at);
        let left = MAX_FOLDER_ENTRIES - self.seen;
        let names = dir.all_names(left);
        let mut names = names.map_err(|e| failed("listing", &path, e))?;
        self.seen += names.len();
        if self.seen > MAX_FOLDER_ENTRIES {
            let found = self.seen as u64;
            return Err(ScanError::TooManyEntries { found });
        }
        names.sort();
        if names.is_empty() && !at.is_empty() {
            let folder = at.trim_end_matches('/');
            let path = self.valid(folder, folder.as_ref())?;
            self.found.others.push(FolderEntry::empty_folder(path));
        }
        for name in &names {
            self.entry(dir, at, name)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &Dir, at: &str, name: &OsStr) -> Result<(), ScanError> {
        let shown = self.path.join(at).join(name);
        let text = self.text(&shown, name)?;
        let path = self.valid(&format!("{at}{text}"), &shown)?;
        let looked = dir.look(name);
        let looked = looked.map_err(|e| failed("examining", &shown, e))?;
        let Some(looked) = looked else {
            return Err(StorageError::Changed { path: shown }.into());
        };
        match looked.kind {
            EntryKind::File => {
                let stamp = Stamp::of(&looked.stat);
                self.found.files.push(ScannedFile {
                    blob: tree_blob(&self.root, &path, stamp, &self.pool),
                    path,
                    executable: looked.executable,
                });
            }
            EntryKind::Directory => {
                let inner = dir.enter(name);
                let inner = inner.map_err(|e| refused("opening", &shown, e))?;
                self.folder(&inner, &format!("{path}/"))?;
            }
            EntryKind::Link => {
                let target = dir.read_link(name);
                let target = target.map_err(|e| failed("reading", &shown, e))?;
                let target = self.text(&shown, &target)?;
                // A slash at the end says what is there in any case.
                let target = match target.trim_end_matches('/') {
                    "" => &*target,
                    trimmed => trimmed,
                };
                self.found.others.push(FolderEntry::symlink(path, target));
            }
            other => {
                let refusal = Refused::Kind(other);
                return Err(refused("sharing", &shown, refusal).into());
            }
        }
        Ok(())
    }

    fn text(&self, shown: &Path, text: &OsStr) -> Result<String, ScanError> {
        OsString::from(text)
            .into_string()
            .map_err(|_| ScanError::Path {
                path: shown.to_path_buf(),
                source: FolderPathError::Encoding,
            })
    }

    fn valid(&self, text: &str, shown: &Path) -> Result<FolderPath, ScanError> {
        text.parse().map_err(|source| ScanError::Path {
            path: shown.to_path_buf(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn file_that_changes_after_it_was_listed_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["longer", "gone", "same"] {
            std::fs::write(dir.path().join(name), "some bytes").unwrap();
        }
        let root = TreeRoot::at(dir.path());
        let pool = FilePool::new(8);
        let found = scan_folder(&root, &pool).await.unwrap().files;
        std::fs::write(dir.path().join("longer"), "some more bytes").unwrap();
        std::fs::remove_file(dir.path().join("gone")).unwrap();
        for file in found {
            let path = root.path_of(&file.path);
            let read = file.blob.read_at(0, 10).await;
            match file.path.as_str() {
                "same" => assert_eq!(read.unwrap(), "some bytes"),
                _ => assert_eq!(read, Err(StorageError::Changed { path })),
            }
        }
    }
}
