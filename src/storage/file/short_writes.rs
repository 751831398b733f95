//! Writes contents of one chunk in batches. Everything here but
//! [`finish`](ShortWrites::finish) blocks.
//!
//! A few threads take what waits, write the files, sync them, give each its name, and
//! then sync the directory. Each step is done for all files of a batch before the next
//! one, so they wait for the disk together. To hand each file to a thread of its
//! own, and to wake that thread for the sync that it shares with others, would take
//! longer than to write it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use super::blocking::shutting_down;
use super::dir::Dir;
use super::partial_file::{PartialFile, finish_together};
use super::pool::WriterPlaces;
use super::short_file::{Phase, ShortFile, finished, write_short};
use crate::storage::StorageError;

/// How many files are written by one thread before it syncs the directory. The first
/// waits for the last, a few milliseconds on a disk without moving parts.
const BATCH: usize = 16;

/// How many threads write: enough that a disk that is slow to sync has several syncs to
/// do at a time.
const MAX_THREADS: usize = 8;

/// How many files may wait or be written: full batches for all threads.
const MAX_WAITING: usize = MAX_THREADS * BATCH;

/// The contents of one chunk that one storage is about to finish.
pub(super) struct ShortWrites {
    /// One permit for each file that waits or is written.
    room: Semaphore,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<ShortWrite>,
    /// The threads that write, or are about to.
    threads: usize,
}

/// A content that is to be written and finished.
struct ShortWrite {
    file: Arc<ShortFile>,
    phase: Arc<Mutex<Phase>>,
    places: WriterPlaces,
    done: oneshot::Sender<Result<(), StorageError>>,
}

impl Default for ShortWrites {
    fn default() -> Self {
        Self {
            room: Semaphore::new(MAX_WAITING),
            queue: Mutex::default(),
        }
    }
}

impl fmt::Debug for ShortWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.queue().waiting.len();
        f.debug_struct("ShortWrites")
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

impl ShortWrites {
    /// Writes what waits in the memory of a content, and finishes it.
    ///
    /// If the future is dropped, the content may be finished all the same.
    pub(super) async fn finish(
        self: &Arc<Self>,
        file: &Arc<ShortFile>,
        phase: &Arc<Mutex<Phase>>,
    ) -> Result<(), StorageError> {
        // Never closed.
        let _room = self.room.acquire().await;
        let attempt = || async {
            let places = file.places().await;
            let (done, outcome) = oneshot::channel();
            let is_first = self.push(ShortWrite {
                file: Arc::clone(file),
                phase: Arc::clone(phase),
                places,
                done,
            });
            if is_first {
                let thread = WriterThread {
                    writes: Arc::clone(self),
                    is_counted: true,
                };
                tokio::task::spawn_blocking(move || thread.write_all());
            }
            outcome.await.unwrap_or_else(|_| Err(shutting_down()))
        };
        file.pool.retry(attempt).await
    }

    /// Returns whether one more thread is to write.
    fn push(&self, write: ShortWrite) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(write);
        let more = queue.threads < MAX_THREADS && queue.waiting.len() > queue.threads * BATCH;
        if more {
            queue.threads += 1;
        }
        more
    }

    /// Ignores poison: no change under this lock is left half done.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread that writes.
struct WriterThread {
    writes: Arc<ShortWrites>,
    is_counted: bool,
}

impl WriterThread {
    fn write_all(mut self) {
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                return;
            }
            write(batch);
        }
    }

    fn next_batch(&mut self) -> Vec<ShortWrite> {
        let mut queue = self.writes.queue();
        let len = queue.waiting.len().min(BATCH);
        if len == 0 {
            // Under the same lock: whoever comes later starts another thread.
            queue.threads -= 1;
            self.is_counted = false;
        }
        queue.waiting.drain(..len).collect()
    }
}

impl Drop for WriterThread {
    /// If the runtime has shut down before the thread began, those who wait are told.
    fn drop(&mut self) {
        if self.is_counted {
            let mut queue = self.writes.queue();
            queue.threads -= 1;
            let waiting = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(waiting);
        }
    }
}

/// A file that was written, and is to be finished.
struct Written {
    file: Arc<PartialFile<Dir>>,
    phase: Arc<Mutex<Phase>>,
    done: oneshot::Sender<Result<(), StorageError>>,
}

/// Writes and finishes the files of a batch.
fn write(batch: Vec<ShortWrite>) {
    let mut written = Vec::with_capacity(batch.len());
    for write in batch {
        let ShortWrite {
            file,
            phase,
            places,
            done,
        } = write;
        match write_short(&file, places, &phase) {
            Ok(Some(file)) => written.push(Written { file, phase, done }),
            // Another call was faster, and goes on.
            Ok(None) => drop(done.send(Ok(()))),
            Err(error) => drop(done.send(Err(error))),
        }
    }
    let files: Vec<_> = written.iter().map(|one| Arc::clone(&one.file)).collect();
    let outcomes = finish_together(&files);
    drop(files);
    for (Written { file, phase, done }, outcome) in written.into_iter().zip(outcomes) {
        drop(file);
        let outcome = outcome.map(|stamp| finished(&phase, stamp));
        // The caller may have gone.
        drop(done.send(outcome));
    }
}
