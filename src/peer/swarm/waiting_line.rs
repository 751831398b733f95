//! The links that wait here for a place, when all are taken.
//!
//! A link that waits is told its position instead of what this side has, so it has
//! nothing to ask for. What it asked before it knew is rejected when it gets its place, so
//! that it costs nothing until then. Places go to hosts in turns, first come first
//! served, and a host with many links counts as one: when one of them gets a place, the
//! others go to the end of the line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::link::{Link, MAX_WAITING_PAGES};
use super::remote_chunks::RemoteChunks;
use super::same_peer::MAX_PROOFS;
use super::{LinkId, LinkMap};
use crate::content::BlockRange;
use crate::protocol::limits::{HANDSHAKE_TIMEOUT, MAX_BLOCK_LEN, MAX_REQUESTS};
use crate::protocol::{HostKey, PeerMessage, RefuseReason, ZoneTag};

/// The shortest time between two looks at the line, and between two links that give way
/// to it.
const LOOK: Duration = Duration::from_millis(250);

/// The shortest time until a link is told its position again.
const NEWS: Duration = Duration::from_secs(10);

/// A link that waits for a place.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) link: Link,
    /// It said that it wants nothing at present.
    pub(super) declined: bool,
    /// The blocks and pages that it asked for. It asks before it knows that it waits, so
    /// these are no more than may be unanswered at a time.
    blocks: Vec<BlockRange>,
    pages: Vec<u32>,
    /// Its position as it was told last, and when.
    told: u32,
    told_at: Instant,
}

/// What follows from a message of a link that waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WhileWaiting {
    Nothing,
    /// It says that it ends the link.
    Left(RefuseReason),
    /// It has everything.
    NotNeeded,
    /// It broke the protocol.
    Violation(&'static str),
}

/// The links of one host, in the order in which they came.
#[derive(Debug)]
struct HostInLine {
    host: HostKey,
    links: VecDeque<LinkId>,
}

/// The links that wait here for a place.
#[derive(Debug, Default)]
pub(super) struct WaitingLine {
    /// In the order of their turns.
    hosts: VecDeque<HostInLine>,
    links: LinkMap<Waiting>,
    next_look: Option<Instant>,
}

impl WaitingLine {
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.len() == 0
    }

    /// The links, each with the position that it was told last.
    pub(super) fn positions(&self) -> impl Iterator<Item = (&Link, u32)> {
        self.links
            .values()
            .map(|waiting| (&waiting.link, waiting.told))
    }

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.links.contains(id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Waiting> {
        self.links.get_mut(id)
    }

    /// A link goes to the end of the line. Returns its position. O(hosts).
    pub(super) fn join(&mut self, now: Instant, id: LinkId, link: Link) -> u32 {
        let host = link.info.host.clone();
        let at = self.hosts.iter().position(|other| other.host == host);
        let at = at.unwrap_or(self.hosts.len());
        match self.hosts.get_mut(at) {
            Some(other) => other.links.push_back(id),
            None => self.hosts.push_back(HostInLine {
                host,
                links: VecDeque::from([id]),
            }),
        }
        let told = self.last_position(at);
        let waiting = Waiting {
            link,
            declined: false,
            blocks: Vec::new(),
            pages: Vec::new(),
            told,
            told_at: now,
        };
        self.links.insert(id, waiting);
        self.next_look.get_or_insert(now);
        told
    }

    /// The position of the last link of a host, by its place among the hosts.
    fn last_position(&self, at: usize) -> u32 {
        let round = self.hosts.get(at).map_or(0, |host| host.links.len());
        let in_time = |(other, host): (usize, &HostInLine)| {
            let rounds = if other <= at { round } else { round - 1 };
            host.links.len().min(rounds)
        };
        position(self.hosts.iter().enumerate().map(in_time).sum())
    }

    /// The newest link of the host that has most, if it has at least two more than
    /// `host`: it gives way to one of that host when the line is full.
    pub(super) fn surplus(&self, host: &HostKey) -> Option<LinkId> {
        let count = |other: &&HostInLine| other.links.len();
        let most = self.hosts.iter().max_by_key(count)?;
        let own = self.hosts.iter().find(|other| other.host == *host);
        let own = own.map_or(0, |own| own.links.len());
        let id = most.links.back().filter(|_| most.links.len() >= own + 2);
        id.copied()
    }

    /// The first link, in the order of turns, of a host that may have a place.
    pub(super) fn first(&self, may: impl Fn(&HostKey) -> bool) -> Option<LinkId> {
        let host = self.hosts.iter().find(|host| may(&host.host))?;
        host.links.front().copied()
    }

    /// A link gets a place: it was its host's turn.
    pub(super) fn take(&mut self, id: LinkId) -> Option<Waiting> {
        let at = self.remove_from_host(id);
        if let Some(host) = at.and_then(|at| self.hosts.remove(at)) {
            self.hosts.push_back(host);
        }
        self.links.remove(id)
    }

    /// A link is gone.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<Waiting> {
        self.remove_from_host(id);
        self.links.remove(id)
    }

    /// Returns where its host is in the line, if other links of it are left.
    fn remove_from_host(&mut self, id: LinkId) -> Option<usize> {
        let own = &self.links.get(id)?.link.info.host;
        let at = self.hosts.iter().position(|host| host.host == *own)?;
        let host = self.hosts.get_mut(at)?;
        host.links.retain(|other| *other != id);
        if host.links.is_empty() {
            self.hosts.remove(at);
            return None;
        }
        Some(at)
    }

    /// The links in the order in which they get places, if nothing changes. O(links).
    fn order(&self) -> Vec<LinkId> {
        let mut hosts: Vec<_> = self.hosts.iter().map(|host| host.links.iter()).collect();
        let mut order = Vec::with_capacity(self.links.len());
        while !hosts.is_empty() {
            hosts.retain_mut(|links| links.next().map(|id| order.push(*id)).is_some());
        }
        order
    }

    /// When to look at the line again, if somebody waits.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_look.filter(|_| !self.is_empty())
    }

    /// Whether it is time to look at the line. If so, the next look is later.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let due = self.poll_timeout().is_some_and(|at| at <= now);
        if due {
            self.next_look = Some(now + LOOK);
        }
        due
    }

    /// The links that are told their position now. It is not told again before the
    /// network has taken the last message. O(links).
    pub(super) fn news(&mut self, now: Instant) -> Vec<(LinkId, u32)> {
        let due = |waiting: &Waiting| {
            let age = now.saturating_duration_since(waiting.told_at);
            waiting.link.queued == 0 && age >= NEWS
        };
        if !self.links.values().any(due) {
            return Vec::new();
        }
        let mut news = Vec::new();
        for (ahead, id) in self.order().into_iter().enumerate() {
            if let Some(waiting) = self.links.get_mut(id)
                && due(waiting)
                && waiting.told != position(ahead + 1)
            {
                (waiting.told, waiting.told_at) = (position(ahead + 1), now);
                news.push((id, waiting.told));
            }
        }
        news
    }

    /// The links that did not say in time what they have.
    pub(super) fn late(&self, now: Instant) -> Vec<LinkId> {
        let is_late = |waiting: &Waiting| {
            let age = now.saturating_duration_since(waiting.link.since);
            waiting.link.remote == RemoteChunks::Unknown && age >= HANDSHAKE_TIMEOUT
        };
        let late = self.links.iter().filter(|(_, waiting)| is_late(waiting));
        late.map(|(id, _)| id).collect()
    }

    /// Panics where the line contradicts itself. For tests.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self) {
        let in_hosts: usize = self.hosts.iter().map(|host| host.links.len()).sum();
        assert_eq!(in_hosts, self.links.len());
        assert_eq!(self.order().len(), self.links.len());
        for host in &self.hosts {
            assert!(!host.links.is_empty());
            for id in &host.links {
                let waiting = self.links.get(*id).expect("it waits");
                assert_eq!(waiting.link.info.host, host.host);
            }
        }
    }
}

/// A position, as it is told.
fn position(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

impl Waiting {
    /// A message arrives. What the other side has, and whether it wants something, is
    /// remembered for the time after the wait. What it asked for before it was told to wait
    /// is rejected then: it may have come from elsewhere.
    pub(super) fn hears(&mut self, message: PeerMessage, chunks: u32) -> WhileWaiting {
        let remote = match message {
            PeerMessage::KeepAlive => return WhileWaiting::Nothing,
            PeerMessage::SamePeer(_) => {
                // It is no news: this side proves it when the link has a place.
                self.link.proofs += 1;
                return match self.link.proofs <= MAX_PROOFS {
                    true => WhileWaiting::Nothing,
                    false => WhileWaiting::Violation("too many proofs"),
                };
            }
            PeerMessage::Refuse(reason) => return WhileWaiting::Left(reason),
            PeerMessage::Interested | PeerMessage::NotInterested => {
                self.declined = message == PeerMessage::NotInterested;
                return WhileWaiting::Nothing;
            }
            PeerMessage::Request(block) => return self.hears_request(block),
            PeerMessage::ManifestRequest { page } => {
                if self.pages.len() >= MAX_WAITING_PAGES {
                    return WhileWaiting::Violation("more pages than may be unanswered");
                }
                self.pages.push(page);
                return WhileWaiting::Nothing;
            }
            // It will be rejected.
            PeerMessage::Cancel(block) => {
                if let Some(zone) = ZoneTag::of_mark(block) {
                    self.link.zone.get_or_insert(zone);
                }
                return WhileWaiting::Nothing;
            }
            PeerMessage::Have(chunk) if chunk.0 < chunks => {
                if self.link.remote.resolve(chunks) {
                    self.link.remote.gained(chunk, chunks);
                }
                return self.heard_what_it_has();
            }
            PeerMessage::Have(_) => {
                return WhileWaiting::Violation("a chunk that the content lacks");
            }
            PeerMessage::Bitfield(bytes) => RemoteChunks::unread(bytes),
            PeerMessage::HaveAll => RemoteChunks::All,
            PeerMessage::HaveNone => RemoteChunks::None,
            _ => return WhileWaiting::Violation("more than a link may say that waits"),
        };
        if self.link.remote != RemoteChunks::Unknown {
            return WhileWaiting::Violation("a second Bitfield");
        }
        self.link.remote = remote;
        if !self.link.remote.resolve(chunks) {
            return WhileWaiting::Violation("a Bitfield of another content");
        }
        self.heard_what_it_has()
    }

    fn hears_request(&mut self, block: BlockRange) -> WhileWaiting {
        if block.len > MAX_BLOCK_LEN {
            return WhileWaiting::Violation("a request for more than a block");
        }
        if self.blocks.len() >= MAX_REQUESTS {
            return WhileWaiting::Violation("more requests than may be unanswered");
        }
        self.blocks.push(block);
        WhileWaiting::Nothing
    }

    /// The answers to what it asked for while it waited.
    pub(super) fn rejections(&self) -> impl Iterator<Item = PeerMessage> + use<> {
        let pages = self.pages.clone().into_iter();
        let pages = pages.map(|page| PeerMessage::ManifestReject { page });
        let blocks = self.blocks.clone().into_iter();
        pages.chain(blocks.map(PeerMessage::Reject))
    }

    fn heard_what_it_has(&self) -> WhileWaiting {
        match self.link.remote {
            RemoteChunks::All => WhileWaiting::NotNeeded,
            _ => WhileWaiting::Nothing,
        }
    }
}
