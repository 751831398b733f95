//! One link, as the machine sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::chunk_set::ChunkSet;
use super::contributor::Contributor;
use super::remote_chunks::RemoteChunks;
use super::throughput::Throughput;
use super::withdrawals::Withdrawals;
use super::{LinkCookies, LinkId, LinkInfo, LinkState, LinkStats, RemotePeer};
use crate::protocol::{PeerId, ZoneTag};

/// The state of a link. What the planner and the uploader know of it is theirs.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) info: LinkInfo,
    /// The zone that the other side says it is in.
    pub(super) zone: Option<ZoneTag>,
    /// It says that it fetches for its zone.
    pub(super) imports: bool,
    /// Decides between hosts of which nothing is known.
    pub(super) lot: u64,
    /// It waited in line for its place.
    pub(super) has_waited: bool,
    /// Earlier links of this host were up for long and never had anything.
    pub(super) known_blank: bool,
    /// When it came up.
    pub(super) since: Instant,
    /// Its address is more than a claim: this side dialled it, or the link has
    /// delivered.
    pub(super) is_proven: bool,
    /// Bytes of blocks that were asked for and arrived.
    pub(super) received: u64,
    /// Those who watch were told that it has something of the content.
    pub(super) is_owner: bool,
    /// What arrived and was sent of late.
    pub(super) down: Throughput,
    pub(super) up: Throughput,
    /// This link, as the sender of blocks.
    pub(super) contributor: Arc<Contributor>,
    pub(super) remote: RemoteChunks,
    /// A tracker named it as complete, and this side relies on that until it has said
    /// itself what it has.
    pub(super) presumed_complete: bool,
    /// Whether the other side lets this one ask.
    pub(super) choke: Choke,
    /// Since when it does not, if it does not.
    pub(super) choked_since: Option<Instant>,
    /// What the other side was told last.
    pub(super) interest: Interest,
    /// Messages that were not handed to the network yet.
    pub(super) queued: usize,
    pub(super) pages: PageQueue,
    /// Requests of this side that were unanswered when the download ended.
    pub(super) unanswered: usize,
    /// How much of the log of stored chunks the other side was told.
    pub(super) told: usize,
    /// Whether the other side understands that this one takes a chunk back.
    pub(super) takes_back: bool,
    /// Whether it was told that this side does.
    pub(super) marked: bool,
    /// What it has taken back.
    pub(super) withdrawals: Withdrawals,
    /// How many proofs the other side sent that another link belongs to the same peer.
    pub(super) proofs: usize,
}

/// Whether requests are answered, by the other side's last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choke {
    Unchoked,
    Choked,
}

/// Whether this side wants something, by its last word. A link starts as interested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    Interested,
    NotInterested,
}

/// The pages of the manifest that a link asked for. A page is long and a request for it
/// is short, so only a few are handed to the network at a time.
#[derive(Debug, Default)]
pub(super) struct PageQueue {
    /// Messages that were handed to the network so far.
    handed: u64,
    /// The positions of pages, among all messages, that were not handed over yet.
    under_way: VecDeque<u64>,
    /// Pages that were asked for and have to wait.
    waiting: VecDeque<u32>,
}

/// How many pages of the manifest a link may ask for and have waiting.
pub(super) const MAX_WAITING_PAGES: usize = 32;

/// How many pages are queued on a link at a time.
const MAX_PAGES_UNDER_WAY: usize = 2;

impl Link {
    /// A link whose greeting tells of the first `told` chunks of the log.
    pub(super) fn new(now: Instant, id: LinkId, info: LinkInfo, told: usize) -> Self {
        Self {
            contributor: contributor(id, &info),
            zone: None,
            imports: false,
            lot: 0,
            has_waited: false,
            known_blank: false,
            since: now,
            is_proven: info.dialled,
            received: 0,
            is_owner: false,
            down: Throughput::new(now),
            up: Throughput::new(now),
            info,
            remote: RemoteChunks::Unknown,
            presumed_complete: false,
            choke: Choke::Unchoked,
            choked_since: None,
            interest: Interest::Interested,
            queued: 0,
            pages: PageQueue::default(),
            unanswered: 0,
            told,
            takes_back: false,
            marked: false,
            withdrawals: Withdrawals::default(),
            proofs: 0,
        }
    }

    /// The other side has said who it is.
    pub(super) fn met(&mut self, peer: PeerId, cookies: Option<LinkCookies>) {
        self.info.peer = Some(peer);
        self.info.cookies = cookies;
        self.contributor = contributor(self.contributor.link, &self.info);
    }

    /// Whether the other side has said that it is in another zone than this one.
    pub(super) fn is_far_from(&self, here: Option<ZoneTag>) -> bool {
        let zones = here.zip(self.zone);
        zones.is_some_and(|(here, there)| here != there)
    }

    /// Whether the other side has said that it is in the zone that this one is in.
    pub(super) fn is_in_zone(&self, here: Option<ZoneTag>) -> bool {
        here.is_some() && self.zone == here
    }

    /// Whether the other side has said who it is.
    pub(super) fn is_met(&self) -> bool {
        self.info.peer.is_some()
    }

    /// Who is at the other side, once it has said that.
    pub(super) fn remote_peer(&self) -> Option<RemotePeer> {
        self.contributor.remote_peer()
    }

    /// What it does at this moment, for those who watch. What was sent to it is known
    /// elsewhere, as are the zone of this side and the number of `chunks` of the content.
    pub(super) fn stats(
        &self,
        now: Instant,
        (here, chunks): (Option<ZoneTag>, Option<u32>),
        (uploaded, choked): (u64, bool),
    ) -> LinkStats {
        let has = match &self.remote {
            RemoteChunks::Unknown | RemoteChunks::Unread(_) => None,
            RemoteChunks::None => Some(0),
            RemoteChunks::All => chunks,
            RemoteChunks::Some(has) => Some(has.count()),
        };
        let share = |has| match chunks {
            Some(chunks @ 1..) => Some(f64::from(has) / f64::from(chunks)),
            _ => None,
        };
        LinkStats {
            link: self.contributor.link,
            peer: self.info.peer,
            addr: self.info.addr.clone(),
            remote: None,
            dialled: self.info.dialled,
            far: self.is_far_from(here),
            state: match (&self.remote, self.choke) {
                (RemoteChunks::Unknown, _) => LinkState::Greeting,
                (_, Choke::Choked) => LinkState::Choked,
                (_, Choke::Unchoked) => LinkState::Unchoked,
            },
            choked,
            download_rate: self.down.rate(now),
            upload_rate: self.up.rate(now),
            downloaded: self.received,
            uploaded,
            chunks: has,
            share: has.and_then(share),
        }
    }

    /// Whether it has not said yet what it has, and is presumed to have everything.
    pub(super) fn is_presumed(&self) -> bool {
        self.presumed_complete && self.remote == RemoteChunks::Unknown
    }

    /// What it has, as far as that is known or presumed.
    pub(super) fn has(&self) -> ChunkSet {
        match self.is_presumed() {
            true => ChunkSet::All,
            false => self.remote.known(),
        }
    }

    pub(super) fn is_choked(&self) -> bool {
        self.choke == Choke::Choked
    }

    /// The other side lets this one ask from now on, or not.
    pub(super) fn set_choke(&mut self, now: Instant, choke: Choke) {
        self.choke = choke;
        self.choked_since = match choke {
            Choke::Choked => self.choked_since.or(Some(now)),
            Choke::Unchoked => None,
        };
    }

    pub(super) fn is_interested(&self) -> bool {
        self.interest == Interest::Interested
    }

    /// Messages were handed to the network.
    pub(super) fn messages_sent(&mut self, messages: usize) {
        let messages = messages.min(self.queued);
        self.queued -= messages;
        self.pages.messages_sent(messages as u64);
    }

    /// The next page to send, if one may be sent now, and `admits` lets it pass.
    pub(super) fn next_page(&mut self, admits: impl FnOnce(u32) -> bool) -> Option<u32> {
        let room = self.pages.under_way.len() < MAX_PAGES_UNDER_WAY;
        let next = self.pages.waiting.front().filter(|_| room);
        next.is_some_and(|page| admits(*page))
            .then(|| self.pages.waiting.pop_front())
            .flatten()
    }

    /// The next message that is queued will be a page.
    pub(super) fn page_follows(&mut self) {
        let position = self.pages.handed + self.queued as u64;
        self.pages.under_way.push_back(position);
    }
}

/// A link, as the sender of blocks.
fn contributor(link: LinkId, info: &LinkInfo) -> Arc<Contributor> {
    Arc::new(Contributor {
        link,
        peer: info.peer,
        addr: info.addr.clone(),
        dialled: info.dialled,
        host: info.host.clone(),
    })
}

impl PageQueue {
    /// The other side asks for a page.
    pub(super) fn asked(&mut self, page: u32) {
        self.waiting.push_back(page);
    }

    /// How many pages wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn messages_sent(&mut self, messages: u64) {
        self.handed += messages;
        while self.under_way.front().is_some_and(|&at| at < self.handed) {
            self.under_way.pop_front();
        }
    }
}
