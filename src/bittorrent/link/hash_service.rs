//! The hashes of the pieces of v2, served to those who have only a magnet link (BEP 52).

use std::sync::Arc;

use super::hash_trees::HashTrees;
use crate::bittorrent::wire::{HashRange, Message};

/// How often a connection may ask for the whole: a client that lost some asks for them
/// again, and who asks more often wants the traffic.
const MAX_ROUNDS: u32 = 2;

/// How many answers may wait to be sent: more than a client has under way at a time, and not
/// so many that one which reads nothing costs memory.
const MAX_UNSENT: usize = 16;

#[derive(Debug)]
pub(super) struct HashService {
    trees: Option<Arc<HashTrees>>,
    /// How many requests are still answered.
    left: u32,
    /// Answers that wait to be sent.
    unsent: usize,
}

impl HashService {
    pub(super) fn new(trees: Option<Arc<HashTrees>>) -> Self {
        let requests = trees.as_ref().map_or(0, |trees| trees.requests());
        Self {
            trees,
            left: MAX_ROUNDS.saturating_mul(requests),
            unsent: 0,
        }
    }

    /// Answers a request.
    pub(super) fn requested(&mut self, range: HashRange) -> Message {
        let serves = self.left > 0 && self.unsent < MAX_UNSENT;
        let trees = self.trees.as_ref().filter(|_| serves);
        match trees.and_then(|trees| trees.answer(&range)) {
            Some(hashes) => {
                self.left -= 1;
                self.unsent += 1;
                Message::Hashes { range, hashes }
            }
            None => Message::HashReject(range),
        }
    }

    /// An answer was sent.
    pub(super) fn sent(&mut self) {
        self.unsent = self.unsent.saturating_sub(1);
    }
}
