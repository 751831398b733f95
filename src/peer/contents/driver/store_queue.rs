//! The thread of a content that verifies chunks and writes them.
//!
//! To hash a chunk on one thread and to write it on another costs two jobs and two
//! wake-ups, and the second core has to get the bytes that the first one has just seen. So
//! one thread does both, and takes what has piled up meanwhile without being woken for it.
//! What it has done comes back together, if the driver is slower than it.
//!
//! Jobs begin in their order. When many wait, a second thread takes some: so bytes are
//! hashed while others are written.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many jobs may wait for each thread before another one helps: enough that chunks of
/// a fast line do not wake a thread each time one is late.
const BACKLOG: usize = 8;

/// How many threads work for one content: one that hashes beside one that writes.
/// More would only wait for each other, as writes of one file do.
const MAX_THREADS: usize = 2;

/// The driver is told when so many jobs have ended, or none is left.
const BATCH: usize = 4;

type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// Jobs of one content, and what came of them. When it is dropped, no further job begins.
pub(super) struct StoreQueue<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    /// There are results to take.
    ended: Notify,
}

struct State<T> {
    waiting: VecDeque<Job<T>>,
    /// The threads that work, or are about to.
    threads: usize,
    /// The jobs that are being done.
    running: usize,
    results: Vec<Result<T, Box<dyn Any + Send>>>,
}

impl<T> State<T> {
    /// Whether nothing is left to do.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }

    fn is_due(&self) -> bool {
        !self.results.is_empty() && (self.results.len() >= BATCH || self.is_idle())
    }
}

impl<T: Send + 'static> StoreQueue<T> {
    pub(super) fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            threads: 0,
            running: 0,
            results: Vec::new(),
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            ended: Notify::new(),
        }))
    }

    /// Adds a job, and returns whether it is the only one: then the driver has to begin
    /// to wait for [what ended](Self::ended).
    pub(super) fn push(&self, job: impl FnOnce() -> T + Send + 'static) -> bool {
        let mut state = self.0.state();
        let is_first = state.is_idle() && state.results.is_empty();
        state.waiting.push_back(Box::new(job));
        let enough = state.waiting.len() <= state.threads * BACKLOG;
        if !enough && state.threads < MAX_THREADS {
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(&self.0);
            tokio::task::spawn_blocking(move || shared.work());
        }
        is_first
    }

    /// Waits until jobs have ended, and returns what came of them, and whether others are
    /// left. Goes on with the panic of a job.
    pub(super) fn ended(&self) -> impl Future<Output = (Vec<T>, bool)> + Send + use<T> {
        let shared = Arc::clone(&self.0);
        async move {
            loop {
                if let Some((results, left)) = shared.take() {
                    let results = results.into_iter().map(|result| match result {
                        Ok(done) => done,
                        Err(panic) => resume_unwind(panic),
                    });
                    return (results.collect(), left);
                }
                shared.ended.notified().await;
            }
        }
    }

    /// Drops the jobs that have not begun.
    pub(super) fn stop(&self) {
        let waiting = std::mem::take(&mut self.0.state().waiting);
        drop(waiting);
    }
}

impl<T> Drop for StoreQueue<T> {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut self.0.state().waiting);
        drop(waiting);
    }
}

impl<T> Shared<T> {
    /// Takes what has ended, if it is time to.
    #[allow(clippy::type_complexity)]
    fn take(&self) -> Option<(Vec<Result<T, Box<dyn Any + Send>>>, bool)> {
        let mut state = self.state();
        let due = state.is_due();
        due.then(|| (std::mem::take(&mut state.results), !state.is_idle()))
    }

    /// Does all jobs that wait.
    fn work(&self) {
        let mut done = None;
        loop {
            let mut state = self.state();
            if let Some(result) = done.take() {
                state.running -= 1;
                state.results.push(result);
            }
            let next = state.waiting.pop_front();
            match next {
                Some(_) => state.running += 1,
                // Under the same lock: whoever comes later starts another thread.
                None => state.threads -= 1,
            }
            let due = state.is_due();
            drop(state);
            if due {
                self.ended.notify_one();
            }
            let Some(job) = next else {
                return;
            };
            done = Some(catch_unwind(AssertUnwindSafe(job)));
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    async fn all_ended<T: Send + 'static>(queue: &StoreQueue<T>) -> Vec<T> {
        let mut all = Vec::new();
        loop {
            let (results, left) = queue.ended().await;
            all.extend(results);
            if !left {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn jobs_that_pile_up_are_done_by_one_thread_in_their_order() {
        let queue = StoreQueue::new();
        let (go, gate) = mpsc::channel::<()>();
        assert!(queue.push(move || {
            let _ = gate.recv();
            (0, thread::current().id())
        }));
        for n in 1..BACKLOG {
            assert!(!queue.push(move || (n, thread::current().id())));
        }
        go.send(()).unwrap();
        let done = all_ended(&queue).await;
        let order: Vec<_> = done.iter().map(|(n, _)| *n).collect();
        assert_eq!(order, (0..BACKLOG).collect::<Vec<_>>());
        let threads: Vec<_> = done.iter().map(|(_, thread)| thread).collect();
        assert!(threads.windows(2).all(|two| two[0] == two[1]));
        // And it begins again.
        assert!(queue.push(|| (7, thread::current().id())));
        assert_eq!(all_ended(&queue).await[0].0, 7);
    }

    #[tokio::test]
    async fn second_thread_helps_when_one_hangs() {
        let queue = StoreQueue::new();
        let (go, gate) = mpsc::channel::<()>();
        queue.push(move || {
            let _ = gate.recv();
            0
        });
        for n in 1..=2 * BACKLOG {
            queue.push(move || n);
        }
        let (results, left) = queue.ended().await;
        assert!(left && !results.contains(&0) && results.len() >= BATCH);
        go.send(()).unwrap();
        let rest: BTreeSet<_> = all_ended(&queue).await.into_iter().collect();
        assert_eq!(rest.len() + results.len(), 2 * BACKLOG + 1);
    }

    #[tokio::test]
    async fn dropped_queue_begins_no_further_job() {
        let queue = StoreQueue::new();
        let (go, gate) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let (told, end) = mpsc::channel::<()>();
        queue.push(move || {
            let _ = began.send(());
            let _ = gate.recv();
            drop(told);
        });
        let (second, never) = mpsc::channel();
        queue.push(move || second.send(()).unwrap());
        begun.recv().unwrap();
        drop(queue);
        // Its job is gone before the first one ends.
        assert!(never.recv().is_err());
        drop(go);
        assert!(end.recv().is_err());
    }

    #[tokio::test]
    #[should_panic(expected = "planned")]
    async fn panic_of_a_job_reaches_the_driver() {
        let queue = StoreQueue::new();
        queue.push(|| panic!("planned"));
        let _: (Vec<()>, bool) = queue.ended().await;
    }
}
