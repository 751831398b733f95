//! Links of which nothing is known: how many places they may take, and which of
//! them give way.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use super::link::{Link, Remote};
use super::{DropReason, LinkId, Swarm};
use crate::protocol::{HostKey, RefuseReason};

/// One in so many places is kept for newcomers.
const NEWCOMERS: usize = 10;

/// A link of which nothing is known is old after the time in which this peer passes
/// on so many chunks, and not before this.
const BLANK_CHUNKS: u32 = 16;
const MIN_BLANK: Duration = Duration::from_secs(2);

/// How often those are counted, at the most.
const COUNT_BLANKS: Duration = Duration::from_secs(1);

impl Swarm {
    /// Whether nothing is known of a link that this side accepted. One that says
    /// to have something is known, though that can be read only later.
    pub(super) fn is_blank(&self, id: LinkId, link: &Link) -> bool {
        !link.info.dialled
            && link.received == 0
            && link.remote.count() == 0
            && !matches!(link.remote, Remote::Unread(_))
            && self.uploader.sent_to(id) == 0
    }

    /// How many places links may hold that newcomers would use as well.
    pub(super) fn most_held(&self) -> usize {
        self.config.max_links - self.config.max_links / NEWCOMERS
    }

    /// Keeps some places for newcomers until they have said what they have, as long
    /// as others are taken by links of which nothing is known: of those the oldest
    /// and then the ones with the worst lots give way.
    pub(super) fn keep_places_free(&mut self, now: Instant) {
        while self.links.len() > self.most_held() {
            let blank = |(id, link): &(LinkId, &Link)| {
                link.remote != Remote::Unknown && self.is_blank(*id, link)
            };
            let blanks = self.links.iter().filter(blank);
            let worst = blanks.max_by_key(|(_, link)| (self.is_old(now, link), link.lot));
            let Some(worst) = worst.map(|(id, _)| id) else {
                return;
            };
            self.drop_link(now, worst, DropReason::Refused(RefuseReason::Busy));
        }
    }

    /// Whether a link of which nothing is known has been there for so long that the
    /// swarm would have served it, if it had taken anything.
    pub(super) fn is_old(&self, now: Instant, link: &Link) -> bool {
        if link.old {
            return true;
        }
        let age = now.saturating_duration_since(link.since);
        let chunk = self.uploader.chunk_time(now);
        age >= chunk.saturating_mul(BLANK_CHUNKS).max(MIN_BLANK)
    }

    /// When they are counted again, as long as links are in doubt.
    pub(super) fn blanks_due(&self) -> Option<Instant> {
        let doubts = match &self.phase {
            super::Phase::Transfer(transfer) => transfer.planner.has_doubts(),
            _ => false,
        };
        self.blanks_counted
            .filter(|_| doubts && self.book.has_candidates())
            .map(|at| at + COUNT_BLANKS)
    }

    /// Counts the links of which nothing came to be known, now and then.
    pub(super) fn count_blanks(&mut self, now: Instant) {
        if self
            .blanks_counted
            .is_some_and(|at| now < at + COUNT_BLANKS)
        {
            return;
        }
        self.blanks_counted = Some(now);
        let blank =
            |(id, link): &(LinkId, &Link)| self.is_blank(*id, link) && self.is_old(now, link);
        let blanks: Vec<LinkId> = self.links.iter().filter(blank).map(|(id, _)| id).collect();
        self.blanks = blanks.len();
        let doubtful = self.links.iter();
        let doubtful = doubtful.filter(|(id, link)| self.is_doubtful(now, *id, link));
        self.doubtful = doubtful.count();
        for id in blanks {
            self.uploader.never_told(id);
        }
    }

    /// Decides which of the hosts that nothing is known of have the places: the
    /// same for a host each time, so that nobody gains by knocking more often.
    pub(super) fn lot(&self, host: &HostKey) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.config.planner.seed.to_le_bytes());
        match host {
            HostKey::Ip(IpAddr::V4(ip)) => hasher.update(&ip.octets()),
            HostKey::Ip(IpAddr::V6(ip)) => hasher.update(&ip.octets()),
            HostKey::Text(text) => hasher.update(text.as_bytes()),
        };
        let mut lot = [0; 8];
        lot.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(lot)
    }
}
