//! What is asked for on the word of a tracker, before the owners have greeted and before
//! anything is proven.

use std::collections::BTreeSet;

use bt_lite::ChunkIndex;

use super::*;

const CHUNK: u64 = 16 << 10;

/// How an owner that the tracker names as complete behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Honest,
    /// It sends the manifest, and corrupts every block.
    Liar,
    /// It has nothing after all.
    Empty,
    /// It answers the Hello with a refusal.
    Refuses(RefuseReason),
    /// It has no place for the link, which waits, and rejects what was asked for.
    Busy,
}

/// A download from owners that a tracker named, with the length that it told.
struct EarlyDownload<'a> {
    single: Single,
    sample: &'a Sample,
    owners: Vec<(LinkId, Owner)>,
    /// What the machine has sent so far.
    sent: Vec<(LinkId, PeerMessage)>,
    dropped: Vec<(LinkId, DropReason)>,
    verified: BTreeSet<ChunkIndex>,
    present: Bitfield,
}

impl<'a> EarlyDownload<'a> {
    /// Its links are up, and nothing was heard yet.
    fn new(sample: &'a Sample, told: u64, owners: &[Owner]) -> Self {
        let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
        single.swarm = single.swarm.expecting(told);
        let named = |at: usize| (addr(&format!("owner{at}:1")), true);
        let names = (0..owners.len()).map(named);
        single.swarm.owners_found(single.now, names);
        let mut links = Vec::new();
        for (at, &owner) in owners.iter().enumerate() {
            single.links += 1;
            let link = LinkId(single.links);
            let info = LinkInfo::unmet(named(at).0);
            single.swarm.link_up(single.now, link, info);
            links.push((link, owner));
        }
        let mut download = Self {
            single,
            sample,
            owners: links,
            sent: Vec::new(),
            dropped: Vec::new(),
            verified: BTreeSet::new(),
            present: Bitfield::none(sample.manifest.geometry().chunks()),
        };
        download.perform();
        download
    }

    /// Does what the machine wants, except that nobody answers yet.
    fn perform(&mut self) {
        loop {
            let outputs = self.single.outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.perform_one(output);
            }
        }
    }

    fn perform_one(&mut self, output: Output) {
        let Single { swarm, now, .. } = &mut self.single;
        match output {
            Output::Send { link, message } => {
                swarm.messages_sent(*now, link, 1, 0);
                self.sent.push((link, message));
            }
            Output::Drop { link, reason } => {
                self.owners.retain(|(owner, _)| *owner != link);
                self.dropped.push((link, reason));
            }
            Output::Open(_) => swarm.opened(*now, &self.present, &self.present),
            Output::Verify { chunk, pieces, .. } => {
                let good = self.sample.is_good(chunk, &pieces);
                if good {
                    self.verified.insert(chunk);
                }
                swarm.chunk_verified(*now, chunk, good);
            }
            Output::Store { chunk, .. } => {
                assert!(self.verified.contains(&chunk), "stores unverified bytes");
                swarm.chunk_stored(*now, chunk);
            }
            Output::Commit { .. } => swarm.committed(*now),
            Output::Finish => swarm.finished(*now),
            Output::FindOwners => swarm.owners_found(*now, []),
            Output::GaveUp(_) => panic!("the download was given up"),
            _ => {}
        }
    }

    /// Every owner answers everything, until the content is complete.
    fn run(&mut self) {
        for (link, owner) in self.owners.clone() {
            let greeting = match owner {
                Owner::Refuses(reason) => PeerMessage::Refuse(reason),
                Owner::Empty => PeerMessage::HaveNone,
                Owner::Busy => PeerMessage::Queued { position: 1 },
                Owner::Honest | Owner::Liar => PeerMessage::HaveAll,
            };
            if !matches!(owner, Owner::Refuses(_)) {
                let peer = PeerId([link.0 as u8; 16]);
                self.single
                    .swarm
                    .link_met(self.single.now, link, peer, None);
            }
            self.single.hears(link, greeting);
        }
        let mut answered = 0;
        for _ in 0..10_000 {
            self.perform();
            if self.single.swarm.is_seeding() {
                return;
            }
            if answered == self.sent.len() {
                let next = self.single.swarm.poll_timeout().unwrap();
                self.single.now = self.single.now.max(next);
                self.single.swarm.handle_timeout(self.single.now);
                continue;
            }
            let (link, message) = self.sent[answered].clone();
            answered += 1;
            let owner = self.owners.iter().find(|(owner, _)| *owner == link);
            let Some(&(_, owner)) = owner else {
                continue;
            };
            // Answers take time, so that rates can be measured.
            self.single.now += Duration::from_millis(1);
            if let Some(answer) = self.answer(owner, message) {
                self.single.hears(link, answer);
            }
        }
        panic!("the download does not finish");
    }

    fn answer(&self, owner: Owner, message: PeerMessage) -> Option<PeerMessage> {
        let has = !matches!(owner, Owner::Empty | Owner::Busy);
        match message {
            PeerMessage::ManifestRequest { page } => {
                let answer = self.sample.page(page).filter(|_| has);
                Some(answer.unwrap_or(PeerMessage::ManifestReject { page }))
            }
            PeerMessage::Request(asked) => {
                let geometry = self.sample.manifest.geometry();
                match has && geometry.contains_block(asked) {
                    true => Some(block(self.sample, asked, owner == Owner::Honest)),
                    false => Some(PeerMessage::Reject(asked)),
                }
            }
            _ => None,
        }
    }

    fn requests(&self) -> Vec<(LinkId, BlockRange)> {
        let requests = self
            .sent
            .iter()
            .filter_map(|(link, message)| match message {
                PeerMessage::Request(block) => Some((*link, *block)),
                _ => None,
            });
        requests.collect()
    }

    fn pages(&self) -> Vec<(LinkId, u32)> {
        let pages = self
            .sent
            .iter()
            .filter_map(|(link, message)| match message {
                PeerMessage::ManifestRequest { page } => Some((*link, *page)),
                _ => None,
            });
        pages.collect()
    }

    /// Who was dropped before the end, and why.
    fn blamed(&self) -> Vec<(LinkId, DropReason)> {
        let not_needed = DropReason::Refused(RefuseReason::NotNeeded);
        let dropped = self.dropped.iter().copied();
        dropped.filter(|(_, why)| *why != not_needed).collect()
    }

    fn wasted(&self) -> u64 {
        self.single.swarm.progress(self.single.now).wasted
    }
}

#[test]
fn everything_is_asked_for_before_anything_was_heard() {
    let sample = Sample::new(20 * CHUNK as usize);
    let owners = [Owner::Honest; 2];
    let download = EarlyDownload::new(&sample, 20 * CHUNK, &owners);
    let links: Vec<LinkId> = download.owners.iter().map(|owner| owner.0).collect();
    for &link in &links {
        let pages = [(link, 0), (link, 1)];
        assert!(pages.iter().all(|page| download.pages().contains(page)));
        let requests = download.requests();
        let of_link = requests.iter().filter(|request| request.0 == link);
        assert_eq!(of_link.count(), 10, "half of the content");
    }
    let mut download = EarlyDownload::new(&sample, 20 * CHUNK, &[Owner::Honest]);
    assert_eq!(download.requests().len(), 20);
    let asked = download.sent.len();
    download.run();
    let more: Vec<_> = download.sent[asked..].iter().collect();
    let asks = |message: &PeerMessage| {
        matches!(
            message,
            PeerMessage::Request(_) | PeerMessage::ManifestRequest { .. }
        )
    };
    assert!(!more.iter().any(|(_, message)| asks(message)), "{more:?}");
    assert_eq!((download.blamed(), download.wasted()), (vec![], 0));
}

#[test]
fn only_chunk_of_a_content_needs_no_manifest() {
    for length in [1, 5000, CHUNK] {
        let sample = Sample::new(length as usize);
        let mut download = EarlyDownload::new(&sample, length, &[Owner::Honest; 4]);
        assert_eq!(download.requests().len(), 1);
        download.run();
        assert_eq!(download.requests().len(), 1);
        assert_eq!((download.pages(), download.wasted()), (vec![], 0));
    }
}

#[test]
fn wrong_length_harms_nobody() {
    for length in [1000, CHUNK + 1, 20 * CHUNK] {
        let sample = Sample::new(length as usize);
        let wrong = [
            0,
            1,
            length - 1,
            length + 1,
            length.saturating_sub(CHUNK),
            length + CHUNK,
            length * 2,
            length + 2000 * CHUNK,
            // The longest that there is takes long to check here.
            if length == 1000 { 1 << 44 } else { 1 << 36 },
            u64::MAX,
        ];
        for told in wrong {
            for owners in [1, 3] {
                let honest = vec![Owner::Honest; owners];
                let mut download = EarlyDownload::new(&sample, told, &honest);
                download.run();
                assert_eq!(download.blamed(), [], "{told} instead of {length}");
            }
        }
    }
}

#[test]
fn owner_that_refuses_or_lacks_everything_leaves_its_part_to_another() {
    for length in [1000, 20 * CHUNK] {
        let sample = Sample::new(length as usize);
        let refusals = [
            RefuseReason::Busy,
            RefuseReason::UnknownContent,
            RefuseReason::SelfConnection,
        ];
        let bad = refusals.map(Owner::Refuses);
        for bad in bad.into_iter().chain([Owner::Empty]) {
            let mut download = EarlyDownload::new(&sample, length, &[bad, Owner::Honest]);
            download.run();
            let left = |(_, why): &(LinkId, DropReason)| matches!(why, DropReason::Left(_));
            assert!(download.blamed().iter().all(left), "{bad:?}");
            assert_eq!(download.wasted(), 0);
        }
    }
}

#[test]
fn owner_that_has_a_link_wait_leaves_its_part_to_another_at_once() {
    for length in [1000, 20 * CHUNK] {
        let sample = Sample::new(length as usize);
        for owners in [[Owner::Busy, Owner::Honest], [Owner::Honest, Owner::Busy]] {
            let mut download = EarlyDownload::new(&sample, length, &owners);
            let start = download.single.now;
            download.run();
            // Nobody had to be waited for, only the answers of the other one.
            let elapsed = download.single.now - start;
            assert!(elapsed < Duration::from_millis(100), "{elapsed:?}");
            assert_eq!((download.blamed(), download.wasted()), (vec![], 0));
        }
    }
}

/// A download whose only owner has it wait, after it was asked for everything.
fn waiting_download(sample: &Sample) -> (EarlyDownload<'_>, LinkId, Vec<BlockRange>) {
    let length = sample.manifest.geometry().length();
    let mut download = EarlyDownload::new(sample, length, &[Owner::Busy]);
    let link = download.owners[0].0;
    let asked: Vec<BlockRange> = download.requests().iter().map(|(_, b)| *b).collect();
    assert!(!asked.is_empty());
    let (now, peer) = (download.single.now, PeerId([1; 16]));
    download.single.swarm.link_met(now, link, peer, None);
    let queued = PeerMessage::Queued { position: 1 };
    download.single.hears(link, queued);
    download.perform();
    (download, link, asked)
}

#[test]
fn download_that_waited_asks_again_when_it_has_a_place() {
    let sample = Sample::new(20 * CHUNK as usize);
    let (mut download, link, asked) = waiting_download(&sample);
    for block in asked {
        download.single.hears(link, PeerMessage::Reject(block));
    }
    for page in [0, 1] {
        download
            .single
            .hears(link, PeerMessage::ManifestReject { page });
    }
    download.perform();
    assert_eq!(download.dropped, []);
    download.sent.clear();
    download.owners = vec![(link, Owner::Honest)];
    // It greets.
    download.run();
    assert_eq!(download.requests().len(), 20);
    assert_eq!((download.blamed(), download.wasted()), (vec![], 0));
}

#[test]
fn answers_that_crossed_the_end_of_the_wait_are_no_lies() {
    let sample = Sample::new(20 * CHUNK as usize);
    let (mut download, link, asked) = waiting_download(&sample);
    download.single.hears(link, PeerMessage::HaveAll);
    download.perform();
    for asked in asked {
        let answer = block(&sample, asked, true);
        download.single.hears(link, answer);
    }
    download.perform();
    assert_eq!(download.dropped, []);
}

#[test]
fn side_that_has_another_wait_rejects_only_what_it_was_asked_for() {
    let sample = Sample::new(20 * CHUNK as usize);
    let (mut download, link, asked) = waiting_download(&sample);
    for _ in 0..2 {
        assert_eq!(download.dropped, []);
        download.single.hears(link, PeerMessage::Reject(asked[0]));
        download.perform();
    }
    assert!(matches!(
        download.dropped[..],
        [(dropped, DropReason::Violation(_))] if dropped == link
    ));
}

#[test]
fn liar_is_banned_for_early_blocks_and_they_come_from_another() {
    for length in [1000, CHUNK + 1, 20 * CHUNK] {
        let sample = Sample::new(length as usize);
        for owners in [[Owner::Liar, Owner::Honest], [Owner::Honest, Owner::Liar]] {
            let mut download = EarlyDownload::new(&sample, length, &owners);
            let liar = download.owners.iter().find(|owner| owner.1 == Owner::Liar);
            let liar = liar.unwrap().0;
            let asked_liar = download.requests().iter().any(|request| request.0 == liar);
            download.run();
            let banned = (liar, DropReason::Refused(RefuseReason::Banned));
            // The only chunk of a content may have come from the other one.
            assert_eq!(download.blamed().is_empty(), !asked_liar);
            assert!(download.blamed().iter().all(|blamed| *blamed == banned));
        }
    }
}

#[test]
fn nothing_that_is_here_is_asked_for_again_once_that_is_known() {
    let sample = Sample::new(40 * CHUNK as usize);
    let mut download = EarlyDownload::new(&sample, 40 * CHUNK, &[Owner::Honest]);
    let chunks = sample.manifest.geometry().indices();
    for chunk in chunks.filter(|chunk| chunk.0 % 3 > 0) {
        download.present.insert(chunk);
    }
    let early = download.requests().len();
    assert_eq!(early, 40);
    download.run();
    let later = &download.requests()[early..];
    let is_missing = |chunk| !download.present.contains(chunk);
    assert!(later.iter().all(|(_, block)| is_missing(block.chunk)));
    assert_eq!(download.blamed(), []);
}

#[test]
fn owner_that_is_not_named_as_complete_is_asked_nothing_before_it_greets() {
    let sample = Sample::new(20 * CHUNK as usize);
    let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
    single.swarm = single.swarm.expecting(20 * CHUNK);
    let named = [(addr("owner:1"), false)];
    single.swarm.owners_found(single.now, named);
    let owner = single.dialled(OWNER, "owner:1");
    let outputs = single.outputs();
    assert_eq!(requests(&outputs, owner), []);
    single.hears(owner, PeerMessage::HaveAll);
    assert_eq!(requests(&single.outputs(), owner).len(), 20);
}
