//! Which link would send the next block soonest.

use super::super::LinkId;

/// What a link could send, as a queue: when its last block is here, and how long one
/// more takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    /// `None` for an owner that is still being dialled.
    pub(super) link: Option<LinkId>,
    /// Seconds until all that it was asked for is here.
    pub(super) free_in: f64,
    /// Seconds that a request and its block travel.
    pub(super) travel: f64,
    /// Bytes per second.
    pub(super) rate: f64,
}

impl Lane {
    /// Seconds until a block is here, if it is asked for now.
    pub(super) fn finish(&self, len: u32) -> f64 {
        self.free_in.max(self.travel) + f64::from(len) / self.rate
    }
}

/// The links that may be asked for more.
#[derive(Debug, Default)]
pub(super) struct Lanes(Vec<Lane>);

impl Lanes {
    pub(super) fn push(&mut self, lane: Lane) {
        self.0.push(lane);
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&Lane> {
        self.0.iter().find(|lane| lane.link == Some(link))
    }

    /// There will be this many links, which count as equally fast.
    pub(super) fn expect(&mut self, links: usize, rate: f64) {
        while self.0.len() < links {
            self.push(Lane {
                link: None,
                free_in: 0.0,
                travel: 0.0,
                rate,
            });
        }
    }

    /// Gives a block to the link that would send it soonest, of those that `have` it.
    /// Returns which one that is.
    pub(super) fn assign(&mut self, len: u32, have: impl Fn(LinkId) -> bool) -> Option<LinkId> {
        let has = |lane: &&mut Lane| lane.link.is_none_or(&have);
        let lanes = self.0.iter_mut().filter(has);
        let soonest = lanes.min_by(|a, b| a.finish(len).total_cmp(&b.finish(len)))?;
        soonest.free_in = soonest.finish(len);
        soonest.link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_split_so_that_the_last_comes_soonest() {
        let lane = |link, rate| Lane {
            link: Some(LinkId(link)),
            free_in: 0.0,
            travel: 0.0,
            rate,
        };
        let mut lanes = Lanes::default();
        lanes.push(lane(1, 300.0));
        lanes.push(lane(2, 100.0));
        let mut given = [(); 8].map(|()| lanes.assign(100, |_| true).unwrap().0);
        given.sort_unstable();
        assert_eq!(given, [1, 1, 1, 1, 1, 1, 2, 2]);
        assert_eq!(lanes.assign(100, |link| link.0 == 2), Some(LinkId(2)));
        assert_eq!(lanes.assign(100, |_| false), None);
    }
}
