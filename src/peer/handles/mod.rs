//! What programs hold: the peer itself, its downloads, and what is shared.

mod control;
pub(super) mod download;
pub(super) mod folder;
pub(super) mod key;
pub(super) mod list;
pub(super) mod peer;
pub(super) mod reader;
pub(super) mod share;
