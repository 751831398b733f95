//! The tracker of a simulation: whom it lists, and whom it names.

use super::places::{Place, VACANT};
use super::script::Script;
use super::{Adversary, Member, Simulation};
use crate::protocol::Addr;

impl Simulation {
    pub(super) fn list(&mut self, member: Member) {
        let state = &mut self.members[member.0];
        if !std::mem::replace(&mut state.listed, true) {
            self.listed.push(Place::of(member));
        }
    }

    pub(super) fn list_adversary(&mut self, member: Member, kind: Adversary) {
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

    /// What the tracker says: the best first, if it ranks any, and the rest by
    /// chance. An adversary gets to know all who are honest.
    pub(super) fn owners(&mut self, asker: Member) -> Vec<(Addr, bool)> {
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
}

/// Puts so many places first, by chance.
fn pick(rng: &mut fastrand::Rng, places: &mut [Place], wanted: usize) {
    for i in 0..wanted {
        let j = rng.usize(i..places.len());
        places.swap(i, j);
    }
}
