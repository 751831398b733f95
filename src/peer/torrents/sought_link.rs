//! One connection about a torrent that is not known yet, as those see it who ask for
//! something on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bittorrent::link::{LinkEvent, MagnetLink};
use crate::bittorrent::wire::{HashRange, Message};

/// A connection.
pub(super) struct SoughtLink {
    /// Taken when the connection becomes a link.
    link: Mutex<Option<MagnetLink>>,
    /// There is something to send.
    work: Notify,
}

impl SoughtLink {
    pub(super) fn new(link: MagnetLink) -> Self {
        Self {
            link: Mutex::new(Some(link)),
            work: Notify::new(),
        }
    }

    /// Asks for a piece of the info dictionary.
    pub(super) fn ask_metadata(&self, piece: u32) {
        if let Some(link) = &mut *self.link() {
            // It knows of such things, as it said how long the whole is; if not, another
            // one is asked later.
            link.ask_metadata(piece);
        }
        self.work.notify_one();
    }

    /// Asks for hashes of v2.
    pub(super) fn ask_hashes(&self, range: HashRange) {
        if let Some(link) = &mut *self.link() {
            link.ask_hashes(range);
        }
        self.work.notify_one();
    }

    /// A message has arrived.
    pub(super) fn handle_message(&self, message: Message) {
        if let Some(link) = &mut *self.link() {
            link.handle_message(now(), message);
        }
    }

    /// What there is for this side.
    pub(super) fn event(&self) -> Option<LinkEvent> {
        self.link().as_mut()?.poll_event()
    }

    /// The bytes to send now.
    pub(super) fn outgoing(&self, out: &mut BytesMut) {
        let mut link = self.link();
        while let Some(message) = link.as_mut().and_then(|link| link.poll_message(now())) {
            let frame = message.encode();
            out.put(frame.head);
            out.put(frame.body);
        }
    }

    /// Waits until there is something to send.
    ///
    /// Cancel safe.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.link().as_ref().and_then(MagnetLink::poll_timeout);
        due.map(Instant::from_std)
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&self) {
        if let Some(link) = &mut *self.link() {
            link.handle_timeout(now());
        }
    }

    /// What the other side has said, for the link that follows.
    pub(super) fn take_heard(&self) -> Option<Vec<Message>> {
        self.link().take().map(MagnetLink::into_heard)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn link(&self) -> MutexGuard<'_, Option<MagnetLink>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
