//! The members of a simulation, as it holds them.

use std::time::Duration;

use super::adversary::Adversary;
use super::line::{Downlink, Uplink};
use super::machine::Machine;
use super::member::Member;
use super::script::AdversaryScript;
use crate::peer::swarm::{LinkId, LinkMap};
use crate::protocol::{Addr, Zone};

/// A member with its machine, its lines and its links.
#[derive(Debug)]
pub(super) struct MemberState {
    pub(super) machine: Machine,
    pub(super) addr: Addr,
    pub(super) alive: bool,
    pub(super) uplink: Uplink,
    pub(super) downlink: Downlink,
    pub(super) links: LinkMap<FarEnd>,
    /// When its timer fires.
    pub(super) timer: Option<Duration>,
    pub(super) joined: Duration,
    /// When it completed its download.
    pub(super) finished: Option<Duration>,
    /// Whether others can dial it.
    pub(super) listens: bool,
    /// Whether it had nothing to expect at some time.
    pub(super) gave_up: bool,
    pub(super) zone: Option<Zone>,
    /// Whether it tells others and the tracker of it.
    pub(super) tells_zone: bool,
}

/// The other end of a link, and the direction towards it.
#[derive(Debug)]
pub(super) struct FarEnd {
    pub(super) member: Member,
    /// The link as the other member numbers it.
    pub(super) link: LinkId,
    /// How many messages of this link wait for the uplink.
    pub(super) queued: usize,
    /// When the last message arrives.
    pub(super) last_delivery: Duration,
}

impl FarEnd {
    pub(super) fn new(member: Member, link: LinkId) -> Self {
        Self {
            member,
            link,
            queued: 0,
            last_delivery: Duration::ZERO,
        }
    }
}

impl MemberState {
    /// Its script, if it is an adversary.
    pub(super) fn script(&self) -> Option<&AdversaryScript> {
        self.machine.script()
    }

    /// Its kind, if it is an adversary.
    pub(super) fn adversary_kind(&self) -> Option<Adversary> {
        self.script().map(AdversaryScript::kind)
    }

    /// Its zone, as far as it tells.
    pub(super) fn told_zone(&self) -> Option<&Zone> {
        self.zone.as_ref().filter(|_| self.tells_zone)
    }

    /// Whether it is sending blocks at this moment.
    pub(super) fn is_sending(&self) -> bool {
        self.alive && self.uplink.is_sending()
    }
}
