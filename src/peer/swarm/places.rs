//! Which links keep their place when there are more peers than places.
//!
//! A link is judged by what was exchanged over it, never by what its peer says of
//! itself. In the order of giving way:
//!
//! | a link is | when |
//! |---|---|
//! | idle | neither side wants anything of the other |
//! | barren | it had the time to be useful, and was not; or does not tell what it received |
//! | blank | nothing is known of it yet; hosts are in an order of their own |
//!
//! A tenth of the places is kept free of blank links, for newcomers that have not said
//! yet what they have.
//!
//! A seeder lets newcomers wait instead. Those who come together draw lots for the places.
//! After that a blank link keeps its place, as it may just not have been served yet; but a
//! link that was served gives way after its turn.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::link::Link;
use super::phase::Phase;
use super::remote_chunks::RemoteChunks;
use super::uploader::Uploader;
use super::{LinkId, LinkInfo, LinkMap, SwarmConfig};
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, HostKey};

/// A link that has not let this side ask for this long, and has what is missing here, is
/// doubtful.
const PUTS_OFF: Duration = Duration::from_secs(60);

/// How long a new link has until it must be useful, if others want its place: as long
/// as it has to say what it has.
pub(super) const GRACE: Duration = HANDSHAKE_TIMEOUT;

/// How long a link that was sent a chunk may take to tell of it before its place goes to
/// another, if all places are taken.
const MUTE: Duration = Duration::from_millis(500);

/// How long a link waits to be asked for something, as long as nothing arrives, before a
/// newcomer may have its place.
const UNTRIED: Duration = Duration::from_secs(1);

/// One in this many places is kept for newcomers.
const NEWCOMERS: usize = 10;

/// A blank link is old after the time in which this peer passes on this many chunks, and
/// not before `MIN_BLANK`.
const BLANK_CHUNKS: u32 = 16;
const MIN_BLANK: Duration = Duration::from_secs(2);

/// If others wait, a link has its place for this long at least, and until it was sent
/// this many chunks: enough to be worth a new link.
const TENURE: Duration = Duration::from_secs(30);
const TENURE_CHUNKS: u64 = 4;

/// After this long a link that takes its blocks very slowly is interrupted.
const LONGEST_TENURE: Duration = Duration::from_secs(600);

/// The shortest time between two counts of the [`Census`].
const CENSUS_INTERVAL: Duration = Duration::from_secs(1);

/// How many links with peers that fetch for the zone keep their places: twice as many as a
/// tracker names, and a third of the places that there are by default.
pub(super) const KEPT: usize = 16;

/// How many of them may be of one host: anybody can say that it fetches for the zone, and those
/// that do may be behind one address.
const KEPT_OF_HOST: usize = 4;

/// The links of a swarm, to be judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) now: Instant,
    pub(super) links: &'a LinkMap<Link>,
    pub(super) uploader: &'a Uploader,
    pub(super) phase: &'a Phase,
    pub(super) config: &'a SwarmConfig,
    /// The addresses of others that fetch for this zone, as this one does.
    pub(super) importers: &'a [Addr],
}

/// How many links are of doubtful use, as of the last count.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Old links of which nothing became known.
    pub(super) blank: usize,
    /// Links that were asked for something and take long to send anything.
    pub(super) doubtful: usize,
    counted: Option<Instant>,
}

impl Census {
    /// When the next count may be made.
    pub(super) fn next(&self) -> Option<Instant> {
        self.counted.map(|at| at + CENSUS_INTERVAL)
    }

    /// Counts, if it is time to. Returns the old blank links.
    pub(super) fn count(&mut self, places: Places<'_>) -> Vec<LinkId> {
        if self.next().is_some_and(|next| places.now < next) {
            return Vec::new();
        }
        self.counted = Some(places.now);
        let is_old_blank =
            |(id, link): &(LinkId, &Link)| places.is_blank(*id, link) && places.is_old(link);
        let blank: Vec<LinkId> = places
            .links
            .iter()
            .filter(is_old_blank)
            .map(|l| l.0)
            .collect();
        self.blank = blank.len();
        let links = places.links.iter();
        self.doubtful = links.filter(|(id, l)| places.is_doubtful(*id, l)).count();
        blank
    }
}

impl<'a> Places<'a> {
    /// Links that were asked and sent nothing for long, or were sent something and never
    /// told of it; and that never sent anything either.
    pub(super) fn useless(self) -> Vec<LinkId> {
        let links = self.links.iter();
        let useless = links.filter(|(id, link)| self.is_useless(*id, link));
        useless.map(|(id, _)| id).collect()
    }

    /// A suspicion against the host is no proof here: this link itself was asked.
    fn is_useless(self, id: LinkId, link: &Link) -> bool {
        let planner = self.phase.planner();
        let silent = planner.is_some_and(|planner| planner.snubs(id) > 0 && planner.owes(id));
        link.received == 0 && (silent || self.uploader.is_mute(self.now, id))
    }

    /// How many links were accepted from each host, with those that were dialled only.
    pub(super) fn hosts(self) -> BTreeMap<&'a HostKey, usize> {
        let mut hosts = BTreeMap::new();
        for link in self.links.values() {
            *hosts.entry(&link.info.host).or_default() += usize::from(!link.info.dialled);
        }
        hosts
    }

    /// How many links were accepted from a host.
    fn accepted_from(self, host: &HostKey) -> usize {
        let accepted = self.links.values().filter(|link| !link.info.dialled);
        accepted.filter(|link| link.info.host == *host).count()
    }

    /// How many links a host may have of so many hosts, if places are scarce: twice as many
    /// as every host would have, if they all had the same number.
    pub(super) fn share(self, hosts: usize) -> usize {
        (2 * self.config.max_links).div_ceil(hosts.max(1)).max(2)
    }

    /// Whether a host has its share of the places.
    pub(super) fn has_its_share(self, host: &HostKey) -> bool {
        let hosts = self.hosts();
        hosts.get(host).copied().unwrap_or(0) >= self.share(hosts.len())
    }

    /// The link that gives way to a newcomer, if one does. First an idle one. Then a
    /// barren one. Then a blank one, if its host has a worse lot than the newcomer's.
    /// Then one that this side accepted, from a host that has more links than the
    /// newcomer's would have; or any accepted one, if this side dialled the newcomer
    /// since nothing arrives (`starving`). Of the last two groups' links, the one with
    /// which the least was exchanged.
    pub(super) fn least_useful(self, newcomer: &LinkInfo, starving: bool) -> Option<LinkId> {
        let crowd = self.accepted_from(&newcomer.host) + 1;
        let wanted = newcomer.dialled && starving;
        let lot = self.lot(&newcomer.host);
        let rank = |(id, link): (LinkId, &Link)| {
            let exchanged = link.received + self.uploader.sent_to(id);
            let group = if self.is_kept(id, link) {
                return None;
            } else if self.is_idle(id, link) {
                0
            } else if self.is_barren(id, link) {
                1
            } else if self.is_blank(id, link)
                && (newcomer.dialled || lot < link.lot || self.is_old(link))
            {
                return Some((2, u64::MAX - link.lot, id));
            } else if !link.info.dialled && (wanted || self.accepted_from(&link.info.host) > crowd)
            {
                3
            } else {
                return None;
            };
            Some((group, exchanged, id))
        };
        let ranked = self.links.iter().filter_map(rank).min();
        ranked.map(|(_, _, id)| id)
    }

    /// The link that gives way to a newcomer that could wait in line, if one does: a blank
    /// one that came shortly before it, did not wait, and has a worse lot. So those who
    /// come first do not have all places.
    pub(super) fn loser(self, newcomer: &LinkInfo) -> Option<LinkId> {
        let lot = self.lot(&newcomer.host);
        let loses = |(id, link): &(LinkId, &Link)| {
            self.is_blank(*id, link) && self.is_new(link) && !link.has_waited && link.lot > lot
        };
        let losers = self.links.iter().filter(loses);
        losers.max_by_key(|(_, link)| link.lot).map(|(id, _)| id)
    }

    /// The link that gives way to those who wait, if one does; and whether it does so only
    /// to a host with at least two links fewer. `hosts` says how many links were accepted
    /// from each host. First an idle one. Then one that had the time to be useful, and was
    /// not. Then the one that has had its turn, and has had its place for longest. Then one
    /// of the host that has most.
    pub(super) fn gives_way(self, hosts: &BTreeMap<&HostKey, usize>) -> Option<(LinkId, bool)> {
        let most = hosts.values().max().copied().unwrap_or(0);
        let rank = |(id, link): (LinkId, &Link)| {
            let exchanged = link.received + self.uploader.sent_to(id);
            let of_most = !link.info.dialled && hosts.get(&link.info.host) == Some(&most);
            let group = if self.is_idle(id, link) {
                0
            } else if self.is_barren(id, link) || self.has_missed_its_turn(id, link) {
                1
            } else if self.has_had_its_turn(id, link) {
                return Some((2, 0, link.since, id));
            } else if of_most && most >= 2 {
                3
            } else {
                return None;
            };
            Some((group, exchanged, link.since, id))
        };
        let (group, _, _, id) = self.links.iter().filter_map(rank).min()?;
        Some((id, group == 3))
    }

    /// Whether nothing is known of a link, though it was its turn.
    fn has_missed_its_turn(self, id: LinkId, link: &Link) -> bool {
        self.is_blank(id, link) && self.is_old(link) && self.uploader.has_passed(id)
    }

    /// Whether a link has had its place for long enough, if others wait: for `TENURE`, and
    /// for what makes a link worth while. It is not interrupted, unless it takes very long.
    fn has_had_its_turn(self, id: LinkId, link: &Link) -> bool {
        let held = self.now.saturating_duration_since(link.since);
        let chunk_len = self.phase.manifest().map(|m| m.geometry().chunk_len());
        let enough = chunk_len.map_or(0, |len| len * TENURE_CHUNKS);
        let sent = self.uploader.sent_to(id);
        let rests = self.uploader.is_resting(id);
        held >= TENURE && sent >= enough && rests || held >= LONGEST_TENURE && sent > 0
    }

    fn is_new(self, link: &Link) -> bool {
        self.now.saturating_duration_since(link.since) < GRACE
    }

    /// Whether neither side wants anything of a link. A new link may not have had the
    /// occasion yet to say so.
    fn is_idle(self, id: LinkId, link: &Link) -> bool {
        let useful = match self.phase {
            Phase::Transfer(transfer) => transfer.planner.is_useful(id),
            Phase::Seeding(_) => false,
            // Nobody knows yet which link will be useful.
            Phase::Manifest(_) | Phase::Opening(_) => true,
        };
        link.remote != RemoteChunks::Unknown
            && !useful
            && !self.uploader.is_wanted(id)
            && (!self.is_new(link) || self.uploader.has_declined(id))
    }

    /// Whether a link keeps its place whatever it rejects.
    pub(super) fn keeps(self, id: LinkId) -> bool {
        let link = self.links.get(id);
        link.is_some_and(|link| self.is_kept(id, link))
    }

    /// Whether a link keeps its place though nothing was exchanged: the first few with peers that
    /// fetch for this zone, which have to hear of each other.
    fn is_kept(self, id: LinkId, link: &Link) -> bool {
        let named = |link: &Link| {
            link.info
                .addr
                .as_ref()
                .is_some_and(|addr| self.importers.contains(addr))
        };
        let imports = |link: &Link| link.imports || named(link);
        if !imports(link) {
            return false;
        }
        let others = self.links.iter();
        let before = others.filter(|(other, before)| *other < id && imports(before));
        let (mut all, mut of_host) = (0, 0);
        for (_, before) in before {
            all += 1;
            of_host += usize::from(before.info.host == link.info.host);
        }
        all < KEPT && of_host < KEPT_OF_HOST
    }

    /// Whether a link was asked for something and takes long to send anything; or,
    /// where places are scarce, waits in a long line to be asked; or has something, and
    /// did not let this side ask for long.
    fn is_doubtful(self, id: LinkId, link: &Link) -> bool {
        let Some(planner) = self.phase.planner() else {
            return false;
        };
        let is_new = self.now.saturating_duration_since(link.since) < UNTRIED;
        let scarce = self.links.len() >= self.most_held();
        let untried = scarce && !link.info.dialled && !is_new && planner.is_untried(id);
        let choked_for = |since| self.now.saturating_duration_since(since);
        let choked_for = link.choked_since.map_or(Duration::ZERO, choked_for);
        let puts_off = choked_for >= PUTS_OFF && planner.is_useful(id);
        link.received == 0 && (untried || puts_off || planner.is_doubtful(self.now, id))
    }

    /// Whether a link had the time to be useful to either side, and was not; or does not
    /// tell of what it received, while others wait for its place.
    fn is_barren(self, id: LinkId, link: &Link) -> bool {
        let idle = self.uploader.sent_to(id) == 0 && self.uploader.has_passed(id);
        let mute = self.uploader.mute_for(self.now, id) >= MUTE;
        link.received == 0 && (!self.is_new(link) && idle || mute || self.is_doubtful(id, link))
    }

    /// Whether nothing is known of a link that this side accepted. A link that says to
    /// have something is known, even if that cannot be read yet.
    pub(super) fn is_blank(self, id: LinkId, link: &Link) -> bool {
        !link.info.dialled
            && link.received == 0
            && link.remote.count() == 0
            && !matches!(link.remote, RemoteChunks::Unread(_))
            && self.uploader.sent_to(id) == 0
    }

    /// Whether a blank link has been up for so long that the swarm would have served it,
    /// if it had taken anything.
    pub(super) fn is_old(self, link: &Link) -> bool {
        if link.known_blank {
            return true;
        }
        let age = self.now.saturating_duration_since(link.since);
        let chunk = self.uploader.chunk_time(self.now);
        age >= chunk.saturating_mul(BLANK_CHUNKS).max(MIN_BLANK)
    }

    /// How many places may be held by links that newcomers could replace.
    fn most_held(self) -> usize {
        self.config.max_links - self.config.max_links / NEWCOMERS
    }

    /// The blank link that gives way so that a place stays free for newcomers, if too
    /// few are free: the oldest, and then the one with the worst lot.
    pub(super) fn surplus_blank(self) -> Option<LinkId> {
        if self.links.len() <= self.most_held() {
            return None;
        }
        let has_said = |link: &Link| link.remote != RemoteChunks::Unknown;
        let links = self.links.iter();
        let blanks = links.filter(|(id, link)| {
            has_said(link) && self.is_blank(*id, link) && !self.is_kept(*id, link)
        });
        let worst = blanks.max_by_key(|(_, link)| (self.is_old(link), link.lot));
        worst.map(|(id, _)| id)
    }

    /// Decides which of the hosts of which nothing is known have the places. It is the
    /// same for a host each time, so that nobody gains by connecting more often.
    pub(super) fn lot(self, host: &HostKey) -> u64 {
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
