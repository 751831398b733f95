//! Folders in directories.
//!
//! A folder that is being fetched has a directory of its own in that of the
//! storage, its *home*: `<folder id>.folder`. The files are fetched into it, each
//! under its id, as any content is fetched into a storage. When all are there, the
//! tree is built beside them out of second names for the same files, made durable,
//! and moved to its final name in one step. Until then everything that was fetched
//! is in the home, whenever the process or the machine stops.
//!
//! The home also keeps what has to outlive a restart: the index, and a record of
//! where the folder lies and of the stamps of its files.
//!
//! `tree_root` is where the tree lies, and `tree_blob` a file in it; `scan` lists it;
//! `staging` fills a home and builds the tree, and `replacing` moves it over what lies there; `in_place` is what is in its place, and
//! `placed_file` whose that is; `record` is the format of the record;
//! `paused` is the record of a
//! download that is paused; `home` is what the peer uses, and `remembered` what it finds after a restart.

pub(super) mod folders;
#[cfg(feature = "_fuzzing")]
pub(super) mod fuzzing;
mod home;
mod in_place;
mod paused;
mod placed_file;
mod record;
mod remembered;
mod replacing;
mod scan;
mod staging;
mod tree_blob;
pub(super) mod tree_root;

pub use folders::Folders;
pub(crate) use home::FolderHome;
pub(crate) use in_place::{Deletion, Occupied, PlacedFiles, occupied};
pub(crate) use paused::{PausedFolder, PausedForm};
pub(crate) use placed_file::Staged;
pub(crate) use remembered::{paused_folders, remembered_folders};
pub(crate) use scan::{ScanError, ScannedFile, ScannedFolder, is_folder, is_taken, scan_folder};
pub(crate) use tree_root::TreeRoot;
