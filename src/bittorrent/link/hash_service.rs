//! Who may ask for hashes of v2, and how often (BEP 52): those who have only a magnet link.

/// How often a connection may ask for the whole: a client that lost some asks for them
/// again, and who asks more often wants the traffic.
const MAX_ROUNDS: u32 = 2;

/// How many requests may wait to be answered, or their answers to be sent: more than a client
/// has under way at a time, and not so many that one which reads nothing costs memory.
const MAX_UNSENT: u32 = 16;

#[derive(Debug)]
pub(super) struct HashService {
    /// How many requests are still answered.
    left: u32,
    /// Those that wait.
    unsent: u32,
}

impl HashService {
    /// `requests` of them bring all hashes that there are.
    pub(super) fn new(requests: u32) -> Self {
        Self {
            left: MAX_ROUNDS.saturating_mul(requests),
            unsent: 0,
        }
    }

    /// The other side asks for hashes. Returns whether it may.
    pub(super) fn requested(&mut self) -> bool {
        let may_ask = self.left > 0 && self.unsent < MAX_UNSENT;
        if may_ask {
            self.left -= 1;
            self.unsent += 1;
        }
        may_ask
    }

    /// A request that it may make is done with.
    pub(super) fn done(&mut self) {
        self.unsent = self.unsent.saturating_sub(1);
    }
}
