//! The line of a busy seeder, and the other end of it, beside naive models.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo, Output, StallReason, Swarm, SwarmConfig};
use bt_lite::protocol::limits::MAX_REQUESTS;
use bt_lite::protocol::{Addr, PeerId, PeerMessage, RefuseReason};
use bt_lite::{ChunkIndex, Manifest, Zone};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::link_info;

const PLACES: usize = 1;
const MAX_WAITING: usize = 6;
const CHUNK: u32 = 16 << 10;

fn addr(host: u8, port: u64) -> Addr {
    format!("host{host}:{port}").parse().unwrap()
}

fn drain(swarm: &mut Swarm) -> Vec<Output> {
    swarm.check_invariants();
    std::iter::from_fn(|| swarm.poll_output()).collect()
}

/// A seeder whose places are all taken by links that were served.
struct Busy {
    swarm: Swarm,
    now: Instant,
    held: Vec<LinkId>,
    links: u64,
}

impl Busy {
    fn new() -> Self {
        let mut busy = Self::with_places(PLACES, 50_000);
        for host in 0..PLACES as u8 {
            let link = busy.up(100 + host).0;
            busy.serve(link);
        }
        busy
    }

    /// A seeder without links.
    fn with_places(places: usize, length: usize) -> Self {
        let manifest = Manifest::of(&vec![7; length]).unwrap();
        let mut config = SwarmConfig::default();
        (config.max_links, config.max_waiting) = (places, MAX_WAITING);
        let now = Instant::now();
        let swarm = Swarm::seeder(now, config, PeerId([0xff; 16]), manifest.into());
        let (held, links) = (Vec::new(), 0);
        Self {
            swarm,
            now,
            held,
            links,
        }
    }

    /// A link comes from a host. Returns what the machine does.
    fn up(&mut self, host: u8) -> (LinkId, Vec<Output>) {
        self.links += 1;
        let link = LinkId(self.links);
        let at = Some(addr(host, self.links));
        let info = link_info(PeerId([self.links as u8; 16]), at, false);
        self.swarm.link_up(self.now, link, info);
        (link, drain(&mut self.swarm))
    }

    fn hears(&mut self, link: LinkId, message: PeerMessage) -> Vec<Output> {
        self.swarm.handle_message(self.now, link, message);
        drain(&mut self.swarm)
    }

    /// A link asks for so many bytes of a chunk, and gets them.
    fn send(&mut self, link: LinkId, chunk: u32, len: u32) {
        let (chunk, offset) = (ChunkIndex(chunk), 0);
        let block = BlockRange { chunk, offset, len };
        self.hears(link, PeerMessage::Request(block));
        let data = Some(vec![7; len as usize].into());
        self.swarm.block_read(self.now, link, block, data);
        let len = len.into();
        self.swarm.messages_sent(self.now, link, 100, len);
        drain(&mut self.swarm);
    }

    /// A link gets the first chunks, and tells of them.
    fn send_chunks(&mut self, link: LinkId, chunks: u32) {
        for chunk in 0..chunks {
            self.send(link, chunk, CHUNK);
            self.hears(link, PeerMessage::Have(ChunkIndex(chunk)));
        }
    }

    /// Makes a link one that something was exchanged with, so that it keeps its place.
    fn serve(&mut self, link: LinkId) {
        self.hears(link, PeerMessage::Bitfield(vec![0x80].into()));
        self.send(link, 1, 5);
        self.held.push(link);
    }

    /// After how many seconds a link that comes from a host gets a place. The others do
    /// something each second.
    fn placed_after(&mut self, host: u8, mut others: impl FnMut(&mut Self)) -> (u64, LinkId) {
        let (waiting, outputs) = self.up(host);
        let greeting = Output::Send {
            link: waiting,
            message: PeerMessage::HaveAll,
        };
        self.hears(waiting, PeerMessage::HaveNone);
        if outputs.contains(&greeting) {
            return (0, waiting);
        }
        for second in 1..1000 {
            others(self);
            let end = self.now + Duration::from_secs(1);
            while let Some(at) = self.swarm.poll_timeout().filter(|at| *at <= end) {
                self.now = at.max(self.now);
                self.swarm.handle_timeout(self.now);
                if drain(&mut self.swarm).contains(&greeting) {
                    return (second, waiting);
                }
            }
            self.now = end;
        }
        panic!("it gets no place");
    }
}

/// The hosts in the order of their turns, and the links of each.
#[derive(Default)]
struct Line(VecDeque<(u8, VecDeque<LinkId>)>);

impl Line {
    fn len(&self) -> usize {
        self.0.iter().map(|(_, links)| links.len()).sum()
    }

    fn join(&mut self, host: u8, link: LinkId) {
        match self.0.iter_mut().find(|(other, _)| *other == host) {
            Some((_, links)) => links.push_back(link),
            None => self.0.push_back((host, VecDeque::from([link]))),
        }
    }

    /// Takes turns until the link has a place.
    fn position(&self, link: LinkId) -> u32 {
        let mut line = Self(self.0.clone());
        for position in 1.. {
            if line.next() == Some(link) {
                return position;
            }
        }
        unreachable!()
    }

    fn next(&mut self) -> Option<LinkId> {
        let (host, mut links) = self.0.pop_front()?;
        let link = links.pop_front();
        if !links.is_empty() {
            self.0.push_back((host, links));
        }
        link
    }

    fn remove(&mut self, link: LinkId) {
        for (_, links) in &mut self.0 {
            links.retain(|other| *other != link);
        }
        self.0.retain(|(_, links)| !links.is_empty());
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// A link comes from a host.
    Up(u8),
    /// A link that waits goes.
    Down(prop::sample::Index),
    /// A link with a place goes.
    Free(prop::sample::Index),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..4).prop_map(Op::Up),
        1 => any::<prop::sample::Index>().prop_map(Op::Down),
        2 => any::<prop::sample::Index>().prop_map(Op::Free),
    ]
}

proptest! {
    #[test]
    fn hosts_get_places_in_turns_in_the_order_in_which_they_came(ops in vec(op(), 1..40)) {
        let (mut busy, mut line) = (Busy::new(), Line::default());
        for op in ops {
            match op {
                Op::Up(host) => {
                    let (link, outputs) = busy.up(host);
                    if line.len() == MAX_WAITING {
                        let refused = outputs.iter().find_map(|output| match output {
                            Output::Drop { link, reason } => Some((*link, *reason)),
                            _ => None,
                        });
                        let (gone, reason) = refused.expect("the line is full");
                        prop_assert_eq!(reason, DropReason::Refused(RefuseReason::Busy));
                        if gone == link {
                            continue;
                        }
                        let of = |host: u8| line.0.iter().find(|(h, _)| *h == host);
                        let own = of(host).map_or(0, |(_, links)| links.len());
                        let most = line.0.iter().map(|(_, links)| links.len()).max().unwrap();
                        let (_, from) = line.0.iter().find(|(_, l)| l.contains(&gone)).unwrap();
                        prop_assert!(from.len() == most && most >= own + 2);
                        prop_assert_eq!(from.back(), Some(&gone));
                        line.remove(gone);
                    }
                    line.join(host, link);
                    let position = line.position(link);
                    let message = PeerMessage::Queued { position };
                    let told = Output::Send { link, message };
                    prop_assert!(outputs.contains(&told), "{:?}", outputs);
                }
                Op::Down(index) => {
                    let links: Vec<LinkId> = line.0.iter().flat_map(|(_, l)| l.clone()).collect();
                    if !links.is_empty() {
                        let link = *index.get(&links);
                        line.remove(link);
                        busy.swarm.link_down(busy.now, link);
                        prop_assert!(drain(&mut busy.swarm).is_empty());
                    }
                }
                Op::Free(index) => {
                    let at = index.index(busy.held.len());
                    let gone = busy.held.swap_remove(at);
                    busy.swarm.link_down(busy.now, gone);
                    let outputs = drain(&mut busy.swarm);
                    let expected = line.next();
                    let greeted = outputs.iter().find_map(|output| match output {
                        Output::Send { link, message: PeerMessage::HaveAll } => Some(*link),
                        _ => None,
                    });
                    prop_assert_eq!(greeted, expected);
                    let next = match expected {
                        Some(link) => link,
                        None => busy.up(200).0,
                    };
                    busy.serve(next);
                }
            }
        }
    }
}

#[test]
fn position_is_told_again_when_it_has_changed_and_not_before_ten_seconds() {
    let mut busy = Busy::new();
    let (first, _) = busy.up(1);
    let (second, _) = busy.up(2);
    for link in [first, second] {
        busy.swarm.messages_sent(busy.now, link, 1, 0);
        busy.swarm
            .handle_message(busy.now, link, PeerMessage::HaveNone);
    }
    busy.swarm.link_down(busy.now, first);
    let start = busy.now;
    let mut told = Vec::new();
    while busy.now < start + Duration::from_secs(80) {
        for output in drain(&mut busy.swarm) {
            if let Output::Send {
                link,
                message: PeerMessage::Queued { position },
            } = output
            {
                assert_eq!(link, second);
                told.push(((busy.now - start).as_secs(), position));
                busy.swarm.messages_sent(busy.now, link, 1, 0);
            }
        }
        busy.now = busy.swarm.poll_timeout().unwrap().max(busy.now);
        busy.swarm.handle_timeout(busy.now);
    }
    assert_eq!(told, [(10, 1)]);
}

#[test]
fn link_that_waits_may_say_what_it_has_and_what_it_wanted_before_it_knew() {
    let block = BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len: 1,
    };
    let may = [
        PeerMessage::KeepAlive,
        PeerMessage::HaveNone,
        PeerMessage::Have(ChunkIndex(1)),
        PeerMessage::Interested,
        PeerMessage::NotInterested,
        PeerMessage::Request(block),
        PeerMessage::Cancel(block),
        PeerMessage::ManifestRequest { page: 0 },
    ];
    let may_not = [
        PeerMessage::Choke,
        PeerMessage::Suggest(ChunkIndex(0)),
        PeerMessage::Reject(block),
        PeerMessage::ManifestReject { page: 0 },
        PeerMessage::Queued { position: 1 },
        PeerMessage::Have(ChunkIndex(99)),
    ];
    for (messages, allowed) in [(&may[..], true), (&may_not[..], false)] {
        for message in messages {
            let mut busy = Busy::new();
            let (link, _) = busy.up(1);
            busy.swarm.handle_message(busy.now, link, message.clone());
            let is_drop = |output: &Output| matches!(output, Output::Drop { .. });
            let dropped = drain(&mut busy.swarm).iter().any(is_drop);
            assert_eq!(dropped, !allowed, "{message:?}");
        }
    }
}

#[test]
fn what_a_link_that_waits_asked_for_is_rejected_when_it_gets_its_place() {
    let asks = |at: u32| {
        let chunk = ChunkIndex(at);
        let (offset, len) = (0, 1);
        let block = BlockRange { chunk, offset, len };
        let answer = PeerMessage::Reject(block);
        (PeerMessage::Request(block), answer)
    };
    let pages = |page: u32| {
        let answer = PeerMessage::ManifestReject { page };
        (PeerMessage::ManifestRequest { page }, answer)
    };
    let kinds: [(&dyn Fn(u32) -> _, u32); 2] = [(&asks, MAX_REQUESTS as u32), (&pages, 32)];
    for (ask, most) in kinds {
        let mut busy = Busy::new();
        let (link, _) = busy.up(1);
        for at in 0..most {
            busy.swarm.handle_message(busy.now, link, ask(at).0);
            assert_eq!(drain(&mut busy.swarm), [], "{at}");
        }
        let held = busy.held[0];
        busy.swarm.link_down(busy.now, held);
        let sent = drain(&mut busy.swarm).into_iter();
        let sent = sent.filter_map(|output| match output {
            Output::Send { message, .. } => Some(message),
            _ => None,
        });
        let sent: Vec<PeerMessage> = sent.take(most as usize + 1).collect();
        let answers = (0..most).map(|at| ask(at).1);
        let expected: Vec<_> = answers.chain([PeerMessage::HaveAll]).collect();
        assert_eq!(sent, expected);

        let mut busy = Busy::new();
        let (link, _) = busy.up(1);
        for at in 0..most {
            busy.swarm.handle_message(busy.now, link, ask(at).0);
        }
        drain(&mut busy.swarm);
        busy.swarm.handle_message(busy.now, link, ask(0).0);
        let outputs = drain(&mut busy.swarm);
        let reason = |output: &Output| match output {
            Output::Drop { reason, .. } => Some(*reason),
            _ => None,
        };
        let reason = outputs.iter().find_map(reason);
        assert!(matches!(reason, Some(DropReason::Violation(_))));
    }
}

/// After how many seconds the only place passes from a link that was served to one that
/// waits. The first one does something at once, and each second.
fn place_passes_after(first: impl FnOnce(&mut Busy, LinkId), each: fn(&mut Busy, LinkId)) -> u64 {
    let mut busy = Busy::with_places(1, 200_000);
    let held = busy.up(1).0;
    first(&mut busy, held);
    busy.placed_after(2, |busy| each(busy, held)).0
}

/// Says that it has nothing, and takes the first chunks.
fn takes(chunks: u32) -> impl FnOnce(&mut Busy, LinkId) {
    move |busy, link| {
        busy.hears(link, PeerMessage::HaveNone);
        busy.send_chunks(link, chunks);
    }
}

#[test]
fn link_that_does_nothing_gives_way_to_one_that_waits() {
    let nothing = |_: &mut Busy, _: LinkId| {};
    // It is dropped, since it did not say what it has.
    assert_eq!(place_passes_after(|_, _| {}, nothing), 10);
    assert_eq!(place_passes_after(takes(0), nothing), 10);
    let declines = |busy: &mut Busy, link| {
        busy.hears(link, PeerMessage::HaveNone);
        busy.hears(link, PeerMessage::NotInterested);
    };
    assert_eq!(place_passes_after(declines, nothing), 0);
    // It does not tell of what it got.
    let mute = |busy: &mut Busy, link| {
        busy.hears(link, PeerMessage::HaveNone);
        busy.send(link, 0, CHUNK);
    };
    assert_eq!(place_passes_after(mute, nothing), 1);
}

#[test]
fn link_that_is_served_keeps_its_place_for_its_turn() {
    let asks = |busy: &mut Busy, link| busy.send(link, 9, 5);
    // It had its turn after half a minute and four chunks, if it asks for more.
    assert_eq!(place_passes_after(takes(4), asks), 30);
    assert_eq!(place_passes_after(takes(4), |_, _| {}), 10);
    // It had less.
    assert_eq!(place_passes_after(takes(3), asks), 600);
    // What is on its way is not interrupted before.
    let reads_slowly = |busy: &mut Busy, link| {
        let (chunk, offset, len) = (ChunkIndex(9), 0, 5);
        let block = BlockRange { chunk, offset, len };
        busy.hears(link, PeerMessage::Request(block));
    };
    assert_eq!(place_passes_after(takes(4), reads_slowly), 600);
}

#[test]
fn host_with_many_links_gives_way_to_one_that_has_none() {
    let mut busy = Busy::with_places(3, 200_000);
    let crowd: Vec<LinkId> = (0..3).map(|_| busy.up(1).0).collect();
    for (chunks, link) in (1..).zip(&crowd) {
        takes(chunks)(&mut busy, *link);
    }
    let ask = |busy: &mut Busy| crowd.iter().for_each(|link| busy.send(*link, 9, 5));
    let (after, first) = busy.placed_after(2, ask);
    assert_eq!(after, 0);
    busy.send_chunks(first, 1);
    // Two are left to the one host.
    let asks = |busy: &mut Busy| {
        ask(busy);
        busy.send(first, 9, 5);
    };
    let (after, second) = busy.placed_after(3, asks);
    assert_eq!(after, 1);
    busy.send_chunks(second, 1);
    // Now each has one, so a fourth waits for the turn of one.
    let asks = |busy: &mut Busy| {
        asks(busy);
        busy.send(second, 9, 5);
    };
    let (after, _) = busy.placed_after(4, asks);
    assert!(after > 500, "{after}");
}

#[test]
fn link_that_a_seeder_dialled_as_a_leecher_does_not_wait() {
    let mut busy = Busy::new();
    let link = LinkId(77);
    let info = link_info(PeerId([77; 16]), Some(addr(9, 9)), true);
    busy.swarm.link_up(busy.now, link, info);
    let outputs = drain(&mut busy.swarm);
    let reason = DropReason::Refused(RefuseReason::Busy);
    assert_eq!(outputs, [Output::Drop { link, reason }]);
}

#[test]
fn zone_is_said_when_the_wait_ends_to_one_that_has_said_its_own() {
    let here = "here".parse::<Zone>().unwrap().tag();
    let mark = PeerMessage::Cancel(here.mark());
    for says in [true, false] {
        let mut busy = Busy::new();
        busy.swarm = busy.swarm.in_zone(here);
        let (link, _) = busy.up(1);
        if says {
            busy.hears(link, mark.clone());
        }
        busy.hears(link, PeerMessage::HaveNone);
        busy.swarm.link_down(busy.now, busy.held[0]);
        let said = drain(&mut busy.swarm).into_iter();
        let said = said.filter_map(|output| match output {
            Output::Send { link: to, message } if to == link => Some(message),
            _ => None,
        });
        let said: Vec<PeerMessage> = said.collect();
        let greeted = said.iter().position(|said| *said == PeerMessage::HaveAll);
        let marked = said.iter().position(|said| *said == mark);
        assert_eq!(marked.is_some(), says, "{said:?}");
        assert!(marked.is_none_or(|marked| marked < greeted.unwrap()));
    }
}

#[test]
fn one_that_says_its_zone_only_after_the_wait_is_told_as_well() {
    let here = "here".parse::<Zone>().unwrap().tag();
    let mark = PeerMessage::Cancel(here.mark());
    let mut busy = Busy::new();
    busy.swarm = busy.swarm.in_zone(here);
    let (link, _) = busy.up(1);
    let told = Output::Send {
        link,
        message: mark.clone(),
    };
    busy.swarm.link_down(busy.now, busy.held[0]);
    let outputs = drain(&mut busy.swarm);
    assert!(!outputs.contains(&told), "it may know no zones");
    assert_eq!(busy.hears(link, mark.clone()), [told]);
    assert_eq!(busy.hears(link, mark), []);
}

#[test]
fn one_that_has_waited_hears_first_that_the_owner_is_in_another_zone() {
    let [here, there] = ["here", "there"].map(|zone| zone.parse::<Zone>().unwrap().tag());
    let mut download = InLine::new();
    download.swarm = download.swarm.in_zone(here);
    download.hears(PeerMessage::Queued { position: 1 });
    drain(&mut download.swarm);
    download.hears(PeerMessage::Cancel(there.mark()));
    download.hears(PeerMessage::HaveAll);
    let outputs = drain(&mut download.swarm);
    let is_drop = |output: &Output| matches!(output, Output::Drop { .. });
    assert!(!outputs.iter().any(is_drop), "{outputs:?}");
    assert!(download.swarm.stats(download.now).links[0].far);
    // Nothing else is withdrawn from one that waits.
    let mut download = InLine::new();
    download.swarm = download.swarm.in_zone(here);
    download.hears(PeerMessage::Queued { position: 1 });
    let block = BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len: 1,
    };
    download.hears(PeerMessage::Cancel(block));
    assert!(drain(&mut download.swarm).iter().any(is_drop));
}

/// A download whose only owner has it wait.
struct InLine {
    /// Why nothing arrives, by its last word.
    stall: Option<StallReason>,
    swarm: Swarm,
    start: Instant,
    now: Instant,
}

const OWNER: LinkId = LinkId(1);

impl InLine {
    fn new() -> Self {
        let start = Instant::now();
        let manifest = Manifest::of(&[7; 50_000]).unwrap();
        let me = PeerId([9; 16]);
        let mut config = SwarmConfig::default();
        config.patience = Some(Duration::from_secs(60));
        let mut swarm = Swarm::leecher(start, config, me, manifest.id());
        let info = LinkInfo::dialled(PeerId([1; 16]), addr(1, 1));
        swarm.owners_found(start, [(addr(1, 1), true)]);
        swarm.link_up(start, OWNER, info);
        let now = start;
        let stall = None;
        Self {
            stall,
            swarm,
            start,
            now,
        }
    }

    fn hears(&mut self, message: PeerMessage) {
        self.swarm.handle_message(self.now, OWNER, message);
    }

    /// Lets a second pass. Returns whether the download gives up.
    fn second_passes(&mut self) -> bool {
        self.now += Duration::from_secs(1);
        self.swarm.handle_timeout(self.now);
        let mut gives_up = false;
        for output in drain(&mut self.swarm) {
            match output {
                Output::GaveUp(_) => gives_up = true,
                Output::Stalled(reason) => self.stall = Some(reason),
                Output::FindOwners => self.swarm.owners_found(self.now, []),
                Output::Drop { .. } => panic!("the line is left"),
                _ => {}
            }
        }
        gives_up
    }

    /// After how many seconds, from the start, it gives up.
    fn gives_up_after(mut self) -> u64 {
        while !self.second_passes() {}
        (self.now - self.start).as_secs()
    }

    /// Comes nearer every half a minute, for so long.
    fn comes_nearer(&mut self, seconds: u64) -> bool {
        let start = self.now;
        let mut position = 1_000_000;
        while (self.now - start).as_secs() < seconds {
            if (self.now - start).as_secs().is_multiple_of(30) {
                position -= 1;
                self.hears(PeerMessage::Queued { position });
                let progress = self.swarm.progress(self.now);
                assert_eq!(
                    (progress.place_in_line, progress.links),
                    (Some(position), 0)
                );
            }
            if self.second_passes() {
                return false;
            }
        }
        true
    }
}

#[test]
fn download_that_waits_in_line_gives_up_only_when_the_line_is_stuck_or_after_a_day() {
    let mut download = InLine::new();
    assert!(download.comes_nearer(601));
    // Half an hour without coming on is too long.
    assert_eq!(download.gives_up_after(), 600 + 1800);
    // A place further back is no progress.
    let mut download = InLine::new();
    assert!(download.comes_nearer(601));
    while download.now < download.start + Duration::from_secs(1200) {
        assert!(!download.second_passes());
    }
    download.hears(PeerMessage::Queued {
        position: 2_000_000,
    });
    assert_eq!(download.gives_up_after(), 600 + 1800);
    // And so is a day, however the line moves.
    let mut download = InLine::new();
    assert!(!download.comes_nearer(100_000));
    assert_eq!((download.now - download.start).as_secs(), 86_400);
}

#[test]
fn download_that_waits_in_line_says_at_which_place() {
    let mut download = InLine::new();
    download.hears(PeerMessage::Queued { position: 2 });
    while download.stall.is_none() {
        download.second_passes();
    }
    assert_eq!(download.stall, Some(StallReason::Queued { position: 2 }));
    download.hears(PeerMessage::Queued { position: 1 });
    download.second_passes();
    let next = StallReason::Queued { position: 1 };
    assert_eq!(download.stall, Some(next));
    let words = "this peer is number 1 in the line of a busy owner";
    assert_eq!(next.to_string(), words);
}

#[test]
fn download_whose_owner_in_line_goes_is_patient_as_before() {
    let mut download = InLine::new();
    assert!(download.comes_nearer(601));
    download.swarm.link_down(download.now, OWNER);
    assert_eq!(download.gives_up_after(), 601 + 60);
}
