//! The paths in a folder, and their validation.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::content::{ContentName, NameError, UnsafeName};

/// The maximum length of a path in a folder, in bytes of UTF-8. A whole path may
/// have 1024 bytes on macOS, and more on other systems. This leaves a quarter of
/// them to the place where the folder lies.
pub const MAX_PATH_LEN: usize = 768;

/// The maximum number of elements of a path. Whoever walks a folder has a
/// directory open for each.
pub const MAX_PATH_DEPTH: usize = 64;

/// The path of something in a folder: names with `/` between them.
///
/// Each element is a valid [`ContentName`] that is safe as a file name on every
/// system ([`ContentName::check_file_name`]), except that it may start with a
/// dot. So a path never leaves its folder. There are 1 to [`MAX_PATH_DEPTH`]
/// elements and at most [`MAX_PATH_LEN`] bytes.
///
/// Paths are ordered by their elements: what is in a folder comes right behind
/// the folder.
///
/// ```
/// use bt_lite::FolderPath;
///
/// let path: FolderPath = "src/.config/main.rs".parse()?;
/// assert_eq!(path.elements().last(), Some("main.rs"));
/// assert!("../main.rs".parse::<FolderPath>().is_err());
/// assert!("/etc/passwd".parse::<FolderPath>().is_err());
/// # Ok::<(), bt_lite::content::FolderPathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FolderPath(Arc<str>);

/// Why a text is not a valid [`FolderPath`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FolderPathError {
    /// The path is longer than [`MAX_PATH_LEN`] bytes.
    #[error("a path in a folder can have at most {MAX_PATH_LEN} bytes, not {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The path has more than [`MAX_PATH_DEPTH`] elements.
    #[error("a path in a folder can have at most {MAX_PATH_DEPTH} elements, not {depth}")]
    TooDeep {
        /// The number of its elements.
        depth: usize,
    },
    /// The path is not UTF-8.
    #[error("a path in a folder must be UTF-8")]
    Encoding,
    /// An element is not a name. The path is absolute if its first element is
    /// empty.
    #[error("{element:?} is not a name: {source}")]
    Name {
        /// The first such element.
        element: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// An element is not safe as a file name on every system.
    #[error("{element:?} is not a safe file name: {source}")]
    Unsafe {
        /// The first such element.
        element: String,
        /// Why not.
        source: UnsafeName,
    },
}

impl FolderPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names on the way, from the outermost to that of the entry itself.
    pub fn elements(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('/')
    }

    /// The last element.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The folder that it lies in; `None` for the shared folder itself.
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .map(|(parent, _)| Self(parent.into()))
    }

    /// Whether it is this path, or lies in it.
    pub fn is_within(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&*folder.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The folders on the way to it, the outermost first.
    pub(super) fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// The same, and the path itself.
    pub(super) fn ways(&self) -> impl Iterator<Item = &str> {
        self.folders().chain([&*self.0])
    }

    /// Checks one element.
    ///
    /// # Errors
    /// [`FolderPathError::Name`] and [`FolderPathError::Unsafe`].
    pub(super) fn check_element(element: &str) -> Result<(), FolderPathError> {
        let name: ContentName = element.parse().map_err(|source| FolderPathError::Name {
            element: element.to_owned(),
            source,
        })?;
        match name.check_file_name() {
            // The owner of a folder has chosen such names, and whoever fetches it
            // has chosen the folder.
            Ok(()) | Err(UnsafeName::Hidden) => Ok(()),
            Err(source) => Err(FolderPathError::Unsafe {
                element: element.to_owned(),
                source,
            }),
        }
    }
}

impl Ord for FolderPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.elements().cmp(other.elements())
    }
}

impl PartialOrd for FolderPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for FolderPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for FolderPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FolderPath {
    /// The path that a user means who names a file or a folder: a slash may follow. An error
    /// comes with the text.
    pub(crate) fn named<P>(path: P) -> Result<Self, (String, FolderPathError)>
    where
        P: TryInto<Self> + fmt::Display,
        P::Error: Into<FolderPathError>,
    {
        let text = path.to_string();
        let path = path.try_into().or_else(|source| {
            let folder = text.strip_suffix('/').and_then(|path| path.parse().ok());
            folder.ok_or_else(|| source.into())
        });
        path.map_err(|source| (text, source))
    }
}

impl TryFrom<&str> for FolderPath {
    type Error = FolderPathError;

    fn try_from(text: &str) -> Result<Self, FolderPathError> {
        text.parse()
    }
}

impl TryFrom<String> for FolderPath {
    type Error = FolderPathError;

    fn try_from(text: String) -> Result<Self, FolderPathError> {
        text.parse()
    }
}

impl TryFrom<&String> for FolderPath {
    type Error = FolderPathError;

    fn try_from(text: &String) -> Result<Self, FolderPathError> {
        text.parse()
    }
}

impl TryFrom<&FolderPath> for FolderPath {
    type Error = FolderPathError;

    fn try_from(path: &FolderPath) -> Result<Self, FolderPathError> {
        Ok(path.clone())
    }
}

/// Lets a function take a [`FolderPath`] as it takes text.
impl From<Infallible> for FolderPathError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl FromStr for FolderPath {
    type Err = FolderPathError;

    fn from_str(text: &str) -> Result<Self, FolderPathError> {
        if text.len() > MAX_PATH_LEN {
            return Err(FolderPathError::TooLong { len: text.len() });
        }
        let depth = text.split('/').count();
        if depth > MAX_PATH_DEPTH {
            return Err(FolderPathError::TooDeep { depth });
        }
        text.split('/').try_for_each(Self::check_element)?;
        Ok(Self(text.into()))
    }
}
