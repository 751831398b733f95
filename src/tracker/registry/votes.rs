//! Which hosts use which names of one content. Of few hosts all are counted, of
//! many a sample, chosen by their hashes, so that the most common name is known
//! in constant memory and time. Whether a host is in the sample depends on its
//! hash alone, which nobody can choose without the registry's key.

/// How many votes are kept at most. When there are more, every other host drops
/// out. About half of the votes stay, enough to tell which of two names clearly
/// has more hosts.
const KEPT: usize = 64;

/// How often every other host can drop out.
const LEVELS: u32 = 31;

/// How many owners of one host use one name.
#[derive(Debug, Clone, Copy)]
struct Vote {
    host: u32,
    /// The number of owners, shifted by the eight bits of the name's slot.
    tally: u32,
}

const ONE: u32 = 1 << 8;

impl Vote {
    fn is(&self, host: u32, name: u8) -> bool {
        self.host == host && self.tally as u8 == name
    }
}

#[derive(Debug, Default)]
pub(super) struct Votes {
    votes: Vec<Vote>,
    level: u32,
}

/// Whether a host is in the sample, which has one host in `1 << level`.
fn counts(host: u32, level: u32) -> bool {
    // The high bits of the product depend on all bits of the hash.
    let mixed = host.wrapping_mul(0x9e37_79b1);
    u64::from(mixed) >> (32 - level) == 0
}

impl Votes {
    pub(super) fn add(&mut self, host: u32, name: u8) {
        if !counts(host, self.level) {
            return;
        }
        if let Some(vote) = self.votes.iter_mut().find(|vote| vote.is(host, name)) {
            // The number saturates at 16 million owners of one host.
            vote.tally = vote.tally.checked_add(ONE).unwrap_or(vote.tally);
            return;
        }
        while self.votes.len() >= KEPT && self.level < LEVELS {
            self.level += 1;
            let level = self.level;
            self.votes.retain(|vote| counts(vote.host, level));
            self.votes.shrink_to_fit();
        }
        if self.votes.len() < KEPT && counts(host, self.level) {
            if self.votes.len() == self.votes.capacity() {
                let more = (self.votes.len() / 8).clamp(1, KEPT - self.votes.len());
                self.votes.reserve_exact(more);
            }
            let tally = ONE | u32::from(name);
            self.votes.push(Vote { host, tally });
        }
    }

    pub(super) fn sub(&mut self, host: u32, name: u8) {
        let Some(at) = self.votes.iter().position(|vote| vote.is(host, name)) else {
            return;
        };
        self.votes[at].tally -= ONE;
        if self.votes[at].tally < ONE {
            self.votes.swap_remove(at);
        }
    }

    /// How many hosts of the sample use each name.
    pub(super) fn by_name(&self) -> [u8; 256] {
        let mut hosts = [0; 256];
        for vote in &self.votes {
            hosts[usize::from(vote.tally as u8)] += 1;
        }
        hosts
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self) {
        assert!(self.votes.len() <= KEPT);
        for vote in &self.votes {
            assert!(counts(vote.host, self.level) && vote.tally >= ONE);
        }
    }
}
