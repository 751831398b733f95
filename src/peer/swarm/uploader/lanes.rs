//! Which kind of link is sent the next block.
//!
//! Links of this crate's own protocol, strangers that have earned their slot, and those that
//! have it on trust are three lanes. What is sent is divided among the lanes that want
//! something by their weights, whatever number of links each has, and within a lane of
//! strangers among its links alike: start-time fair queueing (Goyal, Vin and Cheng,
//! "Start-time Fair Queuing", SIGCOMM 1996). A lane that wants nothing has no claim later.

use super::standing::Slot;

/// A kind of link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Own,
    Earned,
    OnTrust,
}

impl Lane {
    pub(super) const ALL: [Self; 3] = [Self::Own, Self::Earned, Self::OnTrust];

    /// The lane of a link: of a stranger, if it has a slot.
    pub(super) fn of(slot: Option<Slot>) -> Self {
        match slot {
            None => Self::Own,
            Some(Slot::Earned) => Self::Earned,
            Some(Slot::OnTrust | Slot::None) => Self::OnTrust,
        }
    }
}

/// The time of all lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// When the next block of each begins, in bytes by weight.
    starts: [f64; 3],
    /// When the last block began.
    time: f64,
    /// The times within the lanes, in bytes.
    inner: [u64; 3],
}

impl Lanes {
    fn start(&self, lane: Lane) -> f64 {
        self.starts[lane as usize].max(self.time)
    }

    /// The lane that is first, of those that want something.
    pub(super) fn first(&self, wanting: impl Fn(Lane) -> bool) -> Option<Lane> {
        let lanes = Lane::ALL.into_iter().filter(|lane| wanting(*lane));
        lanes.min_by(|a, b| self.start(*a).total_cmp(&self.start(*b)))
    }

    /// The time within a lane.
    pub(super) fn time_in(&self, lane: Lane) -> u64 {
        self.inner[lane as usize]
    }

    /// A lane was sent a block. By then it is `inner` within it.
    pub(super) fn sent(&mut self, lane: Lane, bytes: u64, weight: usize, inner: u64) {
        self.time = self.start(lane);
        self.starts[lane as usize] = self.time + bytes as f64 / weight.max(1) as f64;
        self.inner[lane as usize] = inner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 100 blocks each lane is sent.
    fn divided(lanes: &mut Lanes, wanting: &[(Lane, usize)]) -> Vec<usize> {
        let mut sent = vec![0; wanting.len()];
        for _ in 0..100 {
            let wants = |lane| wanting.iter().any(|(other, _)| *other == lane);
            let first = lanes.first(wants).expect("some want");
            let at = wanting.iter().position(|(lane, _)| *lane == first);
            let at = at.expect("it wants something");
            lanes.sent(first, 1000, wanting[at].1, 0);
            sent[at] += 1;
        }
        sent
    }

    #[test]
    fn lanes_share_by_weight_and_whoever_wants_nothing_has_no_claim_later() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.first(|_| false), None);
        let (earned, trust) = ((Lane::Earned, 4), (Lane::OnTrust, 1));
        assert_eq!(divided(&mut lanes, &[earned, trust]), [80, 20]);
        assert_eq!(divided(&mut lanes, &[trust]), [100]);
        assert_eq!(divided(&mut lanes, &[earned]), [100]);
        let both = divided(&mut lanes, &[earned, trust]);
        assert!((79..=81).contains(&both[0]), "{both:?}");
    }
}
