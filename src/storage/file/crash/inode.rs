//! A file of the disk: what a reader sees, and what is durable.

use bytes::Bytes;
use fastrand::Rng;

use super::super::timestamp::Timestamp;
use super::blocks::{Blocks, PAGE};

/// The unit in which a crash tears a write to a journal or a log, in bytes. Smaller than
/// on any disk, so that every field of a record is torn off the others.
const JOURNAL_UNIT: usize = 4;
const GARBAGE: [[u8; PAGE]; 2] = [[1; PAGE], [0xff; PAGE]];

#[derive(Debug, Clone)]
pub(super) struct Inode {
    cache: Blocks,
    durable: Blocks,
    /// What was not synced yet.
    pending: Vec<FileOp>,
    pub(super) modified: Timestamp,
    durable_modified: Timestamp,
    pub(super) locked: bool,
    /// The unit in which a crash tears a write, in bytes.
    unit: usize,
}

#[derive(Debug, Clone)]
pub(super) enum FileOp {
    Write { at: u64, bytes: Bytes },
    SetLen(u64),
}

impl Inode {
    /// A durable file with these bytes.
    pub(super) fn new(name: &str, bytes: &[u8], modified: Timestamp) -> Self {
        Self {
            cache: Blocks::of(bytes),
            durable: Blocks::of(bytes),
            pending: Vec::new(),
            modified,
            durable_modified: modified,
            locked: false,
            unit: match name.ends_with(".journal") || name.ends_with(".catalogue") {
                true => JOURNAL_UNIT,
                false => PAGE,
            },
        }
    }

    /// The bytes that a reader sees.
    pub(super) fn bytes(&self) -> &Blocks {
        &self.cache
    }

    pub(super) fn durable_bytes(&self) -> &Blocks {
        &self.durable
    }

    pub(super) fn change(&mut self, op: FileOp, modified: Timestamp) {
        op.apply(&mut self.cache);
        self.pending.push(op);
        self.modified = modified;
    }

    /// Makes the pending operations durable. What a failed sync dropped is in
    /// the cache only, so this cannot simply copy the cache.
    pub(super) fn sync(&mut self) {
        self.apply_pending();
        self.durable_modified = self.modified;
    }

    /// Makes half of the pending operations durable, and drops the others, which
    /// count as written from now on.
    pub(super) fn fail_sync(&mut self) {
        let half = self.pending.len() / 2;
        self.pending.truncate(half);
        self.apply_pending();
    }

    fn apply_pending(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    pub(super) fn crashed(&self, rng: &mut Rng) -> Self {
        let mut image = self.durable.clone();
        if !self.pending.is_empty() {
            let tears = rng.bool();
            for op in survivors(&self.pending, rng) {
                match tears && rng.bool() {
                    true => op.tear(&mut image, self.unit, rng),
                    false => op.apply(&mut image),
                }
            }
        }
        let modified = match rng.bool() {
            true => self.modified,
            false => self.durable_modified,
        };
        Self {
            cache: image.clone(),
            durable: image,
            pending: Vec::new(),
            modified,
            durable_modified: modified,
            locked: false,
            unit: self.unit,
        }
    }
}

impl FileOp {
    fn apply(&self, bytes: &mut Blocks) {
        match self {
            Self::Write { at, bytes: new } => bytes.put(*at as usize, new),
            Self::SetLen(len) => bytes.set_len(*len as usize),
        }
    }

    /// Applies some units of a write, and garbage in place of others where
    /// nothing was written before.
    fn tear(&self, bytes: &mut Blocks, unit: usize, rng: &mut Rng) {
        let Self::Write { at, bytes: new } = self else {
            return self.apply(bytes);
        };
        let mut at = *at as usize;
        for part in new.chunks(unit) {
            let hole = bytes.is_hole(at);
            match rng.u8(..3) {
                0 => bytes.put(at, part),
                1 if hole => bytes.put(at, &GARBAGE[rng.usize(..2)][..part.len()]),
                _ => {}
            }
            at += part.len();
        }
    }
}

/// The pending operations that a crash keeps, in the order in which they reach
/// the disk.
pub(super) fn survivors<T: Clone>(pending: &[T], rng: &mut Rng) -> Vec<T> {
    let mut kept = pending.to_vec();
    match rng.u8(..5) {
        0 => {}
        1 => kept.clear(),
        2 => kept.truncate(rng.usize(..=pending.len())),
        3 => kept.retain(|_| rng.bool()),
        _ => {
            kept.retain(|_| rng.u8(..4) > 0);
            rng.shuffle(&mut kept);
        }
    }
    kept
}
