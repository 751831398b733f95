//! A whole swarm in one thread and in virtual time: the machines that peers
//! run, joined by a model of a network.
//!
//! The machines are the shipped ones ([`Swarm`]), to the last decision; what
//! is modelled is what lies between them. Each peer has an uplink, on which
//! blocks go out one behind the other at its upload rate, and a downlink, on
//! which they come in at its download rate at the most; messages without a
//! block take no time but the latency, and stay in order with the blocks of
//! their link; only of a peer that joined with an upload rate of 0 they get
//! through all the same. Hashing and storing take no time. A tracker names random
//! members of the swarm. The same seed gives the same run, event for event.
//!
//! Members may be adversaries, which keep to the protocol and harm: see
//! [`Adversary`]. Every honest member is a host of its own.

mod adversary;
mod lines;
mod machine;
mod places;
mod script;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use adversary::{Adversary, UnknownAdversary};

use machine::Machine;
use places::{Place, VACANT};
use script::Script;

use crate::content::{Bitfield, Manifest};
use crate::peer::swarm::{LinkId, LinkInfo, LinkMap, Output, Progress, Swarm, SwarmConfig};
use crate::protocol::{Addr, LinkCookie, PeerId, PeerMessage};

/// How long a dial waits where nobody is, in chunk times of who had such
/// addresses listed.
const UNANSWERED: u32 = 20;

/// A liar sends at its upload rate divided by this.
const LIAR_SLOWS: f64 = 100.0;

/// A peer of a [`Simulation`], in the order of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(pub usize);

/// A swarm in virtual time. See the [module docs](self).
#[derive(Debug)]
pub struct Simulation {
    epoch: Instant,
    now: Duration,
    manifest: Arc<Manifest>,
    config: SwarmConfig,
    /// How long a message is on its way.
    latency: Duration,
    /// How many members the tracker names at a time.
    named: usize,
    rng: fastrand::Rng,
    members: Vec<State>,
    /// What the tracker lists.
    listed: Vec<Place>,
    /// And what it names first, for the best: liars.
    ranked: Vec<Place>,
    /// What impostors show for the manifest, if there are any.
    false_manifest: Option<Arc<Manifest>>,
    events: BinaryHeap<Event>,
    /// Events of this very moment, in order.
    immediate: VecDeque<What>,
    sequence: u64,
    next_link: u64,
    leeching: usize,
    /// What every block is made of: nobody looks into it.
    zeros: Bytes,
    steps: u64,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    addr: Addr,
    alive: bool,
    upload: f64,
    download: f64,
    /// It joined without an upload rate.
    rides: bool,
    links: LinkMap<Wire>,
    /// What waits for the uplink; the first is being sent.
    uplink: VecDeque<Outgoing>,
    /// Bytes of the first that are still to be sent, as of `since`.
    remaining: f64,
    since: Duration,
    /// Makes earlier plans for the end of the first void.
    plan: u64,
    downlink_free: Duration,
    timer: Option<Duration>,
    joined: Duration,
    finished: Option<Duration>,
    listed: bool,
    busy: bool,
}

/// One direction's far end.
#[derive(Debug)]
struct Wire {
    to: Member,
    link: LinkId,
    /// Blocks of this link that wait for the uplink.
    queued: usize,
    last_delivery: Duration,
}

#[derive(Debug)]
struct Outgoing {
    link: LinkId,
    message: PeerMessage,
    bytes: u64,
}

#[derive(Debug)]
struct Event {
    at: Duration,
    sequence: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Deliver {
        to: Member,
        link: LinkId,
        message: PeerMessage,
    },
    /// The uplink has sent its first, if the plan still holds.
    Sent {
        from: Member,
        plan: u64,
    },
    Timer(Member),
    Dial {
        from: Member,
        to: Member,
    },
    /// Nobody has answered a dial.
    Unanswered {
        from: Member,
        addr: Addr,
    },
    Rate {
        of: Member,
        upload: f64,
    },
    Join(Box<Newcomer>),
    Leave(Member),
    Owners(Member),
    Down {
        of: Member,
        link: LinkId,
    },
}

#[derive(Debug)]
struct Newcomer {
    upload: f64,
    download: f64,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Seeder,
    Leecher,
    Adversary(Adversary),
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl Simulation {
    /// An empty swarm about a content of zeros of `length` bytes.
    ///
    /// # Panics
    /// If the content is too long.
    pub fn new(length: u64, config: SwarmConfig, seed: u64) -> Self {
        let zeros = std::io::Read::take(std::io::repeat(0), length);
        let manifest = Manifest::from_reader(zeros, length).expect("the length is in bounds");
        Self {
            epoch: Instant::now(),
            now: Duration::ZERO,
            manifest: Arc::new(manifest),
            config,
            latency: Duration::ZERO,
            named: 32,
            rng: fastrand::Rng::with_seed(seed),
            members: Vec::new(),
            listed: Vec::new(),
            ranked: Vec::new(),
            false_manifest: None,
            events: BinaryHeap::new(),
            immediate: VecDeque::new(),
            sequence: 0,
            next_link: 0,
            leeching: 0,
            zeros: Bytes::from(vec![0; crate::protocol::limits::MAX_BLOCK_LEN as usize]),
            steps: 0,
        }
    }

    /// How long every message is on its way, from now on.
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// The content.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A seeder joins. Rates in bytes per second.
    pub fn seeder(&mut self, upload: f64, download: f64) -> Member {
        self.join(Newcomer {
            upload,
            download,
            role: Role::Seeder,
        })
    }

    /// A leecher joins. Rates in bytes per second.
    pub fn leecher(&mut self, upload: f64, download: f64) -> Member {
        self.join(Newcomer {
            upload,
            download,
            role: Role::Leecher,
        })
    }

    /// An adversary joins. Rates in bytes per second; the upload rate sets its
    /// pace, also where it never sends.
    ///
    /// # Panics
    /// If the upload rate is not above zero.
    pub fn adversary(&mut self, kind: Adversary, upload: f64, download: f64) -> Member {
        assert!(upload > 0.0, "an adversary has a pace");
        self.join(Newcomer {
            upload,
            download,
            role: Role::Adversary(kind),
        })
    }

    /// A leecher joins later.
    pub fn leecher_at(&mut self, at: Duration, upload: f64, download: f64) {
        self.schedule(
            at,
            What::Join(Box::new(Newcomer {
                upload,
                download,
                role: Role::Leecher,
            })),
        );
    }

    /// A member's upload rate changes later; 0 stops it.
    pub fn set_upload_at(&mut self, at: Duration, of: Member, upload: f64) {
        self.schedule(at, What::Rate { of, upload });
    }

    /// A member leaves without a word.
    pub fn leave_at(&mut self, at: Duration, member: Member) {
        self.schedule(at, What::Leave(member));
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// How many events have happened.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Which kind of adversary a member is, unless it is honest.
    pub fn adversary_kind(&self, member: Member) -> Option<Adversary> {
        let script = self.members[member.0].machine.script();
        script.map(Script::kind)
    }

    /// How many honest members leech at present.
    pub fn leeching(&self) -> usize {
        self.leeching
    }

    /// How many members have joined so far, those that left included.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// When a member completed its download, if it did.
    pub fn finished(&self, member: Member) -> Option<Duration> {
        self.members[member.0].finished
    }

    /// When a member joined.
    pub fn joined(&self, member: Member) -> Duration {
        self.members[member.0].joined
    }

    /// Whether a member is (still) there.
    pub fn is_alive(&self, member: Member) -> bool {
        self.members[member.0].alive
    }

    /// How many members are sending blocks at this moment.
    pub fn sending(&self) -> usize {
        let sends = |state: &&State| state.alive && state.upload > 0.0 && !state.uplink.is_empty();
        self.members.iter().filter(sends).count()
    }

    /// How far a member is. Of an adversary, what it took and sent and how
    /// many links it has.
    pub fn progress(&self, member: Member) -> Progress {
        let state = &self.members[member.0];
        state.machine.progress(self.epoch + self.now)
    }

    /// Does the next event; `false` when there is none.
    pub fn step(&mut self) -> bool {
        let what = match self.immediate.pop_front() {
            Some(what) => what,
            None => match self.events.pop() {
                Some(event) => {
                    self.now = event.at;
                    event.what
                }
                None => return false,
            },
        };
        self.steps += 1;
        self.happen(what);
        true
    }

    /// Runs until nobody leeches and nobody is to join, or until `limit`;
    /// returns whether everybody is done.
    pub fn run(&mut self, limit: Duration) -> bool {
        loop {
            let joins = |event: &Event| matches!(event.what, What::Join(_));
            if self.leeching == 0 && !self.events.iter().any(joins) {
                return true;
            }
            if self.now > limit || !self.step() {
                return false;
            }
        }
    }

    fn join(&mut self, newcomer: Newcomer) -> Member {
        let member = Member(self.members.len());
        let now = self.epoch + self.now;
        let seed = self.rng.u64(..);
        let me = PeerId(self.rng.u128(..).to_be_bytes());
        let machine = self.machine(now, member, &newcomer, me, seed);
        self.leeching += usize::from(machine.leeches());
        let kind = machine.script().map(Script::kind);
        let slows = if kind == Some(Adversary::Liar) {
            LIAR_SLOWS
        } else {
            1.0
        };
        self.members.push(State {
            machine,
            addr: Place::of(member).addr(kind),
            alive: true,
            upload: newcomer.upload / slows,
            download: newcomer.download,
            rides: newcomer.upload <= 0.0,
            links: LinkMap::default(),
            uplink: VecDeque::new(),
            remaining: 0.0,
            since: self.now,
            plan: 0,
            downlink_free: Duration::ZERO,
            timer: None,
            joined: self.now,
            finished: None,
            listed: false,
            busy: false,
        });
        match newcomer.role {
            Role::Seeder => self.list(member),
            Role::Leecher => {
                self.settle(member);
                self.schedule(self.now, What::Owners(member));
            }
            Role::Adversary(kind) => {
                self.list_adversary(member, kind);
                self.settle(member);
                self.schedule(self.now, What::Owners(member));
            }
        }
        member
    }

    fn machine(
        &mut self,
        now: Instant,
        member: Member,
        newcomer: &Newcomer,
        me: PeerId,
        seed: u64,
    ) -> Machine {
        let mut config = self.config.clone();
        config.planner.seed = seed;
        let content = &self.manifest;
        let kind = match newcomer.role {
            Role::Seeder => {
                let swarm = Swarm::seeder(now, config, me, Arc::clone(content));
                return Machine::Honest(Box::new(swarm));
            }
            Role::Leecher => {
                let swarm = Swarm::leecher(now, config, me, content.id());
                return Machine::Honest(Box::new(swarm));
            }
            Role::Adversary(kind) => kind,
        };
        let shown = match kind {
            Adversary::Silent if member.0.is_multiple_of(2) => None,
            Adversary::Impostor => {
                let shown = self
                    .false_manifest
                    .get_or_insert_with(|| Arc::new(another_manifest(content)));
                Some(Arc::clone(shown))
            }
            _ => Some(Arc::clone(content)),
        };
        let chunk_len = content.geometry().chunk_len() as f64;
        let chunk_time = Duration::from_secs_f64(chunk_len / newcomer.upload);
        let script = Script::new(now, kind, me, content, shown, chunk_time, seed);
        Machine::Adversary(Box::new(script))
    }

    fn list(&mut self, member: Member) {
        let state = &mut self.members[member.0];
        if !std::mem::replace(&mut state.listed, true) {
            self.listed.push(Place::of(member));
        }
    }

    fn list_adversary(&mut self, member: Member, kind: Adversary) {
        match kind {
            Adversary::Impostor => {}
            Adversary::Liar => self.ranked.push(Place::of(member)),
            Adversary::Squatter => {
                let ports = 0..=VACANT;
                self.listed.extend(ports.map(|port| Place { member, port }));
            }
            Adversary::Silent | Adversary::Sybil | Adversary::Taker | Adversary::Flapper => {
                self.list(member);
            }
        }
    }

    fn schedule(&mut self, at: Duration, what: What) {
        if at <= self.now {
            self.immediate.push_back(what);
            return;
        }
        self.sequence += 1;
        self.events.push(Event {
            at,
            sequence: self.sequence,
            what,
        });
    }

    fn happen(&mut self, what: What) {
        let now = self.epoch + self.now;
        match what {
            What::Deliver { to, link, message } => {
                let state = &mut self.members[to.0];
                if state.alive && state.links.contains(link) {
                    state.machine.handle_message(now, link, message);
                    self.settle(to);
                }
            }
            What::Sent { from, plan } => {
                let state = &self.members[from.0];
                if state.alive && state.plan == plan {
                    self.sent(from);
                }
            }
            What::Timer(member) => {
                let state = &mut self.members[member.0];
                if state.alive && state.timer == Some(self.now) {
                    state.timer = None;
                    let due = state.machine.poll_timeout();
                    if due.is_some_and(|due| due <= now) {
                        state.machine.handle_timeout(now);
                    }
                    self.settle(member);
                }
            }
            What::Dial { from, to } => self.dial(from, to),
            What::Unanswered { from, addr } => {
                let state = &mut self.members[from.0];
                if state.alive {
                    state.machine.dial_failed(now, &addr);
                    self.settle(from);
                }
            }
            What::Rate { of, upload } => {
                self.progress_uplink(of);
                self.members[of.0].upload = upload;
                self.members[of.0].rides = false;
                self.plan_uplink(of);
            }
            What::Join(newcomer) => {
                self.join(*newcomer);
            }
            What::Leave(member) => self.leave(member),
            What::Owners(member) => {
                let owners = self.owners(member);
                let state = &mut self.members[member.0];
                if state.alive {
                    state.machine.owners_found(now, owners);
                    self.settle(member);
                }
            }
            What::Down { of, link } => {
                let state = &mut self.members[of.0];
                if state.alive && state.links.remove(link).is_some() {
                    state.machine.link_down(now, link);
                    self.settle(of);
                }
            }
        }
    }

    /// What the tracker says: the best first, if it ranks any, and the rest by
    /// chance. An adversary gets to know all who are honest.
    fn owners(&mut self, asker: Member) -> Vec<(Addr, bool)> {
        if self.adversary_kind(asker).is_some() {
            let listed = self.listed.iter().copied();
            let honest = listed.filter(|place| self.adversary_kind(place.member).is_none());
            return honest.map(|place| self.named(place)).collect();
        }
        let best = self.ranked.len().min(self.named * 3 / 4);
        pick(&mut self.rng, &mut self.ranked, best);
        let wanted = (self.named - best).min(self.listed.len());
        pick(&mut self.rng, &mut self.listed, wanted);
        let chosen = self.ranked[..best].iter().chain(&self.listed[..wanted]);
        let others = chosen.filter(|place| place.member != asker);
        others.map(|&place| self.named(place)).collect()
    }

    /// A place as the tracker names it, and whether it is complete.
    fn named(&self, place: Place) -> (Addr, bool) {
        let machine = &self.members[place.member.0].machine;
        let addr = place.addr(machine.script().map(Script::kind));
        (addr, machine.is_complete())
    }

    fn dial(&mut self, from: Member, to: Member) {
        let now = self.epoch + self.now;
        if !self.members[from.0].alive {
            return;
        }
        let dialled = &self.members[to.0];
        let accepts = dialled.machine.script().is_none_or(Script::accepts);
        if !dialled.alive || !accepts {
            let addr = dialled.addr.clone();
            self.members[from.0].machine.dial_failed(now, &addr);
            return self.settle(from);
        }
        let ids = [LinkId(self.next_link), LinkId(self.next_link + 1)];
        self.next_link += 2;
        let ends = [(from, to, ids[0], ids[1]), (to, from, ids[1], ids[0])];
        for (end, other, link, far) in ends {
            self.members[end.0].links.insert(
                link,
                Wire {
                    to: other,
                    link: far,
                    queued: 0,
                    last_delivery: Duration::ZERO,
                },
            );
        }
        let cookies = [(); 2].map(|()| LinkCookie(self.rng.u128(..).to_be_bytes()));
        for (end, other, link, _) in ends {
            let peer = self.name(other, end);
            let addr = self.members[other.0].addr.clone();
            let info = if end == from {
                LinkInfo::dialled(peer, addr).with_cookies(cookies[0], cookies[1])
            } else {
                let remote = addr.clone();
                LinkInfo::accepted(peer, &remote, Some(addr)).with_cookies(cookies[1], cookies[0])
            };
            let state = &mut self.members[end.0];
            if state.links.contains(link) {
                state.machine.link_up(now, link, info);
                self.settle(end);
            }
        }
    }

    /// How a member calls itself to another one: an impostor by the name of a
    /// third, and every other time of one that is complete.
    fn name(&mut self, member: Member, to: Member) -> PeerId {
        let me = self.members[member.0].machine.me();
        if self.adversary_kind(member) != Some(Adversary::Impostor) {
            return me;
        }
        let complete = self.rng.bool();
        let states = self.members.iter().enumerate();
        let others = states.filter(|(i, state)| *i != to.0 && state.alive);
        let honest = others.filter(|(_, state)| state.machine.script().is_none());
        let (best, rest): (Vec<_>, Vec<_>) = honest
            .map(|(_, state)| (state.machine.me(), state.machine.is_complete()))
            .partition(|(_, is_complete)| *is_complete == complete);
        let names = if best.is_empty() { rest } else { best };
        self.rng.choice(names).map_or(me, |(name, _)| name)
    }

    fn leave(&mut self, member: Member) {
        let state = &mut self.members[member.0];
        if !std::mem::replace(&mut state.alive, false) {
            return;
        }
        let links = std::mem::take(&mut state.links);
        state.uplink.clear();
        if state.machine.leeches() {
            self.leeching -= 1;
        }
        self.listed.retain(|place| place.member != member);
        self.ranked.retain(|place| place.member != member);
        for wire in links.into_values() {
            let what = What::Down {
                of: wire.to,
                link: wire.link,
            };
            self.schedule(self.now + self.latency, what);
        }
    }

    /// Does what a machine asks for, and sets its timer.
    fn settle(&mut self, member: Member) {
        if std::mem::replace(&mut self.members[member.0].busy, true) {
            return;
        }
        while let Some(output) = self.members[member.0].machine.poll_output() {
            self.act(member, output);
        }
        let state = &mut self.members[member.0];
        state.busy = false;
        let due = state.machine.poll_timeout();
        let due = due.map(|due| due.saturating_duration_since(self.epoch).max(self.now));
        // A timer that is early looks again when it fires.
        if let Some(due) = due
            && state.timer.is_none_or(|timer| due < timer)
        {
            state.timer = Some(due);
            self.schedule(due, What::Timer(member));
        }
    }

    fn act(&mut self, member: Member, output: Output) {
        let now = self.epoch + self.now;
        let state = &mut self.members[member.0];
        match output {
            Output::Send { link, message } => self.send(member, link, message),
            Output::Dial { addr } => self.dialled(member, addr),
            Output::Drop { link, .. } => {
                if let Some(wire) = state.links.remove(link) {
                    let what = What::Down {
                        of: wire.to,
                        link: wire.link,
                    };
                    self.schedule(self.now + self.latency, what);
                }
            }
            Output::FindOwners => {
                self.schedule(self.now + 2 * self.latency, What::Owners(member));
            }
            Output::Read { link, block } => {
                let data = self.zeros.slice(..block.len as usize);
                state.machine.block_read(now, link, block, data);
            }
            Output::Announce(_) => self.list(member),
            output => self.store(member, output),
        }
    }

    /// Does at once what a download asks its storage for.
    fn store(&mut self, member: Member, output: Output) {
        let now = self.epoch + self.now;
        let state = &mut self.members[member.0];
        let Some(swarm) = state.machine.honest() else {
            return;
        };
        match output {
            Output::Open(manifest) => {
                let none = Bitfield::none(manifest.geometry().chunks());
                swarm.opened(now, &none, &none);
            }
            Output::Verify { chunk, .. } => swarm.chunk_verified(now, chunk, true),
            Output::Store { chunk, .. } => swarm.chunk_stored(now, chunk),
            Output::Commit { .. } => swarm.committed(now),
            Output::Finish => {
                swarm.finished(now);
                state.finished = Some(self.now);
                self.leeching -= 1;
            }
            _ => {}
        }
    }

    fn dialled(&mut self, from: Member, addr: Addr) {
        let to = Place::at(&addr);
        if to.port == 0 {
            let to = to.member;
            return self.schedule(self.now + 2 * self.latency, What::Dial { from, to });
        }
        let squatter = self.members[to.member.0].machine.script();
        let chunk_time = squatter.map_or(Duration::ZERO, Script::chunk_time);
        let at = self.now + UNANSWERED * chunk_time;
        self.schedule(at, What::Unanswered { from, addr });
    }
}

/// Puts so many places first, by chance.
fn pick(rng: &mut fastrand::Rng, places: &mut [Place], wanted: usize) {
    for i in 0..wanted {
        let j = rng.usize(i..places.len());
        places.swap(i, j);
    }
}

/// The manifest of a content of another length.
fn another_manifest(content: &Manifest) -> Manifest {
    let length = content.geometry().length();
    let length = length.checked_sub(1).unwrap_or(1);
    let zeros = std::io::Read::take(std::io::repeat(0), length);
    Manifest::from_reader(zeros, length).expect("the length is in bounds")
}
