//! Folders: shared as one thing, fetched as a whole or in part.
//!
//! A folder is one content, its index, and its files are contents that trackers do
//! not list. [`table`] knows which files belong to which folder; [`share`] adds a
//! folder that is here, and [`fetch`] one that is not, or more of one: each of its files
//! is a download like any other, and what is wanted of the folder goes to all of them.
//! The bytes travel as those of all contents do.

#[cfg(feature = "file-storage")]
mod beside;
#[cfg(feature = "file-storage")]
mod board;
#[cfg(feature = "file-storage")]
mod common_files;
#[cfg(feature = "file-storage")]
pub(super) mod control;
pub(super) mod error;
#[cfg(feature = "file-storage")]
pub(super) mod fetch;
#[cfg(feature = "file-storage")]
pub(super) mod file_log;
#[cfg(feature = "file-storage")]
pub(super) mod here;
mod move_blob;
#[cfg(feature = "file-storage")]
mod obtain;
#[cfg(feature = "file-storage")]
mod pause_record;
#[cfg(feature = "file-storage")]
pub(super) mod paused_form;
#[cfg(feature = "file-storage")]
mod place;
#[cfg(feature = "file-storage")]
pub(super) mod place_turns;
#[cfg(feature = "file-storage")]
mod release;
#[cfg(feature = "file-storage")]
pub(super) mod restored;
#[cfg(feature = "file-storage")]
pub(super) mod running;
#[cfg(feature = "file-storage")]
mod selection;
#[cfg(feature = "file-storage")]
pub(super) mod share;
pub(super) mod status;
pub(super) mod table;
#[cfg(feature = "file-storage")]
mod target;
