//! Links: who is at the other end, which stay, and where more are found.

use std::time::{Duration, Instant};

use super::link::{Link, Remote, Sender};
use super::planner::Released;
use super::{DropReason, LinkId, LinkInfo, Output, Phase, Swarm};
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::protocol::{Addr, LinkProof, PeerMessage, RefuseReason};

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
pub(super) const GRACE: Duration = HANDSHAKE_TIMEOUT;

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
        if self.is_blank(id, &link) && self.is_old(now, &link) {
            self.book.never_had_anything(now, &link.info.host);
        }
        let owes = match &self.phase {
            Phase::Transfer(transfer) => transfer.planner.owes(id),
            _ => false,
        };
        if link.received == 0 && (owes || self.uploader.is_mute(now, id)) {
            self.book.suspect(now, &link.info.host);
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
        // is known.
        let blanks = self.blanks.min(self.links.len());
        let sources = links.saturating_sub(silent + blanks);
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
