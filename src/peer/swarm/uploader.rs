//! The uploader: whose request is answered next.
//!
//! A bounded number of bytes is on its way to the network at any time, so that
//! the choice stays open as long as possible; it then falls on the most
//! deprived receiver. Every link may have one block on its way whatever the
//! others do, so that links that do not read hold nobody up.

use std::collections::{BTreeMap, VecDeque};

use super::LinkId;
use crate::content::BlockRange;

/// The requests of all links, and the bytes on their way.
#[derive(Debug)]
pub struct Uploader {
    /// Bytes that may be on their way, over all links.
    window: u64,
    /// And on one link.
    link_window: u64,
    max_requests: usize,
    under_way: u64,
    /// Requests that wait, over all links.
    waiting: usize,
    receivers: BTreeMap<LinkId, Receiver>,
}

#[derive(Debug, Default)]
struct Receiver {
    waiting: VecDeque<BlockRange>,
    /// Bytes that are being read, or queued for the network.
    under_way: u64,
    /// Bytes that were handed to the network.
    sent: u64,
}

impl Uploader {
    /// With a window in bytes for all links, and a bound on the requests that
    /// wait on one of them.
    pub fn new(window: u64, max_requests: usize) -> Self {
        Self {
            window,
            link_window: window / 4,
            max_requests,
            under_way: 0,
            waiting: 0,
            receivers: BTreeMap::new(),
        }
    }

    /// Takes a request, or refuses it (`false`) because too many wait.
    pub fn requested(&mut self, link: LinkId, block: BlockRange) -> bool {
        let receiver = self.receivers.entry(link).or_default();
        let fits = receiver.waiting.len() < self.max_requests;
        if fits {
            receiver.waiting.push_back(block);
            self.waiting += 1;
        }
        fits
    }

    /// Takes a request back; `false` if its block is on its way already, or
    /// was never asked for.
    pub fn cancelled(&mut self, link: LinkId, block: BlockRange) -> bool {
        let Some(receiver) = self.receivers.get_mut(&link) else {
            return false;
        };
        let waiting = receiver.waiting.iter().position(|asked| *asked == block);
        let found = waiting.is_some_and(|at| receiver.waiting.remove(at).is_some());
        self.waiting -= usize::from(found);
        found
    }

    /// The next block to read and send, if the window has room: to the link
    /// with the lowest rank, among equals to the one that was sent least.
    pub fn next_block(&mut self, rank: impl Fn(LinkId) -> u32) -> Option<(LinkId, BlockRange)> {
        if self.waiting == 0 {
            return None;
        }
        let room = self.under_way < self.window;
        let (&link, receiver) = self
            .receivers
            .iter_mut()
            .filter(|(_, receiver)| {
                !receiver.waiting.is_empty()
                    && (receiver.under_way == 0 || room && receiver.under_way < self.link_window)
            })
            .min_by_key(|(link, receiver)| (rank(**link), receiver.sent + receiver.under_way))?;
        let block = receiver.waiting.pop_front()?;
        self.waiting -= 1;
        receiver.under_way += u64::from(block.len);
        self.under_way += u64::from(block.len);
        Some((link, block))
    }

    /// Bytes are with the network. More than are on their way count as all
    /// that are.
    pub fn sent(&mut self, link: LinkId, bytes: u64) {
        if let Some(receiver) = self.receivers.get_mut(&link) {
            let bytes = bytes.min(receiver.under_way);
            receiver.under_way -= bytes;
            receiver.sent += bytes;
            self.under_way -= bytes;
        }
    }

    /// Bytes that were on their way will never be with the network: they
    /// could not be read.
    pub fn failed(&mut self, link: LinkId, bytes: u64) {
        if let Some(receiver) = self.receivers.get_mut(&link) {
            let bytes = bytes.min(receiver.under_way);
            receiver.under_way -= bytes;
            self.under_way -= bytes;
        }
    }

    /// A link is gone, with all that it asked for and all that was on its way.
    pub fn link_removed(&mut self, link: LinkId) {
        if let Some(receiver) = self.receivers.remove(&link) {
            self.under_way -= receiver.under_way;
            self.waiting -= receiver.waiting.len();
        }
    }

    /// Bytes on their way.
    pub fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Panics where the counts contradict each other. For tests.
    pub fn check_invariants(&self) {
        let sum: u64 = self.receivers.values().map(|r| r.under_way).sum();
        assert_eq!(sum, self.under_way);
        let waiting: usize = self.receivers.values().map(|r| r.waiting.len()).sum();
        assert_eq!(waiting, self.waiting);
        assert!(
            self.receivers
                .values()
                .all(|r| r.waiting.len() <= self.max_requests)
        );
    }
}
