//! The sources of contents that are shared.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::content::{ContentName, NameError};
use crate::error::ShareError;
use crate::storage::{Blob, MemoryStorage, Storage, open_file};

/// Something to share: a file, a content of the peer's storage, or bytes in
/// memory.
///
/// Made from a path or a [`ContentName`], or with [`bytes`](Self::bytes).
#[derive(Clone)]
pub struct ShareSource {
    kind: SourceKind,
    /// Another name than the source has.
    named: Option<ContentName>,
}

#[derive(Clone)]
enum SourceKind {
    File(PathBuf),
    Stored(ContentName),
    Memory(ContentName, Bytes),
}

impl ShareSource {
    /// A file. Its content name is its file name, also that of a dotfile; see
    /// [`Peer::share`](crate::Peer::share) for how others store those.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::of(SourceKind::File(path.into()))
    }

    /// A content that is in the peer's storage.
    pub fn stored(name: ContentName) -> Self {
        Self::of(SourceKind::Stored(name))
    }

    /// Bytes in memory.
    pub fn bytes(name: ContentName, bytes: impl Into<Bytes>) -> Self {
        Self::of(SourceKind::Memory(name, bytes.into()))
    }

    fn of(kind: SourceKind) -> Self {
        Self { kind, named: None }
    }

    /// Shares it under another name.
    #[must_use]
    pub fn named(mut self, name: ContentName) -> Self {
        self.named = Some(name);
        self
    }

    /// Opens it for reading. Returns the name that it is shared under.
    pub(in crate::peer) async fn open(
        self,
        storage: &dyn Storage,
    ) -> Result<(ContentName, Arc<dyn Blob>), ShareError> {
        let name = match (self.named, &self.kind) {
            (Some(name), _) => name,
            (None, SourceKind::Stored(name) | SourceKind::Memory(name, _)) => name.clone(),
            (None, SourceKind::File(path)) => file_name(path)?,
        };
        let blob = match self.kind {
            SourceKind::File(path) => open_file(path).await?,
            SourceKind::Stored(stored) => storage.open(&stored).await?,
            SourceKind::Memory(name, bytes) => {
                let storage = MemoryStorage::new();
                storage.insert(name.clone(), bytes)?;
                storage.open(&name).await?
            }
        };
        Ok((name, blob))
    }
}

impl fmt::Debug for ShareSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ShareSource");
        match &self.kind {
            SourceKind::File(path) => out.field("file", path),
            SourceKind::Stored(name) => out.field("stored", name),
            // The bytes themselves would fill a log.
            SourceKind::Memory(name, bytes) => out.field("memory", name).field("len", &bytes.len()),
        };
        out.field("named", &self.named).finish()
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
