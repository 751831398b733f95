//! Folders: what is in one, and the bytes that say so.
//!
//! A folder is shared as one thing. Its id is the id of its *index*, a content
//! like any other, which lists the files, the symbolic links and the empty
//! folders in it. Each file is a content of its own.
//!
//! A [`FolderIndex`] can be built nowhere but inside the folder: its paths and
//! the targets of its links stay there, on every system. What one system could
//! hold and another could not, such as two names that differ only in case, is
//! refused too.

mod check;
mod codec;
mod entry;
mod error;
mod index;
mod path;

pub use entry::{FolderEntry, FolderItem};
pub use error::{FolderIndexError, LinkTargetError};
pub use index::{FolderIndex, MAX_FOLDER_ENTRIES, MAX_INDEX_LEN};
pub use path::{FolderPath, FolderPathError, MAX_PATH_DEPTH, MAX_PATH_LEN};
