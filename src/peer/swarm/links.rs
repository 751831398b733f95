//! Links: who is at the other end, which stay, and where more are found.

use std::time::Instant;

use super::link::{Link, Remote, Sender};
use super::planner::Released;
use super::{DropReason, LinkId, LinkInfo, Output, Phase, Swarm};
use crate::protocol::{Addr, LinkProof, PeerMessage, RefuseReason};

/// How often the pause before the next search for owners doubles.
const MAX_FIND_DOUBLINGS: u32 = 8;

/// How many messages may wait for a link: several times what a peer that
/// keeps to the protocol can cause.
const MAX_QUEUED: usize = 4096;

/// And how many parts of the manifest among them, each as long as a block.
const MAX_QUEUED_PARTS: usize = 32;

/// To how many links of one name a new one proves itself, and how many proofs
/// it may give: two links come from two peers that dialled each other.
const MAX_PROOFS: usize = 4;

impl Swarm {
    /// A link is up: the handshake is done. The machine may drop it at once,
    /// if it is banned, a duplicate, or one too many.
    pub fn link_up(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        if let Some(addr) = &info.addr {
            if !self.is_seeding() {
                self.book.named(now, addr.clone(), false);
            }
            self.book.linked(addr);
        }
        let refused = if info.peer == self.me {
            if info.dialled {
                self.book.ban(info.peer, info.addr.as_ref());
            }
            Some(DropReason::Refused(RefuseReason::SelfConnection))
        } else if self.book.is_banned(info.peer, info.addr.as_ref()) {
            if info.dialled {
                self.book.ban(info.peer, info.addr.as_ref());
            }
            Some(DropReason::Refused(RefuseReason::Banned))
        } else {
            None
        };
        let refused = refused.or_else(|| {
            if self.links.len() >= self.config.max_links {
                self.make_room(now);
            }
            let full = self.links.len() >= self.config.max_links;
            full.then_some(DropReason::Refused(RefuseReason::Busy))
        });
        if let Some(reason) = refused {
            self.outputs.push_back(Output::Drop { link: id, reason });
            if let Some(addr) = &info.addr
                && !self
                    .links
                    .values()
                    .any(|l| l.info.addr.as_ref() == Some(addr))
            {
                self.book.unlinked(now, addr);
            }
            return;
        }
        let link = Link::new(id, info, self.log.len());
        let greeting = match &mut self.phase {
            Phase::Transfer(transfer) => {
                transfer.planner.link_added(id);
                if transfer.stored.is_empty() {
                    PeerMessage::HaveNone
                } else {
                    PeerMessage::Bitfield(transfer.stored.to_bytes())
                }
            }
            Phase::Seeding(_) => PeerMessage::HaveAll,
            _ => PeerMessage::HaveNone,
        };
        self.links.insert(id, link);
        self.uploader.link_added(id);
        self.count_lacks(id);
        self.send(id, greeting);
        self.tell_same_peer(id);
        self.settle(now);
    }

    /// Drops the oldest link of which neither side wants anything.
    fn make_room(&mut self, now: Instant) {
        let is_idle = |(id, link): &(LinkId, &Link)| {
            let useful = match &self.phase {
                Phase::Transfer(transfer) => transfer.planner.is_useful(*id),
                Phase::Seeding(_) => false,
                // Nobody knows yet who will be of use.
                _ => true,
            };
            link.remote != Remote::Unknown && !useful && !self.uploader.is_wanted(*id)
        };
        let idle = self.links.iter().find(is_idle).map(|(id, _)| id);
        if let Some(idle) = idle {
            self.drop_link(now, idle, DropReason::Refused(RefuseReason::NotNeeded));
        }
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
        if let Some(dialled) = self.links.get(goes).filter(|link| link.info.dialled)
            && let Some(addr) = dialled.info.addr.clone()
            && let Some(link) = self.links.get_mut(stays)
        {
            link.info.addr = Some(addr);
        }
        self.drop_link(now, goes, DropReason::Refused(RefuseReason::Duplicate));
    }

    /// A link went down. Unknown links are ignored, so that a link which the
    /// machine dropped may be reported as well.
    pub fn link_down(&mut self, now: Instant, link: LinkId) {
        self.remove_link(now, link);
        self.settle(now);
    }

    pub(super) fn remove_link(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        self.wake.take(id);
        self.uploader.link_removed(now, id);
        self.spread.returned(id);
        let addr = link.info.addr.as_ref();
        let same = |other: &Link| other.info.addr.as_ref() == addr;
        if let Some(addr) = addr.filter(|_| !self.links.values().any(same)) {
            self.book.unlinked(now, addr);
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

    /// Drops the link of a peer that lied, if there still is one, and never
    /// links to that peer again. Its address is banned only where this side
    /// dialled it: of a link that the other side dialled, it is mere talk, and
    /// could be an honest peer's.
    pub(super) fn ban(&mut self, now: Instant, liar: &Sender) {
        let addr = liar.addr.as_ref().filter(|_| liar.dialled);
        self.book.ban(liar.peer, addr);
        let same = |(_, link): &(LinkId, &Link)| link.info.peer == liar.peer;
        if let Some((id, link)) = self.links.iter().find(same) {
            let addr = link.info.addr.clone().filter(|_| link.info.dialled);
            self.book.ban(liar.peer, addr.as_ref());
            self.drop_link(now, id, DropReason::Refused(RefuseReason::Banned));
        }
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
        let queued = |link: &Link| link.queued > MAX_QUEUED || link.parts.len() > MAX_QUEUED_PARTS;
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

    /// Whether some link has something that is missing here.
    pub(super) fn is_supplied(&self) -> bool {
        match &self.phase {
            Phase::Manifest(_) | Phase::Opening(_) => {
                self.links.values().any(|link| link.remote.is_anything())
            }
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
        !self.is_seeding()
            && links < self.config.max_links
            && (links < self.config.sources || self.book.dialling() == 0 && !self.is_supplied())
    }

    /// Whether to look for more owners.
    pub(super) fn wants_owners(&self) -> bool {
        self.wants_links() && !self.book.has_candidates()
            || !self.is_seeding() && !self.is_supplied()
    }
}
