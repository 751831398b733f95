//! Places: which links are taken, which stay, and which make way for others.
//!
//! What it promises: there are never more links than places, and a link that is
//! of use keeps its place. It does not know how links are found.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::link::{Link, Remote};
use super::links::GRACE;
use super::{DropReason, LinkId, LinkInfo, Phase, Swarm};
use crate::protocol::{HostKey, RefuseReason};

/// How long a link that was sent a chunk may take to tell of it before its place
/// goes to another, if all are taken.
const MUTE: Duration = Duration::from_millis(500);

/// One in so many places is kept for newcomers.
const NEWCOMERS: usize = 10;

/// A link of which nothing is known is old after as many chunks as a peer passes
/// on in this time, within these bounds.
const BLANK_CHUNKS: u32 = 16;
const MIN_BLANK: Duration = Duration::from_secs(2);
const MAX_BLANK: Duration = Duration::from_secs(30);

/// How often those are counted, at the most.
const COUNT_BLANKS: Duration = Duration::from_secs(1);

impl Swarm {
    /// Why a link is not taken, if so.
    pub(super) fn refusal(&mut self, now: Instant, info: &LinkInfo) -> Option<DropReason> {
        let reason = if info.peer == self.me {
            if info.dialled {
                self.book.ban(&info.host, info.addr.as_ref());
            }
            RefuseReason::SelfConnection
        } else if self.book.is_banned(info) {
            RefuseReason::Banned
        } else if self.is_not_worth_a_place(now, info) || !self.has_room(now, info) {
            RefuseReason::Busy
        } else {
            return None;
        };
        Some(DropReason::Refused(reason))
    }

    /// Whether a link is not worth a place that others could have, when half of
    /// the places are taken: earlier ones of its host were of no use, or its
    /// host has twice as many as all would have if they had as many each. Links
    /// that turned out to be of no use make way at the same time.
    fn is_not_worth_a_place(&mut self, now: Instant, info: &LinkInfo) -> bool {
        if self.links.len() < self.config.max_links / 2 {
            return false;
        }
        if !info.dialled && self.book.is_suspect(now, &info.host) {
            return true;
        }
        let useless = self
            .links
            .iter()
            .filter(|(id, link)| self.is_useless(now, *id, link));
        let useless: Vec<LinkId> = useless.map(|(id, _)| id).collect();
        for link in useless {
            self.drop_link(now, link, DropReason::Silent);
        }
        if info.dialled {
            return false;
        }
        let hosts: BTreeSet<&HostKey> = self.links.values().map(|link| &link.info.host).collect();
        let share = (2 * self.config.max_links).div_ceil(hosts.len().max(1));
        self.of_host(&info.host) >= share.max(2)
    }

    /// Whether a link was asked and sent nothing for long, or was sent something
    /// and never told of it, and never sent anything either. That earlier links
    /// of its host did so is no proof as long as it was not asked itself.
    fn is_useless(&self, now: Instant, id: LinkId, link: &Link) -> bool {
        let silent = match &self.phase {
            Phase::Transfer(transfer) => {
                transfer.planner.snubs(id) > 0 && transfer.planner.owes(id)
            }
            _ => false,
        };
        link.received == 0 && (silent || self.uploader.is_mute(now, id))
    }

    /// How many of a host's links this side accepted.
    fn of_host(&self, host: &HostKey) -> usize {
        let links = self.links.values().filter(|link| !link.info.dialled);
        links.filter(|link| link.info.host == *host).count()
    }

    /// Makes a place for a link, if there is none: the link that is of the least
    /// use gives way, if it is of less use than a newcomer.
    fn has_room(&mut self, now: Instant, newcomer: &LinkInfo) -> bool {
        if self.links.len() < self.config.max_links {
            return true;
        }
        let Some(least) = self.least_useful(now, newcomer) else {
            return false;
        };
        self.drop_link(now, least, DropReason::Refused(RefuseReason::Busy));
        true
    }

    /// The link that gives way to a newcomer. First one of which neither side
    /// wants anything. Then one that had its chance, and with which nothing was
    /// exchanged. Then one of which nothing is known yet, if its host has a worse
    /// lot than the newcomer's. Then, if this side accepted it, one of a host that has more
    /// links than the newcomer's would have, or any if this side dialled the
    /// newcomer since nothing comes: of those, the one with which the least was
    /// exchanged.
    fn least_useful(&self, now: Instant, newcomer: &LinkInfo) -> Option<LinkId> {
        let crowd = self.of_host(&newcomer.host) + 1;
        let wanted = newcomer.dialled && self.is_starving(now);
        let lot = self.lot(&newcomer.host);
        let rank = |(id, link): (LinkId, &Link)| {
            let exchanged = link.received + self.uploader.sent_to(id);
            let group = if self.is_idle(now, id, link) {
                0
            } else if self.is_barren(now, id, link) {
                1
            } else if self.is_blank(id, link)
                && (newcomer.dialled || lot < link.lot || self.is_old(now, link))
            {
                return Some((2, u64::MAX - link.lot, id));
            } else if !link.info.dialled && (wanted || self.of_host(&link.info.host) > crowd) {
                3
            } else {
                return None;
            };
            Some((group, exchanged, id))
        };
        let ranked = self.links.iter().filter_map(rank).min();
        ranked.map(|(_, _, id)| id)
    }

    /// Whether nothing is known of a link that this side accepted.
    pub(super) fn is_blank(&self, id: LinkId, link: &Link) -> bool {
        !link.info.dialled
            && link.received == 0
            && link.remote.count() == 0
            && self.uploader.sent_to(id) == 0
    }

    /// Keeps some places for newcomers until they have said what they have, as long
    /// as others are taken by links of which nothing is known: of those the oldest
    /// and then the ones with the worst lots give way.
    pub(super) fn keep_places_free(&mut self, now: Instant) {
        let most = self.config.max_links - self.config.max_links / NEWCOMERS;
        while self.links.len() > most {
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
        age >= chunk
            .saturating_mul(BLANK_CHUNKS)
            .clamp(MIN_BLANK, MAX_BLANK)
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

    /// Whether neither side wants anything of a link. Who is new may not have
    /// come to it yet.
    fn is_idle(&self, now: Instant, id: LinkId, link: &Link) -> bool {
        let useful = match &self.phase {
            Phase::Transfer(transfer) => transfer.planner.is_useful(id),
            Phase::Seeding(_) => false,
            // Nobody knows yet who will be of use.
            Phase::Manifest(_) | Phase::Opening(_) => true,
        };
        let is_new = now.saturating_duration_since(link.since) < GRACE;
        link.remote != Remote::Unknown
            && !useful
            && !self.uploader.is_wanted(id)
            && (!is_new || self.uploader.has_declined(id))
    }

    /// Whether a link had the time to be of use to somebody, and was of none; or
    /// does not tell of what it got, while others wait for its place.
    fn is_barren(&self, now: Instant, id: LinkId, link: &Link) -> bool {
        let is_new = now.saturating_duration_since(link.since) < GRACE;
        let idle = self.uploader.sent_to(id) == 0 && self.uploader.has_passed(id);
        let mute = self.uploader.mute_for(now, id) >= MUTE;
        link.received == 0 && (!is_new && idle || mute)
    }
}
