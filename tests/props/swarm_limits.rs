//! A machine that is limited: what passes is what was allowed, and what is not used comes
//! back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{
    Allowance, AllowanceKind, Direction, DropReason, LinkId, Output, Swarm, SwarmConfig,
};
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::{LARGE, SMALL, Sample, link_info};

/// What page 0 of a manifest counts as.
const LENGTH: u64 = (1 << 10) + 14 * 32;

fn peer(number: u8) -> PeerId {
    PeerId([number; 16])
}

/// A machine, and the driver that does all that it says except what the limits forbid.
struct Limited {
    swarm: Swarm,
    sample: Sample,
    now: Instant,
    /// What it wished for and was not allowed yet.
    wishes: VecDeque<Allowance>,
    /// Bytes that were allowed, less those that came back.
    allowed: u64,
    /// The unanswered requests for pages and blocks.
    pages: VecDeque<(LinkId, u32)>,
    asked: VecDeque<(LinkId, BlockRange)>,
    /// Bytes of the blocks that were read for others.
    read: u64,
    choked: bool,
    up: Vec<LinkId>,
    links: u64,
}

impl Limited {
    fn new(sample: &Sample, seeding: bool, direction: Direction) -> Self {
        let mut config = SwarmConfig::default();
        config.max_unverified = 64 << 20;
        let (now, manifest) = (Instant::now(), sample.manifest.clone());
        let mut swarm = match seeding {
            true => Swarm::seeder(now, config, peer(99), manifest),
            false => Swarm::leecher(now, config, peer(99), manifest.id()),
        };
        swarm.set_limited(now, direction, true);
        Self {
            swarm,
            sample: sample.clone(),
            now,
            wishes: VecDeque::new(),
            allowed: 0,
            pages: VecDeque::new(),
            asked: VecDeque::new(),
            read: 0,
            choked: false,
            up: Vec::new(),
            links: 0,
        }
    }

    fn up(&mut self, number: u8) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        self.up.push(link);
        self.swarm
            .link_up(self.now, link, link_info(peer(number), None, false));
        link
    }

    fn hears(&mut self, link: LinkId, message: PeerMessage) {
        self.swarm.handle_message(self.now, link, message);
        self.settle();
    }

    /// Does what the machine says, and collects what it wishes for.
    fn settle(&mut self) {
        loop {
            self.swarm.check_invariants();
            while let Some(output) = self.swarm.poll_output() {
                self.output(output);
            }
            let before = (self.wishes.len(), self.allowed);
            while let Some(wish) = self.swarm.poll_wish() {
                assert!(wish.bytes > 0);
                let is_same =
                    |other: &Allowance| (other.kind, &other.host) == (wish.kind, &wish.host);
                assert!(!self.wishes.iter().any(is_same), "wished for twice");
                self.wishes.push_back(wish);
            }
            while let Some(returned) = self.swarm.poll_returned() {
                self.allowed = self.allowed.checked_sub(returned.bytes).expect("too much");
            }
            if before == (self.wishes.len(), self.allowed) {
                return;
            }
        }
    }

    fn output(&mut self, output: Output) {
        let now = self.now;
        match output {
            Output::Send { link, message } => {
                let bytes = match &message {
                    PeerMessage::Block { data, .. } => data.len() as u64,
                    _ => 0,
                };
                match message {
                    PeerMessage::ManifestRequest { page } => self.pages.push_back((link, page)),
                    PeerMessage::Request(block) => self.asked.push_back((link, block)),
                    PeerMessage::Choke => self.choked = true,
                    PeerMessage::Unchoke => self.choked = false,
                    _ => {}
                }
                self.swarm.messages_sent(now, link, 1, bytes);
            }
            Output::Open(_) => {
                let none = Bitfield::none(self.sample.manifest.geometry().chunks());
                self.swarm.opened(now, &none, &none);
            }
            Output::Verify { chunk, pieces, .. } => {
                let good = self.sample.is_good(chunk, &pieces);
                self.swarm.chunk_verified(now, chunk, good);
            }
            Output::Store { chunk, .. } => self.swarm.chunk_stored(now, chunk),
            Output::Read { link, block } => {
                self.read += u64::from(block.len);
                let data = Some(self.sample.block(block));
                self.swarm.block_read(now, link, block, data);
            }
            Output::Commit { .. } => self.swarm.committed(now),
            Output::Finish => self.swarm.finished(now),
            Output::Drop { link, reason } => {
                // One that rejects all that is missing is of no use.
                let useless = DropReason::Refused(RefuseReason::NotNeeded);
                assert!(reason == useless, "{reason}");
                self.forget(link);
            }
            _ => {}
        }
    }

    /// A link is gone, and answers nothing.
    fn forget(&mut self, link: LinkId) {
        self.up.retain(|of| *of != link);
        self.pages.retain(|(of, _)| *of != link);
        self.asked.retain(|(of, _)| *of != link);
    }

    /// Allows the next wish.
    fn allow(&mut self) {
        if let Some(wish) = self.wishes.pop_front() {
            if wish.kind == AllowanceKind::Bytes {
                self.allowed += wish.bytes;
            }
            self.swarm.allow(self.now, &wish);
            self.settle();
        }
    }

    /// Bytes that were asked for and not answered.
    fn unanswered(&self) -> u64 {
        let blocks = self.asked.iter().map(|(_, block)| u64::from(block.len));
        let hashes = u64::from(self.sample.manifest.geometry().chunks()) * 32;
        let pages = self.pages.iter().map(|(_, page)| match page {
            0 => LENGTH,
            _ => hashes,
        });
        blocks.sum::<u64>() + pages.sum::<u64>()
    }

    /// Answers the oldest request. Returns how many bytes arrived.
    fn answer(&mut self, rejects: bool) -> u64 {
        if let Some((link, page)) = self.pages.pop_front() {
            let answer = self.sample.page(page).unwrap();
            self.hears(link, answer);
            return match page {
                0 => LENGTH,
                _ => u64::from(self.sample.manifest.geometry().chunks()) * 32,
            };
        }
        let Some((link, block)) = self.asked.pop_front() else {
            return 0;
        };
        if rejects {
            // It has it after all.
            self.hears(link, PeerMessage::Reject(block));
            self.hears(link, PeerMessage::Have(block.chunk));
            return 0;
        }
        let data = self.sample.block(block);
        let (chunk, offset) = (block.chunk, block.offset);
        self.hears(
            link,
            PeerMessage::Block {
                chunk,
                offset,
                data,
            },
        );
        block.len.into()
    }

    fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(at) = self.swarm.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.swarm.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }
}

#[test]
fn limited_leecher_asks_for_nothing_that_is_not_allowed_however_long_it_waits() {
    let mut leecher = Limited::new(&LARGE, false, Direction::Download);
    let link = leecher.up(1);
    leecher.hears(link, PeerMessage::HaveAll);
    // Nobody is blamed for it, and nobody gives up.
    leecher.wait(3_600_000);
    assert_eq!(leecher.unanswered(), 0);
    leecher.allow();
    assert_eq!(leecher.pages, [(link, 0)]);
    leecher.answer(false);
    leecher.wait(3_600_000);
    leecher.allow();
    assert_eq!(leecher.pages, [(link, 1)]);
    leecher.answer(false);
    leecher.wait(3_600_000);
    assert!(leecher.asked.is_empty());
    leecher.allow();
    assert_eq!(leecher.asked.len(), 1);
    let hashes = 32 * u64::from(leecher.sample.manifest.geometry().chunks());
    assert_eq!(leecher.allowed, leecher.unanswered() + LENGTH + hashes);
}

#[test]
fn lifted_limit_lets_everything_pass() {
    let mut leecher = Limited::new(&LARGE, false, Direction::Download);
    let link = leecher.up(1);
    leecher.hears(link, PeerMessage::HaveAll);
    let now = leecher.now;
    leecher.swarm.set_limited(now, Direction::Download, false);
    leecher.settle();
    while !leecher.swarm.is_seeding() {
        assert!(leecher.answer(false) > 0, "nothing is asked for");
    }
}

#[test]
fn limited_seeder_chokes_whom_it_keeps_waiting_and_invites_them_before_it_sends() {
    let mut seeder = Limited::new(&LARGE, true, Direction::Upload);
    let link = seeder.up(1);
    seeder.hears(link, PeerMessage::HaveNone);
    let block = |number| BlockRange {
        chunk: ChunkIndex(number),
        offset: 0,
        len: 16 << 10,
    };
    seeder.hears(link, PeerMessage::Request(block(0)));
    seeder.hears(link, PeerMessage::Request(block(1)));
    seeder.allow();
    assert_eq!(seeder.read, 16 << 10);
    seeder.wait(200);
    assert!(!seeder.choked);
    seeder.wait(100);
    assert!(seeder.choked, "the other side would wait in vain");
    // It waits for its next block as before, and may be invited.
    let kinds: Vec<AllowanceKind> = seeder.wishes.iter().map(|wish| wish.kind).collect();
    assert_eq!(kinds, [AllowanceKind::Bytes, AllowanceKind::Invitation]);
    seeder.wait(60_000);
    seeder.wishes.rotate_left(1);
    seeder.allow();
    assert!(!seeder.choked);
    seeder.hears(link, PeerMessage::Request(block(1)));
    assert_eq!(seeder.read, 16 << 10);
    seeder.allow();
    assert_eq!(seeder.read, 32 << 10);
    assert_eq!(seeder.allowed, 32 << 10);
}

#[test]
fn allowance_of_a_link_that_is_gone_comes_back() {
    let mut leecher = Limited::new(&SMALL[4], false, Direction::Download);
    let link = leecher.up(1);
    leecher.hears(link, PeerMessage::HaveAll);
    for _ in 0..2 {
        leecher.allow();
        leecher.answer(false);
    }
    leecher.allow();
    leecher.allow();
    assert_eq!(leecher.asked.len(), 2);
    let before = leecher.allowed;
    let now = leecher.now;
    leecher.swarm.link_down(now, link);
    leecher.settle();
    assert_eq!(leecher.allowed, before - (32 << 10));
    // What is allowed too late comes back as well.
    leecher.allow();
    assert_eq!(leecher.allowed, before - (32 << 10));
}

#[test]
fn what_was_allowed_for_a_link_that_is_gone_counts_for_the_next_one_of_its_host() {
    let mut leecher = Limited::new(&SMALL[4], false, Direction::Download);
    let first = leecher.up(2);
    leecher.hears(first, PeerMessage::HaveAll);
    leecher.allow();
    let passed = leecher.answer(false);
    // A short page is wished for, and then a longer one of another link.
    let second = leecher.up(2);
    leecher.hears(second, PeerMessage::HaveAll);
    leecher.forget(first);
    let now = leecher.now;
    leecher.swarm.link_down(now, first);
    leecher.settle();
    leecher.allow();
    assert!(leecher.pages.is_empty());
    assert!(leecher.allowed > passed);
    leecher.allow();
    assert_eq!(leecher.pages, [(second, 0)]);
    assert_eq!(leecher.allowed, passed + leecher.unanswered());
}

#[derive(Debug, Clone)]
enum Step {
    Allow,
    Answer,
    Reject,
    Wait(u64),
    Come(u8),
    Go(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Allow),
        6 => Just(Step::Answer),
        1 => Just(Step::Reject),
        2 => (0..100u64).prop_map(Step::Wait),
        1 => (1..5u8).prop_map(Step::Come),
        1 => (0..4u8).prop_map(Step::Go),
    ]
}

proptest! {
    /// Whatever happens in whatever order, as much is allowed as was asked for, and
    /// answered or not, unless more is wished for; and in the end the download is complete.
    #[test]
    fn what_passes_is_what_was_allowed(steps in vec(step(), 1..200)) {
        let mut leecher = Limited::new(&SMALL[4], false, Direction::Download);
        let mut passed = 0;
        for step in steps {
            match step {
                Step::Allow => leecher.allow(),
                Step::Answer => passed += leecher.answer(false),
                Step::Reject => passed += leecher.answer(true),
                Step::Wait(millis) => leecher.wait(millis),
                Step::Come(number) => {
                    let link = leecher.up(number);
                    leecher.hears(link, PeerMessage::HaveAll);
                }
                Step::Go(number) => {
                    let Some(&link) = leecher.up.get(usize::from(number)) else {
                        continue;
                    };
                    leecher.forget(link);
                    let now = leecher.now;
                    leecher.swarm.link_down(now, link);
                    leecher.settle();
                }
            }
            if leecher.swarm.is_seeding() {
                return Ok(());
            }
            let used = passed + leecher.unanswered();
            match leecher.wishes.is_empty() {
                true => prop_assert_eq!(leecher.allowed, used),
                // A part of what is wished for may be here.
                false => prop_assert!(leecher.allowed >= used),
            }
        }
        let link = leecher.up(9);
        leecher.hears(link, PeerMessage::HaveAll);
        for _ in 0..1000 {
            leecher.allow();
            leecher.answer(false);
        }
        prop_assert!(leecher.swarm.is_seeding(), "the download stops");
    }
}
