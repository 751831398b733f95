//! What is read of a content: for other peers, for readers here, and to verify it.

use std::sync::Arc;

use bytes::Bytes;

use super::chunk_checks::Readable;
use super::read_ahead::Found;
use super::read_queue::{BlockRead, BlockRequest};
use super::{Driver, Publication, now};
use crate::content::{BlockRange, ChunkIndex};
use crate::error::DownloadError;
use crate::peer::swarm::ChunkBytes;
use crate::storage::{Blob, StorageError};

/// How many bytes a driver reads from memory before others have their turn: four of the
/// longest blocks, which takes a quarter of a millisecond. To wake another thread for each
/// takes longer than to copy it.
const READ_AT_ONCE: u64 = 1 << 20;

/// Short blocks that follow each other are read with one call, up to so many bytes of them:
/// one of the longest blocks. BitTorrent clients ask for 16 KiB at a time.
const READ_TOGETHER: u64 = 256 << 10;

impl Driver {
    /// Reads a block for a link, as soon as its chunk is known to be right. It
    /// is reported once, unless the link ends before.
    pub(super) fn read(&mut self, request: BlockRequest) {
        match self.checks.request(request) {
            Readable::Now => match self.ahead.due(request) {
                Found::Here(block) => self.block_read(block),
                Found::Reading => {}
                Found::Nothing => match self.read_now(request) {
                    Some(block) => self.block_read(block),
                    None => self.reads.push(request),
                },
            },
            Readable::Later => {}
            Readable::Never => {
                if let Some(open) = &self.open {
                    let chunk = request.block.chunk;
                    let result = Err(open.altered(&self.listing.content, chunk));
                    self.block_read(BlockRead { request, result });
                }
            }
        }
    }

    /// Reads a block at once, if it is in memory, and not much was read in that way since
    /// others had their turn.
    fn read_now(&mut self, request: BlockRequest) -> Option<BlockRead> {
        let BlockRequest { link, block } = request;
        let room = READ_AT_ONCE.checked_sub(self.read_at_once + u64::from(block.len))?;
        let room = room.min(READ_TOGETHER.saturating_sub(block.len.into()));
        let open = self.open.as_ref()?;
        // What the link asks for next is read with the same call.
        let ahead = match room {
            0 => Vec::new(),
            room => self
                .ahead
                .begin(link, block, self.swarm.asked_next(link), room),
        };
        let lens = ahead.iter().map(|next| next.block.len);
        let len = block.len + lens.sum::<u32>();
        let bytes = open.read_now(BlockRange { len, ..block });
        for next in ahead {
            let from = (next.block.offset - block.offset) as usize;
            let bytes = bytes.as_ref().map(|bytes| {
                let to = from + next.block.len as usize;
                bytes.slice(from..to)
            });
            // It fails again when its turn has come, or is read by then.
            let result = bytes.ok_or(StorageError::Unsupported {
                what: "reading at once",
            });
            let request = next;
            self.ahead.read(BlockRead { request, result });
        }
        let result = Ok(bytes?.slice(..block.len as usize));
        self.read_at_once += u64::from(len);
        Some(BlockRead { request, result })
    }

    /// Verifies what may be verified now.
    pub(super) fn start_checks(&mut self) {
        let Some(open) = &self.open else {
            return;
        };
        while let Some(chunk) = self.checks.next() {
            self.jobs.recheck(open.clone(), chunk);
        }
    }

    /// Reads what may be read now. Returns whether something was in memory, and is read
    /// already.
    pub(super) fn start_reads(&mut self) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        let mut at_once = Vec::new();
        while let Some(mut batch) = self.reads.next_batch(|link| self.links.is_open(link)) {
            match open.read_at_once(&batch) {
                Some(blocks) => {
                    self.reads.batch_ended();
                    at_once.extend(blocks);
                }
                None => {
                    for (link, last) in batch.last_blocks() {
                        let (asked, most) = (self.swarm.asked_next(link), batch.room());
                        batch.read_ahead(self.ahead.begin(link, last, asked, most));
                    }
                    self.jobs.read(open.clone(), batch);
                }
            }
        }
        let any = !at_once.is_empty();
        for block in at_once {
            self.block_read(block);
        }
        any
    }

    /// A block was read for a link, or could not be read.
    pub(super) fn block_read(&mut self, read: BlockRead) {
        let BlockRead {
            request: BlockRequest { link, block },
            result,
        } = read;
        if let Err(error) = &result {
            match error {
                // A stream has passed it at this very moment.
                StorageError::Unsupported { .. } => {
                    tracing::debug!(link = link.0, %error, "reading for a peer failed");
                }
                _ => tracing::warn!(link = link.0, %error, "reading for a peer failed"),
            }
            self.read_failed(block.chunk, error);
        }
        self.swarm.block_read(now(), link, block, result.ok());
    }

    /// A read failed, for another peer or for somebody here.
    pub(super) fn read_failed(&mut self, chunk: ChunkIndex, error: &StorageError) {
        let ends = match self.swarm.is_seeding() || self.is_resting() {
            // What the storage has is not this content any more, or cannot be
            // read. Others are to know, and ask somebody else.
            true => error.is_loss(),
            false => matches!(error, StorageError::Tampered { .. }),
        };
        if ends {
            self.storage_failed(Some(chunk), error.clone());
        }
    }

    /// Somebody here could not read the complete content from this blob.
    pub(super) fn unreadable(&mut self, blob: &Arc<dyn Blob>, error: StorageError) {
        let is_here = self.open.as_ref().is_some_and(|open| open.is_at(blob));
        if is_here && self.publication == Publication::Published {
            self.storage_failed(None, error);
        }
    }

    /// A chunk of an earlier download was read and hashed.
    pub(super) fn rechecked(&mut self, chunk: ChunkIndex, result: Result<bool, StorageError>) {
        let Some(open) = self.open.clone() else {
            return;
        };
        let result = result.map(|good| self.beside.checked(chunk, good));
        let check = self.checks.ended(chunk, &result);
        if check.by_machine {
            match &result {
                Ok(good) => {
                    self.swarm.chunk_rechecked(now(), chunk, *good);
                    self.watchers.hashed(chunk, *good);
                    self.show_progress();
                }
                Err(source) if self.swarm.wants(chunk) => {
                    self.storage_failed(Some(chunk), source.clone());
                }
                // Nobody needs it.
                Err(error) => {
                    tracing::warn!(%chunk, %error, "what is not wanted cannot be read");
                    self.swarm.chunk_rechecked(now(), chunk, false);
                }
            }
        }
        let error = match result {
            Ok(true) => return self.reads.extend(check.requests),
            Ok(false) => {
                tracing::warn!(%chunk, "the chunk was altered since it was written");
                open.altered(&self.listing.content, chunk)
            }
            Err(error) => error,
        };
        for request in check.requests {
            let result = Err(error.clone());
            self.block_read(BlockRead { request, result });
        }
    }

    /// Has what the readers want next fetched first.
    pub(super) fn follow_readers(&mut self) {
        if let Some(windows) = self.readers.take_windows() {
            // What is passed is taken back first, and gives its room to what may be asked
            // for next.
            self.swarm.set_read_windows(now(), &windows);
            if let Some(first) = windows.first() {
                self.jobs.passed(first.position);
            }
        }
    }

    /// Gives readers the bytes that are verified.
    pub(super) fn answer_readers(&mut self) {
        let Some(open) = &self.open else {
            return;
        };
        let geometry = open.geometry();
        let mut unchecked = Vec::new();
        let wishes = self.readers.take_wishes(|from, len| {
            let chunk = ChunkIndex((from / geometry.chunk_len()) as u32);
            let offset = from - geometry.offset_of(chunk);
            let len = (geometry.len_of(chunk) - offset).min(len as u64) as usize;
            match self.swarm.chunk_bytes(chunk) {
                ChunkBytes::Missing if self.swarm.wants(chunk) => None,
                ChunkBytes::Missing => Some(Part::NotWanted(chunk)),
                ChunkBytes::Verified(pieces) => Some(Part::Here(part_of(pieces, offset, len))),
                ChunkBytes::Stored if self.checks.is_unchecked(chunk) => {
                    unchecked.push(chunk);
                    None
                }
                ChunkBytes::Stored => Some(Part::Stored { from, len, chunk }),
            }
        });
        for (part, reply) in wishes {
            match part {
                // The reader may have gone.
                Part::Here(bytes) => _ = reply.send(Ok(bytes)),
                Part::NotWanted(chunk) => {
                    let id = self.listing.content.id;
                    _ = reply.send(Err(DownloadError::NotWanted { id, chunk }));
                }
                Part::Stored { from, len, chunk } => {
                    self.jobs.read_here(open.clone(), (from, len), chunk, reply);
                }
            }
        }
        if unchecked.is_empty() {
            return;
        }
        for chunk in unchecked {
            self.checks.prefer(chunk);
        }
        self.start_checks();
    }

    /// From now on readers do not need this driver.
    pub(super) fn complete_readers(&self) {
        if let Some(open) = &self.open {
            let bytes = open.complete(self.checks.unchecked());
            self.readers
                .complete(bytes.shared(&self.shared.read_faults));
        }
    }
}

/// A part of a content, for a reader.
enum Part {
    Here(Bytes),
    /// It is not here, and is not fetched.
    NotWanted(ChunkIndex),
    Stored {
        from: u64,
        len: usize,
        chunk: ChunkIndex,
    },
}

/// The first of the bytes of a chunk from an offset on that lie in one piece, at most
/// `len` of them.
fn part_of(pieces: &[Bytes], mut offset: u64, len: usize) -> Bytes {
    for piece in pieces {
        match offset.checked_sub(piece.len() as u64) {
            Some(rest) => offset = rest,
            None => {
                let start = offset as usize;
                return piece.slice(start..piece.len().min(start + len));
            }
        }
    }
    Bytes::new()
}
