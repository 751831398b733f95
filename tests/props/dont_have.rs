//! Chunks that are taken back: nobody asks for them, nobody is blamed for them, and nobody
//! gains by taking them back over and over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{
    DropReason, LinkId, Output, ReadWindow, Swarm, SwarmConfig, SwarmEvent,
};
use bt_lite::protocol::{DONT_HAVE_MARK, PeerId, PeerMessage};
use bt_lite::{Bitfield, ChunkIndex};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::{LARGE, SMALL, Sample, link_info};

const CHUNK: u64 = 16 << 10;
const MARK: PeerMessage = PeerMessage::Cancel(DONT_HAVE_MARK);

/// A machine, and a driver whose storage is at once ready.
struct One {
    swarm: Swarm,
    sample: Sample,
    now: Instant,
    links: u64,
    /// What it has sent since this was last looked at.
    sent: Vec<(LinkId, PeerMessage)>,
    dropped: Vec<(LinkId, DropReason)>,
}

impl One {
    fn new(sample: &Sample, window: Option<u64>) -> Self {
        let now = Instant::now();
        let (config, id) = (SwarmConfig::default(), sample.manifest.id());
        let swarm = Swarm::leecher(now, config, PeerId([99; 16]), id);
        Self {
            swarm: match window {
                Some(window) => swarm.passing(window),
                None => swarm,
            },
            sample: sample.clone(),
            now,
            links: 0,
            sent: Vec::new(),
            dropped: Vec::new(),
        }
    }

    fn up(&mut self) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        let info = link_info(PeerId([self.links as u8; 16]), None, false);
        self.swarm.link_up(self.now, link, info);
        self.settle();
        link
    }

    fn hears(&mut self, link: LinkId, message: PeerMessage) {
        self.swarm.handle_message(self.now, link, message);
        self.settle();
    }

    fn knows_the_manifest(&mut self, from: LinkId) {
        for page in 0..2 {
            self.hears(from, self.sample.page(page).unwrap());
        }
        assert!(self.swarm.manifest().is_some());
    }

    fn answers(&mut self, link: LinkId, block: BlockRange, with_it: bool) {
        let message = match with_it {
            true => PeerMessage::Block {
                chunk: block.chunk,
                offset: block.offset,
                data: self.sample.block(block),
            },
            false => PeerMessage::Reject(block),
        };
        self.hears(link, message);
    }

    fn settle(&mut self) {
        self.swarm.check_invariants();
        let now = self.now;
        while let Some(output) = self.swarm.poll_output() {
            match output {
                Output::Send { link, message } => {
                    let bytes = match &message {
                        PeerMessage::Block { data, .. } => data.len() as u64,
                        _ => 0,
                    };
                    self.sent.push((link, message));
                    self.swarm.messages_sent(now, link, 1, bytes);
                }
                Output::Drop { link, reason } => self.dropped.push((link, reason)),
                Output::Open(manifest) => {
                    let none = Bitfield::none(manifest.geometry().chunks());
                    self.swarm.opened(now, &none, &none);
                }
                Output::Verify { chunk, pieces, .. } => {
                    let good = self.sample.is_good(chunk, &pieces);
                    self.swarm.chunk_verified(now, chunk, good);
                }
                Output::Store { chunk, .. } => self.swarm.chunk_stored(now, chunk),
                Output::Commit { .. } => self.swarm.committed(now),
                Output::Read { link, block } => {
                    let data = Some(self.sample.block(block));
                    self.swarm.block_read(now, link, block, data);
                }
                Output::Event(SwarmEvent::Banned(banned)) => panic!("{banned:?}"),
                _ => {}
            }
        }
        self.swarm.check_invariants();
    }

    /// What was sent on a link since this was last called.
    fn said(&mut self, to: LinkId) -> Vec<PeerMessage> {
        let (said, rest) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(link, _)| *link == to);
        self.sent = rest;
        said.into_iter().map(|(_, message)| message).collect()
    }

    fn requests(&mut self, to: LinkId) -> Vec<BlockRange> {
        let requests = self.said(to).into_iter();
        let requests = requests.filter_map(|message| match message {
            PeerMessage::Request(block) => Some(block),
            _ => None,
        });
        requests.collect()
    }
}

fn chunks(blocks: &[BlockRange]) -> BTreeSet<u32> {
    blocks.iter().map(|block| block.chunk.0).collect()
}

/// A machine with a link that says to understand, and has some chunks.
fn with_owner(sample: &Sample, has: &[u32]) -> (One, LinkId) {
    let mut one = One::new(sample, None);
    let owner = one.up();
    one.hears(owner, PeerMessage::HaveNone);
    assert!(!one.said(owner).contains(&MARK), "nobody asked");
    one.hears(owner, MARK);
    one.hears(owner, MARK);
    let said = one.said(owner);
    assert_eq!(said.iter().filter(|said| **said == MARK).count(), 1);
    for chunk in has {
        one.hears(owner, PeerMessage::Have(ChunkIndex(*chunk)));
    }
    one.knows_the_manifest(owner);
    (one, owner)
}

#[test]
fn chunk_that_is_taken_back_is_not_asked_for_until_it_is_there_again() {
    let (mut one, owner) = with_owner(&SMALL[4], &[0, 1]);
    let asked = one.requests(owner);
    assert_eq!(chunks(&asked), BTreeSet::from([0, 1]));
    let of = |chunk| *asked.iter().find(|block| block.chunk.0 == chunk).unwrap();
    one.hears(owner, PeerMessage::DontHave(ChunkIndex(1)));
    // What crossed it is rejected, and comes from nobody else meanwhile.
    one.answers(owner, of(1), false);
    one.answers(owner, of(0), true);
    assert_eq!(one.requests(owner), []);
    let other = one.up();
    one.hears(other, PeerMessage::HaveNone);
    one.hears(other, PeerMessage::Have(ChunkIndex(1)));
    assert_eq!(chunks(&one.requests(other)), BTreeSet::from([1]));
    one.hears(owner, PeerMessage::Have(ChunkIndex(2)));
    let asked = one.requests(owner);
    assert_eq!(chunks(&asked), BTreeSet::from([2]));
    one.hears(owner, PeerMessage::DontHave(ChunkIndex(2)));
    one.answers(owner, asked[0], false);
    assert_eq!(one.requests(owner), []);
    one.hears(owner, PeerMessage::Have(ChunkIndex(2)));
    assert_eq!(chunks(&one.requests(owner)), BTreeSet::from([2]));
    assert_eq!(one.dropped, []);
}

#[test]
fn block_that_crosses_is_taken_all_the_same() {
    let (mut one, owner) = with_owner(&SMALL[4], &[0, 1]);
    let asked = one.requests(owner);
    for block in asked {
        one.hears(owner, PeerMessage::DontHave(block.chunk));
        one.answers(owner, block, true);
    }
    assert_eq!(one.dropped, []);
    assert_eq!(one.swarm.progress(one.now).wasted, 0);
    assert_eq!(one.swarm.verified_chunks().unwrap().count(), 2);
}

#[test]
fn chunk_is_taken_back_before_the_manifest_is_known() {
    let mut one = One::new(&SMALL[4], None);
    let owner = one.up();
    one.hears(owner, PeerMessage::HaveNone);
    one.hears(owner, MARK);
    for message in [
        PeerMessage::Have(ChunkIndex(0)),
        PeerMessage::Have(ChunkIndex(3)),
        PeerMessage::DontHave(ChunkIndex(0)),
        PeerMessage::DontHave(ChunkIndex(5)),
    ] {
        one.hears(owner, message);
    }
    one.knows_the_manifest(owner);
    assert_eq!(chunks(&one.requests(owner)), BTreeSet::from([3]));
    one.hears(owner, PeerMessage::DontHave(ChunkIndex(6)));
    assert_eq!(one.dropped.len(), 1, "the content has no such chunk");
}

#[test]
fn who_was_not_told_that_it_is_understood_may_not_take_back() {
    let mut one = One::new(&SMALL[4], None);
    let owner = one.up();
    one.hears(owner, PeerMessage::HaveNone);
    one.hears(owner, PeerMessage::Have(ChunkIndex(0)));
    one.hears(owner, PeerMessage::DontHave(ChunkIndex(0)));
    assert!(matches!(
        one.dropped[..],
        [(link, DropReason::Violation(_))] if link == owner
    ));
}

#[test]
fn who_takes_back_over_and_over_is_dropped() {
    for (chokes, answers) in [(false, false), (false, true), (true, false)] {
        let (mut one, owner) = with_owner(&SMALL[4], &[0, 1]);
        if chokes {
            one.hears(owner, PeerMessage::Choke);
        }
        let mut times = 0;
        while one.dropped.is_empty() {
            let asked = one.requests(owner);
            one.hears(owner, PeerMessage::DontHave(ChunkIndex(0)));
            let crossed = |block: &BlockRange| answers && block.chunk.0 == 0;
            for block in asked.into_iter().filter(crossed) {
                one.answers(owner, block, false);
            }
            one.hears(owner, PeerMessage::Have(ChunkIndex(0)));
            times += 1;
            assert!(times < 70, "{chokes} {answers}");
        }
        assert!(times > 30, "{chokes} {answers}");
    }
}

#[test]
fn stream_offers_its_window_to_those_who_understand_and_takes_it_back() {
    let mut one = One::new(&SMALL[4], Some(3 * CHUNK));
    let (seeder, old, new) = (one.up(), one.up(), one.up());
    for link in [seeder, old, new] {
        assert_eq!(one.said(link)[..2], [PeerMessage::HaveNone, MARK]);
    }
    one.hears(seeder, PeerMessage::HaveAll);
    one.hears(old, PeerMessage::HaveNone);
    one.hears(new, PeerMessage::HaveNone);
    one.hears(new, MARK);
    one.knows_the_manifest(seeder);
    loop {
        let asked = one.requests(seeder);
        if asked.is_empty() {
            break;
        }
        for block in asked {
            one.answers(seeder, block, true);
        }
    }
    let haves = |said: Vec<PeerMessage>| {
        let mut haves = said;
        haves.retain(|said| matches!(said, PeerMessage::Have(_) | PeerMessage::DontHave(_)));
        haves
    };
    let have = |chunk| PeerMessage::Have(ChunkIndex(chunk));
    let lost = |chunk| PeerMessage::DontHave(ChunkIndex(chunk));
    let mut told = haves(one.said(new));
    told.sort_by_key(|said| format!("{said:?}"));
    assert_eq!(told, [have(0), have(1), have(2)]);
    let block = |chunk| BlockRange {
        chunk: ChunkIndex(chunk),
        offset: 0,
        len: 1000,
    };
    one.hears(new, PeerMessage::Request(block(0)));
    let is_block = |said: &PeerMessage| matches!(said, PeerMessage::Block { .. });
    assert!(one.said(new).iter().any(is_block));
    // The reader comes to the third chunk.
    let window = ReadWindow::new(2 * CHUNK + 5, CHUNK, None);
    one.swarm.set_read_windows(one.now, &[window]);
    one.settle();
    assert_eq!(haves(one.said(new)), [lost(0), lost(1)]);
    for (chunk, served) in [(1, false), (2, true)] {
        one.hears(new, PeerMessage::Request(block(chunk)));
        let said = one.said(new);
        assert_eq!(said.iter().any(is_block), served, "{said:?}");
        let rejected = said.contains(&PeerMessage::Reject(block(chunk)));
        assert_eq!(rejected, !served);
    }
    // One that comes now hears of what is here only.
    let late = one.up();
    one.hears(late, PeerMessage::HaveNone);
    one.hears(late, MARK);
    assert_eq!(haves(one.said(late)), [have(2)]);
    // And the others of nothing.
    one.hears(old, PeerMessage::Request(block(1)));
    let said = one.said(old);
    assert_eq!(haves(said.clone()), []);
    assert!(said.contains(&PeerMessage::Reject(block(1))));
    assert_eq!(haves(one.said(seeder)), []);
    assert_eq!(one.dropped, []);
}

#[derive(Debug, Clone)]
enum Op {
    Have(u32),
    DontHave(u32),
    /// The oldest request is answered, with the block or not.
    Answer(bool),
    Wait(u64),
    Choke(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..65u32).prop_map(Op::Have),
        2 => (0..65u32).prop_map(Op::DontHave),
        6 => any::<bool>().prop_map(Op::Answer),
        1 => (0..3000u64).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Choke),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever two links say, nothing is asked of one that has taken it back.
    #[test]
    fn nothing_is_asked_of_a_link_that_lacks_it(
        ops in vec((any::<bool>(), op()), 1..200),
    ) {
        let (mut one, first) = with_owner(&LARGE, &[0]);
        let second = one.up();
        one.hears(second, PeerMessage::HaveNone);
        one.hears(second, MARK);
        let links = [first, second];
        let mut has = [BTreeSet::from([0]), BTreeSet::new()];
        // The first was asked at once.
        let mut asked = links.map(|link| one.requests(link));
        let last = LARGE.manifest.geometry().chunks() - 1;
        for (which, op) in ops {
            let at = usize::from(which);
            match op {
                // A chunk that is not there is a violation.
                Op::Have(chunk) => {
                    has[at].insert(chunk.min(last));
                    one.hears(links[at], PeerMessage::Have(ChunkIndex(chunk.min(last))));
                }
                Op::DontHave(chunk) => {
                    has[at].remove(&chunk.min(last));
                    one.hears(links[at], PeerMessage::DontHave(ChunkIndex(chunk.min(last))));
                }
                Op::Answer(with_it) if !asked[at].is_empty() => {
                    let block = asked[at].remove(0);
                    one.answers(links[at], block, with_it);
                }
                Op::Answer(_) => {}
                Op::Wait(ms) => {
                    one.now += Duration::from_millis(ms);
                    one.swarm.handle_timeout(one.now);
                    one.settle();
                }
                Op::Choke(choke) => {
                    let choke = if choke { PeerMessage::Choke } else { PeerMessage::Unchoke };
                    one.hears(links[at], choke);
                }
            }
            if !one.dropped.is_empty() {
                return Ok(());
            }
            for (at, link) in links.into_iter().enumerate() {
                for block in one.requests(link) {
                    prop_assert!(has[at].contains(&block.chunk.0), "{block:?}");
                    asked[at].push(block);
                }
            }
        }
    }
}
