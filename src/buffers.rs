//! Memory for blocks that is used again.
//!
//! A block is received into memory, hashed, written and given up; at an owner it is read
//! and sent. The allocator gives such long pieces back to the system and takes them anew,
//! and the system has to clear each page of them. So what is given up here is kept for the
//! next block.
//!
//! Invariant: at most [`MAX_IDLE`] bytes lie idle, and at most [`KEPT`] while no buffer is in
//! use. Nothing is cleared, and nobody sees what was in a buffer before: it is empty, and
//! grows by what is written.
//!
//! There is one pool for the whole process, as there is one allocator. It knows nothing of
//! peers.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use bytes::Bytes;

use crate::sync::{Mutex, MutexGuard};

/// The shortest buffer that is kept, in bytes. The allocator is good at shorter ones.
const SHORTEST: usize = 32 << 10;

/// How many bytes may lie idle when nothing is transferred: what a slow transfer uses again
/// and again, one block at a time.
const KEPT: usize = 1 << 20;

/// How many bytes may lie idle while some are in use: as much as the memory of one transfer
/// over a fast line goes up and down.
const MAX_IDLE: usize = 16 << 20;

/// A buffer is taken for a length if it is longer by at most this part of it. So memory
/// that is counted by the length of blocks is not much more in truth.
const SLACK: usize = 8;

static POOL: Pool = Pool::new();

/// An empty buffer with room for some bytes, which goes back to the pool in the end.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: &'static Pool,
    /// How many bytes count as in use. The vector may grow.
    counted: usize,
}

impl Buffer {
    /// An empty buffer with room for `len` bytes.
    pub(crate) fn with_room(len: usize) -> Self {
        POOL.take(len)
    }

    /// The bytes, which cannot be changed any more. When nobody has any of them, the
    /// buffer is used again.
    pub(crate) fn freeze(mut self) -> Bytes {
        match self.counted {
            0 => Bytes::from(std::mem::take(&mut self.bytes)),
            _ => Bytes::from_owner(self),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.pool
                .give_back(std::mem::take(&mut self.bytes), self.counted);
        }
    }
}

/// Buffers that nobody uses, and how much is in use.
#[derive(Debug)]
struct Pool(Mutex<State>);

#[derive(Debug)]
struct State {
    /// From the one that was given back first to the last one, which a cache may still
    /// have.
    idle: VecDeque<Vec<u8>>,
    idle_bytes: usize,
    used_bytes: usize,
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(State {
            idle: VecDeque::new(),
            idle_bytes: 0,
            used_bytes: 0,
        }))
    }

    fn take(&'static self, len: usize) -> Buffer {
        if len < SHORTEST {
            return Buffer {
                bytes: Vec::with_capacity(len),
                pool: self,
                counted: 0,
            };
        }
        let mut state = self.state();
        let kept = state.take(len);
        let counted = kept.as_ref().map_or(len, Vec::capacity);
        state.used_bytes += counted;
        drop(state);
        Buffer {
            bytes: kept.unwrap_or_else(|| Vec::with_capacity(len)),
            pool: self,
            counted,
        }
    }

    fn give_back(&self, mut bytes: Vec<u8>, counted: usize) {
        bytes.clear();
        let mut state = self.state();
        state.used_bytes -= counted;
        state.idle_bytes += bytes.capacity();
        state.idle.push_back(bytes);
        // The oldest go first: their length may not be asked for any more.
        let mut surplus = Vec::new();
        let most = match state.used_bytes {
            0 => KEPT,
            _ => MAX_IDLE,
        };
        while state.idle_bytes > most
            && let Some(oldest) = state.idle.pop_front()
        {
            state.idle_bytes -= oldest.capacity();
            surplus.push(oldest);
        }
        // To give memory to the system takes a moment.
        drop(state);
        drop(surplus);
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The last buffer that fits.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let fits = |bytes: &Vec<u8>| (len..=len + len / SLACK).contains(&bytes.capacity());
        let at = self.idle.iter().rposition(fits)?;
        let bytes = self.idle.remove(at)?;
        self.idle_bytes -= bytes.capacity();
        Some(bytes)
    }
}

#[cfg(all(test, shuttle))]
#[path = "../tests/threads/buffers.rs"]
mod schedules;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> &'static Pool {
        Box::leak(Box::new(Pool::new()))
    }

    fn idle(pool: &Pool) -> (usize, usize) {
        let state = pool.state();
        let capacity: usize = state.idle.iter().map(Vec::capacity).sum();
        assert_eq!(capacity, state.idle_bytes);
        (state.idle.len(), state.used_bytes)
    }

    #[test]
    fn memory_is_used_again_when_the_last_slice_is_gone() {
        let pool = pool();
        let mut buffer = pool.take(SHORTEST);
        let at = buffer.as_ptr();
        buffer.extend_from_slice(b"hello");
        let all = buffer.freeze();
        let slice = all.slice(1..3);
        drop(all);
        assert_eq!((&slice[..], idle(pool)), (&b"el"[..], (0, SHORTEST)));
        drop(slice);
        assert_eq!(idle(pool), (1, 0));
        let again = pool.take(SHORTEST);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        // It is in use: another one is another one.
        assert_ne!(pool.take(SHORTEST).as_ptr(), at);
    }

    #[test]
    fn buffer_that_is_much_too_long_is_not_taken() {
        let pool = pool();
        drop(pool.take(8 * SHORTEST));
        drop(pool.take(7 * SHORTEST));
        assert_eq!(idle(pool), (2, 0));
        drop(pool.take(8 * SHORTEST - SHORTEST / 2));
        assert_eq!(idle(pool), (2, 0), "the long one fits");
    }

    #[test]
    fn little_lies_idle_when_nothing_is_in_use() {
        let pool = pool();
        let len = 1 << 18;
        let (kept, most) = (KEPT / len, MAX_IDLE / len);
        let take = |count: usize| -> Vec<_> { (0..count).map(|_| pool.take(len)).collect() };
        let mut used = take(2 * most);
        used.truncate(1);
        assert_eq!(idle(pool), (most, len));
        drop(used);
        assert_eq!(idle(pool), (kept, 0));
    }

    #[test]
    fn short_buffers_are_left_to_the_allocator() {
        let pool = pool();
        let mut short = pool.take(SHORTEST - 1);
        short.push(7);
        assert_eq!(short.freeze(), &[7][..]);
        assert_eq!(idle(pool), (0, 0));
    }
}
