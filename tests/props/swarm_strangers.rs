//! Single machines among strangers that follow the protocol: the names and
//! addresses that they claim, the places that they take, and the manifests that
//! they withhold.

mod early;
mod manifest;
mod places;
mod stalls;

use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo, Output, Swarm, SwarmConfig};
use bt_lite::protocol::{Addr, LinkProof, PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ContentId};

use crate::sample::{SMALL, Sample, with_cookies};

const ME: PeerId = PeerId([9; 16]);
const OWNER: PeerId = PeerId([1; 16]);
const TICK: Duration = Duration::from_millis(10);

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

/// A machine and a clock.
struct Single {
    swarm: Swarm,
    start: Instant,
    now: Instant,
    links: u64,
}

impl Single {
    fn new(id: ContentId, config: SwarmConfig) -> Self {
        let start = Instant::now();
        Self {
            swarm: Swarm::leecher(start, config, ME, id),
            start,
            now: start,
            links: 0,
        }
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.swarm.check_invariants();
        std::iter::from_fn(|| self.swarm.poll_output()).collect()
    }

    /// All outputs until `end`, and when each came.
    fn until(&mut self, end: Instant) -> Vec<(Duration, Output)> {
        let mut all = Vec::new();
        loop {
            let at = self.now - self.start;
            all.extend(self.outputs().into_iter().map(|output| (at, output)));
            let Some(next) = self.swarm.poll_timeout().filter(|next| *next <= end) else {
                self.now = end;
                return all;
            };
            self.now = self.now.max(next);
            self.swarm.handle_timeout(self.now);
            assert!(all.len() < 100_000, "time does not move on");
        }
    }

    fn up(&mut self, info: LinkInfo) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        let info = with_cookies(info, link);
        self.swarm.link_up(self.now, link, info);
        link
    }

    fn dialled(&mut self, peer: PeerId, to: &str) -> LinkId {
        self.up(LinkInfo::dialled(peer, addr(to)))
    }

    fn accepted(&mut self, peer: PeerId, from: &str, listen: Option<&str>) -> LinkId {
        self.up(LinkInfo::accepted(peer, &addr(from), listen.map(addr)))
    }

    fn hears(&mut self, link: LinkId, message: PeerMessage) {
        self.swarm.handle_message(self.now, link, message);
    }

    /// Gives the machine the manifest over a link, so that it starts to request
    /// blocks. A link with the whole content must be up.
    fn learns(&mut self, link: LinkId, sample: &Sample) {
        for page in 0..2 {
            self.hears(link, sample.page(page).unwrap());
        }
        let none = Bitfield::none(sample.manifest.geometry().chunks());
        self.swarm.opened(self.now, &none, &none);
    }
}

fn block(sample: &Sample, block: BlockRange, good: bool) -> PeerMessage {
    let mut data = sample.block(block).to_vec();
    data[0] ^= u8::from(!good);
    PeerMessage::Block {
        chunk: block.chunk,
        offset: block.offset,
        data: data.into(),
    }
}

fn drops(outputs: &[Output]) -> Vec<(LinkId, DropReason)> {
    let drops = outputs.iter().filter_map(|output| match output {
        Output::Drop { link, reason } => Some((*link, *reason)),
        _ => None,
    });
    drops.collect()
}

fn requests(outputs: &[Output], of: LinkId) -> Vec<BlockRange> {
    let requests = outputs.iter().filter_map(|output| match output {
        Output::Send {
            link,
            message: PeerMessage::Request(block),
        } if *link == of => Some(*block),
        _ => None,
    });
    requests.collect()
}

fn dials(outputs: &[(Duration, Output)]) -> Vec<(Duration, Addr)> {
    let dials = outputs.iter().filter_map(|(at, output)| match output {
        Output::Dial { addr } => Some((*at, addr.clone())),
        _ => None,
    });
    dials.collect()
}

/// Which link was asked for which manifest page, and when (in milliseconds).
fn asked_pages(outputs: &[(Duration, Output)]) -> Vec<(u64, LinkId, u32)> {
    let asked = outputs.iter().filter_map(|(at, output)| match output {
        Output::Send {
            link,
            message: PeerMessage::ManifestRequest { page },
        } => Some((at.as_millis() as u64, *link, *page)),
        _ => None,
    });
    asked.collect()
}

/// Downloads from one owner, which sends a block every half second. Returns the
/// outputs that concern this download, and when each came.
fn download(impostors: bool) -> Vec<(Duration, String)> {
    let sample = Sample::new(1 << 20);
    let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
    let owner = single.dialled(OWNER, "owner:1");
    single.hears(owner, PeerMessage::HaveAll);
    single.learns(owner, &sample);
    let (mut log, mut asked, mut ticks, mut came) = (Vec::new(), Vec::new(), 0u32, 0);
    while !single.swarm.is_seeding() {
        assert!(ticks < 6000, "the download does not finish");
        for output in single.outputs() {
            match &output {
                Output::Verify { chunk, .. } => {
                    single.swarm.chunk_verified(single.now, *chunk, true);
                }
                Output::Store { chunk, .. } => single.swarm.chunk_stored(single.now, *chunk),
                Output::Commit { .. } => single.swarm.committed(single.now),
                Output::Finish => single.swarm.finished(single.now),
                Output::Send { link, message } if *link == owner => {
                    if let PeerMessage::Request(block) = message {
                        asked.push(*block);
                    }
                }
                Output::Drop { link, .. } if *link == owner => {}
                _ => continue,
            }
            // Only the kinds are compared: the order of the chunks depends on
            // how many other links might help.
            let what = match &output {
                Output::Send { message, .. } => format!("{message:?}"),
                other => format!("{other:?}"),
            };
            let name = what.chars().take_while(char::is_ascii_alphanumeric);
            log.push((single.now - single.start, name.collect()));
        }
        ticks += 1;
        single.now += TICK;
        let due = single.swarm.poll_timeout();
        if due.is_some_and(|due| due <= single.now) {
            single.swarm.handle_timeout(single.now);
        }
        if ticks.is_multiple_of(50) && !asked.is_empty() {
            let message = block(&sample, asked.remove(0), true);
            single.hears(owner, message);
        }
        if impostors && ticks.is_multiple_of(20) {
            came += 1;
            let from = format!("stranger{came}:1");
            let link = single.accepted(OWNER, &from, None);
            single.hears(link, PeerMessage::HaveNone);
            single.hears(link, PeerMessage::SamePeer(LinkProof([7; 16])));
        }
    }
    assert!(!impostors || came > 100);
    log
}

#[test]
fn impostors_do_not_disturb_the_link_whose_name_they_use() {
    let alone = download(false);
    assert_eq!(alone.last().map(|(_, what)| &what[..]), Some("Finish"));
    let among = download(true);
    let differ = among
        .iter()
        .zip(&alone)
        .find(|(among, alone)| among != alone);
    assert_eq!(differ, None);
    assert_eq!(among.len(), alone.len());
}

#[test]
fn liar_with_the_name_of_an_owner_is_banned_and_the_owner_is_not() {
    let sample = &SMALL[4];
    let mut config = SwarmConfig::default();
    // The owner leaves something for the others.
    config.planner.first_window = 0;
    let mut single = Single::new(sample.manifest.id(), config);
    let named = [(addr("owner:1"), true)];
    single.swarm.owners_found(single.now, named);
    let owner = single.dialled(OWNER, "owner:1");
    single.hears(owner, PeerMessage::HaveAll);
    single.learns(owner, sample);
    let impostor = single.accepted(OWNER, "evil:1", Some("evil:2"));
    let neighbour = single.accepted(PeerId([3; 16]), "evil:3", None);
    single.hears(impostor, PeerMessage::HaveAll);
    single.hears(neighbour, PeerMessage::HaveNone);
    let outputs = single.outputs();
    let asked = requests(&outputs, impostor)[0];
    single.hears(impostor, block(sample, asked, false));
    single.swarm.chunk_verified(single.now, asked.chunk, false);
    let banned = DropReason::Refused(RefuseReason::Banned);
    assert_eq!(drops(&single.outputs()), [(impostor, banned)]);

    // The owner continues to serve.
    let asked = requests(&outputs, owner)[0];
    single.hears(owner, block(sample, asked, true));
    single.swarm.chunk_verified(single.now, asked.chunk, true);
    single.swarm.chunk_stored(single.now, asked.chunk);
    assert_eq!(single.swarm.progress(single.now).verified_chunks, 1);
    // No link from the liar's host is accepted again, whatever its name. Links
    // from other hosts with the owner's name are accepted.
    let again = single.accepted(PeerId([4; 16]), "evil:4", None);
    assert_eq!(drops(&single.outputs()), [(again, banned)]);
    single.accepted(OWNER, "elsewhere:1", None);
    assert_eq!(drops(&single.outputs()), []);
    // The owner is dialled again.
    single.swarm.link_down(single.now, owner);
    let end = single.now + Duration::from_secs(2);
    let dialled = dials(&single.until(end));
    let to: Vec<Addr> = dialled.into_iter().map(|(_, to)| to).collect();
    assert_eq!(to, [addr("owner:1")]);
}

#[test]
fn owner_whose_address_a_link_claims_is_dialled_when_nothing_arrives() {
    let sample = &SMALL[4];
    for has_anything in [true, false] {
        let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
        let link = single.accepted(PeerId([5; 16]), "owner:7", Some("owner:1"));
        if has_anything {
            single.hears(link, PeerMessage::HaveAll);
        } else {
            single.hears(link, PeerMessage::HaveNone);
        }
        let named = [(addr("owner:1"), true)];
        single.swarm.owners_found(single.now, named);
        let end = single.now + Duration::from_secs(6);
        let dialled = dials(&single.until(end));
        let after = Duration::from_secs(if has_anything { 5 } else { 0 });
        assert_eq!(dialled, [(after, addr("owner:1"))]);
    }
}

#[test]
fn owner_whose_address_is_claimed_repeatedly_is_not_forgotten() {
    let sample = &SMALL[4];
    let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
    let seeder = single.dialled(OWNER, "other:1");
    single.hears(seeder, PeerMessage::HaveAll);
    let claim = |single: &mut Single| {
        let link = single.accepted(PeerId([5; 16]), "owner:7", Some("owner:1"));
        single.hears(link, PeerMessage::HaveNone);
        link
    };
    let mut link = claim(&mut single);
    let named = [(addr("owner:1"), true)];
    single.swarm.owners_found(single.now, named);
    for _ in 0..20 {
        single.swarm.link_down(single.now, link);
        link = claim(&mut single);
    }
    single.swarm.link_down(single.now, seeder);
    let end = single.now + Duration::from_secs(3);
    let dialled = dials(&single.until(end));
    assert_eq!(dialled, [(Duration::ZERO, addr("owner:1"))]);
}

#[test]
fn addresses_that_links_claim_do_not_fill_the_address_book() {
    let sample = &SMALL[4];
    for proves in [false, true] {
        let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
        if proves {
            let owner = single.dialled(OWNER, "owner:1");
            single.hears(owner, PeerMessage::HaveAll);
            single.learns(owner, sample);
        }
        for n in 0..1024 {
            let host = format!("10.0.{}.{}", n / 256, n % 256);
            let listen = format!("{host}:2");
            let link = single.accepted(PeerId([5; 16]), &format!("{host}:1"), Some(&listen));
            single.hears(link, PeerMessage::HaveNone);
            single.swarm.link_down(single.now, link);
            single.outputs();
        }
        let named = [(addr("named:1"), true)];
        single.swarm.owners_found(single.now, named);
        let now = single.now;
        let dialled = dials(&single.until(now));
        assert_eq!(dialled, [(Duration::ZERO, addr("named:1"))]);
    }
}

#[test]
fn owner_is_dialled_even_if_strangers_took_all_places() {
    let sample = &SMALL[4];
    let mut config = SwarmConfig::default();
    config.max_links = 3;
    let mut single = Single::new(sample.manifest.id(), config);
    for n in 0..3 {
        let link = single.accepted(PeerId([n; 16]), &format!("stranger{n}:1"), None);
        single.hears(link, PeerMessage::HaveNone);
    }
    let named = [(addr("owner:1"), true)];
    single.swarm.owners_found(single.now, named);
    let end = single.now + Duration::from_secs(30);
    let dialled = dials(&single.until(end));
    assert_eq!(
        dialled.len(),
        1,
        "the owner is not dialled while strangers hold all places"
    );
    let owner = single.dialled(OWNER, "owner:1");
    let dropped = drops(&single.outputs());
    let busy = DropReason::Refused(RefuseReason::Busy);
    assert!(dropped.len() == 1 && dropped[0].0 != owner && dropped[0].1 == busy);
}

#[test]
fn owner_is_dialled_even_if_the_wanted_number_of_links_withholds_the_manifest() {
    let sample = &SMALL[4];
    for drips in [false, true] {
        let mut config = SwarmConfig::default();
        config.sources = 3;
        let mut single = Single::new(sample.manifest.id(), config);
        let mut links = Vec::new();
        for n in 20..23 {
            let link = single.accepted(PeerId([n; 16]), &format!("stranger{n}:1"), None);
            single.hears(link, PeerMessage::HaveAll);
            links.push(link);
        }
        let named = [(addr("owner:1"), true)];
        single.swarm.owners_found(single.now, named);
        let mut outputs = Vec::new();
        for _ in 0..60 {
            let end = single.now + Duration::from_secs(1);
            let fresh = single.until(end);
            for (_, link, page) in asked_pages(&fresh) {
                match page {
                    0 if drips => single.hears(link, sample.page(0).unwrap()),
                    _ if drips => {}
                    page => single.hears(link, PeerMessage::ManifestReject { page }),
                }
            }
            outputs.extend(fresh);
        }
        let dialled = dials(&outputs);
        assert_eq!(dialled.len(), 1, "drips: {drips}");
        assert!(dialled[0].0 < Duration::from_secs(30));
    }
}

#[test]
fn link_that_never_says_what_it_has_is_dropped_in_time() {
    let sample = &SMALL[4];
    let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
    let mute = single.accepted(PeerId([2; 16]), "mute:1", None);
    let other = single.accepted(PeerId([3; 16]), "other:1", None);
    single.hears(other, PeerMessage::HaveNone);
    let end = single.start + Duration::from_secs(60);
    let outputs = single.until(end);
    let dropped: Vec<_> = outputs
        .iter()
        .filter_map(|(at, output)| match output {
            Output::Drop { link, reason } => Some((at.as_secs(), *link, *reason)),
            _ => None,
        })
        .collect();
    let reason = DropReason::Violation("no Bitfield in time");
    assert_eq!(dropped, [(10, mute, reason)]);
}
