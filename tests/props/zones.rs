//! Links with other zones: what they are asked for, and what others of the zone are told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo, LinkKind, Output, Swarm, SwarmConfig};
use bt_lite::protocol::{PeerId, PeerMessage, ZoneTag};
use bt_lite::{Bitfield, ChunkIndex, Zone};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::{SMALL, Sample, link_info};

fn tag(name: &str) -> ZoneTag {
    name.parse::<Zone>().unwrap().tag()
}

fn here() -> ZoneTag {
    tag("here")
}

fn mark(zone: ZoneTag) -> PeerMessage {
    PeerMessage::Cancel(zone.mark())
}

fn coming(chunk: u32) -> PeerMessage {
    PeerMessage::Coming(ChunkIndex(chunk))
}

/// A machine, and a driver whose storage is at once ready.
struct One {
    swarm: Swarm,
    sample: Sample,
    now: Instant,
    links: u64,
    sent: Vec<(LinkId, PeerMessage)>,
    dropped: Vec<(LinkId, DropReason)>,
    /// How often the trackers were asked. They name nobody.
    searches: u32,
}

impl One {
    fn new(sample: &Sample, zone: Option<ZoneTag>) -> Self {
        Self::with(SwarmConfig::default(), sample, zone)
    }

    fn with(config: SwarmConfig, sample: &Sample, zone: Option<ZoneTag>) -> Self {
        let (now, id) = (Instant::now(), sample.manifest.id());
        Self {
            swarm: Swarm::leecher(now, config, PeerId([99; 16]), id).in_zone(zone),
            sample: sample.clone(),
            now,
            links: 0,
            sent: Vec::new(),
            dropped: Vec::new(),
            searches: 0,
        }
    }

    /// A link comes up whose other side has a part of the content, and says a zone or none.
    fn up(&mut self, zone: Option<ZoneTag>) -> LinkId {
        self.links += 1;
        let info = link_info(PeerId([self.links as u8; 16]), None, false);
        self.up_as(info, zone)
    }

    fn up_as(&mut self, info: LinkInfo, zone: Option<ZoneTag>) -> LinkId {
        let link = LinkId(self.links);
        self.swarm.link_up(self.now, link, info);
        self.settle();
        self.hears(link, PeerMessage::HaveNone);
        if let Some(zone) = zone {
            self.hears(link, mark(zone));
        }
        link
    }

    fn hears(&mut self, link: LinkId, message: PeerMessage) {
        self.swarm.handle_message(self.now, link, message);
        self.settle();
    }

    fn has(&mut self, link: LinkId, chunks: impl IntoIterator<Item = u32>) {
        for chunk in chunks {
            self.hears(link, PeerMessage::Have(ChunkIndex(chunk)));
        }
    }

    /// A tracker says that this peer fetches for its zone.
    fn imports(&mut self) {
        self.swarm.import(self.now, []);
        self.settle();
        self.sent.clear();
    }

    /// Somebody comes, tells the manifest, and goes.
    fn knows_the_manifest(&mut self) {
        let link = self.up(None);
        self.has(link, [0]);
        for page in 0..2 {
            self.hears(link, self.sample.page(page).unwrap());
        }
        assert!(self.swarm.manifest().is_some());
        self.swarm.link_down(self.now, link);
        self.settle();
        self.sent.clear();
    }

    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.swarm.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.swarm.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn answers(&mut self, link: LinkId, block: BlockRange) {
        let message = PeerMessage::Block {
            chunk: block.chunk,
            offset: block.offset,
            data: self.sample.block(block),
        };
        self.hears(link, message);
    }

    fn settle(&mut self) {
        let now = self.now;
        while let Some(output) = self.swarm.poll_output() {
            match output {
                Output::Send { link, message } => {
                    self.sent.push((link, message));
                    self.swarm.messages_sent(now, link, 1, 0);
                }
                Output::FindOwners => {
                    self.searches += 1;
                    self.swarm.owners_found(now, []);
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
                _ => {}
            }
        }
        self.swarm.check_invariants();
    }

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

    fn asked(&mut self, of: LinkId) -> BTreeSet<u32> {
        self.requests(of)
            .iter()
            .map(|block| block.chunk.0)
            .collect()
    }
}

/// A machine that knows the manifest, with a near link and a far one.
fn between() -> (One, LinkId, LinkId) {
    let mut one = One::new(&SMALL[4], Some(here()));
    let (near, far) = (one.up(Some(here())), one.up(Some(tag("there"))));
    one.knows_the_manifest();
    one.imports();
    (one, near, far)
}

#[test]
fn zone_is_said_once_before_anything_else_and_only_if_there_is_one() {
    for zone in [None, Some(here())] {
        let mut one = One::new(&SMALL[4], zone);
        let link = one.up(None);
        let said = one.said(link);
        let greeted = said.iter().position(|said| *said == PeerMessage::HaveNone);
        let marked = said.iter().position(|said| *said == mark(here()));
        assert_eq!(marked.is_some(), zone.is_some());
        assert!(marked.is_none_or(|marked| marked + 1 == greeted.unwrap()));
    }
}

#[test]
fn bittorrent_client_hears_of_no_zone_and_counts_as_near() {
    let mut one = One::new(&SMALL[4], Some(here()));
    let link = LinkId(1);
    let mut info = link_info(PeerId([1; 16]), None, false);
    info.kind = LinkKind::Stranger;
    one.swarm.link_up(one.now, link, info);
    one.settle();
    let said = one.said(link);
    assert!(
        !said
            .iter()
            .any(|said| matches!(said, PeerMessage::Cancel(_)))
    );
    one.imports();
    assert_eq!(one.said(link), []);
    assert!(!one.swarm.stats(one.now).links[0].far);
}

#[test]
fn zone_is_the_one_that_was_said_first() {
    let mut one = One::new(&SMALL[4], Some(here()));
    let link = one.up(Some(tag("there")));
    one.hears(link, mark(here()));
    one.hears(link, mark(tag("elsewhere")));
    assert!(one.swarm.stats(one.now).links[0].far);
    one.imports();
    one.hears(link, mark(here()));
    assert_eq!(one.said(link), [], "it is not told of anything");
}

#[test]
fn trackers_are_asked_once_more_for_the_role_when_the_manifest_is_here() {
    for zone in [None, Some(here())] {
        let mut one = One::new(&SMALL[4], zone);
        one.passes(Duration::ZERO);
        assert_eq!(one.searches, 1);
        one.knows_the_manifest();
        // So many that no others are wanted.
        for _ in 0..40 {
            let link = one.up(zone);
            one.has(link, [0]);
        }
        one.passes(Duration::from_secs(3));
        assert_eq!(one.searches, 1 + u32::from(zone.is_some()));
    }
}

#[test]
fn far_link_is_asked_only_for_what_no_near_link_has() {
    let (mut one, near, far) = between();
    one.hears(near, PeerMessage::Choke);
    one.has(near, [0, 1]);
    one.has(far, [0, 1, 2]);
    assert_eq!(one.asked(far), BTreeSet::from([2]));
    assert_eq!(one.dropped, []);
}

#[test]
fn links_without_a_zone_are_asked_for_anything_on_either_side() {
    for (mine, theirs) in [(None, Some(tag("there"))), (Some(here()), None)] {
        let mut one = One::new(&SMALL[4], mine);
        let (near, other) = (one.up(None), one.up(theirs));
        one.knows_the_manifest();
        one.hears(near, PeerMessage::Choke);
        one.has(near, [0]);
        one.has(other, [0]);
        assert_eq!(one.asked(other), BTreeSet::from([0]));
    }
}

#[test]
fn others_that_fetch_for_the_zone_hear_of_what_comes_and_leave_it() {
    let (mut one, near, far) = between();
    let other = one.up(Some(here()));
    assert!(one.said(other).contains(&PeerMessage::Importing));
    one.hears(near, PeerMessage::Importing);
    one.sent.clear();
    one.has(far, [2]);
    let block = one.requests(far)[0];
    assert_eq!(one.said(near), [coming(2)]);
    assert_eq!(one.said(other), [], "it does not fetch for the zone");
    one.hears(near, coming(1));
    one.has(far, [1]);
    one.answers(far, block);
    assert_eq!(one.requests(far), []);
    one.has(near, [1]);
    assert_eq!(one.asked(near), BTreeSet::from([1]));
    assert_eq!(one.dropped, []);
}

#[test]
fn what_another_importer_leaves_lying_is_taken_over_after_a_while_and_not_before() {
    let (mut one, _, far) = between();
    one.links += 1;
    // Of another name than this peer: chunks are shared out by these.
    let info = link_info(PeerId(7u128.to_be_bytes()), None, false);
    let near = one.up_as(info, Some(here()));
    one.hears(near, PeerMessage::Importing);
    one.sent.clear();
    one.has(far, 0..6);
    let fetch = |one: &mut One| {
        let mut fetched = BTreeSet::new();
        loop {
            let blocks = one.requests(far);
            if blocks.is_empty() {
                return fetched;
            }
            for block in blocks {
                fetched.insert(block.chunk.0);
                one.answers(far, block);
            }
        }
    };
    let own = fetch(&mut one);
    assert!((1..6).contains(&own.len()), "{own:?}");
    one.passes(Duration::from_millis(400));
    assert_eq!(
        fetch(&mut one),
        BTreeSet::new(),
        "the other one may be about to ask"
    );
    // It is the second in line for all of these.
    let mut all = own;
    for _ in 0..10 {
        one.passes(Duration::from_millis(500));
        all.extend(fetch(&mut one));
    }
    assert_eq!(all, (0..6).collect());
    assert_eq!(one.dropped, []);
}

#[test]
fn peer_that_fetches_for_nobody_leaves_far_links_alone_until_nothing_comes() {
    let mut one = One::new(&SMALL[4], Some(here()));
    let (near, far) = (one.up(Some(here())), one.up(Some(tag("there"))));
    one.knows_the_manifest();
    one.has(far, [0]);
    one.passes(Duration::from_secs(4));
    assert_eq!(one.requests(far), []);
    one.passes(Duration::from_secs(7));
    assert_eq!(one.asked(far), BTreeSet::from([0]));
    assert_eq!(one.said(near), [PeerMessage::Importing]);
}

#[test]
fn one_that_claims_and_never_fetches_is_believed_a_few_times() {
    let (mut one, near, _) = between();
    one.hears(near, PeerMessage::Importing);
    one.sent.clear();
    for chunk in 0..3 {
        one.hears(near, coming(chunk));
        let far = one.up(Some(tag("there")));
        one.has(far, [chunk]);
        one.passes(Duration::from_secs(4));
        assert_eq!(one.requests(far), [], "it is waited for");
        one.passes(Duration::from_secs(2));
        let asked = one.requests(far);
        assert_eq!(asked.len(), 1);
        one.hears(far, PeerMessage::Reject(asked[0]));
        one.sent.clear();
    }
    one.hears(near, coming(3));
    let far = one.up(Some(tag("there")));
    one.has(far, [3]);
    assert_eq!(one.asked(far), BTreeSet::from([3]));
}

#[test]
fn word_of_what_comes_is_taken_from_near_links_only() {
    for zone in [None, Some(tag("there"))] {
        let mut one = One::new(&SMALL[4], Some(here()));
        let link = one.up(zone);
        one.knows_the_manifest();
        one.hears(link, coming(0));
        assert!(matches!(one.dropped[..], [(_, DropReason::Violation(_))]));
    }
    let mut one = One::new(&SMALL[4], None);
    let link = one.up(Some(here()));
    one.hears(link, coming(0));
    assert!(matches!(one.dropped[..], [(_, DropReason::Violation(_))]));
    let (mut one, near, _) = between();
    one.hears(near, coming(SMALL[4].manifest.geometry().chunks()));
    assert!(matches!(one.dropped[..], [(_, DropReason::Violation(_))]));
}

#[test]
fn if_nothing_arrives_far_links_are_asked_for_anything() {
    let (mut one, near, far) = between();
    one.hears(near, PeerMessage::Choke);
    one.has(near, [0]);
    one.has(far, [0]);
    assert_eq!(one.requests(far), []);
    one.passes(Duration::from_secs(5));
    assert_eq!(one.asked(far), BTreeSet::from([0]));
}

/// Links that say that they fetch for the zone, and nothing else, and others that want places. All
/// of them are of one host, or each has its own. Returns how many of the former stay.
fn importers_that_stay(of_one_host: bool) -> usize {
    let config = SwarmConfig::default().max_links(10);
    let mut one = One::with(config, &SMALL[4], Some(here()));
    one.knows_the_manifest();
    one.imports();
    let mut kept = Vec::new();
    for number in 0..9 {
        one.links += 1;
        let peer = PeerId([100 + number; 16]);
        let at = of_one_host.then(|| format!("10.0.0.1:{}", 1000 + u16::from(number)));
        let info = link_info(peer, at.map(|at| at.parse().unwrap()), false);
        let link = one.up_as(info, Some(here()));
        one.hears(link, PeerMessage::Importing);
        kept.push(link);
    }
    one.passes(Duration::from_secs(60));
    for _ in 0..20 {
        let link = one.up(None);
        one.has(link, [0]);
    }
    let dropped: BTreeSet<LinkId> = one.dropped.iter().map(|(link, _)| *link).collect();
    kept.retain(|link| !dropped.contains(link));
    kept.len()
}

#[test]
fn importers_keep_their_places_but_only_a_few_of_one_host() {
    assert_eq!(importers_that_stay(false), 9);
    assert_eq!(importers_that_stay(true), 4);
}

#[derive(Debug, Clone)]
enum Op {
    Up(Option<u8>),
    Down(usize),
    Have(usize, u32),
    All(usize),
    Coming(usize, u32),
    Importing(usize),
    Import,
    Choke(usize, bool),
    Answer(usize),
    Reject(usize),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..8usize;
    let chunk = 0..6u32;
    prop_oneof![
        2 => proptest::option::of(0..3u8).prop_map(Op::Up),
        1 => at.clone().prop_map(Op::Down),
        6 => (at.clone(), chunk.clone()).prop_map(|(at, chunk)| Op::Have(at, chunk)),
        1 => at.clone().prop_map(Op::All),
        3 => (at.clone(), chunk).prop_map(|(at, chunk)| Op::Coming(at, chunk)),
        1 => at.clone().prop_map(Op::Importing),
        1 => Just(Op::Import),
        2 => (at.clone(), any::<bool>()).prop_map(|(at, choke)| Op::Choke(at, choke)),
        4 => at.clone().prop_map(Op::Answer),
        1 => at.prop_map(Op::Reject),
        2 => (0..4000u64).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever near and far links say, what is kept of them is right (`check_invariants`
    /// compares it after each step), and nobody is blamed.
    #[test]
    fn whatever_links_say_the_rule_knows_what_is_near(ops in vec(op(), 0..80)) {
        let mut one = One::new(&SMALL[4], Some(here()));
        let zones = [here(), tag("there"), tag("elsewhere")];
        let first = one.up(Some(here()));
        one.knows_the_manifest();
        let mut links = vec![(first, Some(0))];
        let mut owed: Vec<(LinkId, BlockRange)> = Vec::new();
        for op in ops {
            let at = |at: usize| links.get(at).copied();
            match op {
                Op::Up(zone) if links.len() < 8 => {
                    let link = one.up(zone.map(|zone| zones[usize::from(zone)]));
                    links.push((link, zone));
                }
                Op::Down(n) if n < links.len() => {
                    let (link, _) = links.remove(n);
                    one.swarm.link_down(one.now, link);
                    one.settle();
                    owed.retain(|(of, _)| *of != link);
                }
                Op::Have(n, chunk) => {
                    if let Some((link, _)) = at(n) {
                        one.has(link, [chunk]);
                    }
                }
                Op::All(n) => {
                    if let Some((link, _)) = at(n) {
                        one.has(link, 0..6);
                    }
                }
                Op::Coming(n, chunk) => {
                    if let Some((link, Some(0))) = at(n) {
                        one.hears(link, coming(chunk));
                    }
                }
                Op::Importing(n) => {
                    if let Some((link, Some(0))) = at(n) {
                        one.hears(link, PeerMessage::Importing);
                    }
                }
                Op::Import => {
                    one.swarm.import(one.now, []);
                    one.settle();
                }
                Op::Choke(n, choke) => {
                    if let Some((link, _)) = at(n) {
                        one.hears(link, match choke {
                            true => PeerMessage::Choke,
                            false => PeerMessage::Unchoke,
                        });
                    }
                }
                Op::Answer(n) if n < owed.len() => {
                    let (link, block) = owed.remove(n);
                    one.answers(link, block);
                }
                Op::Reject(n) if n < owed.len() => {
                    let (link, block) = owed.remove(n);
                    one.hears(link, PeerMessage::Reject(block));
                }
                Op::Wait(ms) => one.passes(Duration::from_millis(ms)),
                Op::Up(_) | Op::Down(_) | Op::Answer(_) | Op::Reject(_) => {}
            }
            for (link, message) in std::mem::take(&mut one.sent) {
                match message {
                    PeerMessage::Request(block) => owed.push((link, block)),
                    PeerMessage::Cancel(block) => {
                        // Unless it crossed the answer, it is answered at once.
                        if let Some(n) = owed.iter().position(|owes| *owes == (link, block)) {
                            owed.remove(n);
                            one.hears(link, PeerMessage::Reject(block));
                        }
                    }
                    _ => {}
                }
            }
            let violation = one.dropped.iter().find(|(_, reason)| {
                matches!(reason, DropReason::Violation(_))
            });
            prop_assert!(violation.is_none(), "{violation:?}");
            links.retain(|(link, _)| !one.dropped.iter().any(|(gone, _)| gone == link));
            owed.retain(|(link, _)| links.iter().any(|(here, _)| here == link));
        }
    }
}
