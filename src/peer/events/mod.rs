//! What happens at a peer, for those who watch it.

pub(super) mod download_event;
pub(super) mod download_watchers;
pub(super) mod event;
pub(super) mod hub;
pub(super) mod queue;
pub(super) mod topic;
