//! Who reads contents that are asleep.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::content::ContentId;
use crate::peer::contents::readers::ReaderBoard;

/// With fewer boards, those that nobody can read at any more are not looked for.
const MIN_SWEPT: usize = 64;

/// The boards of contents that were read, as long as somebody can still read there.
#[derive(Default)]
pub(in crate::peer) struct ReadBoards {
    boards: HashMap<ContentId, Vec<Arc<ReaderBoard>>>,
    count: usize,
    /// With so many it is time to sweep: twice as many as last stayed.
    sweep_at: usize,
}

impl ReadBoards {
    /// The content is read at this board. Returns whether it is time to
    /// [sweep](Self::sweep).
    pub(in crate::peer) fn add(&mut self, id: ContentId, board: Arc<ReaderBoard>) -> bool {
        let boards = self.boards.entry(id).or_default();
        if !boards.iter().any(|other| Arc::ptr_eq(other, &board)) {
            boards.push(board);
            self.count += 1;
        }
        self.count >= self.sweep_at.max(MIN_SWEPT)
    }

    /// Drops the boards that nobody can read at any more. `left` is told when readers left
    /// one.
    pub(in crate::peer) fn sweep(&mut self, mut left: impl FnMut(&ContentId, Instant)) {
        self.boards.retain(|id, boards| {
            boards.retain(|board| {
                if let Some(at) = board.last_left() {
                    left(id, at);
                }
                Arc::strong_count(board) > 1
            });
            !boards.is_empty()
        });
        self.count = self.boards.values().map(Vec::len).sum();
        self.sweep_at = self.count * 2;
    }

    /// Whether somebody reads a content.
    pub(in crate::peer) fn is_read(&self, id: &ContentId) -> bool {
        let boards = self.boards.get(id);
        boards.is_some_and(|boards| boards.iter().any(|board| board.is_read()))
    }
}
