//! Threads that read files, want places for downloads, and close files, in a pool with few
//! places.

use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use futures::FutureExt;
use shuttle::future::block_on;
use shuttle::thread;

use super::*;
use crate::sync::schedules::try_all;

/// How many files are open, as the system counts.
type Descriptors = Arc<Plain>;

/// A file that is open.
struct Open(Descriptors);

impl Open {
    fn new(descriptors: &Descriptors) -> Self {
        let open = Self(Arc::clone(descriptors));
        let before = descriptors.fetch_add(1, SeqCst);
        assert!(
            before < MIN_OPEN,
            "more files are open than there are places"
        );
        open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // To close a file takes a moment.
        if !std::thread::panicking() {
            thread::yield_now();
        }
        self.0.fetch_sub(1, SeqCst);
    }
}

fn read(pool: &Pool<Open>, key: FileKey, descriptors: &Descriptors) {
    let file = match pool.open_file(key) {
        Some(file) => file,
        None => {
            let place = block_on(pool.place());
            pool.keep(key, Open::new(descriptors), place)
        }
    };
    thread::yield_now();
    drop(file);
}

/// A download with two files.
fn write(pool: &Pool<Open>, descriptors: &Descriptors) {
    let places = block_on(pool.writer_places(2));
    let files = [Open::new(descriptors), Open::new(descriptors)];
    thread::yield_now();
    drop(files);
    drop(places);
}

fn run() {
    let pool = Arc::new(Pool::new(MIN_OPEN));
    let descriptors = Descriptors::default();
    let keys: Vec<FileKey> = (0..4).map(|_| pool.new_key()).collect();
    // Three of the places are left: less than the threads want.
    let held: Vec<_> = (0..5)
        .map(|_| {
            let place = block_on(pool.place());
            PooledFile {
                file: Open::new(&descriptors),
                _place: place,
            }
        })
        .collect();
    let mut threads = Vec::new();
    let mut spawn = |work: Box<dyn FnOnce(&Pool<Open>, &Descriptors) + Send>| {
        let (pool, descriptors) = (Arc::clone(&pool), Arc::clone(&descriptors));
        threads.push(thread::spawn(move || work(&pool, &descriptors)));
    };
    for reader in 0..3 {
        let keys = keys.clone();
        spawn(Box::new(move |pool, descriptors| {
            for turn in 0..3 {
                read(pool, keys[(reader + turn) % keys.len()], descriptors);
            }
        }));
    }
    for _ in 0..2 {
        spawn(Box::new(|pool, descriptors| write(pool, descriptors)));
    }
    spawn(Box::new({
        let keys = keys.clone();
        move |pool, _| {
            for key in keys {
                pool.close(key);
            }
            // Somebody who wanted a place and does not any more.
            drop(pool.place().now_or_never());
        }
    }));
    for thread in threads {
        thread.join().unwrap();
    }
    drop(held);
    let kept = pool.kept();
    assert_eq!(kept.files.len(), kept.by_use.len());
    let files = kept.files.len();
    drop(kept);
    let stats = pool.stats();
    assert_eq!((stats.open, stats.waiting), (files, 0));
    assert_eq!(descriptors.load(SeqCst), files);
    for key in keys {
        pool.close(key);
    }
    assert_eq!((pool.stats().open, descriptors.load(SeqCst)), (0, 0));
}

#[test]
fn no_more_files_are_open_than_there_are_places_and_nobody_waits_for_ever() {
    try_all(run);
}
