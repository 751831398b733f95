//! Folders: shared as one thing, fetched as a whole or in part.
//!
//! A folder is one content, its index, and its files are contents that trackers do
//! not list. [`table`] knows which files belong to which folder; [`share`] adds a
//! folder that is here, and [`fetch`] one that is not. The bytes travel as those of
//! all contents do.

mod board;
pub(super) mod error;
pub(super) mod fetch;
mod move_blob;
mod obtain;
pub(super) mod share;
pub(super) mod status;
pub(super) mod table;
mod target;
