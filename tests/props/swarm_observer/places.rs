//! Which links may stay, which must go, and who is suspected or banned.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::time::Duration;

use bt_lite::ChunkIndex;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo};
use bt_lite::protocol::limits::HANDSHAKE_TIMEOUT;
use bt_lite::protocol::{Addr, HostKey, RefuseReason};

use super::{OLD, Observer, Seen};

/// A link that has not told of a chunk for so long gives way.
const MUTE: Duration = Duration::from_millis(500);

/// How often old links of which nothing is known are counted.
const COUNT: Duration = Duration::from_secs(1);

/// A link is new for so long.
const GRACE: Duration = Duration::from_secs(10);

/// After so long without a gain, owners that links claim to be are dialled.
const STARVED: Duration = Duration::from_secs(5);

/// How long a host is suspected.
const SUSPICION: Duration = Duration::from_secs(60);

impl Observer {
    pub(super) fn is_suspect(&self, host: &HostKey) -> bool {
        let until = self.suspected.get(host);
        until.is_some_and(|until| *until > self.now)
    }

    fn suspect(&mut self, host: HostKey) {
        self.suspected.insert(host, self.now + SUSPICION);
    }

    /// Whether a host is known never to have had anything: perhaps, and for
    /// certain.
    pub(super) fn known_blank(&self, host: &HostKey) -> [bool; 2] {
        let known = |certain: usize| {
            let until = self.blanks[certain].get(host);
            until.is_some_and(|until| *until > self.now)
        };
        [known(0), known(1)]
    }

    /// Decides between hosts that nothing is known of.
    pub(super) fn lot(&self, host: &HostKey) -> u64 {
        let bytes = match host {
            HostKey::Ip(IpAddr::V4(ip)) => ip.octets().to_vec(),
            HostKey::Ip(IpAddr::V6(ip)) => ip.octets().to_vec(),
            HostKey::Text(text) => text.as_bytes().to_vec(),
        };
        let hash = blake3::hash(&[&self.seed.to_le_bytes()[..], &bytes].concat());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("it is long enough"))
    }

    /// Whether nothing is known of a link: perhaps, and for certain. A Bitfield
    /// counts before the length is known, and then only if it is of something.
    fn is_blank(&self, seen: &Seen) -> [bool; 2] {
        let unknown = !seen.info.dialled && seen.received == 0 && seen.taken == 0;
        let perhaps = unknown && seen.has.is_empty();
        [perhaps, perhaps && !seen.anything]
    }

    /// Whether it has been so for long: perhaps, and for certain.
    fn is_old(&self, seen: &Seen) -> [bool; 2] {
        let age = self.now - seen.since;
        [seen.old[0] || age >= OLD[0], seen.old[1] || age >= OLD[1]]
    }

    /// How many links of which nothing is known may count as old, as they were
    /// counted last.
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

    /// Whether a link of which nothing is known gives way to a newcomer: perhaps,
    /// and for certain.
    fn gives_way_untried(&self, old: &Seen, newcomer: &LinkInfo) -> [bool; 2] {
        let better = newcomer.dialled || self.lot(&newcomer.host) < old.lot;
        let (blank, aged) = (self.is_blank(old), self.is_old(old));
        [0, 1].map(|certain| blank[certain] && (better || aged[certain]))
    }

    /// Whether a link is of no use for certain: it sent nothing, and took a chunk
    /// and told of none, or was asked and came from a suspected host.
    pub(super) fn is_useless(&self, seen: &Seen) -> bool {
        let snubbed = self.downloads() && seen.suspect && !seen.asked.is_empty();
        seen.received == 0 && (snubbed || seen.is_mute(self.now))
    }

    /// The other side ends a link: one that came and went for nothing casts a
    /// suspicion on its host.
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

    /// No link again to where this side dialled a liar, and none from where
    /// another liar came.
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

    /// Beside a link whose address counts, what another merely says does not.
    pub(super) fn removed(&mut self, link: LinkId) -> Option<Seen> {
        self.old_lately();
        let seen = self.links.remove(&link)?;
        *self.debts.entry(seen.info.host.clone()).or_default() += seen.untold;
        let (blank, old) = (self.is_blank(&seen), self.is_old(&seen));
        // Who shares its address with one that is of use is not blamed for it.
        let mut others = self.links.values();
        let is_good = |is: &Seen| is.received > 0 || is.told_of;
        let alone = others.all(|is| is.info.host != seen.info.host || !is_good(is));
        for certain in [0, 1] {
            if alone && blank[certain] && old[certain] && self.fresh != Some(link) {
                let until = self.now + SUSPICION;
                self.blanks[certain].insert(seen.info.host.clone(), until);
            }
        }
        if alone && seen.received == 0 {
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
        let seen = self.removed(link).expect("drops a dead link");
        match reason {
            DropReason::Refused(RefuseReason::Banned) => {
                // Other links of a liar live on, until they lie themselves.
                let refused = self.fresh == Some(link) && self.is_banned(&seen.info);
                let lied = self.lied.contains(&link);
                assert!(refused || lied, "who did not lie is banned");
                (self.came, self.promoted) = (self.came_before, self.promoted_before);
                if !refused {
                    self.ban(link);
                }
            }
            DropReason::Refused(RefuseReason::SelfConnection) => {
                assert_eq!((seen.info.peer, self.fresh), (self.me, Some(link)));
                if seen.info.dialled {
                    self.ban(link);
                }
            }
            DropReason::Refused(RefuseReason::Duplicate) => {
                assert_eq!(self.duplicate, Some(link), "nobody has proved it");
            }
            DropReason::Refused(RefuseReason::Busy)
                if self.fresh == Some(link) && self.is_not_worth_a_place(&seen.info) => {}
            DropReason::Refused(RefuseReason::Busy) => {
                assert!(self.links.len() >= self.max_links, "there is room");
                let fresh = self.fresh.expect("somebody wants the place");
                if link == fresh {
                    let gives_way = |old: &Seen| self.gives_way(old, &seen.info);
                    assert!(!self.links.values().any(gives_way), "somebody is of no use");
                } else {
                    let newcomer = self.links[&fresh].info.clone();
                    assert!(
                        self.may_give_way(&seen, &newcomer),
                        "it is of use: {seen:?}"
                    );
                }
            }
            DropReason::Refused(RefuseReason::NotNeeded) => {
                let all = seen.has.len() == self.chunks() as usize;
                assert!(!self.seeding || all, "it lacks something");
            }
            DropReason::Left(_) => assert!(seen.refused),
            DropReason::Violation("no Bitfield in time") => {
                assert!(!seen.said && seen.since + HANDSHAKE_TIMEOUT <= self.now);
            }
            DropReason::Violation(what) => assert!(seen.rude, "it kept to the protocol: {what}"),
            DropReason::Silent => {
                let in_the_way = seen.is_stalled(self.now) && self.holds_up(Some(&seen));
                let owes_parts = !self.opened && !self.opening && self.must_go.contains(&link);
                let asks = self.downloads();
                let snubbed = asks && seen.may_be_snubbed(self.now);
                let useless = seen.received == 0 && (snubbed || seen.is_mute(self.now));
                let useless = useless && self.crowded && self.fresh.is_some();
                let owes = asks && !seen.asked.is_empty() || owes_parts || in_the_way || useless;
                assert!(owes, "it owes nothing: {seen:?}");
            }
            other => panic!("unknown: {other}"),
        }
    }

    /// Whether a newcomer may be refused though there is room: many links are
    /// there, and its host was of no use before or has its share.
    pub(super) fn is_not_worth_a_place(&self, newcomer: &LinkInfo) -> bool {
        let suspect = self.is_suspect(&newcomer.host);
        self.crowded && !newcomer.dialled && (suspect || self.has_its_share(newcomer))
    }

    /// Whether a host has twice as many links as all would have if they had as
    /// many each.
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

    /// Whether a link must give way to a newcomer before that is refused.
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

    /// Whether a link, which is out of the list already, may give way at all.
    pub(super) fn may_give_way(&self, old: &Seen, newcomer: &LinkInfo) -> bool {
        let is_new = self.now - old.since < GRACE;
        let declined = old.wants_nothing || self.lacks_nothing(old);
        let waits = old.theirs.len() > old.reading.len() || old.under_way > 0;
        let useful = !self.seeding && !old.rejected && self.is_useful(old);
        let may_idle = old.said && self.opened && !waits && !useful && (declined || !is_new);
        let passed = !is_new && old.taken == 0;
        let mute = old.mute_for(self.now) >= MUTE || old.may_be_doubtful(self.now);
        let barren = old.received == 0 && (passed || mute);
        let [untried, _] = self.gives_way_untried(old, newcomer);
        let crowd = self.of_host(&newcomer.host, [old]) + 1;
        let crowded = self.of_host(&old.info.host, [old]) > crowd;
        let wanted = newcomer.dialled && self.is_starving();
        may_idle || barren || untried || !old.info.dialled && (crowded || wanted)
    }

    /// Whether nothing comes, as far as that can be told from outside.
    pub(super) fn is_starving(&self) -> bool {
        let supplied = |seen: &Seen| match self.opened {
            true => !seen.rejected && self.is_useful(seen),
            // Whoever was asked for the manifest in vain supplies nothing.
            false => seen.may_have_manifest(),
        };
        let quiet = self.now - self.last_gain >= STARVED;
        !self.seeding && (quiet || !self.links.values().any(supplied))
    }

    /// Whether links that take nothing hold up others.
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
