//! Which links may have something to ask for, and what they ask for.

use std::collections::VecDeque;
use std::time::Instant;

use super::gate::Gate;
use super::link::{Choke, Interest, Link};
use super::link_map::LinkSet;
use super::planner::{Planner, Request};
use super::{LinkId, LinkKind, LinkMap};
use crate::protocol::{HostKey, PeerMessage};

/// The links that have to be looked at: asking begins with them.
#[derive(Debug, Default)]
pub(super) struct AskQueue {
    woken: LinkSet,
    /// Blocks became free, or chunks changed: idle links have to be looked at as well.
    idle_too: bool,
    /// Links that would be asked for something if the limits allowed it, in the order of
    /// their turns.
    held: VecDeque<LinkId>,
}

impl AskQueue {
    /// A link may have something to ask for.
    pub(super) fn wake(&mut self, link: LinkId) {
        self.woken.add(link);
    }

    /// Every idle link may have something to ask for.
    pub(super) fn wake_idle(&mut self) {
        self.idle_too = true;
    }

    /// A link is gone.
    pub(super) fn link_removed(&mut self, link: LinkId) {
        self.woken.remove(link);
        self.held.retain(|held| *held != link);
    }

    /// Whether some link would be asked for something if the limits allowed it.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Wakes the next link of a host, or any, that waited for the limits. Returns whether
    /// there is one.
    pub(super) fn wake_held(&mut self, host: Option<&HostKey>, links: &LinkMap<Link>) -> bool {
        let is_there = |link: &LinkId| {
            let link = links.get(*link);
            link.is_some_and(|link| host.is_none_or(|host| link.info.host == *host))
        };
        let next = self.held.iter().position(is_there);
        let Some(link) = next.and_then(|next| self.held.remove(next)) else {
            return false;
        };
        self.woken.add(link);
        true
    }

    /// Nothing is asked for at present.
    pub(super) fn clear(&mut self) {
        self.woken.clear();
        self.held.clear();
    }

    /// Whether a link is about to be looked at.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn contains(&self, link: LinkId) -> bool {
        self.woken.contains(link)
    }

    /// Plans all requests that are due, as far as the gate lets them pass, if there is one.
    /// Returns the messages to send, in order.
    pub(super) fn run(
        &mut self,
        now: Instant,
        planner: &mut Planner,
        links: &mut LinkMap<Link>,
        mut gate: Option<&mut Gate>,
    ) -> Vec<(LinkId, PeerMessage)> {
        let mut requests = Vec::new();
        let mut messages = Vec::new();
        let mut idle = std::mem::take(&mut self.idle_too).then_some(LinkId(0));
        // Silent links get what the others leave.
        let mut silent = LinkSet::default();
        loop {
            let woken = self.woken.pop_first();
            let next = woken.or_else(|| next_idle(now, planner, &mut idle));
            if let Some(link) = next
                && planner.snubs(link) > 0
            {
                silent.add(link);
                continue;
            }
            let Some(link) = next.or_else(|| silent.pop_first()) else {
                break;
            };
            let before = requests.len();
            while self.passes(now, planner, links, link, gate.as_deref_mut())
                && let Some(request) = planner.next_request(now, link)
            {
                if let (Some(gate), Some(state)) = (&mut gate, links.get(link)) {
                    gate.spend(&state.info.host, request.block.len.into());
                }
                requests.push((link, request));
                if let Some(other) = request.overtaken {
                    self.woken.add(other);
                }
            }
            let asked = requests.len() > before;
            if !asked && self.held.contains(&link) {
                // It is not known whether there is something to ask it for.
                continue;
            }
            if !asked && woken.is_none() && !planner.is_choked(link) {
                // It is as idle as it was.
                continue;
            }
            if let Some(state) = links.get_mut(link)
                && let Some(message) = tell_interest(now, planner, link, state, asked)
            {
                messages.push((link, message));
            }
        }
        for (link, Request { block, overtaken }) in requests {
            messages.extend(overtaken.map(|other| (other, PeerMessage::Cancel(block))));
            messages.push((link, PeerMessage::Request(block)));
        }
        messages
    }

    /// Whether one more request to a link passes the gate. If not, it has to wait, and is
    /// woken again by [`wake_held`](Self::wake_held).
    fn passes(
        &mut self,
        now: Instant,
        planner: &Planner,
        links: &LinkMap<Link>,
        link: LinkId,
        gate: Option<&mut Gate>,
    ) -> bool {
        let (Some(gate), Some(state)) = (gate, links.get(link)) else {
            return true;
        };
        let passes =
            !planner.has_room(now, link) || gate.admits(&state.info.host, planner.block_len());
        match passes {
            true => self.held.retain(|held| *held != link),
            false if !self.held.contains(&link) => self.held.push_back(link),
            false => {}
        }
        passes
    }
}

/// The next idle link to look at. Links that find nothing are woken again when
/// something has arrived.
fn next_idle(now: Instant, planner: &mut Planner, from: &mut Option<LinkId>) -> Option<LinkId> {
    let next = planner.next_idle((*from)?)?;
    let served = planner.hold_back_all(now);
    let after = next.0.checked_add(1).map(LinkId);
    *from = after.filter(|_| !served);
    (!served).then_some(next)
}

/// What a link has to be told about this side's interest, after it was or was not
/// asked for something.
fn tell_interest(
    now: Instant,
    planner: &mut Planner,
    id: LinkId,
    link: &mut Link,
    asked: bool,
) -> Option<PeerMessage> {
    match link.interest {
        _ if asked => {
            link.interest = Interest::Interested;
            None
        }
        Interest::NotInterested => {
            let wants = link.choke == Choke::Choked && planner.reconsider(now, id);
            wants.then(|| {
                link.interest = Interest::Interested;
                PeerMessage::Interested
            })
        }
        Interest::Interested => {
            // A stranger chokes one that is not interested. It hears that this side is as
            // long as it has anything that is missing here, asked of it or not.
            let may_want = link.info.kind == LinkKind::Stranger && planner.is_useful(id);
            let wants_nothing = link.choke == Choke::Unchoked
                && link.remote.is_anything()
                && !may_want
                && planner.unanswered(id) == 0;
            wants_nothing.then(|| {
                link.interest = Interest::NotInterested;
                PeerMessage::NotInterested
            })
        }
    }
}
