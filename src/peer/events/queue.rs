//! The events that one reader has not read yet.
//!
//! What it promises:
//! - Up to [`MAX_UNREAD`] events wait, and are read in the order in which they came. Only
//!   when more would wait, some are dropped: the oldest frequent one first, then the
//!   oldest that ends nothing.
//! - An event that ends something is dropped only if [`MAX_UNREAD`] such events wait and
//!   the same thing has ended in the same way again. So no more wait than [`MAX_UNREAD`] and
//!   one for each way in which each thing can end, and never more than [`MAX_ENDS`].
//! - A reader is told how many events are missing, at the place where they were.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How many events wait for a reader: some seconds of a busy peer.
pub(super) const MAX_UNREAD: usize = 1024;

/// How many events that end something wait for a reader: more than a peer has contents,
/// and at most some hundreds of MiB. Only beyond that they are missed as others are.
const MAX_ENDS: usize = 1 << 20;

/// What a queue has to know of its events.
pub(in crate::peer) trait Event: Sized {
    /// What ends, and how.
    type End: Eq + Hash;

    fn rank(&self) -> Rank<Self::End>;

    /// So many events are missing here.
    fn missed(events: u64) -> Self;

    /// Whether it says all that the one directly before it said.
    fn replaces(&self, _before: &Self) -> bool {
        false
    }
}

/// How much it matters that an event is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peer) enum Rank<E> {
    /// There are many of them.
    Frequent,
    Notable,
    /// It ends something.
    End(E),
}

/// The events that one reader has not read yet.
pub(in crate::peer) struct EventQueue<V: Event>(Mutex<Unread<V>>);

struct Unread<V: Event> {
    /// The number of the next event that comes.
    next: u64,
    /// The number of the next one that is read.
    reading: u64,
    frequent: VecDeque<(u64, V)>,
    notable: VecDeque<(u64, V)>,
    ends: BTreeMap<u64, V>,
    /// The last event of each end.
    last_end: HashMap<V::End, u64>,
    closed: bool,
    waker: Option<Waker>,
}

impl<V: Event> Default for EventQueue<V> {
    fn default() -> Self {
        Self(Mutex::new(Unread {
            next: 0,
            reading: 0,
            frequent: VecDeque::new(),
            notable: VecDeque::new(),
            ends: BTreeMap::new(),
            last_end: HashMap::new(),
            closed: false,
            waker: None,
        }))
    }
}

impl<V: Event> EventQueue<V> {
    /// One more event. None comes after the queue was closed.
    pub(in crate::peer) fn push(&self, event: V) {
        let waker = {
            let mut unread = self.unread();
            if unread.closed {
                return;
            }
            unread.push(event);
            unread.waker.take()
        };
        wake(waker);
    }

    /// There are no more events. What has come is still read.
    pub(in crate::peer) fn close(&self) {
        let waker = {
            let mut unread = self.unread();
            unread.closed = true;
            unread.waker.take()
        };
        wake(waker);
    }

    /// The next event; `None` after the last one.
    pub(in crate::peer) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<V>> {
        let mut unread = self.unread();
        match unread.pop() {
            Some(event) => Poll::Ready(Some(event)),
            None if unread.closed => Poll::Ready(None),
            None => {
                unread.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn unread(&self) -> MutexGuard<'_, Unread<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<V: Event> Unread<V> {
    fn push(&mut self, event: V) {
        let number = self.next;
        match event.rank() {
            Rank::Frequent => {
                if let Some((last, before)) = self.frequent.back_mut()
                    && *last + 1 == number
                    && event.replaces(before)
                {
                    *before = event;
                    return;
                }
                self.frequent.push_back((number, event));
            }
            Rank::Notable => self.notable.push_back((number, event)),
            Rank::End(end) => {
                let before = self.last_end.insert(end, number);
                if let Some(before) = before.filter(|_| self.ends.len() >= MAX_UNREAD) {
                    self.ends.remove(&before);
                }
                self.ends.insert(number, event);
            }
        }
        self.next += 1;
        self.make_room();
    }

    fn len(&self) -> usize {
        self.frequent.len() + self.notable.len() + self.ends.len()
    }

    /// Drops what is too much. What is dropped is missed when the event after it is read.
    fn make_room(&mut self) {
        if self.len() > MAX_UNREAD && self.frequent.pop_front().is_none() {
            self.notable.pop_front();
        }
        if self.ends.len() > MAX_ENDS
            && let Some((number, oldest)) = self.ends.pop_first()
        {
            self.forget(number, &oldest);
        }
    }

    /// The oldest event, or how many are missing before it.
    fn pop(&mut self) -> Option<V> {
        let first = |queue: &VecDeque<(u64, V)>| queue.front().map_or(u64::MAX, |(n, _)| *n);
        let frequent = first(&self.frequent);
        let notable = first(&self.notable);
        let end = self.ends.keys().next().copied().unwrap_or(u64::MAX);
        let number = frequent.min(notable).min(end).min(self.next);
        let missed = number - self.reading;
        if missed > 0 {
            self.reading = number;
            return Some(V::missed(missed));
        }
        let event = if number == frequent {
            self.frequent.pop_front()?.1
        } else if number == notable {
            self.notable.pop_front()?.1
        } else {
            let event = self.ends.remove(&number)?;
            self.forget(number, &event);
            event
        };
        self.reading = number + 1;
        Some(event)
    }

    /// An event that ended something is not here any more.
    fn forget(&mut self, number: u64, event: &V) {
        if let Rank::End(end) = event.rank()
            && self.last_end.get(&end) == Some(&number)
        {
            self.last_end.remove(&end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures::task::noop_waker;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    enum Fact {
        Step(u32),
        Change(u32),
        End(u32, char),
        Missed(u64),
    }
    use Fact::{Change, End, Missed, Step};

    impl Event for Fact {
        type End = (u32, char);

        fn rank(&self) -> Rank<(u32, char)> {
            match self {
                Step(_) => Rank::Frequent,
                Change(_) | Missed(_) => Rank::Notable,
                End(n, how) => Rank::End((*n, *how)),
            }
        }

        fn missed(events: u64) -> Self {
            Missed(events)
        }
    }

    fn read(queue: &EventQueue<Fact>) -> Vec<Fact> {
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let mut read = Vec::new();
        while let Poll::Ready(Some(fact)) = queue.poll_next(&cx) {
            read.push(fact);
        }
        read
    }

    fn push(queue: &EventQueue<Fact>, facts: impl IntoIterator<Item = Fact>) {
        facts.into_iter().for_each(|fact| queue.push(fact));
    }

    const BOUND: u32 = MAX_UNREAD as u32;

    #[test]
    fn within_the_bound_all_is_read_in_order() {
        let queue = EventQueue::default();
        // The same end many times is not the same event.
        let facts: Vec<_> = (0..BOUND)
            .map(|n| match n % 4 {
                0 => Step(n),
                1 => Change(n),
                2 => End(1, 'f'),
                _ => End(1, 'c'),
            })
            .collect();
        for _ in 0..3 {
            push(&queue, facts.clone());
            assert_eq!(read(&queue), facts);
        }
    }

    #[test]
    fn beyond_the_bound_frequent_events_go_first_and_are_missed_where_they_were() {
        let queue = EventQueue::default();
        push(&queue, [Step(0), Change(0), Step(1), Step(2), Change(1)]);
        push(&queue, (2..BOUND - 3).map(Change));
        push(&queue, [End(1, 'c'), End(2, 'c'), Change(BOUND)]);
        // The three steps made room.
        let seen = read(&queue);
        assert_eq!(seen[..4], [Missed(1), Change(0), Missed(2), Change(1)]);
        assert_eq!(seen.len(), MAX_UNREAD + 2);
        // A step that finds no room is missed itself, and told at once.
        push(&queue, (0..BOUND).map(Change));
        push(&queue, [Step(7)]);
        let seen = read(&queue);
        assert_eq!(seen.len(), MAX_UNREAD + 1);
        assert_eq!(seen.last(), Some(&Missed(1)));
        // When no step is left, the oldest change goes.
        push(&queue, (0..BOUND + 3).map(Change));
        let seen = read(&queue);
        assert_eq!((seen[0], seen[1]), (Missed(3), Change(3)));
    }

    #[test]
    fn ends_are_kept_beyond_the_bound_and_the_same_one_once() {
        let queue = EventQueue::default();
        let many = 3 * BOUND;
        push(&queue, (0..many).map(|n| End(n, 'c')));
        push(&queue, (0..many).map(|n| End(n, 'f')));
        push(&queue, [Step(1), Change(1)]);
        // The same again: those before are missed.
        push(&queue, (0..many).map(|n| End(n, 'c')));
        let seen = read(&queue);
        let ends: Vec<_> = seen.iter().filter(|f| matches!(f, End(..))).collect();
        let expected: Vec<_> = (0..many)
            .map(|n| End(n, 'f'))
            .chain((0..many).map(|n| End(n, 'c')))
            .collect();
        assert_eq!(ends, expected.iter().collect::<Vec<_>>());
        assert_eq!(seen[0], Missed(u64::from(many)));
        assert_eq!(seen[1 + many as usize], Missed(2));
        let unread = queue.unread();
        assert!(unread.last_end.is_empty() && unread.ends.is_empty());
    }

    #[test]
    fn nothing_comes_after_the_queue_was_closed() {
        let queue = EventQueue::default();
        push(&queue, [Change(1)]);
        queue.close();
        push(&queue, [Change(2)]);
        assert_eq!(read(&queue), [Change(1)]);
    }

    fn fact() -> impl Strategy<Value = Fact> {
        prop_oneof![
            8 => Just(Step(0)),
            2 => Just(Change(0)),
            6 => (0..1500_u32, prop_oneof![Just('c'), Just('f')])
                .prop_map(|(n, how)| End(n, how)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// Whatever comes, the reader can account for all of it: each event is read or
        /// counted as missed, in order, and no end is lost that did not come again.
        #[test]
        fn every_event_is_read_or_counted(
            rounds in prop::collection::vec(prop::collection::vec(fact(), 0..4000), 1..3)
        ) {
            let queue = EventQueue::default();
            for facts in rounds {
                push(&queue, facts.clone());
                let kinds: HashSet<_> = facts.iter().filter(|f| matches!(f, End(..))).collect();
                prop_assert!(queue.unread().len() <= MAX_UNREAD + kinds.len());
                let seen = read(&queue);
                let mut at = 0;
                for fact in &seen {
                    match fact {
                        Missed(events) => {
                            let dropped = &facts[at..at + *events as usize];
                            for (i, fact) in dropped.iter().enumerate() {
                                let later = &facts[at + i + 1..];
                                let again = !matches!(fact, End(..)) || later.contains(fact);
                                prop_assert!(again);
                            }
                            at += *events as usize;
                        }
                        fact => {
                            prop_assert_eq!(*fact, facts[at]);
                            at += 1;
                        }
                    }
                }
                prop_assert_eq!(at, facts.len());
                if facts.len() <= MAX_UNREAD {
                    prop_assert_eq!(seen, facts);
                }
            }
        }
    }
}
