//! Whether a download is supplied, and what is done about it when it is not: more links,
//! more owners, and in the end giving up.

use std::time::{Duration, Instant};

use super::address_book::{AddressBook, OwnerCounts};
use super::link::Link;
use super::phase::Phase;
use super::places::Census;
use super::standby::StandbyLinks;
use super::{LinkId, LinkMap, StallReason, SwarmConfig};

/// After this long without a block everything is tried: longer than a silent link keeps
/// what was asked of it.
const STARVED: Duration = Duration::from_secs(5);

/// Who waits for a turn gives up after this many times [`SwarmConfig::patience`] in which
/// it has not come nearer.
const FOR_A_TURN: u32 = 30;

/// After this many times [`SwarmConfig::patience`] without anything a turn is no longer
/// waited for, whatever the others say.
const LONGEST_WAIT: u32 = 24 * 60;
/// After this long without a block the download stalls: longer than it takes to find out
/// that a link is silent, and to ask others.
const STALLED: Duration = Duration::from_secs(10);

/// The same when nobody is left to ask: longer than the pause before a link that was lost
/// is dialled again.
const ABANDONED: Duration = Duration::from_secs(2);

/// What decides whether a download is supplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supply<'a> {
    pub(super) links: &'a LinkMap<Link>,
    pub(super) standby: &'a StandbyLinks,
    pub(super) book: &'a AddressBook,
    pub(super) phase: &'a Phase,
    pub(super) census: &'a Census,
    pub(super) config: &'a SwarmConfig,
    /// When something last arrived that brought the download on.
    pub(super) last_gain: Instant,
    /// When a turn that is waited for last came nearer, or came, or was lost.
    pub(super) turn_moved: Instant,
    /// Whether the trackers are being asked.
    pub(super) is_searching: bool,
    /// How many peers were banned because they sent wrong bytes.
    pub(super) liars: u32,
    /// This side asks for nothing more at present, because its limits do not allow it: that
    /// nothing arrives is no sign of anything.
    pub(super) is_held: bool,
}

/// The links that say to have something, or are presumed to.
pub(super) fn links_with_chunks(links: &LinkMap<Link>) -> impl Iterator<Item = LinkId> + Clone {
    let has = |link: &Link| link.remote.is_anything() || link.is_presumed();
    let having = links.iter().filter(move |(_, link)| has(link));
    having.map(|(id, _)| id)
}

impl Supply<'_> {
    /// Whether some link has something that is missing here, as far as that is known.
    pub(super) fn is_supplied(self) -> bool {
        match self.phase {
            // A link that was asked for the manifest in vain supplies nothing.
            Phase::Manifest(fetch) => fetch.is_waiting(links_with_chunks(self.links)),
            Phase::Opening(_) => self.links.values().any(|link| link.remote.is_anything()),
            // Those that were enough until now are enough later.
            Phase::Transfer(transfer) if transfer.is_full() => self.links.len() > 0,
            Phase::Transfer(transfer) => {
                let mut links = self.links.keys();
                links.any(|link| transfer.planner.is_useful(link))
            }
            Phase::Seeding(_) => false,
        }
    }

    /// Whether nothing arrives: no link has anything, or none has sent anything for a
    /// while.
    pub(super) fn is_starving(self, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.last_gain) >= STARVED && !self.is_held;
        !self.phase.is_content() && (quiet || !self.is_supplied())
    }

    /// When the download starves, if nothing arrives before.
    pub(super) fn starves_at(self) -> Option<Instant> {
        let starves = self.last_gain.checked_add(STARVED);
        starves.filter(|_| !self.is_held)
    }

    /// Whether to dial: up to `SwarmConfig::sources`, and beyond that as long as no link
    /// has anything.
    pub(super) fn wants_links(self) -> bool {
        let links = self.links.len() + self.book.dialling();
        let silent = self.phase.planner().map_or(0, |planner| planner.snubbed());
        let Census {
            blank, doubtful, ..
        } = *self.census;
        // A newcomer that was dialled takes the place of an old blank link, or of a
        // doubtful one.
        let replaceable = (blank + doubtful).min(self.links.len());
        let sources = links.saturating_sub(blank + silent.max(doubtful));
        !self.phase.is_content()
            && links - replaceable < self.config.max_links
            && (sources < self.config.sources || self.book.dialling() == 0 && !self.is_supplied())
    }

    /// Whether to dial though all places are taken. Nothing arrives, and the link that
    /// answers takes the place of one that this side accepted.
    pub(super) fn wants_place(self, now: Instant) -> bool {
        self.may_want_place() && self.is_starving(now)
    }

    fn may_want_place(self) -> bool {
        !self.phase.is_content()
            && self.links.len() >= self.config.max_links
            && self.book.dialling() == 0
            && self.links.values().any(|link| !link.info.dialled)
    }

    /// When that begins, if nothing happens before.
    pub(super) fn place_wanted_at(self) -> Option<Instant> {
        if !self.may_want_place() || self.is_held && self.is_supplied() {
            return None;
        }
        let starves = self.starves_at().filter(|_| self.is_supplied());
        let next_dial = self.book.poll_timeout();
        let next_dial = next_dial.map(|due| starves.map_or(due, |at| due.max(at)));
        let claimed = starves.filter(|_| self.book.has_claimed());
        next_dial.into_iter().chain(claimed).min()
    }

    /// Whether to look for more owners.
    pub(super) fn wants_owners(self) -> bool {
        self.wants_links() && !self.book.has_candidates()
            || !self.phase.is_content() && !self.is_supplied()
    }

    /// When the links have to be counted again, as long as some are in doubt.
    pub(super) fn census_due(self) -> Option<Instant> {
        let planner = self.phase.planner();
        let doubts = planner.is_some_and(|planner| planner.has_doubts());
        let next = self.census.next();
        next.filter(|_| doubts && self.book.has_candidates())
    }

    /// When addresses are dialled that have failed too often, if nothing arrives before.
    pub(super) fn lapsed_due(self) -> Option<Instant> {
        let due = self.book.next_lapsed()?;
        match self.is_supplied() {
            true => self.starves_at().map(|starves| starves.max(due)),
            false => Some(due),
        }
    }

    /// When the download stalls, if nothing arrives before.
    pub(super) fn stalls_at(self) -> Option<Instant> {
        if self.phase.is_content() || self.is_held {
            return None;
        }
        let abandoned = self.links.len() == 0 && !self.is_searching && self.book.is_exhausted();
        let quiet = match abandoned && self.waits_for_peers() {
            true => ABANDONED,
            false => STALLED,
        };
        self.last_gain.checked_add(quiet)
    }

    /// Whether it is for others to do something.
    fn waits_for_peers(self) -> bool {
        match self.phase {
            Phase::Manifest(fetch) => !fetch.is_checking(),
            Phase::Transfer(transfer) => transfer.waits_for_peers(),
            Phase::Opening(_) | Phase::Seeding(_) => false,
        }
    }

    /// Why nothing arrives. O(links and addresses). A link that has only just come up
    /// says nothing yet: it may be refused in a moment, as the one before it was.
    pub(super) fn stall_reason(self, now: Instant) -> StallReason {
        if !self.waits_for_peers() {
            let waiting = match self.phase {
                Phase::Transfer(transfer) => transfer.waiting_chunks(),
                _ => 0,
            };
            return StallReason::Storage {
                chunks: waiting as u32,
            };
        }
        if let Some(position) = self.standby.position() {
            return StallReason::Queued { position };
        }
        let is_old = |link: &Link| now.saturating_duration_since(link.since) >= ABANDONED;
        let links = self.links.iter();
        let met = links.filter(|(_, link)| link.is_met() && is_old(link));
        let links = met.clone().count() as u32;
        match self.phase {
            Phase::Manifest(_) if links + self.liars > 0 => StallReason::NoManifest {
                links,
                wrong: self.liars,
            },
            Phase::Transfer(transfer) if links > 0 => {
                let useful = met.filter(|(id, _)| transfer.planner.is_useful(*id));
                let choked = useful.clone().filter(|(_, link)| link.is_choked());
                match (useful.count() as u32, choked.count() as u32) {
                    (0, _) => StallReason::NothingMissing { links },
                    (links, choked) if links == choked => StallReason::Choked { links },
                    (links, _) => StallReason::Silent { links },
                }
            }
            _ => self.why_no_link(),
        }
    }

    /// Why no other peer is connected.
    fn why_no_link(self) -> StallReason {
        let OwnerCounts {
            known,
            full,
            gone,
            refused,
        } = self.book.counts();
        let refused = refused + gone;
        match (known, full + refused) {
            (0, _) if self.liars > 0 => StallReason::Banned { peers: self.liars },
            (0, _) => StallReason::NoOwners,
            (owners, 0) => StallReason::Unreachable { owners },
            (owners, _) if owners == gone => StallReason::Gone,
            (_, answered) => StallReason::Refused {
                full,
                refused,
                unreachable: known - answered,
            },
        }
    }

    /// When to give up, if nothing arrives before. Not before everybody was asked; and
    /// the time that the storage or the hashing takes is not the others' fault.
    pub(super) fn patience_ends(self) -> Option<Instant> {
        let waits_for_others = match self.phase {
            Phase::Manifest(fetch) => {
                let has_room = self.links.len() < self.config.max_links;
                let unmet = self.links.values().any(|link| !link.is_met());
                let tries = has_room && self.book.has_untried() || unmet;
                !fetch.is_checking() && !fetch.is_waiting(links_with_chunks(self.links)) && !tries
            }
            Phase::Transfer(transfer) => transfer.waits_for_peers(),
            Phase::Opening(_) | Phase::Seeding(_) => false,
        };
        if !waits_for_others || self.is_held {
            return None;
        }
        let patience = match self.waits_for_turn() {
            true => self.config.patience?.saturating_mul(FOR_A_TURN),
            false => self.config.patience?,
        };
        let ends = self.last_gain.max(self.turn_moved).checked_add(patience);
        let longest = self.config.patience?.saturating_mul(LONGEST_WAIT);
        ends.min(self.last_gain.checked_add(longest)).or(ends)
    }

    /// Whether this side waits for its turn: in the line of another peer, or choked by one
    /// that has what is missing here.
    fn waits_for_turn(self) -> bool {
        let planner = self.phase.planner();
        let is_next = |(id, link): (LinkId, &Link)| {
            link.is_choked() && planner.is_some_and(|planner| planner.is_useful(id))
        };
        self.standby.len() > 0 || self.links.iter().any(is_next)
    }
}
