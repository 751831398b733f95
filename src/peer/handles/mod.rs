//! What programs hold: the peer itself, its downloads, and what is shared.

pub(super) mod download;
pub(super) mod download_bytes;
pub(super) mod folder;
pub(super) mod key;
pub(super) mod peer;
pub(super) mod reader;
pub(super) mod removal;
pub(super) mod share;
pub(super) mod share_reader;
