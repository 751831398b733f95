//! Until when each new link has to say what it has.

use std::collections::VecDeque;
use std::time::Instant;

use super::link::Link;
use super::remote_chunks::RemoteChunks;
use super::{LinkId, LinkMap};
use crate::protocol::limits::HANDSHAKE_TIMEOUT;

/// Links that have not said what they have, in the order of their coming up. Some of
/// them may have said it, or may be gone; those are skipped.
#[derive(Debug, Default)]
pub(super) struct Newcomers(VecDeque<(Instant, LinkId)>);

/// Whether a link is up and has not said what it has.
pub(super) fn is_silent(links: &LinkMap<Link>, id: LinkId) -> bool {
    let silent = |link: &Link| link.remote == RemoteChunks::Unknown;
    links.get(id).is_some_and(silent)
}

impl Newcomers {
    /// A link comes up.
    pub(super) fn link_up(&mut self, now: Instant, id: LinkId, links: &LinkMap<Link>) {
        while let Some(&(_, first)) = self.0.front()
            && !is_silent(links, first)
        {
            self.0.pop_front();
        }
        self.0.push_back((now + HANDSHAKE_TIMEOUT, id));
    }

    /// The other side of a link has said who it is: its time begins again.
    pub(super) fn link_met(&mut self, now: Instant, id: LinkId, links: &LinkMap<Link>) {
        self.0.retain(|&(_, other)| other != id);
        self.link_up(now, id, links);
    }

    /// The next link whose time is over, if it still is silent.
    pub(super) fn next_late(&mut self, now: Instant, links: &LinkMap<Link>) -> Option<LinkId> {
        while let Some(&(deadline, id)) = self.0.front()
            && deadline <= now
        {
            self.0.pop_front();
            if is_silent(links, id) {
                return Some(id);
            }
        }
        None
    }

    /// When the next link's time is over.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.front().map(|&(deadline, _)| deadline)
    }
}
