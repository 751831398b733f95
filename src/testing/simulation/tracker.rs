//! The tracker of a simulation: the addresses that it lists and names.

use std::collections::BTreeSet;

use super::address::{MemberAddr, VACANT_PORTS};
use super::adversary::Adversary;
use super::member::Member;
use super::member_state::MemberState;
use crate::protocol::Addr;

/// How many addresses the tracker names in one reply.
const NAMED: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Every member that was ever listed, so that none is listed twice.
    known: BTreeSet<Member>,
    listed: Vec<MemberAddr>,
    /// Liars. The tracker believes that they are the best owners and names them
    /// first.
    ranked: Vec<MemberAddr>,
}

impl Tracker {
    pub(super) fn list(&mut self, member: Member) {
        if self.known.insert(member) {
            self.listed.push(MemberAddr::of(member));
        }
    }

    pub(super) fn list_adversary(&mut self, member: Member, kind: Adversary) {
        match kind {
            Adversary::Impostor => {}
            Adversary::Liar => self.ranked.push(MemberAddr::of(member)),
            Adversary::Squatter => {
                let ports = 0..=VACANT_PORTS;
                self.listed
                    .extend(ports.map(|port| MemberAddr { member, port }));
            }
            Adversary::Silent
            | Adversary::Sybil
            | Adversary::Taker
            | Adversary::Hider
            | Adversary::Flapper => {
                self.list(member);
            }
        }
    }

    /// Takes a member off the list.
    pub(super) fn remove(&mut self, member: Member) {
        self.known.remove(&member);
        self.listed.retain(|addr| addr.member != member);
        self.ranked.retain(|addr| addr.member != member);
    }

    /// The owners that the tracker names to a member, and whether each is
    /// complete: the ranked ones first, the others at random. An adversary gets
    /// all honest members.
    pub(super) fn owners(
        &mut self,
        rng: &mut fastrand::Rng,
        members: &[MemberState],
        asker: Member,
    ) -> Vec<(Addr, bool)> {
        let kind = |member: Member| members[member.0].adversary_kind();
        let named = |addr: &MemberAddr| {
            let is_complete = members[addr.member.0].machine.is_complete();
            (addr.addr(kind(addr.member)), is_complete)
        };
        if kind(asker).is_some() {
            let honest = self
                .listed
                .iter()
                .filter(|addr| kind(addr.member).is_none());
            return honest.map(named).collect();
        }
        let best = self.ranked.len().min(NAMED * 3 / 4);
        draw_first(rng, &mut self.ranked, best);
        let others = (NAMED - best).min(self.listed.len());
        draw_first(rng, &mut self.listed, others);
        let drawn = self.ranked[..best].iter().chain(&self.listed[..others]);
        drawn
            .filter(|addr| addr.member != asker)
            .map(named)
            .collect()
    }
}

/// Draws `count` addresses at random and moves them to the front.
fn draw_first(rng: &mut fastrand::Rng, addrs: &mut [MemberAddr], count: usize) {
    for i in 0..count {
        let j = rng.usize(i..addrs.len());
        addrs.swap(i, j);
    }
}
