//! What happens at a peer, for those who watch it.

pub(super) mod event;
pub(super) mod hub;
pub(super) mod topic;
