//! Which links may stay, which must go, and which hosts are suspected or
//! banned.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::time::Duration;

use bt_lite::ChunkIndex;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo};
use bt_lite::protocol::limits::HANDSHAKE_TIMEOUT;
use bt_lite::protocol::{Addr, HostKey, RefuseReason};

use super::{OLD, Observer, Seen};

/// A link that has chunks and chokes the machine for this long may give way.
const PUTS_OFF: Duration = Duration::from_secs(60);

/// A link that owes the announcement of a chunk for this long gives way.
const MUTE: Duration = Duration::from_millis(500);

/// For how long a count of old blank links is used.
const COUNT: Duration = Duration::from_secs(1);

/// A link is new for this long.
const GRACE: Duration = Duration::from_secs(10);

/// After this long without progress, addresses that links claim are dialled.
const STARVED: Duration = Duration::from_secs(5);

/// How long a host is suspected.
const SUSPICION: Duration = Duration::from_secs(60);

const NOT_NEEDED: DropReason = DropReason::Refused(RefuseReason::NotNeeded);

impl Observer {
    pub(super) fn is_suspect(&self, host: &HostKey) -> bool {
        let until = self.suspected.get(host);
        until.is_some_and(|until| *until > self.now)
    }

    fn suspect(&mut self, host: HostKey) {
        self.suspected.insert(host, self.now + SUSPICION);
    }

    /// Whether a host is known to be blank: possibly, and certainly.
    pub(super) fn known_blank(&self, host: &HostKey) -> [bool; 2] {
        let known = |certain: usize| {
            let until = self.blanks[certain].get(host);
            until.is_some_and(|until| *until > self.now)
        };
        [known(0), known(1)]
    }

    /// The lot that decides between blank hosts. The smaller one wins.
    pub(super) fn lot(&self, host: &HostKey) -> u64 {
        let bytes = match host {
            HostKey::Ip(IpAddr::V4(ip)) => ip.octets().to_vec(),
            HostKey::Ip(IpAddr::V6(ip)) => ip.octets().to_vec(),
            HostKey::Text(text) => text.as_bytes().to_vec(),
        };
        let hash = blake3::hash(&[&self.seed.to_le_bytes()[..], &bytes].concat());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("it is long enough"))
    }

    /// Whether a link is blank: possibly, and certainly. Before the length is
    /// known, any Bitfield counts as having something; afterwards, only one that
    /// is not empty does.
    fn is_blank(&self, seen: &Seen) -> [bool; 2] {
        let unknown = !seen.info.dialled && seen.received == 0 && seen.taken == 0;
        let perhaps = unknown && seen.has.is_empty();
        [perhaps, perhaps && !seen.anything]
    }

    /// Whether a link, or its blank host, is old: possibly, and certainly.
    fn is_old(&self, seen: &Seen) -> [bool; 2] {
        let age = self.now - seen.since;
        [seen.old[0] || age >= OLD[0], seen.old[1] || age >= OLD[1]]
    }

    /// How many blank links may count as old, at most, by the recent counts.
    pub(super) fn old_lately(&mut self) -> usize {
        let old = |seen: &&Seen| {
            self.is_blank(seen)[0] && self.is_old(seen)[0] || seen.may_be_doubtful(self.now)
        };
        let count = self.links.values().filter(old).count();
        self.old_lately.push_back((self.now, count));
        self.old_lately.retain(|(at, _)| self.now - *at < COUNT);
        let counts = self.old_lately.iter().map(|(_, count)| *count);
        counts.max().unwrap_or(0)
    }

    /// Whether a blank link gives way to a newcomer: possibly, and certainly.
    fn gives_way_untried(&self, old: &Seen, newcomer: &LinkInfo) -> [bool; 2] {
        let better = newcomer.dialled || self.lot(&newcomer.host) < old.lot;
        let (blank, aged) = (self.is_blank(old), self.is_old(old));
        [0, 1].map(|certain| blank[certain] && (better || aged[certain]))
    }

    /// Whether a link is certainly useless. It sent nothing, and either received a
    /// chunk without announcing one, or was asked and came from a suspected host.
    pub(super) fn is_useless(&self, seen: &Seen) -> bool {
        let snubbed = self.downloads() && seen.suspect && !seen.asked.is_empty();
        seen.received == 0 && (snubbed || seen.is_mute(self.now))
    }

    /// The other side ends a link. If the link is new and exchanged no blocks, its
    /// host is suspected.
    pub(super) fn left(&mut self, link: LinkId) {
        let Some(seen) = self.links.get(&link).filter(|seen| !seen.info.dialled) else {
            return;
        };
        let is_new = self.now - seen.since < GRACE;
        if is_new && seen.received == 0 && seen.taken == 0 {
            let host = seen.info.host.clone();
            self.suspect(host);
        }
    }

    /// Whether a link is banned: its address is one where this side dialled a
    /// liar, or it was accepted from a liar's host.
    pub(super) fn is_banned(&self, info: &LinkInfo) -> bool {
        let by_addr = info.addr.as_ref();
        by_addr.is_some_and(|addr| self.banned_addrs.contains(addr))
            || !info.dialled && self.banned_hosts.contains(&info.host)
    }

    pub(super) fn ban(&mut self, link: LinkId) {
        let info = &self.known[&link];
        match info.addr.as_ref().filter(|_| info.dialled) {
            Some(addr) => {
                self.banned_addrs.insert(addr.clone());
            }
            None => {
                self.banned_hosts.insert(info.host.clone());
            }
        }
    }

    /// Takes a link out of the record. If its address was trusted, the same
    /// address that other links claim no longer counts.
    pub(super) fn removed(&mut self, link: LinkId) -> Option<Seen> {
        // Nobody is blamed for a pause.
        let blames = !self.parts && !self.arriving;
        self.taken_out(link, blames)
    }

    fn taken_out(&mut self, link: LinkId, blames: bool) -> Option<Seen> {
        self.old_lately();
        let seen = self.links.remove(&link)?;
        self.failed_addrs.extend(seen.info.addr.clone());
        *self.debts.entry(seen.info.host.clone()).or_default() += seen.untold;
        let (blank, old) = (self.is_blank(&seen), self.is_old(&seen));
        // A host is not blamed while a useful link of the same host is up.
        let mut others = self.links.values();
        let is_good = |is: &Seen| is.received > 0 || is.told_of;
        let alone = others.all(|is| is.info.host != seen.info.host || !is_good(is));
        for certain in [0, 1] {
            if blames && alone && blank[certain] && old[certain] && self.fresh != Some(link) {
                let until = self.now + SUSPICION;
                self.blanks[certain].insert(seen.info.host.clone(), until);
                // A newcomer that gets its place is let in after that.
                let fresh = self.fresh.and_then(|fresh| self.links.get_mut(&fresh));
                if let Some(fresh) = fresh.filter(|fresh| fresh.info.host == seen.info.host) {
                    fresh.old[0] = true;
                }
            }
        }
        if blames && alone && seen.received == 0 {
            let asks = self.downloads();
            if seen.is_mute(self.now) || asks && !seen.asked.is_empty() {
                self.suspect(seen.info.host.clone());
            }
        }
        if seen.solid {
            self.untried
                .retain(|addr| seen.info.addr.as_ref() != Some(addr));
            for other in self.links.values_mut() {
                other.claims &= other.info.addr != seen.info.addr;
            }
        }
        Some(seen)
    }

    pub(super) fn dropped(&mut self, link: LinkId, reason: DropReason) {
        // Also when that is noticed long after what was asked for should have come.
        let rests = self.paused.is_some() && reason == NOT_NEEDED;
        let blames = !self.parts && !self.arriving && !rests;
        let seen = self
            .taken_out(link, blames)
            .expect("drops a link that is not up");
        match reason {
            DropReason::Refused(RefuseReason::Banned) => {
                // Other links of a liar stay up until they lie themselves.
                let refused = self.fresh == Some(link) && self.is_banned(&seen.info);
                let lied = self.lied.contains(&link);
                assert!(refused || lied, "a link that did not lie is banned");
                (self.came, self.promoted) = (self.came_before, self.promoted_before);
                if !refused {
                    self.ban(link);
                }
            }
            DropReason::Refused(RefuseReason::SelfConnection) => {
                assert_eq!((seen.info.peer, self.fresh), (Some(self.me), Some(link)));
                if seen.info.dialled {
                    self.ban(link);
                }
            }
            DropReason::Refused(RefuseReason::Duplicate) => {
                assert_eq!(
                    self.duplicate,
                    Some(link),
                    "drops a duplicate that was not proved"
                );
            }
            DropReason::Refused(RefuseReason::Busy)
                if self.parts || self.arriving && self.paused == Some(false) =>
            {
                let refused = self.fresh == Some(link);
                assert!(refused || self.paused == Some(false));
            }
            DropReason::Refused(RefuseReason::Busy)
                if self.fresh == Some(link) && self.is_not_worth_a_place(&seen.info) => {}
            DropReason::Refused(RefuseReason::Busy) => {
                assert!(
                    self.links.len() >= self.max_links,
                    "refuses a link though there is room"
                );
                let fresh = self.fresh.expect("a newcomer needs the place");
                if link == fresh {
                    let gives_way = |old: &Seen| self.gives_way(old, &seen.info);
                    assert!(
                        !self.links.values().any(gives_way),
                        "refuses a newcomer though a link must give way"
                    );
                } else {
                    let newcomer = self.links[&fresh].info.clone();
                    assert!(
                        self.may_give_way(&seen, &newcomer),
                        "drops a useful link: {seen:?}"
                    );
                }
            }
            DropReason::Refused(RefuseReason::NotNeeded) => {
                let all = seen.has.len() == self.chunks() as usize;
                assert!(!self.seeding || all, "drops a link that still needs chunks");
            }
            DropReason::Left(_) => assert!(seen.refused),
            DropReason::Violation("no Bitfield in time") => {
                assert!(!seen.said && seen.since + HANDSHAKE_TIMEOUT <= self.now);
            }
            DropReason::Violation(what) => {
                assert!(seen.rude, "drops a link that followed the protocol: {what}")
            }
            DropReason::Silent => {
                let in_the_way = seen.is_stalled(self.now) && self.holds_up(Some(&seen));
                let owes_pages = !self.opened && !self.opening && self.must_go.contains(&link);
                let asks = self.downloads();
                let snubbed = asks && seen.may_be_snubbed(self.now);
                let useless = seen.received == 0 && (snubbed || seen.is_mute(self.now));
                let useless = useless && self.crowded && self.fresh.is_some();
                let owes = asks && !seen.asked.is_empty() || owes_pages || in_the_way || useless;
                assert!(owes, "drops a link that owes nothing: {seen:?}");
            }
            other => panic!("unexpected reason: {other}"),
        }
    }

    /// Whether a newcomer may be refused even though there is room: there are many
    /// links, and its host is suspected or has its share of the places.
    pub(super) fn is_not_worth_a_place(&self, newcomer: &LinkInfo) -> bool {
        let suspect = self.is_suspect(&newcomer.host);
        self.crowded && !newcomer.dialled && (suspect || self.has_its_share(newcomer))
    }

    /// Whether a host has at least twice its even share of the places.
    pub(super) fn has_its_share(&self, newcomer: &LinkInfo) -> bool {
        let others = self
            .links
            .iter()
            .filter(|(link, _)| self.fresh != Some(**link));
        let hosts: BTreeSet<&HostKey> = others.map(|(_, seen)| &seen.info.host).collect();
        let share = (2 * self.max_links).div_ceil(hosts.len().max(1)).max(2);
        self.of_host(&newcomer.host, []) >= share
    }

    /// How many links came from a host.
    pub(super) fn of_host<'a>(
        &'a self,
        host: &HostKey,
        also: impl IntoIterator<Item = &'a Seen>,
    ) -> usize {
        let links = self.links.iter().filter(|(id, _)| self.fresh != Some(**id));
        let links = links.map(|(_, seen)| seen).chain(also);
        let of_host = |seen: &&Seen| !seen.info.dialled && seen.info.host == *host;
        links.filter(of_host).count()
    }

    pub(super) fn lacks_nothing(&self, seen: &Seen) -> bool {
        let mut stored = self.stored.iter();
        stored.all(|chunk| seen.has.contains(&chunk.0))
    }

    /// Whether a link has something that is not stored here.
    pub(super) fn is_useful(&self, seen: &Seen) -> bool {
        let mut has = seen.has.iter();
        has.any(|&chunk| !self.stored.contains(&ChunkIndex(chunk)))
    }

    /// Whether a link must give way before a newcomer is refused.
    pub(super) fn gives_way(&self, old: &Seen, newcomer: &LinkInfo) -> bool {
        let is_new = self.now - old.since < GRACE;
        let declined = old.wants_nothing || self.lacks_nothing(old);
        let settled = old.theirs.is_empty() && old.under_way == 0;
        let useful = !self.seeding && self.is_useful(old);
        let idle = old.said && self.opened && declined && settled && !useful;
        let passed = !is_new && old.taken == 0 && old.wants_nothing;
        let barren = old.received == 0 && (passed || old.mute_for(self.now) >= MUTE);
        let crowd = self.of_host(&newcomer.host, []) + 1;
        let crowded = !old.info.dialled && self.of_host(&old.info.host, []) > crowd;
        let [_, untried] = self.gives_way_untried(old, newcomer);
        idle || barren || untried || crowded
    }

    /// Whether a link may give way at all. It is already removed from the
    /// record.
    pub(super) fn may_give_way(&self, old: &Seen, newcomer: &LinkInfo) -> bool {
        let is_new = self.now - old.since < GRACE;
        let declined = old.wants_nothing || self.lacks_nothing(old);
        let waits = old.theirs.len() > old.reading.len() || old.under_way > 0;
        let useful = !self.seeding && !old.rejected && self.is_useful(old);
        let may_idle = old.said && self.opened && !waits && !useful && (declined || !is_new);
        let passed = !is_new && old.taken == 0;
        let mute = old.mute_for(self.now) >= MUTE || old.may_be_doubtful(self.now);
        let choked_for = old.choked_since.map(|since| self.now - since);
        let puts_off = choked_for.is_some_and(|choked| choked >= PUTS_OFF);
        let barren = old.received == 0 && (passed || mute || puts_off);
        let [untried, _] = self.gives_way_untried(old, newcomer);
        let crowd = self.of_host(&newcomer.host, [old]) + 1;
        let crowded = self.of_host(&old.info.host, [old]) > crowd;
        let wanted = newcomer.dialled && self.is_starving();
        may_idle || barren || untried || !old.info.dialled && (crowded || wanted)
    }

    /// Whether nothing arrives, as far as that can be seen from outside.
    pub(super) fn is_starving(&self) -> bool {
        let supplied = |seen: &Seen| match self.opened {
            true => !seen.rejected && self.is_useful(seen),
            // A link that was too slow with the manifest supplies nothing.
            false => seen.may_have_manifest(),
        };
        let quiet = self.now - self.last_gain >= STARVED;
        !self.seeding && (quiet || !self.links.values().any(supplied))
    }

    /// Whether stalled links hold up others.
    pub(crate) fn holds_up(&self, also: Option<&Seen>) -> bool {
        let links = || self.links.values().chain(also);
        let waits = links().any(|seen| seen.theirs.len() > seen.reading.len());
        let all: u64 = links().map(|seen| seen.under_way).sum();
        let stalled = links().filter(|seen| seen.is_stalled(self.now));
        let stalled: u64 = stalled.map(|seen| seen.under_way).sum();
        waits && all >= self.send_window && 2 * stalled >= self.send_window
    }

    pub(super) fn is_claimed(&self, addr: &Addr) -> bool {
        let mut links = self.links.values();
        links.any(|seen| seen.info.addr.as_ref() == Some(addr))
    }
}
