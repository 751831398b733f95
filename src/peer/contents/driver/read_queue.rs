//! Blocks that wait to be read for other peers.
//!
//! A request may be as short as a byte, and lie anywhere. So only a few jobs
//! read at a time. Each takes a batch of what has been waiting, and reads
//! blocks that lie close together at once.

use std::collections::{BTreeSet, VecDeque};
use std::vec;

use bytes::Bytes;

use crate::content::{BlockRange, Geometry};
use crate::peer::contents::whole_reads::read_whole;
use crate::peer::swarm::LinkId;
use crate::storage::{Blob, StorageError};

/// How many blocks one job reads, and how many bytes of them (a single block
/// may always be read). The first block of a batch waits for the last.
const BATCH_BLOCKS: usize = 32;
const BATCH_BYTES: u64 = 1 << 20;

/// Blocks are read together if at most this many bytes lie between them: to
/// read a page takes less time than another read.
const GAP: u64 = 4 << 10;

/// A block is cut out of what was read if that is at most this many times as
/// long. A shorter block is copied; otherwise it would keep all that was read
/// in memory until its link takes it.
const CUT_OUT: usize = 4;

/// How many jobs read at a time, each on a thread that waits for the disk.
/// Requests that arrive meanwhile make full batches.
const MAX_READS: usize = 4;

/// A block that a link has asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockRequest {
    pub(super) link: LinkId,
    pub(super) block: BlockRange,
}

/// The result of reading a requested block.
pub(super) struct BlockRead {
    pub(super) request: BlockRequest,
    pub(super) result: Result<Bytes, StorageError>,
}

/// Blocks that wait to be read. The machine bounds how many.
#[derive(Default)]
pub(super) struct ReadQueue {
    waiting: VecDeque<BlockRequest>,
    /// How many batches are being read.
    running: usize,
}

impl ReadQueue {
    pub(super) fn push(&mut self, request: BlockRequest) {
        self.waiting.push_back(request);
    }

    pub(super) fn extend(&mut self, requests: Vec<BlockRequest>) {
        self.waiting.extend(requests);
    }

    /// The next batch to read, if another may be read now. Requests of links
    /// that have ended are dropped. Report the end of each batch with
    /// [`batch_ended`](Self::batch_ended).
    pub(super) fn next_batch(&mut self, is_up: impl Fn(LinkId) -> bool) -> Option<ReadBatch> {
        if self.running >= MAX_READS {
            return None;
        }
        let batch = ReadBatch::take(&mut self.waiting, is_up);
        if batch.blocks.is_empty() {
            return None;
        }
        self.running += 1;
        Some(batch)
    }

    pub(super) fn batch_ended(&mut self) {
        self.running -= 1;
    }
}

/// Blocks that are read by one job.
pub(super) struct ReadBatch {
    /// Those whose turn to be sent has come, and behind them those that are read ahead.
    blocks: Vec<BlockRequest>,
    /// How many are not read ahead.
    due: usize,
}

/// What came of a batch.
pub(super) struct BatchRead {
    pub(super) due: Vec<BlockRead>,
    pub(super) ahead: Vec<BlockRead>,
}

impl ReadBatch {
    /// Takes requests off a queue, as many as one job may read.
    fn take(waiting: &mut VecDeque<BlockRequest>, is_up: impl Fn(LinkId) -> bool) -> Self {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_BLOCKS
            && let Some(&request) = waiting.front()
        {
            if is_up(request.link) {
                bytes += u64::from(request.block.len);
                if bytes > BATCH_BYTES && !batch.is_empty() {
                    break;
                }
                batch.push(request);
            }
            waiting.pop_front();
        }
        Self::of(batch)
    }

    fn of(blocks: Vec<BlockRequest>) -> Self {
        let due = blocks.len();
        Self { blocks, due }
    }

    /// The links that it is read for.
    pub(super) fn links(&self) -> BTreeSet<LinkId> {
        let links = self.blocks.iter().map(|request| request.link);
        links.collect()
    }

    /// How many bytes more one job may read.
    pub(super) fn room(&self) -> u64 {
        let lens = self.blocks.iter().map(|r| u64::from(r.block.len));
        BATCH_BYTES.saturating_sub(lens.sum())
    }

    /// Reads these blocks as well, before their turn has come.
    pub(super) fn read_ahead(&mut self, blocks: Vec<BlockRequest>) {
        self.blocks.extend(blocks);
    }

    /// The blocks, cut out of the bytes of a content of a single chunk.
    pub(super) fn cut_out_of(&self, bytes: &Bytes) -> Vec<BlockRead> {
        let blocks = self.blocks.iter().map(|&request| {
            let (from, len) = (request.block.offset as usize, request.block.len as usize);
            let result = Ok(cut(bytes, from, len));
            BlockRead { request, result }
        });
        blocks.collect()
    }

    /// Reads all blocks, and returns them in the order of the requests.
    pub(super) async fn read(self, blob: &dyn Blob, geometry: Geometry) -> BatchRead {
        let mut results = vec![None; self.blocks.len()];
        let spans = self.spans(geometry);
        let parts: Vec<_> = spans.iter().map(ReadSpan::part).collect();
        // One by one only if one of them fails, so that the others do not.
        let mut together = match parts.len() {
            0 | 1 => None,
            _ => read_all(blob, &parts).await,
        };
        for (span, (offset, len)) in spans.into_iter().zip(parts) {
            let read = match together.as_mut().and_then(Iterator::next) {
                Some(read) => Ok(read),
                None => read_whole(blob, offset, len).await,
            };
            for at in span.blocks {
                let block = self.blocks[at].block;
                let from = (start_of(geometry, block) - span.start) as usize;
                let result = read
                    .as_ref()
                    .map(|read| cut(read, from, block.len as usize));
                results[at] = Some(result.map_err(Clone::clone));
            }
        }
        let blocks = self.blocks.into_iter().zip(results);
        let blocks = blocks.filter_map(|(request, result)| {
            let result = result?;
            Some(BlockRead { request, result })
        });
        let mut due: Vec<_> = blocks.collect();
        let ahead = due.split_off(self.due.min(due.len()));
        BatchRead { due, ahead }
    }

    /// Puts blocks together that lie close to each other.
    fn spans(&self, geometry: Geometry) -> Vec<ReadSpan> {
        let start = |at: usize| start_of(geometry, self.blocks[at].block);
        let mut order: Vec<_> = (0..self.blocks.len()).collect();
        order.sort_by_key(|&at| start(at));
        let mut spans: Vec<ReadSpan> = Vec::new();
        for at in order {
            let start = start(at);
            let end = start + u64::from(self.blocks[at].block.len);
            match spans.last_mut() {
                Some(span)
                    if start <= span.end + GAP && end.max(span.end) - span.start <= BATCH_BYTES =>
                {
                    span.end = span.end.max(end);
                    span.blocks.push(at);
                }
                _ => spans.push(ReadSpan {
                    start,
                    end,
                    blocks: vec![at],
                }),
            }
        }
        spans
    }
}

/// Where a block begins in the content.
fn start_of(geometry: Geometry, block: BlockRange) -> u64 {
    geometry.offset_of(block.chunk) + u64::from(block.offset)
}

/// Reads parts of a blob together. `None` if any of them is not read as it should be.
async fn read_all(blob: &dyn Blob, parts: &[(u64, usize)]) -> Option<vec::IntoIter<Bytes>> {
    let read = blob.read_parts(parts).await.ok()?;
    let lens = read.iter().map(Bytes::len);
    let whole = lens.eq(parts.iter().map(|(_, len)| *len));
    whole.then(|| read.into_iter())
}

/// A part of a content that is read at once.
struct ReadSpan {
    start: u64,
    end: u64,
    /// Which blocks of the batch lie in it.
    blocks: Vec<usize>,
}

impl ReadSpan {
    /// Its position, and its length.
    fn part(&self) -> (u64, usize) {
        (self.start, (self.end - self.start) as usize)
    }
}

/// A block out of what was read.
fn cut(read: &Bytes, from: usize, len: usize) -> Bytes {
    // A content of a single chunk that is shorter than it was asked for gives an empty
    // block here, which the machine refuses.
    let bytes = read.get(from..from + len).unwrap_or_default();
    match bytes.len() * CUT_OUT >= read.len() {
        true => read.slice_ref(bytes),
        false => Bytes::copy_from_slice(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ChunkIndex;

    fn block(link: u64, chunk: u32, offset: u32, len: u32) -> BlockRequest {
        let chunk = ChunkIndex(chunk);
        BlockRequest {
            link: LinkId(link),
            block: BlockRange { chunk, offset, len },
        }
    }

    #[test]
    fn blocks_that_lie_close_are_read_together() {
        let far = 100 + GAP as u32;
        let geometry = Geometry::of(2 << 30).unwrap();
        let chunk_len = geometry.chunk_len() as u32;
        let batch = ReadBatch::of(vec![
            block(1, 1, 50, 50),
            block(1, 0, far + 1, 10),
            block(2, 0, 0, 100),
            block(1, 0, 50, 20),
            block(3, 0, 2 * far + 11, 1),
            block(3, 1, 100, BATCH_BYTES as u32),
            block(3, 2, 0, 10),
            block(3, 1, chunk_len - 10, 10),
        ]);
        let spans: Vec<_> = batch
            .spans(geometry)
            .into_iter()
            .map(|span| (span.start, span.end, span.blocks))
            .collect();
        let (at, far) = (u64::from(chunk_len), u64::from(far));
        assert_eq!(
            spans,
            [
                (0, 100, vec![2, 3]),
                (far + 1, far + 11, vec![1]),
                (2 * far + 11, 2 * far + 12, vec![4]),
                (at + 50, at + 100, vec![0]),
                (at + 100, at + 100 + BATCH_BYTES, vec![5]),
                (2 * at - 10, 2 * at + 10, vec![7, 6]),
            ]
        );
    }

    #[test]
    fn batches_are_bounded_and_skip_links_that_have_ended() {
        let long = BATCH_BYTES as u32 / 4;
        let mut waiting: VecDeque<_> = (0..6).map(|at| block(at, at as u32, 0, long)).collect();
        waiting.extend((0..40).map(|at| block(1, 9, at, 1)));
        waiting.push_back(block(1, 8, 0, u32::MAX));
        let mut next = || ReadBatch::take(&mut waiting, |link| link != LinkId(2));
        let lens = [(); 6].map(|()| next().blocks.len());
        assert_eq!(lens, [4, 32, 9, 1, 0, 0]);
    }

    #[test]
    fn short_blocks_do_not_keep_the_whole_read_in_memory() {
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
