//! Downloads that wait until others have ended: those of a higher priority first, and
//! among equals in the order in which they were asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::{oneshot, watch};

use crate::metrics::{self, Held};
use crate::peer::downloads::priority::Priority;

/// The highest place that a download may have had before the peer was started: nobody
/// starts so many, and as many have room behind it.
const MAX_PLACE: u64 = u64::MAX / 2;

/// The queue of one peer.
pub(in crate::peer) struct DownloadQueue(Mutex<Line>);

struct Line {
    max_active: usize,
    active: usize,
    /// Those who have no place. Each is told when it gets one, if it asks for one by now.
    waiting: BTreeMap<Standing, Option<oneshot::Sender<ActivePlace>>>,
    /// How many could not begin, and wait for something else than a place.
    aside: usize,
    next: u64,
}

/// Who comes first is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    priority: std::cmp::Reverse<Priority>,
    /// When it was asked for.
    number: u64,
}

/// Where a download stands. Cheap to clone.
#[derive(Clone)]
pub(in crate::peer) struct QueueTicket {
    queue: Arc<DownloadQueue>,
    /// Changes only while the queue is locked.
    standing: Arc<Mutex<Standing>>,
    /// Who has one place with this one.
    common: Arc<OnceLock<CommonTurn>>,
}

/// The one place of several downloads that fetch the same bytes: as long as one of them has it,
/// all have it.
#[derive(Clone)]
pub(in crate::peer) struct CommonTurn(Arc<watch::Sender<Weak<Counted>>>);

/// A download that waits for something else than a place: it lets others begin, and
/// counts as one that waits. Dropping it ends that.
pub(in crate::peer) struct Aside<'a>(&'a QueueTicket);

/// The place of an active download, given back when it is dropped, and all that have it in
/// common with this one are.
pub(in crate::peer) struct ActivePlace(Arc<Counted>);

struct Counted {
    queue: Arc<DownloadQueue>,
    _counted: Held,
}

impl ActivePlace {
    fn new(queue: &Arc<DownloadQueue>) -> Self {
        Self(Arc::new(Counted {
            queue: Arc::clone(queue),
            _counted: Held::new(metrics::ACTIVE),
        }))
    }
}

#[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
impl CommonTurn {
    /// Nobody has a place yet.
    pub(in crate::peer) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Weak::new())))
    }

    /// This place is that of all from now on.
    pub(in crate::peer) fn offer(&self, place: &ActivePlace) {
        self.0.send_replace(Arc::downgrade(&place.0));
    }

    fn place(&self) -> Option<ActivePlace> {
        Some(ActivePlace(self.0.borrow().upgrade()?))
    }

    /// Waits until one of the others has a place.
    async fn others(&self) -> ActivePlace {
        let mut places = self.0.subscribe();
        loop {
            if let Some(place) = self.place() {
                return place;
            }
            if places.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// A download that asks for a place, whether or not it looks at this moment. Dropping it
/// asks for none any more, and gives back what has come.
pub(in crate::peer) struct Asking {
    ticket: QueueTicket,
    /// `None` once it has come, or cannot come any more.
    place: Option<oneshot::Receiver<ActivePlace>>,
}

impl DownloadQueue {
    /// A queue that lets this many downloads be active.
    pub(in crate::peer) fn new(places: usize) -> Self {
        Self(Mutex::new(Line {
            max_active: places,
            active: 0,
            waiting: BTreeMap::new(),
            aside: 0,
            next: 0,
        }))
    }

    /// A new download, behind all others of its priority.
    pub(in crate::peer) fn enter(self: &Arc<Self>) -> QueueTicket {
        let standing = Standing {
            priority: std::cmp::Reverse(Priority::default()),
            number: self.line().number(),
        };
        let ticket = QueueTicket {
            queue: Arc::clone(self),
            standing: Arc::new(Mutex::new(standing)),
            common: Arc::default(),
        };
        ticket.enter();
        ticket
    }

    /// How many downloads are active, and how many wait.
    pub(in crate::peer) fn counts(&self) -> (usize, usize) {
        let line = self.line();
        (line.active, line.waiting.len() + line.aside)
    }

    /// Lets this many downloads be active from now on. Those that are active stay.
    pub(in crate::peer) fn set_max_active(self: &Arc<Self>, places: usize) {
        self.line().max_active = places;
        self.fill();
    }

    /// How many downloads may be active.
    pub(in crate::peer) fn max_active(&self) -> usize {
        self.line().max_active
    }

    /// Gives the free places to those who come first.
    fn fill(self: &Arc<Self>) {
        loop {
            // Not locked while the place is handed over: whoever has gone gives it back.
            let next = self.line().next();
            let Some(asks) = next else {
                return;
            };
            let _ = asks.send(ActivePlace::new(self));
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// One behind all others.
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes the first one that asks for a place out of the line, if one is free.
    fn next(&mut self) -> Option<oneshot::Sender<ActivePlace>> {
        if self.active >= self.max_active {
            return None;
        }
        let mut waiting = self.waiting.iter();
        let (&first, _) = waiting.find(|(_, asks)| asks.is_some())?;
        let asks = self.waiting.remove(&first)?;
        self.active += 1;
        asks
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.queue.line().active -= 1;
        self.queue.fill();
    }
}

impl QueueTicket {
    /// Waits in line, where it was before, if it was there.
    pub(in crate::peer) fn enter(&self) {
        let mut line = self.queue.line();
        let standing = self.standing();
        line.waiting.entry(standing).or_default();
    }

    /// From now on this download has its place together with others.
    pub(in crate::peer) fn set_common(&self, common: &CommonTurn) {
        // Nobody else sets it.
        let _ = self.common.set(common.clone());
    }

    /// A place at once, if one is free and nobody who comes before asks for it.
    pub(in crate::peer) fn try_begin(&self) -> Option<ActivePlace> {
        let common = self.common.get();
        if let Some(place) = common.and_then(CommonTurn::place) {
            self.leave();
            return Some(place);
        }
        let place = self.try_begin_alone()?;
        common.inspect(|common| common.offer(&place));
        Some(place)
    }

    fn try_begin_alone(&self) -> Option<ActivePlace> {
        let mut line = self.queue.line();
        let standing = self.standing();
        let mut before = line.waiting.range(..standing);
        if line.active >= line.max_active || before.any(|(_, asks)| asks.is_some()) {
            return None;
        }
        line.active += 1;
        line.waiting.remove(&standing);
        Some(ActivePlace::new(&self.queue))
    }

    /// Waits for a place.
    ///
    /// Cancel safe, and keeps its place in the queue.
    pub(in crate::peer) async fn begin(&self) -> Option<ActivePlace> {
        self.ask().place().await
    }

    /// Asks for a place.
    pub(in crate::peer) fn ask(&self) -> Asking {
        let (asks, place) = oneshot::channel();
        {
            let mut line = self.queue.line();
            line.waiting.insert(self.standing(), Some(asks));
        }
        let asking = Asking {
            ticket: self.clone(),
            place: Some(place),
        };
        self.queue.fill();
        asking
    }

    /// Waits no more.
    pub(in crate::peer) fn leave(&self) {
        let mut line = self.queue.line();
        line.waiting.remove(&self.standing());
    }

    /// Gives way to others although it has not ended: what it needs is not there.
    pub(in crate::peer) fn step_aside(&self) -> Aside<'_> {
        self.queue.line().aside += 1;
        Aside(self)
    }

    pub(in crate::peer) fn priority(&self) -> Priority {
        self.standing().priority.0
    }

    /// Its place among those of its priority: less is earlier.
    pub(in crate::peer) fn place(&self) -> u64 {
        self.standing().number
    }

    /// Takes the place that it had before the peer was started again, behind those that
    /// have theirs already. Call it in the order of the places.
    pub(in crate::peer) fn take_place(&self, place: u64) {
        let mut line = self.queue.line();
        let before = self.standing();
        if place <= before.number || place > MAX_PLACE {
            return;
        }
        line.next = line.next.max(place);
        self.lock_standing().number = place;
        if let Some(asks) = line.waiting.remove(&before) {
            line.waiting.insert(self.standing(), asks);
        }
    }

    /// Changes the priority, and with it the place in line.
    pub(in crate::peer) fn set_priority(&self, priority: Priority) {
        let mut line = self.queue.line();
        let before = self.standing();
        self.lock_standing().priority = std::cmp::Reverse(priority);
        if let Some(asks) = line.waiting.remove(&before) {
            line.waiting.insert(self.standing(), asks);
        }
    }

    /// How many downloads come before this one; `None` if it does not wait.
    /// O(downloads that wait).
    pub(in crate::peer) fn position(&self) -> Option<usize> {
        let line = self.queue.line();
        let standing = self.standing();
        let waits = line.waiting.contains_key(&standing);
        waits.then(|| line.waiting.range(..standing).count())
    }

    fn standing(&self) -> Standing {
        *self.lock_standing()
    }

    fn lock_standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Aside<'_> {
    /// Waits for a place again, behind all others of its priority.
    pub(in crate::peer) fn return_to_line(self) {
        let mut line = self.0.queue.line();
        self.0.lock_standing().number = line.number();
        line.waiting.insert(self.0.standing(), None);
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.queue.line().aside -= 1;
    }
}

impl Asking {
    /// Waits for the place. `None` if it has come already, or the download waits in line no
    /// more.
    ///
    /// Cancel safe: what comes meanwhile is there at the next call.
    pub(in crate::peer) async fn place(&mut self) -> Option<ActivePlace> {
        let own = self.place.as_mut()?;
        let place = match self.ticket.common.get() {
            None => own.await.ok(),
            Some(common) => tokio::select! {
                biased;
                place = common.others() => {
                    self.ticket.leave();
                    Some(place)
                }
                place = own => {
                    let place = place.ok();
                    place.as_ref().inspect(|place| common.offer(place));
                    place
                }
            },
        };
        self.place = None;
        place
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut line = self.ticket.queue.line();
        if let Some(asks) = line.waiting.get_mut(&self.ticket.standing()) {
            *asks = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn higher_priority_comes_first_and_equals_in_their_order() {
        let queue = Arc::new(DownloadQueue::new(1));
        let tickets: Vec<QueueTicket> = (0..4).map(|_| queue.enter()).collect();
        let first = tickets[0].try_begin().unwrap();
        tickets[2].set_priority(Priority::High);
        let mut waiting: Vec<_> = tickets[1..].iter().map(|t| Box::pin(t.begin())).collect();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none());
        }
        drop(waiting);
        // A future that was dropped asks for nothing, and keeps its place.
        assert_eq!(tickets[2].position(), Some(0));
        assert_eq!(tickets[1].position(), Some(1));
        let mut second = Box::pin(tickets[1].begin());
        let mut third = Box::pin(tickets[2].begin());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_none());
        let place = third.now_or_never().unwrap();
        assert_eq!(queue.counts(), (1, 2));
        drop(place);
        assert!(second.now_or_never().unwrap().is_some());
    }

    #[test]
    fn downloads_of_the_same_bytes_have_one_place() {
        let queue = Arc::new(DownloadQueue::new(1));
        let [first, second, other] = [(); 3].map(|()| queue.enter());
        let common = CommonTurn::new();
        first.set_common(&common);
        second.set_common(&common);
        let mut waits = Box::pin(second.begin());
        let held = other.try_begin().unwrap();
        assert!(waits.as_mut().now_or_never().is_none());
        drop(held);
        let place = first.try_begin();
        assert!(place.is_none(), "the second one has been given it");
        let second_place = waits.now_or_never().unwrap().unwrap();
        let first_place = first.try_begin().unwrap();
        assert_eq!(queue.counts(), (1, 0));
        // Others wait until both have ended.
        let late = queue.enter();
        assert!(late.try_begin().is_none());
        drop(second_place);
        assert!(late.try_begin().is_none());
        drop(first_place);
        assert!(late.try_begin().is_some());
    }

    #[test]
    fn places_are_taken_again_and_new_ones_come_behind() {
        let queue = Arc::new(DownloadQueue::new(1));
        let earlier: Vec<QueueTicket> = [0, 0, 7, 9, u64::MAX]
            .into_iter()
            .map(|place| {
                let ticket = queue.enter();
                ticket.take_place(place);
                ticket
            })
            .collect();
        let places: Vec<u64> = earlier.iter().map(QueueTicket::place).collect();
        assert_eq!(places, [1, 2, 7, 9, 10]);
        assert_eq!(earlier[3].position(), Some(3));
        assert_eq!(queue.enter().place(), 11);
        assert_eq!(queue.counts(), (0, 6));
    }

    #[test]
    fn place_that_nobody_takes_goes_to_the_next_one() {
        let queue = Arc::new(DownloadQueue::new(1));
        let (first, second) = (queue.enter(), queue.enter());
        let held = queue.enter().try_begin().unwrap();
        let mut waits = Box::pin(first.begin());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(held);
        // It was given the place, and goes.
        drop(waits);
        assert_eq!(queue.counts(), (0, 1));
        let place = second.try_begin();
        assert!(place.is_some());
        queue.set_max_active(0);
        let third = queue.enter();
        drop(place);
        assert!(third.try_begin().is_none());
        let mut waits = Box::pin(third.begin());
        assert!(waits.as_mut().now_or_never().is_none());
        queue.set_max_active(1);
        assert!(waits.now_or_never().unwrap().is_some());
    }
}
