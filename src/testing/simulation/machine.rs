//! What decides for a member: the shipped machine, or the script of an
//! adversary, with the calls that both take.

use std::time::Instant;

use bytes::Bytes;

use super::script::Script;
use crate::content::BlockRange;
use crate::peer::swarm::{LinkId, LinkInfo, Output, Progress, Swarm};
use crate::protocol::{Addr, PeerId, PeerMessage};

#[derive(Debug)]
pub(super) enum Machine {
    Honest(Box<Swarm>),
    Adversary(Box<Script>),
}

impl Machine {
    pub(super) fn honest(&mut self) -> Option<&mut Swarm> {
        match self {
            Self::Honest(swarm) => Some(swarm),
            Self::Adversary(_) => None,
        }
    }

    pub(super) fn script(&self) -> Option<&Script> {
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
            Self::Adversary(script) => script.says_all(),
        }
    }

    /// Whether it leeches in earnest.
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
