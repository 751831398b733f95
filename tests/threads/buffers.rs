//! Buffers that threads take, share, and give back.

use std::collections::BTreeSet;
use std::sync::Mutex as Plain;

use shuttle::thread;

use super::*;
use crate::sync::schedules::try_all;

/// So that some of them must not stay when nothing is in use.
const LENGTHS: [usize; 3] = [SHORTEST, KEPT / 2 + 1, KEPT];

/// Where the buffers are that somebody has.
#[derive(Default)]
struct Taken(Plain<BTreeSet<usize>>);

impl Taken {
    fn add(&self, buffer: &Buffer) -> usize {
        let at = buffer.as_ptr() as usize;
        assert!(self.0.lock().unwrap().insert(at), "two have one buffer");
        at
    }

    fn remove(&self, at: usize) {
        assert!(self.0.lock().unwrap().remove(&at));
    }
}

fn take_and_give_back(pool: &'static Pool, taken: &Taken, thread: u8) {
    let mut kept = Vec::new();
    for turn in 0..4 {
        let len = LENGTHS[(turn + usize::from(thread)) % LENGTHS.len()];
        let mut buffer = pool.take(len);
        assert!(buffer.is_empty() && buffer.capacity() >= len);
        let at = taken.add(&buffer);
        buffer.resize(8, thread);
        thread::yield_now();
        let all = buffer.freeze();
        let part = all.slice(2..5);
        drop(all);
        kept.push((at, part));
        if turn % 2 == 1 {
            for (at, part) in kept.drain(..) {
                thread::yield_now();
                assert_eq!(part, [thread; 3][..], "somebody has written to it");
                taken.remove(at);
                drop(part);
            }
        }
    }
}

fn check(pool: &Pool, are_used: bool) {
    let state = pool.state();
    let idle: usize = state.idle.iter().map(Vec::capacity).sum();
    assert_eq!(idle, state.idle_bytes);
    assert!(idle <= MAX_IDLE);
    if !are_used {
        assert_eq!(state.used_bytes, 0);
        assert!(idle <= KEPT);
    }
}

#[test]
fn buffers_have_one_user_each_and_are_all_given_back() {
    try_all(|| {
        let pool: &'static Pool = Box::leak(Box::new(Pool::new()));
        let taken: &'static Taken = Box::leak(Box::default());
        let threads =
            (0..3).map(|thread| thread::spawn(move || take_and_give_back(pool, taken, thread)));
        let threads: Vec<_> = threads.collect();
        check(pool, true);
        for thread in threads {
            thread.join().unwrap();
        }
        check(pool, false);
        pool.state().idle.clear();
    });
}
