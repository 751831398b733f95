//! Reading for other peers: much in few steps, and nothing verified twice at a
//! time.
//!
//! What others ask for may be as short as a byte, and lie anywhere. So few jobs
//! read at a time, each a batch of what has been waiting, and blocks that lie
//! close together in one read. A chunk that an earlier download left behind, and that nobody has
//! looked at since, is verified first: once, for all blocks that wait for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::super::INLINE_HASH_LEN;
use super::super::share::off_thread;
use super::super::swarm::LinkId;
use super::{Done, Driver, now};
use crate::content::{BlockRange, ChunkIndex, Manifest};
use crate::storage::{Blob, StorageError};

/// The bounds of one job: so many blocks, and bytes of them (a single block may
/// always be read). The first of them waits for the last.
const BATCH_BLOCKS: usize = 32;
const BATCH_BYTES: u64 = 1 << 20;

/// Blocks are read together if no more than so many bytes lie between them: to
/// read a page costs less than another read.
const GAP: u64 = 4 << 10;

/// A block is cut out of what was read if that is no more than so many times
/// as long; a shorter one is copied, or it would keep all of it in memory until
/// its link takes it.
const CUT_OUT: usize = 4;

/// How many chunks are verified at a time so that they can be served: one is
/// read while another is hashed. So they take 32 MiB at the most.
const MAX_CHECKS: usize = 2;

/// How many jobs read at a time, so many threads wait for the disk. What is
/// asked for meanwhile makes full batches.
const MAX_READS: usize = 4;

/// A block for a link, and what became of it.
pub(super) struct ReadBlock {
    pub(super) link: LinkId,
    pub(super) block: BlockRange,
    pub(super) result: Result<Bytes, StorageError>,
}

/// Blocks that wait to be read: no more than the machine lets be under way.
#[derive(Default)]
pub(super) struct Reads {
    waiting: VecDeque<(LinkId, BlockRange)>,
    running: usize,
}

/// The verification of chunks that an earlier download left behind.
#[derive(Default)]
pub(super) struct Checks {
    /// Those under way or waiting, with the blocks that wait for them.
    wanted: BTreeMap<ChunkIndex, Check>,
    /// Those that wait for others to end.
    waiting: VecDeque<ChunkIndex>,
    running: usize,
    /// Those that turned out to be bad, until the machine has found out, too.
    bad: BTreeSet<ChunkIndex>,
}

#[derive(Default)]
struct Check {
    /// The machine has asked for it as well.
    asked: bool,
    readers: Vec<(LinkId, BlockRange)>,
}

impl Driver {
    /// Reads for a peer, as soon as the chunk is known to be good. The block is
    /// reported once, unless its link ends before.
    pub(super) fn read(&mut self, link: LinkId, block: BlockRange) {
        let chunk = block.chunk;
        let unchecked = self.unchecked.as_ref();
        if !unchecked.is_some_and(|unchecked| unchecked.contains(chunk)) {
            self.reads.waiting.push_back((link, block));
        } else if self.checks.bad.contains(&chunk) {
            let result = Err(self.altered(chunk));
            self.block_read(ReadBlock {
                link,
                block,
                result,
            });
        } else if let Some(check) = self.checks.wanted.get_mut(&chunk) {
            check.readers.push((link, block));
        } else {
            let (asked, readers) = (false, vec![(link, block)]);
            self.checks.wanted.insert(chunk, Check { asked, readers });
            self.checks.waiting.push_back(chunk);
        }
    }

    /// Starts what may be read now.
    pub(super) fn start_reads(&mut self) {
        self.start_checks();
        while self.reads.running < MAX_READS {
            let links = &self.links;
            let batch = next_batch(&mut self.reads.waiting, |link| links.contains_key(&link));
            if batch.is_empty() {
                return;
            }
            self.reads.running += 1;
            self.read_batch(batch);
        }
    }

    fn read_batch(&mut self, batch: Vec<(LinkId, BlockRange)>) {
        let runs: Vec<_> = runs_of(&batch)
            .into_iter()
            .map(|run| (self.offset_of(run.chunk) + u64::from(run.start), run))
            .collect();
        self.on_blob(move |blob| async move {
            let mut results = vec![None; batch.len()];
            for (offset, run) in runs {
                let read = blob.read_at(offset, (run.end - run.start) as usize).await;
                for at in run.blocks {
                    let block = batch[at].1;
                    let from = (block.offset - run.start) as usize;
                    let result = read
                        .as_ref()
                        .map(|read| cut(read, from, block.len as usize));
                    results[at] = Some(result.map_err(Clone::clone));
                }
            }
            let blocks = batch.into_iter().zip(results);
            Done::Read(
                blocks
                    .filter_map(|((link, block), result)| {
                        let result = result?;
                        Some(ReadBlock {
                            link,
                            block,
                            result,
                        })
                    })
                    .collect(),
            )
        });
    }

    /// A batch was read.
    pub(super) fn batch_read(&mut self, blocks: Vec<ReadBlock>) {
        self.reads.running -= 1;
        for block in blocks {
            self.block_read(block);
        }
    }

    /// A block was read for a peer, or could not be.
    fn block_read(&mut self, read: ReadBlock) {
        let ReadBlock {
            link,
            block,
            result,
        } = read;
        if let Err(error) = &result {
            tracing::warn!(content = %self.content.id, %error, "reading for a peer failed");
            let changed = matches!(
                error,
                StorageError::Changed { .. } | StorageError::Altered { .. }
            );
            if changed && self.swarm.is_seeding() {
                // It is another content now.
                self.storage_failed(Some(block.chunk), error.clone());
            }
        }
        self.swarm.block_read(now(), link, block, result.ok());
    }

    /// Reads and hashes what an earlier download left behind, for the machine.
    pub(super) fn recheck(&mut self, chunk: ChunkIndex) {
        match self.checks.wanted.get_mut(&chunk) {
            Some(check) => check.asked = true,
            None => {
                let (asked, readers) = (true, Vec::new());
                self.checks.wanted.insert(chunk, Check { asked, readers });
                self.checks.waiting.push_front(chunk);
            }
        }
    }

    fn start_checks(&mut self) {
        while self.checks.running < MAX_CHECKS
            && let Some(manifest) = self.swarm.manifest().cloned()
            && let Some(chunk) = self.checks.waiting.pop_front()
        {
            self.checks.running += 1;
            self.on_blob(move |blob| async move {
                let result = is_good(&*blob, manifest, chunk).await;
                Done::Checked { chunk, result }
            });
        }
    }

    /// A chunk was read and hashed.
    pub(super) fn checked(&mut self, chunk: ChunkIndex, result: Result<bool, StorageError>) {
        self.checks.running -= 1;
        let Check { asked, readers } = self.checks.wanted.remove(&chunk).unwrap_or_default();
        if result == Ok(false) {
            let content = self.content.id;
            tracing::warn!(%content, %chunk, "altered since it was written");
            if !asked {
                self.checks.bad.insert(chunk);
            }
        }
        // What is bad is missing, as soon as the machine knows it.
        if result == Ok(true) || asked && result.is_ok() {
            self.is_checked(chunk);
        }
        if asked {
            match &result {
                Ok(good) => {
                    self.swarm.chunk_rechecked(now(), chunk, *good);
                    self.show_progress();
                }
                Err(source) => self.storage_failed(Some(chunk), source.clone()),
            }
        }
        let error = match result {
            Ok(true) => return self.reads.waiting.extend(readers),
            Ok(false) => self.altered(chunk),
            Err(error) => error,
        };
        for (link, block) in readers {
            let result = Err(error.clone());
            self.block_read(ReadBlock {
                link,
                block,
                result,
            });
        }
    }

    /// A chunk of an earlier download was verified, or is missing again.
    fn is_checked(&mut self, chunk: ChunkIndex) {
        self.checks.bad.remove(&chunk);
        if let Some(unchecked) = &mut self.unchecked
            && unchecked.remove(chunk)
            && unchecked.is_empty()
        {
            self.unchecked = None;
        }
    }

    fn altered(&self, chunk: ChunkIndex) -> StorageError {
        let file = self.blob.as_ref().and_then(|blob| blob.file());
        let path = match file {
            Some(file) => file.path().to_path_buf(),
            None => self.content.name.as_str().into(),
        };
        StorageError::Altered { path, chunk }
    }
}

/// Takes blocks off the queue, for one job; those of links that are gone are
/// dropped.
fn next_batch(
    waiting: &mut VecDeque<(LinkId, BlockRange)>,
    is_up: impl Fn(LinkId) -> bool,
) -> Vec<(LinkId, BlockRange)> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_BLOCKS
        && let Some(&(link, block)) = waiting.front()
    {
        if is_up(link) {
            bytes += u64::from(block.len);
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            batch.push((link, block));
        }
        waiting.pop_front();
    }
    batch
}

/// What is read at once: a part of a chunk, and which blocks of a batch lie in
/// it.
struct Run {
    chunk: ChunkIndex,
    start: u32,
    end: u32,
    blocks: Vec<usize>,
}

/// Puts blocks together that lie close to each other.
fn runs_of(batch: &[(LinkId, BlockRange)]) -> Vec<Run> {
    let mut order: Vec<_> = (0..batch.len()).collect();
    order.sort_by_key(|&at| (batch[at].1.chunk, batch[at].1.offset));
    let mut runs: Vec<Run> = Vec::new();
    for at in order {
        let block = batch[at].1;
        let end = block.offset + block.len;
        match runs.last_mut() {
            Some(run)
                if run.chunk == block.chunk
                    && u64::from(block.offset) <= u64::from(run.end) + GAP
                    && u64::from(end.max(run.end) - run.start) <= BATCH_BYTES =>
            {
                run.end = run.end.max(end);
                run.blocks.push(at);
            }
            _ => runs.push(Run {
                chunk: block.chunk,
                start: block.offset,
                end,
                blocks: vec![at],
            }),
        }
    }
    runs
}

/// A block out of what was read.
fn cut(read: &Bytes, from: usize, len: usize) -> Bytes {
    // A storage that gives less than it was asked for gives nothing here, and
    // the machine knows what that means.
    let bytes = read.get(from..from + len).unwrap_or_default();
    match bytes.len() * CUT_OUT >= read.len() {
        true => read.slice_ref(bytes),
        false => Bytes::copy_from_slice(bytes),
    }
}

/// Whether a whole chunk is good, as it is read.
async fn is_good(
    blob: &dyn Blob,
    manifest: Arc<Manifest>,
    chunk: ChunkIndex,
) -> Result<bool, StorageError> {
    let range = manifest.geometry().range_of(chunk);
    let len = (range.end - range.start) as usize;
    let bytes = blob.read_at(range.start, len).await?;
    let verify = move || manifest.verify(chunk, [&bytes[..]]);
    Ok(match len <= INLINE_HASH_LEN {
        true => verify(),
        false => off_thread(verify).await,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(link: u64, chunk: u32, offset: u32, len: u32) -> (LinkId, BlockRange) {
        let chunk = ChunkIndex(chunk);
        let block = BlockRange { chunk, offset, len };
        (LinkId(link), block)
    }

    #[test]
    fn blocks_that_lie_close_are_read_together() {
        let far = 100 + GAP as u32;
        let batch = [
            block(1, 1, 50, 50),
            block(1, 0, far + 1, 10),
            block(2, 0, 0, 100),
            block(1, 0, 50, 20),
            block(3, 0, 2 * far + 11, 1),
            block(3, 1, 100, BATCH_BYTES as u32),
        ];
        let runs: Vec<_> = runs_of(&batch)
            .into_iter()
            .map(|run| (run.chunk.0, run.start, run.end, run.blocks))
            .collect();
        assert_eq!(
            runs,
            [
                (0, 0, 100, vec![2, 3]),
                (0, far + 1, far + 11, vec![1]),
                (0, 2 * far + 11, 2 * far + 12, vec![4]),
                (1, 50, 100, vec![0]),
                (1, 100, 100 + BATCH_BYTES as u32, vec![5]),
            ]
        );
    }

    #[test]
    fn batches_are_bounded_and_leave_out_links_that_are_gone() {
        let long = BATCH_BYTES as u32 / 4;
        let mut waiting: VecDeque<_> = (0..6).map(|at| block(at, at as u32, 0, long)).collect();
        waiting.extend((0..40).map(|at| block(1, 9, at, 1)));
        waiting.push_back(block(1, 8, 0, u32::MAX));
        let mut next = || next_batch(&mut waiting, |link| link != LinkId(2));
        let lens = [(); 6].map(|()| next().len());
        assert_eq!(lens, [4, 32, 9, 1, 0, 0]);
    }

    #[test]
    fn short_blocks_keep_nothing_else_in_memory() {
        let read = Bytes::from((0..=255).collect::<Vec<u8>>());
        let within = |bytes: &Bytes| read.as_ptr_range().contains(&bytes.as_ptr());
        let long = cut(&read, 64, 64);
        assert!(within(&long) && long == read[64..128]);
        let short = cut(&read, 64, 63);
        assert!(!within(&short) && short == read[64..127]);
        assert_eq!(cut(&read, 250, 7), "");
        assert_eq!(cut(&Bytes::new(), 0, 0), "");
    }
}
