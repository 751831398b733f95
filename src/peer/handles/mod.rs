//! What programs hold: the peer itself, its downloads, and what is shared.

mod access;
mod control;
pub(super) mod download;
pub(super) mod download_bytes;
#[cfg(feature = "file-storage")]
pub(super) mod folder;
#[cfg(feature = "file-storage")]
mod folder_control;
pub(super) mod key;
mod limits;
pub(super) mod list;
mod local_key;
pub(super) mod peer;
mod pins;
pub(super) mod reader;
pub(super) mod removal;
pub(super) mod share;
pub(super) mod share_reader;
pub(super) mod stream;
pub(super) mod verify;
pub(super) mod watch;
