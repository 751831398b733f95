//! Blocks that were read for a link before their turn to be sent has come.
//!
//! A link asks for many blocks, and the machine has them read one by one, as it sends
//! them. To read each takes a thread that has to be woken, and a look at the stamp of the
//! file. So whoever reads a block for a link also reads what the same link has asked for
//! next, and that is kept here. Only what was asked for is read, so what is read in vain
//! are blocks that are cancelled.
//!
//! Invariant: at most [`MAX_LINK`] bytes are kept, or being read, for one link, and
//! [`MAX_CONTENT`] for all links of a content.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::read_queue::{BlockRead, BlockRequest};
use crate::content::BlockRange;
use crate::peer::swarm::LinkId;

/// How many bytes may be kept for one link: four of the longest blocks, so that one read
/// in four has to wake a thread.
const MAX_LINK: u64 = 1 << 20;

/// How many bytes may be kept for all links of a content: as much as is on its way to
/// the network by default.
const MAX_CONTENT: u64 = 4 << 20;

/// What is read ahead for the links of one content.
#[derive(Default)]
pub(super) struct ReadAhead {
    links: BTreeMap<LinkId, Vec<Ahead>>,
    /// The lengths of all blocks in `links`.
    bytes: u64,
}

struct Ahead {
    block: BlockRange,
    state: State,
}

enum State {
    /// It is being read. Whether its turn has come meanwhile.
    Reading {
        due: bool,
    },
    Here(Bytes),
}

/// What is known of a block whose turn has come.
pub(super) enum Found {
    /// It is here.
    Here(BlockRead),
    /// It is being read, and returned when it [was](ReadAhead::read).
    Reading,
    Nothing,
}

impl ReadAhead {
    /// The turn of a block has come.
    pub(super) fn due(&mut self, request: BlockRequest) -> Found {
        let Some(blocks) = self.links.get_mut(&request.link) else {
            return Found::Nothing;
        };
        // Somebody may ask for the same block twice.
        let is_open = |ahead: &Ahead| !matches!(ahead.state, State::Reading { due: true });
        let same = |ahead: &Ahead| ahead.block == request.block && is_open(ahead);
        let Some(at) = blocks.iter().position(same) else {
            return Found::Nothing;
        };
        if let State::Reading { due } = &mut blocks[at].state {
            *due = true;
            return Found::Reading;
        }
        let ahead = blocks.remove(at);
        self.bytes -= u64::from(ahead.block.len);
        if blocks.is_empty() {
            self.links.remove(&request.link);
        }
        match ahead.state {
            State::Here(bytes) => Found::Here(BlockRead {
                request,
                result: Ok(bytes),
            }),
            State::Reading { .. } => Found::Nothing,
        }
    }

    /// Which of the blocks that a link has asked for next may be read now, at most so many
    /// bytes; they count as being read. What it does not ask for any more is given up.
    pub(super) fn begin(
        &mut self,
        link: LinkId,
        asked: impl Iterator<Item = BlockRange> + Clone,
        most: u64,
    ) -> Vec<BlockRequest> {
        self.keep(link, |block| asked.clone().any(|asked| asked == block));
        let blocks = self.links.entry(link).or_default();
        let mut room = MAX_LINK.saturating_sub(total(blocks));
        room = room.min(MAX_CONTENT.saturating_sub(self.bytes)).min(most);
        let mut begun = Vec::new();
        for block in asked {
            if blocks.iter().any(|ahead| ahead.block == block) {
                continue;
            }
            let Some(rest) = room.checked_sub(block.len.into()) else {
                break;
            };
            room = rest;
            self.bytes += u64::from(block.len);
            let state = State::Reading { due: false };
            blocks.push(Ahead { block, state });
            begun.push(BlockRequest { link, block });
        }
        if blocks.is_empty() {
            self.links.remove(&link);
        }
        begun
    }

    /// A block was read ahead, or could not be. It is returned if its turn has come.
    pub(super) fn read(&mut self, read: BlockRead) -> Option<BlockRead> {
        let BlockRead { request, result } = read;
        let blocks = self.links.get_mut(&request.link)?;
        let reading = |ahead: &Ahead| {
            ahead.block == request.block && matches!(ahead.state, State::Reading { .. })
        };
        let at = blocks.iter().position(reading)?;
        let due = matches!(blocks[at].state, State::Reading { due: true });
        match result {
            Ok(bytes) if !due => {
                blocks[at].state = State::Here(bytes);
                None
            }
            result => {
                let ahead = blocks.remove(at);
                self.bytes -= u64::from(ahead.block.len);
                if blocks.is_empty() {
                    self.links.remove(&request.link);
                }
                // What fails before its turn is read again then.
                due.then_some(BlockRead { request, result })
            }
        }
    }

    /// A link may not ask any more: only what is due is kept.
    pub(super) fn choked(&mut self, link: LinkId) {
        self.keep(link, |_| false);
    }

    /// A link is gone.
    pub(super) fn forget(&mut self, link: LinkId) {
        if let Some(blocks) = self.links.remove(&link) {
            self.bytes -= total(&blocks);
        }
    }

    /// Gives up what a link does not wait for.
    fn keep(&mut self, link: LinkId, is_asked: impl Fn(BlockRange) -> bool) {
        let Some(blocks) = self.links.get_mut(&link) else {
            return;
        };
        let before = total(blocks);
        blocks.retain(|ahead| {
            matches!(ahead.state, State::Reading { due: true }) || is_asked(ahead.block)
        });
        self.bytes -= before - total(blocks);
        if blocks.is_empty() {
            self.links.remove(&link);
        }
    }
}

fn total(blocks: &[Ahead]) -> u64 {
    let lens = blocks.iter().map(|ahead| u64::from(ahead.block.len));
    lens.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ChunkIndex;
    use crate::storage::StorageError;

    const LEN: u32 = 256 << 10;

    fn block(at: u32) -> BlockRange {
        let chunk = ChunkIndex(at);
        BlockRange {
            chunk,
            offset: 0,
            len: LEN,
        }
    }

    fn request(link: u64, at: u32) -> BlockRequest {
        let (link, block) = (LinkId(link), block(at));
        BlockRequest { link, block }
    }

    fn read(link: u64, at: u32) -> BlockRead {
        let request = request(link, at);
        let result = Ok(Bytes::from_static(b"block"));
        BlockRead { request, result }
    }

    fn failed(link: u64, at: u32) -> BlockRead {
        let result = Err(StorageError::ReadOnly);
        BlockRead {
            result,
            ..read(link, at)
        }
    }

    fn chunks(begun: &[BlockRequest]) -> Vec<u32> {
        begun.iter().map(|request| request.block.chunk.0).collect()
    }

    #[test]
    fn what_is_asked_next_is_read_up_to_the_bounds() {
        let mut ahead = ReadAhead::default();
        let most = MAX_LINK as u32 / LEN;
        let begun = ahead.begin(LinkId(1), (0..20).map(block), u64::MAX);
        assert_eq!(chunks(&begun), (0..most).collect::<Vec<_>>());
        assert!(
            ahead
                .begin(LinkId(1), (0..20).map(block), u64::MAX)
                .is_empty()
        );
        for link in 2..20 {
            ahead.begin(LinkId(link), (0..20).map(block), u64::MAX);
        }
        assert_eq!(ahead.bytes, MAX_CONTENT);
        ahead.forget(LinkId(2));
        assert_eq!(
            ahead.begin(LinkId(30), (0..20).map(block), u64::MAX).len(),
            most as usize
        );
    }

    #[test]
    fn block_is_given_once_when_its_turn_has_come() {
        let mut ahead = ReadAhead::default();
        ahead.begin(LinkId(1), (0..3).map(block), u64::MAX);
        assert!(ahead.read(read(1, 0)).is_none());
        assert!(matches!(ahead.due(request(1, 0)), Found::Here(_)));
        assert!(matches!(ahead.due(request(1, 0)), Found::Nothing));
        // Its turn comes while it is read.
        assert!(matches!(ahead.due(request(1, 1)), Found::Reading));
        assert!(matches!(ahead.due(request(1, 1)), Found::Nothing));
        assert!(ahead.read(read(1, 1)).is_some());
        assert!(ahead.read(failed(1, 2)).is_none());
        assert!(matches!(ahead.due(request(1, 2)), Found::Nothing));
        assert_eq!(ahead.bytes, 0);
    }

    #[test]
    fn what_is_not_asked_for_any_more_is_given_up() {
        let mut ahead = ReadAhead::default();
        ahead.begin(LinkId(1), (0..4).map(block), u64::MAX);
        ahead.read(read(1, 0));
        ahead.due(request(1, 1));
        // The first and the last were cancelled.
        let begun = ahead.begin(LinkId(1), [2, 7].into_iter().map(block), u64::MAX);
        assert_eq!(chunks(&begun), [7]);
        assert_eq!(ahead.bytes, 3 * u64::from(LEN));
        ahead.choked(LinkId(1));
        assert!(
            ahead
                .read(failed(1, 1))
                .is_some_and(|read| read.result.is_err())
        );
        assert!(ahead.read(read(1, 2)).is_none());
        assert!(ahead.links.is_empty());
        assert_eq!(ahead.bytes, 0);
    }
}
