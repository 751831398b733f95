//! The channels of one session: to whom each of them leads, and what waits to be
//! sent on it.
//!
//! Nothing waits here. Drivers queue messages, and the task of the session takes
//! them, a little of each channel in turn. So a long content does not hold up the
//! short ones beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::content::ContentId;
use crate::peer::contents::inbox::DriverInput;
use crate::peer::session::guard::SessionGuard;
use crate::peer::session::outlet::{LinkEnd, Outlet};
use crate::peer::swarm::{LinkCookies, LinkId, LinkInfo};
use crate::protocol::{ChannelId, PeerId, PeerMessage, RefuseReason};

/// How many messages may wait on one channel: all requests and answers that a
/// machine has outstanding, and its announcements. A link that lets more pile up
/// is ended.
const QUEUE_LEN: usize = 2048;

/// How many channels the other side may have open. It is told that this side is
/// busy if it opens more.
pub(super) const MAX_CHANNELS: usize = 1024;

/// How many refusals of channels may wait to be sent: as many as a peer that reads may cause
/// by opening all that it wants at once. A session on which more pile up ends.
const MAX_REFUSALS: usize = 4 * MAX_CHANNELS;

/// How many bytes of one channel go out in its turn, if more channels have
/// something to send. The last message may exceed it.
const TURN_LEN: usize = 16 << 10;

/// A driver, and the link that it knows a channel as.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) inbox: mpsc::Sender<DriverInput>,
    pub(super) link: LinkId,
}

/// To whom a message goes.
pub(super) enum Route {
    Driver(Receiver),
    /// Nobody: this side has ended the channel.
    Ended,
    /// The channel was never opened.
    Unknown,
}

/// What follows from the wish of the other side to open a channel.
pub(super) enum Opening {
    /// It may be opened, if that is allowed.
    Free,
    /// It is refused, and was told so.
    Refused,
    /// The number is not one that it may open now.
    Violation,
}

/// The channels of one session.
pub(super) struct Channels {
    table: Mutex<Table>,
    /// Something waits to be sent, or the last channel has ended.
    work: Notify,
    /// The session ends behind what is queued.
    ending: CancellationToken,
    /// Asks whether the other side may do what it does, if that is asked.
    pub(super) guard: Option<SessionGuard>,
}

struct Table {
    channels: BTreeMap<ChannelId, Channel>,
    /// The same by their contents. The other side opens as many as it likes, so nothing
    /// that follows from that looks at all of them.
    by_content: BTreeSet<(ContentId, ChannelId)>,
    /// How many of them the other side has opened.
    by_other: usize,
    /// Channels that are refused: nothing of them is kept but the answer.
    refusals: VecDeque<(ChannelId, RefuseReason)>,
    /// Channels with messages, in the order of their turns.
    turns: VecDeque<ChannelId>,
    /// The next number that this side opens.
    next: u32,
    /// The last number that the other side opened.
    newest: u32,
    is_ended: bool,
    /// Who the other side says it is, once it has.
    met: Option<(PeerId, LinkCookies)>,
}

struct Channel {
    content: ContentId,
    opened_by: Side,
    state: ChannelState,
    queue: VecDeque<PeerMessage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    This,
    Other,
}

enum ChannelState {
    /// The other side wants to open it, and it is asked whether it may.
    Asked,
    Open(Receiver),
    /// This side takes nothing from it any more, and still sends.
    Muted,
    /// It ends when its queue is empty.
    Ending,
}

/// Messages that go to the network together, all of one channel.
pub(super) struct Batch {
    pub(super) channel: ChannelId,
    pub(super) messages: Vec<PeerMessage>,
    /// Who is told that they are sent.
    pub(super) receiver: Option<Receiver>,
}

impl Channels {
    /// The channels of a session that this side has dialled or not.
    pub(super) fn new(dialled: bool, guard: Option<SessionGuard>) -> Self {
        Self {
            table: Mutex::new(Table {
                channels: BTreeMap::new(),
                by_content: BTreeSet::new(),
                by_other: 0,
                refusals: VecDeque::new(),
                turns: VecDeque::new(),
                next: if dialled { 1 } else { 2 },
                newest: 0,
                is_ended: false,
                met: None,
            }),
            work: Notify::new(),
            ending: CancellationToken::new(),
            guard,
        }
    }

    /// The other side has said who it is. Returns the links that were opened
    /// before.
    pub(super) fn met(&self, peer: PeerId, cookies: LinkCookies) -> Vec<Receiver> {
        let mut table = self.table();
        table.met = Some((peer, cookies));
        table.receivers()
    }

    /// What a link says of the other side: this, and who it is by now.
    pub(super) fn info(&self, unmet: &LinkInfo) -> LinkInfo {
        let mut info = unmet.clone();
        if let Some((peer, cookies)) = self.table().met {
            (info.peer, info.cookies) = (Some(peer), Some(cookies));
        }
        info
    }

    /// All links that are open.
    pub(super) fn receivers(&self) -> Vec<Receiver> {
        self.table().receivers()
    }

    /// Opens a channel, and queues the message that says so. Returns also who the
    /// other side is, if it has said that. `None` if the session has ended.
    pub(super) fn open(
        self: &Arc<Self>,
        content: ContentId,
        receiver: Receiver,
    ) -> Option<(ChannelOutlet, Option<(PeerId, LinkCookies)>)> {
        let mut table = self.table();
        if table.is_ended || table.next > u32::MAX - 2 {
            return None;
        }
        let id = ChannelId(table.next);
        table.next += 2;
        table.insert(id, content, Side::This, ChannelState::Open(receiver));
        table.queue(id, PeerMessage::Open(content));
        let met = table.met;
        drop(table);
        self.work.notify_one();
        Some((self.outlet(id), met))
    }

    /// The other side opens a channel. When both have opened one about the same
    /// content, that of the side that has dialled the session stays.
    pub(super) fn opening(&self, id: ChannelId, content: ContentId) -> Opening {
        let mut table = self.table();
        if table.is_own(id) || id.0 <= table.newest || table.refusals.len() >= MAX_REFUSALS {
            return Opening::Violation;
        }
        table.newest = id.0;
        let refused = match table.duplicate(&content) {
            None if table.by_other >= MAX_CHANNELS => Some(RefuseReason::Busy),
            refused => refused,
        };
        let Some(reason) = refused else {
            if self.guard.is_some() {
                table.insert(id, content, Side::Other, ChannelState::Asked);
            }
            return Opening::Free;
        };
        table.refuse(id, reason);
        drop(table);
        self.work.notify_one();
        Opening::Refused
    }

    /// Whether so many refusals wait that they should be sent before more is read.
    pub(super) fn has_many_refusals(&self) -> bool {
        self.table().refusals.len() >= MAX_REFUSALS / 4
    }

    /// The other side may open a channel that it was asked about. Returns whether it still
    /// wants to, and there is no other one about the content by now.
    pub(super) fn allowed(&self, id: ChannelId, content: ContentId) -> bool {
        let mut table = self.table();
        let asked = table.channels.get(&id).map(|channel| &channel.state);
        if !matches!(asked, Some(ChannelState::Asked)) {
            return false;
        }
        table.remove(id);
        let Some(reason) = table.duplicate(&content) else {
            table.insert(id, content, Side::Other, ChannelState::Asked);
            return true;
        };
        table.refuse(id, reason);
        drop(table);
        self.work.notify_one();
        false
    }

    /// Refuses a channel that the other side opens.
    pub(super) fn refuse(&self, id: ChannelId, reason: RefuseReason) {
        self.table().refuse(id, reason);
        self.work.notify_one();
    }

    /// Accepts a channel that the other side opens.
    pub(super) fn accept(
        self: &Arc<Self>,
        id: ChannelId,
        content: ContentId,
        receiver: Receiver,
    ) -> ChannelOutlet {
        let mut table = self.table();
        table.insert(id, content, Side::Other, ChannelState::Open(receiver));
        drop(table);
        self.outlet(id)
    }

    /// The contents of all channels that are open.
    pub(super) fn contents(&self) -> Vec<ContentId> {
        let table = self.table();
        let open = table
            .channels
            .values()
            .filter(|channel| matches!(channel.state, ChannelState::Open(_) | ChannelState::Muted));
        open.map(|channel| channel.content).collect()
    }

    /// Ends the channels about a content, as if it were not here; nothing that waits is
    /// sent. Returns the drivers that have to know.
    pub(super) fn deny(&self, content: &ContentId) -> Vec<Receiver> {
        let mut table = self.table();
        let Table {
            channels, turns, ..
        } = &mut *table;
        let mut receivers = Vec::new();
        let about = channels.iter_mut();
        // It is decided by itself about one that is being asked about.
        let ends = |channel: &Channel| {
            channel.content == *content && !matches!(channel.state, ChannelState::Asked)
        };
        for (id, channel) in about.filter(|(_, channel)| ends(channel)) {
            match std::mem::replace(&mut channel.state, ChannelState::Ending) {
                ChannelState::Open(receiver) => receivers.push(receiver),
                ChannelState::Muted => {}
                ChannelState::Ending | ChannelState::Asked => continue,
            }
            if channel.queue.is_empty() {
                turns.push_back(*id);
            }
            channel.queue.clear();
            let reason = RefuseReason::UnknownContent;
            channel.queue.push_back(PeerMessage::Refuse(reason));
        }
        drop(table);
        self.work.notify_one();
        receivers
    }

    fn outlet(self: &Arc<Self>, id: ChannelId) -> ChannelOutlet {
        ChannelOutlet {
            channels: Arc::clone(self),
            id,
        }
    }

    /// To whom a message on this channel goes.
    pub(super) fn route(&self, id: ChannelId) -> Route {
        let table = self.table();
        match table.channels.get(&id).map(|channel| &channel.state) {
            Some(ChannelState::Open(receiver)) => Route::Driver(receiver.clone()),
            Some(ChannelState::Muted | ChannelState::Ending | ChannelState::Asked) => Route::Ended,
            None if table.was_opened(id) => Route::Ended,
            None => Route::Unknown,
        }
    }

    /// The other side has ended a channel.
    pub(super) fn left(&self, id: ChannelId) {
        self.table().remove(id);
        self.work.notify_one();
    }

    /// The next messages to send, of the channel whose turn it is.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let mut table = self.table();
        if let Some((channel, reason)) = table.refusals.pop_front() {
            return Some(Batch {
                channel,
                messages: vec![PeerMessage::Refuse(reason)],
                receiver: None,
            });
        }
        loop {
            let id = table.turns.pop_front()?;
            if let Some(batch) = table.take(id) {
                return Some(batch);
            }
        }
    }

    /// Waits for something to do: a message to send, or the end of a channel.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// Whether no channel is open, and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.table().is_idle()
    }

    /// Ends the session behind what is queued. No channel can be opened.
    pub(super) fn end(&self) {
        self.table().is_ended = true;
        self.ending.cancel();
        self.work.notify_one();
    }

    /// Ends the session if no channel is open. Returns whether it ends.
    pub(super) fn end_if_idle(&self) -> bool {
        let mut table = self.table();
        if table.is_idle() {
            table.is_ended = true;
        }
        table.is_ended
    }

    /// Waits until the session is to end.
    pub(super) async fn ending(&self) {
        self.ending.cancelled().await;
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// The session has ended. Returns the drivers that have to know.
    pub(super) fn close(&self) -> Vec<Receiver> {
        let mut table = self.table();
        table.is_ended = true;
        table.turns.clear();
        let receivers = table.receivers();
        table.channels.clear();
        table.by_content.clear();
        table.by_other = 0;
        table.refusals.clear();
        receivers
    }

    /// Ignores poison: no change under this lock is left half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn receivers(&self) -> Vec<Receiver> {
        let states = self.channels.values().map(|channel| &channel.state);
        let open = states.filter_map(|state| match state {
            ChannelState::Open(receiver) => Some(receiver.clone()),
            ChannelState::Muted | ChannelState::Ending | ChannelState::Asked => None,
        });
        open.collect()
    }

    fn insert(&mut self, id: ChannelId, content: ContentId, opened_by: Side, state: ChannelState) {
        self.remove(id);
        let channel = Channel {
            content,
            opened_by,
            state,
            queue: VecDeque::new(),
        };
        self.by_other += usize::from(opened_by == Side::Other);
        self.by_content.insert((content, id));
        self.channels.insert(id, channel);
    }

    fn remove(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.remove(&id) {
            self.by_other -= usize::from(channel.opened_by == Side::Other);
            self.by_content.remove(&(channel.content, id));
        }
    }

    /// Whether no channel is there, and nothing waits.
    fn is_idle(&self) -> bool {
        self.channels.is_empty() && self.refusals.is_empty()
    }

    /// Why no other channel about this content may be opened by the other side, if so.
    fn duplicate(&self, content: &ContentId) -> Option<RefuseReason> {
        let range = (*content, ChannelId(0))..=(*content, ChannelId(u32::MAX));
        let about = self.by_content.range(range);
        let same = about
            .filter_map(|(_, id)| self.channels.get(id))
            .find(|channel| !matches!(channel.state, ChannelState::Ending))?;
        match same.opened_by {
            // The dialler opens odd channels.
            Side::This if self.next.is_multiple_of(2) => None,
            Side::This | Side::Other => Some(RefuseReason::Duplicate),
        }
    }

    fn refuse(&mut self, id: ChannelId, reason: RefuseReason) {
        self.remove(id);
        self.refusals.push_back((id, reason));
    }

    /// Queues a message, if the channel exists.
    fn queue(&mut self, id: ChannelId, message: PeerMessage) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.queue.is_empty() {
            self.turns.push_back(id);
        }
        channel.queue.push_back(message);
    }

    fn take(&mut self, id: ChannelId) -> Option<Batch> {
        let channel = self.channels.get_mut(&id)?;
        let mut messages = Vec::new();
        let mut len = 0;
        while len < TURN_LEN
            && let Some(message) = channel.queue.pop_front()
        {
            len += match &message {
                PeerMessage::Block { data, .. } => data.len(),
                _ => SHORT_LEN,
            };
            messages.push(message);
        }
        let receiver = match &channel.state {
            ChannelState::Open(receiver) => Some(receiver.clone()),
            ChannelState::Muted | ChannelState::Ending | ChannelState::Asked => None,
        };
        if !channel.queue.is_empty() {
            self.turns.push_back(id);
        } else if matches!(channel.state, ChannelState::Ending) {
            self.remove(id);
        }
        Some(Batch {
            channel: id,
            messages,
            receiver,
        })
    }

    fn was_opened(&self, id: ChannelId) -> bool {
        match self.is_own(id) {
            true => id.0 < self.next,
            false => id.0 <= self.newest,
        }
    }

    /// Whether a number is one that this side opens.
    fn is_own(&self, id: ChannelId) -> bool {
        id.0 % 2 == self.next % 2
    }
}

/// About how long a message without a body is, with its prefix.
const SHORT_LEN: usize = 32;

/// The way out of a driver on one channel.
pub(super) struct ChannelOutlet {
    channels: Arc<Channels>,
    id: ChannelId,
}

impl Outlet for ChannelOutlet {
    fn send(&self, message: PeerMessage) -> bool {
        let mut table = self.channels.table();
        let Some(channel) = table.channels.get_mut(&self.id) else {
            return false;
        };
        if matches!(channel.state, ChannelState::Ending) {
            return false;
        }
        if channel.queue.len() >= QUEUE_LEN {
            channel.queue.clear();
            channel.state = ChannelState::Ending;
            channel
                .queue
                .push_back(PeerMessage::Refuse(RefuseReason::Busy));
            return false;
        }
        let is_first = channel.queue.is_empty();
        channel.queue.push_back(message);
        if is_first {
            table.turns.push_back(self.id);
            drop(table);
            self.channels.work.notify_one();
        }
        true
    }

    fn mute(&self) {
        if let Some(channel) = self.channels.table().channels.get_mut(&self.id)
            && matches!(channel.state, ChannelState::Open(_))
        {
            channel.state = ChannelState::Muted;
        }
    }

    fn end(&self, end: LinkEnd) {
        match end {
            LinkEnd::Refused(reason) => self.refuse(reason),
            LinkEnd::Violation => {
                self.channels.left(self.id);
                self.channels.end();
            }
            LinkEnd::Left => {
                let mut table = self.channels.table();
                let open = table.channels.get(&self.id);
                if open.is_some_and(|channel| !matches!(channel.state, ChannelState::Ending)) {
                    table.remove(self.id);
                    drop(table);
                    self.channels.work.notify_one();
                }
            }
        }
    }
}

impl ChannelOutlet {
    /// Ends the channel, and says why. Blocks that wait are not sent.
    fn refuse(&self, reason: RefuseReason) {
        let mut table = self.channels.table();
        let Some(channel) = table.channels.get_mut(&self.id) else {
            return;
        };
        if matches!(channel.state, ChannelState::Ending) {
            return;
        }
        let was_empty = channel.queue.is_empty();
        channel.state = ChannelState::Ending;
        channel
            .queue
            .retain(|message| !matches!(message, PeerMessage::Block { .. }));
        channel.queue.push_back(PeerMessage::Refuse(reason));
        if was_empty {
            table.turns.push_back(self.id);
        }
        drop(table);
        self.channels.work.notify_one();
    }
}

impl Drop for ChannelOutlet {
    fn drop(&mut self) {
        self.refuse(RefuseReason::NotNeeded);
    }
}
