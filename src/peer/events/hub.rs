//! Brings the events of a peer to those who watch it, each at their own pace.
//!
//! What it promises:
//! - Nobody waits for a reader. Each subscription keeps the last [`MAX_RECENT`] events
//!   that end nothing, and says how many older ones it dropped.
//! - Events that end something are not dropped: of each content the last one of each kind
//!   is kept until it is read, in the order in which they came. So a subscription that is
//!   not read is bounded by the number of contents that this peer had meanwhile, and by
//!   [`MAX_ENDS`].
//! - Without a subscription an event costs one look at a number, and is not even made.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::content::ContentId;
use crate::peer::events::event::{EndKind, PeerEvent};
use crate::protocol::ContentKey;

/// How many events that end nothing wait for a reader: some seconds of a busy peer.
const MAX_RECENT: usize = 1024;

/// How many events that end something wait for a reader: more than a peer has contents,
/// and at most some hundreds of MiB. Only beyond that they count as missed.
const MAX_ENDS: usize = 1 << 20;

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
    queues: Vec<Arc<Queue>>,
    closed: bool,
}

/// The events of one subscription that were not read yet.
struct Queue {
    filter: Filter,
    unread: Mutex<Unread>,
}

/// Which events a subscription wants.
pub(in crate::peer) enum Filter {
    All,
    /// Those about one content, once it is known which one.
    Content(Arc<OnceLock<ContentId>>),
}

#[derive(Default)]
struct Unread {
    /// The number of the next event.
    next: u64,
    recent: VecDeque<(u64, PeerEvent)>,
    /// Those that end something.
    ends: BTreeMap<u64, PeerEvent>,
    /// The numbers of those.
    end_of: HashMap<(ContentKey, EndKind), u64>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl EventHub {
    /// Publishes an event, which is made only if somebody watches.
    pub(in crate::peer) fn publish(&self, make: impl FnOnce() -> PeerEvent) {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let event = make();
        for queue in &self.0.list().queues {
            if queue.filter.wants(&event) {
                queue.push(event.clone());
            }
        }
    }

    /// Those who watch, for handles that outlive the peer.
    pub(in crate::peer) fn subscribers(&self) -> Weak<Subscribers> {
        Arc::downgrade(&self.0)
    }

    /// A subscription from now on.
    pub(in crate::peer) fn subscribe(&self, filter: Filter) -> Subscription {
        Subscribers::subscribe(&self.subscribers(), filter)
    }

    /// There are no more events. What was published is still read.
    pub(in crate::peer) fn close(&self) {
        let mut list = self.0.list();
        list.closed = true;
        self.0.count.store(0, Ordering::Relaxed);
        for queue in list.queues.drain(..) {
            queue.close();
        }
    }
}

impl Drop for EventHub {
    fn drop(&mut self) {
        self.close();
    }
}

impl Subscribers {
    /// A subscription from now on. It has ended already if the peer has.
    pub(in crate::peer) fn subscribe(of: &Weak<Self>, filter: Filter) -> Subscription {
        let queue = Arc::new(Queue {
            filter,
            unread: Mutex::default(),
        });
        match of.upgrade() {
            Some(subscribers) => {
                let mut list = subscribers.list();
                if list.closed {
                    queue.close();
                } else {
                    list.queues.push(Arc::clone(&queue));
                    subscribers
                        .count
                        .store(list.queues.len(), Ordering::Relaxed);
                }
            }
            None => queue.close(),
        }
        let of = Weak::clone(of);
        Subscription { of, queue }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filter {
    fn wants(&self, event: &PeerEvent) -> bool {
        match self {
            Self::All => true,
            Self::Content(id) => id.get().is_some_and(|id| event.content() == Some(*id)),
        }
    }
}

impl Queue {
    fn push(&self, event: PeerEvent) {
        let waker = {
            let mut unread = self.unread();
            unread.push(event);
            unread.waker.take()
        };
        wake(waker);
    }

    fn close(&self) {
        let waker = {
            let mut unread = self.unread();
            unread.closed = true;
            unread.waker.take()
        };
        wake(waker);
    }

    /// Ignores poison: no change under this lock is left half done.
    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Unread {
    fn push(&mut self, event: PeerEvent) {
        let number = self.next;
        self.next += 1;
        let Some(end) = event.end() else {
            if self.recent.len() >= MAX_RECENT {
                self.recent.pop_front();
                self.missed += 1;
            }
            return self.recent.push_back((number, event));
        };
        if let Some(before) = self.end_of.insert(end, number) {
            self.ends.remove(&before);
        }
        self.ends.insert(number, event);
        if self.ends.len() > MAX_ENDS
            && let Some((_, oldest)) = self.ends.pop_first()
        {
            self.missed += 1;
            self.forget(&oldest);
        }
    }

    /// The oldest event. That some are missing is told before the first one that came
    /// after them.
    fn pop(&mut self) -> Option<PeerEvent> {
        let recent = self.recent.front().map_or(u64::MAX, |(number, _)| *number);
        if let Some(end) = self.ends.first_entry()
            && *end.key() < recent
        {
            let event = end.remove();
            self.forget(&event);
            return Some(event);
        }
        let events = std::mem::take(&mut self.missed);
        if events > 0 {
            return Some(PeerEvent::Missed { events });
        }
        self.recent.pop_front().map(|(_, event)| event)
    }

    /// An event that ended something is not kept any more.
    fn forget(&mut self, event: &PeerEvent) {
        if let Some(end) = event.end() {
            self.end_of.remove(&end);
        }
    }
}

/// A subscription. Dropping it ends it.
pub(in crate::peer) struct Subscription {
    of: Weak<Subscribers>,
    queue: Arc<Queue>,
}

impl Subscription {
    /// The next event; `None` after the last one.
    pub(in crate::peer) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<PeerEvent>> {
        let mut unread = self.queue.unread();
        match unread.pop() {
            Some(event) => Poll::Ready(Some(event)),
            None if unread.closed => Poll::Ready(None),
            None => {
                unread.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(subscribers) = self.of.upgrade() {
            let mut list = subscribers.list();
            list.queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            subscribers
                .count
                .store(list.queues.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;
    use crate::content::{ChunkIndex, Content};
    use crate::error::DownloadError;

    fn content(n: u32) -> Content {
        let id = ContentId::of(&n.to_le_bytes());
        Content::new(id, id.into(), 4)
    }

    fn chunk(n: u32) -> PeerEvent {
        let (id, chunk) = (content(0).id, ChunkIndex(n));
        PeerEvent::ChunkVerified { id, chunk }
    }

    fn complete(n: u32) -> PeerEvent {
        let content = content(n);
        PeerEvent::Complete { content }
    }

    fn failed(n: u32, error: DownloadError) -> PeerEvent {
        let key = content(n).id.into();
        PeerEvent::Failed { key, error }
    }

    /// Reads what there is. Returns whether the subscription has ended.
    fn read(subscription: &Subscription) -> (Vec<PeerEvent>, bool) {
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let mut read = Vec::new();
        loop {
            match subscription.poll_next(&cx) {
                Poll::Ready(Some(event)) => read.push(event),
                Poll::Ready(None) => return (read, true),
                Poll::Pending => return (read, false),
            }
        }
    }

    #[test]
    fn reader_that_falls_behind_misses_progress_and_no_end() {
        let hub = EventHub::default();
        let subscription = hub.subscribe(Filter::All);
        const MANY: u32 = 10_000;
        for n in 0..MANY {
            hub.publish(|| chunk(n));
            hub.publish(|| complete(n));
        }
        let (events, ended) = read(&subscription);
        assert!(!ended);
        let ends: Vec<_> = events.iter().filter(|e| e.end().is_some()).collect();
        let expected: Vec<_> = (0..MANY).map(complete).collect();
        assert_eq!(ends, expected.iter().collect::<Vec<_>>());
        let rest: Vec<_> = events.iter().filter(|e| e.end().is_none()).collect();
        let missed = u64::from(MANY) - MAX_RECENT as u64;
        assert_eq!(*rest[0], PeerEvent::Missed { events: missed });
        let kept: Vec<_> = (MANY - MAX_RECENT as u32..MANY).map(chunk).collect();
        assert_eq!(rest[1..], kept.iter().collect::<Vec<_>>());
        // What is missing is told where it is missing.
        let at = |wanted: &PeerEvent| events.iter().position(|e| e == wanted);
        let gap = at(&PeerEvent::Missed { events: missed });
        assert!(at(&complete(missed as u32 - 1)) < gap && gap < at(&chunk(missed as u32)));
        assert_eq!(read(&subscription), (Vec::new(), false));
    }

    #[test]
    fn of_a_content_the_last_end_of_each_kind_is_kept() {
        let hub = EventHub::default();
        let subscription = hub.subscribe(Filter::All);
        for _ in 0..100 {
            hub.publish(|| failed(1, DownloadError::Cancelled));
            hub.publish(|| complete(1));
            hub.publish(|| failed(1, DownloadError::ShutDown));
        }
        hub.publish(|| complete(2));
        let expected = [complete(1), failed(1, DownloadError::ShutDown), complete(2)];
        assert_eq!(read(&subscription), (expected.to_vec(), false));
        assert!(subscription.queue.unread().end_of.is_empty());
        // One that comes again after it was read is told again.
        hub.publish(|| complete(1));
        assert_eq!(read(&subscription), (vec![complete(1)], false));
    }

    #[test]
    fn nothing_is_made_for_nobody_and_subscriptions_end_with_the_hub() {
        let hub = EventHub::default();
        hub.publish(|| panic!("nobody watches"));
        let (first, second) = (hub.subscribe(Filter::All), hub.subscribe(Filter::All));
        hub.publish(|| complete(1));
        drop(first);
        hub.publish(|| complete(2));
        let handle = hub.subscribers();
        drop(hub);
        assert_eq!(read(&second), (vec![complete(1), complete(2)], true));
        let late = Subscribers::subscribe(&handle, Filter::All);
        assert_eq!(read(&late), (Vec::new(), true));
    }

    #[test]
    fn nobody_is_counted_when_the_last_one_leaves() {
        let hub = EventHub::default();
        drop(hub.subscribe(Filter::All));
        hub.publish(|| panic!("nobody watches"));
        hub.close();
        assert_eq!(read(&hub.subscribe(Filter::All)), (Vec::new(), true));
        hub.publish(|| panic!("it is closed"));
    }

    #[test]
    fn filter_lets_one_content_through_once_it_is_known() {
        let hub = EventHub::default();
        let id = Arc::new(OnceLock::new());
        let subscription = hub.subscribe(Filter::Content(Arc::clone(&id)));
        hub.publish(|| complete(1));
        id.set(content(2).id).unwrap();
        hub.publish(|| complete(1));
        hub.publish(|| complete(2));
        assert_eq!(read(&subscription), (vec![complete(2)], false));
    }
}
