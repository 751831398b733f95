//! What a driver has of what is wanted of its content.

use std::sync::Arc;

use crate::peer::contents::choice::{Choice, Follower};

/// What is wanted of the content, if another network has it.
pub(super) struct Followed {
    pub(super) choice: Arc<Choice>,
    pub(super) follower: Follower,
    /// Whether those outside know that it rests.
    pub(super) rests: bool,
    /// Whether the storage publishes a part of it at this moment.
    pub(super) publishes: bool,
}

impl Followed {
    pub(super) fn new(choice: Arc<Choice>) -> Self {
        Self {
            follower: choice.follower(),
            choice,
            rests: false,
            publishes: false,
        }
    }
}

/// Waits until something else may be wanted.
///
/// Cancel safe.
pub(super) async fn next_choice(followed: &mut Option<Followed>) {
    match followed {
        Some(followed) => followed.follower.changed().await,
        None => std::future::pending().await,
    }
}
