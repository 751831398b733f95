//! What decides for a member: the shipped state machine, or the script of an
//! adversary. Both take the same calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::adversary::Adversary;
use super::event::{Newcomer, Role};
use super::member::Member;
use super::script::AdversaryScript;
use crate::content::{BlockRange, Manifest};
use crate::peer::swarm::{LinkId, LinkInfo, Output, Progress, Swarm, SwarmConfig};
use crate::protocol::{Addr, PeerId, PeerMessage, Zone};

/// Makes the machines of all members.
#[derive(Debug)]
pub(super) struct MachineFactory {
    pub(super) manifest: Arc<Manifest>,
    config: SwarmConfig,
    /// The manifest that impostors show, if there are any.
    false_manifest: Option<Arc<Manifest>>,
}

impl MachineFactory {
    pub(super) fn new(manifest: Manifest, config: SwarmConfig) -> Self {
        Self {
            manifest: Arc::new(manifest),
            config,
            false_manifest: None,
        }
    }

    /// Makes the machine of a member that joins now.
    pub(super) fn machine(
        &mut self,
        now: Instant,
        member: Member,
        newcomer: &Newcomer,
        me: PeerId,
        seed: u64,
        tells_zone: bool,
    ) -> Machine {
        let zone = newcomer.zone.as_ref().filter(|_| tells_zone);
        let mut config = self.config.clone();
        config.planner.seed = seed;
        let content = Arc::clone(&self.manifest);
        let kind = match newcomer.role {
            Role::Seeder => {
                let swarm = Swarm::seeder(now, config, me, content);
                return Machine::honest_in(swarm, zone);
            }
            Role::Leecher | Role::DeafLeecher => {
                let length = content.geometry().length();
                let swarm = Swarm::leecher(now, config, me, content.id()).expecting(length);
                return Machine::honest_in(swarm, zone);
            }
            Role::Adversary(kind) => kind,
        };
        let shown = match kind {
            Adversary::Silent if member.0.is_multiple_of(2) => None,
            Adversary::Impostor => Some(self.false_manifest()),
            _ => Some(Arc::clone(&content)),
        };
        let chunk_len = content.geometry().chunk_len() as f64;
        let chunk_time = Duration::from_secs_f64(chunk_len / newcomer.upload);
        let script = AdversaryScript::new(now, kind, me, &content, shown, chunk_time, seed);
        Machine::Adversary(Box::new(script))
    }

    /// The manifest of a content of another length.
    fn false_manifest(&mut self) -> Arc<Manifest> {
        let length = self.manifest.geometry().length();
        let make = || Arc::new(manifest_of_zeros(length.checked_sub(1).unwrap_or(1)));
        Arc::clone(self.false_manifest.get_or_insert_with(make))
    }
}

/// The manifest of a content of zeros.
///
/// # Panics
/// If the length is out of bounds.
pub(super) fn manifest_of_zeros(length: u64) -> Manifest {
    let zeros = std::io::Read::take(std::io::repeat(0), length);
    Manifest::from_reader(zeros, length).expect("the length is in bounds")
}

#[derive(Debug)]
pub(super) enum Machine {
    Honest(Box<Swarm>),
    Adversary(Box<AdversaryScript>),
}

impl Machine {
    fn honest_in(swarm: Swarm, zone: Option<&Zone>) -> Self {
        Self::Honest(Box::new(swarm.in_zone(zone.map(Zone::tag))))
    }

    /// The shipped machine, if the member is honest.
    pub(super) fn honest(&mut self) -> Option<&mut Swarm> {
        match self {
            Self::Honest(swarm) => Some(swarm),
            Self::Adversary(_) => None,
        }
    }

    /// The script, if the member is an adversary.
    pub(super) fn script(&self) -> Option<&AdversaryScript> {
        match self {
            Self::Honest(_) => None,
            Self::Adversary(script) => Some(script),
        }
    }

    pub(super) fn me(&self) -> PeerId {
        match self {
            Self::Honest(swarm) => swarm.me(),
            Self::Adversary(script) => script.me(),
        }
    }

    /// Whether the tracker lists it as complete.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Honest(swarm) => swarm.is_seeding(),
            Self::Adversary(script) => script.claims_all(),
        }
    }

    /// Whether it is an honest leecher.
    pub(super) fn leeches(&self) -> bool {
        match self {
            Self::Honest(swarm) => !swarm.is_seeding(),
            Self::Adversary(_) => false,
        }
    }

    pub(super) fn progress(&self, now: Instant) -> Progress {
        match self {
            Self::Honest(swarm) => swarm.progress(now),
            Self::Adversary(script) => script.progress(),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Honest(swarm) => swarm.poll_output(),
            Self::Adversary(script) => script.poll_output(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Honest(swarm) => swarm.poll_timeout(),
            Self::Adversary(script) => script.poll_timeout(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Honest(swarm) => swarm.handle_timeout(now),
            Self::Adversary(script) => script.handle_timeout(now),
        }
    }

    pub(super) fn handle_message(&mut self, now: Instant, link: LinkId, message: PeerMessage) {
        match self {
            Self::Honest(swarm) => swarm.handle_message(now, link, message),
            Self::Adversary(script) => script.handle_message(link, message),
        }
    }

    pub(super) fn messages_sent(
        &mut self,
        now: Instant,
        link: LinkId,
        messages: usize,
        bytes: u64,
    ) {
        match self {
            Self::Honest(swarm) => swarm.messages_sent(now, link, messages, bytes),
            Self::Adversary(script) => script.messages_sent(link, bytes),
        }
    }

    pub(super) fn block_read(
        &mut self,
        now: Instant,
        link: LinkId,
        block: BlockRange,
        data: Bytes,
    ) {
        match self {
            Self::Honest(swarm) => swarm.block_read(now, link, block, Some(data)),
            Self::Adversary(script) => script.block_read(link, block, data),
        }
    }

    pub(super) fn link_up(&mut self, now: Instant, link: LinkId, info: LinkInfo) {
        match self {
            Self::Honest(swarm) => swarm.link_up(now, link, info),
            Self::Adversary(script) => script.link_up(now, link, info),
        }
    }

    pub(super) fn link_down(&mut self, now: Instant, link: LinkId) {
        match self {
            Self::Honest(swarm) => swarm.link_down(now, link),
            Self::Adversary(script) => script.link_down(now, link),
        }
    }

    pub(super) fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        match self {
            Self::Honest(swarm) => swarm.dial_failed(now, addr),
            Self::Adversary(script) => script.dial_failed(now, addr),
        }
    }

    pub(super) fn owners_found(&mut self, now: Instant, owners: Vec<(Addr, bool)>) {
        match self {
            Self::Honest(swarm) => swarm.owners_found(now, owners),
            Self::Adversary(script) => script.owners_found(now, owners),
        }
    }
}
