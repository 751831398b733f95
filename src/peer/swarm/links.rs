//! Links: who is at the other end, which stay, and where more are found.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::link::{Link, Remote, Sender};
use super::planner::Released;
use super::{DropReason, LinkId, LinkInfo, Output, Phase, Swarm};
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, HostKey, LinkProof, PeerMessage, RefuseReason};

/// How often the pause before the next search for owners doubles.
const MAX_FIND_DOUBLINGS: u32 = 8;

/// How many messages may wait for a link: several times what a peer that
/// keeps to the protocol can cause.
const MAX_QUEUED: usize = 4096;

/// And how many parts of the manifest may be asked for and wait.
const MAX_QUEUED_PARTS: usize = 32;

/// To how many links of one name a new one proves itself, and how many proofs
/// it may give: two links come from two peers that dialled each other.
const MAX_PROOFS: usize = 4;

/// How long a new link has until it must be of use, when others want its place:
/// as long as it has to say what it has.
const GRACE: Duration = HANDSHAKE_TIMEOUT;

/// How long a link that was sent a chunk may take to tell of it before its place
/// goes to another, if all are taken.
const MUTE: Duration = Duration::from_millis(500);

/// How long a link waits to be asked for something, as long as nothing comes, before
/// a newcomer may have its place.
const UNTRIED: Duration = Duration::from_secs(1);

/// After so long without a block nothing is left untried: longer than a link
/// that sends nothing keeps what was asked of it.
const STARVED: Duration = Duration::from_secs(5);

impl Swarm {
    /// A link is up: the handshake is done. The machine may drop it at once, if
    /// it is banned, or one too many.
    pub fn link_up(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        if let Some(reason) = self.refusal(now, &info) {
            self.outputs.push_back(Output::Drop { link: id, reason });
            if let Some(addr) = info.addr.filter(|_| info.dialled) {
                self.book.dial_failed(now, &addr);
                self.settle(now);
            }
            return;
        }
        self.book.linked(&info);
        let greeting = match &mut self.phase {
            Phase::Transfer(transfer) => {
                transfer.planner.link_added(id);
                if self.book.is_suspect(now, &info.host) {
                    transfer.planner.suspect(id);
                }
                if transfer.stored.is_empty() {
                    PeerMessage::HaveNone
                } else {
                    PeerMessage::Bitfield(transfer.stored.to_bytes())
                }
            }
            Phase::Seeding(_) => PeerMessage::HaveAll,
            _ => PeerMessage::HaveNone,
        };
        self.expect_bitfield(now, id);
        let mut link = Link::new(now, id, info, self.log.len());
        link.lot = self.lot(&link.info.host);
        link.old = self.book.is_known_blank(now, &link.info.host);
        self.uploader.link_added(now, id, &link.info.host);
        if link.old {
            self.uploader.never_told(id);
        }
        self.links.insert(id, link);
        self.count_lacks(id);
        self.send(id, greeting);
        self.tell_same_peer(id);
        self.settle(now);
    }

    /// Why a link is not taken, if so.
    fn refusal(&mut self, now: Instant, info: &LinkInfo) -> Option<DropReason> {
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

    /// Whether a link was asked for something and takes long to send anything; or,
    /// where places are scarce, waits in a long line to be asked.
    pub(super) fn is_doubtful(&self, now: Instant, id: LinkId, link: &Link) -> bool {
        let Phase::Transfer(transfer) = &self.phase else {
            return false;
        };
        let is_new = now.saturating_duration_since(link.since) < UNTRIED;
        let scarce = self.links.len() >= self.most_held();
        let untried = scarce && !link.info.dialled && !is_new && transfer.planner.is_untried(id);
        link.received == 0 && (untried || transfer.planner.is_doubtful(now, id))
    }

    /// Whether a link had the time to be of use to somebody, and was of none; or
    /// does not tell of what it got, while others wait for its place.
    fn is_barren(&self, now: Instant, id: LinkId, link: &Link) -> bool {
        let is_new = now.saturating_duration_since(link.since) < GRACE;
        let idle = self.uploader.sent_to(id) == 0 && self.uploader.has_passed(id);
        let mute = self.uploader.mute_for(now, id) >= MUTE;
        link.received == 0 && (!is_new && idle || mute || self.is_doubtful(now, id, link))
    }

    /// A link is to say soon what it has.
    fn expect_bitfield(&mut self, now: Instant, id: LinkId) {
        let silent = |link: &Link| link.remote == Remote::Unknown;
        while let Some((_, first)) = self.unsaid.front()
            && !self.links.get(*first).is_some_and(silent)
        {
            self.unsaid.pop_front();
        }
        self.unsaid.push_back((now + HANDSHAKE_TIMEOUT, id));
    }

    /// Links that did not say in time what they have end.
    pub(super) fn end_unsaid(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.unsaid.front()
            && deadline <= now
        {
            self.unsaid.pop_front();
            let silent = |link: &Link| link.remote == Remote::Unknown;
            if self.links.get(id).is_some_and(silent) {
                self.violated(now, id, "no Bitfield in time");
            }
        }
    }

    /// Whether nothing comes: no link has anything, or none has sent anything
    /// for a while.
    pub(super) fn is_starving(&self, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.last_gain) >= STARVED;
        !self.is_seeding() && (quiet || !self.is_supplied())
    }

    /// When that is so, though nothing happens before.
    pub(super) fn starves_at(&self) -> Option<Instant> {
        self.last_gain.checked_add(STARVED)
    }

    /// Another link has the id of this one: if it is the same peer, it hears so
    /// by what only that can know. A name alone proves nothing, so links of one
    /// name stay side by side until then.
    fn tell_same_peer(&mut self, id: LinkId) {
        let Some((peer, Some(cookies))) = self.links.get(id).map(|l| (l.info.peer, l.info.cookies))
        else {
            return;
        };
        let others = self
            .links
            .iter()
            .filter(|(other, link)| *other != id && link.info.peer == peer);
        let others = others.filter_map(|(_, link)| link.info.cookies);
        let proofs: Vec<LinkProof> = others
            .take(MAX_PROOFS)
            .map(|older| cookies.proof(&older))
            .collect();
        for proof in proofs {
            self.send(id, PeerMessage::SamePeer(proof));
        }
    }

    /// The other side proves that another link is with the same peer: of the
    /// two the one with the smaller lot stays, which both ends choose alike. It
    /// has the address that was dialled, if one of them was.
    pub(super) fn same_peer(&mut self, now: Instant, id: LinkId, proof: LinkProof) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.proofs += 1;
        if link.proofs > MAX_PROOFS {
            return self.violated(now, id, "too many proofs");
        }
        let Some(cookies) = link.info.cookies else {
            return;
        };
        let older = self.links.iter().find_map(|(other, link)| {
            let older = link.info.cookies.filter(|_| other != id)?;
            (cookies.expected(&older) == proof).then_some((other, older))
        });
        let Some((other, older)) = older else {
            // That link has ended, here or at the other side.
            return;
        };
        let (stays, goes) = if cookies.lot() < older.lot() {
            (id, other)
        } else {
            (other, id)
        };
        if let Some(solid) = self.links.get(goes).filter(|link| link.solid)
            && let Some(addr) = solid.info.addr.clone()
            && let Some(link) = self.links.get_mut(stays)
            && !link.solid
        {
            link.solid = true;
            link.info.addr = Some(addr);
        }
        self.drop_link(now, goes, DropReason::Refused(RefuseReason::Duplicate));
    }

    /// A link went down. Unknown links are ignored, so that a link which the
    /// machine dropped may be reported as well.
    pub fn link_down(&mut self, now: Instant, link: LinkId) {
        self.left(now, link);
        self.remove_link(now, link);
        self.settle(now);
    }

    /// The other side ends a link. One that came and went for nothing may do so
    /// again and again.
    pub(super) fn left(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get(id) else {
            return;
        };
        let is_new = now.saturating_duration_since(link.since) < GRACE;
        if is_new && !link.info.dialled && link.received == 0 && self.uploader.sent_to(id) == 0 {
            self.book.suspect(now, &link.info.host);
        }
    }

    pub(super) fn remove_link(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        self.wake.take(id);
        let owes = match &self.phase {
            Phase::Transfer(transfer) => transfer.planner.owes(id),
            _ => false,
        };
        // Who shares its address with one that is of use is not blamed for it.
        let host = &link.info.host;
        let alone = self.links.iter().all(|(other, state)| {
            state.info.host != *host || state.received == 0 && !self.uploader.has_told(other)
        });
        if alone && self.is_blank(id, &link) && self.is_old(now, &link) {
            self.book.never_had_anything(now, host);
        }
        if alone && link.received == 0 && (owes || self.uploader.is_mute(now, id)) {
            self.book.suspect(now, host);
        }
        self.uploader.link_removed(now, id);
        self.spread.returned(id);
        if let Some(addr) = &link.info.addr {
            // What another link merely says does not count beside it, and is
            // no loss beside one that is there.
            let same = |other: &Link| {
                let matters = other.solid || !link.solid;
                matters && other.info.addr.as_ref() == Some(addr)
            };
            if !self.links.values().any(same) {
                self.book.unlinked(now, addr);
            }
        }
        match &mut self.phase {
            Phase::Manifest(fetch) => fetch.passed(id, true),
            Phase::Transfer(transfer) => {
                let released = transfer.planner.link_removed(id);
                self.released(released);
            }
            _ => {}
        }
        self.look_soon(now);
    }

    /// When the last useful link is gone, owners are looked for soon.
    fn look_soon(&mut self, now: Instant) {
        if !self.is_seeding() && !self.is_supplied() {
            self.find.times = 0;
            let soon = now.checked_add(self.config.find_retry);
            self.find.next = self.find.next.min(soon).or(soon);
        }
    }

    pub(super) fn drop_link(&mut self, now: Instant, link: LinkId, reason: DropReason) {
        if self.links.contains(link) {
            self.outputs.push_back(Output::Drop { link, reason });
            self.remove_link(now, link);
        }
    }

    /// What is given up is cancelled, forgotten, and free for others.
    pub(super) fn released(&mut self, released: Released) {
        if let Phase::Transfer(transfer) = &mut self.phase {
            for chunk in released.forgotten {
                transfer.forget(chunk, &mut self.counts);
            }
        }
        for (link, block) in released.cancelled {
            self.send(link, PeerMessage::Cancel(block));
            self.wake.add(link);
        }
        self.wake_hungry = true;
    }

    /// Drops the link that lied, if it still is there, and takes none from who
    /// can be told again: the address, if this side dialled it, or else the
    /// host that the link came from. Never the name or the address that the
    /// other side said: it could be an honest peer's.
    pub(super) fn ban(&mut self, now: Instant, liar: &Sender) {
        let dialled = liar.addr.as_ref().filter(|_| liar.dialled);
        self.book.ban(&liar.host, dialled);
        if let Some(addr) = liar.addr.as_ref().filter(|_| !liar.dialled) {
            self.book.disproved(addr);
        }
        self.drop_link(now, liar.link, DropReason::Refused(RefuseReason::Banned));
    }

    pub(super) fn violated(&mut self, now: Instant, link: LinkId, what: &'static str) {
        self.drop_link(now, link, DropReason::Violation(what));
    }

    pub(super) fn send(&mut self, link: LinkId, message: PeerMessage) {
        if let Some(state) = self.links.get_mut(link) {
            state.queued += 1;
            self.outputs.push_back(Output::Send { link, message });
        }
    }

    /// Whether a link takes what it causes; else it is dropped.
    pub(super) fn check_queue(&mut self, now: Instant, link: LinkId) {
        let queued =
            |link: &Link| link.queued > MAX_QUEUED || link.parts_asked.len() > MAX_QUEUED_PARTS;
        if self.links.get(link).is_some_and(queued) {
            self.violated(now, link, "more questions than it reads answers");
        }
    }

    /// Messages were handed to the network, with so many bytes of blocks.
    pub fn messages_sent(&mut self, now: Instant, link: LinkId, messages: usize, bytes: u64) {
        if let Some(state) = self.links.get_mut(link) {
            let messages = messages.min(state.queued);
            state.queued -= messages;
            state.handed += messages as u64;
            while state.parts.front().is_some_and(|&at| at < state.handed) {
                state.parts.pop_front();
            }
            self.send_parts(link);
            self.tell_haves(link);
            if bytes > 0 {
                self.counts.uploaded += bytes;
                self.uploader.sent(now, link, bytes);
                self.settle(now);
            }
        }
    }

    /// The tracker, or the user, named owners: addresses, and whether each has
    /// all. An empty list says that there are none, or that nobody answered.
    pub fn owners_found(&mut self, now: Instant, owners: impl IntoIterator<Item = (Addr, bool)>) {
        for (addr, complete) in owners {
            self.book.named(now, addr, complete);
        }
        self.find.running = false;
        let doubled = 2u32.pow(self.find.times.min(MAX_FIND_DOUBLINGS));
        self.find.times = self.find.times.saturating_add(1);
        let pause = self.config.find_retry.saturating_mul(doubled);
        let longest = if self.is_supplied() {
            self.config.find_interval
        } else {
            // Several times before the patience ends.
            self.config.find_interval.min(self.config.patience / 6)
        };
        let pause = pause.min(longest);
        self.find.next = now.checked_add(pause);
        self.settle(now);
    }

    /// A dial failed, or its handshake.
    pub fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        self.book.dial_failed(now, addr);
        self.settle(now);
    }

    /// Whether some link has something that is missing here, as far as is known.
    pub(super) fn is_supplied(&self) -> bool {
        match &self.phase {
            // Who was asked for the manifest in vain is no supply.
            Phase::Manifest(fetch) => fetch.is_waiting(self.links_with_something()),
            Phase::Opening(_) => self.links.values().any(|link| link.remote.is_anything()),
            Phase::Transfer(transfer) => {
                let mut links = self.links.keys();
                links.any(|link| transfer.planner.is_useful(link))
            }
            Phase::Seeding(_) => false,
        }
    }

    /// Whether to dial: up to so many sources, and beyond them as long as none
    /// of the links has anything.
    pub(super) fn wants_links(&self) -> bool {
        let links = self.links.len() + self.book.dialling();
        let silent = match &self.phase {
            Phase::Transfer(transfer) => transfer.planner.snubbed(),
            _ => 0,
        };
        // A newcomer that was dialled takes the place of an old one of which nothing
        // is known, or of one in doubt.
        let blanks = (self.blanks + self.doubtful).min(self.links.len());
        let sources = links.saturating_sub(self.blanks + silent.max(self.doubtful));
        !self.is_seeding()
            && links - blanks < self.config.max_links
            && (sources < self.config.sources || self.book.dialling() == 0 && !self.is_supplied())
    }

    /// Whether to dial though all places are taken: nothing comes, and the link
    /// that answers takes the place of one that this side accepted.
    pub(super) fn wants_place(&self, now: Instant) -> bool {
        self.may_want_place() && self.is_starving(now)
    }

    fn may_want_place(&self) -> bool {
        !self.is_seeding()
            && self.links.len() >= self.config.max_links
            && self.book.dialling() == 0
            && self.links.values().any(|link| !link.info.dialled)
    }

    /// When to dial so, though nothing happens before.
    pub(super) fn place_wanted_at(&self) -> Option<Instant> {
        if !self.may_want_place() {
            return None;
        }
        let starves = self.starves_at().filter(|_| self.is_supplied());
        let idle = self
            .book
            .poll_timeout()
            .map(|due| starves.map_or(due, |at| due.max(at)));
        let claimed = starves.filter(|_| self.book.has_claimed());
        idle.into_iter().chain(claimed).min()
    }

    /// Whether to look for more owners.
    pub(super) fn wants_owners(&self) -> bool {
        self.wants_links() && !self.book.has_candidates()
            || !self.is_seeding() && !self.is_supplied()
    }
}
