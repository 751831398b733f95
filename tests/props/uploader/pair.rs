//! An uploader and its model, which are told the same.

use std::time::{Duration, Instant};

use bt_lite::peer::swarm::LinkId;
use bt_lite::protocol::HostKey;
use bt_lite::testing::machine::Uploader;

use super::model::Model;
use super::script::{BLOCK, CHUNK, LIMITS, Op, SEED, block, host_of};
use super::trials::Trial;

/// An uploader and its model.
pub(super) struct Pair {
    pub(super) uploader: Uploader,
    pub(super) model: Model,
    pub(super) now: Instant,
}

impl Pair {
    pub(super) fn new() -> Self {
        let mut uploader = Uploader::new(LIMITS, SEED);
        uploader.set_lengths(BLOCK, CHUNK);
        Self {
            uploader,
            model: Model::default(),
            now: Instant::now(),
        }
    }

    /// Does an operation of a script.
    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Add(link) => self.add(link, &host_of(link)),
            Op::Has(link, has, lacks) => self.has(link, has, lacks),
            Op::Gained(link, here) => self.gained(link, here),
            Op::Lacks(link) => self.lacks(link),
            Op::Declined(link, declined) => self.declined(link, declined),
            Op::Request(link, len) => self.request(link, len),
            Op::Cancel(link, len) => self.cancel(link, len),
            Op::Next => _ = self.next(),
            Op::Turns => self.settle(),
            Op::Sent(link) => self.sent(link),
            Op::Failed(link) => self.failed(link),
            Op::Misreported(link, more) => self.misreported(link, more),
            Op::Remove(link) => self.remove(link),
            Op::Old(link) => self.mark_never_told(link),
            Op::Wait(ms) => self.wait(Duration::from_millis(ms)),
        }
    }

    /// A link comes, unless it is here already.
    pub(super) fn add(&mut self, link: u64, host: &HostKey) {
        if !self.model.links.contains_key(&link) {
            self.model.add(self.now, link, host);
            self.uploader.link_added(self.now, LinkId(link), host);
        }
    }

    pub(super) fn remove(&mut self, link: u64) {
        self.uploader.link_removed(self.now, LinkId(link));
        self.model.remove(self.now, link);
    }

    pub(super) fn has(&mut self, link: u64, has: u32, lacks: u32) {
        self.uploader.link_has(LinkId(link), has, lacks);
        self.model.has(link, has, lacks);
    }

    pub(super) fn gained(&mut self, link: u64, here: bool) {
        self.uploader.link_gained(LinkId(link), here);
        self.model.gained(link, here);
    }

    pub(super) fn lacks(&mut self, link: u64) {
        self.uploader.link_lacks(LinkId(link));
        if let Some(receiver) = self.model.links.get_mut(&link) {
            receiver.lacks += 1;
        }
    }

    pub(super) fn declined(&mut self, link: u64, declined: bool) {
        self.uploader.link_declined(LinkId(link), declined);
        if let Some(receiver) = self.model.links.get_mut(&link) {
            receiver.declined = declined;
        }
    }

    pub(super) fn mark_never_told(&mut self, link: u64) {
        self.uploader.mark_never_told(LinkId(link));
        if let Some(receiver) = self.model.links.get_mut(&link) {
            receiver.old = true;
        }
    }

    /// A link asks for a block of that length.
    pub(super) fn request(&mut self, link: u64, len: u32) {
        let accepted = self.uploader.requested(LinkId(link), block(len));
        let Some(receiver) = self.model.links.get_mut(&link) else {
            assert!(!accepted);
            return;
        };
        let fits = !receiver.choked && receiver.waiting.len() < LIMITS.requests;
        assert_eq!(accepted, fits);
        (receiver.declined, receiver.invited) = (false, None);
        receiver.waiting.extend(fits.then_some(block(len)));
        self.model.account_mut(link).passed = false;
    }

    pub(super) fn cancel(&mut self, link: u64, len: u32) {
        let cancelled = self.uploader.cancelled(LinkId(link), block(len));
        let waiting = self.model.links.get_mut(&link).map(|r| &mut r.waiting);
        let at = waiting.as_ref().and_then(|waiting| {
            let mut waiting = waiting.iter();
            waiting.position(|asked| *asked == block(len))
        });
        assert_eq!(cancelled, at.is_some());
        if let (Some(waiting), Some(at)) = (waiting, at) {
            waiting.remove(at);
        }
    }

    /// Begins to send a block, if there is one. Returns the link it goes to.
    pub(super) fn next(&mut self) -> Option<u64> {
        let (LinkId(link), block) = self.uploader.next_block(self.now)?;
        let receiver = self.model.links.get_mut(&link).expect("it is there");
        assert_eq!(receiver.waiting.pop_front(), Some(block));
        if receiver.has == 0 && receiver.trial == Trial::None {
            receiver.trial = Trial::Began(self.now);
        }
        if receiver.bytes() == 0 {
            receiver.moved = Some(self.now);
        }
        receiver.under_way.push_back(block.len.into());
        receiver.turn += u64::from(block.len);
        Some(link)
    }

    /// The first block on its way to a link is with the network.
    pub(super) fn sent(&mut self, link: u64) {
        let receiver = self.model.links.get_mut(&link);
        if let Some(len) = receiver.and_then(|r| r.under_way.pop_front()) {
            self.uploader.sent(self.now, LinkId(link), len);
            self.model.sent(self.now, link, len);
        }
    }

    /// Everything on its way is with the network.
    pub(super) fn sent_all(&mut self) {
        let links: Vec<u64> = self.model.links.keys().copied().collect();
        for link in links {
            while !self.model.links[&link].under_way.is_empty() {
                self.sent(link);
            }
        }
    }

    /// Everything on its way to a link is with the network, which claims some
    /// bytes more.
    pub(super) fn misreported(&mut self, link: u64, more: u64) {
        if let Some(receiver) = self.model.links.get_mut(&link) {
            let bytes = receiver.bytes();
            receiver.under_way.clear();
            let claimed = bytes.saturating_add(more);
            self.uploader.sent(self.now, LinkId(link), claimed);
            self.model.sent(self.now, link, bytes);
        }
    }

    /// The first block on its way to a link could not be read.
    pub(super) fn failed(&mut self, link: u64) {
        let receiver = self.model.links.get_mut(&link);
        if let Some(len) = receiver.and_then(|r| r.under_way.pop_front()) {
            self.uploader.failed(self.now, LinkId(link), len);
        }
    }

    /// Makes the uploader look at turns: a mere change of the order of links
    /// does not.
    fn look(&mut self) {
        let first = self.model.links.iter().next();
        if let Some((link, declined)) = first.map(|(&link, r)| (link, r.declined)) {
            self.declined(link, declined);
        }
    }

    /// Begins all blocks and takes all turns, and compares each with the model.
    pub(super) fn settle(&mut self) {
        self.look();
        for turns in 0.. {
            while self.next().is_some() {}
            let turn = self.uploader.next_turn(self.now);
            assert_eq!(self.model.next_turn(self.now), turn);
            assert!(turns < 100, "turns change without end");
            if turn.is_none() {
                break;
            }
        }
        let due = self.uploader.poll_timeout();
        assert!(
            due.is_none_or(|due| due > self.now),
            "a timeout that passed"
        );
        let expected = self.model.looks_again(self.now);
        assert!(expected.is_none_or(|at| due.is_some_and(|due| due <= at)));
    }

    /// Each link whose turn it is asks for a chunk and gets what goes out. Those
    /// that tell do so for each chunk.
    pub(super) fn round(&mut self, tells: impl Fn(u64) -> bool) {
        self.settle();
        let asking = self.model.links.iter();
        let asking = asking.filter(|(_, r)| !r.choked && r.lacks > 0);
        let asking: Vec<u64> = asking.map(|(&link, _)| link).collect();
        for link in asking {
            while self.model.links[&link].waiting.len() < LIMITS.requests {
                self.request(link, BLOCK as u32);
            }
        }
        self.settle();
        self.sent_all();
        let links: Vec<u64> = self.model.links.keys().copied().collect();
        for link in links {
            if tells(link) && self.model.links[&link].untold >= CHUNK {
                self.gained(link, true);
            }
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn sent_to(&self, link: u64) -> u64 {
        self.uploader.sent_to(LinkId(link))
    }
}
