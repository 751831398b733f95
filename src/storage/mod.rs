//! Where a peer stores contents: the traits of a storage, and the two storages
//! of this crate.
//!
//! What holds after a call has returned `Ok`:
//!
//! | call | readable in this process | visible by name | survives the process | survives the machine |
//! |---|---|---|---|---|
//! | [`Blob::write_at`] | yes | no | depends on the storage | no |
//! | [`Blob::commit`] | yes | no | yes, if the storage can resume | yes, if the storage can resume |
//! | [`Blob::finish`] | yes | yes, complete | yes | yes |
//!
//! [`MemoryStorage`] keeps these promises for its own lifetime only.
//!
//! A storage does not verify chunks. It is told which chunks are verified, and
//! trusts that all chunks written since the content was opened are verified
//! when [`Blob::finish`] is called. For chunks of an earlier download the
//! storage itself is responsible; see [`Partial::verified`].
//!
//! Sharing survives a restart through [`Storage::remember`] and
//! [`Storage::catalogue`], if the storage implements them.
//!
//! To write your own storage (a database, an object store), implement
//! [`Storage`] and [`Blob`], and test it with the conformance suite
//! `bt_lite::testing::storage` (feature `testing`).

mod error;
#[cfg(feature = "file-storage")]
mod file;
mod file_pool_stats;
mod memory;
#[cfg(not(feature = "file-storage"))]
mod no_files;
#[cfg(not(feature = "file-storage"))]
mod no_open_file;
mod path_bytes;
mod paused;
mod shared;
pub(crate) mod sibling;
mod traits;

pub use crate::io_error::IoError;
pub use error::StorageError;
pub(crate) use error::located;
#[cfg(feature = "_fuzzing")]
pub(crate) use file::fuzzing;
#[cfg(feature = "bittorrent")]
pub(crate) use file::{ChosenFiles, CommonStorage, SpannedFile, SpannedLink, SpannedStorage};
#[cfg(feature = "file-storage")]
pub(crate) use file::{
    Deletion, FolderHome, Occupied, PausedFolder, PausedForm, PlacedFiles, ScanError, ScannedFile,
    ScannedFolder, Staged, TreeRoot, is_folder, is_taken, occupied, paused_folders,
    remembered_folders, scan_folder,
};
#[cfg(feature = "file-storage")]
pub use file::{FilePool, FileStamp, FileStorage, FileStorageBuilder, Folders, open_file};
pub use file_pool_stats::FilePoolStats;
pub use memory::MemoryStorage;
#[cfg(not(feature = "file-storage"))]
pub use no_files::{FileStamp, Folders};
#[cfg(not(feature = "file-storage"))]
pub(crate) use no_open_file::open_file;
pub(crate) use path_bytes::{bytes_path, path_bytes};
pub use paused::{PausedDownload, PausedId};
pub use traits::{
    Blob, Catalogue, Draft, Lost, Partial, Remembered, Storage, Stored, WriteJob, check_range,
};
