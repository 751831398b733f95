//! The addresses of members. Each honest member has a host of its own; all sybils
//! share one; squatters have more addresses on their host than they listen at.

use super::adversary::Adversary;
use super::member::Member;
use crate::protocol::Addr;

/// How many addresses of a squatter are listed at which nobody listens: its ports
/// from 1 on.
pub(super) const VACANT_PORTS: u16 = 4;

/// An address of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberAddr {
    pub(super) member: Member,
    /// The member listens at port 0, and nobody at the others.
    pub(super) port: u16,
}

impl MemberAddr {
    /// The address at which a member listens.
    pub(super) fn of(member: Member) -> Self {
        Self { member, port: 0 }
    }

    /// The address as text, which depends on the kind of the member.
    pub(super) fn addr(self, kind: Option<Adversary>) -> Addr {
        let Self { member, port } = self;
        let text = match kind {
            Some(Adversary::Sybil) => format!("sybil:{}", member.0),
            Some(Adversary::Squatter) => format!("squatter-{}:{port}", member.0),
            _ => format!("sim-{}", member.0),
        };
        text.parse().expect("a printable address")
    }

    /// Parses an address.
    ///
    /// # Panics
    /// If it is not the address of a member.
    pub(super) fn parse(addr: &Addr) -> Self {
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

    fn addresses() -> impl Iterator<Item = (MemberAddr, Option<Adversary>)> {
        let kinds = Adversary::ALL.into_iter().map(Some).chain([None]);
        kinds.flat_map(|kind| {
            let ports = 0..=if kind == Some(Adversary::Squatter) {
                VACANT_PORTS
            } else {
                0
            };
            ports.flat_map(move |port| {
                [0, 7, 70].map(|member| {
                    let member = Member(member);
                    (MemberAddr { member, port }, kind)
                })
            })
        })
    }

    #[test]
    fn addresses_are_parsed_as_they_are_written() {
        for (addr, kind) in addresses() {
            assert_eq!(MemberAddr::parse(&addr.addr(kind)), addr, "{kind:?}");
        }
    }

    #[test]
    fn only_sybils_and_the_addresses_of_one_member_share_a_host() {
        for (addr, kind) in addresses() {
            for (other, other_kind) in addresses().filter(|(_, other)| *other == kind) {
                let same = addr.addr(kind).same_host(&other.addr(other_kind));
                let sybils = kind == Some(Adversary::Sybil);
                assert_eq!(same, sybils || addr.member == other.member, "{kind:?}");
            }
        }
    }
}
