//! A whole swarm in one thread and in virtual time: the state machines that peers
//! run, connected by a model of a network.
//!
//! The machines are the shipped ones ([`Swarm`](crate::peer::swarm::Swarm)), so
//! every decision is real. What lies between them is modelled. Each peer has an
//! uplink, on which blocks go out one after the other at its upload rate, and a
//! downlink, on which they come in at most at its download rate. Messages without
//! a block take no time except the latency. They stay in order with the blocks of
//! their link, unless the peer joined with an upload rate of 0: then they do not
//! wait for its blocks. Hashing and storing take no time. A tracker names random
//! members of the swarm. The same seed gives the same run, event for event.
//!
//! Members may be in zones. The tracker names those of the asker's zone first, and blocks that
//! go from one zone to another one pass a line that all members of the two share.
//!
//! Members may be adversaries, which keep to the protocol and do harm: see
//! [`Adversary`]. Every honest member has a host of its own.

mod address;
mod adversary;
mod event;
mod line;
mod machine;
mod member;
mod member_state;
mod script;
mod trace;
mod tracker;
mod wanted;
mod zones;

use std::time::Duration;

use bytes::Bytes;

pub use adversary::{Adversary, UnknownAdversary};
pub use member::Member;

use address::MemberAddr;
use event::{Event, EventQueue, Newcomer, Role};
use line::{Downlink, Outgoing, SendPlan, Uplink};
use machine::{MachineFactory, manifest_of_zeros};
use member_state::{FarEnd, MemberState};
use script::AdversaryScript;
use trace::Trace;
use tracker::Tracker;
use zones::Zones;

use crate::content::{Bitfield, Manifest};
use crate::peer::swarm::{DropReason, LinkId, LinkInfo, LinkMap, Output, Progress, SwarmConfig};
use crate::protocol::limits::MAX_BLOCK_LEN;
use crate::protocol::{Addr, LinkCookie, OwnState, PeerId, PeerMessage, RefuseReason, Zone};

/// A liar sends at its upload rate divided by this.
const LIAR_SLOWDOWN: f64 = 10.0;

/// How long a dial to a vacant address of a squatter waits, in chunk times of the
/// squatter.
const UNANSWERED: u32 = 20;

/// A swarm in virtual time. See the [module documentation](self).
#[derive(Debug)]
pub struct Simulation {
    queue: EventQueue,
    machines: MachineFactory,
    tracker: Tracker,
    members: Vec<MemberState>,
    /// How long a message is on its way.
    latency: Duration,
    /// The members are strangers to each other.
    strangers: bool,
    /// The zone of members that join from now on.
    zone: Option<Zone>,
    /// Members do not say in which zone they are, not even to the tracker.
    zones_are_secret: bool,
    zones: Zones,
    rng: fastrand::Rng,
    next_link: u64,
    /// How many honest members leech.
    leeching: usize,
    /// The data of every block; nobody looks at it.
    zeros: Bytes,
    steps: u64,
    trace: Option<Trace>,
}

impl Simulation {
    /// Makes an empty swarm. Its content is `length` zero bytes.
    ///
    /// # Panics
    /// If the content is too long.
    pub fn new(length: u64, config: SwarmConfig, seed: u64) -> Self {
        Self {
            queue: EventQueue::new(),
            machines: MachineFactory::new(manifest_of_zeros(length), config),
            tracker: Tracker::default(),
            members: Vec::new(),
            latency: Duration::ZERO,
            strangers: false,
            zone: None,
            zones_are_secret: false,
            zones: Zones::default(),
            rng: fastrand::Rng::with_seed(seed),
            next_link: 0,
            leeching: 0,
            zeros: Bytes::from(vec![0; MAX_BLOCK_LEN as usize]),
            steps: 0,
            trace: None,
        }
    }

    /// Sets how long every message is on its way, from now on.
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// From now on all links are between strangers, as between BitTorrent clients: nobody
    /// may ask before it is told that it may, and each says first that it wants something.
    pub fn make_strangers(&mut self) {
        self.strangers = true;
    }

    /// Members that are added from now on are in this zone, or in none.
    pub fn enter_zone(&mut self, zone: Option<Zone>) {
        self.zone = zone;
    }

    /// Members that join from now on tell nobody in which zone they are, as those that do not
    /// know it.
    pub fn hide_zones(&mut self) {
        self.zones_are_secret = true;
    }

    /// Sets how fast the line from each zone to each other one is, in bytes per second. Without
    /// that it is no bound. Members without a zone do not use these lines.
    pub fn set_zone_lines(&mut self, rate: f64) {
        self.zones.set_rate(rate);
    }

    /// Bytes of blocks that came into a zone from other ones.
    pub fn imported(&self, zone: &Zone) -> u64 {
        self.zones.imported(zone)
    }

    /// The content.
    pub fn manifest(&self) -> &Manifest {
        &self.machines.manifest
    }

    /// Adds a seeder. Rates are in bytes per second.
    pub fn seeder(&mut self, upload: f64, download: f64) -> Member {
        self.join(&Newcomer {
            upload,
            download,
            zone: self.zone.clone(),
            role: Role::Seeder,
        })
    }

    /// Adds a leecher. Rates are in bytes per second.
    pub fn leecher(&mut self, upload: f64, download: f64) -> Member {
        self.join(&Newcomer {
            upload,
            download,
            zone: self.zone.clone(),
            role: Role::Leecher,
        })
    }

    /// Adds a leecher that does not listen: nobody can dial it, and the tracker does not
    /// name it. Rates are in bytes per second.
    pub fn deaf_leecher(&mut self, upload: f64, download: f64) -> Member {
        self.join(&Newcomer {
            upload,
            download,
            zone: self.zone.clone(),
            role: Role::DeafLeecher,
        })
    }

    /// Adds an adversary. Rates are in bytes per second. The upload rate sets its
    /// pace, even if it never sends.
    ///
    /// # Panics
    /// If the upload rate is not above zero.
    pub fn adversary(&mut self, kind: Adversary, upload: f64, download: f64) -> Member {
        assert!(upload > 0.0, "an adversary needs an upload rate");
        self.join(&Newcomer {
            upload,
            download,
            zone: self.zone.clone(),
            role: Role::Adversary(kind),
        })
    }

    /// Adds a leecher at a later time. Rates are in bytes per second.
    pub fn leecher_at(&mut self, at: Duration, upload: f64, download: f64) {
        let newcomer = Newcomer {
            upload,
            download,
            zone: self.zone.clone(),
            role: Role::Leecher,
        };
        self.queue.schedule(at, Event::Join(Box::new(newcomer)));
    }

    /// Changes a member's upload rate at a later time; 0 stops it.
    pub fn set_upload_at(&mut self, at: Duration, of: Member, upload: f64) {
        self.queue.schedule(at, Event::Rate { of, upload });
    }

    /// Pauses the download of a member at a later time. `serve` says whether others still
    /// get what it has.
    pub fn pause_at(&mut self, at: Duration, of: Member, serve: bool) {
        let serve = Some(serve);
        self.queue.schedule(at, Event::Pause { of, serve });
    }

    /// Lets it go on at a later time.
    pub fn resume_at(&mut self, at: Duration, of: Member) {
        self.queue.schedule(at, Event::Pause { of, serve: None });
    }

    /// Removes a member at a later time, without notice to the others.
    pub fn leave_at(&mut self, at: Duration, member: Member) {
        self.queue.schedule(at, Event::Leave(member));
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.queue.now()
    }

    /// How many events have happened.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Starts a fingerprint of the events; see [`trace`](Self::trace).
    pub fn record_trace(&mut self) {
        self.trace = Some(Trace::default());
    }

    /// The fingerprint, in hexadecimal digits, of all events since
    /// [`record_trace`](Self::record_trace): what happened to which member and
    /// when, and each message. Two runs with the same fingerprint are the same
    /// run. `None` if no trace is recorded.
    pub fn trace(&self) -> Option<String> {
        self.trace.as_ref().map(Trace::fingerprint)
    }

    /// The kind of a member if it is an adversary.
    pub fn adversary_kind(&self, member: Member) -> Option<Adversary> {
        self.members[member.0].adversary_kind()
    }

    /// How many honest members leech at present.
    pub fn leeching(&self) -> usize {
        self.leeching
    }

    /// How many members have joined so far, including those that left.
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

    /// Whether a member is still there.
    pub fn is_alive(&self, member: Member) -> bool {
        self.members[member.0].alive
    }

    /// Whether a member has ever had nothing to expect for longer than
    /// [`SwarmConfig::patience`]. It goes on all the same; a peer would end the download.
    pub fn gave_up(&self, member: Member) -> bool {
        self.members[member.0].gave_up
    }

    /// How many members are sending blocks at this moment.
    pub fn sending(&self) -> usize {
        let members = self.members.iter();
        members.filter(|member| member.is_sending()).count()
    }

    /// The progress of a member. For an adversary: the bytes that it has received
    /// and sent, and the number of its links.
    pub fn progress(&self, member: Member) -> Progress {
        let machine = &self.members[member.0].machine;
        machine.progress(self.queue.instant())
    }

    /// Handles the next event. Returns `false` if there is none.
    pub fn step(&mut self) -> bool {
        let Some(event) = self.queue.pop() else {
            return false;
        };
        self.steps += 1;
        if let Some(trace) = &mut self.trace {
            trace.add(self.queue.now().as_nanos(), &event);
        }
        self.handle(event);
        true
    }

    /// Runs until nobody leeches and nobody will join, or until `limit`. Returns
    /// whether all downloads are complete.
    pub fn run(&mut self, limit: Duration) -> bool {
        loop {
            if self.leeching == 0 && !self.queue.has_joins() {
                return true;
            }
            if self.queue.now() > limit || !self.step() {
                return false;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, link, message } => self.deliver(to, link, message),
            Event::Sent { from, plan } => {
                let state = &self.members[from.0];
                if state.alive && state.uplink.is_valid(plan) {
                    self.first_sent(from);
                }
            }
            Event::Timer(member) => self.timer_fired(member),
            Event::Dial { from, to } => self.dial(from, to),
            Event::Unanswered { from, addr } => {
                if self.members[from.0].alive {
                    self.dial_failed(from, &addr);
                }
            }
            Event::Rate { of, upload } => {
                let uplink = &mut self.members[of.0].uplink;
                let plan = uplink.set_rate(self.queue.now(), upload);
                self.schedule_sent(of, plan);
            }
            Event::Join(newcomer) => {
                self.join(&newcomer);
            }
            Event::Pause { of, serve } => self.pause(of, serve),
            Event::Leave(member) => self.leave(member),
            Event::Owners(member) => self.owners_found(member),
            Event::Down { of, link } => {
                let state = &mut self.members[of.0];
                if state.alive && state.links.remove(link).is_some() {
                    state.machine.link_down(self.queue.instant(), link);
                    self.settle(of);
                }
            }
        }
    }

    fn join(&mut self, newcomer: &Newcomer) -> Member {
        let member = Member(self.members.len());
        let now = self.queue.now();
        let seed = self.rng.u64(..);
        let me = PeerId(self.rng.u128(..).to_be_bytes());
        let instant = self.queue.instant();
        let tells = !self.zones_are_secret;
        let machine = self
            .machines
            .machine(instant, member, newcomer, me, seed, tells);
        self.leeching += usize::from(machine.leeches());
        let kind = machine.script().map(AdversaryScript::kind);
        let slowdown = match kind {
            Some(Adversary::Liar) => LIAR_SLOWDOWN,
            _ => 1.0,
        };
        self.members.push(MemberState {
            machine,
            addr: MemberAddr::of(member).addr(kind),
            alive: true,
            uplink: Uplink::new(now, newcomer.upload / slowdown, newcomer.upload > 0.0),
            downlink: Downlink::new(newcomer.download),
            links: LinkMap::default(),
            timer: None,
            joined: now,
            finished: None,
            listens: !matches!(newcomer.role, Role::DeafLeecher),
            gave_up: false,
            zone: newcomer.zone.clone(),
            tells_zone: tells,
        });
        match newcomer.role {
            Role::Seeder => self.tracker.list(member),
            Role::Leecher | Role::DeafLeecher => {
                self.settle(member);
                self.queue.schedule(now, Event::Owners(member));
            }
            Role::Adversary(kind) => {
                self.tracker.list_adversary(member, kind);
                self.settle(member);
                self.queue.schedule(now, Event::Owners(member));
            }
        }
        member
    }

    fn pause(&mut self, member: Member, serve: Option<bool>) {
        let now = self.queue.instant();
        if let Some(swarm) = self.members[member.0].machine.honest() {
            match serve {
                Some(serve) => swarm.pause(now, serve),
                None => swarm.resume(now),
            }
            self.settle(member);
        }
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
        self.tracker.remove(member);
        for far in links.into_values() {
            self.link_closed(&far);
        }
    }

    fn deliver(&mut self, to: Member, link: LinkId, message: PeerMessage) {
        let state = &mut self.members[to.0];
        if state.alive && state.links.contains(link) {
            let now = self.queue.instant();
            state.machine.handle_message(now, link, message);
            self.settle(to);
        }
    }

    fn timer_fired(&mut self, member: Member) {
        let now = self.queue.instant();
        let state = &mut self.members[member.0];
        if !state.alive || state.timer != Some(self.queue.now()) {
            return;
        }
        state.timer = None;
        // The machine may have moved its timeout to a later time meanwhile.
        let due = state.machine.poll_timeout();
        if due.is_some_and(|due| due <= now) {
            state.machine.handle_timeout(now);
        }
        self.settle(member);
    }

    fn owners_found(&mut self, member: Member) {
        let imports = self.tracker.imports(&self.members, member);
        let importers = self.tracker.importers(&self.members, member);
        let importers: Vec<Addr> = importers.iter().map(|addr| addr.addr(None)).collect();
        let owners = self.tracker.owners(&mut self.rng, &self.members, member);
        let state = &mut self.members[member.0];
        if state.alive {
            let now = self.queue.instant();
            if let Some(swarm) = state.machine.honest().filter(|_| imports) {
                swarm.import(now, importers);
            }
            state.machine.owners_found(now, owners);
            self.settle(member);
        }
    }

    fn dial_failed(&mut self, from: Member, addr: &Addr) {
        let machine = &mut self.members[from.0].machine;
        machine.dial_failed(self.queue.instant(), addr);
        self.settle(from);
    }

    /// Links two members, if the dialled one accepts.
    fn dial(&mut self, from: Member, to: Member) {
        if !self.members[from.0].alive {
            return;
        }
        let dialled = &self.members[to.0];
        let accepts = dialled.script().is_none_or(AdversaryScript::accepts);
        if !dialled.alive || !accepts {
            let addr = dialled.addr.clone();
            return self.dial_failed(from, &addr);
        }
        let ids = [LinkId(self.next_link), LinkId(self.next_link + 1)];
        self.next_link += 2;
        let ends = [(from, to, ids[0], ids[1]), (to, from, ids[1], ids[0])];
        for (end, other, link, far) in ends {
            let links = &mut self.members[end.0].links;
            links.insert(link, FarEnd::new(other, far));
        }
        let cookies = [(); 2].map(|()| LinkCookie(self.rng.u128(..).to_be_bytes()));
        for (end, other, link, _) in ends {
            let peer = self.name(other, end);
            let addr = self.members[other.0].addr.clone();
            let info = if end == from {
                LinkInfo::dialled(peer, addr).with_cookies(cookies[0], cookies[1])
            } else {
                let remote = addr.clone();
                let listen = Some(addr).filter(|_| self.members[other.0].listens);
                LinkInfo::accepted(peer, &remote, listen).with_cookies(cookies[1], cookies[0])
            };
            let info = match self.strangers {
                true => info.of_stranger(),
                false => info,
            };
            let (state, now) = (&mut self.members[end.0], self.queue.instant());
            // The first end may have dropped the link at once.
            if state.links.contains(link) {
                state.machine.link_up(now, link, info);
                if self.strangers {
                    // BitTorrent begins so.
                    state.machine.handle_message(now, link, PeerMessage::Choke);
                }
                self.settle(end);
            }
        }
    }

    /// The peer id that a member tells another one. An impostor tells the id of a
    /// third member, half of the time of a complete one.
    fn name(&mut self, member: Member, to: Member) -> PeerId {
        let me = self.members[member.0].machine.me();
        if self.adversary_kind(member) != Some(Adversary::Impostor) {
            return me;
        }
        let complete = self.rng.bool();
        let states = self.members.iter().enumerate();
        let others = states.filter(|(i, state)| *i != to.0 && state.alive);
        let honest = others.filter(|(_, state)| state.script().is_none());
        let (best, rest): (Vec<_>, Vec<_>) = honest
            .map(|(_, state)| (state.machine.me(), state.machine.is_complete()))
            .partition(|(_, is_complete)| *is_complete == complete);
        let names = if best.is_empty() { rest } else { best };
        self.rng.choice(names).map_or(me, |(name, _)| name)
    }

    /// Does everything that a machine asks for, and sets its timer.
    fn settle(&mut self, member: Member) {
        while let Some(output) = self.members[member.0].machine.poll_output() {
            self.act(member, output);
        }
        let state = &mut self.members[member.0];
        let due = state.machine.poll_timeout();
        let due = due.map(|due| self.queue.time_of(due));
        // A timer that fires early looks at the timeout again.
        if let Some(due) = due
            && state.timer.is_none_or(|timer| due < timer)
        {
            state.timer = Some(due);
            self.queue.schedule(due, Event::Timer(member));
        }
    }

    fn act(&mut self, member: Member, output: Output) {
        let state = &mut self.members[member.0];
        match output {
            Output::Send { link, message } => self.send(member, link, message),
            Output::Dial { addr } => self.schedule_dial(member, addr),
            Output::Drop { link, reason } => {
                if let Some(far) = state.links.remove(link) {
                    if reason == DropReason::Refused(RefuseReason::Busy) {
                        self.refuse(&far);
                    }
                    self.link_closed(&far);
                }
            }
            Output::FindOwners => {
                let at = self.queue.now() + 2 * self.latency;
                self.queue.schedule(at, Event::Owners(member));
            }
            Output::Read { link, block } => {
                let data = self.zeros.slice(..block.len as usize);
                let now = self.queue.instant();
                state.machine.block_read(now, link, block, data);
            }
            Output::Announce(_) if !state.listens => {}
            Output::Announce(OwnState::Gone) => self.tracker.remove(member),
            Output::Announce(_) => self.tracker.list(member),
            Output::GaveUp(_) => state.gave_up = true,
            output => self.store(member, output),
        }
    }

    /// Does at once what a download asks of its storage.
    fn store(&mut self, member: Member, output: Output) {
        let now = self.queue.instant();
        let state = &mut self.members[member.0];
        let Some(swarm) = state.machine.honest() else {
            return;
        };
        match output {
            Output::CheckManifest { link, claim } => {
                swarm.manifest_checked(now, link, claim.check());
            }
            Output::Open(manifest) => {
                let none = Bitfield::none(manifest.geometry().chunks());
                swarm.opened(now, &none, &none);
            }
            Output::Verify { chunk, .. } => swarm.chunk_verified(now, chunk, true),
            Output::Store { chunk, .. } => swarm.chunk_stored(now, chunk),
            Output::Commit { .. } => swarm.committed(now),
            Output::FinishPart { .. } => swarm.part_finished(now),
            Output::Finish => {
                swarm.finished(now);
                state.finished = Some(self.queue.now());
                self.leeching -= 1;
            }
            _ => {}
        }
    }

    fn schedule_dial(&mut self, from: Member, addr: Addr) {
        let now = self.queue.now();
        let to = MemberAddr::parse(&addr);
        if to.port == 0 {
            let to = to.member;
            let at = now + 2 * self.latency;
            return self.queue.schedule(at, Event::Dial { from, to });
        }
        let squatter = self.members[to.member.0].script();
        let chunk_time = squatter.map_or(Duration::ZERO, AdversaryScript::chunk_time);
        let at = now + UNANSWERED * chunk_time;
        self.queue.schedule(at, Event::Unanswered { from, addr });
    }

    /// The other end is told that a link is about to be closed for want of a place.
    fn refuse(&mut self, far: &FarEnd) {
        let message = PeerMessage::Refuse(RefuseReason::Busy);
        let deliver = Event::Deliver {
            to: far.member,
            link: far.link,
            message,
        };
        self.queue
            .schedule(self.queue.now() + self.latency, deliver);
    }

    /// The other end learns that a link is closed.
    fn link_closed(&mut self, far: &FarEnd) {
        let event = Event::Down {
            of: far.member,
            link: far.link,
        };
        self.queue.schedule(self.queue.now() + self.latency, event);
    }

    fn send(&mut self, from: Member, link: LinkId, message: PeerMessage) {
        let now = self.queue.now();
        let state = &mut self.members[from.0];
        let Some(far) = state.links.get_mut(link) else {
            return;
        };
        let bytes = match &message {
            PeerMessage::Block { data, .. } => data.len() as u64,
            _ => 0,
        };
        if bytes == 0 && (far.queued == 0 || state.uplink.lets_messages_pass()) {
            let at = (now + self.latency).max(far.last_delivery);
            far.last_delivery = at;
            let (to, link_there) = (far.member, far.link);
            let deliver = |message| Event::Deliver {
                to,
                link: link_there,
                message,
            };
            // Who greets as a leecher wants something.
            let wants = matches!(message, PeerMessage::HaveNone | PeerMessage::Bitfield(_));
            let now = self.queue.instant();
            state.machine.messages_sent(now, link, 1, 0);
            self.queue.schedule(at, deliver(message));
            if wants && self.strangers {
                self.queue.schedule(at, deliver(PeerMessage::Interested));
            }
            return;
        }
        far.queued += 1;
        let outgoing = Outgoing {
            link,
            message,
            bytes,
        };
        let plan = state.uplink.push(now, outgoing);
        self.schedule_sent(from, plan);
    }

    /// The first message of an uplink is sent: it will arrive, and the next one
    /// starts.
    fn first_sent(&mut self, from: Member) {
        let now = self.queue.now();
        let Some(sent) = self.members[from.0].uplink.pop(now) else {
            return;
        };
        self.schedule_delivery(from, sent);
        let plan = self.members[from.0].uplink.plan(now);
        self.schedule_sent(from, plan);
        self.settle(from);
    }

    /// Schedules the arrival of a message that has left the uplink, unless its
    /// link is closed.
    fn schedule_delivery(&mut self, from: Member, sent: Outgoing) {
        let state = &mut self.members[from.0];
        let Some(far) = state.links.get_mut(sent.link) else {
            return;
        };
        far.queued -= 1;
        let earliest = (self.queue.now() + self.latency).max(far.last_delivery);
        let deliver = Event::Deliver {
            to: far.member,
            link: far.link,
            message: sent.message,
        };
        let to = far.member;
        let zones = [from, to].map(|member| self.members[member.0].zone.as_ref());
        let earliest = self.zones.pass(zones[0], zones[1], earliest, sent.bytes);
        let at = self.members[to.0].downlink.receive(earliest, sent.bytes);
        let state = &mut self.members[from.0];
        if let Some(far) = state.links.get_mut(sent.link) {
            far.last_delivery = at;
        }
        let now = self.queue.instant();
        state.machine.messages_sent(now, sent.link, 1, sent.bytes);
        self.queue.schedule(at, deliver);
    }

    fn schedule_sent(&mut self, from: Member, plan: Option<SendPlan>) {
        if let Some(SendPlan { at, number: plan }) = plan {
            self.queue.schedule(at, Event::Sent { from, plan });
        }
    }
}
