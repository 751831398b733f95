//! What is shared, and how its manifest is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::INLINE_HASH_LEN;
use crate::content::{ContentName, Manifest, ManifestBuilder, NameError};
use crate::error::ShareError;
use crate::storage::{Blob, MemoryStorage, Storage, StorageError, open_file};

/// How much is read at a time, in bytes: read while the piece before is hashed.
const READ_LEN: u64 = 1 << 20;

/// Something to share: a file anywhere, or a content of the peer's storage.
///
/// Made of a path (as text, too) or of a [`ContentName`]; with
/// [`bytes`](Self::bytes) of what is in memory.
#[derive(Clone)]
pub struct ShareSource {
    place: Place,
    name: Option<ContentName>,
}

#[derive(Clone)]
enum Place {
    File(PathBuf),
    Stored(ContentName),
    Bytes(Bytes),
}

impl ShareSource {
    /// A file. Its content name is its file name, dotfiles included; see
    /// [`Peer::share`](crate::Peer::share) for what others make of those.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::File(path.into()),
            name: None,
        }
    }

    /// A content that is in the peer's storage.
    pub fn stored(name: ContentName) -> Self {
        Self {
            place: Place::Stored(name),
            name: None,
        }
    }

    /// Bytes in memory.
    pub fn bytes(name: ContentName, bytes: impl Into<Bytes>) -> Self {
        Self {
            place: Place::Bytes(bytes.into()),
            name: Some(name),
        }
    }

    /// Shares it under another name.
    #[must_use]
    pub fn named(mut self, name: ContentName) -> Self {
        self.name = Some(name);
        self
    }

    /// Opens it for reading, under the name that it is shared by.
    pub(super) async fn open(
        self,
        storage: &dyn Storage,
    ) -> Result<(ContentName, Arc<dyn Blob>), ShareError> {
        let name = match (self.name, &self.place) {
            (Some(name), _) => name,
            (None, Place::Stored(name)) => name.clone(),
            (None, Place::File(path)) => file_name(path)?,
            (None, Place::Bytes(_)) => unreachable!("bytes are made with a name"),
        };
        let blob = match self.place {
            Place::File(path) => open_file(path).await?,
            Place::Stored(stored) => storage.open(&stored).await?,
            Place::Bytes(bytes) => {
                let storage = MemoryStorage::new();
                storage.insert(name.clone(), bytes)?;
                storage.open(&name).await?
            }
        };
        Ok((name, blob))
    }
}

fn file_name(path: &Path) -> Result<ContentName, ShareError> {
    let name = path.file_name().unwrap_or_default();
    let valid = match name.to_str() {
        Some(text) => text.parse(),
        None => Err(NameError::Encoding),
    };
    valid.map_err(|source| ShareError::Name {
        name: name.to_string_lossy().into_owned(),
        source,
    })
}

impl From<&str> for ShareSource {
    fn from(path: &str) -> Self {
        Self::file(path)
    }
}

impl From<String> for ShareSource {
    fn from(path: String) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for ShareSource {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl From<PathBuf> for ShareSource {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<ContentName> for ShareSource {
    fn from(name: ContentName) -> Self {
        Self::stored(name)
    }
}

/// Why no manifest could be made of a blob.
pub(super) enum HashError {
    Storage(StorageError),
    Manifest(crate::content::ManifestError),
}

/// The manifest of a whole blob, hashed off the async threads while the next
/// piece is read.
pub(super) async fn manifest_of(blob: &dyn Blob) -> Result<Manifest, HashError> {
    let length = blob.length();
    let mut builder = ManifestBuilder::new(length).map_err(HashError::Manifest)?;
    let read = |at: u64| blob.read_at(at, READ_LEN.min(length - at) as usize);
    let mut at = 0;
    let mut piece = read(0).await.map_err(HashError::Storage)?;
    while at < length {
        if piece.is_empty() {
            // A storage that gives less than it was asked for.
            break;
        }
        at += piece.len() as u64;
        let next = async {
            if at < length {
                read(at).await
            } else {
                Ok(Bytes::new())
            }
        };
        let (hashed, next) = futures::join!(hash(builder, piece), next);
        builder = hashed.map_err(HashError::Manifest)?;
        piece = next.map_err(HashError::Storage)?;
    }
    builder.finish().map_err(HashError::Manifest)
}

async fn hash(
    mut builder: ManifestBuilder,
    piece: Bytes,
) -> Result<ManifestBuilder, crate::content::ManifestError> {
    let short = piece.len() <= INLINE_HASH_LEN;
    let work = move || builder.update(&piece).map(|()| builder);
    if short {
        return work();
    }
    off_thread(work).await
}

/// Runs work that would hold up an async thread on one that may wait.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down; whoever waits is dropped with it.
            Err(_) => std::future::pending().await,
        },
    }
}
