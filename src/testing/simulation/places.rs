//! Where members are, as addresses: honest ones on a host each, sybils all on
//! one, and squatters with more addresses on their host than they listen at.

use super::{Adversary, Member};
use crate::protocol::Addr;

/// How many addresses of a squatter are listed at which nobody is: its ports
/// from 1 on.
pub(super) const VACANT: u16 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) member: Member,
    /// The member is at 0, and nobody at the others.
    pub(super) port: u16,
}

impl Place {
    /// Where a member is.
    pub(super) fn of(member: Member) -> Self {
        Self { member, port: 0 }
    }

    /// The address of a place, by the kind of its member.
    pub(super) fn addr(self, kind: Option<Adversary>) -> Addr {
        let Self { member, port } = self;
        let text = match kind {
            Some(Adversary::Sybil) => format!("sybil:{}", member.0),
            Some(Adversary::Squatter) => format!("squatter-{}:{port}", member.0),
            _ => format!("sim-{}", member.0),
        };
        text.parse().expect("a printable address")
    }

    /// The place of an address.
    ///
    /// # Panics
    /// If no member could have it.
    pub(super) fn at(addr: &Addr) -> Self {
        let text = addr.as_str();
        let alone = |prefix| text.strip_prefix(prefix).map(|member| (member, "0"));
        let (member, port) = alone("sim-")
            .or_else(|| alone("sybil:"))
            .or_else(|| text.strip_prefix("squatter-")?.split_once(':'))
            .expect("an address of this network");
        Self {
            member: Member(member.parse().expect("the number of a member")),
            port: port.parse().expect("the number of a port"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> impl Iterator<Item = (Place, Option<Adversary>)> {
        let kinds = Adversary::ALL.into_iter().map(Some).chain([None]);
        kinds.flat_map(|kind| {
            let ports = 0..=if kind == Some(Adversary::Squatter) {
                VACANT
            } else {
                0
            };
            ports.flat_map(move |port| {
                [0, 7, 70].map(|member| {
                    let member = Member(member);
                    (Place { member, port }, kind)
                })
            })
        })
    }

    #[test]
    fn places_are_found_by_their_addresses() {
        for (place, kind) in places() {
            assert_eq!(Place::at(&place.addr(kind)), place, "{kind:?}");
        }
    }

    #[test]
    fn only_sybils_and_the_places_of_one_member_share_a_host() {
        for (place, kind) in places() {
            for (other, other_kind) in places().filter(|(_, other)| *other == kind) {
                let same = place.addr(kind).same_host(&other.addr(other_kind));
                let sybils = kind == Some(Adversary::Sybil);
                assert_eq!(same, sybils || place.member == other.member, "{kind:?}");
            }
        }
    }
}
