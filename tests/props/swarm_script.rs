//! One machine under arbitrary scripts. It keeps its promises for any input in
//! any order. In the end, a single honest seeder among silent links is enough
//! to finish.

pub(crate) mod ops;

use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, Output, Strategy as Order, Swarm, SwarmConfig};
use bt_lite::protocol::{Addr, Hello, LinkCookie, LinkProof, PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use self::ops::{Answer, Forgery, Op, PEERS, Says, Unbidden, ops};
use crate::sample::{LARGE, SMALL, Sample, link_info, proof, with_cookies};
use crate::swarm_observer::{Observer, Seen};

/// Only the chunks below this index are missing.
const MISSING: u32 = 6;

/// A task that the machine gave its driver.
#[derive(Debug)]
enum Job {
    Sent(LinkId, u64),
    Dial(Addr),
    Find,
    Open,
    /// Whether it may be written at once.
    Verify(ChunkIndex, bool),
    Recheck(ChunkIndex),
    Store(ChunkIndex),
    Read(LinkId, BlockRange),
    Commit,
    Finish,
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

/// Two addresses of each host.
fn addr(n: u8) -> Addr {
    format!("host{}:{n}", n / 2).parse().unwrap()
}

struct Script {
    swarm: Swarm,
    observer: Observer,
    sample: Sample,
    jobs: Vec<Job>,
    links: u64,
    inputs: usize,
    /// After which inputs, by their numbers, the machine checks its parts.
    checked: fn(usize) -> bool,
}

impl Script {
    fn new(sample: &Sample, seeding: bool, seed: u64, checked: fn(usize) -> bool) -> Self {
        let mut config = SwarmConfig::default();
        config.sources = 3;
        config.max_links = 4;
        // The line has a model of its own.
        config.max_waiting = 0;
        config.send_window = 32 << 10;
        config.max_unverified = 4 * sample.manifest.geometry().chunk_len();
        config.commit_bytes = 40 << 10;
        config.planner.max_requests = 5;
        config.planner.seed = seed;
        let (now, me) = (Instant::now(), peer(0));
        let manifest = sample.manifest.clone();
        Self {
            observer: Observer::new(now, sample, me, seeding, &config),
            swarm: match seeding {
                true => Swarm::seeder(now, config, me, manifest),
                false => Swarm::leecher(now, config, me, manifest.id()),
            },
            sample: sample.clone(),
            jobs: Vec::new(),
            links: 0,
            inputs: 0,
            checked,
        }
    }

    fn chunks(&self) -> u32 {
        self.sample.manifest.geometry().chunks()
    }

    /// Collects the machine's outputs after every input.
    fn settle(&mut self) {
        if (self.checked)(self.inputs) {
            self.swarm.check_invariants();
        }
        self.inputs += 1;
        while let Some(output) = self.swarm.poll_output() {
            self.observer.output(&output);
            self.jobs.extend(match output {
                Output::Send { link, message } => Some(Job::Sent(
                    link,
                    match message {
                        PeerMessage::Block { data, .. } => data.len() as u64,
                        _ => 0,
                    },
                )),
                Output::Dial { addr } => Some(Job::Dial(addr)),
                Output::FindOwners => Some(Job::Find),
                Output::Open(_) => Some(Job::Open),
                Output::Verify {
                    chunk, may_write, ..
                } => Some(Job::Verify(chunk, may_write)),
                Output::Recheck { chunk } => Some(Job::Recheck(chunk)),
                Output::Store { chunk, .. } => Some(Job::Store(chunk)),
                Output::Read { link, block } => Some(Job::Read(link, block)),
                Output::Commit { .. } => Some(Job::Commit),
                Output::Finish => Some(Job::Finish),
                _ => None,
            });
        }
        self.observer.settled();
        let timeout = self.swarm.poll_timeout();
        let mut unsaid = self.observer.unsaid();
        assert!(unsaid.all(|end| timeout.is_some_and(|at| at <= end)));
        drop(unsaid);
        let pages = self.observer.manifest_due();
        assert!(pages.is_none_or(|due| timeout.is_some_and(|at| at <= due)));
        let progress = self.swarm.progress(self.observer.now);
        let known = progress.chunks.is_some();
        assert!(!known || progress.verified_chunks as usize == self.observer.stored.len());
        assert_eq!(progress.links as usize, self.observer.links.len());
        assert_eq!(self.swarm.is_seeding(), self.observer.seeding);
    }

    fn up(&mut self, number: u8, at: Option<u8>, dialled: bool) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        let info = link_info(peer(number), at.map(addr), dialled);
        let info = with_cookies(info, link);
        self.observer.up(link, info.clone());
        self.swarm.link_up(self.observer.now, link, info);
        self.settle();
        link
    }

    fn down(&mut self, link: LinkId) {
        self.observer.down(link);
        self.swarm.link_down(self.observer.now, link);
        self.settle();
    }

    fn hears(&mut self, link: LinkId, message: PeerMessage) {
        self.observer.hears(link, &message);
        self.swarm.handle_message(self.observer.now, link, message);
        self.settle();
    }

    /// One of the links that are up.
    fn link(&self, index: Index) -> Option<LinkId> {
        let links: Vec<LinkId> = self.observer.links.keys().copied().collect();
        (!links.is_empty()).then(|| *index.get(&links))
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Up(number, at, dialled, has) => {
                let link = self.up(number, at, dialled);
                if let Some(has) = has {
                    self.says(link, has);
                }
            }
            Op::Down(index) => {
                if let Some(link) = self.link(index) {
                    self.down(link);
                }
            }
            Op::Says(index, says) => {
                if let Some(link) = self.link(index) {
                    self.says(link, says);
                }
            }
            Op::Repeats(index, says, times) => {
                if let Some(link) = self.link(index) {
                    for _ in 0..times {
                        if self.observer.links.contains_key(&link) {
                            self.says(link, says.clone());
                        }
                    }
                }
            }
            Op::Answers(index, at, answer) => {
                if let Some(link) = self.link(index) {
                    self.answers(link, Some(at), answer);
                }
            }
            Op::Does(index, works) => {
                if !self.jobs.is_empty() {
                    let job = self.jobs.swap_remove(index.index(self.jobs.len()));
                    self.does(job, works);
                }
            }
            Op::DoesAll => self.does_all(),
            Op::Owners(owners) => {
                let owners = owners.into_iter().map(|(n, complete)| (addr(n), complete));
                let owners: Vec<(Addr, bool)> = owners.collect();
                self.observer.named(owners.iter().cloned());
                self.swarm.owners_found(self.observer.now, owners);
                self.settle();
            }
            Op::Unbidden(what) => self.unbidden(what),
            Op::Wait(ms) => self.observer.now += Duration::from_millis(ms),
            Op::Timeout => self.timeout(),
            Op::Order(sequential) => self.swarm.set_strategy(match sequential {
                true => Order::Sequential,
                false => Order::RarestFirst,
            }),
            Op::Pause(serve) => {
                self.observer.pauses(serve);
                self.swarm.pause(self.observer.now, serve);
                assert_eq!(self.swarm.is_paused(), self.observer.paused.is_some());
                self.settle();
            }
            Op::Resume => self.resume(),
        }
    }

    fn resume(&mut self) {
        self.observer.resumes();
        self.swarm.resume(self.observer.now);
        self.settle();
    }

    fn says(&mut self, link: LinkId, says: Says) {
        let block = |chunk, offset, len| BlockRange {
            chunk: ChunkIndex(chunk),
            offset,
            len,
        };
        let message = match says {
            Says::All => PeerMessage::HaveAll,
            Says::None => PeerMessage::HaveNone,
            Says::Some(has) => {
                let mut bits = Bitfield::none(self.chunks());
                let indices = self.sample.manifest.geometry().indices();
                for chunk in indices.filter(|c| has[c.as_usize() % has.len()]) {
                    bits.insert(chunk);
                }
                PeerMessage::Bitfield(bits.to_bytes())
            }
            Says::Bits(bytes) => PeerMessage::Bitfield(bytes.into()),
            Says::Have(chunk) => PeerMessage::Have(ChunkIndex(chunk)),
            Says::Suggest(chunk) => PeerMessage::Suggest(ChunkIndex(chunk)),
            Says::Request(chunk, offset, len) => PeerMessage::Request(block(chunk, offset, len)),
            Says::Cancel(at) => {
                let theirs = &self.observer.links[&link].theirs;
                match theirs.is_empty() {
                    true => return,
                    false => PeerMessage::Cancel(*at.get(theirs)),
                }
            }
            Says::CancelAny(chunk) => PeerMessage::Cancel(block(chunk, 0, 1)),
            Says::Choke(true) => PeerMessage::Choke,
            Says::Choke(false) => PeerMessage::Unchoke,
            Says::Part(page) => PeerMessage::ManifestRequest { page },
            Says::Length(length, proof) => {
                self.observer.lies(link);
                let proof = proof.into();
                PeerMessage::ManifestLength { length, proof }
            }
            Says::Hashes(page, hashes) => {
                self.observer.lies(link);
                let hashes = hashes.into();
                PeerMessage::ManifestHashes { page, hashes }
            }
            Says::NoPart(page) => PeerMessage::ManifestReject { page },
            Says::Block(chunk, offset, len) => PeerMessage::Block {
                chunk: ChunkIndex(chunk),
                offset,
                data: vec![0; len].into(),
            },
            Says::Reject(chunk, offset, len) => PeerMessage::Reject(block(chunk, offset, len)),
            Says::Hello => PeerMessage::Hello(Hello::new(peer(1), None, LinkCookie([0; 16]))),
            Says::Interested(true) => PeerMessage::Interested,
            Says::Interested(false) => PeerMessage::NotInterested,
            Says::Proof(at, forgery) => {
                let links: Vec<&Seen> = self.observer.links.values().collect();
                let older = at.get(&links).info.cookies.expect("all have cookies");
                let newer = self.observer.links[&link].info.cookies;
                let newer = newer.expect("all have cookies");
                let (ours, theirs) = ([older.said, older.heard], [older.heard, older.said]);
                PeerMessage::SamePeer(match forgery {
                    Forgery::None => proof(theirs, [newer.heard, newer.said]),
                    Forgery::SentBack => proof(ours, [newer.said, newer.heard]),
                    Forgery::Turned => proof(ours, [newer.heard, newer.said]),
                    // The proof that was given on the older link, about the newer one.
                    Forgery::Replayed => proof([newer.heard, newer.said], theirs),
                    Forgery::Guessed => LinkProof([0; 16]),
                })
            }
            Says::Refuse => PeerMessage::Refuse(RefuseReason::Busy),
            Says::KeepAlive => PeerMessage::KeepAlive,
        };
        self.hears(link, message);
    }

    /// Answers one request: the chosen one, or the first if `at` is `None`.
    /// Returns whether there was a request.
    fn answers(&mut self, link: LinkId, at: Option<Index>, answer: Answer) -> bool {
        let Some(seen) = self.observer.links.get_mut(&link) else {
            return false;
        };
        if !seen.pages.is_empty() {
            let page = seen.pages.remove(0);
            let truth = self
                .sample
                .page(page)
                .expect("the machine asks for a page that exists");
            let message = match answer {
                Answer::Truth => truth,
                Answer::Lie => {
                    self.observer.lies(link);
                    lie(truth)
                }
                Answer::Refusal => PeerMessage::ManifestReject { page },
            };
            self.hears(link, message);
            return true;
        }
        if seen.asked.is_empty() {
            return false;
        }
        let at = at.map_or(0, |at| at.index(seen.asked.len()));
        let (block, _) = seen.asked[at];
        let data = self.sample.block(block);
        let truth = PeerMessage::Block {
            chunk: block.chunk,
            offset: block.offset,
            data,
        };
        let message = match answer {
            Answer::Truth => truth,
            Answer::Lie if block.len > 0 => {
                self.observer.lies(link);
                lie(truth)
            }
            _ => PeerMessage::Reject(block),
        };
        self.hears(link, message);
        true
    }

    fn does(&mut self, job: Job, works: bool) {
        let now = self.observer.now;
        match job {
            Job::Sent(link, bytes) => {
                self.observer.sent(link, 1, bytes);
                self.swarm.messages_sent(now, link, 1, bytes);
            }
            Job::Dial(addr) => {
                self.observer.dial_failed(&addr);
                self.swarm.dial_failed(now, &addr);
            }
            Job::Find => {
                self.observer.named(std::iter::empty());
                self.swarm.owners_found(now, Vec::new());
            }
            Job::Open => {
                let mut present = Bitfield::none(self.chunks());
                let indices = self.sample.manifest.geometry().indices();
                for chunk in indices.filter(|chunk| chunk.0 >= MISSING) {
                    present.insert(chunk);
                }
                if !works && self.chunks() > 1 {
                    present.insert(ChunkIndex(0));
                }
                let mut verified = present.clone();
                for chunk in present.iter().filter(|chunk| chunk.0 % 2 == 0) {
                    verified.remove(chunk);
                }
                self.observer.opened(&present, &verified);
                self.swarm.opened(now, &present, &verified);
            }
            Job::Verify(chunk, may_write) => {
                let good = self.observer.verified(chunk);
                if good && may_write && works {
                    self.observer.stored(chunk);
                    self.swarm.chunk_written(now, chunk);
                } else {
                    self.swarm.chunk_verified(now, chunk, good);
                }
            }
            Job::Recheck(chunk) => {
                self.observer.rechecked(chunk, works);
                self.swarm.chunk_rechecked(now, chunk, works);
            }
            Job::Store(chunk) => {
                self.observer.stored(chunk);
                self.swarm.chunk_stored(now, chunk);
            }
            Job::Read(link, block) => {
                self.observer.read(link, block, works);
                let data = works.then(|| self.sample.block(block));
                self.swarm.block_read(now, link, block, data);
            }
            Job::Commit => {
                self.observer.committed();
                self.swarm.committed(now);
            }
            Job::Finish => {
                self.observer.finished();
                self.swarm.finished(now);
            }
        }
        self.settle();
    }

    /// Does all jobs. The machine must soon have no more.
    fn does_all(&mut self) {
        for _ in 0..5_000 {
            if self.jobs.is_empty() {
                return self.observer.drained();
            }
            let job = self.jobs.swap_remove(0);
            self.does(job, true);
        }
        panic!("the driver's jobs never end");
    }

    fn unbidden(&mut self, what: Unbidden) {
        let now = self.observer.now;
        match what {
            Unbidden::DialFailed(n) => {
                self.observer.dial_failed(&addr(n));
                self.swarm.dial_failed(now, &addr(n));
            }
            Unbidden::Opened => {
                if !self.jobs.iter().any(|job| matches!(job, Job::Open)) {
                    let present = Bitfield::all(self.chunks());
                    self.swarm.opened(now, &present, &present);
                }
            }
            Unbidden::Verified(chunk, good) => {
                let chunk = ChunkIndex(chunk % 8);
                let hashes = |job: &Job| matches!(job, Job::Verify(c, _) if *c == chunk);
                if !self.jobs.iter().any(hashes) {
                    self.swarm.chunk_verified(now, chunk, good);
                }
            }
            Unbidden::Stored(chunk) => {
                let chunk = ChunkIndex(chunk % 8);
                let writes = |job: &Job| matches!(job, Job::Store(c) if *c == chunk);
                if !self.jobs.iter().any(writes) {
                    self.swarm.chunk_stored(now, chunk);
                }
                let hashes = |job: &Job| matches!(job, Job::Verify(c, _) if *c == chunk);
                if !self.jobs.iter().any(hashes) {
                    self.swarm.chunk_written(now, chunk);
                }
            }
            Unbidden::Committed => {
                if !self.jobs.iter().any(|job| matches!(job, Job::Commit)) {
                    self.swarm.committed(now);
                }
            }
            Unbidden::Finished => {
                if !self.jobs.iter().any(|job| matches!(job, Job::Finish)) {
                    self.swarm.finished(now);
                }
            }
            Unbidden::Read(link) => {
                let (link, chunk) = (LinkId(link), ChunkIndex(0));
                if !self.observer.links.contains_key(&link) {
                    let (offset, len) = (0, 1);
                    let block = BlockRange { chunk, offset, len };
                    let data = Some(Bytes::from_static(b"x"));
                    self.swarm.block_read(now, link, block, data);
                }
            }
            Unbidden::Sent(index, messages, bytes) => {
                if let Some(link) = self.link(index) {
                    self.observer.sent(link, messages, bytes);
                    self.swarm.messages_sent(now, link, messages, bytes);
                }
            }
            Unbidden::Down(link) => {
                let link = LinkId(link);
                if !self.observer.links.contains_key(&link) {
                    self.swarm.link_down(now, link);
                }
            }
        }
        self.settle();
    }

    /// Waits until the machine's timeout is due, and calls it once. The next
    /// timeout must be later, or the driver would spin.
    fn timeout(&mut self) {
        if let Some(at) = self.swarm.poll_timeout() {
            self.observer.now = self.observer.now.max(at);
        }
        self.observer.timeout();
        self.swarm.handle_timeout(self.observer.now);
        self.settle();
        let next = self.swarm.poll_timeout();
        assert!(
            next.is_none_or(|next| next > self.observer.now),
            "the machine's timeout does not move on"
        );
        if self.observer.holds_up(None) {
            // What was sent just now may be what has filled the window: that is seen when
            // something comes next.
            self.swarm.handle_timeout(self.observer.now);
            self.settle();
        }
        let held_up = self.observer.holds_up(None);
        assert!(!held_up, "links that do not read block others");
        let mut unsaid = self.observer.unsaid();
        assert!(
            unsaid.all(|end| end > self.observer.now),
            "a link that never said what it has is still up"
        );
    }

    /// Calls the machine if its timeout is due.
    fn on_time(&mut self) {
        let due = self.swarm.poll_timeout();
        if due.is_some_and(|due| due <= self.observer.now) {
            self.timeout();
        }
    }

    /// An honest seeder joins, and all other links fall silent.
    fn finish(&mut self) {
        self.resume();
        self.does_all();
        while self.observer.links.len() >= 4 {
            let link = *self.observer.links.keys().next().unwrap();
            self.down(link);
        }
        let seeder = self.up(PEERS, None, false);
        let deadline = self.observer.now + 5 * Duration::from_secs(60);
        self.hears(seeder, PeerMessage::HaveAll);
        for _ in 0..2_000 {
            self.does_all();
            if self.swarm.is_seeding() {
                let up = self.observer.links.contains_key(&seeder);
                assert!(!up, "a link between two seeders is kept");
                return;
            }
            assert!(
                self.observer.links.contains_key(&seeder),
                "an honest seeder was dropped"
            );
            self.observer.now += Duration::from_millis(1);
            if !self.answers(seeder, None, Answer::Truth) {
                // A driver may be late.
                self.observer.now += Duration::from_millis(99);
                self.timeout();
            }
            assert!(
                self.observer.now < deadline,
                "silent links hold up an honest seeder"
            );
        }
        panic!("an honest seeder is not enough to finish");
    }
}

/// The same message with wrong bytes.
fn lie(truth: PeerMessage) -> PeerMessage {
    let flip = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Bytes::from(bytes)
    };
    match truth {
        PeerMessage::Block {
            chunk,
            offset,
            data,
        } => PeerMessage::Block {
            chunk,
            offset,
            data: flip(&data),
        },
        PeerMessage::ManifestHashes { page, hashes } => PeerMessage::ManifestHashes {
            page,
            hashes: flip(&hashes),
        },
        PeerMessage::ManifestLength { length, proof } => PeerMessage::ManifestLength {
            length: length + 1,
            proof,
        },
        other => other,
    }
}

/// Runs a script and what must be possible after it. The machine checks its parts after the
/// inputs that are `checked`, by their numbers, and at the end.
pub(crate) fn run(
    sample: &Sample,
    seeding: bool,
    seed: u64,
    ops: Vec<Op>,
    checked: fn(usize) -> bool,
) {
    let mut script = Script::new(sample, seeding, seed, checked);
    script.settle();
    // The driver is on time in half of the cases.
    let on_time = seed.is_multiple_of(2);
    for op in ops {
        script.apply(op);
        if on_time {
            script.on_time();
        }
    }
    script.finish();
    script.swarm.check_invariants();
}

proptest! {
    #[test]
    fn machine_after_any_script_keeps_its_promises(
        ops in ops(), sample in 0usize..5, seeding in prop::bool::weighted(0.15), seed: u64,
    ) {
        run(&SMALL[sample], seeding, seed, ops, |_| true);
    }
}

proptest! {
    // This content has many chunks, so each case takes longer.
    #![proptest_config(ProptestConfig {
        cases: (ProptestConfig::default().cases / 8).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn machine_with_several_blocks_a_chunk_keeps_its_promises(ops in ops(), seed: u64) {
        run(&LARGE, false, seed, ops, |_| true);
    }
}
