//! Runs file operations on threads that may block.
//!
//! To hand one short operation to a thread takes longer than the operation itself. So
//! the short operations of an async thread wait in a queue of it, and one blocking
//! thread does all that it finds there. When an operation has waited for
//! [`PATIENCE`], the disk is slow, and it gets a thread of its own. So none is held up
//! by another for longer than that.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::storage::StorageError;

/// Up to this many bytes are read or written in a short operation.
const SHORT_LEN: usize = 64 << 10;

/// How long a short operation waits for others before it gets a thread of its own: a
/// few times as long as a disk without moving parts takes to read a block.
const PATIENCE: Duration = Duration::from_millis(2);

/// How many operations may wait for each thread before another one helps.
const BACKLOG: usize = 16;

/// How many threads may work on one queue. Each may hang in the file system.
const MAX_THREADS: usize = 64;

thread_local! {
    /// The queue of an async thread, which belongs to one runtime at a time.
    static QUEUE: Arc<Queue> = Arc::default();
}

/// Runs file operations on a blocking thread of their own, and always to their end,
/// even if the future is dropped.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(shutting_down()),
        },
    }
}

/// The same for operations that take a moment: a few system calls, and no sync.
pub(super) async fn run_short<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let queue = QUEUE.with(Arc::clone);
    let (done, mut outcome) = oneshot::channel::<Result<_, Box<dyn Any + Send>>>();
    queue.push(Box::new(move || {
        // The caller may have gone.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    }));
    let ended = match timeout(PATIENCE, &mut outcome).await {
        Ok(ended) => ended,
        Err(_) => {
            queue.help();
            outcome.await
        }
    };
    match ended {
        Ok(Ok(done)) => done,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(shutting_down()),
    }
}

/// Runs operations on `len` bytes.
pub(super) async fn run_on<T: Send + 'static>(
    len: usize,
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match len <= SHORT_LEN {
        true => run_short(work).await,
        false => run(work).await,
    }
}

/// The error of an operation that was not begun.
pub(super) fn shutting_down() -> StorageError {
    StorageError::io(
        "using a file",
        io::Error::other("the runtime is shutting down"),
    )
}

/// Operations that wait for a thread. Each has a caller, and so they are bounded by
/// the tasks.
#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// The threads that work, or are about to.
    threads: usize,
}

type Job = Box<dyn FnOnce() + Send>;

impl Queue {
    fn push(self: &Arc<Self>, job: Job) {
        let mut waiting = self.waiting();
        waiting.jobs.push_back(job);
        let enough = waiting.jobs.len() <= waiting.threads * BACKLOG;
        self.add_thread(waiting, enough);
    }

    /// An operation has waited for long.
    fn help(self: &Arc<Self>) {
        let waiting = self.waiting();
        let enough = waiting.jobs.is_empty();
        self.add_thread(waiting, enough);
    }

    fn add_thread(self: &Arc<Self>, mut waiting: MutexGuard<'_, Waiting>, enough: bool) {
        if enough || waiting.threads >= MAX_THREADS {
            return;
        }
        waiting.threads += 1;
        drop(waiting);
        let thread = QueueThread {
            queue: Arc::clone(self),
            is_counted: true,
        };
        tokio::task::spawn_blocking(move || thread.work());
    }

    /// Ignores poison: no change under this lock is left half done.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread that works on a queue.
struct QueueThread {
    queue: Arc<Queue>,
    is_counted: bool,
}

impl QueueThread {
    fn work(mut self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&mut self) -> Option<Job> {
        let mut waiting = self.queue.waiting();
        let next = waiting.jobs.pop_front();
        if next.is_none() {
            // Under the same lock: whoever comes later starts another thread.
            waiting.threads -= 1;
            self.is_counted = false;
        }
        next
    }
}

impl Drop for QueueThread {
    /// If the runtime has shut down before the thread began, those who wait are told.
    fn drop(&mut self) {
        if self.is_counted {
            let mut waiting = self.queue.waiting();
            waiting.threads -= 1;
            let jobs = std::mem::take(&mut waiting.jobs);
            drop(waiting);
            drop(jobs);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn short_operations_that_come_together_take_one_thread() {
        let threads = join_all((0..BACKLOG).map(|_| run_short(|| Ok(thread::current().id()))));
        let mut threads: Vec<_> = threads.await.into_iter().map(Result::unwrap).collect();
        threads.dedup();
        assert_eq!(threads.len(), 1);
    }

    #[tokio::test]
    async fn operation_that_hangs_holds_up_no_other() {
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let hanging = run_short(move || {
            let _ = ended.recv();
            Ok(())
        });
        let done = AtomicUsize::new(0);
        let others = async {
            let others = (0..3 * BACKLOG).map(|n| run_short(move || Ok(n)));
            for other in join_all(others).await {
                other.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
            end.send(()).unwrap();
        };
        let (hung, ()) = tokio::join!(hanging, others);
        assert_eq!((hung, done.into_inner()), (Ok(()), 3 * BACKLOG));
    }

    #[tokio::test]
    async fn panic_of_an_operation_reaches_its_caller_only() {
        let panics = tokio::spawn(run_short(|| -> Result<(), _> { panic!("planned") }));
        let other = tokio::spawn(run_short(|| Ok(5)));
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(other.await.unwrap(), Ok(5));
    }

    #[test]
    fn queue_serves_the_next_runtime_of_a_thread() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().max_blocking_threads(1).build()
        };
        let first = runtime().unwrap();
        let (end, ended) = mpsc::sync_channel::<()>(1);
        first.spawn_blocking(move || ended.recv());
        first.block_on(async {
            // It waits for the only thread, and is given up.
            let mut waiting = Box::pin(run_short(|| Ok(())));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        });
        first.shutdown_background();
        drop(end);
        let second = runtime().unwrap();
        assert_eq!(second.block_on(run_short(|| Ok(7))), Ok(7));
    }
}
