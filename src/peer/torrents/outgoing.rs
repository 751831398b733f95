//! What waits to be sent on one connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::peer::session::outlet::{LinkEnd, Outlet};
use crate::protocol::PeerMessage;

/// How many messages of the machine may wait: all requests and answers that it has
/// outstanding, and its announcements.
const QUEUE_LEN: usize = 2048;

/// The messages of a machine that a connection has to send.
#[derive(Default)]
pub(super) struct Outgoing {
    state: Mutex<State>,
    /// Something has changed.
    work: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<PeerMessage>,
    is_muted: bool,
    /// Nothing is taken any more. What waits is sent first, if the end is a polite one.
    end: Option<LinkEnd>,
}

/// The driver's end of it. When it is dropped, the connection ends.
pub(super) struct OutgoingHandle(pub(super) Arc<Outgoing>);

impl Outgoing {
    /// Takes what waits.
    pub(super) fn take(&self) -> VecDeque<PeerMessage> {
        std::mem::take(&mut self.state().queue)
    }

    /// Waits until there is something to do.
    ///
    /// Cancel safe.
    pub(super) async fn changed(&self) {
        self.work.notified().await;
    }

    /// Has the one who waits look again.
    pub(super) fn wake(&self) {
        self.work.notify_one();
    }

    /// How the driver has ended the link, if it has.
    pub(super) fn end(&self) -> Option<LinkEnd> {
        self.state().end
    }

    /// Whether what arrives is not to be delivered.
    pub(super) fn is_muted(&self) -> bool {
        self.state().is_muted
    }

    fn close(&self, end: LinkEnd) {
        let mut state = self.state();
        state.is_muted = true;
        state.end.get_or_insert(end);
        drop(state);
        self.wake();
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet for OutgoingHandle {
    fn send(&self, message: PeerMessage) -> bool {
        let mut state = self.0.state();
        if state.end.is_some() || state.queue.len() >= QUEUE_LEN {
            return false;
        }
        state.queue.push_back(message);
        drop(state);
        self.0.wake();
        true
    }

    fn mute(&self) {
        self.0.state().is_muted = true;
    }

    fn end(&self, end: LinkEnd) {
        self.0.close(end);
    }
}

impl Drop for OutgoingHandle {
    fn drop(&mut self) {
        self.0.close(LinkEnd::Left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlet_refuses_what_would_pile_up() {
        let outgoing = Arc::new(Outgoing::default());
        let handle = OutgoingHandle(Arc::clone(&outgoing));
        let mut sent = 0;
        while handle.send(PeerMessage::Choke) {
            sent += 1;
            assert!(sent < 100_000);
        }
        assert_eq!(outgoing.take().len(), sent);
        assert!(handle.send(PeerMessage::Choke));
        assert_eq!(outgoing.end(), None);
        drop(handle);
        assert_eq!(outgoing.end(), Some(LinkEnd::Left));
    }
}
