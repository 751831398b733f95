//! What the other side has asked for, and whether it may ask.
//!
//! Each request that is passed on to the machine is answered by it exactly once. Without the
//! Fast extension a Choke means that all requests are forgotten. So it is said only when
//! nothing is on its way any more: what the machine has begun to send is not lost.

use crate::content::{BlockRange, Geometry};
use crate::protocol::limits::MAX_REQUESTS;

/// How many requests of the other side may wait: as many as the machine takes.
pub const OWN_REQQ: u32 = MAX_REQUESTS as u32;

/// The longest block that is sent, in bytes. BEP 3 knows requests of 16 KiB only; some old
/// clients ask for more, and aria2 answers up to this length. The machine serves it as one
/// block, so it costs nothing.
pub const MAX_SERVED_LEN: u32 = 64 << 10;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requested {
    /// The machine answers it.
    Passed,
    /// It is rejected, or without the Fast extension ignored.
    Refused,
    /// Nothing happens: it is there already.
    Ignored,
    /// It cannot be meant.
    Violation(&'static str),
}

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    Choke,
    Unchoke,
}

/// The words of one step, in order.
pub(super) type Words = Vec<Say>;

#[derive(Debug)]
pub(super) struct Serves {
    fast: bool,
    geometry: Geometry,
    /// Requests that the machine has not answered.
    open: Vec<BlockRange>,
    /// Whether the other side may ask, by the word of the machine.
    is_choking: bool,
    /// A Choke has to be said when nothing is open any more, and perhaps an Unchoke.
    choke_is_due: bool,
    /// Whether anything was said to the other side: until then it is choked.
    has_begun: bool,
}

impl Serves {
    pub(super) fn new(geometry: Geometry, fast: bool) -> Self {
        Self {
            fast,
            geometry,
            open: Vec::new(),
            is_choking: false,
            choke_is_due: false,
            has_begun: false,
        }
    }

    /// The other side has been greeted. The machine lets each link ask from the start.
    pub(super) fn greeted(&mut self) -> Words {
        self.has_begun = true;
        match self.is_choking {
            true => Vec::new(),
            false => vec![Say::Unchoke],
        }
    }

    /// The other side asks for a block.
    pub(super) fn requested(&mut self, block: BlockRange) -> Requested {
        if block.len == 0 {
            return Requested::Violation("a request for nothing");
        }
        if !self.geometry.contains_block(block) {
            return Requested::Violation("a request for more than there is");
        }
        if self.open.contains(&block) {
            return Requested::Ignored;
        }
        let is_too_much = block.len > MAX_SERVED_LEN || self.open.len() >= OWN_REQQ as usize;
        if is_too_much || self.choke_is_due || !self.has_begun {
            return Requested::Refused;
        }
        self.open.push(block);
        Requested::Passed
    }

    /// Whether the machine has a request that it has not answered.
    pub(super) fn is_open(&self, block: BlockRange) -> bool {
        self.open.contains(&block)
    }

    /// The machine has answered a request. Returns whether it had it.
    pub(super) fn answered(&mut self, block: BlockRange) -> bool {
        let at = self.open.iter().position(|open| *open == block);
        at.map(|at| self.open.remove(at)).is_some()
    }

    /// What can be said now that something was answered.
    pub(super) fn settled(&mut self) -> Words {
        if !self.choke_is_due || !self.open.is_empty() {
            return Vec::new();
        }
        self.choke_is_due = false;
        match self.is_choking {
            true => vec![Say::Choke],
            false => vec![Say::Choke, Say::Unchoke],
        }
    }

    /// The machine lets the other side ask, or not.
    pub(super) fn choked(&mut self, choke: bool) -> Words {
        if std::mem::replace(&mut self.is_choking, choke) == choke || !self.has_begun {
            return Vec::new();
        }
        match (choke, self.choke_is_due) {
            (true, false) if self.fast => vec![Say::Choke],
            (true, false) => {
                self.choke_is_due = true;
                self.settled()
            }
            // It follows the Choke.
            (_, true) => Vec::new(),
            (false, false) => vec![Say::Unchoke],
        }
    }

    /// Whether the other side may not ask.
    pub(super) fn is_choking(&self) -> bool {
        self.is_choking
    }

    /// Panics if the state contradicts itself. For tests.
    pub(super) fn check_invariants(&self) {
        assert!(self.open.len() <= OWN_REQQ as usize);
        assert!(!self.choke_is_due || !self.fast && self.has_begun && !self.open.is_empty());
    }
}
