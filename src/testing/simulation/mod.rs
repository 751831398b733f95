//! A whole swarm in one thread and in virtual time: the machines that peers
//! run, joined by a model of a network.
//!
//! The machines are the shipped ones ([`Swarm`](crate::peer::swarm::Swarm)), to the last decision; what
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

mod acts;
mod adversary;
mod joining;
mod lines;
mod machine;
mod places;
mod script;
mod trace;
mod tracker;
mod wanted;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use adversary::{Adversary, UnknownAdversary};

use machine::Machine;
use places::Place;
use script::Script;
use trace::Trace;

use crate::content::Manifest;
use crate::peer::swarm::{LinkId, LinkInfo, LinkMap, Progress, SwarmConfig};
use crate::protocol::{Addr, LinkCookie, PeerId, PeerMessage};

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
    trace: Option<Trace>,
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
            trace: None,
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

    /// Starts a fingerprint of the events; see [`trace`](Self::trace).
    pub fn record_trace(&mut self) {
        self.trace = Some(Trace::default());
    }

    /// The fingerprint, in hexadecimal digits, of every event since
    /// [`record_trace`](Self::record_trace): what happened to whom and when, and
    /// each message. Two runs with the same one are the same run. `None` if no
    /// trace is recorded.
    pub fn trace(&self) -> Option<String> {
        self.trace.as_ref().map(Trace::fingerprint)
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
        if let Some(trace) = &mut self.trace {
            trace.add(self.now.as_nanos(), &what);
        }
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
}
