//! Brings the events of a peer to those who watch it, each at their own pace.
//!
//! What it promises:
//! - Nobody waits for a reader. Each has an [`EventQueue`] of its own, which is bounded.
//! - Without a reader an event costs one look at a number, and is not even made.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use crate::content::ContentId;
use crate::peer::events::download_event::DownloadEvent;
use crate::peer::events::event::PeerEvent;
use crate::peer::events::queue::EventQueue;

/// Where the events of a peer are published. They end when this is dropped.
#[derive(Default)]
pub(in crate::peer) struct EventHub(Arc<Subscribers>);

/// Those who watch.
#[derive(Default)]
pub(in crate::peer) struct Subscribers {
    list: Mutex<List>,
    /// How many there are.
    count: AtomicUsize,
}

#[derive(Default)]
struct List {
    readers: Vec<Reader>,
    closed: bool,
}

/// One who watches.
#[derive(Clone)]
enum Reader {
    /// All that happens.
    All(Arc<EventQueue<PeerEvent>>),
    /// What happens around the content of one download, once it is known which one.
    Details {
        id: Arc<OnceLock<ContentId>>,
        queue: Arc<EventQueue<DownloadEvent>>,
    },
}

impl EventHub {
    /// Publishes an event, which is made only if somebody watches.
    pub(in crate::peer) fn publish(&self, make: impl FnOnce() -> PeerEvent) {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let event = make();
        for reader in &self.0.list().readers {
            reader.push(&event);
        }
    }

    /// Those who watch, for handles that outlive the peer.
    pub(in crate::peer) fn subscribers(&self) -> Weak<Subscribers> {
        Arc::downgrade(&self.0)
    }

    /// All events from now on. They have ended already if the peer has.
    pub(in crate::peer) fn subscribe(&self) -> Subscription {
        let queue = Arc::default();
        let of = self.subscribers();
        Subscription {
            _place: Subscribers::add(&of, Reader::All(Arc::clone(&queue))),
            queue,
        }
    }

    /// There are no more events. What was published is still read.
    pub(in crate::peer) fn close(&self) {
        let mut list = self.0.list();
        list.closed = true;
        self.0.count.store(0, Ordering::Relaxed);
        for reader in list.readers.drain(..) {
            reader.close();
        }
    }
}

impl Drop for EventHub {
    fn drop(&mut self) {
        self.close();
    }
}

impl Subscribers {
    /// Brings the details of a download to its reader from now on.
    pub(in crate::peer) fn add_details(
        of: &Weak<Self>,
        id: &Arc<OnceLock<ContentId>>,
        queue: &Arc<EventQueue<DownloadEvent>>,
    ) -> Place {
        let (id, queue) = (Arc::clone(id), Arc::clone(queue));
        Self::add(of, Reader::Details { id, queue })
    }

    fn add(of: &Weak<Self>, reader: Reader) -> Place {
        let place = Place {
            of: Weak::clone(of),
            reader: reader.clone(),
        };
        let Some(subscribers) = of.upgrade() else {
            reader.close();
            return place;
        };
        let mut list = subscribers.list();
        if list.closed {
            reader.close();
        } else {
            list.readers.push(reader);
            let count = list.readers.len();
            subscribers.count.store(count, Ordering::Relaxed);
        }
        drop(list);
        place
    }

    /// Ignores poison: no change under this lock is left half done.
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn push(&self, event: &PeerEvent) {
        match self {
            Self::All(queue) => queue.push(event.clone()),
            Self::Details { id, queue } => {
                if id.get().is_some_and(|id| event.content() == Some(*id))
                    && let Some(detail) = event.detail()
                {
                    queue.push(detail);
                }
            }
        }
    }

    /// The peer has ended. A download tells of its end itself.
    fn close(&self) {
        if let Self::All(queue) = self {
            queue.close();
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All(one), Self::All(other)) => Arc::ptr_eq(one, other),
            (Self::Details { queue: one, .. }, Self::Details { queue: other, .. }) => {
                Arc::ptr_eq(one, other)
            }
            _ => false,
        }
    }
}

/// The place of a reader among the others. Dropping it gives it back.
pub(in crate::peer) struct Place {
    of: Weak<Subscribers>,
    reader: Reader,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(subscribers) = self.of.upgrade() {
            let mut list = subscribers.list();
            list.readers.retain(|reader| !reader.is(&self.reader));
            let count = list.readers.len();
            subscribers.count.store(count, Ordering::Relaxed);
        }
    }
}

/// The events of a peer for one reader. Dropping it ends it.
pub(in crate::peer) struct Subscription {
    _place: Place,
    queue: Arc<EventQueue<PeerEvent>>,
}

impl Subscription {
    /// The next event; `None` after the last one.
    pub(in crate::peer) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<PeerEvent>> {
        self.queue.poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;
    use crate::content::{ChunkIndex, Content};

    fn content(n: u32) -> Content {
        let id = ContentId::of(&n.to_le_bytes());
        Content::new(id, id.into(), 4)
    }

    fn complete(n: u32) -> PeerEvent {
        let content = content(n);
        PeerEvent::Complete { content }
    }

    fn verified(n: u32, chunk: u32) -> PeerEvent {
        let (id, chunk) = (content(n).id, ChunkIndex(chunk));
        PeerEvent::ChunkVerified { id, chunk }
    }

    /// Reads what there is. Returns whether the queue has ended.
    fn read<V: crate::peer::events::queue::Event>(queue: &EventQueue<V>) -> (Vec<V>, bool) {
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let mut read = Vec::new();
        loop {
            match queue.poll_next(&cx) {
                Poll::Ready(Some(event)) => read.push(event),
                Poll::Ready(None) => return (read, true),
                Poll::Pending => return (read, false),
            }
        }
    }

    #[test]
    fn nothing_is_made_for_nobody_and_subscriptions_end_with_the_hub() {
        let hub = EventHub::default();
        hub.publish(|| panic!("nobody watches"));
        let (first, second) = (hub.subscribe(), hub.subscribe());
        hub.publish(|| complete(1));
        drop(first);
        hub.publish(|| complete(2));
        drop(hub);
        let all = vec![complete(1), complete(2)];
        assert_eq!(read(&second.queue), (all, true));
    }

    #[test]
    fn nobody_is_counted_when_the_last_one_leaves() {
        let hub = EventHub::default();
        drop(hub.subscribe());
        hub.publish(|| panic!("nobody watches"));
        hub.close();
        assert_eq!(read(&hub.subscribe().queue), (Vec::new(), true));
        hub.publish(|| panic!("it is closed"));
    }

    #[test]
    fn details_are_those_of_one_content_once_it_is_known() {
        let hub = EventHub::default();
        let (id, queue) = (Arc::default(), Arc::default());
        let place = Subscribers::add_details(&hub.subscribers(), &id, &queue);
        hub.publish(|| verified(2, 0));
        id.set(content(2).id).unwrap();
        hub.publish(|| verified(1, 1));
        hub.publish(|| verified(2, 2));
        // The download tells that itself.
        hub.publish(|| complete(2));
        let chunk = ChunkIndex(2);
        let expected = vec![DownloadEvent::ChunkVerified { chunk }];
        assert_eq!(read(&queue), (expected.clone(), false));
        hub.publish(|| verified(2, 2));
        drop(place);
        hub.publish(|| panic!("nobody watches"));
        drop(hub);
        // The end of the peer is not that of the download.
        assert_eq!(read(&queue), (expected, false));
    }
}
