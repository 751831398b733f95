//! The sources of contents that are shared.

use std::fmt;
#[cfg(feature = "file-storage")]
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::content::{ContentName, NameError};
use crate::error::ShareError;
#[cfg(feature = "file-storage")]
use crate::storage::open_file;
use crate::storage::{Blob, MemoryStorage, Storage};

/// Something to share: a file, a content of the peer's storage, or bytes in
/// memory.
///
/// Made from a path or a [`ContentName`], or with [`bytes`](Self::bytes). Text alone is
/// a path. Names may be given as text: if it is not a content name, sharing fails with
/// [`ShareError::Name`].
///
/// ```
/// use bt_lite::ShareSource;
///
/// let file = ShareSource::from("images/ubuntu.iso");
/// let same = ShareSource::file("images/ubuntu.iso").named("Ubuntu 26.04");
/// let bytes = ShareSource::bytes("greeting", "hello, swarm");
/// ```
#[derive(Clone)]
pub struct ShareSource {
    kind: SourceKind,
    /// Another name than the source has.
    named: Option<Checked>,
}

/// A name, or that the text of one is not valid.
type Checked = Result<ContentName, ShareError>;

#[derive(Clone)]
enum SourceKind {
    #[cfg(feature = "file-storage")]
    File(PathBuf),
    Stored(Checked),
    Memory(Checked, Bytes),
}

impl ShareSource {
    /// A file. Its content name is its file name, also that of a dotfile; see
    /// [`Peer::share`](crate::Peer::share) for how others store those.
    #[cfg(feature = "file-storage")]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::of(SourceKind::File(path.into()))
    }

    /// A content that is in the peer's storage.
    pub fn stored<N>(name: N) -> Self
    where
        N: TryInto<ContentName> + fmt::Display,
        N::Error: Into<NameError>,
    {
        Self::of(SourceKind::Stored(checked(name)))
    }

    /// Bytes in memory.
    pub fn bytes<N>(name: N, bytes: impl Into<Bytes>) -> Self
    where
        N: TryInto<ContentName> + fmt::Display,
        N::Error: Into<NameError>,
    {
        Self::of(SourceKind::Memory(checked(name), bytes.into()))
    }

    fn of(kind: SourceKind) -> Self {
        Self { kind, named: None }
    }

    /// Shares it under another name.
    #[must_use]
    pub fn named<N>(mut self, name: N) -> Self
    where
        N: TryInto<ContentName> + fmt::Display,
        N::Error: Into<NameError>,
    {
        self.named = Some(checked(name));
        self
    }

    /// Opens it for reading. Returns the name that it is shared under.
    pub(in crate::peer) async fn open(
        self,
        storage: &dyn Storage,
    ) -> Result<(ContentName, Arc<dyn Blob>), ShareError> {
        let name = match (self.named, &self.kind) {
            (Some(name), _) => name?,
            (None, SourceKind::Stored(name) | SourceKind::Memory(name, _)) => name.clone()?,
            #[cfg(feature = "file-storage")]
            (None, SourceKind::File(path)) => file_name(path)?,
        };
        let blob = match self.kind {
            #[cfg(feature = "file-storage")]
            SourceKind::File(path) => open_file(path).await?,
            SourceKind::Stored(stored) => storage.open(&stored?).await?,
            SourceKind::Memory(_, bytes) => {
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
            #[cfg(feature = "file-storage")]
            SourceKind::File(path) => out.field("file", path),
            SourceKind::Stored(name) => out.field("stored", name),
            // The bytes themselves would fill a log.
            SourceKind::Memory(name, bytes) => out.field("memory", name).field("len", &bytes.len()),
        };
        out.field("named", &self.named).finish()
    }
}

fn checked<N>(name: N) -> Checked
where
    N: TryInto<ContentName> + fmt::Display,
    N::Error: Into<NameError>,
{
    let text = name.to_string();
    name.try_into().map_err(|source| ShareError::Name {
        name: text,
        source: source.into(),
    })
}

#[cfg(feature = "file-storage")]
fn file_name(path: &Path) -> Checked {
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

#[cfg(feature = "file-storage")]
impl From<&str> for ShareSource {
    fn from(path: &str) -> Self {
        Self::file(path)
    }
}

#[cfg(feature = "file-storage")]
impl From<String> for ShareSource {
    fn from(path: String) -> Self {
        Self::file(path)
    }
}

#[cfg(feature = "file-storage")]
impl From<&String> for ShareSource {
    fn from(path: &String) -> Self {
        Self::file(path)
    }
}

#[cfg(feature = "file-storage")]
impl From<&Path> for ShareSource {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

#[cfg(feature = "file-storage")]
impl From<PathBuf> for ShareSource {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

#[cfg(feature = "file-storage")]
impl From<&PathBuf> for ShareSource {
    fn from(path: &PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<ContentName> for ShareSource {
    fn from(name: ContentName) -> Self {
        Self::stored(name)
    }
}

impl From<&ContentName> for ShareSource {
    fn from(name: &ContentName) -> Self {
        Self::stored(name)
    }
}
