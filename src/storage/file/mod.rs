//! Contents as files in a directory, kept as a database keeps its rows.
//!
//! A finished content is the file with its name. While it is being downloaded
//! it is `<content id>.part` in the same directory: by id, so that two contents
//! of one name do not collide before the end, and so that a name can have its
//! full length. `<content id>.journal` records which of its chunks may be
//! trusted.
//!
//! The guarantees: no file outside the directory is read or written, whatever
//! names and links are in it; no existing file is replaced; a content has one
//! writer at a time, across processes, by locks on the two files; and whatever
//! was reported durable survives a crash at any moment. This module does not
//! interpret the bytes of a content.
//!
//! From the bottom up: `disk` is the interface to the file system, and `dir`
//! implements it. `journal` is the format of a journal, and `journal_file` the
//! file with it. `storage_dir` is the directory of one storage, whose syncs
//! `group_sync` shares. `recovery` opens what an earlier download left, and
//! `partial_file` takes the file from there to its final name. `catalogue`
//! remembers finished contents in a log: `record_log` writes and reads it,
//! `segment` is a part of it, `log_index` knows where what is, and `log_entry` is
//! its format. `removal` takes contents away again. All of these block; `partial_blob`, `read_blob` and `storage` run
//! them on threads that may (`blocking`). `pool` bounds how many files are open.
//! `folder` keeps whole folders.

mod blocking;
mod catalogue;
mod checksum;
#[cfg(test)]
mod crash;
mod dir;
mod disk;
mod draft;
mod failure;
mod fields;
mod folder;
#[cfg(feature = "_fuzzing")]
pub(crate) mod fuzzing;
mod group_sync;
mod journal;
mod journal_file;
mod log_entry;
mod log_index;
mod manifest_bytes;
mod names;
mod old_record;
mod partial_blob;
mod partial_file;
mod paused;
mod pool;
mod read_blob;
mod record;
mod record_log;
mod recovery;
mod removal;
mod segment;
mod short_file;
mod short_writes;
#[cfg(feature = "bittorrent")]
mod spans;
mod stamp;
mod storage;
mod storage_dir;
mod timestamp;
mod writers;

pub use folder::Folders;
pub(crate) use folder::{
    Deletion, FolderHome, Occupied, PausedFolder, PausedForm, PlacedFiles, ScanError, ScannedFile,
    ScannedFolder, Staged, TreeRoot, is_folder, is_taken, occupied, paused_folders,
    remembered_folders, scan_folder,
};
pub use pool::FilePool;
#[cfg(feature = "bittorrent")]
pub(crate) use spans::{ChosenFiles, CommonStorage, SpannedFile, SpannedLink, SpannedStorage};
pub use stamp::FileStamp;
pub use storage::{FileStorage, FileStorageBuilder, open_file};
