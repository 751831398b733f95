//! How members join, each with its machine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::places::Place;
use super::script::Script;
use super::{Adversary, Member, Newcomer, Role, Simulation, State, What};
use crate::content::Manifest;
use crate::peer::swarm::{LinkMap, Swarm};
use crate::protocol::PeerId;

/// A liar sends at its upload rate divided by this.
const LIAR_SLOWS: f64 = 10.0;

impl Simulation {
    pub(super) fn join(&mut self, newcomer: Newcomer) -> Member {
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
}

/// The manifest of a content of another length.
fn another_manifest(content: &Manifest) -> Manifest {
    let length = content.geometry().length();
    let length = length.checked_sub(1).unwrap_or(1);
    let zeros = std::io::Read::take(std::io::repeat(0), length);
    Manifest::from_reader(zeros, length).expect("the length is in bounds")
}
