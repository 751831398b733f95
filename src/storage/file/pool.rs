//! The open files of file storages: how many there may be, who waits for one, and
//! which are kept open for the next read.
//!
//! Every open file has a *place*, and there is a fixed number of them. A reader
//! needs one place for one operation, and waits for nothing while it has it. An
//! unfinished download holds its places for as long as it is open, so downloads
//! may take only a part of all places, for which they queue first. Whoever waits
//! for the last places therefore waits for readers only, and these come to an end:
//! there is no deadlock.
//!
//! A file that was read stays open until its place is wanted. The file that was
//! not used for the longest time is closed first. One that is being read right
//! then is closed at the end of the read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::dir::DataFile;
use crate::descriptors::{descriptor_limit, is_exhausted};
use crate::storage::{FilePoolStats, StorageError};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// How many descriptors a process needs beside files of contents and
/// connections: standard streams, directories, the runtime, and files that are
/// open for a moment only.
const SET_ASIDE: u64 = 32;
/// The bounds of the default number of files.
const MIN_OPEN: usize = 8;
const MAX_OPEN: usize = 4096;
/// Downloads leave one of this many places to readers, and at least
/// `MIN_FOR_READERS`.
const SHARE_OF_READERS: usize = 8;
const MIN_FOR_READERS: usize = 2;
/// The first and the longest pause when the system has no descriptor left.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After how many attempts that is an error: after about ten seconds.
const ATTEMPTS: u32 = 16;

/// A bound on the files that [file storages](crate::FileStorage) have open, and
/// the files that are kept open between two reads.
///
/// A content that is shared or finished holds no file open: its file is opened
/// when it is read, and stays open until another one needs its place. Of the open
/// files, the least recently used is closed first. An unfinished download holds
/// two files, or one if it has one chunk only. When all places are taken, whoever
/// needs one waits, first come, first served; one whose future is dropped leaves the
/// queue. Downloads leave an eighth of the places, and at least two, to readers.
///
/// A clone is the same pool. Storages share [one](Self::shared) unless
/// [`FileStorageBuilder::file_pool`](crate::storage::FileStorageBuilder::file_pool)
/// says otherwise, because a process has one limit for all of its descriptors.
///
/// If the system refuses to open a file because too many are open, in this
/// process or in all, the pool closes what nobody reads, and tries again for about
/// ten seconds before this is an error.
///
/// ```
/// use bt_lite::FileStorage;
/// use bt_lite::storage::FilePool;
///
/// # fn main() -> Result<(), bt_lite::StorageError> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let pool = FilePool::new(100);
/// let storage = FileStorage::builder(path).file_pool(pool.clone()).open()?;
/// assert_eq!(pool.stats().open, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FilePool(Arc<Pool<DataFile>>);

impl FilePool {
    /// A pool for at most `max_open` files. Fewer than 8 count as 8.
    pub fn new(max_open: usize) -> Self {
        Self(Arc::new(Pool::new(max_open)))
    }

    /// The pool that all storages of the process share by default. On Unix it
    /// has half of the descriptors that the process may have open
    /// (`RLIMIT_NOFILE`) when the pool is first used, less 32: the other half is
    /// for connections. It has at least 8 places and at most 4096, which is also
    /// the number where there is no limit.
    pub fn shared() -> Self {
        static SHARED: LazyLock<FilePool> =
            LazyLock::new(|| FilePool::new(default_max_open(descriptor_limit())));
        SHARED.clone()
    }

    /// How many files are open now, and how many may be.
    pub fn stats(&self) -> FilePoolStats {
        self.0.stats()
    }

    pub(super) fn pool(&self) -> &Arc<Pool<DataFile>> {
        &self.0
    }
}

impl fmt::Debug for FilePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FilePool").field(&self.stats()).finish()
    }
}

/// How many files may be open if this is the limit of the process.
fn default_max_open(limit: Option<u64>) -> usize {
    let half = limit.map(|limit| limit.saturating_sub(SET_ASIDE) / 2);
    let half = half.map_or(MAX_OPEN, |half| usize::try_from(half).unwrap_or(MAX_OPEN));
    half.clamp(MIN_OPEN, MAX_OPEN)
}

/// The pool of one kind of file.
pub(super) struct Pool<F> {
    max_open: usize,
    /// All places.
    places: Arc<Semaphore>,
    /// The places that unfinished downloads may take.
    of_writers: Arc<Semaphore>,
    /// How many downloads wait for one of those.
    waiting_writers: AtomicUsize,
    kept: Mutex<Kept<F>>,
    next_key: AtomicU64,
}

/// The files that are kept open for the next read.
struct Kept<F> {
    files: HashMap<FileKey, (Arc<PooledFile<F>>, u64)>,
    /// The same in the order of their last use.
    by_use: BTreeMap<u64, FileKey>,
    uses: u64,
    /// How many requests wait for places. While there are any, no further file is
    /// kept.
    waiting: usize,
}

/// What the pool knows a file by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey(u64);

/// The right to have one file open. Released when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _place: OwnedSemaphorePermit,
}

/// The right of an unfinished download to have its files open.
#[derive(Debug)]
pub(super) struct WriterPlaces {
    _places: OwnedSemaphorePermit,
    _of_writers: OwnedSemaphorePermit,
}

/// A file that is open for reading, with its place.
pub(super) struct PooledFile<F> {
    file: F,
    /// Declared after the file, so that it is released after the file is closed.
    _place: Place,
}

impl<F> Deref for PooledFile<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.file
    }
}

impl<F> Pool<F> {
    fn new(max_open: usize) -> Self {
        let max_open = max_open.clamp(MIN_OPEN, Semaphore::MAX_PERMITS);
        let of_readers = (max_open / SHARE_OF_READERS).max(MIN_FOR_READERS);
        Self {
            max_open,
            places: Arc::new(Semaphore::new(max_open)),
            of_writers: Arc::new(Semaphore::new(max_open - of_readers)),
            waiting_writers: AtomicUsize::new(0),
            kept: Mutex::new(Kept {
                files: HashMap::new(),
                by_use: BTreeMap::new(),
                uses: 0,
                waiting: 0,
            }),
            next_key: AtomicU64::new(0),
        }
    }

    fn stats(&self) -> FilePoolStats {
        let waiting = self.kept().waiting + self.waiting_writers.load(Ordering::Relaxed);
        FilePoolStats {
            open: self.max_open - self.places.available_permits(),
            max_open: self.max_open,
            waiting,
        }
    }

    /// A key for one more file.
    pub(super) fn new_key(&self) -> FileKey {
        FileKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    /// The file, if it is open.
    pub(super) fn open_file(&self, key: FileKey) -> Option<Arc<PooledFile<F>>> {
        self.kept().used(key)
    }

    /// Waits for a place to open a file for reading.
    pub(super) async fn place(&self) -> Place {
        Place {
            _place: self.places(1).await,
        }
    }

    /// Waits for the places of an unfinished download with this number of files.
    pub(super) async fn writer_places(&self, files: u32) -> WriterPlaces {
        let queue = Arc::clone(&self.of_writers);
        let of_writers = match Arc::clone(&queue).try_acquire_many_owned(files) {
            Ok(places) => places,
            Err(_) => {
                let _waiting = WaitingWriter::of(&self.waiting_writers);
                let places = queue.acquire_many_owned(files).await;
                places.expect("the semaphore is never closed")
            }
        };
        WriterPlaces {
            _places: self.places(files).await,
            _of_writers: of_writers,
        }
    }

    async fn places(&self, count: u32) -> OwnedSemaphorePermit {
        if let Ok(places) = Arc::clone(&self.places).try_acquire_many_owned(count) {
            return places;
        }
        let _waiting = Waiting::of(self, count);
        let places = Arc::clone(&self.places).acquire_many_owned(count).await;
        places.expect("the semaphore is never closed")
    }

    /// Keeps an open file for the next read, unless somebody waits for its place.
    pub(super) fn keep(&self, key: FileKey, file: F, place: Place) -> Arc<PooledFile<F>> {
        let file = Arc::new(PooledFile {
            file,
            _place: place,
        });
        let mut kept = self.kept();
        // Another read may have opened it at the same time.
        if let Some(other) = kept.used(key) {
            drop(kept);
            return other;
        }
        if kept.waiting == 0 {
            kept.insert(key, Arc::clone(&file));
        }
        file
    }

    /// Closes a file, after the reads that are using it.
    pub(super) fn close(&self, key: FileKey) {
        // The file is closed after the lock is released.
        let closed = self.kept().remove(key);
        drop(closed);
    }

    /// Closes all files that nobody reads.
    fn close_all(&self) {
        let closed = {
            let mut kept = self.kept();
            kept.by_use.clear();
            std::mem::take(&mut kept.files)
        };
        drop(closed);
    }

    fn kept(&self) -> MutexGuard<'_, Kept<F>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation that opens files. Repeats it as long as the system has
    /// no descriptor left, up to `ATTEMPTS` times.
    ///
    /// Cancel safe if the operation is.
    pub(super) async fn retry<T, Opening>(
        &self,
        mut operation: impl FnMut() -> Opening,
    ) -> Result<T, StorageError>
    where
        Opening: Future<Output = Result<T, StorageError>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            let error = match operation().await {
                Err(error) if error.io_error().is_some_and(is_exhausted) => error,
                done => return done,
            };
            tracing::debug!(%error, "no descriptor is left");
            self.close_all();
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        operation().await
    }
}

impl<F> Kept<F> {
    /// A file that is used now.
    fn used(&mut self, key: FileKey) -> Option<Arc<PooledFile<F>>> {
        let (file, last_use) = self.files.get_mut(&key)?;
        self.uses += 1;
        self.by_use.remove(last_use);
        *last_use = self.uses;
        self.by_use.insert(self.uses, key);
        Some(Arc::clone(file))
    }

    fn insert(&mut self, key: FileKey, file: Arc<PooledFile<F>>) {
        self.uses += 1;
        self.files.insert(key, (file, self.uses));
        self.by_use.insert(self.uses, key);
    }

    fn remove(&mut self, key: FileKey) -> Option<Arc<PooledFile<F>>> {
        let (file, last_use) = self.files.remove(&key)?;
        self.by_use.remove(&last_use);
        Some(file)
    }

    fn least_recently_used(&mut self) -> Option<Arc<PooledFile<F>>> {
        let (_, key) = self.by_use.pop_first()?;
        self.files.remove(&key).map(|(file, _)| file)
    }
}

/// A request that waits for places.
struct Waiting<'a, F>(&'a Pool<F>);

impl<'a, F> Waiting<'a, F> {
    /// Gives up as many kept files as the request needs places. From here on no
    /// file is kept, so every place that is given up, now or later, goes to those
    /// who wait.
    fn of(pool: &'a Pool<F>, count: u32) -> Self {
        let closed: Vec<_> = {
            let mut kept = pool.kept();
            kept.waiting += 1;
            (0..count)
                .map_while(|_| kept.least_recently_used())
                .collect()
        };
        drop(closed);
        Self(pool)
    }
}

impl<F> Drop for Waiting<'_, F> {
    fn drop(&mut self) {
        self.0.kept().waiting -= 1;
    }
}

/// A download that waits for its turn.
struct WaitingWriter<'a>(&'a AtomicUsize);

impl<'a> WaitingWriter<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaitingWriter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, shuttle))]
#[path = "../../../tests/threads/pool.rs"]
mod schedules;

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    /// Reads a file that is opened for that, and stays open.
    async fn read(pool: &Pool<FileKey>, key: FileKey) -> Arc<PooledFile<FileKey>> {
        match pool.open_file(key) {
            Some(file) => file,
            None => {
                let place = pool.place().await;
                pool.keep(key, key, place)
            }
        }
    }

    fn read_now(pool: &Pool<FileKey>, key: FileKey) -> Arc<PooledFile<FileKey>> {
        read(pool, key).now_or_never().expect("there is a place")
    }

    #[test]
    fn half_of_what_is_not_set_aside_is_for_files() {
        for (limit, files) in [
            (Some(0), 8),
            (Some(48), 8),
            (Some(128), 48),
            (Some(1024), 496),
            (Some(1 << 20), 4096),
            (Some(u64::MAX), 4096),
            (None, 4096),
        ] {
            assert_eq!(default_max_open(limit), files, "{limit:?}");
        }
    }

    #[test]
    fn least_recently_used_file_is_closed_first() {
        let pool = Pool::new(8);
        let keys: Vec<_> = (0..9).map(|_| pool.new_key()).collect();
        for &key in &keys[..8] {
            read_now(&pool, key);
        }
        read_now(&pool, keys[0]);
        assert_eq!(pool.stats().open, 8);
        read_now(&pool, keys[8]);
        assert_eq!(pool.stats().open, 8);
        let closed = keys.iter().filter(|&&key| pool.open_file(key).is_none());
        assert_eq!(closed.collect::<Vec<_>>(), [&keys[1]]);
    }

    #[test]
    fn file_that_is_closed_or_replaced_gives_its_place_back() {
        let pool = Pool::new(8);
        let key = pool.new_key();
        let first = read_now(&pool, key);
        // Two reads opened it at the same time.
        let second = pool.place().now_or_never().unwrap();
        assert_eq!(pool.stats().open, 2);
        let second = pool.keep(key, key, second);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(pool.stats().open, 1);
        pool.close(key);
        assert_eq!(pool.stats().open, 1);
        drop((first, second));
        assert_eq!(pool.stats().open, 0);
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_one_that_gives_up_is_skipped() {
        let pool = Pool::new(8);
        let reading: Vec<_> = (0..8).map(|_| read_now(&pool, pool.new_key())).collect();
        let mut requests: Vec<_> = (0..3).map(|_| Box::pin(pool.place())).collect();
        for request in &mut requests {
            assert!(request.now_or_never().is_none());
        }
        assert_eq!(pool.stats().waiting, 3);
        drop(requests.remove(1));
        assert_eq!(pool.stats().waiting, 2);
        let mut reading = reading.into_iter();
        drop(reading.next());
        assert!(requests[1].as_mut().now_or_never().is_none());
        let first = requests[0].as_mut().now_or_never();
        drop(reading.next());
        let second = requests[1].as_mut().now_or_never();
        assert!(first.is_some() && second.is_some());
        drop(requests);
        assert_eq!(pool.stats().waiting, 0);
    }

    #[test]
    fn downloads_wait_for_all_of_their_places_and_leave_some_to_readers() {
        let pool = Pool::<FileKey>::new(8);
        let downloads: Vec<_> = (0..3)
            .map(|_| pool.writer_places(2).now_or_never().unwrap())
            .collect();
        let mut fourth = pin!(pool.writer_places(2));
        assert!(fourth.as_mut().now_or_never().is_none());
        assert_eq!(pool.stats().waiting, 1);
        // Readers come and go although a download waits.
        for _ in 0..20 {
            read_now(&pool, pool.new_key());
        }
        let mut downloads = downloads.into_iter();
        drop(downloads.next());
        // Readers have filled the places by now, and give way.
        assert!(fourth.as_mut().now_or_never().is_some());
        assert_eq!(pool.stats().waiting, 0);
    }

    #[test]
    fn file_that_is_always_being_read_cannot_starve_others() {
        let pool = Pool::new(8);
        let keys: Vec<_> = (0..8).map(|_| pool.new_key()).collect();
        let reads: Vec<_> = keys.iter().map(|&key| read_now(&pool, key)).collect();
        let mut waiting = pin!(pool.place());
        assert!(waiting.as_mut().now_or_never().is_none());
        // The file that gives way cannot be read again out of turn.
        assert!(read(&pool, keys[0]).now_or_never().is_none());
        drop(reads);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn exhausted_system_is_asked_again_and_idle_files_are_closed() {
        let pool = Pool::new(8);
        read_now(&pool, pool.new_key());
        let exhausted = || {
            let error = io::Error::from_raw_os_error(24);
            assert!(is_exhausted(&error));
            Err::<u32, _>(StorageError::io("opening a", error))
        };
        let mut attempts = 0;
        let done = pool.retry(|| {
            attempts += 1;
            std::future::ready(match attempts {
                4 => Ok(attempts),
                _ => exhausted(),
            })
        });
        assert_eq!(done.await, Ok(4));
        assert_eq!(pool.stats().open, 0);

        let mut attempts = 0;
        let failed = pool.retry(|| {
            attempts += 1;
            std::future::ready(exhausted())
        });
        assert_eq!(failed.await, exhausted());
        assert_eq!(attempts, ATTEMPTS);

        let other = pool.retry(|| {
            let error = StorageError::io("opening a", io::ErrorKind::PermissionDenied);
            std::future::ready(Err::<(), _>(error))
        });
        assert!(other.now_or_never().is_some_and(|done| done.is_err()));
    }
}
