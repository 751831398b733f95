//! Which hosts use which names of one content: all of them where they are few,
//! and a part of them drawn by their hash where they are many, so that most is
//! told from fewer in constant room and time. A host is in the part or not
//! whatever its peers do, and nobody without the registry's key can choose.

/// How many votes are kept at the most. Past them, every other host drops out:
/// at least about half as many stay, enough to tell which of two names has
/// clearly more hosts.
const KEPT: usize = 64;

/// The most often that every other host drops out.
const LEVELS: u32 = 31;

/// How many owners of one host use one name.
#[derive(Debug, Clone, Copy)]
struct Vote {
    host: u32,
    /// How many, above the eight bits of which name.
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

/// Whether a host is among the one in `1 << level` that count.
fn counts(host: u32, level: u32) -> bool {
    // High bits of a product hang on all of the other factor.
    let mixed = host.wrapping_mul(0x9e37_79b1);
    u64::from(mixed) >> (32 - level) == 0
}

impl Votes {
    pub(super) fn add(&mut self, host: u32, name: u8) {
        if !counts(host, self.level) {
            return;
        }
        if let Some(vote) = self.votes.iter_mut().find(|vote| vote.is(host, name)) {
            // Of 16 million owners on one host, it does not matter which is
            // the last one.
            vote.tally = vote.tally.checked_add(ONE).unwrap_or(vote.tally);
            return;
        }
        while self.votes.len() >= KEPT && self.level < LEVELS {
            self.level += 1;
            let level = self.level;
            self.votes.retain(|vote| counts(vote.host, level));
        }
        if self.votes.len() < KEPT && counts(host, self.level) {
            if self.votes.len() == self.votes.capacity() {
                self.votes.reserve_exact((self.votes.len() / 4).max(1));
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

    /// How many hosts of those that count use each name.
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
