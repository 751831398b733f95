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
mod file;
mod memory;
mod paused;
mod shared;
mod traits;

pub use crate::io_error::IoError;
pub use error::StorageError;
pub(crate) use error::located;
pub use file::{
    FilePool, FilePoolStats, FileStamp, FileStorage, FileStorageBuilder, Folders, open_file,
};
pub(crate) use file::{
    FolderHome, PlacedFiles, ScanError, ScannedFile, ScannedFolder, TreeRoot, is_taken,
    remembered_folders, scan_folder,
};
pub use memory::MemoryStorage;
pub use paused::PausedDownload;
pub use traits::{Blob, Catalogue, Lost, Partial, Remembered, Storage, Stored, check_range};
